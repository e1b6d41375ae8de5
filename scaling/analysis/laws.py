"""The table of laws: each entry says its equation, its parameters and where it comes from.

A fit moves in coordinates that a solver finds easy. With u and v the logs of params and
tokens less their means over the runs, the terms of a law meet in a log-sum-exp, so nothing
overflows, and a coefficient at the middle of the data does not trade against its exponent.
"""

import dataclasses
import functools
import hashlib
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from scaling.files import encode

SCHEMA = 1

Array = NDArray[np.float64]


class Centre(NamedTuple):
    """Means of log params and log tokens over the runs of a fit."""

    log_params: float
    log_tokens: float


class Optimum(NamedTuple):
    """The size and data that a law holds best at a budget, and the loss there."""

    params: Array
    tokens: Array
    loss: Array


@dataclass(frozen=True, kw_only=True)
class Form:
    """One law.

    Attributes:
      equation: L in nats per token, in the names of `units`.
      units: each parameter's name and unit, in the order of every array of parameters.
      lower, upper: bounds of the solver's coordinates; a fit that ends on one has not found a
        minimum.
      log_loss: (coordinates, u, v) -> log loss, in JAX, elementwise over u and v.
      starts: (u, v, log loss) -> start points [starts, parameters] of the solver.
      natural: (coordinates [..., parameters], centre) -> parameters [..., parameters].
      loss: (parameters [..., parameters], params [...], tokens [...]) -> loss [...].
      optimum: (parameters [..., parameters], flops [...]) -> the minimum of `loss` over
        6 * params * tokens = flops.
    """

    name: str
    equation: str
    reference: str
    units: Mapping[str, str]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    log_loss: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    starts: Callable[[Array, Array, Array], Array]
    natural: Callable[[Array, Centre], Array]
    loss: Callable[[Array, Array, Array], Array]
    optimum: Callable[[Array, Array], Optimum]

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters, in order."""
        return tuple(self.units)


def _chinchilla_log_loss(theta: jax.Array, u: jax.Array, v: jax.Array) -> jax.Array:
    e, a, b, alpha, beta = theta
    return jnp.logaddexp(jnp.logaddexp(a - alpha * u, b - beta * v), e)


def _chinchilla_starts(u: Array, v: Array, log_loss: Array) -> Array:
    """E at 4 shares of the least loss, the rest split 3 ways, 5 x 5 exponents: 300 starts."""
    least, middle = math.exp(log_loss.min()), math.exp(log_loss.mean())
    grid = itertools.product(
        (0.1, 0.4, 0.7, 0.95),
        (0.1, 0.5, 0.9),
        (0.1, 0.25, 0.5, 0.9, 1.5),
        (0.1, 0.25, 0.5, 0.9, 1.5),
    )
    return np.array(
        [
            (
                math.log(floor * least),
                math.log(share * (middle - floor * least)),
                math.log((1 - share) * (middle - floor * least)),
                alpha,
                beta,
            )
            for floor, share, alpha, beta in grid
        ]
    )


def _chinchilla_natural(theta: Array, centre: Centre) -> Array:
    e, a, b, alpha, beta = np.moveaxis(theta, -1, 0)
    return np.stack(
        [
            np.exp(e),
            np.exp(a + alpha * centre.log_params),
            np.exp(b + beta * centre.log_tokens),
            alpha,
            beta,
        ],
        axis=-1,
    )


def _chinchilla_loss(values: Array, params: Array, tokens: Array) -> Array:
    E, A, B, alpha, beta = np.moveaxis(values, -1, 0)
    loss: Array = E + A * params**-alpha + B * tokens**-beta
    return loss


def _chinchilla_optimum(values: Array, flops: Array) -> Optimum:
    """Hoffmann et al. 2022, equation 4: params = G (flops/6)^(beta/(alpha+beta))."""
    _, A, B, alpha, beta = np.moveaxis(values, -1, 0)
    params = (alpha * A / (beta * B) * (flops / 6) ** beta) ** (1 / (alpha + beta))
    tokens = flops / 6 / params
    return Optimum(params, tokens, _chinchilla_loss(values, params, tokens))


LAWS: Mapping[str, Form] = {
    form.name: form
    for form in (
        Form(
            name="chinchilla",
            equation="L = E + A/params^alpha + B/tokens^beta",
            reference="Hoffmann et al. 2022, equation 2 and section 3.3 (Approach 3)",
            units={
                "E": "nats per token",
                "A": "nats per token x params^alpha",
                "B": "nats per token x tokens^beta",
                "alpha": "1",
                "beta": "1",
            },
            # E, and the nats that size and data cost at the middle of the runs, from 1e-4 to 1e3.
            lower=(math.log(1e-4), math.log(1e-4), math.log(1e-4), 1e-2, 1e-2),
            upper=(math.log(1e3), math.log(1e3), math.log(1e3), 4.0, 4.0),
            log_loss=_chinchilla_log_loss,
            starts=_chinchilla_starts,
            natural=_chinchilla_natural,
            loss=_chinchilla_loss,
            optimum=_chinchilla_optimum,
        ),
    )
}

REMEDY = "make one with: scaling fit RUNS"


class FitError(ValueError):
    """Runs or a file that cannot give a law; the message says what was found and the remedy."""


class Interval(NamedTuple):
    """Lower and upper ends, in nats per token."""

    low: Array
    high: Array


@dataclass(frozen=True, kw_only=True)
class Law:
    """A fitted law: the content of law.json, and predictions from it.

    `params`, `stderr`, `interval_95` are keyed by the law's parameters, in the units of its `Form`;
    the other fields are plain JSON objects as documented with `fit`, `isoflop` and `frontier`.
    """

    law: str
    params: Mapping[str, float]
    stderr: Mapping[str, float]
    interval_95: Mapping[str, list[float]]
    objective: Mapping[str, Any]
    n_runs: int
    dropped: list[dict[str, str]]
    convention: Mapping[str, str]
    diagnostics: Mapping[str, Any]
    isoflop: Mapping[str, Any]
    frontier: Mapping[str, Any]
    bootstrap: Mapping[str, Any]

    @property
    def form(self) -> Form:
        """The entry of the table of laws."""
        return LAWS[self.law]

    @property
    def values(self) -> Array:
        """The parameters in the order of `form.parameters`."""
        return np.array([self.params[name] for name in self.form.parameters])

    @functools.cached_property
    def samples(self) -> Array:
        """Bootstrap samples of the parameters [samples, parameters]."""
        return np.stack([self.bootstrap["samples"][name] for name in self.form.parameters], axis=-1)

    @property
    def sha256(self) -> str:
        """Hash of the bytes that `write_json` writes for this law."""
        return hashlib.sha256(encode(self.to_json())).hexdigest()

    def predict(self, params: ArrayLike, tokens: ArrayLike) -> Array:
        """The loss, nats per token, of `params` parameters trained on `tokens` tokens."""
        params, tokens = np.asarray(params, np.float64), np.asarray(tokens, np.float64)
        return self.form.loss(self.values, params, tokens)

    def predict_interval(
        self, params: ArrayLike, tokens: ArrayLike, *, level: float = 0.9
    ) -> Interval:
        """The interval that holds the loss of one more run with probability `level`.

        Per bootstrap sample: its law's log loss plus normal noise of its own residual standard
        deviation. Where the law is near linear in its parameters that is Student's t prediction
        interval.
        """
        params, tokens = np.broadcast_arrays(
            np.asarray(params, np.float64), np.asarray(tokens, np.float64)
        )
        axes = (slice(None),) + (None,) * params.ndim
        log_loss = np.log(self.form.loss(self.samples[(*axes, slice(None))], params, tokens))
        # Quantiles in place of random draws: the same law always gives the same interval.
        noise = scipy.stats.norm.ppf((np.arange(25) + 0.5) / 25)
        spread = np.array(self.bootstrap["residual_sd"])[axes]
        drawn = np.concatenate([log_loss + spread * z for z in noise])
        low, high = np.exp(np.quantile(drawn, (0.5 - level / 2, 0.5 + level / 2), axis=0))
        return Interval(low, high)

    def optimum(self, flops: ArrayLike) -> Optimum:
        """The compute-optimal size, data and loss at 6 * params * tokens = `flops`."""
        return self.form.optimum(self.values, np.asarray(flops, np.float64))

    def optimum_samples(self, flops: float) -> Optimum:
        """The same of every bootstrap sample, arrays [samples]."""
        return self.form.optimum(self.samples, np.asarray(flops, np.float64))

    def to_json(self) -> dict[str, Any]:
        """The object to write as law.json."""
        head = {"schema": SCHEMA, "law": self.law, "equation": self.form.equation}
        return head | dataclasses.asdict(self)

    @classmethod
    def from_json(cls, obj: Mapping[str, Any]) -> "Law":
        """The law that `to_json` wrote; unknown fields are ignored.

        Raises:
          FitError: another schema, an unknown law, or a missing field.
        """
        if not isinstance(obj, Mapping):
            raise FitError(f"found {type(obj).__name__}, not an object; {REMEDY}")
        if obj.get("schema") != SCHEMA or obj.get("law") not in LAWS:
            raise FitError(
                f"found schema {obj.get('schema')!r} and law {obj.get('law')!r}; needs a law.json "
                f"of schema {SCHEMA} with one of {', '.join(LAWS)}; make one with: scaling fit RUNS"
            )
        names = [entry.name for entry in dataclasses.fields(cls)]
        missing = [name for name in names if name not in obj]
        if missing:
            raise FitError(
                f"this law.json lacks {', '.join(missing)}; make one with: scaling fit RUNS"
            )
        law = cls(**{name: obj[name] for name in names})
        try:
            residuals = [float(entry["flops"]) for entry in law.diagnostics["residuals"]]
            drawn = np.asarray(law.bootstrap["residual_sd"], np.float64)
            numbers = [law.values.astype(np.float64), law.samples.astype(np.float64), drawn]
            whole = all(np.isfinite(array).all() and array.size for array in numbers)
            if not (
                whole and residuals and (law.values >= 0).all() and len(drawn) == len(law.samples)
            ):
                raise ValueError("a number is missing, infinite or negative")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FitError(f"this law.json is damaged ({error!r}); {REMEDY}") from error
        return law
