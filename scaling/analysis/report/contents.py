"""What a report holds: each exhibit, table and sentence, made once for page and terminal alike.

The files may come from strangers or from another version. What one of them lacks costs only the
parts that need it: each is made by itself, and a part that cannot be made becomes a warning.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from scaling.analysis.evidence import Evidence
from scaling.analysis.report import findings, tables
from scaling.analysis.report.cards import Card, cards
from scaling.analysis.report.exhibits import EXHIBITS
from scaling.analysis.report.panels import Panel, Series
from scaling.analysis.report.tables import Cell, Table

T = TypeVar("T")

TABLES: Mapping[str, Callable[[Evidence], Table]] = {
    name: getattr(tables, f"{name}_table")
    for name in (
        "run", "minimum", "law", "proof", "profile", "approach", "comparison", "plan", "recipe",
        "alternative", "next", "diagnostic", "fitted", "lost", "missing", "config", "origin",
    )
}  # fmt: skip
SENTENCES: Mapping[str, Callable[[Evidence], str]] = {
    "choice": findings.choice, "promise": findings.promise, "headline": findings.headline,
}  # fmt: skip
LISTS: Mapping[str, Callable[[Evidence], list[str]]] = {
    "warnings": findings.warnings, "assumptions": findings.assumptions,
    "commands": findings.commands,
}  # fmt: skip
DAMAGE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What a value raises that is not there, or is of another kind or size than it should be."""
ENDS = ("x_low", "x_high", "y_low", "y_high")
NOTHING = Table(title="", head=[], rows=[])


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The parts of a report by name; `absent` says of an exhibit without panels why it has none."""

    figures: Mapping[str, list[Panel]]
    absent: Mapping[str, str]
    tables: Mapping[str, Table]
    sentences: Mapping[str, str]
    lists: Mapping[str, list[str]]
    cards: list[Card]

    @property
    def warnings(self) -> list[str]:
        return self.lists["warnings"]


def contents(evidence: Evidence, *, drawn: bool = True) -> Contents:
    """Every part that the files allow; without figures where they are not to be `drawn`."""
    lost: dict[str, list[str]] = {}

    def attempt(name: str, make: Callable[[Evidence], T], instead: T) -> T:
        try:
            return make(evidence)
        except DAMAGE as error:
            lost.setdefault(f"{type(error).__name__}: {error}", []).append(name)
            return instead

    figures: dict[str, list[Panel]] = {}
    absent = {}
    for name, exhibit in EXHIBITS.items() if drawn else ():
        figures[name] = attempt(f"figure {name}", _checked(exhibit.panels), list[Panel]())
        damaged = "The files lack what this figure needs; see the warnings."
        absent[name] = attempt(f"figure {name}", exhibit.absent, damaged)
    built = {
        name: attempt(f"table {name}", _rectangular(make), NOTHING) for name, make in TABLES.items()
    }
    said = {name: attempt(name, make, "") for name, make in SENTENCES.items()}
    listed = {name: attempt(name, make, list[str]()) for name, make in LISTS.items()}
    shown = attempt("cards", cards, list[Card]())
    listed["warnings"] = listed["warnings"] or list(evidence.problems)
    for error, names in lost.items():
        parts = ", ".join(dict.fromkeys(names))
        listed["warnings"].append(
            f"left out of this report: {parts}; what they need is missing or damaged in the files "
            f"({error}): make law.json and plan.json again with this version"
        )
    return Contents(
        figures=figures, absent=absent, tables=built, sentences=said, lists=listed, cards=shown
    )


def _rectangular(make: Callable[[Evidence], Table]) -> Callable[[Evidence], Table]:
    """The same table, of which every row has a cell for each name of the head."""

    def table(evidence: Evidence) -> Table:
        found = make(evidence)
        for row in found.rows:
            if len(row) != len(found.head):
                raise ValueError(f"a row has {len(row)} cells under {len(found.head)} names")
            if wrong := [entry for entry in row if not isinstance(entry, str | Cell)]:
                raise TypeError(f"{wrong[0]!r} is no text")
        return found

    return table


def _checked(make: Callable[[Evidence], list[Panel]]) -> Callable[[Evidence], list[Panel]]:
    """The same panels, which whoever draws them can rely on."""

    def panels(evidence: Evidence) -> list[Panel]:
        found = make(evidence)
        for panel in found:
            if panel.scale is not None and panel.scale.low <= 0:
                raise ValueError("a number is none of a logarithm")
            for series in panel.series:
                _check(series)
        return found

    return panels


def _check(series: Series) -> None:
    shades = series.shade if isinstance(series.shade, Sequence) else [series.shade or 1.0]
    numbers = [series.x, series.y, shades]
    numbers += [ends for name in ENDS if (ends := getattr(series, name)) is not None]
    if not all(math.isfinite(value) for values in numbers for value in values):
        raise ValueError("a number is not finite")
    if not len(series.x) == len(series.y) > 0 or min(shades) <= 0:
        raise ValueError("numbers are missing, or none of a logarithm")
    if not isinstance(series.label, str):
        raise TypeError(f"{series.label!r} is no text")
