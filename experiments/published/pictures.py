"""The study in six pictures, each drawn from the record of its section."""

import functools
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from scaling.analysis.report import figures
from scaling.analysis.report.figures import SCALE

HERE = Path(__file__).resolve().parent
Record = Mapping[str, Any]
INK, MUTED, BLUE, ORANGE, GREEN, PINK, GOLD = (
    "#333333", "#767676", "#0072B2", "#D55E00", "#009E73", "#B85C8E", "#B37A00",
)  # fmt: skip
LEVELS = (10.0, 20.0, 50.0, 100.0)
STYLE = {**figures.STYLE, "text.parse_math": True}
WIDTH = 7.2  # inches: a page between its margins


def record(name: str, folder: Path = HERE / "records") -> Record:
    """What a section of the study found."""
    found: Record = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return found


@contextmanager
def panels(across: int, *, down: int = 1, height: float = 2.9) -> Iterator[tuple[Figure, Any]]:
    """A figure and its axes, in the style of the report; it shows itself in a notebook."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height * down), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, figure.subplots(down, across)
        figure.draw_without_rendering()
    # Notebooks know figures of pyplot alone, which would keep every one of them in memory.
    setattr(figure, "_repr_png_", functools.partial(png, figure))  # noqa: B010


def png(figure: Figure) -> bytes:
    """A figure's file; the same figure gives the same bytes."""
    picture = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(picture, format="png")
    return picture.getvalue()


def chinchilla(of: Record) -> Figure:
    """Tokens per parameter with the intervals of all resamples; how sure each parameter is."""
    numbers = of["numbers"]
    ratios = numbers["ratio"]
    flops = [entry["flops"] for entry in ratios]
    with panels(2) as (figure, (left, right)):
        left.set(
            xscale="log",
            yscale="log",
            xlabel="training FLOP",
            ylim=(3, 300),
            ylabel="optimal tokens per parameter",
            title="How many tokens a model deserves",
        )
        for name, alpha in (("interval_95", 0.15), ("interval_80", 0.25)):
            low, high = zip(*(entry[name] for entry in ratios), strict=True)
            label = f"{name[-2:]}% interval, {numbers['draws']:,} resamples"
            left.fill_between(flops, low, high, color=BLUE, alpha=alpha, lw=0, label=label)
        left.plot(flops, [e["at_minimum"] for e in ratios], color=BLUE, label="the exact minimum")
        left.plot(
            flops,
            [e["hoffmann_tex"] for e in ratios],
            color=ORANGE,
            ls="--",
            label="parameters of Hoffmann et al.",
        )
        left.plot(5.76e23, 20, "*", ms=9, color=INK, label="Chinchilla as trained")
        left.legend(loc="upper left")

        names = ("A", "B", "E", "alpha", "beta", "a")
        theirs, ours = (
            numbers["standard_errors"][kind] for kind in ("published procedure", "at the optimum")
        )
        printed = {"A": 124.5, "B": 1293.3, "E": 0.0257, "alpha": 0.0154, "beta": 0.0206,
                   "a": 0.020}  # fmt: skip
        y = np.arange(len(names))[::-1]
        right.axvspan(-3, 3, color=MUTED, alpha=0.15, lw=0, label="the rule: within 3%")
        for found, colour, marker, label, shift in (
            (theirs, GOLD, "o", "one BFGS for each resample, as published", 0.12),
            (ours, BLUE, "D", "each resample's own optimum", -0.12),
        ):
            off = [100 * (found[name] / printed[name] - 1) for name in names]
            right.plot(off, y + shift, marker, ms=4, color=colour, label=label)
        right.set_yticks(y, [r"$A$", r"$B$", r"$E$", r"$\alpha$", r"$\beta$",
                             r"$\frac{\beta}{\alpha+\beta}$"])  # fmt: skip
        right.set(
            xlabel="standard error, % off the published one",
            xlim=(-5, 5),
            ylim=(-0.7, 7.6),
            title="Standard errors",
        )
        right.legend(loc="upper center")
    return figure


