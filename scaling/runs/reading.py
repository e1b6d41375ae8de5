"""Load runs: the source's columns become ours, and a row that lacks one is left out by name."""

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scaling.records import BadTable
from scaling.runs.doubts import refuse
from scaling.runs.names import (
    COUNTS,
    FOLLOWS,
    RECORD_COLUMNS,
    TEXTS,
    Named,
    missing,
    option,
    resolve,
)
from scaling.runs.sources import Columns, Row, at, name_of, rows_of
from scaling.runs.table import Array, Dropped, Runs
from scaling.runs.tuning import Scored, flags

NEEDED = ("params", "tokens", "loss")
SHAPE = ("width", "depth")
OF_A_RECORD = (*COUNTS, "loss", "unique_tokens", "learning_rate", "batch_tokens", "seed", "tuned",
               "bracketed", *SHAPE)  # fmt: skip
TRUNK = "trunk"
NAMES_OF_RUNS = ("series", "run", "run_name", "name")
TRUTH = ("tuned", "bracketed")
MAY_BE_ZERO = ("seed", "accuracy", "error", *TRUTH)
ENDED_BADLY = ("diverged", "stopped", "failed", "crashed", "killed", "running")
TRUTHS = {"true": 1, "yes": 1, "false": 0, "no": 0}


def load(
    source: str | Path | Columns,
    *,
    columns: Mapping[str, str] | None = None,
    needed: Collection[str] = NEEDED,
    objective: str | None = None,
) -> Runs:
    """Load runs from a folder of records (or one that holds `records/`), a .json, .jsonl, .csv or
    .tsv, or columns at hand: a pandas DataFrame, or a dict of arrays.

    `columns` maps our names (`scaling.runs.COLUMNS`; run_id, series, status, objective) to the
    source's, as in {"params": "N", "loss": "final_loss"}; NAME*FACTOR brings a column to our unit,
    as in {"tokens": "billions*1e9"}. Columns that are not mapped are found by our own names, else
    by known spellings such as `Model Size`, where only one column can be meant; `Runs.convention`
    says which stands behind each. `needed` are those that must be there: for a law of accuracy from
    loss, ("loss", "accuracy"). `objective` chooses among runs of several, whose losses no one law
    is of: a masked loss is over what is hidden, a causal one over every token.

    From records, params is `params_total` and flops `flops_6nd` unless mapped. Without a flops
    column, or where params alone is mapped away from `params_total`, flops = 6 * params * tokens;
    without a tokens column, tokens = flops / (6 * params); the convention says so. All further
    columns of numbers come along under their own names. A column that names runs (run, run_name,
    name) gives the run ids, or `series` where each name has rows of different tokens.

    Runs that diverged, failed or are not finished, and runs without one of the numbers that are
    needed, are dropped with a reason. What may be wrong with the rest is in `Runs.warnings`.

    Raises:
      BadTable: no such source, an unknown kind of file, no runs, several objectives and none
        chosen, a missing column, a cell that is not a positive finite number, a run id used twice,
        malformed JSON, or numbers that contradict each other as no convention does
        (`scaling.runs.doubts.refuse`).
    """
    title, mapped = name_of(source), dict(columns or {})
    rows = rows_of(source)
    is_record = all({"params_total", "flops_6nd"} <= row.cells.keys() for row in rows)
    if is_record:
        rows = [_with_shape(row) for row in rows]
        if all(set(Scored._fields) <= row.cells.keys() for row in rows):
            rows = _flagged(rows)
    found = list(dict.fromkeys(key for row in rows for key in row.cells))
    names, notes = _names(found, mapped, needed, title, is_record=is_record)
    texts = {name: names.pop(name).column for name in TEXTS if name in names}
    rows, objective = _of_one(objective, rows, texts.get("objective"), title)
    run_ids = _run_ids(rows, texts, title)

    required = {n for n in names if n in needed or n in mapped}
    required |= {n for of in set(needed) - set(names) for n in FOLLOWS[of] if n in names}
    required |= {n for n in COUNTS if n in names and any(map(_there(names[n]), rows))}
    kept, dropped = [], []
    for row, run_id in zip(rows, run_ids, strict=True):
        reason = _reason(row, texts.get("status", "status"), [names[n] for n in sorted(required)])
        if reason:
            dropped.append(Dropped(run_id, reason))
        else:
            kept.append((row, run_id))
    if not kept:
        left = at([f"{run_id} ({reason})" for run_id, reason in dropped])
        raise BadTable(f"{title} holds no run that can be used: {left}")
    arrays = _arrays([row for row, _ in kept], names, required, title)
    series = mapped.get("series") or _series([row for row, _ in kept], found, arrays)
    convention = _convention(arrays, names, series, is_record=is_record)
    convention |= {"objective": objective} if objective else {}
    _derive(arrays)
    nothing = np.full(len(kept), math.nan)
    runs = Runs(
        run_id=tuple(run_id for _, run_id in kept),
        **{name: arrays.pop(name, nothing) for name in (*COUNTS, "loss")},
        others=arrays,
        series=tuple(str(row.cells[series]) for row, _ in kept) if series else None,
        dropped=tuple(dropped),
        convention=convention,
        notes=(*notes, *(_shared_trunks([row for row, _ in kept]) if series is None else ())),
    )
    refuse(runs, [row.where for row, _ in kept])
    return runs


