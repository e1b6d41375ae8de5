"""What a fit can prove of itself: that it is the best, and which parameters the runs determine."""

import math
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
import scipy.stats
from numpy.typing import NDArray

from scaling.analysis.forms import Array
from scaling.analysis.solver import Penalty, Problem, Solved

SAME = 1e-6
"""Values within this share of each other are the same."""
LEADING, LONG, TURNS = 31, 400, 4
"""So many ends go on for so many steps, at most so often, where the second solver gains."""
LEAST_SIZE = 1e-8
"""Below this, residuals are rounding."""
LEAST_NOISE = 1e-9
"""Runs that lie on the law exactly are taken for known to this."""
PROFILE_LEVEL = 0.95
PROFILE_REACHES = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0, 20.0, 50.0)
"""How far profiles go to either side, in standard errors."""
CONDITION = 1e6
"""Beyond this condition number of the scaled derivatives, rounding alone moves parameters."""


class Best(NamedTuple):
    """The best of a search, and the evidence for it.

    `share_best` of the starts ended within 1e-6 of it; `second_basin_gap` is how far above it the
    next value lies that several starts agree on, relative (None if there is none), and
    `second_theta` where; `polish_gain` is by what share of the value a second solver lowered it.
    """

    theta: Array
    value: float
    starts: int
    share_best: float
    second_basin_gap: float | None
    second_theta: Array | None
    polish_gain: float


def best_of(
    problem: Problem, ends: Solved, penalty: Penalty, *, free: NDArray[np.bool_] | None = None
) -> Best:
    """The best end of a search, polished by a second solver."""
    order = np.argsort(ends.value)
    theta, value = ends.theta[order[0]], float(ends.value[order[0]])
    ended, places, values = value, ends.theta.copy(), ends.value.copy()
    leaders = order[:LEADING]
    for _ in range(TURNS):
        polished = polish(problem, theta, penalty, free=free)
        before, gained = value, polished.value[0] < value
        if gained:
            theta, value = polished.theta[0], float(polished.value[0])
        if value >= before * (1 - SAME):
            break
        # The search stopped too early: the leading ends go on, and the polished one with them.
        leading = np.concatenate([theta[None], places[leaders]])
        further = problem.solve(leading, penalty, free=free, steps=LONG)
        places[leaders], values[leaders] = further.theta[1:], further.value[1:]
        if further.value.min() < value:
            theta, value = further.theta[further.value.argmin()], float(further.value.min())
    gain = 0.0 if ended <= 0 else 1 - value / ended
    order = np.argsort(values)
    relative = values[order] / max(value, 1e-300) - 1
    # Two starts that end on one value, apart from the best, have found a basin; a lone value is
    # unfinished.
    agreed = np.abs(np.diff(relative)) <= SAME * (1 + relative[1:])
    others = np.flatnonzero(agreed & (relative[1:] > 1e-3))
    exact = value < len(problem.target) * LEAST_SIZE**2
    second = None if exact or not others.size else int(others[0]) + 1
    return Best(
        theta=theta,
        value=value,
        starts=len(order),
        share_best=float(np.mean(values <= value * (1 + SAME) + LEAST_SIZE**2)),
        second_basin_gap=None if second is None else float(relative[second]),
        second_theta=None if second is None else places[order[second]],
        polish_gain=gain,
    )


