"""Devices by name, many of them as one machine, and what a model takes of their memory."""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from scaling.analysis.forms import Array
from scaling.counts import PEAK_FLOPS
from scaling.records import Record

STATE_BYTES = 16.0
"""Of one parameter under Adam: weight, gradient and two moments in float32, or in mixed precision
2 + 2 + 12 (Rajbhandari et al. 2020, section 3.1)."""
LAYER_BYTES = 34.0
"""Activations of one layer per token and unit of width, in 16 bits, scores of attention left out
(Korthikanti et al. 2022, equation 2)."""
LOGIT_BYTES = 8.0
"""Of one logit: itself and its gradient, in float32."""


HOUR = 3600.0
UTILIZATION = 0.4
"""Taken where none was measured or given: Grattafiori et al. 2024, table 4, report 0.38 to 0.43 on
8,192 to 16,384 H100s."""
TOKENS_PER_CHIP = 2048
"""From about so many tokens a step on, weights that are split over the chips arrive as fast as they
are used: peak over link bandwidth, 989e12 / 450e9 = 2,200 on an H100 over NVLink."""


class PlanError(ValueError):
    """What cannot be planned for, or a run that was not planned; the message says the remedy."""


class Device(NamedTuple):
    """One chip: `kind` is JAX's `device_kind`, `peak_flops` dense bf16 FLOP/s."""

    name: str
    kind: str
    peak_flops: float
    memory_bytes: float


def _device(name: str, kind: str, memory_bytes: float) -> Device:
    return Device(name, kind, PEAK_FLOPS[kind], memory_bytes)


DEVICES: Mapping[str, Device] = {
    device.name: device
    for device in (
        _device("a100-40gb", "NVIDIA A100-SXM4-40GB", 40e9),
        _device("a100-80gb", "NVIDIA A100-SXM4-80GB", 80e9),
        _device("h100", "NVIDIA H100 80GB HBM3", 80e9),
        _device("h200", "NVIDIA H200", 141e9),
        _device("tpu-v4", "TPU v4", 32 * 2.0**30),
        _device("tpu-v5e", "TPU v5 lite", 16e9),
        _device("tpu-v5p", "TPU v5p", 95e9),
        _device("tpu-v6e", "TPU v6 lite", 32e9),
    )
}
"""By the makers' data sheets. Prices are not here: they are the user's to give."""


