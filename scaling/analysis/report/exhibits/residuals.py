"""What the law leaves unexplained, against size, compute and the prediction itself."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scaling.analysis.evidence import Evidence
from scaling.analysis.fitted import PARTS_OF_A_BUDGET
from scaling.analysis.report.exhibits.titles import title, writer
from scaling.analysis.report.panels import (
    Axis,
    Panel,
    Series,
    colour_scale,
    linear_axis,
    log_axis,
    power,
    tidy,
)

WORDS = {"params": "size", "flops": "compute", "predicted": "prediction"}
# Below this ratio of its ends a range is read more easily on a linear axis.
NARROW = 3.0
POINTS = 100


def panels(evidence: Evidence) -> list[Panel]:
    """Residuals against every input that says something, in per cent where the law is of logs."""
    rows = [row for row in evidence.fitted if row.get("residual") is not None]
    if not rows:
        return []
    of_logs = evidence.of_logs
    shown = [100 * math.expm1(r["residual"]) if of_logs else float(r["residual"]) for r in rows]
    spread = evidence.law["diagnostics"].get("residual_sd") or 0.0 if evidence.law else 0.0
    spread *= 100 if of_logs else 1
    reach = _reach(shown, spread)
    unit = "%" if of_logs else evidence.target
    y = linear_axis(f"Residual ({unit})", -reach, reach)
    cut = sum(abs(value) > reach for value in shown)
    outside = [f"{cut} of {len(shown)} beyond the axis"] if cut else []
    flops = _column(rows, "flops")
    trends = evidence.law["diagnostics"].get("trend") or {} if evidence.law else {}
    found = []
    for name in _against(evidence, rows):
        x = _axis(evidence, name, _column(rows, name))
        p_value = (trends.get(name) or {}).get("p_value")
        points = Series(
            x=_column(rows, name),
            y=shown,
            shape="points",
            shade=flops or None,
            role="predicted",
            small=len(rows) > 100,
            hover=[_hover(row, evidence.target) for row in rows],
        )
        found.append(
            Panel(
                title=f"Against {WORDS.get(name, name.replace('_', ' '))}",
                x=x,
                y=y,
                series=[*_zero(x, spread), points],
                scale=colour_scale("Training FLOPs", flops, write=power) if flops else None,
                notes=[
                    *([] if p_value is None else [f"trend: p = {tidy(p_value, digits=2)}"]),
                    *outside,
                ],
            )
        )
    return found


def absent(evidence: Evidence) -> str:
    """Why there are no panels."""
    if not evidence.law:
        return "No law has been fitted yet (law.json is not there), so there are no residuals."
    return "The law's file holds no residuals, so there are none to draw."


def fit_panels(evidence: Evidence) -> list[Panel]:
    """What was measured against what the law predicts, or against its one input with its curve.

    None of a law with a frontier, which shows the same better.
    """
    rows = [row for row in evidence.fitted if row.get(evidence.target) is not None]
    if not rows or evidence.frontier:
        return []
    inputs = evidence.form.inputs if evidence.form else ()
    alone = inputs[0] if len(inputs) == 1 else ""
    drawn = bool(alone and _column(rows, alone))
    name = alone if drawn else "predicted"
    x, measured = _column(rows, name), _column(rows, evidence.target)
    predicted = _column(rows, "predicted")
    line = _curve(evidence, alone, x) if drawn else sorted(zip(x, predicted, strict=True))
    axes = [*measured, *predicted]
    return [
        Panel(
            title="Measured, and the law" if drawn else "Measured against predicted",
            x=_axis(evidence, name, x),
            y=_axis(evidence, evidence.target, axes),
            series=[
                Series(
                    x=x,
                    y=measured,
                    shape="points",
                    role="muted",
                    small=len(rows) > 100,
                    label="Runs",
                    hover=[_hover(row, evidence.target) for row in rows],
                ),
                Series(
                    x=[point[0] for point in line],
                    y=[point[1] for point in line],
                    role="predicted",
                    label="Fitted law" if drawn else "Measured as predicted",
                ),
            ],
        )
    ]


def _curve(evidence: Evidence, name: str, values: Sequence[float]) -> list[tuple[float, float]]:
    """The law over the range of its one input, as points."""
    form, law = evidence.form, evidence.law
    assert form is not None
    assert law is not None
    x = np.linspace(min(values), max(values), POINTS)
    if min(values) > 0 and max(values) > NARROW * min(values):
        x = np.geomspace(min(values), max(values), POINTS)
    predicted = form.predict(np.array([law["params"][key] for key in form.names]), {name: x})
    return [*zip(x.tolist(), predicted.tolist(), strict=True)]


def _reach(shown: Sequence[float], spread: float) -> float:
    """Half the height of the axis: a few runs that are far off do not press the rest together."""
    sizes = sorted(abs(value) for value in shown)
    most = sizes[round(0.95 * (len(sizes) - 1))]
    return 1.15 * max(1e-3, 1.15 * spread, min(sizes[-1], 3 * most))


def _against(evidence: Evidence, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    inputs = evidence.form.inputs if evidence.form else ("params", "tokens")
    names = [name for name in inputs if name not in PARTS_OF_A_BUDGET]
    if not names or not PARTS_OF_A_BUDGET.isdisjoint(inputs):
        names = ["params", "flops", *names]
    return [*(name for name in names if len(set(_column(rows, name))) > 1), "predicted"]


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """A column of numbers; empty where one of them is missing."""
    values = [row.get(name) for row in rows]
    if any(value is None for value in values):
        return []
    return [float(value) for value in values if value is not None]


def _axis(evidence: Evidence, name: str, values: Sequence[float]) -> Axis:
    words = title(evidence, evidence.target if name == "predicted" else name)
    if name == "predicted":
        words = f"Predicted {words[0].lower()}{words[1:]}"
    low, high = min(values), max(values)
    a_share = name in ("predicted", evidence.target) and not evidence.of_logs
    if low > 0 and high > NARROW * low and not a_share:
        return log_axis(words, values, write=writer(name))
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return linear_axis(words, low - room, high + room)


def _zero(x: Axis, spread: float) -> list[Series]:
    ends = [x.low, x.high]
    line = Series(x=ends, y=[0, 0], role="ink")
    if not spread:
        return [line]
    around = Series(
        x=ends,
        y=[0, 0],
        y_low=[-spread] * 2,
        y_high=[spread] * 2,
        shape="band",
        role="muted",
        label="One standard deviation",
    )
    return [around, line]


def _hover(row: Mapping[str, Any], target: str) -> str:
    counts = [
        f"{writer(name)(row[name])} {words}"
        for name, words in (("params", "parameters"), ("tokens", "tokens"), ("flops", "FLOPs"))
        if row.get(name)
    ]
    measured = f"measured {tidy(row[target], digits=4)}, " if row.get(target) is not None else ""
    parts = [html.escape(str(row["run_id"])), ", ".join(counts)]
    parts += [f"{measured}predicted {tidy(row['predicted'], digits=4)}"]
    return "<br>".join(part for part in parts if part)
