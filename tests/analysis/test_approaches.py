import dataclasses

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from scaling.analysis.approaches import akima, envelope, hull, of_law, of_parabolas
from scaling.analysis.fit import fit
from scaling.analysis.fitted import FitError
from scaling.analysis.frontier import isoflop
from scaling.runs import Runs


def table(params, tokens, loss, *, flops=None, series=None) -> Runs:
    params, tokens, loss = (np.asarray(x, np.float64) for x in (params, tokens, loss))
    names = tuple(str(i) for i in range(len(params)))
    flops = 6 * params * tokens if flops is None else np.asarray(flops, np.float64)
    return Runs(run_id=names, params=params, tokens=tokens, loss=loss, flops=flops, series=series)


def curves(known, *, sizes: int = 30, noise: float = 0.0, seed: int = 0) -> Runs:
    """Checkpoints of runs that never cool down: each on the law at its own tokens."""
    rng = np.random.default_rng(seed)
    params = np.repeat(np.geomspace(1e4, 1e6, sizes), 60)
    tokens = np.tile(np.geomspace(1e5, 1e8, 60), sizes)
    loss = known.loss(params, tokens) * np.exp(rng.normal(0, noise, params.size))
    return table(params, tokens, loss, series=tuple(f"{n:.0f}" for n in params))


def basins(*, noise: float = 0.0, seed: int = 0) -> Runs:
    """Log losses that are parabolas in log params, lowest at params = (flops/6)^0.55."""
    rng = np.random.default_rng(seed)
    flops = np.repeat(1e15 * 3.0 ** np.arange(6), 9)
    away = np.tile(np.linspace(-2, 2, 9), 6)
    params = (flops / 6) ** 0.55 * np.exp(away)
    loss = np.exp(1 - 0.01 * np.log(flops / 1e15) + 0.02 * away**2)
    return table(params, flops / 6 / params, loss + rng.normal(0, noise, params.size), flops=flops)


@pytest.mark.parametrize("vantage", [False, True])
def test_the_hull_has_the_vertices_that_quickhull_finds_where_the_loss_falls(known, vantage):
    runs = curves(known, sizes=8, noise=0.01)
    x, y = np.log(runs.flops), np.log(runs.loss)
    points = np.column_stack([np.append(x, np.log(2 * runs.flops.max())),
                              np.append(y, np.log(2 * runs.loss.max()))])  # fmt: skip
    rows = ConvexHull(points).vertices
    rows = rows[rows < len(x)]
    rows = rows[np.argsort(x[rows])]
    falls = np.concatenate([[True], np.diff(y[rows]) < 0])
    assert hull(runs, vantage=vantage, samples=2).rows.tolist() == rows[falls].tolist()


def test_hull_lines_are_least_squares_through_the_vertices(known):
    runs = curves(known, noise=0.003)
    found = hull(runs, samples=2)
    for name in ("params", "tokens"):
        slope, intercept = np.polyfit(np.log(runs.flops[found.rows]), runs.log(name)[found.rows], 1)
        line = getattr(found, name)
        assert line.exponent == pytest.approx(slope, rel=1e-9)
        assert line.intercept == pytest.approx(intercept, rel=1e-9)
        assert np.log(line.at(1e13)) == pytest.approx(intercept + slope * np.log(1e13))


def test_approach_1_finds_the_exponent_of_a_known_law_along_its_curves(known):
    runs = curves(known)
    # Where the smallest and the largest model leave no choice the envelope is theirs alone.
    inside = (runs.flops > 6e11) & (runs.flops < 6e13)
    for way in (envelope, hull):
        found = way(runs.where(inside), samples=2)
        exponent = known.beta / (known.alpha + known.beta)
        assert found.params.exponent == pytest.approx(exponent, abs=0.04), way
        assert found.params.exponent + found.tokens.exponent == pytest.approx(1, abs=0.01)


def test_the_envelope_of_runs_without_curves_is_the_runs_that_none_beats(known):
    runs = known.runs(noise=0.02)
    found = envelope(runs, samples=2)
    unbeaten = [
        i
        for i in range(len(runs))
        if not any(
            runs.flops[j] <= runs.flops[i] and runs.loss[j] < runs.loss[i] for j in range(len(runs))
        )
    ]
    assert sorted(found.rows.tolist()) == unbeaten


def test_intervals_of_the_hull_come_from_whole_series(known):
    runs = curves(known, noise=0.003)
    found = hull(runs)
    low, high = found.params.interval
    assert low < found.params.exponent < high
    assert 0 < high - low < 0.2
    alone = hull(dataclasses.replace(runs, series=None))
    assert alone.params.interval != found.params.interval


def test_akima_finds_the_minima_of_basins_and_the_exponent_through_them():
    found = akima(basins(), noise=1e-9)
    expected = (found.points["flops"] / 6) ** 0.55
    # The minimum is found on 25 points for a gap of half an e-fold between sizes.
    np.testing.assert_allclose(found.points["params"], expected, rtol=0.5 / 25)
    assert found.params.exponent == pytest.approx(0.55, abs=0.003)
    assert found.params.exponent + found.tokens.exponent == pytest.approx(1, abs=1e-9)
    np.testing.assert_allclose(
        found.tokens_per_parameter(1e16), found.tokens.at(1e16) / found.params.at(1e16)
    )


