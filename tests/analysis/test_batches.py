import numpy as np
import pytest
import scipy.optimize

from scaling.analysis.batches import PUBLISHED, critical, steps_of, tokens_of
from scaling.analysis.devices import PlanError
from scaling.analysis.fit import fit
from scaling.runs import Runs

BATCHES = 64 * 2 ** np.arange(9)  # sequences of 512 tokens
# Zhang et al. 2025: steps to one loss at each batch, by millions of parameters; trained on 20
# tokens per parameter. Read from their public repository.
STEPS = {
    85: [46000, 23000, 13282, 7000, 3840, 2500, 1800, 1600, 1600],
    151: [96000, 49000, 24000, 11951, 7128, 4200, 2760, 2400, 2300],
    302: [196000, 90000, 46000, 23400, 13300, 7224, 4980, 3400, 2879],
    604: [311000, 166000, 81000, 37440, 21320, 11400, 7199, 4700, 3800],
    1200: [643000, 331000, 176000, 94000, 46500, 25000, 15360, 8900, 6500],
}  # fmt: skip


def test_steps_and_tokens_make_the_hyperbola():
    batch = np.geomspace(1e3, 1e8, 11)
    steps, tokens = steps_of(1e10, batch, 1e6), tokens_of(1e10, batch, 1e6)
    np.testing.assert_allclose((steps / 1e4 - 1) * (tokens / 1e10 - 1), 1, rtol=1e-9)
    assert steps_of(1e10, 1e6, 1e6) == pytest.approx(2 * 1e4)
    assert tokens_of(1e10, 1e6, 1e6) == pytest.approx(2 * 1e10)


@pytest.mark.parametrize("millions", STEPS)
def test_the_published_law_agrees_with_a_fit_to_the_published_steps(millions):
    steps = np.array(STEPS[millions], float)

    def left(x):
        return np.log(np.exp(x[0]) * (1 + np.exp(x[1]) / BATCHES)) - np.log(steps)

    fitted = 512 * np.exp(scipy.optimize.least_squares(left, [7.0, 7.0]).x[1])
    law = PUBLISHED["zhang_2025"].at({"tokens": np.array(20e6 * millions)})
    assert law == pytest.approx(fitted, rel=0.05)


def test_kaplans_law_gives_the_published_batches():
    at = PUBLISHED["kaplan_2020"].at({"loss": np.array([3.0, 2.0, 3.0 * 0.87])})
    np.testing.assert_allclose(at[:2], [1.1226e6, 7.740e6], rtol=1e-3)
    # It doubles for every 13% off the loss.
    assert at[2] / at[0] == pytest.approx(1.94, abs=0.01)


def test_below_its_range_the_published_power_goes_on_without_a_jump():
    law = PUBLISHED["zhang_2025"].at
    tokens = np.array([1e6, 1e8, 1.7e9 * (1 - 1e-9), 1.7e9, 1.7e9 * (1 + 1e-9), 1e11])
    found = law({"tokens": tokens})
    assert (found > 0).all()
    assert (np.diff(found) > 0).all()
    assert found[2] == pytest.approx(found[4], rel=1e-6)


def test_a_fitted_law_serves_as_a_critical_batch():
    tokens = np.geomspace(1e8, 1e11, 12)
    batches = 0.58 * tokens**0.571
    nothing = np.full(12, np.nan)
    names = tuple(f"run-{i}" for i in range(12))
    runs = Runs(
        run_id=names, params=nothing, tokens=tokens, loss=nothing, flops=nothing,
        others={"batch_tokens": batches},
    )  # fmt: skip
    law = fit(runs, "batch", bootstrap=20)
    made = critical(law)
    given = {"params": np.array(1e9), "tokens": np.array(1e10), "loss": np.array(3.0)}
    assert made.at(given) == pytest.approx(0.58 * 1e10**0.571, rel=1e-4)
    assert "fitted batch" in made.name


def test_constants_names_and_other_laws():
    assert critical(5e5).at({"tokens": np.ones(3)}).tolist() == [5e5] * 3
    with pytest.raises(PlanError, match="one of zhang_2025, kaplan_2020"):
        critical("smith_1999")
    with pytest.raises(PlanError, match="not a positive number"):
        critical(-1.0)
