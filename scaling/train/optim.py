"""Schedules and update rules as functions of traced hyper-parameters: one compiled step serves all
rates."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax import Array
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from scaling.axes import Axes, role
from scaling.model.parameterization import Scale

MOMENTUM = 0.95
"""Of Muon (Jordan et al. 2024) and SGD."""
OptimizerState = Any
Tree = TypeVar("Tree")


class Hyper(NamedTuple):
    """What may differ between runs of one compiled step; all float32 scalars.

    `learning_rate` is everything's, but under Muon the hidden matrices' alone: all else, which
    Adam updates there, has `vector_learning_rate`. `weight_decay` is independent of the rates: the
    share of a weight that is taken off in an update at the height of the schedule. Tokens count
    targets.
    """

    learning_rate: Array | float
    vector_learning_rate: Array | float
    weight_decay: Array | float
    clip_norm: Array | float
    warmup_tokens: Array | float
    cooldown_fraction: Array | float
    total_tokens: Array | float


def _rise(tokens: Array, hyper: Hyper) -> Array:
    return tokens / jnp.maximum(hyper.warmup_tokens, 1.0)


def _cooldown(tokens: Array, hyper: Hyper) -> Array:
    """What is left of the cooldown: more than 1 before it, 0 at the end."""
    length = jnp.maximum(hyper.cooldown_fraction * hyper.total_tokens, 1.0)
    return (hyper.total_tokens - tokens) / length


def _left(tokens: Array, hyper: Hyper) -> Array:
    """The share of the tokens after the warm-up that is still to come."""
    length = jnp.maximum(hyper.total_tokens - hyper.warmup_tokens, 1.0)
    return jnp.clip((hyper.total_tokens - tokens) / length, 0.0, 1.0)


def wsd(tokens: Array, hyper: Hyper) -> Array:
    """Warm-up, plateau, and a linear fall over the last `cooldown_fraction` of the tokens.

    min(tokens/warmup, 1, (total - tokens) / (cooldown_fraction * total)): Hu et al. 2024, section
    4.2, with the linear cooldown of Hagele et al. 2024, section 3. The plateau does not know the
    budget, so runs of one size and several budgets can share it.
    """
    return jnp.minimum(_rise(tokens, hyper), _cooldown(tokens, hyper))


def wsd_sqrt(tokens: Array, hyper: Hyper) -> Array:
    """Warm-up, plateau, and a fall as 1 - sqrt(share of the cooldown) (Hagele et al. 2024, eq.
    1)."""
    gone = jnp.clip(1.0 - _cooldown(tokens, hyper), 0.0, 1.0)
    return jnp.minimum(_rise(tokens, hyper), 1.0 - jnp.sqrt(gone))


def cosine(tokens: Array, hyper: Hyper) -> Array:
    """Warm-up, then half a cosine to zero over all that is left (Loshchilov and Hutter 2017, eq.
    5, without restarts)."""
    fall = 0.5 - 0.5 * jnp.cos(jnp.pi * _left(tokens, hyper))
    return jnp.minimum(_rise(tokens, hyper), fall)


def linear(tokens: Array, hyper: Hyper) -> Array:
    """Warm-up, then a straight line to zero over all that is left (Bergsma et al. 2025)."""
    return jnp.minimum(_rise(tokens, hyper), _left(tokens, hyper))


def constant(tokens: Array, hyper: Hyper) -> Array:
    """Warm-up, and no fall."""
    return _rise(tokens, hyper)


SCHEDULES: Mapping[str, Callable[[Array, Hyper], Array]] = {
    "wsd": wsd,
    "wsd_sqrt": wsd_sqrt,
    "cosine": cosine,
    "linear": linear,
    "constant": constant,
}
"""Multipliers of every rate after so many tokens; `Rule.schedule` keeps them within 0 and 1."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """An optimizer with its schedule: what of them is compiled in.

    `decays` are b1 and b2 of Adam (Kingma and Ba 2015) and Lion (Chen et al. 2023), `epsilon` is
    Adam's.
    """

    optimizer: str
    schedule_name: str
    decays: tuple[float, float]
    epsilon: float

    def schedule(self, tokens: Array, hyper: Hyper) -> Array:
        """The factor on every rate after `tokens`, from 0 to 1."""
        return jnp.clip(SCHEDULES[self.schedule_name](tokens, hyper), 0.0, 1.0)

    def directions(
        self, axes: Mapping[str, Axes], scales: Mapping[str, Scale]
    ) -> optax.GradientTransformation:
        """Update directions at a rate of one, for parameters by name.

        - adamw: m / (sqrt(v) + epsilon).
        - lion: the sign of an interpolation.
        - sgd: momentum.
        - adafactor: second moments factored over each matrix, clipped to a root mean square of one
          (Shazeer and Stern 2018, algorithm 4; departures: no first moment, and the rate is not
          relative to the weight's size).
        - muon: hidden matrices are orthogonalised, each layer's by itself, a weight of several
          input or output letters being one matrix; all else has adamw's.
        """
        if self.optimizer == "muon":
            hidden = {name: letters for name, letters in axes.items() if role(letters) == "hidden"}
            labels = {name: "muon" if name in hidden else "adam" for name in axes}
            rest = {name: scales[name] for name in axes if name not in hidden}
            return optax.partition({"muon": _muon(hidden), "adam": self._adam(rest)}, labels)
        if self.optimizer == "adamw":
            return self._adam(scales)
        if self.optimizer == "lion":
            return optax.scale_by_lion(b1=self.decays[0], b2=self.decays[1])
        if self.optimizer == "adafactor":
            return _adafactor(axes)
        if self.optimizer == "sgd":
            return optax.trace(decay=MOMENTUM)
        raise ValueError(f"optimizer {self.optimizer!r}; use adamw, muon, lion, adafactor or sgd")

    def update(
        self,
        params: dict[str, Array],
        directions: dict[str, Array],
        *,
        axes: Mapping[str, Axes],
        scales: Mapping[str, Scale],
        multiplier: Array,
        hyper: Hyper,
    ) -> dict[str, Array]:
        """params - multiplier * (rate * direction + weight_decay * params), for each weight with
        the factors of its scale.

        Weight decay is independent of the rate (Loshchilov and Hutter 2019, algorithm 2; Wortsman
        et al. 2024, section 3.2.1).
        """
        new: dict[str, Array] = {}
        for name, value in params.items():
            by_muon = self.optimizer == "muon" and role(axes[name]) == "hidden"
            split = self.optimizer == "muon" and not by_muon
            rate = hyper.vector_learning_rate if split else hyper.learning_rate
            factor = scales[name].rate
            if by_muon:
                # Singular values near one; this gives rows the size that keeps one rate good at
                # every width (Bernstein 2024).
                inputs, outputs = _matrix(axes[name], value.shape)
                factor *= math.sqrt(max(1.0, outputs / inputs))
            step = factor * rate * directions[name]
            if scales[name].decay:
                step = step + scales[name].decay * hyper.weight_decay * value
            new[name] = value - multiplier * step
        return new

    def _adam(self, scales: Mapping[str, Scale]) -> optax.GradientTransformation:
        b1, b2 = self.decays
        factors = {name: scale.epsilon for name, scale in scales.items()}
        kinds = sorted(set(factors.values()))
        rules = {kind: optax.scale_by_adam(b1=b1, b2=b2, eps=self.epsilon * kind) for kind in kinds}
        if len(kinds) == 1:
            return rules[kinds[0]]
        # As for Muon, what optax has masked stays as it is.
        return optax.partition(
            rules, lambda tree: {name: factors.get(name, leaf) for name, leaf in tree.items()}
        )


def _matrix(declared: Axes, shape: tuple[int, ...]) -> tuple[int, int]:
    """Inputs and outputs of a weight seen as one matrix, whatever is stacked before it."""
    sizes = shape[len(shape) - len(declared.letters) :]
    inputs = math.prod(sizes[: len(declared.inputs)])
    return inputs, math.prod(sizes) // inputs


def _muon(hidden: Mapping[str, Axes]) -> optax.GradientTransformation:
    def numbers(declared: Axes) -> MuonDimensionNumbers:
        inputs, outputs = len(declared.inputs), len(declared.outputs)
        # The axis before them is L, which makes a batch of matrices.
        return MuonDimensionNumbers(
            reduction_axis=tuple(range(1, 1 + inputs)),
            output_axis=tuple(range(1 + inputs, 1 + inputs + outputs)),
        )

    # optax masks the weights of the other rule; the callable sees what is left.
    return scale_by_muon(
        beta=MOMENTUM,
        weight_dimension_numbers=lambda tree: {
            name: numbers(hidden[name]) if name in hidden else leaf for name, leaf in tree.items()
        },
    )


def _adafactor(axes: Mapping[str, Axes]) -> optax.GradientTransformation:
    """Adafactor on each layer's matrix by itself, all its input and all its output letters
    merged."""
    one = optax.chain(
        optax.scale_by_factored_rms(min_dim_size_to_factor=2), optax.clip_by_block_rms(1.0)
    )

    def flat(name: str, value: Array) -> Array:
        declared = axes[name]
        if not declared.inputs:
            return value.reshape(-1, *value.shape[value.ndim - len(declared.letters) :])
        return value.reshape(-1, *_matrix(declared, value.shape))

    def init(params: dict[str, Array]) -> dict[str, Any]:
        return {name: jax.vmap(one.init)(flat(name, value)) for name, value in params.items()}

    def update(
        updates: dict[str, Array], state: dict[str, Any], params: dict[str, Array] | None = None
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        assert params is not None, "factored moments are shaped by the parameters"
        new_updates, new_state = {}, {}
        for name, gradient in updates.items():
            value, new_state[name] = jax.vmap(one.update)(
                flat(name, gradient), state[name], flat(name, params[name])
            )
            new_updates[name] = value.reshape(gradient.shape)
        return new_updates, new_state

    return optax.GradientTransformation(init, update)


def clip_scale(norm: Array, *, limit: Array | float) -> Array:
    """The factor that brings gradients of this global norm to `limit` at most (Pascanu et al.
    2013)."""
    return jnp.minimum(1.0, limit / jnp.maximum(norm, 1e-12))


def select(ok: Array, new: Tree, old: Tree) -> Tree:
    """`new` where `ok`, else `old`."""
    return jax.tree.map(lambda new, old: jnp.where(ok, new, old), new, old)
