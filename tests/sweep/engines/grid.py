"""A grid of one long cell, and of two budgets that share a trunk."""

from ml_collections import ConfigDict

from scaling import config
from scaling.sweep.cells import Cells
from scaling.sweep.grid import cells, chain, param, prod

BATCH = 128
LONG_STEPS = 600
CHECKPOINT_STEPS = 50


def get_config(argument: str = "") -> ConfigDict:
    made = config.default()
    config.override(made, [
        "corpus.languages=es", "model.width=16", "model.context_tokens=16",
        f"batch_tokens={BATCH}", "optimizer.warmup_tokens=512", "runtime.evaluate_every_steps=1000",
        "runtime.evaluate_windows=8", "runtime.log_every_steps=50",
        f"runtime.checkpoint_every_steps={CHECKPOINT_STEPS}", "sweep.lease_seconds=3.0",
    ])  # fmt: skip
    return made


def get_grid(made: ConfigDict) -> Cells:
    long = prod(param("seed", [3]), param("budget.tokens", [LONG_STEPS * BATCH]))
    short = prod(param("seed", [1]), param("budget.tokens", [60 * BATCH, 90 * BATCH]))
    return cells(made, chain(long, short))
