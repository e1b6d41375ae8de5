"""What each run cost and scored, what was lost, and where all of it comes from."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from scaling.analysis.evidence import Evidence
from scaling.analysis.report.exhibits.titles import writer
from scaling.analysis.report.panels import count, power, tidy
from scaling.analysis.report.tables.table import Entry, Table, cell, signed_percent
from scaling.records import NUMBERS, Record
from scaling.runs.tuning import flags


def run_table(evidence: Evidence) -> Table:
    """All runs in the order of compute and size, with what each cost and scored."""
    convention = evidence.convention
    fields = [
        convention["params"],
        "tokens",
        convention["flops"],
        "loss",
        "loss_stderr",
        "bits_per_byte",
        "learning_rate",
        "wall_seconds",
    ]
    writers = [
        count,
        count,
        power,
        "{:.4f}".format,
        "{:.4f}".format,
        "{:.4f}".format,
        "{:.3g}".format,
        "{:.0f}".format,
    ]

    def place(record: Record) -> tuple[float, float]:
        # Two digits of compute: whole steps put runs of one budget a little apart.
        flops = float(f"{getattr(record, fields[2]) or 0:.1e}")
        return flops, getattr(record, fields[0]) or 0

    rows: list[list[Entry]] = []
    tuned = dict(zip((r.run_id for r in evidence.records), flags(evidence.records), strict=True))
    for record in sorted(evidence.records, key=place):
        cells: list[Entry] = [record.run_id, record.status]
        for field, write in zip(fields, writers, strict=True):
            value = getattr(record, field)
            why = str(record.null_reasons.get(field, "no reason given"))
            cells.append(cell(value, write=write, why=why))
        why = "its config does not say which runs are its alternatives"
        rows.append([*cells, cell(tuned[record.run_id], write=str, why=why)])
    head = [
        "Run",
        "Status",
        "Params",
        "Tokens",
        "FLOPs",
        "Loss",
        "± s.e.",
        "Bits/byte",
        "Learning rate",
        "Seconds",
        "Rates",
    ]
    wide = ["± s.e.", "Learning rate", "Seconds", "Rates"]
    return Table(title="Runs", head=head, rows=rows, wide=wide)


def fitted_table(evidence: Evidence) -> Table:
    """The runs that the law was fitted to, the worst fitted first."""
    rows = sorted(evidence.fitted, key=lambda row: -abs(row["residual"]))
    names = [name for name in (rows[0] if rows else {}) if name not in ("run_id", "residual")]
    predicted = ("predicted", evidence.target)
    cells: list[list[Entry]] = [
        [
            str(row["run_id"]),
            *(
                row[name]
                if isinstance(row.get(name), str)
                else cell(
                    row.get(name),
                    write="{:.4g}".format if name in predicted else writer(name),
                    why="the table has none",
                )
                for name in names
            ),
            signed_percent(math.expm1(row["residual"])) if evidence.of_logs
            else tidy(row["residual"]),
        ]
        for row in rows
    ]  # fmt: skip
    head = ["Run", *(name.replace("_", " ").capitalize() for name in names), "Residual"]
    return Table(title="Runs in the fit", head=head, rows=cells)


def lost_table(evidence: Evidence) -> Table:
    """Runs that diverged, failed or were left out of the fit, with the reason; those that share
    one stand in one row."""
    lost = [[r.run_id, r.status, r.reason or ""] for r in evidence.records if r.status != "ok"]
    known = {row[0] for row in lost}
    for dropped in (evidence.law or {}).get("dropped") or []:
        if dropped["run_id"] not in known:
            lost.append([str(dropped["run_id"]), "left out of the fit", str(dropped["reason"])])
    lost += [
        [run_id, "unfinished", "it has metrics but no record"] for run_id in evidence.unfinished
    ]
    shared: dict[tuple[str, str], list[str]] = {}
    for run_id, status, reason in lost:
        shared.setdefault((status, reason), []).append(run_id)
    rows = [
        [", ".join(names), str(len(names)), status, reason]
        for (status, reason), names in shared.items()
    ]
    head = ["Run", "How many", "Status", "Reason"]
    return Table(
        title="Runs without a part in the fit",
        head=head,
        rows=rows,
        wordy=["Run", "Status", "Reason"],
    )


def missing_table(evidence: Evidence) -> Table:
    """Numbers that are null in the records, by cause."""
    causes = Counter(
        (name, str(record.null_reasons.get(name, "no reason given")))
        for record in evidence.records
        for name in NUMBERS
        if getattr(record, name) is None
    )
    rows = [[name, str(number), cause] for (name, cause), number in sorted(causes.items())]
    return Table(
        title="Missing numbers", head=["Field", "Runs", "Cause"], rows=rows, wordy=["Cause"]
    )


def origin_table(evidence: Evidence) -> Table:
    """Devices, versions of software, tokenizer and data, with the number of runs that used each."""
    seen: Counter[tuple[str, str]] = Counter()
    for record in evidence.records:
        devices = f"{record.device_count or '?'} × {record.device_kind or 'not recorded'}"
        named = {"device": devices, "code": record.code_version, "objective": record.objective}
        named |= {"tokenizer": record.tokenizer_hash, "data": record.data_hash}
        seen.update((name, str(value)) for name, value in named.items() if value is not None)
        seen.update((name, str(value)) for name, value in record.versions.items())
    rows = [[name, value, str(number)] for (name, value), number in seen.items()]
    return Table(title="Origin", head=["What", "Value", "Runs"], rows=rows, wordy=["Value"])


def config_table(evidence: Evidence) -> Table:
    """Every configuration key: its value where all runs agree, else how many values it takes."""
    flat = [dict(_leaves(record.config)) for record in evidence.records]
    rows = []
    for key in sorted({key for config in flat for key in config}):
        values = list(dict.fromkeys(config[key] for config in flat if key in config))
        shown = values[0] if len(values) == 1 else f"{len(values)} values: {', '.join(values[:8])}"
        rows.append([key, shown + (", …" if len(values) > 8 else "")])
    return Table(title="Configuration", head=["Key", "Value"], rows=rows, wordy=["Value"])


def _leaves(config: Any, prefix: str = "") -> list[tuple[str, str]]:
    if isinstance(config, Mapping) and config:
        return [
            leaf
            for key, value in config.items()
            for leaf in _leaves(value, f"{prefix}.{key}" if prefix else str(key))
        ]
    return [(prefix, json.dumps(config, ensure_ascii=False))]
