"""Where Approaches 1, 2 and 3 disagree that is told, and where they agree it is not."""

import math

import numpy as np
import pytest

from scaling.analysis.agreement import disagreement, unheard, ways
from scaling.analysis.approaches import Allocation, Line
from scaling.analysis.fit import fit
from scaling.runs import Runs

NEAR = np.array([[1.6, 60.0, 200.0, 0.35, 0.36], [1.5, 55.0, 180.0, 0.34, 0.35]])


def line(exponent: float, width: float | None) -> Line:
    ends = None if width is None else (exponent - width, exponent + width)
    return Line(exponent, 0.0, ends)


def approach(name: str, exponent: float, width: float | None) -> Allocation:
    return Allocation(
        approach=name, params=line(exponent, width), tokens=line(1 - exponent, width),
        level=0.95, samples=np.empty((0, 2, 2)), points={},
    )  # fmt: skip


def scattered(known, *, noise: float, seed: int) -> Runs:
    """Sizes and compute drawn at random: groups of like compute, and no clear budgets."""
    rng = np.random.default_rng(seed)
    flops = np.exp(rng.uniform(*np.log([3e11, 3e12]), 120))
    params = (
        known.optimum(1e12).params * (flops / 1e12) ** 0.5 * np.exp(rng.uniform(-1.4, 1.4, 120))
    )
    tokens = flops / 6 / params
    loss = known.loss(params, tokens) * np.exp(rng.normal(0, noise, 120))
    names = tuple(f"run-{i}" for i in range(120))
    return Runs(run_id=names, params=params, tokens=tokens, loss=loss, flops=flops)


def test_exponents_apart_beyond_their_intervals_are_told_in_one_warning():
    found = [approach("hull", 0.50, 0.03), approach("law", 0.70, 0.02), approach("wide", 0.6, 0.2)]
    (text,) = disagreement(found)
    assert "hull has params ~ flops^0.500 (0.470 to 0.530)" in text
    assert "law has params ~ flops^0.700 (0.680 to 0.720)" in text
    assert "95% intervals" in text
    assert "wide" not in text


@pytest.mark.parametrize("share", [0.99, 1.01])
def test_two_are_apart_beyond_the_interval_of_a_difference(share):
    apart = share * math.hypot(0.03, 0.04)
    for first, second in ((0.03, 0.04), (0.04, 0.03)):
        found = [approach("a", 0.5, first), approach("b", 0.5 + apart, second)]
        assert len(disagreement(found)) == len(disagreement(found[::-1])) == (share > 1)


def test_exponents_within_their_intervals_or_without_any_are_not_told():
    assert disagreement([approach("hull", 0.50, 0.1), approach("law", 0.59, 0.02)]) == []
    assert disagreement([approach("hull", 0.50, None), approach("law", 0.9, 0.02)]) == []
    assert disagreement([approach("hull", 0.50, 0.1)]) == []


def test_approaches_to_runs_of_one_law_agree(known):
    for seed in range(4):
        runs = known.runs(noise=0.003, seed=seed)
        law = fit(runs, starts=NEAR, bootstrap=50)
        names = [way.approach for way in ways(runs, law, heard=True)]
        assert names == [f"{x})" for x in (
            "Approach 2 (Akima", "Approach 3 (chinchilla", "Approach 2 (parabolas"
        )]  # fmt: skip
        assert disagreement(ways(runs, law, heard=True)) == []


def test_runs_that_come_in_no_budgets_are_held_against_parabolas_and_not_akima(known):
    for seed in range(3):
        runs = scattered(known, noise=0.005, seed=seed)
        law = fit(runs, starts=NEAR, bootstrap=50)
        heard = {way.approach for way in ways(runs, law, heard=True)}
        assert heard == {"Approach 2 (parabolas)", "Approach 3 (chinchilla)"}
        assert law.warnings == []
        assert "do not come in budgets" in unheard("Approach 2 (Akima)", runs)
        # One exponent for both makes the best size grow as the root of compute.
    lopsided = type(known)(alpha=0.2, beta=0.5, A=20.0, B=900.0)
    law = fit(scattered(lopsided, noise=0.002, seed=0), "chinchilla_tied", bootstrap=50)
    (warning,) = [text for text in law.warnings if "beyond their 95% intervals" in text]
    assert "Approach 2 (parabolas) has params ~ flops^0.7" in warning
    assert "Approach 3 (chinchilla_tied) has params ~ flops^0.5" in warning
