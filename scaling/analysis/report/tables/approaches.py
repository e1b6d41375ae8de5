"""Approaches 1, 2 and 3 in numbers: exponents with intervals, and the optimum each would plan."""

from scaling.analysis.agreement import disagreement, unheard
from scaling.analysis.approaches import Allocation
from scaling.analysis.evidence import Evidence
from scaling.analysis.report.exhibits.approaches import ways
from scaling.analysis.report.exhibits.frontier import planned_runs
from scaling.analysis.report.panels import count, power, tidy
from scaling.analysis.report.tables.table import Cell, Entry, Table, between


def approach_table(evidence: Evidence) -> Table:
    """Per way to the optimal size: its exponent, and the optimum at the planned compute (at the
    largest that was trained, where nothing is planned)."""
    found = ways(evidence)
    if len(found) < 2:
        return Table(title="", head=[], rows=[])
    planned = [float(run["flops"]) for run in planned_runs(evidence) if run["flops"] > 0]
    flops = max(planned or [float(row["flops"]) for row in evidence.fitted])
    law = next((way.allocation for way in found if way.name.startswith("3")), None)
    rows: list[list[Entry]] = []
    for way in found:
        row: list[Entry] = [way.name, f"{way.exponent:.3f}"]
        row += [between(way.interval, write="{:.3f}".format)]
        each, tokens = way.allocation, way.allocation.tokens
        row += [f"{tokens.exponent:.3f}", count(float(each.params.at(flops)))]
        row += [tidy(float(each.tokens_per_parameter(flops)))]
        rows.append([*row, _verdict(evidence, each, law)])
    head = [
        "Approach", "Size exponent", "90%", "Data exponent", f"Size at {power(flops)}",
        "Tokens/param", "Beside the law",
    ]  # fmt: skip
    wide = ["Data exponent"]
    return Table(
        title="Exponents by each approach", head=head, rows=rows, wide=wide, wordy=[head[-1]]
    )


def _verdict(evidence: Evidence, way: Allocation, law: Allocation | None) -> Entry:
    """Whether a way agrees with the law; of the ways that a fit warns of, and no others."""
    if law is None:
        return Cell("the law has no optimum")
    if way is law:
        return Cell("it is the law")
    if evidence.runs and (reason := unheard(way.approach, evidence.runs)):
        return Cell(reason)
    return "disagrees" if disagreement([way, law]) else "agrees"
