import dataclasses
import json
import math
import signal

import numpy as np
import pytest

from scaling.analysis.chain import Chain, checkpoint_noise
from scaling.analysis.fit import fit
from scaling.analysis.fitted import FitError
from scaling.cli import BAD_INPUT, main
from scaling.runs import Runs

S, SLOPE, MIDDLE, TOP = -0.75, 1.5, 3.2, 1.0


def accuracy(loss):
    return TOP + S / (1 + np.exp(-SLOPE * (loss - MIDDLE)))


def scored(known, *, noise: float = 0.0, seed: int = 0) -> Runs:
    """The runs of a study, each with what it scores on a task."""
    runs = known.runs(noise=0.003, seed=seed)
    rng = np.random.default_rng(seed + 1)
    score = accuracy(runs.loss) + rng.normal(0, noise, len(runs))
    return dataclasses.replace(runs, others={"accuracy": score})


@pytest.fixture(scope="module")
def chain(known) -> Chain:
    runs = scored(known, noise=0.002)
    task = fit(runs, "accuracy", fixed={"t": TOP}, bootstrap=400)
    return Chain(fit(runs, bootstrap=400), task)


def test_a_chain_puts_the_predicted_loss_through_the_law_of_the_task(chain, known):
    params, tokens = np.array([1e5, 2e5, 4e5]), np.array([1e7, 2e7, 1e8])
    expected = chain.task.predict(loss=chain.loss.predict(params, tokens))
    np.testing.assert_allclose(chain.predict(params, tokens), expected, rtol=1e-12)
    np.testing.assert_allclose(
        chain.predict(params, tokens), accuracy(known.loss(params, tokens)), atol=0.03
    )


def test_the_errors_of_both_laws_are_in_the_error_of_the_score(chain, known):
    best = known.optimum(3 * known.budgets[-1])
    loss = float(chain.loss.predict(best.params, best.tokens))
    slope = float(
        chain.task.predict(loss=loss + 1e-4) - chain.task.predict(loss=loss - 1e-4)
    ) / 2e-4  # fmt: skip
    of_loss = chain.loss.predict_samples(best.params, best.tokens).std()
    of_task = chain.task.predict_samples(loss=loss).std()
    expected = math.hypot(slope * of_loss, of_task)
    found = chain.predict_samples(best.params, best.tokens)
    assert found.std() == pytest.approx(expected, rel=0.1)
    assert found.std() > 1.05 * max(abs(slope) * of_loss, of_task)


def test_the_interval_of_a_run_adds_the_noise_of_loss_and_score(chain, known):
    best = known.optimum(3 * known.budgets[-1])
    low, high = chain.predict_interval(best.params, best.tokens)
    of_laws = chain.predict_samples(best.params, best.tokens)
    loss = float(chain.loss.predict(best.params, best.tokens))
    slope = float(
        chain.task.predict(loss=loss + 1e-4) - chain.task.predict(loss=loss - 1e-4)
    ) / 2e-4  # fmt: skip
    noises = (
        slope * loss * np.mean(chain.loss.bootstrap["residual_sd"]),
        np.mean(chain.task.bootstrap["residual_sd"]),
    )
    expected = math.hypot(of_laws.std(), *noises)
    assert (high - low) / 2 == pytest.approx(1.645 * expected, rel=0.1)
    again = chain.predict_interval(best.params, best.tokens)
    assert (again.low, again.high) == (low, high)


def test_an_interval_takes_many_runs_at_once(chain):
    params, tokens = np.array([1e5, 4e5]), np.array([1e7, 1e8])
    many = chain.predict_interval(params, tokens)
    assert many.low.shape == (2,)
    for i in range(2):
        one = chain.predict_interval(params[i], tokens[i])
        assert float(one.low) == pytest.approx(float(many.low[i]), abs=0.003)
        assert float(one.high) == pytest.approx(float(many.high[i]), abs=0.003)


def test_the_loss_for_a_score_is_the_inverse_of_the_sigmoid(chain):
    s, k, x_0, t = chain.task.values
    losses = chain.loss_for(0.6)
    assert losses.shape == (401,)
    assert losses[0] == pytest.approx(x_0 - math.log(s / (0.6 - t) - 1) / k, rel=1e-9)
    np.testing.assert_allclose(
        [chain.task.form.predict(chain.task.samples[7], {"loss": losses[8]})], 0.6, rtol=1e-9
    )


def test_the_run_that_reaches_a_score_scores_it_and_no_cheaper_run_does(chain):
    found = chain.reach(0.55)
    params, tokens = found.params.value, found.tokens.value
    assert float(chain.predict(params, tokens)) == pytest.approx(0.55, abs=1e-6)
    assert 6 * params * tokens == pytest.approx(found.flops.value, rel=1e-9)
    others = params * np.geomspace(0.3, 3, 61)
    scores = chain.predict(others, found.flops.value * 0.999 / 6 / others)
    assert scores.max() < 0.55
    assert found.flops.low < found.flops.value < found.flops.high
    assert found.reached > 0.9


