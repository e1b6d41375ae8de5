"""Every exhibit shows what the files hold, or says why it cannot."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.analysis.evidence import Evidence, read_evidence
from scaling.analysis.report.exhibits import EXHIBITS, approaches
from scaling.analysis.report.exhibits.curves import lower_hull
from scaling.analysis.report.panels import Panel, Series
from scaling.analysis.report.tables import minimum_table


@pytest.fixture(scope="module")
def evidence(study: Path) -> Evidence:
    return read_evidence(study)


def panel_of(name: str, evidence: Evidence, *, title: str = "") -> Panel:
    return next(panel for panel in EXHIBITS[name].panels(evidence) if title in panel.title)


def labelled(panel: Panel, label: str) -> Series:
    return next(series for series in panel.series if series.label.startswith(label))


def changed(evidence: Evidence, **law: Any) -> Evidence:
    return Evidence(law={**(evidence.law or {}), **law})


def test_drawn_minima_are_those_of_the_law_file_and_lie_on_their_parabolas(study: Path) -> None:
    law = json.loads((study / "law.json").read_text())
    (panel,) = EXHIBITS["isoflop"].panels(read_evidence(study))
    curves = [series for series in panel.series if series.shape == "line"]
    minima = [series for series in panel.series if series.marker.startswith("diamond")]
    assert len(curves) == len(minima) == len(law["isoflop"]["budgets"])
    lowest = sorted(min(curve.y) for curve in curves)
    marked = sorted(mark.y[0] for mark in minima)
    np.testing.assert_allclose(lowest, marked, rtol=1e-3)


def test_minimum_that_is_not_interior_is_drawn_hollow(
    tmp_path: Path, studies: SimpleNamespace
) -> None:
    studies.write(tmp_path)
    law = json.loads((tmp_path / "law.json").read_text())
    law["isoflop"]["budgets"][0]["interior"] = False
    nothing = {"params_opt": None, "tokens_opt": None, "loss_opt": None, "interior": False}
    law["isoflop"]["budgets"][1] |= nothing
    (tmp_path / "law.json").write_text(json.dumps(law))
    (panel,) = EXHIBITS["isoflop"].panels(read_evidence(tmp_path))
    drawn = [series.marker for series in panel.series if series.marker.startswith("diamond")]
    assert drawn == ["diamond-open", "diamond", "diamond"]
    assert "the parabola has no minimum" in str(minimum_table(read_evidence(tmp_path)).rows)


def test_envelope_lies_below_every_point_and_touches_the_best(evidence: Evidence) -> None:
    envelope = labelled(panel_of("loss_curves", evidence, title="compute"), "Envelope")
    runs = evidence.measured()
    below = np.interp([math.log(r.flops) for r in runs], np.log(envelope.x), envelope.y)
    assert (below <= np.array([run.loss for run in runs]) + 1e-12).all()
    assert min(run.loss for run in runs) == envelope.y[-1]


@given(
    st.lists(st.tuples(st.floats(1, 1e9), st.floats(1, 5)), min_size=1, max_size=30, unique=True)
)
def test_hull_falls_turns_one_way_and_leaves_no_point_below(
    points: list[tuple[float, float]],
) -> None:
    hull = lower_hull(points)
    x, y = np.log([flops for flops, _ in hull]), np.array([loss for _, loss in hull])
    assert (np.diff(y) <= 0).all()
    assert (np.diff(np.diff(y) / np.maximum(np.diff(x), 1e-12)) > -1e-9 * np.ptp(y)).all()
    for flops, loss in points:
        if math.log(flops) <= x[-1]:
            assert loss >= np.interp(math.log(flops), x, y) - 1e-9


def test_band_of_tokens_per_parameter_follows_from_that_of_the_size(evidence: Evidence) -> None:
    size = labelled(panel_of("frontier", evidence, title="size"), "90%")
    data = labelled(panel_of("frontier", evidence, title="data"), "90%")
    for low, high in zip(size.y_low, data.y_high, strict=True):
        assert low**2 * high == pytest.approx(size.x[size.y_low.index(low)] / 6)


def test_parameter_that_is_not_determined_shows_its_valley(evidence: Evidence) -> None:
    panels = {panel.title: panel for panel in EXHIBITS["profiles"].panels(evidence)}
    assert panels["E"].notes == ["not identified below"]
    assert panels["alpha"].notes == []
    valley = labelled(panels["E"], "Profile")
    threshold = evidence.law["diagnostics"]["identifiability"]["threshold"]
    assert max(rise for x, rise in zip(valley.x, valley.y, strict=True) if x < 1.4) < threshold
    assert labelled(panels["E"], "95% interval").x[0] == panels["E"].x.low


def test_profile_crosses_the_threshold_where_its_interval_ends(evidence: Evidence) -> None:
    panel = next(p for p in EXHIBITS["profiles"].panels(evidence) if p.title == "alpha")
    profile, interval = labelled(panel, "Profile"), labelled(panel, "95% interval")
    threshold = labelled(panel, "Threshold").y[0]
    for end in interval.x:
        assert np.interp(end, profile.x, profile.y) == pytest.approx(threshold, rel=0.05)


def test_profile_is_drawn_up_to_one_height_on_both_sides(evidence: Evidence) -> None:
    for panel in EXHIBITS["profiles"].panels(evidence):
        profile = labelled(panel, "Profile")
        height = panel.y.high
        ends = [profile.y[0], profile.y[-1]] if panel.title != "E" else [profile.y[-1]]
        assert ends == pytest.approx([height] * len(ends))
        assert max(profile.y) <= height * (1 + 1e-9)
        assert list(profile.x) == sorted(profile.x)


def test_approaches_are_lines_through_their_points_and_the_law_has_its_own_exponent(
    evidence: Evidence,
) -> None:
    size, data, exponents = EXHIBITS["approaches"].panels(evidence)
    of = {way.name: way for way in approaches.ways(evidence)}
    law = evidence.law["params"]
    closed = law["beta"] / (law["alpha"] + law["beta"])
    assert of["3: chinchilla"].exponent == pytest.approx(closed)
    points = next(series for series in size.series if series.marker == "square")
    slope, middle = np.polyfit(np.log(points.x), np.log(points.y), 1)
    assert of["1: hull of ends"].exponent == pytest.approx(slope)
    line = labelled(size, "1: hull of ends")
    np.testing.assert_allclose(line.y, np.exp(middle) * np.array(line.x) ** slope)
    ratio = labelled(data, "3: chinchilla")
    np.testing.assert_allclose(
        np.array(ratio.y) * np.array(labelled(size, "3: chinchilla").y) ** 2,
        np.array(ratio.x) / 6,
        rtol=1e-6,
    )
    assert [series.x[0] for series in exponents.series] == [way.exponent for way in of.values()]


def test_hull_of_checkpoints_is_resampled_by_run(evidence: Evidence) -> None:
    rows = [{**row, "series": str(row["params"])} for row in evidence.fitted]
    by_run = changed(evidence, diagnostics={**evidence.law["diagnostics"], "residuals": rows})
    title = panel_of("loss_curves", by_run).title
    assert title == "Loss against training compute"
    each, own = (approaches.ways(one)[0] for one in (evidence, by_run))
    assert each.exponent == own.exponent
    assert each.interval != own.interval


def test_what_more_would_buy_is_what_the_plan_says(evidence: Evidence) -> None:
    options = evidence.plan["comparison"]["options"]
    choices, cells = EXHIBITS["plan"].panels(evidence)
    marks = labelled(choices, "Predicted change")
    assert list(marks.x) == [option["change"]["value"] for option in options]
    assert list(choices.y.texts) == [option["name"] for option in options]
    (chosen,) = evidence.plan["next_runs"]["cells"]
    drawn = labelled(cells, "Next runs")
    assert (drawn.x[0], drawn.y[0]) == (chosen["params"], chosen["tokens"])


def test_compared_laws_are_drawn_best_first_with_the_chosen_one_named(evidence: Evidence) -> None:
    comparison = evidence.law["comparison"]
    panel = panel_of("comparison", evidence, title="cut")
    labels = [series.label for series in panel.series if series.label]
    assert labels[:2] == ["chinchilla_tied (chosen)", "chinchilla"]
    assert labels[-1] == "1 further law"
    chosen = labelled(panel, "chinchilla_tied")
    drawn = dict(zip(chosen.x, chosen.y, strict=True))
    for cut, error in zip(comparison["cuts"], comparison["laws"][0]["errors"], strict=True):
        assert drawn[cut["factor"]] == pytest.approx(100 * error["rms"])


def test_residuals_are_drawn_against_size_compute_and_prediction(evidence: Evidence) -> None:
    panels = EXHIBITS["residuals"].panels(evidence)
    assert [panel.title.split()[-1] for panel in panels] == ["size", "compute", "prediction"]
    rows = evidence.fitted
    for panel in panels:
        drawn = [value for series in panel.series if series.shape == "points" for value in series.y]
        wanted = [100 * (row["loss"] / row["predicted"] - 1) for row in rows]
        np.testing.assert_allclose(drawn, wanted, atol=1e-9)


def test_run_far_off_is_counted_and_does_not_press_the_rest_together(evidence: Evidence) -> None:
    rows = [dict(row) for row in evidence.fitted]
    rows[0]["residual"] = 0.4
    panels = EXHIBITS["residuals"].panels(
        changed(evidence, diagnostics={**evidence.law["diagnostics"], "residuals": rows})
    )
    assert all("1 of 20 beyond the axis" in panel.notes for panel in panels)
    assert all(panel.y.high < 5 for panel in panels)


def test_many_budgets_share_a_colour_scale_in_place_of_words(evidence: Evidence) -> None:
    budgets = evidence.law["isoflop"]["budgets"] * 3
    panel = panel_of("isoflop", changed(evidence, isoflop={"budgets": budgets}))
    assert not any(series.tag for series in panel.series)
    assert panel.scale is not None


@pytest.mark.parametrize("name", EXHIBITS)
@pytest.mark.parametrize(
    "without", ["law", "isoflop", "frontier", "comparison", "identifiability", "counts"]
)
def test_exhibit_without_its_part_says_why(evidence: Evidence, name: str, without: str) -> None:
    law = json.loads(json.dumps(evidence.law))
    if without == "identifiability":
        law["diagnostics"].pop(without)
    elif without == "counts":
        law |= {"isoflop": None, "frontier": None}
        for row in law["diagnostics"]["residuals"]:
            row |= {"params": None, "tokens": None, "flops": None}
    else:
        law[without] = None
    less = Evidence(law=None if without == "law" else law)
    panels = EXHIBITS[name].panels(less)
    assert panels or EXHIBITS[name].absent(less).endswith(".") or name in ("fit", "plan")


def test_law_of_accuracy_has_residuals_in_its_own_unit(studies: SimpleNamespace) -> None:
    law = studies.accuracy()
    (panel,) = EXHIBITS["residuals"].panels(Evidence(law=law))
    drawn = next(series for series in panel.series if series.shape == "points")
    assert list(drawn.y) == [row["residual"] for row in law["diagnostics"]["residuals"]]
    assert panel.y.title == "Residual (accuracy)"


def test_law_of_one_input_is_drawn_as_a_curve_through_its_runs(studies: SimpleNamespace) -> None:
    law = studies.accuracy()
    for row in law["diagnostics"]["residuals"]:
        row["loss"] = 2.0 + row["predicted"]
    (panel,) = EXHIBITS["fit"].panels(Evidence(law=law))
    curve = labelled(panel, "Fitted law")
    s, k, x_0, t = (law["params"][name] for name in ("s", "k", "x_0", "t"))
    np.testing.assert_allclose(curve.y, [t + s / (1 + math.exp(-k * (x - x_0))) for x in curve.x])
    measured = [row["loss"] for row in law["diagnostics"]["residuals"]]
    assert (curve.x[0], curve.x[-1]) == pytest.approx((min(measured), max(measured)))
    assert panel.x.title == "Loss"
