"""Runs are given up early, never the best of their alternatives, nor those next to it."""

import json
import math
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from scaling import records
from scaling.config import ConfigError
from scaling.records import Record
from scaling.runs import load
from scaling.runs.tuning import rates_of
from scaling.sweep import hopeless
from scaling.sweep.cells import Cells
from scaling.sweep.hopeless import ByRivals, Measured, rivals_of, why_hopeless
from scaling.sweep.launch import launch
from scaling.sweep.roster import write_roster
from scaling.sweep.status import status
from scaling.sweep.survey import survey
from scaling.sweep.tasks import Pack, tasks_of
from scaling.sweep.workdir import set_failed_aside
from scaling.sweep.workers import work
from scaling.workshop import Workshop
from tests.sweep.test_tasks import QUIET, cell_of

CURVES = Path(__file__).parents[2] / "experiments" / "2026-11-26-early-stop" / "records.json"


def of(*rates_and_losses: tuple[float, float]) -> list[Measured]:
    return [Measured(f"r{rate:g}", (rate, 3 * rate), loss) for rate, loss in rates_and_losses]


def why(rate: float, loss: float, others: list[Measured]) -> str | None:
    return why_hopeless((rate, 3 * rate), loss, others)


def test_a_run_is_hopeless_if_it_and_one_nearer_to_the_leader_are_far_behind() -> None:
    others = of((1, 3.0), (2, 3.2))
    assert why(4, 3.3, others) == (
        "its loss 3.3000 is over 3.0900, 1.03 times that of r1 there, and so is that of r2 between "
        "them"
    )
    assert why(4, 3.08, others) is None  # it may yet win
    assert why(0.5, 3.9, others) is None  # the leader's neighbour
    assert why(4, 3.3, of((1, 3.0), (2, 3.05))) is None  # 2 may yet win, and 4 is its neighbour
    assert why(4, 3.3, of((1, 3.0))) is None
    assert why(4, 3.3, []) is None


def test_seeds_count_for_the_run_that_is_judged() -> None:
    two = [*of((1, 3.0), (2, 3.2)), Measured("again", (1.0, 3.0), 3.19)]
    assert why(4, 3.25, two) is None  # the worst seed of the leader
    assert why(4, 3.3, [*of((1, 3.0), (2, 3.2)), Measured("again", (2.0, 6.0), 3.0)]) is None
    assert why(1, 9.0, of((1, 3.0), (2, 3.2))) is None


def test_what_diverged_lies_between_and_never_leads() -> None:
    assert why(4, math.inf, of((1, 3.0), (2, math.inf))) is not None
    assert why(4, 3.3, of((2, math.inf), (1, math.inf))) is None


def replay(runs: Sequence[dict[str, Any]], order: Iterable[int]) -> dict[int, int]:
    """The steps after which runs of one group are stopped, trained in this order."""
    ended: dict[int, float] = {}
    stopped: dict[int, int] = {}
    for index in order:
        run = runs[index]
        ended[index] = math.inf
        for text, loss in run["curve"].items():
            step = int(text)
            others = [
                Measured(runs[i]["run_id"], tuple(runs[i]["rates"]), runs[i]["curve"][text])
                for i, last in ended.items()
                if i != index and last >= step
            ]
            late = step >= hopeless.SHARE * run["steps"]
            if late and why_hopeless(tuple(run["rates"]), loss, others):
                ended[index] = stopped[index] = step
                break
    return stopped


