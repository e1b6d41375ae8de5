"""What a law is, before it is fitted: an equation over the logs of its inputs, and where to start.

A law is written in coordinates that a solver finds easy. Positive parameters move as their
logarithms, terms meet in a log-sum-exp, so nothing overflows; and a coefficient is counted at the
middle of the runs (its `pivots`), where it does not trade against its exponent.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Coordinates = Mapping[str, jax.Array]
"""Of every parameter by name: its logarithm where it moves as that, else its value."""
Logs = Mapping[str, jax.Array]
"""Natural logarithms of the inputs, by name."""

NOTHING = 1e-11
"""A positive parameter at this value, in the units of its target, is taken for zero."""
LEAST_EXPONENT = 0.01
"""With less than this a term is one more floor: it changes by 2% where its input does tenfold."""
ROWS_FOR_STARTS = 256
EXPONENTS = {1: 24, 2: 12, 3: 6, 4: 4}
"""How many values of each exponent a power sum starts from, by the number of its exponents."""


class Parameter(NamedTuple):
    """One parameter: its unit, and bounds that no published fit has come near.

    `log` parameters are positive and move as their logarithm. Bounds of one that has a pivot are of
    its value at the middle of the runs.
    """

    name: str
    unit: str
    low: float
    high: float
    log: bool = False


class Pivot(NamedTuple):
    """`coefficient` stands with `input` to the power -`power` x `exponent` (1 where that is None).

    At the middle of the runs the whole of it is one number: log coefficient = coordinate + power x
    exponent x mean of log input.
    """

    coefficient: str
    exponent: str | None
    input: str
    power: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Form:
    """One law.

    Attributes:
      equation: the target in the names of `parameters` and `inputs`.
      reference: paper with equation number; `departures` from it.
      target: the column it predicts; residuals are of its logarithm, or of itself where `link` is
        "identity".
      inputs: columns it predicts from.
      linked: (coordinates, logs of inputs) -> the linked prediction, in JAX, elementwise.
      starts: (logs of inputs, linked target) -> starts [starts, parameters] in the solver's
        coordinates.
      published: parameters that a paper gives for it, by the name of the paper.
    """

    name: str
    equation: str
    reference: str
    departures: str = ""
    target: str = "loss"
    link: Literal["log", "identity"] = "log"
    inputs: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    pivots: tuple[Pivot, ...] = ()
    linked: Callable[[Coordinates, Logs], jax.Array]
    starts: Callable[[Mapping[str, Array], Array], Array]
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters, in the order of every array of them."""
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def bounds(self) -> tuple[Array, Array]:
        """Lower and upper ends of the solver's coordinates."""
        ends = np.array([(p.low, p.high) for p in self.parameters])
        moves_as_log = np.array([p.log for p in self.parameters])[:, None]
        with np.errstate(divide="ignore"):
            ends = np.where(moves_as_log, np.log(np.maximum(ends, NOTHING)), ends)
        return ends[:, 0], ends[:, 1]

    def raw(self, theta: jax.Array, means: Mapping[str, float]) -> dict[str, jax.Array]:
        """The solver's coordinates [parameters, ...] without their pivots, by name."""
        found = dict(zip(self.names, theta, strict=True))
        moved = dict(found)
        for pivot in self.pivots:
            by = 1.0 if pivot.exponent is None else found[pivot.exponent]
            moved[pivot.coefficient] = (
                moved[pivot.coefficient] + pivot.power * by * means[pivot.input]
            )
        return moved

    def natural(self, theta: Array, means: Mapping[str, float]) -> Array:
        """The solver's coordinates [..., parameters] as parameters [..., parameters]."""
        raw = self.raw(np.moveaxis(theta, -1, 0), means)  # type: ignore[arg-type]
        values = [np.exp(raw[p.name]) if p.log else raw[p.name] for p in self.parameters]
        return np.stack(np.broadcast_arrays(*values), axis=-1)

    def coordinates(self, values: Array, means: Mapping[str, float]) -> Array:
        """Parameters [..., parameters] as the solver's coordinates: the inverse of `natural`."""
        with np.errstate(divide="ignore"):
            raw = {
                p.name: np.log(values[..., i]) if p.log else values[..., i]
                for i, p in enumerate(self.parameters)
            }
        for pivot in reversed(self.pivots):
            by = 1.0 if pivot.exponent is None else raw[pivot.exponent]
            raw[pivot.coefficient] = raw[pivot.coefficient] - pivot.power * by * means[pivot.input]
        return np.stack([raw[name] for name in self.names], axis=-1)

    def predict(self, values: Array, inputs: Mapping[str, Array]) -> Array:
        """The target of parameters [..., parameters] at inputs [...] that broadcast with [...]."""
        given = {name: np.asarray(inputs[name], np.float64) for name in self.inputs}
        rank = max(values.ndim - 1, *(x.ndim for x in given.values()))
        # Of one rank, since JAX may be told to refuse what NumPy broadcasts.
        values = values.reshape((1,) * (rank + 1 - values.ndim) + values.shape)
        given = {name: x.reshape((1,) * (rank - x.ndim) + x.shape) for name, x in given.items()}
        with jax.enable_x64(True):
            linked = np.asarray(_predict(values, given, form=self))
        if self.link != "log":
            return linked
        # Far from its runs a law may predict what no float holds.
        with np.errstate(over="ignore"):
            return np.exp(linked)


