"""The figures of a study as PNG files fit for a paper, drawn with Matplotlib."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from scaling.analysis.panels import Axis, Panel, Scale, Series, log_ticks

# Okabe and Ito's palette, told apart with any kind of colour vision.
ROLES = {
    "ink": "#333333",
    "muted": "#767676",
    "predicted": "#0072B2",
    "measured": "#D55E00",
    "minimum": "#111111",
}
MARKERS = {
    "circle": "o",
    "circle-open": "o",
    "diamond": "D",
    "diamond-open": "D",
    "star": "*",
    "square": "s",
}
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.facecolor": "white",
}


def scale_colours(low: float, high: float, *, steps: int = 32) -> list[str]:
    """`steps` hexadecimal colours of Matplotlib's viridis between two of its positions, 0 to 1."""
    positions = np.linspace(low, high, steps)
    return [matplotlib.colors.to_hex(c) for c in matplotlib.colormaps["viridis"](positions)]


SCALE = ListedColormap(scale_colours(0.0, 0.8, steps=256))


def draw(panels: Sequence[Panel]) -> bytes:
    """A PNG of the panels side by side at 200 dots per inch, 3.75 inches a panel (5 if alone)."""
    width = 5.0 if len(panels) == 1 else 3.75 * len(panels)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, 3.4), dpi=200, layout="constrained")
        FigureCanvasAgg(figure)
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for panel, axes in zip(panels, row, strict=True):
            _draw_panel(panel, axes)
        _draw_scales(panels, row, figure)
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
    return picture.getvalue()


def _draw_panel(panel: Panel, axes: Axes) -> None:
    axes.set_title(panel.title)
    for axis, letter in ((panel.x, "x"), (panel.y, "y")):
        _set_axis(axis, axes, letter)
    if panel.beyond is not None and panel.beyond < panel.x.high:
        axes.axvspan(panel.beyond, panel.x.high, color="#f3f3f3", zorder=0, linewidth=0)
        axes.annotate(
            "beyond the grid",
            (panel.beyond, 0.015),
            xytext=(3, 0),
            fontsize=6.5,
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            color="#666666",
        )
    for order, series in enumerate(panel.series, 2):
        _draw_series(series, axes, panel.scale, order)
    for note in panel.notes:
        axes.annotate(
            note,
            (0.98, 0.97),
            xycoords="axes fraction",
            ha="right",
            va="top",
            fontsize=7,
            color="#444444",
        )
    if any(series.label for series in panel.series):
        axes.legend(loc="best", handlelength=1.6, borderaxespad=0.2, labelspacing=0.35)


def _set_axis(axis: Axis, axes: Axes, letter: str) -> None:
    axes.set(**{f"{letter}scale": "log" if axis.logarithmic else "linear"})
    axes.set(**{f"{letter}lim": (axis.low, axis.high), f"{letter}label": axis.title})
    side = axes.xaxis if letter == "x" else axes.yaxis
    side.set_major_locator(FixedLocator(list(axis.ticks)))
    side.set_major_formatter(FixedFormatter(list(axis.texts)))
    side.set_minor_locator(NullLocator())


def _colour(value: float, scale: Scale | None, role: str) -> str:
    if scale is None:
        return ROLES[role]
    return matplotlib.colors.to_hex(SCALE(min(1.0, max(0.0, scale.place(value)))))


def _draw_series(series: Series, axes: Axes, scale: Scale | None, order: int) -> None:
    shades = series.shade if isinstance(series.shade, Sequence) else [series.shade] * len(series.x)
    colours = [ROLES[series.role] if s is None else _colour(s, scale, series.role) for s in shades]
    if series.shape == "band":
        axes.fill_between(
            series.x,
            series.y_low or (),
            series.y_high or (),
            color=colours[0],
            alpha=0.18,
            linewidth=0,
            label=series.label,
            zorder=order,
        )
        return
    if series.shape == "line":
        axes.plot(
            series.x,
            series.y,
            color=colours[0],
            linestyle="--" if series.dashed else "-",
            linewidth=1.1,
            label=series.label,
            zorder=order,
        )
    else:
        _draw_intervals(series, axes, colours[0], order)
        hollow = series.marker.endswith("open")
        area = {"star": 36.0, "circle-open": 36.0}.get(series.marker, 9.0 if series.small else 18.0)
        axes.scatter(
            series.x,
            series.y,
            s=area,
            marker=MARKERS[series.marker],
            zorder=order + 0.5,
            facecolors="none" if hollow else colours,
            edgecolors=colours if hollow else "white",
            linewidths=1.1 if hollow else 0.4,
            label=series.label,
        )
    if series.tag:
        axes.annotate(
            series.tag,
            (series.x[-1], series.y[-1]),
            xytext=(5, 0),
            va="center",
            textcoords="offset points",
            fontsize=7,
            color=colours[0],
        )


def _draw_intervals(series: Series, axes: Axes, colour: str, order: int) -> None:
    # Drawn from end to end: a bootstrap interval need not hold the estimate, as error bars must.
    style: dict[str, Any] = {"color": colour, "linewidth": 0.9, "markersize": 5, "zorder": order}
    for x, low, high in zip(series.x, series.y_low or (), series.y_high or (), strict=False):
        axes.plot([x, x], [low, high], marker="_", **style)
    for y, low, high in zip(series.y, series.x_low or (), series.x_high or (), strict=False):
        axes.plot([low, high], [y, y], marker="|", **style)


def _draw_scales(panels: Sequence[Panel], row: Sequence[Axes], figure: Figure) -> None:
    """One colour bar where all panels share a scale, else one for each panel that has one."""
    shared = len({panel.scale for panel in panels}) == 1
    for panel, axes in zip(panels, row, strict=True):
        if panel.scale is None or any(series.tag for series in panel.series):
            continue
        if shared and axes is not row[-1]:
            continue
        low, high = panel.scale.low, panel.scale.high
        bar = figure.colorbar(
            ScalarMappable(norm=Normalize(0, 1), cmap=SCALE),
            pad=0.02,
            aspect=30,
            ax=list(row) if shared else axes,
        )
        bar.set_label(panel.scale.title)
        bar.outline.set_visible(False)
        ticks = log_ticks(low, high)
        texts = [panel.scale.write(tick) for tick in ticks]
        bar.set_ticks([panel.scale.place(tick) for tick in ticks], labels=texts)
        bar.ax.tick_params(length=0)
