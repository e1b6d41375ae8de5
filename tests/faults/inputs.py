"""Bad batches, bad rates and changing meshes: runs of this process, watched from inside."""

import contextlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import jax
import numpy as np
from arrays import flat, same
from kills import CONFIG, SETTINGS, STEPS, checkpoints_of, newest, read_step, story
from ml_collections import ConfigDict

from scaling import cells, config, run
from scaling.data.loader import Batch
from scaling.records import Record
from scaling.train.checkpoint import Checkpoints
from scaling.train.loop import Stopped
from scaling.train.program import TrainState
from scaling.workshop import Workshop

MESHES = (1, 2, 4, 8, 1)
AXES = ("data", "fsdp", "context")
MOVED_STEPS = 40


def cell_of(*settings: str) -> ConfigDict:
    return cells.cell_of(config.load(str(CONFIG), [*SETTINGS, *settings]).config)


def ignore(tick: run.Tick) -> None:
    pass


class Watched(Workshop):
    """A workshop that notes which batches were `asked`, some of which no loss survives."""

    def __init__(
        self, workdir: Path, *, source: Workshop, poison: Mapping[int, float] = MappingProxyType({})
    ) -> None:
        super().__init__(workdir)
        self._data, self._programs, self._poison = source._data, source._programs, poison
        self.asked: list[int] = []

    def stream(self, cell: ConfigDict) -> Any:
        stream = super().stream(cell)

        def batch(step: int) -> Batch:
            self.asked.append(step)
            content = stream.batch(step)
            bad = np.float32(self._poison.get(step, 1.0))
            return content | {"weights_BT": content["weights_BT"] * bad}

        return SimpleNamespace(batch=batch)


def poisoned(count: int, rng: np.random.Generator, root: Path) -> dict[str, Any]:
    """One batch of NaN or of overflow; then too many in a row; then a rate of 10,000 times."""
    source = Workshop(root / "clean")
    plain = run.run(cell_of(), source, watch=ignore)
    limit, rate = cell_of().optimizer.skip_limit, plain.learning_rate
    found: Counter[str] = Counter()
    reasons = []
    for number in range(count):
        first = int(rng.integers(STEPS - limit))
        value = (math.nan, 3e38)[number % 2]
        rows = {
            "one bad batch is skipped and logged": ({first: value}, ()),
            "bad batches in a row stop the run": (
                dict.fromkeys(range(first, first + limit), value), ()
            ),
            "a rate x 1e4 diverges or stays finite": (
                {}, (f"optimizer.learning_rate={rate * 1e4}", f"seed={number}")
            ),
        }  # fmt: skip
        for name, (poison, settings) in rows.items():
            workdir = root / f"poisoned-{number}-{len(poison)}"
            workshop = Watched(workdir, source=source, poison=poison)
            record = run.run(cell_of(*settings), workshop, watch=ignore)
            ok = _as_it_should(record, workdir, first=first, bad=len(poison))
            found[name] += ok
            if not ok:
                reasons.append(f"{name}: batch {first}: {record.status}, {record.reason}")
    return {"runs": 3 * count, **found, "reasons": reasons,
            "passed": sum(found.values()) == 3 * count}  # fmt: skip


def _as_it_should(record: Record, workdir: Path, *, first: int, bad: int) -> bool:
    journal = workdir / "runs" / record.run_id / "metrics.jsonl"
    lines = list(map(json.loads, journal.read_text().splitlines()))
    skipped = [line["step"] for line in lines if "train/skipped_updates" in line]
    kept = read_step(journal.parent / "checkpoints" / str(newest(workdir)))
    finite = all(np.isfinite(value).all() for value in kept.values())
    if bad == 0:
        return finite and (
            record.status == "diverged" or (record.status == "ok" and math.isfinite(record.loss))
        )
    if bad == 1:
        return finite and record.status == "ok" and skipped == [first + 1]
    last = first + bad
    told = record.status == "diverged" and f"step {last} (batch {last - 1})" in record.reason
    return finite and told and skipped == list(range(first + 1, last + 1))


def moved(count: int, rng: np.random.Generator, root: Path) -> dict[str, Any]:
    """One run over 1, 2, 4, 8 and again 1 devices, stopped at random steps in between."""
    budget = f"budget.tokens={MOVED_STEPS * 128}"
    source = Workshop(root / "still")
    run.run(cell_of(budget), source, watch=ignore)
    expected = story(root / "still")
    found: Counter[str] = Counter()
    worst = 0.0
    for number in range(count):
        axis, workdir = AXES[number % len(AXES)], root / f"moved-{number}"
        workshop = Watched(workdir, source=source)
        cuts = sorted(rng.choice(np.arange(1, MOVED_STEPS), len(MESHES) - 1, replace=False))
        for devices, start, until in zip(MESHES, [0, *cuts], [*cuts, MOVED_STEPS], strict=True):
            cell = cell_of(budget, f"mesh.{axis}={devices}")
            if start:
                found["restores"] += 1
                found["bitwise_equal"] += _comes_back(cell, workshop)
            with contextlib.suppress(Stopped):
                run.run(cell, workshop, watch=ignore, stop=_asked_for(workshop, int(until)))
        found["data_order_equal"] += workshop.asked == list(range(MOVED_STEPS))
        for ours, theirs in zip(story(workdir), expected, strict=True):
            pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if b is not None]
            worst = max(worst, *(abs(a - b) / max(abs(b), 1e-9) for a, b in pairs))
    return {"chains": count, **found, "worst_relative_difference_of_the_journal": worst,
            "passed": found["bitwise_equal"] == found["restores"] == 4 * count
            and found["data_order_equal"] == count and worst <= 1e-4}  # fmt: skip


def _asked_for(workshop: Watched, until: int) -> Callable[[], bool]:
    """Stops a run that has asked for so many batches, unless they are all."""
    return lambda: until <= len(workshop.asked) < MOVED_STEPS


def _comes_back(cell: ConfigDict, workshop: Workshop) -> bool:
    """Whether the newest step, on the cell's mesh, is what its files hold."""
    folder = checkpoints_of(workshop.workdir)
    raw = read_step(folder / str(newest(workshop.workdir)))
    identity = run._identity([cell], workshop)
    with Checkpoints(folder, keep=2, identity=identity) as checkpoints:
        found: TrainState | None = checkpoints.restore(workshop.program(cell).abstract_state)
    assert found is not None
    devices = max(len(leaf.sharding.device_set) for leaf in jax.tree.leaves(found))
    return devices == math.prod(cell.mesh.values()) and same(flat(found._asdict()), raw)
