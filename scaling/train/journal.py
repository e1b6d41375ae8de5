"""`metrics.jsonl` of one run: what was measured when, and where its time went."""

import contextlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from scaling.files import write_bytes, writing
from scaling.train.checkpoint import Checkpoints
from scaling.train.loop import Hopeless
from scaling.train.profiler import Profiler
from scaling.train.program import Metrics, Program, TrainState
from scaling.train.trackers import Tracker
from scaling.train.watchdog import Watchdog

Judge = Callable[[int, Sequence[float]], Sequence[str] | None]
"""(step, validation losses of packed runs) to why each is given up; None where they are not."""
ACCOUNTS = ("train", "compile", "eval", "save", "input", "lost")


class Journal:
    """`metrics.jsonl` of one run; lines after the step that is resumed are dropped.

    Of several processes one alone `writes`. Trackers are shown every line but those that were
    there already before the run was resumed.
    """

    def __init__(
        self, path: Path, *, resumed_from: int, writes: bool, trackers: Sequence[Tracker] = ()
    ) -> None:
        kept: list[str] = []
        self.last: dict[str, float] = {}
        """The newest value of every name in the lines that were kept."""
        self._writes, self._trackers = writes, trackers if writes else ()
        self._kept: set[tuple[str | int, ...]] = set()
        self._shown: set[tuple[str | int, ...]] = set()
        thrown = 0.0
        if not writes:
            return
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            entry = _entry(line)
            if entry is None:
                continue
            self._shown.add(_identity(entry))
            if entry["step"] <= resumed_from:
                kept.append(line)
                self._kept.add(_identity(entry))
                self.last |= entry
            else:
                thrown = max(thrown, _total(entry) - _total(self.last))
        if thrown:
            # Written with the drop itself: a run that is killed again and again forgets none of it.
            lost = self.last.get("goodput/lost_seconds", 0.0) + thrown
            clock = {k: v for k, v in self.last.items() if k.endswith("_seconds")}
            where = {"step": self.last.get("step", 0), "tokens": self.last.get("tokens", 0)}
            self.last |= where | clock | {"goodput/lost_seconds": lost}
            kept.append(json.dumps(where | clock | {"goodput/lost_seconds": lost}))
        self._path = path
        write_bytes(path, "".join(line + "\n" for line in kept).encode())
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, tokens: int, values: Mapping[str, float]) -> None:
        """Add a line, unless it was kept; a value that is not finite is written as null.

        Raises:
          OSError: the disk is full, ...; earlier lines are intact.
        """
        if not self._writes:
            return
        finite = {k: value if math.isfinite(value) else None for k, value in values.items()}
        line = {"step": step, "tokens": tokens, **finite}
        if _identity(line) in self._kept:
            return
        with writing(self._path):
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
            self._file.flush()
        if _identity(line) not in self._shown:
            for tracker in self._trackers:
                tracker.show(step, {k: value for k, value in finite.items() if value is not None})

    def close(self) -> None:
        """Close the file, and wait for the trackers to show what they were handed."""
        if not self._writes:
            return
        for tracker in self._trackers:
            tracker.close()
        # What a full disk left in the buffer was reported when it was written.
        with contextlib.suppress(OSError):
            self._file.close()


def _entry(line: str) -> dict[str, Any] | None:
    """A line of the journal; None for one that a kill cut off in the middle, or no line of ours."""
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return None
    whole = isinstance(entry, dict) and isinstance(entry.get("step"), int)
    return entry if whole else None


def _identity(entry: Mapping[str, Any]) -> tuple[str | int, ...]:
    """What a line is about: one step can be trained, evaluated and saved."""
    return entry["step"], *sorted({name.split("/")[0] for name in entry})


def _total(entry: Mapping[str, float]) -> float:
    return sum(entry.get(f"goodput/{account}_seconds", 0.0) for account in ACCOUNTS)


class Clock:
    """Where the wall time of a run went, over all its restarts: every second is in one account.

    `train` is updates, `compile` XLA, `eval` and `save` the pauses for them, `input` waits for
    batches; `lost` is everything else: the start of each attempt, and the work that a kill threw
    away.
    """

    def __init__(
        self, journal: Journal, *, compiled: Callable[[], float], since: float, before: float
    ) -> None:
        """Of an attempt that began at `since` by the wall, when `before` seconds were compiled."""
        self.seconds = {
            account: journal.last.get(f"goodput/{account}_seconds", 0.0) for account in ACCOUNTS
        }
        self._compiled, self._compiled_before = compiled, before
        self._mark = since

    @property
    def stepping_seconds(self) -> float:
        """Time in which the run went forward: updates and the waits for their batches."""
        return self.seconds["train"] + self.seconds["input"]

    def charge(self, account: str) -> None:
        """Put the time since the last charge into `account`, but what was spent compiling."""
        now, compiled = time.perf_counter(), self._compiled()
        compiling = compiled - self._compiled_before
        self.seconds["compile"] += compiling
        self.seconds[account] += now - self._mark - compiling
        self._mark, self._compiled_before = now, compiled

    def waited(self, seconds: float) -> None:
        """Part of the time that `train` will be charged with was a wait for a batch."""
        self.seconds["input"] += seconds
        self.seconds["train"] -= seconds

    def values(self) -> dict[str, float]:
        """The accounts as the journal names them, and the share of `train` in all."""
        total = sum(self.seconds.values())
        share = self.seconds["train"] / total if total > 0 else 0.0
        named = {f"goodput/{account}_seconds": self.seconds[account] for account in ACCOUNTS}
        return named | {"goodput/share": share}


