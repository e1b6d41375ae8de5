"""Several processes that share a work directory: each takes a task that is free, and publishes its
result whole."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from ml_collections import ConfigDict
from rich.console import Console

from scaling.records import read
from scaling.run import Watcher
from scaling.sweep import child
from scaling.sweep.cells import Cells
from scaling.sweep.claims import LEASE_SECONDS, Claim, Claims
from scaling.sweep.launch import check_data
from scaling.sweep.progress import CellProgress
from scaling.train.loop import Stopped
from scaling.workshop import Workshop

POLL_SECONDS = 0.5
KINDS = ("runs", "packs", "trunks")
"""Folders of a work directory in which an attempt leaves what it makes, records aside."""


class Work(Protocol):
    """A task, as workers need it (`scaling.sweep.tasks`)."""

    @property
    def name(self) -> str:
        """Unique in its work directory, and fit for a file's name."""

    def done(self, workdir: Path) -> bool:
        """Whether its result is there."""

    def ready(self, workdir: Path) -> bool:
        """Whether it can begin."""

    def execute(
        self, workshop: Workshop, *, home: Path, watch: Watcher, stop: Callable[[], bool]
    ) -> object:
        """Make its result in the workshop's own directory; what others have made is in `home`."""


class LostClaim(RuntimeError):
    """Another worker has taken the task, because this one was silent for too long."""


def work(
    tasks: Sequence[Work],
    workdir: Path,
    *,
    watch: Watcher,
    stop: Callable[[], bool] = lambda: False,
    lease_seconds: float = LEASE_SECONDS,
) -> int:
    """Do the tasks that are free, one after another, until none is left; how many were published.

    Every attempt is a work directory of its own, `attempts/<task>.<owner>`; it starts from the
    newest state of an attempt that was given up. A result is moved into `workdir` in one step, and
    the first one stays.

    Raises:
      Stopped: `stop` said so; the attempt that was under way is gone on with by whoever comes next.
    """
    claims = Claims(workdir / "claims", lease_seconds=lease_seconds)
    programs = Workshop(workdir)
    published = 0
    while left := [task for task in tasks if not task.done(workdir)]:
        if stop():
            raise Stopped(f"stopped with {len(left)} tasks left, as it was told")
        taken = next(_free(left, claims, workdir), None)
        if taken is None:
            time.sleep(POLL_SECONDS)
            continue
        task, claim = taken
        with claim:
            if not task.done(workdir):
                published += _carry_out(task, claim, claims.owner, programs, workdir, watch, stop)
    return published


def _free(tasks: Sequence[Work], claims: Claims, workdir: Path) -> Iterator[tuple[Work, Claim]]:
    for task in tasks:
        claim = claims.take(task.name) if task.ready(workdir) else None
        if claim is not None:
            yield task, claim


def _carry_out(
    task: Work,
    claim: Claim,
    owner: str,
    programs: Workshop,
    workdir: Path,
    watch: Watcher,
    stop: Callable[[], bool],
) -> int:
    attempt = begin(task, workdir, owner)

    def asked() -> bool:
        if claim.lost():
            raise LostClaim(f"{task.name} is another worker's now")
        return stop()

    try:
        task.execute(programs.elsewhere(attempt), home=workdir, watch=watch, stop=asked)
        asked()
    except LostClaim:
        shutil.rmtree(attempt, ignore_errors=True)
        return 0
    return publish(task, attempt, workdir)


