"""A table as plain text cells, for the browser and for the terminal alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from scaling.analysis.report.panels import tidy


class Cell(NamedTuple):
    """A cell that stands empty, and why."""

    why: str
    text: str = "–"


Entry = str | Cell


@dataclass(frozen=True, kw_only=True)
class Table:
    """A titled table; the columns named in `wordy` hold running text, those in `wide` are left out
    where there is no room."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Entry]]
    wordy: Sequence[str] = ()
    wide: Sequence[str] = ()


def cell(value: Any, *, write: Callable[[Any], str], why: str) -> Entry:
    """A value as it is written, or `why` there is none."""
    return Cell(why) if value is None else write(value)


def between(
    interval: Sequence[float] | None,
    *,
    write: Callable[[float], str] = lambda end: f"{end:.4f}".replace("-", "−"),
    why: str = "no interval was computed",
) -> Entry:
    """An interval in words, `low to high`."""
    return cell(interval, write=lambda ends: f"{write(ends[0])} to {write(ends[1])}", why=why)


def signed_percent(fraction: float) -> str:
    """A signed percentage with one digit after the point, two below 1%."""
    digits = 1 if abs(fraction) >= 0.01 else 2
    return f"{100 * fraction:+.{digits}f}%".replace("-", "−")


def plain(value: Any) -> str:
    """Any value in a few letters."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return tidy(value) if isinstance(value, float) else str(value)
