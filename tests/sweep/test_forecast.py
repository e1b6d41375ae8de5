"""What a sweep will cost: the same figures by the slow path, and nothing written to tell them."""

import dataclasses
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from rich.console import Console

from scaling import cells as resolving
from scaling import cli, config, counts
from scaling.sweep.cells import Cells
from scaling.sweep.forecast import forecast, key_of, speeds_of, spent_by, state_bytes
from scaling.sweep.grid import cells, chosen, param, prod, with_overrides
from scaling.sweep.launch import launch
from scaling.sweep.measure import measure
from scaling.sweep.preview import in_bytes, short
from scaling.sweep.tasks import Pack, Trunk, pack_ids, tasks_of
from scaling.workshop import Workshop, make_program, program_key, run_id

SMALL = ("corpus.languages=es", "model.context_tokens=16", "batch_tokens=128",
         "optimizer.warmup_tokens=512", "optimizer.cooldown_fraction=0.2",
         "runtime.evaluate_every_steps=10", "runtime.evaluate_windows=8")  # fmt: skip


def study(*overrides: str) -> ConfigDict:
    made = config.default()
    config.override(made, [*SMALL, *overrides])
    return made


def grid_of(*multiples: int, widths: tuple[int, ...] = (16,), steps: int = 1000) -> Cells:
    tokens = [multiple * steps * 128 for multiple in multiples]
    return cells(study(), prod(param("model.width", widths), param("budget.tokens", tokens)))


def test_cells_resolved_in_bulk_are_those_resolved_one_by_one() -> None:
    base = study("seed=3")
    grid = prod(
        param("model.width", [16, 24, 128]),
        param("optimizer.learning_rate", [0.01, 1]),
        param("budget.flops", [2e9, 4e9]),
    )
    found = cells(base, grid)
    for cell, overrides in zip(found.planned, grid, strict=True):
        alone = with_overrides(base, {**overrides, "seed": cell.content["seed"]})
        slow = resolving.cell_of(alone)
        assert config.plain(cell.config) == config.plain(slow)
        assert cell.run_id == run_id(slow)
        assert cell.shape.program == program_key(slow)
        size, kind = resolving.size_of(slow), resolving.architecture_of(slow)
        assert cell.shape.parameters == counts.parameters(size, kind)
        tokens = slow.budget.tokens
        spent = spent_by([cell])
        assert spent.flops_6nd == counts.flops_6nd(size, kind, tokens=tokens)
        assert spent.flops_counted == counts.flops_counted(size, kind, tokens=tokens, context=16)


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("optimizer.weight_decay", -1.0, "weight_decay is -1.0; use 0 or more"),
        ("model.width", 17, "width 17 is not on the ladder"),
        ("model.widht", 16, "nearest known one is 'model.width'"),
        ("budget.tokens", 5, "less than one batch"),
        ("seed", "many", "takes int"),
    ],
)
def test_a_bad_cell_is_refused_with_its_overrides(key: str, value: object, complaint: str) -> None:
    grid = [{"budget.tokens": 4096}, {"budget.tokens": 4096, key: value}]
    with pytest.raises(config.ConfigError, match=rf"cell 2 of 2 .*{key}={value!r}.*{complaint}"):
        cells(study(), grid)


@pytest.mark.parametrize(("multiples", "most"), [((1, 2, 4, 8), 0.63), (range(1, 9), 0.4)])
def test_shared_trunks_save_what_arithmetic_says(multiples: tuple[int, ...], most: float) -> None:
    found = grid_of(*multiples)
    tasks = tasks_of(found, trunks=True, packed=1)
    ratio = spent_by(tasks).flops_6nd / spent_by(found.planned).flops_6nd
    # The trunk of the longest, and of each its last fifth.
    by_hand = (0.8 * max(multiples) + 0.2 * sum(multiples)) / sum(multiples)
    assert ratio == pytest.approx(by_hand, rel=1e-3)
    assert ratio <= most
    assert spent_by(tasks_of(found, trunks=False, packed=1)) == spent_by(found.planned)


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("overrides", [(), ("optimizer.name=adamw", "optimizer.learning_rate=0.01"),
                                       ("mesh.fsdp=4",)], ids=str)  # fmt: skip
def test_state_is_what_a_device_holds_of_it(lanes: int, overrides: tuple[str, ...]) -> None:
    [cell] = cells(study(*overrides), [{"model.width": 24, "budget.tokens": 4096}]).planned
    program = make_program(cell.config, packed=lanes if lanes > 1 else None)
    keys = [jax.random.key(seed) for seed in range(lanes)]
    state = program.init(keys[0] if lanes == 1 else jax.numpy.stack(keys))
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state))
    assert state_bytes(cell, lanes=lanes) == held


def test_memory_that_this_machine_cannot_tell_is_not_a_number() -> None:
    [cell] = cells(study("mesh.fsdp=64"), [{"model.width": 64, "budget.tokens": 4096}]).planned
    told = state_bytes(cell, lanes=1)
    assert isinstance(told, str)
    assert "needs 64 devices" in told


