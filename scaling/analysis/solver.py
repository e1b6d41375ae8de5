"""The solver: robust fits of one law from thousands of starts, or to thousands of resamples, at
once.

Everything runs in float64 under a local `jax.enable_x64`: the process may train in float32 before
and after.
"""

import functools
import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from scaling.analysis.forms import Array, Form

CHUNK = 64
"""Problems solved side by side: their arrays stay in a core's cache, and one compiled program
serves any number of them."""
LEAST_ROWS = 32
STEPS = 80
QUIET = 3
"""A problem is solved when so many steps in a row have brought next to nothing."""
NEXT_TO_NOTHING = 1e-9
MANY_STARTS, EARLY_STEPS = 512, 16
"""From more starts than these most are on a common path to few ends before so many steps."""
THIN_ROWS = 512
"""Tables longer than this are searched on so many of their rows, and refined on all."""
TINY = 1e-300


class Penalty(NamedTuple):
    """sum over runs of weight x huber(r), r = linked target - linked prediction.

    huber(r) = r^2/2 for |r| <= delta, else delta (|r| - delta/2); infinity is least squares. A
    prediction above the run (r < 0) counts `asymmetry` times: a run that was tuned badly lies above
    the law and should not lift it, so that `asymmetry` > 1 fits the lower side of the runs.
    """

    delta: float
    asymmetry: float = 1.0


class Solved(NamedTuple):
    """Ends of a batch of problems: the solver's coordinates [batch, parameters], values [batch]."""

    theta: Array
    value: Array


@dataclass(frozen=True)
class Problem:
    """A law and the runs it is fitted to.

    Attributes:
      logs: logs of the inputs [runs], by name; `means` are subtracted from a coefficient's pivot.
      target: linked target [runs].
    """

    form: Form
    logs: Mapping[str, Array]
    target: Array
    means: Mapping[str, float]

    @classmethod
    def of(cls, form: Form, logs: Mapping[str, Array], target: Array) -> "Problem":
        """A problem whose pivots are at the middle of its runs."""
        return cls(form, logs, target, {name: float(x.mean()) for name, x in logs.items()})

    def linked(self, theta: Array) -> Array:
        """The linked prediction of each run [runs], or of each row of `theta` [batch, runs]."""
        with jax.enable_x64(True):
            return np.asarray(_predicted(theta, dict(self.logs), dict(self.means), form=self.form))

    def jacobian(self, theta: Array) -> Array:
        """Derivatives of the linked prediction by the solver's coordinates [runs, parameters]."""
        with jax.enable_x64(True):
            return np.asarray(_jacobian(theta, dict(self.logs), dict(self.means), form=self.form))

    def value(self, theta: Array, penalty: Penalty, weights: Array | None = None) -> float:
        """The objective at one point."""
        weights = np.ones(len(self.target)) if weights is None else weights
        return float(_huber(self.target - self.linked(theta), weights, penalty).sum())

    def starts(self) -> Array:
        """The law's own starts, inside its bounds."""
        return self.inside(self.form.starts(self.logs, self.target))

    def inside(self, theta: Array) -> Array:
        """`theta` moved within the bounds."""
        return np.clip(theta, *self.form.bounds)

    def rows(self, keep: Array) -> "Problem":
        """The problem of some of the runs; its pivots stay where they are."""
        logs = {name: x[keep] for name, x in self.logs.items()}
        return Problem(self.form, logs, self.target[keep], self.means)

    def solve(
        self,
        starts: Array,
        penalty: Penalty,
        *,
        target: Array | None = None,
        weights: Array | None = None,
        free: NDArray[np.bool_] | None = None,
        steps: int = STEPS,
    ) -> Solved:
        """Levenberg-Marquardt with exact derivatives and Huber weights from each row of `starts`.

        `target` and `weights` are [runs], or [batch, runs] with a row for each start; parameters
        whose `free` [parameters] or [batch, parameters] is False stay where they start.
        """
        batch, rows = len(starts), len(self.target)
        padded = max(LEAST_ROWS, 1 << math.ceil(math.log2(rows)))

        def filled(values: Array) -> Array:
            """Runs up to the length of the bucket; the new ones have no weight."""
            return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, padded - rows)], mode="edge")

        def part(values: NDArray[Any], chunk: slice) -> NDArray[Any]:
            taken = values[chunk] if values.ndim == 2 else np.broadcast_to(
                values, (min(batch, chunk.stop) - chunk.start, values.shape[0])
            )  # fmt: skip
            return np.concatenate([taken, np.repeat(taken[-1:], CHUNK - len(taken), axis=0)])

        target = filled(self.target if target is None else target)
        weights = np.ones(rows) if weights is None else np.asarray(weights, np.float64)
        weights = np.pad(weights, [(0, 0)] * (weights.ndim - 1) + [(0, padded - rows)])
        free = np.ones(starts.shape[1], bool) if free is None else free
        logs = {name: filled(self.logs[name]) for name in self.form.inputs}
        bounds = self.form.bounds

        def one(first: int) -> Solved:
            chunk = slice(first, first + CHUNK)
            with jax.enable_x64(True):
                ends = _solve(
                    part(starts, chunk), part(target, chunk), part(weights, chunk),
                    part(free, chunk), logs, dict(self.means), *bounds, *penalty, steps,
                    form=self.form,
                )  # fmt: skip
                return Solved(*(np.asarray(end)[: batch - first] for end in ends))

        chunks = range(0, batch, CHUNK)
        if len(chunks) == 1:
            return one(0)
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            ends = list(threads.map(one, chunks))
        return Solved(*(np.concatenate(columns) for columns in zip(*ends, strict=True)))

    def search(self, starts: Array, penalty: Penalty, *, weights: Array | None = None) -> Solved:
        """Solve from every start; where they are many first a little, and on a long table first on
        some of its rows, then to the end from each place that is not another's."""
        rows = len(self.target)
        if rows > 2 * THIN_ROWS:
            order = np.lexsort([self.target, *self.logs.values()])
            keep = order[np.linspace(0, rows - 1, THIN_ROWS).astype(int)]
            some = None if weights is None else weights[keep]
            first = self.rows(keep).search(starts, penalty, weights=some)
        elif len(starts) > MANY_STARTS:
            first = self.solve(starts, penalty, weights=weights, steps=EARLY_STEPS)
        else:
            return self.solve(starts, penalty, weights=weights)
        kinds = _alike(first)
        ends = self.solve(first.theta[kinds.representatives], penalty, weights=weights)
        return Solved(ends.theta[kinds.of], ends.value[kinds.of])


