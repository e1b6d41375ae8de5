"""Grids: the cells of a study, as resolved configs."""

import copy

from ml_collections import ConfigDict

from scaling.config import ConfigError, cell_of


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
    return [
        cell_with(config, width=width, flops=flops)
        for flops, widths in sorted(zip(study.budgets_flops, study.widths, strict=True))
        for width in widths
    ]


def cell_with(config: ConfigDict, *, width: int, flops: float) -> ConfigDict:
    """The resolved cell of this width and budget."""
    cell = copy.deepcopy(config)
    cell.model.width = width
    cell.budget.flops = float(flops)
    return cell_of(cell)
