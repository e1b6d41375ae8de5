"""Trunks and packs: what is shared changes no result, and what is alike trains together."""

import json
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from ml_collections import ConfigDict
from rich.console import Console

from scaling import cells, config
from scaling.records import Record
from scaling.sweep.cells import Cells
from scaling.sweep.launch import launch
from scaling.sweep.tasks import packs_of, trunks_of
from scaling.workshop import Workshop, run_id

SETTINGS = ("corpus.languages=es", "model.width=16", "model.context_tokens=16", "batch_tokens=128",
            "runtime.evaluate_every_steps=10", "runtime.evaluate_windows=8",
            "runtime.log_every_steps=5", "runtime.checkpoint_every_steps=10",
            "optimizer.warmup_tokens=512")  # fmt: skip
QUIET = Console(quiet=True)


def cell_of(steps: int, *settings: str, seed: int = 0) -> ConfigDict:
    made = config.default()
    text = [*SETTINGS, f"budget.tokens={steps * 128}", f"seed={seed}", *settings]
    config.override(made, text)
    return cells.cell_of(made)


def test_the_branch_point_is_the_last_update_at_the_full_rate() -> None:
    cell = cell_of(40)
    step = cells.branch_steps(cell)
    total, fraction = cell.budget.tokens, cell.optimizer.cooldown_fraction
    middle = (np.arange(40) + 0.5) * 128
    left = (total - middle) / (fraction * total)
    assert step is not None
    assert np.all(left[:step] > 1)
    assert left[step + 1] < 1


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_a_schedule_that_knows_its_budget_has_no_trunk(schedule: str) -> None:
    assert cells.branch_steps(cell_of(40, f"optimizer.schedule={schedule}")) is None
    group = [cell_of(steps, f"optimizer.schedule={schedule}") for steps in (20, 40)]
    assert trunks_of(Cells.of(group).planned) == {}


def test_runs_share_a_trunk_if_they_differ_in_their_budget_alone() -> None:
    group = [cell_of(20), cell_of(40), cell_of(40, seed=1), cell_of(80, "model.width=24")]
    found = trunks_of(Cells.of(group).planned)
    assert set(found) == {run_id(group[0]), run_id(group[1])}
    assert found[run_id(group[0])] == found[run_id(group[1])]
    assert found[run_id(group[0])].steps == tuple(
        sorted(cells.branch_steps(cell) for cell in group[:2])
    )


def test_packs_hold_runs_of_one_shape_and_length() -> None:
    grid = [cell_of(steps, f"optimizer.learning_rate={rate}", seed=seed)
            for steps in (20, 40) for rate in (0.01, 0.02) for seed in (0, 1)]  # fmt: skip
    packs = list(packs_of(Cells.of(grid).planned, {}, packed=3, rivals={}))
    assert [len(pack.cells) for pack in packs] == [2, 2, 2, 2]  # in 3 and 1 no sooner
    assert sorted(cell.run_id for pack in packs for cell in pack.cells) == sorted(map(run_id, grid))


def final_params(workdir: Path, record: Record) -> dict[str, np.ndarray]:
    manifests = (workdir / "runs" / record.run_id / "checkpoints").glob("*/manifest.json")
    newest = max(manifests, key=lambda path: int(path.parent.name))
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        metadata = reader.metadata(newest.parent).item_metadata
        kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata)
        arguments = ocp.args.PyTreeRestore(restore_args=kinds.tree)
        return reader.restore(newest.parent, args=arguments)["params"]


@pytest.fixture(scope="module")
def separate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Record]]:
    workdir = tmp_path_factory.mktemp("separate")
    grid = [cell_of(steps) for steps in (20, 40)]
    return workdir, launch(grid, Workshop(workdir), console=QUIET)


def test_a_run_that_leaves_a_trunk_is_bitwise_the_run_by_itself(
    separate: tuple[Path, list[Record]], tmp_path: Path
) -> None:
    alone, expected = separate
    grid = [cell_of(steps) for steps in (20, 40)]
    found = launch(grid, Workshop(tmp_path), console=QUIET, trunks=True)
    trained = []
    for one, other in zip(found, expected, strict=True):
        assert one.run_id == other.run_id
        assert one.loss == other.loss
        assert one.parent is not None
        assert one.branch_tokens is not None
        assert other.parent is None
        trained.append(one.tokens - one.branch_tokens)
        # Its speed is that of what it trained itself.
        assert one.tokens_per_second == pytest.approx(trained[-1] / one.train_seconds)
        theirs = final_params(alone, other)
        for name, value in final_params(tmp_path, one).items():
            np.testing.assert_array_equal(value, theirs[name], err_msg=name)
    longest = max(record.branch_tokens or 0 for record in found)
    assert sum(trained) + longest < 0.85 * sum(record.tokens or 0 for record in expected)
    assert len({record.parent for record in found}) == 1


def test_packed_runs_have_the_records_of_runs_alone(tmp_path: Path) -> None:
    grid = [cell_of(20, f"optimizer.learning_rate={rate}", seed=seed)
            for seed, rate in enumerate((0.004, 0.008, 0.016))]  # fmt: skip
    alone = launch(grid, Workshop(tmp_path / "alone"), console=QUIET)
    found = launch(grid, Workshop(tmp_path / "packed"), console=QUIET, packed=3)
    for one, other in zip(found, alone, strict=True):
        assert (one.run_id, one.packed, other.packed) == (other.run_id, 3, 1)
        assert one.loss == pytest.approx(other.loss, rel=1e-4)
        journal = (tmp_path / "packed" / "runs" / one.run_id / "metrics.jsonl").read_text()
        steps = [json.loads(line)["step"] for line in journal.splitlines()]
        assert max(steps) == 20
    again = launch(grid, Workshop(tmp_path / "packed"), console=QUIET, packed=3)
    assert again == found


def test_packed_runs_leave_trunks_of_their_own(tmp_path: Path) -> None:
    grid = [cell_of(steps, seed=seed) for steps in (20, 40) for seed in (0, 1)]
    found = launch(grid, Workshop(tmp_path), console=QUIET, trunks=True, packed=2)
    assert [record.packed for record in found] == [2, 2, 2, 2]
    assert len({record.parent for record in found}) == 2
    alone = launch(grid[:1], Workshop(tmp_path / "alone"), console=QUIET)
    assert found[0].loss == pytest.approx(alone[0].loss, rel=1e-4)
