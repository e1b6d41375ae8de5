"""Where functions are least, or claims cease to hold: many at once, without gradients."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from scaling.analysis.forms import Array

GRID = (121, *(17,) * 5)
"""Points of the search over log params, and of each closer look around the best."""
HALVINGS = 60
DOWN = np.geomspace(1e-3, 80, 40)
"""Steps down from the most tokens, in logs, in search of a number that can be trained."""
AT_AN_END = 1e-6


def largest(holds: Callable[[Array], NDArray[np.bool_]], most: Array) -> Array:
    """The largest number up to `most` for which a claim holds, NaN where none is found.

    Looked for from above: it may cease to hold for small numbers too, since a run of next to no
    tokens ends at a high loss, which by some laws has next to no critical batch.
    """
    whole = holds(most)
    if whole.all():
        return np.broadcast_to(most, whole.shape)
    top = np.broadcast_to(np.log(most), whole.shape)
    low, high = np.full(whole.shape, np.nan), top
    for down in DOWN:
        open_ = np.isnan(low)
        held = holds(np.exp(top - down))
        low, high = (
            np.where(open_ & held, top - down, low),
            np.where(open_ & ~held, top - down, high),
        )
        if not np.isnan(low).any():
            break
    low, _ = halved(holds, low, high)
    return np.where(whole, most, np.exp(low))


def halved(
    holds: Callable[[Array], NDArray[np.bool_]], low: Array, high: Array
) -> tuple[Array, Array]:
    """The bracket around the place where a claim about exp(x), true at `low`, ceases to hold."""
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        held = holds(np.exp(middle))
        low, high = np.where(held, middle, low), np.where(held, high, middle)
    return low, high


def lowest(
    value_at: Callable[[Array], Array], low: Array, high: Array, *, also: Array | None = None
) -> Array:
    """Where a function of x is least on [low, high], elementwise; NaN where it is NaN throughout.

    `value_at` takes x [points, ...] and gives values of that shape. A grid, closer looks around
    its best point, and the vertex of a parabola through the last three points if that is lower
    still: at a kink it is not. `also` [...] is one more point of the first grid.
    """

    def valued(x: Array) -> Array:
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            found = value_at(x)
        return np.where(np.isnan(found), np.inf, found)

    ends, shape = (low, high), np.shape(low)
    best, value = np.full(shape, np.nan), np.full(shape, np.inf)
    step = high - low
    for number, points in enumerate(GRID):
        share = np.linspace(0, 1, points).reshape(-1, *[1] * len(shape))
        x = low + (high - low) * share
        if number == 0 and also is not None:
            x = np.concatenate([x, np.where(np.isnan(also), low, also)[None]])
        values = valued(x)
        at = np.argmin(values, axis=0)[None]
        least = np.take_along_axis(values, at, axis=0)[0]
        better = least < value
        best = np.where(better, np.take_along_axis(x, at, axis=0)[0], best)
        value = np.where(better, least, value)
        step = (high - low) / (points - 1)
        middle = np.where(np.isnan(best), low, best)
        low, high = np.maximum(middle - step, ends[0]), np.minimum(middle + step, ends[1])
    x = best + step * np.array([-1.0, 0.0, 1.0]).reshape(-1, *[1] * len(shape))
    left, middle, right = valued(np.clip(x, *ends))
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = 0.5 * (left - right) / (left - 2 * middle + right)
    vertex = np.clip(best + np.clip(np.nan_to_num(shift), -1, 1) * step, *ends)
    return np.where(valued(vertex[None])[0] <= value, vertex, best)
