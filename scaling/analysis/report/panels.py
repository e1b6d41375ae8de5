"""The vocabulary of figures: a panel is series over two axes; `figures` and `charts` draw it.

Colours are named by what they stand for (`Series.role`). Whoever draws resolves the names in its
own themes: here is only Okabe and Ito's palette, told apart with any kind of colour vision, its two
palest colours darker, so that all stand out from white by three to one.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

ROLES = {
    "ink": "#333333",
    "muted": "#767676",
    "faint": "#949494",
    "minimum": "#111111",
    "predicted": "#0072B2",
    "measured": "#D55E00",
    "envelope": "#D55E00",
    "rival-1": "#B37A00",
    "rival-2": "#009E73",
    "rival-3": "#B85C8E",
    "rival-4": "#D55E00",
    "rival-5": "#333333",
}
RIVALS = tuple(role for role in ROLES if role.startswith("rival"))
MOST_DECADES = 7
BEYOND = "Beyond the runs"
DENSE = 500
"""More points of one series stand without a rim, which would cover the others."""
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

Shape = Literal["line", "points", "band"]
Marker = Literal[
    "circle", "circle-open", "diamond", "diamond-open", "star", "square", "triangle-up",
    "triangle-down", "cross",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Series:
    """One mark of a panel: a line, points (with error bars where given) or a band.

    `shade` places the colour on the panel's scale, one value or one per point; without it `role`
    picks one of the named colours. `label` is a legend entry, `tag` a text at the last point.
    """

    x: Sequence[float]
    y: Sequence[float]
    shape: Shape = "line"
    y_low: Sequence[float] | None = None
    y_high: Sequence[float] | None = None
    x_low: Sequence[float] | None = None
    x_high: Sequence[float] | None = None
    shade: float | Sequence[float] | None = None
    role: str = "ink"
    marker: Marker = "circle"
    dashed: bool = False
    small: bool = False
    label: str = ""
    tag: str = ""
    hover: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A logarithmic colour scale from `low` to `high`, and how its numbers are written."""

    title: str
    low: float
    high: float
    write: Callable[[float], str]

    def place(self, value: float) -> float:
        """Where a value lies on the scale, 0 to 1."""
        if self.high <= self.low:
            return 0.5
        return math.log(value / self.low) / math.log(self.high / self.low)


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A titled axis over a closed range, with its ticks already chosen and written."""

    title: str
    low: float
    high: float
    ticks: Sequence[float]
    texts: Sequence[str]
    logarithmic: bool

    def words(self, letters: int, *, line: str) -> str:
        """The title, what it has in brackets on a `line` of its own where `letters` fill one."""
        return self.title if len(self.title) <= letters else self.title.replace(" (", f"{line}(", 1)

    @property
    def between(self) -> list[float]:
        """Ticks without a text: 1 to 9 times the powers of ten of a logarithmic axis."""
        if not self.logarithmic:
            return []
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        if last - first > MOST_DECADES:
            return [10.0**e for e in range(first, last + 1) if self.low <= 10.0**e <= self.high]
        fine = [d * 10.0**e for e in range(first, last + 1) for d in range(1, 10)]
        return [tick for tick in fine if self.low <= tick <= self.high]

    def place(self, value: float) -> float:
        """Where a value lies on the axis, 0 to 1."""
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def step(self, letters: int) -> int:
        """Every how manieth tick may bear its text where `letters` fill the axis."""
        at = [letters * self.place(tick) for tick in self.ticks]
        for step in range(1, len(at)):
            kept = [*zip(at, self.texts, strict=True)][::step]
            if all(
                b - a >= (len(left) + len(right)) / 2 + 0.5
                for (a, left), (b, right) in itertools.pairwise(kept)
            ):
                return step
        return max(1, len(at))


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes and what is drawn in it, `series` from back to front.

    `beyond` is the compute from which on the panel extrapolates.
    """

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    scale: Scale | None = None
    beyond: float | None = None
    notes: Sequence[str] = ()

    @property
    def extrapolates(self) -> bool:
        return self.beyond is not None and self.beyond < self.x.high


def describe(panel: Panel) -> str:
    """The panel in a sentence, for who cannot see it."""
    points = sum(len(series.x) for series in panel.series if series.shape == "points")
    named = ", ".join(dict.fromkeys(series.label for series in panel.series if series.label))
    parts = [f"{panel.title}: {panel.y.title} against {panel.x.title}"]
    parts += [f"{points} points"] if points else []
    parts += [named] if named else []
    return "; ".join([*parts, *panel.notes])