def polish(
    problem: Problem, theta: Array, penalty: Penalty, *, free: NDArray[np.bool_] | None = None
) -> Solved:
    """Lower the objective from `theta` by SciPy's BFGS, over what is free and on no bound, in units
    in which the curvature is one."""
    lower, upper = problem.form.bounds
    held = np.zeros(len(theta), bool) if free is None else ~free
    moves = ~held & (theta > lower + 1e-9) & (theta < upper - 1e-9)
    jacobian = problem.jacobian(theta)
    residuals = problem.target - problem.linked(theta)
    root = np.sqrt(_robust(residuals, penalty))[:, None] * jacobian[:, moves]
    try:
        unit = np.linalg.inv(np.linalg.cholesky(root.T @ root)).T
    except np.linalg.LinAlgError:
        unit = np.diag(1 / np.maximum(np.linalg.norm(root, axis=0), 1e-12))
    value = max(problem.value(theta, penalty), 1e-300)

    def at(shift: Array) -> Array:
        moved = theta.copy()
        moved[moves] += unit @ shift
        return problem.inside(moved)

    def scaled(shift: Array) -> tuple[float, Array]:
        point = at(shift)
        left = problem.target - problem.linked(point)
        slope = -(_robust(left, penalty) * left) @ problem.jacobian(point)[:, moves] @ unit
        return problem.value(point, penalty) / value, slope / value

    ended = scipy.optimize.minimize(
        scaled, np.zeros(int(moves.sum())), jac=True, method="BFGS", options={"gtol": 1e-12}
    )
    point = at(ended.x)
    return Solved(point[None], np.array([problem.value(point, penalty)]))


def gradient(problem: Problem, theta: Array, penalty: Penalty) -> Array:
    """Of the objective, by the solver's coordinates [parameters]."""
    residuals = problem.target - problem.linked(theta)
    return -(_robust(residuals, penalty) * residuals) @ problem.jacobian(theta)


def _robust(residuals: Array, penalty: Penalty) -> Array:
    """Weights under which least squares has the gradient of the penalty."""
    weights = np.minimum(1.0, penalty.delta / np.maximum(np.abs(residuals), 1e-300))
    found: Array = np.where(residuals < 0, penalty.asymmetry, 1.0) * weights
    return found


