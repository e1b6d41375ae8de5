"""The ways to the optimal size beside one another: Approaches 1, 2 and 3."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from scaling.analysis.approaches import Allocation
from scaling.analysis.evidence import Evidence
from scaling.analysis.report.exhibits.titles import title
from scaling.analysis.report.panels import (
    Marker,
    Panel,
    Series,
    count,
    linear_axis,
    log_axis,
    named_axis,
    power,
    tidy,
)

STYLES: dict[str, tuple[str, Marker]] = {
    "1: hull": ("rival-1", "square"),
    "2: Akima": ("rival-2", "diamond"),
    "2: parabolas": ("rival-3", "diamond-open"),
}
BEYOND = 10.0
"""The lines are drawn so many times beyond the largest compute, as the frontier is."""


class Way(NamedTuple):
    """An exponent of the optimal size in compute, with its 90% interval where there is one.

    `allocation` has the points and lines.
    """

    name: str
    exponent: float
    interval: Sequence[float] | None
    role: str
    marker: Marker
    allocation: Allocation


def ways(evidence: Evidence) -> list[Way]:
    """Every way to the exponent that the runs allow: Approaches 1 and 2, and 3, the law."""
    found = []
    for allocation in evidence.allocations:
        number, _, how = allocation.approach.removeprefix("Approach ").partition(" ")
        name, line = f"{number}: {how.strip('()')}", allocation.params
        role, marker = STYLES.get(name, ("predicted", "circle"))
        along_ends = number == "1" and allocation.rows is not None and not evidence.of_checkpoints
        name += " of ends" if along_ends else ""
        found.append(Way(name, line.exponent, line.interval, role, marker, allocation))
    return sorted(found, key=lambda way: way.name[0])


def panels(evidence: Evidence) -> list[Panel]:
    """Optimal size and tokens per parameter by each approach, and the exponents with intervals."""
    found = ways(evidence)
    if len(found) < 2:
        return []
    fitted = [float(row["flops"]) for row in evidence.fitted]
    flops = np.geomspace(min(fitted), BEYOND * max(fitted), 40)
    x = log_axis(title(evidence, "flops"), flops.tolist(), write=power)
    size, data = title(evidence, "params"), title(evidence, "tokens_per_parameter")
    drawn = []
    for words, y_title, write in (("size", size, count), ("data", data, tidy)):
        series = [mark for way in found for mark in _series(way, flops, words)]
        drawn.append(
            Panel(
                title=f"Optimal {words}",
                x=x,
                y=log_axis(y_title, [value for mark in series for value in mark.y], write=write),
                series=series,
                beyond=max(fitted),
            )
        )
    return [*drawn, _exponents(found)]


def absent(evidence: Evidence) -> str:
    """Why there are no panels."""
    if not evidence.law:
        return "No law has been fitted yet (law.json is not there): nothing to set side by side."
    if evidence.target != "loss":
        return f"This is a law of {evidence.target}: it has no optimal size."
    return (
        "Fewer than two of Approaches 1 (along training curves), 2 (across sizes at one compute) "
        "and 3 (the law) lead to an optimal size here, so there is nothing to compare."
    )


def _series(way: Way, flops: np.ndarray, words: str) -> list[Series]:
    allocation = way.allocation
    of_size = words == "size"
    at = allocation.params.at(flops) if of_size else allocation.tokens_per_parameter(flops)
    line = Series(x=flops.tolist(), y=at.tolist(), role=way.role, label=way.name)
    if way.name.startswith("3"):
        return [line]
    points = allocation.points
    y = points["params"] if of_size else points["tokens"] / points["params"]
    marks = Series(
        x=points["flops"].tolist(),
        y=y.tolist(),
        shape="points",
        role=way.role,
        marker=way.marker,
        small=True,
    )
    return [line, marks]


def _exponents(found: Sequence[Way]) -> Panel:
    values = [end for way in found for end in (way.exponent, *(way.interval or ()))]
    room = 0.08 * (max(values) - min(values)) or 0.05
    series = [
        Series(
            x=[way.exponent],
            y=[-index],
            x_low=[way.interval[0]] if way.interval else None,
            x_high=[way.interval[1]] if way.interval else None,
            shape="points",
            role=way.role,
            marker=way.marker,
            hover=[f"{way.name}: {way.exponent:.3f}"],
        )
        for index, way in enumerate(found)
    ]
    return Panel(
        title="Exponent of the size",
        x=linear_axis("Exponent in compute (90%)", min(values) - room, max(values) + room),
        y=named_axis("", [way.name for way in found]),
        series=series,
    )
