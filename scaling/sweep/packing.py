"""How many cells of one program train best at once: measured where they train, and kept.

For every program that several cells share, the step is compiled and timed for 1 run, then for
about `FACTOR` times as many, and so on, until one of these says that more is not worth trying:

- all cells that are alike train together;
- compiling the last one took more than `COMPILE` of the time that is left to train at the best;
- the next would take more than `MEMORY` of what the device has, by the growth so far;
- the last one trained less than `GAIN` more tokens a second than the best before it.

The choice stays in `packing.json`: all processes of a sweep, and whoever continues it, pack alike.
"""

import json
import math
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax

from scaling.files import write_json
from scaling.sweep.cells import Cell, Cells
from scaling.sweep.measure import Updates, described, time_updates
from scaling.sweep.tasks import Pack, evenly, tasks_of
from scaling.sweep.workdir import WorkdirError
from scaling.train.loop import Stopped
from scaling.workshop import Workshop

FACTOR = 4
COMPILE = 0.1
MEMORY = 0.8
GAIN = 0.1
FILE = "packing.json"
TASK = "packing"
"""The name under which a process of a sweep is told to choose."""
SCHEMA = 1


@dataclass(frozen=True)
class Tried:
    """So many runs at once: seconds of an update of all, and of compiling it; bytes it takes."""

    packed: int
    step: float
    compile: float
    memory_bytes: int

    @property
    def step_of_one(self) -> float:
        """Seconds of an update of one of the runs."""
        return self.step / self.packed


@dataclass(frozen=True)
class Choice:
    """How many cells of a program train at once, why no more, and what was tried."""

    program: str
    packed: int
    why: str
    tried: Sequence[Tried]


def undecided(cells: Cells, workdir: Path, *, trunks: bool) -> dict[str, list[Pack]]:
    """The cells that could train together and are left to train, for each program of which
    `packing.json` says nothing."""
    known = read_packing(workdir)
    found: dict[str, list[Pack]] = defaultdict(list)
    for task in tasks_of(cells, trunks=trunks, packed=len(cells)):
        if isinstance(task, Pack) and task.lanes > 1 and task.shape.program not in known:
            found[task.shape.program].append(task)
    return {
        program: groups
        for program, groups in found.items()
        if not all(group.done(workdir) for group in groups)
    }


def choose(
    groups: Sequence[Pack], time: Callable[[Sequence[Cell]], Updates], *, memory_bytes: int
) -> Choice:
    """How many of these cells of one program train at once, on a device with so much memory."""
    largest = max(groups, key=lambda group: group.lanes)
    updates = sum(group.lanes * group.updates for group in groups)
    tried: list[Tried] = []

    def end(packed: int, why: str) -> Choice:
        return Choice(largest.shape.program, packed, why, tuple(tried))

    packed, best = 1, None
    while True:
        try:
            last = Tried(packed, *time(largest.cells[:packed]))
        except jax.errors.JaxRuntimeError as error:
            why = f"{packed} at once: {str(error).splitlines()[0]}"
            return end(1 if best is None else best.packed, why)
        tried.append(last)
        gain = math.inf if best is None else best.step_of_one / last.step_of_one - 1
        if best is not None and gain < GAIN:
            why = f"{packed} at once train {gain:+.0%} of the tokens a second"
            return end(best.packed, why)
        best = last
        if packed == largest.lanes:
            return end(packed, "no more are alike")
        left = updates * best.step_of_one
        packed = evenly(largest.lanes, FACTOR * packed)
        if last.compile > COMPILE * left:
            why = f"{left:.0f} s of training do not pay for compiling {packed} at once"
            return end(best.packed, why)
        needed = last.memory_bytes * packed / last.packed
        if needed > MEMORY * memory_bytes:
            have = f"{needed / 2**30:.3g} GiB of {memory_bytes / 2**30:.3g}"
            return end(best.packed, f"{packed} at once would take {have}")


def choose_all(
    undecided: Mapping[str, Sequence[Pack]],
    workshop: Workshop,
    *,
    say: Callable[[str], None],
    stop: Callable[[], bool] = lambda: False,
) -> list[Choice]:
    """Measure and choose for every program; `say` is told of each.

    Raises:
      Stopped: `stop` said so.
      ValueError, ConfigError, JaxRuntimeError: as of `scaling.sweep.measure.measure`.
    """

    def time(cells: Sequence[Cell]) -> Updates:
        if stop():
            raise Stopped("stopped while it was measured how many runs to pack")
        return time_updates([cell.config for cell in cells], workshop)[0]

    found = []
    for number, groups in enumerate(undecided.values(), 1):
        shape = described(groups[0].cells[0].shape)
        say(f"how many at once, {number} of {len(undecided)}: {shape}")
        choice = choose(groups, time, memory_bytes=device_memory())
        say(f"  {choice.packed}: {choice.why}")
        found.append(choice)
    return found


def device_memory() -> int:
    """Bytes that a device of this process may use; the machine's, where it has none of its own."""
    stats = jax.local_devices()[0].memory_stats() or {}
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(stats.get("bytes_limit", machine))


def write_packing(workdir: Path, choices: Sequence[Choice]) -> None:
    """Keep choices beside those that are kept already."""
    path = workdir / FILE
    kept = _content(path)["choices"] if path.exists() else []
    new = [
        asdict(choice) | {"device_kind": jax.local_devices()[0].device_kind} for choice in choices
    ]
    write_json(path, {"schema": SCHEMA, "choices": [*kept, *new]})


def read_packing(workdir: Path) -> dict[str, int]:
    """How many runs are packed, by program, as far as that is chosen.

    Raises:
      WorkdirError: a file that is damaged, or of another schema.
    """
    path = workdir / FILE
    if not path.exists():
        return {}
    return {choice["program"]: choice["packed"] for choice in _content(path)["choices"]}


def packing_of(choices: Sequence[Choice]) -> dict[str, int]:
    """What `read_packing` returns once they are kept."""
    return {choice.program: choice.packed for choice in choices}


def _content(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']!r} where {SCHEMA} is required")
        for choice in content["choices"]:
            if not (isinstance(choice["program"], str) and choice["packed"] >= 1):
                raise ValueError(f"a choice of {choice['packed']!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise WorkdirError(
            f"{path} is damaged ({error}); remove it, the next sweep measures again, and runs that "
            "were under way may begin again"
        ) from error
    return content
