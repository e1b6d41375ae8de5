"""A panel as a Plotly figure for the browser; colours are names that the page replaces by theme."""

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

from scaling.analysis.report.figures import SPAN, scale_colours
from scaling.analysis.report.panels import DENSE, ROLES, Axis, Panel, Scale, Series

STEPS = 32
DIGITS = 6
"""Of a coordinate: more than any screen shows."""
LETTERS_OF_A_LINE = 34  # below a chart on a phone
THEMES: dict[str, dict[str, Any]] = {
    "light": {
        "text": "#24292f",
        "quiet": "#57606a",
        "grid": "#e3e6ea",
        "ground": "#ffffff",
        "beyond": "rgba(110,118,129,0.12)",
        **ROLES,
    },
    "dark": {
        "text": "#d5dbe3",
        "quiet": "#9aa4b0",
        "grid": "#2c333d",
        "ground": "#161b22",
        "beyond": "rgba(150,160,175,0.13)",
        **ROLES,
        "ink": "#c3cad3",
        "muted": "#929aa5",
        "faint": "#6b7480",
        "minimum": "#ffffff",
        "predicted": "#56b4e9",
        "measured": "#ff9a4d",
        "envelope": "#ff9a4d",
        "rival-1": "#f0b93a",
        "rival-2": "#2fc79c",
        "rival-3": "#e39bc4",
        "rival-4": "#ff9a4d",
        "rival-5": "#c3cad3",
    },
}
# The stretch of viridis that stands out from each ground.
SPANS = {"light": SPAN, "dark": (0.45, 1.0)}


def themes() -> dict[str, dict[str, Any]]:
    """For each theme what every colour name stands for: a colour, or a list of stops for @scale."""
    resolved = {}
    for name, theme in THEMES.items():
        colours = scale_colours(*SPANS[name], steps=STEPS)
        steps = {f"@s{index}": colour for index, colour in enumerate(colours)}
        stops = [[index / (STEPS - 1), colour] for index, colour in enumerate(colours)]
        bands = {f"@band-{role}": f"{theme[role]}2e" for role in ROLES}  # 18% of the colour
        named = {f"@{key}": value for key, value in theme.items()}
        resolved[name] = named | bands | steps | {"@scale": stops}
    return resolved


def shared_texts(charts: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """What points say when pointed at, by name; the traces bear the names in place of the texts.

    Several charts show the same runs, and a list of texts is longer than all else in a trace.
    """
    names: dict[tuple[str, ...], str] = {}
    for drawn in charts:
        for trace in drawn["data"]:
            if "text" in trace:
                texts = tuple(trace["text"])
                trace["text"] = names.setdefault(texts, f"@texts-{len(names)}")
    return {name: list(texts) for texts, name in names.items()}


def chart(panel: Panel) -> dict[str, Any]:
    """The panel as `{"data": [...], "layout": {...}}` for `Plotly.newPlot`."""
    traces = [trace for series in panel.series for trace in _traces(series, panel.scale)]
    annotations = [
        _annotation(series.tag, x=series.x[-1], y=series.y[-1])
        for series in panel.series
        if series.tag
    ]
    shapes = []
    if panel.extrapolates:
        shapes.append(
            {"type": "rect", "xref": "x", "yref": "paper", "x0": panel.beyond, "x1": panel.x.high}
            | {"y0": 0, "y1": 1, "fillcolor": "@beyond", "line": {"width": 0}, "layer": "below"}
        )
    layout = {
        "xaxis": _axis(panel.x),
        "yaxis": _axis(panel.y),
        "annotations": annotations,
        "shapes": shapes,
        "margin": {"l": 56, "r": 22, "t": 8, "b": 48},
        "paper_bgcolor": "@ground",
        "plot_bgcolor": "@ground",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "@text"},
        "hoverlabel": {"align": "left", "namelength": 0},
        "showlegend": False,
    }
    return {"data": traces, "layout": layout}


def _axis(axis: Axis) -> dict[str, Any]:
    ends = (axis.low, axis.high)
    words = html.escape(axis.words(LETTERS_OF_A_LINE, line="\n"))
    return {
        "title": {"text": words.replace("\n", "<br>"), "standoff": 8},
        "type": "log" if axis.logarithmic else "linear",
        "range": [math.log10(end) for end in ends] if axis.logarithmic else list(ends),
        "tickmode": "array",
        "tickvals": list(axis.ticks),
        "ticktext": [html.escape(text) for text in axis.texts],
        "gridcolor": "@grid",
        "linecolor": "@muted",
        "showline": True,
        "zeroline": False,
        "automargin": True,
    }


def _annotation(text: str, *, x: float, y: float) -> dict[str, Any]:
    return {
        "text": html.escape(text),
        "x": math.log10(x),  # Plotly takes annotations on logarithmic axes as logarithms
        "y": y,
        "xanchor": "left",
        "xshift": 4,
        "showarrow": False,
        "font": {"color": "@ink"},
    }


def _short(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values]


def _named(series: Series, scale: Scale | None) -> list[str]:
    if series.shade is None or scale is None:
        return [f"@{series.role}"] * len(series.x)
    shades = series.shade if isinstance(series.shade, Sequence) else [series.shade] * len(series.x)
    places = [min(1.0, max(0.0, scale.place(shade))) for shade in shades]
    return [f"@s{round(place * (STEPS - 1))}" for place in places]


def _traces(series: Series, scale: Scale | None) -> list[dict[str, Any]]:
    colours = _named(series, scale)
    trace: dict[str, Any] = {
        "type": "scatter",
        "name": series.label,
        "cliponaxis": series.shape != "points",
    }
    if series.shape == "band":
        trace["x"] = _short([*series.x, *reversed(series.x)])
        trace["y"] = _short([*(series.y_high or ()), *reversed(series.y_low or ())])
        fill = {"fill": "toself", "fillcolor": f"@band-{series.role}", "hoverinfo": "skip"}
        return [trace | fill | {"mode": "lines", "line": {"width": 0}}]
    trace |= {"x": _short(series.x), "y": _short(series.y)}
    if series.hover:
        trace |= {"text": list(series.hover), "hovertemplate": "%{text}<extra></extra>"}
    else:
        trace["hoverinfo"] = "x+y" if series.shape == "points" else "skip"
    if series.shape == "line":
        line = {"color": colours[0], "width": 1.6, "dash": "dash" if series.dashed else "solid"}
        return [trace | {"mode": "lines", "line": line}]
    intervals = (
        ("x", series.x, series.x_low, series.x_high),
        ("y", series.y, series.y_low, series.y_high),
    )
    for letter, values, lows, highs in intervals:
        if lows and highs:
            trace[f"error_{letter}"] = {
                "type": "data",
                "symmetric": False,
                "array": [end - value for value, end in zip(values, highs, strict=True)],
                "arrayminus": [value - end for value, end in zip(values, lows, strict=True)],
                "color": colours[0],
                "thickness": 1.0 if series.small else 1.4,
                "width": 0 if series.small else 4,
            }
    size = {"star": 10, "circle-open": 13, "diamond": 9, "diamond-open": 9}.get(series.marker, 8)
    rim = 0.6 if len(series.x) <= DENSE else 0
    border: dict[str, Any] = {"width": 2 if series.marker.endswith("open") else rim}
    if not series.marker.endswith("open"):
        border |= {"color": "@ground"}
    marker = {"symbol": series.marker, "color": colours, "size": 5 if series.small else size}
    return [trace | {"mode": "markers", "marker": marker | {"line": border}}]
