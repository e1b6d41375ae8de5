"""Files that are written whole or not at all, and strict JSON."""

import contextlib
import errno
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

LEAST_FREE_BYTES = 1 << 20


def encode(obj: object) -> bytes:
    """The bytes that `write_json` writes: strict JSON, one space of indent, UTF-8.

    Raises:
      ValueError: a number is NaN or infinite; the message gives its place.
    """
    for place, value in _leaves(obj, ""):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(
                f"{place or 'the value'} is {value}, which JSON cannot hold; "
                "write null and a reason"
            )
    return (json.dumps(obj, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def write_json(path: str | Path, obj: object) -> Path:
    """Write strict JSON; see `write_bytes`.

    Raises:
      ValueError: a number is NaN or infinite; nothing is written.
      OSError: the disk is full, the folder read-only, ...; earlier files are intact.
    """
    return write_bytes(path, encode(obj))


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Write so that `path` holds the old bytes or all of the new; the same bytes change nothing.

    Raises:
      OSError: the disk is full, the folder read-only, ...; earlier files are intact.
    """
    path = Path(path)
    with writing(path):
        if path.exists() and path.read_bytes() == data:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = ""
        try:
            # In the same folder, because a rename is atomic only within one file system.
            with tempfile.NamedTemporaryFile(
                dir=path.parent, prefix=f".{path.name}.", suffix=".tmp", delete=False
            ) as file:
                temporary = file.name
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    return path


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say of an error in the block what could not be written, and the remedy.

    Raises:
      OSError: the error, reworded.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT) or _full(path)
        remedy = "free space" if full else "make its folder writable or choose another"
        cause = "no space left on the device" if full else error.strerror or str(error)
        raise OSError(
            errno.ENOSPC if full else error.errno or errno.EIO,
            f"could not write {path}: {cause}; {remedy} and run the same command again; "
            "what was written earlier is intact",
        ) from error


def _full(path: Path) -> bool:
    """Whether the disk is full: some libraries lose the number of the error on its way."""
    folder = next((parent for parent in path.absolute().parents if parent.exists()), None)
    return folder is not None and shutil.disk_usage(folder).free < LEAST_FREE_BYTES


def _leaves(obj: object, place: str) -> Iterator[tuple[str, object]]:
    if isinstance(obj, Mapping):
        for key, value in obj.items():
            yield from _leaves(value, f"{place}.{key}" if place else str(key))
    elif isinstance(obj, list | tuple):
        for index, value in enumerate(obj):
            yield from _leaves(value, f"{place}[{index}]")
    else:
        yield place, obj


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The keys in which two plain JSON objects differ, as `"key: found -> wanted"`."""
    lines: list[str] = []
    for key in sorted({*found, *wanted}):
        old, new = (side.get(key) for side in (found, wanted))
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            lines.append(f"{prefix}{key}: {old} -> {new}")
    return lines
