"""A command stops before it would pass what it may spend, and the same command goes on."""

import itertools
import json
from pathlib import Path

import pytest
from rich.console import Console

from scaling import cli, config
from scaling.sweep.cells import Cells
from scaling.sweep.grid import cells, param, prod
from scaling.sweep.launch import launch
from scaling.sweep.limits import Limits
from scaling.sweep.roster import read_roster, write_roster
from scaling.sweep.status import complete, status
from scaling.sweep.survey import survey
from scaling.sweep.tasks import pack_ids, tasks_of
from scaling.sweep.workdir import WorkdirError, claim, is_claimed
from scaling.train.loop import Stopped
from scaling.workshop import Workshop

QUIET = Console(quiet=True)


def small_grid() -> Cells:
    made = config.default()
    config.override(made, [
        "corpus.languages=es", "model.context_tokens=16", "batch_tokens=128",
        "optimizer.warmup_tokens=512", "runtime.evaluate_every_steps=10",
        "runtime.evaluate_windows=8", "runtime.log_every_steps=5",
    ])  # fmt: skip
    axes = prod(param("model.width", [16]), param("budget.tokens", [20 * 128, 40 * 128, 80 * 128]))
    return cells(made, axes)


def shown(workdir: Path, **how: bool) -> str:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(status(workdir, **how))
    return capture.get()


def test_flops_are_spent_to_the_limit_and_not_beyond_and_status_counts_them(tmp_path: Path) -> None:
    grid = small_grid()
    tasks = tasks_of(grid, trunks=True, packed=1)
    (tmp_path / "study.json").write_text("{}")
    write_roster(tmp_path, grid, tasks)
    assert "3 cells: 3 queued" in shown(tmp_path)
    # The trunk and the first cell, not the second.
    allowed = tasks[0].flops + tasks[1].flops + 0.5 * tasks[2].flops
    limits = Limits(flops=allowed)
    with pytest.raises(Stopped, match=rf"before {tasks[2].name}, .* 2 tasks are left"):
        launch(grid, Workshop(tmp_path), console=QUIET, trunks=True, limits=limits)
    assert limits.spent == tasks[0].flops + tasks[1].flops
    found = survey(tmp_path)
    assert [task.name for task in found.undone] == [task.name for task in tasks[2:]]
    assert found.flops == pytest.approx(limits.spent)
    assert found.flops_left == pytest.approx(sum(task.flops for task in tasks[2:]))
    assert found.seconds_left == pytest.approx(found.flops_left * found.seconds / found.flops)
    text = shown(tmp_path)
    assert "3 cells: 2 queued, 1 done" in text
    assert "no process is at work here" in text
    assert not complete(tmp_path)
    made = launch(grid, Workshop(tmp_path), console=QUIET, trunks=True, limits=Limits(flops=1e12))
    assert [record.run_id for record in made] == pack_ids(tasks)
    assert survey(tmp_path).flops == pytest.approx(sum(task.flops for task in tasks))
    assert complete(tmp_path)
    assert made[0].run_id not in shown(tmp_path, finished=False)


def test_only_some_cells_are_trained_and_the_rest_are_the_same_afterwards(tmp_path: Path) -> None:
    grid = small_grid()
    one, *_ = names = [cell.run_id for cell in grid.planned]
    [record] = launch(grid, Workshop(tmp_path), console=QUIET, trunks=True, only={one})
    assert record.run_id == one
    assert [path.stem for path in (tmp_path / "records").iterdir()] == [one]
    made = launch(grid, Workshop(tmp_path), console=QUIET, trunks=True)
    assert [record.run_id for record in made] == names
    assert made[0] == record
    alone = launch(grid, Workshop(tmp_path / "alone"), console=QUIET)
    assert [record.loss for record in made] == [record.loss for record in alone]


def test_hours_are_foreseen_from_the_tasks_before() -> None:
    clock = itertools.chain([0.0, 0.0], itertools.repeat(100.0))
    _, first, *rest = tasks_of(small_grid(), trunks=True, packed=1)
    limits = Limits(hours=0.05, clock=lambda: next(clock))
    limits.admit(first, [first, *rest])
    # 100 s for the first: of 180 s there is no time for one that takes as long.
    assert not limits.over()
    with pytest.raises(Stopped, match=r"would pass --max_hours=0.05"):
        limits.admit(first, rest)
    assert limits.spent == first.flops


def test_a_directory_without_a_grid_is_not_said_to_have_one(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text("{}")
    assert "no grid.json tells what else" in shown(tmp_path)
    assert "queued" not in shown(tmp_path)
    (tmp_path / "grid.json").write_text(json.dumps({"schema": 1, "cells": [{}]}))
    with pytest.raises(WorkdirError, match="damaged"):
        read_roster(tmp_path)


def test_who_holds_a_directory_is_seen_and_not_disturbed(tmp_path: Path) -> None:
    assert not is_claimed(tmp_path)
    with claim(tmp_path, {"seed": 1}):
        assert is_claimed(tmp_path)
        with pytest.raises(WorkdirError, match="another process"), claim(tmp_path, {"seed": 1}):
            pass
    assert not is_claimed(tmp_path)


def test_a_limit_ends_a_sweep_with_the_code_of_a_stop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sweep", "--config=configs/ladder.py:tiny", f"--workdir={tmp_path}"]
    for limit in ("--max_flops=1e3", "--max_hours=1e-9"):
        with pytest.raises(SystemExit) as left:
            cli.main([*words, limit, "--config.runtime.compile_cache=False"])
        assert left.value.code == 75
        told = capsys.readouterr().err
        assert limit.partition("=")[0] in told
        assert "8 tasks are left" in told
        assert "the same command continues" in told
    assert not (tmp_path / "records").exists()
