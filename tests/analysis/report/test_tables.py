"""Tables hold what the files hold, and an empty cell says why it is empty."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from scaling.analysis.evidence import Evidence, read_evidence
from scaling.analysis.report import tables
from scaling.analysis.report.exhibits.approaches import ways
from scaling.analysis.report.findings import warnings
from scaling.analysis.report.panels import count, power
from scaling.analysis.report.tables import Cell, Table

BUILT = [name for name in tables.__all__ if name.endswith("_table")]


def texts(table: Table, *, column: str) -> list[str]:
    at = list(table.head).index(column)
    return [
        entry.text if isinstance(entry, Cell) else entry for entry in (r[at] for r in table.rows)
    ]


@pytest.mark.parametrize("name", BUILT)
def test_rows_are_as_long_as_the_head_and_empty_cells_say_why(study: Path, name: str) -> None:
    table = getattr(tables, name)(read_evidence(study))
    assert table.rows
    for row in table.rows:
        assert len(row) == len(table.head)
        assert all(entry.why for entry in row if isinstance(entry, Cell))
    assert {*table.wordy, *table.wide} <= {*table.head}


@pytest.mark.parametrize("name", BUILT)
def test_nothing_makes_a_table_without_rows(name: str) -> None:
    assert list(getattr(tables, name)(Evidence()).rows) == []


def test_proof_shows_every_piece_of_evidence_that_the_fit_is_best(study: Path) -> None:
    rows = {row[0]: row[1] for row in tables.proof_table(read_evidence(study)).rows}
    assert rows["Starting points"] == "4500"
    assert rows["Ended at the best value"] == "83%"
    assert rows["Next value that starts agree on"].text == "none"
    assert rows["Gradient there"] == "2.1×10⁻¹²"


def test_parameter_that_the_runs_do_not_determine_is_called_so(study: Path) -> None:
    evidence = read_evidence(study)
    law = dict(zip(texts(tables.law_table(evidence), column="Parameter"),
                   texts(tables.law_table(evidence), column="Profile"), strict=True))  # fmt: skip
    assert law["E"] == "not identified below"
    assert law["alpha"] == "identified"
    assert tables.profile_table(evidence).rows[0][2] == Cell(
        "the runs allow any value on this side"
    )


def test_law_that_was_left_out_of_the_comparison_says_why(study: Path) -> None:
    table = tables.comparison_table(read_evidence(study))
    assert texts(table, column="Law")[-1] == "width_depth"
    assert texts(table, column="Score")[-1] == "–"
    assert table.rows[-1][-1].endswith("the runs have no column width")
    assert table.rows[0][-1] == "chosen"
    assert table.rows[1][-1] == "within one standard error of the best"


def test_approaches_agree_where_their_intervals_overlap(study: Path) -> None:
    evidence = read_evidence(study)
    table = tables.approach_table(evidence)
    of = {way.name: way for way in ways(evidence)}
    law = of["3: chinchilla"]
    said = {row[0]: row[-1] for row in table.rows}
    # Nothing that the fit would warn of.
    assert isinstance(said.pop(law.name), Cell)
    assert isinstance(said.pop("1: hull of ends"), Cell)
    assert set(said) == {"2: Akima", "2: parabolas"}
    for name, text in said.items():
        way = of[name]
        lower, upper = sorted((way, law), key=lambda one: one.exponent)
        facing = lower.interval[1] - lower.exponent, upper.exponent - upper.interval[0]
        apart = upper.exponent - lower.exponent > math.hypot(*facing)
        assert text == ("disagrees" if apart else "agrees")
    (at,) = [name for name in table.head if name.startswith("Size at")]
    assert at == "Size at 6×10¹²"
    best = (82 * 0.4 / (240 * 0.4)) ** (1 / 0.8) * (6e12 / 6) ** 0.5
    assert texts(table, column=at)[-1] == count(best)


def test_fit_that_no_start_ended_at_is_doubted() -> None:
    found = {"starts": 9, "share_best": 0.0, "polish_gain": 0.03}
    law = {"law": "chinchilla", "params": {}, "convention": {}, "diagnostics": found}
    assert "none of 9 starts ended at this fit" in warnings(Evidence(law=law))[0]
    assert warnings(Evidence(law={**law, "diagnostics": {**found, "share_best": 0.5}})) == []


def test_alternatives_tell_what_twice_of_each_takes_off_the_loss(study: Path) -> None:
    table = tables.alternative_table(read_evidence(study))
    assert texts(table, column="Change")[1:] == ["−0.0500", "−0.0700", "−0.0800"]


def test_alternatives_of_a_model_that_answers_are_told_with_what_its_answers_cost(
    study: Path,
) -> None:
    plan = json.loads((study / "plan.json").read_text())
    assert "Hours" in tables.alternative_table(Evidence(plan=plan)).head
    made = plan["comparison"]
    for row in (made["base"], *made["options"]):
        row |= {"flops_lifetime": 3 * row["flops"], "hours_lifetime": 5 * row["hours"]}
    table = tables.alternative_table(Evidence(plan=plan))
    assert texts(table, column="Hours with inference") == ["2", "4", "4", "4"]
    assert texts(table, column="FLOPs with inference")[0] == power(3 * made["base"]["flops"])


def test_planned_run_has_its_batch_steps_rate_and_hours(study: Path) -> None:
    table = tables.recipe_table(read_evidence(study))
    assert texts(table, column="Learning rate") == ["0.02"]
    assert texts(table, column="Hours") == ["0.4"]
    assert "Cost" not in table.head


def test_runs_of_a_law_alone_are_listed_the_worst_fitted_first(
    study: Path, studies: SimpleNamespace
) -> None:
    table = tables.fitted_table(read_evidence(study))
    rows = json.loads((study / "law.json").read_text())["diagnostics"]["residuals"]
    worst = max(rows, key=lambda row: abs(row["residual"]))
    assert table.rows[0][0] == worst["run_id"]
    assert len(table.rows) == len(rows)
    law = json.loads((study / "law.json").read_text())
    law["diagnostics"]["residuals"] = [{**row, "series": "one"} for row in rows]
    named = tables.fitted_table(Evidence(law=law))
    assert texts(named, column="Series") == ["one"] * len(rows)
    accuracy = tables.fitted_table(Evidence(law=studies.accuracy()))
    assert texts(accuracy, column="Params") == ["–"] * len(accuracy.rows)
