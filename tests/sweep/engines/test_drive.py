"""What every engine has in common, with no cluster: order, losses, refusals, and what a process is
told."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from scaling import cli, config
from scaling.config import ConfigError
from scaling.sweep import child
from scaling.sweep.cells import Cells
from scaling.sweep.engines import drive
from scaling.sweep.engines.on_ray import _judge, resources_of, seen
from scaling.sweep.engines.on_slurm import parameters_of
from scaling.train.loop import Stopped


class Task:
    """A task that leaves a file; a pack waits for its trunks."""

    def __init__(self, name: str, *trunks: str) -> None:
        self.name, self.trunks = name, trunks

    def done(self, workdir: Path) -> bool:
        return (workdir / self.name).exists()

    def ready(self, workdir: Path) -> bool:
        return all((workdir / trunk).exists() for trunk in self.trunks)


class Cluster:
    """Ends one task each time it is asked; those in `lost`, so often, without a result."""

    where = "a cluster of this test"

    def __init__(self, workdir: Path, **lost: int) -> None:
        self._workdir, self._lost = workdir, Counter(lost)
        self.queue: list[str] = []
        self.submitted: list[list[str]] = []

    def submit(self, tasks: Sequence[str]) -> None:
        self.submitted.append(list(tasks))
        self.queue += tasks

    def ended(self) -> Mapping[str, str | None]:
        name = self.queue.pop(0)
        self._lost[name] -= 1
        if self._lost[name] >= 0:
            return {name: "its machine burnt"}
        (self._workdir / name).touch()
        return {name: None}

    def close(self) -> None:
        self.queue.clear()


TASKS = (Task("trunk"), Task("alone"), Task("short", "trunk"), Task("long", "trunk"))


def driven(
    workdir: Path, cluster: Cluster, *, stop: Callable[[], bool] = lambda: False
) -> list[str]:
    """What was said."""
    console = Console(width=200)
    with console.capture() as capture:
        drive.drive(
            TASKS, Cells([]), workdir, engine=cluster, retries=2, console=console, stop=stop
        )  # type: ignore[arg-type]
    return capture.get().splitlines()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(drive, "APPEAR_SECONDS", 0.01)


def test_packs_are_submitted_together_when_their_trunk_is_there_and_done_tasks_never(
    tmp_path: Path,
) -> None:
    cluster = Cluster(tmp_path)
    assert driven(tmp_path, cluster) == []
    assert cluster.submitted == [["trunk", "alone"], ["short", "long"]]
    driven(tmp_path, again := Cluster(tmp_path))
    assert again.submitted == []


def test_a_lost_task_is_submitted_again_and_one_that_is_lost_too_often_ends_the_sweep(
    tmp_path: Path,
) -> None:
    cluster = Cluster(tmp_path, trunk=1, long=2)
    lines = driven(tmp_path, cluster)
    assert lines == [
        f"{name}: its machine burnt; submitted again" for name in ("trunk", "long")
    ] + ["long: its machine burnt; submitted again"]
    assert [name for group in cluster.submitted for name in group].count("long") == 3
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(
        ChildProcessError, match=r"alone ended 3 times .* its machine burnt; .*retries"
    ):
        driven(other, Cluster(other, alone=3))


def test_a_result_that_never_appears_is_said_to_be_missing(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with pytest.raises(ChildProcessError, match="its result does not appear here"):
        driven(tmp_path, Cluster(elsewhere))


def test_a_sweep_that_is_told_to_stop_submits_nothing_more(tmp_path: Path) -> None:
    asked = iter([False, True])
    cluster = Cluster(tmp_path)
    with pytest.raises(Stopped, match="keeps its state"):
        driven(tmp_path, cluster, stop=lambda: next(asked))
    assert cluster.submitted == [["trunk", "alone"], ["short", "long"]]
    assert not (tmp_path / "long").exists()


def section(name: str, *overrides: str) -> config.ConfigDict:
    made = config.default()
    config.override(made, [f"sweep.{name}.{override}" for override in overrides])
    return made.sweep[name]


def test_ray_is_asked_for_what_the_config_names() -> None:
    asked = resources_of(
        section("ray", "num_cpus=4", "num_gpus=0.5", "resources=TPU-v5e-8-head:1,a:b:2")
    )
    assert asked == {
        "num_cpus": 4.0, "num_gpus": 0.5, "resources": {"TPU-v5e-8-head": 1.0, "a:b": 2.0},
    }  # fmt: skip
    for bad in ("resources=TPU", "resources=TPU:none", "resources=TPU:0", "num_cpus=0"):
        with pytest.raises(ConfigError, match=bad.partition("=")[0]):
            resources_of(section("ray", bad))
    with pytest.raises(ConfigError, match=r"nearest known one is 'sweep.ray.num_gpus'"):
        section("ray", "num_gpu=1")


def test_slurm_is_asked_for_what_the_config_names() -> None:
    asked = parameters_of(
        section("slurm", "minutes=30", "partition=gpu", "gpus_per_node=1", "memory_gb=64",
                "more=account=physics,--qos=high", "setup=module load cuda")
    )  # fmt: skip
    assert {key: value for key, value in asked.items() if value is not None} == {
        "name": "scaling", "timeout_min": 30, "cpus_per_task": 1, "gpus_per_node": 1,
        "mem_gb": 64.0, "slurm_partition": "gpu", "slurm_array_parallelism": 256,
        "slurm_setup": ["module load cuda"],
        "slurm_additional_parameters": {"account": "physics", "qos": "high"},
    }  # fmt: skip
    for bad in ("cluster=pbs", "minutes=0", "more=account"):
        with pytest.raises(ConfigError, match=f"sweep.slurm.{bad.partition('=')[0]}"):
            parameters_of(section("slurm", bad))


def test_a_process_is_told_its_share_of_processors_and_device_memory() -> None:
    def told(cpus: float, gpus: float) -> tuple[str, str]:
        found = child.share(cpus=cpus, gpus=gpus)
        return found["NPROC"], found["XLA_PYTHON_CLIENT_MEM_FRACTION"]

    assert told(1, 0) == ("1", "0.900")
    assert told(8, 2) == ("8", "0.900")
    assert told(0.5, 0.25) == ("1", "0.225")


def test_xla_makes_as_many_threads_as_a_process_is_told_processors() -> None:
    program = """
