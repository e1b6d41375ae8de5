import dataclasses
import itertools
import json

import numpy as np
import pytest

from scaling.analysis.design import Cells, choose, describe, grid_of, next_runs
from scaling.analysis.devices import PlanError
from scaling.analysis.fit import fit
from scaling.analysis.shapes import on_the_ladder
from scaling.files import encode
from scaling.runs import Runs

NOISE = 0.005


@pytest.fixture(scope="module")
def law(known):
    return fit(known.runs(noise=NOISE, seed=3), bootstrap=200)


@pytest.fixture(scope="module")
def target(known):
    best = known.optimum(100 * known.budgets[-1])
    return {"params": best.params, "tokens": best.tokens}


def cells_of(law, known, count=12, seed=0):
    rng = np.random.default_rng(seed)
    params = 10 ** rng.uniform(3.5, 6, count)
    tokens = 10 ** rng.uniform(5.5, 7, count)
    return Cells(params=params, tokens=tokens, cost=6 * params * tokens)


def derivatives(values, params, tokens):
    """Of the log loss by E, A, B, alpha, beta, in this order, by hand."""
    E, A, B, alpha, beta = values
    size, data = A * params**-alpha, B * tokens**-beta
    columns = [np.ones_like(params), size / A, data / B,
               -size * np.log(params), -data * np.log(tokens)]  # fmt: skip
    return np.stack(columns, axis=-1) / (E + size + data)[..., None]


def variance(law, params, tokens, target):
    """Of the log prediction at a target from runs, by the law's own parameters."""
    J = derivatives(law.values, params, tokens)
    g = derivatives(law.values, np.array(target["params"]), np.array(target["tokens"]))
    scale = np.abs(law.values)
    J, g = J * scale, g * scale
    return law.diagnostics["residual_sd"] ** 2 * g @ np.linalg.solve(J.T @ J, g)


def test_the_variance_is_that_of_the_delta_method_in_the_laws_own_parameters(law, known, target):
    runs, cells = known.runs(), cells_of(law, known)
    design = choose(law, cells, budget=3e12, draws=1, **target)
    assert design.before == pytest.approx(variance(law, runs.params, runs.tokens, target), rel=1e-4)
    params = np.concatenate([runs.params, np.repeat(cells.params, design.counts)])
    tokens = np.concatenate([runs.tokens, np.repeat(cells.tokens, design.counts)])
    assert design.after == pytest.approx(variance(law, params, tokens, target), rel=1e-4)
    assert design.counts @ cells.cost <= 3e12
    assert design.after < 0.5 * design.before


def test_before_new_runs_it_is_the_spread_of_the_bootstrap_near_the_runs(law, known):
    """Another route to the same number, where the law is nearly linear."""
    best = known.optimum(2 * known.budgets[-1])
    design = choose(
        law, cells_of(law, known), budget=1e12, params=best.params, tokens=best.tokens, draws=1
    )
    spread = np.log(law.predict_samples(best.params, best.tokens)).std()
    assert np.sqrt(design.before) == pytest.approx(spread, rel=0.15)


@pytest.mark.parametrize("criterion", ["variance", "determinant"])
def test_greedy_with_exchange_comes_within_a_tenth_of_every_choice(law, known, target, criterion):
    cells = cells_of(law, known, count=9, seed=5)
    cells = dataclasses.replace(cells, cost=np.ones(9))
    runs = known.runs()
    design = choose(law, cells, budget=3.0, criterion=criterion, draws=1, **target)
    assert design.counts.sum() == 3

    def value(chosen):
        params = np.append(runs.params, cells.params[list(chosen)])
        tokens = np.append(runs.tokens, cells.tokens[list(chosen)])
        if criterion == "variance":
            return np.log(variance(law, params, tokens, target))
        J = derivatives(law.values, params, tokens) * np.abs(law.values)
        return -np.linalg.slogdet(J.T @ J)[1]

    values = [value(c) for c in itertools.combinations_with_replacement(range(9), 3)]
    found = value(np.repeat(np.arange(9), design.counts))
    assert found <= min(values) + 0.1
    assert found < np.quantile(values, 0.02)


def test_more_money_never_makes_the_prediction_less_sure(law, known, target):
    cells = grid_of(law, least_flops=3e11, most_flops=2e13)
    afters = [choose(law, cells, budget=b, **target).after for b in (1e12, 1e13, 1e14)]
    assert afters == sorted(afters, reverse=True)


