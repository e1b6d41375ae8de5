"""Records: one JSON file per run, written atomically.

A missing number is null and its cause stands in `null_reasons`; it is never 0 and never NaN. Fields
are only ever added: readers ignore those they do not know.
"""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scaling.files import encode, write_json

SCHEMA = 1
STATUSES = ("ok", "diverged", "stopped", "failed")
"""Stopped is one that was given up, because runs that differ in their rates alone did better."""


class BadTable(ValueError):
    """Runs that cannot be read as a table; the message says where, and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one training run was and what it scored.

    Counts are plain numbers (parameters, tokens, floating-point operations); `loss` is the
    validation loss in nats per token; times are in seconds; `created` is ISO 8601 in UTC; `mfu` is
    a fraction.

    Raises:
      ValueError: a status that is not one of `STATUSES`; a failure without a reason; a
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
    branch_tokens: int | None = None
    packed: int | None = None
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
    entry.name
    for entry in dataclasses.fields(Record)
    if entry.type in (int | None, float | None) and entry.default is dataclasses.MISSING
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
    return _record(parse(read_text(Path(path)), where=str(path)), where=str(path))


def read_text(path: Path) -> str:
    """The text of a file, with or without a byte order mark.

    Raises:
      BadTable: it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadTable(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); convert it"
        ) from error


def parse(text: str, *, where: str, line: int | None = None) -> Any:
    """Strict JSON; `where` and `line` are for the message.

    Raises:
      BadTable: malformed, or a NaN or infinity.
    """

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
