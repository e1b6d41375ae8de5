"""Hoffmann et al. 2022, figure 4, read off the vector graphic by Besiroglu et al. 2024."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.optimize
import scipy.stats

from scaling.analysis.laws import CHINCHILLA
from scaling.analysis.solver import Penalty
from sections.besiroglu import (
    DELTA,
    TEX,
    Runs,
    best_scale,
    likelihood,
    natural,
    objective,
    published_bootstrap,
    ratio,
    resamples,
    share,
)
from sections.rows import (
    Minimum,
    Row,
    Section,
    beside,
    close,
    interval,
    least,
    minimum,
    printed,
    runs_of,
)
from sections.sources import Source

RESAMPLES = 4000
FIRST = 600
"""The published intervals of tokens per parameter are those of so many of the resamples."""
NAMES = ("A", "B", "E", "alpha", "beta")
# a = log A, b = log B, e = log E, alpha, beta: as printed, and with the digits of the TeX source.
ROUNDED = np.array([math.log(406.4), math.log(410.7), math.log(1.69), 0.34, 0.28])
TABULATED = np.array([math.log(406.4), math.log(410.7), math.log(1.6934), 0.3392, 0.2849])
PUBLISHED_SE = {"A": 124.5, "B": 1293.3, "E": 0.0257, "alpha": 0.0154, "beta": 0.0206, "a": 0.020}
PUBLISHED_95 = {"A": "285 to 744", "B": "1042 to 5810", "E": "1.769 to 1.871",
                "alpha": "0.317 to 0.373", "beta": "0.331 to 0.415"}  # fmt: skip
WITHIN = 0.03
HOFFMANN_WIDTH = 0.001
"""Width of the 80% interval of a that Hoffmann et al. print: 0.454 to 0.455."""


def true_bootstrap(found: Minimum, drawn: list[np.ndarray]) -> np.ndarray:
    """(a, b, e, alpha, beta) of each resample at its own optimum.

    From the fit of all rows, and from four of the law's own starts: a resample may have its least
    value in another basin.
    """
    problem, penalty = found.problem, Penalty(DELTA)
    weights = np.array([np.bincount(rows, minlength=len(rows)) for rows in drawn], np.float64)
    starts = problem.starts()
    several = [found.best.theta, *starts[np.linspace(0, len(starts) - 1, 4).astype(int)]]
    ends = [problem.solve(np.tile(s, (len(drawn), 1)), penalty, weights=weights) for s in several]
    best = np.argmin([end.value for end in ends], axis=0)
    theta = np.stack([end.theta for end in ends])[best, np.arange(len(drawn))]
    E, A, B, alpha, beta = CHINCHILLA.natural(theta, problem.means).T
    return np.stack([np.log(A), np.log(B), np.log(E), alpha, beta], axis=1)


AT_240 = {"A": "477.826", "B": "2143.417", "E": "1.817218", "alpha": "0.347310", "beta": "0.367172"}
AT_245 = {"A": "495.726", "B": "12845.6", "E": "1.891338", "alpha": "0.349313", "beta": "0.453049"}
POINT = {"A": "482.01", "B": "2085.43", "E": "1.8169", "alpha": "0.3478", "beta": "0.3659"}


def study(source: Source, *, draws: int = RESAMPLES, workers: int = 2) -> Section:
    """All of section 1; the published standard errors are those of 4,000 draws."""
    table = source.tables["runs"]
    keep = table["outlier"] == 0
    params, tokens, loss = (table[name] for name in ("params", "tokens", "loss"))
    few = runs_of(params[keep], tokens[keep], loss[keep])
    found, of_all = (
        minimum(CHINCHILLA, each, DELTA) for each in (few, runs_of(params, tokens, loss))
    )
    runs = Runs(*(np.log(x[keep]) for x in (params, tokens, loss)))
    best = packed(found.params)
    rows = [
        least("240 rows", found.value, 0.0010182740177),
        *(close(f"240 rows: {name}", found.params[name], AT_240[name]) for name in NAMES),
        close("240 rows: a = beta/(alpha + beta)", float(share(best)), "0.51390"),
        least("all 245 rows", of_all.value, 0.0018260105238),
        *(close(f"245 rows: {name}", of_all.params[name], AT_245[name]) for name in NAMES),
    ]
    numbers: dict[str, Any] = {
        "minimum_240": {"value": found.value, **found.params},
        "minimum_245": {"value": of_all.value, **of_all.params},
        "share_of_starts_at_the_best": found.best.share_best,
    }

    ended = scipy.optimize.minimize(
        likelihood, np.append(TEX, 0.0), args=(runs,), jac=True, method="BFGS"
    )
    point = ended.x[:5]
    rows += [
        *(
            printed(f"published point estimate: {name}", float(value), POINT[name])
            for name, value in zip(NAMES, natural(point), strict=True)
        ),
        printed("published point estimate: a", float(share(point)), "0.5126"),
        printed("published point estimate: objective", objective(point, runs)[0], "0.00101864"),
        printed(
            "Hoffmann et al., TeX values to 4 digits: objective",
            objective(TABULATED, runs)[0],
            "0.0012353",
        ),
    ]
    drawn = resamples(draws, len(runs.loss))
    theirs, true = published_bootstrap(runs, drawn, workers), true_bootstrap(found, drawn)
    rows += _errors(theirs, true)
    rows += _tests(point, theirs, runs)
    rows += _ratios(point, best, theirs, true)
    missed = [
        objective(t, runs.drawn(d))[0] > objective(o, runs.drawn(d))[0] * (1 + 1e-6)
        for t, o, d in zip(theirs, true, drawn, strict=True)
    ]
    numbers |= {
        "point": dict(zip(NAMES, natural(point).tolist(), strict=True)),
        "draws": draws,
        "standard_errors": {
            kind: dict(zip((*NAMES, "a"), _spread(p).tolist(), strict=True))
            for kind, p in (("published procedure", theirs), ("at the optimum", true))
        },
        "share_of_refits_that_stopped_early": float(np.mean(missed)),
        "ratio": [
            {
                "flops": float(flops),
                "at_minimum": float(ratio(best, flops)),
                "hoffmann_tex": float(ratio(TEX, flops)),
                "interval_80": np.quantile(ratio(true, flops), (0.1, 0.9)).tolist(),
                "interval_95": np.quantile(ratio(true, flops), (0.025, 0.975)).tolist(),
            }
            for flops in np.geomspace(1e18, 1e27, 37)
        ],
    }  # fmt: skip
    return Section(
        "1. Chinchilla, figure 4 (Hoffmann et al. 2022, Besiroglu et al. 2024)", rows, numbers
    )


def packed(params: Mapping[str, float]) -> np.ndarray:
    """(a, b, e, alpha, beta) of a law's parameters by name."""
    logs = [math.log(params[name]) for name in "ABE"]
    return np.array([*logs, params["alpha"], params["beta"]])


