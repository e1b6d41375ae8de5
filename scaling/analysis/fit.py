"""Fit a law to runs: robust objective, many starts, and what the fit can prove of itself."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from scaling.analysis import intervals as intervals_
from scaling.analysis.agreement import disagreement, ways
from scaling.analysis.compare import compare
from scaling.analysis.doubts import TRY_AUTO, Fit, doubts, evidence
from scaling.analysis.fitted import PARTS_OF_A_BUDGET, FitError, Law
from scaling.analysis.forms import Array, Form
from scaling.analysis.frontier import frontier, isoflop
from scaling.analysis.objective import (
    BENT,
    LEAST_ABSOLUTE,
    check,
    check_count,
    delta_of,
    delta_of_least_absolute,
    form_of,
    problem_of,
)
from scaling.analysis.proof import best_of, gradient, identify
from scaling.analysis.solver import Penalty, Problem, Solved
from scaling.runs import Runs

AUTO = "auto"
"""The name that stands for whatever law `compare` chooses."""


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
    efficient as least squares under normal noise. Where least absolute residuals (delta = 1e-3) say
    less than a third of that, bad runs have bent the least squares, and theirs is taken: a few bad
    runs cannot carry the fit. Hoffmann et al. 2022 take delta = 1e-3 throughout; infinity is least
    squares. `asymmetry` > 1 counts predictions above
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
    with 0.3, 1 and 2% noise, 400 draws each, the 90% intervals held alpha, beta, E, the loss and
    the optimal size at 3 times the largest budget, and one more run there, in 88 to 92% of the
    draws (experiments/2026-11-24-coverage, with the other methods). All this is where the law
    holds. Where a trend warning says that it does not, residual intervals are too narrow: on the
    240 runs of Hoffmann et al. read off by Besiroglu et al. 2024, whose residuals trend, the
    standard error of alpha is 0.0085, and 0.0154 by whole runs.

    Trends: `diagnostics.trend` tests whether log params, log flops or its square
    (`flops_curvature`) would lower the residuals if it were added to the law. It is a score test:
    the regressor is first freed of what the law's own parameters explain, because a plain slope of
    the residuals is near zero by construction of the fit, however wrong the law.

    Raises:
      FitError: fewer runs than parameters + 1, an input that does not vary or follows from the
        others, a target that does not vary, an unknown law, a column that is not there.
    """
    if law == AUTO:
        if fixed or starts is not None:
            raise FitError(
                "fixed parameters and starts belong to one law; name it in place of auto"
            )
        return fit_auto(
            runs, delta=delta, asymmetry=asymmetry, intervals=intervals, bootstrap=bootstrap,
            seed=seed,
        )  # fmt: skip
    for name, value in (("delta", delta), ("asymmetry", asymmetry)):
        if value is not None and not value > 0:
            raise FitError(f"{name} is {value}; give a number over 0")
    form = form_of(law)
    n, p = len(runs), len(form.names) - len(fixed or {})
    check_count(runs, form, p)
    problem = problem_of(runs, form)
    theta, free = _fixed(problem, fixed or {})
    check(runs, problem)
    first = problem.starts() if starts is None else problem.inside(
        form.coordinates(np.asarray(starts, np.float64), problem.means)
    )  # fmt: skip
    first = np.where(free, first, theta)
    if not free.all():
        first = np.unique(first, axis=0)
    if delta is None:
        squares, absolute = (
            problem.target - problem.linked(ends.theta[ends.value.argmin()])
            for ends in (
                _search(problem, first, Penalty(turn), free) for turn in (math.inf, LEAST_ABSOLUTE)
            )
        )
        delta, robust = delta_of(squares, n - p), delta_of_least_absolute(absolute, p)
        delta = robust if delta > BENT * robust else delta
    penalty = Penalty(delta, asymmetry)
    best = best_of(problem, _search(problem, first, penalty, free), penalty, free=free)
    fitted = problem.linked(best.theta)
    residuals = problem.target - fitted

    method = intervals or intervals_.choose(n, p, runs.series)
    drawn = intervals_.resample(
        problem, best, penalty, method=method, samples=bootstrap, seed=seed, free=free,
        series=runs.series,
    )  # fmt: skip
    values = form.natural(best.theta, problem.means)
    samples = form.natural(drawn.theta, problem.means)
    finite = np.isfinite(samples).all(axis=1)
    samples, spreads = samples[finite], drawn.spread[finite]
    known = identify(problem, best, penalty, free=free, resampled=drawn.theta)
    curves = isoflop(runs, draws=bootstrap, seed=seed) if form.target == "loss" else None
    found = Fit(
        runs=runs, problem=problem, penalty=penalty, best=best, free=free, residuals=residuals,
        jacobian=problem.jacobian(best.theta)[:, free], resampled=drawn.theta, samples=samples,
        known=known, isoflop=curves,
    )  # fmt: skip
    against = evidence(found)
    diagnostics = {
        "starts": best.starts,
        "share_best": best.share_best,
        "second_basin_gap": best.second_basin_gap,
        "polish_gain": best.polish_gain,
        "gradient_norm": float(np.linalg.norm(gradient(problem, best.theta, penalty)[free])),
        "residual_sd": math.sqrt(float(residuals @ residuals) / (n - p)),
        "degrees_of_freedom": n - p,
        "identifiability": known,
        "residuals": _residuals(runs, form, fitted, residuals),
        **against,
        "warnings": [*runs.warnings, *doubts(found, against)],
    }
    spends = PARTS_OF_A_BUDGET.issuperset(form.inputs) and form.target == "loss"
    done = Law(
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
        isoflop=curves,
        optima=None,
        bootstrap={
            "method": intervals_.METHODS[method],
            "kind": method,
            "n": bootstrap,
            "seed": seed,
            "samples": _named(form, samples.T),
            "residual_sd": spreads.tolist(),
        },
    )
    done = dataclasses.replace(done, optima=frontier(done) if spends else None)
    return _warned(done, [*done.warnings, *disagreement(ways(runs, done, heard=True))])


