"""The alphabet: a weight's dimensions are said once, as letters, and all else follows from them.

`"D->NH"` declares a weight that takes model width to heads x head width. From it follow the einsum
(`scaling.model.layers.contract`), fan-in, the role in the parameterisation, the sharding
(`scaling.train.sharding`) and the parameter count.
"""

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

ALPHABET: Mapping[str, str] = {
    "B": "batch",
    "T": "query time",
    "S": "key time",
    "D": "model width",
    "F": "feed-forward width",
    "N": "heads",
    "K": "key/value heads",
    "H": "head width",
    "G": "queries per key/value head",
    "V": "vocabulary",
    "L": "layer",
    "E": "packed runs",
    "R": "adapter rank",
    "P": "prefix length",
    "C": "classes",
}

Role = Literal["input", "hidden", "output", "vector"]


class Axes(NamedTuple):
    """A weight's letters: what it contracts (`inputs`) and what it produces (`outputs`)."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def letters(self) -> tuple[str, ...]:
        """All letters in storage order; a primed letter (`D'`) is the second side of a square
        weight."""
        return self.inputs + self.outputs


def parse(declaration: str) -> Axes:
    """Read `"D->NH"` (a matrix), `"->D"` (a vector: gains, biases) or `"D->D'"` (a square matrix).

    Raises:
      ValueError: a letter outside the alphabet, a letter said twice, or no arrow.
    """
    sides = declaration.split("->")
    if len(sides) != 2:
        raise ValueError(
            f"axes {declaration!r} have {len(sides) - 1} arrows; "
            "write inputs->outputs, as in 'D->F'"
        )
    inputs, outputs = (_letters(side, declaration) for side in sides)
    axes = Axes(inputs, outputs)
    if len(set(axes.letters)) != len(axes.letters):
        raise ValueError(
            f'axes {declaration!r} say a letter twice; prime the second, as in "D->D\'"'
        )
    if not outputs:
        raise ValueError(f"axes {declaration!r} have no outputs; a vector is written '->D'")
    return axes


def _letters(side: str, declaration: str) -> tuple[str, ...]:
    letters: list[str] = []
    for character in side:
        if character == "'" and letters:
            letters[-1] += "'"
        elif character in ALPHABET:
            letters.append(character)
        else:
            known = " ".join(ALPHABET)
            raise ValueError(
                f"axes {declaration!r}: {character!r} is not in the alphabet ({known})"
            )
    return tuple(letters)


def shape(axes: Axes, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The array shape of `axes` when each letter has the length in `sizes` (primes share a
    length)."""
    return tuple(sizes[letter.rstrip("'")] for letter in axes.letters)


def fan_in(axes: Axes, sizes: Mapping[str, int]) -> int:
    """Number of terms each output sums over; 1 for vectors and for look-ups (`"V->D"`)."""
    if role(axes) in ("vector", "input"):
        return 1
    return math.prod(sizes[letter.rstrip("'")] for letter in axes.inputs)


def role(axes: Axes) -> Role:
    """Part played when width grows: `input` V->D (or another table, T->D or C->D), `output` D->V
    or D->C, `hidden`, or `vector`.

    Yang et al. 2022 (Tensor Programs V, table 3) scale initialisation and rate by this role.
    """
    if not axes.inputs:
        return "vector"
    if axes.inputs in (("V",), ("T",), ("C",)):
        return "input"
    if axes.outputs in (("V",), ("C",)):
        return "output"
    return "hidden"
