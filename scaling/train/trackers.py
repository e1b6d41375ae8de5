"""Mirrors of the journal in TensorBoard, Weights & Biases and trackio; none can stop a run."""

import importlib.util
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from absl import logging

QUEUED_LINES = 1000
"""Lines that may wait for a mirror before it is given up."""
CLOSING_SECONDS = 30.0
"""How long the end of a run waits for what is still queued."""
PROJECT = "scaling"


class TrackerError(ValueError):
    """A tracker is unknown or not installed; the message says which, and the remedy."""


class Run(NamedTuple):
    """What a mirror is told of the run: the same id at every resumption."""

    id: str
    folder: Path
    config: Mapping[str, Any]


class Mirror(Protocol):
    """One service's side; called from one thread alone."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Show the values of a step."""

    def close(self) -> None:
        """Show the rest, and leave."""


class Tracker:
    """A mirror in a thread of its own: training hands a line over and never waits.

    A mirror that fails, or falls `QUEUED_LINES` behind, is reported once and then left out.
    """

    def __init__(self, name: str, open_mirror: Callable[[], Mirror]) -> None:
        self._name, self._open = name, open_mirror
        self._lines: queue.Queue[tuple[int, Mapping[str, float]] | None]
        self._lines = queue.Queue(QUEUED_LINES)
        self._dropped = threading.Event()
        self._thread = threading.Thread(target=self._mirror, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Hand a line over; costs no more than that."""
        if self._dropped.is_set() or not values:
            return
        try:
            self._lines.put_nowait((step, values))
        except queue.Full:
            self._drop(f"it is {QUEUED_LINES} lines behind")

    def close(self) -> None:
        """Wait for the mirror to show what it was handed, but not for ever."""
        if self._dropped.is_set():
            return
        try:
            self._lines.put_nowait(None)
        except queue.Full:
            self._drop(f"it is {QUEUED_LINES} lines behind")
            return
        self._thread.join(CLOSING_SECONDS)
        if self._thread.is_alive():
            self._drop(f"it was not done {CLOSING_SECONDS:g} seconds after the run")

    def _drop(self, cause: str) -> None:
        if not self._dropped.is_set():
            self._dropped.set()
            logging.warning(
                "tracker %s is left out from here: %s; training goes on, metrics.jsonl has all",
                self._name, cause,
            )  # fmt: skip

    def _mirror(self) -> None:
        # Opening is part of it: a service that cannot be reached hangs there first. Anything that
        # a third party's client raises ends the mirror, and nothing else.
        try:
            mirror = self._open()
            while (line := self._lines.get()) is not None and not self._dropped.is_set():
                mirror.write(*line)
            mirror.close()
        except BaseException as error:
            self._drop(f"{type(error).__name__}: {error}")


class _TensorBoard:
    def __init__(self, run: Run) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(run.folder / "tensorboard"))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, run: Run) -> None:
        import wandb

        self._run = wandb.init(
            project=PROJECT,
            id=run.id,
            name=run.id,
            config=dict(run.config),
            dir=run.folder,
            resume="allow",
            settings=wandb.Settings(silent=True, console="off"),
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class _Trackio:
    def __init__(self, run: Run) -> None:
        import trackio

        self._run = trackio.init(
            project=PROJECT,
            name=run.id,
            config=dict(run.config),
            resume="allow",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


TRACKERS: Mapping[str, Callable[[Run], Mirror]] = MappingProxyType(
    {"tensorboard": _TensorBoard, "wandb": _Wandb, "trackio": _Trackio}
)
MODULES: Mapping[str, str] = MappingProxyType(
    {"tensorboard": "tensorboardX", "wandb": "wandb", "trackio": "trackio"}
)


def open_trackers(names: Sequence[str], run: Run) -> list[Tracker]:
    """One tracker for each name.

    Raises:
      TrackerError: a name is unknown, or its package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise TrackerError(
                f"runtime.trackers names {name!r}; use some of {', '.join(TRACKERS)}, or ()"
            )
        if importlib.util.find_spec(MODULES[name]) is None:
            raise TrackerError(
                f"runtime.trackers names {name!r}, but {MODULES[name]} is not installed; run "
                f"pip install 'scaling-laws[{name}]' or leave it out"
            )
    return [Tracker(name, lambda name=name: TRACKERS[name](run)) for name in names]  # type: ignore[misc]
