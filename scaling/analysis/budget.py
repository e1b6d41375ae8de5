"""What may be spent on a run: compute, time, data, answers to serve, memory, size."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from scaling.analysis.batches import DEFAULT, Critical, critical
from scaling.analysis.devices import (
    HOUR,
    TOKENS_PER_CHIP,
    UTILIZATION,
    Machine,
    PlanError,
    device,
    positive,
)
from scaling.analysis.fitted import Law, inputs_of
from scaling.analysis.forms import Array, Form

LEAST = 1e-6
"""Sizes and tokens are searched from here on: far below one, so that a law's optimum is its own."""
MOST = 1e30
"""And up to here, where no limit is nearer."""
TIGHT = 1e-3
"""A limit of which all but this share is used is what binds."""


class Batches(NamedTuple):
    """The least and the largest batch, in tokens, that keep every limit; none where low > high."""

    low: Array
    high: Array


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits on one run, in any combination; None sets none.

    - flops: 6 params tokens + 2 params inference_tokens, at most. The second term is what the model
      will answer in its life (Sardana et al. 2024, equation 3).
    - hours of training on `machine`; lifetime_hours: of training and of the answers, on the same
      chips (what they cost is their price).
    - critical: the critical batch; without it a larger batch costs no tokens.
    - batch_tokens: the batch, where it is not to be chosen; least_batch_tokens: no smaller one;
      batch_rule: nor one smaller than this makes of the size, as far as that keeps a machine busy.
    - unique_tokens, and how often each may be seen (`epochs`). A law that knows of repeats is told
      of the data; None sets no limit to repeats then, and 1 where the law does not know.
    - params_low, params_high: the sizes to choose from; the memory of the machine is a limit too.

    Raises:
      PlanError: a number that is not positive and finite, hours without a machine.
    """

    flops: float | None = None
    hours: float | None = None
    lifetime_hours: float | None = None
    machine: Machine | None = None
    critical: Critical | None = None
    batch_tokens: float | None = None
    least_batch_tokens: float = 1.0
    batch_rule: Callable[[Array], Array] | None = None
    unique_tokens: float | None = None
    epochs: float | None = None
    inference_tokens: float = 0.0
    params_low: float = LEAST
    params_high: float | None = None

    def __post_init__(self) -> None:
        named = {
            "budget": self.flops, "hours": self.hours, "lifetime hours": self.lifetime_hours,
            "batch": self.batch_tokens,
            "least batch": self.least_batch_tokens, "unique tokens": self.unique_tokens,
            "epochs": self.epochs, "smallest size": self.params_low,
            "largest size": self.params_high,
        }  # fmt: skip
        for name, value in named.items():
            if value is not None:
                positive(name, value)
        if not (math.isfinite(self.inference_tokens) and self.inference_tokens >= 0):
            raise PlanError(f"inference tokens are {self.inference_tokens}; give 0 or more")
        if self.timed and self.machine is None:
            raise PlanError(
                "hours say nothing without a machine; say which, with --chips=64 --device=h200 "
                "--mfu=0.4"
            )
        if self.epochs is not None and self.unique_tokens is None:
            raise PlanError("epochs of what? Say how much data there is with --unique_tokens")
        low, high = self.sizes
        if low > high:
            memory = self.machine.largest_params() if self.machine else math.inf
            cause = "the memory holds" if memory == high else "the largest allowed is"
            raise PlanError(
                f"the smallest size allowed is {low:.4g} parameters and {cause} {high:.4g}; lower "
                "--min_params, or give more chips or a larger --max_params"
            )

    @property
    def sizes(self) -> tuple[float, float]:
        """The least and the most parameters."""
        memory = self.machine.largest_params() if self.machine else math.inf
        return self.params_low, min(memory, self.params_high or math.inf, MOST)

    @property
    def limited(self) -> bool:
        """Whether a size cannot be trained for ever."""
        return self.flops is not None or self.timed or self.unique_tokens is not None

    @property
    def timed(self) -> bool:
        """Whether time is limited."""
        return self.hours is not None or self.lifetime_hours is not None

    @property
    def plain(self) -> bool:
        """Whether FLOPs are the only limit."""
        return self == Budget(
            flops=self.flops,
            least_batch_tokens=self.least_batch_tokens,
            batch_rule=self.batch_rule,
        )

    @property
    def chooses_batch(self) -> bool:
        """Whether the batch matters; else it is whatever the rule says."""
        asked = (self.machine, self.critical, self.batch_tokens)
        return any(one is not None for one in asked)

    def data(self, form: Form, params: Array, tokens: Array) -> Mapping[str, Array]:
        """The law's inputs for `tokens` useful tokens; those beyond the unique ones repeat."""
        unique = None if self.unique_tokens is None else np.minimum(tokens, self.unique_tokens)
        return inputs_of(form, {"params": params, "tokens": tokens, "unique_tokens": unique})

    def repeats(self, form: Form) -> float:
        """How often each unique token may be seen."""
        if self.epochs is not None:
            return self.epochs
        return math.inf if "unique_tokens" in form.inputs else 1.0

    def most_tokens(self, form: Form) -> float:
        """How many tokens the data has, repeated as often as it may be."""
        return math.inf if self.unique_tokens is None else self.unique_tokens * self.repeats(form)

    def most(self, form: Form, params: Array) -> Mapping[str, Array]:
        """The most tokens that each limit lets a size see, whatever the batch, by its name."""
        found = {}
        if self.flops is not None:
            found["compute"] = (self.flops - 2 * params * self.inference_tokens) / (6 * params)
        if self.machine is not None:
            found |= {
                name: seconds * self.machine.flops_per_second / (6 * params)
                for name, seconds in self.training_seconds(params).items()
            }
        if math.isfinite(self.most_tokens(form)):
            found["unique data"] = np.full_like(params, self.most_tokens(form))
        return found

    def batches(self, form: Form, params: Array, useful: Array, crowding: Array) -> Batches:
        """The batches with which a size can do what `useful` tokens do; `crowding` is 1/B_crit.

        Tokens seen, useful (1 + B crowding), have their most, so that a batch has one too. Steps
        take at least the time of the busy batch, and useful (crowding + 1/B) of them are needed:
        the time sets the least batch.
        """
        most = np.minimum.reduce([np.full_like(params, np.inf), *self.most(form, params).values()])
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            high = np.where(useful <= most, (most / useful - 1) / crowding, -np.inf)
            # Without crowding any batch will do, even where nothing is left.
            high = np.where((useful <= most) & (crowding == 0), np.inf, high)
            # And there is at least one step.
            least_steps = useful * crowding
            one = np.where(least_steps < 1, useful / (1 - least_steps), np.inf)
            high = np.minimum(high, one)
            low = np.broadcast_to(self.least_batch(params), high.shape)
            if self.machine is not None and self.timed:
                step = self.machine.step(params, np.zeros_like(params))
                seconds = np.minimum.reduce([*self.training_seconds(params).values()])
                steps = seconds / step - useful * crowding
                low = np.maximum(low, np.where(steps > 0, useful / steps, np.inf))
        if self.batch_tokens is not None:
            met = (low <= self.batch_tokens) & (self.batch_tokens <= high)
            low, high = np.where(met, self.batch_tokens, np.inf), np.where(met, high, -np.inf)
        return Batches(low, high)

    def least_batch(self, params: Array) -> Array:
        """The least batch of a size, whatever the time.

        By the size alone, so that a limit more never makes a better run. Beyond what keeps the
        machine busy a larger batch saves no time, and costs tokens.
        """
        if self.batch_tokens is not None:
            return np.full_like(params, self.batch_tokens)
        least = np.full_like(params, self.least_batch_tokens)
        if self.batch_rule is None:
            return least
        ruled = self.batch_rule(params)
        if self.machine is not None:
            ruled = np.minimum(ruled, self.machine.busy_batch(params))
        return np.maximum(least, ruled)

    def training_seconds(self, params: Array) -> Mapping[str, Array]:
        """What each limit of time leaves for the training of a size, by its name."""
        found = {}
        if self.hours is not None:
            found["time"] = np.full_like(params, self.hours * HOUR)
        if self.lifetime_hours is not None:
            found["lifetime"] = self.lifetime_hours * HOUR - self.answer_seconds(params)
        return found

    def answer_seconds(self, params: Array) -> Array:
        """Time of the answers on the machine, NaN without one."""
        if self.machine is None:
            return np.full_like(params, np.nan)
        return self.machine.answer_seconds(params, self.inference_tokens)

    def seconds(self, params: Array, tokens: Array, batch: Array) -> Array:
        """Time of the training on the machine, NaN without one."""
        if self.machine is None:
            return np.full(np.broadcast_shapes(params.shape, tokens.shape), np.nan)
        return tokens / batch * self.machine.step(params, batch)

    def spent(self, params: Array, tokens: Array) -> Array:
        """FLOPs of training and of the answers."""
        return 6 * params * tokens + 2 * params * self.inference_tokens


