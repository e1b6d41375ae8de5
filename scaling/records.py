"""Records: one JSON file per run, written atomically, and many of them loaded into one table.

A missing number is null and its cause stands in `null_reasons`; it is never 0 and never NaN. Fields
are only ever added: readers ignore those they do not know.
"""

import csv
import dataclasses
import difflib
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaling.files import encode, write_json

SCHEMA = 1
STATUSES = ("ok", "diverged", "failed")
RECORD_COLUMNS = {"params": "params_total", "flops": "flops_6nd"}
NEEDED = ("params", "tokens", "loss")
OPTIONAL = ("flops", "run_id")


class BadTable(ValueError):
    """Runs that cannot be read as a table; the message says where, and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one training run was and what it scored.

    Counts are plain numbers (parameters, tokens, floating-point operations); `loss` is the
    validation loss in nats per token; times are in seconds; `created` is ISO 8601 in UTC; `mfu` is
    a fraction.

    Raises:
      ValueError: a status that is not one of ok, diverged, failed; a failure without a reason; a
        number that is null without an entry in `null_reasons`, or has a value and an entry; a
        number that is not finite.
    """

    schema: int = SCHEMA
    run_id: str
    status: str
    reason: str | None = None
    config: Mapping[str, Any]
    config_hash: str
    params_total: int | None
    params_non_embedding: int | None
    params_embedding: int | None
    tokens: int | None
    unique_tokens: int | None
    epochs: float | None
    flops_6nd: float | None
    flops_counted: float | None
    loss: float | None
    loss_stderr: float | None
    bits_per_byte: float | None
    seed: int | None
    learning_rate: float | None
    batch_tokens: int | None
    wall_seconds: float | None
    train_seconds: float | None
    compile_seconds: float | None
    tokens_per_second: float | None
    mfu: float | None
    device_kind: str | None
    device_count: int | None
    versions: Mapping[str, str]
    code_version: str | None
    created: str
    objective: str | None = None
    tokenizer_hash: str | None = None
    data_hash: str | None = None
    parent: str | None = None
    tuned: bool | None = None
    null_reasons: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.run_id):
            raise ValueError(
                f"run_id {self.run_id!r} cannot name a file; use letters, digits, '.', '_' and '-'"
            )
        if self.status not in STATUSES:
            raise ValueError(
                f"status of {self.run_id} is {self.status!r}; use one of {', '.join(STATUSES)}"
            )
        if self.status != "ok" and not self.reason:
            raise ValueError(
                f"{self.run_id} is {self.status} without a reason; say what happened in `reason`"
            )
        for name in NUMBERS:
            value = getattr(self, name)
            if value is None and not self.null_reasons.get(name):
                raise ValueError(
                    f"{name} of {self.run_id} is null without a cause; add null_reasons[{name!r}]"
                )
            if value is not None and not math.isfinite(value):
                raise ValueError(
                    f"{name} of {self.run_id} is {value}; write null and its cause in "
                    f"null_reasons[{name!r}]"
                )
        for name in self.null_reasons:
            if getattr(self, name, None) is not None:
                raise ValueError(
                    f"null_reasons of {self.run_id} names {name}, which is "
                    f"{getattr(self, name)!r}; leave one out"
                )


FIELDS = tuple(entry.name for entry in dataclasses.fields(Record))
NUMBERS = tuple(
    entry.name for entry in dataclasses.fields(Record) if entry.type in (int | None, float | None)
)


class Dropped(NamedTuple):
    """A run that was left out, and why."""

    run_id: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Runs:
    """A table of finished runs: arrays of one length, and what was left out.

    `params`, `tokens`, `flops` are counts, `loss` is in nats per token (or the unit of the source);
    `convention` names the source's column behind each of ours.
    """

    run_id: tuple[str, ...]
    params: NDArray[np.float64]
    tokens: NDArray[np.float64]
    loss: NDArray[np.float64]
    flops: NDArray[np.float64]
    dropped: tuple[Dropped, ...] = ()
    convention: Mapping[str, str] = field(
        default_factory=lambda: {
            "params": "params", "tokens": "tokens", "flops": "flops", "loss": "nats per token",
        }
    )  # fmt: skip

    def __len__(self) -> int:
        return len(self.run_id)

    def only(self, run_ids: Set[str]) -> "Runs":
        """The rows, and the runs left out, whose ids are among `run_ids`."""
        kept = np.array([name in run_ids for name in self.run_id], bool)
        return dataclasses.replace(
            self,
            run_id=tuple(name for name in self.run_id if name in run_ids),
            params=self.params[kept],
            tokens=self.tokens[kept],
            loss=self.loss[kept],
            flops=self.flops[kept],
            dropped=tuple(entry for entry in self.dropped if entry.run_id in run_ids),
        )


