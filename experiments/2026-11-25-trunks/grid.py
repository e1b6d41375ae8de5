"""Sizes x budgets x seeds on the packaged text, with shared trunks and without.

- branched: budgets 1, 2, 4, 8 of a size and seed leave one trunk;
- same: the same runs, each by itself;
- own: each by itself, and with a seed of its own;
- eight: budgets 1 to 8 leave one trunk, one seed.
"""

from ml_collections import ConfigDict

from scaling.config import ConfigError, default
from scaling.sweep.grid import cells, param, prod, zip_

WIDTHS = (24, 32, 40, 48)
LEAST_FLOPS = 3e10
DOUBLINGS = (1, 2, 4, 8)
SEEDS = (1, 2, 3)
ARMS = ("branched", "same", "own", "eight")


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` names its arm."""
    if arg not in ARMS:
        raise ConfigError(f"{arg!r} is no arm of this study; use one of {', '.join(ARMS)}")
    config = default()
    config.study.name = arg
    config.sweep.trunks = arg in ("branched", "eight")
    config.optimizer.cooldown_fraction = 0.2
    return config


def get_grid(config: ConfigDict) -> list[ConfigDict]:
    """The cells of the arm."""
    arm = config.study.name
    times = range(1, 9) if arm == "eight" else DOUBLINGS
    seeds = SEEDS[:1] if arm == "eight" else SEEDS
    budgets = param("budget.flops", [LEAST_FLOPS * n for n in times])
    if arm == "own":
        grid = len(SEEDS) * [*prod(param("model.width", WIDTHS), budgets)]
        return cells(config, zip_(grid, param("seed", range(1000, 1000 + len(grid)))))
    return cells(config, prod(param("model.width", WIDTHS), param("seed", seeds), budgets))
