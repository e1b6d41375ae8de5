"""Chinchilla's law fitted to 240 runs: this project beside SciPy with an analytic gradient.

    python benchmarks/fit.py --data=DIR   # with chinchilla_fig4.csv and gemstones_main_dense.csv
    python benchmarks/fit.py              # runs made up by the published law
    python benchmarks/fit.py --scipy_starts=4500 --scipy_resamples=4000 --rounds=1   # all of it

The same objective (Huber on log loss, delta 1e-3), starts and resamples on both sides, two
processes or threads each; ours and SciPy take turns, and every round is timed by itself.

- grid: 4,500 starts of Hoffmann et al. 2022 (section D.2), and the least value any of them reached.
- resamples: 4,000 sets of runs drawn with replacement, each refitted from the best fit.
- ours: `scaling.analysis` (Levenberg-Marquardt, batched in JAX); scipy: L-BFGS-B for the grid, as
  published, and BFGS for the resamples, with the gradient written out, in two processes. SciPy does
  a random part of the starts and resamples (`--scipy_starts`, `--scipy_resamples`), and its
  seconds are those times the whole over the part.
- compile: seconds of the first fit beyond a usual one, in a process with an empty compile cache,
  and in the next process, which finds it filled.
- long: the same grid on 3,850 rows, over its time on 240.
- comparison: every law of the loss, 200 resamples, four cuts (`scaling.analysis.compare`).

JSON on the last line.
"""

import argparse
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
from scipy.special import logsumexp

DELTA = 1e-3
GRID = (np.arange(0, 30, 5), np.arange(0, 30, 5), np.arange(-1, 1.5, 0.5),
        np.arange(0, 2.5, 0.5), np.arange(0, 2.5, 0.5))  # fmt: skip
"""log A, log B, log E, alpha, beta."""
BEST = np.array([np.log(477.826), np.log(2143.417), np.log(1.817218), 0.347310, 0.367172])
KNOWN_LEAST = 0.0010182740178
PUBLISHED = {"E": 1.8172, "A": 477.84, "B": 2143.86, "alpha": 0.34731, "beta": 0.36718}
LONG_ROWS = 3850


class Table(NamedTuple):
    """Sizes, tokens and losses of runs."""

    params: np.ndarray
    tokens: np.ndarray
    loss: np.ndarray


def grid() -> np.ndarray:
    """The 4,500 starts [starts, 5]."""
    return np.stack(np.meshgrid(*GRID, indexing="ij"), axis=-1).reshape(-1, 5)


def made_up(rows: int) -> Table:
    """Runs of the published law over the sizes and budgets of Hoffmann et al., noise 0.6%."""
    rng = np.random.default_rng(0)
    params = np.exp(rng.uniform(np.log(5e7), np.log(1.6e10), rows))
    tokens = np.exp(rng.uniform(np.log(1.5), np.log(150), rows)) * params
    law = PUBLISHED
    loss = law["E"] + law["A"] / params ** law["alpha"] + law["B"] / tokens ** law["beta"]
    return Table(params, tokens, loss * np.exp(rng.normal(0, 0.006, rows)))


def read(path: Path, columns: tuple[str, str, str], keep: Callable[[Any], Any]) -> Table:
    """Three columns of a CSV."""
    table = np.genfromtxt(path, delimiter=",", names=True, dtype=None, encoding="utf-8")
    table = table[keep(table)]
    return Table(*(np.asarray(table[name], np.float64) for name in columns))


# ---- SciPy


def objective(p: np.ndarray, logs: tuple[np.ndarray, ...]) -> tuple[float, np.ndarray]:
    """Huber's loss of the log residuals at (log A, log B, log E, alpha, beta), and its gradient."""
    params, tokens, loss = logs
    terms = np.stack([p[0] - p[3] * params, p[1] - p[4] * tokens, np.full(len(loss), p[2])])
    value = logsumexp(terms, axis=0)
    share = np.exp(terms - value)
    slopes = np.stack([*share, -share[0] * params, -share[1] * tokens])
    residuals = loss - value
    clipped = np.clip(residuals, -DELTA, DELTA)
    size = np.abs(residuals)
    inner = np.minimum(size, DELTA)
    return float(np.sum(inner * (size - inner / 2))), -slopes @ clipped