def fit_auto(
    runs: Runs,
    *,
    delta: float | None = None,
    asymmetry: float = 1.0,
    intervals: str | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Law:
    """Fit the law that is least wrong about larger runs, without the early runs it is better
    without: see `scaling.analysis.compare.compare`, whose whole comparison is the law's
    `comparison`.

    Raises:
      FitError: no law of the loss can be fitted.
    """
    found = compare(runs, delta=delta, asymmetry=asymmetry, seed=seed)
    law = fit(
        found.kept(runs), found.chosen, delta=delta, asymmetry=asymmetry, intervals=intervals,
        bootstrap=bootstrap, seed=seed,
    )  # fmt: skip
    said = [text.replace(TRY_AUTO, "") for text in law.warnings]
    return _warned(dataclasses.replace(law, comparison=found.to_json()), said + found.warnings)


def _warned(law: Law, warnings: Sequence[str]) -> Law:
    """The law with these warnings."""
    return dataclasses.replace(law, diagnostics={**law.diagnostics, "warnings": list(warnings)})


def _residuals(runs: Runs, form: Form, fitted: Array, residuals: Array) -> list[dict[str, Any]]:
    """The `residuals` of law.json: what each run had, every input of the law too, and what the law
    says of it."""
    predicted = np.exp(fitted) if form.link == "log" else fitted
    target = runs.column(form.target)
    inputs = {name: runs.column(name) for name in form.inputs}
    return [
        {
            "run_id": runs.run_id[i],
            "params": _or_null(runs.params[i]),
            "tokens": _or_null(runs.tokens[i]),
            "flops": _or_null(runs.flops[i]),
            **({} if runs.series is None else {"series": runs.series[i]}),
            **{name: float(x[i]) for name, x in inputs.items()},
            form.target: float(target[i]),
            "predicted": float(predicted[i]),
            "residual": float(residuals[i]),
        }
        for i in range(len(runs))
    ]


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


def _search(problem: Problem, first: Array, penalty: Penalty, free: NDArray[np.bool_]) -> Solved:
    if free.all():
        return problem.search(first, penalty)
    return problem.solve(first, penalty, free=free)
