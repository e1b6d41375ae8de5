"""The law that made the runs is chosen, early runs that belong to no law are left out, and the
errors of the scores are about right."""

import math

import numpy as np
import pytest

from scaling.analysis import compare as compare_
from scaling.analysis.compare import compare
from scaling.analysis.fit import fit
from scaling.analysis.fitted import FitError, Law
from scaling.analysis.rules import LAWS
from scaling.runs import Runs

TRIED = ("chinchilla", "chinchilla_tied", "kaplan", "power_flops_floor")
TRUTHS = {
    "chinchilla": (1.8, 120.0, 9000.0, 0.25, 0.45),
    "chinchilla_tied": (1.8, 480.0, 1900.0, 0.36),
    "kaplan": tuple(LAWS["kaplan"].published["Kaplan et al. 2020"].values()),
    "power_flops_floor": (1.8, 2000.0, 0.19),
}
NOISE = 0.002


def table(law, *, seed=0, early=0.0):
    """30 runs in 5 budgets of 6 sizes by a law; those of a law of compute alone all have 20 tokens
    per parameter. `early` is by how much the losses of the least budget are too low."""
    rng = np.random.default_rng([seed, len(law)])
    if law == "power_flops_floor":
        flops = np.geomspace(3e17, 1e19, 30)
        params = np.sqrt(flops / 120)
    else:
        flops = np.repeat(3e17 * 2.0 ** np.arange(5), 6)
        params = np.sqrt(flops / 120) * np.tile(np.geomspace(1 / 5, 5, 6), 5)
    columns = {"params": params, "tokens": flops / 6 / params, "flops": flops}
    form = LAWS[law]
    loss = form.predict(np.array(TRUTHS[law]), {name: columns[name] for name in form.inputs})
    loss = loss * np.where(flops < 4e17, 1 - early, 1) * np.exp(rng.normal(0, NOISE, 30))
    return Runs(run_id=tuple(f"run-{i}" for i in range(30)), loss=loss, **columns)


@pytest.fixture(scope="module")
def compared():
    """Every law's own table, compared."""
    return {law: compare(table(law), TRIED, samples=24) for law in TRUTHS}


def again(tables):
    """Tables of one law that differ in their noise, compared."""
    return [
        compare(table("chinchilla_tied", seed=seed), ("chinchilla", "chinchilla_tied"), samples=24)
        for seed in range(tables)
    ]


@pytest.fixture(scope="module")
def repeated():
    return again(4)


def entry(found, law):
    return next(one for one in found.laws if one["law"] == law)


@pytest.mark.parametrize("law", TRUTHS)
def test_the_law_that_made_the_runs_is_chosen(compared, law):
    found = compared[law]
    assert found.chosen == law
    assert found.subset["runs_dropped"] == 0
    assert found.warnings == []
    assert law in found.why


def test_the_law_of_fewest_parameters_within_an_error_of_the_best_is_taken(repeated):
    for found in repeated:
        scores = [one["score"] for one in found.laws]
        assert scores == sorted(scores)
        assert found.laws[0]["within"]
        near = [one for one in found.laws if one["within"]]
        assert found.chosen == min(near, key=lambda one: one["parameters"])["law"]
    chosen = [found.chosen for found in repeated]
    assert chosen.count("chinchilla_tied") >= 3


def test_runs_are_hardly_ever_left_out_where_the_law_holds(repeated):
    dropped = [one["from_flops"] for found in repeated for one in found.laws]
    assert sum(least is not None for least in dropped) <= 1


@pytest.mark.slow
def test_over_60_tables_scores_vary_by_little_more_than_their_errors_and_the_choice_is_right():
    found = again(60)
    for law in ("chinchilla", "chinchilla_tied"):
        entries = [entry(one, law) for one in found]
        varied = np.std([math.log(one["score"]) for one in entries], ddof=1)
        said = np.median([one["score_stderr"] / one["score"] for one in entries])
        # Found: 0.29 in logarithms, where 0.23 is said; 60 tables tell the first to a tenth.
        assert 0.6 < said / varied < 1.25
        assert sum(one["from_flops"] is not None for one in entries) <= 6
    assert sum(one.chosen == "chinchilla_tied" for one in found) >= 54


def test_errors_are_of_the_held_out_runs_and_add_up_over_factors_of_compute(compared):
    found = compared["chinchilla"]
    runs = table("chinchilla")
    for one in found.laws:
        if one["reason"]:
            continue
        rms = [error["rms"] for error in one["errors"]]
        assert one["score"] == pytest.approx(np.exp(np.log(rms).mean()))
        counts = [cut.n_test for cut in found.cuts]
        squares = sum(n * x**2 for n, x in zip(counts, rms, strict=True))
        means = sum(n * error["mean"] for n, error in zip(counts, one["errors"], strict=True))
        bins = one["by_factor"]
        assert sum(part["n"] for part in bins) == sum(counts)
        assert sum(part["n"] * part["rms"] ** 2 for part in bins) == pytest.approx(squares)
        assert sum(part["n"] * part["mean"] for part in bins) == pytest.approx(means, abs=1e-9)
        for error in one["errors"]:
            low, high = error["interval_90"]
            assert 0 < low < high
    last = found.cuts[-1]
    below = runs.flops <= last.flops
    law = fit(runs.where(below), "chinchilla_tied", bootstrap=2)
    left = np.log(runs.loss / law.predict(runs.params, runs.tokens))[~below]
    assert entry(found, "chinchilla_tied")["errors"][-1]["rms"] == pytest.approx(
        math.sqrt(np.mean(left**2)), rel=2e-3
    )


