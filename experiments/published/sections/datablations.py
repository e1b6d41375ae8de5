"""Muennighoff et al. 2023: repeated data."""

from typing import Any, NamedTuple

import numpy as np

from scaling.analysis.fit import fit
from scaling.analysis.objective import problem_of
from scaling.analysis.rules import LAWS
from scaling.analysis.solver import Penalty
from sections.rows import Row, Section, beside, close, least, printed, runs_of
from sections.sources import Source, where

DELTA = 1e-3
BASE = {
    "E": float(np.exp(0.6254804)), "A": float(np.exp(6.255414)), "B": float(np.exp(7.3049974)),
    "alpha": 0.3526596, "beta": 0.3526596,
}  # fmt: skip
"""The law of unrepeated data that the published fit holds fixed."""
WIDEST = 10.0
"""A constant whose 95% interval is wider than this factor is not determined."""
NEVER, AT_ONCE = 1e15, 1e-15
"""Limits of decay at which repeated data, or excess parameters, count in full or not at all."""


class Variant(NamedTuple):
    """A published row: a law, its limits in the objective and, where other, in R2."""

    name: str
    law: str
    limits: dict[str, float]
    objective: str
    r2: str
    for_r2: dict[str, float] | None = None


BOTH, GEOMETRIC = "data_constrained", "data_constrained_geometric"
VARIANTS = (
    Variant("published", BOTH, {"R_D": 15.387756, "R_N": 5.309743}, "0.0158259", "0.7722"),
    Variant("data decay only", BOTH, {"R_D": 2.9157, "R_N": NEVER}, "0.0169223", "0.7354"),
    Variant("parameter decay only", BOTH, {"R_D": AT_ONCE, "R_N": 713.0015}, "0.0241078", "0.4488",
            {"R_D": NEVER, "R_N": 713.0015}),
    Variant("geometric series", GEOMETRIC, {"R_D": 0.010463, "R_N": 0.367575},
            "0.0154774", "0.7988"),
    Variant("plain", BOTH, {"R_D": NEVER, "R_N": NEVER}, "0.0331039", "0.4452"),
)  # fmt: skip


class Search(NamedTuple):
    """A published minimum: a law, whether its base is fixed, value and parameters there, R2."""

    name: str
    law: str
    fixed: bool
    minimum: float
    at: dict[str, str]
    r2: str | None


SEARCHES = (
    Search("R_D, R_N", BOTH, True, 0.01580466247, {"R_D": "95.365", "R_N": "1.7059"}, "0.7910"),
    Search("R_D alone", "data_constrained_tokens", True, 0.01692234874, {"R_D": "2.9149"}, None),
    Search("geometric series", GEOMETRIC, True, 0.01547743540,
           {"R_D": "0.010478", "R_N": "0.367384"}, "0.7987"),
    Search("all 7 parameters", BOTH, False, 0.00656589557,
           {"alpha": "0.212353", "beta": "0.466289", "R_D": "25.168"}, "0.9337"),
)  # fmt: skip
LOGS = {"A": "3.99033", "B": "10.03101", "E": "0.605091"}


def study(source: Source) -> Section:
    """All of section 5."""
    table = source.tables["runs"]
    table = where(table, table["fitted"] == 1)
    columns = {name: table[name] for name in ("params", "tokens", "unique_tokens")}
    loss = table["loss"]

    def r2(predicted: np.ndarray) -> float:
        return 1 - float(((loss - predicted) ** 2).sum() / ((loss - loss.mean()) ** 2).sum())

    runs = runs_of(
        table["params"], table["tokens"], loss, unique_tokens=table["unique_tokens"]
    )  # fmt: skip
    rows: list[Row] = []
    for one in VARIANTS:
        form = LAWS[one.law]
        values, for_r2 = (
            np.array([(BASE | limits)[name] for name in form.names])
            for limits in (one.limits, one.for_r2 or one.limits)
        )
        problem = problem_of(runs, form)
        objective = problem.value(form.coordinates(values, problem.means), Penalty(DELTA))
        rows += [
            printed(f"{one.name}: objective", objective, one.objective),
            printed(f"{one.name}: R2", r2(form.predict(for_r2, columns)), one.r2),
        ]
    numbers: dict[str, Any] = {"searches": []}
    for search in SEARCHES:
        law = fit(
            runs, search.law, delta=DELTA, fixed=BASE if search.fixed else None, bootstrap=200
        )
        value = float(law.objective["value"])
        what = f"minimum over {search.name}"
        rows.append(least(what, value, search.minimum))
        rows += [
            close(f"{what}: {n}", law.params[n], text, share=1e-4) for n, text in search.at.items()
        ]
        if not search.fixed:
            rows += [
                close(f"{what}: log {n}", float(np.log(law.params[n])), text, share=1e-4)
                for n, text in LOGS.items()
            ]
        if search.r2:
            rows.append(printed(f"{what}: R2", r2(law.predict(**columns)), search.r2))
        known = law.diagnostics["identifiability"]
        limits = {n: e for n, e in known["parameters"].items() if n in ("R_D", "R_N")}
        rows += [
            beside(f"{what}: 95% profile interval of {n}", _ends(e["interval_95"]), "")
            for n, e in limits.items()
        ]
        said = {name: _verdict(entry["interval_95"]) for name, entry in limits.items()}
        rows.append(
            beside(f"{what}: verdict", "; ".join(f"{n} {word}" for n, word in said.items()), "")
        )
        numbers["searches"].append(
            {
                "search": search.name,
                "law": search.law,
                "objective": value,
                "params": dict(law.params),
                "verdict": known["verdict"],
                "determined": said,
                "condition": known["condition"],
                "interval_95": {name: entry["interval_95"] for name, entry in limits.items()},
                "profiles": {name: entry["profile"] for name, entry in limits.items()},
                "bootstrap_95": {name: list(law.interval_95[name]) for name in limits},
            }
        )
    numbers["decay"] = _decay(numbers["searches"][0]["params"], numbers["searches"][3]["params"])
    return Section("5. Repeated data (Muennighoff et al. 2023)", rows, numbers)


def _ends(ends: list[float | None]) -> str:
    low, high = ("open" if end is None else f"{end:.4g}" for end in ends)
    return f"{low} to {high}"


def _verdict(ends: list[float | None]) -> str:
    """Whether the runs determine a constant: its interval is closed, and no wider than tenfold."""
    low, high = ends
    if low is None or high is None:
        return "not determined: its interval is open"
    width = high / low
    return f"{'determined' if width <= WIDEST else 'not determined'}, to a factor of {width:.2g}"


def _decay(refit: dict[str, float], free: dict[str, float]) -> dict[str, Any]:
    """What repeated tokens are worth: effective over unique tokens, by epochs."""
    epochs = np.geomspace(1, 1000, 61)
    limits = {
        "published": 15.387756,
        "refit, base fixed": refit["R_D"],
        "refit, all free": free["R_D"],
    }
    return {
        "epochs": epochs.tolist(),
        "effective": {
            name: (1 - limit * np.expm1(-(epochs - 1) / limit)).tolist()
            for name, limit in limits.items()
        },
    }  # fmt: skip
