"""Claims: which process works on what, in a work directory that several share."""

import json
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

LEASE_SECONDS = 30.0
BEATS = 6
"""How often in a lease a worker shows that it lives."""


class Claim:
    """A task that is this worker's until it is released, or taken away because it fell silent.

    The worker counts up in its own claim file as long as it lives. It writes to the file that it
    has made, whatever has become of its name: a worker that was given up and wakes again revives
    nothing, and finds by `lost` that another works in its place.
    """

    def __init__(self, path: Path, handle: int, *, lease_seconds: float) -> None:
        self._path, self._handle = path, handle
        self._count = 0
        self._over = threading.Event()
        self._thread = threading.Thread(
            target=self._beat, args=[lease_seconds / BEATS], name="claim", daemon=True
        )

    def __enter__(self) -> "Claim":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        if not self.lost():
            self._path.unlink()
        os.close(self._handle)

    def lost(self) -> bool:
        """Whether the claim has been taken away."""
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            return True
        return (there.st_dev, there.st_ino) != _inode(self._handle)

    def _beat(self, seconds: float) -> None:
        while not self._over.wait(seconds):
            self._count += 1
            os.pwrite(self._handle, f"{self._count:020d}".encode(), 0)
            # On a network file system others see it no earlier.
            os.fsync(self._handle)


def _inode(handle: int) -> tuple[int, int]:
    found = os.fstat(handle)
    return found.st_dev, found.st_ino


class _Seen(NamedTuple):
    """What a claim file held when it last changed, by this observer's own clock."""

    content: bytes
    inode: int
    since: float


class Claims:
    """The claims of a work directory, as one worker sees them.

    A task is claimed by making a file that is not there, which one of any number of workers can do.
    A claim whose count has stood still for `lease_seconds` of the observer's own monotonic clock is
    stale: no clock is compared with another's, so that one that is an hour off steals nothing. A
    stale claim is renamed away, which again one alone can do, and then made anew.
    """

    def __init__(self, folder: Path, *, lease_seconds: float = LEASE_SECONDS) -> None:
        self._folder, self._lease = folder, lease_seconds
        self._seen: dict[str, _Seen] = {}
        self.owner = f"{socket.gethostname()[:16]}-{os.getpid()}-{secrets.token_hex(4)}"
        folder.mkdir(parents=True, exist_ok=True)

    def take(self, task: str) -> Claim | None:
        """A claim on `task`; None where another worker holds it and lives."""
        path = self._folder / f"{task}.claim"
        try:
            return self._make(path)
        except FileExistsError:
            if not self._stale(path):
                return None
        try:
            path.rename(path.with_name(f"{task}.{secrets.token_hex(4)}.stale"))
            return self._make(path)
        except (FileNotFoundError, FileExistsError):
            return None  # another was faster

    def _make(self, path: Path) -> Claim:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
        text = json.dumps({"owner": self.owner})
        os.write(handle, f"{0:020d}\n{text}\n".encode())
        self._seen.pop(path.name, None)
        return Claim(path, handle, lease_seconds=self._lease)

    def _stale(self, path: Path) -> bool:
        now = time.monotonic()
        try:
            content, inode = path.read_bytes(), path.stat().st_ino
        except FileNotFoundError:
            return False
        before = self._seen.get(path.name)
        if before is None or (before.content, before.inode) != (content, inode):
            self._seen[path.name] = _Seen(content, inode, now)
            return False
        return now - before.since > self._lease
