"""How the objective rises as one parameter is held away from its best value: peak or valley."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator

from scaling.analysis.evidence import Evidence
from scaling.analysis.report.panels import (
    Axis,
    Panel,
    Series,
    linear_axis,
    log_axis,
    tidy,
)

# How much of a rise is drawn, in thresholds: enough to see the walls of a valley.
HEIGHT = 2.5
NARROW = 3.0
POINTS_BETWEEN = 8


def panels(evidence: Evidence) -> list[Panel]:
    """One panel a parameter: the rise, the threshold of the 95% interval, and the interval."""
    known = identifiability(evidence)
    threshold = known.get("threshold")
    if not threshold:
        return []
    y = linear_axis("Rise (noise variances)", -0.04 * HEIGHT * threshold, HEIGHT * threshold)
    return [
        _panel(name, entry, threshold, y)
        for name, entry in (known.get("parameters") or {}).items()
        if len((entry.get("profile") or {}).get("x") or ()) > 2
    ]


def absent(evidence: Evidence) -> str:
    """Why there are no panels."""
    if not evidence.law:
        return "No law has been fitted yet (law.json is not there), so there are no profiles."
    return "The law's file holds no profiles; fit it again with this version to see them."


def identifiability(evidence: Evidence) -> Mapping[str, Any]:
    """Which parameters the runs determine, empty where the law's file does not say."""
    diagnostics = evidence.law["diagnostics"] if evidence.law else {}
    return diagnostics.get("identifiability") or {}


def name_of(name: str, entry: Mapping[str, Any]) -> str:
    """A parameter in words: a coefficient's profile is of its term at the middle of the runs."""
    return f"{name} at the middle" if entry.get("at_the_middle") else name


def open_ends(entry: Mapping[str, Any]) -> str:
    """What the interval says of a parameter: "identified", or on which side nothing ends it."""
    low, high = entry.get("interval_95") or (None, None)
    if low is not None and high is not None:
        return "identified"
    if low is None and high is None:
        return "not identified"
    return f"not identified {'below' if low is None else 'above'}"


def _panel(name: str, entry: Mapping[str, Any], threshold: float, y: Axis) -> Panel:
    low, high = entry.get("interval_95") or (None, None)
    # Where the interval ends the rise is known as well, and the profile's own points may lie far.
    known = dict(zip(entry["profile"]["x"], entry["profile"]["rise"], strict=True))
    known |= {end: threshold for end in (low, high) if end is not None}
    x, rise = _smooth(*zip(*sorted(known.items()), strict=True))
    x, rise = _below(x, rise, HEIGHT * threshold)
    axis = _axis(name_of(name, entry), x)
    ends = [axis.low if low is None else low, axis.high if high is None else high]
    verdict = open_ends(entry)
    series = [
        Series(
            x=ends,
            y=[0, 0],
            y_low=[y.low] * 2,
            y_high=[y.high] * 2,
            shape="band",
            role="predicted" if verdict == "identified" else "measured",
            label="95% interval" if verdict == "identified" else "95% interval, open",
        ),
        Series(
            x=[axis.low, axis.high],
            y=[threshold] * 2,
            role="muted",
            dashed=True,
            label="Threshold of the 95% interval",
        ),
        Series(x=x.tolist(), y=rise.tolist(), role="ink", label="Profile"),
        Series(
            x=[float(entry["value"])],
            y=[0],
            shape="points",
            role="minimum",
            marker="diamond",
            label="Best fit",
            hover=[f"{name}: {tidy(entry['value'])}"],
        ),
    ]
    return Panel(
        title=name,
        x=axis,
        y=y,
        series=series,
        notes=[] if verdict == "identified" else [verdict],
    )


def _smooth(x: Sequence[float], rise: Sequence[float]) -> tuple[Any, Any]:
    """The profile between its points: its root, which is close to a line, by monotone cubics."""
    places = np.arange(len(x))
    fine = np.linspace(0, len(x) - 1, POINTS_BETWEEN * (len(x) - 1) + 1)
    at = int(np.argmin(rise))
    root = np.sqrt(np.maximum(np.asarray(rise, float), 0.0)) * np.sign(places - at)
    between = [PchipInterpolator(places, np.asarray(y, float))(fine) for y in (x, root)]
    return between[0], between[1] ** 2


def _below(x: Any, rise: Any, height: float) -> tuple[Any, Any]:
    """The stretch around the least rise that is no higher than `height`, cut off right there."""
    at = int(np.argmin(rise))
    outside = np.flatnonzero(rise > height)
    below, over = outside[outside < at], outside[outside > at]
    first = int(below[-1]) + 1 if below.size else 0
    last = int(over[0]) - 1 if over.size else len(x) - 1
    ends = [
        np.interp(height, [rise[inner], rise[outer]], [x[inner], x[outer]])
        for inner, outer in ((first, first - 1), (last, last + 1))
        if 0 <= outer < len(x)
    ]
    kept, risen = x[first : last + 1], rise[first : last + 1]
    if below.size:
        kept, risen = np.append(ends.pop(0), kept), np.append(height, risen)
    if over.size:
        kept, risen = np.append(kept, ends.pop()), np.append(risen, height)
    return kept, risen


def _axis(words: str, x: Any) -> Axis:
    low, high = float(x.min()), float(x.max())
    if low > 0 and high > NARROW * low:
        return log_axis(words, [low, high], write=tidy)
    room = 0.05 * (high - low) or 0.05 * abs(high) or math.ulp(1.0)
    return linear_axis(words, low - room, high + room)
