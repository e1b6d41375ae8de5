"""Runs the cells of a grid, one after another in this process."""

import functools
from collections.abc import Sequence

from ml_collections import ConfigDict
from rich.console import Console

from scaling.records import Record
from scaling.run import Workshop, run, run_id
from scaling.sweep.progress import CellProgress


def launch(cells: Sequence[ConfigDict], workshop: Workshop, *, console: Console) -> list[Record]:
    """Train every cell that has no record yet and return all records, in the order of the cells.

    A cell that diverges is recorded as such and the sweep goes on.

    Raises:
      ConfigError: a cell that cannot be trained at all.
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
            record = run(cell, workshop, watch=functools.partial(progress.tick, flops=flops))
            progress.finish(record, flops=flops, was_there=there)
            done.append(record)
    return done
