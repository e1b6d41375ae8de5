"""The arrays of a state by name, and whether two states are equal in every bit."""

from typing import Any

import jax
import numpy as np

Flat = dict[str, np.ndarray]


def flat(state: Any) -> Flat:
    """Named alike whether fields of a tuple or keys of a dictionary lead to an array."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in leaves
    }


def same(one: Flat, other: Flat) -> bool:
    """Equal in every bit."""
    return one.keys() == other.keys() and all(
        value.dtype == other[name].dtype and value.tobytes() == other[name].tobytes()
        for name, value in one.items()
    )
