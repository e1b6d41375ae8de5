"""What a folder holds, read back: records, curves, law, plan, verdict, and what was damaged."""

import functools
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import numpy as np

from scaling import records
from scaling.analysis.agreement import ways
from scaling.analysis.approaches import Allocation
from scaling.analysis.fitted import Law
from scaling.analysis.forms import Form
from scaling.analysis.rules import LAWS
from scaling.records import Record
from scaling.runs import RECORD_COLUMNS, Runs
from scaling.runs.names import unit_of_loss

T = TypeVar("T")

REQUIRED = {
    "law.json": ("law", "params", "convention", "diagnostics"),
    "plan.json": ("targets",),
    "verdict.json": ("run_id", "flops", "predicted", "measured", "relative_error"),
}
KINDS: Mapping[str, type] = {
    "law": str, "params": dict, "convention": dict, "diagnostics": dict, "targets": list,
}  # fmt: skip
LEVEL = 0.9
"""Of all intervals of the report that are not a parameter's own."""


class ReportError(ValueError):
    """A folder that a report cannot be made of."""


@dataclass(frozen=True)
class Curve:
    """Validation loss in nats per token against tokens seen, one run."""

    tokens: tuple[float, ...]
    loss: tuple[float, ...]


class Run(NamedTuple):
    """A finished run as the law sees it: counts in the law's convention, loss in nats per token."""

    run_id: str
    params: float
    tokens: float
    flops: float
    loss: float


@dataclass(frozen=True)
class Evidence:
    """The contents of a folder; `problems` tells what was damaged, and the remedy.

    A work directory has records; a law of somebody's table stands alone, with its runs inside.
    """

    records: tuple[Record, ...] = ()
    curves: Mapping[str, Curve] = field(default_factory=dict)
    unfinished: tuple[str, ...] = ()
    law: Mapping[str, Any] | None = None
    plan: Mapping[str, Any] | None = None
    verdict: Mapping[str, Any] | None = None
    problems: tuple[str, ...] = ()

    @property
    def convention(self) -> Mapping[str, str]:
        """Which record fields the law counted with; the project's own if it names none."""
        used = self.law["convention"] if self.law else {}
        return {
            name: used[name] if used.get(name) in records.NUMBERS else field
            for name, field in RECORD_COLUMNS.items()
        }

    @property
    def form(self) -> Form | None:
        """The law's entry in the table of laws, None where there is no law or it is unknown."""
        return LAWS.get(self.law["law"]) if self.law else None

    @property
    def target(self) -> str:
        """The column that the law predicts."""
        return self.form.target if self.form else "loss"

    @property
    def unit(self) -> str:
        """The unit of the loss."""
        return unit_of_loss(self.law["convention"].get("loss") if self.law else None)

    @property
    def of_logs(self) -> bool:
        """Whether residuals are of the target's logarithm."""
        return self.form is None or self.form.link == "log"

    @property
    def fitted(self) -> list[Mapping[str, Any]]:
        """The runs that the law was fitted to, each with what it predicts and the residual."""
        return list(self.law["diagnostics"].get("residuals") or []) if self.law else []

    @property
    def frontier(self) -> Mapping[str, Any] | None:
        """The law's compute-optimal curve, None where it has none."""
        return self.law.get("frontier") if self.law else None

    @property
    def budgets(self) -> list[Mapping[str, Any]]:
        """The law's IsoFLOP parabolas, smallest budget first."""
        isoflop = self.law.get("isoflop") if self.law else None
        return list((isoflop or {}).get("budgets") or [])

    @functools.cached_property
    def allocations(self) -> list[Allocation]:
        """Approaches 1, 2 and 3 to the optimal size and data, as far as the fitted runs allow each.

        Approach 1 goes along the checkpoints of a run where the law's file says which rows are
        those, else along the ends of the runs.
        """
        if self.runs is None or self.law is None:
            return []
        return ways(self.runs, Law.from_json(self.law), level=LEVEL)

    @property
    def of_checkpoints(self) -> bool:
        """Whether the law's file says of which run each of its rows is a checkpoint."""
        return bool(self.fitted) and all(row.get("series") is not None for row in self.fitted)

    @functools.cached_property
    def runs(self) -> Runs | None:
        """The runs of the law's file as a table, None where they lack a size, tokens or compute."""
        rows = self.fitted
        if self.target != "loss" or not rows or min(min(_numbers(row)) for row in rows) <= 0:
            return None
        params, tokens, flops, loss = np.array([_numbers(row) for row in rows], np.float64).T
        return Runs(
            run_id=tuple(str(row["run_id"]) for row in rows),
            params=params,
            tokens=tokens,
            flops=flops,
            loss=loss,
            series=tuple(str(row["series"]) for row in rows) if self.of_checkpoints else None,
        )

    def measured(self) -> list[Run]:
        """The runs that ended well with a size, a compute and a loss, smallest model first; of the
        law's objective alone, where its file names one."""
        objective = self.law["convention"].get("objective") if self.law else None
        names = (self.convention["params"], "tokens", self.convention["flops"], "loss")
        rows: list[tuple[str, list[float]]] = [
            (record.run_id, [getattr(record, name) or 0 for name in names])
            for record in self.records
            if record.status == "ok" and objective in (None, record.objective)
        ]
        if not self.records and self.target == "loss":
            rows = [(str(row["run_id"]), _numbers(row)) for row in self.fitted]
        runs = [Run(run_id, *numbers) for run_id, numbers in rows if min(numbers) > 0]
        return sorted(runs, key=lambda run: (run.params, run.flops))


