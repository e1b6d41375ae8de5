"""The cells and tasks of a grid, written into the work directory for whoever looks at it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from scaling.files import encode, write_json
from scaling.sweep.cells import Cells
from scaling.sweep.tasks import Pack, Task
from scaling.sweep.workdir import WorkdirError

FILE = "grid.json"
SCHEMA = 1


@dataclass(frozen=True)
class CellEntry:
    """A cell of the grid; `flops` by `scaling.counts.flops_6nd`."""

    run_id: str
    tokens: int
    flops: float


@dataclass(frozen=True)
class TaskEntry:
    """A task: the runs that it makes, or after which updates its trunk is left; and the tokens and
    FLOPs that it trains itself."""

    name: str
    tokens: int
    flops: float
    runs: Sequence[str]
    steps: Sequence[int]


@dataclass(frozen=True)
class Roster:
    """What a grid is."""

    cells: Sequence[CellEntry]
    tasks: Sequence[TaskEntry]


def write_roster(workdir: Path, cells: Cells, tasks: Sequence[Task]) -> None:
    """Write `grid.json`, unless it says the same already.

    What was trained here beside these cells, as a plan proposed it, stays in it.
    """
    known = read_roster(workdir) or Roster([], [])
    ids, names = {cell.run_id for cell in cells.planned}, {task.name for task in tasks}

    def trained_beside(*runs: str) -> bool:
        return ids.isdisjoint(runs) and all(
            (workdir / "records" / f"{run}.json").exists() for run in runs
        )

    roster = Roster(
        [
            *(cell for cell in known.cells if trained_beside(cell.run_id)),
            *(CellEntry(cell.run_id, cell.tokens, cell.flops) for cell in cells.planned),
        ],
        [
            *(
                task
                for task in known.tasks
                if task.name not in names and trained_beside(*task.runs)
            ),
            *(
                TaskEntry(task.name, task.tokens, task.flops, list(task.run_ids), [])
                if isinstance(task, Pack)
                else TaskEntry(task.name, task.tokens, task.flops, [], list(task.steps))
                for task in tasks
            ),
        ],
    )
    content = {"schema": SCHEMA, **asdict(roster)}
    path = workdir / FILE
    if not path.exists() or path.read_bytes() != encode(content):
        write_json(path, content)


def read_roster(workdir: Path) -> Roster | None:
    """What `write_roster` wrote; None where nothing did.

    Raises:
      WorkdirError: a file that is damaged, or of another schema.
    """
    path = workdir / FILE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']!r} where {SCHEMA} is required")
        return Roster(
            [CellEntry(**cell) for cell in content["cells"]],
            [TaskEntry(**task) for task in content["tasks"]],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise WorkdirError(
            f"{path} is damaged ({error}); remove it, the next sweep writes it again"
        ) from error
