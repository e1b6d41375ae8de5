"""The size ladder: width, depth, heads, learning rates, batch and warm-up from one dial, the width.

Rungs are widths: multiples of 8 from 16 to 120, then multiples of 64. Everything else follows:

- depth = round(12 (width/768)^0.75), at least 2, which gives the published shapes 768 -> 12 (GPT-3
  Small), 2048 -> 25 (24 in GPT-3 XL) and 12288 -> 96 (GPT-3 175B) of Brown et al. 2020, table 2.1.
- heads = round(width/64), at least 2: head width 64 as in table 2.1 of Brown et al. 2020, and half
  the width where that would leave a single head.
- feed-forward width = 4 width (Vaswani et al. 2017, section 3.3), squared-ReLU (So et al. 2021).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SMALLEST_WIDTH = 16
LARGEST_WIDTH = 65_536
CONTEXT = 128


@dataclass(frozen=True, kw_only=True)
class Size:
    """A model's shape; lengths of the letters D, F, N, K, H, L, V, T.

    `context` is the length of a learned table of positions, and `token_types` (letter C) of a table
    of token types; a model without such a table takes no notice of it.
    """

    width: int
    depth: int
    heads: int
    kv_heads: int
    head_width: int
    feedforward: int
    vocabulary: int
    context: int
    token_types: int = 0

    @property
    def lengths(self) -> Mapping[str, int]:
        """The length of each letter of the alphabet that a model of this size uses."""
        return {
            "D": self.width,
            "F": self.feedforward,
            "N": self.heads,
            "K": self.kv_heads,
            "H": self.head_width,
            "L": self.depth,
            "V": self.vocabulary,
            "T": self.context,
            "C": self.token_types,
        }


def size(width: int, *, vocabulary: int) -> Size:
    """The rung of the ladder with this width.

    Raises:
      ValueError: the width is not a rung.
    """
    step = 8 if width < 128 else 64
    if width % step or not SMALLEST_WIDTH <= width <= LARGEST_WIDTH:
        lower, upper = width // step * step, (width // step + 1) * step
        near = f"{max(lower, SMALLEST_WIDTH)} or {min(max(upper, SMALLEST_WIDTH), LARGEST_WIDTH)}"
        raise ValueError(
            f"width {width} is not on the ladder; use a multiple of 8 from {SMALLEST_WIDTH} to 120 "
            f"or a multiple of 64 from 128 to {LARGEST_WIDTH}, such as {near}"
        )
    heads = max(2, round(width / 64))
    return Size(
        width=width,
        depth=max(2, round(12 * (width / 768) ** 0.75)),
        heads=heads,
        kv_heads=heads,
        head_width=width // heads,
        feedforward=4 * width,
        vocabulary=vocabulary,
        context=CONTEXT,
    )


def gated(width: int) -> int:
    """Feed-forward width of SwiGLU: 8/3 width, so that three matrices weigh what two of 4 width do
    (Shazeer 2020, section 3.1), rounded up to a multiple of 8."""
    return -(-8 * width // 24) * 8


def ladder(*, vocabulary: int) -> Iterator[Size]:
    """All rungs, smallest first."""
    for width in range(SMALLEST_WIDTH, 128, 8):
        yield size(width, vocabulary=vocabulary)
    for width in range(128, LARGEST_WIDTH + 1, 64):
        yield size(width, vocabulary=vocabulary)


class TrainingRule(NamedTuple):
    """How a size is trained; nothing depends on the budget, so budgets of one size can share a
    trunk."""

    matrix_rate: float
    vector_rate: float
    batch_tokens: int
    warmup_tokens: int


TRIED = (16, 88)
"""The widths at which the rules below have been tried; beyond them they are carried on as the
literature says, and nobody has measured them here."""
BATCH_EXPONENT = 2.75 * 0.571
"""Of the width in the batch: parameters grow as width^2.75 on this ladder, compute-optimal tokens
as the parameters (Hoffmann et al. 2022), and the best batch as tokens^0.571 (Li et al. 2025, Step
Law, equation 1)."""
WARMUP_UPDATES = 64


def training(width: int) -> TrainingRule:
    """How a rung is trained; with g = width/88, and 1 where that is less.

    - matrix_rate = 0.01, of hidden matrices under Muon: its update has a spectral norm that follows
      the shape of the matrix, so that one rate serves every width (Bernstein 2024). Nor does it
      move with the budget, as long as that is compute-optimal: along tokens = 20 params the Step
      Law's rate for Adam falls as params^-0.406, of which 1/width (Yang et al. 2022, table 8) is
      params^-0.364 and remains params^-0.042.
    - vector_rate = 0.03/g, of all else under Adam. The tied head sums over the width and has no
      multiplier in the standard parameterization, so its rate falls as 1/width (Yang et al. 2022,
      table 3); look-ups and gains could bear more.
    - batch_tokens = 512 g^1.57 in powers of two, see `BATCH_EXPONENT`. The Step Law's own constant
      would give six to seven times as many; below the critical batch fewer cost steps, not tokens
      (McCandlish et al. 2018, equation 2.11).
    - warmup_tokens = 64 batches: Muon needs little, its updates have one size from the first
      (Jordan et al. 2024).

    Tuned at width 40 on 2.5e11 FLOPs, see `experiments/2026-11-23-batch-and-rate`; tried at the
    widths of `TRIED` alone, where nothing changes with the width.
    """
    growth = max(1.0, width / TRIED[1])
    batch_tokens = 512 * 2 ** round(BATCH_EXPONENT * math.log2(growth))
    return TrainingRule(
        matrix_rate=0.01,
        vector_rate=0.03 / growth,
        batch_tokens=batch_tokens,
        warmup_tokens=WARMUP_UPDATES * batch_tokens,
    )


def batch_tokens(params: Floats) -> Floats:
    """The batches of `training` at the `nearest` rungs to numbers of parameters [...]."""
    width = (params * 768**0.75 / 144) ** (1 / 2.75)
    step = np.where(width < 124, 8, 64)
    width = np.clip(np.round(width / step) * step, SMALLEST_WIDTH, LARGEST_WIDTH)
    growth = np.maximum(1.0, width / TRIED[1])
    found: Floats = 512 * 2 ** np.round(BATCH_EXPONENT * np.log2(growth))
    return found


def nearest(params: float) -> int:
    """The width of the rung nearest to a number of parameters, embedding left out: params = 12
    width^2 depth, with the ladder's depth not rounded."""
    width = (params * 768**0.75 / 144) ** (1 / 2.75)
    step = 8 if width < 124 else 64
    return min(max(round(width / step) * step, SMALLEST_WIDTH), LARGEST_WIDTH)
