"""Which learning rate and which batch are best for a size, and how do they move with it?

Li et al. 2025 (Step Law), section 4: sizes x batches x rates, each size on its compute-optimal
tokens; the loss is convex in the logarithms of both, and the best of each size follow power laws
(DeepSeek-AI 2024, section 3.1, has them of compute). Both rates of Muon move together, as multiples
of those that `scaling.sizes` gives. This tunes; it is no study of the loss, so train it with
`sweep`, and fit the best of each size: `scaling fit DIR --law=learning_rate_flops --only=bracketed`
takes the best rate of every size and batch; the best batch of each goes to `--law=batch` as a table
(params, tokens, batch_tokens; three sizes at least).

On 2 cores about 18 minutes by `--dry_run --measure`, `:tiny` 1 minute; `:large` is for
accelerators.

scaling sweep --config=configs/lr_batch.py --workdir=runs/lr_batch
scaling sweep --config=configs/lr_batch.py:tiny --workdir=runs/lr_batch-tiny
scaling sweep --config=configs/lr_batch.py:large --workdir=runs/lr_batch-large --dry_run
"""

from collections.abc import Sequence

from ml_collections import ConfigDict

from scaling import sizes
from scaling.config import Variants, default, variant
from scaling.sweep.grid import cells, chain, param, params_of, prod, zip_

VARIANTS: Variants = {
    "": {
        "study.widths": (16, 24, 32, 40),
        "study.batches": (256, 512, 1024, 2048),
        "study.rates": (0.25, 0.5, 1.0, 2.0, 4.0),
    },
    "tiny": {
        "study.widths": (16, 24),
        "study.batches": (512, 1024),
        "study.rates": (0.5, 1.0, 2.0),
        "study.tokens_per_parameter": 5.0,
    },
    # Needs accelerators, and more text than comes with the package.
    "large": {
        "study.widths": (256, 384, 512, 768),
        "study.batches": (8192, 16_384, 32_768, 65_536, 131_072),
        "study.rates": (0.25, 0.5, 1.0, 2.0, 4.0),
        "corpus.vocabulary": 32_000,
        "model.context_tokens": 1024,
        "precision": "bfloat16",
    },
}


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is "", "tiny" or "large"."""
    config = default()
    study = config.study
    study.name = "lr_batch"
    study.widths, study.batches, study.rates = (), (), ()
    study.tokens_per_parameter = 20.0
    return variant(config, arg, VARIANTS)


def get_grid(config: ConfigDict) -> Sequence[ConfigDict]:
    """Every size with every batch at every rate."""
    study, parts = config.study, []
    for width in study.widths:
        rule = sizes.training(width)
        tokens = round(study.tokens_per_parameter * params_of(config, width=width))
        rates = zip_(
            param("optimizer.learning_rate", [x * rule.matrix_rate for x in study.rates]),
            param("optimizer.vector_learning_rate", [x * rule.vector_rate for x in study.rates]),
        )
        size = [{"model.width": width, "budget.tokens": tokens}]
        parts.append(prod(size, param("batch_tokens", study.batches), rates))
    return cells(config, chain(*parts))
