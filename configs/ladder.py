"""A model ladder: sizes x multiples of their compute-optimal tokens, to foretell a larger run.

Bhagia et al. 2024, section 3: a few small sizes, each trained to several multiples of 20 tokens
per parameter (Hoffmann et al. 2022), cost little beside the model they foretell, and reach its
ratio of tokens to parameters where that is over-trained. The multiples double, so that runs of one
size share most of a trunk.

On 2 cores about 3.5 minutes, `:tiny` 1 minute; `:large` is for accelerators.

scaling quickstart --config=configs/ladder.py --workdir=runs/ladder    (grid, law, report)
scaling sweep --config=configs/ladder.py:tiny --workdir=runs/ladder-tiny
scaling sweep --config=configs/ladder.py:large --workdir=runs/ladder-large --dry_run
"""

from collections.abc import Sequence

from ml_collections import ConfigDict

from scaling.config import Variants, default, variant
from scaling.sweep.grid import ladder

VARIANTS: Variants = {
    "": {"study.widths": (16, 24, 32, 40), "study.multiples": (0.5, 1.0, 2.0, 4.0)},
    "tiny": {"study.widths": (16, 24), "study.multiples": (0.25, 0.5, 1.0)},
    # Needs accelerators, and more text than comes with the package. The sizes are those of Bhagia
    # et al., 190M to 1.3B, as near as the ladder comes.
    "large": {
        "study.widths": (960, 1216, 1664, 2048),
        "study.multiples": (1.0, 2.0, 5.0, 10.0),
        "corpus.vocabulary": 32_000,
        "model.context_tokens": 1024,
        "precision": "bfloat16",
    },
}


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is "", "tiny" or "large"."""
    config = default()
    study = config.study
    study.name = "ladder"
    study.widths, study.multiples = (), ()
    study.tokens_per_parameter = 20.0
    config.optimizer.cooldown_fraction = 0.2
    return variant(config, arg, VARIANTS)


def get_grid(config: ConfigDict) -> Sequence[ConfigDict]:
    """Every size to every multiple of its compute-optimal tokens."""
    study = config.study
    return ladder(
        config, widths=study.widths, multiples=study.multiples, ratio=study.tokens_per_parameter
    )
