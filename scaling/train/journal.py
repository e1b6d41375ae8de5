"""`metrics.jsonl` of one run: what was measured when, and the clock of its updates."""

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from scaling.files import write_bytes, writing
from scaling.train.checkpoint import Checkpoints
from scaling.train.loop import Metrics, Program, TrainState


class Journal:
    """`metrics.jsonl` of one run, with its clock; lines after the step that is resumed are
    dropped."""

    def __init__(self, path: Path, *, resumed_from: int) -> None:
        kept: list[str] = []
        self.train_seconds = 0.0
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                entry = _entry(line)
                if entry is not None and entry["step"] <= resumed_from:
                    kept.append(line)
                    self.train_seconds = entry["time/train_seconds"]
        self._path = path
        write_bytes(path, "".join(line + "\n" for line in kept).encode())
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, tokens: int, values: dict[str, float]) -> None:
        line = {"step": step, "tokens": tokens, **values, "time/train_seconds": self.train_seconds}
        with writing(self._path):
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def close(self) -> None:
        # What a full disk left in the buffer was reported when it was written.
        with contextlib.suppress(OSError):
            self._file.close()


def _entry(line: str) -> dict[str, Any] | None:
    """A line of the journal; None for one that a kill cut off in the middle."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


class Reporter:
    """Writes the journal and the checkpoints of one run, and keeps the clock of its updates."""

    def __init__(
        self,
        journal: Journal,
        checkpoints: Checkpoints,
        program: Program,
        *,
        evaluate: Callable[[TrainState], dict[str, float]],
        rate: float,
        tick: Callable[[int, float, float], None],
        start: int,
    ) -> None:
        self._journal, self._checkpoints, self._program = journal, checkpoints, program
        self._evaluate, self._rate, self._tick = evaluate, rate, tick
        self._compiled = program.compile_seconds
        self._mark = time.perf_counter()
        self._logged = start, journal.train_seconds

    def count(self) -> None:
        """Add the time since the last mark to the clock, compilation left out."""
        now, compiled = time.perf_counter(), self._program.compile_seconds
        self._journal.train_seconds += now - self._mark - (compiled - self._compiled)
        self._mark, self._compiled = now, compiled

    def log(self, step: int, metrics: Metrics) -> None:
        self.count()
        last_step, last_seconds = self._logged
        elapsed = max(self._journal.train_seconds - last_seconds, 1e-9)
        speed = (step - last_step) * self._program.batch_tokens / elapsed
        self._logged = step, self._journal.train_seconds
        values = {
            "train/loss": float(metrics.loss),
            "train/gradient_norm": float(metrics.gradient_norm),
            "optim/learning_rate": float(metrics.multiplier) * self._rate,
            "throughput/tokens_per_second": speed,
        }
        self._journal.write(step, step * self._program.batch_tokens, values)
        self._tick(step, values["train/loss"], speed)

    def evaluate(self, step: int, state: TrainState) -> None:
        jax.block_until_ready(state.params)
        self.count()
        values = self._evaluate(state)
        self._journal.write(step, step * self._program.batch_tokens, values)
        self.skip()

    def save(self, state: TrainState) -> None:
        jax.block_until_ready(state.params)
        self.count()
        self._checkpoints.save(state)
        self.skip()

    def skip(self) -> None:
        """Leave the time since the last mark out of the clock."""
        self._mark, self._compiled = time.perf_counter(), self._program.compile_seconds
