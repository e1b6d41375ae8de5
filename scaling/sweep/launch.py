"""Runs the cells of a grid, one after another in this process."""

import functools
from collections.abc import Callable, Sequence

from ml_collections import ConfigDict
from rich.console import Console

from scaling.records import Record
from scaling.run import run
from scaling.sweep.progress import CellProgress
from scaling.train.loop import Stopped
from scaling.workshop import Workshop, run_id


def launch(
    cells: Sequence[ConfigDict],
    workshop: Workshop,
    *,
    console: Console,
    stop: Callable[[], bool] = lambda: False,
) -> list[Record]:
    """Train every cell that has no record yet and return all records, in the order of the cells.

    A cell that diverges is recorded as such and the sweep goes on.

    Raises:
      ConfigError: a cell that cannot be trained at all.
      Stopped: `stop` said so; what was trained is kept.
      OSError: a result could not be written; those before it are intact.
    """
    paths = [workshop.workdir / "records" / f"{run_id(cell)}.json" for cell in cells]
    for cell, path in zip(cells, paths, strict=True):
        if not path.exists():
            # Asked before the first cell is paid for: does the text suffice for every one?
            workshop.stream(cell)
    done: list[Record] = []
    total = sum(cell.budget.flops for cell in cells)
    with CellProgress(console, cells=len(cells), flops=total) as progress:
        for cell, path in zip(cells, paths, strict=True):
            flops, there = cell.budget.flops, path.exists()
            watch = functools.partial(progress.tick, flops=flops)
            record = run(cell, workshop, watch=watch, stop=stop)
            progress.finish(record, flops=flops, was_there=there)
            done.append(record)
            if len(done) < len(cells) and stop():
                raise Stopped(f"stopped after cell {len(done)} of {len(cells)}, as it was told")
    return done