def budget_of(
    *,
    chips: int | None = None,
    device_name: str | None = None,
    hours: float | None = None,
    lifetime_hours: float | None = None,
    utilization: float | None = None,
    utilization_source: str = "as given",
    serving_utilization: float | None = None,
    peak_flops: float | None = None,
    memory_bytes: float | None = None,
    price_per_hour: float | None = None,
    tokens_per_chip: int = TOKENS_PER_CHIP,
    step_seconds: float = 0.0,
    vocabulary: int = 0,
    critical_batch: float | str | Law | None = None,
    batch_tokens: float | None = None,
    unique_tokens: float | None = None,
    epochs: float | None = None,
    inference_tokens: float = 0.0,
    params_low: float | None = None,
    params_high: float | None = None,
) -> Budget:
    """The budget of plain values, as a command line gives them.

    A machine is `chips` of a device of the table, or of a `peak_flops` of their own, at a
    `utilization` that was measured or is given, else `devices.UTILIZATION`; its memory is that of
    the device unless said. With a machine the critical batch is `batches.DEFAULT` unless one is
    given.

    Raises:
      PlanError: a machine without a peak, an unknown device or critical batch, a
        number out of range.
    """
    machine = None
    if chips is None:
        asked = {"--device": device_name, "--hours": hours, "--lifetime_hours": lifetime_hours,
                 "--mfu": utilization, "--serving_mfu": serving_utilization,
                 "--price": price_per_hour, "--peak_flops": peak_flops,
                 "--memory_bytes": memory_bytes}  # fmt: skip
        for flag, value in asked.items():
            if value is not None:
                raise PlanError(f"{flag} needs a machine; say how many chips with --chips=64")
    else:
        if device_name is None and peak_flops is None:
            raise PlanError(
                f"{chips} chips of what? Give --device=h200, or --peak_flops of your own"
            )
        if utilization is None:
            utilization = UTILIZATION
            utilization_source = (
                "neither given nor measured: give --mfu, or --records of runs there"
            )
        entry = None if device_name is None else device(device_name)
        if entry is not None:
            peak_flops = entry.peak_flops if peak_flops is None else peak_flops
            memory_bytes = entry.memory_bytes if memory_bytes is None else memory_bytes
        assert peak_flops is not None
        machine = Machine(
            chips=chips,
            peak_flops=peak_flops,
            utilization=utilization,
            tokens_per_chip=tokens_per_chip,
            step_seconds=step_seconds,
            memory_bytes=memory_bytes,
            price_per_hour=price_per_hour,
            vocabulary=vocabulary,
            name="chips of your own" if entry is None else entry.name,
            utilization_source=utilization_source,
            serving_utilization=serving_utilization,
        )
        critical_batch = DEFAULT if critical_batch is None else critical_batch
    return Budget(
        hours=hours,
        lifetime_hours=lifetime_hours,
        machine=machine,
        critical=None if critical_batch is None else critical(critical_batch),
        batch_tokens=batch_tokens,
        unique_tokens=unique_tokens,
        epochs=epochs,
        inference_tokens=inference_tokens,
        params_low=LEAST if params_low is None else params_low,
        params_high=params_high,
    )
