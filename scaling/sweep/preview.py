"""What `--dry_run` prints: the cost of a sweep in 80 columns."""

from collections.abc import Iterator, Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from scaling.sweep.forecast import Forecast, ShapeRow, key_of
from scaling.sweep.progress import clock
from scaling.sweep.tasks import Pack, Trunk

MOST_ROWS = 40
"""A longer table is left out, and that is said."""
PREFIXES = ("", "k", "M", "G", "T", "P", "E")
BYTES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def preview(found: Forecast, *, undecided: int, where: str, measured: bool) -> Group:
    """Tables and sentences of a forecast; for `undecided` programs it is not measured how many
    cells they train at once. `where` says what JAX runs on, `measured` that the speeds are those of
    a benchmark now."""
    parts: list[Table | Text] = [*_tables(found), Text("\n".join(_sentences(found, undecided)))]
    if found.timed:
        parts += [Text(""), _speeds(found)]
    parts.append(Text("\n".join(_times(found, where=where, measured=measured))))
    return Group(*parts)


def _tables(found: Forecast) -> Iterator[Table | Text]:
    if len(found.rows) <= MOST_ROWS:
        yield _shapes(found.rows)
        yield Text("")
    if len(found.cells) <= MOST_ROWS:
        yield _cells(found)
    else:
        yield Text(f"{len(found.cells):,} cells are too many to list; --only=GLOB,... lists some")
    yield Text("")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=True)
    return table


def _shapes(rows: Sequence[ShapeRow]) -> Table:
    table = _table("shape", "depth", "params", "non-emb.", "cells", "tokens", "FLOPs 6ND",
                   "counted", "state")  # fmt: skip
    for row in rows:
        params, tokens = row.shape.parameters, [cell.tokens for cell in row.cells]
        fewest, most = short(min(tokens)), short(max(tokens))
        total = sum(tokens)
        table.add_row(
            f"w{row.shape.size.width:03d}",
            str(row.shape.size.depth),
            short(params.total),
            short(params.non_embedding),
            f"{len(row.cells):,}",
            fewest if fewest == most else f"{fewest}-{most}",
            f"{total * row.shape.flops_6nd_per_token:.2e}",
            f"{total * row.shape.flops_counted_per_token:.2e}",
            "?" if isinstance(row.state_bytes, str) else in_bytes(row.state_bytes),
        )
    return table


def _cells(found: Forecast) -> Table:
    table = _table("cell", "tokens", "FLOPs 6ND", "counted", "own", "seconds", "")
    packs = {name: task for task in found.tasks if isinstance(task, Pack) for name in task.run_ids}
    for cell in found.cells.planned:
        pack = packs[cell.run_id]
        speed = found.speeds.get(key_of(pack))
        table.add_row(
            cell.run_id,
            short(cell.tokens),
            f"{cell.tokens * cell.shape.flops_6nd_per_token:.2e}",
            f"{cell.tokens * cell.shape.flops_counted_per_token:.2e}",
            f"{1 - pack.step * cell.batch_tokens / cell.tokens:.0%}",
            "?" if speed is None else f"{speed.seconds(pack) / pack.lanes:.3g}",
            "done" if cell.run_id in found.done else "",
        )
    return table


def _sentences(found: Forecast, undecided: int) -> Iterator[str]:
    alone, shared = found.alone, found.shared
    trunks = [task for task in found.tasks if isinstance(task, Trunk)]
    packs = [task for task in found.tasks if isinstance(task, Pack)]
    yield (
        f"grid: {len(found.cells):,} cells of {len(found.rows):,} shapes, {alone.tokens:,} tokens"
    )
    yield f"  {alone.flops_6nd:.4g} FLOPs by 6ND, {alone.flops_counted:.4g} counted"
    most = max((pack.lanes for pack in packs), default=1)
    at_once = f", at most {most} at once" if most > 1 else ""
    yield f"groups: {len(packs):,} tasks train the cells{at_once}"
    if undecided:
        yield f"  how many cells train at once is measured when the sweep begins, for {undecided:,}"
        yield "  programs that several share; --measure tries it now"
    if trunks:
        ratio = shared.flops_6nd / alone.flops_6nd
        yield f"  {len(trunks):,} trunks hold what cells share; `own` is what each trains itself"
        yield f"  {shared.flops_6nd:.4g} FLOPs by 6ND with trunks, {ratio:.2f} times those without"
    if len(found.left) < len(found.tasks):
        paid = sum(task.flops for task in found.left)
        yield (
            f"there already: {len(found.done):,} cells; {len(found.left):,} tasks are left, "
            f"{paid:.4g} FLOPs by 6ND"
        )
    yield from _memory(found)


def _memory(found: Forecast) -> Iterator[str]:
    known = [row.state_bytes for row in found.rows if isinstance(row.state_bytes, int)]
    if known:
        yield (
            f"memory of a device: {in_bytes(max(known))} at most for parameters, moments, counters;"
        )
        yield "  gradients, activations and workspace come on top"
    for reason in dict.fromkeys(row.state_bytes for row in found.rows):
        if isinstance(reason, str):
            yield f"memory of a device: not known here: {reason}"


def _speeds(found: Forecast) -> Table:
    table = _table("shape", "depth", "at once", "tasks", "ms/update", "tokens/s", "compile s",
                   "memory")  # fmt: skip
    together = {key_of(task): task for task in found.timed}
    for key, task in list(together.items())[:MOST_ROWS]:
        speed = found.speeds[key]
        tokens = task.tokens / task.updates / speed.step
        table.add_row(
            f"w{task.shape.size.width:03d}",
            str(task.shape.size.depth),
            str(task.lanes),
            f"{sum(key_of(other) == key for other in found.timed):,}",
            f"{1000 * speed.step:.3g}",
            f"{tokens:,.0f}",
            f"{speed.compile:.1f}",
            "?" if speed.memory_bytes is None else in_bytes(speed.memory_bytes),
        )
    return table


def _times(found: Forecast, *, where: str, measured: bool) -> Iterator[str]:
    if not found.left:
        yield "time: nothing is left to train"
        return
    if not found.timed:
        yield (
            "time: not known; no record here tells how fast these shapes train\n"
            f"  on {where}; --measure tries each for a second"
        )
        return
    source = "a benchmark just now" if measured else "the records here"
    what = "what is left" if len(found.timed) == len(found.left) else (
        f"{len(found.timed):,} of the {len(found.left):,} tasks that are left (the others: "
        "--measure)"
    )  # fmt: skip
    yield f"time: about {clock(found.seconds)} for {what}, one after another"
    yield f"  on {where}, by {source}; start and tokenizing come on top"
    if measured:
        yield "  memory is XLA's for the compiled update: arguments, results, workspace"


def short(number: float) -> str:
    """A count in three digits and the SI's prefixes, as 72.2k."""
    return _scaled(number, 1000, PREFIXES)


def in_bytes(number: float) -> str:
    """Bytes in three digits, as 1.21 GiB."""
    return _scaled(number, 1024, tuple(f" {name}" for name in BYTES))


def _scaled(number: float, base: int, names: Sequence[str]) -> str:
    step = 0
    # From 999.5 on three digits would round up to a fourth.
    while number >= 999.5 and step < len(names) - 1:
        number, step = number / base, step + 1
    return f"{number:.3g}{names[step]}"
