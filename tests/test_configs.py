"""The grids that come with the package: every one resolves, fits its text, and says what it is."""

import itertools
import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from scaling import config as configs
from scaling import counts, sizes
from scaling.analysis.rules import LAWS
from scaling.architecture import LADDER
from scaling.sweep.launch import check_data
from scaling.sweep.space import resolved, rungs_of
from scaling.sweep.study import check
from scaling.sweep.tune import counts_of
from scaling.workshop import Workshop, run_id

FOLDER = Path(__file__).resolve().parent.parent / "configs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
GRIDS = [name for name in NAMES if name != "tune"]
VARIANTS = [(name, variant) for name in GRIDS for variant in ("", "tiny", "large")
            if (name, variant) != ("quickstart", "large")]  # fmt: skip


def loaded(name: str, variant: str = "", *overrides: str) -> tuple[ConfigDict, list[ConfigDict]]:
    study = configs.load(f"configs/{name}.py:{variant}", overrides)
    assert study.grid is not None
    return study.config, list(study.grid(study.config))


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("configs"))


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_every_variant_is_a_grid_of_different_runs_of_known_sizes(name: str, variant: str) -> None:
    config, cells = loaded(name, variant)
    assert config.study.name == f"{name}-{variant}".removesuffix("-")
    assert len({run_id(cell) for cell in cells}) == len(cells) >= 6
    assert config.study.law in LAWS
    for cell in cells:
        rung = sizes.size(cell.model.width, vocabulary=cell.corpus.vocabulary)
        assert (cell.model.heads, cell.model.feedforward_width) == (rung.heads, rung.feedforward)
        if name != "width_depth":
            assert cell.model.depth == rung.depth


@pytest.mark.parametrize("name", GRIDS)
def test_the_packaged_text_suffices_for_it_and_its_tiny_variant(
    name: str, workshop: Workshop
) -> None:
    spent = []
    for variant in ("", "tiny"):
        _, cells = loaded(name, variant)
        check_data(cells, workshop)
        spent.append(sum(cell.budget.flops for cell in cells))
    assert spent[0] < 2e13
    assert spent[1] < 1e12


@pytest.mark.parametrize("name", NAMES)
def test_its_docstring_gives_the_source_the_commands_and_the_cost(name: str) -> None:
    docstring = (FOLDER / f"{name}.py").read_text(encoding="utf-8").split('"""')[1]
    assert f"--config=configs/{name}.py" in docstring
    assert f"--config=configs/{name}.py:tiny" in docstring
    assert re.search(r"\b\d+(\.\d+)? minutes?\b", docstring)
    if name != "quickstart":
        assert re.search(r"et al\. (19|20)\d\d", docstring)


def test_a_variant_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(configs.ConfigError, match="study ladder has no variant 'huge'; use none, "
                       "or :tiny, :large"):  # fmt: skip
        configs.load("configs/ladder.py:huge")


def test_the_ladder_trains_each_size_to_multiples_of_twenty_tokens_a_parameter() -> None:
    config, cells = loaded("ladder")
    axes = itertools.product(config.study.widths, config.study.multiples)
    for cell, (width, multiple) in zip(cells, axes, strict=True):
        params = counts.parameters(sizes.size(width, vocabulary=512), LADDER).total
        assert 0 <= multiple * 20 * params - cell.budget.tokens < cell.batch_tokens


def test_repeated_text_is_seen_as_often_as_the_grid_says() -> None:
    config, cells = loaded("data_constrained")
    seen = [cell.budget.tokens / cell.budget.unique_tokens for cell in cells]
    assert seen == list(config.study.epochs) * (len(cells) // len(config.study.epochs))


def test_depth_goes_apart_from_width() -> None:
    _, cells = loaded("width_depth")
    shapes = {(cell.model.width, cell.model.depth) for cell in cells}
    assert len(shapes) == 16
    assert {depth for width, depth in shapes if width == 48} == {1, 2, 4, 8}


def test_rates_are_multiples_of_the_rule_and_move_together() -> None:
    config, cells = loaded("lr_batch")
    ratios = [cell.optimizer.learning_rate / 0.01 for cell in cells]
    assert ratios == pytest.approx(list(config.study.rates) * (len(cells) // 5))
    vectors = [cell.optimizer.vector_learning_rate / 0.03 for cell in cells]
    assert vectors == pytest.approx(ratios)


def test_two_objectives_are_not_fitted_by_one_law_and_one_is() -> None:
    config, cells = loaded("mlm_vs_causal")
    assert {cell.model.attention for cell in cells} == {"causal", "bidirectional"}
    with pytest.raises(configs.ConfigError, match="causal and masked, whose losses no one law"):
        check(config, cells)
    check(*loaded("mlm_vs_causal", "", "study.objectives=masked"))


@pytest.mark.parametrize("variant", ["", "tiny", "large"])
def test_every_variant_of_the_search_has_trials_for_its_ladder(
    variant: str, workshop: Workshop
) -> None:
    study = configs.load(f"configs/tune.py:{variant}")
    assert study.search is not None
    search = study.search(study.config)
    rungs = rungs_of(search, study.config)
    assert counts_of(search, rungs)[-1] >= 1
    assert counts_of(search, rungs)[0] >= search.promote
    if variant != "large":
        check_data([resolved(study.config, rung).config for rung in search.rungs], workshop)
