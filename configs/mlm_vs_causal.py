"""Masked against causal language models: do the best sizes and the exponents differ?

The same blocks, sizes, text and budgets under two objectives and their masks (Devlin et al. 2019,
section 3.1, at the rate of 15%; Wettig et al. 2023 ask whether it should be more:
`--config.objective.mask_rate=0.4`). A masked loss is over what is hidden, given both sides, and a
causal one over every token, given what comes before: compare where each has its best size and how
fast it falls, never one number with the other. `scaling fit` gives a law of each, one at a time.

On 2 cores about 8 minutes by `--dry_run --measure`, `:tiny` 1 minute; `:large` is for
accelerators.

scaling sweep --config=configs/mlm_vs_causal.py --workdir=runs/objectives
scaling fit runs/objectives --objective=masked --out=runs/objectives/masked
scaling sweep --config=configs/mlm_vs_causal.py:tiny --workdir=runs/objectives-tiny
scaling sweep --config=configs/mlm_vs_causal.py:large --workdir=runs/objectives-large --dry_run
"""

from collections.abc import Sequence

from ml_collections import ConfigDict

from scaling.config import Variants, default, variant
from scaling.sweep.grid import cells, param, prod

VARIANTS: Variants = {
    "": {"study.widths": (24, 32, 40, 48), "study.budgets_flops": (2e11, 4e11, 8e11)},
    "tiny": {"study.widths": (16, 24), "study.budgets_flops": (2e10, 4e10)},
    # Needs accelerators, and more text than comes with the package.
    "large": {
        "study.widths": (512, 640, 768, 896, 1024),
        "study.budgets_flops": (1e18, 2e18, 4e18),
        "corpus.vocabulary": 32_000,
        "model.context_tokens": 1024,
        "precision": "bfloat16",
    },
}


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is "", "tiny" or "large"."""
    config = default()
    config.study.name = "mlm_vs_causal"
    config.study.objectives = ("causal", "masked")
    config.study.widths, config.study.budgets_flops = (), ()
    config.optimizer.cooldown_fraction = 0.2
    return variant(config, arg, VARIANTS)


def get_grid(config: ConfigDict) -> Sequence[ConfigDict]:
    """Every objective at every size and budget."""
    study = config.study
    return cells(
        config,
        prod(
            param("objective.name", study.objectives),
            param("model.width", study.widths),
            param("budget.flops", study.budgets_flops),
        ),
    )
