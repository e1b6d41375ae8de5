import numpy as np
import pytest

from scaling.analysis.allocation import allocate
from scaling.analysis.budget import Budget, budget_of
from scaling.analysis.limits import assumptions, binding
from scaling.analysis.rules import LAWS

CHINCHILLA = LAWS["chinchilla"]
VALUES = np.array([1.69, 406.4, 410.7, 0.336, 0.283])
MACHINE = {"chips": 64, "device_name": "h100", "utilization": 0.4}


@pytest.mark.parametrize(
    ("budget", "names"),
    [
        (Budget(flops=1e21), ["compute"]),
        (budget_of(**MACHINE, hours=24.0), ["time"]),
        (budget_of(**MACHINE, lifetime_hours=24.0, inference_tokens=1e12), ["lifetime"]),
        (budget_of(**MACHINE, hours=4.0, lifetime_hours=24.0, inference_tokens=1e9), ["time"]),
        (Budget(flops=1e21, unique_tokens=1e10), ["compute", "unique data"]),
        (Budget(unique_tokens=1e10, params_high=1e9), ["unique data", "largest size"]),
        (Budget(flops=1e21, params_low=1e10), ["compute", "smallest size"]),
        (budget_of(chips=1, device_name="tpu-v5e", utilization=0.5, hours=1e5),
         ["time", "memory"]),
        (budget_of(**MACHINE, hours=24.0, unique_tokens=1e13), ["time"]),
    ],
)  # fmt: skip
def test_the_limits_that_bind_are_named(budget, names):
    found = allocate(CHINCHILLA, VALUES, budget)
    assert binding(CHINCHILLA, budget, found) == names


def test_every_limit_says_what_it_takes_for_granted():
    budget = budget_of(
        **MACHINE, hours=24.0, step_seconds=0.5, unique_tokens=1e12, epochs=4.0,
        inference_tokens=1e12, serving_utilization=0.05,
    )  # fmt: skip
    told = " ".join(assumptions(CHINCHILLA, budget))
    for text in ("6 params tokens", "1e+12 tokens that the model will read", "64 x h100", "0.5 s",
                 "at 0.05 of their peak",
                 "16 bytes a parameter", "Zhang et al. 2025", "up to 4 epochs"):  # fmt: skip
        assert text in told
    knows = " ".join(assumptions(LAWS["data_constrained"], Budget(flops=1.0, unique_tokens=1e9)))
    assert "says what repeats of the unique tokens are worth" in knows
    alone = " ".join(assumptions(CHINCHILLA, Budget(flops=1.0, batch_tokens=1e6)))
    assert "a larger batch is taken to cost no tokens" in alone
