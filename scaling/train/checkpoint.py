"""Checkpoints: the whole TrainState through Orbax, proven by hashes, so that an interrupted run
goes on where it was."""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from scaling.files import differences, encode, write_json, writing
from scaling.train.program import TrainState

ROOM = 4
"""Free space that a save asks for, in sizes of the state: Orbax writes aside and then renames."""
MANIFEST = "manifest.json"
PROVEN = "proven.json"
"""Names the newest step that was ever proven: a manifest that is lost is then missed."""
SCHEMA = 1


class CheckpointError(ValueError):
    """No checkpoint can be resumed from; the message says what is wrong with which, and the
    remedy."""


class Checkpoints:
    """The newest few states of one run, in one folder; a step is there whole and proven, or not.

    A step is the files that Orbax writes in the background and, last of all, `manifest.json`: the
    step, what the run is (`identity`), and size and SHA-256 of every file. Without a manifest a
    step is what a kill left of a save, and is removed. `identity` must be what it was when a run is
    resumed, but for its `code_version`.

    `pinned` steps are kept whatever comes after them: others start from there.

    Use as a context manager: leaving it waits for what is being written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int,
        identity: Mapping[str, Any],
        pinned: Collection[int] = (),
    ) -> None:
        self._folder, self._keep, self._pinned = folder.absolute(), keep, frozenset(pinned)
        self._identity = json.loads(encode(dict(identity)))
        self._orbax = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._saving: Future[None] | None = None
        self.saved: int | None = None
        """The newest step that is known to be on disk."""

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            self._orbax.close()

    def save(self, state: TrainState) -> None:
        """Begin to write `state`; it is saved when `wait` or the next `save` has returned.

        Raises:
          OSError: this save cannot begin, or the one before it failed: the disk is full, the folder
            read-only, ...; earlier states are intact.
        """
        self.wait()
        step = int(np.ravel(state.step)[0])
        if step == self.saved:
            return
        path = self._folder / str(step)
        with writing(path):
            self._folder.mkdir(parents=True, exist_ok=True)
            needed = ROOM * sum(leaf.nbytes for leaf in jax.tree.leaves(state))
            # Asked first: a save that runs out of space midway leaves a screen of tracebacks.
            if shutil.disk_usage(self._folder).free < needed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if jax.default_backend() == "cpu":
                # What Orbax writes in the background is then the very memory of the state, which
                # the next step is given to overwrite.
                state = jax.tree.map(jnp.copy, state)
            with _as_os_error():
                self._orbax.save(path, args=ocp.args.StandardSave(state._asdict()), force=True)
        self._saving = self._thread.submit(self._commit, step)

    def wait(self) -> None:
        """Return when the save that is under way is on disk.

        Raises:
          OSError: it failed; earlier states are intact.
        """
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def _commit(self, step: int) -> None:
        path = self._folder / str(step)
        with writing(path):
            with _as_os_error():
                self._orbax.wait_until_finished()
            if jax.process_index() == 0:
                _prove(path, step, self._identity)
                write_json(self._folder / PROVEN, {"step": step})
                for old in sorted(set(self._steps()[: -self._keep]) - self._pinned):
                    # Its manifest first, so that a kill in between leaves no step half proven.
                    (self._folder / str(old) / MANIFEST).unlink()
                    shutil.rmtree(self._folder / str(old))
        self.saved = step

    def _steps(self) -> list[int]:
        """Steps that have a manifest, oldest first."""
        return sorted(int(path.parent.name) for path in self._folder.glob(f"*/{MANIFEST}")
                      if path.parent.name.isdigit())  # fmt: skip

    def restore(self, abstract: TrainState, *, step: int | None = None) -> TrainState | None:
        """The newest state that proves whole, or that of one `step`, on the shapes, types and
        devices of `abstract`; None where none was ever saved.

        A step that is not what its manifest says is renamed to `<step>.broken-<n>`, reported, and
        the one before it is used.

        Raises:
          CheckpointError: every step is broken, or the run was another when they were made.
        """
        if step is None:
            step = self._choose() if jax.process_index() == 0 else None
        elif fault := _fault(self._folder / str(step)):
            raise CheckpointError(
                f"{self._folder / str(step)} is not what was saved: {fault}; delete it, so that it "
                "is trained again"
            )
        if jax.process_count() > 1:
            chosen = -1 if step is None else step
            found = int(multihost_utils.broadcast_one_to_all(np.asarray(chosen)))
            step = None if found < 0 else found
        if step is None:
            return None
        restored = self._orbax.restore(
            self._folder / str(step), args=ocp.args.StandardRestore(abstract._asdict())
        )
        self.saved = step
        return TrainState(**restored)

    def _choose(self) -> int | None:
        """The newest step that proves whole; what is broken, or left over, is put aside."""
        self._clear()
        broken: list[str] = []
        for step in reversed(self._steps()):
            path = self._folder / str(step)
            fault = _fault(path)
            if fault is None:
                self._recognise(json.loads((path / MANIFEST).read_text(encoding="utf-8")))
                return step
            broken.append(self._put_aside(path, fault))
        broken = broken or sorted(path.name for path in self._folder.glob("*.broken-*"))
        if broken:
            lines = "\n  ".join(broken)
            raise CheckpointError(
                f"no checkpoint in {self._folder} is whole:\n  {lines}\n"
                "bring one back from a copy, or delete the folder to start the run anew"
            )
        return None

    def _put_aside(self, path: Path, fault: str) -> str:
        """Rename a step that is broken; say what it is now and why."""
        names = (self._folder / f"{path.name}.broken-{number}" for number in itertools.count(1))
        aside = path.rename(next(name for name in names if not name.exists()))
        logging.warning(
            "checkpoint %s is not what was saved: %s; it is kept as %s, and the one before it is "
            "used, if there is one", path, fault, aside.name,
        )  # fmt: skip
        return f"{aside.name}: {fault}"

    def _clear(self) -> None:
        """Remove what kills have left of saves, and of removals of older steps."""
        unmarked = [path for path in self._folder.glob("*")
                    if path.name.isdigit() and not (path / MANIFEST).exists()]  # fmt: skip
        if len(unmarked) > 1 and not self._steps():
            # A kill leaves half of one save: this many have lost what they had.
            for path in sorted(unmarked, key=lambda path: int(path.name)):
                self._put_aside(path, f"{MANIFEST} is missing")
            return
        whole, proven = self._steps(), self._proven()
        # One that is older than all that were to be kept is what is left of a removal.
        oldest = whole[0] if len(whole) >= self._keep else -1
        for path in [path for path in unmarked if oldest < int(path.name) <= proven]:
            unmarked.remove(path)
            self._put_aside(path, f"{MANIFEST} is missing")
        for path in (*unmarked, *self._folder.glob("*.orbax-checkpoint-tmp*")):
            logging.warning("removing %s: without %s it is half a save", path, MANIFEST)
            shutil.rmtree(path)

    def _proven(self) -> int:
        """The newest step that was ever proven, -1 where none was or that is not known."""
        try:
            found = json.loads((self._folder / PROVEN).read_text(encoding="utf-8"))["step"]
        except (OSError, ValueError, KeyError, TypeError):
            return -1
        return found if isinstance(found, int) else -1

    def _recognise(self, manifest: Mapping[str, Any]) -> None:
        found = dict(manifest["identity"])
        wanted = dict(self._identity)
        versions = found.pop("code_version", None), wanted.pop("code_version", None)
        if found != wanted:
            lines = "\n  ".join(differences(found, wanted))
            raise CheckpointError(
                f"the checkpoints in {self._folder} belong to another run; it differs in (there -> "
                f"here)\n  {lines}\nuse another work directory, or what it was started with"
            )
        if versions[0] != versions[1]:
            logging.warning(
                "the checkpoint was made by code %s, this is %s; the run goes on", *versions
            )


@contextlib.contextmanager
def _as_os_error() -> Any:
    """TensorStore's errors, a full disk among them, reach Python as ValueError or worse."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(str(error).splitlines()[0] if str(error) else repr(error)) from error


