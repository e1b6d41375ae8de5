"""Groups: which cells share a trunk, and which train as one program."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ml_collections import ConfigDict

from scaling import config as configs
from scaling.cells import branch_steps, trunk_content
from scaling.workshop import program_key, run_id


@dataclass(frozen=True)
class Trunk:
    """A run without a budget that others leave: its name, one of them, and after which updates."""

    name: str
    cell: ConfigDict
    steps: tuple[int, ...]


@dataclass(frozen=True)
class Pack:
    """Cells that train as one program, in this order; each with its trunk and branch point, or
    none."""

    cells: tuple[ConfigDict, ...]
    trunks: tuple[str, ...] | None
    step: int

    @property
    def name(self) -> str:
        """The name of its run, or of all of them together."""
        names = [run_id(cell) for cell in self.cells]
        return names[0] if len(names) == 1 else f"{len(names)} x {names[0]}"


def trunks_of(cells: Sequence[ConfigDict]) -> dict[str, Trunk]:
    """The trunks of cells that differ in their budget alone, by the run ids of those that leave
    them."""
    together: dict[str, list[ConfigDict]] = defaultdict(list)
    for cell in cells:
        if branch_steps(cell) is not None:
            content = trunk_content(configs.identity(configs.plain(cell)))
            together[configs.hash_of(content)].append(cell)
    found: dict[str, Trunk] = {}
    for digest, group in together.items():
        budgets = {cell.budget.tokens for cell in group}
        if len(budgets) < 2:
            continue
        width, seed = group[0].model.width, group[0].seed
        steps = tuple(sorted({branch_steps(cell) or 0 for cell in group}))
        trunk = Trunk(f"w{width:03d}-s{seed}-{digest[:8]}", group[0], steps)
        found |= {run_id(cell): trunk for cell in group}
    return found


def packs_of(
    cells: Sequence[ConfigDict], trunks: dict[str, Trunk], *, packed: int
) -> Iterator[Pack]:
    """Cells of one program, length and branch point, at most `packed` at a time; the order is that
    of the first cell of each."""
    alike: dict[tuple[str, ...], list[ConfigDict]] = defaultdict(list)
    for cell in cells:
        left_at = (branch_steps(cell) or 0) if run_id(cell) in trunks else 0
        corpus = configs.hash_of(configs.plain(cell.corpus))
        alike[program_key(cell), corpus, str(cell.budget.tokens), str(left_at)].append(cell)
    for (*_, step), group in alike.items():
        for first in range(0, len(group), packed):
            part = tuple(group[first : first + packed])
            left = [trunks[run_id(cell)].name for cell in part if run_id(cell) in trunks]
            yield Pack(part, tuple(left) if left else None, int(step))
