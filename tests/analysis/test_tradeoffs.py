import dataclasses

import numpy as np
import pytest

from scaling.analysis.budget import Budget, budget_of
from scaling.analysis.fit import fit
from scaling.analysis.plan import plan
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
    assert time["flops_lifetime"] == pytest.approx(life(time))
    free = named(compare(law, best.params, best.tokens))["2x the time"]
    assert time["tokens"] / time["params"] > 1.2 * free["tokens"] / free["params"]
    assert free["flops_lifetime"] == free["flops"]


MADE = {"chips": 4, "peak_flops": 1e11, "utilization": 0.4, "critical_batch": 1e9,
        "tokens_per_chip": 16}  # fmt: skip
LONG = 1e4
"""Hours that limit nothing."""


@pytest.mark.parametrize(
    "limits",
    [
        {"flops": 2e13},
        {"hours": 0.01},
        {"hours": 0.01, "lifetime_hours": LONG},
        {"hours": 0.01, "flops": 1e20},
        {"hours": LONG, "flops": 2e13, "serving_utilization": 0.02},
        {"lifetime_hours": 0.1, "serving_utilization": 0.02},
        {"loss": 1e12, "serving_utilization": 0.02},
    ],
)
def test_no_row_has_more_than_twice_of_what_limits_the_plan(law, limits):
    """Cheap training could else take what was meant for answers that cost much, or the reverse."""
    limits = dict(limits)
    flops, loss = limits.pop("flops", None), limits.pop("loss", None)
    budget = budget_of(**MADE, **limits, inference_tokens=1e9)
    losses = [] if loss is None else [float(law.optimum(loss).loss)]
    made = plan(law, [] if flops is None else [flops], budget=budget, losses=losses, by="flops")
    base, options = made["comparison"]["base"], named(made["comparison"])
    asked = {"flops_lifetime": base["flops_lifetime"] if losses else flops,
             "hours": budget.hours, "hours_lifetime": budget.lifetime_hours}  # fmt: skip
    for name, row in options.items():
        times = {"flops_lifetime": 2, "hours": 1, "hours_lifetime": 1}
        for what, limit in asked.items():
            more = 2 if "chips" not in name else times[what]
            if limit is not None:
                assert row[what] <= more * limit * (1 + 1e-6), (name, what)
    # And all of one of them is used.
    time = options["2x the time"]
    assert max(
        time[what] / (2 * limit) for what, limit in asked.items() if limit is not None
    ) == pytest.approx(1, rel=0.06)


def test_answers_that_no_limit_counts_leave_the_rows_as_they_are_without(law):
    budget = budget_of(**MADE, hours=0.01)
    answers = dataclasses.replace(budget, inference_tokens=1e9)
    rows = [plan(law, budget=one)["comparison"]["options"] for one in (budget, answers)]
    for free, with_answers in zip(*rows, strict=True):
        assert with_answers["params"] == pytest.approx(free["params"], rel=1e-3)
        assert with_answers["hours"] == pytest.approx(free["hours"], rel=1e-6)
        assert with_answers["best_in_samples"] == free["best_in_samples"]
        assert with_answers["hours_lifetime"] > free["hours_lifetime"] == free["hours"]


def test_what_is_beyond_the_limits_is_never_the_best(law):
    kept = Budget(unique_tokens=2e8)
    options = named(compare(law, 1e5, 2e8, budget=kept))
    assert options["2x the tokens"]["within_limits"] is False
    assert options["2x the tokens"]["best_in_samples"] is None
    shares = [o["best_in_samples"] for o in options.values() if o["within_limits"]]
    assert sum(shares) == pytest.approx(1)
