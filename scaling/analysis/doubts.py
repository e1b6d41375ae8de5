"""What to doubt in a fit: the evidence against the law, and the warnings that it makes."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from scaling.analysis.fitted import PARTS_OF_A_BUDGET, optimum
from scaling.analysis.forms import Array, Form
from scaling.analysis.frontier import budgets, interval, isoflop
from scaling.analysis.holdout import budgets_of
from scaling.analysis.objective import problem_of
from scaling.analysis.outliers import Outliers, outliers
from scaling.analysis.proof import LEAST_SIZE, Best
from scaling.analysis.solver import Penalty, Problem
from scaling.runs import Runs
from scaling.runs.sources import at

SIGNIFICANT = 0.05
"""Chance of a warning where the law holds, shared by the tests of one kind."""
MOVED = 0.01
"""A smaller change of an exponent is not worth a warning."""
FEW_SERIES = 2
"""Series for each parameter and one more, from which intervals by series were found to hold."""
TRY_AUTO = " (--law=auto tries that)"
"""Said to those who have named a law."""
Trends = Mapping[str, Mapping[str, float | None]]


class Fit(NamedTuple):
    """A fit that is to be doubted.

    Attributes:
      jacobian: of the linked prediction by the free parameters [runs, free].
      resampled: the solver's coordinates of the resamples [samples, parameters].
      samples: the same as parameters.
      known: the `identifiability` object of law.json; isoflop: that object.
    """

    runs: Runs
    problem: Problem
    penalty: Penalty
    best: Best
    free: NDArray[np.bool_]
    residuals: Array
    jacobian: Array
    resampled: Array
    samples: Array
    known: Mapping[str, Any]
    isoflop: Mapping[str, Any] | None

    @property
    def freedom(self) -> int:
        return len(self.residuals) - int(self.free.sum())

    @property
    def has_optimum(self) -> bool:
        form = self.problem.form
        return form.target == "loss" and PARTS_OF_A_BUDGET.issuperset(form.inputs)


def evidence(fit: Fit) -> dict[str, Any]:
    """What is tested, as it stands in law.json's diagnostics: `trend`, `minima` (the bend of the
    IsoFLOP minima against the law's) and `conventions` (exponents by ways of counting)."""
    return {"trend": trends(fit), "minima": bend_of_minima(fit), "conventions": conventions(fit)}


def doubts(fit: Fit, found: Mapping[str, Any]) -> list[str]:
    """Warnings of a fit, from `found`, its `evidence`: what was found, and the remedy."""
    return [
        *_early(found["trend"], found["minima"], fit.runs),
        *_edges(fit),
        *_outliers(fit),
        *_slopes(found["conventions"]),
        *_identity(fit.known),
        *_bounds(fit),
        *_basins(fit),
        *_flops(fit.runs),
        *_of_one(fit),
        *_few_series(fit),
    ]


def trends(fit: Fit) -> dict[str, dict[str, float | None]]:
    """Score tests of log params, log flops and its square against the residuals: see `fit`."""
    flops = np.log(fit.runs.flops)
    regressors = {
        "params": np.log(fit.runs.params),
        "flops": flops,
        "flops_curvature": (flops - flops.mean()) ** 2,
    }
    return {name: _trend(x, fit.residuals, fit.jacobian) for name, x in regressors.items()}


def _trend(regressor: Array, residuals: Array, jacobian: Array) -> dict[str, float | None]:
    """The slope of the residuals on what of the regressor the law does not explain."""
    nothing: dict[str, float | None] = {"slope": None, "p_value": None}
    if np.isnan(regressor).any():  # a table without sizes or compute
        return nothing
    freedom = len(residuals) - jacobian.shape[1] - 1
    q, _ = np.linalg.qr(jacobian / np.linalg.norm(jacobian, axis=0))
    x = regressor - regressor.mean()
    own = x - q @ (q.T @ x)
    rest = residuals - q @ (q.T @ residuals)
    explained = own @ own <= max(1e-10 * (x @ x), 1e-20 * (regressor @ regressor))
    if freedom < 1 or explained or rest @ rest < residuals.size * LEAST_SIZE**2:
        return nothing
    slope = float(own @ rest / (own @ own))
    left = rest - slope * own
    error = math.sqrt(float(left @ left) / freedom / float(own @ own))
    p_value = float(2 * scipy.stats.t.sf(abs(slope) / max(error, 1e-300), freedom))
    return {"slope": slope, "p_value": p_value}


