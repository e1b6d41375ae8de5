"""Intervals hold the truth about as often as they say, on batches of simulated tables.

The whole study (400 tables of each kind, more methods and noise) is in
experiments/2026-11-24-coverage; here are fewer, with limits that so few must keep.
"""

import math

import numpy as np
import pytest
import scipy.stats

from scaling.analysis.fitted import FitError
from scaling.analysis.forms import Array
from scaling.analysis.intervals import choose, resample, seed_deviation
from scaling.analysis.objective import problem_of
from scaling.analysis.proof import Best
from scaling.analysis.rules import LAWS
from scaling.analysis.solver import Penalty, Problem

FORM = LAWS["chinchilla"]
FREE = np.ones(5, bool)
NOISE = 0.005
PENALTY = Penalty(1.345 * NOISE)
DRAWS, RESAMPLES = 100, 128
ROWS = {
    "residual": np.arange(20),
    "seeds": np.concatenate([np.arange(20), np.arange(0, 20, 2)]),
    "case": np.tile(np.arange(20), 3),
    "series": np.tile(np.arange(20), 3),
}
"""Which runs of a grid of 20 a table holds."""


def best_at(theta: Array, value: float) -> Best:
    return Best(theta, value, 1, 1.0, None, None, 0.0)


def table(known, method: str) -> tuple[Problem, tuple[str, ...] | None]:
    """A problem without noise, and the series of its rows: of each size the repeats are one."""
    runs = known.runs().where(np.arange(20) >= 0)
    rows = ROWS[method]
    problem = problem_of(runs, FORM).rows(rows)
    series = tuple(f"series-{i}" for i in rows) if method == "series" else None
    return problem, series


@pytest.fixture(scope="module", params=list(ROWS))
def shares(request, known):
    """For each draw, what share of the resamples lies below the truth: alpha, beta, the loss at 3
    times the largest budget; and the mean square of the refits' deviations."""
    method = request.param
    problem, series = table(known, method)
    rng = np.random.default_rng(0)
    rows = len(problem.target)
    noise = rng.normal(0, NOISE, (DRAWS, rows))
    if series is not None:
        noise = noise[:, ROWS[method]]
    truth = np.asarray(FORM.coordinates(known.values, problem.means))
    ends = problem.solve(np.tile(truth, (DRAWS, 1)), PENALTY, target=problem.target + noise)
    larger = known.optimum(3 * known.budgets[-1])
    at = {"params": np.array(larger.params), "tokens": np.array(larger.tokens)}
    found, squares = [], []
    for i in range(DRAWS):
        noisy = Problem(FORM, problem.logs, problem.target + noise[i], problem.means)
        drawn = resample(
            noisy, best_at(ends.theta[i], float(ends.value[i])), PENALTY, method=method,
            samples=RESAMPLES, seed=i, free=FREE, series=series,
        )  # fmt: skip
        values = FORM.natural(drawn.theta, problem.means)
        columns = np.column_stack([values[:, 3:], FORM.predict(values, at)])
        found.append((columns < [known.alpha, known.beta, larger.loss]).mean(axis=0))
        squares.append(np.mean(drawn.spread**2))
    return method, np.array(found), np.array(squares)


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
def test_intervals_hold_the_truth_as_often_as_they_say(shares, level):
    method, below, _ = shares
    held = (np.abs(2 * below - 1) <= level).mean(axis=0)
    # Three points off are allowed, and what so few draws may be off by.
    low, high = scipy.stats.binom.ppf([0.0005, 0.9995], DRAWS, [level - 0.03, min(level + 0.03, 1)])
    assert np.all(held >= low / DRAWS), method
    assert np.all(held <= high / DRAWS), method


def test_the_deviation_of_refits_is_that_of_the_noise(shares):
    method, _, squares = shares
    # Student's t is wider: chi-square with f degrees of freedom in the denominator, f/(f - 2).
    wider = {"residual": 15 / 13, "seeds": 10 / 8}.get(method, 1.0)
    assert np.mean(squares) / wider / NOISE**2 == pytest.approx(1.0, abs=0.12)


def test_the_method_follows_from_what_the_rows_are():
    assert choose(49, 5, None) == "residual"
    assert choose(50, 5, None) == "case"
    assert choose(50, 5, tuple(map(str, range(50)))) == "case"
    assert choose(20, 5, ("a", "b") * 10) == "series"


def test_the_noise_of_seeds_is_pooled_over_runs_of_the_same_inputs(known):
    problem, _ = table(known, "seeds")
    noise = np.random.default_rng(1).normal(0, NOISE, 30)
    noisy = Problem(FORM, problem.logs, problem.target + noise, problem.means)
    # Of two repeats the variance is half the square of their difference.
    variance = np.mean((noise[:20:2] - noise[20:]) ** 2 / 2)
    found = seed_deviation(noisy)
    assert found.deviation == pytest.approx(math.sqrt(variance), rel=1e-6)
    assert found.freedom == 10


def test_what_the_rows_do_not_allow_is_refused(known):
    problem, _ = table(known, "residual")
    best = best_at(np.asarray(FORM.coordinates(known.values, problem.means)), 0.0)
    for method, series, text in (
        ("seeds", None, "no runs have the same inputs"),
        ("series", None, "at least 6 of them for 5 parameters, found no series"),
        ("series", ("a", "b") * 10, "found 2 series; name their column with --columns series="),
        ("jackknife", None, "'jackknife' are not known; use one of residual, case, series, seeds"),
    ):
        with pytest.raises(FitError, match=text):
            resample(
                problem, best, PENALTY, method=method, samples=2, seed=0, free=FREE, series=series
            )
