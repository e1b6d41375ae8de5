"""Whether the ways to the optimal size agree: Approaches 1, 2 and 3 on the same runs."""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from scaling.analysis.approaches import LEVEL, Allocation, Line, akima, hull, of_law, of_parabolas
from scaling.analysis.fitted import FitError, Law
from scaling.analysis.holdout import budgets_of
from scaling.runs import Runs


def ways(runs: Runs, law: Law, *, level: float = LEVEL, heard: bool = False) -> list[Allocation]:
    """Every way to the optimal size that the runs allow; with `heard` only those that `unheard`
    says nothing against. None for a law without an optimum."""
    if law.optima is None and not (law.isoflop or {}).get("budgets"):
        return []
    curves = law.isoflop
    tried: Mapping[str, Callable[[], Allocation]] = {
        "hull": lambda: hull(runs, level=level),
        "akima": lambda: akima(runs, level=level),
        "law": lambda: of_law(law, level=level),
    }
    if curves is not None:
        tried = {**tried, "parabolas": lambda: of_parabolas(curves, level=level)}
    found = []
    for name, way in tried.items():
        if heard and unheard(name, runs):
            continue
        # Too few vertices or budgets, or a law without an optimum: that way has no say.
        with contextlib.suppress(FitError, np.linalg.LinAlgError):
            found.append(way())
    return found


def unheard(approach: str, runs: Runs) -> str | None:
    """Why an approach says too little of these runs to be held against another, None where it does
    not: a hull that goes along no training curves, Akima's curves where runs do not come in
    budgets.

    Of tables drawn from a law (60 each, at the inputs of Hoffmann et al.'s runs, whose budgets run
    into one another, with 1% noise) Akima's exponent was apart from the law's in up to 32, and that
    of parabolas in none.
    """
    if "hull" in approach and len(set(runs.series or ())) in (0, len(runs)):
        return "these rows are no checkpoints: most ends of runs say little of the best size"
    if "akima" in approach.lower() and budgets_of(runs) is None:
        return "these runs do not come in budgets that are clear of one another"
    return None


def disagreement(found: Sequence[Allocation]) -> list[str]:
    """A warning that names the approaches whose exponents disagree beyond their intervals.

    Two disagree where their exponents of size, or else of tokens, are further apart than the root
    of the sum of squares of the halves of their intervals that face each other: the interval of a
    difference of independent values. Approaches without an interval are passed over.
    """
    for what in ("params", "tokens"):
        lines: list[tuple[Allocation, Line]] = [(way, getattr(way, what)) for way in found]
        apart = [
            (way, line) for way, line in lines if any(_apart(line, other) for _, other in lines)
        ]
        if apart:
            return [
                f"{', '.join(_said(way, line, what) for way, line in apart)}: apart beyond their "
                f"{apart[0][0].level:.0%} intervals. One of them reads these runs wrongly: look "
                "for runs that are tuned or cooled down unlike the others, budgets before the "
                "power law begins, or flops that are not 6 * params * tokens; do not extrapolate "
                "before they agree"
            ]
    return []


def _apart(one: Line, other: Line) -> bool:
    if one.interval is None or other.interval is None:
        return False
    if one.exponent > other.exponent:
        return _apart(other, one)
    facing = one.interval[1] - one.exponent, other.exponent - other.interval[0]
    return other.exponent - one.exponent > math.hypot(*(max(half, 0.0) for half in facing))


def _said(allocation: Allocation, line: Line, what: str) -> str:
    assert line.interval is not None
    low, high = line.interval
    return f"{allocation.approach} has {what} ~ flops^{line.exponent:.3f} ({low:.3f} to {high:.3f})"
