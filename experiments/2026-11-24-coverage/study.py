"""Does a nominal interval hold the truth as often as it says? Known law, simulated tables.

python experiments/2026-11-24-coverage/study.py simulate [--draws=400] [--only=WORDS]
python experiments/2026-11-24-coverage/study.py table
"""

import argparse
import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

from scaling.analysis.fitted import Law
from scaling.analysis.forms import Array
from scaling.analysis.intervals import resample
from scaling.analysis.laws import CHINCHILLA
from scaling.analysis.objective import delta_of, problem_of
from scaling.analysis.proof import Best
from scaling.analysis.solver import Penalty
from scaling.files import write_json
from scaling.runs import Runs

HERE = Path(__file__).parent
RECORDS = HERE / "records.json"
TRUTH = np.array([1.6, 60.0, 200.0, 0.35, 0.36])
"""E, A, B, alpha, beta: the losses and sizes of studies that train in minutes."""
LEAST = 3e11
RESAMPLES = 300
PIECE = 50
LEVELS = (0.8, 0.9, 0.95)
ALLOWED = 0.03
# At one budget tokens per parameter are flops / (6 size^2): its interval holds when that of the
# size does.
QUANTITIES = ("alpha", "beta", "E", "loss", "size", "run")


class Table(NamedTuple):
    """Sizes and tokens of runs, and the run of which each row is a checkpoint."""

    params: Array
    tokens: Array
    series: Array | None = None


def loss(params: Array, tokens: Array) -> Array:
    """By the true law."""
    return CHINCHILLA.predict(TRUTH, {"params": params, "tokens": tokens})


def best_size(flops: Array) -> Array:
    """The compute optimum of the true law (Hoffmann et al. 2022, equation 4)."""
    _, a, b, alpha, beta = TRUTH
    found: Array = (alpha * a / (beta * b) * (flops / 6) ** beta) ** (1 / (alpha + beta))
    return found


def isoflops(*, budgets: int, sizes: int, factor: float = 1.8, repeats: int = 1) -> Table:
    """`sizes` at each budget from a quarter of the best to four times, all `repeats` times."""
    flops = np.repeat(LEAST * factor ** np.arange(budgets), sizes)
    params = best_size(flops) * np.tile(np.geomspace(1 / 4, 4, sizes), budgets)
    params, flops = np.tile(params, repeats), np.tile(flops, repeats)
    return Table(params, flops / 6 / params)


def some_again(table: Table, *, every: int, times: int) -> Table:
    """The table and every so-many-th of its runs `times` more."""
    rows = np.arange(len(table.params))
    more = np.concatenate([rows, *[rows[::every]] * times])
    return Table(table.params[more], table.tokens[more])


def curves(*, runs: int, checkpoints: int = 6) -> Table:
    """Runs of sizes over a factor of 30, each seen at tokens from 5 to 80 per parameter."""
    params = np.repeat(np.geomspace(1.2e4, 3.6e5, runs), checkpoints)
    tokens = params * np.tile(np.geomspace(5, 80, checkpoints), runs)
    return Table(params, tokens, np.repeat(np.arange(runs), checkpoints))


Noise = Callable[[Table, np.random.Generator], Array]


def alike(deviation: float) -> Noise:
    """The same for every run."""
    return lambda table, rng: rng.normal(0, deviation, len(table.params))


def unlike(least: float, most: float) -> Noise:
    """Least for the largest compute, most for the smallest, geometric in between."""

    def drawn(table: Table, rng: np.random.Generator) -> Array:
        logs = np.log(table.params * table.tokens)
        share = (logs.max() - logs) / np.ptp(logs)
        return rng.normal(0, 1, len(logs)) * least * (most / least) ** share

    return drawn


def shared(of_runs: float, of_rows: float) -> Noise:
    """What checkpoints of one run share, and what each has for itself."""

    def drawn(table: Table, rng: np.random.Generator) -> Array:
        assert table.series is not None
        each = rng.normal(0, of_runs, table.series.max() + 1)
        return each[table.series] + rng.normal(0, of_rows, len(table.params))

    return drawn


@dataclass(frozen=True)
class Scene:
    """A table, its noise, and how it is resampled."""

    method: str
    table: Table
    noise: Noise


