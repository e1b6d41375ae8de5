"""Fit a law to runs: robust objective, many starts, and what the fit can prove of itself."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import scipy.stats
from numpy.typing import NDArray

from scaling.analysis import intervals as intervals_
from scaling.analysis.fitted import PARTS_OF_A_BUDGET, FitError, Law
from scaling.analysis.forms import Array, Form
from scaling.analysis.frontier import frontier, isoflop
from scaling.analysis.proof import LEAST_SIZE, Best, best_of, gradient, identify
from scaling.analysis.rules import LAWS
from scaling.analysis.solver import Penalty, Problem
from scaling.runs import Runs

SIGNIFICANT = 0.05
# Huber's constant: 95% as efficient as least squares under normal noise (Holland and Welsch 1977).
EFFICIENT = 1.345


def fit(
    runs: Runs,
    law: str = "chinchilla",
    *,
    delta: float | None = None,
    asymmetry: float = 1.0,
    intervals: str | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    fixed: Mapping[str, float] | None = None,
    starts: Array | None = None,
) -> Law:
    """Fit a law to runs: minimise sum huber(linked target - linked prediction).

    The link of a loss is its logarithm. `delta` None takes 1.345 robust standard deviations of the
    least-squares residuals (their median absolute value x 1.4826 x sqrt(n/(n - p))): nearly as
    efficient as least squares under normal noise, and one bad run cannot carry the fit. Hoffmann et
    al. 2022 take delta = 1e-3; infinity is least squares. `asymmetry` > 1 counts predictions above
    a run as that much worse than predictions below: see `scaling.analysis.solver.Penalty`.

    Solver: Levenberg-Marquardt with exact derivatives and Huber weights from every start at once,
    then SciPy's BFGS from the best. `starts` are parameters [starts, parameters], the law's own
    grid where None. `fixed` holds parameters at values.

    `diagnostics` holds the proof that this is the best fit (what share of the starts reached it,
    within 1e-6; how far above it the next value lies that several starts agree on; what the second
    solver gained; the gradient), which parameters the runs determine (`identifiability`, see
    `scaling.analysis.proof.identify`), every run's residual, and warnings.

    `intervals` names how resamples are made (`scaling.analysis.intervals.resample`); None chooses:
    by series where rows are checkpoints of runs, by whole runs where there are ten or more per
    parameter, else by residuals. Of the last: on synthetic IsoFLOP grids of 4 budgets x 5 sizes
    with 0.3, 0.5 and 1% noise, 500 draws each, the 90% intervals held alpha, beta, E, the loss and
    the optimal size at 3 times the largest budget, and one more run there, in 88 to 92% of the
    draws. All this is where the law holds. Where a trend warning says that it does not, residual
    intervals are too narrow: on the 240 runs of Hoffmann et al. read off by Besiroglu et al. 2024,
    whose residuals trend, the standard error of alpha is 0.0085, and 0.0154 by whole runs.

    Trends: `diagnostics.trend` tests whether log params, log flops or its square
    (`flops_curvature`) would lower the residuals if it were added to the law. It is a score test:
    the regressor is first freed of what the law's own parameters explain, because a plain slope of
    the residuals is near zero by construction of the fit, however wrong the law.

    Raises:
      FitError: fewer runs than parameters + 1, an input that does not vary or follows from the
        others, a target that does not vary, an unknown law, a column that is not there.
    """
    form = _form(law)
    n, p = len(runs), len(form.names) - len(fixed or {})
    _check_count(runs, form, p)
    problem = problem_of(runs, form)
    theta, free = _fixed(problem, fixed or {})
    _check(runs, problem)
    first = problem.starts() if starts is None else problem.inside(
        form.coordinates(np.asarray(starts, np.float64), problem.means)
    )  # fmt: skip
    first = np.where(free, first, theta)
    if not free.all():
        first = np.unique(first, axis=0)
    if delta is None:
        delta = _delta(problem, first, free, n - p)
    penalty = Penalty(delta, asymmetry)
    best = best_of(problem, _search(problem, first, penalty, free), penalty, free=free)
    fitted = problem.linked(best.theta)
    residuals = problem.target - fitted
    jacobian = problem.jacobian(best.theta)[:, free]
    spread = math.sqrt(float(residuals @ residuals) / (n - p))

    method = intervals or intervals_.choose(n, p, runs.series)
    drawn = intervals_.resample(
        problem, best, penalty, method=method, samples=bootstrap, seed=seed, free=free,
        series=runs.series,
    )  # fmt: skip
    values = form.natural(best.theta, problem.means)
    samples = form.natural(drawn.theta, problem.means)
    samples = samples[np.isfinite(samples).all(axis=1)]
    known = identify(problem, best, penalty, free=free)
    trend = {
        name: _trend(regressor, residuals, jacobian)
        for name, regressor in {
            "params": np.log(runs.params),
            "flops": np.log(runs.flops),
            "flops_curvature": _bend(np.log(runs.flops)),
        }.items()
    }
    predicted = np.exp(fitted) if form.link == "log" else fitted
    diagnostics = {
        "starts": best.starts,
        "share_best": best.share_best,
        "second_basin_gap": best.second_basin_gap,
        "polish_gain": best.polish_gain,
        "gradient_norm": float(np.linalg.norm(gradient(problem, best.theta, penalty)[free])),
        "residual_sd": spread,
        "degrees_of_freedom": n - p,
        "identifiability": known,
        "residuals": [
            {
                "run_id": runs.run_id[i],
                "params": _or_null(runs.params[i]),
                "tokens": _or_null(runs.tokens[i]),
                "flops": _or_null(runs.flops[i]),
                form.target: float(runs.column(form.target)[i]),
                "predicted": float(predicted[i]),
                "residual": float(residuals[i]),
            }
            for i in range(n)
        ],
        "trend": trend,
        "warnings": [
            *runs.warnings,
            *_trend_warnings(trend, runs),
            *_identity_warnings(known),
            *_bound_warnings(problem, best.theta, drawn.theta, free),
            *_basin_warnings(best, n - p),
            *_flops_warnings(runs),
        ],
    }
    spends = PARTS_OF_A_BUDGET.issuperset(form.inputs) and form.target == "loss"
    curve = frontier(form, values, samples, flops=runs.flops) if spends else None
    return Law(
        law=law,
        params=_named(form, values),
        stderr=_named(form, samples.std(axis=0, ddof=1)),
        interval_95=_named(form, np.quantile(samples, (0.025, 0.975), axis=0).T),
        objective={
            "name": f"{'huber' if math.isfinite(delta) else 'squares'}_{form.link}",
            "delta": delta if math.isfinite(delta) else None,
            "asymmetry": asymmetry,
            "value": best.value,
        },
        n_runs=n,
        dropped=[{"run_id": run.run_id, "reason": run.reason} for run in runs.dropped],
        convention=dict(runs.convention),
        diagnostics=diagnostics,
        isoflop=isoflop(runs, draws=bootstrap, seed=seed) if form.target == "loss" else None,
        frontier=curve,
        bootstrap={
            "method": intervals_.METHODS[method],
            "kind": method,
            "n": bootstrap,
            "seed": seed,
            "samples": _named(form, samples.T),
            "residual_sd": drawn.spread[: len(samples)].tolist(),
        },
    )


def problem_of(runs: Runs, form: Form) -> Problem:
    """The law at the runs' columns.

    Raises:
      BadTable: a column is not there, or not positive where the law takes its logarithm.
    """
    logs = {name: runs.log(name) for name in form.inputs}
    log = form.link == "log"
    return Problem.of(form, logs, runs.log(form.target) if log else runs.column(form.target))


def _form(law: str) -> Form:
    if law not in LAWS:
        raise FitError(f"law {law!r} is unknown; use one of {', '.join(LAWS)}")
    return LAWS[law]


def _or_null(number: float) -> float | None:
    """What law.json holds of a count: null where the runs have none."""
    return None if math.isnan(number) else float(number)


def _named(form: Form, columns: Array) -> dict[str, Any]:
    return {name: columns[i].tolist() for i, name in enumerate(form.names)}


def _fixed(problem: Problem, fixed: Mapping[str, float]) -> tuple[Array, NDArray[np.bool_]]:
    """Coordinates of the parameters that are held still (NaN elsewhere), and which are free."""
    form = problem.form
    unknown = [name for name in fixed if name not in form.names]
    if unknown:
        raise FitError(f"{form.name} has no parameter {unknown[0]}; it has {', '.join(form.names)}")
    values = np.array([fixed.get(name, math.nan) for name in form.names])
    for pivot in form.pivots:
        loose = pivot.exponent is not None and pivot.exponent not in fixed
        if pivot.coefficient in fixed and loose:
            raise FitError(
                f"{pivot.coefficient} cannot be held without {pivot.exponent}, whose size it goes "
                f"with; fix both"
            )
    with jax.enable_x64(True):
        theta = np.asarray(form.coordinates(values, problem.means))
    return theta, np.isnan(values)


def _search(problem: Problem, first: Array, penalty: Penalty, free: NDArray[np.bool_]) -> Any:
    if free.all():
        return problem.search(first, penalty)
    return problem.solve(first, penalty, free=free)


def _delta(problem: Problem, first: Array, free: NDArray[np.bool_], freedom: int) -> float:
    ends = _search(problem, first, Penalty(math.inf), free)
    residuals = problem.target - problem.linked(ends.theta[np.argmin(ends.value)])
    scale = 1.4826 * float(np.median(np.abs(residuals)))
    return max(EFFICIENT * scale * math.sqrt(len(residuals) / freedom), LEAST_SIZE)


def _check_count(runs: Runs, form: Form, p: int) -> None:
    n = len(runs)
    if n < p + 1:
        left = f" ({len(runs.dropped)} were dropped)" if runs.dropped else ""
        raise FitError(
            f"{n} runs{left} cannot determine the {p} parameters of {form.name}; give at least "
            f"{p + 1}, better 16 or more"
        )


def _check(runs: Runs, problem: Problem) -> None:
    form, n = problem.form, len(runs)
    for name in form.inputs:
        distinct = np.unique(runs.column(name))
        if distinct.size < 3:
            values = " and ".join(f"{value:.6g}" for value in distinct)
            more = {"params": "sizes", "tokens": "lengths"}.get(name, f"values of {name}")
            raise FitError(
                f"all {n} runs have {name} = {values}; {form.name} needs at least three different "
                f"values of {name}, so train other {more} too"
            )
    if {"params", "tokens"}.issubset(form.inputs):
        ratio = problem.logs["tokens"] - problem.logs["params"]
        if np.ptp(ratio) < 0.01:
            raise FitError(
                f"all {n} runs have {np.exp(ratio.mean()):.4g} tokens per parameter, so the "
                "effects of size and data cannot be told apart; train some sizes on fewer or more "
                "tokens"
            )
    for first, second in _alike(problem):
        raise FitError(
            f"{first} and {second} rise together in all {n} runs, so their effects cannot be told "
            "apart; vary one without the other, or use a law of one of them"
        )
    if np.ptp(problem.target) < 1e-9:
        raise FitError(
            f"all {n} runs have {form.target} {runs.column(form.target)[0]:.6g}; a law needs a "
            f"{form.target} that varies, so check the column"
        )


def _alike(problem: Problem) -> list[tuple[str, str]]:
    """Pairs of inputs whose logs are one line."""
    names = [name for name in problem.form.inputs if np.isfinite(problem.logs[name]).all()]
    found = []
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            correlation = np.corrcoef(problem.logs[first], problem.logs[second])[0, 1]
            if abs(correlation) > 1 - 1e-8:
                found.append((first, second))
    return found


def _bend(x: Array) -> Array:
    bend: Array = (x - x.mean()) ** 2
    return bend


def _trend(regressor: Array, residuals: Array, jacobian: Array) -> dict[str, float | None]:
    """Score test: the slope of the residuals on what of the regressor the law does not explain."""
    if np.isnan(regressor).any():  # a table without sizes or compute
        return {"slope": None, "p_value": None}
    freedom = len(residuals) - jacobian.shape[1] - 1
    q, _ = np.linalg.qr(jacobian / np.linalg.norm(jacobian, axis=0))
    x = regressor - regressor.mean()
    own = x - q @ (q.T @ x)
    rest = residuals - q @ (q.T @ residuals)
    if freedom < 1 or own @ own < 1e-10 * (x @ x) or rest @ rest < residuals.size * LEAST_SIZE**2:
        return {"slope": None, "p_value": None}
    slope = float(own @ rest / (own @ own))
    left = rest - slope * own
    error = math.sqrt(float(left @ left) / freedom / float(own @ own))
    p_value = float(2 * scipy.stats.t.sf(abs(slope) / max(error, 1e-300), freedom))
    return {"slope": slope, "p_value": p_value}


def _trend_warnings(trend: dict[str, dict[str, float | None]], runs: Runs) -> list[str]:
    named = {
        "flops": "residuals trend with compute",
        "flops_curvature": "residuals bend with compute",
        "params": "residuals trend with size",
    }
    found = [
        f"{text} (p = {p_value:.2g})"
        for name, text in named.items()
        if (p_value := trend[name]["p_value"]) is not None and p_value < SIGNIFICANT
    ]
    if not found:
        return []
    return [
        f"{' and '.join(found)}: the law does not hold over all of these runs; if the smallest "
        f"budgets (from {runs.flops.min():.2g} FLOPs) lie before the power law begins, leave them "
        "out and train larger ones; if only some sizes stand out, check their tuning"
    ]


def _identity_warnings(known: Mapping[str, Any]) -> list[str]:
    if not known["not_identified"]:
        return []
    return [
        f"{known['verdict']}: do not read these parameters; predictions near the runs may still "
        "hold. Widen the range of the inputs, or use a law with fewer parameters"
    ]


def _bound_warnings(
    problem: Problem, theta: Array, resampled: Array, free: NDArray[np.bool_]
) -> list[str]:
    texts = []
    lower, upper = problem.form.bounds
    for i in np.flatnonzero(free):
        name, low, high = problem.form.parameters[i].name, lower[i], upper[i]
        share = float(np.mean((resampled[:, i] <= low) | (resampled[:, i] >= high)))
        fitted = theta[i] - low < 1e-6 or high - theta[i] < 1e-6
        if fitted:
            end = "lower" if theta[i] - low < 1e-6 else "upper"
            texts.append(
                f"{name} ends on its {end} bound: the runs do not determine it; widen the range of "
                "sizes and tokens"
            )
        elif share > 0.05:
            texts.append(
                f"{name} ends on a bound in {share:.0%} of the bootstrap resamples: the runs "
                "hardly determine it; widen the range of sizes and tokens, or repeat runs"
            )
    return texts


def _basin_warnings(best: Best, freedom: int) -> list[str]:
    # In units of the noise variance the gap is gap x freedom: under 4 is within two standard
    # deviations.
    gap = best.second_basin_gap
    if gap is None or gap * freedom >= 4:
        return []
    return [
        f"a second set of parameters fits almost as well (objective {gap:.2%} higher): do not read "
        "the parameters one by one; more sizes and budgets would tell the two apart"
    ]


def _flops_warnings(runs: Runs) -> list[str]:
    ratio = runs.flops / (6 * runs.params * runs.tokens)
    if np.isnan(ratio).any() or np.abs(np.log(ratio)).max() < math.log(1.1):
        return []
    return [
        f"flops is {ratio.min():.3g} to {ratio.max():.3g} times 6 * params * tokens: budgets are "
        "grouped by the flops column, but the frontier and the plan take 6 * params * tokens"
    ]
