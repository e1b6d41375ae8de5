"""Wide or deep: what does the shape of a model matter, beside its size?

McLeish et al. 2025 (Gemstones), section 4.3: widths x depths x tokens, fitted by a law with a term
for each; Kaplan et al. 2020, section 3.1, found the shape to matter little, Levine et al. 2020 that
the best depth grows with the logarithm of the width. Batch and rates are those of the ladder's rung
of that width at every depth: rates that hold over depth are
`--config.parameterization.name=completep --config.parameterization.base_width=40`.

On 2 cores about 10 minutes by `--dry_run --measure`, `:tiny` 1 minute; `:large` is for
accelerators.

scaling quickstart --config=configs/width_depth.py --workdir=runs/shape    (grid, law, report)
scaling sweep --config=configs/width_depth.py:tiny --workdir=runs/shape-tiny
scaling sweep --config=configs/width_depth.py:large --workdir=runs/shape-large --dry_run
"""

from collections.abc import Sequence

from ml_collections import ConfigDict

from scaling.config import Variants, default, variant
from scaling.sweep.grid import cells, param, prod

VARIANTS: Variants = {
    "": {
        "study.widths": (16, 32, 48, 64),
        "study.depths": (1, 2, 4, 8),
        "study.tokens": (500_000, 1_000_000),
    },
    "tiny": {"study.widths": (16, 32), "study.depths": (1, 2, 4), "study.tokens": (250_000,)},
    # Needs accelerators, and more text than comes with the package. One batch for all: that of the
    # ladder's middle rung.
    "large": {
        "study.widths": (256, 512, 1024),
        "study.depths": (4, 8, 16, 32),
        "study.tokens": (10**9, 2 * 10**9, 4 * 10**9),
        "batch_tokens": 8192,
        "corpus.vocabulary": 32_000,
        "model.context_tokens": 1024,
        "precision": "bfloat16",
    },
}


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is "", "tiny" or "large"."""
    config = default()
    study = config.study
    study.name = "width_depth"
    study.law = "width_depth"
    study.widths, study.depths, study.tokens = (), (), ()
    config.optimizer.cooldown_fraction = 0.2
    return variant(config, arg, VARIANTS)


def get_grid(config: ConfigDict) -> Sequence[ConfigDict]:
    """Every width at every depth, on every number of tokens."""
    study = config.study
    return cells(
        config,
        prod(
            param("model.width", study.widths),
            param("model.depth", study.depths),
            param("budget.tokens", study.tokens),
        ),
    )
