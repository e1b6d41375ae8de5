"""Tables of finished runs: from a folder of records, or from anybody's JSON or CSV."""

import csv
import dataclasses
import difflib
import io
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaling.records import BadTable, parse, read, read_text

RECORD_COLUMNS = {"params": "params_total", "flops": "flops_6nd"}
NEEDED = ("params", "tokens", "loss")
OPTIONAL = ("flops", "run_id")


class Dropped(NamedTuple):
    """A run that was left out, and why."""

    run_id: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Runs:
    """A table of finished runs: arrays of one length, and what was left out.

    `params`, `tokens`, `flops` are counts, `loss` is in nats per token (or the unit of the source);
    `others` are further columns by name, such as `unique_tokens`, `width` or `learning_rate`;
    `series` names the run of which each row is a checkpoint, where rows are that; `convention`
    names the source's column behind each of ours.
    """

    run_id: tuple[str, ...]
    params: NDArray[np.float64]
    tokens: NDArray[np.float64]
    loss: NDArray[np.float64]
    flops: NDArray[np.float64]
    others: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    series: tuple[str, ...] | None = None
    dropped: tuple[Dropped, ...] = ()
    convention: Mapping[str, str] = field(
        default_factory=lambda: {
            "params": "params", "tokens": "tokens", "flops": "flops", "loss": "nats per token",
        }
    )  # fmt: skip

    def __len__(self) -> int:
        return len(self.run_id)

    def column(self, name: str) -> NDArray[np.float64]:
        """A column by name; `tokens_per_parameter` and `epochs` follow from the others.

        Raises:
          BadTable: there is none of this name; the message says which there are.
        """
        if name in ("params", "tokens", "loss", "flops"):
            found: NDArray[np.float64] = getattr(self, name)
            return found
        if name in self.others:
            return self.others[name]
        if name == "tokens_per_parameter":
            return self.tokens / self.params
        if name == "epochs" and "unique_tokens" in self.others:
            return self.tokens / self.others["unique_tokens"]
        known = ", ".join(("params", "tokens", "flops", "loss", *self.others))
        raise BadTable(
            f"the runs have no column {name}; found {known}; name the source's with "
            f"--columns {name}=NAME"
        )

    def where(self, keep: NDArray[np.bool_]) -> "Runs":
        """The rows that are kept, and all that was dropped."""
        rows = np.flatnonzero(keep)
        return dataclasses.replace(
            self,
            run_id=tuple(self.run_id[row] for row in rows),
            params=self.params[rows],
            tokens=self.tokens[rows],
            loss=self.loss[rows],
            flops=self.flops[rows],
            others={name: values[rows] for name, values in self.others.items()},
            series=None if self.series is None else tuple(self.series[row] for row in rows),
        )

    def only(self, run_ids: Set[str]) -> "Runs":
        """The rows, and the runs left out, whose ids are among `run_ids`."""
        kept = self.where(np.array([name in run_ids for name in self.run_id], bool))
        dropped = tuple(entry for entry in self.dropped if entry.run_id in run_ids)
        return dataclasses.replace(kept, dropped=dropped)


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
    text = read_text(path)
    match path.suffix:
        case ".json":
            parsed = parse(text, where=str(path))
            items = parsed if isinstance(parsed, list) else [parsed]
            found = [_Row(f"entry {index}", item) for index, item in enumerate(items, start=1)]
        case ".jsonl":
            found = [
                _Row(f"line {number}", parse(line, where=str(path), line=number))
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
    return Runs(
        run_id=tuple(run_ids),
        params=arrays["params"],
        tokens=arrays["tokens"],
        loss=arrays["loss"],
        flops=arrays["flops"],
        dropped=tuple(dropped),
        convention=convention,
    )


def _number(cell: object) -> float | None:
    if isinstance(cell, bool) or not isinstance(cell, int | float | str):
        return None
    try:
        return float(cell)
    except (ValueError, OverflowError):
        return None
