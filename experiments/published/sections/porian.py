"""Porian et al. 2024, RefinedWeb: five changes that lead from Kaplan's exponent to Chinchilla's."""

import math
from typing import Any, NamedTuple

import numpy as np

from scaling.analysis.approaches import Allocation, akima
from scaling.analysis.frontier import budgets
from sections.rows import Row, Section, beside, interval, near, printed, runs_of
from sections.sources import Source, Table, where

NOISE = 0.002
"""Deviation between seeds on RefinedWeb, in nats."""
BUDGETS = 1.25e16 * 2.0 ** np.arange(12)
TARGET = 5.88e23


class Step(NamedTuple):
    """What was published of one of the cumulative changes."""

    name: str
    exponent: float
    low: float
    high: float
    r2: str
    unweighted: float
    ratios: str
    noiseless: float
    parabola: float


STEPS = (
    Step("1_kaplan_reproduction", 0.835300, 0.8235, 0.8460, ".9990", 0.833768, "8 to 1536",
         0.8348, 0.865),
    Step("2_count_head_flops", 0.706470, 0.6915, 0.7169, ".9976", 0.700899, "9 to 232",
         0.7003, 0.695),
    Step("3_short_warmup", 0.602038, 0.5914, 0.6173, ".9926", 0.603528, "8 to 51",
         0.6055, 0.593),
    Step("4_cosine_decay", 0.571495, 0.5598, 0.5885, ".9977", 0.571425, "10 to 40",
         0.5715, 0.552),
    Step("5_tuned_no_decay", 0.496895, 0.4907, 0.5045, ".9975", 0.497029, "14 to 17",
         0.4970, 0.501),
)  # fmt: skip


def regression(optima: Table) -> tuple[np.ndarray, np.ndarray, float]:
    """(exponent, intercept) of log n_opt on log flops, weighted by 1/std^2 and not, and R2 of the
    first."""
    kept = np.isfinite(optima["n_opt"]) & np.isfinite(optima["log_n_std"])
    x, y = np.log(optima["flops_c"][kept]), np.log(optima["n_opt"][kept])
    weighted = np.polyfit(x, y, 1, w=1 / optima["log_n_std"][kept])
    left = y - np.polyval(weighted, x)
    r2 = 1 - float(left @ left) / float(((y - y.mean()) ** 2).sum())
    return weighted, np.polyfit(x, y, 1), r2


def five_point_parabola(runs: Any) -> float:
    """The slope through the vertices of parabolas of loss over log params, each through the five
    sizes around the lowest loss."""
    x, y = [], []
    for rows in budgets(runs):
        rows = rows[np.argsort(runs.params[rows])]
        lowest = int(np.argmin(runs.loss[rows]))
        if lowest in (0, len(rows) - 1):
            continue
        first = max(0, min(lowest - 2, len(rows) - 5))
        near_ = rows[first : first + 5]
        bend, slope, _ = np.polyfit(np.log(runs.params[near_]), runs.loss[near_], 2)
        x.append(math.log(runs.flops[near_[0]]))
        y.append(-slope / (2 * bend))
    return float(np.polyfit(x, y, 1)[0])


def ratios(found: Allocation) -> list[float]:
    """The least 2.5% and the largest 97.5% quantile, over the twelve budgets, of tokens per
    parameter on the lines through the draws."""
    params, tokens = (
        found.samples[:, line, 1, None] + found.samples[:, line, 0, None] * np.log(BUDGETS)
        for line in range(2)
    )
    low, high = np.quantile(np.exp(tokens - params), (0.025, 0.975), axis=0)
    return [float(low.min()), float(high.max())]


def study(source: Source) -> Section:
    """All of section 2."""
    rows: list[Row] = []
    numbers: dict[str, Any] = {"steps": []}
    inside = of_parabolas = 0
    for step in STEPS:
        optima, table = (
            where(source.tables[name], source.tables[name]["step"] == step.name)
            for name in ("optima", "runs")
        )
        runs = runs_of(*(table[n] for n in ("params", "tokens", "loss")), flops=table["flops"])
        weighted, plain, r2 = regression(optima)
        found = akima(runs, noise=NOISE)
        quiet = akima(runs, noise=1e-9)
        noiseless, _ = np.polyfit(np.log(quiet.points["flops"]), np.log(quiet.points["params"]), 1)
        exponent, ends = found.params.exponent, found.params.interval
        assert ends is not None
        right = step.low <= exponent <= step.high and abs(exponent - step.exponent) <= 0.01
        table_, rows_ = f"step {step.name[0]}, optima", f"step {step.name[0]}, isoFLOP rows"
        said = f"{step.low:.4f} to {step.high:.4f}"
        parabola = five_point_parabola(runs)
        rows += [
            near(f"{table_}: a", float(weighted[0]), step.exponent, within=1e-5, show=".6f"),
            near(
                f"{table_}: a, unweighted", float(plain[0]), step.unweighted, within=1e-5,
                show=".6f",
            ),
            printed(f"{table_}: R2", r2, step.r2),
            Row(
                f"{rows_}: a", f"{exponent:.4f}", f"{step.exponent:.4f}",
                "inside the interval and within 0.01", bool(right),
            ),
            beside(f"{rows_}: 95% interval", interval(ends, ".4f"), said),
            near(f"{rows_}: a without noise", float(noiseless), step.noiseless, within=5e-4),
            beside(f"{rows_}: a, five-point parabolas", f"{parabola:.3f}", f"{step.parabola}"),
            beside(f"{rows_}: tokens per parameter", interval(ratios(found), ".0f"), step.ratios),
        ]  # fmt: skip
        inside += step.low <= exponent <= step.high
        of_parabolas += step.low <= parabola <= step.high
        numbers["steps"].append({
            "step": step.name,
            "exponent": exponent, "intercept": found.params.intercept, "interval_95": list(ends),
            "published": step.exponent, "published_95": [step.low, step.high],
            "points": {name: x.tolist() for name, x in found.points.items()},
        })  # fmt: skip
        if step is STEPS[-1]:
            size = math.exp(float(np.polyval(weighted, math.log(TARGET))))
            at = f"step 5, optima, at {TARGET:g} FLOP"
            rows += [
                printed(f"{at}: N, billions", size / 1e9, "76.9"),
                beside(f"{at}: D/N", f"{TARGET / 6 / size**2:.2f}", "16.5"),
            ]
    rows += [
        Row("a inside the published interval, Akima", f"{inside} of 5", "5 of 5", "5 of 5",
            inside == 5),
        Row("the same, five-point parabolas", f"{of_parabolas} of 5", "3 of 5", "3 of 5",
            of_parabolas == 3),
    ]  # fmt: skip
    return Section("2. IsoFLOP curves on RefinedWeb (Porian et al. 2024)", rows, numbers)