def test_ten_thousand_cells_are_planned_in_two_seconds_of_processor_time(tmp_path: Path) -> None:
    widths = tuple(range(16, 96, 8))
    rates = [0.001 * n for n in range(1, 126)]
    grid = prod(param("model.width", widths), param("optimizer.learning_rate", rates),
                param("budget.tokens", [128_000 * n for n in range(1, 9)]))  # fmt: skip
    spent = []
    # The best of three: another process may take the caches.
    for _ in range(3):
        began = time.process_time()
        found = cells(study(), grid)
        told = forecast(found, tasks_of(found, trunks=True, packed=1), tmp_path / "none")
        assert told.alone.tokens > told.shared.tokens
        spent.append(time.process_time() - began)
        if spent[-1] < 2:
            break
    assert len(told.cells) == 10_000
    assert min(spent) < 2


def test_a_measured_executable_tells_its_time_and_memory(tmp_path: Path) -> None:
    found = grid_of(1, 2, steps=20)
    tasks = tasks_of(found, trunks=True, packed=1)
    said: list[str] = []
    speeds = measure(tasks, say=said.append)
    [(key, speed)] = speeds.items()
    assert said == ["measuring 1 of 1: width 16, depth 2"]
    assert key == key_of(tasks[0])
    assert min(speed.step, speed.measure, speed.end, speed.compile) > 0
    held = state_bytes(found.planned[0], lanes=1)
    assert isinstance(held, int)
    assert speed.memory_bytes is not None
    assert speed.memory_bytes > held + 2 * 4 * 128
    told = forecast(found, tasks, tmp_path, speeds=speeds)
    updates = sum(task.updates for task in tasks)
    least = updates * speed.step + 2 * speed.end + speed.compile
    of_packs = sum(task.updates for task in tasks if isinstance(task, Pack))
    assert told.seconds == pytest.approx(least + of_packs * speed.measure)


def test_only_some_cells_keep_what_they_need_of_their_trunk() -> None:
    found = grid_of(1, 2, 4, widths=(16, 24))
    names = [cell.run_id for cell in found.planned]
    everything = tasks_of(found, trunks=True, packed=1)
    assert tasks_of(found, trunks=True, packed=1, only=chosen(found, ["*"])) == everything
    some = tasks_of(found, trunks=True, packed=1, only=chosen(found, ["w016-*", names[4]]))
    assert pack_ids(some) == [*names[:3], names[4]]
    trunks = {task.name: task.steps for task in some if isinstance(task, Trunk)}
    whole = {task.name: task.steps for task in everything if isinstance(task, Trunk)}
    assert set(trunks) == set(whole)
    narrow, wide = whole.values()
    assert list(trunks.values()) == [narrow, wide[1:2]]
    with pytest.raises(config.ConfigError, match=f"nearest run id is {names[0]}"):
        chosen(found, [names[0][:-1]])


def test_what_is_done_is_not_paid_again_and_tells_the_speed(tmp_path: Path) -> None:
    """Times of the records are set by hand: 2 ms an update, 1 s at the end."""
    found = grid_of(1, 2, steps=20)
    made = launch(found, Workshop(tmp_path), console=Console(quiet=True), trunks=True)
    told = forecast(found, tasks_of(found, trunks=True, packed=1), tmp_path)
    assert told.left == ()
    assert told.done == {record.run_id for record in made}
    updates = [(r.tokens - r.branch_tokens) // 128 for r in made]
    by_hand = [
        dataclasses.replace(r, train_seconds=0.002 * n, compile_seconds=0.5,
                            wall_seconds=0.002 * n + 1.5)
        for r, n in zip(made, updates, strict=True)
    ]  # fmt: skip
    speeds = speeds_of(found, {record.run_id: record for record in by_hand})
    [speed] = speeds.values()
    assert dataclasses.astuple(speed)[:4] == pytest.approx((0.002, 0, 1.0, 0.5))
    # Speeds of another device say nothing here.
    strange = {r.run_id: dataclasses.replace(r, device_kind="abacus") for r in by_hand}
    assert speeds_of(found, strange) == {}


def test_a_dry_run_writes_nothing_and_fits_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = tmp_path / "none"
    with pytest.raises(SystemExit) as left:
        cli.main(["sweep", "--config=configs/ladder.py:tiny", f"--workdir={workdir}", "--dry_run"])
    assert left.value.code == 0
    assert not workdir.exists()
    told = capsys.readouterr().out
    assert max(map(len, told.splitlines())) <= 80
    for text in ("6 cells of 2 shapes", "2 trunks", "w024-8.28e10-s2-", "time: not known"):
        assert text in told


def test_to_measure_is_a_part_of_a_dry_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["sweep", "--config=configs/ladder.py:tiny", f"--workdir={tmp_path}", "--measure"])
    assert left.value.code == 2
    assert "--dry_run" in capsys.readouterr().err


def test_numbers_are_short() -> None:
    assert [short(n) for n in (0, 7, 999, 999.6, 1000, 72_192, 999_999, 1.5e12)] == [
        "0", "7", "999", "1k", "1k", "72.2k", "1M", "1.5T",
    ]  # fmt: skip
    assert [in_bytes(n) for n in (0, 999, 1024, 1.3 * 2**30)] == [
        "0 B", "999 B", "1 KiB", "1.3 GiB",
    ]  # fmt: skip
    assert np.isfinite([float(short(n).rstrip("kMGTPE")) for n in np.geomspace(1, 1e18, 99)]).all()
