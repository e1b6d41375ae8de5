"""Where a table is cut, and how wrong a law fitted below is about the rest: each by hand."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.optimize

from scaling.analysis.fit import fit
from scaling.analysis.fitted import FitError
from scaling.analysis.holdout import budgets_of, cuts_of, try_law, weights_of
from scaling.analysis.objective import problem_of
from scaling.analysis.rules import LAWS
from scaling.runs import Runs

LAW = "chinchilla_tied"
TIED = {"E": 1.6, "A": 60.0, "B": 200.0, "alpha": 0.35}


def tied(params, tokens, *, noise=0.003, seed=0, series=None):
    """Runs of a law of one exponent."""
    rng = np.random.default_rng(seed)
    loss = TIED["E"] + TIED["A"] / params**0.35 + TIED["B"] / tokens**0.35
    return Runs(
        run_id=tuple(f"run-{i}" for i in range(len(params))),
        params=params,
        tokens=tokens,
        loss=loss * np.exp(rng.normal(0, noise, len(params))),
        flops=6 * params * tokens,
        series=series,
    )


def grid(*, budgets=6, sizes=5, **options):
    """A sweep of budgets, each of sizes over a factor of 16."""
    flops = np.repeat(3e11 * 1.8 ** np.arange(budgets), sizes)
    params = np.sqrt(flops / 120) * np.tile(np.geomspace(1 / 4, 4, sizes), budgets)
    return tied(params, flops / 6 / params, **options)


def scattered(*, rows=30, **options):
    """Runs of any size and length."""
    rng = np.random.default_rng(7)
    return tied(
        np.exp(rng.uniform(np.log(1e4), np.log(1e6), rows)),
        np.exp(rng.uniform(np.log(1e5), np.log(1e8), rows)),
        **options,
    )


@pytest.fixture(scope="module")
def tried():
    """A law tried on a grid, with the runs, the cuts, the weights."""
    runs = grid()
    cuts = cuts_of(runs)
    weights = weights_of(runs, 30, 0)
    problem = problem_of(runs, LAWS[LAW])
    return runs, cuts, weights, try_law(problem, cuts, weights, delta=None, asymmetry=1.0)


def test_a_sweep_of_budgets_is_cut_below_each_of_its_largest():
    runs = grid()
    steps = 3e11 * 1.8 ** np.arange(6)
    np.testing.assert_allclose(budgets_of(runs), np.stack([steps, steps], axis=1))
    found = cuts_of(runs)
    assert [cut.n_train for cut in found.cuts] == [25, 20, 15, 10]
    assert [cut.n_test for cut in found.cuts] == [5, 10, 15, 20]
    for cut, train, test in zip(found.cuts, found.train[0], found.test, strict=True):
        np.testing.assert_array_equal(train, runs.flops <= cut.flops)
        np.testing.assert_array_equal(test, runs.flops > cut.flops)
        assert cut.factor == pytest.approx(runs.flops.max() / runs.flops[train].max())
    # Without the first four budgets fewer than ten runs would be left below any cut.
    np.testing.assert_allclose(found.early, steps[1:4], rtol=1e-12)
    for least, way in zip(found.early, found.train[1:], strict=True):
        for whole, late in zip(found.train[0], way, strict=True):
            spared = whole & (runs.flops >= least)
            expected = spared if spared.sum() >= 10 else whole
            np.testing.assert_array_equal(late, expected)


def test_runs_of_no_budgets_are_cut_at_halves_of_the_largest_compute():
    runs = scattered()
    assert budgets_of(runs) is None
    expected, end = [], runs.flops.max()
    while len(expected) < 4 and (end := end / 2) > runs.flops.min():
        train = int((runs.flops <= end).sum())
        new = not expected or train != expected[-1]
        if train >= 10 and len(runs) - train >= 3 and new:
            expected.append(train)
    assert [cut.n_train for cut in cuts_of(runs).cuts] == expected
    assert len(expected) == 4


def test_too_few_runs_are_not_cut_and_cuts_that_leave_nothing_are_refused():
    assert cuts_of(grid(budgets=2)).cuts == ()
    assert cuts_of(scattered(rows=10)).cuts == ()
    runs = grid()
    assert [cut.n_train for cut in cuts_of(runs, [4e11, 2e12]).cuts] == [20, 5]
    for end, left in ((1e10, 0), (1e20, 30)):
        with pytest.raises(FitError, match=f"leaves {left} of 30 runs to fit; the runs have 3e"):
            cuts_of(runs, [end])


def test_resamples_weigh_whole_series_by_exponential_weights():
    names = tuple("abcdef"[i // 5] for i in range(30))
    weights = weights_of(dataclasses.replace(grid(), series=names), 4000, 0)
    each = weights.reshape(4000, 6, 5)
    np.testing.assert_array_equal(each, np.broadcast_to(each[:, :, :1], each.shape))
    assert (weights > 0).all()
    np.testing.assert_allclose(each[:, :, 0].mean(axis=0), 1, atol=0.06)
    np.testing.assert_allclose(each[:, :, 0].std(axis=0), 1, atol=0.08)
    assert len(np.unique(weights_of(grid(), 1, 0))) == 30


def test_the_error_at_a_cut_is_that_of_the_law_fitted_to_the_runs_below_it(tried):
    runs, cuts, _, found = tried
    for at in (0, 3):
        below = runs.flops <= cuts.cuts[at].flops
        law = fit(runs.where(below), LAW, bootstrap=2)
        left = np.log(runs.loss / law.predict(runs.params, runs.tokens))
        rms = math.sqrt(np.mean(left[~below] ** 2))
        assert math.exp(found.whole.log_rms[at]) == pytest.approx(rms, rel=2e-3)
        np.testing.assert_allclose(found.whole.residuals[at], left, atol=2e-6)
    assert found.whole.converged
    assert found.whole.log_score == pytest.approx(found.whole.log_rms.mean())


def test_a_resample_weighs_runs_in_the_fit_and_in_the_error(tried):
    runs, cuts, weights, found = tried
    at, sample = 1, 3
    train, test = cuts.train[0, at], cuts.test[at]
    law = fit(runs.where(train), LAW, bootstrap=2)
    delta = law.objective["delta"]

    def left(x):
        terms = [
            np.full(30, x[0]),
            x[1] - x[3] * np.log(runs.params / 1e5),
            x[2] - x[3] * np.log(runs.tokens / 1e6),
        ]
        return np.log(runs.loss) - np.logaddexp.reduce(terms, axis=0)

    def objective(x):
        size = np.abs(left(x))
        huber = np.where(size <= delta, size**2 / 2, delta * (size - delta / 2))
        return 1e6 * float(np.sum(weights[sample] * train * huber))

    e, a, b, alpha = law.values
    start = [math.log(e), math.log(a / 1e5**alpha), math.log(b / 1e6**alpha), alpha]
    least = start
    for _ in range(3):
        least = scipy.optimize.minimize(
            objective, least, method="Nelder-Mead",
            options={"xatol": 1e-8, "fatol": 1e-10, "maxiter": 4000, "maxfev": 4000},
        ).x  # fmt: skip
    squares = np.average(left(least)[test] ** 2, weights=weights[sample][test])
    assert found.whole.resampled[sample, at] == pytest.approx(0.5 * math.log(squares), abs=1e-3)


def test_early_runs_that_spoil_a_law_are_left_out_and_sound_ones_are_not(tried):
    runs, cuts, weights, sound = tried
    assert sound.taken is sound.whole
    loss = np.where(runs.flops < 5e11, 0.93 * runs.loss, runs.loss)
    problem = problem_of(dataclasses.replace(runs, loss=loss), LAWS[LAW])
    found = try_law(problem, cuts, weights, delta=None, asymmetry=1.0)
    assert found.taken.way == 1
    assert cuts.early[0] == pytest.approx(5.4e11)
    assert math.exp(found.taken.log_score) < 0.5 * math.exp(found.whole.log_score)
    # At the last cut only ten runs are left: there nothing could be spared.
    np.testing.assert_allclose(found.taken.residuals[3], found.whole.residuals[3], atol=1e-7)


def test_a_prediction_that_fails_counts_as_wrong_by_e_to_the_5(tried):
    runs, cuts, weights, _ = tried
    problem = problem_of(runs, LAWS[LAW])
    far = dataclasses.replace(problem, target=problem.target + 10.0 * cuts.test[0])
    found = try_law(far, cuts, weights[:2], delta=1.0, asymmetry=1.0)
    assert found.whole.log_rms[0] == pytest.approx(math.log(5.0))
