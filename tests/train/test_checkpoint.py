"""Checkpoints: what comes back is what was saved, or is named, and a full disk is said."""

import json
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.train.checkpoint import MANIFEST, PROVEN, CheckpointError, Checkpoints
from scaling.train.program import TrainState

IDENTITY = {"config": {"seed": 3, "model": {"width": 16}}, "data_hash": "ab", "code_version": "1"}


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def state(step: int) -> TrainState:
    weights = {"up": jax.random.normal(jax.random.key(step), (3, 5))}
    moments = {"mu": jnp.full((3, 5), step + 0.5)}
    counters = (jnp.asarray(value, jnp.int32) for value in (step, step + 1, 0))
    number, skipped, in_row = counters
    return TrainState(number, weights, moments, skipped, in_row)


def abstract() -> TrainState:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state(0))


def opened(folder: Path, **identity: Any) -> Checkpoints:
    return Checkpoints(folder, keep=2, identity=IDENTITY | identity)


@pytest.fixture
def two_steps(tmp_path: Path) -> Path:
    with opened(tmp_path) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(state(step))
    return tmp_path


def entries(folder: Path) -> list[Path]:
    """What is in the folder beside the note of the newest proven step."""
    return [path for path in folder.iterdir() if path.name != PROVEN]


def restored(folder: Path) -> TrainState:
    with opened(folder) as checkpoints:
        found = checkpoints.restore(abstract())
    assert found is not None
    return found


def test_what_comes_back_is_what_was_saved_and_the_oldest_goes(two_steps: Path) -> None:
    jax.tree.map(np.testing.assert_array_equal, restored(two_steps), state(3))
    assert sorted(path.name for path in entries(two_steps)) == ["2", "3"]


def test_an_empty_folder_holds_no_state(tmp_path: Path) -> None:
    with opened(tmp_path) as checkpoints:
        assert checkpoints.restore(abstract()) is None


def test_a_save_is_not_disturbed_by_the_step_that_follows_it(tmp_path: Path) -> None:
    step = jax.jit(lambda state: jax.tree.map(lambda x: x * 0 - 1, state), donate_argnums=0)
    large = state(1)._replace(params={"up": jax.random.normal(jax.random.key(0), (512, 1024))})
    before = jax.tree.map(np.array, large)
    with opened(tmp_path) as checkpoints:
        checkpoints.save(large)
        after = large
        for _ in range(5):
            after = step(after)
        jax.block_until_ready(after)
        checkpoints.wait()
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), before)
        found = checkpoints.restore(shapes)
    jax.tree.map(np.testing.assert_array_equal, found, before)


def data_file(folder: Path) -> Path:
    """The largest file of the newest step: its arrays."""
    files = [p for p in (folder / "3").rglob("*") if p.is_file() and p.name != MANIFEST]
    return max(files, key=lambda path: path.stat().st_size)


def flip(folder: Path) -> None:
    content = bytearray(data_file(folder).read_bytes())
    content[len(content) // 2] ^= 16
    data_file(folder).write_bytes(content)


def truncate(folder: Path) -> None:
    data_file(folder).write_bytes(data_file(folder).read_bytes()[:-1])


def delete(folder: Path) -> None:
    data_file(folder).unlink()


def swap(folder: Path) -> None:
    first = data_file(folder)
    second = next(
        path
        for path in sorted((folder / "3").rglob("*"))
        if path.is_file() and path.read_bytes() != first.read_bytes() and path.name != MANIFEST
    )
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)


def garble(folder: Path) -> None:
    (folder / "3" / MANIFEST).write_text('{"schema": 1, "st')


def change_a_digit_of_the_manifest(folder: Path) -> None:
    path = folder / "3" / MANIFEST
    path.write_text(path.read_text().replace('"seed": 3', '"seed": 2'))


def rename_the_step(folder: Path) -> None:
    (folder / "3").rename(folder / "7")


@pytest.mark.parametrize(
    "damage", [flip, truncate, delete, swap, garble, change_a_digit_of_the_manifest,
               rename_the_step],
)  # fmt: skip
def test_a_damaged_step_is_put_aside_and_the_one_before_is_used(
    two_steps: Path, damage: Callable[[Path], None]
) -> None:
    damage(two_steps)
    jax.tree.map(np.testing.assert_array_equal, restored(two_steps), state(2))
    assert sorted(path.name.partition("-")[0] for path in entries(two_steps)) in (
        ["2", "3.broken"],
        ["2", "7.broken"],
    )


def test_when_every_step_is_broken_the_run_does_not_start_anew_in_silence(two_steps: Path) -> None:
    for step in ("2", "3"):
        (two_steps / step / MANIFEST).write_text("{}")
    for _ in range(2):
        with opened(two_steps) as checkpoints, pytest.raises(
            CheckpointError, match=r"no checkpoint in .* is whole"
        ):  # fmt: skip
            checkpoints.restore(abstract())


def test_steps_that_lost_their_manifests_are_not_taken_for_what_a_kill_left(
    two_steps: Path,
) -> None:
    for step in ("2", "3"):
        (two_steps / step / MANIFEST).unlink()
    with opened(two_steps) as checkpoints, pytest.raises(
        CheckpointError, match=r"2.broken-1"
    ):  # fmt: skip
        checkpoints.restore(abstract())
    assert sorted(path.name for path in entries(two_steps)) == ["2.broken-1", "3.broken-1"]


