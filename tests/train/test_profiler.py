"""The profiler: the steps that were asked for, once, and nothing where none were."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from scaling.train.profiler import Profiler


def traces(folder: Path) -> list[Path]:
    return list(folder.rglob("*.xplane.pb"))


def test_no_steps_leave_no_profile(tmp_path: Path) -> None:
    with Profiler((), folder=tmp_path / "profile") as profiler:
        for step in range(1, 6):
            profiler.begin(step)
            profiler.finished(step)
    assert not (tmp_path / "profile").exists()


def test_the_asked_steps_are_traced_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: happened.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: happened.append("stop"))
    with Profiler((3, 4), folder=tmp_path) as profiler:
        for step in range(1, 9):
            profiler.begin(step)
            happened.append(str(step))
            profiler.finished(step)
    assert happened == ["1", "2", "start", "3", "4", "stop", "5", "6", "7", "8"]


@pytest.mark.slow
def test_a_run_that_ends_within_the_steps_keeps_its_trace(tmp_path: Path) -> None:
    with Profiler((2, 50), folder=tmp_path / "profile") as profiler:
        for step in range(1, 4):
            profiler.begin(step)
            jnp.ones((24, 40)).sum().block_until_ready()
            profiler.finished(step)
    [trace] = traces(tmp_path / "profile")
    assert trace.stat().st_size > 0
