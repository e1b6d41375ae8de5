"""Lines of the table: what came out, what was published, and by which rule it passes."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from scaling.analysis.forms import Form
from scaling.analysis.proof import Best, best_of
from scaling.analysis.solver import Penalty, Problem
from scaling.runs import Runs

SHARE = 1e-6
"""The pass rule for a fit: its objective is at most the least known one times 1 + this."""


class Row(NamedTuple):
    """One line; `passed` is None where no rule was published."""

    what: str
    ours: str
    published: str
    rule: str = ""
    passed: bool | None = None


class Section(NamedTuple):
    """A publication: its lines, and the numbers behind them (`records/<name>.json`)."""

    title: str
    rows: Sequence[Row]
    numbers: dict[str, Any]


def least(what: str, value: float, minimum: float) -> Row:
    """The objective of a fit against the least known one."""
    return Row(
        f"{what}: objective", f"{value:.11g}", f"{minimum:.11g}", "at most 1 + 1e-6 times",
        bool(value <= minimum * (1 + SHARE)),
    )  # fmt: skip


def close(what: str, value: float, published: str, *, share: float = 1e-5) -> Row:
    """A parameter at a minimum, which is flat: it may be off by a share of itself."""
    return Row(
        what, f"{value:.{_decimals(published)}f}", published, f"within {share:g} of it",
        bool(abs(value / float(published) - 1) <= share),
    )  # fmt: skip


def near(what: str, value: float, published: float, *, within: float, show: str = ".4f") -> Row:
    """A number that may be off by `within`."""
    return Row(
        what, format(value, show), format(published, show), f"within {within:g}",
        bool(abs(value - published) <= within),
    )  # fmt: skip


def printed(what: str, value: float, published: str) -> Row:
    """A number that has the digits that were printed: off by at most half of the last."""
    mantissa, _, exponent = published.partition("e")
    decimals = _decimals(mantissa)
    half = 0.5 * 10.0 ** (int(exponent or 0) - decimals)
    passed = abs(value - float(published)) <= half * (1 + 1e-9)
    shown = f"{value:.{decimals}e}" if exponent else f"{value:.{decimals}f}"
    return Row(what, shown, published, "the printed digits", bool(passed))


def _decimals(text: str) -> int:
    return len(text.partition(".")[2])


def beside(what: str, ours: str, published: str) -> Row:
    """Numbers without a rule."""
    return Row(what, ours, published)


def runs_of(
    params: np.ndarray,
    tokens: np.ndarray,
    loss: np.ndarray,
    *,
    flops: np.ndarray | None = None,
    series: np.ndarray | None = None,
    **others: np.ndarray,
) -> Runs:
    """Columns as a table of runs."""
    return Runs(
        run_id=tuple(str(i) for i in range(len(loss))),
        params=params,
        tokens=tokens,
        loss=loss,
        flops=6 * params * tokens if flops is None else flops,
        others=others,
        series=None if series is None else tuple(str(name) for name in series),
    )


class Minimum(NamedTuple):
    """The least value that a search of all of a law's starts finds."""

    value: float
    params: dict[str, float]
    best: Best
    problem: Problem


def minimum(form: Form, runs: Runs, delta: float) -> Minimum:
    """Fit a law and keep nothing but the optimum."""
    logs = {name: runs.log(name) for name in form.inputs}
    problem = Problem.of(form, logs, runs.log(form.target))
    penalty = Penalty(delta)
    best = best_of(problem, problem.search(problem.starts(), penalty), penalty)
    values = form.natural(best.theta, problem.means)
    return Minimum(best.value, dict(zip(form.names, values.tolist(), strict=True)), best, problem)


def interval(ends: Sequence[float], show: str = ".3f") -> str:
    """Two ends in words."""
    return " to ".join(format(end, show) if math.isfinite(end) else "?" for end in ends)
