import numpy as np

from scaling.analysis.search import halved, largest, lowest


def test_the_search_finds_a_smooth_minimum_to_1e_8_and_a_kink_to_1e_4():
    low, high = np.array([-50.0, -50.0]), np.array([50.0, 60.0])
    at = np.array([3.14159, -17.7])
    np.testing.assert_allclose(lowest(lambda x: (x - at) ** 2, low, high), at, atol=1e-8)
    kink = lowest(lambda x: np.maximum(x - at, 3 * (at - x)), low, high)
    np.testing.assert_allclose(kink, at, atol=1e-4)
    ends = lowest(lambda x: x * np.array([1.0, -1.0]), low, high)
    np.testing.assert_allclose(ends, [-50, 60])
    assert np.isnan(lowest(lambda x: x * np.nan, low, high)).all()


def test_a_point_that_is_given_is_found_where_the_grid_sees_nothing():
    """A valley narrower than the grid, between walls without a value."""
    at = np.array([1.234567])

    def value(x):
        return np.where(np.abs(x - at) < 1e-3, (x - at) ** 2, np.nan)

    low, high = np.array([-50.0]), np.array([50.0])
    assert np.isnan(lowest(value, low, high)).all()
    assert abs(lowest(value, low, high, also=at + 5e-4) - at) < 5e-4


def test_the_largest_number_that_holds_is_found_where_small_ones_do_not():
    most = np.array([1e9, 1e9, 1e3, 1e3])
    top = np.array([1e6, 1e12, 1e-9, 1e2])
    bottom = np.array([1e5, 1.0, 1e-12, 1e3])
    found = largest(lambda x: (x <= top) & (x >= bottom), most)
    np.testing.assert_allclose(found, [1e6, 1e9, 1e-9, np.nan], rtol=1e-9)


def test_halving_ends_around_the_place():
    low, high = halved(lambda x: x < 42.0, np.array([-5.0]), np.array([90.0]))
    np.testing.assert_allclose(np.exp([low, high]), 42)
    assert np.exp(low) < 42 <= np.exp(high)
