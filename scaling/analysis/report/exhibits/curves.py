"""Loss while training, against tokens and compute, and the envelope of all runs."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from scaling.analysis.evidence import Curve, Evidence, Run
from scaling.analysis.report.exhibits.marks import hover
from scaling.analysis.report.exhibits.titles import title
from scaling.analysis.report.panels import (
    Panel,
    Scale,
    Series,
    above,
    colour_scale,
    count,
    linear_axis,
    log_axis,
    loss_axis,
    power,
)

NONE = Curve(tokens=(), loss=())


def panels(evidence: Evidence) -> list[Panel]:
    """Each run's loss against tokens and against compute, coloured by size, with the envelope.

    Where no run has a curve, the final losses alone against compute.
    """
    runs = evidence.measured()
    if not runs:
        return []
    scale = colour_scale("Parameters", [run.params for run in runs], write=count)
    drawn = [run for run in runs if len(_curve(evidence, run).loss) > 1]
    if not drawn:
        return [_finals(evidence, runs, scale)]
    low, high = min(run.loss for run in drawn), max(run.loss for run in drawn)
    # The first evaluations, before anything is learnt, would press the rest together.
    y = linear_axis(
        title(evidence, "loss"), low - 0.08 * (high - low) - 0.02, high + 0.7 * (high - low) + 0.1
    )
    found = []
    for against, of_compute in (("tokens seen", False), ("training compute", True)):
        series: list[Series] = []
        points: list[tuple[float, float]] = []
        for run in drawn:
            each = run.flops / run.tokens if of_compute else 1.0
            curve = _curve(evidence, run)
            x = [each * tokens for tokens in curve.tokens]
            text = hover(run)
            series.append(Series(x=x, y=curve.loss, shade=run.params, hover=[text] * len(x)))
            series.append(_point(run, each * run.tokens))
            points += [*zip(x, curve.loss, strict=True), (each * run.tokens, run.loss)]
        if of_compute:
            series += _optima(evidence, points)
        seen = [value for value, loss in points if loss <= y.high]
        name, write = (title(evidence, "flops"), power) if of_compute else ("Tokens seen", count)
        found.append(
            Panel(
                title=f"Loss against {against}",
                x=log_axis(name, seen, write=write),
                y=y,
                series=series,
                scale=scale,
            )
        )
    return found


def lower_hull(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Corners of the falling part of the lower convex hull of (flops, loss), over log flops."""
    hull: list[tuple[float, float]] = []
    for point in sorted((math.log(flops), loss) for flops, loss in points):
        while len(hull) > 1 and _turn(hull[-2], hull[-1], point) <= 0:
            hull.pop()
        hull.append(point)
    lowest = min(range(len(hull)), key=lambda i: hull[i][1])
    return [(math.exp(x), y) for x, y in hull[: lowest + 1]]


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _curve(evidence: Evidence, run: Run) -> Curve:
    return evidence.curves.get(run.run_id, NONE)


def _point(run: Run, x: float) -> Series:
    return Series(
        x=[x], y=[run.loss], shape="points", shade=run.params, small=True, hover=[hover(run)]
    )


def _optima(evidence: Evidence, points: Sequence[tuple[float, float]]) -> list[Series]:
    """The envelope of the points, and the law's compute-optimal loss."""
    found = []
    hull = lower_hull(points)
    if len(hull) > 2:
        x, y = zip(*hull, strict=True)
        found.append(Series(x=x, y=y, role="envelope", label="Envelope (lower convex hull)"))
    frontier = evidence.frontier
    if frontier:
        found.append(
            Series(
                x=frontier["flops"],
                y=frontier["loss"],
                role="predicted",
                dashed=True,
                label="Fitted compute-optimal loss",
            )
        )
    return found


def _ways(evidence: Evidence) -> list[Series]:
    """A line through the checkpoints of each run, where the rows of the law's file are those."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in evidence.fitted if not evidence.records else ():
        if row.get("series") is not None and row.get("flops"):
            groups.setdefault(str(row["series"]), []).append(row)
    found = []
    for rows in groups.values():
        rows = sorted(rows, key=lambda row: float(row["flops"]))
        x, y = [row["flops"] for row in rows], [row["loss"] for row in rows]
        text = f"{html.escape(str(rows[0]['series']))}<br>{count(rows[0]['params'])} parameters"
        line = Series(x=x, y=y, shade=rows[0]["params"], hover=[text] * len(x))
        found += [line] if len(rows) > 1 else []
    return found


def _finals(evidence: Evidence, runs: Sequence[Run], scale: Scale) -> Panel:
    y = loss_axis(title(evidence, "loss"), [run.loss for run in runs])
    marks = Series(
        x=[run.flops for run in runs],
        y=[run.loss for run in runs],
        shape="points",
        shade=[run.params for run in runs],
        small=True,
        hover=[hover(run) for run in runs],
    )
    ways = _ways(evidence)
    title_of = "Loss" if ways else "Final loss"
    return Panel(
        title=f"{title_of} against training compute",
        x=log_axis(title(evidence, "flops"), [run.flops for run in runs], write=power),
        y=y,
        series=[*(ways or [marks]), *_optima(evidence, [(run.flops, run.loss) for run in runs])],
        scale=scale,
        notes=above([run.loss for run in runs], y),
    )
