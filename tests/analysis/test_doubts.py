"""Every warning fires on a table made for it, names what it must, and is silent on a clean one."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats

from scaling.analysis.fit import fit
from scaling.analysis.objective import problem_of
from scaling.analysis.outliers import outliers
from scaling.analysis.plan import plan
from scaling.analysis.rules import LAWS
from scaling.analysis.solver import Penalty
from scaling.runs import Runs

NEAR = np.array([[1.6, 60.0, 200.0, 0.35, 0.36], [1.5, 55.0, 180.0, 0.34, 0.35]])
"""Starts near the truth: what all starts reach is shown elsewhere."""
BOOTSTRAP = 40


def fitted(runs, law="chinchilla", **options):
    starts = NEAR if law == "chinchilla" else None
    return fit(runs, law, starts=starts, bootstrap=BOOTSTRAP, **options)


@pytest.fixture(scope="module")
def clean(known):
    """Tables of the known law, fitted."""
    return [fitted(known.runs(noise=0.005, seed=seed)) for seed in range(10)]


def only(warnings, text):
    found = [warning for warning in warnings if text in warning]
    assert len(found) == 1, warnings
    return found[0]


def with_loss(runs, **factors):
    loss = runs.loss.copy()
    for row, factor in factors.items():
        loss[int(row[1:])] *= factor
    return dataclasses.replace(runs, loss=loss)


def rare(laws):
    """Whether these laws of clean tables raise as few doubts as the tests behind them promise."""

    def most(chance):
        return scipy.stats.binom.ppf(0.999, len(laws), chance)

    # Of 150 such tables 9 raised one.
    warned = sum(bool(law.warnings) for law in laws)
    outlying = sum("far above" in text or "far below" in text for x in laws for text in x.warnings)
    p_values = [
        [entry["p_value"] for entry in (*law.diagnostics["trend"].values(),
                                        law.diagnostics["minima"])]
        for law in laws
    ]  # fmt: skip
    false = (np.array(p_values) < 0.05).sum(axis=0)
    return warned <= most(0.08) and outlying <= most(0.02) and bool(np.all(false <= most(0.05)))


def test_clean_tables_raise_hardly_any_doubt(clean):
    assert rare(clean)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.002, 0.01])
def test_a_hundred_clean_tables_raise_hardly_any_doubt(known, noise):
    assert rare([fitted(known.runs(noise=noise, seed=seed)) for seed in range(100)])


def test_a_trend_test_is_the_t_test_of_one_more_regressor(known):
    runs = known.runs(noise=0.005)
    law = fitted(runs, delta=math.inf)

    def predicted(values):
        form = law.form
        return np.log(form.predict(values, {"params": runs.params, "tokens": runs.tokens}))

    steps = 1e-5 * law.values
    jacobian = np.stack(
        [
            (predicted(law.values + step) - predicted(law.values - step)) / (2 * step.sum())
            for step in np.diag(steps)
        ],
        axis=1,
    )
    left = np.log(runs.loss) - predicted(law.values)
    flops = np.log(runs.flops)
    for name, x in {
        "params": np.log(runs.params),
        "flops": flops,
        "flops_curvature": (flops - flops.mean()) ** 2,
    }.items():
        design = np.column_stack([jacobian / np.linalg.norm(jacobian, axis=0), x - x.mean()])
        slopes, squares, _, _ = np.linalg.lstsq(design, left, rcond=None)
        error = math.sqrt(squares[0] / 14 * np.linalg.inv(design.T @ design)[-1, -1])
        entry = law.diagnostics["trend"][name]
        assert entry["slope"] == pytest.approx(slopes[-1], rel=1e-4)
        p_value = 2 * scipy.stats.t.sf(abs(slopes[-1] / error), 14)
        assert entry["p_value"] == pytest.approx(p_value, rel=1e-3)


def test_budgets_from_before_the_power_law_make_residuals_bend_with_compute(known):
    runs = known.runs(noise=0.003)
    early = (runs.flops / runs.flops.min()) ** -1.5
    law = fitted(dataclasses.replace(runs, loss=runs.loss * (1 - 0.05 * early)))
    warning = only(law.warnings, "with compute")
    assert "before the power law begins, leave them out (--law=auto tries that)" in warning


def test_a_frontier_that_bends_against_the_law_is_told_from_one_that_does_not(known):
    flops = np.repeat(3e11 * 2.5 ** np.arange(5), 5)
    params = known.optimum(flops).params * np.tile(np.geomspace(1 / 4, 4, 5), 5)
    tokens = flops / 6 / params
    noise = np.exp(np.random.default_rng(0).normal(0, 0.002, 25))
    share = np.log(flops / flops.min()) / np.log(flops.max() / flops.min())
    for bend, fires in ((1.0, True), (0.0, False)):
        # The best size is exp(bend) times the law's at the ends, and the law's in the middle.
        shift = np.exp(4 * bend * (share - 0.5) ** 2)
        runs = Runs(
            run_id=tuple(f"run-{i}" for i in range(25)), params=params, tokens=tokens, flops=flops,
            loss=known.loss(params / shift, tokens * shift) * noise,
        )  # fmt: skip
        law = fitted(runs)
        found = law.diagnostics["minima"]
        assert (found["p_value"] < 0.001) == fires
        assert any("IsoFLOP minima bend away" in text for text in law.warnings) == fires
        # (share - 1/2)^2 x 4 over log flops has this coefficient of its square.
        expected = 4 * bend / math.log(2.5**4) ** 2
        assert found["bend"] == pytest.approx(expected, abs=0.08)


@pytest.mark.parametrize(("factor", "side"), [(6.0, "smaller"), (1 / 6.0, "larger")])
def test_a_minimum_outside_the_grid_is_told_with_the_side_to_train(known, factor, side):
    runs = known.runs()
    params, tokens = runs.params * factor, runs.tokens / factor
    noise = np.exp(np.random.default_rng(0).normal(0, 0.002, 20))
    loss = known.loss(params, tokens) * noise
    law = fitted(dataclasses.replace(runs, params=params, tokens=tokens, loss=loss))
    end = "smallest" if side == "smaller" else "largest"
    warning = only(law.warnings, f"the least loss lies at the {end} size tested")
    assert warning.startswith("at 3e+11, 5.4e+11, 9.72e+11, 1.75e+12 FLOPs")
    assert f"train {side} sizes" in warning


def test_approaches_that_disagree_are_told_and_those_that_agree_are_not(known):
    # One exponent for size and data makes the best size grow as the root of compute.
    runs = dataclasses.replace(known, alpha=0.2, beta=0.5, A=20.0, B=900.0).runs(noise=0.002)
    warning = only(fitted(runs, "chinchilla_tied").warnings, "beyond their 95% intervals")
    assert "Approach 2 (Akima) has params ~ flops^0.7" in warning
    assert "Approach 3 (chinchilla_tied) has params ~ flops^0.5" in warning
    assert fitted(runs).warnings == []


def test_runs_tuned_badly_or_diverged_are_named_with_their_distance(known):
    runs = with_loss(known.runs(noise=0.003), _3=1.08, _11=1.3)
    warning = only(fitted(runs).warnings, "far above the law")
    assert warning.startswith("run-11 (by 30")
    assert "run-3 (by 8" in warning
    assert "--asymmetry" in warning


@pytest.mark.parametrize("row", [0, 4, 15, 19])
def test_a_run_that_pulls_the_law_to_itself_is_named_all_the_same(known, row):
    runs = with_loss(known.runs(noise=0.003), **{f"_{row}": 0.6})
    problem = problem_of(runs, LAWS["chinchilla"])
    free = np.ones(5, bool)
    ends = problem.solve(problem.starts()[::40], Penalty(math.inf))
    penalty = Penalty(0.004)
    ends = problem.solve(ends.theta, penalty)
    found = outliers(problem, ends.theta[ends.value.argmin()], penalty, free=free)
    assert found.rows.tolist() == [row]
    assert found.excess[0] == pytest.approx(math.log(0.6), abs=0.05)
    # What is left is the fit of the other runs.
    others = problem.rows(np.arange(20) != row)
    again = others.solve(np.concatenate([found.theta[None], ends.theta]), penalty)
    assert others.value(found.theta, penalty) <= again.value.min() * (1 + 1e-4)


def test_a_loss_below_the_floor_is_told_with_the_floor_of_the_other_runs(known):
    runs = known.runs(noise=0.003)
    loss = np.where(np.arange(20) == 19, 1.3, runs.loss)
    law = fitted(dataclasses.replace(runs, loss=loss))
    warning = only(
        law.warnings, "far below the law of the other runs, run-19 under the floor of 1."
    )
    assert "slip in the table" in warning


def test_an_exponent_that_hangs_on_how_parameters_are_counted_is_told_with_both(known):
    runs = known.runs(noise=0.003)
    without = runs.params - 100 * runs.params**0.4
    law = fitted(dataclasses.replace(runs, others={"params_non_embedding": without}))
    found = law.diagnostics["conventions"]
    other = dataclasses.replace(runs, params=without, flops=6 * without * runs.tokens)
    again = fit(other, starts=None, bootstrap=2)
    sizes = np.log(again.optimum(np.array([other.flops.min(), other.flops.max()])).params)
    slope = (sizes[1] - sizes[0]) / math.log(other.flops.max() / other.flops.min())
    assert found["params_non_embedding"]["exponent"] == pytest.approx(slope, abs=2e-3)
    warning = only(law.warnings, "counting params_non_embedding")
    assert f"{slope:.2f}" in warning
    same = fitted(dataclasses.replace(runs, others={"params_non_embedding": 0.8 * runs.params}))
    assert same.warnings == []


def test_a_plan_beyond_a_hundred_times_the_compute_of_the_runs_is_told(clean):
    law = clean[0]
    most = max(entry["flops"] for entry in law.diagnostics["residuals"])
    for times, fires in ((90, False), (110, True)):
        (target,) = plan(law, [times * most])["targets"]
        assert any("beyond 100 times" in text for text in target["warnings"]) == fires


def test_flops_of_another_count_are_told_where_the_plan_takes_6nd(known):
    runs = known.runs(noise=0.005)
    law = fitted(dataclasses.replace(runs, flops=runs.flops * 1.3))
    only(law.warnings, "1.3 to 1.3 times 6 * params * tokens")


def test_what_is_the_same_in_all_runs_is_told_of_a_law_without_it(known):
    tokens = np.geomspace(1e6, 1e8, 20)
    noise = np.exp(np.random.default_rng(1).normal(0, 0.003, 20))
    runs = Runs(
        run_id=tuple(f"run-{i}" for i in range(20)), params=np.full(20, 1e5), tokens=tokens,
        flops=6e5 * tokens, loss=known.loss(1e5, tokens) * noise,
    )  # fmt: skip
    law = fit(runs, "power_tokens_floor", bootstrap=BOOTSTRAP)
    only(law.warnings, "all 20 runs have params = 100000: this law says nothing of other sizes")


def test_few_series_of_checkpoints_are_told(known):
    for count, fires in ((8, True), (12, False)):
        params = np.repeat(np.geomspace(1.2e4, 3.6e5, count), 2)
        tokens = params * np.tile(np.geomspace(5, 80, 2), count)
        noise = np.random.default_rng(0).normal(0, 0.003, count).repeat(2)
        runs = Runs(
            run_id=tuple(f"row-{i}" for i in range(2 * count)), params=params, tokens=tokens,
            loss=known.loss(params, tokens) * np.exp(noise), flops=6 * params * tokens,
            series=tuple(f"run-{i // 2}" for i in range(2 * count)),
        )  # fmt: skip
        law = fitted(runs)
        assert law.bootstrap["kind"] == "series"
        told = any(text.startswith(f"{count} series of checkpoints") for text in law.warnings)
        assert told == fires
