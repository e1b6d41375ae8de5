import dataclasses
import hashlib
import json
import shlex
import signal

import numpy as np
import pytest

from scaling import sizes
from scaling.analysis.allocation import allocate
from scaling.analysis.budget import Budget, budget_of
from scaling.analysis.fit import fit
from scaling.analysis.plan import SAME_RUN, Aim, PlanError, RunShape, plan, verdict
from scaling.analysis.shapes import on_the_ladder
from scaling.cells import cell_of
from scaling.cli import main
from scaling.config import load
from scaling.files import encode, write_json
from scaling.records import NUMBERS, Record
from scaling.runs import Runs
from scaling.sweep.planned import planned_cell


@pytest.fixture(scope="module")
def law(known):
    return fit(known.runs(noise=0.005), bootstrap=300)


LADDER = on_the_ladder(vocabulary=64)


def machine(**changes):
    values = {
        "chips": 16, "peak_flops": 1e11, "utilization": 0.3, "tokens_per_chip": 256,
        "hours": 0.02, "critical_batch": 2e4, "price_per_hour": 2.5,
    }  # fmt: skip
    return budget_of(**values | changes)


def shape(params: float, flops: float) -> RunShape:
    rung = round(params / 1000) * 1000
    return RunShape(
        params=rung, tokens=round(flops / 6 / rung), overrides={"model.width": rung // 100}
    )


def finished(**changes: object) -> Record:
    """A record of the planned run; every number that the verdict does not need is null."""
    values = dict.fromkeys(NUMBERS) | changes
    return Record(
        run_id="planned",
        status="ok",
        config={},
        config_hash="0",
        device_kind="cpu",
        versions={},
        code_version="0",
        created="2026-01-01T00:00:00Z",
        null_reasons={name: "not measured" for name in values if values[name] is None},
        **values,
    )


def test_a_plan_holds_the_optimum_its_intervals_and_the_run_that_can_be_built(law, known):
    flops = 3 * known.budgets[-1]
    made = plan(law, [flops], shape_for=shape)
    assert json.loads(encode(made)) == made
    (target,) = made["targets"]
    best = law.optimum(flops)
    assert target["params"]["value"] == pytest.approx(float(best.params))
    assert target["loss"]["value"] == pytest.approx(float(best.loss))
    for name in ("params", "tokens", "loss"):
        low, high = target[name]["interval_90"]
        assert low < target[name]["value"] < high
    run = target["run"]
    assert run["params"] % 1000 == 0
    assert run["flops"] == 6 * run["params"] * run["tokens"]
    assert run["flops"] == pytest.approx(flops, rel=1e-4)
    assert run["loss"]["value"] == pytest.approx(float(law.predict(run["params"], run["tokens"])))
    assert target["overrides"] == {"model.width": run["params"] // 100}
    assert target["warnings"] == []


def test_the_plan_names_the_law_by_the_hash_of_its_file(law, tmp_path):
    path = write_json(tmp_path / "law.json", law.to_json())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert plan(law, [1e13])["law"] == {"name": "chinchilla", "sha256": digest}


def test_without_a_ladder_the_plan_has_no_run(law):
    for shape_for in (None, lambda params, flops: None):
        (target,) = plan(law, [1e13], shape_for=shape_for)["targets"]
        assert target["run"] is None
        assert target["overrides"] == {}


def test_a_prediction_interval_widens_with_the_reach_and_beyond_100_times_warns(law, known):
    largest = known.budgets[-1]
    targets = plan(law, [largest * factor for factor in (3, 30, 300)])["targets"]
    widths = [np.log(t["loss"]["interval_90"][1] / t["loss"]["interval_90"][0]) for t in targets]
    assert widths == sorted(widths)
    far = [[x for x in t["warnings"] if "times the largest budget" in x] for t in targets]
    assert [len(texts) for texts in far] == [0, 0, 1]
    assert "300 times the largest budget" in targets[-1]["warnings"][0]


@pytest.mark.parametrize("flops", [[], [0.0], [-1e12], [float("nan")], [float("inf")]])
def test_a_budget_that_is_none_is_refused(law, flops):
    with pytest.raises(PlanError, match="budget"):
        plan(law, flops)


def test_the_verdict_compares_the_measured_loss_with_the_plan(law):
    made = plan(law, [5e12, 1e13], shape_for=shape)
    target = made["targets"][1]
    run = target["run"]
    low, high = run["loss"]["interval_90"]
    for measured, inside in ((run["loss"]["value"] * 1.001, True), (high * 1.01, False)):
        record = finished(
            params_total=run["params"],
            tokens=run["tokens"] + 100,
            flops_6nd=run["flops"],
            loss=measured,
        )
        found = verdict(made, record)
        assert found["inside_interval"] is inside
        assert found["measured"] == measured
        assert found["predicted"] == {"value": run["loss"]["value"], "interval_90": [low, high]}
        assert found["relative_error"] == pytest.approx(run["loss"]["value"] / measured - 1)
        assert found["optimal_params"] == target["params"]
        assert json.loads(encode(found)) == found


def test_a_verdict_on_another_run_is_refused(law):
    made = plan(law, [1e13], shape_for=shape)
    with pytest.raises(PlanError, match=r"7 params x 9 tokens, and the plan holds \d+ x \d+;"):
        verdict(made, finished(params_total=7, tokens=9, loss=3.0))


def test_a_verdict_on_a_run_without_a_loss_is_refused(law):
    made = plan(law, [1e13], shape_for=shape)
    record = dataclasses.replace(finished(), status="diverged", reason="loss 1e9 at step 3")
    with pytest.raises(PlanError, match=r"diverged without a loss \(loss 1e9 at step 3\)"):
        verdict(made, record)


def test_a_plan_by_time_says_batch_steps_hours_cost_and_what_binds(law):
    made = plan(law, budget=machine(), shape_for=LADDER)
    assert json.loads(encode(made)) == made
    (target,) = made["targets"]
    run = target["run"]
    assert target["binding"] == ["time"]
    assert target["hours"]["value"] == pytest.approx(0.02)
    assert run["hours"] <= 0.02 * (1 + 1e-9)
    assert run["cost"] == pytest.approx(2.5 * 16 * run["hours"])
    assert run["tokens"] == run["steps"] * run["batch_tokens"]
    assert run["batch_tokens"] == target["overrides"]["batch_tokens"]
    # At a batch that keeps 16 chips busy, a step takes 6 params tokens at 30% of their peak.
    seconds = 6 * run["params"] * run["tokens"] / (16 * 1e11 * 0.3)
    assert run["hours"] * 3600 == pytest.approx(seconds)
    assert run["flops_training"] == pytest.approx(run["flops"])
    # A tenth of the tokens went to the batch: the loss is that of fewer.
    useful = run["tokens"] / (1 + run["batch_tokens"] / 2e4)
    assert run["useful_tokens"] == pytest.approx(useful)
    assert run["loss"]["value"] == pytest.approx(float(law.predict(run["params"], useful)))
    assert made["machine"]["chips"] == 16
    assert any("given: 20000 tokens" in text for text in made["assumptions"])


def test_twice_the_chips_is_worth_less_than_twice_the_hours_in_a_plan(law):
    def loss(**changes):
        return plan(law, budget=machine(**changes))["targets"][0]["loss"]["value"]

    assert loss(hours=0.04, chips=256) < loss(hours=0.02, chips=512) < loss(chips=256)


def test_a_loss_is_reached_at_the_least_cost_and_comes_back_as_its_budget(law):
    loss = float(law.optimum(5e12).loss)
    made = plan(law, losses=[loss], shape_for=LADDER)
    assert json.loads(encode(made)) == made
    (target,) = made["targets"]
    assert target["flops"] == pytest.approx(5e12, rel=1e-5)
    assert target["params"]["value"] == pytest.approx(float(law.optimum(5e12).params), rel=0.01)
    assert target["asked"] == {
        "loss": loss, "name": None, "cheapest_by": "flops"
    }  # fmt: skip
    assert target["run"]["loss"]["value"] <= loss * (1 + 1e-9)
    low, high = target["flops_lifetime"]["interval_90"]
    assert low < 5e12 < high
    assert target["reached_in_samples"] == 1


def test_an_uncertain_aim_widens_the_sizes(law):
    loss = float(law.optimum(5e12).loss)
    rng = np.random.default_rng(0)
    for count in (len(law.samples), 77):
        aim = Aim(loss=loss, samples=loss + rng.normal(0, 0.1, count), name="85% on the task")
        (wide,) = plan(law, losses=[aim])["targets"]
        (sharp,) = plan(law, losses=[loss])["targets"]
        assert wide["asked"]["name"] == "85% on the task"
        assert wide["params"]["value"] == sharp["params"]["value"]
        spans = [np.log(t["params"]["interval_90"][1] / t["params"]["interval_90"][0])
                 for t in (wide, sharp)]  # fmt: skip
        assert spans[0] > 1.5 * spans[1]


def test_an_aim_that_some_samples_never_reach_says_in_how_many_it_is_reached(law):
    loss = float(law.optimum(5e12).loss)
    samples = np.where(np.arange(len(law.samples)) % 4 == 0, np.nan, loss)
    (target,) = plan(law, losses=[Aim(loss=loss, samples=samples)])["targets"]
    assert target["reached_in_samples"] == pytest.approx(0.75)
    with pytest.raises(PlanError, match="the loss to reach for 99% on the task is nan"):
        plan(law, losses=[Aim(loss=float("nan"), name="99% on the task")])


def test_a_loss_below_the_floor_or_beyond_the_limits_is_refused_with_the_numbers(law):
    floor = law.params["E"]
    with pytest.raises(PlanError, match=rf"below the floor of the law, {floor:.4g}"):
        plan(law, losses=[floor * 0.9])
    best = allocate(law.form, law.values, Budget(flops=1e12))
    with pytest.raises(PlanError) as refused:
        plan(law, losses=[float(best.loss) * 0.95], budget=Budget(flops=1e12))
    assert f"the best is {float(best.loss):.6g}, by {float(best.params):.4g}" in str(refused.value)
    assert "where compute ends; give more of that" in str(refused.value)


def test_limits_that_leave_no_run_are_refused_with_the_numbers(law):
    answers = Budget(inference_tokens=1e12, params_low=1e6)
    with pytest.raises(PlanError, match=r"from 1e\+06 .* compute leaves 0 tokens; give more"):
        plan(law, [1e13], budget=dataclasses.replace(answers, params_high=1e7))
    with pytest.raises(PlanError, match=r"in batches of 1e\+12: at the smallest time leaves"):
        plan(law, budget=machine(batch_tokens=1e12, params_low=1e5))


def test_a_plan_on_scarce_data_says_what_it_took_repeats_for(law):
    asked = Budget(flops=1e13, unique_tokens=3e6)
    (once,) = (made := plan(law, budget=asked))["targets"]
    assert once["tokens"]["value"] == pytest.approx(3e6, rel=1e-4)
    assert once["binding"] == ["compute", "unique data"]
    assert once["epochs"] == 1
    assert any("no token is seen twice" in text for text in made["assumptions"])
    made = plan(law, budget=dataclasses.replace(asked, epochs=4.0))
    assert made["targets"][0]["epochs"] == pytest.approx(
        float(law.optimum(1e13).tokens) / 3e6, rel=1e-4
    )
    assert any("up to 4 epochs" in text for text in made["assumptions"])
    built = plan(law, budget=dataclasses.replace(asked, epochs=4.0), shape_for=shape)
    assert built["targets"][0]["overrides"]["budget.unique_tokens"] == 3_000_000


def test_the_printed_line_trains_the_planned_run_with_the_overrides_that_were_given(
    law, tmp_path, capsys
):
    (tmp_path / "law.json").write_text(json.dumps(law.to_json()), encoding="utf-8")
    given = ["--config.seed=7", "--config.study.widths=(16, 24)"]
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        main(["plan", str(tmp_path / "law.json"), "--flops=1e11", "--unique_tokens=100000",
              "--epochs=8", f"--out={tmp_path}", *given])  # fmt: skip
    signal.signal(signal.SIGTERM, handler)
    assert ended.value.code == 0
    target = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))["targets"][0]
    (line,) = [x for x in capsys.readouterr().out.splitlines() if "scaling train" in x]
    _, verb, config, *words, _ = shlex.split(line)
    assert (verb, words[:2]) == ("train", given)
    loaded = load(config.removeprefix("--config="), [x.removeprefix("--config.") for x in words])
    cell = cell_of(loaded.config)
    assert (cell.seed, cell.budget.unique_tokens) == (7, 100_000)
    # Tokens are whole batches.
    assert cell.budget.tokens == pytest.approx(target["run"]["tokens"], rel=SAME_RUN)
    assert cell.budget.tokens > 100_000
    planned = planned_cell(load("configs/quickstart.py").config, target)
    assert (planned.budget, planned.model) == (cell.budget, cell.model)