GRID = isoflops(budgets=4, sizes=5)
MANY = isoflops(budgets=6, sizes=10, factor=1.6)
SCENES = {
    **{f"residual, 4 x 5 runs, noise {x:.1%}": Scene("residual", GRID, alike(x))
       for x in (0.003, 0.01, 0.02)},
    "case, 6 x 10 runs, noise 0.5%": Scene("case", MANY, alike(0.005)),
    "case, 6 x 10 runs, noise 0.3 to 1.5%": Scene("case", MANY, unlike(0.003, 0.015)),
    "case, 6 x 40 runs, noise 0.5%":
        Scene("case", isoflops(budgets=6, sizes=40, factor=1.6), alike(0.005)),
    **{f"series, {n} runs x 6, noise 0.3 + 0.1%":
       Scene("series", curves(runs=n), shared(0.003, 0.001)) for n in (8, 12, 24)},
    "seeds, 4 x 5 runs twice, noise 0.5%":
        Scene("seeds", isoflops(budgets=4, sizes=5, repeats=2), alike(0.005)),
    "seeds, 4 x 5 runs, 4 of them 3 times, noise 0.5%":
        Scene("seeds", some_again(GRID, every=5, times=2), alike(0.005)),
}  # fmt: skip


def draw(name: str, seed: int) -> list[list[float]]:
    """One simulated table: for each of `QUANTITIES`, the shares of its bootstrap distribution that
    lie below the truth and below the estimate."""
    scene = SCENES[name]
    table = scene.table
    # Tables of one scene differ, and so do those of different scenes.
    rng = np.random.default_rng([seed, *name.encode()])
    losses = loss(table.params, table.tokens) * np.exp(scene.noise(table, rng))
    runs = Runs(
        run_id=tuple(f"run-{i}" for i in range(len(losses))),
        params=table.params,
        tokens=table.tokens,
        loss=losses,
        flops=6 * table.params * table.tokens,
        series=None if table.series is None else tuple(map(str, table.series)),
    )
    problem = problem_of(runs, CHINCHILLA)
    free = np.ones(len(TRUTH), bool)
    # The truth, and 15 of the law's own starts: what `fit` reaches from all of them.
    starts = problem.starts()
    picked = starts[np.linspace(0, len(starts) - 1, 15).astype(int)]
    truth = np.asarray(CHINCHILLA.coordinates(TRUTH, problem.means))
    first = problem.solve(np.concatenate([truth[None], picked]), Penalty(math.inf))
    residuals = problem.target - problem.linked(first.theta[first.value.argmin()])
    penalty = Penalty(delta_of(residuals, len(losses) - len(TRUTH)))
    ends = problem.solve(first.theta, penalty)
    at = int(ends.value.argmin())
    best = Best(ends.theta[at], float(ends.value[at]), len(first.theta), 1.0, None, None, 0.0)
    drawn = resample(
        problem, best, penalty, method=scene.method, samples=RESAMPLES, seed=seed, free=free,
        series=runs.series,
    )  # fmt: skip
    samples = CHINCHILLA.natural(drawn.theta, problem.means)
    law = _law(samples, drawn.spread)

    flops = 3 * float(runs.flops.max())
    size = float(best_size(np.array(flops)))
    tokens = flops / 6 / size
    least = float(loss(np.array(size), np.array(tokens)))
    fitted = dataclasses.replace(
        law, params=_named(CHINCHILLA.natural(best.theta, problem.means).tolist())
    )
    # One more run has noise of its own, as runs of the largest compute have.
    single = math.log(least) + _one_more(scene, rng)
    spread = np.maximum(drawn.spread, 1e-12)
    logs = np.log(law.predict_samples(size, tokens))
    middle = math.log(float(fitted.predict(size, tokens)))
    e, _, _, alpha, beta = samples.T
    columns = {
        "alpha": (alpha, TRUTH[3], fitted.params["alpha"]),
        "beta": (beta, TRUTH[4], fitted.params["beta"]),
        "E": (e, TRUTH[0], fitted.params["E"]),
        "loss": (logs, math.log(least), middle),
        "size": (law.optimum_samples(flops).params, size, float(fitted.optimum(flops).params)),
    }
    shares = [[float(np.mean(x < end)) for end in ends] for x, *ends in columns.values()]
    below = [
        float(np.mean(scipy.stats.norm.cdf((end - logs) / spread))) for end in (single, middle)
    ]
    return [*shares, below]


