"""Gadre et al. 2024: over-trained models and their downstream error, trained on RedPajama."""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from scaling.analysis.compare import compare
from scaling.analysis.fit import fit
from scaling.analysis.objective import problem_of
from scaling.analysis.proof import best_of
from scaling.analysis.rules import LAWS
from scaling.analysis.solver import Penalty
from scaling.runs import Runs
from sections.rows import Row, Section, beside, least, near, printed, runs_of
from sections.sources import Source

SMALL = ("d=96_l=8_h=4", "d=512_l=8_h=4", "d=576_l=24_h=8", "d=1024_l=24_h=8")
ONE_B, SEVEN_B = "open_lm_1b", "open_lm_7b"
SQUARES = Penalty(math.inf)
THEIRS, TIED = "over_training", "chinchilla_tied"
"""Their form, and the same function written in size and data."""
PLAIN = dataclasses.replace(
    LAWS[TIED],
    link="identity",
    linked=lambda p, x: jnp.exp(LAWS[TIED].linked(p, x)),
    starts=lambda x, y: LAWS[TIED].starts(x, np.log(y)),
)
"""Their form for residuals of the loss itself, which they square; laws here take its logarithm."""


def study(source: Source) -> Section:
    """All of section 3."""
    table = source.tables["runs"]
    model, ratio = table["model"], np.round(table["ratio"])
    params, tokens, loss, error = (table[n] for n in ("params", "tokens", "loss", "error"))
    runs = runs_of(params, tokens, loss, error=error)
    small = np.isin(model, SMALL)
    fitted = small & (ratio == 20) | (model == SMALL[0]) & (ratio == 320)
    targets = [
        int(np.flatnonzero((model == name) & (ratio == m))[0])
        for name, m in ((ONE_B, 640), (SEVEN_B, 20))
    ]
    problem = problem_of(runs.where(fitted), PLAIN)
    best = best_of(problem, problem.search(problem.starts(), SQUARES), SQUARES)
    values = PLAIN.natural(best.theta, problem.means)
    law = dict(zip(PLAIN.names, values.tolist(), strict=True))
    predicted = PLAIN.predict(values, {"params": params, "tokens": tokens})
    off = 100 * np.abs(predicted / loss - 1)
    known = fitted | (model == ONE_B) & (ratio == 20)
    task = fit(runs.where(known), "error", delta=math.inf, bootstrap=200)
    off_error = 100 * np.abs(task.predict(loss=predicted) / error - 1)
    rows = [
        least("five runs, sum of squares", 2 * best.value, 0.000425648686),
        printed("p", law["A"], "166.21"),
        printed("q", law["B"] * 6 ** (law["alpha"] / 2), "366.69"),
        printed("c", -law["alpha"], "-0.27285"),
        printed("E", law["E"], "1.83665"),
        near("loss error, 1.4B at M = 640, %", off[targets[0]], 0.7103, within=1e-3),
        near("loss error, 6.9B at M = 20, %", off[targets[1]], 0.7320, within=1e-3),
        printed("epsilon", task.params["epsilon"], "0.85699"),
        printed("k", task.params["k"], "2.2065"),
        printed("gamma", task.params["gamma"], "0.71459"),
        near("17-task error, 1.4B, %", off_error[targets[0]], 3.6365, within=1e-3),
        near("17-task error, 6.9B, %", off_error[targets[1]], 0.0464, within=1e-3),
        printed("mean loss error on the 30 runs not fitted, %", off[~fitted].mean(), "1.579"),
    ]
    numbers = {
        "loss_law": law,
        "error_law": dict(task.params),
        "runs": {
            "params": params.tolist(), "ratio": ratio.tolist(), "loss": loss.tolist(),
            "predicted": predicted.tolist(), "error": error.tolist(),
            "predicted_error": task.predict(loss=predicted).tolist(),
            "fitted": fitted.tolist(), "targets": targets,
        },
    }  # fmt: skip
    return Section(
        "3. Over-training on RedPajama (Gadre et al. 2024)",
        [*rows, *_auto(runs, fitted, float(off[~fitted].mean()), numbers)],
        numbers,
    )


def _auto(runs: Runs, fitted: np.ndarray, theirs: float, numbers: dict[str, Any]) -> list[Row]:
    """What `auto` says of runs that it has not seen, beside their form."""

    def error_of(law: str, seen: np.ndarray) -> tuple[str, float]:
        found = fit(runs.where(seen), law, bootstrap=20)
        predicted = found.predict(runs.params[~seen], runs.tokens[~seen])
        return found.law, float(100 * np.abs(predicted / runs.loss[~seen] - 1).mean())

    (auto, ours), (_, tied) = error_of("auto", fitted), error_of(TIED, fitted)
    what = "mean loss error on the 30 runs not fitted, %"
    numbers["auto"] = {"from five runs": {"law": auto, "error": ours, "theirs": theirs}}
    rows = [
        # What is compared is the form: the published fit is of the loss, ours of its logarithm.
        Row(f"{what}: auto ({auto}); their form, fitted as auto fits", f"{ours:.3f}",
            f"{tied:.3f}", "at most theirs", ours <= tied * (1 + 1e-6)),
        Row(f"{what}: auto ({auto}); their own fit, of the loss", f"{ours:.3f}", f"{theirs:.3f}"),
    ]  # fmt: skip
    cheap = runs.flops <= np.median(runs.flops)
    (auto, ours), (_, tied) = error_of("auto", cheap), error_of(TIED, cheap)
    numbers["auto"]["from the cheaper half"] = {"law": auto, "error": ours, "theirs": tied}
    rows.append(
        beside(
            f"from the {int(cheap.sum())} cheaper runs, mean error on the others, %: "
            f"auto ({auto}); their form",
            f"{ours:.3f}", f"{tied:.3f}",
        )
    )  # fmt: skip
    found = compare(runs).to_json()
    scores = {entry["law"]: entry["score"] for entry in found["laws"] if entry["score"]}
    chosen = found["chosen"]
    rows.append(
        Row(
            f"all 35 runs, error about larger ones over {len(found['cuts'])} cuts, %: "
            f"auto ({chosen})",
            f"{100 * scores[chosen]:.3f}", f"{100 * scores[THEIRS]:.3f}", "at most their form's",
            scores[chosen] <= scores[THEIRS] * (1 + 1e-6),
        )
    )  # fmt: skip
    numbers["comparison"] = scores
    return rows
