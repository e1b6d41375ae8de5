"""Runs the cells of a grid in this process: trunks first, then what leaves them, packed."""

import functools
from collections.abc import Callable, Sequence

from ml_collections import ConfigDict
from rich.console import Console

from scaling.outcome import Branch
from scaling.records import Record
from scaling.run import run_packed, train_trunk
from scaling.sweep.groups import Pack, packs_of, trunks_of
from scaling.sweep.progress import CellProgress
from scaling.train.loop import Diverged, Stopped
from scaling.workshop import Workshop, run_id


def launch(
    cells: Sequence[ConfigDict],
    workshop: Workshop,
    *,
    console: Console,
    stop: Callable[[], bool] = lambda: False,
    trunks: bool = False,
    packed: int = 1,
) -> list[Record]:
    """Train every cell that has no record yet and return all records, in the order of the cells.

    With `trunks`, cells that differ in their budget alone train what they have in common once; with
    `packed`, as many cells of one shape and length train as one program. A cell that diverges is
    recorded as such and the sweep goes on.

    Raises:
      ConfigError: a cell that cannot be trained at all.
      Stopped: `stop` said so; what was trained is kept.
      OSError: a result could not be written; those before it are intact.
    """
    paths = {run_id(cell): workshop.workdir / "records" / f"{run_id(cell)}.json" for cell in cells}
    for cell in cells:
        if not paths[run_id(cell)].exists():
            # Asked before the first cell is paid for: does the text suffice for every one?
            workshop.stream(cell)
    # Of all cells, those that are done too: a grid has the same groups whenever it is gone on with.
    shared = trunks_of(cells) if trunks else {}
    packs = list(packs_of(cells, shared, packed=packed))
    done: dict[str, Record] = {}
    total = sum(cell.budget.flops for cell in cells)
    with CellProgress(console, cells=len(cells), flops=total) as progress:
        for pack in packs:
            flops = sum(cell.budget.flops for cell in pack.cells)
            there = all(paths[run_id(cell)].exists() for cell in pack.cells)
            watch = functools.partial(progress.tick, flops=flops)
            branches = None
            if pack.trunks is not None and not there:
                branches = _grow(pack, shared, workshop, console=console, watch=watch, stop=stop)
            records = run_packed(pack.cells, workshop, watch=watch, stop=stop, branches=branches)
            for cell, record in zip(pack.cells, records, strict=True):
                progress.finish(record, flops=cell.budget.flops, was_there=there)
                done[record.run_id] = record
            if len(done) < len(cells) and stop():
                raise Stopped(f"stopped after cell {len(done)} of {len(cells)}, as it was told")
    return [done[run_id(cell)] for cell in cells]


def _grow(  # type: ignore[no-untyped-def]
    pack: Pack, shared, workshop: Workshop, *, console: Console, watch, stop
) -> list[Branch] | None:
    """The branch points of a pack, their trunks trained as far; None where a trunk diverged, so
    that its runs train by themselves and say so in their records."""
    found = []
    for cell in pack.cells:
        trunk = shared[run_id(cell)]
        try:
            folder = train_trunk(
                trunk.cell, workshop, trunk=trunk.name, steps=trunk.steps, watch=watch, stop=stop
            )
        except Diverged as error:
            console.print(f"trunk {trunk.name} diverged: {error}", highlight=False)
            return None
        found.append(Branch(trunk.name, pack.step, folder))
    return found
