"""Runs the cells of a grid in this process: trunks first, then what leaves them, packed."""

import functools
from collections.abc import Callable, Iterable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor

import jax
from ml_collections import ConfigDict
from rich.console import Console

from scaling.records import Record
from scaling.sweep.cells import Cells
from scaling.sweep.limits import Limits
from scaling.sweep.progress import CellProgress
from scaling.sweep.tasks import Pack, Packing, Task, pack_ids, tasks_of
from scaling.train.loop import Stopped
from scaling.workshop import Workshop, run_id

EXECUTABLES = 3
"""Of a shape: what begins a run, what updates it and what measures it."""


def check_data(cells: Sequence[ConfigDict], workshop: Workshop) -> None:
    """Make what the cells read, and refuse a cell for which it does not suffice, before the first
    is paid for.

    Raises:
      ConfigError: the corpus has fewer tokens than a cell's budget.
    """
    for cell in cells:
        if not (workshop.workdir / "records" / f"{run_id(cell)}.json").exists():
            workshop.stream(cell)


class Ahead:
    """Compiles what tasks need while others train: the executables of the task that is next, side
    by side, and after them those of the next that needs others."""

    def __init__(self, tasks: Iterable[Task], workshop: Workshop) -> None:
        self._workshop = workshop
        firsts: dict[tuple[str, int, type[Task]], Task] = {}
        for task in tasks:
            firsts.setdefault(_kind(task), task)
        self._firsts, self._places = (
            list(firsts.values()),
            {kind: i for i, kind in enumerate(firsts)},
        )
        self._begun = 0
        self._pool = ThreadPoolExecutor(EXECUTABLES, thread_name_prefix="compile")

    def __enter__(self) -> "Ahead":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def compile(self, task: Task) -> None:
        """Begin with `task` and the one after it, where that is not done yet."""
        if jax.process_count() > 1:
            return  # all processes compile in one order: that in which they run
        until = self._places[_kind(task)] + 2
        for first in self._firsts[self._begun : until]:
            first.compile_ahead(self._workshop, self._pool)
        self._begun = max(self._begun, until)


def _kind(task: Task) -> tuple[str, int, type[Task]]:
    return task.shape.program, task.lanes, type(task)


def launch(
    cells: Sequence[ConfigDict],
    workshop: Workshop,
    *,
    console: Console,
    stop: Callable[[], bool] = lambda: False,
    trunks: bool = False,
    packed: Packing = 1,
    only: Set[str] | None = None,
    early_stop: bool = False,
    limits: Limits | None = None,
) -> list[Record]:
    """Train every cell that has no record yet and return all records, in the order of the cells.

    With `trunks`, cells that differ in their budget alone train what they have in common once; with
    `packed`, so many cells of one shape and length train as one program; with `only` some run ids,
    these alone and what is packed with them; with `early_stop` what is hopeless is given up; with
    `limits` as much as they admit. A cell that diverges is recorded as such and the sweep goes on.

    Raises:
      ConfigError: a cell that cannot be trained at all.
      Stopped: `stop` or a limit said so; what was trained is kept.
      OSError: a result could not be written; those before it are intact.
    """
    home = workshop.workdir
    tasks = tasks_of(cells, trunks=trunks, packed=packed, only=only, early_stop=early_stop)
    cells = Cells.of(cells).only(pack_ids(tasks))
    check_data(cells, workshop)
    done: dict[str, Record] = {}
    flops = {cell.run_id: cell.flops for cell in cells.planned}
    with (
        CellProgress(console, cells=len(cells), flops=sum(flops.values())) as progress,
        Ahead([task for task in tasks if not task.done(home)], workshop) as ahead,
    ):
        for task in tasks:
            ids = task.run_ids if isinstance(task, Pack) else ()
            there = task.done(home)
            if there and not ids:
                continue
            if limits is not None and not there:
                limits.admit(task, [one for one in tasks if not one.done(home)])
            if not there:
                ahead.compile(task)
            watch = functools.partial(progress.tick, flops=sum(flops[name] for name in ids))
            for record in task.execute(workshop, home=home, watch=watch, stop=stop):
                progress.finish(record, flops=flops[record.run_id], was_there=there)
                done[record.run_id] = record
            if len(done) < len(cells) and stop():
                raise Stopped(f"stopped after cell {len(done)} of {len(cells)}, as it was told")
    return [done[cell.run_id] for cell in cells.planned]
