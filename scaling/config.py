"""The configuration: every key the code reads, its unit in its name, derived values filled in once.

A study's config is a Python file in `configs/` (it is run as code) with `get_config(arg)`, which
returns a ConfigDict made from `default()`, and, for a sweep, `get_grid(config)`, the list of its
cells.
"""

import ast
import copy
import difflib
import hashlib
import importlib.util
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from scaling import counts, sizes


class ConfigError(ValueError):
    """A config that cannot be used; the message names the key, what was found and the remedy."""


def default() -> ConfigDict:
    """Every key, with the value a study has unless it says otherwise; placeholders follow from the
    width."""
    config = ConfigDict()
    config.seed = 0

    config.corpus = ConfigDict()
    config.corpus.name = "wiki-leads"
    config.corpus.languages = ("en", "es", "fr")
    config.corpus.vocabulary = 512

    config.model = ConfigDict()
    config.model.width = 64
    config.model.depth = placeholder(int)
    config.model.heads = placeholder(int)
    config.model.head_width = placeholder(int)
    config.model.feedforward_width = placeholder(int)
    config.model.context_tokens = 128

    # Either the compute or the tokens of the run; the other follows.
    config.budget = ConfigDict()
    config.budget.flops = placeholder(float)
    config.budget.tokens = placeholder(int)
    config.batch_tokens = placeholder(int)

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate = placeholder(float)
    config.optimizer.vector_learning_rate = placeholder(float)
    config.optimizer.weight_decay = 0.0
    config.optimizer.clip_norm = 1.0
    config.optimizer.warmup_tokens = placeholder(int)
    config.optimizer.cooldown_fraction = 0.3

    config.evaluate_every_steps = 500
    config.evaluate_windows = 128
    config.log_every_steps = 50
    config.checkpoint_every_steps = 2000
    config.keep_checkpoints = 2

    config.mesh = ConfigDict()
    config.mesh.data = 1
    config.mesh.fsdp = 1
    config.mesh.tensor = 1

    config.study = ConfigDict()
    config.study.name = "study"
    config.study.budgets_flops = ()
    config.study.widths = ()
    config.study.target_flops = placeholder(float)
    config.study.law = "chinchilla"
    config.study.bootstrap_samples = 1000
    return config


class Study(NamedTuple):
    """A loaded config file."""

    config: ConfigDict
    grid: Callable[[ConfigDict], list[ConfigDict]] | None


def load(spec: str, overrides: Sequence[str] = ()) -> Study:
    """Load `"configs/x.py"` or `"configs/x.py:arg"` and apply overrides
    `"optimizer.learning_rate=3e-4"`.

    A path is looked for from the working directory, then among the configs that come with the
    package. The file is Python and is run: load only what you would run.

    Raises:
      ConfigError: no such file, no `get_config` in it, or an override that does not fit.
    """
    path, _, argument = spec.partition(":")
    found = _find(path)
    module_spec = importlib.util.spec_from_file_location(f"scaling_config_{found.stem}", found)
    if module_spec is None or module_spec.loader is None:
        raise ConfigError(
            f"{found} is not a Python file; a config is a .py file with get_config(arg)"
        )
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ConfigError(
            f"{found} has no get_config(arg); see configs/quickstart.py for one that has"
        )
    config = module.get_config(argument)
    override(config, overrides)
    return Study(config, getattr(module, "get_grid", None))


def _find(path: str) -> Path:
    here = Path(__file__).resolve().parent
    name = path.removeprefix("configs/")
    candidates = [Path(path), here.parent / "configs" / name, here / "configs" / name]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    shipped = sorted(
        {
            p.name
            for folder in (here.parent / "configs", here / "configs")
            for p in folder.glob("*.py")
        }
    )
    raise ConfigError(
        f"no config file {path!r}; give a path, or one of those shipped: {', '.join(shipped)}"
    )


def override(config: ConfigDict, overrides: Sequence[str]) -> None:
    """Set `"key.sub=value"` in place; the value must fit the type that the key has.

    Raises:
      ConfigError: an unknown key (the nearest known one is named) or a value of another type.
    """
    known = dict(_leaves(config))
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"override {text!r} has no value; write --config.{key}=VALUE")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise ConfigError(f"unknown config key {key!r}; the nearest known one is {near!r}")
        parent, _, leaf = key.rpartition(".")
        section = config
        for part in filter(None, parent.split(".")):
            section = section[part]
        section[leaf] = _parse(value, section.get_type(leaf), key)


def _parse(text: str, kind: type, key: str) -> Any:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    if isinstance(value, int) and not isinstance(value, bool) and kind is float:
        value = float(value)
    if isinstance(value, float) and kind is int and value.is_integer():
        value = int(value)
    if kind is tuple and not isinstance(value, tuple) and not text.startswith("("):
        value = tuple(text.split(",")) if isinstance(value, str) else (value,)
    if kind is str and not isinstance(value, str):
        value = text
    if value is not None and (
        not isinstance(value, kind) or isinstance(value, bool) != (kind is bool)
    ):
        raise ConfigError(f"config key {key!r} takes {kind.__name__}, found {text!r}")
    return value