def test_answers_make_the_model_smaller_and_are_counted(law):
    (plain,) = plan(law, [1e13])["targets"]
    made = plan(law, [1e13], budget=Budget(inference_tokens=3e7), shape_for=LADDER)
    (target,) = made["targets"]
    run = target["run"]
    assert target["params"]["value"] < plain["params"]["value"]
    assert target["flops_lifetime"]["value"] == pytest.approx(1e13)
    assert run["flops_lifetime"] == pytest.approx(run["flops"] + 2 * run["params"] * 3e7)
    assert run["flops_lifetime"] <= 1e13


def test_rates_and_batches_come_from_fitted_laws_where_there_are_any(law, known):
    size, data = np.meshgrid(np.geomspace(1e4, 1e6, 4), np.geomspace(1e6, 1e8, 4))
    size, data = size.ravel(), data.ravel()
    runs = Runs(
        run_id=tuple(f"run-{i}" for i in range(16)), params=size, tokens=data,
        loss=known.loss(size, data), flops=6 * size * data,
        others={"learning_rate": 1.79 * size**-0.713 * data**0.307,
                "batch_tokens": 0.58 * data**0.571},
    )  # fmt: skip
    rates, batches = (fit(runs, name, bootstrap=20) for name in ("learning_rate", "batch"))
    (target,) = plan(law, [1e13], shape_for=LADDER, rates=rates, batches=batches)["targets"]
    run = target["run"]
    rate = 1.79 * run["params"] ** -0.713 * run["tokens"] ** 0.307
    assert run["learning_rate"]["value"] == pytest.approx(rate, rel=1e-4)
    assert run["learning_rate"]["source"].startswith("fitted learning_rate: ")
    assert target["overrides"]["optimizer.learning_rate"] == run["learning_rate"]["value"]
    assert target["batch_tokens"] == pytest.approx(0.58 * target["tokens"]["value"] ** 0.571)
    (rule,) = plan(law, [1e13], shape_for=LADDER)["targets"]
    assert "scaling.sizes" in rule["learning_rate"]["source"]
    assert rule["batch_tokens"] == sizes.training(16).batch_tokens
    assert "optimizer.learning_rate" not in rule["overrides"]
    with pytest.raises(PlanError, match="gives batch_tokens from tokens; needed is a law of lea"):
        plan(law, [1e13], rates=batches)