def of_start(start: np.ndarray, logs: tuple[np.ndarray, ...]) -> float:
    """The value that L-BFGS-B ends at."""
    found = scipy.optimize.minimize(objective, start, (logs,), jac=True, method="L-BFGS-B")
    return float(found.fun)


def of_resample(rows: np.ndarray, logs: tuple[np.ndarray, ...]) -> np.ndarray:
    """The parameters that BFGS ends at on these rows."""
    drawn = tuple(x[rows] for x in logs)
    found = scipy.optimize.minimize(objective, BEST, (drawn,), jac=True, method="BFGS")
    return np.asarray(found.x)


def scipy_seconds(
    function: Callable[..., Any], work: np.ndarray, logs: tuple[np.ndarray, ...],
    pool: ProcessPoolExecutor,
) -> tuple[float, list[Any]]:  # fmt: skip
    """Seconds of two processes over `work`, and what came out."""
    began = time.perf_counter()
    found = list(pool.map(function, work, [logs] * len(work), chunksize=8))
    return time.perf_counter() - began, found


# ---- ours


def problem_of(table: Table) -> Any:
    """The law at the runs."""
    from scaling.analysis.laws import CHINCHILLA
    from scaling.analysis.solver import Problem

    logs = {"params": np.log(table.params), "tokens": np.log(table.tokens)}
    return Problem.of(CHINCHILLA, logs, np.log(table.loss))


def our_grid(problem: Any) -> Any:
    """The best of 4,500 starts, polished by the second solver."""
    import jax

    from scaling.analysis.proof import best_of
    from scaling.analysis.solver import Penalty

    values = np.exp(grid() * [1, 1, 1, 0, 0]) * [1, 1, 1, 0, 0] + grid() * [0, 0, 0, 1, 1]
    names = ("A", "B", "E", "alpha", "beta")
    order = [names.index(name) for name in problem.form.names]
    with jax.enable_x64(True):
        starts = np.asarray(problem.form.coordinates(values[:, order], problem.means))
    penalty = Penalty(DELTA)
    return best_of(problem, problem.search(problem.inside(starts), penalty), penalty)


def our_resamples(problem: Any, best: Any, samples: int) -> Any:
    """Refits of runs drawn with replacement."""
    from scaling.analysis.intervals import resample
    from scaling.analysis.solver import Penalty

    return resample(
        problem, best, Penalty(DELTA), method="case", samples=samples, seed=42,
        free=np.ones(5, bool),
    )  # fmt: skip


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    found = function()
    return time.perf_counter() - began, found


FIRST_FIT = """
import sys, time, pathlib, numpy as np
sys.path.insert(0, {here!r})
import fit as bench
from scaling.train import compile_cache
compile_cache.open_cache(pathlib.Path({folder!r}))
problem = bench.problem_of(bench.made_up(240))
first, best = bench.timed(lambda: bench.our_grid(problem))
first += bench.timed(lambda: bench.our_resamples(problem, best, 64))[0]
again, _ = bench.timed(lambda: bench.our_grid(problem))
again += bench.timed(lambda: bench.our_resamples(problem, best, 64))[0]
print(first - again)
"""


def compile_seconds() -> tuple[float, float]:
    """Of a first fit with an empty cache, and with a filled one."""
    with tempfile.TemporaryDirectory() as folder:
        text = FIRST_FIT.format(
            here=str(Path(__file__).parent), folder=str(Path(folder) / "a" / "b")
        )
        Path(folder, "a").mkdir(mode=0o700)
        environment = {k: v for k, v in os.environ.items() if k != "JAX_ENABLE_COMPILATION_CACHE"}
        found = [
            float(
                subprocess.run(
                    [sys.executable, "-c", text], env=environment, check=True, capture_output=True,
                    text=True,
                ).stdout
            )
            for _ in range(2)
        ]  # fmt: skip
    return found[0], found[1]


def spread(seconds: list[float]) -> dict[str, float]:
    return {"median": statistics.median(seconds), "least": min(seconds), "most": max(seconds)}


