"""Which next runs make a prediction surest for their cost? Known law, simulated runs.

python experiments/2026-11-24-next-runs/study.py simulate [--repeats=60]
python experiments/2026-11-24-next-runs/study.py table
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scaling.analysis.design import Cells, choose, describe, grid_of
from scaling.analysis.fit import fit
from scaling.analysis.fitted import Law
from scaling.analysis.forms import Array
from scaling.analysis.laws import CHINCHILLA
from scaling.files import write_json
from scaling.runs import Runs

HERE = Path(__file__).parent
RECORDS = HERE / "records.json"
FIRST_BUDGETS = (1e18, 2e18, 4e18, 8e18)
SIZES = np.geomspace(1 / 4, 4, 5)
MONEY = 7.5e19
"""For the next runs: as much as the first ones took."""
TARGET_FLOPS = 8e20
NOISE = 0.005
BOOTSTRAP = 200
ARMS = (
    "variance", "variance, 3 of a cell", "determinant", "random", "isoflop, one budget",
    "isoflop, two budgets", "isoflop, the first again", "single",
)  # fmt: skip
REFIT = np.array([CHINCHILLA.published["Besiroglu et al. 2024"][n] for n in CHINCHILLA.names])


def fitted_law(params: Array, tokens: Array) -> Array:
    """The law that is fitted: Chinchilla's, by Besiroglu et al. 2024."""
    return CHINCHILLA.predict(REFIT, {"params": params, "tokens": tokens})


def another_law(params: Array, tokens: Array) -> Array:
    """One that Chinchilla's cannot be: Busbridge et al. 2025, equation 1, table 6."""
    found: Array = 1.220 + (3355 / params**0.408 + 18186 / tokens**0.431) ** 0.452
    return found


TRUTHS: dict[str, Callable[[Array, Array], Array]] = {
    "the law holds": fitted_law,
    "another law holds": another_law,
}


class Drawn(NamedTuple):
    """Sizes and tokens of runs."""

    params: Array
    tokens: Array


def best(truth: str, flops: float) -> Drawn:
    """The true optimum."""
    params = np.geomspace(1e6, 1e12, 100_001)
    tokens = flops / 6 / params
    at = int(np.argmin(TRUTHS[truth](params, tokens)))
    return Drawn(params[at], tokens[at])


def isoflops(sizes: Array, budgets: tuple[float, ...]) -> Drawn:
    """Five sizes at each budget, from a quarter of the best of `sizes` [budgets] to four times."""
    params = np.outer(sizes, SIZES).ravel()
    return Drawn(params, np.repeat(budgets, len(SIZES)) / 6 / params)


def trained(truth: str, drawn: Drawn, rng: np.random.Generator) -> Runs:
    """The runs, each with a loss of its own noise."""
    loss = TRUTHS[truth](drawn.params, drawn.tokens)
    return Runs(
        run_id=tuple(f"run-{i}" for i in range(len(loss))),
        params=drawn.params,
        tokens=drawn.tokens,
        loss=loss * np.exp(rng.normal(0, NOISE, len(loss))),
        flops=6 * drawn.params * drawn.tokens,
    )


def together(first: Runs, second: Runs) -> Runs:
    """Both as one table."""
    columns = ("params", "tokens", "loss", "flops")
    joined = {name: np.concatenate([first.column(name), second.column(name)]) for name in columns}
    return Runs(run_id=tuple(f"run-{i}" for i in range(len(joined["loss"]))), **joined)


def at_random(cells: Cells, rng: np.random.Generator) -> Drawn:
    """Cells in random order, each as long as there is money for it."""
    chosen, left = [], MONEY
    while (affordable := np.flatnonzero(cells.cost <= left * (1 + 1e-9))).size:
        at = int(rng.choice(affordable))
        chosen.append(at)
        left -= cells.cost[at]
    return Drawn(cells.params[chosen], cells.tokens[chosen])


def measured(law: Law, target: Drawn, truth: float) -> dict[str, Any]:
    """What a law says of the target, against the truth."""
    drawn = law.predict_samples(float(target.params), float(target.tokens))
    low, high = np.quantile(drawn, (0.05, 0.95))
    predicted = float(law.predict(float(target.params), float(target.tokens)))
    return {
        "width": float(np.log(high / low)),
        "error": float(np.log(predicted / truth)),
        "held": bool(low <= truth <= high),
    }


