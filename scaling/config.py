"""The configuration: every key the code reads, its unit in its name.

A study's config is a Python file in `configs/` (it is run as code) with `get_config(arg)`, which
returns a ConfigDict made from `default()`, and, for a sweep, `get_grid(config)`, the list of its
cells, or `get_search(config)`, the `scaling.sweep.space.Search` of `scaling tune`.
"""

import ast
import difflib
import hashlib
import importlib.util
import json
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from scaling.architecture import Architecture


class ConfigError(ValueError):
    """A config that cannot be used; the message names the key, what was found and the remedy."""


def default() -> ConfigDict:
    """Every key, with the value a study has unless it says otherwise; placeholders follow from
    others.

    `runtime`, `mesh` and `sweep` say how runs are carried out, all else what they are: see
    `identity`.
    """
    config = ConfigDict()
    config.seed = 0

    config.corpus = ConfigDict()
    config.corpus.name = "wiki-leads"
    config.corpus.languages = ("en", "es", "fr")
    config.corpus.vocabulary = 512
    config.corpus.sentinels = placeholder(int)

    config.objective = ConfigDict()
    config.objective.name = "causal"
    config.objective.mask_rate = 0.15
    config.objective.whole_words = False
    config.objective.mean_span_tokens = 3.0
    config.objective.z_loss = 0.0

    config.model = ConfigDict()
    config.model.family = "ladder"
    config.model.width = 64
    for key in ("depth", "heads", "kv_heads", "head_width", "feedforward_width", "vocabulary"):
        config.model[key] = placeholder(int)
    config.model.context_tokens = 128
    for key, kind in _architecture_keys():
        config.model[key] = placeholder(kind)

    config.parameterization = ConfigDict()
    config.parameterization.name = "standard"
    config.parameterization.base_width = placeholder(int)
    config.parameterization.base_depth = placeholder(int)
    config.parameterization.base_head_width = placeholder(int)

    # Either the compute or the tokens of the run; the other follows. With unique_tokens only so
    # much of the corpus is seen, again and again.
    config.budget = ConfigDict()
    config.budget.flops = placeholder(float)
    config.budget.tokens = placeholder(int)
    config.budget.unique_tokens = placeholder(int)
    config.batch_tokens = placeholder(int)
    # Where the rates come from, filled in: "rule", "given", or "law:..." and "search:..." by which
    # study.rates_from carried them. It changes nothing of a run.
    config.rates_from = placeholder(str)
    config.precision = "float32"

    config.optimizer = ConfigDict()
    config.optimizer.name = "muon"
    config.optimizer.schedule = "wsd"
    config.optimizer.learning_rate = placeholder(float)
    config.optimizer.vector_learning_rate = placeholder(float)
    config.optimizer.weight_decay = 0.0
    config.optimizer.clip_norm = 1.0
    config.optimizer.warmup_tokens = placeholder(int)
    config.optimizer.cooldown_fraction = 0.3
    config.optimizer.decays = (0.9, 0.95)
    config.optimizer.epsilon = 1e-8
    config.optimizer.skip_limit = 10

    config.runtime = ConfigDict()
    config.runtime.evaluate_every_steps = 500
    config.runtime.evaluate_windows = 128
    config.runtime.log_every_steps = 50
    config.runtime.checkpoint_every_steps = 2000
    config.runtime.keep_checkpoints = 2
    config.runtime.dispatch_steps = 1
    config.runtime.microbatches = 1
    config.runtime.loss_chunk_tokens = placeholder(int)
    config.runtime.remat = "none"
    config.runtime.layers_unrolled = placeholder(int)
    config.runtime.attention_kernel = "xla"
    config.runtime.compile_cache = True
    config.runtime.watchdog_seconds = 1800.0
    config.runtime.profile_steps = ()
    config.runtime.trackers = ()

    config.mesh = ConfigDict()
    config.mesh.data = 1
    config.mesh.fsdp = 1
    config.mesh.tensor = 1
    config.mesh.context = 1

    config.sweep = ConfigDict()
    config.sweep.trunks = True
    # So many cells of one shape train as one program; None measures what pays (a search takes
    # 1), 1 trains each by itself.
    config.sweep.packed = placeholder(int)
    # A worker that is silent for so long loses its task; one that ends without its result is
    # started again so often.
    config.sweep.lease_seconds = 30.0
    config.sweep.retries = 3
    # Whether runs of a grid are given up of which runs of other rates say that they are hopeless.
    config.sweep.early_stop = False
    # What each task asks of a Ray cluster; other resources as NAME:AMOUNT.
    config.sweep.ray = ConfigDict()
    config.sweep.ray.num_cpus = 1.0
    config.sweep.ray.num_gpus = 0.0
    config.sweep.ray.resources = ()
    # What each job asks of Slurm; `setup` are lines of shell, `more` options of sbatch as
    # KEY=VALUE.
    config.sweep.slurm = ConfigDict()
    config.sweep.slurm.cluster = "slurm"
    config.sweep.slurm.partition = placeholder(str)
    config.sweep.slurm.minutes = 60
    config.sweep.slurm.cpus_per_task = 1
    config.sweep.slurm.gpus_per_node = 0
    config.sweep.slurm.memory_gb = placeholder(float)
    config.sweep.slurm.at_once = 256
    config.sweep.slurm.setup = ()
    config.sweep.slurm.more = ()

    config.study = ConfigDict()
    config.study.name = "study"
    config.study.budgets_flops = ()
    config.study.widths = ()
    # A law.json of the learning rate, or a tune.json, by which rates follow the size.
    config.study.rates_from = placeholder(str)
    config.study.target_flops = placeholder(float)
    config.study.law = "chinchilla"
    config.study.bootstrap_samples = 1000
    return config


