import dataclasses

import numpy as np
import pytest

from scaling import counts, sizes
from scaling.analysis.devices import (
    DEVICES,
    Machine,
    PlanError,
    bytes_per_chip,
    device,
    largest_params,
    measured_utilization,
)
from scaling.architecture import LADDER
from scaling.records import NUMBERS, Record


def record(**changes):
    values = {"run_id": "one", "device_kind": "NVIDIA H200"} | dict.fromkeys(NUMBERS) | changes
    return Record(
        status="ok",
        config={},
        config_hash="0",
        versions={},
        code_version="0",
        created="2026-01-01T00:00:00Z",
        null_reasons={name: "not measured" for name in values if values[name] is None},
        **values,
    )


def machine(**changes):
    made = Machine(chips=8, peak_flops=1e15, utilization=0.5, tokens_per_chip=1000)
    return dataclasses.replace(made, **changes)


def test_every_device_has_a_peak_that_counts_knows_and_is_found_by_either_name():
    assert {entry.kind for entry in DEVICES.values()} == set(counts.PEAK_FLOPS)
    for entry in DEVICES.values():
        assert device(entry.name.upper()) is device(entry.kind) is entry
        assert 1e10 < entry.memory_bytes < 1e12
    with pytest.raises(PlanError, match=r"'abacus' is not in the table \(a100-40gb.*--peak_flops"):
        device("abacus")


def test_a_step_is_no_faster_with_fewer_tokens_than_keep_the_chips_busy():
    params = np.array(1e9)
    steps = machine().step(params, np.array([1.0, 4000.0, 8000.0, 16000.0]))
    busy = 6 * 1e9 * 8000 / (8 * 1e15 * 0.5)
    np.testing.assert_allclose(steps, [busy, busy, busy, 2 * busy])
    slow = machine(step_seconds=10 * busy)
    assert slow.busy_batch(params) == pytest.approx(80_000)
    assert slow.step(params, np.array(8000.0)) == pytest.approx(10 * busy)


def test_the_memory_formula_uses_the_width_and_depth_of_the_ladder():
    for width in (512, 2048, 8192):
        size = sizes.size(width, vocabulary=50_000)
        body = counts.parameters(size, LADDER).non_embedding
        found = bytes_per_chip(body, chips=4, tokens_per_chip=2048, vocabulary=50_000)
        shape = 16 * body / 4 + 2048 * ((2 * size.depth + 34) * width + 8 * 50_000)
        assert found == pytest.approx(shape, rel=0.03)


def test_the_largest_model_just_fits_and_more_chips_hold_more():
    held = [largest_params(80e9, chips=chips, tokens_per_chip=4096) for chips in (1, 8, 64)]
    assert held == sorted(held)
    # Alone a chip of 80 GB holds 5e9 parameters at 16 bytes, less what the tokens take.
    assert 4.5e9 < held[0] < 5e9
    for chips, params in zip((1, 8, 64), held, strict=True):
        taken = bytes_per_chip(params, chips=chips, tokens_per_chip=4096)
        assert taken == pytest.approx(80e9, rel=1e-9)
    with pytest.raises(PlanError, match=r"1e\+06 tokens a chip take .* before the model"):
        largest_params(16e9, chips=8, tokens_per_chip=1_000_000, vocabulary=250_000)


def test_utilization_is_measured_in_the_flops_that_a_plan_counts():
    records = [
        record(run_id=f"run-{i}", mfu=mfu, flops_6nd=8e12, flops_counted=1e13)
        for i, mfu in enumerate((0.3, 0.4, 0.5))
    ]
    assert measured_utilization(records) == pytest.approx(0.32)
    assert measured_utilization(records, kind="NVIDIA H200") == pytest.approx(0.32)
    with pytest.raises(PlanError, match="no run on TPU v4 has a measured MFU; give one"):
        measured_utilization(records, kind="TPU v4")
    with pytest.raises(PlanError, match="no run has a measured MFU"):
        measured_utilization([record()])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"utilization": 40.0}, "MFU 40.0 is above 1"),
        ({"chips": 0}, "chips is 0; give a positive"),
        ({"step_seconds": -1.0}, "seconds per step -1.0"),
        ({"price_per_hour": float("nan")}, "price per hour is nan"),
    ],
)
def test_a_machine_that_is_none_is_refused(changes, message):
    with pytest.raises(PlanError, match=message):
        machine(**changes)
