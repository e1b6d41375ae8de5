import numpy as np
import pytest

from scaling.analysis.budget import Budget, budget_of
from scaling.analysis.devices import PlanError
from scaling.analysis.limits import assumptions
from scaling.analysis.rules import LAWS


def test_plain_values_make_a_budget_with_the_device_and_the_default_critical_batch():
    budget = budget_of(chips=64, device_name="h200", hours=72.0, utilization=0.4)
    assert budget.machine is not None
    assert budget.machine.peak_flops == 989e12
    assert budget.machine.memory_bytes == 141e9
    assert budget.critical is not None
    assert "Zhang" in budget.critical.name
    # 16 bytes of state for each parameter, over 64 chips, and what the tokens take.
    assert 0.9 * 64 * 141e9 / 16 < budget.sizes[1] < 64 * 141e9 / 16
    own = budget_of(chips=2, peak_flops=1e12, utilization=0.5, critical_batch=1e5)
    assert own.machine is not None
    assert own.machine.memory_bytes is None
    assert budget_of(unique_tokens=1e9) == Budget(unique_tokens=1e9)


def test_a_utilization_that_nobody_gave_is_taken_and_said_to_be() -> None:
    budget = budget_of(chips=8, device_name="h100", hours=1.0)
    assert budget.machine is not None
    assert budget.machine.utilization == 0.4
    [said] = [text for text in assumptions(LAWS["chinchilla"], budget) if "0.4 of" in text]
    assert "neither given nor measured: give --mfu" in said


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hours": 72.0}, "--hours needs a machine"),
        ({"device_name": "h100"}, "--device needs a machine"),
        ({"chips": 8}, "8 chips of what"),
        ({"chips": 8, "device_name": "h100", "utilization": 1.4}, "MFU 1.4 is above 1"),
        ({"epochs": 4.0}, "epochs of what"),
        ({"unique_tokens": -1.0}, "unique tokens is -1.0"),
        ({"inference_tokens": float("inf")}, "inference tokens are inf"),
        ({"params_low": 1e10, "params_high": 1e9}, "smallest size allowed is 1e[+]10"),
        (
            {"chips": 1, "device_name": "tpu-v5e", "utilization": 0.4, "params_low": 7e9},
            r"7e\+09 parameters and the memory holds 9\.\d+e\+08; lower --min_params",
        ),
    ],
)
def test_what_cannot_be_spent_is_refused_with_the_remedy(values, message):
    with pytest.raises(PlanError, match=message):
        budget_of(**values)


def test_a_law_that_knows_of_repeats_sets_no_limit_to_them_unless_asked():
    knows, does_not = LAWS["data_constrained"], LAWS["chinchilla"]
    budget = Budget(flops=1e20, unique_tokens=1e9)
    assert budget.repeats(knows) == np.inf
    assert budget.repeats(does_not) == 1
    asked = Budget(flops=1e20, unique_tokens=1e9, epochs=4.0)
    assert asked.repeats(knows) == asked.repeats(does_not) == 4
    params = np.array([1e8, 1e9])
    assert set(budget.most(knows, params)) == {"compute"}
    assert budget.most(does_not, params)["unique data"].tolist() == [1e9, 1e9]
    told = budget.data(knows, params, np.array([5e8, 3e9]))
    assert told["unique_tokens"].tolist() == [5e8, 1e9]


def test_batches_open_exactly_where_steps_and_tokens_allow():
    budget = budget_of(
        chips=10, peak_flops=1e15, utilization=0.5, tokens_per_chip=1000, hours=1.0,
        critical_batch=1e6,
    )  # fmt: skip
    form, params, useful = LAWS["chinchilla"], np.array([1e9]), np.array([1e9])
    low, high = budget.batches(form, params, useful, np.array([1e-6]))
    step = 6 * 1e9 * 10_000 / 5e15

    def seconds(batch):
        tokens = 1e9 * (1 + batch / 1e6)
        return tokens / batch * step * max(batch / 10_000, 1)

    assert low < 10_000 < high
    assert seconds(low[0]) == pytest.approx(3600)
    assert seconds(high[0]) == pytest.approx(3600)
    assert seconds(low[0] * 0.99) > 3600
    assert seconds(high[0] * 1.01) > 3600
