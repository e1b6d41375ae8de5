"""The vocabulary of figures: a panel is series over two axes; `figures` and `charts` draw it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

Shape = Literal["line", "points", "band"]
Marker = Literal["circle", "circle-open", "diamond", "diamond-open", "star", "square"]


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


def count(value: float) -> str:
    """A number of parameters or tokens with three digits and a unit: 107k, 1.56M, 70B."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * size:
            return f"{float(f'{value / size:.3g}'):g}{unit}"
    return f"{float(f'{value:.3g}'):g}"


def power(value: float) -> str:
    """A number of FLOPs with two digits and a power of ten: 5.5×10¹¹."""
    mantissa, exponent = f"{value:.1e}".split("e")
    ten = "10" + str(int(exponent)).translate(SUPERSCRIPTS)
    mantissa = mantissa.removesuffix(".0")
    return ten if mantissa == "1" else f"{mantissa}×{ten}"


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
    """At most `most` round numbers in the range: 1, 2, 5 or 1, 3 or 1 times powers of ten."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    ticks: list[float] = []
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [d * 10.0**e for e in range(first, last + 1) for d in digits]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= most:
            return ticks
    return ticks[:: math.ceil(len(ticks) / most)]


def loss_axis(title: str, values: Sequence[float]) -> Axis:
    room = 0.07 * (max(values) - min(values)) or 0.05
    return linear_axis(title, min(values) - room, max(values) + room)


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
