"""A plan's runs are those that it describes, each with a seed of its own."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from scaling import cells
from scaling import config as configs
from scaling.analysis.devices import PlanError
from scaling.sweep.planned import FIRST_SEED, nearest_shape, planned_cell, proposed
from scaling.sweep.roster import read_roster, write_roster
from scaling.sweep.tasks import tasks_of
from scaling.workshop import run_id
from tests.sweep.test_limits import small_grid

STUDY = configs.load("configs/quickstart.py").config
SHAPES = [nearest_shape(STUDY)(params, flops) for params, flops in ((3e4, 2e11), (6e4, 4e11))]


def plan_of(*runs: int) -> dict[str, Any]:
    """A target, and next runs of the two shapes, so many of each."""
    run = {"params": SHAPES[1].params, "tokens": SHAPES[1].tokens}
    entries = [
        {"params": float(shape.params), "overrides": dict(shape.overrides), "runs": count}
        for shape, count in zip(SHAPES, runs, strict=False)
    ]
    return {
        "schema": 1,
        "targets": [{"run": run, "overrides": dict(SHAPES[1].overrides)}],
        "next_runs": {"cells": entries} if runs else None,
    }


def written(folder: Path, plan: object) -> Path:
    path = folder / "plan.json"
    path.write_text(json.dumps(plan))
    return path


def test_the_nearest_shape_spends_the_budget_and_its_overrides_rebuild_it() -> None:
    config = configs.load("configs/quickstart.py").config
    shape = nearest_shape(config)(100_000, 1e12)
    assert 0.7 < shape.params / 100_000 < 1.4
    assert 6 * shape.params * shape.tokens == pytest.approx(1e12, rel=0.01)
    configs.override(config, [f"{key}={value}" for key, value in shape.overrides.items()])
    cell = cells.cell_of(config)
    assert cell.budget.tokens == shape.tokens
    assert re.fullmatch(r"\d+", str(cell.model.width))


def test_each_next_run_is_another_run_and_the_same_plan_gives_the_same(tmp_path: Path) -> None:
    found = proposed(STUDY, written(tmp_path, plan_of(2, 1))).planned
    assert [cell.shape.parameters.total for cell in found] == [
        SHAPES[0].params, SHAPES[0].params, SHAPES[1].params
    ]  # fmt: skip
    assert [cell.tokens for cell in found] == [
        SHAPES[0].tokens, SHAPES[0].tokens, SHAPES[1].tokens
    ]  # fmt: skip
    seeds = {cell.config.seed for cell in found}
    assert len(seeds) == 3
    assert all(FIRST_SEED <= seed < 2**31 for seed in seeds)
    again = proposed(STUDY, written(tmp_path, plan_of(2, 1))).planned
    assert [cell.run_id for cell in again] == [cell.run_id for cell in found]
    another = plan_of(2, 1) | {"created": "2026-11-26T12:00:00+00:00"}
    others = {cell.config.seed for cell in proposed(STUDY, written(tmp_path, another)).planned}
    assert not seeds & others


def test_without_next_runs_the_targets_are_trained(tmp_path: Path) -> None:
    plan = plan_of()
    [cell] = proposed(STUDY, written(tmp_path, plan)).planned
    # The run that the quickstart trains for its plan.
    assert cell.run_id == run_id(planned_cell(STUDY, plan["targets"][0]))


def test_a_plan_without_shapes_or_of_other_models_is_refused(tmp_path: Path) -> None:
    plan = plan_of(1)
    plan["next_runs"]["cells"][0]["overrides"] = {}
    with pytest.raises(PlanError, match="no run with the overrides"):
        proposed(STUDY, written(tmp_path, plan))
    with pytest.raises(PlanError, match="no run with the overrides"):
        proposed(STUDY, written(tmp_path, plan_of() | {"targets": []}))
    other = copy.deepcopy(STUDY)
    configs.override(other, ["corpus.vocabulary=1024"])
    with pytest.raises(PlanError, match=r"and this config makes one of .* give the --config"):
        proposed(other, written(tmp_path, plan_of(1)))


@pytest.mark.parametrize(
    "damage",
    [
        lambda plan: [],
        lambda plan: plan | {"schema": 2},
        lambda plan: {"schema": 1, "targets": []},
        lambda plan: plan | {"targets": None},
        lambda plan: plan | {"next_runs": {"cells": [{"overrides": {}, "runs": "3"}]}},
        lambda plan: plan | {"next_runs": {"cells": [{"overrides": {}, "runs": 1}]}},
    ],
)
def test_what_is_no_plan_is_named(tmp_path: Path, damage: Any) -> None:
    path = written(tmp_path, damage(plan_of(1)))
    with pytest.raises(PlanError, match=re.escape(f"{path} is no plan")):
        proposed(STUDY, path)
    with pytest.raises(PlanError, match=r"none\.json is no plan"):
        proposed(STUDY, tmp_path / "none.json")


def test_what_was_trained_beside_a_grid_stays_in_its_roster(tmp_path: Path) -> None:
    grid = small_grid()
    first, rest = grid.only({grid.planned[0].run_id}), grid.only(
        {cell.run_id for cell in grid.planned[1:]}
    )  # fmt: skip
    write_roster(tmp_path, first, tasks_of(first, trunks=False))
    write_roster(tmp_path, rest, tasks_of(rest, trunks=False))
    # Nothing of the first was trained.
    assert [cell.run_id for cell in read_roster(tmp_path).cells] == [  # type: ignore[union-attr]
        cell.run_id for cell in rest.planned
    ]
    write_roster(tmp_path, first, tasks_of(first, trunks=False))
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / f"{first.planned[0].run_id}.json").write_text("{}")
    for _ in range(2):
        write_roster(tmp_path, rest, tasks_of(rest, trunks=False))
        roster = read_roster(tmp_path)
        assert roster is not None
        assert [cell.run_id for cell in roster.cells] == [
            cell.run_id for cell in (*first.planned, *rest.planned)
        ]
        assert len(roster.tasks) == len(grid)
