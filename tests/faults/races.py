"""Workers that race for the cells of one work directory, are killed, and differ in their clocks."""

import functools
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CELLS, LEASE_SECONDS = 50, 2.0
WORKERS = (2, 4, 8)
SKEW_SECONDS = 3600.0


class Cell:
    """A task that takes a moment, keeps a state on its way, and leaves a record."""

    def __init__(self, number: int) -> None:
        self.name = f"cell-{number:02d}"

    def done(self, workdir: Path) -> bool:
        return (workdir / "records" / f"{self.name}.json").exists()

    def ready(self, workdir: Path) -> bool:
        return True

    def execute(
        self, workshop: Any, *, home: Path, watch: object, stop: Callable[[], bool]
    ) -> None:
        with (home / "tried").open("a") as tried:
            tried.write(f"{self.name}\n")
        place = workshop.workdir / "runs" / self.name
        place.mkdir(parents=True, exist_ok=True)
        for step in range(3):
            time.sleep(random.uniform(0, 0.004))
            stop()
            (place / "metrics.jsonl").open("a").write(f"{step}\n")
        record = workshop.workdir / "records" / f"{self.name}.json"
        record.parent.mkdir(exist_ok=True)
        record.write_text(json.dumps({"run_id": self.name, "worker": os.getpid()}))


def _worker(workdir: Path, skew: float) -> None:
    from scaling.sweep import workers

    for name in ("time", "monotonic"):
        clock = getattr(time, name)
        setattr(time, name, functools.partial(lambda read: read() + skew, clock))
    workers.POLL_SECONDS = 0.02
    tasks = [Cell(number) for number in range(CELLS)]
    random.shuffle(tasks)
    workers.work(tasks, workdir, watch=lambda tick: None, lease_seconds=LEASE_SECONDS)


def raced(rounds: int, rng: np.random.Generator, root: Path) -> dict[str, Any]:
    """Every cell must have one record and one run, whatever was killed and whatever the clocks say;
    what was tried twice is at most what was killed."""
    fork = multiprocessing.get_context("fork")
    found: Counter[str] = Counter()
    reasons = []
    for number in range(rounds):
        workdir = root / f"race-{number}"
        workdir.mkdir()
        skews = rng.uniform(-SKEW_SECONDS, SKEW_SECONDS, WORKERS[number % len(WORKERS)])
        workers = [fork.Process(target=_worker, args=[workdir, skew]) for skew in skews]
        for worker in workers:
            worker.start()
        kills = 0
        for victim in rng.permutation(len(workers))[: int(rng.integers(len(workers)))]:
            time.sleep(rng.uniform(0, 0.3))
            if workers[victim].is_alive():
                os.kill(workers[victim].pid, signal.SIGKILL)
                kills += 1
        for worker in workers:
            worker.join(120)
        records = {path.stem for path in (workdir / "records").glob("*.json")}
        runs = {path.name for path in (workdir / "runs").iterdir()}
        tried = Counter((workdir / "tried").read_text().split())
        again = sum(tried.values()) - len(tried)
        wanted = {f"cell-{n:02d}" for n in range(CELLS)}
        ok = records == runs == wanted and again <= kills
        found["kills"] += kills
        found["tried_again"] += again
        found["whole"] += ok
        if ok:
            shutil.rmtree(workdir)
        else:
            reasons.append(f"round {number}: {len(records)} records, {len(runs)} runs, {again} "
                           f"tried again after {kills} kills")  # fmt: skip
    return {"rounds": rounds, "cells": CELLS, **found, "reasons": reasons,
            "passed": found["whole"] == rounds}  # fmt: skip
