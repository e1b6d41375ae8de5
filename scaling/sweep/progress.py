"""What a person sees while cells train: a live line in a terminal, plain lines elsewhere."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from scaling.records import Record
from scaling.run import Tick

PLAIN_EVERY_SECONDS = 10.0


class CellProgress:
    """Counts cells and FLOPs; ETA is the FLOPs that remain over the rate of this process so far."""

    def __init__(self, console: Console, *, cells: int, flops: float) -> None:
        self._console = console
        self._cells, self._flops = cells, flops
        self._done, self._done_flops = 0, 0.0
        self._worked, self._started = 0.0, time.monotonic()
        self._printed = 0.0
        self._live = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._live.add_task("", total=flops, text="")

    def __enter__(self) -> "CellProgress":
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def tick(self, tick: Tick, *, flops: float) -> None:
        """A running cell of `flops` has reached a step."""
        share = tick.step / tick.steps
        worked = self._worked + flops * (tick.step - tick.resumed_from) / tick.steps
        seconds = max(time.monotonic() - self._started, 1e-9)
        remaining = self._flops - self._done_flops - flops * share
        left = remaining * seconds / worked if worked else None
        text = (
            f"{tick.run_id} {share:4.0%}  loss {tick.loss:.3f}  "
            f"{tick.tokens_per_second:,.0f} tokens/s  ETA {clock(left)}"
        )
        self._live.update(
            self._task,
            completed=self._done_flops + flops * share,
            description=f"cell {min(self._done + 1, self._cells)}/{self._cells}",
            text=text,
        )
        now = time.monotonic()
        if not self._console.is_terminal and now - self._printed >= PLAIN_EVERY_SECONDS:
            self._printed = now
            self._say(f"cell {self._done + 1}/{self._cells}  {text}")

    def finish(self, record: Record, *, flops: float, was_there: bool) -> None:
        """A cell has its record."""
        self._done += 1
        self._done_flops += flops
        if was_there:
            return
        self._worked += flops
        if record.status == "ok":
            self._say(
                f"cell {self._done}/{self._cells}  {record.run_id} done  loss {record.loss:.4f}  "
                f"{record.wall_seconds:.0f} s  {record.tokens_per_second:,.0f} tokens/s"
            )
        else:
            self._say(
                f"cell {self._done}/{self._cells}  {record.run_id} {record.status}: "
                f"{record.reason}; it is left out of the fit"
            )

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def clock(seconds: float | None) -> str:
    """A time as 04:05 or 1:04:05; --:-- where it is not known."""
    if seconds is None:
        return "--:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"