@functools.partial(jax.jit, static_argnames="form")
def _predict(values: jax.Array, inputs: Mapping[str, jax.Array], *, form: Form) -> jax.Array:
    coordinates = {
        p.name: jnp.log(values[..., i]) if p.log else values[..., i]
        for i, p in enumerate(form.parameters)
    }
    return form.linked(coordinates, {name: jnp.log(x) for name, x in inputs.items()})


def lse(*terms: jax.Array) -> jax.Array:
    """log sum exp of arrays that broadcast; minus infinity is a term that is not there."""
    shape = jnp.broadcast_shapes(*(jnp.shape(term) for term in terms))
    terms = tuple(jnp.broadcast_to(term, shape) for term in terms)
    highest = terms[0]
    for term in terms[1:]:
        highest = jnp.maximum(highest, term)
    highest = jax.lax.stop_gradient(highest)
    return highest + jnp.log(sum(jnp.exp(term - highest) for term in terms))


class Term(NamedTuple):
    """coefficient x product of input^(-power x exponent) over `factors` of (input, exponent,
    power)."""

    coefficient: str
    unit: str
    factors: tuple[tuple[str, str, float], ...]


def term(coefficient: str, unit: str, *factors: tuple[str, str] | tuple[str, str, float]) -> Term:
    """A term of a power sum; the power of a factor (input, exponent) is 1."""
    return Term(
        coefficient, unit, tuple((f[0], f[1], f[2] if len(f) > 2 else 1.0) for f in factors)
    )