def porian(of: Record) -> Figure:
    """Optimal sizes of five ways to count and to tune, and their exponents."""
    steps = of["numbers"]["steps"]
    colours = SCALE(np.linspace(0, 1, len(steps)))
    said = ("1 Kaplan reproduced", "2 + last layer's FLOP", "3 + short warm-up",
            "4 + cosine decay", "5 tuned, no decay")  # fmt: skip
    with panels(2) as (figure, (left, right)):
        left.set(
            xscale="log",
            yscale="log",
            xlabel="training FLOP",
            ylabel="optimal parameters",
            title="Where each isoFLOP curve is lowest",
        )
        right.set(
            xlabel="exponent $a$ in $N^* \\propto C^a$",
            ylim=(-0.6, 5.6),
            title="From Kaplan to Chinchilla",
        )
        for i, (step, colour) in enumerate(zip(steps, colours, strict=True)):
            points = step["points"]
            x = np.array([min(points["flops"]), max(points["flops"])])
            line = np.exp(step["intercept"]) * x ** step["exponent"]
            left.errorbar(
                points["flops"],
                points["params"],
                color=colour,
                fmt="o",
                ms=3,
                lw=0.8,
                yerr=_around(points["params"], points["spread"]),
            )
            left.plot(x, line, color=colour, lw=1.2, label=said[i])
            y = len(steps) - 1 - i
            for key, ends, level, marker in (
                ("exponent", "interval_95", y + 0.12, "o"),
                ("published", "published_95", y - 0.12, "s"),
            ):
                own = key == "exponent"
                low, high = step[ends]
                value = step[key]
                right.errorbar(
                    value, level, xerr=[[value - low], [high - value]], fmt=marker, ms=4, lw=1.2,
                    color=colour if own else MUTED, mfc=None if own else "white",
                    label=("from the isoFLOP rows" if own else "published") if not i else None,
                )  # fmt: skip
        right.set_yticks(range(len(steps)), said[::-1])
        for value, name, side in ((0.73, "Kaplan", "left"), (0.5, "Hoffmann", "left")):
            right.axvline(value, color=MUTED, lw=0.8, ls=":")
            right.text(value + 0.005, 4.75, name, color=MUTED, fontsize=7, ha=side)
        left.legend(loc="upper left")
        right.legend(loc="lower right")
    return figure


def _around(values: Sequence[float], log_spread: Sequence[float]) -> np.ndarray:
    """Lengths of error bars below and above for spreads of logarithms."""
    value, spread = np.array(values), np.array(log_spread)
    return np.stack([value - value * np.exp(-spread), value * np.exp(spread) - value])


def gadre(of: Record) -> Figure:
    """Errors about runs that were not fitted; and the downstream error as it follows from loss."""
    runs = {name: np.array(x) for name, x in of["numbers"]["runs"].items()}
    flops = 6 * runs["ratio"] * runs["params"] ** 2
    off = 100 * (runs["predicted"] / runs["loss"] - 1)
    fitted = runs["fitted"]
    target = np.zeros(len(flops), bool)
    target[runs["targets"]] = True
    tint = np.log(runs["ratio"] / 5) / math.log(128)
    with panels(2) as (figure, (left, right)):
        left.set(
            xscale="log",
            xlabel="training FLOP (6 N D)",
            title="Loss, foretold from 5 runs",
            ylabel="error of the predicted loss, %",
        )
        left.axhline(0, color=MUTED, lw=0.8)
        right.set(
            xlabel="C4 loss, nats per token",
            ylabel="mean error of 17 tasks",
            title="From loss to what tasks get wrong",
        )
        for axes, x, y in ((left, flops, off), (right, runs["loss"], runs["error"])):
            other = ~fitted & ~target
            axes.scatter(x[other], y[other], c=tint[other], cmap=SCALE, s=18, vmin=0, vmax=1)
            axes.scatter(
                x[target],
                y[target],
                c=ORANGE,
                marker="*",
                s=90,
                zorder=3,
                label="the two published targets",
            )
            axes.scatter(x[fitted], y[fitted], fc="none", ec=INK, s=30, label="fitted")
        law = of["numbers"]["error_law"]
        curve = np.linspace(runs["loss"].min() - 0.05, runs["loss"].max() + 0.05, 100)
        right.plot(
            curve,
            law["epsilon"] - law["k"] * np.exp(-law["gamma"] * curve),
            color=BLUE,
            label=r"$\epsilon - k\,e^{-\gamma L}$, of 6 runs",
            zorder=0,
        )
        bar = figure.colorbar(
            matplotlib.cm.ScalarMappable(matplotlib.colors.LogNorm(5, 640), SCALE),
            ax=right,
            label="tokens per parameter",
        )
        bar.ax.set_yticks([5, 20, 80, 320, 640], ["5", "20", "80", "320", "640"])
        bar.ax.minorticks_off()
        left.legend(loc="lower left")
        right.legend(loc="lower right")
    return figure


