"""What the law says, how well the runs determine it, and the proof that the fit is the best."""

import math
from collections.abc import Mapping
from typing import Any

from scaling.analysis.evidence import Evidence
from scaling.analysis.report.exhibits.comparison import compared, ranked
from scaling.analysis.report.exhibits.profiles import identifiability, name_of, open_ends
from scaling.analysis.report.panels import count, percent, power, tidy
from scaling.analysis.report.tables.table import Cell, Entry, Table, between, cell, plain

LEFT = ("trend", "residuals", "warnings", "identifiability")
PROOF = ("starts", "share_best", "second_basin_gap", "polish_gain", "gradient_norm")
FEW = 0.02
AGREED = 1e-6
WORDS = {
    "residual_sd": "Standard deviation of the residuals",
    "degrees_of_freedom": "Degrees of freedom",
}


def law_table(evidence: Evidence) -> Table:
    """The law's parameters, and the exponents of the optimal size in compute that follow."""
    law = evidence.law
    rows: list[list[Entry]] = []
    units = {p.name: p.unit for p in evidence.form.parameters} if evidence.form else {}
    known = identifiability(evidence).get("parameters") or {}
    for name, value in (law["params"] if law else {}).items():
        unit = units.get(name, "").replace("nats per token", evidence.unit)
        error = (law or {}).get("stderr", {}).get(name)
        ends = (law or {}).get("interval_95", {}).get(name)
        rows.append(
            [
                name,
                _four(value),
                cell(error, write=lambda x: tidy(x, digits=2), why="not estimated"),
                between(ends, write=_four),
                open_ends(known[name]) if name in known else Cell("no profile was made"),
                unit if unit != "1" else Cell("a pure number"),
            ]
        )
    rows += _exponents(evidence)
    head = ["Parameter", "Value", "± s.e.", "95% interval", "Profile", "Unit"]
    return Table(title="Law", head=head, rows=rows, wide=["Unit"])


def _four(value: float) -> str:
    return tidy(value, digits=4)


def _exponents(evidence: Evidence) -> list[list[Entry]]:
    follows, number = Cell("follows from the parameters above"), Cell("a pure number")
    rows: list[list[Entry]] = []
    frontier = evidence.frontier
    if frontier:
        sizes, flops = frontier["params"], frontier["flops"]
        slope = math.log(sizes[-1] / sizes[0]) / math.log(flops[-1] / flops[0])
        rows.append(["size exponent, law", f"{slope:.3f}", follows, follows, follows, number])
    measured = ((evidence.law or {}).get("isoflop") or {}).get("params_exponent")
    if measured:
        interval = between(measured.get("interval_90"), write="{:.3f}".format)
        row: list[Entry] = ["size exponent, IsoFLOP (90%)", f"{measured['value']:.3f}"]
        row += [Cell("not estimated"), interval, Cell("measured by parabolas, not fitted"), number]
        rows.append(row)
    return rows


def profile_table(evidence: Evidence) -> Table:
    """Which parameters the runs determine: the profile's interval and its open ends."""
    rows: list[list[Entry]] = []
    for name, entry in (identifiability(evidence).get("parameters") or {}).items():
        low, high = entry.get("interval_95") or (None, None)
        ends = [
            cell(end, write=tidy, why="the runs allow any value on this side")
            for end in (low, high)
        ]
        rows.append([name_of(name, entry), tidy(entry["value"]), *ends, open_ends(entry)])
    head = ["Parameter", "Best", "95% from", "to", "Verdict"]
    return Table(title="What the runs determine", head=head, rows=rows, wordy=["Verdict"])


def proof_table(evidence: Evidence) -> Table:
    """The evidence that no better fit of this law exists, with how to read it."""
    found = evidence.law["diagnostics"] if evidence.law else {}
    rows: list[list[Entry]] = []

    def add(name: str, value: Any, reading: str) -> None:
        rows.append([name, value, reading])

    if found.get("starts") is not None:
        add("Starting points", f"{found['starts']}", "from all over the law's grid")
    if found.get("share_best") is not None:
        often = found["share_best"] > FEW
        reading = "within a millionth of it" if often else "few of them: search from more starts"
        add("Ended at the best value", percent(100 * found["share_best"]), reading)
    if "second_basin_gap" in found:
        gap = found["second_basin_gap"]
        shown: Entry = Cell("no other value was reached twice", text="none")
        reading = "no second basin was found"
        if gap is not None and gap < 1:
            shown, reading = percent(100 * gap), "above the best objective"
        elif gap is not None:
            shown, reading = f"{tidy(1 + gap, digits=2)}×", "the best objective"
        add("Next value that starts agree on", shown, reading)
    if found.get("polish_gain") is not None:
        gain = found["polish_gain"]
        reading = "the two solvers agree" if gain < AGREED else "of the objective; kept"
        shown = percent(100 * gain) if gain >= AGREED else "nothing"
        add("Gained by a second solver", shown, reading)
    if found.get("gradient_norm") is not None:
        add("Gradient there", tidy(found["gradient_norm"]), "norm; zero at a minimum")
    condition = identifiability(evidence).get("condition")
    if condition is not None:
        add("Condition number", tidy(condition), "of the scaled derivatives; fine below 10⁶")
    head = ["Proof", "Found", "Reading"]
    return Table(title="Is this the best fit?", head=head, rows=rows, wordy=["Proof", "Reading"])


