"""Parameterizations: how initialisation, rates and forward multipliers follow width and depth."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from scaling.axes import Axes, Role, fan_in, role

LOOKUP_DEVIATION = 0.02
NAMES = ("standard", "mup", "completep")
GROWING = frozenset("DFNKGH")

RATE_EXPONENTS: Mapping[str, Mapping[Role, int]] = {
    "adamw": {"input": 0, "hidden": -1, "output": 0, "vector": 0},
    "lion": {"input": 0, "hidden": -1, "output": 0, "vector": 0},
    "adafactor": {"input": 0, "hidden": -1, "output": 0, "vector": 0},
    "muon": {"input": 0, "hidden": 0, "output": 0, "vector": 0},
    "sgd": {"input": 1, "hidden": 0, "output": 1, "vector": 1},
}
"""Powers of m = width/base_width in the rate of each role, with the output multiplied by 1/m.

Adam and SGD: Yang et al. 2022, table 8. Lion and Adafactor without parameter scaling have entries
near 1 whatever the gradient's size, as Adam has: that its row is theirs too is our inference, as
is Muon's row. Muon's factor sqrt(max(1, outputs/inputs)) follows the shape of a hidden matrix
already (Yang et al. 2023, "A spectral condition", condition 1), and Adam updates the rest.
"""

DEPTH_KNOWN = ("adamw", "lion", "muon")
"""Optimizers whose rate holds over depth at alpha = 1. Dey et al. 2025 derive it for AdamW; that it
holds for Lion and Muon is our inference from the premise they share, an update whose size does not
follow the gradient's."""


class Scale(NamedTuple):
    """One weight's standard deviation at the start, and multipliers of the base rate, of Adam's
    epsilon and of the base decay; a decay of 0 is a weight that does not decay."""

    deviation: float
    rate: float
    epsilon: float
    decay: float


@dataclass(frozen=True, kw_only=True)
class Parameterization:
    """Multipliers by role, with m = width/base_width and d = depth/base_depth.

    Every name gives the same numbers at m = d = 1 and head width = base_head_width. Look-ups and
    vectors do not decay.

    - `standard`: deviation 1/sqrt(fan-in), look-ups 0.02; every multiplier 1.
    - `mup`: Yang et al. 2022, table 8. Hidden rates by `RATE_EXPONENTS`, logits times 1/m, an
      untied head of deviation 1/sqrt(base fan-in), attention sqrt(base_head_width)/H in place of
      1/sqrt(H).
    - `completep`: mup, with each residual branch times d^-alpha and rates times d^(alpha-1), at
      alpha = 1; Adam's epsilon times 1/(m d) in hidden matrices and vectors, 1/m in look-ups and
      heads: Dey et al. 2025, table 1. Departure: gains and biases outside the blocks take the
      epsilon of those inside, which their letters do not tell apart.

    Dey et al. multiply the decay of hidden weights by m because their decay is multiplied by a rate
    of 1/m. Decay is independent of the rate here, so that the same strength is a multiplier of 1.

    Raises:
      ValueError: an unknown name, or a base that is not positive.
    """

    name: str
    lengths: Mapping[str, int]
    base_width: int
    base_depth: int
    base_head_width: int
    tied: bool

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ValueError(
                f"parameterization {self.name!r} is not known; use one of {', '.join(NAMES)}"
            )
        for base in ("base_width", "base_depth", "base_head_width"):
            if getattr(self, base) < 1:
                raise ValueError(
                    f"parameterization.{base} is {getattr(self, base)}, but must be at least 1; "
                    "give the shape at which the rates were tuned"
                )

    @property
    def width_ratio(self) -> float:
        """m = width/base_width; 1 under standard."""
        return 1.0 if self.name == "standard" else self.lengths["D"] / self.base_width

    @property
    def depth_ratio(self) -> float:
        """d = depth/base_depth; 1 unless the parameterization follows depth."""
        return self.lengths["L"] / self.base_depth if self.name == "completep" else 1.0

    @property
    def attention_scale(self) -> float:
        """Multiplies q.k: 1/sqrt(H), or sqrt(base_head_width)/H where width is followed."""
        head_width = self.lengths["H"]
        if self.name == "standard":
            return float(head_width**-0.5)
        return float(self.base_head_width**0.5 / head_width)

    @property
    def residual_scale(self) -> float:
        """Multiplies each branch before it is added to the residual stream: 1/d."""
        return 1.0 / self.depth_ratio

    @property
    def output_scale(self) -> float:
        """Multiplies logits: 1/m, for a tied head and an untied one."""
        return 1.0 / self.width_ratio

    def scale(self, axes: Axes, *, optimizer: str = "adamw") -> Scale:
        """The scale of one layer's weight with these letters; the deviation serves all optimizers.

        Raises:
          ValueError: the theory says nothing on this optimizer, or on these letters.
        """
        part, m, d = role(axes), self.width_ratio, self.depth_ratio
        if part == "input":
            deviation = LOOKUP_DEVIATION
        elif part == "output":
            deviation = (fan_in(axes, self.lengths) / m) ** -0.5
        else:
            deviation = fan_in(axes, self.lengths) ** -0.5
        decay = 1.0 if part in ("hidden", "output") else 0.0
        if self.name == "standard":
            return Scale(deviation, rate=1.0, epsilon=1.0, decay=decay)
        self._require_theory(axes, optimizer)
        exponent = RATE_EXPONENTS[optimizer][part]
        # A vector over one head or the vocabulary grows with no width.
        if part == "vector" and not (GROWING - {"H"}).intersection(axes.outputs):
            exponent = 0
        epsilon = 1.0
        if self.name == "completep":
            epsilon = 1.0 / m if part in ("input", "output") else 1.0 / (m * d)
        return Scale(deviation, rate=float(m**exponent), epsilon=epsilon, decay=decay)

    def _require_theory(self, axes: Axes, optimizer: str) -> None:
        known = DEPTH_KNOWN if self.name == "completep" else tuple(RATE_EXPONENTS)
        if optimizer not in known:
            raise ValueError(
                f"parameterization {self.name!r} has no known rates for optimizer {optimizer!r}; "
                f"use one of {', '.join(known)}, or parameterization 'standard'"
            )
        letters = {letter.rstrip("'") for letter in axes.letters}
        if role(axes) == "hidden" and not letters <= GROWING:
            raise ValueError(
                f"parameterization {self.name!r} has no known scale for a hidden weight of letters "
                f"{''.join(axes.inputs)}->{''.join(axes.outputs)}; its sides must be of "
                f"{' '.join(sorted(GROWING))}, or use parameterization 'standard'"
            )


def standard(lengths: Mapping[str, int]) -> Parameterization:
    """The standard parameterization of a model with these lengths: bases are its own shape."""
    return Parameterization(
        name="standard",
        lengths=lengths,
        base_width=lengths["D"],
        base_depth=lengths["L"],
        base_head_width=lengths["H"],
        tied=True,
    )