def _with_shape(row: Row) -> Row:
    """A record's row, with what its config says of the model's shape, and its trunk: the run
    itself, where it has none."""
    config = row.cells.get("config")
    model = config.get("model") if isinstance(config, dict) else None
    shape = {name: model.get(name) for name in SHAPE} if isinstance(model, dict) else {}
    trunk = row.cells.get("parent") or row.cells.get("run_id")
    return Row(row.where, {**row.cells, **shape, TRUNK: trunk})


def _shared_trunks(rows: Sequence[Row]) -> list[str]:
    """What to know of runs that have their first updates, and so their noise, in common."""
    trunks = Counter(row.cells.get("parent") for row in rows)
    trunks.pop(None, None)
    shared = {trunk: count for trunk, count in trunks.items() if count > 1}
    if not shared:
        return []
    return [
        f"{sum(shared.values())} of {len(rows)} runs share {len(shared)} trunks and the noise of "
        f"these, and intervals draw each run by itself: they are too narrow; --columns "
        f"series={TRUNK} draws whole trunks, where there are enough of them"
    ]


def _flagged(rows: Sequence[Row]) -> list[Row]:
    """Rows of records, with what each says of its rates and what the others say of them."""
    runs = [Scored(*(row.cells[name] for name in Scored._fields)) for row in rows]
    return [
        Row(row.where, {**row.cells, "tuned": flag and int(flag != "untuned"),
                        "bracketed": flag and int(flag == "bracketed")})
        for row, flag in zip(rows, flags(runs), strict=True)
    ]  # fmt: skip


def _names(
    found: Sequence[str],
    mapped: dict[str, str],
    needed: Collection[str],
    source: str,
    *,
    is_record: bool,
) -> tuple[dict[str, Named], list[str]]:
    """The column of the source behind every name that is read, and what could not be told."""
    names, notes = resolve(found, (RECORD_COLUMNS if is_record else {}) | mapped,
                           needed=needed, source=source)  # fmt: skip
    if is_record:
        names = {n: x for n, x in names.items() if n in (*OF_A_RECORD, *TEXTS, *needed, *mapped)}
        if mapped.get("params", "params_total") != "params_total" and "flops" not in mapped:
            # flops_6nd counts params_total: with other parameters it would no longer be 6 * params
            # * tokens.
            del names["flops"]
    else:
        taken = {named.column for named in names.values()}
        names = {n: Named(n) for n in found if n and n not in taken and n not in names} | names
    absent = {n: named.column for n, named in names.items() if named.column not in found}
    have = set(names)
    for name, parts in FOLLOWS.items():
        have |= {name} if have.issuperset(parts) else set()
    for name in [name for name in needed if name not in have]:
        lacking = [part for part in FOLLOWS.get(name, ()) if part not in have]
        absent |= {n: n for n in (lacking if len(lacking) == 1 else [name])}
    if absent:
        taken = {named.column for name, named in names.items() if name not in found}
        raise missing(absent, found, taken=taken, source=source)
    return names, notes


def _of_one(
    objective: str | None, rows: Sequence[Row], column: str | None, source: str
) -> tuple[list[Row], str | None]:
    """The rows of one objective, and its name where they have one. A number names no objective, and
    what names none is of any where none is chosen."""
    cells = [row.cells.get(column) if column else None for row in rows]
    names = [None if _empty(c) or _number(c) is not None else str(c).strip() for c in cells]
    counts = Counter(name for name in names if name)
    if objective is None and len(counts) < 2:
        return list(rows), next(iter(counts), None)
    if objective in counts:
        return [row for row, n in zip(rows, names, strict=True) if n == objective], objective
    found = " and ".join(
        f"{name} ({number} of {len(rows)})" for name, number in sorted(counts.items())
    )
    if objective is None:
        raise BadTable(
            f"{source} holds runs of the objectives {found}, whose losses no one law is of; choose "
            f"one, as in --objective={min(counts)}"
        )
    remedy = "use one of these" if found else f"if a column names it, {option(objective='NAME')}"
    raise BadTable(
        f"{source} holds no runs of the objective {objective!r}, found {found or 'none named'}; "
        f"{remedy}"
    )


