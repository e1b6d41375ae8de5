"""What Besiroglu et al. 2024 did, as they did it: SciPy's BFGS, one start, its default tolerances.

Their standard errors are those of refits that stop where this one stops; the study shows them
beside those of each resample's own best fit. A process that draws resamples needs no JAX.
"""

import math
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.stats
from scipy.special import logsumexp

DELTA = 1e-3
# a = log A, b = log B, e = log E, alpha, beta in the TeX source of Hoffmann et al.
TEX = np.array([6.0073404, 6.0179186, 0.5267228, 0.33917084, 0.2849083])


def huber(residuals: np.ndarray, delta: float) -> float:
    """r^2/2 up to delta, else delta (|r| - delta/2), summed."""
    size = np.abs(residuals)
    inner = np.minimum(size, delta)
    return float(np.sum(inner * (size - inner / 2)))


class Runs(NamedTuple):
    """Logs of sizes, tokens and losses."""

    params: np.ndarray
    tokens: np.ndarray
    loss: np.ndarray

    def drawn(self, rows: np.ndarray) -> "Runs":
        return Runs(*(x[rows] for x in self))


def predicted(p: np.ndarray, runs: Runs) -> tuple[np.ndarray, np.ndarray]:
    """Log of the law at (a, b, e, alpha, beta) [runs], and its derivatives [5, runs]."""
    a, b, e, alpha, beta = p
    terms = np.stack([a - alpha * runs.params, b - beta * runs.tokens, np.full(len(runs.loss), e)])
    value = logsumexp(terms, axis=0)
    share = np.exp(terms - value)
    return value, np.stack([*share, -share[0] * runs.params, -share[1] * runs.tokens])


def objective(p: np.ndarray, runs: Runs) -> tuple[float, np.ndarray]:
    """Huber's loss of the log residuals, and its gradient."""
    value, slopes = predicted(p, runs)
    residuals = runs.loss - value
    return huber(residuals, DELTA), -slopes @ np.clip(residuals, -DELTA, DELTA)


def likelihood(p: np.ndarray, runs: Runs) -> tuple[float, np.ndarray]:
    """Minus the log likelihood of Huber's density with a free log scale (the last of `p`).

    The density of r = (log L - log L_hat)/s is exp(-huber(r))/(Z s), Z its integral: sqrt(2 pi)
    (2 Phi(delta) - 1) + 2 exp(-delta^2/2)/delta.
    """
    value, slopes = predicted(p[:5], runs)
    residuals = (runs.loss - value) / np.exp(p[5])
    clipped = np.clip(residuals, -DELTA, DELTA)
    of_scale = len(residuals) - clipped @ residuals
    minus = huber(residuals, DELTA) + len(residuals) * (LOG_Z + p[5])
    return minus, np.append(-slopes @ clipped / np.exp(p[5]), of_scale)


LOG_Z = math.log(
    math.sqrt(2 * math.pi) * (2 * scipy.stats.norm.cdf(DELTA) - 1)
    + 2 * math.exp(-(DELTA**2) / 2) / DELTA
)


def best_scale(p: np.ndarray, runs: Runs) -> float:
    """The log likelihood at `p` with the likeliest scale."""
    found = scipy.optimize.minimize_scalar(
        lambda scale: likelihood(np.append(p, scale), runs)[0], bounds=(-20, 0), method="bounded",
        options={"xatol": 1e-10},
    )  # fmt: skip
    return -float(found.fun)


def refit(runs: Runs) -> np.ndarray:
    """One BFGS from Hoffmann et al.'s values: what Besiroglu et al. do for a resample."""
    return scipy.optimize.minimize(objective, TEX, args=(runs,), jac=True, method="BFGS").x


def resamples(count: int, rows: int) -> list[np.ndarray]:
    """The published draws: NumPy's old generator, seed 42."""
    generator = np.random.RandomState(42)
    return [generator.choice(np.arange(rows), size=rows, replace=True) for _ in range(count)]


def published_bootstrap(runs: Runs, drawn: list[np.ndarray], workers: int) -> np.ndarray:
    """(a, b, e, alpha, beta) of each resample by the published procedure."""
    each = [runs.drawn(rows) for rows in drawn]
    if workers == 1:
        return np.array([refit(one) for one in each])
    # Started afresh: a fork of a process in which JAX runs threads may hang.
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawned) as pool:
        return np.array(list(pool.map(refit, each, chunksize=50)))


def natural(p: np.ndarray) -> np.ndarray:
    """A, B, E, alpha, beta of (a, b, e, alpha, beta)."""
    return np.concatenate([np.exp(p[..., :3]), p[..., 3:]], axis=-1)


def share(p: np.ndarray) -> np.ndarray:
    """a = beta/(alpha + beta), the exponent of the optimal size."""
    return p[..., 4] / (p[..., 3] + p[..., 4])


def ratio(p: np.ndarray, flops: float) -> np.ndarray:
    """Optimal tokens per parameter (Hoffmann et al., equation 4)."""
    a, alpha, beta = share(p), p[..., 3], p[..., 4]
    log_g = (np.log(alpha / beta) + p[..., 0] - p[..., 1]) / (alpha + beta)
    log_size = log_g + a * math.log(flops / 6)
    return np.exp(math.log(flops / 6) - 2 * log_size)
