"""What a work directory holds, and what of its study is still to do."""

import json
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from scaling import records
from scaling.records import Record
from scaling.sweep.workdir import WorkdirError, read_study

STAGES = ("law.json", "plan.json", "verdict.json", "report.html")


def status(workdir: Path) -> Group:
    """A table of all runs, finished or under way, and the stages that are there.

    Raises:
      WorkdirError: the directory is not one that a study was started in.
    """
    study = read_study(workdir) if workdir.is_dir() else None
    if study is None:
        raise WorkdirError(
            f"{workdir} has no study.json; give the --workdir of a train, sweep or quickstart"
        )
    finished = {
        path.stem: records.read(path) for path in sorted((workdir / "records").glob("*.json"))
    }
    started = {path.parent.name: path for path in sorted((workdir / "runs").glob("*/config.json"))}
    table = Table(box=None, pad_edge=False)
    for column in ("run", "status", "loss", "tokens", "seconds"):
        table.add_column(column, justify="left" if column in ("run", "status") else "right")
    for record in finished.values():
        table.add_row(*_finished(record))
    for name, path in started.items():
        if name not in finished:
            table.add_row(name, *_under_way(path))
    counted = {
        state: sum(r.status == state for r in finished.values()) for state in records.STATUSES
    }
    summary = (
        ", ".join(f"{count} {state}" for state, count in counted.items() if count)
        or "no run finished"
    )
    unfinished = sum(name not in finished for name in started)
    there = [name for name in STAGES if (workdir / name).exists()]
    planned = _cells(study)
    lines = [
        f"{summary}"
        + (f", {unfinished} started and not finished" if unfinished else "")
        + (f", of a grid of {planned}" if planned else ""),
        f"there: {', '.join(there) or 'no law, plan or report yet'}",
    ]
    return Group(table, Text("\n".join(lines)))


def _cells(study: dict[str, Any]) -> int:
    return sum(len(widths) for widths in study["study"]["widths"]) if "study" in study else 0


def _finished(record: Record) -> tuple[str, ...]:
    state = record.status if record.reason is None else f"{record.status}: {record.reason}"
    loss = "-" if record.loss is None else f"{record.loss:.4f}"
    tokens = "-" if record.tokens is None else f"{record.tokens:,}"
    seconds = "-" if record.wall_seconds is None else f"{record.wall_seconds:.0f}"
    return record.run_id, state, loss, tokens, seconds


def _under_way(config: Path) -> tuple[str, ...]:
    budget = json.loads(config.read_text(encoding="utf-8"))["budget"]["tokens"]
    metrics = config.parent / "metrics.jsonl"
    last = None
    for line in metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            # The line that a kill cut off.
            continue
        last = entry if "train/loss" in entry else last
    if last is None:
        return "started", "-", f"0 of {budget:,}", "-"
    return (
        "unfinished",
        f"{last['train/loss']:.4f}",
        f"{last['tokens']:,} of {budget:,}",
        f"{last['goodput/train_seconds']:.0f}",
    )