def gemstones(of: Record) -> Figure:
    """Exponents of three approaches, and by how much published fits stopped early."""
    numbers = of["numbers"]
    with panels(3, height=2.6) as (figure, (left, right, last)):
        left.set(
            xscale="log",
            yscale="log",
            xlabel="training FLOP",
            ylabel="parameters on the hull",
            title="Approach 1, on the hull",
        )
        for (name, found), colour in zip(numbers["hulls"].items(), (ORANGE, BLUE), strict=True):
            points = found["points"]
            x = np.array([min(points["flops"]), max(points["flops"])])
            line = found["params"]
            label = f"{name if name == 'all' else 'to 100B tokens'}: $C^{{{line['exponent']:.3f}}}$"
            marks = {"ms": 3, "mec": colour} if name == "all" else {"ms": 6, "mfc": "none"}
            left.plot(points["flops"], points["params"], "o", color=colour, **marks)
            left.plot(
                x, np.exp(line["intercept"]) * x ** line["exponent"], color=colour, label=label
            )
        left.legend(loc="upper left")
        approaches = numbers["approaches"]
        for y, (one, colour) in enumerate(zip(approaches, (BLUE, GREEN, PINK), strict=True)):
            low, high = one["interval_95"]
            value = one["exponent"]
            right.errorbar(
                value, y, xerr=[[value - low], [high - value]], fmt="o", ms=5, lw=1.5, color=colour
            )
            right.annotate(
                f"{value:.3f}",
                (value, y),
                xytext=(0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=7.5,
                color=colour,
            )
        names = [one["approach"].replace(" (", "\n(") for one in approaches]
        right.set_yticks(range(len(names)), names)
        right.set(
            xlabel="exponent of the optimal size",
            ylim=(-0.5, 2.6),
            title="Approaches disagree",
        )
        fits = numbers["fits"][::-1]
        excess = [max(fit["published"] / fit["objective"] - 1, 1e-8) for fit in fits]
        last.plot(excess, range(len(fits)), "D", ms=4, color=ORANGE)
        last.axvline(1e-6, color=MUTED, lw=0.8, ls=":")
        said = (
            fit["rows"].replace(" rows)", ")").replace(", delta", "\n$\\delta$") for fit in fits
        )
        last.set_yticks(range(len(fits)), [name.replace(", no", "\nno") for name in said])
        last.tick_params(axis="y", labelsize=6)
        last.set(
            xscale="log",
            xlim=(3e-9, 3e-2),
            xlabel="published over ours, less 1",
            title="Approach 3, 7 fits",
        )
    return figure


def datablations(of: Record) -> Figure:
    """Which values of the two decay constants the runs exclude; what a repeated token is worth."""
    both, free = (of["numbers"]["searches"][i] for i in (0, 3))
    with panels(3, height=2.6) as (figure, (left, middle, right)):
        for axes, name, published, symbol in (
            (left, "R_D", 15.387756, "R_D^*"), (middle, "R_N", 5.309743, "R_N^*"),
        ):  # fmt: skip
            for search, colour, label in (
                (both, BLUE, "law of unrepeated\ndata held"), (free, ORANGE, "all 7 free"),
            ):  # fmt: skip
                profile = search["profiles"][name]
                axes.plot(profile["x"], profile["rise"], ".-", ms=3, color=colour, label=label)
            axes.axhline(1.92, color=MUTED, lw=0.8, ls=":")
            axes.axvline(published, color=INK, lw=0.8, ls="--", label="published")
            axes.set(
                xscale="log",
                ylim=(0, 8),
                xlabel=f"${symbol}$",
                title="Repeated tokens" if name == "R_D" else "Excess parameters",
            )
        left.set(xlim=(1, 1e6), ylabel="rise of the objective, noise variances")
        middle.set_xlim(1e-1, 1e12)
        left.text(1.3, 2.05, "95%", color=MUTED, fontsize=7)
        left.legend(loc="upper right")
        decay = of["numbers"]["decay"]
        right.set(
            xscale="log",
            yscale="log",
            xlabel="epochs",
            ylabel="worth, in unique epochs",
            title="What epochs are worth",
        )
        right.plot(decay["epochs"], decay["epochs"], color=MUTED, lw=0.8, ls=":")
        styles = ((INK, "--"), (BLUE, "-"), (ORANGE, "-"))
        for (name, worth), (colour, style) in zip(decay["effective"].items(), styles, strict=True):
            right.plot(decay["epochs"], worth, color=colour, ls=style, label=name)
        right.legend(loc="upper left")
        right.set(xlim=(1, 1000), ylim=(1, 1000))
    return figure


def ladder(of: Record) -> Figure:
    """Eight tasks: small runs, the law, what was foretold of the 7B model, what it scored."""
    with panels(4, down=2, height=2.1) as (figure, grid):
        for axes, task in zip(grid.flat, of["numbers"]["tasks"], strict=True):
            _task(axes, task)
        for axes in grid[1]:
            axes.set_xlabel("bits per byte")
        for axes in grid[:, 0]:
            axes.set_ylabel("accuracy")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _task(axes: Axes, task: Mapping[str, Any]) -> None:
    seen, curve = task["evaluations"], task["curve"]
    axes.plot(seen["bits"], seen["accuracy"], ".", ms=2, color=MUTED, label="190M to 1B runs")
    axes.plot(curve["bits"], curve["accuracy"], color=BLUE, lw=1.2, label="law of the task")
    value, low, high = task["predicted"]
    bits, (left, right) = task["predicted_bits"], task["bits_interval"]
    axes.errorbar(
        bits, value, xerr=[[bits - left], [right - bits]], yerr=[[value - low], [high - value]],
        fmt="o", ms=4, color=BLUE, mfc="white", lw=1, zorder=3, label="foretold 7B, 90% interval",
    )  # fmt: skip
    axes.plot(task["measured_bits"], task["measured"], "*", ms=9, color=ORANGE, zorder=4,
              label="measured")  # fmt: skip
    off = 100 * abs(value / task["measured"] - 1)
    axes.set_title(f"{task['task']}: {off:.1f}% off")
    if not task["held"]:
        axes.text(0.05, 0.06, "missed", transform=axes.transAxes, color=ORANGE, fontsize=7.5)
    most = max(max(seen["accuracy"]), task["measured"], high)
    axes.set(xlim=(min(left, task["measured_bits"]) - 0.06, np.quantile(seen["bits"], 0.97)),
             ylim=(min(seen["accuracy"]) - 0.03, most + 0.04))  # fmt: skip


PICTURES: Mapping[str, Callable[[Record], Figure]] = {
    "chinchilla": chinchilla,
    "porian": porian,
    "gadre": gadre,
    "gemstones": gemstones,
    "datablations": datablations,
    "ladder": ladder,
}


def draw(folder: Path = HERE) -> list[Path]:
    """Write figures/SECTION.png of every record in a folder."""
    drawn = []
    for name, picture in PICTURES.items():
        if not (folder / "records" / f"{name}.json").exists():
            continue
        path = folder / "figures" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(picture(record(name, folder / "records"))))
        drawn.append(path)
    return drawn
