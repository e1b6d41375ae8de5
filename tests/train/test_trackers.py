"""Mirrors: what was shown can be read back, and none of them can fail or hang a run."""

import json
import sqlite3
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from scaling.train import trackers
from scaling.train.trackers import Run, Tracker, TrackerError, open_trackers

LINES = [(step, {"train/loss": 5.0 - step / 8, "grad/norm/total": step / 4}) for step in (3, 5, 9)]


class Failing:
    """Takes one line, then raises."""

    def __init__(self) -> None:
        self.calls = 0

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.calls += 1
        raise ConnectionError("no route to the service")

    def close(self) -> None:
        raise AssertionError("a mirror that failed is not closed")


class Hanging:
    """Never comes back."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        threading.Event().wait()

    def close(self) -> None:
        return


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run("w032-run", tmp_path, {"seed": 7, "model": {"width": 24}})


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(
        trackers.logging, "warning", lambda text, *values: said.append(text % values)
    )
    return said


def test_tensorboard_reads_back_what_was_shown(run: Run, warnings: list[str]) -> None:
    pytest.importorskip("tensorboardX", reason="the extra tensorboard is absent")
    [tracker] = open_trackers(("tensorboard",), run)
    for step, values in LINES:
        tracker.show(step, values)
    tracker.close()
    assert warnings == []
    from tensorboardX.proto.event_pb2 import Event

    [path] = (run.folder / "tensorboard").iterdir()
    data, found = path.read_bytes(), []
    while data:
        # A TFRecord: length in 8 bytes, its checksum in 4, the event, its checksum in 4.
        length = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + length])
        found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        data = data[16 + length :]
    assert found == [
        (step, name, value) for step, values in LINES for name, value in values.items()
    ]


@pytest.mark.slow
def test_wandb_keeps_an_offline_run_under_its_id(
    run: Run, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is absent")
    monkeypatch.setenv("WANDB_MODE", "offline")
    [tracker] = open_trackers(("wandb",), run)
    for step, values in LINES:
        tracker.show(step, values)
    tracker.close()
    assert warnings == []
    [kept] = run.folder.glob("wandb/offline-run-*/run-w032-run.wandb")
    assert b"grad/norm/total" in kept.read_bytes()


@pytest.mark.slow
def test_trackio_keeps_every_line_once_over_a_resumption(
    run: Run, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(run.folder))
    pytest.importorskip("trackio", reason="the extra trackio is absent")
    for part in (LINES[:2], LINES[2:]):
        [tracker] = open_trackers(("trackio",), run)
        for step, values in part:
            tracker.show(step, values)
        tracker.close()
    assert warnings == []
    database = sqlite3.connect(run.folder / f"{trackers.PROJECT}.db")
    kept = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
    database.close()
    assert [(name, step, json.loads(values)) for name, step, values in kept] == [
        (run.id, *line) for line in LINES
    ]


def test_a_mirror_that_fails_is_reported_once_and_left_out(warnings: list[str]) -> None:
    mirror = Failing()
    tracker = Tracker("failing", lambda: mirror)
    for step in range(50):
        tracker.show(step, {"train/loss": 1.0})
        time.sleep(0.001)
    tracker.close()
    assert mirror.calls == 1
    assert len(warnings) == 1
    assert "failing is left out from here: ConnectionError: no route" in warnings[0]


def test_a_mirror_that_cannot_be_opened_is_reported_once(warnings: list[str]) -> None:
    def refuse() -> Failing:
        raise SystemExit("log in first")

    tracker = Tracker("closed", refuse)
    tracker.show(1, {"train/loss": 1.0})
    tracker.close()
    assert len(warnings) == 1
    assert "SystemExit: log in first" in warnings[0]


def test_a_mirror_that_hangs_costs_no_time(
    warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "CLOSING_SECONDS", 0.2)
    tracker, started = Tracker("hanging", Hanging), time.perf_counter()
    for step in range(3 * trackers.QUEUED_LINES):
        tracker.show(step, {"train/loss": 1.0})
    tracker.close()
    patient = Tracker("patient", Hanging)
    patient.show(1, {"train/loss": 1.0})
    patient.close()
    assert time.perf_counter() - started < 2.0
    assert [line.split(" is left out")[0] for line in warnings] == [
        "tracker hanging", "tracker patient",
    ]  # fmt: skip


def test_a_tracker_that_is_unknown_or_absent_is_refused_before_the_run(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrackerError, match="names 'mlflow'; use some of tensorboard"):
        open_trackers(("mlflow",), run)
    monkeypatch.setattr(trackers, "MODULES", {"wandb": "wandb_that_is_absent"})
    with pytest.raises(TrackerError, match=r"pip install 'scaling-laws\[wandb\]'"):
        open_trackers(("wandb",), run)
