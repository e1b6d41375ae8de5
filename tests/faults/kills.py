"""Signals to runs of the command line: each must end as if none had come."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from arrays import Flat, flat, same

from scaling.train.checkpoint import MANIFEST
from scaling.train.processes import STOPPED

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "quickstart.py"
STEPS = 100
SETTINGS = ("corpus.languages=es", "model.width=16", "model.context_tokens=16", "batch_tokens=128",
            f"budget.tokens={STEPS * 128}", "runtime.evaluate_every_steps=50",
            "runtime.evaluate_windows=8", "runtime.log_every_steps=5",
            "runtime.checkpoint_every_steps=5")  # fmt: skip
STOP_SECONDS, DOUBLE_STOP_SECONDS = 10.0, 1.0


class Child:
    """One `scaling train` in a process of its own; it `listens` once it has said its first line."""

    def __init__(self, workdir: Path, *settings: str) -> None:
        words = [f"--config.{text}" for text in (*SETTINGS, *settings)]
        command = [sys.executable, "-m", "scaling", "train", f"--config={CONFIG}", *words]
        self._said = workdir / "said.txt"
        # One device, as a user has; this process itself simulates several.
        environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
        with self._said.open("wb") as said:
            self.started = time.perf_counter()
            self.process = subprocess.Popen(
                [*command, f"--workdir={workdir}"],
                stdout=said,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=environment,
            )

    @property
    def said(self) -> str:
        return self._said.read_text(encoding="utf-8", errors="replace")

    def listens(self) -> None:
        """Return when it has begun, or ended."""
        while "one run on" not in self.said and self.process.poll() is None:
            time.sleep(0.01)

    def lives_for(self, seconds: float) -> bool:
        """Whether it is still there after so many seconds."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def end(self) -> int:
        return self.process.wait(300)


class Unbroken(NamedTuple):
    """A run that nothing happened to: what the others must end in, and how long they last."""

    data: Path
    state: Flat
    story: list[tuple[Any, ...]]
    seconds: float


def unbroken(root: Path) -> Unbroken:
    """Run it twice: the first time fills the compile cache."""
    first, second = root / "first", root / "second"
    first.mkdir()
    if Child(first).end():
        raise RuntimeError(f"the run without a fault failed:\n{(first / 'said.txt').read_text()}")
    prepare(second, first / "data")
    child = Child(second)
    child.listens()
    began = time.perf_counter()
    child.end()
    return Unbroken(first / "data", final_state(second), story(second), time.perf_counter() - began)


def prepare(workdir: Path, data: Path) -> Path:
    """A new work directory whose text is tokenized already."""
    workdir.mkdir()
    shutil.copytree(data, workdir / "data")
    return workdir


def checkpoints_of(workdir: Path) -> Path:
    [folder] = (workdir / "runs").glob("*/checkpoints")
    return folder


def read_step(path: Path) -> Flat:
    """The arrays of one step as Orbax alone reads them, by name."""
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        kinds = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray), reader.metadata(path).item_metadata
        )
        state = reader.restore(path, args=ocp.args.PyTreeRestore(restore_args=kinds.tree))
    return flat(state)


def final_state(workdir: Path) -> Flat:
    """The state after the last step: parameters, optimizer, and with the step the next batch."""
    return read_step(checkpoints_of(workdir) / str(STEPS))


def story(workdir: Path) -> list[tuple[Any, ...]]:
    """Which step trained on how many tokens to which loss: the order of the data shows in it."""
    names = ("step", "tokens", "train/loss", "grad/norm/total", "eval/validation/loss")
    lines = map(json.loads, (checkpoints_of(workdir).parent / "metrics.jsonl").open())
    told = (tuple(line.get(name) for name in names) for line in lines)
    return [line for line in told if any(value is not None for value in line[2:])]


def equal_end(workdir: Path, plain: Unbroken) -> bool:
    return same(final_state(workdir), plain.state) and story(workdir) == plain.story


