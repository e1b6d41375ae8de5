"""What a search may choose, for each key of a config, on which ladder, and for how much.

times(between(1 / 16, 16))    any multiple of what the rules give
times(among(0.5, 1, 2))       these multiples of it
between(0.001, 0.3)           any value between, even in its logarithm
among(0.0, 0.01, 0.1)         these values, in this order
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

from scaling.cells import RUN_KEYS
from scaling.config import ConfigError
from scaling.sweep.cells import Cell
from scaling.sweep.grid import LENGTHS, Grid, Overrides, cells

EDGE = 0.05
"""The share of an axis at either end that counts as its edge."""


@dataclass(frozen=True)
class Axis:
    """The values that a key may take, in a row: a place is a number from 0 to `end`.

    Places are octaves above the lowest value where `continuous`, else numbers of the choices;
    `relative` values are multiples of what the rules give for the size.
    """

    values: tuple[Any, ...]
    continuous: bool = False
    relative: bool = False

    @property
    def end(self) -> float:
        """The last place."""
        if self.continuous:
            return math.log2(self.values[1] / self.values[0])
        return len(self.values) - 1

    def value(self, place: float) -> Any:
        """What stands at a place."""
        return self.values[0] * 2.0**place if self.continuous else self.values[int(place)]

    def home(self, ruled: Any) -> float:
        """The place nearest to what the rules give; the middle where that is no place, such as the
        logarithm of 0."""
        wanted = 1.0 if self.relative else ruled
        number = isinstance(wanted, int | float)
        if self.continuous:
            if not number or wanted <= 0:
                return self.end / 2
            return min(max(math.log2(wanted / self.values[0]), 0.0), self.end)
        if wanted in self.values:
            return self.values.index(wanted)
        if not number or not all(isinstance(value, int | float) for value in self.values):
            return len(self.values) // 2
        return min(range(len(self.values)), key=lambda i: abs(self.values[i] - wanted))

    def at_edge(self, place: float) -> bool:
        """Whether the best may lie beyond what was searched."""
        share = place / self.end if self.end else 0.5
        return not EDGE < share < 1 - EDGE


def between(low: float, high: float) -> Axis:
    """Any value between two, even in its logarithm.

    Raises:
      ConfigError: they are not positive and in order.
    """
    if not 0 < low < high < math.inf:
        raise ConfigError(f"between({low}, {high}) is no range; give 0 < low < high")
    return Axis((float(low), float(high)), continuous=True)


def among(*values: Any) -> Axis:
    """These values, in an order in which neighbours are alike.

    Raises:
      ConfigError: fewer than two, or one twice.
    """
    if len(set(values)) < max(len(values), 2):
        raise ConfigError(f"among{values} is no choice; give two values or more, each once")
    return Axis(values)


def times(axis: Axis) -> Axis:
    """The same as multiples of what the rules give for each size.

    Raises:
      ConfigError: not all of its values are positive numbers.
    """
    if not all(isinstance(value, int | float) and value > 0 for value in axis.values):
        raise ConfigError(f"times{axis.values} has values that are no multiples; give numbers > 0")
    return dataclasses.replace(axis, relative=True)


@dataclass(frozen=True, kw_only=True)
class Search:
    """A space, the ladder that its trials climb, and what all of them may cost.

    `rungs` are overrides that set a size and a budget, cheapest first: the last is what is tuned
    for. One trial of `promote` goes up from each. `max_flops` is by `scaling.counts.flops_6nd`.

    Raises:
      ConfigError: an empty space or ladder, or numbers out of range.
    """

    space: Mapping[str, Axis]
    rungs: Grid
    max_flops: float
    promote: int = 3

    def __post_init__(self) -> None:
        if not self.space or not self.rungs:
            raise ConfigError(
                f"a search over {len(self.space)} keys on {len(self.rungs)} rungs; give one of "
                "each at least"
            )
        if not 0 < self.max_flops < math.inf:
            raise ConfigError(f"max_flops is {self.max_flops}; give a positive number of FLOPs")
        if self.promote < 2:
            raise ConfigError(f"promote is {self.promote}; give 2 or more, one of which goes up")
        for key, axis in self.space.items():
            if axis.continuous and key not in RUN_KEYS:
                raise ConfigError(
                    f"{key} may be anything between {axis.values[0]:g} and {axis.values[1]:g}, and "
                    "each value would be a program of its own; name some with among(...)"
                )
            if key.startswith("model.") and any("budget.flops" not in rung for rung in self.rungs):
                raise ConfigError(
                    f"{key} changes what a token costs; give every rung a budget.flops, so that "
                    "all of its trials cost the same"
                )


@dataclass(frozen=True)
class Rung:
    """One rung of a ladder: its overrides, and the most that a trial on it can cost."""

    overrides: Overrides
    flops: float


def rungs_of(search: Search, config: ConfigDict) -> list[Rung]:
    """The rungs of a search.

    Raises:
      ConfigError: a rung without a budget of its own, that is no run, or cheaper than the one
        before it.
    """
    found: list[Rung] = []
    for overrides in search.rungs:
        flops, tokens = (overrides.get(key) for key in LENGTHS)
        if (flops is None) == (tokens is None):
            raise ConfigError(
                f"the rung {dict(overrides)} needs a budget: give it budget.flops or budget.tokens"
            )
        cell = resolved(config, overrides)
        # What was asked for, before it is rounded down to whole batches of one size or another.
        most = float(flops or (tokens or 0) * cell.shape.flops_6nd_per_token)
        if found and most < found[-1].flops:
            raise ConfigError(
                f"a rung of {most:.3g} FLOPs follows one of {found[-1].flops:.3g}; give the "
                "cheapest first"
            )
        found.append(Rung(overrides, most))
    return found


def resolved(config: ConfigDict, overrides: Overrides) -> Cell:
    """The run that these overrides make of a config."""
    [cell] = cells(config, [overrides]).planned
    return cell


def value_of(cell: Cell, key: str) -> Any:
    """What a resolved cell says of a key."""
    found: Any = cell.content
    for part in key.split("."):
        found = found[part]
    return found