Variants = Mapping[str, Mapping[str, Any]]
"""Keys that are set, by the argument of a config file."""


def variant(config: ConfigDict, argument: str, variants: Variants) -> ConfigDict:
    """Set the keys of the variant of a study that the argument of its config file names ("" is the
    study itself), and name the study after it.

    Raises:
      ConfigError: no such variant; those that there are are named.
    """
    if argument not in variants:
        others = ", ".join(f":{name}" for name in variants if name)
        raise ConfigError(
            f"the study {config.study.name} has no variant {argument!r}; use none, or {others}"
        )
    override(config, [f"{key}={value!r}" for key, value in variants[argument].items()])
    config.study.name += f"-{argument}" if argument else ""
    return config


def _architecture_keys() -> Iterator[tuple[str, type]]:
    """The fields of `Architecture`, with the type that each takes when it is set."""
    for key, hint in typing.get_type_hints(Architecture).items():
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)] or [hint]
        yield key, kinds[0] if isinstance(kinds[0], type) else type(kinds[0])


HOW = ("runtime", "mesh", "sweep", "rates_from")
"""Parts that say how a run is carried out, or why its rates are what they are: they may change when
it is resumed."""


def identity(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a run or study is, of its plain config: everything but how it is carried out."""
    return {key: value for key, value in content.items() if key not in HOW}


class Study(NamedTuple):
    """A loaded config file."""

    config: ConfigDict
    grid: Callable[[ConfigDict], Sequence[ConfigDict]] | None
    search: Callable[[ConfigDict], Any] | None


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
    return Study(config, getattr(module, "get_grid", None), getattr(module, "get_search", None))


def located(spec: str) -> str:
    """The same `FILE[:ARG]` for a process that works elsewhere: a file that is here is named by its
    whole path."""
    path, colon, argument = spec.partition(":")
    here = Path(path)
    return f"{here.resolve()}{colon}{argument}" if here.is_file() else spec


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
        key, equals, _ = text.partition("=")
        if not equals:
            raise ConfigError(f"override {text!r} has no value; write --config.{key}=VALUE")
        if key in config and key not in known:
            inside = ", ".join(f"{key}.{name}" for name in list(config[key])[:3])
            raise ConfigError(f"config key {key!r} is a section; set a key in it, such as {inside}")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise ConfigError(f"unknown config key {key!r}; the nearest known one is {near!r}")
    kinds = kinds_of(config, [text.partition("=")[0] for text in overrides])
    for text, kind in zip(overrides, kinds, strict=True):
        section, leaf = _section(config, kind.key)
        section[leaf] = parse(text.partition("=")[2], kind)


class Kind(NamedTuple):
    """What a key takes."""

    key: str
    type: type
    nullable: bool


def kinds_of(config: ConfigDict, keys: Sequence[str]) -> list[Kind]:
    """What each of these keys takes."""
    nullable = {key for key, value in _leaves(default()) if value is None}
    places = [_section(config, key) for key in keys]
    return [
        Kind(key, section.get_type(leaf), key in nullable)
        for key, (section, leaf) in zip(keys, places, strict=True)
    ]


def _section(config: ConfigDict, key: str) -> tuple[ConfigDict, str]:
    """The section that a key is in, and its name there."""
    parent, _, leaf = key.rpartition(".")
    for part in filter(None, parent.split(".")):
        config = config[part]
    return config, leaf


def parse(text: str, kind: Kind) -> Any:
    """The value that a text stands for.

    Raises:
      ConfigError: a value that the key does not take.
    """
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    wanted = kind.type
    if isinstance(value, int) and not isinstance(value, bool) and wanted is float:
        value = float(value)
    if isinstance(value, float) and wanted is int and value.is_integer():
        value = int(value)
    if wanted is tuple and not isinstance(value, tuple) and not text.startswith("("):
        value = tuple(text.split(",")) if isinstance(value, str) else (value,)
    if wanted is str and not isinstance(value, str):
        value = text
    if value is not None and (
        not isinstance(value, wanted) or isinstance(value, bool) != (wanted is bool)
    ):
        raise ConfigError(f"config key {kind.key!r} takes {wanted.__name__}, found {text!r}")
    if value is None and not kind.nullable:
        raise ConfigError(f"config key {kind.key!r} cannot be None; give a value")
    return value


def _leaves(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key in config:
        value = config[key]
        if isinstance(value, ConfigDict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def content(config: ConfigDict | Mapping[str, Any]) -> Mapping[str, Any]:
    """What a config holds, as dictionaries; what is that already is given back as it is."""
    found: Mapping[str, Any] = config.to_dict() if isinstance(config, ConfigDict) else config
    return found


def plain(config: ConfigDict) -> dict[str, Any]:
    """The config as JSON-ready dictionaries; tuples become lists."""
    return json.loads(config.to_json())


def hash_of(content: Mapping[str, Any]) -> str:
    """SHA-256 of a plain config, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
