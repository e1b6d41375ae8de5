"""The journal: where the time went, over restarts, and lines that a resumed run repeats once."""

import json
import math
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from scaling.train import journal as journals
from scaling.train.journal import ACCOUNTS, Journal, Reporter
from scaling.train.profiler import Profiler
from scaling.train.program import Metrics, TrainState
from scaling.train.watchdog import Watchdog

BATCH_TOKENS, STEPS = 56, 12


class Wall:
    """A clock on the wall that the test turns."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


class Shape:
    """What the reporter reads of a program."""

    batch_tokens = BATCH_TOKENS
    compile_seconds = 7.0


class Saved:
    """Checkpoints that take two seconds and keep the numbers of the steps."""

    def __init__(self, wall: Wall) -> None:
        self._wall = wall
        self.steps: list[int] = []

    def save(self, state: TrainState) -> None:
        self._wall.now += 2.0
        self.steps.append(int(state.step))


class Shown:
    """A tracker that remembers."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []

    def show(self, step: int, values: dict[str, float]) -> None:
        self.lines.append((step, values))

    def close(self) -> None:
        return


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    turned = Wall()
    monkeypatch.setattr(journals.time, "perf_counter", turned.perf_counter)
    return turned


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def state(step: int) -> TrainState:
    zero = jnp.zeros((), jnp.int32)
    return TrainState(jnp.asarray(step), {"gain": jnp.ones(5)}, {}, zero, zero)  # type: ignore[arg-type]


def reporter_of(journal: Journal, folder: Path, wall: Wall, shape: Shape, start: int) -> Reporter:
    def evaluate(state: TrainState) -> list[dict[str, float]]:
        wall.now += 3.0
        return [{"eval/validation/loss": 6.0 - int(state.step) / 7}]

    return Reporter(
        [journal],
        Saved(wall),  # type: ignore[arg-type]
        shape,  # type: ignore[arg-type]
        evaluate=evaluate,
        rates=[0.02],
        flops_per_token=30.0,
        peak_flops=4000.0,
        tick=lambda step, loss, speed: None,
        profiler=Profiler((), folder=folder),
        watchdog=Watchdog(1800.0, report=folder / "stalled.txt"),
        stopping=lambda: False,
        judge=None,
        start=start,
        since=wall.now,
        compiled_before=shape.compile_seconds,
    )


def metrics_of(step: int) -> Metrics:
    values = (5 - step / 9, step / 11, 0.5, step == 5, 0)
    return Metrics(*map(np.asarray, values))  # type: ignore[arg-type]


def attempt(
    folder: Path, wall: Wall, *, start: int, until: int, tracker: Shown | None = None
) -> None:
    """Steps of 1 s, of which 0.25 s wait for input; each measured, kept or skipped by its
    number."""
    shape, trackers = Shape(), [tracker] if tracker else []
    path = folder / "metrics.jsonl"
    journal = Journal(path, resumed_from=start, writes=True, trackers=trackers)  # type: ignore[arg-type]
    reporter = reporter_of(journal, folder, wall, shape, start)
    wall.now += 5.0
    for step in range(start + 1, until + 1):
        reporter.begin(step)
        wall.now += 1.0
        reporter.waited(0.25)
        if step == start + 1:
            wall.now += 4.0
            shape.compile_seconds += 4.0
        reporter.finished(step)
        metrics = metrics_of(step)
        if metrics.skipped:
            reporter.skipped(step, metrics, lane=0)
        elif step % 2 == 0:
            reporter.log(step, metrics, lane=0)
        if step % 3 == 0:
            reporter.evaluate(step, state(step))
        if step % 4 == 0:
            reporter.save(state(step))
    journal.close()


def values(path: Path) -> list[tuple[int, dict[str, float]]]:
    """What was measured, without the clock."""
    timed = ("goodput/", "throughput/")
    lines = [
        (line["step"], {k: v for k, v in line.items() if not k.startswith(timed)})
        for line in read(path)
    ]
    return [line for line in lines if line[1].keys() - {"step", "tokens"}]


def test_every_second_is_in_one_account(tmp_path: Path, wall: Wall) -> None:
    attempt(tmp_path, wall, start=0, until=STEPS)
    last = read(tmp_path / "metrics.jsonl")[-1]
    found = {account: last[f"goodput/{account}_seconds"] for account in ACCOUNTS}
    assert found == {
        "train": 9.0, "compile": 4.0, "eval": 12.0, "save": 6.0, "input": 3.0, "lost": 5.0,
    }  # fmt: skip
    assert sum(found.values()) == wall.now - 100.0
    assert last["goodput/share"] == 9.0 / 39.0


