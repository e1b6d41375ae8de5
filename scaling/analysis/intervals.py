"""How sure a fit can be: the law fitted again to what could have been measured instead."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaling.analysis.fitted import FitError
from scaling.analysis.forms import Array
from scaling.analysis.proof import LEAST_SIZE, Best
from scaling.analysis.solver import Penalty, Problem

METHODS: Mapping[str, str] = {
    "residual": "residuals x sqrt(n/(n-p)) x sqrt((n-p)/chi2(n-p)), fixed inputs",
    "case": "runs drawn with replacement",
    "series": "whole series of checkpoints drawn with replacement, x sqrt(G/chi2(G-1))",
    "seeds": "normal noise of the deviation between repeated runs x sqrt(f/chi2(f)), fixed inputs",
}
MANY = 10
"""Runs per parameter from which whole runs are drawn: then no model of the noise is needed."""


class Resampled(NamedTuple):
    """Refits: coordinates [samples, parameters], each one's residual deviation [samples]."""

    theta: Array
    spread: Array
    method: str


def choose(rows: int, parameters: int, series: Sequence[str] | None) -> str:
    """The method that suits the runs, where none is asked for."""
    if series is not None and len(set(series)) < rows:
        return "series"
    return "case" if rows >= MANY * parameters else "residual"


def resample(
    problem: Problem,
    best: Best,
    penalty: Penalty,
    *,
    method: str,
    samples: int,
    seed: int,
    free: NDArray[np.bool_],
    series: Sequence[str] | None = None,
) -> Resampled:
    """Fit the law again `samples` times, from its best fit and, where there is one, its second.

    - residual: fitted values plus residuals drawn with replacement, times sqrt(n/(n - p)) for the p
      fitted parameters, times sqrt((n - p)/chi2), chi2 drawn with n - p degrees of freedom, because
      the noise itself is only estimated. For few runs whose sizes and tokens were chosen.
    - case: n runs drawn with replacement (Efron 1979). It holds where the law does not quite, or
      the noise differs from run to run; it asks for many runs.
    - series: the same of whole series: checkpoints of one run share its noise. With G of them the
      spread of refits is (G - 1)/G of what it should be, and only estimated: each refit's distance
      from the best is multiplied by sqrt(G/(G - 1)) x sqrt((G - 1)/chi2), chi2 drawn with G - 1
      degrees of freedom (Cameron and Miller 2015, section VI).
    - seeds: fitted values plus normal noise, its deviation pooled over runs of the same inputs, and
      itself drawn with the degrees of freedom that these leave.

    Each refit's deviation is that of its residuals over the degrees of freedom left: see `_taken`.

    Raises:
      FitError: the runs do not allow the method.
    """
    rows, p = len(problem.target), int(free.sum())
    rng = np.random.default_rng(seed)
    fitted = problem.linked(best.theta)
    residuals = problem.target - fitted
    spread = math.sqrt(float(residuals @ residuals) / max(rows - p, 1))
    starts = [best.theta] if best.second_theta is None else [best.theta, best.second_theta]
    target: Array | None = None
    weights: Array | None = None
    of = np.arange(rows)
    if method == "residual":
        scales = np.sqrt((rows - p) / rng.chisquare(rows - p, samples))
        drawn = rng.choice(residuals, (samples, rows)) * math.sqrt(rows / (rows - p))
        target, spreads = fitted + drawn * scales[:, None], spread * scales
    elif method == "case":
        weights, spreads = _counts(rng, of, samples), np.empty(0)
    elif method == "series":
        if series is None or len(set(series)) < p + 1:
            found = "no series" if series is None else f"{len(set(series))} series"
            raise FitError(
                f"a bootstrap by series needs at least {p + 1} of them for {p} parameters, found "
                f"{found}; name their column with --columns series=NAME or use another --intervals"
            )
        _, of = np.unique(np.array(series), return_inverse=True)
        weights, spreads = _counts(rng, of, samples), np.empty(0)
    elif method == "seeds":
        seeds = seed_deviation(problem)
        spreads = seeds.deviation * np.sqrt(seeds.freedom / rng.chisquare(seeds.freedom, samples))
        target = fitted + rng.normal(0, 1, (samples, rows)) * spreads[:, None]
    else:
        raise FitError(f"intervals {method!r} are not known; use one of {', '.join(METHODS)}")
    refits = [
        problem.solve(
            np.tile(start, (samples, 1)), penalty, target=target, weights=weights, free=free
        )
        for start in starts
    ]
    theta = refits[0].theta
    if len(refits) > 1:
        second = refits[1].value < refits[0].value
        theta = np.where(second[:, None], refits[1].theta, theta)
    if weights is not None:
        left = problem.target - problem.linked(theta)
        taken = _taken(problem.jacobian(best.theta)[:, free], residuals, weights, of)
        freedom = np.maximum(weights.sum(axis=1) - taken, 1)
        spreads = np.sqrt((weights * left**2).sum(axis=1) / freedom)
    if method == "series":  # only now: residuals are those of the refit itself
        groups = int(of.max()) + 1
        apart = np.sqrt(groups / rng.chisquare(groups - 1, samples))
        theta = problem.inside(best.theta + (theta - best.theta) * apart[:, None])
    return Resampled(theta, spreads, method)


