"""Every setting of the space at every size of the ladder: what searches are compared on.

scaling sweep --config=experiments/2026-11-26-tune/grid.py --workdir=DIR
"""

from collections.abc import Sequence

from ml_collections import ConfigDict

from scaling import sizes
from scaling.config import default
from scaling.sweep.grid import Overrides, cells, params_of

WIDTHS = (16, 24, 32)
MATRIX = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)
VECTOR = (1 / 16, 1 / 4, 1.0, 4.0, 16.0)
SEEDS = (1, 2)
TOKENS_PER_PARAMETER = 5.0


def get_config(arg: str = "") -> ConfigDict:
    """The study; it takes no argument."""
    config = default()
    config.study.name = "tune"
    # A run is so short that all but its end would be spent on looking at it.
    config.runtime.evaluate_every_steps = config.runtime.checkpoint_every_steps = 10_000
    config.sweep.trunks = False
    return config


def rungs(config: ConfigDict) -> list[Overrides]:
    """The ladder: each size on so many tokens for every parameter."""
    return [
        {
            "model.width": w,
            "budget.tokens": round(TOKENS_PER_PARAMETER * params_of(config, width=w)),
        }
        for w in WIDTHS
    ]


def get_grid(config: ConfigDict) -> Sequence[ConfigDict]:
    """Every setting on every rung with every seed; those of one seed first."""
    return cells(
        config,
        [
            rung
            | {
                "optimizer.learning_rate": matrix * rule.matrix_rate,
                "optimizer.vector_learning_rate": vector * rule.vector_rate,
                "seed": seed,
            }
            for seed in SEEDS
            for rung in rungs(config)
            for rule in [sizes.training(rung["model.width"])]
            for matrix in MATRIX
            for vector in VECTOR
        ],
    )
