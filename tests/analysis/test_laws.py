import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from scaling.analysis.fit import fit
from scaling.analysis.laws import LAWS, Centre, FitError, Law
from scaling.files import encode

CENTRE = Centre(log_params=11.0, log_tokens=14.0)


@pytest.mark.parametrize("form", LAWS.values(), ids=LAWS.keys())
def test_solver_coordinates_and_natural_parameters_give_one_loss(form):
    rng = np.random.default_rng(0)
    theta = rng.uniform(np.maximum(form.lower, -2), np.minimum(form.upper, 2))
    u, v = rng.normal(size=(2, 7))
    with jax.enable_x64(True):
        solver = np.exp(np.asarray(form.log_loss(jnp.array(theta), jnp.array(u), jnp.array(v))))
    natural = form.loss(
        form.natural(theta, CENTRE), np.exp(u + CENTRE.log_params), np.exp(v + CENTRE.log_tokens)
    )
    np.testing.assert_allclose(solver, natural, rtol=1e-12)


@pytest.mark.parametrize("form", LAWS.values(), ids=LAWS.keys())
def test_optimum_is_the_minimum_that_a_search_along_the_budget_finds(form, known):
    for flops in (1e11, 1e15, 1e21):
        best = form.optimum(known.values, np.array(flops))
        found = scipy.optimize.minimize_scalar(
            lambda x, flops=flops: form.loss(known.values, np.exp(x), flops / 6 / np.exp(x)),
            bounds=(np.log(best.params) - 3, np.log(best.params) + 3),
            method="bounded",
            options={"xatol": 1e-10},
        )
        assert found.fun == pytest.approx(best.loss, rel=1e-12)
        assert np.exp(found.x) == pytest.approx(best.params, rel=1e-4)
        assert 6 * best.params * best.tokens == pytest.approx(flops, rel=1e-12)


@pytest.mark.parametrize("form", LAWS.values(), ids=LAWS.keys())
def test_every_start_lies_within_the_bounds(form, known):
    runs = known.runs(noise=0.005)
    u, v = np.log(runs.params), np.log(runs.tokens)
    starts = form.starts(u - u.mean(), v - v.mean(), np.log(runs.loss))
    assert starts.shape[1] == len(form.parameters) == len(form.lower) == len(form.upper)
    assert np.all(starts > form.lower)
    assert np.all(starts < form.upper)


def test_prediction_agrees_with_the_equation_that_the_law_states(known):
    law = fit(known.runs(noise=0.005), bootstrap=50)
    params, tokens = 1e5, 1e7
    equation = law.form.equation.removeprefix("L = ").replace("^", "**")
    by_text = eval(equation, {}, dict(law.params) | {"params": params, "tokens": tokens})
    assert law.predict(params, tokens) == pytest.approx(by_text, rel=1e-12)


def test_a_law_survives_its_json_with_the_same_bytes_and_predictions(known):
    law = fit(known.runs(noise=0.005), bootstrap=50)
    again = Law.from_json(json.loads(encode(law.to_json())) | {"field_of_the_future": 1})
    assert encode(again.to_json()) == encode(law.to_json())
    assert again.sha256 == law.sha256
    first, second = law.predict_interval(1e5, 1e7), again.predict_interval(1e5, 1e7)
    assert (first.low, first.high) == (second.low, second.high)


def test_prediction_intervals_take_arrays_and_nest_by_level(known):
    law = fit(known.runs(noise=0.005), bootstrap=200)
    params, tokens = np.array([3e4, 1e5, 3e5]), np.array([[1e6], [1e7]])
    wide = law.predict_interval(params, tokens, level=0.95)
    narrow = law.predict_interval(params, tokens, level=0.5)
    middle = law.predict(params, tokens)
    assert wide.low.shape == (2, 3)
    assert np.all(wide.low < narrow.low)
    assert np.all(narrow.low < middle)
    assert np.all(middle < narrow.high)
    assert np.all(narrow.high < wide.high)
    one = law.predict_interval(params[1], tokens[1, 0], level=0.95)
    assert one.low == pytest.approx(wide.low[1, 1], rel=1e-12)


@pytest.mark.parametrize(
    ("change", "text"),
    [({"schema": 2}, "schema 2"), ({"law": "kepler"}, "'kepler'"), ({"bootstrap": None}, "")],
)
def test_a_foreign_law_file_is_refused_with_the_remedy(known, change, text):
    obj = fit(known.runs(noise=0.005), bootstrap=50).to_json() | change
    if not text:
        del obj["bootstrap"]
        text = "lacks bootstrap"
    with pytest.raises(FitError, match=f"{text}.*scaling fit RUNS"):
        Law.from_json(obj)


@pytest.mark.parametrize(
    "damage",
    [
        lambda obj: [obj],
        lambda obj: obj | {"params": {}},
        lambda obj: obj | {"params": obj["params"] | {"E": "2"}},
        lambda obj: obj | {"params": obj["params"] | {"E": -1.0}},
        lambda obj: obj | {"bootstrap": obj["bootstrap"] | {"samples": {}}},
        lambda obj: obj | {"bootstrap": obj["bootstrap"] | {"residual_sd": [0.1]}},
        lambda obj: obj | {"diagnostics": obj["diagnostics"] | {"residuals": []}},
        lambda obj: obj | {"diagnostics": []},
    ],
)
def test_a_damaged_law_is_refused_with_the_remedy(known, damage) -> None:
    obj = fit(known.runs(noise=0.003), bootstrap=100).to_json()
    with pytest.raises(FitError, match="make one with: scaling fit RUNS"):
        Law.from_json(damage(obj))