def _one_more(scene: Scene, rng: np.random.Generator) -> float:
    """The noise of a run of the largest compute."""
    noise = scene.noise(scene.table, rng)
    return float(noise[np.argmax(scene.table.params * scene.table.tokens)])


def _law(samples: Array, spread: Array) -> Law:
    """A law that holds these samples, to predict with."""
    return Law(
        law=CHINCHILLA.name, params=_named(samples[0].tolist()), stderr={}, interval_95={},
        objective={}, n_runs=0, dropped=[], convention={}, diagnostics={}, isoflop=None,
        optima=None,
        bootstrap={"samples": _named(samples.T.tolist()), "residual_sd": spread.tolist()},
    )  # fmt: skip


def _named(values: list[Any]) -> dict[str, Any]:
    return dict(zip(CHINCHILLA.names, values, strict=True))


def simulate(draws: int, only: str) -> None:
    """Write records.json, as far as it goes after each piece."""
    done: dict[str, Any] = json.loads(RECORDS.read_text()) if RECORDS.exists() else {}
    for first in range(0, draws, PIECE):
        for name in SCENES:
            have = done.setdefault(name, [])
            if only not in name or len(have) > first:
                continue
            for seed in range(first, min(first + PIECE, draws)):
                have.append(np.round(draw(name, seed), 4).tolist())
            write_json(RECORDS, done)
            print(name, len(have), flush=True)


def held(shares: Array, level: float, *, corrected: bool = False) -> Array:
    """Whether the interval of each draw and quantity holds the truth [draws, quantities], of
    `shares` [draws, quantities, 2]: between equal tails, or bias-corrected (Efron 1981)."""
    truth, estimate = scipy.stats.norm.ppf(np.clip(shares, 1e-4, 1 - 1e-4)).transpose(2, 0, 1)
    shift = 2 * estimate if corrected else np.zeros_like(estimate)
    found: Array = np.abs(truth - shift) <= scipy.stats.norm.ppf(0.5 + level / 2)
    return found


def table() -> None:
    """Print the table of the README from records.json."""
    records = json.loads(RECORDS.read_text())
    for corrected in (False, True):
        print(f"\n{'bias-corrected' if corrected else 'equal tails'}\n")
        print(f"| table | draws | {' | '.join(QUANTITIES)} |")
        print("| --- " * (2 + len(QUANTITIES)) + "|")
        for name in SCENES:
            shares = np.array(records.get(name) or np.empty((0, len(QUANTITIES), 2)))
            found = [held(shares, level, corrected=corrected).mean(axis=0) for level in LEVELS]
            cells = [
                " ".join(f"{100 * x:.0f}" for x in column) for column in zip(*found, strict=True)
            ]
            print(f"| {name} | {len(shares)} | {' | '.join(cells)} |")
    errors = [f"{100 * math.sqrt(level * (1 - level) / 400):.1f}" for level in LEVELS]
    print(f"\nstandard errors of 400 draws: {' '.join(errors)}\n")
    for name in SCENES:
        shares = np.array(records.get(name) or np.empty((0, len(QUANTITIES), 2)))
        for level in LEVELS:
            found = held(shares, level).mean(axis=0)
            error = math.sqrt(level * (1 - level) / max(len(shares), 1))
            for quantity, share in zip(QUANTITIES, found, strict=True):
                if abs(share - level) > ALLOWED:
                    surely = " (surely)" if abs(share - level) > ALLOWED + 2 * error else ""
                    print(
                        f"{name}: {quantity} {share:.1%} for {level:.0%}, off by "
                        f"{(share - level) / error:+.1f} standard errors{surely}"
                    )
    cells = [
        2 * scipy.stats.norm.sf(ALLOWED / math.sqrt(level * (1 - level) / 400)) for level in LEVELS
    ]
    print(
        f"\nof {len(SCENES) * len(QUANTITIES) * len(LEVELS)} shares "
        f"{len(SCENES) * len(QUANTITIES) * sum(cells):.0f} would be off by more than "
        f"{ALLOWED:.0%} if all intervals held as they say"
    )


def main() -> None:
    """The verb."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=("simulate", "table"))
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    simulate(options.draws, options.only) if options.verb == "simulate" else table()


if __name__ == "__main__":
    main()
