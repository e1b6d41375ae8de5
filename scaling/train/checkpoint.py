"""Checkpoints: the whole TrainState through Orbax, so that an interrupted run goes on where it
was."""

from pathlib import Path

import orbax.checkpoint as ocp

from scaling.train.loop import TrainState


class Checkpoints:
    """The newest few states of one run, in one folder; a step appears whole or not at all.

    Use as a context manager: leaving it waits for what is being written.
    """

    def __init__(self, folder: Path, *, keep: int) -> None:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, cleanup_tmp_directories=True, enable_async_checkpointing=False
        )
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def latest(self) -> int | None:
        """The newest step that was saved whole, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState) -> None:
        """Write `state`; when this returns it is on disk."""
        step = int(state.step)
        if step != self.latest():
            self._manager.save(step, args=ocp.args.StandardSave(state._asdict()))

    def restore(self, step: int, abstract: TrainState) -> TrainState:
        """Read a step back onto the shapes, types and devices of `abstract`."""
        restored = self._manager.restore(step, args=ocp.args.StandardRestore(abstract._asdict()))
        return TrainState(**restored)