def _spread(p: np.ndarray) -> np.ndarray:
    return np.append(natural(p).std(axis=0, ddof=1), share(p).std())


def _errors(theirs: np.ndarray, true: np.ndarray) -> list[Row]:
    rows = []
    for i, name in enumerate((*NAMES, "a")):
        published = PUBLISHED_SE[name]
        ours, at_optimum = _spread(theirs)[i], _spread(true)[i]
        what = (
            f"standard error of {name} by the published procedure ({at_optimum:.5g} at the optima)"
        )
        passed = bool(abs(ours / published - 1) <= WITHIN)
        rows.append(Row(what, f"{ours:.5g}", f"{published:g}", "within 3%", passed))
    for i, name in enumerate(NAMES):
        show = ".0f" if name in "AB" else ".3f"
        ends = np.quantile(natural(theirs)[:, i], (0.025, 0.975))
        rows.append(beside(f"95% interval of {name}", interval(ends, show), PUBLISHED_95[name]))
    ends = np.quantile(share(theirs), (0.1, 0.9))
    rows.append(beside("80% interval of a", interval(ends), "0.491 to 0.543"))
    return rows


def _tests(point: np.ndarray, theirs: np.ndarray, runs: Runs) -> list[Row]:
    apart = TEX - point
    distance = float(apart @ np.linalg.solve(np.cov(theirs.T), apart))
    levels = [best_scale(p, runs) for p in (ROUNDED, TEX, point)]
    alpha, beta = theirs[:, 3].mean(), theirs[:, 4].mean()
    slope = np.array([-beta, alpha]) / (alpha + beta) ** 2
    error = math.sqrt(slope @ np.cov(theirs[:, 3:].T) @ slope)
    n = len(runs.loss)
    by_slope = n * (2 * scipy.stats.norm.ppf(0.9) * error / HOFFMANN_WIDTH) ** 2
    low, high = np.quantile(share(theirs), (0.1, 0.9))
    return [
        printed("chi-squared distance of Hoffmann et al.'s values", distance, "238.4"),
        printed("its p-value", float(scipy.stats.chi2.sf(distance, 5)), "1.7e-49"),
        printed("log likelihood, Hoffmann et al. as printed", levels[0], "562.25"),
        printed("log likelihood, Hoffmann et al., TeX", levels[1], "837.78"),
        printed("log likelihood, refit", levels[2], "879.77"),
        printed("likelihood ratio", 2 * (levels[2] - levels[1]), "84.0"),
        close("runs for Hoffmann et al.'s interval, delta method", by_slope, "632740", share=1e-3),
        close(
            "the same, bootstrap", n * ((high - low) / HOFFMANN_WIDTH) ** 2, "634773", share=1e-3
        ),
    ]  # fmt: skip


