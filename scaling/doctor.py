"""Checks a machine and an installation: what a user would be asked first when something does not
work."""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

PYTHON_WINDOW = ((3, 11), (3, 13))
NEEDED_DISK_GIB = 1.0
MATRIX = 1024


class Finding(NamedTuple):
    """One check: whether it is well, and what was found (with the remedy where it is not)."""

    ok: bool
    text: str


def examine() -> list[Finding]:
    """All checks, in the order in which one would look."""
    return [_python(), *_packages(), _device(), _speed(), _disk()]


def _python() -> Finding:
    low, high = (".".join(map(str, bound)) for bound in PYTHON_WINDOW)
    ok = PYTHON_WINDOW[0] <= sys.version_info[:2] <= PYTHON_WINDOW[1]
    text = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding(ok, text if ok else f"{text}; use Python {low} to {high}")


def _packages() -> Iterator[Finding]:
    try:
        requirements = importlib.metadata.requires("scaling-laws") or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding(
            False,
            "the distribution scaling-laws is not installed; run: pip install -e . in its folder",
        )
        return
    found: list[str] = []
    missing: list[str] = []
    for requirement in requirements:
        if "extra ==" in requirement:
            continue
        name = re.split(r"[^A-Za-z0-9_.-]", requirement, maxsplit=1)[0]
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(requirement)
    yield Finding(
        not missing, f"missing: {', '.join(missing)}; install them" if missing else ", ".join(found)
    )


def _device() -> Finding:
    devices = jax.devices()
    kind = devices[0].device_kind
    if devices[0].platform != "cpu":
        return Finding(True, f"JAX runs on {len(devices)} {kind}")
    cores = os.cpu_count()
    if shutil.which("nvidia-smi"):
        answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
        if answer.returncode == 0 and "GPU" in answer.stdout:
            gpu = answer.stdout.splitlines()[0].split("(")[0].strip()
            return Finding(
                False,
                f"JAX runs on the CPU although there is {gpu}; install its extra: "
                "pip install -e '.[cuda]'",
            )
    if any(Path("/dev").glob("accel*")):
        return Finding(
            False,
            "JAX runs on the CPU although there is a TPU; install its extra: "
            "pip install -e '.[tpu]'",
        )
    return Finding(True, f"JAX runs on the CPU ({cores} cores); no accelerator found")


def _speed() -> Finding:
    matrix = jnp.ones((MATRIX, MATRIX), jnp.float32)
    product = jax.jit(jnp.matmul)
    product(matrix, matrix).block_until_ready()
    started = time.perf_counter()
    product(matrix, matrix).block_until_ready()
    rate = 2 * MATRIX**3 / (time.perf_counter() - started)
    return Finding(True, f"a float32 matrix product of {MATRIX} runs at {rate / 1e9:,.0f} GFLOP/s")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    try:
        with tempfile.TemporaryFile(dir=Path.cwd()):
            pass
    except OSError as error:
        return Finding(False, f"cannot write in {Path.cwd()}: {error.strerror}; use another folder")
    text = f"{free:.1f} GiB free in {Path.cwd()}"
    return Finding(
        free >= NEEDED_DISK_GIB,
        text if free >= NEEDED_DISK_GIB else f"{text}; free {NEEDED_DISK_GIB:.0f} GiB",
    )
