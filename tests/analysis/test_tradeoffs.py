import dataclasses

import numpy as np
import pytest

from scaling.analysis.budget import Budget, budget_of
from scaling.analysis.fit import fit
from scaling.analysis.tradeoffs import compare


@pytest.fixture(scope="module")
def law(known):
    return fit(known.runs(noise=0.005), bootstrap=200)


def named(found):
    return {option["name"]: option for option in found["options"]}


def test_the_changes_are_those_of_the_law_and_the_time_buys_the_best_split(law, known):
    best = known.optimum(1e12)
    found = compare(law, best.params, best.tokens)
    options = named(found)
    base = law.predict(best.params, best.tokens)
    assert found["base"]["loss"] == pytest.approx(float(base))
    for name, (params, tokens) in {
        "2x the parameters": (2, 1), "2x the tokens": (1, 2)
    }.items():  # fmt: skip
        change = law.predict(params * best.params, tokens * best.tokens) - base
        assert options[name]["change"]["value"] == pytest.approx(float(change))
        assert options[name]["flops"] == pytest.approx(2 * found["base"]["flops"])
    time = options["2x the time"]
    assert time["loss"] == pytest.approx(float(law.optimum(2e12).loss))
    assert time["change"]["value"] <= min(o["change"]["value"] for o in options.values())
    assert sum(option["best_in_samples"] for option in options.values()) == pytest.approx(1)
    assert "2x the chips" not in options


def test_the_intervals_are_paired(law, known):
    """What the samples disagree on in both losses alike drops out of their difference."""
    best = known.optimum(1e12)
    option = named(compare(law, best.params, best.tokens))["2x the tokens"]
    before = law.predict_samples(best.params, best.tokens)
    after = law.predict_samples(best.params, 2 * best.tokens)
    low, high = option["change"]["interval_90"]
    assert [low, high] == pytest.approx(np.quantile(after - before, (0.05, 0.95)))
    apart = np.quantile(after, 0.95) - np.quantile(before, 0.05) - (
        np.quantile(after, 0.05) - np.quantile(before, 0.95)
    )  # fmt: skip
    assert high - low < 0.5 * apart
    assert low < option["change"]["value"] < high < 0


def test_a_starved_model_gains_most_from_tokens_and_a_small_one_from_parameters(law, known):
    best = known.optimum(1e12)
    for share, better, worse in (
        (8, "2x the tokens", "2x the parameters"), (1 / 8, "2x the parameters", "2x the tokens")
    ):  # fmt: skip
        options = named(compare(law, share * best.params, best.tokens / share))
        assert options[better]["change"]["value"] < options[worse]["change"]["value"]


def test_past_the_critical_batch_twice_the_chips_bring_less_than_twice_the_time(law):
    budget = budget_of(
        chips=64, peak_flops=1e11, utilization=0.3, tokens_per_chip=1000, critical_batch=2e4,
        hours=1.0,
    )  # fmt: skip
    found = compare(law, 1e5, 1e8, budget=budget)
    options = named(found)
    assert found["base"]["batch_tokens"] == 64_000
    hours = found["base"]["hours"]
    assert hours == pytest.approx(6 * 1e5 * 1e8 / (64 * 1e11 * 0.3) / 3600)
    for name in ("2x the parameters", "2x the tokens", "2x the time"):
        assert options[name]["hours"] == pytest.approx(2 * hours, rel=1e-6)
    assert options["2x the chips"]["hours"] == pytest.approx(hours, rel=1e-6)
    time, chips = (options[f"2x the {what}"]["loss"] for what in ("time", "chips"))
    assert time < chips


def test_options_beyond_the_limits_are_marked(law):
    limits = Budget(params_high=1.5e5, unique_tokens=3e8)
    found = compare(law, 1e5, 2e8, budget=limits)
    kept = {option["name"]: option["within_limits"] for option in found["options"]}
    assert kept == {"2x the parameters": False, "2x the tokens": False, "2x the time": True}
    wide = named(compare(law, 1e5, 2e8, budget=dataclasses.replace(limits, params_high=1e9)))
    assert wide["2x the parameters"]["within_limits"]


@pytest.mark.parametrize("machine", [False, True])
def test_twice_the_time_of_a_model_that_answers_is_twice_that_of_its_life(law, known, machine):
    best, answers = known.optimum(1e12), 1e9
    made = {"chips": 4, "peak_flops": 1e12, "utilization": 0.4} if machine else {}
    budget = budget_of(inference_tokens=answers, **made)
    found = compare(law, best.params, best.tokens, budget=budget)

    def life(run):
        return run["flops"] + 2 * run["params"] * answers

    time = named(found)["2x the time"]
    assert life(time) == pytest.approx(2 * life(found["base"]), rel=0.01)
    free = named(compare(law, best.params, best.tokens))["2x the time"]
    assert time["tokens"] / time["params"] > 1.2 * free["tokens"] / free["params"]
