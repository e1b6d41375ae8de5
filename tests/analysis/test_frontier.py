import dataclasses
import sys
import types

import numpy as np
import pytest

from scaling.analysis.fit import fit
from scaling.analysis.fitted import optimum
from scaling.analysis.frontier import budgets, isoflop
from scaling.analysis.laws import CHINCHILLA
from scaling.runs import Runs


def parabola_runs(*, noise: float = 0.0, seed: int = 0, shift: float = 0.0) -> Runs:
    """Exact parabolas with minima at params = (flops/6)^0.5 e^shift and loss 3 / flops^0.02."""
    rng = np.random.default_rng(seed)
    flops = np.repeat(np.array([1e12, 2e12, 4e12, 8e12]), 6)
    x = np.tile(np.linspace(-1.2, 1.2, 6), 4) + np.log(flops / 6) / 2
    loss = 3 / flops**0.02 + 0.1 * (x - shift - np.log(flops / 6) / 2) ** 2
    return Runs(
        run_id=tuple(str(i) for i in range(x.size)),
        params=np.exp(x),
        tokens=flops / 6 / np.exp(x),
        flops=flops,
        loss=loss + rng.normal(0, noise, x.size),
    )


def test_isoflop_finds_the_minima_and_exponent_of_exact_parabolas():
    found = isoflop(parabola_runs())
    for budget in found["budgets"]:
        assert budget["interior"]
        assert budget["n_runs"] == 6
        assert budget["params_opt"] == pytest.approx((budget["flops"] / 6) ** 0.5, rel=1e-9)
        assert budget["tokens_opt"] == pytest.approx((budget["flops"] / 6) ** 0.5, rel=1e-9)
        assert budget["loss_opt"] == pytest.approx(3 / budget["flops"] ** 0.02, rel=1e-12)
        c0, c1, c2 = budget["coefficients"]
        x = np.log(budget["params_opt"])
        assert c0 + c1 * x + c2 * x**2 == pytest.approx(budget["loss_opt"], rel=1e-9)
    assert found["params_exponent"]["value"] == pytest.approx(0.5, rel=1e-9)


def test_isoflop_intervals_cover_the_minimum_and_the_exponent():
    held = []
    for seed in range(200):
        found = isoflop(parabola_runs(noise=0.01, seed=seed), seed=seed)
        first = found["budgets"][0]
        truth = {"params_opt": (first["flops"] / 6) ** 0.5, "loss_opt": 3 / first["flops"] ** 0.02}
        low, high = found["params_exponent"]["interval_90"]
        inside = [low <= 0.5 <= high]
        for name, value in truth.items():
            low, high = first["interval_90"][name]
            inside.append(low <= value <= high)
        held.append(inside)
    assert np.all(np.abs(np.mean(held, axis=0) - 0.9) <= 0.05)


@pytest.mark.parametrize("shift", [-2.0, 2.0])
def test_a_minimum_outside_the_tested_sizes_is_not_interior_and_has_no_interval(shift):
    found = isoflop(parabola_runs(shift=shift, noise=1e-4))
    for budget in found["budgets"]:
        assert not budget["interior"]
        assert budget["interval_90"] is None
    assert found["params_exponent"] is None


def test_a_parabola_that_opens_downwards_has_no_minimum():
    runs = parabola_runs()
    found = isoflop(dataclasses.replace(runs, loss=6 - runs.loss))
    assert [budget["params_opt"] for budget in found["budgets"]] == [None] * 4
    assert [budget["interior"] for budget in found["budgets"]] == [False] * 4


def test_three_sizes_a_budget_give_minima_without_intervals():
    runs = parabola_runs()
    keep = np.arange(24) % 6 < 3
    arrays = {name: getattr(runs, name)[keep] for name in ("params", "tokens", "flops", "loss")}
    few = Runs(run_id=tuple(np.array(runs.run_id)[keep]), **arrays)
    found = isoflop(few)
    assert len(found["budgets"]) == 4
    assert all(budget["interval_90"] is None for budget in found["budgets"])


def test_runs_within_ten_per_cent_share_a_budget_and_others_do_not():
    runs = parabola_runs()
    jitter = np.tile([1.0, 1.02, 1.05, 1.08, 1.0, 1.01], 4)
    groups = budgets(dataclasses.replace(runs, flops=runs.flops * jitter))
    assert [sorted(group.tolist()) for group in groups] == np.arange(24).reshape(4, 6).tolist()


def test_a_budget_with_two_sizes_is_left_out_of_the_parabolas():
    runs = parabola_runs()
    flops = runs.flops.copy()
    flops[:4] = 1e9 * 3.0 ** np.arange(4)
    assert len(isoflop(dataclasses.replace(runs, flops=flops))["budgets"]) == 3


def test_the_frontier_spends_its_flops_and_no_size_near_it_is_better(known):
    law = fit(known.runs(noise=0.005), bootstrap=100)
    curve = {name: np.array(law.optima[name]) for name in ("flops", "params", "tokens", "loss")}
    np.testing.assert_allclose(6 * curve["params"] * curve["tokens"], curve["flops"], rtol=1e-12)
    for factor in (0.9, 1.1):
        beside = law.predict(curve["params"] * factor, curve["tokens"] / factor)
        assert np.all(beside > curve["loss"])
    assert curve["flops"][0] == pytest.approx(known.budgets[0])
    assert curve["flops"][-1] == pytest.approx(10 * known.budgets[-1])
    for name in ("params", "loss"):
        low, high = np.array(law.optima["interval_90"][name]).T
        assert np.all(low < curve[name])
        assert np.all(curve[name] < high)


def test_the_frontier_at_budgets_of_ones_own_has_the_quantiles_of_the_refits(known, monkeypatch):
    law = fit(known.runs(noise=0.005), bootstrap=60)
    curve = law.frontier([1e12, 1e13], level=0.8)
    drawn = law.optimum_samples(np.array([1e12, 1e13]))
    assert curve.params.tolist() == law.optimum(np.array([1e12, 1e13])).params.tolist()
    for name, x in (("tokens_per_parameter", drawn.tokens / drawn.params), ("loss", drawn.loss)):
        low, high = np.quantile(x, (0.1, 0.9), axis=0)
        assert curve.intervals[name].low == pytest.approx(low)
        assert curve.intervals[name].high == pytest.approx(high)
    assert law.frontier().flops.tolist() == law.optima["flops"]
    frames = types.SimpleNamespace(DataFrame=lambda columns, index: columns)
    monkeypatch.setitem(sys.modules, "pandas", frames)
    columns = curve.to_pandas()
    assert list(columns)[:4] == ["flops", "params", "params_low", "params_high"]
    assert columns["params_low"] is curve.intervals["params"].low


def test_the_frontier_has_the_slope_of_the_published_closed_form(known):
    curve = optimum(CHINCHILLA, known.values, np.array([1e20, 1e21]))
    slope = np.log(curve.params[1] / curve.params[0]) / np.log(10)
    assert slope == pytest.approx(known.beta / (known.alpha + known.beta), rel=1e-6)
