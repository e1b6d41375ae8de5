"""The next runs: which of the cells that could be trained make a prediction surest for their cost.

Near its fit a law is linear in its parameters: with derivatives J of the linked prediction and the
noise of the fit, the parameters have the covariance V = noise^2 (J'J)^-1 and a prediction with
derivatives g the variance g'Vg. A run with derivatives a takes (g'Va)^2 / (noise^2 + a'Va) off it,
whatever it will score: so that runs can be chosen before they are trained (Chaloner and Verdinelli
1995, section 2).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from scaling.analysis.devices import PlanError, positive
from scaling.analysis.fitted import Law, inputs_of
from scaling.analysis.forms import Array
from scaling.analysis.shapes import ShapeFor
from scaling.analysis.solver import Problem
from scaling.runs import Runs

Criterion = Literal["variance", "determinant"]

RIDGE = 1e-12
"""Of the information's diagonal: what no run has told stays unknown, not infinite."""
LEAST_GAIN = 1e-6
PASSES = 10
FAR = 100.0
"""Beyond so many times the largest run, what a cell would tell rests on the law's form."""


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Runs that could be trained: sizes, tokens and costs [cells], in any unit of the budget's.

    `others` are the law's further inputs, such as unique_tokens; `overrides` are those of the
    config that train each.
    """

    params: Array
    tokens: Array
    cost: Array
    others: Mapping[str, Array] = field(default_factory=dict)
    overrides: tuple[Mapping[str, Any], ...] | None = None

    def __len__(self) -> int:
        return len(self.params)

    def of(self, keep: NDArray[np.bool_]) -> "Cells":
        """Those of a mask [cells]."""
        overrides = self.overrides
        return Cells(
            params=self.params[keep], tokens=self.tokens[keep], cost=self.cost[keep],
            others={name: values[keep] for name, values in self.others.items()},
            overrides=overrides and tuple(overrides[i] for i in np.flatnonzero(keep)),
        )  # fmt: skip


class Design(NamedTuple):
    """Which cells were chosen, how often each [cells], and the variance of the linked prediction
    before and after them, by the fitted law."""

    counts: NDArray[np.intp]
    before: float
    after: float


def grid_of(
    law: Law, *, least_flops: float, most_flops: float, budgets: int = 6, sizes: int = 7,
    reach: float = 8.0,
) -> Cells:  # fmt: skip
    """Cells around the law's optimum: `budgets` of compute, at each `sizes` from the optimal size /
    `reach` to x `reach`; the cost is in FLOPs.

    Raises:
      PlanError: budgets that are none, or without an optimum by this law.
    """
    positive("the least budget", least_flops)
    positive("the largest budget", most_flops)
    flops = np.repeat(np.geomspace(least_flops, most_flops, budgets), sizes)
    best = law.optimum(flops).params
    if not np.isfinite(best).all():
        raise PlanError(f"{law.law} has no optimal size at these budgets; give cells of your own")
    params = best * np.tile(np.geomspace(1 / reach, reach, sizes), budgets)
    return Cells(params=params, tokens=flops / 6 / params, cost=flops)


def built(cells: Cells, shape_for: ShapeFor) -> Cells:
    """The nearest models that can be built, each once; the cost becomes 6 params tokens.

    Raises:
      PlanError: there are none.
    """
    shapes = {}
    for params, flops in zip(cells.params, 6 * cells.params * cells.tokens, strict=True):
        shape = shape_for(float(params), float(flops))
        if shape is not None:
            shapes[shape.params, shape.tokens] = shape
    if not shapes:
        raise PlanError("no model that can be built is near these cells; give others")
    found = list(shapes.values())
    params, tokens = (np.array([getattr(s, name) for s in found], np.float64)
                      for name in ("params", "tokens"))  # fmt: skip
    return Cells(
        params=params, tokens=tokens, cost=6 * params * tokens,
        overrides=tuple(shape.overrides for shape in found),
    )  # fmt: skip


def next_runs(
    law: Law,
    *,
    flops: float,
    params: float,
    tokens: float,
    shape_for: ShapeFor | None = None,
    criterion: Criterion = "variance",
    most_repeats: int | None = 3,
    most_runs: int | None = None,
    most_tokens: float = math.inf,
) -> dict[str, Any]:
    """The `next_runs` object of plan.json for so many `flops` to spend: `describe` of the choice
    among `grid_of` the law, from the least compute that it was fitted to; no run has more than
    `most_tokens`, which is what the data has.

    Raises:
      PlanError: see `choose`; every cell has more tokens.
    """
    fitted = [entry["flops"] for entry in law.diagnostics["residuals"] if entry["flops"]]
    if not fitted:
        raise PlanError("law.json does not hold the compute of its runs; use choose and describe")
    positive("the budget for the next runs", flops)
    cells = grid_of(law, least_flops=min(*fitted, flops), most_flops=flops, budgets=8)
    if shape_for is not None:
        cells = built(cells, shape_for)
    cells = cells.of(cells.tokens <= most_tokens)
    if not len(cells):
        raise PlanError(
            f"every next run that was thought of has more than the {most_tokens:,.0f} tokens that "
            "the data has; give more data, or fewer FLOPs for the next runs"
        )
    design = choose(
        law, cells, budget=flops, params=params, tokens=tokens, criterion=criterion,
        most_repeats=most_repeats, most_runs=most_runs,
    )  # fmt: skip
    told = describe(law, cells, design, params=params, tokens=tokens)
    return told | {"criterion": criterion, "warnings": _far(flops, fitted)}


def _far(flops: float, fitted: Sequence[float]) -> list[str]:
    """Warns of runs that are chosen where the law has not been seen."""
    least, most = min(fitted), max(fitted)
    found = f"next runs of {flops:.3g} FLOPs together, and the law's runs have {least:.3g} to "
    if flops < least:
        return [
            f"{found}{most:.3g} each: below these nobody knows whether the law holds, and so small "
            "runs tell little of larger ones; give more"
        ]
    if flops > FAR * most:
        return [
            f"{found}{most:.3g} each: how sure a run of {FAR:.0f} times as much makes a prediction "
            "is said by the law's form alone; go there in steps"
        ]
    return []


def choose(
    law: Law,
    cells: Cells,
    *,
    budget: float,
    params: float,
    tokens: float,
    others: Mapping[str, float] | None = None,
    criterion: Criterion = "variance",
    runs: Runs | None = None,
    most_runs: int | None = None,
    most_repeats: int | None = None,
    draws: int = 16,
) -> Design:
    """The cells that make the prediction at `params` and `tokens` surest, for at most `budget`.

    By `variance` the mean over draws of the log variance of that prediction is least, by
    `determinant` the mean log determinant of the parameters' covariance (D-optimal, which cares for
    no prediction in particular). The draws are the fit and samples of its bootstrap: where
    parameters are poorly known, a cell that helps by one of them only is worth less. Greedy, by the
    gain for its cost and by the gain alone, whichever ends better; then each chosen cell is given
    up and the money spent anew, as long as that gains.

    A cell may be chosen again: another seed. `most_repeats` caps how often. Without it much of the
    money may go to one small cell, which is right as far as the law holds there.

    `runs` are those that the law was fitted to; without them, as law.json holds them, which
    suffices for laws of size, data and compute.

    Raises:
      PlanError: no cell that the budget pays for, or a law whose runs law.json does not hold.
    """
    cost = np.asarray(cells.cost, np.float64)
    positive("the budget for the next runs", budget)
    if not (len(cells) and np.isfinite(cost).all() and (cost > 0).all()):
        raise PlanError("the cells have costs that are not positive; give each its cost")
    if cost.min() > budget:
        raise PlanError(
            f"the cheapest cell costs {cost.min():.4g} and the budget is {budget:.4g}; give more, "
            "or smaller cells"
        )
    search = _Search(
        known=_known(law, cells, params, tokens, others or {}, runs, draws),
        cost=cost,
        budget=budget,
        most_runs=math.inf if most_runs is None else most_runs,
        most_repeats=math.inf if most_repeats is None else most_repeats,
        criterion=criterion,
    )
    nothing = np.zeros(len(cells), np.intp)
    ends = [search.exchanged(search.filled(nothing, for_its_cost=way)) for way in (True, False)]
    counts = min(ends, key=search.value)
    fitted = search.known.of_the_fit()
    before, after = (math.exp(fitted.log_variance(found)) for found in (nothing, counts))
    return Design(counts, before, after)


def describe(
    law: Law,
    cells: Cells,
    design: Design,
    *,
    params: float,
    tokens: float,
    others: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """The `next_runs` object of plan.json: the chosen cells, and the 90% intervals of the loss now
    and as expected after them, of the law's prediction and of one run.

    Linear in the parameters, with Student's t: `Law.predict_interval` needs no such thing, and is
    wider where the runs do not determine the law.
    """
    chosen = np.flatnonzero(design.counts)
    noise = law.diagnostics["residual_sd"]
    freedom = law.diagnostics["degrees_of_freedom"]
    predicted = float(law.predict(params, tokens, **(others or {})))

    def ends(variance: float, freedom: int) -> list[float]:
        reach = float(scipy.stats.t.ppf(0.95, freedom)) * math.sqrt(variance)
        if law.form.link == "log":
            return [predicted * math.exp(-reach), predicted * math.exp(reach)]
        return [predicted - reach, predicted + reach]

    more = int(design.counts.sum())
    return {
        "cells": [
            {
                "params": float(cells.params[i]),
                "tokens": float(cells.tokens[i]),
                **{name: float(values[i]) for name, values in cells.others.items()},
                "overrides": {} if cells.overrides is None else dict(cells.overrides[i]),
                "cost": float(cells.cost[i]),
                "runs": int(design.counts[i]),
            }
            for i in chosen
        ],
        "cost": float(design.counts @ cells.cost),
        "target": {
            "params": params,
            "tokens": tokens,
            **(others or {}),
            law.form.target: predicted,
        },
        "now": {
            "interval_90": ends(design.before, freedom),
            "interval_90_of_a_run": ends(design.before + noise**2, freedom),
        },
        "expected": {
            "interval_90": ends(design.after, freedom + more),
            "interval_90_of_a_run": ends(design.after + noise**2, freedom + more),
        },
    }


class _Known(NamedTuple):
    """What runs tell under each draw of the parameters: information [draws, parameters,
    parameters], derivatives of the cells [draws, cells, parameters] in units of the noise, and of
    the prediction [draws, parameters]."""

    information: Array
    cells: Array
    target: Array

    def of_the_fit(self) -> "_Known":
        """Under the first draw alone."""
        return _Known(*(part[:1] for part in self))

    def after(self, counts: NDArray[np.intp]) -> Array:
        """The information with so many runs of each cell."""
        told = np.einsum("dcp,c,dcq->dpq", self.cells, counts.astype(float), self.cells)
        return self.information + told

    def log_variance(self, counts: NDArray[np.intp]) -> float:
        """Of the prediction, the mean over draws."""
        solved = np.linalg.solve(self.after(counts), self.target[..., None])[..., 0]
        return float(np.mean(np.log(np.sum(self.target * solved, axis=1))))


@dataclass(frozen=True, kw_only=True)
class _Search:
    known: _Known
    cost: Array
    budget: float
    most_runs: float
    most_repeats: float
    criterion: Criterion

    def value(self, counts: NDArray[np.intp]) -> float:
        """What is to be least."""
        if self.criterion == "variance":
            return self.known.log_variance(counts)
        return -float(np.mean(np.linalg.slogdet(self.known.after(counts))[1]))

    def gains(self, counts: NDArray[np.intp]) -> Array:
        """By how much one more run of each cell lowers the value [cells]."""
        cells, target = self.known.cells, self.known.target
        covariance = np.linalg.inv(self.known.after(counts))
        moved = np.einsum("dcp,dpq->dcq", cells, covariance)
        own = np.einsum("dcq,dcq->dc", moved, cells)
        if self.criterion == "determinant":
            return np.mean(np.log1p(own), axis=0)
        shared = np.einsum("dcq,dq->dc", moved, target)
        variance = np.einsum("dp,dpq,dq->d", target, covariance, target)
        share = np.minimum(shared**2 / (1 + own) / variance[:, None], 1 - 1e-12)
        return np.mean(-np.log1p(-share), axis=0)

    def filled(self, counts: NDArray[np.intp], *, for_its_cost: bool) -> NDArray[np.intp]:
        """What is left of the budget spent greedily."""
        counts = counts.copy()
        while counts.sum() < self.most_runs:
            # A budget that is to be spent whole should not fail on rounding.
            affordable = self.cost <= (self.budget - counts @ self.cost) * (1 + 1e-9)
            affordable &= counts < self.most_repeats
            if not affordable.any():
                break
            gains = self.gains(counts)
            merit = np.where(affordable, gains / self.cost if for_its_cost else gains, -np.inf)
            at = int(np.argmax(merit))
            if gains[at] < LEAST_GAIN:
                break
            counts[at] += 1
        return counts

    def exchanged(self, counts: NDArray[np.intp]) -> NDArray[np.intp]:
        """Cells given up and their money spent anew, as long as that lowers the value."""
        value = self.value(counts)
        for _ in range(PASSES):
            before = value
            for at in np.flatnonzero(counts):
                for way in (True, False):
                    less = counts.copy()
                    less[at] = max(less[at] - 1, 0)
                    tried = self.filled(less, for_its_cost=way)
                    found = self.value(tried)
                    if found < value - LEAST_GAIN:
                        counts, value = tried, found
            if value > before - LEAST_GAIN:
                break
        return counts


def _known(
    law: Law,
    cells: Cells,
    params: float,
    tokens: float,
    others: Mapping[str, float],
    runs: Runs | None,
    draws: int,
) -> _Known:
    form = law.form
    rows = [
        inputs_of(form, _trained(law, runs)),
        inputs_of(form, {"params": cells.params, "tokens": cells.tokens, **cells.others}),
        inputs_of(form, {"params": [params], "tokens": [tokens],
                         **{name: [value] for name, value in others.items()}}),
    ]  # fmt: skip
    count = len(rows[0][form.inputs[0]])
    logs = {name: np.log(np.concatenate([part[name] for part in rows])) for name in form.inputs}
    problem = Problem.of(form, logs, np.zeros(count + len(cells) + 1))
    picked = np.linspace(0, len(law.samples) - 1, max(draws - 1, 0)).astype(int)
    values = np.concatenate([law.values[None], law.samples[picked]])
    theta = problem.inside(np.asarray(form.coordinates(values, problem.means)))
    noise = max(law.diagnostics["residual_sd"], 1e-12)
    jacobian = np.stack([problem.jacobian(one) for one in theta]) / noise
    old, new, target = np.split(jacobian, [count, count + len(cells)], axis=1)
    information = np.einsum("drp,drq->dpq", old, old)
    diagonal = np.einsum("dpp->dp", information)
    # A parameter that no run tells anything of is known to one unit of its coordinate.
    ridge = np.where(diagonal > 0, RIDGE * diagonal, 1.0)
    information = information + ridge[:, :, None] * np.eye(theta.shape[1])
    return _Known(information, new, target[:, 0] * noise)


def _trained(law: Law, runs: Runs | None) -> Mapping[str, Any]:
    """The inputs of the runs that the law was fitted to."""
    names = law.form.inputs
    if runs is not None:
        return {name: runs.column(name) for name in names}
    residuals = law.diagnostics["residuals"]
    found = {
        name: [entry[name] for entry in residuals]
        for name in dict.fromkeys((*names, "params", "tokens", "flops"))
        if all(entry.get(name) is not None for entry in residuals)
    }
    lacking = [n for n in names if n not in (*found, "tokens_per_parameter")]
    if lacking:
        raise PlanError(
            f"law.json does not hold {', '.join(lacking)} of the runs; give the runs themselves"
        )
    return found
