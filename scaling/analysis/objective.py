"""What a fit minimises: a law at a table of runs, if the runs can determine it."""

import math

import numpy as np

from scaling.analysis.fitted import FitError
from scaling.analysis.forms import Array, Form
from scaling.analysis.proof import LEAST_SIZE
from scaling.analysis.rules import LAWS
from scaling.analysis.solver import Problem
from scaling.runs import Runs

# Huber's constant: 95% as efficient as least squares under normal noise (Holland and Welsch 1977).
EFFICIENT = 1.345
DEPENDENT = 1e-6
"""Derivatives, each scaled to length one, whose least singular value is below this depend on each
other but for rounding."""
TRIED = 8
LEAST_ABSOLUTE = 1e-3
"""A delta that makes Huber's penalty nearly that of absolute residuals, Hoffmann et al.'s."""
BENT = 3.0
"""So many times the scale of least absolute residuals is that of a fit that single runs have bent:
least squares follow them, and their residuals then say nothing."""


def form_of(law: str) -> Form:
    """The law of that name.

    Raises:
      FitError: there is none.
    """
    if law not in LAWS:
        raise FitError(f"law {law!r} is unknown; use one of {', '.join(LAWS)}")
    return LAWS[law]


def problem_of(runs: Runs, form: Form) -> Problem:
    """The law at the runs' columns.

    Raises:
      BadTable: a column is not there, or not positive where the law takes its logarithm.
    """
    logs = {name: runs.log(name) for name in form.inputs}
    log = form.link == "log"
    return Problem.of(form, logs, runs.log(form.target) if log else runs.column(form.target))


def delta_of(residuals: Array, freedom: int) -> float:
    """Where Huber's penalty turns linear: 1.345 robust standard deviations of these residuals.

    The standard deviation is 1.4826 x the median absolute residual x sqrt(n/freedom), n being their
    number.
    """
    scale = 1.4826 * float(np.median(np.abs(residuals)))
    return max(EFFICIENT * scale * math.sqrt(len(residuals) / freedom), LEAST_SIZE)


def delta_of_least_absolute(residuals: Array, parameters: int) -> float:
    """The same of a fit that is near to least absolute residuals: such a fit passes through as many
    runs as it has parameters, and the median is over the others (Koenker 2005, section 4.10)."""
    others = np.sort(np.abs(residuals))[parameters:]
    return max(EFFICIENT * 1.4826 * float(np.median(others)), LEAST_SIZE)


def check_count(runs: Runs, form: Form, parameters: int) -> None:
    """Refuse fewer runs than free parameters + 1.

    Raises:
      FitError: says how many are needed.
    """
    n = len(runs)
    if n < parameters + 1:
        left = f" ({len(runs.dropped)} were dropped)" if runs.dropped else ""
        raise FitError(
            f"{n} runs{left} cannot determine the {parameters} parameters of {form.name}; give at "
            f"least {parameters + 1}, better 16 or more"
        )


def check(runs: Runs, problem: Problem) -> None:
    """Refuse runs that cannot tell the parts of the law apart.

    Raises:
      FitError: an input of too few values for the law, usually three, or that follows from
        another; compute of one size; a target that does not vary.
    """
    form, n = problem.form, len(runs)
    for name in form.inputs:
        distinct = np.exp(np.unique(np.round(problem.logs[name], 9)))
        shared = len(form.inputs) > 1 and distinct.size == 2 and _independent(problem)
        if distinct.size < 3 and not shared:
            values = " and ".join(f"{value:.6g}" for value in distinct)
            more = {"params": "sizes", "tokens": "lengths"}.get(name, f"values of {name}")
            raise FitError(
                f"all {n} runs have {name} = {values}; {form.name} needs at least three different "
                f"values of {name}, so train other {more} too"
            )
    if "flops" in form.inputs and np.ptp(runs.params) == 0:
        raise FitError(
            f"all {n} runs have params = {runs.params[0]:.6g}; a law of compute needs sizes that "
            "grow with it, so train other sizes too, or use a law of tokens"
        )
    if {"params", "tokens"}.issubset(form.inputs):
        ratio = problem.logs["tokens"] - problem.logs["params"]
        if np.ptp(ratio) < 0.01:
            raise FitError(
                f"all {n} runs have {np.exp(ratio.mean()):.4g} tokens per parameter, so the "
                "effects of size and data cannot be told apart; train some sizes on fewer or more "
                "tokens"
            )
    for first, second in _alike(problem):
        raise FitError(
            f"{first} and {second} rise together in all {n} runs, so their effects cannot be told "
            "apart; vary one without the other, or use a law of one of them"
        )
    if np.ptp(problem.target) < 1e-9:
        raise FitError(
            f"all {n} runs have {form.target} {runs.column(form.target)[0]:.6g}; a law needs a "
            f"{form.target} that varies, so check the column"
        )


def _independent(problem: Problem) -> bool:
    """Whether the derivatives by the parameters span as many directions as there are parameters,
    at some start of the law: an input of two values is enough where parameters are shared."""
    starts = problem.starts()
    for theta in starts[np.linspace(0, len(starts) - 1, TRIED).astype(int)]:
        jacobian = problem.jacobian(theta)
        sizes = np.linalg.norm(jacobian, axis=0)
        if np.isfinite(sizes).all() and (sizes > 0).all():
            least = np.linalg.svd(jacobian / sizes, compute_uv=False)[-1]
            if least > DEPENDENT:
                return True
    return False


def _alike(problem: Problem) -> list[tuple[str, str]]:
    """Pairs of inputs whose logs are one line."""
    names = [name for name in problem.form.inputs if np.isfinite(problem.logs[name]).all()]
    found = []
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            correlation = np.corrcoef(problem.logs[first], problem.logs[second])[0, 1]
            if abs(correlation) > 1 - 1e-8:
                found.append((first, second))
    return found