def main() -> None:
    """Measure, print, and leave JSON on the last line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="a folder with the two published tables")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scipy_starts", type=int, default=180)
    parser.add_argument("--scipy_resamples", type=int, default=160)
    options = parser.parse_args()

    table, long_table = made_up(240), made_up(LONG_ROWS)
    if options.data is not None:
        table = read(
            options.data / "chinchilla_fig4.csv", ("params_n", "tokens_d", "loss"),
            lambda t: t["epoch_dropped_outlier"] == 0,
        )  # fmt: skip
        long_table = read(
            options.data / "gemstones_main_dense.csv", ("params_n", "tokens_d", "loss"),
            lambda t: np.ones(len(t), bool),
        )  # fmt: skip
    logs = tuple(np.log(x) for x in table)
    load_before = os.getloadavg()[0]
    cold, filled = compile_seconds()

    problem, long_problem = problem_of(table), problem_of(long_table)
    best = our_grid(problem)
    our_resamples(problem, best, 64)
    our_grid(long_problem)
    rng = np.random.default_rng(0)
    rows = rng.integers(len(table.loss), size=(4000, len(table.loss)))
    seconds: dict[str, list[float]] = {name: [] for name in
        ("ours_grid", "scipy_grid", "ours_resamples", "scipy_resamples", "ours_long")}  # fmt: skip
    least = float("inf")
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(of_start, grid()[:4], [logs] * 4))
        for _ in range(options.rounds):
            took, best = timed(lambda: our_grid(problem))
            seconds["ours_grid"].append(took)
            some = rng.permutation(grid())[: options.scipy_starts]
            took, values = scipy_seconds(of_start, some, logs, pool)
            seconds["scipy_grid"].append(took * len(grid()) / len(some))
            least = min(least, *values)
            took, _ = timed(functools.partial(our_resamples, problem, best, 4000))
            seconds["ours_resamples"].append(took)
            part = rows[: options.scipy_resamples]
            took, _ = scipy_seconds(of_resample, part, logs, pool)
            seconds["scipy_resamples"].append(took * len(rows) / len(part))
            took, _ = timed(lambda: our_grid(long_problem))
            seconds["ours_long"].append(took)

    from scaling.analysis.compare import compare
    from scaling.runs import Runs

    runs = Runs(
        run_id=tuple(f"run-{i}" for i in range(len(table.loss))), params=table.params,
        tokens=table.tokens, loss=table.loss, flops=6 * table.params * table.tokens,
    )  # fmt: skip
    first_comparison, _ = timed(lambda: compare(runs))
    comparison, found = timed(lambda: compare(runs))

    medians = {name: statistics.median(values) for name, values in seconds.items()}
    report = {
        "objective": {"ours": best.value, "scipy_least_of_its_part": least,
                      "known_least": KNOWN_LEAST if options.data else None},
        "share_best": best.share_best,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "scipy_part": {"starts": options.scipy_starts, "resamples": options.scipy_resamples},
        "times_faster": {"grid": medians["scipy_grid"] / medians["ours_grid"],
                         "resamples": medians["scipy_resamples"] / medians["ours_resamples"]},
        "long_over_short": medians["ours_long"] / medians["ours_grid"],
        "compile_seconds": {"empty_cache": cold, "filled_cache": filled},
        "comparison_seconds": {"first": first_comparison, "again": comparison,
                               "laws": sum(entry["reason"] is None for entry in found.laws),
                               "chosen": found.chosen},
        "rows": [len(table.loss), len(long_table.loss)],
        "versions": {name: metadata.version(name) for name in ("jax", "numpy", "scipy")},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": [load_before, os.getloadavg()[0]],
    }  # fmt: skip
    print(f"{'':24}{'ours, s':>24}{'SciPy, s (scaled)':>26}")
    for name, whole in (("grid", "4,500 starts"), ("resamples", "4,000 resamples")):
        ours, theirs = (report["seconds"][f"{who}_{name}"] for who in ("ours", "scipy"))
        cells = [f"{x['median']:.2f} ({x['least']:.2f} to {x['most']:.2f})" for x in (ours, theirs)]
        print(f"{whole:24}{cells[0]:>24}{cells[1]:>26}")
    print(f"objective {best.value:.13f}; SciPy's least {least:.13f}")
    print(f"{LONG_ROWS} rows: {report['long_over_short']:.2f} times the 240")
    print(f"compiling: {cold:.1f} s, from the cache {filled:.1f} s")
    print(f"comparison of laws: {first_comparison:.1f} s the first time, then {comparison:.1f} s")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
