"""Whether the rates of a run were tuned: its alternatives, and the flag that they give it.

*Alternatives* are runs that differ in their rates (and seeds) alone: one size, budget, batch, text,
objective, optimizer. The loss of a pair of rates is the mean over the seeds that were tried with
it; a run that diverged, or was stopped as hopeless, is infinitely bad.

- `bracketed`: its rates are the best of its alternatives, and of each rate that varies among them
  a lower and a higher were tried.
- `tuned`: its rates were carried to it from where they were tuned. Either its config says so
  (`rates_from` is law:... or search:..., see `scaling.sweep.rates`; the record then says `tuned`),
  or muP or CompleteP carries them from a bracketed run of the same table: one of the base width and
  head width, of the same rates, optimizer, objective, family and text, whose depth is that of the
  run (muP carries over width alone) or of the base (CompleteP).
- `untuned`: neither. The rules of `scaling.sizes` were tuned on one text, objective and size, so
  that a run of theirs is untuned until its alternatives are tried.

A flag says where rates come from, not how far they were carried.
"""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from scaling.records import Record

RATES = ("learning_rate", "vector_learning_rate")
SHARED = ("budget", "batch_tokens", "corpus", "objective", "model", "parameterization", "precision",
          "optimizer")  # fmt: skip
"""The parts of a config in which alternatives agree, the rates of the optimizer left out."""
SOURCES = ("law", "search")
"""What rates are carried from, as `rates_from` names it before a colon."""
CARRYING = ("mup", "completep")
"""Parameterizations that carry rates to other widths."""

Config = Mapping[str, Any]
Rates = tuple[float, ...]


class Scored(NamedTuple):
    """What a flag is made of: the plain config of a run, how it ended, and its loss if it has one;
    what it says itself of being `tuned`."""

    config: Config
    status: str
    loss: float | None
    tuned: bool | None = None


def rates_of(config: Config) -> Rates:
    """The rates of a resolved config, in the order of `RATES`."""
    return tuple(config["optimizer"][name] for name in RATES)


def group_of(config: Config) -> str | None:
    """The same for runs that are alternatives; None for a config that does not say enough."""
    if any(part not in config for part in SHARED) or any(
        config["optimizer"].get(name) is None for name in RATES
    ):
        return None
    return _hash({part: config[part] for part in SHARED} | {"optimizer": _but_rates(config)})


def declared(config: Config) -> bool:
    """Whether a config says that its rates were carried from where they were tuned."""
    return str(config.get("rates_from")).partition(":")[0] in SOURCES


def flags(runs: Sequence[Scored | Record]) -> list[str | None]:
    """The flag of each run among these; None for one whose config does not say enough."""
    groups: dict[str | None, list[int]] = defaultdict(list)
    for index, run in enumerate(runs):
        groups[group_of(run.config)].append(index)
    unknown = set(groups.pop(None, []))
    best: set[int] = set()
    for members in groups.values():
        rates = bracketed_rates(runs[i] for i in members)
        best |= {i for i in members if runs[i].status == "ok" and rates_of(runs[i].config) == rates}
    proven = {_base(runs[i].config) for i in best}

    def flag(index: int) -> str | None:
        run = runs[index]
        if run.tuned is False:
            return "untuned"
        if index in best:
            return "bracketed"
        if run.tuned or declared(run.config):
            return "tuned"
        if index in unknown:
            return None
        return "tuned" if _carried_from(run.config) in proven else "untuned"

    return [flag(index) for index in range(len(runs))]


def bracketed_rates(alternatives: Iterable[Scored | Record]) -> Rates | None:
    """The best rates of alternatives; None where they are at an edge of what was tried.

    A run that failed (a device without memory, ...) has tried nothing.
    """
    tried: dict[Rates, list[float]] = defaultdict(list)
    for run in alternatives:
        if run.status != "failed":
            loss = run.loss if run.status == "ok" and run.loss is not None else math.inf
            tried[rates_of(run.config)].append(loss)
    if not tried:
        return None
    means = {rates: math.fsum(losses) / len(losses) for rates, losses in tried.items()}
    best = min(means, key=lambda rates: (means[rates], rates))
    varied = [(x, row) for x, row in zip(best, zip(*tried, strict=True), strict=True)
              if len(set(row)) > 1]  # fmt: skip
    inside = bool(varied) and all(min(row) < x < max(row) for x, row in varied)
    return best if inside and means[best] < math.inf else None


def _but_rates(config: Config) -> dict[str, Any]:
    return {name: value for name, value in config["optimizer"].items() if name not in RATES}


def _base(config: Config) -> str:
    """What a run whose rates are carried says of where they come from, as a run there says it."""
    model = config["model"]
    return _origin(config, model["width"], model["head_width"], model["depth"])


def _carried_from(config: Config) -> str | None:
    rules = config["parameterization"]
    if rules["name"] not in CARRYING:
        return None
    depth = rules["base_depth"] if rules["name"] == "completep" else config["model"]["depth"]
    return _origin(config, rules["base_width"], rules["base_head_width"], depth)


def _origin(config: Config, width: int, head_width: int, depth: int) -> str:
    # Batch and warm-up follow the size.
    optimizer = {k: v for k, v in config["optimizer"].items() if k != "warmup_tokens"}
    return _hash({
        "shape": (width, head_width, depth),
        "optimizer": optimizer,
        "family": config["model"]["family"],
        **{part: config[part] for part in ("corpus", "objective")},
    })  # fmt: skip


def _hash(content: Config) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
