"""What a sweep will cost, before anything of it is paid: counts, FLOPs, memory, time."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from scaling.records import Record, read
from scaling.sweep.cells import Cell, Cells, Shape
from scaling.sweep.tasks import Task, Trunk
from scaling.workshop import make_program

Key = tuple[str, int]
"""What one executable is for: a program (`scaling.workshop.program_key`), and how many runs it
trains at once."""


def key_of(task: Task) -> Key:
    """The executable that carries a task out."""
    return task.shape.program, task.lanes


class Spent(NamedTuple):
    """Tokens that are trained, and their FLOPs under both conventions of `scaling.counts`."""

    tokens: int
    flops_6nd: float
    flops_counted: float


def spent_by(parts: Iterable[Cell | Task]) -> Spent:
    """What cells one by one, or tasks, take together."""
    tokens, flops_6nd, counted = 0, 0.0, 0.0
    for part in parts:
        tokens += part.tokens
        flops_6nd += part.tokens * part.shape.flops_6nd_per_token
        counted += part.tokens * part.shape.flops_counted_per_token
    return Spent(tokens, flops_6nd, counted)


@dataclass(frozen=True)
class Speed:
    """How long an executable takes on this machine, in seconds, as it was measured.

    `step` is one update of all its runs; `measure` what measuring them meanwhile comes to for each
    update; `end` what a run takes at its end; `compile` what the executable takes once.
    `memory_bytes` of a device is XLA's own account of the compiled step, None where it was not
    asked.
    """

    step: float
    measure: float
    end: float
    compile: float
    memory_bytes: int | None = None

    def seconds(self, task: Task) -> float:
        """Of a task, compilation left out. A trunk is not measured."""
        if isinstance(task, Trunk):
            return task.updates * self.step
        return task.updates * (self.step + self.measure) + self.end


@dataclass(frozen=True)
class ShapeRow:
    """The cells of one program. `state_bytes` of a device: what is kept of its runs from one update
    to the next (parameters, moments, counters), of as many as train at once; or why that is not
    known."""

    shape: Shape
    cells: tuple[Cell, ...]
    lanes: int
    state_bytes: int | str


@dataclass(frozen=True)
class Forecast:
    """What a sweep will cost; see `forecast`."""

    cells: Cells
    tasks: tuple[Task, ...]
    done: frozenset[str]
    left: tuple[Task, ...]
    rows: tuple[ShapeRow, ...]
    speeds: Mapping[Key, Speed]

    @property
    def alone(self) -> Spent:
        """All cells, each trained by itself."""
        return spent_by(self.cells.planned)

    @property
    def shared(self) -> Spent:
        """All tasks: what cells have in common is trained once."""
        return spent_by(self.tasks)

    @property
    def timed(self) -> tuple[Task, ...]:
        """The tasks that are left and whose time is known."""
        return tuple(task for task in self.left if key_of(task) in self.speeds)

    @property
    def seconds(self) -> float:
        """How long those take in one process, one after another, with compilation."""
        timed = self.timed
        compiled = sum(self.speeds[key].compile for key in {key_of(task) for task in timed})
        return compiled + sum(self.speeds[key_of(task)].seconds(task) for task in timed)


def forecast(
    cells: Cells, tasks: Sequence[Task], workdir: Path, *, speeds: Mapping[Key, Speed] | None = None
) -> Forecast:
    """The cost of `tasks`, which train `cells`; what has a result in `workdir` is not paid again.

    Speeds not given are taken from the records in `workdir` of these cells on a device of this
    machine's kind. Nothing is written.

    Raises:
      BadTable: a damaged record.
    """
    records = _records(cells, workdir)
    there = workdir.exists()
    left = tuple(task for task in tasks if not (there and task.done(workdir)))
    return Forecast(
        cells,
        tuple(tasks),
        frozenset(records),
        left,
        tuple(_rows(cells, tasks)),
        speeds_of(cells, records) | dict(speeds or {}),
    )


def _records(cells: Cells, workdir: Path) -> dict[str, Record]:
    there = {path.stem for path in (workdir / "records").glob("*.json")}
    return {
        cell.run_id: read(workdir / "records" / f"{cell.run_id}.json")
        for cell in cells.planned
        if cell.run_id in there
    }


def _rows(cells: Cells, tasks: Sequence[Task]) -> Iterable[ShapeRow]:
    together: dict[str, list[Cell]] = defaultdict(list)
    lanes: dict[str, int] = defaultdict(lambda: 1)
    for cell in cells.planned:
        together[cell.shape.program].append(cell)
    for task in tasks:
        lanes[task.shape.program] = max(lanes[task.shape.program], task.lanes)
    for program, group in together.items():
        number = lanes[program]
        shape = group[0].shape
        yield ShapeRow(shape, tuple(group), number, state_bytes(group[0], lanes=number))


def state_bytes(cell: Cell, *, lanes: int) -> int | str:
    """Bytes that a device keeps of the state of so many runs, or why that is not known here."""
    try:
        state = make_program(cell.config, packed=lanes if lanes > 1 else None).abstract_state
    except ValueError as error:
        # A mesh or a kernel that this machine does not have: the sweep may be for another.
        return str(error)
    return sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape), dtype=np.int64)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(state)
    )


def speeds_of(cells: Cells, records: Mapping[str, Record]) -> dict[Key, Speed]:
    """How fast the executables were that made these records, of those on this machine's device.

    Updates are those that a run made itself, without its trunk's; `end` is all its wall time that
    was neither training nor compilation. Times of packed runs are of all of them together.
    """
    kind = jax.devices()[0].device_kind if records else None
    found: dict[Key, list[tuple[Cell, Record]]] = defaultdict(list)
    for cell in cells.planned:
        record = records.get(cell.run_id)
        if record is not None and record.status == "ok" and record.device_kind == kind:
            found[cell.shape.program, record.packed or 1].append((cell, record))
    speeds = {}
    for key, made in found.items():
        updates = sum(
            (cell.tokens - (record.branch_tokens or 0)) // cell.batch_tokens
            for cell, record in made
        )
        trained, wall, compiled = (
            np.array([getattr(record, f"{name}_seconds") or 0.0 for _, record in made])
            for name in ("train", "wall", "compile")
        )
        # The wall time of a run that was resumed is that of its last attempt alone.
        ends = np.maximum(wall - trained - compiled, 0.0)
        speeds[key] = Speed(
            step=float(trained.sum()) / updates,
            measure=0.0,
            end=float(np.median(ends)),
            compile=float(compiled.max()),
        )
    return speeds