def test_akima_lines_are_weighted_by_the_spread_of_the_drawn_minima():
    found = akima(basins(noise=0.01, seed=3), noise=0.01)
    slope, _ = np.polyfit(
        np.log(found.points["flops"]), np.log(found.points["params"]), 1,
        w=1 / found.points["spread"],
    )  # fmt: skip
    assert found.params.exponent == pytest.approx(slope, rel=1e-9)
    assert found.points["spread"].min() >= 0.33 * 0.5


@pytest.mark.parametrize("noise", [0.01, None])
def test_the_95_percent_interval_of_akima_holds_the_exponent(noise):
    held = 0
    for seed in range(40):
        low, high = akima(basins(noise=0.01, seed=seed), noise=noise, draws=300).params.interval
        held += low <= 0.55 <= high
    assert held >= 36


def test_the_least_of_repeated_sizes_counts():
    runs = basins()
    worse = dataclasses.replace(runs, loss=runs.loss * 1.1)
    twice = Runs(
        run_id=tuple(str(i) for i in range(2 * len(runs))),
        **{
            name: np.concatenate([getattr(worse, name), getattr(runs, name)])
            for name in ("params", "tokens", "loss", "flops")
        },
    )
    assert akima(twice, noise=0.002).params == akima(runs, noise=0.002).params


def test_a_budget_with_its_least_loss_at_an_edge_is_left_out():
    runs = basins()
    last = runs.flops == runs.flops.max()
    # Of the largest budget only the sizes below the best are left.
    small = runs.where(~last | (runs.params < (runs.flops / 6) ** 0.55 * 0.9))
    found = akima(small, noise=0.002)
    assert len(found.points["flops"]) == 5
    assert found.left_out == pytest.approx([runs.flops.max()])
    rising = dataclasses.replace(runs, loss=np.where(last, runs.loss, runs.params))
    with pytest.raises(FitError, match=r"1 of 6 budgets.*sizes further out"):
        akima(rising, noise=0.002)


def test_three_sizes_at_each_budget_do_not_tell_the_noise():
    runs = basins()
    three = runs.where(np.arange(len(runs)) % 9 % 4 == 0)
    assert akima(three, noise=0.002).params.exponent == pytest.approx(0.55, abs=0.03)
    with pytest.raises(FitError, match="no budget has more than three sizes"):
        akima(three)


def test_approach_3_of_chinchilla_is_beta_over_alpha_plus_beta(known):
    law = fit(known.runs(noise=0.003), bootstrap=50)
    found = of_law(law)
    alpha, beta = law.params["alpha"], law.params["beta"]
    assert found.params.exponent == pytest.approx(beta / (alpha + beta), rel=1e-12)
    assert found.tokens.exponent == pytest.approx(alpha / (alpha + beta), rel=1e-12)
    middle = np.sqrt(found.points["flops"].prod())
    assert found.params.at(middle) == pytest.approx(float(law.optimum(middle).params), rel=1e-5)
    samples = law.samples[:, 4] / (law.samples[:, 3] + law.samples[:, 4])
    assert found.params.interval == pytest.approx(np.quantile(samples, (0.025, 0.975)), rel=1e-9)


def test_approach_3_of_another_law_is_the_slope_of_its_frontier(known):
    law = fit(known.runs(noise=0.003), "chinchilla_tied", bootstrap=20)
    found = of_law(law)
    # Tied exponents share compute alike.
    assert found.params.exponent == pytest.approx(0.5, abs=1e-5)
    assert found.params.interval == pytest.approx((0.5, 0.5), abs=1e-5)


def test_lines_through_parabolas_are_those_through_their_minima(known):
    curves = isoflop(known.runs(noise=0.003, seed=1))
    found = of_parabolas(curves)
    of = {n: np.log([entry[n] for entry in curves["budgets"]]) for n in ("flops", "params_opt")}
    slope, intercept = np.polyfit(of["flops"], of["params_opt"], 1)
    assert found.params[:2] == pytest.approx((slope, intercept))
    assert found.params.exponent == pytest.approx(curves["params_exponent"]["value"])
    assert found.params.exponent + found.tokens.exponent == pytest.approx(1)
    low, high = found.params.interval
    assert found.tokens.interval == pytest.approx((1 - high, 1 - low))
    inner = curves["params_exponent"]["interval_90"]
    assert low < inner[0] < inner[1] < high
    assert of_parabolas(curves, level=0.9).params.interval == tuple(inner)


def test_parabolas_of_one_minimum_give_no_line(known):
    curves = isoflop(known.runs().where(np.arange(20) < 5))
    with pytest.raises(FitError, match="1 of 1 budgets have a minimum inside"):
        of_parabolas(curves)


def test_one_run_is_no_envelope(known):
    one = known.runs().where(np.arange(20) == 3)
    with pytest.raises(FitError, match="1 point on 1 rows and needs two"):
        hull(one)