def test_names_are_those_that_others_log(tmp_path: Path, wall: Wall) -> None:
    attempt(tmp_path, wall, start=0, until=2)
    [line] = read(tmp_path / "metrics.jsonl")
    assert line["train/loss"] == 5 - 2 / 9
    assert line["grad/norm/total"] == 2 / 11
    assert line["optim/learning_rate"] == 0.01
    assert line["throughput/total_tokens"] == line["tokens"] == 2 * BATCH_TOKENS
    assert line["throughput/tokens_per_second"] == BATCH_TOKENS
    assert line["throughput/mfu"] == BATCH_TOKENS * 30.0 / 4000.0


def test_a_resumed_journal_measures_what_an_uninterrupted_one_does(
    tmp_path: Path, wall: Wall
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    attempt(whole, wall, start=0, until=STEPS)
    attempt(parts, wall, start=0, until=7)
    with (parts / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "tok')
    attempt(parts, wall, start=4, until=11)
    attempt(parts, wall, start=8, until=STEPS)
    assert values(whole / "metrics.jsonl") == values(parts / "metrics.jsonl")
    assert [line["train/skipped_updates"] for line in read(parts / "metrics.jsonl")
            if "train/skipped_updates" in line] == [1.0]  # fmt: skip


def test_work_that_a_kill_threw_away_is_lost_and_not_train(tmp_path: Path, wall: Wall) -> None:
    attempt(tmp_path, wall, start=0, until=6)
    # Steps 5 and 6 with their evaluation: 5 s. A second kill before any step forgets none of it.
    for _ in range(2):
        Journal(tmp_path / "metrics.jsonl", resumed_from=4, writes=True).close()
    attempt(tmp_path, wall, start=4, until=8)
    last = read(tmp_path / "metrics.jsonl")[-1]
    assert last["goodput/lost_seconds"] == 5.0 + 5.0 + 5.0
    assert last["goodput/train_seconds"] + last["goodput/input_seconds"] == 8.0
    assert sum(last[f"goodput/{a}_seconds"] for a in ACCOUNTS) == wall.now - 100.0


def test_trackers_are_shown_each_line_once_over_a_resumption(tmp_path: Path, wall: Wall) -> None:
    tracker = Shown()
    attempt(tmp_path, wall, start=0, until=7, tracker=tracker)
    attempt(tmp_path, wall, start=4, until=STEPS, tracker=tracker)
    shown = [(step, *sorted(values)) for step, values in tracker.lines]
    assert len(shown) == len(set(shown))
    assert [step for step, values in tracker.lines if "train/loss" in values] == [
        2,
        4,
        6,
        8,
        10,
        12,
    ]


def test_one_process_alone_writes(tmp_path: Path) -> None:
    other = Journal(tmp_path / "metrics.jsonl", resumed_from=0, writes=False)
    other.write(1, BATCH_TOKENS, {"train/loss": 3.0})
    other.close()
    assert list(tmp_path.iterdir()) == []


def test_a_value_that_is_not_finite_is_null(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "metrics.jsonl", resumed_from=0, writes=True)
    journal.write(3, BATCH_TOKENS, {"eval/validation/loss": math.inf, "eval/validation/bpb": 2.5})
    journal.close()
    [line] = read(tmp_path / "metrics.jsonl")
    assert line["eval/validation/loss"] is None
    assert line["eval/validation/bpb"] == 2.5


def test_the_steps_of_one_dispatch_share_its_speed(tmp_path: Path, wall: Wall) -> None:
    journal = Journal(tmp_path / "metrics.jsonl", resumed_from=0, writes=True)
    reporter = reporter_of(journal, tmp_path, wall, Shape(), 0)
    reporter.begin(1)
    for last, seconds in ((4, 2.0), (8, 0.5)):
        wall.now += seconds
        reporter.finished(last)
        for step in (last - 2, last - 1, last):
            reporter.log(step, metrics_of(step), lane=0)
    journal.close()
    speeds = [line["throughput/tokens_per_second"] for line in read(tmp_path / "metrics.jsonl")]
    assert speeds == 3 * [2 * BATCH_TOKENS] + 3 * [8 * BATCH_TOKENS]
