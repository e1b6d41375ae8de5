"""The quickstart: an IsoFLOP grid on the packaged Wikipedia text, and one larger run predicted
before it.

scaling quickstart                                        (or)
scaling quickstart --config=configs/quickstart.py:tiny    (2 minutes, for a look; not a measurement)
"""

from collections.abc import Sequence

from ml_collections import ConfigDict

from scaling.config import Variants, default, variant
from scaling.sweep.grid import isoflop

VARIANTS: Variants = {
    "": {
        "study.budgets_flops": (2.2e11, 3.85e11, 6.74e11, 1.18e12),
        "study.widths": (
            (24, 32, 40, 48, 56),
            (32, 40, 48, 56, 64),
            (40, 48, 56, 64, 72),
            (48, 56, 64, 72, 80),
        ),
        "study.target_flops": 3.6e12,
    },
    "tiny": {
        "study.budgets_flops": (2e10, 3.5e10, 6.1e10, 1.07e11),
        "study.widths": ((16, 24, 32, 40),) * 4,
        "study.target_flops": 3.3e11,
        "runtime.evaluate_every_steps": 100,
    },
}


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is "" or "tiny"."""
    config = default()
    config.study.name = "quickstart"
    # Twenty runs are few: each has noise of its own, which shared trunks would take away.
    config.sweep.trunks = False
    return variant(config, arg, VARIANTS)


def get_grid(config: ConfigDict) -> Sequence[ConfigDict]:
    """Every size at every budget."""
    return isoflop(config)
