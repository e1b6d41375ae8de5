"""Checkpoints: the whole TrainState through Orbax, so that an interrupted run goes on where it
was."""

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from scaling.files import writing
from scaling.train.loop import TrainState

ROOM = 4
"""Free space that a save asks for, in sizes of the state: Orbax writes aside and then renames."""


class Checkpoints:
    """The newest few states of one run, in one folder; a step appears whole or not at all.

    Use as a context manager: leaving it waits for what is being written.
    """

    def __init__(self, folder: Path, *, keep: int, identity: Mapping[str, Any]) -> None:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, cleanup_tmp_directories=True, enable_async_checkpointing=False
        )
        self._folder = folder.absolute()
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def latest(self) -> int | None:
        """The newest step that was saved whole, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState) -> None:
        """Write `state`; when this returns it is on disk.

        Raises:
          OSError: the disk is full, the folder read-only, ...; earlier states are intact.
        """
        step = int(state.step)
        if step == self.latest():
            return
        needed = ROOM * sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        with writing(self._folder / str(step)):
            # Asked first: a save that runs out of space midway leaves a screen of tracebacks.
            if shutil.disk_usage(self._folder).free < needed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            try:
                self._manager.save(step, args=ocp.args.StandardSave(state._asdict()))
            except ValueError as error:
                # TensorStore's errors, a full disk among them, reach Python as ValueError.
                raise OSError(str(error)) from error

    def restore(self, abstract: TrainState) -> TrainState | None:
        """Read a step back onto the shapes, types and devices of `abstract`."""
        step = self.latest()
        if step is None:
            return None
        restored = self._manager.restore(step, args=ocp.args.StandardRestore(abstract._asdict()))
        return TrainState(**restored)