def device(name: str) -> Device:
    """The device of this name, or of this `device_kind`.

    Raises:
      PlanError: it is not in the table.
    """
    for entry in DEVICES.values():
        if name.lower() in (entry.name, entry.kind.lower()):
            return entry
    raise PlanError(
        f"device {name!r} is not in the table ({', '.join(DEVICES)}); give its own numbers: peak "
        "FLOP/s with --peak_flops, and --memory_bytes if it limits the size"
    )


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Chips that train one run together.

    A step of B tokens takes max(6 params max(B/chips, tokens_per_chip) / (utilization x
    peak_flops), step_seconds): with fewer than `tokens_per_chip` tokens (one sequence, say) a chip
    is no faster, and whatever the size, a step takes `step_seconds`.

    `peak_flops` is of one chip; `utilization` is 6 params tokens per second over the peak, and
    `utilization_source` says whose figure it is;
    `serving_utilization` the share of the peak that answering makes of 2 params tokens per second,
    None for the same as training;
    `price_per_hour` is of one chip, in the user's money; `memory_bytes` None sets no limit.

    Raises:
      PlanError: a number that is not positive, a utilization above 1.
    """

    chips: int
    peak_flops: float
    utilization: float
    tokens_per_chip: int
    step_seconds: float = 0.0
    memory_bytes: float | None = None
    price_per_hour: float | None = None
    vocabulary: int = 0
    name: str = "device"
    utilization_source: str = "as given"
    serving_utilization: float | None = None

    def __post_init__(self) -> None:
        positive("chips", self.chips)
        positive("peak FLOP/s", self.peak_flops)
        positive("tokens per chip", self.tokens_per_chip)
        for share in (self.utilization, self.serving_utilization):
            if share is not None:
                positive("MFU", share)
            if share is not None and share > 1:
                raise PlanError(f"MFU {share} is above 1; give a share, such as 0.4")
        if not (math.isfinite(self.step_seconds) and self.step_seconds >= 0):
            raise PlanError(f"seconds per step {self.step_seconds} is not a time; give 0 or more")
        for name in ("memory_bytes", "price_per_hour"):
            if getattr(self, name) is not None:
                positive(name.replace("_", " "), getattr(self, name))

    @property
    def flops_per_second(self) -> float:
        """What all chips together compute while they are busy."""
        return self.chips * self.peak_flops * self.utilization

    def busy_batch(self, params: Array) -> Array:
        """The tokens of a step from which on more tokens take more time."""
        floor = self.step_seconds * self.flops_per_second / (6 * params)
        return np.maximum(self.chips * self.tokens_per_chip, floor)

    def step(self, params: Array, batch: Array) -> Array:
        """Seconds of one step."""
        return 6 * params * np.maximum(batch, self.busy_batch(params)) / self.flops_per_second

    def answer_seconds(self, params: Array, tokens: float) -> Array:
        """Seconds in which the chips read and write so many tokens, at 2 params FLOPs each."""
        share = self.serving_utilization or self.utilization
        found: Array = 2 * params * tokens / (self.chips * self.peak_flops * share)
        return found

    def largest_params(self) -> float:
        """The most parameters that fit in the memory of the chips, infinity where none is said."""
        if self.memory_bytes is None:
            return math.inf
        return largest_params(
            self.memory_bytes,
            chips=self.chips,
            tokens_per_chip=self.tokens_per_chip,
            vocabulary=self.vocabulary,
        )


def positive(name: str, value: float) -> None:
    """Refuse what is no positive finite number.

    Raises:
      PlanError: it is none.
    """
    if not (math.isfinite(value) and value > 0):
        raise PlanError(f"{name} is {value}; give a positive finite number")


def measured_utilization(records: Iterable[Record], *, kind: str | None = None) -> float:
    """The median share of the peak that runs which ended well have made of 6 params tokens.

    Of those on devices of `kind` where that is said. A record's MFU counts attention too
    (`flops_counted`); here it is that of `flops_6nd`, which a plan counts in.

    Raises:
      PlanError: none of them has an MFU.
    """
    found = [
        record.mfu * record.flops_6nd / record.flops_counted
        for record in records
        if record.status == "ok" and kind in (None, record.device_kind)
        and record.mfu and record.flops_6nd and record.flops_counted
    ]  # fmt: skip
    if not found:
        where = "" if kind is None else f" on {kind}"
        raise PlanError(
            f"no run{where} has a measured MFU; give one with --mfu=0.4, or train one run there"
        )
    return statistics.median(found)


def bytes_per_chip(
    params: ArrayLike,
    *,
    chips: int,
    tokens_per_chip: float,
    vocabulary: int = 0,
    state_bytes: float = STATE_BYTES,
) -> Array:
    """Bytes that training takes on each of `chips`, over which the state is split.

    state_bytes x params / chips + tokens_per_chip x ((2 depth + 34) width + 8 vocabulary): weights,
    gradient and moments; what each layer keeps of a token in 16 bits, the layer under work in full
    (all others are computed again), and the logits. A batch larger than `tokens_per_chip` goes
    through in parts. Width and depth are those of the size ladder, embedding left out: params = 12
    width^2 depth, depth = 12 (width/768)^0.75.
    """
    params = np.asarray(params, np.float64)
    width = (params * 768**0.75 / 144) ** (1 / 2.75)
    depth = 12 * (width / 768) ** 0.75
    activations = (2 * depth + LAYER_BYTES) * width + LOGIT_BYTES * vocabulary
    found: Array = state_bytes * params / chips + tokens_per_chip * activations
    return found


def largest_params(
    memory_bytes: float,
    *,
    chips: int,
    tokens_per_chip: float,
    vocabulary: int = 0,
    state_bytes: float = STATE_BYTES,
) -> float:
    """The most parameters that `bytes_per_chip` finds room for in `memory_bytes` of each chip.

    Raises:
      PlanError: the tokens alone fill it.
    """

    def needed(params: float) -> float:
        return float(
            bytes_per_chip(
                params, chips=chips, tokens_per_chip=tokens_per_chip, vocabulary=vocabulary,
                state_bytes=state_bytes,
            )
        )  # fmt: skip

    low, high = 1.0, memory_bytes * chips / state_bytes
    if needed(low) > memory_bytes:
        raise PlanError(
            f"{tokens_per_chip:.6g} tokens a chip take {needed(low):.3g} bytes before the model "
            f"takes any, and a chip has {memory_bytes:.3g}; give fewer with --tokens_per_chip"
        )
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if needed(middle) <= memory_bytes else (low, middle)
    return low
