"""How well each law foretells runs that were kept from it, by how far beyond they lie."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from scaling.analysis.evidence import Evidence
from scaling.analysis.report.panels import (
    RIVALS,
    Axis,
    Marker,
    Panel,
    Series,
    log_axis,
    percent,
    tidy,
)

MARKERS: Sequence[Marker] = ("square", "triangle-up", "triangle-down", "diamond", "cross")


class Error(NamedTuple):
    """Root mean square of the held-out log loss, in per cent, at a factor of compute; its 90%
    interval where it is known."""

    factor: float
    rms: float
    ends: Sequence[float] | None = None


def panels(evidence: Evidence) -> list[Panel]:
    """Error on the runs left out: at each cut, and by how far a run lies beyond those fitted."""
    comparison = compared(evidence)
    cuts = comparison.get("cuts") or []
    chosen = comparison.get("chosen")
    found = []
    for title, words, points_of in (
        ("Error at each cut", "Largest compute over that fitted", lambda e: _at_cuts(e, cuts)),
        ("Error by distance", "Compute of a run over that fitted", _by_factor),
    ):
        drawn = [(entry["law"], points_of(entry)) for entry in ranked(comparison)]
        series = _lines([(law, points) for law, points in drawn if points], chosen)
        if series:
            found.append(
                Panel(title=title, x=_factors(words, series), y=_errors(series), series=series)
            )
    return found


def absent(evidence: Evidence) -> str:
    """Why there are no panels."""
    comparison = compared(evidence)
    if not comparison:
        return (
            "No laws were compared: --law=auto leaves out the largest compute, fits every law to "
            "the rest, and shows here how far each was off."
        )
    return str(comparison.get("why") or "No law could be fitted without the largest compute.")


def compared(evidence: Evidence) -> Mapping[str, Any]:
    """The comparison in the law's file, empty where no laws were compared."""
    return (evidence.law or {}).get("comparison") or {}


def ranked(comparison: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The laws that were compared, the best first; those without a score last."""
    laws = comparison.get("laws") or []
    return sorted(laws, key=lambda entry: (entry.get("score") is None, entry.get("score") or 0.0))


def _at_cuts(entry: Mapping[str, Any], cuts: Sequence[Mapping[str, Any]]) -> list[Error]:
    errors = entry.get("errors") or [None] * len(cuts)
    return sorted(
        Error(cut["factor"], 100 * error["rms"], _scaled(error.get("interval_90")))
        for cut, error in zip(cuts, errors, strict=True)
        if error and error.get("rms")
    )


def _by_factor(entry: Mapping[str, Any]) -> list[Error]:
    return sorted(
        Error(math.sqrt(part["from"] * part["to"]), 100 * part["rms"])
        for part in entry.get("by_factor") or []
        if part.get("rms")
    )


def _scaled(ends: Sequence[float] | None) -> list[float] | None:
    return [100 * end for end in ends] if ends else None


def _lines(drawn: Sequence[tuple[str, list[Error]]], chosen: str | None) -> list[Series]:
    """A line for each law, the best first, and the error bars of the chosen one."""
    styles = iter(zip(RIVALS, MARKERS, strict=True))
    further = max(0, sum(law != chosen for law, _ in drawn) - len(RIVALS))
    series: list[Series] = []
    for law, points in drawn:
        label, role = law, "faint"
        marker: Marker = "circle-open"
        if law == chosen:
            label, role, marker = f"{law} (chosen)", "predicted", "circle"
        elif (style := next(styles, None)) is not None:
            role, marker = style
        else:  # more than there are colours for: the table has them all
            label = f"{further} further law{'s' * (further > 1)}" if further else ""
            further = 0
        ends = [point.ends for point in points if point.ends] if law == chosen else []
        bounded = ends and len(ends) == len(points)
        x, y = [point.factor for point in points], [point.rms for point in points]
        series += [
            Series(
                x=x,
                y=y,
                y_low=[pair[0] for pair in ends] if bounded else None,
                y_high=[pair[1] for pair in ends] if bounded else None,
                shape="points",
                role=role,
                marker=marker,
                small=role == "faint",
                label=label,
                hover=[
                    f"{law}: {percent(value)} at {_times(at)}"
                    for at, value in zip(x, y, strict=True)
                ],
            ),
            Series(x=x, y=y, role=role),
        ]
    return series


def _factors(words: str, series: Sequence[Series]) -> Axis:
    return log_axis(words, [value for mark in series for value in mark.x], write=_times)


def _errors(series: Sequence[Series]) -> Axis:
    values = [
        v for mark in series for part in (mark.y, mark.y_low, mark.y_high) for v in part or ()
    ]
    return log_axis("Root mean square error (% of the loss)", values, write=percent)


def _times(factor: float) -> str:
    return f"{tidy(factor)}×"