def repeat(seed: int, truth: str) -> dict[str, Any]:
    """One simulated study: first runs, and what each way of spending as much again brings."""
    rng = np.random.default_rng([seed, list(TRUTHS).index(truth)])
    grid = isoflops(np.array([best(truth, c).params for c in FIRST_BUDGETS]), FIRST_BUDGETS)
    first = trained(truth, grid, rng)
    law = fit(first, bootstrap=BOOTSTRAP, seed=seed, intervals="residual")
    target = best(truth, TARGET_FLOPS)
    loss = float(TRUTHS[truth](*target))
    aim = {"params": float(target.params), "tokens": float(target.tokens)}
    found: dict[str, Any] = {"seed": seed, "truth": truth, "before": measured(law, target, loss)}
    found["law"] = law.params
    cells = grid_of(law, least_flops=1e18, most_flops=MONEY, budgets=8, sizes=7)
    one, two = (MONEY / 5,), (MONEY / 15, MONEY / 7.5)
    single = law.optimum(MONEY)
    ways = {
        "random": at_random(cells, rng),
        "isoflop, one budget": isoflops(law.optimum(np.array(one)).params, one),
        "isoflop, two budgets": isoflops(law.optimum(np.array(two)).params, two),
        "isoflop, the first again": grid,
        "single": Drawn(np.atleast_1d(single.params), np.atleast_1d(single.tokens)),
    }
    promised = {}
    for name, options in {
        "variance": {}, "variance, 3 of a cell": {"most_repeats": 3},
        "determinant": {"criterion": "determinant"},
    }.items():  # fmt: skip
        design = choose(law, cells, budget=MONEY, **aim, **options)
        ways[name] = Drawn(*(np.repeat(x, design.counts) for x in (cells.params, cells.tokens)))
        low, high = describe(law, cells, design, **aim)["expected"]["interval_90"]
        promised[name] = float(np.log(high / low))
    for name in ARMS:
        runs = together(first, trained(truth, ways[name], rng))
        again = fit(runs, bootstrap=BOOTSTRAP, seed=seed, intervals="residual")
        found[name] = measured(again, target, loss) | {
            "cost": float((6 * ways[name].params * ways[name].tokens).sum()),
            "promised": promised.get(name),
            "cells": [
                [float(f"{params:.4g}"), float(f"{tokens:.4g}"), number]
                for (params, tokens), number in Counter(zip(*ways[name], strict=True)).items()
            ],
        }
    return found


def simulate(repeats: int) -> None:
    """Write records.json, as far as it goes after each repeat."""
    done = json.loads(RECORDS.read_text()) if RECORDS.exists() else []
    have = {(entry["seed"], entry["truth"]) for entry in done}
    for seed in range(repeats):
        for truth in TRUTHS:
            if (seed, truth) not in have:
                done.append(repeat(seed, truth))
                write_json(RECORDS, done)
                print(seed, truth, flush=True)


def table() -> None:
    """Print the tables of the README from records.json."""
    records = json.loads(RECORDS.read_text())
    rng = np.random.default_rng(0)
    for truth in TRUTHS:
        rows = [entry for entry in records if entry["truth"] == truth]
        print(f"\n{truth}, {len(rows)} repeats\n")
        print("| next runs | runs | interval, % | against ours | error, % | held |")
        print("| --- | --- | --- | --- | --- | --- |")
        ours = np.array([entry["variance"]["width"] for entry in rows])
        for name in ("before", *ARMS):
            width, error, held = (
                np.array([entry[name][key] for entry in rows]) for key in ("width", "error", "held")
            )
            ratio = np.log(width / ours)
            drawn = rng.choice(ratio, (2000, len(ratio))).mean(axis=1)
            low, high = np.exp(np.quantile(drawn, (0.025, 0.975)))
            counts = [sum(c[2] for c in entry[name].get("cells", [])) for entry in rows]
            against = f"{np.exp(ratio.mean()):.2f} ({low:.2f} to {high:.2f})"
            print(
                f"| {name} | {np.median(counts):.0f} | {100 * np.median(width):.2f} | "
                f"{'' if name == 'variance' else against} | "
                f"{100 * np.sqrt(np.mean(error**2)):.2f} | {np.mean(held):.0%} |"
            )
        for name in ARMS[:3]:
            kept = np.array([entry[name]["width"] / entry[name]["promised"] for entry in rows])
            low, high = np.quantile(kept, (0.05, 0.95))
            print(f"{name}: width / promise {np.median(kept):.2f}, 90% {low:.2f} to {high:.2f}")


def main() -> None:
    """The verb."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=("simulate", "table"))
    parser.add_argument("--repeats", type=int, default=60)
    options = parser.parse_args()
    simulate(options.repeats) if options.verb == "simulate" else table()


if __name__ == "__main__":
    main()