class _Kinds(NamedTuple):
    representatives: NDArray[np.intp]  # one end of each kind
    of: NDArray[np.intp]  # the kind of each end


def _alike(ends: Solved) -> _Kinds:
    """Ends of nearly one value and nearly one place are of one kind."""
    keys = np.round(np.column_stack([np.log(ends.value + TINY) * 1e3, ends.theta * 1e2]))
    _, representatives, of = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return _Kinds(representatives, of.reshape(-1))


def _linked(
    theta: jax.Array, logs: Mapping[str, jax.Array], means: Mapping[str, jax.Array], *, form: Form
) -> jax.Array:
    found = form.linked(form.raw(theta, means), logs)  # type: ignore[arg-type]
    return jnp.broadcast_to(found, next(iter(logs.values())).shape)


@functools.partial(jax.jit, static_argnames="form")
def _predicted(
    theta: jax.Array, logs: Mapping[str, jax.Array], means: Mapping[str, jax.Array], *, form: Form
) -> jax.Array:
    one = functools.partial(_linked, form=form)
    return (
        jax.vmap(one, (0, None, None))(theta, logs, means)
        if theta.ndim == 2
        else one(theta, logs, means)
    )


@functools.partial(jax.jit, static_argnames="form")
def _jacobian(
    theta: jax.Array, logs: Mapping[str, jax.Array], means: Mapping[str, jax.Array], *, form: Form
) -> jax.Array:
    return jax.jacfwd(_linked)(theta, logs, means, form=form)


def _huber(residuals: Array, weights: Array, penalty: Penalty) -> Array:
    size = np.abs(residuals)
    inner = np.minimum(size, penalty.delta)
    weighed = weights * np.where(residuals < 0, penalty.asymmetry, 1.0)
    found: Array = weighed * inner * (size - inner / 2)
    return found


class _At(NamedTuple):
    theta: jax.Array  # [batch, parameters]
    value: jax.Array  # [batch]
    descent: jax.Array  # [batch, parameters]
    curvature: jax.Array  # [batch, parameters, parameters]
    damping: jax.Array  # [batch]


