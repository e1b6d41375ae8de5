"""Between plans and configs: the models that a config can build, the runs that a plan proposes."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from scaling import counts, sizes
from scaling.analysis.devices import PlanError
from scaling.analysis.plan import SCHEMA, RunShape
from scaling.cells import architecture_of, cell_of, resolve, size_of
from scaling.files import encode
from scaling.sweep.cells import Cells
from scaling.sweep.grid import SEEDS, cells, with_overrides
from scaling.sweep.rates import carried

FIRST_SEED = 2**30
"""Of runs that a plan proposes; those of grids are smaller (`seed * SEEDS + number`)."""


def nearest_shape(config: ConfigDict) -> Callable[[float, float], RunShape]:
    """Rung of the ladder nearest to a number of parameters, with the tokens its budget buys."""

    def shape_for(params: float, flops: float) -> RunShape:
        kind = architecture_of(resolve(with_overrides(config, {"budget.flops": float(flops)})))
        distances = {
            size.width: abs(math.log(counts.parameters(size, kind).total / params))
            for size in sizes.ladder(vocabulary=config.corpus.vocabulary)
        }
        width = min(distances, key=distances.__getitem__)
        overrides = {"model.width": width, "budget.flops": float(flops)}
        cell = cell_of(with_overrides(config, overrides))
        total = counts.parameters(size_of(cell), architecture_of(cell)).total
        return RunShape(params=total, tokens=cell.budget.tokens, overrides=overrides)

    return shape_for


def planned_cell(config: ConfigDict, target: Mapping[str, Any]) -> ConfigDict:
    """The resolved cell that a target of plan.json describes: number 0 of its study."""
    cell = with_overrides(config, target["overrides"])
    cell.seed = config.seed * SEEDS
    return cell_of(carried(cell))


def proposed(config: ConfigDict, path: Path) -> Cells:
    """The runs that a plan.json proposes: its next runs, or, where it has none, its targets.

    Each next run has a seed of its own, which follows from the plan: the same plan gives the same
    runs, and another plan that proposes the same cell proposes another run of it.

    Raises:
      PlanError: a file that is no plan, or proposes nothing that can be trained; models that this
        config does not make.
      ConfigError: overrides that do not fit the config.
    """
    plan = _read(path)
    if plan["next_runs"] is None:
        found = [(target, planned_cell(config, target).seed) for target in plan["targets"]
                 if target["run"] is not None]  # fmt: skip
        entries = [(target["run"], target["overrides"], seed) for target, seed in found]
    else:
        digest = hashlib.sha256(encode(plan)).digest()
        first = FIRST_SEED + int.from_bytes(digest[:4], "big") % (FIRST_SEED - SEEDS)
        runs = [cell for cell in plan["next_runs"]["cells"] for _ in range(cell["runs"])]
        entries = [(cell, cell["overrides"], first + i) for i, cell in enumerate(runs)]
    if not entries or not all(overrides for _, overrides, _ in entries):
        raise PlanError(
            f"{path} proposes no run with the overrides that train it; make it by `scaling plan`, "
            "for runs that the ladder of sizes reaches"
        )
    grid = cells(config, [{**overrides, "seed": seed} for _, overrides, seed in entries])
    for (wanted, *_), cell in zip(entries, grid.planned, strict=True):
        made = cell.shape.parameters.total
        if made != wanted["params"]:
            raise PlanError(
                f"{path} proposes a model of {wanted['params']:,.0f} parameters, and this config "
                f"makes one of {made:,} for it; give the --config, and its overrides, that "
                "`scaling plan` was given"
            )
    return grid


def _read(path: Path) -> dict[str, Any]:
    try:
        plan: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if plan["schema"] != SCHEMA:
            raise ValueError(f"schema {plan['schema']!r} where {SCHEMA} is required")
        if not isinstance(plan["targets"], list):
            raise TypeError("targets that are no list")
        for entry in (plan["next_runs"] or {"cells": []})["cells"]:
            dict(entry["overrides"]), range(entry["runs"]), float(entry["params"])
        for target in plan["targets"]:
            dict(target["overrides"]), float((target["run"] or {"params": 1})["params"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PlanError(f"{path} is no plan ({error}); make one with `scaling plan`") from error
    return plan