def begin(task: Work, workdir: Path, owner: str) -> Path:
    """A directory for one attempt, with what earlier attempts at the task have proven."""
    attempt = workdir / "attempts" / f"{task.name}.{owner}"
    if attempt.exists():
        return attempt
    building = attempt.with_name(f".{attempt.name}")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    earlier = (workdir / "attempts").glob(f"{task.name}.*")
    states = [path for one in earlier for path in one.glob("*/*/checkpoints/*/manifest.json")]
    # What was begun without workers, or a trunk that is not long enough any more.
    states += [path for kind in KINDS for name in (task.name,)
               for path in (workdir / kind / name).glob("checkpoints/*/manifest.json")]  # fmt: skip
    if states:
        furthest = max(states, key=lambda path: int(path.parent.name))
        # It may still be written to, by a worker that was given up: copied, never moved.
        skip = shutil.ignore_patterns("*-tmp*", ".*")
        for kind in KINDS:
            for made in furthest.parents[4].glob(f"{kind}/*"):
                if furthest.parents[4] != workdir or made.name == task.name:
                    shutil.copytree(made, building / kind / made.name, ignore=skip)
    building.rename(attempt)
    return attempt


def publish(task: Work, attempt: Path, workdir: Path) -> int:
    """Move what an attempt has made into the work directory; 1 if it was the first, else 0.

    Journals and states are moved before the records: a record is there when all of its run is. A
    record is given its name by a link, which fails where one is already: the first stays.
    """
    if task.done(workdir):
        shutil.rmtree(attempt, ignore_errors=True)
        return 0
    for kind in KINDS:
        for made in sorted((attempt / kind).glob("*")):
            target = workdir / kind / made.name
            target.parent.mkdir(exist_ok=True)
            if target.exists():
                target.rename(attempt / f"replaced-{kind}-{made.name}")
            with contextlib.suppress(OSError):  # another attempt has published it just now
                made.rename(target)
    first = 0 if (attempt / "records").exists() else 1
    (workdir / "records").mkdir(exist_ok=True)
    for made in sorted((attempt / "records").glob("*.json")):
        with contextlib.suppress(FileExistsError):
            os.link(made, workdir / "records" / made.name)
            first = 1
    for path in (workdir / "attempts").glob(f"{task.name}.*"):
        shutil.rmtree(path, ignore_errors=True)
    return first


@contextlib.contextmanager
def published(
    cells: Sequence[ConfigDict], workdir: Path, console: Console
) -> Iterator[Callable[[], int]]:
    """A function that shows which of the cells have their records since it was called last, and
    returns how many."""
    left = {cell.run_id: cell.flops for cell in Cells.of(cells).planned}
    with CellProgress(console, cells=len(left), flops=sum(left.values())) as progress:

        def show(*, was_there: bool = False) -> int:
            paths = {name: workdir / "records" / f"{name}.json" for name in left}
            new = {name: path for name, path in paths.items() if path.exists()}
            for name, path in new.items():
                progress.finish(read(path), flops=left.pop(name), was_there=was_there)
            return len(new)

        show(was_there=True)
        yield show


def supervise(
    cells: Sequence[ConfigDict],
    workdir: Path,
    *,
    command: Callable[[int], Sequence[str]],
    workers: int,
    console: Console,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Start `workers` processes, `command(index)` each, and show what they publish; one that dies
    is started again, as long as results keep coming.

    Raises:
      Stopped: `stop` said so; all of them have kept their states.
      ChildProcessError: workers died without a result in between.
    """
    check_data(cells, Workshop(workdir))

    def begun(index: int) -> subprocess.Popen[bytes]:
        return child.start(command(index), child.part(index, workers))

    running = [begun(index) for index in range(workers)]
    deaths = 0
    try:
        with published(cells, workdir, console) as show:
            while any(worker.poll() is None for worker in running) or deaths:
                time.sleep(POLL_SECONDS)
                deaths = 0 if show() else deaths
                if stop():
                    raise Stopped("stopped, as it was told; every worker keeps its state")
                for index, worker in enumerate(running):
                    if worker.poll() in (None, 0):
                        continue
                    deaths += 1
                    if deaths > 2 * workers:
                        raise ChildProcessError(
                            f"workers died {deaths} times without a result (the last with status "
                            f"{worker.returncode}); see what they say above, and run the same "
                            "command again"
                        )
                    running[index] = begun(index)
                if all(worker.poll() == 0 for worker in running):
                    break
            show()
    finally:
        for worker in running:
            worker.terminate()
        for worker in running:
            worker.wait()