def bend_of_minima(fit: Fit) -> dict[str, float | None]:
    """Whether the sizes at the IsoFLOP minima bend away from the law's, over log flops.

    Parabolas are fitted to the losses and to those the law predicts for the same runs, so that what
    a parabola gets wrong cancels. The difference of their minima is regressed on log flops and its
    square, with the errors that the parabolas have; at least four minima inside the sizes tested
    are needed. `bend` is the coefficient of the square.
    """
    nothing: dict[str, float | None] = {"bend": None, "p_value": None}
    if not fit.has_optimum or fit.isoflop is None or fit.problem.form.inputs == ("flops",):
        return nothing
    predicted = np.exp(fit.problem.target - fit.residuals)
    theirs = isoflop(dataclasses.replace(fit.runs, loss=predicted), draws=2)
    freedom, logs, apart, errors = 0, [], [], []
    for seen, said in zip(fit.isoflop["budgets"], theirs["budgets"], strict=True):
        freedom += seen["n_runs"] - 3
        if not (seen["interior"] and said["interior"] and seen["interval_90"]):
            continue
        low, high = np.log(seen["interval_90"]["params_opt"])
        logs.append(math.log(seen["flops"]))
        apart.append(math.log(seen["params_opt"] / said["params_opt"]))
        errors.append(max((high - low) / (2 * scipy.stats.norm.ppf(0.95)), LEAST_SIZE))
    if len(logs) < 4:
        return nothing
    x = np.array(logs) - np.mean(logs)
    design = np.vander(x, 3, increasing=True) / np.array(errors)[:, None]
    covariance = np.linalg.inv(design.T @ design)
    bend = float((covariance @ design.T @ (np.array(apart) / np.array(errors)))[2])
    error = math.sqrt(covariance[2, 2])
    return {"bend": bend, "p_value": float(2 * scipy.stats.t.sf(abs(bend) / error, freedom))}


def _early(trend: Trends, minima: Mapping[str, float | None], runs: Runs) -> list[str]:
    tests = {
        "residuals trend with compute": trend["flops"],
        "residuals bend with compute": trend["flops_curvature"],
        "residuals trend with size": trend["params"],
        "the sizes at the IsoFLOP minima bend away from the law's": minima,
    }
    found = [
        f"{text} (p = {p_value:.2g})"
        for text, test in tests.items()
        if (p_value := test["p_value"]) is not None and p_value < SIGNIFICANT / len(tests)
    ]
    if not found:
        return []
    return [
        f"{' and '.join(found)}: the law does not hold over all of these runs; if the smallest "
        f"budgets (from {runs.flops.min():.2g} FLOPs) lie before the power law begins, leave them "
        f"out{TRY_AUTO} and train larger ones; if only some sizes stand out, check their tuning"
    ]