@pytest.fixture(scope="module")
def grids() -> list[list[dict[str, Any]]]:
    """Finished runs, in groups of alternatives and in the order of their rates."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for run in json.loads(CURVES.read_text(encoding="utf-8"))["whole"]:
        groups[run["group"]].append(run)
    return [sorted(runs, key=lambda run: run["rates"]) for runs in groups.values()]


def needed(runs: Sequence[dict[str, Any]]) -> set[int]:
    """The best run and its neighbours."""
    best = min(range(len(runs)), key=lambda i: runs[i]["loss"])
    return {best - 1, best, best + 1}


def test_on_finished_grids_no_order_of_training_stops_the_best_or_its_neighbours(
    grids: list[list[dict[str, Any]]],
) -> None:
    assert [len(runs) for runs in grids] == [9] * 6
    draw = random.Random(0)
    for runs in grids:
        for _ in range(300):
            stopped = replay(runs, draw.sample(range(len(runs)), len(runs)))
            assert not needed(runs) & set(stopped)
        middle = sorted(range(len(runs)), key=lambda i: (abs(i - (len(runs) - 1) / 2), i))
        assert replay(runs, middle)


def test_a_margin_alone_would_have_stopped_neighbours_of_the_best(
    grids: list[list[dict[str, Any]]],
) -> None:
    lost = 0
    for runs in grids:
        for step in runs[0]["curve"]:
            if int(step) >= hopeless.SHARE * runs[0]["steps"]:
                bar = (1 + hopeless.MARGIN) * min(run["curve"][step] for run in runs)
                lost += sum(runs[i]["curve"][step] > bar for i in needed(runs))
    assert lost


def rated(*rates: float, **settings: int) -> Cells:
    """Cells of 40 updates that differ in their rates alone; measured every 10."""
    return Cells.of([
        cell_of(40, f"optimizer.learning_rate={rate}", f"optimizer.vector_learning_rate={3 * rate}",
                **settings)
        for rate in rates
    ])  # fmt: skip


RATES = (3e-5, 3e-4, 3e-3, 1e-2, 3e-2)


def test_a_group_is_trained_from_its_middle_and_alone_nobody_has_rivals() -> None:
    tasks = tasks_of(rated(*RATES), trunks=False, early_stop=True)
    order = [rates_of(task.cells[0].content)[0] for task in tasks if isinstance(task, Pack)]
    assert order == [3e-3, 3e-4, 1e-2, 3e-5, 3e-2]
    plain = tasks_of(rated(*RATES), trunks=False)
    assert [task.name for task in plain] == [cell.run_id for cell in rated(*RATES).planned]
    assert {task.name for task in tasks} == {task.name for task in plain}
    grid = Cells.of([cell_of(40), cell_of(20), cell_of(40, "model.width=24")])
    assert rivals_of(grid.planned) == {}
    seeds = Cells.of([cell_of(40, seed=seed) for seed in range(4)])
    assert rivals_of(seeds.planned) == {}


def test_rates_that_do_not_rise_together_are_never_stopped() -> None:
    square = Cells.of([
        cell_of(40, f"optimizer.learning_rate={one}", f"optimizer.vector_learning_rate={two}")
        for one in (0.01, 0.02, 0.04) for two in (0.01, 0.02)
    ])  # fmt: skip
    assert rivals_of(square.planned) == {}
    row = rivals_of(rated(*RATES).planned)
    assert {len(rivals) for rivals in row.values()} == {4}


def test_a_sweep_in_which_the_rule_could_never_act_is_refused() -> None:
    late = Cells.of([cell_of(40, f"optimizer.learning_rate={rate}",
                             "runtime.evaluate_every_steps=40") for rate in RATES])  # fmt: skip
    with pytest.raises(ConfigError, match=r"none is measured there; lower .* \(now 40\)"):
        tasks_of(late, trunks=False, early_stop=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Record]:
    workdir = tmp_path_factory.mktemp("whole")
    found = launch(rated(*RATES), Workshop(workdir), console=QUIET)
    return {record.run_id: record for record in found}


@pytest.fixture(scope="module")
def early(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Record]]:
    workdir = tmp_path_factory.mktemp("early")
    grid = rated(*RATES)
    write_roster(workdir, grid, tasks_of(grid, trunks=False, early_stop=True))
    (workdir / "study.json").write_text("{}")
    return workdir, launch(grid, Workshop(workdir), console=QUIET, early_stop=True)


def rate(record: Record) -> float:
    return record.config["optimizer"]["learning_rate"]


def test_what_is_stopped_has_a_record_that_says_why_and_the_rest_is_as_without(
    whole: dict[str, Record], early: tuple[Path, list[Record]]
) -> None:
    workdir, found = early
    stopped = [record for record in found if record.status == "stopped"]
    assert [rate(record) for record in stopped] == [3e-5]
    best = min(whole.values(), key=lambda record: record.loss or math.inf)
    assert rate(best) not in {rate(record) for record in stopped}
    for record in found:
        if record.status == "ok":
            assert record.loss == whole[record.run_id].loss
    [record] = stopped
    assert record.reason is not None
    assert "given up at step 10: its loss" in record.reason
    assert record.loss is None
    assert record.reason in record.null_reasons["loss"]
    # What it cost is counted, and nothing is left to do.
    everything = sum(cell.flops for cell in rated(*RATES).planned)
    counted = survey(workdir)
    assert counted.flops == pytest.approx(everything * (4 + 10 / 40) / 5)
    assert (counted.undone, counted.under_way, counted.flops_left) == ((), [], 0)
    console = Console(width=200)
    with console.capture() as capture:
        console.print(status(workdir))
    assert "5 cells: 4 done, 1 stopped" in capture.get()
    assert "stopped: given up at step 10" in capture.get()


def test_a_stopped_run_is_neither_fitted_nor_trained_again(
    early: tuple[Path, list[Record]],
) -> None:
    workdir, found = early
    grid = rated(*RATES)
    assert set_failed_aside(workdir, grid) == []
    assert launch(grid, Workshop(workdir), console=QUIET, early_stop=True) == found
    runs = load(workdir)
    assert len(runs) == 4
    [(name, reason)] = runs.dropped
    assert name == grid.planned[0].run_id
    assert reason.startswith("stopped: given up at step 10")


def test_packed_runs_are_stopped_when_all_of_them_are_hopeless(
    early: tuple[Path, list[Record]], tmp_path: Path
) -> None:
    grid = rated(1e-5, *RATES)
    found = launch(grid, Workshop(tmp_path), console=QUIET, packed=2, early_stop=True)
    assert [record.status for record in found] == ["stopped", "stopped", "ok", "ok", "ok", "ok"]
    assert {record.packed for record in found} == {2}
    assert len({record.reason for record in found[:2]}) == 2
    workdir, _ = early
    first, second, *others = rated(*RATES).planned
    judge = ByRivals([first, second], [[second, *others], [first, *others]], workdir)
    assert judge(10, [99.0, 99.0]) is not None
    assert judge(10, [99.0, 0.1]) is None


@pytest.mark.slow
def test_a_worker_stops_what_published_runs_say(whole: dict[str, Record], tmp_path: Path) -> None:
    tasks = tasks_of(rated(*RATES), trunks=False, early_stop=True)
    published = work(tasks, tmp_path, watch=lambda tick: None)
    found = [records.read(path) for path in (tmp_path / "records").glob("*.json")]
    assert published == len(found) == 5
    assert [rate(record) for record in found if record.status == "stopped"] == [3e-5]
    for record in found:
        assert record.status == "stopped" or record.loss == whole[record.run_id].loss


def test_what_runs_or_was_not_measured_there_says_nothing(
    early: tuple[Path, list[Record]], tmp_path: Path
) -> None:
    workdir, _ = early
    first, *rivals = rated(*RATES).planned
    at: dict[Path, Any] = {}
    for home in (workdir, tmp_path):
        judge = ByRivals([first], [rivals], home)
        at[home] = [judge(step, [99.0]) is not None for step in (9, 10, 15, 20)]
    assert at[workdir] == [False, True, False, True]
    assert at[tmp_path] == [False] * 4
    nobody = ByRivals([first], [rivals], workdir)
    assert nobody(10, [math.nan]) is not None
