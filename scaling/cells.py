"""Cells: configs of single runs, with every derived value computed once and written out."""

import copy
import dataclasses
import math
import typing
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, Literal

from ml_collections import ConfigDict

from scaling import counts, sizes
from scaling.architecture import FAMILIES, Architecture
from scaling.config import ConfigError
from scaling.data.corruption import spans_of
from scaling.runs.tuning import SOURCES

ATTENTION = {
    "causal": "causal",
    "masked": "bidirectional",
    "prefix": "causal",
    "span": "causal",
}
"""The attention that each objective needs: a look ahead would give away what is to be predicted."""
SCHEDULES = ("wsd", "wsd_sqrt", "cosine", "linear", "constant")
TRACKERS = ("tensorboard", "trackio", "wandb")
OPTIMIZERS = ("muon", "adamw", "lion", "adafactor", "sgd")
LAYERS_UNROLLED = 12
"""The deepest stack whose loop over layers is unrolled: rolled, it ran 1.3 to 2 times slower on the
CPU at depth 2 to 4; unrolled, the time to compile grows with the depth."""


def resolve(config: ConfigDict) -> ConfigDict:
    """A copy with every derived value computed and written out; resolving twice changes nothing.

    The architecture follows from the family, shape and rates from the width by the rules of
    `scaling.sizes`, tokens from the FLOPs or FLOPs from the tokens (`counts.flops_6nd`), rounded
    down to whole batches.

    Raises:
      ConfigError: neither or both of budget.flops and budget.tokens, or a value out of range.
    """
    cell = copy.deepcopy(config)
    fill_shape(cell)
    fill_run(cell, size_of(cell), architecture_of(cell))
    return cell


def cell_of(config: ConfigDict) -> ConfigDict:
    """What a single run depends on: the resolved config without its study and sweep."""
    cell = resolve(config)
    with cell.unlocked():
        del cell.study
        del cell.sweep
    return cell


RUN_KEYS = (
    "seed",
    "rates_from",
    *(f"budget.{key}" for key in ("flops", "tokens", "unique_tokens")),
    *(f"optimizer.{key}" for key in ("learning_rate", "vector_learning_rate", "weight_decay",
                                     "clip_norm", "warmup_tokens", "cooldown_fraction")),
)  # fmt: skip
"""The keys that `fill_run` reads and nothing before it does: in these alone cells of one shape
differ. They are arguments of a compiled program, never part of it."""


def fill_shape(cell: ConfigDict) -> None:
    """Compute, in place, what follows from all keys but `RUN_KEYS`, and check it.

    Raises:
      ConfigError: a value out of range, or one that does not go with another.
    """
    _check_names(cell)
    _fill(cell.corpus, sentinels=_sentinels(cell))
    _fill_model(cell)
    rule = sizes.training(cell.model.width)
    _fill(cell, batch_tokens=max(rule.batch_tokens, cell.model.context_tokens))
    _check_shape(cell)


def fill_run(cell: MutableMapping[str, Any], size: sizes.Size, architecture: Architecture) -> None:
    """Compute, in place, what else a run is, rates and budget, and check `RUN_KEYS`.

    `cell` is a config or its plain content, with the shape filled in: `size` and `architecture` are
    those that it names.

    Raises:
      ConfigError: neither or two of budget.flops and budget.tokens, or a value out of range.
    """
    _fill_rates(cell)
    _check_run(cell)
    budget, batch_tokens = cell["budget"], cell["batch_tokens"]
    if budget["tokens"] is None:
        if budget["flops"] is None:
            raise ConfigError("the run has no budget; set budget.flops or budget.tokens")
        budget["tokens"] = counts.tokens_for(size, architecture, flops=budget["flops"])
    steps = budget["tokens"] // batch_tokens
    if steps < 1:
        raise ConfigError(
            f"budget.tokens {budget['tokens']} is less than one batch of {batch_tokens} tokens; "
            "use a larger budget, a narrower model or a smaller batch"
        )
    budget["tokens"] = steps * batch_tokens
    if budget["flops"] is not None:
        bought = counts.tokens_for(size, architecture, flops=budget["flops"])
        # Rounded down to whole batches, give or take what a float cannot hold.
        if not -1 <= bought - budget["tokens"] <= batch_tokens:
            raise ConfigError(
                f"budget.tokens {budget['tokens']} and budget.flops {budget['flops']:.3g}, which "
                f"is {bought} tokens of this size, are two budgets; set one and leave the other "
                "None"
            )
    else:
        budget["flops"] = float(counts.flops_6nd(size, architecture, tokens=budget["tokens"]))