def _edges(fit: Fit) -> list[str]:
    """Budgets whose least loss is not between the sizes tested."""
    if fit.isoflop is None or budgets_of(fit.runs) is None:
        return []
    open_ = {entry["flops"] for entry in fit.isoflop["budgets"] if not entry["interior"]}
    sides: dict[str, list[str]] = {"smaller": [], "larger": [], "more": []}
    for group in budgets(fit.runs):
        flops = float(np.exp(np.log(fit.runs.flops[group]).mean()))
        if flops not in open_:
            continue
        sizes, losses = fit.runs.params[group], fit.runs.loss[group]
        size = sizes[np.argmin(losses)]
        side = {sizes.min(): "smaller", sizes.max(): "larger"}.get(size, "more")
        sides[side].append(f"{flops:.3g}")
    where = {
        "smaller": "lies at the smallest size tested",
        "larger": "lies at the largest size tested",
        "more": "is not bracketed by a parabola that opens upwards",
    }
    return [
        f"at {', '.join(named)} FLOPs the least loss {where[side]}: where the optimum is there, "
        f"is not known from runs but from the law's form; train {side} sizes at these budgets"
        for side, named in sides.items()
        if named
    ]


def _outliers(fit: Fit) -> list[str]:
    """Runs far above the law of the others, and far below."""
    form = fit.problem.form
    if form.target != "loss":
        return []
    found = outliers(fit.problem, fit.best.theta, fit.penalty, free=fit.free)
    near = f", where others are within {found.deviation:.2%} mostly"
    above, below = (found.excess > 0, found.excess < 0)
    texts = []
    if above.any():
        texts.append(
            f"{_named(fit.runs, found, above)} far above the law{near}: a run that was tuned "
            "badly, or diverged? check them, leave them out, or fit the lower side of the runs "
            "with --asymmetry"
        )
    if below.any():
        floor = ""
        if "E" in form.names:
            value = form.natural(found.theta, fit.problem.means)[form.names.index("E")]
            under = below & (fit.runs.loss[found.rows] < value)
            if under.any():
                floor = f", {_ids(fit.runs, found.rows[under])} under the floor of {value:.3g}"
        texts.append(
            f"{_named(fit.runs, found, below)} far below the law of the other runs{floor}{near}: "
            "another unit, other data to test on, or a slip in the table? mend them or leave them "
            "out, as few such runs spoil a fit"
        )
    return texts


def _named(runs: Runs, found: Outliers, which: NDArray[np.bool_]) -> str:
    named = [
        f"{runs.run_id[row]} (by {abs(math.expm1(excess)):.1%})"
        for row, excess in zip(found.rows[which], found.excess[which], strict=True)
    ]
    more = f" and {len(named) - 5} more" if len(named) > 5 else ""
    return f"{', '.join(named[:5])}{more} {'lies' if len(named) == 1 else 'lie'}"


def _ids(runs: Runs, rows: NDArray[np.intp]) -> str:
    return at([runs.run_id[row] for row in rows])


def conventions(fit: Fit) -> dict[str, Any]:
    """The exponent of the optimal size in compute, and what it is when parameters are counted
    otherwise: by every further column `params_...` of the table, compute being 6 of them x tokens.

    `params` has `exponent` and its `interval_90`, the others `exponent`; empty where the law has no
    optimum or the table one count only.
    """
    form, runs = fit.problem.form, fit.runs
    others = {
        name: x for name, x in runs.others.items()
        if name.startswith("params_") and (x > 0).all() and np.ptp(np.log(x / runs.params)) > 0.01
    }  # fmt: skip
    if not others or not fit.has_optimum or "params" not in form.inputs:
        return {}
    ends = np.array([runs.flops.min(), runs.flops.max()])
    own = _exponents(form, form.natural(fit.best.theta, fit.problem.means), ends)
    if np.isnan(own):
        return {}
    drawn = _exponents(form, fit.samples, ends)
    found: dict[str, Any] = {"params": {"exponent": float(own), "interval_90": interval(drawn)}}
    for name, x in others.items():
        counted = dataclasses.replace(runs, params=x, flops=6 * x * runs.tokens)
        problem = problem_of(counted, form)
        start = np.concatenate([fit.best.theta[None], problem.starts()])
        solved = problem.search(start, fit.penalty)
        refit = form.natural(solved.theta[np.argmin(solved.value)], problem.means)
        ends = np.array([counted.flops.min(), counted.flops.max()])
        exponent = float(_exponents(form, refit, ends))
        if not math.isnan(exponent):
            found[name] = {"exponent": exponent}
    return found


