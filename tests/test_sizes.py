"""The ladder: one dial, the width."""

import itertools

import numpy as np
import pytest

from scaling import cells, config, counts, sizes
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


@pytest.mark.parametrize("width", range(sizes.TRIED[0], sizes.TRIED[1] + 1, 8))
def test_within_the_widths_that_were_tried_the_rule_is_what_was_tuned(width: int) -> None:
    assert sizes.training(width) == (0.01, 0.03, 512, 32_768)


def test_beyond_them_batch_and_rates_go_on_from_there_as_the_cited_powers_say() -> None:
    rungs = list(itertools.islice(sizes.ladder(vocabulary=512), 400))
    rules = [sizes.training(size.width) for size in rungs]
    batches = [rule.batch_tokens for rule in rules]
    # In powers of two, never more than one at once, and none falls.
    assert {after / before for before, after in itertools.pairwise(batches)} == {1, 2}
    assert {rule.warmup_tokens / rule.batch_tokens for rule in rules} == {64}
    assert {rule.matrix_rate for rule in rules} == {0.01}
    small, large = rungs[-300], rungs[-1]
    tokens = [20 * counts.parameters(size, LADDER).non_embedding for size in (small, large)]
    wanted = (tokens[1] / tokens[0]) ** 0.571
    found = sizes.training(large.width).batch_tokens / sizes.training(small.width).batch_tokens
    assert wanted / 2 < found < wanted * 2
    for size, rule in zip(rungs, rules, strict=True):
        assert rule.vector_rate == pytest.approx(0.03 * min(1, 88 / size.width))


def test_the_step_law_along_compute_optimal_runs_is_the_rate_that_follows_the_width() -> None:
    """What remains of Li et al. 2025's rate when Yang et al. 2022's 1/width is taken out."""
    narrow, wide = (sizes.size(width, vocabulary=512) for width in (512, 8192))
    rates = []
    for size in (narrow, wide):
        params = counts.parameters(size, LADDER).non_embedding
        rates.append(1.79 * params**-0.713 * (20 * params) ** 0.307 * size.width)
    assert 0.7 < rates[1] / rates[0] < 1


def test_a_parameterization_carries_the_rates_of_its_base_and_not_those_of_the_width() -> None:
    study = config.default()
    config.override(study, ["model.width=256", "budget.tokens=1e6"])
    assert cells.resolve(study).optimizer.vector_learning_rate == pytest.approx(0.03 * 88 / 256)
    config.override(study, ["parameterization.name=mup", "parameterization.base_width=40"])
    assert cells.resolve(study).optimizer.vector_learning_rate == 0.03


@pytest.mark.parametrize("width", [16, 64, 88, 120, 192, 768, 4096, 12_288])
def test_the_rung_nearest_to_the_parameters_of_a_rung_is_that_rung(width: int) -> None:
    params = 12 * width**2 * 12 * (width / 768) ** 0.75
    assert sizes.nearest(params) == width


def test_batches_of_many_sizes_are_those_of_each_rung() -> None:
    params = np.geomspace(1e3, 1e15, 400)
    expected = [sizes.training(sizes.nearest(one)).batch_tokens for one in params]
    np.testing.assert_array_equal(sizes.batch_tokens(params), expected)
