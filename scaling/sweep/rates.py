"""Rates carried to every size from where they were tuned: `study.rates_from`.

- A law.json of the learning rate (`scaling fit --law=learning_rate`) gives the rate of a run of its
  parameters and tokens; the second rate keeps the ratio that the rules of `scaling.sizes` give it.
  Where it moves with the budget, budgets of one size have no trunk to share.
- A tune.json (`scaling tune`) gives multiples of what those rules give: the multiples of its best
  trial, whatever the size (Yang et al. 2022, algorithm 1). Under muP and CompleteP, whose rates are
  those of the base, the parameterization carries them as well. Batch, warm-up and decay of that
  trial are for the config.

Each cell says in `rates_from` which file it was, by its hash.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from scaling.analysis.fitted import Law
from scaling.cells import resolve
from scaling.config import ConfigError, content, override
from scaling.runs.tuning import RATES, rates_of
from scaling.sweep.cells import Cell, Shape

KEYS = tuple(f"optimizer.{name}" for name in RATES)
ANY_TOKENS = 10**12
Carrier = Callable[[Shape, Mapping[str, Any]], Mapping[str, Any]]
"""(shape, values of `scaling.cells.RUN_KEYS`) to what is to be set beside these values."""


def check_law(law: Law, *, target: str, where: str) -> None:
    """Refuse a law that does not give `target` from the size and budget of a run.

    Raises:
      ConfigError: it does not.
    """
    form = law.form
    if form.target != target or not set(form.inputs) <= {"params", "tokens", "flops"}:
        raise ConfigError(
            f"{where}: the law {law.law} gives {form.target} from {', '.join(form.inputs)}; "
            f"needed is a law of the {target} from params and tokens, or from flops"
        )


def predicted(law: Law, cell: Cell) -> float:
    """What a law says of the run of a cell."""
    return float(law.predict(params=cell.shape.parameters.total, tokens=cell.tokens))


def carrier(config: ConfigDict) -> Carrier | None:
    """What sets the rates of this study's cells; None where `study.rates_from` names nothing.

    Raises:
      ConfigError: a file that is not there, is neither a law of the learning rate nor a search, or
        does not go with the config.
    """
    if config.study.rates_from is None:
        return None
    path = Path(config.study.rates_from)
    try:
        data = path.read_bytes()
        found = json.loads(data)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"study.rates_from: {path} cannot be read ({error}); give the whole path of a law.json "
            "or tune.json"
        ) from error
    searched = isinstance(found, dict) and {"best", "search", "trials"} <= found.keys()
    rates = _of_search(config, found, path) if searched else _of_law(config, found, path)
    source = f"{'search' if searched else 'law'}:{hashlib.sha256(data).hexdigest()[:12]}"

    def carry(shape: Shape, values: Mapping[str, Any]) -> Mapping[str, Any]:
        ruled = {key: config.optimizer[name] for key, name in zip(KEYS, RATES, strict=True)}
        twice = [key for key in KEYS if ruled[key] is not None or values.get(key) is not None]
        if twice:
            raise ConfigError(
                f"{twice[0]} is set, and study.rates_from={path} sets it too; leave one out"
            )
        # What has no rule of its own gets multiples of 1.
        unit = {} if config.optimizer.name == "muon" else {KEYS[0]: 1.0}
        cell = shape.cell({**values, **unit})
        return dict(zip(KEYS, rates(cell), strict=True)) | {"rates_from": source}

    return carry


def carried(config: ConfigDict) -> ConfigDict:
    """The config of a single run, with the rates that `study.rates_from` gives it.

    Raises:
      ConfigError: as of `carrier`.
    """
    carry = carrier(config)
    if carry is None:
        return config
    changed = copy.deepcopy(config)
    found = carry(Shape.of(config), {})
    override(changed, [f"{key}={value}" for key, value in found.items()])
    return changed


def _of_law(config: ConfigDict, found: Any, path: Path) -> Callable[[Cell], tuple[float, float]]:
    law = Law.from_json(found)
    check_law(law, target="learning_rate", where=f"study.rates_from={path}")
    if config.parameterization.name != "standard":
        raise ConfigError(
            f"study.rates_from={path} is a law of the size, by which the parameterization "
            f"{config.parameterization.name} carries rates already; use one of them"
        )

    def rates(cell: Cell) -> tuple[float, float]:
        first, second = rates_of(cell.content)
        rate = predicted(law, cell)
        return rate, rate * second / first

    return rates


def _of_search(
    config: ConfigDict, found: Mapping[str, Any], path: Path
) -> Callable[[Cell], tuple[float, float]]:
    best, searched = found["best"], found["search"]["config"]
    if best is None:
        raise ConfigError(f"{path} has no best trial; search again")
    edges = [text for text in best["warnings"] if text.startswith(KEYS)]
    if edges:
        raise ConfigError(f"{path}: {edges[0]}, and search again: a rate at an edge is not tuned")
    for section in ("optimizer", "objective", "parameterization"):
        if searched[section]["name"] != config[section].name:
            raise ConfigError(
                f"{path} is a search with {section}.name={searched[section]['name']}, found "
                f"{config[section].name}; give one of the same"
            )
    if config.optimizer.name != "muon" and config.parameterization.name == "standard":
        raise ConfigError(
            f"the rates of {path} have no rule that carries {config.optimizer.name} to another "
            "size; set parameterization.name to mup or completep, or give a law of the rate"
        )
    # The rules' own rates where it was searched; they follow from no budget.
    place, settings = copy.deepcopy(config), best["overrides"]
    place.budget.flops, place.budget.tokens = None, ANY_TOKENS
    for name in RATES:
        place.optimizer[name] = None
    own = {k: v for k, v in settings.items() if k not in KEYS and not k.startswith("budget.")}
    override(place, [f"{key}={value!r}" for key, value in own.items()])
    if config.optimizer.name != "muon":
        place.optimizer.learning_rate = 1.0
    ruled = rates_of(content(resolve(place)))
    times = [settings.get(key, rule) / rule for key, rule in zip(KEYS, ruled, strict=True)]
    if config.optimizer.name != "muon":
        times[1] = times[0]

    def rates(cell: Cell) -> tuple[float, float]:
        first, second = rates_of(cell.content)
        return first * times[0], second * times[1]

    return rates
