"""Schedules and update rules as functions of traced hyper-parameters: one compiled step serves all
rates."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from scaling.axes import Axes, role

MUON_MOMENTUM = 0.95
ADAM_DECAYS = (0.9, 0.95)


class Hyper(NamedTuple):
    """What may differ between runs of one compiled step; all float32 scalars.

    `matrix_rate` is the Muon rate of hidden matrices, `vector_rate` the Adam rate of everything
    else; tokens count targets.
    """

    matrix_rate: Array | float
    vector_rate: Array | float
    weight_decay: Array | float
    clip_norm: Array | float
    warmup_tokens: Array | float
    cooldown_fraction: Array | float
    total_tokens: Array | float


def warmup_stable_decay(tokens: Array, hyper: Hyper) -> Array:
    """Rate multiplier after `tokens`: a linear rise, a plateau, then a linear fall to zero.

    min(1, tokens/warmup) * min(1, (total - tokens) / (cooldown_fraction * total)), never negative;
    Hu et al. 2024, section 4.2, with the linear cooldown of Hagele et al. 2024, section 3. The
    plateau does not know the budget, so runs of one size and several budgets can share it.
    """
    rise = tokens / jnp.maximum(hyper.warmup_tokens, 1.0)
    fall = (hyper.total_tokens - tokens) / jnp.maximum(
        hyper.cooldown_fraction * hyper.total_tokens, 1.0
    )
    return jnp.clip(jnp.minimum(rise, fall), 0.0, 1.0)


def directions(axes: Mapping[str, Axes]) -> optax.GradientTransformation:
    """Unit-rate update directions: Muon on hidden matrices, Adam on embeddings, heads and vectors.

    Muon (Jordan et al. 2024) orthogonalises each layer's matrix by itself: the leading axis L of a
    stacked weight is a batch axis, and a weight of several input or output letters is one matrix.
    """
    labels = {
        name: "muon" if role(declared) == "hidden" else "adam" for name, declared in axes.items()
    }
    numbers = {name: _matrix_axes(axes[name]) for name, label in labels.items() if label == "muon"}
    # optax masks the weights of the other rule; the callable sees what is left.
    muon = scale_by_muon(
        beta=MUON_MOMENTUM,
        weight_dimension_numbers=lambda tree: {
            name: numbers.get(name, leaf) for name, leaf in tree.items()
        },
    )
    adam = optax.scale_by_adam(b1=ADAM_DECAYS[0], b2=ADAM_DECAYS[1])
    return optax.partition({"muon": muon, "adam": adam}, labels)


def _matrix_axes(declared: Axes) -> MuonDimensionNumbers:
    inputs, outputs = len(declared.inputs), len(declared.outputs)
    return MuonDimensionNumbers(
        reduction_axis=tuple(range(1, 1 + inputs)),
        output_axis=tuple(range(1 + inputs, 1 + inputs + outputs)),
    )


def update(
    params: dict[str, Array],
    updates: dict[str, Array],
    *,
    axes: Mapping[str, Axes],
    lengths: Mapping[str, int],
    multiplier: Array,
    hyper: Hyper,
) -> dict[str, Array]:
    """params - rate * (direction + weight_decay * params), each by the rate of its role.

    A Muon direction has singular values near 1; sqrt(max(1, outputs/inputs)) gives its rows the
    size that keeps one rate good at every width (Bernstein 2024). Weight decay applies to hidden
    matrices alone.
    """
    new: dict[str, Array] = {}
    for name, value in params.items():
        if role(axes[name]) == "hidden":
            inputs = math.prod(lengths[letter] for letter in axes[name].inputs)
            outputs = math.prod(lengths[letter] for letter in axes[name].outputs)
            rate = multiplier * hyper.matrix_rate
            direction = (
                math.sqrt(max(1.0, outputs / inputs)) * updates[name] + hyper.weight_decay * value
            )
        else:
            rate, direction = multiplier * hyper.vector_rate, updates[name]
        new[name] = value - rate * direction
    return new


def clip(gradients: dict[str, Array], *, norm: Array, limit: Array | float) -> dict[str, Array]:
    """Scale gradients down so that their global norm is at most `limit` (Pascanu et al. 2013)."""
    scale = jnp.minimum(1.0, limit / jnp.maximum(norm, 1e-12))
    return jax.tree.map(lambda gradient: gradient * scale, gradients)


OptimizerState = Any