def write(record: Record, folder: str | Path) -> Path:
    """Write `folder`/<run_id>.json and return its path; the same record again changes nothing.

    Raises:
      FileExistsError: another record of this id is there; nothing already made is overwritten.
      OSError: see `write_json`.
    """
    path = Path(folder) / f"{record.run_id}.json"
    obj = dataclasses.asdict(record)
    if not path.exists():
        return write_json(path, obj)
    if path.read_bytes() != encode(obj):
        raise FileExistsError(
            f"{path} holds another record of {record.run_id}; move it away or use another workdir"
        )
    return path


def read(path: str | Path) -> Record:
    """Read one record; unknown fields are ignored, an absent number is null with that cause.

    Raises:
      BadTable: malformed JSON (with its line), another schema, a required field that is absent or
        wrong.
    """
    return _record(_parse(_text(Path(path)), where=str(path)), where=str(path))


def load(source: str | Path, *, columns: Mapping[str, str] | None = None) -> Runs:
    """Load runs from a folder of records (or one that holds `records/`), .json, .jsonl or .csv.

    `columns` maps our names (params, tokens, loss, flops, run_id) to the source's, as in {"params":
    "N", "loss": "final_loss"}. From records, params is `params_total` and flops `flops_6nd` unless
    mapped. Without a flops column, or where params alone is mapped away from `params_total`, flops
    = 6 * params * tokens, and `convention` says so. Runs that diverged or failed are dropped with a
    reason.

    Raises:
      BadTable: no such source, an unknown kind of file, no runs, a missing column, a cell that is
        not a positive finite number, a run id used twice, malformed JSON.
    """
    path = Path(source)
    mapped = dict(columns or {})
    for name in mapped:
        if name not in (*NEEDED, *OPTIONAL):
            raise BadTable(
                f"--columns maps {name!r}, which is not a column of ours; "
                f"use {', '.join((*NEEDED, *OPTIONAL))}"
            )
    if not path.exists():
        raise BadTable(
            f"no file or folder {path}; give a folder of records, a .json, .jsonl or .csv"
        )
    rows = _rows(path)
    if not rows:
        raise BadTable(f"{path} holds no runs; give a source with at least one run in it")
    return _table(rows, mapped, source=path)


class _Row(NamedTuple):
    where: str  # what an error message calls this row
    cells: Mapping[str, Any]


def _rows(path: Path) -> list[_Row]:
    if path.is_dir():
        folder = path / "records" if (path / "records").is_dir() else path
        files = sorted(folder.glob("*.json"))
        return [_Row(str(file), dataclasses.asdict(read(file))) for file in files]
    text = _text(path)
    match path.suffix:
        case ".json":
            parsed = _parse(text, where=str(path))
            items = parsed if isinstance(parsed, list) else [parsed]
            found = [_Row(f"entry {index}", item) for index, item in enumerate(items, start=1)]
        case ".jsonl":
            found = [
                _Row(f"line {number}", _parse(line, where=str(path), line=number))
                for number, line in enumerate(text.split("\n"), start=1)
                if line.strip()
            ]
        case ".csv":
            return list(_csv_rows(text, path))
        case suffix:
            raise BadTable(
                f"{path} ends in {suffix!r}; give a folder of records, a .json, .jsonl or .csv"
            )
    for row in found:
        if not isinstance(row.cells, dict):
            raise BadTable(
                f"{row.where} of {path} is {type(row.cells).__name__}; each run must be an object"
            )
    return found


def _csv_rows(text: str, path: Path) -> Iterator[_Row]:
    reader = csv.reader(io.StringIO(text, newline=""))
    header = [name.strip() for name in next(reader, [])]
    for name in header:
        if header.count(name) > 1:
            raise BadTable(f"{path} has two columns named {name!r}; rename one")
    for cells in reader:
        if not cells:
            continue
        if len(cells) != len(header):
            raise BadTable(
                f"row {reader.line_num} of {path} has {len(cells)} cells and its header has "
                f"{len(header)}; mend or remove the row"
            )
        yield _Row(f"row {reader.line_num}", dict(zip(header, cells, strict=True)))


