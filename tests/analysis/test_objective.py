"""What is minimised, and which tables are refused before it."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.optimize

from scaling.analysis.fitted import FitError
from scaling.analysis.objective import check, check_count, delta_of, form_of, problem_of
from scaling.analysis.rules import LAWS
from scaling.analysis.solver import Penalty
from scaling.records import BadTable
from scaling.runs import Dropped


def test_a_law_is_found_by_its_name_and_an_unknown_one_is_refused_with_all():
    assert form_of("kaplan") is LAWS["kaplan"]
    with pytest.raises(FitError, match=r"'gravity' is unknown; use one of chinchilla, .*accuracy"):
        form_of("gravity")


def test_the_objective_is_the_sum_of_hubers_penalty_of_log_loss_less_log_predicted(known):
    runs = known.runs(noise=0.01)
    problem = problem_of(runs, LAWS["chinchilla"])
    theta = np.asarray(LAWS["chinchilla"].coordinates(known.values, problem.means))
    residuals = np.log(runs.loss) - np.log(known.loss(runs.params, runs.tokens))
    for delta in (0.002, math.inf):
        size = np.abs(residuals)
        each = np.where(size <= delta, size**2 / 2, np.inf)
        if math.isfinite(delta):
            each = np.where(size <= delta, each, delta * (size - delta / 2))
        assert problem.value(theta, Penalty(delta)) == pytest.approx(each.sum(), rel=1e-9)


def test_the_default_delta_is_the_one_at_which_a_mean_is_95_percent_efficient():
    rng = np.random.default_rng(0)
    sample = rng.normal(0, 0.02, (4000, 40))
    delta = delta_of(rng.normal(0, 0.02, 20_000), 20_000)
    assert delta == pytest.approx(1.345 * 0.02, rel=0.03)

    def centre(row):
        size = lambda m: np.abs(row - m)  # noqa: E731
        return scipy.optimize.minimize_scalar(
            lambda m: np.sum(np.where(size(m) <= delta, size(m) ** 2 / 2,
                                      delta * (size(m) - delta / 2))),
            bounds=(-0.02, 0.02), method="bounded",
        ).x  # fmt: skip

    robust = np.var([centre(row) for row in sample[:1000]])
    assert sample[:1000].mean(axis=1).var() / robust == pytest.approx(0.95, abs=0.03)


def test_delta_grows_with_the_parameters_spent_and_never_vanishes():
    residuals = np.linspace(-1, 1, 21)
    assert delta_of(residuals, 16) == pytest.approx(delta_of(residuals, 21) * math.sqrt(21 / 16))
    assert delta_of(np.zeros(9), 4) > 0


def test_fewer_runs_than_parameters_and_one_are_refused_and_those_left_out_are_counted(known):
    runs = known.runs().where(np.arange(20) < 5)
    form = LAWS["chinchilla"]
    with pytest.raises(FitError, match=r"5 runs cannot determine the 5 .* give at least 6"):
        check_count(runs, form, 5)
    check_count(runs, form, 4)
    short = dataclasses.replace(runs, dropped=(Dropped("a", "diverged"), Dropped("b", "failed")))
    with pytest.raises(FitError, match=r"5 runs \(2 were dropped\)"):
        check_count(short, form, 5)


@pytest.mark.parametrize(
    ("law", "change", "message"),
    [
        ("chinchilla", lambda runs: {"params": np.full(20, 5e4)}, "params = 50000; .*three"),
        ("chinchilla", lambda runs: {"tokens": 20 * runs.params}, "20 tokens per parameter"),
        ("power_flops", lambda runs: {"params": np.full(20, 5e4)},
         "params = 50000; a law of compute needs sizes .* or use a law of tokens"),
        ("over_training", lambda runs: {"tokens": runs.params**1.5, "flops": runs.params**3},
         "tokens_per_parameter rise together in all 20 runs"),
        ("power_tokens", lambda runs: {"loss": np.full(20, 3.0)}, "loss 3; .* varies"),
    ],
)  # fmt: skip
def test_tables_that_cannot_tell_the_parts_of_a_law_apart_are_refused(known, law, change, message):
    runs = known.runs(noise=0.005)
    changed = dataclasses.replace(runs, **change(runs))
    check(runs, problem_of(runs, LAWS[law]))
    with pytest.raises(FitError, match=message):
        check(changed, problem_of(changed, LAWS[law]))


def test_two_values_are_enough_where_the_law_shares_its_parameters(known):
    runs = known.runs(noise=0.005)
    tokens = runs.params * np.where(np.arange(20) % 3, 20.0, 320.0)
    two = dataclasses.replace(runs, tokens=tokens, flops=6 * runs.params * tokens)
    check(two, problem_of(two, LAWS["over_training"]))
    one = dataclasses.replace(two, tokens=20 * two.params, flops=120 * two.params**2)
    with pytest.raises(FitError, match=r"all 20 runs have tokens_per_parameter = 20; .*three"):
        check(one, problem_of(one, LAWS["over_training"]))
    sizes = dataclasses.replace(runs, params=np.where(np.arange(20) % 3, 5e4, 1e5))
    with pytest.raises(FitError, match=r"params = 50000 and 100000; .*three"):
        check(sizes, problem_of(sizes, LAWS["chinchilla"]))


def test_columns_that_are_not_there_or_have_no_logarithm_are_refused(known):
    runs = known.runs()
    with pytest.raises(BadTable, match="no column width"):
        problem_of(runs, LAWS["width_depth"])
    with pytest.raises(BadTable, match="loss is 0 in run-3; a law takes its logarithm"):
        problem_of(
            dataclasses.replace(runs, loss=np.where(np.arange(20) == 3, 0.0, runs.loss)),
            LAWS["chinchilla"],
        )
