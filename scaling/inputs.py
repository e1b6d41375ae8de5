"""What the program of some cells is given, side by side where they are packed."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from scaling.data import loader
from scaling.outcome import packed_of
from scaling.train import optim
from scaling.workshop import Workshop


def batches_of(cells: Sequence[ConfigDict], workshop: Workshop) -> Callable[[int], loader.Batch]:
    """Batches by number, each run's from its own stream."""
    streams = [workshop.stream(cell) for cell in cells]
    if len(streams) == 1:
        return streams[0].batch

    def batch(step: int) -> loader.Batch:
        each = [stream.batch(step) for stream in streams]
        return {name: np.stack([one[name] for one in each]) for name in each[0]}

    return batch


def hyper_of(cell: ConfigDict) -> optim.Hyper:
    """What the compiled step of the cell's shape is told of this one run."""
    optimizer = cell.optimizer
    values = optim.Hyper(
        learning_rate=optimizer.learning_rate,
        vector_learning_rate=optimizer.vector_learning_rate,
        weight_decay=optimizer.weight_decay,
        clip_norm=optimizer.clip_norm,
        warmup_tokens=optimizer.warmup_tokens,
        cooldown_fraction=optimizer.cooldown_fraction,
        total_tokens=cell.budget.tokens,
    )
    return optim.Hyper(*(jnp.asarray(value, jnp.float32) for value in values))


def hypers_of(cells: Sequence[ConfigDict]) -> optim.Hyper:
    """Those of one cell, or of packed ones beside each other."""
    values = [hyper_of(cell) for cell in cells]
    return values[0] if len(cells) == 1 else jax.tree.map(lambda *v: jnp.stack(v), *values)


def compile_ahead(
    cells: Sequence[ConfigDict], workshop: Workshop, pool: Executor, *, starts: bool, measures: bool
) -> None:
    """Let `pool` compile what these cells need together, before they are trained: those that start
    from nothing, and those that are measured.

    Raises:
      ConfigError: as of `run_packed`.
    """
    first = cells[0]
    workshop.program(first, packed=packed_of(cells)).compile_ahead(
        pool,
        batch=batches_of(cells, workshop)(0),
        hyper=hypers_of(cells),
        starts=starts,
        measured=next(workshop.validation(first, limit=1)) if measures else None,
    )