def test_laws_that_the_runs_cannot_determine_are_listed_with_the_reason(compared):
    for law in ("chinchilla", "power_flops_floor"):
        left = {one["law"]: one["reason"] for one in compared[law].laws if one["reason"]}
        assert left
        for name, reason in left.items():
            assert name in TRIED
            assert "below the cut at" in reason or "20 tokens per parameter" in reason
            assert entry(compared[law], name)["score"] is None
    found = compare(table("kaplan"), ("kaplan", "width_depth"), samples=4)
    assert entry(found, "width_depth")["reason"] == "no column width, depth"


def test_auto_leaves_out_a_budget_from_before_the_power_law_and_says_so():
    runs = table("chinchilla_tied", early=0.06)
    found = compare(runs, ("chinchilla", "chinchilla_tied"), samples=24)
    first, second = np.unique(runs.flops)[:2]
    assert found.chosen == "chinchilla_tied"
    assert found.subset["from_flops"] == second
    assert found.subset["dropped_budgets"] == [first]
    assert found.subset["runs_dropped"] == 6
    assert found.subset["score_after"] < 0.5 * found.subset["score_before"]
    (warning,) = found.warnings
    assert warning.startswith("without the 6 smallest runs chinchilla_tied is wrong about larger")
    kept = found.kept(runs)
    np.testing.assert_array_equal(kept.flops, runs.flops[runs.flops > first])
    assert [run.run_id for run in kept.dropped] == [f"run-{i}" for i in range(6)]
    assert all("FLOPs: without the 6" in run.reason for run in kept.dropped)


def test_the_fit_of_auto_is_the_fit_of_what_was_chosen_with_the_comparison(monkeypatch):
    runs = table("chinchilla_tied", early=0.06)
    monkeypatch.setattr(compare_, "LOSS_LAWS", (LAWS["chinchilla_tied"],))
    law = fit(runs, "auto", bootstrap=4)
    found = compare(runs, ("chinchilla_tied",))
    same = fit(found.kept(runs), "chinchilla_tied", bootstrap=4)
    assert law.params == same.params
    assert [run["run_id"] for run in law.dropped] == [f"run-{i}" for i in range(6)]
    assert law.comparison == found.to_json()
    assert found.warnings[0] in law.warnings
    assert any(
        text.startswith("6 runs were left out: run-0, run-1, run-2") for text in law.warnings
    )
    assert Law.from_json(law.to_json()).comparison == law.comparison


def test_with_too_few_runs_to_hold_any_out_a_law_is_taken_unproven_and_that_is_said():
    runs = table("chinchilla_tied").where(np.arange(30) < 12)
    found = compare(runs)
    assert found.chosen == "chinchilla_tied"
    assert (found.cuts, found.laws) == ((), ())
    assert "12 runs are too few, or lie too close in compute, to hold any out" in found.warnings[0]
    assert found.kept(runs) is runs
    flat = table("power_flops_floor").where(np.arange(30) < 8)
    assert compare(flat).chosen == "power_flops_floor"
    with pytest.raises(FitError, match=r"none of the laws .*: chinchilla: 4 runs cannot"):
        compare(runs.where(np.arange(12) < 4), ("chinchilla",))


def test_what_is_no_law_of_the_loss_or_no_cut_is_refused():
    runs = table("kaplan")
    with pytest.raises(FitError, match="accuracy predicts accuracy; only laws of the loss"):
        compare(runs, ("accuracy",))
    with pytest.raises(FitError, match="'newton' is unknown"):
        compare(runs, ("newton",))
    with pytest.raises(FitError, match="so cut in between"):
        compare(runs, ("kaplan",), cuts=[1e25])
    with pytest.raises(FitError, match=r"none of the laws .* width_depth: no column width, depth"):
        compare(runs, ("width_depth",))
    with pytest.raises(FitError, match="belong to one law; name it in place of auto"):
        fit(runs, "auto", fixed={"E": 1.0})


def test_the_comparison_is_of_json_and_the_same_for_the_same_seed(compared):
    found = compared["kaplan"].to_json()
    assert found == compare(table("kaplan"), TRIED, samples=24).to_json()

    def numbers(part):
        if isinstance(part, dict):
            part = list(part.values())
        if isinstance(part, list):
            return [x for each in part for x in numbers(each)]
        assert part is None or type(part) in (str, bool, int, float), type(part)
        return [part] if type(part) is float else []

    assert np.isfinite(numbers(found)).all()


def test_of_a_long_table_so_many_runs_are_taken_evenly_in_compute(monkeypatch):
    monkeypatch.setattr(compare_, "MOST_ROWS", 24)
    runs = table("power_flops_floor")
    found = compare(runs, ("power_flops_floor",), samples=4)
    assert found.n_runs == 24
    assert found.cuts[0].n_train + found.cuts[0].n_test == 24
    assert found.cuts[0].flops * found.cuts[0].factor == pytest.approx(runs.flops.max())
