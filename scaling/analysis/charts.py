"""A panel as a Plotly figure for the browser; colours are names that the page replaces by theme."""

import math
from collections.abc import Sequence
from typing import Any

from scaling.analysis.figures import scale_colours
from scaling.analysis.panels import Axis, Panel, Scale, Series, log_ticks

STEPS = 32
# Okabe and Ito's palette, lightened where it stands on a dark ground.
THEMES: dict[str, dict[str, Any]] = {
    "light": {
        "@text": "#24292f",
        "@grid": "#e3e6ea",
        "@ground": "#ffffff",
        "@beyond": "rgba(110,118,129,0.09)",
        "@ink": "#333333",
        "@muted": "#767676",
        "@predicted": "#0072B2",
        "@measured": "#D55E00",
        "@minimum": "#111111",
        "@band-predicted": "rgba(0,114,178,0.18)",
        "@band-muted": "rgba(110,118,129,0.16)",
        "span": (0.0, 0.8),
    },
    "dark": {
        "@text": "#d5dbe3",
        "@grid": "#2c333d",
        "@ground": "#161b22",
        "@beyond": "rgba(150,160,175,0.10)",
        "@ink": "#c3cad3",
        "@muted": "#929aa5",
        "@predicted": "#56B4E9",
        "@measured": "#FF9A4D",
        "@minimum": "#ffffff",
        "@band-predicted": "rgba(86,180,233,0.22)",
        "@band-muted": "rgba(150,160,175,0.16)",
        "span": (0.42, 1.0),
    },
}


def themes() -> dict[str, dict[str, Any]]:
    """For each theme what every colour name stands for: a colour, or a list of stops for @scale."""
    resolved = {}
    for name, theme in THEMES.items():
        colours = scale_colours(*theme["span"], steps=STEPS)
        steps = {f"@s{index}": colour for index, colour in enumerate(colours)}
        stops = [[index / (STEPS - 1), colour] for index, colour in enumerate(colours)]
        named = {key: value for key, value in theme.items() if key != "span"}
        resolved[name] = named | steps | {"@scale": stops}
    return resolved


def chart(panel: Panel) -> dict[str, Any]:
    """The panel as `{"data": [...], "layout": {...}}` for `Plotly.newPlot`."""
    traces = [trace for series in panel.series for trace in _traces(series, panel.scale)]
    tagged = any(series.tag for series in panel.series)
    if panel.scale is not None and not tagged:
        traces.append(_colour_bar(panel.scale))
    annotations = [
        _annotation(
            series.tag, x=series.x[-1], y=series.y[-1], colour=_named(series, panel.scale)[-1]
        )
        for series in panel.series
        if series.tag
    ]
    annotations += [
        {"text": note, "xref": "paper", "yref": "paper", "x": 0.99, "y": 0.99, "showarrow": False}
        for note in panel.notes
    ]
    shapes = []
    if panel.beyond is not None and panel.beyond < panel.x.high:
        shapes.append(
            {"type": "rect", "xref": "x", "yref": "paper", "x0": panel.beyond, "x1": panel.x.high}
            | {"y0": 0, "y1": 1, "fillcolor": "@beyond", "line": {"width": 0}, "layer": "below"}
        )
        annotations.append(
            {"text": "beyond the grid", "xref": "x", "yref": "paper", "showarrow": False}
            | {"x": math.log10(panel.beyond), "y": 0.01, "xanchor": "left", "yanchor": "bottom"}
            | {"font": {"size": 11, "color": "@muted"}}
        )
    layout = {
        "xaxis": _axis(panel.x),
        "yaxis": _axis(panel.y),
        "annotations": annotations,
        "shapes": shapes,
        "margin": {"l": 56, "r": 12, "t": 12, "b": 48},
        "paper_bgcolor": "@ground",
        "plot_bgcolor": "@ground",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "@text"},
        "hoverlabel": {"align": "left", "namelength": 0},
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": -0.2,
            "yanchor": "top",
            "bgcolor": "rgba(0,0,0,0)",
        },
        "showlegend": any(series.label for series in panel.series),
    }
    return {"data": traces, "layout": layout}


def _axis(axis: Axis) -> dict[str, Any]:
    ends = (axis.low, axis.high)
    return {
        "title": {"text": axis.title, "standoff": 8},
        "type": "log" if axis.logarithmic else "linear",
        "range": [math.log10(end) for end in ends] if axis.logarithmic else list(ends),
        "tickmode": "array",
        "tickvals": list(axis.ticks),
        "ticktext": list(axis.texts),
        "gridcolor": "@grid",
        "linecolor": "@muted",
        "showline": True,
        "zeroline": False,
        "automargin": True,
    }


def _annotation(text: str, *, x: float, y: float, colour: str) -> dict[str, Any]:
    return {
        "text": text,
        "x": math.log10(x),  # Plotly takes annotations on logarithmic axes as logarithms
        "y": y,
        "xanchor": "left",
        "xshift": 4,
        "showarrow": False,
        "font": {"color": colour},
    }


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
        "showlegend": bool(series.label),
        "cliponaxis": series.shape != "points",
    }
    if series.shape == "band":
        trace["x"] = [*series.x, *reversed(series.x)]
        trace["y"] = [*(series.y_high or ()), *reversed(series.y_low or ())]
        fill = {"fill": "toself", "fillcolor": f"@band-{series.role}", "hoverinfo": "skip"}
        return [trace | fill | {"mode": "lines", "line": {"width": 0}}]
    trace |= {"x": list(series.x), "y": list(series.y)}
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
                "thickness": 1.4,
                "width": 4,
            }
    size = {"star": 10, "circle-open": 13, "diamond": 9, "diamond-open": 9}.get(series.marker, 8)
    border: dict[str, Any] = {"width": 2 if series.marker.endswith("open") else 0.6}
    if not series.marker.endswith("open"):
        border |= {"color": "@ground"}
    marker = {"symbol": series.marker, "color": colours, "size": 5 if series.small else size}
    return [trace | {"mode": "markers", "marker": marker | {"line": border}}]


def _colour_bar(scale: Scale) -> dict[str, Any]:
    ticks = log_ticks(scale.low, scale.high)
    bar = {
        "title": {"text": scale.title, "side": "top", "font": {"size": 12}},
        "orientation": "h",
        "thickness": 8,
        "x": 1,
        "xanchor": "right",
        "y": 1.0,
        "ypad": 0,
        "yanchor": "bottom",
        "len": 0.7,
        "outlinewidth": 0,
        "tickvals": [scale.place(tick) for tick in ticks],
        "ticktext": [scale.write(tick) for tick in ticks],
    }
    marker = {"colorscale": "@scale", "cmin": 0, "cmax": 1, "color": [0], "colorbar": bar}
    return {
        "type": "scatter",
        "x": [None],
        "y": [None],
        "mode": "markers",
        "marker": marker,
        "showlegend": False,
        "hoverinfo": "skip",
    }
