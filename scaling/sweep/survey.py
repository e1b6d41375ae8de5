"""What the files of a work directory say of its runs: which are done, what they have cost."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaling import records
from scaling.records import Record
from scaling.sweep.roster import Roster, TaskEntry, read_roster
from scaling.sweep.tasks import trunk_done
from scaling.sweep.workdir import is_claimed
from scaling.train.journal import ACCOUNTS

TAIL = 16_384
"""Bytes at the end of a journal in which its newest lines are looked for."""


@dataclass(frozen=True)
class Journaled:
    """How far a run or trunk has come by its journal; `seconds` of the wall, all attempts taken
    together, on `devices`."""

    name: str
    trunk: bool
    tokens: int
    budget: int
    loss: float | None
    seconds: float
    devices: int


@dataclass(frozen=True)
class Survey:
    """The runs of a work directory; `roster` is None where no grid was written down."""

    roster: Roster | None
    records: Mapping[str, Record]
    journals: Mapping[str, Journaled]
    claimed: bool
    undone: tuple[TaskEntry, ...]

    @property
    def under_way(self) -> list[Journaled]:
        """Runs that were started and have no record, and trunks that are not long enough yet."""
        trunks = {task.name for task in self.undone if not task.runs}
        return [
            found
            for found in self.journals.values()
            if (found.name in trunks if found.trunk else found.name not in self.records)
        ]

    @property
    def flops(self) -> float | None:
        """FLOPs so far by `scaling.counts.flops_6nd`, None where the grid is not known."""
        if self.roster is None:
            return None
        grid = {cell.run_id for cell in self.roster.cells}
        # The run that a study plans from its grid is in no task.
        beside = [r.flops_6nd or 0.0 for name, r in self.records.items() if name not in grid]
        return sum(self._flops(task) for task in self.roster.tasks) + sum(beside)

    @property
    def flops_left(self) -> float:
        """FLOPs of the tasks that are not done, as far as they are not."""
        return sum(max(task.flops - self._flops(task), 0.0) for task in self.undone)

    @property
    def seconds(self) -> float:
        """Seconds of processes so far; packed runs share theirs."""
        return sum(found.seconds / self._lanes(found) for found in self.journals.values())

    @property
    def device_seconds(self) -> float:
        """The same times the devices of each."""
        return sum(
            found.seconds * found.devices / self._lanes(found) for found in self.journals.values()
        )

    @property
    def flops_per_second(self) -> float | None:
        """Of a process, so far."""
        return self.flops / self.seconds if self.flops and self.seconds else None

    @property
    def seconds_left(self) -> float | None:
        """How long the rest takes at that rate, by as many processes as have begun something."""
        rate = self.flops_per_second
        at_work = {self._task(found) or found.name for found in self.under_way}
        return None if rate is None else self.flops_left / rate / max(len(at_work), 1)

    def _flops(self, task: TaskEntry) -> float:
        """What of a task's FLOPs its journals show."""
        if not task.runs:
            found = self.journals.get(task.name)
            return 0.0 if found is None else task.flops * min(found.tokens / task.tokens, 1.0)
        own = task.tokens / len(task.runs)
        share = 0.0
        for name in task.runs:
            found = self.journals.get(name)
            if found is not None:
                # What it has beyond the end of its trunk.
                share += max(found.tokens - (found.budget - own), 0.0) / own
        return task.flops * share / len(task.runs)

    def _task(self, found: Journaled) -> str | None:
        tasks = self.roster.tasks if self.roster is not None else ()
        return next((task.name for task in tasks if found.name in task.runs), None)

    def _lanes(self, found: Journaled) -> int:
        record = self.records.get(found.name)
        if record is not None:
            return record.packed or 1
        tasks = self.roster.tasks if self.roster is not None else ()
        return next((len(task.runs) for task in tasks if found.name in task.runs), 1)


def survey(workdir: Path) -> Survey:
    """Read a work directory, whoever writes in it.

    Raises:
      BadTable: a damaged record.
      WorkdirError: a damaged grid.json.
    """
    roster = read_roster(workdir)
    finished = {
        path.stem: records.read(path) for path in sorted((workdir / "records").glob("*.json"))
    }
    journals: dict[str, Journaled] = {}
    for found in _journals(workdir):
        before = journals.get(found.name)
        if before is None or before.tokens <= found.tokens:
            journals[found.name] = found
    undone = tuple(
        task
        for task in (roster.tasks if roster is not None else ())
        if not (
            all(name in finished for name in task.runs)
            if task.runs
            else trunk_done(workdir, task.name, task.steps)
        )
    )
    return Survey(roster, finished, journals, is_claimed(workdir), undone)


def _journals(workdir: Path) -> Iterator[Journaled]:
    """Of all runs and trunks that were begun; several workers keep theirs apart."""
    for kind in ("runs", "trunks"):
        for place in (f"{kind}/*", f"attempts/*/{kind}/*"):
            for path in sorted(workdir.glob(f"{place}/config.json")):
                config = json.loads(path.read_text(encoding="utf-8"))
                last = _newest(path.with_name("metrics.jsonl"))
                devices = 1
                for length in config["mesh"].values():
                    devices *= length
                yield Journaled(
                    path.parent.name,
                    kind == "trunks",
                    int(last.get("tokens", 0)),
                    config["budget"]["tokens"],
                    last.get("train/loss"),
                    sum(last.get(f"goodput/{account}_seconds", 0.0) for account in ACCOUNTS),
                    devices,
                )


def _newest(journal: Path) -> dict[str, Any]:
    """The newest value of every name at the end of a journal."""
    if not journal.exists():
        return {}
    with journal.open("rb") as file:
        file.seek(max(journal.stat().st_size - TAIL, 0))
        lines = file.read().decode("utf-8", "replace").splitlines()
    newest: dict[str, Any] = {}
    for line in lines:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            # The line that a kill, or the start of the tail, cut off.
            continue
        newest |= entry if isinstance(entry, dict) else {}
    return newest
