"""The loop: it dispatches the step and reads results late, for one run or for several packed."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import jax
import numpy as np

from scaling.train import optim
from scaling.train.program import Batch, Metrics, Program, TrainState

IN_FLIGHT = 2
"""Dispatches that may be under way at once: the devices find the next one waiting, and the host
never runs further ahead than it can be stopped."""


class Cadence(NamedTuple):
    """How often, in steps, a run does what costs time; and how many bad updates in a row end it."""

    log: int
    evaluate: int
    checkpoint: int
    skip_limit: int


class Hooks(Protocol):
    """What a run does beside training; the loop calls these and knows nothing of files.

    Steps are counted from 1: step number n is the update with batch n - 1. `lane` tells packed runs
    from each other; a run by itself is lane 0.
    """

    def begin(self, step: int) -> None:
        """Step number `step` comes next."""

    def waited(self, seconds: float) -> None:
        """The devices had nothing to do for at most `seconds` while a batch was made."""

    def log(self, step: int, metrics: Metrics, *, lane: int) -> None:
        """Metrics of the update that finished step number `step`; read, on the host."""

    def skipped(self, step: int, metrics: Metrics, *, lane: int) -> None:
        """Step number `step` left the state alone: its loss or gradient was not finite."""

    def diverged(self, error: Exception, *, lane: int) -> None:
        """This one of packed runs is given up; the others go on."""

    def finished(self, step: int) -> None:
        """The devices have finished step number `step`."""

    def evaluate(self, step: int, state: TrainState) -> None:
        """Measure the state after `step` updates.

        Raises:
          Hopeless: the runs are to be given up.
        """

    def save(self, state: TrainState) -> None:
        """Keep the state."""

    def stop(self, step: int) -> bool:
        """Whether the run is to be left after step number `step`, its state kept."""


class Diverged(FloatingPointError):
    """Updates in a row were not finite; the message says at which step, with which batch."""


class Hopeless(Exception):
    """The runs are given up, as others do better; `reasons` has one for each."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = tuple(reasons)


class Stopped(Exception):
    """The run was told to stop; its state after the last finished step is kept."""


def train(
    program: Program,
    state: TrainState,
    batch: Callable[[int], Batch],
    hyper: optim.Hyper,
    *,
    steps: int,
    cadence: Cadence,
    hooks: Hooks,
) -> TrainState:
    """Run updates `state.step .. steps`; batch t is asked for by its number.

    Metrics of a dispatch are read only after the next one is under way, so that the devices never
    wait for the host. An update whose loss or gradient is not finite leaves the state alone and is
    reported. The state after the last step is kept; measuring it is left to the caller.

    Packed runs keep step: all are at one. One that diverges is left where it is, without a further
    word of it, and the others go on.

    Raises:
      Diverged: `cadence.skip_limit` updates in a row were skipped, in every run.
      Hopeless: `hooks.evaluate` said so.
      Stopped: `hooks.stop` said so, and the state is kept.
    """
    done = int(np.ravel(state.step)[0])
    lost: set[int] = set()
    flight: deque[tuple[int, Metrics]] = deque()

    def land(*, leaving: int) -> None:
        while len(flight) > leaving:
            _report(*flight.popleft(), lost, steps=steps, cadence=cadence, hooks=hooks)

    if 0 < done < steps and done % cadence.evaluate == 0:
        # A run that was told to stop here left without this measurement.
        hooks.evaluate(done, state)
    while done < steps:
        # Dispatches begin at multiples of their length, wherever the run was interrupted.
        whole = done % program.dispatch_steps == 0 and done + program.dispatch_steps <= steps
        count = program.dispatch_steps if whole else 1
        hooks.begin(done + 1)
        started = time.perf_counter()
        batches = program.put([batch(number) for number in range(done, done + count)])
        if not flight or flight[-1][1].loss.is_ready():  # type: ignore[attr-defined]
            hooks.waited(time.perf_counter() - started)
        state, metrics = program.step(state, batches, hyper)
        flight.append((done, metrics))
        done += count
        stopping = done < steps and hooks.stop(done)
        saving = done % cadence.checkpoint == 0 or done == steps or stopping
        evaluating = done % cadence.evaluate == 0 and done < steps and not stopping
        # A state that diverged is not kept: what is under way is read before it is written.
        land(leaving=0 if saving or evaluating else IN_FLIGHT - 1)
        if evaluating:
            try:
                hooks.evaluate(done, state)
            except Stopped:
                # It is measured when the run goes on.
                hooks.save(state)
                raise
        if saving:
            hooks.save(state)
        if stopping:
            raise Stopped(f"stopped after step {done} of {steps}, as it was told")
    return state


def _report(
    first: int,
    metrics: Metrics,
    lost: set[int],
    *,
    steps: int,
    cadence: Cadence,
    hooks: Hooks,
) -> None:
    """Read the metrics of the dispatch whose first batch was number `first`."""
    read: Metrics = jax.device_get(metrics)
    count = len(read.loss)
    lanes = [Metrics(*row) for row in zip(*(v.reshape(count, -1).T for v in read), strict=True)]
    hooks.finished(first + count)
    for index in range(count):
        step = first + index + 1
        for lane, values in enumerate(lanes):
            one = Metrics(*(value[index] for value in values))
            if lane in lost:
                continue
            if not one.skipped:
                if step % cadence.log == 0 or step == steps:
                    hooks.log(step, one, lane=lane)
                continue
            hooks.skipped(step, one, lane=lane)
            if one.skipped_in_row >= cadence.skip_limit:
                lost.add(lane)
                error = Diverged(
                    f"loss {one.loss} with gradient norm {one.gradient_norm} at step {step} (batch "
                    f"{step - 1}), the last of {one.skipped_in_row} updates in a row that were "
                    "skipped"
                )
                if len(lost) == len(lanes):
                    raise error
                hooks.diverged(error, lane=lane)