def _leaves(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key in config:
        value = config[key]
        if isinstance(value, ConfigDict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def resolve(config: ConfigDict) -> ConfigDict:
    """A copy with every derived value computed and written out; resolving twice changes nothing.

    Shape and rates follow from the width by the rules of `scaling.sizes`; tokens follow from the
    FLOPs or FLOPs from tokens (`counts.flops_6nd`), rounded down to whole batches.

    Raises:
      ConfigError: neither or both of budget.flops and budget.tokens, or a value out of range.
    """
    cell = copy.deepcopy(config)
    model = cell.model
    rung = sizes.size(model.width, vocabulary=cell.corpus.vocabulary)
    _fill(model, depth=rung.depth, heads=rung.heads)
    _fill(model, head_width=model.width // model.heads, feedforward_width=rung.feedforward)
    _fill(cell, batch_tokens=sizes.TRAINING.batch_tokens)
    _fill(
        cell.optimizer,
        learning_rate=sizes.TRAINING.matrix_rate,
        vector_learning_rate=sizes.TRAINING.vector_rate,
        warmup_tokens=sizes.TRAINING.warmup_tokens,
    )
    _check(cell)
    shape = size_of(cell)
    if cell.budget.tokens is None:
        if cell.budget.flops is None:
            raise ConfigError("the run has no budget; set budget.flops or budget.tokens")
        cell.budget.tokens = counts.tokens_for(shape, flops=cell.budget.flops)
    steps = cell.budget.tokens // cell.batch_tokens
    if steps < 1:
        raise ConfigError(
            f"budget.tokens {cell.budget.tokens} is less than one batch of {cell.batch_tokens} "
            "tokens; use a larger budget, a narrower model or a smaller batch"
        )
    cell.budget.tokens = steps * cell.batch_tokens
    if cell.budget.flops is None:
        cell.budget.flops = float(counts.flops_6nd(shape, tokens=cell.budget.tokens))
    return cell


def _fill(section: ConfigDict, **values: Any) -> None:
    for key, value in values.items():
        if section[key] is None:
            section[key] = value


def _check(cell: ConfigDict) -> None:
    positive = {
        "model.context_tokens": cell.model.context_tokens,
        "batch_tokens": cell.batch_tokens,
        "budget.flops": cell.budget.flops,
        "budget.tokens": cell.budget.tokens,
        "optimizer.learning_rate": cell.optimizer.learning_rate,
        "optimizer.vector_learning_rate": cell.optimizer.vector_learning_rate,
        "optimizer.clip_norm": cell.optimizer.clip_norm,
        "optimizer.cooldown_fraction": cell.optimizer.cooldown_fraction,
        "evaluate_every_steps": cell.evaluate_every_steps,
        "evaluate_windows": cell.evaluate_windows,
        "log_every_steps": cell.log_every_steps,
        "checkpoint_every_steps": cell.checkpoint_every_steps,
        "keep_checkpoints": cell.keep_checkpoints,
        **{f"mesh.{axis}": devices for axis, devices in cell.mesh.items()},
    }
    for key, value in positive.items():
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"{key} is {value}; it must be greater than 0 and finite")
    for key in ("warmup_tokens", "weight_decay"):
        if not 0 <= cell.optimizer[key] < math.inf:
            raise ConfigError(f"optimizer.{key} is {cell.optimizer[key]}; use 0 or more")
    if cell.optimizer.cooldown_fraction > 1:
        raise ConfigError(
            f"optimizer.cooldown_fraction is {cell.optimizer.cooldown_fraction}; use 1 at most"
        )
    if cell.batch_tokens % cell.model.context_tokens:
        raise ConfigError(
            f"batch_tokens {cell.batch_tokens} is not a multiple of model.context_tokens "
            f"{cell.model.context_tokens}; use one that is"
        )
    if cell.model.head_width % 2:
        raise ConfigError(
            f"model.head_width {cell.model.head_width} is odd; rotary pairs need an even one"
        )
    if not 0 <= cell.seed < 2**31:
        raise ConfigError(f"seed is {cell.seed}; use an integer from 0 to 2147483647")


def size_of(cell: ConfigDict) -> sizes.Size:
    """The model shape that a resolved config names."""
    return sizes.Size(
        width=cell.model.width,
        depth=cell.model.depth,
        heads=cell.model.heads,
        head_width=cell.model.head_width,
        feedforward=cell.model.feedforward_width,
        vocabulary=cell.corpus.vocabulary,
    )


def cell_of(config: ConfigDict) -> ConfigDict:
    """What a single run depends on: the resolved config without its study."""
    cell = resolve(config)
    with cell.unlocked():
        del cell.study
    return cell


def plain(config: ConfigDict) -> dict[str, Any]:
    """The config as JSON-ready dictionaries; tuples become lists."""
    return json.loads(config.to_json())


def hash_of(content: Mapping[str, Any]) -> str:
    """SHA-256 of a plain config, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The keys in which two plain configs differ, as `"key: found -> wanted"`."""
    lines: list[str] = []
    for key in sorted({*found, *wanted}):
        old, new = (side.get(key) for side in (found, wanted))
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            lines.append(f"{prefix}{key}: {old} -> {new}")
    return lines