def test_the_plan_compares_two_of_each_from_its_first_run(law):
    made = plan(law, [1e13, 2e13], shape_for=LADDER)
    run = made["targets"][0]["run"]
    assert made["comparison"]["base"]["params"] == run["params"]
    names = [option["name"] for option in made["comparison"]["options"]]
    assert names == ["2x the parameters", "2x the tokens", "2x the time"]
    assert made["null_reasons"]["hours"] == "no machine was given"


@pytest.mark.parametrize(
    ("flops", "budget", "message"),
    [
        ([1.0], None, r"a model of 1,000 parameters 0.0001667 tokens, less than one batch of 512"),
        ([], Budget(unique_tokens=1.0), "1 tokens, less than one batch of 512; give more"),
        ([1e14], Budget(batch_tokens=1e30), r"1.667e\+10 tokens, less than one batch of 1e\+30"),
    ],
)
def test_a_budget_without_one_step_is_refused_as_that(law, flops, budget, message):
    with pytest.raises(PlanError, match=message):
        plan(law, flops, budget=budget)


def test_answers_that_no_limit_counts_are_told_and_those_of_a_life_are_paid_for(law):
    told = "inference tokens change nothing here"
    [target] = plan(law, budget=machine(inference_tokens=1e9))["targets"]
    assert told in " ".join(target["warnings"])
    assert target["params"] == plan(law, budget=machine())["targets"][0]["params"]
    life = machine(hours=None, lifetime_hours=0.02, inference_tokens=1e7)
    [target] = plan(law, budget=life)["targets"]
    assert told not in " ".join(target["warnings"])
    assert target["binding"] == ["lifetime"]
    assert target["hours"]["value"] < target["hours_lifetime"] == pytest.approx(0.02, rel=1e-3)
    assert target["cost"] == pytest.approx(2.5 * 16 * 0.02, rel=1e-3)
    [target] = plan(law, [1e14], budget=Budget(inference_tokens=1e9))["targets"]
    assert told not in " ".join(target["warnings"])