class Reporter:
    """The hooks of a run, or of packed runs: writes journals and checkpoints, keeps the clock.

    Packed runs have a journal each, in the order of their lanes, and share all else: a second of
    the clock is a second of all of them.

    mfu = tokens per second * flops per token / peak, with the counted FLOPs that `flops_per_token`
    gives and the peak of all devices together; where no peak is known it is left out. Of packed
    runs it is that of all of them, their tokens taken together. Names are those of Levanter where
    it has them; mfu there is in percent, here it is a fraction.
    """

    def __init__(
        self,
        journals: Sequence[Journal],
        checkpoints: Checkpoints,
        program: Program,
        *,
        evaluate: Callable[[TrainState], Sequence[Mapping[str, float]]],
        rates: Sequence[float],
        flops_per_token: float,
        peak_flops: float | None,
        tick: Callable[[int, float, float], None],
        profiler: Profiler,
        watchdog: Watchdog,
        stopping: Callable[[], bool],
        judge: Judge | None,
        start: int,
        since: float,
        compiled_before: float,
    ) -> None:
        self._journals, self._checkpoints, self._program = journals, checkpoints, program
        self._evaluate, self._rates, self._tick = evaluate, rates, tick
        self._flops_per_token, self._peak_flops = flops_per_token, peak_flops
        self._profiler, self._watchdog, self._stopping = profiler, watchdog, stopping
        self._judge, self._begun = judge, False
        self._skipped = [int(journal.last.get("train/skipped_updates", 0)) for journal in journals]
        self.lost: dict[int, str] = {}
        """Lanes that have diverged, and why."""
        self.clock = Clock(
            journals[0],
            compiled=lambda: program.compile_seconds,
            since=since,
            before=compiled_before,
        )
        self._measured = self._finished = start, self.clock.stepping_seconds
        self._speed = 0.0

    def begin(self, step: int) -> None:
        if not self._begun:
            self.clock.charge("lost")
            self._begun = True
        self._profiler.begin(step)

    def waited(self, seconds: float) -> None:
        self.clock.waited(seconds)

    def finished(self, step: int) -> None:
        self.clock.charge("train")
        self._finished = step, self.clock.stepping_seconds
        self._profiler.finished(step)
        self._watchdog.fed()

    def stop(self, step: int) -> bool:
        return self._stopping()

    def log(self, step: int, metrics: Metrics, *, lane: int) -> None:
        # All steps of one dispatch come to be read at once: they share its speed.
        if self._finished != self._measured:
            steps = self._finished[0] - self._measured[0]
            seconds = max(self._finished[1] - self._measured[1], 1e-9)
            self._speed = steps * self._program.batch_tokens / seconds
            self._measured = self._finished
        tokens = step * self._program.batch_tokens
        values = {
            "train/loss": float(metrics.loss),
            "grad/norm/total": float(metrics.gradient_norm),
            "optim/learning_rate": float(metrics.multiplier) * self._rates[lane],
            "throughput/tokens_per_second": self._speed,
            "throughput/total_tokens": float(tokens),
        }
        if self._peak_flops is not None:
            together = self._speed * len(self._journals)
            values["throughput/mfu"] = together * self._flops_per_token / self._peak_flops
        self._journals[lane].write(step, tokens, values | self.clock.values())
        self._tick(step, values["train/loss"], self._speed)

    def skipped(self, step: int, metrics: Metrics, *, lane: int) -> None:
        self._skipped[lane] += 1
        self._write(step, lane, {"train/skipped_updates": float(self._skipped[lane])})

    def diverged(self, error: Exception, *, lane: int) -> None:
        self.lost[lane] = str(error)

    def evaluate(self, step: int, state: TrainState) -> None:
        jax.block_until_ready(state.params)
        self.clock.charge("train")
        found = self._evaluate(state)
        self.clock.charge("eval")
        for lane, values in enumerate(found):
            self._write(step, lane, {**values, **self.clock.values()})
        self._watchdog.fed()
        if self._judge is not None:
            losses = [math.nan if lane in self.lost else values["eval/validation/loss"]
                      for lane, values in enumerate(found)]  # fmt: skip
            reasons = self._judge(step, losses)
            if reasons is not None:
                raise Hopeless(reasons)

    def save(self, state: TrainState) -> None:
        jax.block_until_ready(state.params)
        self.clock.charge("train")
        self._checkpoints.save(state)
        self.clock.charge("save")
        # So that the clock of a resumed run starts from the state that it resumes.
        step = int(np.ravel(state.step)[0])
        for lane in range(len(self._journals)):
            self._write(step, lane, self.clock.values())
        self._watchdog.fed()

    def _write(self, step: int, lane: int, values: Mapping[str, float]) -> None:
        if lane not in self.lost:
            self._journals[lane].write(step, step * self._program.batch_tokens, values)
