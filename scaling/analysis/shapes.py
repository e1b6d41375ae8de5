"""Models that can be built: the whole numbers nearest to the best size, tokens and batch."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from scaling import counts, sizes
from scaling.analysis.allocation import Allocation, Cost, reach_of, run_of, with_tokens
from scaling.analysis.budget import Budget
from scaling.analysis.fitted import Law
from scaling.analysis.forms import Array
from scaling.architecture import LADDER, Architecture

NEIGHBOURS = (1.0, 0.9, 0.8, 0.65, 0.5, 0.35, 1.1, 1.25, 1.5, 2.0)
"""Where the model nearest to the best size breaks a limit, those nearest to these shares of it are
tried."""


@dataclass(frozen=True, kw_only=True)
class RunShape:
    """A model that can be built: parameters, tokens, and the config overrides that train it."""

    params: int
    tokens: int
    overrides: Mapping[str, Any] = field(default_factory=dict)


ShapeFor = Callable[[float, float], RunShape | None]
"""(parameters, FLOPs) -> the nearest model, None where there is none."""


class Built(NamedTuple):
    """A run in whole numbers, and the config overrides that train it."""

    allocation: Allocation
    params: int
    tokens: int
    overrides: dict[str, Any]


def on_the_ladder(*, vocabulary: int, kind: Architecture = LADDER) -> ShapeFor:
    """The nearest rung of `scaling.sizes`, for those who have no config."""
    rungs = list(sizes.ladder(vocabulary=vocabulary))
    totals = [counts.parameters(rung, kind).total for rung in rungs]

    def shape_for(params: float, flops: float) -> RunShape:
        at = min(range(len(rungs)), key=lambda i: abs(math.log(totals[i] / params)))
        tokens = counts.tokens_for(rungs[at], kind, flops=flops)
        overrides = {"model.width": rungs[at].width, "budget.flops": float(flops)}
        return RunShape(params=totals[at], tokens=tokens, overrides=overrides)

    return shape_for


def build(
    law: Law, budget: Budget, best: Allocation, *, shape_for: ShapeFor, loss: float | None, by: Cost
) -> Built | None:
    """The model nearest to the best size that keeps the limits of the budget, None where there is
    none; with a `loss`, that reaches it.

    Where FLOPs are the only limit, the run is the shape as it comes. Else its tokens are found
    again at its own size and named in the overrides (`budget.tokens`), and so is the batch where
    the budget chooses one (`batch_tokens`): a whole number of what the chips take, and the tokens
    whole batches.
    """
    form, values = law.form, law.values
    low, high = budget.sizes
    if budget.flops is not None and budget.plain and loss is None:
        nearest = shape_for(float(best.params), budget.flops)
        if nearest is None:
            return None
        run = run_of(form, values, budget, np.asarray(float(nearest.params)))
        run = with_tokens(form, values, budget, run, nearest.tokens)
        return Built(run, nearest.params, nearest.tokens, dict(nearest.overrides))
    for shape in _near(best, shape_for):
        params = np.asarray(float(shape.params))
        if not low <= shape.params <= high:
            continue

        def fitted(limits: Budget, params: Array = params) -> Allocation:
            if loss is None:
                return run_of(form, values, limits, params)
            return reach_of(form, values, loss, limits, params, by=by)

        run, batch = fitted(budget), 1
        overrides = {k: value for k, value in shape.overrides.items() if k != "budget.flops"}
        if budget.chooses_batch and np.isfinite(run.batch_tokens):
            batch = whole_batch(budget, float(run.batch_tokens))
            run = fitted(dataclasses.replace(budget, batch_tokens=float(batch)))
            overrides["batch_tokens"] = batch
        if np.isnan(run.params):
            continue
        batches = float(run.tokens) / batch
        # A share of a batch that is only rounding is none.
        whole = math.floor(batches + 1e-6) if loss is None else math.ceil(batches - 1e-6)
        tokens = max(1, whole) * batch
        overrides["budget.tokens"] = tokens
        if budget.unique_tokens is not None and tokens > budget.unique_tokens:
            overrides["budget.unique_tokens"] = int(budget.unique_tokens)
        run = with_tokens(form, values, budget, run, tokens)
        return Built(run, shape.params, tokens, overrides)
    return None


def whole_batch(budget: Budget, batch: float) -> int:
    """The nearest batch that the chips can share: each the same number of `tokens_per_chip`, or
    fewer chips' worth where there is not enough for all."""
    if budget.machine is None:
        return max(1, round(batch))
    unit = budget.machine.tokens_per_chip
    if batch >= unit * budget.machine.chips:
        unit *= budget.machine.chips
    return max(1, round(batch / unit)) * unit


def _near(best: Allocation, shape_for: ShapeFor) -> Iterator[RunShape]:
    seen = set()
    for share in NEIGHBOURS:
        params = share * float(best.params)
        shape = shape_for(params, float(6 * params * best.tokens))
        if shape is not None and shape.params not in seen:
            seen.add(shape.params)
            yield shape
