"""What the plan comes to: what twice of each would take off the loss, and the next runs."""

from collections.abc import Mapping
from typing import Any

from scaling.analysis.evidence import Evidence
from scaling.analysis.report.exhibits.marks import hover
from scaling.analysis.report.exhibits.titles import title
from scaling.analysis.report.panels import (
    Panel,
    Series,
    count,
    linear_axis,
    log_axis,
    named_axis,
    power,
)


def panels(evidence: Evidence) -> list[Panel]:
    """The change of the loss by each choice with its 90% interval, and where the next runs lie."""
    plan = evidence.plan or {}
    options = (plan.get("comparison") or {}).get("options") or []
    chosen = plan.get("next_runs") or {}
    drawn = [_choices(options)] if options else []
    return drawn + ([_next(evidence, chosen)] if chosen.get("cells") else [])


def absent(evidence: Evidence) -> str:
    """Nothing: that there is no plan stands with the tables."""
    return ""


def _choices(options: list[Mapping[str, Any]]) -> Panel:
    ends = [option["change"].get("interval_90") for option in options]
    values = [0.0, *(option["change"]["value"] for option in options)]
    values += [end for pair in ends if pair for end in pair]
    room = 0.06 * (max(values) - min(values)) or 0.05
    places = [-float(index) for index in range(len(options))]
    bounded = all(ends)
    y = named_axis("", [str(option["name"]) for option in options])
    marks = Series(
        x=[option["change"]["value"] for option in options],
        y=places,
        x_low=[pair[0] for pair in ends] if bounded else None,
        x_high=[pair[1] for pair in ends] if bounded else None,
        shape="points",
        role="predicted",
        hover=[f"loss {option['loss']:.4f}" for option in options],
        label="Predicted change (90%)" if bounded else "Predicted change",
    )
    none = Series(x=[0.0, 0.0], y=[y.low, y.high], role="muted", dashed=True, label="As planned")
    return Panel(
        title="What more would buy",
        x=linear_axis("Change of the loss", min(values) - room, max(values) + room),
        y=y,
        series=[none, marks],
    )


def _next(evidence: Evidence, chosen: Mapping[str, Any]) -> Panel:
    cells, target = chosen["cells"], chosen["target"]
    runs = evidence.measured()
    series = [
        Series(
            x=[run.params for run in runs],
            y=[run.tokens for run in runs],
            shape="points",
            role="muted",
            small=True,
            label="Runs",
            hover=[hover(run) for run in runs],
        )
    ]
    series += [
        Series(
            x=[cell["params"] for cell in cells],
            y=[cell["tokens"] for cell in cells],
            shape="points",
            role="measured",
            marker="diamond",
            label="Next runs",
            hover=[
                f"{cell['runs']} of {count(cell['params'])} parameters, {count(cell['tokens'])} "
                f"tokens<br>{power(cell['cost'])} FLOPs each"
                for cell in cells
            ],
        ),
        Series(
            x=[target["params"]],
            y=[target["tokens"]],
            shape="points",
            role="predicted",
            marker="circle-open",
            label="The run to predict",
        ),
    ]
    return Panel(
        title="The next runs",
        x=log_axis(title(evidence, "params"), [v for s in series for v in s.x], write=count),
        y=log_axis("Tokens", [v for s in series for v in s.y], write=count),
        series=[mark for mark in series if mark.x],
    )