def _prove(path: Path, step: int, identity: Mapping[str, Any]) -> None:
    """Write the manifest of a step that is whole, once all of it has reached the disk."""
    files = {}
    for name in _names(path):
        _sync(path / name)
        files[name] = _described(path / name)
    for folder in {path, *(child for child in path.rglob("*") if child.is_dir())}:
        _sync(folder)
    content = {"schema": SCHEMA, "step": step, "identity": identity, "files": files}
    write_json(path / MANIFEST, content | {"sha256": hashlib.sha256(encode(content)).hexdigest()})
    _sync(path)
    _sync(path.parent)


def _fault(path: Path) -> str | None:
    """What is wrong with a step, None if nothing is."""
    try:
        content = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        digest = content.pop("sha256")
        if digest != hashlib.sha256(encode(content)).hexdigest():
            return f"{MANIFEST} has been changed"
        if str(content["step"]) != path.name:
            return f"it is step {content['step']}"
        wanted = content["files"]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        return f"{MANIFEST} cannot be read ({type(error).__name__})"
    found = set(_names(path))
    for name in sorted(found | set(wanted)):
        if name not in found:
            return f"{name} is missing"
        if name not in wanted:
            return f"{name} is not in the manifest"
        try:
            if wanted[name] != _described(path / name):
                return f"{name} differs in size or SHA-256"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return None


def _names(path: Path) -> list[str]:
    files = (child for child in path.rglob("*") if child.is_file())
    names = (child.relative_to(path).as_posix() for child in files)
    return sorted(name for name in names if name != MANIFEST)


def _described(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
