"""The ladder: one dial, the width."""

import itertools

import pytest

from scaling import counts, sizes
from scaling.architecture import LADDER


@pytest.mark.parametrize(("width", "depth"), [(768, 12), (2048, 25), (12288, 96)])
def test_depth_follows_the_published_shapes(width: int, depth: int) -> None:
    assert sizes.size(width, vocabulary=50_257).depth == depth


def test_every_rung_can_be_built_and_none_is_smaller_than_the_one_before() -> None:
    rungs = list(itertools.islice(sizes.ladder(vocabulary=512), 200))
    for size in rungs:
        assert size.heads * size.head_width == size.width
        assert size.head_width % 2 == 0
    totals = [counts.parameters(size, LADDER).total for size in rungs]
    assert totals == sorted(set(totals))


@pytest.mark.parametrize("width", [64, 768, 4096, 5000])
def test_three_gated_matrices_weigh_what_two_of_four_widths_do(width: int) -> None:
    assert sizes.gated(width) % 8 == 0
    assert 0 <= 3 * sizes.gated(width) - 2 * 4 * width < 3 * 8


@pytest.mark.parametrize("width", [0, 8, 20, 130, 200, -64, 65_600])
def test_a_width_off_the_ladder_is_refused_with_its_neighbours(width: int) -> None:
    with pytest.raises(ValueError, match=r"not on the ladder; use .* such as \d+ or \d+"):
        sizes.size(width, vocabulary=512)