COOLING = ("wsd", "wsd_sqrt")
"""Schedules whose plateau does not know the budget: runs that differ in it alone share a trunk."""


def branch_steps(cell: Mapping[str, Any]) -> int | None:
    """After how many updates a resolved cell leaves its trunk: the last before its cooldown.

    None where the schedule knows the budget from the start, or the warm-up meets the cooldown.
    """
    optimizer, batch_tokens = cell["optimizer"], cell["batch_tokens"]
    if optimizer["schedule"] not in COOLING:
        return None
    flat = (1 - optimizer["cooldown_fraction"]) * cell["budget"]["tokens"]
    # The rate of an update is that in its middle; half an update is left to rounding.
    steps = math.floor(flat / batch_tokens - 0.5)
    return steps if steps * batch_tokens > optimizer["warmup_tokens"] else None


def trunk_content(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a trunk is, of the plain identity of any run that leaves it: all but its end."""
    optimizer = {k: v for k, v in content["optimizer"].items() if k != "cooldown_fraction"}
    budget = {"unique_tokens": content["budget"]["unique_tokens"]}
    return {**content, "optimizer": optimizer, "budget": budget}


def size_of(cell: Mapping[str, Any]) -> sizes.Size:
    """The model shape that a resolved config names."""
    model = cell["model"]
    return sizes.Size(
        width=model["width"],
        depth=model["depth"],
        heads=model["heads"],
        kv_heads=model["kv_heads"],
        head_width=model["head_width"],
        feedforward=model["feedforward_width"],
        vocabulary=model["vocabulary"],
        context=model["context_tokens"],
        token_types=model["token_types"],
    )


def architecture_of(cell: Mapping[str, Any]) -> Architecture:
    """The architecture that a resolved config names."""
    return Architecture(
        **{field.name: cell["model"][field.name] for field in dataclasses.fields(Architecture)}
    )


def _sentinels(cell: ConfigDict) -> int:
    """As many as a window has spans."""
    objective = cell.objective
    if objective.name != "span":
        return 0
    return spans_of(
        cell.model.context_tokens,
        rate=objective.mask_rate,
        mean_span_tokens=objective.mean_span_tokens,
    ).number


def _fill(section: MutableMapping[str, Any], **values: Any) -> None:
    for key, value in values.items():
        if section[key] is None:
            section[key] = value


def _fill_model(cell: ConfigDict) -> None:
    model = cell.model
    _fill(model, attention=ATTENTION[cell.objective.name])
    _fill(model, **dataclasses.asdict(FAMILIES[model.family]))
    if None in (model.depth, model.heads, model.feedforward_width):
        rung = sizes.size(model.width, vocabulary=cell.corpus.vocabulary)
        if model.activation == "swiglu":
            rung = dataclasses.replace(rung, feedforward=sizes.gated(model.width))
        _fill(model, depth=rung.depth, heads=rung.heads, feedforward_width=rung.feedforward)
    _fill(model, kv_heads=model.heads, head_width=model.width // model.heads)
    _fill(model, vocabulary=cell.corpus.vocabulary)
    _fill(cell.runtime, layers_unrolled=model.depth if model.depth <= LAYERS_UNROLLED else 1)
    # Without a base of its own a model is its own base: every parameterization is then standard.
    _fill(
        cell.parameterization,
        base_width=model.width,
        base_depth=model.depth,
        base_head_width=model.head_width,
    )


def _fill_rates(cell: MutableMapping[str, Any]) -> None:
    optimizer, rules = cell["optimizer"], cell["parameterization"]
    width = cell["model"]["width"]
    _fill(optimizer, warmup_tokens=sizes.training(width).warmup_tokens)
    if optimizer["name"] == "muon":
        # A parameterization carries the rates of its base to this width: not twice.
        rule = sizes.training(width if rules["name"] == "standard" else rules["base_width"])
        ruled = {"learning_rate": rule.matrix_rate, "vector_learning_rate": rule.vector_rate}
        _fill(optimizer, **ruled)
        _say_whence(cell, by_rule=all(optimizer[name] == rate for name, rate in ruled.items()))
        return
    if optimizer["learning_rate"] is None:
        raise ConfigError(
            f"optimizer.learning_rate has no rule for {optimizer['name']}; set it, as in "
            "--config.optimizer.learning_rate=3e-3"
        )
    if optimizer["vector_learning_rate"] not in (None, optimizer["learning_rate"]):
        raise ConfigError(
            f"optimizer.vector_learning_rate is Muon's; {optimizer['name']} has one rate: leave it "
            "out"
        )
    _fill(optimizer, vector_learning_rate=optimizer["learning_rate"])
    _say_whence(cell, by_rule=False)


def _say_whence(cell: MutableMapping[str, Any], *, by_rule: bool) -> None:
    source = cell["rates_from"]
    if source in (None, "rule", "given"):
        cell["rates_from"] = "rule" if by_rule else "given"
    elif source.partition(":")[0] not in SOURCES:
        known = ", ".join(f"{name}:..." for name in SOURCES)
        raise ConfigError(f"rates_from is {source!r}; leave it out, or use one of {known}")


def _check_names(cell: ConfigDict) -> None:
    known = {
        "objective.name": (cell.objective.name, tuple(ATTENTION)),
        "model.family": (cell.model.family, tuple(FAMILIES)),
        "parameterization.name": (cell.parameterization.name, ("standard", "mup", "completep")),
        "optimizer.name": (cell.optimizer.name, OPTIMIZERS),
        "optimizer.schedule": (cell.optimizer.schedule, SCHEDULES),
        "precision": (cell.precision, ("float32", "bfloat16")),
        "runtime.remat": (cell.runtime.remat, ("none", "full", "dots")),
        "runtime.attention_kernel": (cell.runtime.attention_kernel, ("xla", "cudnn")),
    }
    for field, hint in typing.get_type_hints(Architecture).items():
        if typing.get_origin(hint) is Literal and cell.model[field] is not None:
            known[f"model.{field}"] = cell.model[field], typing.get_args(hint)
    for key, (value, names) in known.items():
        if value not in names:
            raise ConfigError(f"{key} is {value!r}; use one of {', '.join(names)}")
    if cell.objective.whole_words and cell.objective.name != "masked":
        raise ConfigError(
            f"objective.whole_words is for the masked objective, this one is "
            f"{cell.objective.name!r}; leave it out"
        )
    rules = cell.parameterization
    if rules.name != "standard" and rules.base_width is None:
        raise ConfigError(
            f"parameterization {rules.name!r} carries rates from one width to others, and "
            "parameterization.base_width is not set; give the width at which they were tuned"
        )


def _check_run(cell: Mapping[str, Any]) -> None:
    budget, optimizer, context = cell["budget"], cell["optimizer"], cell["model"]["context_tokens"]
    _require_positive("budget", budget, ("flops", "tokens", "unique_tokens"))
    _require_positive(
        "optimizer",
        optimizer,
        ("learning_rate", "vector_learning_rate", "clip_norm", "cooldown_fraction"),
    )
    _require_zero_or_more("optimizer", optimizer, ("warmup_tokens", "weight_decay"))
    _require_fraction("optimizer", optimizer, "cooldown_fraction")
    if not 0 <= cell["seed"] < 2**31:
        raise ConfigError(f"seed is {cell['seed']}; use an integer from 0 to 2147483647")
    unique = budget["unique_tokens"]
    if unique is not None and unique < context:
        raise ConfigError(
            f"budget.unique_tokens {unique} is less than one window of {context} tokens; use more"
        )


def _check_shape(cell: ConfigDict) -> None:
    _require_positive("", cell, ("batch_tokens",))
    _require_positive(
        "model",
        cell.model,
        ("depth", "heads", "kv_heads", "head_width", "feedforward_width", "vocabulary",
         "context_tokens", "norm_epsilon", "rotary_theta", "window_tokens", "logit_cap"),
    )  # fmt: skip
    _require_positive(
        "parameterization", cell.parameterization, ("base_width", "base_depth", "base_head_width")
    )
    _require_positive("objective", cell.objective, ("mean_span_tokens",))
    _require_positive("optimizer", cell.optimizer, ("epsilon", "skip_limit"))
    _require_positive("mesh", cell.mesh, tuple(cell.mesh))
    _require_positive(
        "runtime",
        cell.runtime,
        ("evaluate_every_steps", "evaluate_windows", "log_every_steps", "checkpoint_every_steps",
         "keep_checkpoints", "dispatch_steps", "microbatches", "loss_chunk_tokens",
         "layers_unrolled", "watchdog_seconds"),
    )  # fmt: skip
    _require_zero_or_more("objective", cell.objective, ("z_loss",))
    _require_zero_or_more("corpus", cell.corpus, ("sentinels",))
    _require_zero_or_more("model", cell.model, ("token_types",))
    _require_fraction("objective", cell.objective, "mask_rate")
    decays = cell.optimizer.decays
    numbers = all(isinstance(decay, int | float) for decay in decays)
    if len(decays) != 2 or not numbers or not all(0 <= decay < 1 for decay in decays):
        raise ConfigError(
            f"optimizer.decays is {decays}; give two numbers from 0 to below 1, as in (0.9, 0.95)"
        )
    _check_model(cell)
    _check_steps(cell)


def _require_positive(section: str, values: Mapping[str, Any], keys: Sequence[str]) -> None:
    for key in keys:
        value = values[key]
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(
                f"{f'{section}.{key}'.lstrip('.')} is {value}; it must be greater than 0 and finite"
            )


def _require_zero_or_more(section: str, values: Mapping[str, Any], keys: Sequence[str]) -> None:
    for key in keys:
        if not 0 <= values[key] < math.inf:
            raise ConfigError(f"{section}.{key} is {values[key]}; use 0 or more")


def _require_fraction(section: str, values: Mapping[str, Any], key: str) -> None:
    if not 0 < values[key] <= 1:
        raise ConfigError(f"{section}.{key} is {values[key]}; use a number above 0, 1 at most")


def _check_model(cell: ConfigDict) -> None:
    model, needed = cell.model, ATTENTION[cell.objective.name]
    if cell.batch_tokens % model.context_tokens:
        raise ConfigError(
            f"batch_tokens {cell.batch_tokens} is not a multiple of model.context_tokens "
            f"{model.context_tokens}; use one that is"
        )
    if model.positions == "rotary" and model.head_width % 2:
        raise ConfigError(
            f"model.head_width {model.head_width} is odd; rotary pairs need an even one"
        )
    if model.heads % model.kv_heads:
        raise ConfigError(
            f"model.heads {model.heads} is not a multiple of model.kv_heads {model.kv_heads}; use "
            "one that is"
        )
    if model.vocabulary < cell.corpus.vocabulary:
        raise ConfigError(
            f"model.vocabulary {model.vocabulary} is smaller than corpus.vocabulary "
            f"{cell.corpus.vocabulary}; every piece needs a row"
        )
    if model.attention != needed:
        raise ConfigError(
            f"model.attention is {model.attention!r}, the objective {cell.objective.name!r} needs "
            f"{needed!r}; leave model.attention out or choose another objective"
        )


def _check_steps(cell: ConfigDict) -> None:
    runtime, windows = cell.runtime, cell.batch_tokens // cell.model.context_tokens
    for key in ("evaluate_every_steps", "checkpoint_every_steps"):
        if runtime[key] % runtime.dispatch_steps:
            raise ConfigError(
                f"runtime.{key} {runtime[key]} is not a multiple of runtime.dispatch_steps "
                f"{runtime.dispatch_steps}; use one that is"
            )
    if windows % runtime.microbatches:
        raise ConfigError(
            f"a batch of {windows} windows does not divide into runtime.microbatches "
            f"{runtime.microbatches}; use a divisor"
        )
    unknown = [name for name in runtime.trackers if name not in TRACKERS]
    if unknown:
        raise ConfigError(
            f"runtime.trackers names {unknown[0]!r}; use some of {', '.join(TRACKERS)}, or ()"
        )
    profile = runtime.profile_steps
    whole = all(isinstance(step, int) for step in profile)
    if profile and not (len(profile) == 2 and whole and 1 <= profile[0] <= profile[1]):
        raise ConfigError(
            f"runtime.profile_steps is {profile}; give (first, last), as in (20, 25), or ()"
        )