def identify(
    problem: Problem,
    best: Best,
    penalty: Penalty,
    *,
    free: NDArray[np.bool_],
    resampled: Array | None = None,
) -> dict[str, Any]:
    """Which parameters the runs determine: the `identifiability` object of law.json.

    A profile holds one parameter still, lets the others follow, and sees the objective rise. Where
    it has risen by F/2 noise variances, F being the 95% point of Fisher's distribution with 1 and
    n - p degrees of freedom, ends the 95% interval (Bates and Watts 1988, section 6.1; for Huber's
    penalty the variance is the mean square of its derivative over the mean of its second, Huber
    1981, section 7.6). A side on which it never does, up to the bound or 50 standard errors away,
    is open, and the runs do not determine the parameter on that side. Nor do they on a side where
    the 95% interval of `resampled` (coordinates [samples, parameters]) ends on the bound. A
    coefficient is that of its whole term at the middle of the runs. `condition` is of the
    derivatives, each scaled to length one.
    """
    jacobian = problem.jacobian(best.theta)
    residuals = problem.target - problem.linked(best.theta)
    root = np.sqrt(_robust(residuals, penalty))[:, None] * jacobian[:, free]
    lengths = np.linalg.norm(root, axis=0)
    unit = root / np.maximum(lengths, 1e-300)
    singular = np.linalg.svd(unit, compute_uv=False)
    condition = float(singular[0] / max(singular[-1], 1e-300))
    inverse = np.linalg.pinv(unit.T @ unit, rcond=1e-14, hermitian=True)
    lower, upper = problem.form.bounds
    names = [p.name for p, is_free in zip(problem.form.parameters, free, strict=True) if is_free]
    which = np.flatnonzero(free)
    size = np.abs(residuals)
    inside = float(np.mean(size <= penalty.delta))
    freedom = max(len(residuals) - int(free.sum()), 1)
    threshold = float(scipy.stats.f.ppf(PROFILE_LEVEL, 1, freedom)) / 2
    squares = float(np.sum(np.minimum(size, penalty.delta) ** 2)) / freedom
    noise = max(squares / max(inside, 1 / len(residuals)), LEAST_NOISE**2)
    spread = math.sqrt(noise)

    reaches = np.array([-x for x in reversed(PROFILE_REACHES)] + list(PROFILE_REACHES))
    starts, held = [], []
    errors = spread * np.sqrt(np.maximum(np.diag(inverse), 1e-300)) / np.maximum(lengths, 1e-300)
    # A parameter that hardly moves the prediction (a limit that has gone to infinity) takes steps
    # that its bounds hold, and does not follow the others.
    widest = (upper - lower)[which] / 10
    follows = errors < widest
    for i, index in enumerate(which):
        error = min(errors[i], widest[i])
        slope = inverse[:, i] / max(inverse[i, i], 1e-300)
        slope = np.where(follows, slope * lengths[i] / np.maximum(lengths, 1e-300), 0.0)
        for reach in reaches:
            start = best.theta.copy()
            shift = np.clip(best.theta[index] + reach * error, lower[index], upper[index])
            start[which] += (shift - best.theta[index]) * slope
            start[index] = shift
            starts.append(problem.inside(start))
            hold = free.copy()
            hold[index] = False
            held.append(hold)
    ends = problem.solve(np.array(starts), penalty, free=np.array(held))
    rises = (ends.value.reshape(len(which), -1) - best.value) / noise
    points = np.array(starts)[:, which].reshape(len(which), len(reaches), -1)

    found: dict[str, Any] = {}
    for i, (name, index) in enumerate(zip(names, which, strict=True)):
        x = np.append(points[i, :, i], best.theta[index])
        rise = np.append(np.maximum(rises[i], 0.0), 0.0)
        order = np.argsort(x, kind="stable")
        x, rise = x[order], rise[order]
        middle = int(np.argmin(np.abs(x - best.theta[index])))
        low = _crossing(x[: middle + 1][::-1], rise[: middle + 1][::-1], threshold)
        high = _crossing(x[middle:], rise[middle:], threshold)
        if resampled is not None:
            ends_low, ends_high = np.quantile(resampled[:, index], (0.025, 0.975))
            low = None if ends_low <= lower[index] else low
            high = None if ends_high >= upper[index] else high
        parameter = problem.form.parameters[index]
        show = math.exp if parameter.log else float
        found[name] = {
            "at_the_middle": bool(any(pivot.coefficient == name for pivot in problem.form.pivots)),
            "value": show(best.theta[index]),
            "interval_95": [None if end is None else show(end) for end in (low, high)],
            "profile": {"x": [show(value) for value in x], "rise": rise.tolist()},
            "identified": low is not None and high is not None,
        }
    not_identified = [name for name, entry in found.items() if not entry["identified"]]
    return {
        "condition": condition,
        "threshold": threshold,
        "parameters": found,
        "not_identified": not_identified,
        "verdict": _verdict(found, condition),
    }


def _crossing(x: Array, rise: Array, threshold: float) -> float | None:
    """Where, going outwards, the rise first passes the threshold; None if it never does."""
    over = np.flatnonzero(rise >= threshold)
    if not over.size:
        return None
    j = int(over[0])
    if j == 0:
        return float(x[0])
    # A profile is close to a parabola: its root is close to a line.
    low, high = math.sqrt(rise[j - 1]), math.sqrt(rise[j])
    share = (math.sqrt(threshold) - low) / max(high - low, 1e-300)
    return float(x[j - 1] + share * (x[j] - x[j - 1]))


def _verdict(found: dict[str, Any], condition: float) -> str:
    open_ends = []
    for name, entry in found.items():
        low, high = entry["interval_95"]
        if low is None and high is None:
            open_ends.append(f"{name} (no value is excluded)")
        elif low is None:
            open_ends.append(f"{name} (only bounded above, by {high:.4g})")
        elif high is None:
            open_ends.append(f"{name} (only bounded below, by {low:.4g})")
    if not open_ends and condition < CONDITION:
        return "identified: the runs determine every parameter"
    if not open_ends:
        return f"hardly identified: the condition number is {condition:.2g}"
    return f"not identified: {', '.join(open_ends)}"
