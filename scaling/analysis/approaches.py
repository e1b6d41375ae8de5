"""Compute-optimal size and data as powers of compute, by Approaches 1, 2 and 3.

Approach 1 looks along training curves for the lowest loss at each compute, Approach 2 across sizes
at one compute, Approach 3 asks a fitted law. Whether they agree: `scaling.analysis.agreement`.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import Akima1DInterpolator

from scaling.analysis.fitted import FitError, Law, optimum
from scaling.analysis.forms import Array
from scaling.analysis.frontier import budgets
from scaling.runs import Runs

Rows = NDArray[np.intp]

LEVEL = 0.95
ENVELOPE_POINTS = 1500
AKIMA_POINTS = 25
"""Interpolated points for each gap between sizes."""
LEAST_SPREAD = 0.33
"""A minimum is located no better than to this share of the mean gap between sizes."""
NEAREST = 5
"""Sizes around the lowest loss from which noise is told: there a parabola is near enough."""


class Line(NamedTuple):
    """log y = intercept + exponent x log flops, in natural logarithms.

    `interval` of the exponent is at the allocation's level, None where nothing tells it.
    """

    exponent: float
    intercept: float
    interval: tuple[float, float] | None

    def at(self, flops: float | Array) -> Array:
        """y at a compute."""
        return np.exp(self.intercept + self.exponent * np.log(flops))


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """How the best size and the best tokens grow with compute, and the points that say so.

    Attributes:
      approach: which approach, in words.
      params, tokens: the two lines; `samples` are draws of both [draws, 2 lines, 2 (exponent,
        intercept)], empty where there are none.
      points: columns flops, params, tokens, loss [points] that the lines go through; with Akima's
        curves also `spread`, the standard deviation of log params.
      rows: the rows of the table that the points are, where they are rows.
      left_out: budgets without a minimum inside the tested sizes, in FLOPs.
    """

    approach: str
    params: Line
    tokens: Line
    level: float
    samples: Array
    points: Mapping[str, Array]
    rows: Rows | None = None
    left_out: tuple[float, ...] = ()

    def tokens_per_parameter(self, flops: float | Array) -> Array:
        """Optimal tokens over optimal size at a compute."""
        found: Array = self.tokens.at(flops) / self.params.at(flops)
        return found


def hull(
    runs: Runs, *, vantage: bool = False, samples: int = 300, seed: int = 0, level: float = LEVEL
) -> Allocation:
    """Approach 1 on the lower convex hull of (log flops, log loss).

    The lines are least squares of log params and log tokens on log flops over the hull's vertices
    at which the loss falls. `vantage` adds the point (log 2 max flops, log 2 max loss) first, as
    McLeish et al. 2025 (Gemstones), section 4.2, do: vertices of the upper hull between the
    cheapest row and that point then count too, if the loss falls at them. A hull needs no grid of
    budgets, unlike an envelope, and long flat stretches between two models get no extra weight.

    Intervals: whole series of checkpoints (rows, where there are none) drawn with replacement.

    Raises:
      FitError: fewer than two vertices.
    """
    log_flops, log_loss = runs.log("flops"), runs.log("loss")

    def vertices(rows: Rows) -> Rows:
        return rows[_falling_hull(log_flops[rows], log_loss[rows], vantage=vantage)]

    return _along_rows(runs, vertices, "Approach 1 (hull)", samples, seed, level)


def envelope(
    runs: Runs,
    *,
    points: int = ENVELOPE_POINTS,
    samples: int = 300,
    seed: int = 0,
    level: float = LEVEL,
) -> Allocation:
    """Approach 1 on the envelope of training curves: Hoffmann et al. 2022, section 3.1.

    Where rows are checkpoints, log loss is interpolated over log flops within each series, and at
    `points` compute budgets in equal ratios the lowest curve gives the size and the tokens. Rows
    that are no checkpoints are curves of one point: the envelope is then the runs that no run of
    as much compute or less matches.

    Intervals: whole series drawn with replacement. (Hoffmann et al. take 80% of the runs, 100
    times, which gives intervals of half the width.)

    Raises:
      FitError: fewer than two points.
    """
    if _no_curves(runs):
        log_flops, log_loss = runs.log("flops"), runs.log("loss")

        def unbeaten(rows: Rows) -> Rows:
            return rows[_unbeaten(log_flops[rows], log_loss[rows])]

        return _along_rows(runs, unbeaten, "Approach 1 (envelope)", samples, seed, level)
    curves = [_curve(runs, rows) for rows in _groups(runs)]
    at = np.linspace(runs.log("flops").min(), runs.log("flops").max(), points)
    losses = np.array([np.interp(at, c.flops, c.loss, left=np.inf, right=np.inf) for c in curves])
    tokens = np.array([np.interp(at, c.flops, c.tokens) for c in curves])
    params = np.array([np.interp(at, c.flops, c.params) for c in curves])

    def lines(chosen: NDArray[np.intp]) -> tuple[Array, dict[str, Array]]:
        best = chosen[np.argmin(losses[chosen], axis=0)]
        of = best, np.arange(points)
        seen = np.isfinite(losses[of])
        picked = {"flops": at, "params": params[of], "tokens": tokens[of], "loss": losses[of]}
        picked = {name: x[seen] for name, x in picked.items()}
        return _lines(picked["flops"], picked["params"], picked["tokens"]), picked

    value, picked = lines(np.arange(len(curves)))
    rng = np.random.default_rng(seed)
    drawn = [lines(rng.integers(0, len(curves), len(curves)))[0] for _ in range(samples)]
    return _allocation(
        "Approach 1 (envelope)", value, drawn, level, {n: np.exp(x) for n, x in picked.items()}
    )


def akima(
    runs: Runs,
    *,
    noise: float | None = None,
    draws: int = 1000,
    seed: int = 0,
    level: float = LEVEL,
) -> Allocation:
    """Approach 2 by interpolation: Porian et al. 2024, section 3 and appendix.

    For each budget (`scaling.analysis.frontier.budgets`; the lowest loss of each size): Akima's
    curve of log loss over log params on 25 points a gap; a budget whose lowest point is at an end
    is left out. `draws` times normal noise of deviation `noise` is added to the losses: the optimum
    is the median of the drawn minima, its spread their deviation, but at least 0.33 mean gaps
    between sizes, times draws over draws with a minimum inside (fewer than half of them leave the
    budget out). The lines are least squares with weights 1/spread^2; the interval is that of the
    lines through each draw. Unlike a parabola the curve is not bent by far-off sizes.

    `noise` is in the unit of the loss (Porian et al. measured 0.002 nats between seeds on
    RefinedWeb); None takes the deviation of the five losses around the lowest of each budget from a
    parabola in log params, pooled.

    Raises:
      FitError: fewer than two budgets with a minimum inside; no noise given, and no budget of more
        than three sizes.
    """
    groups = [_lowest(runs, rows) for rows in budgets(runs)]
    groups = [rows for rows in groups if len(rows) >= 3]
    if noise is None:
        noise = _parabola_noise(runs, groups)
    rng = np.random.default_rng(seed)
    stars: list[Array] = []
    found: dict[str, list[float]] = {
        name: [] for name in ("flops", "params", "tokens", "loss", "spread")
    }
    left_out = []
    for rows in groups:
        flops = float(np.exp(runs.log("flops")[rows].mean()))
        x, loss = runs.log("params")[rows], runs.loss[rows]
        grid = np.linspace(x[0], x[-1], AKIMA_POINTS * (len(x) - 1))
        curve = Akima1DInterpolator(x, np.log(loss))(grid)
        noisy = np.maximum(loss[:, None] + noise * rng.standard_normal((len(x), draws)), 1e-300)
        lowest = np.argmin(Akima1DInterpolator(x, np.log(noisy))(grid), axis=0)
        inside = (lowest > 0) & (lowest < len(grid) - 1)
        if np.argmin(curve) in (0, len(grid) - 1) or inside.sum() < draws / 2:
            left_out.append(flops)
            continue
        stars.append(grid[lowest[inside]])
        middle = float(np.median(stars[-1]))
        gap = AKIMA_POINTS * (grid[1] - grid[0])
        spread = max(float(stars[-1].std()), LEAST_SPREAD * float(gap)) * draws / inside.sum()
        tokens = np.exp(np.interp(middle, x, runs.log("tokens")[rows]))
        values = (flops, np.exp(middle), tokens, np.exp(curve.min()), spread)
        for name, value in zip(found, values, strict=True):
            found[name].append(float(value))
    if len(stars) < 2:
        raise FitError(
            f"{len(stars)} of {len(groups)} budgets have their lowest loss between the smallest "
            "and the largest size; at least two are needed: train sizes further out at the others"
        )
    points = {name: np.array(values) for name, values in found.items()}
    weights = 1 / points["spread"] ** 2
    log_flops, shift = np.log(points["flops"]), np.log(points["tokens"] * points["params"])
    value = _lines(log_flops, np.log(points["params"]), np.log(points["tokens"]), weights)
    count = min(len(each) for each in stars)
    drawn = np.array([each[:count] for each in stars]).T
    samples = _lines(log_flops, drawn, shift - drawn, weights)
    return _allocation(
        "Approach 2 (Akima)", value, samples, level, points, left_out=tuple(left_out)
    )


def of_parabolas(isoflop: Mapping[str, Any], *, level: float = LEVEL) -> Allocation:
    """Approach 2 by parabolas: Hoffmann et al. 2022, section 3.2, of what `frontier.isoflop` found.

    The lines are least squares through the minima inside the tested sizes; tokens are compute over
    6 sizes. `level` is 0.9 or 0.95.

    Raises:
      FitError: fewer than two minima inside.
    """
    inside = [entry for entry in isoflop["budgets"] if entry["interior"]]
    if len(inside) < 2:
        raise FitError(
            f"{len(inside)} of {len(isoflop['budgets'])} budgets have a minimum inside the tested "
            "sizes, and two are needed: train sizes further out at the others"
        )
    columns = {"flops": "flops", "params": "params_opt", "tokens": "tokens_opt", "loss": "loss_opt"}
    points = {name: np.array([entry[key] for entry in inside]) for name, key in columns.items()}
    value = _lines(*(np.log(points[name]) for name in ("flops", "params", "tokens")))
    found = _allocation("Approach 2 (parabolas)", value, [], level, points, left_out=tuple(
        entry["flops"] for entry in isoflop["budgets"] if not entry["interior"]
    ))  # fmt: skip
    ends = (isoflop["params_exponent"] or {}).get(f"interval_{100 * level:.0f}")
    if ends is None:
        return found
    low, high = ends
    return dataclasses.replace(
        found,
        params=found.params._replace(interval=(low, high)),
        tokens=found.tokens._replace(interval=(1 - high, 1 - low)),
    )


def of_law(law: Law, *, level: float = LEVEL) -> Allocation:
    """Approach 3: what a fitted law holds best over the compute of its runs.

    For Chinchilla's law the exponent of size is beta/(alpha + beta) (Hoffmann et al. 2022, equation
    4); for another law it is the slope between the least and the largest compute of the runs.

    Raises:
      FitError: the law has no optimum there.
    """
    of_runs = np.array([entry["flops"] for entry in law.diagnostics["residuals"]])
    ends = np.array([of_runs.min(), of_runs.max()])
    samples = np.concatenate([law.values[None], law.samples])
    best = optimum(law.form, samples[:, None, :], ends[None, :])
    if np.isnan(best.params[0]).any():
        raise FitError(
            f"{law.law} has no compute optimum between {ends[0]:.3g} and {ends[1]:.3g} FLOPs: its "
            "loss only falls towards one end; fit a law with a term for size and one for data"
        )
    kept = np.isfinite(best.params).all(axis=1)
    log_flops = np.log(ends)
    lines = _lines(log_flops, np.log(best.params[kept]), np.log(best.tokens[kept]))
    if law.law == "chinchilla":
        alpha, beta = samples[kept][:, 3], samples[kept][:, 4]
        for line, exponent in enumerate((beta / (alpha + beta), alpha / (alpha + beta))):
            middle = lines[:, line, 1] + lines[:, line, 0] * log_flops.mean()
            lines[:, line] = np.stack([exponent, middle - exponent * log_flops.mean()], axis=1)
    points = {"flops": ends, **{name: getattr(best, name)[0] for name in best._fields}}
    return _allocation(f"Approach 3 ({law.law})", lines[0], lines[1:], level, points)


def _lines(
    log_flops: Array, log_params: Array, log_tokens: Array, weights: Array | None = None
) -> Array:
    """(Weighted) least squares of [..., points] on [points]: [..., 2 lines, 2 (exponent,
    intercept)]."""
    weights = np.ones_like(log_flops) if weights is None else weights
    share = weights / weights.sum()
    middle = share @ log_flops
    pull = share * (log_flops - middle)
    y = np.stack([log_params, log_tokens], axis=-2)
    exponent = y @ pull / (pull @ log_flops)
    return np.stack([exponent, y @ share - exponent * middle], axis=-1)


def _allocation(
    approach: str,
    value: Array,
    drawn: Array | Sequence[Array],
    level: float,
    points: Mapping[str, Array],
    rows: Rows | None = None,
    left_out: tuple[float, ...] = (),
) -> Allocation:
    samples = np.array(drawn, np.float64).reshape(-1, 2, 2)
    samples = samples[np.isfinite(samples).all(axis=(1, 2))]
    lines = []
    for line in range(2):
        ends = None
        if len(samples) >= 2:
            low, high = np.quantile(samples[:, line, 0], (0.5 - level / 2, 0.5 + level / 2))
            ends = float(low), float(high)
        lines.append(Line(float(value[line, 0]), float(value[line, 1]), ends))
    return Allocation(
        approach=approach, params=lines[0], tokens=lines[1], level=level, samples=samples,
        points=points, rows=rows, left_out=left_out,
    )  # fmt: skip


def _no_curves(runs: Runs) -> bool:
    return runs.series is None or len(set(runs.series)) == len(runs)


def _groups(runs: Runs) -> list[Rows]:
    """Rows of each series; every row by itself where there are none."""
    if runs.series is None:
        return [np.array([row], np.intp) for row in range(len(runs))]
    names = np.array(runs.series)
    return [np.flatnonzero(names == name) for name in dict.fromkeys(runs.series)]


def _along_rows(
    runs: Runs,
    choose: Callable[[Rows], Rows],
    approach: str,
    samples: int,
    seed: int,
    level: float,
) -> Allocation:
    """Lines through the rows that `choose` (rows -> rows) picks, of all rows and of resamples."""
    logs = {name: runs.log(name) for name in ("flops", "params", "tokens", "loss")}

    def lines(rows: Rows) -> Array:
        return _lines(logs["flops"][rows], logs["params"][rows], logs["tokens"][rows])

    rows = choose(np.arange(len(runs)))
    if len(rows) < 2:
        raise FitError(
            f"{approach} finds {len(rows)} point on {len(runs)} rows and needs two: give runs of "
            "more than one compute, the larger ones with a lower loss"
        )
    groups, rng = _groups(runs), np.random.default_rng(seed)
    drawn = []
    for _ in range(samples if len(groups) > 2 else 0):
        # A run that is drawn twice makes no other hull than one drawn once.
        picked = np.unique(rng.integers(0, len(groups), len(groups)))
        some = choose(np.concatenate([groups[i] for i in picked]))
        if len(some) >= 2:
            drawn.append(lines(some))
    points = {name: np.exp(x[rows]) for name, x in logs.items()}
    return _allocation(approach, lines(rows), drawn, level, points, rows=rows)


def _falling_hull(x: Array, y: Array, *, vantage: bool) -> Rows:
    """Vertices of the convex hull of points (x, y), cheapest first, at which y falls."""
    if not vantage:
        return np.array(_chain(x, y, _unbeaten(x, y)), np.intp)
    x, y = np.append(x, x.max() + math.log(2)), np.append(y, y.max() + math.log(2))
    order = np.lexsort((y, x))
    found = sorted({*_chain(x, y, order), *_chain(x, -y, order)} - {len(x) - 1}, key=lambda i: x[i])
    kept = [found[0]] + [
        after for before, after in itertools.pairwise(found) if y[after] < y[before]
    ]
    return np.array(kept, np.intp)


def _unbeaten(x: Array, y: Array) -> Rows:
    """Points that no point of the same x or less matches in y, cheapest first."""
    order = np.lexsort((y, x))
    best = np.minimum.accumulate(np.concatenate([[np.inf], y[order][:-1]]))
    return order[y[order] < best]


def _chain(x: Array, y: Array, order: Rows) -> list[int]:
    """Lower hull by Andrew's monotone chain (1979)."""
    found: list[int] = []
    for i in order.tolist():
        while len(found) > 1:
            a, b = found[-2:]
            if (x[b] - x[a]) * (y[i] - y[a]) > (y[b] - y[a]) * (x[i] - x[a]):
                break
            found.pop()
        found.append(i)
    return found