def test_a_score_can_be_reached_at_given_tokens_per_parameter(chain):
    found = chain.reach(0.55, tokens_per_parameter=200.0)
    assert found.tokens.value / found.params.value == pytest.approx(200)
    assert float(chain.predict(found.params.value, found.tokens.value)) == pytest.approx(0.55)
    assert found.flops.value > chain.reach(0.55).flops.value


def test_a_score_that_no_loss_gives_is_not_reached(chain):
    for score in (0.1, 1.5):
        found = chain.reach(score)
        assert found.reached == 0
        assert all(math.isnan(x) for x in (*found.loss, *found.flops, *found.params))


def test_a_score_below_the_floor_of_the_loss_is_not_reached(chain):
    # The loss never falls below E, so the task never scores this, although a loss would give it.
    floor = float(chain.task.predict(loss=chain.loss.params["E"]))
    found = chain.reach(floor + 0.02)
    assert math.isfinite(found.loss.value)
    assert math.isnan(found.flops.value)
    assert found.reached < 0.5


def test_checkpoint_noise_leaves_out_what_the_run_still_learns():
    rng = np.random.default_rng(0)
    x = np.arange(10)
    found = [checkpoint_noise(0.3 + 0.02 * x + rng.normal(0, 0.004, 10)) for _ in range(400)]
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(0.004, rel=0.1)
    # Only the last ten count.
    assert checkpoint_noise(np.concatenate([rng.normal(0, 9, 20), 0.3 + 0.02 * x])) < 1e-12
    with pytest.raises(FitError, match="2 evaluations tell nothing"):
        checkpoint_noise(np.array([0.3, 0.4]))


def test_a_task_is_predictable_where_the_gain_is_larger_than_the_doubt(chain, known):
    largest = known.optimum(known.budgets[-1])
    stands = float(accuracy(largest.loss))
    target = known.optimum(30 * known.budgets[-1])
    quiet = chain.verdict(stands + 0.001 * np.tile([1, -1], 10), target.params, target.tokens)
    assert quiet.predictable
    assert quiet.known == pytest.approx(stands, abs=0.001)
    assert quiet.text.startswith("predictable: from")
    loud = chain.verdict(stands + 0.2 * np.tile([1, -1], 10), target.params, target.tokens)
    assert not loud.predictable
    assert loud.doubt > quiet.doubt
    near = chain.verdict(
        float(chain.predict(target.params, target.tokens)) + 0.001 * np.tile([1, -1], 10),
        target.params, target.tokens,
    )  # fmt: skip
    assert not near.predictable
    assert quiet.held is None


def test_a_measured_run_holds_within_the_doubt_and_misses_beyond(chain, known):
    target = known.optimum(30 * known.budgets[-1])
    evaluations = 0.3 + 0.001 * np.tile([1, -1], 10)
    truth = float(accuracy(target.loss))
    held = chain.verdict(evaluations, target.params, target.tokens, measured=truth)
    assert held.held
    assert "held: measured" in held.text
    far = truth - 2 * held.doubt - 0.1
    missed = chain.verdict(evaluations, target.params, target.tokens, measured=far)
    assert not missed.held
    assert missed.error_over_noise > 10


def test_an_error_that_falls_with_the_loss_chains_as_well(known):
    runs = scored(known)
    runs = dataclasses.replace(runs, others={"error": 0.9 - 2.0 * np.exp(-0.8 * runs.loss)})
    chain = Chain(fit(runs, bootstrap=50), fit(runs, "error", bootstrap=50))
    found = chain.reach(0.6)
    assert float(chain.predict(found.params.value, found.tokens.value)) == pytest.approx(0.6)
    assert found.loss.value == pytest.approx(-math.log(0.3 / 2.0) / 0.8, rel=1e-3)


def test_a_law_of_size_and_data_is_no_law_of_a_task(chain):
    with pytest.raises(FitError, match="chinchilla is a law of params, tokens"):
        Chain(chain.loss, chain.loss)


def test_a_plan_to_a_score_names_the_score_of_its_run_and_refuses_one_beyond_the_ceiling(
    chain, tmp_path, capsys
):
    for name in ("loss", "task"):
        law = getattr(chain, name).to_json()
        (tmp_path / f"{name}.json").write_text(json.dumps(law), encoding="utf-8")
    handler = signal.getsignal(signal.SIGTERM)
    command = ["plan", str(tmp_path / "loss.json"), f"--task={tmp_path / 'task.json'}",
               f"--out={tmp_path}"]  # fmt: skip
    score = float(chain.predict(3e5, 3e7))
    for asked, code in ((score, 0), (0.9999 * 10, BAD_INPUT)):
        with pytest.raises(SystemExit) as ended:
            main([*command, f"--score={asked}", "--overwrite"])
        assert ended.value.code == code
    signal.signal(signal.SIGTERM, handler)
    said = capsys.readouterr()
    assert "no loss gives accuracy of 9.999" in said.err
    target = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))["targets"][0]
    run = target["run"]
    found = float(chain.predict(run["params"], run["tokens"]))
    assert found == pytest.approx(score, abs=0.01)
    assert f"Predicted accuracy {found:.4g} (90% interval " in said.out
