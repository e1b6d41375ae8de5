import dataclasses
import hashlib
import json

import numpy as np
import pytest

from scaling.analysis.fit import fit
from scaling.analysis.plan import PlanError, RunShape, plan, verdict
from scaling.files import encode, write_json
from scaling.records import NUMBERS, Record


@pytest.fixture
def law(known):
    return fit(known.runs(noise=0.005), bootstrap=300)


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
    assert [len(target["warnings"]) for target in targets] == [0, 0, 1]
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
