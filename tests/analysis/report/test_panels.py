"""Axes and numbers are written so that a person reads them at a glance."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.analysis.report.panels import count, log_axis, log_ticks, loss_axis, power, tidy


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.5, "0.5"), (999, "999"), (999.9, "1k"), (107_000, "107k"), (1.56e6, "1.56M"),
     (999_900, "1M"), (7e10, "70B"), (1.5e13, "15T")],
)  # fmt: skip
def test_counts_are_written_with_three_digits_and_a_unit(value: float, written: str) -> None:
    assert count(value) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [(3e11, "3×10¹¹"), (1e12, "10¹²"), (9.96e11, "10¹²"), (5.5e-3, "5.5×10⁻³")],
)
def test_compute_is_written_with_a_power_of_ten(value: float, written: str) -> None:
    assert power(value) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [(0, "0"), (0.34827, "0.348"), (-12.34, "−12.3"), (2.14e-9, "2.14×10⁻⁹"), (-3e7, "−3×10⁷")],
)
def test_other_numbers_are_written_with_three_digits(value: float, written: str) -> None:
    assert tidy(value) == written


@given(values=st.lists(st.floats(1.5, 9.0), min_size=1, max_size=60))
def test_loss_axis_holds_all_but_the_few_that_stand_far_above(values: list[float]) -> None:
    axis = loss_axis("Loss", values)
    outside = [value for value in values if not axis.low <= value <= axis.high]
    assert len(outside) <= 0.05 * len(values) + 0.5
    assert all(value > axis.high for value in outside)


@given(letters=st.integers(10, 60), low=st.floats(1, 1e6), ratio=st.floats(2, 1e9))
def test_texts_of_ticks_that_are_kept_do_not_touch(letters: int, low: float, ratio: float) -> None:
    axis = log_axis("FLOPs", [low, low * ratio], write=power)
    step = axis.step(letters)
    kept = [*zip(axis.ticks, axis.texts, strict=True)][::step]
    for (one, text), (other, words) in itertools.pairwise(kept):
        gap = letters * (axis.place(other) - axis.place(one))
        assert gap >= (len(text) + len(words)) / 2


@given(low=st.floats(1e-3, 1e24), ratio=st.floats(1.8, 1e12))
def test_logarithmic_ticks_lie_in_the_range_and_are_few(low: float, ratio: float) -> None:
    ticks = log_ticks(low, low * ratio)
    assert 1 <= len(ticks) <= 6 or ratio < 2.5
    assert all(low <= tick <= low * ratio for tick in ticks)
