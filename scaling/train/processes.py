"""The processes of one run: how they find each other, and how they are told to stop together."""

import atexit
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

HEARTBEAT_SECONDS = 30
"""A process that has been silent for so long is lost, and the others leave."""
MEETING_SECONDS = 30.0
WAIT_SECONDS = 0.2
PATIENCE_SECONDS = 7.0
"""How long a run has to hear a request to stop: then it must be gone within ten."""
GOODBYE = b"."
INTERRUPTED, BAD_INPUT = 130, 2
LOST = 69
"""Exit status of a process that has lost another (EX_UNAVAILABLE: run all of them again)."""
STOPPED = 75
"""Exit status of a run that was told to stop and kept its state (EX_TEMPFAIL: run it again)."""

log = logging.getLogger(__name__)


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
    try:
        jax.distributed.initialize(
            coordinator, processes, process, heartbeat_timeout_seconds=HEARTBEAT_SECONDS
        )
    except ValueError as error:
        raise ProcessError(
            f"no cluster says where its processes are ({error}); on a TPU slice, Slurm or GKE use "
            "--distributed alone, elsewhere --coordinator=HOST:PORT --processes=N --process=I"
        ) from error


def first() -> bool:
    """Whether this process writes what is written once."""
    return jax.process_index() == 0


def wait_for(path: Path) -> None:
    """Return when the first process has made `path`; should that be lost, so is this one."""
    while not path.exists():
        time.sleep(WAIT_SECONDS)


def leave_lost(reason: object) -> NoReturn:
    """Say that another process was lost and end this one, with no clean exit: that waits for
    all."""
    line = str(reason).partition("\n")[0]
    sys.stdout.flush()
    os.write(
        2,
        "another process of this run was lost; the same command goes on from the newest checkpoint "
        f"({line})\n".encode(),
    )
    os._exit(LOST)


class Together:
    """The processes of a run while it is under way: none is left waiting for one that is gone.

    Where `coordinator` is known every process holds a connection to the first, by which a death is
    noticed at once; JAX notices by itself after HEARTBEAT_SECONDS and ends the process with words
    of its own. A process that fails alone leaves without the clean exit, in which it and the others
    would wait for each other. For a single process all of this is nothing.
    """

    def __init__(self, *, coordinator: str | None) -> None:
        self._host = coordinator.rpartition(":")[0].strip("[]") if coordinator else None
        self._lines: list[socket.socket] = []

    def __enter__(self) -> "Together":
        if jax.process_count() > 1 and self._host is not None:
            try:
                self._lines = _meet(self._host)
            except OSError as error:
                log.warning(
                    "no connection between the processes (%s): one that is lost will be noticed "
                    "after %s s", error, HEARTBEAT_SECONDS,
                )  # fmt: skip
        for line in self._lines:
            threading.Thread(target=_watch, args=[line], name="peer", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if jax.process_count() == 1:
            return
        if isinstance(error, jax.errors.JaxRuntimeError):
            leave_lost(error)
        if error is not None:
            # Called before JAX's own: handlers that were registered last are called first.
            atexit.register(_leave, _status(error))
            return
        for line in self._lines:
            # The other may have said goodbye first, and be gone.
            try:
                line.sendall(GOODBYE)
            except OSError:
                continue


def _meet(host: str) -> list[socket.socket]:
    """Connections of the first process with every other, on a port that it tells them."""
    others = jax.process_count() - 1
    server = socket.create_server(("", 0)) if first() else None
    # The second number keeps strangers out, who knock at any port.
    mine = [server.getsockname()[1], secrets.randbits(31)] if server else [0, 0]
    port, word = (int(n) for n in multihost_utils.broadcast_one_to_all(np.array(mine, np.int32)))
    token = word.to_bytes(4)
    if server is None:
        line = socket.create_connection((host, port), timeout=MEETING_SECONDS)
        line.settimeout(None)
        line.sendall(token)
        return [line]
    lines: list[socket.socket] = []
    with server:
        server.settimeout(MEETING_SECONDS)
        while len(lines) < others:
            line = server.accept()[0]
            line.settimeout(MEETING_SECONDS)
            if line.recv(len(token), socket.MSG_WAITALL) != token:
                line.close()
                continue
            line.settimeout(None)
            lines.append(line)
    return lines


def _watch(line: socket.socket) -> None:
    try:
        word = line.recv(1)
    except OSError:
        word = b""
    if word != GOODBYE:
        leave_lost("its connection was closed")


def _status(error: BaseException) -> int:
    """What the command line makes of an error."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return BAD_INPUT if isinstance(error, ValueError | OSError) else 1


def _leave(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class StopRequest:
    """SIGTERM as a question: the first asks the run to keep its state and leave, the second leaves.

    A run that cannot hear it, because it compiles or waits for a disk, is ended after `PATIENCE`
    seconds: it goes on from its newest checkpoint, to the same bits. Among several processes all
    answer alike, at one step that none has passed; JAX listens for the signal there.
    """

    def __init__(self) -> None:
        self._asked = False
        self._calls = 0
        self._heard = threading.Event()
        self._before: object = signal.SIG_DFL
        self._woken, self._waker = -1, -1
        self._wakeup_before = -1

    def __enter__(self) -> "StopRequest":
        if jax.process_count() == 1:
            self._before = signal.signal(signal.SIGTERM, self._ask)
            # Python calls a handler between two of its own steps; this pipe is written to at once.
            self._woken, self._waker = os.pipe()
            os.set_blocking(self._waker, False)
            self._wakeup_before = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
            threading.Thread(target=self._wait, name="stop request", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._waker >= 0:
            self._heard.set()
            signal.set_wakeup_fd(self._wakeup_before)
            os.close(self._waker)
            signal.signal(signal.SIGTERM, self._before)  # type: ignore[arg-type]

    def _wait(self) -> None:
        """Give the run time to hear a request, and end it where it does not."""
        while True:
            number = os.read(self._woken, 1)
            if not number:
                os.close(self._woken)
                return
            if number[0] == signal.SIGTERM and not self._heard.wait(PATIENCE_SECONDS):
                os.write(
                    2,
                    b"stopped while it could not be asked (it compiled, or waited for a disk); the "
                    b"same command goes on from its newest checkpoint\n",
                )
                os._exit(STOPPED)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            os._exit(128 + number)
        self._asked = True

    def __call__(self) -> bool:
        """Whether to stop now; asked once after every dispatch, and while it is measured."""
        self._calls += 1
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(self._calls)
        if self._asked:
            self._heard.set()
        return self._asked
