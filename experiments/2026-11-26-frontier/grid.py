"""The grids of the study: a fixed IsoFLOP grid, the part of it that both ways begin with, and the
run that is to be foretold.

scaling sweep --config=experiments/2026-11-26-frontier/grid.py:start --workdir=DIR
"""

from collections.abc import Sequence

from ml_collections import ConfigDict

from scaling.config import ConfigError, default
from scaling.sweep.grid import cells, isoflop, param, prod

BUDGETS = (1.5e11, 2.1e11, 2.94e11, 4.12e11, 5.76e11, 8.07e11)
WIDTHS = (
    (16, 24, 32, 40),
    (24, 32, 40, 48),
    (24, 32, 40, 48),
    (32, 40, 48, 56),
    (32, 40, 48, 64),
    (40, 48, 56, 64),
)
START = 3
"""So many budgets are there before the first round; each round the fixed grid trains one more."""
TARGET = {"model.width": 64, "budget.flops": 3.6e12}
TARGET_SEEDS = (1, 2, 3)
UNIQUE_TOKENS = 6.1e6
"""Of the training split."""


def get_config(arg: str = "fixed") -> ConfigDict:
    """The study; `arg` is "start", "fixed" or "target"."""
    if arg not in ("start", "fixed", "target"):
        raise ConfigError(f"the grid {arg!r} is not there; use start, fixed or target")
    config = default()
    config.study.name = arg
    budgets = START if arg == "start" else len(BUDGETS)
    config.study.budgets_flops, config.study.widths = BUDGETS[:budgets], WIDTHS[:budgets]
    # Every run has noise of its own, in both ways.
    config.sweep.trunks = False
    config.sweep.packed = 1
    return config


def get_grid(config: ConfigDict) -> Sequence[ConfigDict]:
    """Every size at every budget, or the target with its seeds."""
    if config.study.name == "target":
        return cells(config, prod([TARGET], param("seed", TARGET_SEEDS)))
    return isoflop(config)
