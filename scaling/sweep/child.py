"""A process of a sweep, and what it is told before JAX starts; JAX is not imported here."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

KEEP_MEMORY = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=2147483647"
)
"""A step's workspace stays with the process: see `experiments/2026-11-24-train-step`."""
DEVICE_SHARE = 0.9
"""Of a device's memory, for all processes that use it."""
GOODBYE_SECONDS = 10.0
"""A process that is told to stop has kept its state and is gone by then."""
POLL_SECONDS = 0.2


def start(words: Sequence[str], told: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """`python -m scaling WORDS`, whose environment is this one and what it is `told`."""
    return subprocess.Popen(
        [sys.executable, "-m", "scaling", *words],
        env=os.environ | told,
        stdout=subprocess.DEVNULL,
    )


def carry_out(words: Sequence[str], told: Mapping[str, str]) -> int:
    """Such a process from its start to its end, on the machine that a cluster has chosen; its exit
    status. An interrupt asks it to keep its state, and is raised again when it has."""
    child = start(words, told)
    try:
        while child.poll() is None:
            time.sleep(POLL_SECONDS)
    finally:
        leave(child)
    return child.returncode


def leave(child: subprocess.Popen[bytes]) -> None:
    """Ask a process to keep its state and leave, and wait for it as long as that may take."""
    child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(GOODBYE_SECONDS)


def orphaned() -> Callable[[], bool]:
    """Whether the process that started this one is gone since: nobody would see its result."""
    parent = os.getppid()
    return lambda: os.getppid() != parent


def keep_to_cores() -> None:
    """Run on the cores that `part` has given this process; call it before JAX starts."""
    if cores := os.environ.get("SCALING_CORES"):
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})


def part(index: int, workers: int) -> Mapping[str, str]:
    """What one of several processes on this machine is told: its share of the cores, of the devices
    where there are enough, else of the memory of all."""
    cores = sorted(os.sched_getaffinity(0))
    mine = cores[index % len(cores) :: workers] or [cores[index % len(cores)]]
    told = {
        "SCALING_CORES": ",".join(map(str, mine)),
        **_always(),
        "XLA_PYTHON_CLIENT_MEM_FRACTION": f"{DEVICE_SHARE / workers:.3f}",
    }
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else []
    if len(devices) >= workers:
        told["CUDA_VISIBLE_DEVICES"] = ",".join(devices[index::workers])
        told["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{DEVICE_SHARE:.3f}"
    return told


def share(*, cpus: float, gpus: float) -> Mapping[str, str]:
    """What a process is told to which a cluster has given so much of a machine; which devices it
    sees, and on which cores it runs, the cluster says itself.

    XLA makes a thread for each of `NPROC` processors, else for each that it sees. Below one GPU the
    rest of its memory is others'.
    """
    told = {"NPROC": str(max(int(cpus), 1)), **_always()}
    told["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{DEVICE_SHARE * (gpus if 0 < gpus < 1 else 1):.3f}"
    return told


def _always() -> Mapping[str, str]:
    return {"GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", KEEP_MEMORY)}


def listen_to_parent() -> None:
    """Leave an interrupt, and Slurm's word that the time of a job is over, to the process that
    started this one: it passes both on as a request to stop."""
    for number in (signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
