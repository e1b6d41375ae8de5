"""Submits the tasks of a grid to a cluster: each when it can begin, and again when it is lost."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ml_collections import ConfigDict
from rich.console import Console

from scaling.sweep.launch import check_data
from scaling.sweep.tasks import Task
from scaling.sweep.workers import POLL_SECONDS, published
from scaling.train.loop import Stopped
from scaling.workshop import Workshop

APPEAR_SECONDS = 60.0
"""How long a network file system may take to show what another machine has published."""


class Engine(Protocol):
    """A cluster, as a sweep needs it, and `where` it is in words; tasks are known by their
    names."""

    where: str

    def submit(self, tasks: Sequence[str]) -> None:
        """Queue tasks that can begin."""

    def ended(self) -> Mapping[str, str | None]:
        """Those that have ended since this was asked last; why, where it was not well."""

    def close(self) -> None:
        """Ask what runs to keep its state, take back what is queued, and leave the cluster."""


def drive(
    tasks: Sequence[Task],
    cells: Sequence[ConfigDict],
    workdir: Path,
    *,
    engine: Engine,
    retries: int,
    console: Console,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Have every task done, and show what is published; packs are submitted when their trunks are
    there, so that nothing waits on a machine. One that ends without its result is submitted again,
    at most `retries` times: it goes on from the newest state, wherever it is.

    Raises:
      Stopped: `stop` said so, or an interrupt; what ran has kept its state.
      ChildProcessError: a task has failed too often.
    """
    waiting = [task for task in tasks if not task.done(workdir)]
    running: dict[str, Task] = {}
    tries: Counter[str] = Counter()
    try:
        check_data(cells, Workshop(workdir))
        with published(cells, workdir, console) as show:
            while waiting or running:
                able = [task for task in waiting if task.ready(workdir)]
                if able:
                    waiting = [task for task in waiting if task not in able]
                    running |= {task.name: task for task in able}
                    engine.submit([task.name for task in able])
                time.sleep(POLL_SECONDS)
                for name, why in engine.ended().items():
                    task = running.pop(name)
                    if _appears(task, workdir, APPEAR_SECONDS if why is None else 0.0, stop):
                        continue
                    why = why or "its result does not appear here"
                    if stop():
                        break
                    tries[name] += 1
                    if tries[name] > retries:
                        raise ChildProcessError(
                            f"{name} ended {tries[name]} times without its result, the last time: "
                            f"{why}; mend that and run the same command again, or allow more with "
                            "--config.sweep.retries"
                        )
                    console.print(
                        f"{name}: {why}; submitted again", highlight=False, soft_wrap=True
                    )
                    waiting.append(task)
                show()
                if stop():
                    raise Stopped("stopped, as it was told; what ran keeps its state")
            show()
    except KeyboardInterrupt:
        raise Stopped("interrupted; what ran keeps its state") from None


def _appears(task: Task, workdir: Path, seconds: float, stop: Callable[[], bool]) -> bool:
    limit = time.monotonic() + seconds
    while not task.done(workdir) and time.monotonic() < limit and not stop():
        time.sleep(POLL_SECONDS)
    return task.done(workdir)
