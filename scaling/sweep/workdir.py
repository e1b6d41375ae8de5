"""A work directory: it belongs to one study, and one process at a time writes in it."""

import fcntl
import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ml_collections import ConfigDict

from scaling.config import identity
from scaling.files import differences, write_json
from scaling.records import read
from scaling.workshop import run_id

STUDY_FILE = "study.json"


class WorkdirError(ValueError):
    """A work directory that cannot be used for this study; the message says why and what to do."""


@contextmanager
def claim(workdir: Path, config: Mapping[str, Any]) -> Iterator[None]:
    """Hold `workdir` for the study with this plain config; on first use, write the config down.

    The lock is the operating system's, so a process that is killed holds nothing.

    Raises:
      WorkdirError: the directory holds another study (the differing fields are named), or another
      process
        is writing in it.
      OSError: it cannot be made or written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / ".lock").open("a")
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write in {workdir}: {error.strerror}; choose another with --workdir=DIR",
        ) from error
    with lock:
        if not _locked(lock):
            raise WorkdirError(
                f"another process is writing in {workdir}; wait for it, or use another --workdir"
            )
        found = read_study(workdir)
        # A study that was refused before its first run has made nothing that could be lost.
        if found is None or (found != config and not (workdir / "runs").exists()):
            write_json(workdir / STUDY_FILE, config)
        check_study(workdir, config)
        yield


def _locked(lock: IO[str]) -> bool:
    # `is_claimed` holds it for a moment.
    for _ in range(3):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return True
    return False


def is_claimed(workdir: Path) -> bool:
    """Whether a process holds the directory now, and so may be training in it."""
    path = workdir / ".lock"
    if not path.exists():
        return False
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def check_study(workdir: Path, config: Mapping[str, Any]) -> None:
    """Refuse a directory that holds runs of another study than this plain config's.

    Raises:
      WorkdirError: it does; the differing fields are named.
    """
    found = read_study(workdir)
    if found is None or identity(found) == identity(config) or not (workdir / "runs").exists():
        return
    lines = "\n  ".join(differences(identity(found), identity(config)))
    raise WorkdirError(
        f"{workdir} holds another study; it differs in (there -> here)\n  {lines}\n"
        "use another --workdir, or the config it was started with"
    )


def set_failed_aside(workdir: Path, cells: Sequence[ConfigDict]) -> list[str]:
    """Move the records of cells that failed to `failed/`, so that they are trained again; the ids.

    Those that diverged stay: the same run would diverge again.
    """
    moved = []
    for cell in cells:
        path = workdir / "records" / f"{run_id(cell)}.json"
        if path.exists() and read(path).status == "failed":
            folder = workdir / "failed"
            folder.mkdir(exist_ok=True)
            names = (folder / f"{path.stem}.{number}.json" for number in itertools.count(1))
            path.rename(next(name for name in names if not name.exists()))
            moved.append(path.stem)
    return moved


def read_study(workdir: Path) -> dict[str, Any] | None:
    """The plain config that the directory was started with, or None where there is none."""
    path = workdir / STUDY_FILE
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}")
    except ValueError as error:
        raise WorkdirError(
            f"{path} is damaged ({error}); bring it back from a copy, or use another --workdir"
        ) from error
    return found


def size_on_disk(workdir: Path) -> int:
    """Bytes of all files below."""
    return sum(os.path.getsize(path) for path in workdir.rglob("*") if path.is_file())
