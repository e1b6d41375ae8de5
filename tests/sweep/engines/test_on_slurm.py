"""As jobs of submitit, here its stand-in for Slurm: a job may be killed, and may be told that its
time is over."""

import importlib.util
import os
import signal
import stat
from pathlib import Path

import pytest
from sweeps import LONG, above, awaited, below, said, sweep, whole

from scaling import config
from scaling.sweep.engines.on_slurm import OnSlurm

pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(
        importlib.util.find_spec("submitit") is None,
        reason="needs the extra slurm: pip install -e '.[slurm]'",
    ),
]


def on_slurm(tmp_path: Path, sbatch: str) -> OnSlurm:
    """Jobs of a Slurm whose `sbatch` is this line of shell; $1 is the script."""
    for name, line in {"sbatch": sbatch, "srun": "exit 1", "scancel": "exit 0"}.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
    made = config.default()
    config.override(made, ["sweep.slurm.partition=gpu", "sweep.slurm.minutes=30",
                           "sweep.slurm.more=account=physics"])  # fmt: skip
    return OnSlurm(made.sweep.slurm, workdir=tmp_path, command=lambda task: [task], retries=3)


@pytest.fixture
def own_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")


@pytest.mark.usefixtures("own_path")
def test_tasks_that_can_begin_together_are_one_array_of_slurm(tmp_path: Path) -> None:
    engine = on_slurm(tmp_path, f'cp "$1" {tmp_path}/script; echo Submitted batch job 12')
    engine.submit(["short", "long"])
    script = (tmp_path / "script").read_text().splitlines()
    for wanted in ("array=0-1%2", "partition=gpu", "time=30", "account=physics",
                   "cpus-per-task=1", "job-name=scaling"):  # fmt: skip
        assert f"#SBATCH --{wanted}" in script


@pytest.mark.usefixtures("own_path")
def test_what_slurm_says_of_jobs_that_it_does_not_take_is_passed_on(tmp_path: Path) -> None:
    engine = on_slurm(tmp_path, "echo invalid partition >&2; exit 1")
    with pytest.raises(ChildProcessError, match=r"none of 2 jobs: .*invalid partition.*mend"):
        engine.submit(["short", "long"])


def test_a_job_that_is_killed_and_one_that_must_give_way_cost_nothing_but_time(
    tmp_path: Path, wanted: dict[str, float]
) -> None:
    workdir = tmp_path / "swept"
    driver = sweep(workdir, "--engine=slurm", "--config.sweep.slurm.cluster=local")
    first = awaited(workdir, driver, lambda attempt: attempt.step >= 150)
    for process in below(above(first.process, "submitit.core._submit")):
        os.kill(process, signal.SIGKILL)
    second = awaited(workdir, driver, lambda attempt: attempt.folder != first.folder)
    assert second.step >= 150
    # What Slurm tells all processes of a job before it takes their machine away.
    for process in reversed(below(above(second.process, "submitit.core._submit"))):
        os.kill(process, signal.SIGUSR2)
    seen = {first.folder, second.folder}
    third = awaited(workdir, driver, lambda attempt: attempt.folder not in seen)
    # The process was asked, and has kept the newest state, not that of its cadence.
    assert third.step % 50
    assert driver.wait(120) == 0, said(workdir)
    # A job that gives way is queued again by itself; one that is lost, by the sweep.
    assert said(workdir).count("submitted again") == 1
    assert f"{LONG}: job " in said(workdir)
    whole(workdir, wanted)
    # What lies there is run by the jobs.
    assert stat.S_IMODE((workdir / "jobs").stat().st_mode) == 0o700
