"""Faults put into real runs and real checkpoints, and what became of them; a report comes last.

python tests/faults/faults.py --kills=100 --terms=50 --flips=1000 --damages=600 --full=60 \
    --meshes=10 --bad=20 --workers=200 --seed=0 --out=FILE

Arms of size 0 are left out. The arms that kill start `scaling train` itself and compare its end
with that of an unbroken run, bit for bit; the others work in this process. What is drawn follows
from the seed; where a kill lands in its run also depends on the machine. The exit status is 1 if
any arm failed.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from damages import Patient, damaged, filled, flipped
from inputs import moved, poisoned
from kills import killed, terminated, unbroken
from races import raced

from scaling import provenance
from scaling.files import write_json

DEVICES = 8
ARMS = {
    "kills": "runs that are killed by SIGKILL and started again until done",
    "terms": "runs that are told to stop by SIGTERM, and a fifth as many told twice",
    "flips": "single bits flipped in the newest checkpoint",
    "damages": "files of the newest checkpoint truncated, deleted, zeroed, swapped, ...",
    "full": "points of a save at which the disk is full",
    "meshes": "runs moved over 1, 2, 4, 8 and again 1 devices",
    "bad": "times a bad batch, bad batches in a row, and a bad rate",
    "workers": "rounds of 2, 4 and 8 workers that race for 50 cells and are killed",
}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    for name, help_ in ARMS.items():
        made.add_argument(f"--{name}", type=int, default=0, metavar="N", help=help_)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--out", type=Path, help="also write the report here")
    return made


def main() -> int:
    options = parser().parse_args()
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES}"
    os.environ["JAX_PLATFORMS"] = "cpu"
    root = Path(tempfile.mkdtemp(prefix="faults-"))
    arms: dict[str, Callable[[int, np.random.Generator], dict[str, Any]]] = {
        # First: they are forked, before JAX has threads.
        "workers": lambda n, rng: raced(n, rng, root),
        "flips": lambda n, rng: flipped(n, Patient.made(root / "flips"), rng),
        "damages": lambda n, rng: damaged(n, Patient.made(root / "damages"), rng),
        "full": lambda n, rng: filled(n, root),
        "bad": lambda n, rng: poisoned(n, rng, root),
        "meshes": lambda n, rng: moved(n, rng, root),
        "kills": lambda n, rng: killed(n, plain, rng, root),
        "terms": lambda n, rng: terminated(n, plain, rng, root),
    }
    if options.kills or options.terms:
        plain = unbroken(root)
    report: dict[str, Any] = {}
    for name, arm in arms.items():
        if size := getattr(options, name):
            began = time.perf_counter()
            rng = np.random.default_rng([options.seed, sorted(ARMS).index(name)])
            found = arm(size, rng) | {"wall_seconds": round(time.perf_counter() - began, 1)}
            print(name, json.dumps(found), flush=True)
            report[name] = found
    content = {
        "passed": all(found["passed"] for found in report.values()),
        "seed": options.seed,
        "arms": report,
        "versions": provenance.versions(),
        "code_version": provenance.code_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    if content["passed"]:
        shutil.rmtree(root)
    if options.out is not None:
        write_json(options.out, content)
    print(json.dumps(content))
    return 0 if content["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
