"""Checkpoints: what comes back is what was saved, and a full disk is said."""

import shutil
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.train.checkpoint import Checkpoints
from scaling.train.loop import TrainState


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def state(step: int) -> TrainState:
    weights = {"up": jax.random.normal(jax.random.key(step), (3, 5))}
    zero = jnp.zeros((), jnp.int32)
    moments = {"mu": jnp.full((3, 5), step + 0.5)}
    return TrainState(jnp.asarray(step, jnp.int32), weights, moments, zero, zero)


def test_what_comes_back_is_what_was_saved_and_the_oldest_goes(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, keep=2, identity={}) as checkpoints:
        assert checkpoints.latest() is None
        for step in (1, 2, 3):
            checkpoints.save(state(step))
    with Checkpoints(tmp_path, keep=2, identity={}) as checkpoints:
        assert checkpoints.latest() == 3
        restored = checkpoints.restore(jax.tree.map(jnp.zeros_like, state(3)))
    jax.tree.map(np.testing.assert_array_equal, restored, state(3))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.isdigit()) == ["2", "3"]


def test_a_full_disk_is_said_and_leaves_earlier_states_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Checkpoints(tmp_path, keep=2, identity={}) as checkpoints:
        checkpoints.save(state(1))
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(100, 100, 0))
        with pytest.raises(OSError, match=r"could not write .*/2: no space left .* free space"):
            checkpoints.save(state(2))
        assert checkpoints.latest() == 1