@functools.partial(jax.jit, static_argnames="form")
def _solve(
    starts: jax.Array,
    target: jax.Array,
    weights: jax.Array,
    free: jax.Array,
    logs: Mapping[str, jax.Array],
    means: Mapping[str, jax.Array],
    lower: jax.Array,
    upper: jax.Array,
    delta: float,
    asymmetry: float,
    steps: int,
    *,
    form: Form,
) -> tuple[jax.Array, jax.Array]:
    def evaluate(
        theta: jax.Array, target: jax.Array, weights: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Value, downhill direction and Gauss-Newton curvature of one problem."""
        predicted, push = jax.linearize(lambda at: _linked(at, logs, means, form=form), theta)
        jacobian = jax.vmap(push, out_axes=1)(jnp.eye(len(lower)))
        residuals = target - predicted
        size = jnp.abs(residuals)
        inner = jnp.minimum(size, delta)
        weighed = weights * jnp.where(residuals < 0, asymmetry, 1.0)
        robust = weighed * jnp.minimum(1.0, delta / jnp.maximum(size, TINY))
        return (
            jnp.sum(weighed * inner * (size - inner / 2)),
            (robust * residuals) @ jacobian,
            (robust[:, None] * jacobian).T @ jacobian,
        )

    def move(at: _At, target: jax.Array, weights: jax.Array, free: jax.Array) -> _At:
        # A parameter that is on a bound and pulled outwards stays there for this step.
        out = (at.theta <= lower) & (at.descent < 0) | (at.theta >= upper) & (at.descent > 0)
        open_ = free & ~out
        descent = jnp.where(open_, at.descent, 0.0)
        curvature = jnp.where(open_[:, None] & open_[None, :], at.curvature, 0.0)
        diagonal = jnp.diag(curvature)
        # Scaling by the diagonal makes the damping the same for parameters of any unit.
        scale = jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1.0))
        damped = curvature / jnp.outer(scale, scale) + jnp.diag(jnp.where(open_, at.damping, 1.0))
        theta = jnp.clip(at.theta + _solve_positive(damped, descent / scale) / scale, lower, upper)
        value, descent, curvature = evaluate(theta, target, weights)
        better = value < at.value

        def chosen(new: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(better, new, old)

        return _At(
            chosen(theta, at.theta),
            chosen(value, at.value),
            chosen(descent, at.descent),
            chosen(curvature, at.curvature),
            jnp.clip(at.damping * jnp.where(better, 0.2, 4.0), 1e-10, 1e8),
        )

    def body(carry: tuple[int, _At, jax.Array]) -> tuple[int, _At, jax.Array]:
        step, at, quiet = carry
        new = jax.vmap(move)(at, target, weights, free)
        gain = at.value - new.value
        still = (gain > 0) & (gain <= NEXT_TO_NOTHING * new.value) | (new.damping >= 1e7)
        quiet = jnp.where(still, quiet + 1, jnp.where(gain > 0, 0, quiet))
        return step + 1, new, quiet

    def busy(carry: tuple[int, _At, jax.Array]) -> jax.Array:
        step, at, quiet = carry
        return (step < steps) & jnp.any((quiet < QUIET) & (at.value > 0))

    value, descent, curvature = jax.vmap(evaluate)(starts, target, weights)
    # A start from which nothing can be predicted is as bad as one can be.
    value = jnp.where(jnp.isnan(value), jnp.inf, value)
    damping = jnp.full(len(starts), 1e-2)
    first = _At(starts, value, descent, curvature, damping)
    _, at, _ = jax.lax.while_loop(busy, body, (0, first, jnp.zeros(len(starts), jnp.int32)))
    return at.theta, at.value


def _solve_positive(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """matrix^-1 right by Cholesky's method, written out: LAPACK on thousands of matrices of this
    size takes several times as long."""
    n = len(right)
    root: list[list[jax.Array]] = [[] for _ in range(n)]
    for i in range(n):
        for j in range(i):
            rest = matrix[i, j] - sum(root[i][k] * root[j][k] for k in range(j))
            root[i].append(rest / root[j][j])
        rest = matrix[i, i] - sum(root[i][k] ** 2 for k in range(i))
        root[i].append(jnp.sqrt(jnp.maximum(rest, 1e-14)))
    half: list[jax.Array] = []
    for i in range(n):
        half.append((right[i] - sum(root[i][k] * half[k] for k in range(i))) / root[i][i])
    found: list[jax.Array] = [right[0]] * n
    for i in reversed(range(n)):
        rest = half[i] - sum(root[k][i] * found[k] for k in range(i + 1, n))
        found[i] = rest / root[i][i]
    return jnp.stack(found)