def finished(workdir: Path) -> bool:
    return any((workdir / "records").glob("*.json"))


def half_saved(workdir: Path) -> bool:
    """Whether a save was under way: a step is there that has no manifest yet."""
    return any(not (path / MANIFEST).exists()
               for path in (workdir / "runs").glob("*/checkpoints/*"))  # fmt: skip


def killed(count: int, plain: Unbroken, rng: np.random.Generator, root: Path) -> dict[str, Any]:
    """SIGKILL `count` runs at least once each, at random times; start each again until done."""
    found: Counter[str] = Counter()
    reasons = []
    for number in range(count):
        workdir = prepare(root / f"killed-{number}", plain.data)
        for attempt in range(100):
            # The first start is killed for sure, later ones by the toss of a coin.
            deadly = attempt == 0 or rng.random() < 0.3
            delay = rng.uniform(0, plain.seconds)
            child = Child(workdir)
            child.listens()
            if deadly and child.lives_for(delay):
                child.process.kill()
                found["kills"] += 1
            code = child.end()
            if code not in (0, -signal.SIGKILL):
                reasons.append(f"run {number}: exit {code}: {child.said[-500:]}")
                break
            found["kills_inside_saves"] += code != 0 and half_saved(workdir)
            if finished(workdir):
                break
        ok = finished(workdir) and equal_end(workdir, plain)
        found["finished"] += finished(workdir)
        found["bitwise_equal"] += ok
        print(f"run {number}: {dict(found)}", file=sys.stderr, flush=True)
        if ok:
            shutil.rmtree(workdir)
        else:
            reasons.append(f"run {number} ended otherwise; see {workdir}")
    return {"runs": count, **found, "reasons": reasons,
            "passed": found["bitwise_equal"] == count}  # fmt: skip


def terminated(count: int, plain: Unbroken, rng: np.random.Generator, root: Path) -> dict[str, Any]:
    """SIGTERM `count` runs once, and a fifth as many twice; then let each end."""
    found: Counter[str] = Counter()
    slowest = {"once": 0.0, "twice": 0.0}
    reasons = []
    for number in range(count + count // 5):
        workdir = prepare(root / f"terminated-{number}", plain.data)
        twice = number >= count
        child = Child(workdir)
        child.listens()
        if not child.lives_for(rng.uniform(0.05, plain.seconds)):
            found["too_late"] += 1
        child.process.send_signal(signal.SIGTERM)
        if twice and child.lives_for(0.05):
            child.process.send_signal(signal.SIGTERM)
        began = time.perf_counter()
        code, seconds = child.end(), time.perf_counter() - began
        kind, limit = ("twice", DOUBLE_STOP_SECONDS) if twice else ("once", STOP_SECONDS)
        slowest[kind] = max(slowest[kind], seconds)
        good = seconds <= limit
        if code == STOPPED and not twice:
            # What it says it has done is there: no step is lost.
            good &= f"stopped after step {newest(workdir)} of" in child.said
            found["stopped"] += 1
        else:
            good &= code == 0 or (twice and code in (STOPPED, 128 + signal.SIGTERM))
        end = Child(workdir).end()
        equal = end == 0 and equal_end(workdir, plain)
        found["bitwise_equal"] += equal
        found["good"] += good and equal
        print(f"run {number}: {dict(found)}", file=sys.stderr, flush=True)
        if good and equal:
            shutil.rmtree(workdir)
        else:
            reasons.append(f"run {number}: exit {code} after {seconds:.2f} s, then {end}, equal "
                           f"{equal}: {child.said[-300:]}")  # fmt: skip
    return {"runs": count + count // 5, **found, "slowest_seconds": slowest, "reasons": reasons,
            "passed": found["good"] == count + count // 5}  # fmt: skip


def newest(workdir: Path) -> int:
    return max(int(path.parent.name) for path in checkpoints_of(workdir).glob(f"*/{MANIFEST}"))
