"""Grids: the cells of a study, as resolved configs."""

import copy
import math

from ml_collections import ConfigDict

from scaling.cells import cell_of
from scaling.config import ConfigError

SEEDS = 10_000


def isoflop(config: ConfigDict) -> list[ConfigDict]:
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
    pairs = [
        (width, flops)
        for flops, widths in sorted(zip(study.budgets_flops, study.widths, strict=True))
        for width in widths
    ]
    # Runs of one width can share a trunk if they share their seed.
    rungs = sorted({width for width, _ in pairs})
    return [
        cell_with(
            config,
            width=width,
            flops=flops,
            number=rungs.index(width) + 1 if config.sweep.trunks else number,
        )
        for number, (width, flops) in enumerate(pairs, start=1)
    ]


def cell_with(config: ConfigDict, *, width: int, flops: float, number: int) -> ConfigDict:
    """The resolved cell of this width and budget; `number` tells it from the study's other cells.

    Its seed is seed * SEEDS + number. Runs with one seed and one size start alike and read the same
    text in the same order: they can share a trunk, and they share its noise, which would pass for
    an effect of the size if the fit did not know (records name the trunk, and intervals draw whole
    trunks).

    Raises:
      ConfigError: more cells than a study has seeds.
    """
    if number >= SEEDS:
        raise ConfigError(f"cell {number} of a study; a study has seeds for {SEEDS - 1} cells")
    cell = copy.deepcopy(config)
    cell.model.width = width
    cell.budget.flops = float(flops)
    cell.seed = config.seed * SEEDS + number
    return cell_of(cell)