def _table(rows: Sequence[_Row], mapped: dict[str, str], *, source: Path) -> Runs:
    is_record = all("params_total" in row.cells and "flops_6nd" in row.cells for row in rows)
    names = (
        {name: name for name in (*NEEDED, *OPTIONAL)}
        | (RECORD_COLUMNS if is_record else {})
        | mapped
    )
    found = list(dict.fromkeys(key for row in rows for key in row.cells))
    if (
        is_record
        and "params" in mapped
        and mapped["params"] != "params_total"
        and "flops" not in mapped
    ):
        # flops_6nd counts params_total: with other parameters it would no longer be 6 * params *
        # tokens.
        del names["flops"]
    elif "flops" not in mapped and names["flops"] not in found:
        del names["flops"]
    if "run_id" not in mapped and "run_id" not in found:
        del names["run_id"]
    missing = {ours: theirs for ours, theirs in names.items() if theirs not in found}
    if missing:
        near = {
            ours: difflib.get_close_matches(theirs, found, 1, 0.3)
            for ours, theirs in missing.items()
        }
        remedy = ",".join(f"{ours}={near[ours][0] if near[ours] else 'NAME'}" for ours in missing)
        raise BadTable(
            f"{source} has no column {' and no column '.join(missing.values())}; found "
            f"{', '.join(found)}; name the right ones with --columns {remedy}"
        )

    run_ids: list[str] = []
    values: dict[str, list[float]] = {name: [] for name in names if name != "run_id"}
    dropped: list[Dropped] = []
    problems: list[str] = []
    seen: dict[str, str] = {}
    for row in rows:
        run_id = str(row.cells.get(names["run_id"])) if "run_id" in names else row.where
        if run_id in seen:
            raise BadTable(
                f"run id {run_id!r} stands twice in {source}: {seen[run_id]} and {row.where}; "
                "remove one"
            )
        seen[run_id] = row.where
        status = row.cells.get("status")
        if status in ("diverged", "failed"):
            dropped.append(Dropped(run_id, f"{status}: {row.cells.get('reason')}"))
            continue
        causes = row.cells.get("null_reasons") or {}
        nulls = [names[name] for name in values if row.cells.get(names[name]) is None]
        if nulls and all(null in causes for null in nulls):
            dropped.append(
                Dropped(run_id, "; ".join(f"{null} is null: {causes[null]}" for null in nulls))
            )
            continue
        run_ids.append(run_id)
        for name, column in values.items():
            cell = row.cells.get(names[name])
            number = _number(cell)
            column.append(math.nan if number is None else number)
            if number is None or not (math.isfinite(number) and number > 0):
                problems.append(f"{row.where}: {names[name]} is {cell!r}")
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise BadTable(
            f"{source} holds cells that are not positive finite numbers: "
            f"{'; '.join(problems[:8])}{more}; mend or remove these rows"
        )
    arrays = {name: np.array(column, dtype=np.float64) for name, column in values.items()}
    convention = {name: names[name] for name in ("params", "tokens")}
    convention["flops"] = names.get("flops", f"6 * {names['params']} * {names['tokens']}")
    convention["loss"] = (
        "nats per token" if is_record and names["loss"] == "loss" else names["loss"]
    )
    arrays.setdefault("flops", 6 * arrays["params"] * arrays["tokens"])
    return Runs(run_id=tuple(run_ids), dropped=tuple(dropped), convention=convention, **arrays)


def _number(cell: object) -> float | None:
    if isinstance(cell, bool) or not isinstance(cell, int | float | str):
        return None
    try:
        return float(cell)
    except (ValueError, OverflowError):
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadTable(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); convert it"
        ) from error


def _parse(text: str, *, where: str, line: int | None = None) -> Any:
    def refuse(constant: str) -> None:
        raise BadTable(
            f"{where} holds {constant}, which is not JSON; write null and its cause in null_reasons"
        )

    try:
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise BadTable(
            f"{where}, line {line or error.lineno}, column {error.colno}: malformed JSON "
            f"({error.msg}); mend or remove it"
        ) from error


def _record(obj: Any, *, where: str) -> Record:
    if not isinstance(obj, dict) or obj.get("schema") != SCHEMA:
        found = obj.get("schema") if isinstance(obj, dict) else type(obj).__name__
        raise BadTable(
            f"{where} is not a record of schema {SCHEMA} (found {found!r}); "
            "give records, or a table"
        )
    known = {name: obj[name] for name in FIELDS if name in obj}
    absent = [name for name in FIELDS if name not in known]
    causes = dict(known.get("null_reasons") or {})
    for name in absent:
        if name in NUMBERS or name in ("device_kind", "code_version"):
            known[name] = None
            causes.setdefault(name, "absent from the file")
    known["null_reasons"] = causes
    try:
        return Record(**known)
    except (TypeError, ValueError) as error:
        raise BadTable(
            f"{where} is not a valid record: {error}; mend it or move it away"
        ) from error