def _ratios(point: np.ndarray, best: np.ndarray, theirs: np.ndarray, true: np.ndarray) -> list[Row]:
    rows = []
    for flops, level, said in (
        (5.76e23, 80, "10.4 to 30.3"), (5.76e23, 95, "7.7 to 36.4"), (1e21, 80, "17.3 to 26.7"),
        (3.8e25, 80, "7.3 to 33.1"),
    ):  # fmt: skip
        at = f"tokens per parameter at {flops:.3g} FLOP"
        tails = (0.5 - level / 200, 0.5 + level / 200)
        ends = [
            interval(np.quantile(ratio(p, flops), tails), ".1f")
            for p in (theirs[:FIRST], theirs, true)
        ]
        rows += [
            Row(f"{at}, {level}%, first {FIRST} resamples", ends[0], said, "the printed digits",
                ends[0] == said),
            beside(f"{at}, {level}%, all {len(true)}; at their optima", "; ".join(ends[1:]), said),
        ]  # fmt: skip
    size = math.sqrt(5.76e23 / 6 / float(ratio(best, 5.76e23))) / 1e9
    of_point = math.sqrt(5.76e23 / 6 / float(ratio(point, 5.76e23))) / 1e9
    return [
        printed("tokens per parameter at 5.76e+23 FLOP", float(ratio(best, 5.76e23)), "17.9"),
        printed("N there, billions", size, "73.2"),
        printed("the same, published point", float(ratio(point, 5.76e23)), "18.3"),
        printed("N there, billions", of_point, "72.4"),
        printed("the same, Hoffmann et al., TeX", float(ratio(TEX, 5.76e23)), "58.9"),
        *rows,
        printed("tokens per parameter at 1e+21 FLOP", float(ratio(best, 1e21)), "21.4"),
        beside(
            f"tokens per parameter at 3.8e+25 FLOP; median of the first {FIRST} resamples",
            f"{ratio(best, 3.8e25):.1f}; {np.median(ratio(theirs[:FIRST], 3.8e25)):.1f}", "15.8",
        ),
    ]  # fmt: skip