def _run_ids(rows: Sequence[Row], texts: Mapping[str, str], source: str) -> list[str]:
    column = texts.get("run_id")
    if column is None:
        for name in NAMES_OF_RUNS:
            names = [str(row.cells[name]) for row in rows if row.cells.get(name)]
            if len(set(names)) == len(rows):
                return names
        return [row.where for row in rows]
    seen: dict[str, str] = {}
    for row in rows:
        run_id = str(row.cells.get(column))
        if run_id in seen:
            raise BadTable(
                f"run id {run_id!r} stands twice in {source}: {seen[run_id]} and {row.where}; "
                "remove one"
            )
        seen[run_id] = row.where
    return list(seen)


def _empty(cell: object) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _there(named: Named) -> Any:
    return lambda row: not _empty(row.cells.get(named.column))


def _reason(row: Row, status_column: str, required: Iterable[Named]) -> str:
    """Why a row is left out; empty where it is not."""
    status = str(row.cells.get(status_column)).lower()
    if status in ENDED_BADLY:
        why = row.cells.get("reason")
        return f"{status}: {why}" if why else status
    causes = row.cells.get("null_reasons") or {}
    empty = [named.column for named in required if _empty(row.cells.get(named.column))]
    return "; ".join(
        f"{name} is null: {causes[name]}" if name in causes else f"{name} is empty"
        for name in empty
    )


def _arrays(
    rows: Sequence[Row], names: Mapping[str, Named], required: Collection[str], source: str
) -> dict[str, Array]:
    """Every column of numbers; one that is not required is left out where a cell is text."""
    arrays, problems = {}, []
    for name, named in names.items():
        cells = [row.cells.get(named.column) for row in rows]
        numbers = [_number(cell, truths=name in TRUTH) for cell in cells]
        if name not in required:
            texts = [c for c, number in zip(cells, numbers, strict=True)
                     if number is None and not _empty(c)]  # fmt: skip
            if texts or all(number is None for number in numbers):
                continue
        else:
            least = 0.0 if name in MAY_BE_ZERO else math.ulp(0.0)
            problems += [
                f"{row.where}: {named.column} is {cell!r}"
                for row, cell, number in zip(rows, cells, numbers, strict=True)
                if number is None or not (math.isfinite(number) and number >= least)
            ]
        values = [math.nan if number is None else number for number in numbers]
        arrays[name] = np.array(values, np.float64) * named.factor
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise BadTable(
            f"{source} holds cells that are not positive finite numbers: "
            f"{'; '.join(problems[:8])}{more}; {_remedy(problems)}"
        )
    return arrays


def _remedy(problems: Sequence[str]) -> str:
    cells = [problem.partition(" is ")[2].strip("'") for problem in problems]
    if any(re.fullmatch(r"\d*,\d+", cell) for cell in cells):
        return "write decimals with a point"
    if any(re.fullmatch(r"[\d.]+ ?[kKMBGT]", cell) for cell in cells):
        return "write numbers out, as in 7e9 for 7B"
    return "mend or remove these rows"


def _number(cell: object, *, truths: bool = False) -> float | None:
    if truths:
        cell = TRUTHS.get(str(cell).strip().lower(), cell)
    if isinstance(cell, bool) or not isinstance(cell, int | float | str):
        return None
    try:
        return float(cell)
    except (ValueError, OverflowError):
        return None


def _series(rows: Sequence[Row], found: Sequence[str], arrays: Mapping[str, Array]) -> str | None:
    """The column that names the run of which rows are checkpoints, if there is one."""
    tokens = arrays.get("tokens")
    for column in NAMES_OF_RUNS:
        names = [str(row.cells.get(column)) for row in rows]
        if column not in found or tokens is None or not 1 < len(set(names)) < len(rows):
            continue
        if len(set(zip(names, tokens.tolist(), strict=True))) == len(rows):
            return column
    return None


def _convention(
    arrays: Mapping[str, Array], names: Mapping[str, Named], series: str | None, *, is_record: bool
) -> dict[str, str]:
    """What stands behind each of our columns, in words."""
    texts = {name: str(names[name]) for name in (*COUNTS, "loss") if name in arrays}
    if "params" in arrays:
        if "tokens" in arrays:
            texts.setdefault("flops", f"6 * {texts['params']} * {texts['tokens']}")
        elif "flops" in arrays:
            texts["tokens"] = f"{texts['flops']} / (6 * {texts['params']})"
    if is_record and texts.get("loss") == "loss":
        texts["loss"] = "nats per token"
    texts |= {n: str(names[n]) for n in arrays if n not in texts and str(names[n]) != n}
    return texts | ({"series": series} if series else {})


def _derive(arrays: dict[str, Array]) -> None:
    if {"params", "tokens"} <= arrays.keys():
        arrays.setdefault("flops", 6 * arrays["params"] * arrays["tokens"])
    elif {"params", "flops"} <= arrays.keys():
        arrays["tokens"] = arrays["flops"] / (6 * arrays["params"])