def test_tokens_per_parameter_come_with_their_interval(law):
    [target] = plan(law, [1e14])["targets"]
    drawn = law.optimum_samples(1e14)
    low, high = np.quantile(drawn.tokens / drawn.params, (0.05, 0.95))
    found = target["tokens_per_parameter"]
    assert found["value"] == pytest.approx(target["tokens"]["value"] / target["params"]["value"])
    assert found["interval_90"] == pytest.approx([low, high], rel=1e-3)


def test_a_model_far_from_the_best_size_is_told(law):
    def smallest(params: float, flops: float) -> RunShape:
        return RunShape(params=1000, tokens=round(flops / 6000))

    [target] = plan(law, [1e14], shape_for=smallest)["targets"]
    assert any("within the limits has 1e+03 parameters" in text for text in target["warnings"])
    [target] = plan(law, [1e14], shape_for=LADDER)["targets"]
    assert not any("within the limits has" in text for text in target["warnings"])


@pytest.mark.parametrize(("flops", "text"), [(1e9, "below these nobody knows"), (1e16, "in steps")])
def test_next_runs_far_from_those_of_the_law_are_told(law, flops, text):
    made = plan(law, [1e14], next_flops=flops)
    assert text in made["next_runs"]["warnings"][0]
    assert plan(law, [1e14], next_flops=1e13)["next_runs"]["warnings"] == []
    other = plan(law, [1e14], next_flops=1e13, criterion="determinant")["next_runs"]
    assert other["criterion"] == "determinant"
    assert other["cells"] != plan(law, [1e14], next_flops=1e13)["next_runs"]["cells"]


