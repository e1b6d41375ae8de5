"""Marks that several exhibits share: what a run says when it is pointed at, ends of intervals."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from scaling.analysis.evidence import Evidence, Run
from scaling.analysis.report.panels import Series, count, power


def no_runs(evidence: Evidence) -> str:
    """Why no run can be drawn by its size, compute and loss."""
    if evidence.records:
        return "No run has ended well yet, so there is nothing to draw."
    if evidence.target != "loss":
        return f"This is a law of {evidence.target}: its runs have no loss to draw."
    return "The runs of this law have no size, tokens or compute to draw the loss against."


def hover(run: Run) -> str:
    """What a run says when it is pointed at."""
    return (
        f"{html.escape(run.run_id)}<br>{count(run.params)} parameters, {count(run.tokens)} tokens"
        f"<br>{power(run.flops)} FLOPs, final loss {run.loss:.4f}"
    )


def interval_of(budget: Mapping[str, Any], name: str) -> Sequence[float] | None:
    """The 90% interval of a minimum, None where it has none."""
    interval: Sequence[float] | None = (budget.get("interval_90") or {}).get(name)
    return interval


def band(
    x: Sequence[float],
    y: Sequence[float],
    ends: Sequence[Sequence[float]] | None,
    *,
    label: str,
    role: str = "predicted",
) -> list[Series]:
    """A line with the 90% interval around it, where there is one."""
    line = Series(x=x, y=y, role=role, label=label)
    if not ends:
        return [line]
    around = Series(
        x=x,
        y=y,
        y_low=[pair[0] for pair in ends],
        y_high=[pair[1] for pair in ends],
        shape="band",
        role=role,
        label="90% interval",
    )
    return [around, line]
