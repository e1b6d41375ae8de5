import dataclasses

import numpy as np
import pytest

from scaling import counts, sizes
from scaling.analysis.allocation import allocate
from scaling.analysis.budget import Budget, budget_of
from scaling.analysis.fit import fit
from scaling.analysis.shapes import build, on_the_ladder, whole_batch
from scaling.architecture import LADDER
from scaling.cells import architecture_of, resolve, size_of
from scaling.config import load, override
from scaling.sweep.planned import nearest_shape


@pytest.fixture(scope="module")
def law(known):
    return fit(known.runs(noise=0.003), bootstrap=50)


def machine(**changes):
    values = {
        "chips": 16, "peak_flops": 1e11, "utilization": 0.3, "tokens_per_chip": 256,
        "hours": 0.02, "critical_batch": 2e4,
    }  # fmt: skip
    return budget_of(**values | changes)


def test_the_ladder_gives_the_nearest_rung_and_the_tokens_of_the_budget():
    shape = on_the_ladder(vocabulary=512)(60_000, 1e12)
    totals = {
        size.width: counts.parameters(size, LADDER).total for size in sizes.ladder(vocabulary=512)
    }
    nearest = min(totals, key=lambda width: abs(np.log(totals[width] / 60_000)))
    assert shape.overrides == {"model.width": nearest, "budget.flops": 1e12}
    assert shape.params == totals[nearest]
    assert 6 * shape.params * shape.tokens == pytest.approx(1e12, rel=1e-3)


def test_a_built_run_is_whole_batches_that_every_chip_shares_and_keeps_the_hours(law):
    budget = machine()
    best = allocate(law.form, law.values, budget)
    built = build(law, budget, best, shape_for=on_the_ladder(vocabulary=64), loss=None, by="time")
    batch = built.overrides["batch_tokens"]
    assert batch % (16 * 256) == 0
    assert built.tokens % batch == 0
    assert built.overrides["budget.tokens"] == built.tokens
    assert "budget.flops" not in built.overrides
    assert built.allocation.seconds <= 0.02 * 3600 * (1 + 1e-9)
    assert built.allocation.loss == pytest.approx(float(best.loss), rel=0.01)


def test_a_size_that_breaks_a_limit_gives_way_to_the_next_that_keeps_it(law):
    free = machine()
    best = allocate(law.form, law.values, free)
    shapes = on_the_ladder(vocabulary=64)
    nearest = shapes(float(best.params), 1e12).params
    budget = dataclasses.replace(free, params_high=nearest - 1.0)
    best = allocate(law.form, law.values, budget)
    built = build(law, budget, best, shape_for=shapes, loss=None, by="time")
    assert built.params < nearest
    low = dataclasses.replace(free, params_low=1e12, params_high=1.1e12)
    assert build(law, low, best, shape_for=shapes, loss=None, by="time") is None


def test_a_built_run_reaches_the_loss_that_was_asked_for(law):
    budget = Budget(inference_tokens=1e7)
    best = allocate(law.form, law.values, Budget(flops=1e13))
    loss = float(best.loss)
    built = build(law, budget, best, shape_for=on_the_ladder(vocabulary=64), loss=loss, by="flops")
    assert built.allocation.loss <= loss * (1 + 1e-9)
    assert law.predict(built.params, built.tokens - 1000) > built.allocation.loss


def test_flops_alone_are_handed_on_as_they_are(law):
    budget = Budget(flops=1.1e13)
    best = allocate(law.form, law.values, budget)
    built = build(law, budget, best, shape_for=on_the_ladder(vocabulary=64), loss=None, by="flops")
    assert built.overrides["budget.flops"] == 1.1e13
    assert set(built.overrides) == {"model.width", "budget.flops"}
    assert build(law, budget, best, shape_for=lambda *_: None, loss=None, by="flops") is None


def test_the_overrides_of_a_built_run_resolve_to_its_numbers(law):
    config = load("configs/quickstart.py").config
    budget = machine()
    best = allocate(law.form, law.values, budget)
    built = build(law, budget, best, shape_for=nearest_shape(config), loss=None, by="time")
    override(config, [f"{key}={value!r}" for key, value in built.overrides.items()])
    cell = resolve(config)
    assert cell.budget.tokens == built.tokens
    assert cell.batch_tokens == built.overrides["batch_tokens"]
    assert counts.parameters(size_of(cell), architecture_of(cell)).total == built.params


@pytest.mark.parametrize(
    ("batch", "whole"), [(100.0, 256), (700.0, 768), (4000.0, 4096), (5000.0, 4096),
                         (6500.0, 8192)],
)  # fmt: skip
def test_a_batch_is_a_whole_number_of_what_the_chips_take(batch, whole):
    assert whole_batch(machine(), batch) == whole
    assert whole_batch(Budget(), 100.4) == 100