class _Curve(NamedTuple):
    flops: Array  # logs [checkpoints], rising
    params: Array
    tokens: Array
    loss: Array


def _curve(runs: Runs, rows: Rows) -> _Curve:
    rows = rows[np.argsort(runs.flops[rows], kind="stable")]
    return _Curve(*(runs.log(name)[rows] for name in _Curve._fields))


def _lowest(runs: Runs, rows: Rows) -> Rows:
    """The row of lowest loss of each size, smallest size first."""
    order = rows[np.lexsort((runs.loss[rows], runs.params[rows]))]
    first = np.concatenate([[True], np.diff(runs.params[order]) > 0])
    return order[first]


def _parabola_noise(runs: Runs, groups: Sequence[Rows]) -> float:
    squares, freedom = 0.0, 0
    for rows in groups:
        first = int(np.argmin(runs.loss[rows])) - NEAREST // 2
        first = max(0, min(first, len(rows) - NEAREST))
        x = runs.log("params")[rows[first : first + NEAREST]]
        loss = runs.loss[rows[first : first + NEAREST]]
        design = np.vander(x - x.mean(), 3)
        left = loss - design @ np.linalg.lstsq(design, loss, rcond=None)[0]
        squares, freedom = squares + float(left @ left), freedom + len(x) - 3
    if freedom < 1:
        raise FitError(
            "no budget has more than three sizes, so nothing tells the noise of a loss; give it, "
            "or train more sizes"
        )
    return math.sqrt(squares / freedom)
