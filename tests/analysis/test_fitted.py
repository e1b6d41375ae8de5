import json

import numpy as np
import pytest

from scaling.analysis.fit import fit
from scaling.analysis.fitted import FitError, Law, optimum
from scaling.analysis.laws import CHINCHILLA
from scaling.analysis.rules import LAWS
from scaling.files import encode


def test_the_optimum_is_that_of_the_published_closed_form(known):
    flops = np.geomspace(1e11, 1e25, 8)
    best = optimum(CHINCHILLA, known.values, flops)
    for found, one in zip(zip(*best, strict=True), map(known.optimum, flops), strict=True):
        np.testing.assert_allclose(found, one, rtol=1e-6)
    np.testing.assert_allclose(6 * best.params * best.tokens, flops, rtol=1e-12)


def test_a_law_whose_loss_falls_to_the_end_of_every_search_has_no_optimum():
    form, values = LAWS["power_params"], np.array([10.0, 0.1])
    assert np.isnan(optimum(form, values, np.array([1e20])).params).all()


def test_a_law_of_shape_has_no_compute_optimum():
    with pytest.raises(FitError, match="width_depth is a law of width, depth, tokens"):
        optimum(LAWS["width_depth"], np.ones(7), np.array([1e20]))


def test_an_input_that_is_not_given_is_named(known):
    law = fit(known.runs(noise=0.005), bootstrap=20)
    with pytest.raises(FitError, match="from params, tokens; tokens was not given: pass tokens="):
        law.predict(1e5)


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


def test_numbers_that_no_law_takes_are_refused_with_their_name(known):
    law = fit(known.runs(noise=0.005), bootstrap=20)
    for call, text in (
        (lambda: law.predict(-1, 1e9), "params is -1"),
        (lambda: law.predict(1e6, [1e9, 0]), "tokens is 0"),
        (lambda: law.predict(1e6, float("nan")), "tokens is nan"),
        (lambda: law.optimum(-1), "flops is -1"),
        (lambda: law.predict_interval(1e6, 1e9, level=80), "level is 80; give a share"),
        (lambda: law.frontier(level=0), "level is 0"),
    ):
        with pytest.raises(FitError, match=text):
            call()
