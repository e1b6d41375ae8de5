"""Outliers: runs that the law of all the others does not explain."""

import math
from typing import NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from scaling.analysis.forms import Array
from scaling.analysis.proof import LEAST_SIZE
from scaling.analysis.solver import Penalty, Problem

FAR_OUT = 0.01
"""Chance that any run of a table stands out so far."""
EFFICIENCY_OF_MEDIAN = 0.37
"""A deviation told by the median of n residuals is as uncertain as one by the squares of 0.37 n."""
SUSPECTS, STARTS, ROUNDS = 6, 15, 5
"""So many runs of the largest residuals, and of the largest leverage, are each held out; each fit
without one has so many starts; so many runs are put aside one after the other."""
FEW = 512
"""In longer tables no single run can pull the law to itself."""


class Outliers(NamedTuple):
    """Runs that stand out, the furthest first.

    Attributes:
      rows: which runs.
      excess: of each, linked target less linked prediction of the law without those put aside.
      deviation: of most others, in the same unit.
      theta: that law, in the solver's coordinates.
    """

    rows: NDArray[np.intp]
    excess: Array
    deviation: float
    theta: Array


def outliers(
    problem: Problem, theta: Array, penalty: Penalty, *, free: NDArray[np.bool_]
) -> Outliers:
    """The runs too far from the law, by the deviation that the median residual tells.

    A run at a corner of the table may pull the law to itself and show no residual. So the runs of
    the largest residuals and leverages are each held out, the law is fitted to the others, and the
    run furthest from it, in units of the deviation x sqrt(1 + leverage), is put aside if it is
    further than the 1% point of Student's t over the number of runs; then again without it, up to
    five times. All runs are held against the law that is left.
    """
    rows = len(problem.target)
    kept = np.ones(rows, bool)
    for _ in range(ROUNDS if rows <= FEW else 0):
        found = _furthest(problem, theta, penalty, free, kept)
        if found is None:
            break
        row, theta = found
        kept[row] = False
    residuals = problem.target - problem.linked(theta)
    deviation = _deviation(residuals[kept], int(free.sum()))
    far = np.abs(residuals) > _limit(int(kept.sum()), int(free.sum())) * deviation
    out = np.flatnonzero((far | ~kept) & (np.abs(residuals) > LEAST_SIZE))
    out = out[np.argsort(-np.abs(residuals[out]), kind="stable")]
    return Outliers(out, residuals[out], deviation, theta)


def _limit(rows: int, parameters: int) -> float:
    freedom = max(EFFICIENCY_OF_MEDIAN * (rows - parameters), 1.0)
    return float(scipy.stats.t.isf(FAR_OUT / (2 * rows), freedom))


def _deviation(residuals: Array, parameters: int) -> float:
    n = len(residuals)
    inflated = math.sqrt(n / max(n - parameters, 1))
    return max(1.4826 * float(np.median(np.abs(residuals))) * inflated, LEAST_SIZE)


def _furthest(
    problem: Problem,
    theta: Array,
    penalty: Penalty,
    free: NDArray[np.bool_],
    kept: NDArray[np.bool_],
) -> tuple[int, Array] | None:
    """The run among those kept that is furthest from the law of the others, and that law; None
    where it is near enough."""
    rows, p = int(kept.sum()), int(free.sum())
    if rows < p + 3:
        return None
    residuals = np.where(kept, problem.target - problem.linked(theta), 0.0)
    leverage = np.where(kept, _leverage(problem.jacobian(theta)[:, free], kept), 0.0)
    suspects = np.unique(
        [*np.argsort(-np.abs(residuals))[:SUSPECTS], *np.argsort(-leverage)[:SUSPECTS]]
    )
    own = problem.starts()
    own = own[np.linspace(0, len(own) - 1, STARTS).astype(int)]
    starts = np.concatenate([theta[None], np.where(free, own, theta)])
    weights = np.array([kept & (np.arange(len(kept)) != row) for row in suspects], float)
    ends = problem.solve(
        np.tile(starts, (len(suspects), 1)), penalty, free=free,
        weights=np.repeat(weights, len(starts), axis=0),
    )  # fmt: skip
    least = ends.value.reshape(len(suspects), -1).argmin(axis=1)
    thetas = ends.theta.reshape(len(suspects), len(starts), -1)[np.arange(len(suspects)), least]
    far = np.zeros(len(suspects))
    for i, row in enumerate(suspects):
        others = weights[i] > 0
        left = problem.target - problem.linked(thetas[i])
        reach = _leverage(problem.jacobian(thetas[i])[:, free], others)[row]
        far[i] = abs(left[row]) / (_deviation(left[others], p) * math.sqrt(1 + reach))
    worst = int(np.argmax(far))
    if far[worst] <= _limit(int(kept.sum()) - 1, p):
        return None
    return int(suspects[worst]), thetas[worst]


def _leverage(jacobian: Array, kept: NDArray[np.bool_]) -> Array:
    """Variance of each prediction in units of the noise, by the runs that are kept [runs]."""
    lengths = np.maximum(np.linalg.norm(jacobian[kept], axis=0), 1e-300)
    unit = jacobian / lengths
    inverse = np.linalg.pinv(unit[kept].T @ unit[kept], rcond=1e-12, hermitian=True)
    found: Array = np.einsum("rp,pq,rq->r", unit, inverse, unit)
    return found
