"""Loss against size at equal compute: the parabolas of Approach 2 and their minima."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scaling.analysis.evidence import Evidence, Run
from scaling.analysis.report.exhibits.marks import hover, interval_of, no_runs
from scaling.analysis.report.exhibits.titles import title
from scaling.analysis.report.panels import (
    Axis,
    Panel,
    Series,
    above,
    colour_scale,
    count,
    log_axis,
    loss_axis,
    power,
)

# More curves than this cannot be told apart by words at their ends, nor bear intervals.
FEW = 8
# A run belongs to a budget within 10% of its own compute; the planned run belongs to none.
SAME_BUDGET = 0.1


def panels(evidence: Evidence) -> list[Panel]:
    """Loss against size, one colour a budget, with the parabolas and minima where fitted."""
    runs = evidence.measured()
    budgets = evidence.budgets
    groups = _groups(runs, budgets)
    drawn = [run for group in groups for run in group] if budgets else runs
    if not drawn:
        return []
    few = len(budgets) <= FEW
    flops = [b["flops"] for b in budgets] or [run.flops for run in runs]
    x_axis = log_axis(
        title(evidence, "params"),
        [run.params for run in drawn],
        write=count,
        room=0.24 if budgets and few else 0.06,
    )
    points = Series(
        x=[run.params for run in drawn],
        y=[run.loss for run in drawn],
        shape="points",
        shade=[run.flops for run in drawn],
        small=not few,
        hover=[hover(run) for run in drawn],
    )
    curves = [
        _parabola(budget, group, tagged=few, unit=" FLOPs" if index == 0 else "")
        for index, (budget, group) in enumerate(zip(budgets, groups, strict=True))
        if budget.get("coefficients") is not None and len(group) > 1
    ]
    losses = [run.loss for run in drawn]
    if few:
        losses += [value for curve in curves for value in (min(curve.y), max(curve.y))]
    missing = ["no budget has three sizes"] if evidence.law and not budgets else []
    y_axis = loss_axis(title(evidence, "loss"), losses)
    return [
        Panel(
            title="Loss at equal compute" if budgets else "Loss against size",
            x=x_axis,
            y=y_axis,
            scale=colour_scale("Training FLOPs", flops, write=power),
            series=[*curves, points, *_minima(budgets, x_axis, intervals=few)],
            notes=[*missing, *above([run.loss for run in drawn], y_axis)],
        )
    ]


def absent(evidence: Evidence) -> str:
    """Why there are no panels."""
    if evidence.measured():
        return "No run lies within a tenth of a budget that has a parabola."
    return no_runs(evidence)


def _groups(runs: Sequence[Run], budgets: Sequence[Mapping[str, Any]]) -> list[list[Run]]:
    """The runs of each budget; each run with the budget that is nearest to its own compute."""
    groups: list[list[Run]] = [[] for _ in budgets]
    for run in runs if budgets else ():
        apart = [abs(run.flops / budget["flops"] - 1) for budget in budgets]
        nearest = min(range(len(budgets)), key=apart.__getitem__)
        if apart[nearest] <= SAME_BUDGET:
            groups[nearest].append(run)
    return groups


def _parabola(
    budget: Mapping[str, Any], group: Sequence[Run], *, tagged: bool, unit: str
) -> Series:
    x = np.geomspace(group[0].params, group[-1].params, 60)
    y = np.polynomial.polynomial.polyval(np.log(x), budget["coefficients"])
    tag = power(budget["flops"]) + unit if tagged else ""
    return Series(x=x.tolist(), y=y.tolist(), shade=budget["flops"], tag=tag)


def _minima(budgets: Sequence[Mapping[str, Any]], x_axis: Axis, *, intervals: bool) -> list[Series]:
    found, labelled = [], set()
    for budget in budgets:
        if not x_axis.low < (budget.get("params_opt") or 0) < x_axis.high:
            continue
        label = "Minimum" if budget["interior"] else "Minimum outside the tested sizes"
        ends = interval_of(budget, "params_opt") if intervals else None
        size = f"{count(budget['params_opt'])} parameters"
        found.append(
            Series(
                x=[budget["params_opt"]],
                y=[budget["loss_opt"]],
                shape="points",
                x_low=[ends[0]] if ends else None,
                x_high=[ends[1]] if ends else None,
                role="minimum",
                small=not intervals,
                hover=[f"{label}, {power(budget['flops'])} FLOPs<br>{size}"],
                marker="diamond" if budget["interior"] else "diamond-open",
                label="" if label in labelled else label,
            )
        )
        labelled.add(label)
    return found
