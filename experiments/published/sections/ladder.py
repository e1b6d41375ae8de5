"""Bhagia et al. 2024 (OLMo ladder): eight tasks of a 7B model from sixteen small runs."""

import math
from typing import Any, NamedTuple

import numpy as np

from scaling.analysis.chain import Chain
from scaling.analysis.fit import fit
from scaling.runs import Runs
from sections.rows import Row, Section, beside, near, runs_of
from sections.sources import TASKS, Source, Table, where

DELTA = 1e-3
LAST = 5
"""A run stands at the mean of so many last evaluations; a trailing mean is over as many."""
EARLY = 0.1
"""This share of a run's evaluations, from its start, is left out of the second step."""
NO_LOSS = 1e-9
"""A loss of next to nothing, whose logarithm there is: there every answer is right."""
BOOTSTRAP = 1000
LEVEL = 0.9
MEAN = 5.852


class Published(NamedTuple):
    """Relative errors for the 7B model, in %: of step 1, of step 2 at the true loss, chained."""

    name: str
    step_1: float
    step_2: float
    chained: float


PUBLISHED = {
    "mmlu": Published("MMLU", 1.277, 0.268, 1.284),
    "hellaswag": Published("HellaSwag", -0.285, 1.054, 1.444),
    "arc_challenge": Published("ARC-C", 6.962, -7.588, 16.869),
    "arc_easy": Published("ARC-E", 13.281, -4.492, 9.421),
    "piqa": Published("PIQA", -2.037, -2.275, 1.006),
    "csqa": Published("CSQA", -11.723, -0.997, 4.222),
    "socialiqa": Published("SIQA", 4.320, 4.733, 1.978),
    "openbookqa": Published("OBQA", 1.301, -8.193, 10.589),
}


def trailing(values: np.ndarray) -> np.ndarray:
    """The mean of each value and of up to four before it."""
    return np.array([values[max(0, i - LAST + 1) : i + 1].mean() for i in range(len(values))])


def finals(table: Table, task: str) -> Runs:
    """Step 1: each run's size, tokens, and bits per byte at its end."""
    ends = []
    for name in sorted(set(table["run"])):
        run = where(table, table["run"] == name)
        ends.append((run["params"][-1], run["tokens"][-1], run[f"{task}_bpb"][-LAST:].mean()))
    params, tokens, bits = np.array(ends).T
    return runs_of(params, tokens, bits)


def along(table: Table, task: str) -> Runs:
    """Step 2: bits per byte and accuracy along all runs, and the point that no loss is no error."""
    bits, right, series = [np.array([NO_LOSS])], [np.array([1.0])], ["no loss"]
    for name in sorted(set(table["run"])):
        run = where(table, table["run"] == name)
        first = math.ceil(EARLY * len(run["run"]))
        bits.append(trailing(run[f"{task}_bpb"][first:]))
        right.append(trailing(run[f"{task}_acc"][first:]))
        series += [str(name)] * len(bits[-1])
    loss = np.concatenate(bits)
    unknown = np.full(len(loss), math.nan)
    return runs_of(
        unknown, unknown, loss, series=np.array(series), accuracy=np.concatenate(right)
    )  # fmt: skip


def chain_of(table: Table, task: str, *, bootstrap: int = BOOTSTRAP) -> Chain:
    """Both laws of a task, of the runs in the table."""
    return Chain(
        fit(finals(table, task), "chinchilla", delta=DELTA, bootstrap=bootstrap),
        fit(along(table, task), "accuracy", delta=math.inf, bootstrap=bootstrap),
    )


def study(source: Source, *, bootstrap: int = BOOTSTRAP) -> Section:
    """All of section 6."""
    table = source.tables["runs"]
    small, large = (where(table, table["target"] == which) for which in (0, 1))
    largest = small["run"][np.argmax(small["params"] * small["tokens"])]
    last = where(small, small["run"] == largest)
    size, tokens = float(large["params"][0]), float(large["tokens"][0])
    rows: list[Row] = []
    numbers: dict[str, Any] = {"level": LEVEL, "largest": str(largest), "tasks": []}
    errors, held = [], 0
    for task in TASKS:
        published = PUBLISHED[task]
        bits, right = (float(large[f"{task}_{what}"][0]) for what in ("bpb", "acc"))
        chain = chain_of(small, task, bootstrap=bootstrap)
        found = chain.verdict(last[f"{task}_acc"], size, tokens, measured=right, level=LEVEL)
        errors.append(100 * abs(found.predicted.value / right - 1))
        held += bool(found.held)
        steps = (
            ("bits per byte", float(chain.loss.predict(size, tokens)) / bits, published.step_1),
            ("at the true bits", float(chain.task.predict(loss=bits)) / right, published.step_2),
        )
        at = published.name
        rows += [
            *(
                near(f"{at}: error of {what}, %", 100 * (ours - 1), theirs, within=0.01,
                     show="+.3f")
                for what, ours, theirs in steps
            ),
            near(f"{at}: error of chained accuracy, %", errors[-1], published.chained,
                 within=0.01, show=".3f"),
            beside(
                f"{at}: foretold, and its {LEVEL:.0%} interval",
                f"{found.predicted.value:.3f}, {found.predicted.low:.3f} to "
                f"{found.predicted.high:.3f}",
                f"{right:.3f} measured",
            ),
            beside(
                f"{at}: predictable?",
                f"{'yes' if found.predictable else 'no'}: foretold change "
                f"{found.predicted.value - found.known:+.3f}, doubt {found.doubt:.3f}, checkpoint "
                f"noise {found.noise:.4f}; {'held' if found.held else 'missed'}",
                "",
            ),
        ]  # fmt: skip
        of_task = _kept(chain, small, task, size, tokens) | {"task": at, "verdict": found.text}
        measured = {"measured": right, "measured_bits": bits}
        foretold = found._asdict() | {"predicted": list(found.predicted)}
        del foretold["text"]
        numbers["tasks"].append(of_task | measured | foretold)
    mean = float(np.mean(errors))
    predictable = sum(entry["predictable"] for entry in numbers["tasks"])
    rows += [
        Row("mean error of chained accuracy, %", f"{mean:.4f}", f"{MEAN}", "at most that",
            round(mean, 3) <= MEAN),
        beside("tasks predictable beyond the noise of checkpoints", f"{predictable} of 8", ""),
        beside("predictions within the doubt", f"{held} of 8", ""),
    ]  # fmt: skip
    numbers["mean_error"] = mean
    return Section("6. OLMo ladder, 7B at 4T tokens (Bhagia et al. 2024)", rows, numbers)


def _kept(chain: Chain, small: Table, task: str, size: float, tokens: float) -> dict[str, Any]:
    """What a picture of a task needs: evaluations, the second law, where the first law leads."""
    points = along(small, task)
    some = np.arange(1, len(points), 12)
    curve = np.geomspace(0.3, points.loss[1:].max(), 60)
    return {
        "evaluations": {
            "bits": points.loss[some].tolist(), "accuracy": points.others["accuracy"][some].tolist()
        },
        "curve": {"bits": curve.tolist(), "accuracy": chain.task.predict(loss=curve).tolist()},
        "predicted_bits": float(chain.loss.predict(size, tokens)),
        "bits_interval": [float(x) for x in chain.loss.predict_interval(size, tokens, level=LEVEL)],
    }  # fmt: skip