def test_the_interval_that_is_promised_is_what_new_runs_give(law, known, target):
    cells = grid_of(law, least_flops=3e11, most_flops=5e13)
    design = choose(law, cells, budget=1e14, **target)
    told = describe(law, cells, design, **target)
    assert json.loads(encode(told)) == told
    assert sum(cell["runs"] * cell["cost"] for cell in told["cells"]) == pytest.approx(told["cost"])
    assert told["cost"] <= 1e14
    runs, rng = known.runs(noise=NOISE, seed=3), np.random.default_rng(1)
    params = np.concatenate([runs.params, np.repeat(cells.params, design.counts)])
    tokens = np.concatenate([runs.tokens, np.repeat(cells.tokens, design.counts)])
    more = known.loss(params, tokens) * np.exp(rng.normal(0, NOISE, len(params)))
    more[: len(runs)] = runs.loss
    again = fit(
        Runs(run_id=tuple(f"run-{i}" for i in range(len(params))), params=params, tokens=tokens,
             loss=more, flops=6 * params * tokens), bootstrap=400, intervals="residual",
    )  # fmt: skip
    low, high = np.quantile(again.predict_samples(**target), (0.05, 0.95))
    promised, now = (np.log(np.divide(*told[key]["interval_90"][::-1])) for key in
                     ("expected", "now"))  # fmt: skip
    assert np.log(high / low) == pytest.approx(promised, rel=0.4)
    assert promised < 0.6 * now
    one = told["expected"]["interval_90_of_a_run"]
    assert one[0] < told["expected"]["interval_90"][0]


def test_a_grid_of_cells_surrounds_the_optimum(law):
    cells = grid_of(law, least_flops=1e12, most_flops=1e14, budgets=3, sizes=5, reach=4.0)
    assert len(cells) == 15
    np.testing.assert_allclose(6 * cells.params * cells.tokens, cells.cost)
    middle = cells.params.reshape(3, 5)[:, 2]
    np.testing.assert_allclose(middle, law.optimum(np.array([1e12, 1e13, 1e14])).params, rtol=1e-6)


def test_cells_that_cannot_be_paid_for_are_refused_with_the_numbers(law, known, target):
    cells = cells_of(law, known)
    with pytest.raises(
        PlanError, match=r"the cheapest cell costs .* and the budget is 1; give more"
    ):
        choose(law, cells, budget=1.0, **target)
    with pytest.raises(PlanError, match="costs that are not positive"):
        choose(law, dataclasses.replace(cells, cost=-cells.cost), budget=1.0, **target)
    with pytest.raises(PlanError, match="budget for the next runs is nan"):
        choose(law, cells, budget=float("nan"), **target)


def test_a_cap_on_the_number_of_runs_holds(law, known, target):
    cells = grid_of(law, least_flops=3e11, most_flops=2e13)
    design = choose(law, cells, budget=1e14, most_runs=4, **target)
    assert design.counts.sum() == 4


def test_a_cap_on_repeats_spreads_the_money_and_costs_some_certainty(law, known, target):
    cells = grid_of(law, least_flops=3e11, most_flops=2e13)
    free = choose(law, cells, budget=3e13, **target)
    capped = choose(law, cells, budget=3e13, most_repeats=2, **target)
    assert free.counts.max() > 2
    assert capped.counts.max() == 2
    assert free.after < capped.after < free.before


def test_the_next_runs_can_be_built_and_paid_for(law, target):
    shapes = on_the_ladder(vocabulary=64)
    told = next_runs(law, flops=1e13, shape_for=shapes, **target)
    assert json.loads(encode(told)) == told
    assert 0.5e13 < told["cost"] <= 1e13 * (1 + 1e-9)
    for cell in told["cells"]:
        shape = shapes(cell["params"], cell["overrides"]["budget.flops"])
        assert (cell["params"], cell["tokens"]) == (shape.params, shape.tokens)
        assert cell["runs"] <= 3
    assert told["criterion"] == "variance"
    now, expected = (told[key]["interval_90"] for key in ("now", "expected"))
    assert now[0] < expected[0] < told["target"]["loss"] < expected[1] < now[1]


def test_no_next_run_has_more_tokens_than_the_data(law, target):
    free = next_runs(law, flops=1e13, **target)
    most = max(cell["tokens"] for cell in free["cells"]) / 2
    told = next_runs(law, flops=1e13, most_tokens=most, **target)
    assert max(cell["tokens"] for cell in told["cells"]) <= most
    assert told["expected"]["interval_90"][0] < free["expected"]["interval_90"][0]
    with pytest.raises(PlanError, match="more than the 10 tokens that the data has"):
        next_runs(law, flops=1e13, most_tokens=10.0, **target)
