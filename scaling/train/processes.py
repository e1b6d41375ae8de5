"""The processes of one run: how they find each other, and how they are told to stop together."""

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType, TracebackType

import jax
from jax.experimental import multihost_utils

HEARTBEAT_SECONDS = 30
"""A process that has been silent for so long is lost, and the others leave."""
WAIT_SECONDS = 0.2
STOPPED = 75
"""Exit status of a run that was told to stop and kept its state (EX_TEMPFAIL: run it again)."""
LOST = 69
"""Exit status of a process that has lost another (EX_UNAVAILABLE: run all of them again)."""
LOST_WORDS = (
    "another process of this run was lost; the same command goes on from the newest checkpoint"
)


class ProcessError(ValueError):
    """The processes of a run are described in a way that cannot be; the message says how."""


def join(*, coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Make this process one of several that train one run: call it before JAX is used.

    With no arguments TPU slices, Slurm, Open MPI and GKE are recognised by themselves.

    Raises:
      ProcessError: only some of the arguments, or numbers that do not fit.
      RuntimeError: the others were not found in time.
    """
    given = (coordinator, processes, process)
    if given.count(None) not in (0, 3):
        raise ProcessError(
            f"found coordinator {coordinator}, processes {processes}, process {process}; give all "
            "three, or none where a cluster tells them"
        )
    if processes is not None and process is not None and not 0 <= process < processes:
        raise ProcessError(f"process {process} of {processes}; count from 0 to {processes - 1}")
    jax.distributed.initialize(
        coordinator, processes, process, heartbeat_timeout_seconds=HEARTBEAT_SECONDS
    )


def first() -> bool:
    """Whether this process writes what is written once."""
    return jax.process_index() == 0


def wait_for(path: Path) -> None:
    """Return when the first process has made `path`; should it be lost, so is this one."""
    while not path.exists():
        time.sleep(WAIT_SECONDS)


class Together:
    """What several processes do in step: where one of them is lost, this one leaves at once.

    It says so and ends with status 69, without the clean exit, in which each waits for all.
    """

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, jax.errors.JaxRuntimeError) and jax.process_count() > 1:
            sys.stdout.flush()
            print(f"{LOST_WORDS} ({str(error).splitlines()[0]})", file=sys.stderr, flush=True)
            os._exit(LOST)


class StopRequest:
    """SIGTERM as a question: the first asks the run to keep its state and leave, the second leaves.

    Among several processes all answer alike, at one step that none has passed; JAX listens for the
    signal there.
    """

    def __init__(self) -> None:
        self._asked = False
        self._calls = 0
        self._before: object = signal.SIG_DFL

    def __enter__(self) -> "StopRequest":
        if jax.process_count() == 1:
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if jax.process_count() == 1:
            signal.signal(signal.SIGTERM, self._before)  # type: ignore[arg-type]

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            os._exit(128 + number)
        self._asked = True

    def __call__(self) -> bool:
        """Whether to stop now; asked once after every dispatch."""
        self._calls += 1
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(self._calls)
        return self._asked
