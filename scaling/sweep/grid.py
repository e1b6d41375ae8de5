"""Grids: the cells of a study, from a small algebra of plain functions.

A grid is a list of overrides, each a mapping of config keys to values:

    prod(param("model.width", (32, 48, 64)), param("seed", range(3)))        # 9 cells
    chain(a, b)   zip_(param("model.width", ...), param("budget.flops", ...))   subsample(a, 20)

`cells` makes resolved configs of them. Nothing is evaluated from strings.
"""

import copy
import difflib
import fnmatch
import itertools
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from scaling import counts
from scaling.cells import RUN_KEYS, architecture_of, resolve, size_of
from scaling.config import ConfigError, kinds_of, override, parse
from scaling.sweep.cells import Cell, Cells, Shape
from scaling.sweep.rates import carrier

SEEDS = 10_000
LENGTHS = ("budget.flops", "budget.tokens")
"""Cells that differ in these alone can share a trunk."""
Overrides = Mapping[str, Any]
Grid = Sequence[Overrides]


def param(key: str, values: Iterable[Any]) -> Grid:
    """One key over its values."""
    return [{key: value} for value in values]


def prod(*grids: Grid) -> Grid:
    """Every combination; the last grid varies fastest.

    Raises:
      ConfigError: two grids set one key.
    """
    return [_merged(parts) for parts in itertools.product(*grids)]


def chain(*grids: Grid) -> Grid:
    """One after the other."""
    return list(itertools.chain(*grids))


def zip_(*grids: Grid) -> Grid:
    """The first with the first, the second with the second.

    Raises:
      ConfigError: grids of different lengths, or that set one key.
    """
    lengths = sorted({len(grid) for grid in grids})
    if len(lengths) > 1:
        raise ConfigError(f"zip_ of grids of {lengths} entries; give grids of one length")
    return [_merged(parts) for parts in zip(*grids, strict=True)]


def subsample(grid: Grid, count: int, *, seed: int = 0) -> Grid:
    """`count` of a grid, drawn without replacement, in its order.

    Raises:
      ConfigError: more than there are.
    """
    if not 0 < count <= len(grid):
        raise ConfigError(f"subsample of {count} from a grid of {len(grid)}; give 1 to {len(grid)}")
    return [grid[i] for i in sorted(random.Random(seed).sample(range(len(grid)), count))]


def _merged(parts: Iterable[Overrides]) -> Overrides:
    merged: dict[str, Any] = {}
    for part in parts:
        for key in part:
            if key in merged:
                raise ConfigError(f"{key} is set twice in one cell of a grid; set it once")
        merged |= part
    return merged


def cells(config: ConfigDict, grid: Grid) -> Cells:
    """The resolved cells of a grid over a study's config.

    A cell whose grid sets no seed gets seed * SEEDS + a number: that of its trunk where the study
    shares trunks (cells that differ in their budget alone have one), else of its own. Runs with one
    seed and one size start alike and read the same text in the same order: they can share a trunk,
    and they share its noise, which would pass for an effect of the size: records name the trunk,
    and a fit by `--columns series=trunk` draws whole trunks.

    Raises:
      ConfigError: an unknown key or a value of another type or out of range, with the overrides of
        its cell; more cells than a study has seeds.
    """
    planned: list[Cell] = []
    numbers: dict[str, int] = {}
    shapes: dict[tuple[tuple[str, str], ...], Shape] = {}
    kinds = {kind.key: kind for kind in kinds_of(config, RUN_KEYS)}
    carry = carrier(config)
    for place, overrides in enumerate(grid, 1):
        try:
            of_shape = {k: v for k, v in overrides.items() if k not in kinds}
            name = tuple((key, repr(of_shape[key])) for key in sorted(of_shape))
            if name not in shapes:
                shapes[name] = Shape.of(with_overrides(config, of_shape))
            values = {
                key: parse(repr(value), kinds[key])
                for key, value in overrides.items()
                if key in kinds
            }
            if "seed" not in overrides:
                values["seed"] = config.seed * SEEDS + _number(numbers, overrides, config)
            if carry is not None:
                values |= carry(shapes[name], values)
            planned.append(shapes[name].cell(values))
        except ValueError as error:
            shown = ", ".join(f"{key}={value!r}" for key, value in overrides.items())
            raise ConfigError(f"cell {place} of {len(grid)} ({shown}): {error}") from error
    return Cells(planned)


