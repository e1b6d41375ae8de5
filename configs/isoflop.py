"""IsoFLOP profiles: at one compute budget, which size does best?

Hoffmann et al. 2022, section 3.2 (Approach 2): at each budget several sizes, each trained to
exactly that budget; the best sizes over the budgets are the frontier. Runs of one size share a
trunk, from which each cools down over the last fifth of its tokens (Hagele et al. 2024, section 3).

On 2 cores about 7.5 minutes, `:tiny` 1 minute; `:large` is for accelerators.

scaling quickstart --config=configs/isoflop.py --workdir=runs/isoflop    (grid, law, report)
scaling sweep --config=configs/isoflop.py:tiny --workdir=runs/isoflop-tiny
scaling sweep --config=configs/isoflop.py:large --workdir=runs/isoflop-large --dry_run
"""

from collections.abc import Sequence

from ml_collections import ConfigDict

from scaling.config import Variants, default, variant
from scaling.sweep.grid import isoflop

VARIANTS: Variants = {
    "": {
        "study.budgets_flops": (1.5e11, 3e11, 6e11, 1.2e12),
        "study.widths": (
            (16, 24, 32, 40, 48),
            (24, 32, 40, 48, 56),
            (32, 40, 48, 56, 64),
            (40, 48, 56, 64, 72),
        ),
    },
    "tiny": {
        "study.budgets_flops": (2e10, 4e10, 8e10),
        "study.widths": ((16, 24, 32), (16, 24, 32), (16, 24, 32)),
    },
    # Needs accelerators, and more text than comes with the package.
    "large": {
        "study.budgets_flops": (1e18, 2e18, 4e18, 8e18),
        "study.widths": (
            (384, 512, 640, 768, 896),
            (448, 576, 768, 896, 1024),
            (512, 704, 896, 1024, 1280),
            (640, 832, 1024, 1280, 1536),
        ),
        "corpus.vocabulary": 32_000,
        "model.context_tokens": 1024,
        "precision": "bfloat16",
    },
}


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is "", "tiny" or "large"."""
    config = default()
    config.study.name = "isoflop"
    config.optimizer.cooldown_fraction = 0.2
    return variant(config, arg, VARIANTS)


def get_grid(config: ConfigDict) -> Sequence[ConfigDict]:
    """Every size at every budget."""
    return isoflop(config)