class Seeds(NamedTuple):
    """The deviation of the linked target between repeated runs, and its degrees of freedom."""

    deviation: float
    freedom: int


def seed_deviation(problem: Problem) -> Seeds:
    """The deviation of the linked target between runs whose inputs are the same.

    Raises:
      FitError: no two runs are repeats of each other.
    """
    inputs = np.column_stack([problem.logs[name] for name in problem.form.inputs])
    _, of, counts = np.unique(np.round(inputs, 6), axis=0, return_inverse=True, return_counts=True)
    of = of.reshape(-1)
    freedom = int((counts - 1).sum())
    if freedom < 2:
        raise FitError(
            "no runs have the same inputs, so nothing tells the noise of a seed; repeat some with "
            "other seeds, or use another --intervals"
        )
    means = np.bincount(of, problem.target) / counts
    left = problem.target - means[of]
    return Seeds(max(math.sqrt(float(left @ left) / freedom), LEAST_SIZE), freedom)


def _counts(rng: np.random.Generator, of: NDArray[np.intp], samples: int) -> Array:
    """How often each row is drawn, its group being drawn with replacement [samples, rows]."""
    groups = int(of.max()) + 1
    drawn = rng.multinomial(groups, np.full(groups, 1 / groups), samples).astype(np.float64)
    return drawn[:, of]


def _taken(jacobian: Array, residuals: Array, weights: Array, of: NDArray[np.intp]) -> Array:
    """How many of the sum of its weights each resample's parameters take [samples].

    Rows of weight w and derivatives J, whose noise has the covariance s^2 R, leave a weighted sum
    of squares of s^2 (sum w - trace((J'wJ)^-1 J'w R wJ)). R is one within a row, and within a
    series (`of` each row) the correlation that the residuals show; without series that is p x sum
    w^2 / sum w for rows alike.
    """
    p, groups = jacobian.shape[1], int(of.max()) + 1
    unit = jacobian / np.maximum(np.linalg.norm(jacobian, axis=0), 1e-300)
    counts, shared = np.bincount(of), 0.0
    pairs = float((counts * (counts - 1)).sum())
    if pairs and residuals.any():
        sums = np.bincount(of, residuals)
        products = float(sums @ sums - residuals @ residuals) / pairs
        shared = float(np.clip(products / np.mean(residuals**2), 0, 1))
    each = np.einsum("rp,rq->rpq", unit, unit).reshape(len(unit), p * p)
    summed = np.zeros((groups, p))
    np.add.at(summed, of, unit)
    together = np.einsum("gp,gq->gpq", summed, summed).reshape(groups, p * p)
    of_groups = np.zeros((len(weights), groups))
    of_groups[:, of] = weights
    noisy = (1 - shared) * (weights**2 @ each) + shared * (of_groups**2 @ together)
    inner = np.linalg.pinv((weights @ each).reshape(-1, p, p), rcond=1e-12, hermitian=True)
    found: Array = np.einsum("spq,sqp->s", inner, noisy.reshape(-1, p, p))
    return found