def test_the_plan_tells_the_next_runs_that_make_its_first_target_surer(law):
    made = plan(law, [1e14], shape_for=LADDER, next_flops=1e13)
    assert json.loads(encode(made)) == made
    told, run = made["next_runs"], made["targets"][0]["run"]
    assert told["target"]["params"] == run["params"]
    assert told["target"]["tokens"] == pytest.approx(run["tokens"])
    assert told["target"]["loss"] == pytest.approx(run["loss"]["value"])
    assert told["cost"] <= 1e13 * (1 + 1e-9)
    assert plan(law, [1e14])["next_runs"] is None


def test_a_critical_batch_far_from_where_it_was_measured_warns(law):
    (target,) = plan(law, budget=machine(critical_batch="zhang_2025"))["targets"]
    assert any("measured from 1.7e+09 to 2.4e+10 tokens" in text for text in target["warnings"])


def test_a_limit_more_never_makes_a_better_run(law):
    # So little data that a large model would have a few huge batches.
    scarce = {"chips": 64, "peak_flops": 1e15, "utilization": 0.4, "tokens_per_chip": 2048,
              "hours": 1.0, "critical_batch": "zhang_2025", "unique_tokens": 1e9}  # fmt: skip

    def loss(**limits: object) -> float:
        (target,) = plan(law, budget=budget_of(**scarce | limits))["targets"]
        return target["loss"]["value"]

    free = loss()
    for limits in (
        *({"params_high": size} for size in (1e7, 1e8, 1e9, 1e10, 1e11)),
        {"hours": 0.5}, {"unique_tokens": 5e8}, {"memory_bytes": 2e9},
    ):  # fmt: skip
        assert loss(**limits) >= free * (1 - 1e-6), limits
    # And the batch that the rule would give its size is no better.
    assert loss(batch_tokens=2.0**20) >= free * (1 - 1e-6)
