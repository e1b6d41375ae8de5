"""On a real Ray cluster a machine may be lost in the middle of a run: the sweep ends as a local one
does."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cluster
import pytest
from sweeps import LONG, above, awaited, below, losses, said, sweep, whole

pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None,
        reason="needs the extra ray: pip install -e '.[ray]'",
    ),
]
MACHINES = 3
LOOPBACK = {
    # Ray's own name for it; else it listens on the address that other machines know.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """Of the cluster and its driver; the cluster's address is in it."""
    folder = tempfile.mkdtemp(prefix="ray-")  # a socket's path may not be long
    environment = {**LOOPBACK, "RAY_TMPDIR": folder}
    started = subprocess.Popen(
        [sys.executable, cluster.__file__, str(MACHINES)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | environment,
    )
    assert started.stdout is not None
    environment["RAY_ADDRESS"] = started.stdout.readline().strip()
    assert environment["RAY_ADDRESS"].startswith("127.0.0.1:")
    yield environment
    started.communicate()
    shutil.rmtree(folder)


def test_a_machine_lost_in_mid_run_costs_nothing_but_time(
    tmp_path: Path, environment: dict[str, str], wanted: dict[str, float]
) -> None:
    workdir = tmp_path / "swept"
    resources = "--config.sweep.ray.resources=slice:1"
    driver = sweep(workdir, "--engine=ray", resources, **environment)
    first = awaited(workdir, driver, lambda attempt: attempt.step >= 150)
    machine = below(above(first.process, "/raylet/raylet"))
    assert first.process in machine
    for process in machine:
        os.kill(process, signal.SIGKILL)
    second = awaited(workdir, driver, lambda attempt: attempt.folder != first.folder)
    # It starts with what the first has kept.
    assert second.step >= 150
    assert driver.wait(120) == 0, said(workdir)
    assert f"{LONG}: lost (" in said(workdir)
    assert f"{MACHINES} machines of a Ray cluster, 1 CPU, 1 slice each task" in said(workdir)
    whole(workdir, wanted)


@pytest.mark.slow
def test_an_interrupt_leaves_what_the_same_command_goes_on_from(
    tmp_path: Path, environment: dict[str, str], wanted: dict[str, float]
) -> None:
    workdir = tmp_path / "swept"
    words = ["--engine=ray", f"--ray_address={environment['RAY_ADDRESS']}", f"--only={LONG}"]
    driver = sweep(workdir, *words, **environment)
    first = awaited(workdir, driver, lambda attempt: attempt.step >= 100)
    began = time.monotonic()
    driver.send_signal(signal.SIGINT)
    assert driver.wait(60) == 75, said(workdir)
    assert time.monotonic() - began < 20
    assert "interrupted; what ran keeps its state; the same command continues" in said(workdir)
    # Its process has kept the newest state, not that of its cadence, and let its claim go.
    assert not list((workdir / "claims").glob("*.claim"))
    again = sweep(workdir, *words, **environment)
    second = awaited(workdir, again, lambda attempt: attempt.folder != first.folder)
    assert second.step % 50
    assert again.wait(120) == 0, said(workdir)
    assert losses(workdir) == {LONG: wanted[LONG]}


def test_what_the_cluster_cannot_do_is_refused_before_anything_runs(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    refused = {
        "--config.sweep.ray.num_cpus=64": "no machine of the cluster has 64 CPU",
        "--config.sweep.ray.resources=TPU-v5e-8-head:1": "has 1 CPU, 1 TPU-v5e-8-head, which",
        "--ray_address=127.0.0.1:1": "no Ray cluster answers at 127.0.0.1:1",
    }
    workdirs = [tmp_path / str(number) for number in range(len(refused))]
    drivers = [
        sweep(workdir, "--engine=ray", word, **environment)
        for workdir, word in zip(workdirs, refused, strict=True)
    ]
    for workdir, driver, told in zip(workdirs, drivers, refused.values(), strict=True):
        assert driver.wait(60) == 2, said(workdir)
        assert told in said(workdir)
        assert not (workdir / "attempts").exists()