def minimum_table(evidence: Evidence) -> Table:
    """The minimum of each IsoFLOP parabola with its 90% intervals."""
    rows: list[list[Entry]] = []
    for budget in evidence.budgets:
        row: list[Entry] = [power(budget["flops"]), str(budget["n_runs"])]
        if budget.get("params_opt") is None:
            rows.append([*row, *[Cell("the parabola has no minimum")] * 5, "no"])
            continue
        intervals = budget.get("interval_90") or {}
        row += [count(budget["params_opt"]), between(intervals.get("params_opt"), write=count)]
        row += [count(budget["tokens_opt"])]
        row += [f"{budget['loss_opt']:.4f}", between(intervals.get("loss_opt"))]
        rows.append([*row, "yes" if budget["interior"] else "no"])
    head = [
        "FLOPs", "Runs", "Best size", "Size, 90%", "Its tokens", "Loss", "Loss, 90%", "Interior"
    ]  # fmt: skip
    return Table(title="IsoFLOP minima", head=head, rows=rows, wide=["Its tokens"])


def comparison_table(evidence: Evidence) -> Table:
    """Per law its error on the runs left out at each cut, its score, and what is to be said."""
    comparison = compared(evidence)
    cuts = comparison.get("cuts") or []
    rows = []
    for entry in ranked(comparison):
        why = str(entry.get("reason") or "this law could not be fitted without these runs")
        errors = entry.get("errors") or [None] * len(cuts)
        row: list[Entry] = [entry["law"], plain(entry.get("parameters"))]
        row += [cell(_rms(error), write=percent, why=why) for error in errors]
        score = entry.get("score")
        row += [cell(score, write=lambda x: percent(100 * x), why=why)]
        row += [cell(entry.get("score_stderr"), write=lambda x: percent(100 * x), why=why)]
        rows.append([*row, _said(entry, comparison)])
    at = [f"to {tidy(cut['factor'])}×" for cut in cuts]
    head = ["Law", "Free", *at, "Score", "± s.e.", "Note"]
    title = "Error on the runs left out"
    return Table(title=title, head=head, rows=rows, wordy=["Note"], wide=at)


def _said(entry: Mapping[str, Any], comparison: Mapping[str, Any]) -> str:
    chosen = entry["law"] == comparison.get("chosen")
    said = ["chosen"] if chosen else []
    said += ["within one standard error of the best"] if entry.get("within") and not chosen else []
    said += [f"from {power(entry['from_flops'])} FLOPs on"] if entry.get("from_flops") else []
    said += ["no two starts agree on its best fit"] if entry.get("converged") is False else []
    said += [str(entry["reason"])] if entry.get("reason") else []
    return "; ".join(said)


def _rms(error: Mapping[str, Any] | None) -> float | None:
    rms = (error or {}).get("rms")
    return None if rms is None else 100 * rms


def diagnostic_table(evidence: Evidence) -> Table:
    """How the fit was made: objective, residuals, trends, bootstrap, conventions."""
    law = evidence.law
    if not law:
        return Table(title="Diagnostics", head=[], rows=[])
    rows: list[list[Entry]] = [["Runs in the fit", plain(law.get("n_runs"))]]
    for name, value in (law.get("objective") or {}).items():
        rows.append([f"Objective: {name}", plain(value)])
    for name, value in law["diagnostics"].items():
        if name not in (*PROOF, *LEFT) and (isinstance(value, str | int | float) or value is None):
            rows.append([WORDS.get(name, name.replace("_", " ")), plain(value)])
    for name, trend in (law["diagnostics"].get("trend") or {}).items():
        shown = ", ".join(f"{key.replace('_', ' ')} {plain(value)}" for key, value in trend.items())
        rows.append([f"Trend of the residuals in {name.replace('_', ' ')}", shown])
    for key, value in (law.get("bootstrap") or {}).items():
        if isinstance(value, str | int | float):
            rows.append([f"Bootstrap: {key}", plain(value)])
    rows += [[f"Convention: {key}", plain(value)] for key, value in law["convention"].items()]
    if evidence.form is not None:
        rows.append(["Reference", evidence.form.reference])
        rows += [["Departures from it", text] for text in [evidence.form.departures] if text]
    return Table(
        title="Diagnostics", head=["Quantity", "Value"], rows=rows, wordy=["Quantity", "Value"]
    )