def count(value: float) -> str:
    """A number of parameters or tokens with three digits and a unit: 107k, 1.56M, 70B."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * size:
            return f"{float(f'{value / size:.3g}'):g}{unit}"
    return f"{float(f'{value:.3g}'):g}"


def power(value: float, *, digits: int = 2) -> str:
    """A number as a power of ten, such as one of FLOPs: 5.5×10¹¹."""
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    ten = "10" + str(int(exponent)).translate(SUPERSCRIPTS)
    mantissa = f"{float(mantissa):g}".replace("-", "−")
    return ten if mantissa == "1" else f"{mantissa}×{ten}"


def tidy(value: float, *, digits: int = 3) -> str:
    """A number with so many digits, as a power of ten where it is far from one: 0.348, 2.1×10⁻⁹."""
    if value and not 1e-4 <= abs(value) < 1e6:
        return power(value, digits=digits)
    return f"{float(f'{value:.{digits}g}'):g}".replace("-", "−")


def percent(value: float) -> str:
    """A percentage with two digits: 0.35%, 12%."""
    return f"{tidy(value, digits=2)}%"


def colour_scale(title: str, values: Sequence[float], *, write: Callable[[float], str]) -> Scale:
    return Scale(title=title, low=min(values), high=max(values), write=write)


def log_axis(
    title: str, values: Sequence[float], *, write: Callable[[float], str], room: float = 0.06
) -> Axis:
    """A logarithmic axis around the values, with `room` of its length left free above them."""
    low, high = math.log10(min(values)), math.log10(max(values))
    length = max(high - low, 0.3)
    low, high = 10 ** (low - 0.06 * length), 10 ** (high + room * length)
    ticks = log_ticks(low, high, most=6 if write is count else 4)  # powers are wider
    return Axis(
        title=title,
        low=low,
        high=high,
        ticks=ticks,
        texts=[write(t) for t in ticks],
        logarithmic=True,
    )


def log_ticks(low: float, high: float, *, most: int = 6) -> list[float]:
    """At most `most` round numbers in the range, some of 1, 1.5, 2, 3, 5, 7 times powers of ten.

    1, 2, 5 where they give three or more, else finer digits or coarser ones.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found: list[list[float]] = []
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        ticks = [d * 10.0**e for e in range(first, last + 1) for d in digits]
        found.append([tick for tick in ticks if low <= tick <= high])
    for ticks in found[2:] + found[1::-1]:  # 1, 2, 5 are read most easily
        if 3 <= len(ticks) <= most:
            return ticks
    if len(found[0]) > most:
        return found[0][:: math.ceil(len(found[0]) / most)]
    return max((ticks for ticks in found if len(ticks) <= most), key=len)


def loss_axis(title: str, values: Sequence[float]) -> Axis:
    """A linear axis around the values; a few that stand far above the rest do not stretch it."""
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    fifth, most = (ordered[round(share * (len(ordered) - 1))] for share in (0.05, 0.95))
    high = min(high, most + 0.5 * (most - fifth)) if most > fifth else high
    room = 0.07 * (high - low) or 0.05
    return linear_axis(title, low - room, high + room)


def above(values: Sequence[float], axis: Axis) -> list[str]:
    """A note where the axis cuts points off, nothing where it does not."""
    cut = sum(value > axis.high for value in values)
    return [f"{cut} of {len(values)} beyond the axis"] if cut else []


def named_axis(title: str, names: Sequence[str]) -> Axis:
    """An axis of words: `names` stand at 0, -1, -2, ..., so that the first is at the top."""
    places = [-float(index) for index in range(len(names))]
    low, high = places[-1] - 0.6, 0.6
    return Axis(title=title, low=low, high=high, ticks=places, texts=names, logarithmic=False)


def linear_axis(title: str, low: float, high: float) -> Axis:
    rough = (high - low) / 5
    step = 10.0 ** math.floor(math.log10(rough))
    step *= next(digit for digit in (1, 2, 5, 10) if digit * step >= rough * 0.999)
    first, last = math.ceil(low / step), math.floor(high / step)
    ticks = [index * step for index in range(first, last + 1)]
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return Axis(
        title=title,
        low=low,
        high=high,
        ticks=ticks,
        logarithmic=False,
        texts=[f"{tick + 0.0:.{digits}f}".replace("-", "−") for tick in ticks],
    )