def _number(numbers: dict[str, int], overrides: Overrides, config: ConfigDict) -> int:
    """The number of a cell, or of the trunk that it shares; new ones are added to `numbers`."""
    own = {k: v for k, v in overrides.items() if k not in LENGTHS}
    key = repr(sorted(own.items())) if config.sweep.trunks else str(len(numbers))
    number = numbers.setdefault(key, len(numbers) + 1)
    if number >= SEEDS:
        raise ConfigError(f"seed {number} of a study, which has seeds for {SEEDS - 1} cells")
    return number


def chosen(cells: Cells, only: Sequence[str] | None) -> frozenset[str] | None:
    """The run ids that patterns such as `w016-*` name; None where there are no patterns.

    Raises:
      ConfigError: a pattern that names no cell; the nearest run id is told.
    """
    if only is None:
        return None
    names = [cell.run_id for cell in cells.planned]
    found: set[str] = set()
    for pattern in only:
        matches = fnmatch.filter(names, pattern)
        if not matches:
            near = difflib.get_close_matches(pattern, names, n=1, cutoff=0.0)[0]
            raise ConfigError(
                f"--only={pattern} names none of the {len(names)} cells; give run ids or patterns "
                f"such as {near[:5]}*, the nearest run id is {near}"
            )
        found.update(matches)
    return frozenset(found)


def with_overrides(config: ConfigDict, overrides: Overrides) -> ConfigDict:
    """A copy of a config with some keys set; a value must fit its key as on the command line.

    Raises:
      ConfigError: an unknown key or a value of another type.
    """
    changed = copy.deepcopy(config)
    override(changed, [f"{key}={value!r}" for key, value in overrides.items()])
    return changed


def isoflop(config: ConfigDict) -> Cells:
    """Cells of the study's budgets x the widths named for each, cheapest budget first.

    Hoffmann et al. 2022, section 3.2: at one budget, several sizes, each trained to exactly that
    budget.

    Raises:
      ConfigError: the study names no budgets, or not one list of widths for each.
    """
    study = config.study
    if not study.budgets_flops or len(study.budgets_flops) != len(study.widths):
        raise ConfigError(
            f"study.budgets_flops has {len(study.budgets_flops)} entries and study.widths "
            f"{len(study.widths)}; give one tuple of widths for each budget"
        )
    for flops, widths in zip(study.budgets_flops, study.widths, strict=True):
        numbers = isinstance(flops, int | float) and 0 < flops < math.inf
        if not (numbers and isinstance(widths, tuple) and all(isinstance(w, int) for w in widths)):
            raise ConfigError(
                f"study.budgets_flops has {flops!r} with study.widths {widths!r}; give positive "
                "numbers, each with a tuple of widths, as in (1e11,) and ((32, 40, 48),)"
            )
    budgets = sorted(zip(study.budgets_flops, study.widths, strict=True))
    return cells(
        config,
        chain(
            *(
                prod(param("budget.flops", [float(flops)]), param("model.width", widths))
                for flops, widths in budgets
            )
        ),
    )


def ladder(
    config: ConfigDict, *, widths: Sequence[int], multiples: Sequence[float], ratio: float = 20.0
) -> Cells:
    """Sizes x multiples of their compute-optimal tokens (Bhagia et al. 2024, section 3).

    `ratio` is the compute-optimal number of tokens per parameter, 20 by Hoffmann et al. 2022.
    """
    return cells(
        config,
        [
            {"model.width": width, "budget.tokens": round(multiple * ratio * params)}
            for width in widths
            for params in [params_of(config, width=width)]
            for multiple in multiples
        ],
    )


def params_of(config: ConfigDict, *, width: int) -> int:
    """All parameters of the study's model at this width."""
    cell = resolve(with_overrides(config, {"model.width": width, "budget.tokens": 10**12}))
    return counts.parameters(size_of(cell), architecture_of(cell)).total
