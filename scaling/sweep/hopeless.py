"""Early stop: runs are given up of which alternatives say that they are hopeless.

Alternatives differ in their rates and seeds alone (`scaling.runs.tuning`). Of a group of them, the
*leader* at a step is the pair of rates with the least loss there, measured on the validation split
of runs that are finished. A run stops after a step at which it is measured, if

1. `SHARE` of its updates are made at least;
2. its loss is over (1 + `MARGIN`) times that of the leader at that step;
3. so is that of another pair of rates, which lies between its own and the leader's.

By 3 the best rates themselves are not stopped, nor their neighbours, which bracket them: as long as
nobody makes up `MARGIN` in the rest of a run, what lies between is not the best, and the run
beyond it not even next to the best. The loss is taken to have one valley over the rates (Li et al.
2025, section 4.2). Of several seeds the worst counts for the leader, and the best for what lies
between. Both numbers were chosen by what finished grids say (experiments/2026-11-26-early-stop).

Never stopped are: the only run of its group; runs of a group whose two rates do not rise together,
in which nothing lies between; trunks, which serve budgets that are no alternatives. Runs that train
as one program are stopped when all of them are hopeless. A run that diverged has an infinite loss;
one that was stopped counts as far as it was measured. What is stopped depends on which runs are
finished: in one process on nothing but the losses, with workers also on who was faster.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from scaling.config import ConfigError
from scaling.records import read
from scaling.runs.tuning import Rates, group_of, rates_of
from scaling.sweep.cells import Cell

SHARE = 0.25
MARGIN = 0.03


class Measured(NamedTuple):
    """A finished run: its rates, and its loss at the step in question."""

    run_id: str
    rates: Rates
    loss: float


def why_hopeless(rates: Rates, loss: float, others: Iterable[Measured]) -> str | None:
    """Why a run of these rates and this loss need not go on, by `others` at the same step; None
    where it is to go on."""
    tried: dict[Rates, list[Measured]] = defaultdict(list)
    for other in others:
        tried[other.rates].append(other)
    if not tried:
        return None
    worst = {at: max(runs, key=lambda run: (run.loss, run.run_id)) for at, runs in tried.items()}
    leader = min(worst.values(), key=lambda run: (run.loss, run.rates))
    bar = (1 + MARGIN) * leader.loss
    if loss <= bar:
        return None
    low, high = sorted((rates, leader.rates))
    between = [at for at in sorted(tried)
               if low < at < high and min(run.loss for run in tried[at]) > bar]  # fmt: skip
    if not between:
        return None
    return (
        f"its loss {loss:.4f} is over {bar:.4f}, {1 + MARGIN:g} times that of {leader.run_id} "
        f"there, and so is that of {tried[between[0]][0].run_id} between them"
    )


@dataclass(frozen=True)
class ByRivals:
    """Says of runs that train as one program whether to give them up, by the work directory
    `home`; `rivals` are the alternatives of each, all of the grid."""

    cells: Sequence[Cell]
    rivals: Sequence[Sequence[Cell]]
    home: Path

    def __call__(self, step: int, losses: Sequence[float]) -> list[str] | None:
        """Why each is to be given up, at a step at which they have these losses; None where one is
        not."""
        if step < SHARE * (self.cells[0].tokens // self.cells[0].batch_tokens):
            return None
        found: list[str] = []
        for cell, loss, rivals in zip(self.cells, losses, self.rivals, strict=True):
            others = [m for rival in rivals if (m := measured(rival, step, self.home)) is not None]
            own = loss if math.isfinite(loss) else math.inf
            why = why_hopeless(rates_of(cell.content), own, others)
            if why is None:
                return None
            found.append(f"given up at step {step}: {why}")
        return found


def measured(cell: Cell, step: int, home: Path) -> Measured | None:
    """The run of a cell at a step, by its record and journal; None where it is not finished, or
    was not measured there."""
    path = home / "records" / f"{cell.run_id}.json"
    if not path.exists():
        return None
    loss: float | None = math.inf
    if (record := read(path)).status != "diverged":
        loss = loss_at(home / "runs" / record.run_id / "metrics.jsonl", step)
    return None if loss is None else Measured(cell.run_id, rates_of(cell.content), loss)


def loss_at(journal: Path, step: int) -> float | None:
    """The validation loss that a journal has of a step; None where it has none."""
    for line in journal.read_text(encoding="utf-8").splitlines() if journal.exists() else ():
        entry = json.loads(line)
        if entry["step"] == step and entry.get("eval/validation/loss") is not None:
            return float(entry["eval/validation/loss"])
    return None


def rivals_of(cells: Iterable[Cell]) -> Mapping[str, Sequence[Cell]]:
    """The alternatives of each cell among all, by run id; none for those of a group of which
    none is ever stopped.

    Raises:
      ConfigError: no run of any group would be measured at a step at which it may be stopped.
    """
    groups: dict[str | None, list[Cell]] = defaultdict(list)
    for cell in cells:
        groups[group_of(cell.content)].append(cell)
    found: dict[str, Sequence[Cell]] = {}
    asked = []
    for group in groups.values():
        rates = sorted({rates_of(cell.content) for cell in group})
        seconds = [second for _, second in rates]
        if len(rates) > 2 and seconds == sorted(seconds):
            asked.append(group[0])
            found |= {cell.run_id: [c for c in group if c is not cell] for cell in group}
    if asked and not any(map(_is_measured, asked)):
        raise ConfigError(
            f"sweep.early_stop stops runs where they are measured, after {SHARE:.0%} of their "
            "updates, and none is measured there; lower runtime.evaluate_every_steps (now "
            f"{asked[0].content['runtime']['evaluate_every_steps']})"
        )
    return found


def from_middle(cell: Cell, rivals: Iterable[Cell]) -> float:
    """How many places the rates of a cell lie from the middle of those of its alternatives: the
    middle is trained first, so that both ends are told by it."""
    own = rates_of(cell.content)
    rates = sorted({own, *(rates_of(rival.content) for rival in rivals)})
    return abs(rates.index(own) - (len(rates) - 1) / 2)


def _is_measured(cell: Cell) -> bool:
    steps, every = cell.tokens // cell.batch_tokens, cell.content["runtime"]["evaluate_every_steps"]
    return SHARE * steps <= (steps - 1) // every * every