import os, jax
jax.numpy.zeros(1).block_until_ready()
print(len(os.listdir("/proc/self/task")))
"""

    def threads(cpus: int) -> int:
        environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
        environment |= child.share(cpus=cpus, gpus=0)
        return int(subprocess.check_output([sys.executable, "-c", program], env=environment))

    few, many = threads(1), threads(16)
    assert many - few >= 15


def test_a_machine_is_refused_that_sees_another_folder_or_runs_other_code(tmp_path: Path) -> None:
    path = tmp_path / "nonce"
    path.write_text("1234")
    answer = seen(str(path))
    code = str(answer["code_version"])
    _judge(answer, "10.0.0.7", "1234", tmp_path, code)
    with pytest.raises(ConfigError, match=r"10.0.0.7 .* does not see .* all of them share"):
        _judge(seen(str(tmp_path / "other")), "10.0.0.7", "1234", tmp_path, code)
    with pytest.raises(ConfigError, match=r"10.0.0.7 .* runs 0.1.0\+.*, this one 0.2.0"):
        _judge(answer, "10.0.0.7", "1234", tmp_path, "0.2.0")


def test_a_process_that_is_started_where_there_is_no_study_trains_nothing(tmp_path: Path) -> None:
    workdir = tmp_path / "unmounted"
    words = ["sweep", "--config=configs/ladder.py:tiny", f"--workdir={workdir}", "--task=any"]
    assert child.carry_out(words, child.share(cpus=1, gpus=0)) == 2
    assert not workdir.exists()


@pytest.mark.parametrize(("engine", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_an_engine_whose_extra_is_not_installed_is_refused_with_the_command_that_does(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    engine: str,
    package: str,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    words = ["sweep", "--config=configs/ladder.py:tiny", f"--workdir={tmp_path / 'new'}"]
    with pytest.raises(SystemExit) as left:
        cli.main([*words, f"--engine={engine}"])
    assert left.value.code == 2
    assert f"pip install 'scaling-laws[{engine}]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--engine=ray", "--workers=2"], "--workers are processes of this machine"),
        (["--ray_address=host:6379"], "--ray_address belongs to --engine=ray"),
        (["--engine=slurm", "--max_flops=1e9"], "--max_flops is for one process"),
        (["--engine=ray", "--workdir=gs://bucket/study"], "an object store is no file system"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    study = ["sweep", "--config=configs/ladder.py:tiny", f"--workdir={tmp_path / 'new'}"]
    with pytest.raises(SystemExit) as left:
        cli.main([*study, *words])
    assert left.value.code == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
