"""The figures of a study as PNG and PDF files fit for a paper, drawn with Matplotlib.

All are as wide as a page's text, or two thirds of it for a panel alone, so that they go in at their
own size and the letters stay 7 to 8 points high.
"""

import io
import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullFormatter

from scaling.analysis.report.panels import (
    BEYOND,
    DENSE,
    ROLES,
    Axis,
    Panel,
    Scale,
    Series,
    log_ticks,
)

MARKERS = {
    "circle": "o",
    "circle-open": "o",
    "diamond": "D",
    "diamond-open": "D",
    "star": "*",
    "square": "s",
    "triangle-up": "^",
    "triangle-down": "v",
    "cross": "P",
}
FORMATS = ("png", "pdf")
# Of a panel, by the number of panels side by side, in inches.
SIZES = {1: (4.8, 3.1), 2: (3.6, 2.9), 3: (2.4, 2.5)}
LETTERS_OF_A_LINE = {1: 60, 2: 42, 3: 27}
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
    "text.parse_math": False,  # a column may be called anything
    "pdf.fonttype": 42,  # outlines that every publisher takes; Matplotlib's own default is type 3
}


def scale_colours(low: float, high: float, *, steps: int = 32) -> list[str]:
    """`steps` hexadecimal colours of Matplotlib's viridis between two of its positions, 0 to 1."""
    positions = np.linspace(low, high, steps)
    return [matplotlib.colors.to_hex(c) for c in matplotlib.colormaps["viridis"](positions)]


SPAN = (0.0, 0.6)
"""The stretch of viridis that stands out from white by three to one."""
SCALE = ListedColormap(scale_colours(*SPAN, steps=256))


def paper(panels: Sequence[Panel]) -> Figure:
    """The panels side by side, three at most in a row, with one legend for all."""
    across = 2 if len(panels) == 4 else min(3, len(panels))
    down = math.ceil(len(panels) / across)
    width, height = SIZES[across]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width * across, height * down), dpi=200, layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(down, across, squeeze=False).flatten().tolist()
        noted = any(panel.notes for panel in panels)
        for panel, axes in zip_longest(panels, grid):
            if panel is None:
                axes.set_axis_off()
            else:
                _draw_panel(panel, axes, letters=LETTERS_OF_A_LINE[across], noted=noted)
        _draw_scales(panels, grid[: len(panels)], figure)
        _draw_legend(grid, figure, across)
        figure.draw_without_rendering()  # once: the layout takes longer than the drawing
        figure.set_layout_engine("none")
    return figure


def save(figure: Figure, kind: str) -> bytes:
    """A figure's file; the same figure gives the same bytes."""
    picture = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        dateless = {"CreationDate": None} if kind == "pdf" else {}
        figure.savefig(picture, format=kind, metadata=dateless)
    return picture.getvalue()


def _draw_panel(panel: Panel, axes: Axes, *, letters: int, noted: bool) -> None:
    axes.set_title(panel.title, pad=15 if noted else None)
    # A line under the title: inside, notes would hide points.
    axes.annotate(
        "; ".join(panel.notes),
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 4),
        textcoords="offset points",
        fontsize=7,
        color="#444444",
    ).set_in_layout(False)
    for axis, letter in ((panel.x, "x"), (panel.y, "y")):
        _set_axis(axis, axes, letter, letters=letters)
    if panel.beyond is not None and panel.extrapolates:
        ends = panel.beyond, panel.x.high
        axes.axvspan(*ends, color="#eeeeee", zorder=0, linewidth=0, label=BEYOND)
    for order, series in enumerate(panel.series, 2):
        _draw_series(series, axes, panel.scale, order)


def _draw_legend(grid: Sequence[Axes], figure: Figure, across: int) -> None:
    named: dict[str, Any] = {}
    for axes in grid:
        marks, labels = axes.get_legend_handles_labels()
        named |= {
            label: mark for label, mark in zip(labels, marks, strict=True) if label not in named
        }
    if named:
        rows = math.ceil(len(named) / (2 * across if across > 1 else 3))
        figure.legend(
            named.values(),
            named.keys(),
            loc="outside lower center",
            ncols=math.ceil(len(named) / rows),
            handlelength=1.6,
            columnspacing=1.4,
        )


def _set_axis(axis: Axis, axes: Axes, letter: str, *, letters: int) -> None:
    axes.set(**{f"{letter}scale": "log" if axis.logarithmic else "linear"})
    words = axis.words(letters, line="\n")
    axes.set(**{f"{letter}lim": (axis.low, axis.high), f"{letter}label": words})
    side = axes.xaxis if letter == "x" else axes.yaxis
    # Beside the letters of a line stand the axis' own title and numbers.
    step = axis.step(round(0.85 * letters)) if letter == "x" else 1
    side.set_major_locator(FixedLocator(list(axis.ticks[::step])))
    side.set_major_formatter(FixedFormatter(list(axis.texts[::step])))
    side.set_minor_formatter(NullFormatter())
    side.set_minor_locator(FixedLocator(axis.between))


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
        dense = len(series.x) > DENSE
        area = {"star": 36.0, "circle-open": 36.0}.get(series.marker, 18.0)
        area = (5.0 if dense else 9.0) if series.small else area
        axes.scatter(
            series.x,
            series.y,
            s=area,
            marker=MARKERS[series.marker],
            zorder=order + 0.5,
            facecolors="none" if hollow else colours,
            edgecolors=colours if hollow else "white",
            linewidths=1.1 if hollow else 0.0 if dense else 0.4,
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
            color=ROLES["ink"],
        )


def _draw_intervals(series: Series, axes: Axes, colour: str, order: int) -> None:
    # Drawn from end to end: a bootstrap interval need not hold the estimate, as error bars must.
    width, cap = (0.6, 0) if series.small else (0.9, 5)
    style: dict[str, Any] = {
        "color": colour, "linewidth": width, "markersize": cap, "zorder": order
    }  # fmt: skip
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
