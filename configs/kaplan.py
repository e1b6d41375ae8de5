"""The grid of the first scaling laws: every size on every number of tokens.

Kaplan et al. 2020, section 4: L(N, D) over sizes and data, whatever their ratio, fitted by equation
1.5. There N leaves the embedding out and D is a data set that is read until the test loss rises;
here every run sees its tokens once, and cools down at its own end. That N counts the small models
short, and schedules that did not end with the run, are why Kaplan's exponents are not Hoffmann's
(Pearce and Song 2024; Porian et al. 2024): fit the same records under both conventions.

On 2 cores about 7 minutes, `:tiny` 1 minute; `:large` is for accelerators.

scaling quickstart --config=configs/kaplan.py --workdir=runs/kaplan    (grid, law, report)
scaling fit runs/kaplan --law=kaplan --columns=params=params_non_embedding --out=runs/kaplan/theirs
scaling sweep --config=configs/kaplan.py:tiny --workdir=runs/kaplan-tiny
scaling sweep --config=configs/kaplan.py:large --workdir=runs/kaplan-large --dry_run
"""

from collections.abc import Sequence

from ml_collections import ConfigDict

from scaling.config import Variants, default, variant
from scaling.sweep.grid import cells, param, prod

VARIANTS: Variants = {
    "": {
        "study.widths": (16, 24, 32, 48, 64),
        "study.tokens": (500_000, 1_000_000, 2_000_000, 4_000_000),
    },
    "tiny": {"study.widths": (16, 24, 32), "study.tokens": (125_000, 250_000, 500_000)},
    # Needs accelerators, and more text than comes with the package.
    "large": {
        "study.widths": (192, 256, 384, 512, 768, 1024),
        "study.tokens": (10**9, 2 * 10**9, 4 * 10**9, 8 * 10**9),
        "corpus.vocabulary": 32_000,
        "model.context_tokens": 1024,
        "precision": "bfloat16",
    },
}


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is "", "tiny" or "large"."""
    config = default()
    config.study.name = "kaplan"
    config.study.law = "kaplan"
    config.study.widths, config.study.tokens = (), ()
    config.optimizer.cooldown_fraction = 0.2
    return variant(config, arg, VARIANTS)


def get_grid(config: ConfigDict) -> Sequence[ConfigDict]:
    """Every size on every number of tokens."""
    study = config.study
    return cells(
        config, prod(param("model.width", study.widths), param("budget.tokens", study.tokens))
    )
