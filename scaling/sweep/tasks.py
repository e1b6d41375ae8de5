"""Tasks of a sweep: trunks that cells share, and packs of cells that train as one program."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from scaling.cells import branch_steps, trunk_content
from scaling.config import hash_of, identity
from scaling.files import write_json
from scaling.inputs import compile_ahead
from scaling.outcome import Branch
from scaling.records import Record, read
from scaling.run import Watcher, run_packed, train_trunk
from scaling.sweep.cells import Cell, Cells, Shape
from scaling.sweep.hopeless import ByRivals, from_middle, rivals_of
from scaling.train.loop import Diverged
from scaling.workshop import Workshop


@dataclass(frozen=True)
class Trunk:
    """A run without a budget that others leave: its name, one of them, and after which updates."""

    name: str
    cell: Cell
    steps: tuple[int, ...]

    @property
    def shape(self) -> Shape:
        """That of its cells."""
        return self.cell.shape

    @property
    def lanes(self) -> int:
        """How many runs its program trains at once."""
        return 1

    @property
    def updates(self) -> int:
        """How far it is trained."""
        return max(self.steps)

    @property
    def tokens(self) -> int:
        """How far it is trained."""
        return self.updates * self.cell.batch_tokens

    @property
    def flops(self) -> float:
        """What it takes, by `scaling.counts.flops_6nd`."""
        return float(self.tokens * self.shape.flops_6nd_per_token)

    def folder(self, workdir: Path) -> Path:
        """Where its states are."""
        return workdir / "trunks" / self.name

    def diverged(self, workdir: Path) -> bool:
        """Whether it was tried, and there is nothing to leave."""
        return (self.folder(workdir) / "diverged.json").exists()

    def done(self, workdir: Path) -> bool:
        """Whether nothing is left to train."""
        return trunk_done(workdir, self.name, self.steps)

    def ready(self, workdir: Path) -> bool:
        """A trunk waits for nothing."""
        return True

    def compile_ahead(self, workshop: Workshop, pool: Executor) -> None:
        """Let `pool` compile what it needs."""
        compile_ahead([self.cell.config], workshop, pool, starts=True, measures=False)

    def execute(
        self, workshop: Workshop, *, home: Path, watch: Watcher, stop: Callable[[], bool]
    ) -> list[Record]:
        """Train it as far as it is needed; a trunk that diverges says so beside its states."""
        try:
            train_trunk(
                self.cell.config,
                workshop,
                trunk=self.name,
                steps=self.steps,
                watch=watch,
                stop=stop,
            )
        except Diverged as error:
            write_json(self.folder(workshop.workdir) / "diverged.json", {"reason": str(error)})
        return []


@dataclass(frozen=True)
class Pack:
    """Cells that train as one program, in this order; each with its trunk, or none of them, and
    after which update they leave it; and each with the alternatives that may say that it is
    hopeless."""

    cells: tuple[Cell, ...]
    trunks: tuple[Trunk, ...] | None
    step: int
    rivals: tuple[Sequence[Cell], ...]

    @property
    def run_ids(self) -> tuple[str, ...]:
        """Names of the runs."""
        return tuple(cell.run_id for cell in self.cells)

    @property
    def name(self) -> str:
        """The name of its run, or of all of them together."""
        if len(self.cells) == 1:
            return self.run_ids[0]
        return f"pack-{hash_of({'runs': self.run_ids})[:12]}"

    @property
    def shape(self) -> Shape:
        """That of its cells."""
        return self.cells[0].shape

    @property
    def lanes(self) -> int:
        """How many runs its program trains at once."""
        return len(self.cells)

    @property
    def updates(self) -> int:
        """How many are made, those of trunks left out."""
        return self.cells[0].tokens // self.cells[0].batch_tokens - self.step

    @property
    def tokens(self) -> int:
        """Tokens that are trained, those of trunks left out."""
        return sum(cell.tokens - self.step * cell.batch_tokens for cell in self.cells)

    @property
    def flops(self) -> float:
        """What it takes, by `scaling.counts.flops_6nd`."""
        return float(self.tokens * self.shape.flops_6nd_per_token)

    def done(self, workdir: Path) -> bool:
        """Whether every cell has its record."""
        return all((workdir / "records" / f"{name}.json").exists() for name in self.run_ids)

    def ready(self, workdir: Path) -> bool:
        """Whether the trunks are there that its cells leave."""
        return all(trunk.done(workdir) for trunk in self.trunks or ())

    def compile_ahead(self, workshop: Workshop, pool: Executor) -> None:
        """Let `pool` compile what its cells need."""
        configs = [cell.config for cell in self.cells]
        compile_ahead(configs, workshop, pool, starts=self.trunks is None, measures=True)

    def execute(
        self, workshop: Workshop, *, home: Path, watch: Watcher, stop: Callable[[], bool]
    ) -> list[Record]:
        """Train its cells, from the trunks in `home` or, where one has diverged, from the start."""
        branches = None
        if self.trunks is not None and not any(trunk.diverged(home) for trunk in self.trunks):
            branches = [
                Branch(trunk.name, self.step, trunk.folder(home) / "checkpoints")
                for trunk in self.trunks
            ]
        return run_packed(
            [cell.config for cell in self.cells],
            workshop,
            watch=watch,
            stop=stop,
            branches=branches,
            judge=ByRivals(self.cells, self.rivals, home) if all(self.rivals) else None,
        )

    def records(self, workdir: Path) -> list[Record]:
        """The records of its cells."""
        return [read(workdir / "records" / f"{name}.json") for name in self.run_ids]


Task = Trunk | Pack
Packing = int | Mapping[str, int]
"""How many cells may train as one: of all programs, or by `Shape.program`, 1 where it has none."""


def trunk_done(workdir: Path, name: str, steps: Iterable[int]) -> bool:
    """Whether nothing of a trunk is left to train: every state is there, or it has diverged."""
    folder = workdir / "trunks" / name
    states = (folder / "checkpoints" / str(step) / "manifest.json" for step in steps)
    return all(path.exists() for path in states) or (folder / "diverged.json").exists()


def tasks_of(
    cells: Sequence[ConfigDict],
    *,
    trunks: bool,
    packed: Packing = 1,
    only: Set[str] | None = None,
    early_stop: bool = False,
) -> list[Task]:
    """All that is to be trained, each pack after its trunks; the same for a grid whatever of it is
    done already. `packed` is how many cells may train as one program; with `early_stop` they may be
    given up (`scaling.sweep.hopeless`).

    With `only` some run ids: the packs that hold them, and their trunks as far as those need them.
    """
    planned = Cells.of(cells).planned
    shared = trunks_of(planned) if trunks else {}
    rivals = rivals_of(planned) if early_stop else {}
    packs = list(packs_of(planned, shared, packed=packed, rivals=rivals))
    if only is not None:
        packs = _narrowed([pack for pack in packs if not only.isdisjoint(pack.run_ids)])
    tasks: dict[str, Task] = {}
    for pack in packs:
        both: list[Task] = [*(pack.trunks or ()), pack]
        for task in both:
            tasks.setdefault(task.name, task)
    return list(tasks.values())


def pack_ids(tasks: Iterable[Task]) -> list[str]:
    """The runs that tasks make, in their order."""
    return [name for task in tasks if isinstance(task, Pack) for name in task.run_ids]


def _narrowed(packs: Sequence[Pack]) -> list[Pack]:
    """The same packs, with trunks that go no further than these leave them."""
    steps: dict[str, set[int]] = defaultdict(set)
    for pack in packs:
        for trunk in pack.trunks or ():
            steps[trunk.name].add(pack.step)
    shorter = {name: tuple(sorted(found)) for name, found in steps.items()}
    return [
        replace(pack, trunks=tuple(replace(t, steps=shorter[t.name]) for t in pack.trunks))
        if pack.trunks
        else pack
        for pack in packs
    ]


def trunks_of(cells: Sequence[Cell]) -> dict[str, Trunk]:
    """The trunks of cells that differ in their budget alone, by the run ids of those that leave
    them."""
    alike: dict[tuple[Any, ...], list[Cell]] = defaultdict(list)
    for cell in cells:
        if branch_steps(cell.content) is not None:
            alike[cell.trunk_key].append(cell)
    together: dict[str, list[Cell]] = defaultdict(list)
    for group in alike.values():
        # Shapes that are written differently may be the same.
        together[hash_of(trunk_content(identity(group[0].content)))] += group
    found: dict[str, Trunk] = {}
    for digest, group in together.items():
        if len({cell.tokens for cell in group}) < 2:
            continue
        width, seed = group[0].content["model"]["width"], group[0].content["seed"]
        steps = tuple(sorted({branch_steps(cell.content) or 0 for cell in group}))
        trunk = Trunk(f"w{width:03d}-s{seed}-{digest[:8]}", group[0], steps)
        found |= {cell.run_id: trunk for cell in group}
    return found


def evenly(count: int, most: int) -> int:
    """The least number at a time, of at most `most`, that needs no more turns for `count`."""
    return math.ceil(count / math.ceil(count / most))


def packs_of(
    cells: Sequence[Cell],
    trunks: dict[str, Trunk],
    *,
    packed: Packing,
    rivals: Mapping[str, Sequence[Cell]],
) -> Iterator[Pack]:
    """Cells of one program, length and branch point, at most `packed` at a time and about as many
    in each; the order is that of the first cell of each, and where they have `rivals` the middle of
    their rates comes first."""
    alike: dict[tuple[str, str, int, int], list[Cell]] = defaultdict(list)
    for cell in cells:
        left_at = (branch_steps(cell.content) or 0) if cell.run_id in trunks else 0
        alike[cell.shape.program, cell.shape.corpus, cell.tokens, left_at].append(cell)
    for (program, *_, step), group in alike.items():
        most = packed if isinstance(packed, int) else packed.get(program, 1)
        width = evenly(len(group), most)
        parts = [tuple(group[first : first + width]) for first in range(0, len(group), width)]
        if rivals:
            parts.sort(key=lambda part: min(from_middle(c, rivals.get(c.run_id, ())) for c in part))
        for part in parts:
            left = tuple(trunks[cell.run_id] for cell in part if cell.run_id in trunks)
            others = tuple(rivals.get(cell.run_id, ()) for cell in part)
            yield Pack(part, left or None, step, others)
