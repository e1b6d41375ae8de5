"""Axes and numbers are written so that a person reads them at a glance."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.analysis.report.panels import count, log_ticks, power


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


@given(low=st.floats(1e-3, 1e24), ratio=st.floats(1.8, 1e12))
def test_logarithmic_ticks_lie_in_the_range_and_are_few(low: float, ratio: float) -> None:
    ticks = log_ticks(low, low * ratio)
    assert 1 <= len(ticks) <= 6 or ratio < 2.5
    assert all(low <= tick <= low * ratio for tick in ticks)
