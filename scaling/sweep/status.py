"""What a work directory holds, and what of its study is still to do, in words."""

from collections.abc import Iterator, Set
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from scaling.records import STATUSES, Record
from scaling.runs.tuning import flags
from scaling.sweep.preview import short
from scaling.sweep.progress import clock
from scaling.sweep.survey import Journaled, Survey, survey
from scaling.sweep.workdir import WorkdirError, read_study

STAGES = ("law.json", "plan.json", "verdict.json", "tune.json", "report.html")


def status(workdir: Path, *, finished: bool = True) -> Group:
    """A table of runs, under way and finished (those that ended badly alone where not `finished`),
    counts, cost, and the stages that are there.

    Raises:
      WorkdirError: the directory is not one that a study was started in, or a damaged grid.json.
      BadTable: a damaged record.
    """
    if not workdir.is_dir() or read_study(workdir) is None:
        raise WorkdirError(
            f"{workdir} has no study.json; give the --workdir of a train, sweep or quickstart"
        )
    found = survey(workdir)
    there = [name for name in STAGES if (workdir / name).exists()]
    lines = [
        *_sentences(found),
        f"there: {', '.join(there) or 'no law, plan or report yet'}",
    ]
    return Group(_table(found, finished=finished), Text("\n".join(lines)))


def complete(workdir: Path) -> bool:
    """Whether nothing of the grid is left, and nobody is at work."""
    found = survey(workdir)
    return not found.claimed and not found.undone and not found.under_way


def _table(found: Survey, *, finished: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("run", "status", "loss", "tokens", "seconds", "rates"):
        words = ("run", "status", "rates")
        table.add_column(column, justify="left" if column in words else "right")
    tuned = flags(list(found.records.values()))
    for record, flag in zip(found.records.values(), tuned, strict=True):
        if finished or record.status != "ok":
            table.add_row(*_finished(record), flag)
    for one in found.under_way:
        table.add_row(*_under_way(one, claimed=found.claimed))
    return table


def _finished(record: Record) -> tuple[str, ...]:
    state = record.status if record.reason is None else f"{record.status}: {record.reason}"
    loss = "-" if record.loss is None else f"{record.loss:.4f}"
    tokens = "-" if record.tokens is None else short(record.tokens)
    seconds = "-" if record.wall_seconds is None else f"{record.wall_seconds:.0f}"
    return record.run_id, state, loss, tokens, seconds


def _under_way(one: Journaled, *, claimed: bool) -> tuple[str, ...]:
    state = "running" if claimed else "interrupted"
    return (
        one.name,
        f"{state}, a trunk" if one.trunk else state,
        "-" if one.loss is None else f"{one.loss:.4f}",
        short(one.tokens) if one.trunk else f"{short(one.tokens)} of {short(one.budget)}",
        f"{one.seconds:.0f}",
    )


def _sentences(found: Survey) -> Iterator[str]:
    at_work = "running" if found.claimed else "interrupted"
    trunks = sum(one.trunk for one in found.under_way)
    if found.roster is None:
        told = _counted(found, {*found.records, *found.journals}, at_work)
        yield f"{told or 'no run finished'}; no grid.json tells what else belongs to it"
    else:
        grid = {cell.run_id for cell in found.roster.cells}
        yield f"{len(grid):,} cells: {_counted(found, grid, at_work)}"
        if beside := {*found.records, *(j.name for j in found.under_way if not j.trunk)} - grid:
            yield f"{len(beside):,} runs beside the grid: {_counted(found, beside, at_work)}"
    if trunks:
        yield f"trunks {at_work}: {trunks}"
    if found.flops is not None:
        rate = found.flops_per_second
        yield (
            f"cost so far: {found.flops:.3g} FLOPs by 6ND, {found.device_seconds:,.0f} "
            f"device-seconds{f', {rate:.3g} FLOP/s' if rate else ''}"
        )
    if found.undone:
        left = f"{found.flops_left:.3g} FLOPs are left"
        if not found.claimed:
            yield f"{left}; no process is at work here: the same command goes on"
        else:
            yield f"{left}, ETA {clock(found.seconds_left)}"


def _counted(found: Survey, names: Set[str], at_work: str) -> str:
    """How many of these runs are in which state."""
    ended = [record.status for name, record in found.records.items() if name in names]
    begun = sum(one.name in names for one in found.under_way)
    states = {"queued": 0, at_work: begun, "done": ended.count("ok")}
    states |= {state: ended.count(state) for state in STATUSES if state != "ok"}
    if found.roster is not None:
        states["queued"] = len(names) - begun - len(ended)
    return ", ".join(f"{count:,} {state}" for state, count in states.items() if count)