def _exponents(form: Form, values: Array, ends: Array) -> Array:
    """Slope of log optimal size over log compute between two budgets, for parameters [...,
    parameters]: [...]."""
    sizes = np.log(optimum(form, values[..., None, :], ends).params)
    found: Array = (sizes[..., 1] - sizes[..., 0]) / np.log(ends[1] / ends[0])
    return found


def _slopes(found: Mapping[str, Any]) -> list[str]:
    if not found:
        return []
    own = found["params"]
    low, high = own["interval_90"] or (own["exponent"], own["exponent"])
    moved = [
        f"{entry['exponent']:.3f} counting {name}"
        for name, entry in found.items()
        if abs(entry["exponent"] - own["exponent"]) > MOVED and not low <= entry["exponent"] <= high
    ]
    if not moved:
        return []
    return [
        f"the optimal size grows with compute to the power {own['exponent']:.3f} (90% interval "
        f"{low:.3f} to {high:.3f}) as params are counted here, and {', '.join(moved)}: say which "
        "count an exponent belongs to, and compare it only with those of the same"
    ]


def _identity(known: Mapping[str, Any]) -> list[str]:
    if not known["not_identified"]:
        return []
    return [
        f"{known['verdict']}: do not read these parameters; predictions near the runs may still "
        "hold. Widen the range of the inputs, or use a law with fewer parameters"
    ]


def _bounds(fit: Fit) -> list[str]:
    texts = []
    lower, upper = fit.problem.form.bounds
    theta = fit.best.theta
    for i in np.flatnonzero(fit.free):
        name, low, high = fit.problem.form.parameters[i].name, lower[i], upper[i]
        drawn = fit.resampled[:, i]
        share = float(np.mean((drawn <= low) | (drawn >= high)))
        if theta[i] - low < 1e-6 or high - theta[i] < 1e-6:
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


def _basins(fit: Fit) -> list[str]:
    # In units of the noise variance the gap is gap x freedom: under 4 is within two standard
    # deviations.
    gap = fit.best.second_basin_gap
    if gap is None or gap * fit.freedom >= 4:
        return []
    return [
        f"a second set of parameters fits almost as well (objective {gap:.2%} higher): do not read "
        "the parameters one by one; more sizes and budgets would tell the two apart"
    ]


def _flops(runs: Runs) -> list[str]:
    ratio = runs.flops / (6 * runs.params * runs.tokens)
    if np.isnan(ratio).any() or np.abs(np.log(ratio)).max() < math.log(1.1):
        return []
    return [
        f"flops is {ratio.min():.3g} to {ratio.max():.3g} times 6 * params * tokens: budgets are "
        "grouped by the flops column, but the frontier and the plan take 6 * params * tokens"
    ]


def _of_one(fit: Fit) -> list[str]:
    """What is the same in all runs, and not in the law."""
    if fit.problem.form.target != "loss":
        return []
    return [
        f"all {len(fit.runs)} runs have {name} = {x[0]:.6g}: this law says nothing of other {more}"
        for name, more, x in (
            ("params", "sizes", fit.runs.params),
            ("tokens", "lengths", fit.runs.tokens),
        )
        if name not in fit.problem.form.inputs and np.ptp(x) == 0
    ]


def _few_series(fit: Fit) -> list[str]:
    """Checkpoints of so few runs that drawing whole runs says little of what other runs say."""
    n, p = len(set(fit.runs.series or ())), int(fit.free.sum())
    if n in (0, len(fit.residuals)) or n >= FEW_SERIES * (p + 1):
        return []
    return [
        f"{n} series of checkpoints are few for the intervals of {p} parameters: with fewer than "
        f"{FEW_SERIES * (p + 1)} a nominal 90% interval holds 89 to 97%; train more runs, or stop "
        "some early"
    ]
