"""With which rates, batch, warm-up and weight decay should a size be trained?

Successive halving over a ladder of sizes, each on its compute-optimal tokens: what is best at a
small size climbs to the next, its multiples of the rules unchanged (as Yang et al. 2022, algorithm
1, tune small and carry up). What is found is of the last rung: beyond it, the rules carry it. The
first rung should have some 400 updates at least: of shorter runs the best rates are too high for
the next size (experiments/2026-11-26-tune, where random search did as well from twelve runs of the
target on).

On 2 cores about 6 minutes, `:tiny` half a minute; `:large` is for accelerators, which train eight
trials as one program.

scaling tune --config=configs/tune.py --workdir=runs/tune
scaling tune --config=configs/tune.py:tiny --workdir=runs/tune-tiny
scaling tune --config=configs/tune.py --workdir=runs/tune-random --sampler=random
"""

from ml_collections import ConfigDict

from scaling.config import Variants, default, variant
from scaling.sweep.grid import params_of
from scaling.sweep.space import Search, among, between, times

VARIANTS: Variants = {
    "": {"study.widths": (16, 24, 40), "study.max_flops": 3e12},
    "tiny": {
        "study.widths": (16, 24),
        "study.tokens_per_parameter": 5.0,
        "study.max_flops": 1e11,
        "runtime.evaluate_every_steps": 10_000,
    },
    # Needs accelerators, and more text than comes with the package.
    "large": {
        "study.widths": (256, 384, 768),
        "study.max_flops": 1e20,
        "sweep.packed": 8,
        "corpus.vocabulary": 32_000,
        "model.context_tokens": 1024,
        "precision": "bfloat16",
    },
}


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is "", "tiny" or "large"."""
    config = default()
    study = config.study
    study.name = "tune"
    study.widths = ()
    study.tokens_per_parameter = 20.0
    study.max_flops = 0.0
    study.promote = 3
    return variant(config, arg, VARIANTS)


def get_search(config: ConfigDict) -> Search:
    """What may be chosen, on which sizes."""
    study = config.study
    return Search(
        space={
            "optimizer.learning_rate": times(between(1 / 16, 16)),
            "optimizer.vector_learning_rate": times(between(1 / 16, 16)),
            "optimizer.warmup_tokens": times(between(1 / 4, 4)),
            "optimizer.weight_decay": among(0.0, 1e-4, 3e-4, 1e-3),
            "batch_tokens": times(among(0.5, 1, 2)),
        },
        rungs=[
            {
                "model.width": width,
                "budget.tokens": round(study.tokens_per_parameter * params_of(config, width=width)),
            }
            for width in study.widths
        ],
        max_flops=study.max_flops,
        promote=study.promote,
    )
