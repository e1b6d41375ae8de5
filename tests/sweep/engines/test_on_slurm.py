"""As jobs of submitit, here its stand-in for Slurm: a job may be killed, and may be told that its
time is over."""

import importlib.util
import os
import signal
import stat
from pathlib import Path

import pytest
from sweeps import LONG, above, awaited, below, said, sweep, whole

pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(
        importlib.util.find_spec("submitit") is None,
        reason="needs the extra slurm: pip install -e '.[slurm]'",
    ),
]


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