def test_a_step_that_lost_its_manifest_after_it_was_proven_is_kept_aside(two_steps: Path) -> None:
    (two_steps / "3" / MANIFEST).unlink()
    jax.tree.map(np.testing.assert_array_equal, restored(two_steps), state(2))
    assert (two_steps / "3.broken-1").exists()
    (two_steps / "2" / MANIFEST).unlink()
    with opened(two_steps) as checkpoints, pytest.raises(CheckpointError, match="is whole"):
        checkpoints.restore(abstract())
    assert (two_steps / "2.broken-1").exists()


def test_what_a_kill_left_of_a_removal_is_removed(two_steps: Path) -> None:
    shutil.copytree(two_steps / "2", two_steps / "1")
    (two_steps / "1" / MANIFEST).unlink()
    jax.tree.map(np.testing.assert_array_equal, restored(two_steps), state(3))
    assert sorted(path.name for path in entries(two_steps)) == ["2", "3"]


def test_a_manifest_that_cannot_be_read_is_a_damage_like_another(two_steps: Path) -> None:
    (two_steps / "3" / MANIFEST).unlink()
    (two_steps / "3" / MANIFEST).mkdir()
    jax.tree.map(np.testing.assert_array_equal, restored(two_steps), state(2))


def test_what_a_kill_left_of_a_save_is_removed(two_steps: Path) -> None:
    shutil.copytree(two_steps / "3", two_steps / "9")
    (two_steps / "9" / MANIFEST).unlink()
    (two_steps / "10.orbax-checkpoint-tmp-17").mkdir()
    jax.tree.map(np.testing.assert_array_equal, restored(two_steps), state(3))
    assert sorted(path.name for path in entries(two_steps)) == ["2", "3"]


def test_another_run_is_refused_with_the_fields_that_differ(two_steps: Path) -> None:
    other = {"config": {"seed": 4, "model": {"width": 16}}}
    with opened(two_steps, **other) as checkpoints, pytest.raises(
        CheckpointError, match=r"config.seed: 3 -> 4"
    ):  # fmt: skip
        checkpoints.restore(abstract())
    with opened(two_steps, data_hash="cd") as checkpoints, pytest.raises(
        CheckpointError, match=r"data_hash: ab -> cd"
    ):  # fmt: skip
        checkpoints.restore(abstract())
    with opened(two_steps, code_version="2") as checkpoints:
        assert checkpoints.restore(abstract()) is not None


def test_a_manifest_says_the_step_the_identity_and_every_file(two_steps: Path) -> None:
    manifest = json.loads((two_steps / "3" / MANIFEST).read_text())
    assert manifest["step"] == 3
    assert manifest["identity"] == IDENTITY
    files = {p.relative_to(two_steps / "3").as_posix() for p in (two_steps / "3").rglob("*")
             if p.is_file()}  # fmt: skip
    assert set(manifest["files"]) == files - {MANIFEST}


def test_a_full_disk_is_said_and_leaves_earlier_states_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as checkpoints:
        checkpoints.save(state(1))
        checkpoints.wait()
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(100, 100, 0))
        with pytest.raises(OSError, match=r"could not write .*/2: no space left .* free space"):
            checkpoints.save(state(2))
        assert checkpoints.saved == 1


def test_an_error_in_the_background_is_raised_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail = threading.Event()

    def broken(*_: object) -> None:
        fail.set()
        raise OSError(28, "no space left on device")

    with opened(tmp_path) as checkpoints:
        checkpoints.save(state(1))
        checkpoints.wait()
        monkeypatch.setattr("scaling.train.checkpoint._prove", broken)
        checkpoints.save(state(2))
        with pytest.raises(OSError, match="could not write"):
            checkpoints.save(state(3))
        assert fail.is_set()
        assert checkpoints.saved == 1
    jax.tree.map(np.testing.assert_array_equal, restored(tmp_path), state(1))


LIMITED = """
import resource, sys, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
import jax, jax.numpy as jnp
from pathlib import Path
from scaling.train.checkpoint import Checkpoints
from scaling.train.program import TrainState
zero = jnp.zeros((), jnp.int32)
def state(step):
    values = jax.random.normal(jax.random.key(step), (256, 1024))
    return TrainState(jnp.asarray(step, jnp.int32), {"up": values}, {}, zero, zero)
with Checkpoints(Path(sys.argv[1]), keep=2, identity={}) as checkpoints:
    checkpoints.save(state(1)); checkpoints.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
    try:
        checkpoints.save(state(2)); checkpoints.wait()
        print("said saved", checkpoints.saved)
    except OSError as error:
        print("refused", checkpoints.saved)
"""


@pytest.mark.parametrize("limit", [0, 1000, 100_000])
def test_a_write_that_fails_midway_is_never_said_to_be_saved(
    tmp_path: Path, limit: int, user_environment: dict[str, str]
) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    found = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path), str(limit)],
        capture_output=True,
        text=True,
        check=False,
        env=user_environment,
        timeout=120,
    )
    assert "refused 1" in found.stdout, found.stdout + found.stderr[-2000:]
    assert (tmp_path / "1" / MANIFEST).exists()
    assert not (tmp_path / "2" / MANIFEST).exists()