def _numbers(row: Mapping[str, Any]) -> list[float]:
    return [float(row.get(name) or 0) for name in Run._fields[1:]]


def read_evidence(folder: str | Path) -> Evidence:
    """Read a folder; a file that is damaged becomes a line in `problems`, not a crash.

    Raises:
      ReportError: there is neither a readable record in `records` nor a readable `law.json`.
    """
    folder = Path(folder)
    problems: list[str] = []
    paths = sorted((folder / "records").glob("*.json"))
    found = [_attempt(path, read=records.read, problems=problems) for path in paths]
    readable = tuple(record for record in found if record is not None)
    curves = {}
    for path in sorted((folder / "runs").glob("*/metrics.jsonl")):
        curve = _attempt(path, read=_curve, problems=problems)
        if curve is not None:
            curves[path.parent.name] = curve
    optional = {}
    for name in REQUIRED:
        path = folder / name
        optional[name] = (
            _attempt(path, read=_document, problems=problems) if path.exists() else None
        )
    law, plan = optional["law.json"], optional["plan.json"]
    if not readable and law is None:
        detail = "".join(f"; {problem}" for problem in problems)
        raise ReportError(
            f"{folder} holds neither a readable record in records/ nor a readable law.json"
            f"{detail}; train a run, fit a law there, or name the folder that has one"
        )
    of_plan = (plan or {}).get("law")
    if law and isinstance(of_plan, dict) and (planned_with := of_plan.get("sha256")):
        stands = hashlib.sha256((folder / "law.json").read_bytes()).hexdigest()
        if stands != planned_with:
            problems.append(
                "law.json is not the one that plan.json was made with (their SHA-256 differ); "
                "make the plan again before relying on it"
            )
    objectives = sorted({record.objective for record in readable if record.objective})
    if len(objectives) > 1 and not (law and law["convention"].get("objective")):
        problems.append(
            f"records/ holds runs of {' and '.join(objectives)}, whose losses are of different "
            f"tokens: compare none with the other, and fit one with --objective={objectives[0]}"
        )
    finished = {record.run_id for record in readable}
    return Evidence(
        records=readable,
        curves=curves,
        unfinished=tuple(run_id for run_id in curves if run_id not in finished),
        law=law,
        plan=plan,
        verdict=optional["verdict.json"],
        problems=tuple(problems),
    )


def _attempt(path: Path, *, read: Callable[[Path], T], problems: list[str]) -> T | None:
    try:
        return read(path)
    except (OSError, ValueError) as error:
        text = str(error).replace(str(path), "it")
        problems.append(f"{path.parent.name}/{path.name} was left out: {text}")
        return None


def _strict(text: str) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"it contains {constant}, which is not JSON; write null and a reason")

    found = json.loads(text, parse_constant=refuse)
    if re.search(r"\\u[dD][89a-fA-F]", text):  # half of a character: no file could be written of it
        json.dumps(found, ensure_ascii=False).encode()
    return found


def _document(path: Path) -> dict[str, Any]:
    document = _strict(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict) or document.get("schema") != records.SCHEMA:
        raise ValueError(f"it is not a JSON object of schema {records.SCHEMA}; make it again")
    missing = [
        key for key in REQUIRED[path.name]
        if document.get(key) is None or not isinstance(document[key], KINDS.get(key, object))
    ]  # fmt: skip
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}; make it again with this version")
    return document


def _curve(path: Path) -> Curve:
    points: list[tuple[int, float, float]] = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            entry = _strict(line)
        except ValueError as error:
            if number == len(lines):  # a run killed while it wrote; resuming writes the line again
                break
            raise ValueError(f"line {number}: {error}") from error
        if not isinstance(entry, dict) or not isinstance(entry.get("step"), int):
            raise ValueError(f"line {number} is not an object with a whole number as its step")
        step, tokens = entry["step"], entry.get("tokens")
        loss = entry.get("eval/validation/loss")
        # A resumed run repeats the steps after its checkpoint: what it wrote last counts.
        while points and (points[-1][0] > step or (points[-1][0] == step and loss is not None)):
            points.pop()
        if isinstance(loss, int | float) and isinstance(tokens, int | float) and tokens > 0:
            points.append((step, float(tokens), float(loss)))
    return Curve(tokens=tuple(p[1] for p in points), loss=tuple(p[2] for p in points))