def power_sum(
    *,
    name: str,
    equation: str,
    reference: str,
    terms: Sequence[Term],
    floor: str | None = "E",
    target: str = "loss",
    unit: str = "nats per token",
    departures: str = "",
    exponents: Mapping[str, tuple[float, float]] | None = None,
    largest: float = 1e3,
    published: Mapping[str, Mapping[str, float]] | None = None,
) -> Form:
    """floor + sum of terms, the class of most laws.

    Given the exponents such a law is linear in its coefficients, so that starts are a grid of
    exponents alone, each with the best non-negative coefficients (variable projection, Golub and
    Pereyra 1973, of the relative residuals). `exponents` gives bounds other than 0.01 to 4,
    `largest`
    that of a term in the middle of the runs.
    """
    named = list(dict.fromkeys(factor[1] for one in terms for factor in one.factors))
    inputs = tuple(dict.fromkeys(factor[0] for one in terms for factor in one.factors))
    limits = dict.fromkeys(named, (LEAST_EXPONENT, 4.0)) | dict(exponents or {})
    parameters = [Parameter(floor, unit, NOTHING, largest, True)] if floor else []
    parameters += [Parameter(one.coefficient, one.unit, NOTHING, largest, True) for one in terms]
    parameters += [Parameter(exponent, "1", *limits[exponent]) for exponent in named]

    def exponents_of(
        p: Mapping[str, jax.Array], one: Term, x: Mapping[str, jax.Array]
    ) -> jax.Array:
        return sum(power * p[exponent] * x[column] for column, exponent, power in one.factors)  # type: ignore[return-value]

    def linked(p: Coordinates, x: Logs) -> jax.Array:
        logs = [p[one.coefficient] - exponents_of(p, one, x) for one in terms]
        return lse(*([p[floor]] if floor else []), *logs)

    def starts(x: Mapping[str, Array], y: Array) -> Array:
        keep = np.linspace(0, len(y) - 1, min(len(y), ROWS_FOR_STARTS)).astype(int)
        x = {column: values[keep] - values.mean() for column, values in x.items()}
        y = y[keep]
        counts = EXPONENTS.get(len(named), 3)
        axes = [_exponent_grid(limits[exponent], counts) for exponent in named]
        grid = np.array(list(itertools.product(*axes)))
        p = {exponent: grid[:, i, None] for i, exponent in enumerate(named)}
        columns = [np.exp(-exponents_of(p, one, x)) for one in terms]  # type: ignore[arg-type]
        if floor:
            columns.insert(0, np.ones((len(grid), len(y))))
        coefficients = _non_negative(np.stack(columns, axis=-1) / np.exp(y)[:, None])
        # A coefficient of zero has no way back: it starts as a small share of the target.
        least = 1e-3 * np.exp(y.min())
        return np.concatenate([np.log(np.maximum(coefficients, least)), grid], axis=1)

    return Form(
        name=name,
        equation=equation,
        reference=reference,
        departures=departures,
        target=target,
        inputs=inputs,
        parameters=tuple(parameters),
        pivots=tuple(
            Pivot(one.coefficient, exponent, column, power)
            for one in terms
            for column, exponent, power in one.factors
        ),
        linked=linked,
        starts=starts,
        published=published or {},
    )


def _exponent_grid(limits: tuple[float, float], count: int) -> Array:
    low, high = limits
    positive = np.geomspace(max(low, 0.04), min(high, 1.6), count)
    return (
        positive
        if low >= 0
        else np.concatenate([-positive[::-1], positive])[:: 2 if count > 6 else 1]
    )


def _non_negative(columns: Array) -> Array:
    """Coefficients [batch, k] >= 0 that bring columns [batch, n, k] nearest to one.

    The best of the least-squares solutions over all subsets of columns that are non-negative
    (Lawson and Hanson 1974, chapter 23); k is small.
    """
    batch, _, k = columns.shape
    best, found = np.full(batch, np.inf), np.zeros((batch, k))
    gram = np.einsum("bnk,bnl->bkl", columns, columns)
    right = columns.sum(axis=1)
    for chosen in itertools.product((False, True), repeat=k):
        index = np.flatnonzero(chosen)
        if not index.size:
            continue
        part = gram[:, index[:, None], index[None, :]]
        ridge = 1e-12 * np.trace(part, axis1=1, axis2=2)[:, None, None] * np.eye(index.size)
        solved = np.linalg.solve(part + ridge, right[:, index, None])[..., 0]
        # Of sums of squares only this part depends on the coefficients.
        value = np.einsum("bk,bkl,bl->b", solved, part, solved) - 2 * (
            solved * right[:, index]
        ).sum(1)
        better = (value < best) & (solved >= 0).all(axis=1)
        best[better] = value[better]
        full = np.zeros((batch, k))
        full[:, index] = solved
        found[better] = full[better]
    return found


def grid(**axes: Sequence[float]) -> Array:
    """Every combination of the values of each coordinate, in the order given."""
    return np.array(list(itertools.product(*axes.values())), dtype=np.float64)
