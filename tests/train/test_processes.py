"""Several processes are one run: what they compute, how they stop, and what a lost one leaves."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from scaling.train import processes

STEPS = 40
CONFIG = f"""
from scaling import config as configs

def get_config(argument=""):
    config = configs.default()
    configs.override(config, [
        "model.width=16", "model.context_tokens=16", "batch_tokens=128",
        "budget.tokens={STEPS * 128}", "corpus.languages=es", "mesh.data=4", "mesh.fsdp=2",
        "runtime.evaluate_every_steps=15", "runtime.evaluate_windows=8",
        "runtime.log_every_steps=1", "runtime.checkpoint_every_steps=10",
    ])
    return config
"""
PATIENCE_SECONDS = 300.0
LEAVE_SECONDS = 60.0


def test_a_process_that_is_described_by_half_is_refused() -> None:
    with pytest.raises(processes.ProcessError, match="processes 2, process None; give all three"):
        processes.join(coordinator="here:1", processes=2, process=None)
    with pytest.raises(processes.ProcessError, match="process 2 of 2; count from 0 to 1"):
        processes.join(coordinator="here:1", processes=2, process=2)


def test_a_single_process_writes_and_waits_for_nobody(tmp_path: Path) -> None:
    assert processes.first()
    with pytest.raises(ValueError, match="its own"), processes.Together(coordinator="here:1"):
        raise ValueError("its own")
    later = threading.Timer(0.1, (tmp_path / "data").mkdir)
    later.start()
    processes.wait_for(tmp_path / "data")
    assert (tmp_path / "data").exists()


def test_the_first_sigterm_is_an_answer_and_the_handler_before_is_back_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with processes.StopRequest() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
    assert signal.getsignal(signal.SIGTERM) is before


class Command:
    """`scaling train` in one or two processes of eight simulated devices together."""

    def __init__(self, folder: Path, *, count: int) -> None:
        self.workdir = folder / "work"
        config = folder / "config.py"
        config.write_text(CONFIG)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        environment = os.environ | {
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={8 // count} "
            "--xla_cpu_multi_thread_eigen=false"
        }
        words = [sys.executable, "-m", "scaling", "train", f"--config={config}",
                 f"--workdir={self.workdir}"]  # fmt: skip
        self.processes = []
        self._said = [folder / f"said-{index}.txt" for index in range(count)]
        for index, said in enumerate(self._said):
            place = [
                f"--coordinator=127.0.0.1:{port}",
                f"--processes={count}",
                f"--process={index}",
            ]
            with said.open("w") as file:
                self.processes.append(
                    subprocess.Popen(
                        words + ([*place, f"--process={index}"] if count > 1 else []),
                        env=environment,
                        stdout=file,
                        stderr=subprocess.STDOUT,
                    )
                )

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def said(self, index: int) -> str:
        return self._said[index].read_text()

    def ended(self, *, seconds: float = PATIENCE_SECONDS) -> list[int]:
        return [process.wait(seconds) for process in self.processes]

    def reach(self, step: int) -> None:
        """Wait until `step` is in the journal, and a state in the checkpoints."""
        limit = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < limit and None in [process.poll() for process in self.processes]:
            if max(losses(self.workdir), default=0) >= step and steps_kept(self.workdir):
                return
            time.sleep(0.02)
        raise AssertionError(f"step {step} was not reached: {self.said(0)}")


def losses(workdir: Path) -> dict[int, float]:
    """The training loss of every step that is in the journal."""
    found = {}
    for path in workdir.glob("runs/*/metrics.jsonl"):
        # The last line may be under way.
        for line in path.read_text().rpartition("\n")[0].splitlines():
            entry = json.loads(line)
            if "train/loss" in entry:
                found[entry["step"]] = entry["train/loss"]
    return found


def steps_kept(workdir: Path) -> list[int]:
    found = workdir.glob("runs/*/checkpoints/*/manifest.json")
    return sorted(int(path.parent.name) for path in found)


def final_state(workdir: Path) -> dict[str, np.ndarray]:
    [newest] = workdir.glob(f"runs/*/checkpoints/{STEPS}")
    with ocp.StandardCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(newest).item_metadata.tree
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        target = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), metadata
        )
        state = checkpointer.restore(newest, target)
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def final_loss(workdir: Path) -> float:
    [path] = (workdir / "records").iterdir()
    record = json.loads(path.read_text())
    assert record["status"] == "ok"
    return record["loss"]


class Ended(NamedTuple):
    """What a run that was left alone has measured."""

    losses: dict[int, float]
    loss: float
    state: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    with Command(tmp_path_factory.mktemp("pair"), count=2) as command:
        assert command.ended() == [0, 0], command.said(0) + command.said(1)
        workdir = command.workdir
        yield Ended(losses(workdir), final_loss(workdir), final_state(workdir))


def assert_resumes_to(pair: Ended, folder: Path) -> None:
    with Command(folder, count=2) as command:
        assert command.ended() == [0, 0], command.said(0) + command.said(1)
        assert losses(command.workdir) == pair.losses
        assert final_loss(command.workdir) == pair.loss
        found = final_state(command.workdir)
    assert found.keys() == pair.state.keys()
    for name, value in pair.state.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.slow
def test_two_processes_see_the_batches_and_reach_the_losses_of_one(
    pair: Ended, tmp_path: Path
) -> None:
    with Command(tmp_path, count=1) as command:
        assert command.ended() == [0], command.said(0)
        alone = losses(command.workdir)
        assert list(alone) == list(pair.losses) == list(range(1, STEPS + 1))
        np.testing.assert_allclose(list(alone.values()), list(pair.losses.values()), rtol=1e-5)
        assert final_loss(command.workdir) == pytest.approx(pair.loss, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1], ids=["first", "second"])
def test_a_process_that_lost_the_other_says_so_and_the_run_goes_on_bit_for_bit(
    pair: Ended, tmp_path: Path, lost: int
) -> None:
    with Command(tmp_path, count=2) as command:
        command.reach(12)
        command.processes[lost].kill()
        left = command.processes[1 - lost].wait(LEAVE_SECONDS)
        said = command.said(1 - lost)
        assert left == processes.LOST, said
        assert "another process of this run was lost; the same command goes on" in said
        assert "Traceback" not in said
        assert not (command.workdir / "records").exists()
        assert max(steps_kept(command.workdir)) < STEPS
    assert_resumes_to(pair, tmp_path)


@pytest.mark.slow
def test_a_sigterm_to_one_process_stops_both_at_one_step(pair: Ended, tmp_path: Path) -> None:
    with Command(tmp_path, count=2) as command:
        command.reach(12)
        command.processes[1].terminate()
        assert command.ended(seconds=LEAVE_SECONDS) == [processes.STOPPED] * 2
        step = max(steps_kept(command.workdir))
        for index in range(2):
            assert f"stopped after step {step} of {STEPS}" in command.said(index)
    assert_resumes_to(pair, tmp_path)


@pytest.mark.slow
def test_a_process_that_fails_alone_takes_the_other_along(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("not a folder")
    with Command(tmp_path, count=2) as command:
        # The first cannot claim the work directory; the second waits for its data.
        assert command.ended(seconds=LEAVE_SECONDS) == [2, processes.LOST]
        assert "scaling train: cannot write" in command.said(0)
