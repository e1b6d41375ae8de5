"""How much is a token worth that has been seen before?

Muennighoff et al. 2023, section 5: sizes x unique tokens x epochs; the law (equations 5 and 6) has
two constants for how fast repeated tokens and excess parameters lose their worth. Runs of one size
on the same text share a trunk.

On 2 cores about 7 minutes, `:tiny` 1 minute; `:large` is for accelerators.

scaling quickstart --config=configs/data_constrained.py --workdir=runs/repeats   (grid, law, report)
scaling sweep --config=configs/data_constrained.py:tiny --workdir=runs/repeats-tiny
scaling sweep --config=configs/data_constrained.py:large --workdir=runs/repeats-large --dry_run
"""

from collections.abc import Sequence

from ml_collections import ConfigDict

from scaling.config import Variants, default, variant
from scaling.sweep.grid import cells, param, prod

VARIANTS: Variants = {
    "": {
        "study.widths": (24, 40),
        "study.unique_tokens": (98_304, 196_608, 393_216),
        "study.epochs": (1, 2, 4, 8, 16),
    },
    "tiny": {
        "study.widths": (16, 24),
        "study.unique_tokens": (65_536, 131_072),
        "study.epochs": (1, 2, 4),
    },
    # Needs accelerators, and more text than comes with the package.
    "large": {
        "study.widths": (512, 768, 1024),
        "study.unique_tokens": (10**8, 4 * 10**8, 16 * 10**8),
        "study.epochs": (1, 2, 4, 8, 16, 32),
        "corpus.vocabulary": 32_000,
        "model.context_tokens": 1024,
        "precision": "bfloat16",
    },
}


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is "", "tiny" or "large"."""
    config = default()
    study = config.study
    study.name = "data_constrained"
    study.law = "data_constrained"
    study.widths, study.unique_tokens, study.epochs = (), (), ()
    config.optimizer.cooldown_fraction = 0.2
    return variant(config, arg, VARIANTS)


def get_grid(config: ConfigDict) -> Sequence[ConfigDict]:
    """Every size on every amount of text, that often."""
    study = config.study
    lengths = [
        {"budget.unique_tokens": unique, "budget.tokens": unique * epochs}
        for unique in study.unique_tokens
        for epochs in study.epochs
    ]
    return cells(config, prod(param("model.width", study.widths), lengths))
