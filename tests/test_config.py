"""Configs: derived values, overrides, refusals."""

from pathlib import Path

import pytest

from scaling import cells, counts
from scaling import config as configs
from scaling.config import ConfigError
from scaling.files import differences


def cell(*overrides: str, flops: str = "1e11"):  # type: ignore[no-untyped-def]
    config = configs.default()
    configs.override(config, [f"budget.flops={flops}", *overrides])
    return config


def test_resolving_fills_every_value_and_a_second_time_changes_nothing() -> None:
    once = cells.resolve(cell())
    unset = {key for key, value in configs.plain(once)["model"].items() if value is None}
    assert unset == {"window_tokens", "logit_cap"}
    assert None not in configs.plain(once)["optimizer"].values()
    assert configs.plain(cells.resolve(once)) == configs.plain(once)


def test_the_tokens_of_a_cell_spend_its_budget_in_whole_batches() -> None:
    resolved = cells.resolve(cell())
    size, kind = cells.size_of(resolved), cells.architecture_of(resolved)
    assert resolved.budget.tokens % resolved.batch_tokens == 0
    one_batch = counts.flops_6nd(size, kind, tokens=resolved.batch_tokens)
    assert 0 <= 1e11 - counts.flops_6nd(size, kind, tokens=resolved.budget.tokens) < one_batch


def test_nothing_but_the_tokens_depends_on_the_budget() -> None:
    small, large = (configs.plain(cells.resolve(cell(flops=f))) for f in ("1e11", "8e11"))
    assert [line.split(":")[0] for line in differences(small, large)] == [
        "budget.flops",
        "budget.tokens",
    ]


def test_copies_share_nothing_with_their_config() -> None:
    config = cell()
    resolved = cells.resolve(config)
    resolved.model.width = 128
    assert config.model.width == 64


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("optimizer.learnin_rate=1e-3", r"nearest known one is 'optimizer.learning_rate'"),
        ("optimiser.learning_rate=1e-3", r"nearest known one is 'optimizer.learning_rate'"),
        ("sed=1", r"nearest known one is 'seed'"),
        ("seed=one", r"'seed' takes int, found 'one'"),
        ("seed=1.5", r"'seed' takes int, found '1.5'"),
        ("optimizer.clip_norm=True", r"'optimizer.clip_norm' takes float, found 'True'"),
        ("model=3", r"'model' is a section; set a key in it, such as model.activation"),
        ("model.width=None", r"'model.width' cannot be None"),
        ("optimizer.weight_decay=None", r"'optimizer.weight_decay' cannot be None"),
        ("seed", r"no value; write --config.seed=VALUE"),
        ("study.widths=((1,2)*3", r"'study.widths' takes tuple"),
    ],
)
def test_an_override_that_does_not_fit_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        configs.override(configs.default(), [text])


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("seed=3", "seed", 3),
        ("seed=1e3", "seed", 1000),
        ("optimizer.learning_rate=3e-4", "optimizer.learning_rate", 3e-4),
        ("optimizer.clip_norm=2", "optimizer.clip_norm", 2.0),
        ("optimizer.learning_rate=None", "optimizer.learning_rate", None),
        ("corpus.languages=en,fr", "corpus.languages", ("en", "fr")),
        ("corpus.languages=en", "corpus.languages", ("en",)),
        ("study.budgets_flops=(1e9,2e9)", "study.budgets_flops", (1e9, 2e9)),
        ("study.name=2026", "study.name", "2026"),
    ],
)
def test_an_override_takes_the_type_of_its_key(text: str, key: str, value: object) -> None:
    config = configs.default()
    configs.override(config, [text])
    section, _, leaf = key.rpartition(".")
    found = config[section][leaf] if section else config[leaf]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("batch_tokens=1000", "not a multiple of model.context_tokens"),
        ("budget.flops=-1", "budget.flops is -1.0; it must be greater than 0"),
        ("budget.flops=1e3", "less than one batch"),
        ("optimizer.cooldown_fraction=1.5", "1 at most"),
        ("model.head_width=7", "head_width 7 is odd"),
        ("model.width=20", "not on the ladder"),
        ("seed=-1", "seed is -1"),
        ("mesh.data=0", "mesh.data is 0; it must be greater than 0"),
        ("budget.flops=1e999", "budget.flops is inf"),
        ("optimizer.warmup_tokens=-5", "warmup_tokens is -5; use 0 or more"),
        ("budget.flops=None", "set budget.flops or budget.tokens"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_remedy(override: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        cells.resolve(cell(override))


def test_shipped_configs_are_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = configs.load("configs/quickstart.py:tiny", ["seed=4"])
    assert study.config.study.name == "quickstart-tiny"
    assert study.config.seed == 4
    with pytest.raises(ConfigError, match=r"those shipped: data_constrained\.py, .*quickstart\.py"):
        configs.load("configs/missing.py")
    with pytest.raises(ConfigError, match="has no variant 'huge'"):
        configs.load("configs/quickstart.py:huge")
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(ConfigError, match="no get_config"):
        configs.load("empty.py")


def test_hashes_ignore_the_order_of_keys_and_see_every_value() -> None:
    assert configs.hash_of({"a": 1, "b": 2}) == configs.hash_of({"b": 2, "a": 1})
    assert configs.hash_of({"a": 1}) != configs.hash_of({"a": 2})


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (["model.norm=batch"], r"model.norm is 'batch'; use one of rms, layer"),
        (["model.positions=alibi"], r"model.positions is 'alibi'; use one of rotary, learned"),
        (["model.norm_position=sandwich"], r"model.norm_position is 'sandwich'; use one of pre"),
        (["model.activation=relu"], r"model.activation is 'relu'; use one of gelu"),
        (["budget.tokens=512000"], r"are two budgets; set one and leave the other None"),
        (["objective.whole_words=True"], r"whole_words is for the masked objective"),
        (["parameterization.name=mup"], r"parameterization.base_width is not set"),
        (["optimizer.decays=a,b"], r"optimizer.decays is \('a', 'b'\)"),
        (["runtime.profile_steps=a,b"], r"runtime.profile_steps is \('a', 'b'\)"),
    ],
)
def test_a_run_that_would_not_be_the_one_that_was_asked_for_is_refused(
    settings: list[str], complaint: str
) -> None:
    config = cell()
    configs.override(config, settings)
    with pytest.raises(configs.ConfigError, match=complaint):
        cells.resolve(config)
