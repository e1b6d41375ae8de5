"""The report shows what the files say, to anybody, in any browser, and fetches nothing."""

import hashlib
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from plotly.offline import get_plotlyjs

from scaling.analysis.evidence import Evidence, read_evidence
from scaling.analysis.report import headline, render_page, write_report
from scaling.analysis.report.charts import themes
from scaling.analysis.report.exhibits import EXHIBITS
from scaling.analysis.report.figures import SPAN, scale_colours
from scaling.analysis.report.panels import ROLES
from scaling.analysis.report.tables.laws import law_table


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def read_page(workdir: Path) -> str:
    return (workdir / "report.html").read_text(encoding="utf-8")


def page_of(workdir: Path) -> str:
    return render_page(read_evidence(workdir))


def body_of(page: str) -> str:
    return page[page.index("<main>") : page.index("</main>")]


def charts_of(page: str) -> dict[str, Any]:
    return data_of(page)["panels"]


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="charts">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found[1])


def drawn_of(workdir: Path) -> set[str]:
    evidence = read_evidence(workdir)
    return {name for name, exhibit in EXHIBITS.items() if exhibit.panels(evidence)}


def test_report_is_the_page_and_every_figure_as_png_and_pdf(study: Path) -> None:
    first = read_page(study)
    written = [path.relative_to(study).as_posix() for path in write_report(study)]
    names = [name for name in EXHIBITS if name != "fit"]  # the frontier shows that better
    drawn = [f"figures/{name}.{kind}" for name in names for kind in ("png", "pdf")]
    assert written == ["report.html", *drawn]
    for path in drawn:
        magic = b"\x89PNG" if path.endswith("png") else b"%PDF"
        assert (study / path).read_bytes().startswith(magic)
    assert read_page(study) == first
    assert len(first) < 6e6


def test_same_files_give_the_same_bytes(tmp_path: Path, studies: SimpleNamespace) -> None:
    law = studies.accuracy()
    law["diagnostics"].pop("identifiability")
    (tmp_path / "law.json").write_text(json.dumps(law))
    first = {path: path.read_bytes() for path in write_report(tmp_path)}
    for path in first:
        path.unlink()
    assert first == {path: path.read_bytes() for path in write_report(tmp_path)}


def test_page_of_a_table_of_thousands_of_rows_stays_small(
    study: Path, studies: SimpleNamespace
) -> None:
    law = json.loads((study / "law.json").read_text())
    rows = law["diagnostics"]["residuals"] * 193
    law["diagnostics"]["residuals"] = [{**row, "run_id": f"r{i}"} for i, row in enumerate(rows)]
    assert len(rows) > 3850
    assert len(render_page(Evidence(law=law)).encode()) < 8e6


def test_every_text_and_mark_stands_out_from_its_ground_in_both_themes() -> None:
    shown = themes()
    for theme in ("light", "dark"):
        colours = shown[theme]
        ground = colours["@ground"]
        for name in ("@text", "@quiet", "@ink"):
            assert contrast(colours[name], ground) >= 4.5
        marks = [colours[f"@{role}"] for role in ROLES] + [c for _, c in colours["@scale"]]
        assert all(contrast(colour, ground) >= 2.99 for colour in marks)
    paper = [contrast(colour, "#ffffff") for colour in (*ROLES.values(), *scale_colours(*SPAN))]
    assert min(paper) >= 2.99


def contrast(one: str, other: str) -> float:
    """Contrast of two colours by the definition of WCAG 2.2."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_plan_says_how_to_train_it_and_what_it_takes_for_granted(study: Path) -> None:
    body = body_of(read_page(study))
    plan = json.loads((study / "plan.json").read_text())
    for key, value in plan["targets"][0]["overrides"].items():
        assert f"--config.{key}={value}" in body
    assert plan["assumptions"][0] in body
    assert "the learning rate is from a rule" in body


def test_headline_says_predicted_measured_and_whether_the_interval_held(study: Path) -> None:
    text = headline(read_evidence(study))
    verdict = json.loads((study / "verdict.json").read_text())
    assert f"Predicted {verdict['predicted']['value']:.3f}" in text
    assert "measured 2.621" in text
    assert "held the measured loss" in text
    assert "3.3 times the largest" in text


def test_a_law_of_bits_is_not_said_to_be_of_nats(tmp_path: Path, studies: SimpleNamespace) -> None:
    studies.write(tmp_path)
    law = json.loads((tmp_path / "law.json").read_text())
    change(tmp_path / "law.json", convention=law["convention"] | {"loss": "val_bpb"})
    evidence = read_evidence(tmp_path)
    assert "in the unit of val_bpb, measured" in headline(evidence)
    units = [row[-1] for row in law_table(evidence).rows]
    assert "in the unit of val_bpb" in units
    assert "nats per token" not in units
    assert "nats per token, measured" in headline(Evidence(verdict=evidence.verdict))


def test_headline_says_so_when_the_interval_did_not_hold(
    tmp_path: Path, studies: SimpleNamespace
) -> None:
    studies.write(tmp_path)
    path = tmp_path / "verdict.json"
    change(path, measured=3.0, inside_interval=False, relative_error=-0.12)
    text = headline(read_evidence(tmp_path))
    assert "did not hold the measured loss" in text
    assert "12.00% below" in text


def test_every_run_stands_in_the_table_with_its_loss(study: Path) -> None:
    body = body_of(read_page(study))
    for path in (study / "records").glob("*.json"):
        record = json.loads(path.read_text())
        assert f"<td>{record['run_id']}</td>" in body
        if record["loss"] is not None:
            assert f"<td>{record['loss']:.4f}</td>" in body


def test_diverged_run_is_shown_with_its_reason_and_no_number(study: Path) -> None:
    body = body_of(read_page(study))
    row = re.search(r"<tr><td>w120-1.8e12</td><td>diverged</td>.*?</tr>", body)
    assert row
    assert 'title="the run diverged">–<span class="heard"> (the run diverged)</span>' in row[0]
    assert "the training loss rose to 9.1 at step 140" in body


def test_law_without_any_interior_minimum_can_be_drawn(
    tmp_path: Path, studies: SimpleNamespace
) -> None:
    studies.write(tmp_path)
    law = json.loads((tmp_path / "law.json").read_text())
    for budget in law["isoflop"]["budgets"]:
        budget |= {"interior": False, "interval_90": None, "params_opt": 1e-9}
    law["isoflop"]["params_exponent"] = None
    (tmp_path / "law.json").write_text(json.dumps(law))
    assert drawn_of(tmp_path) > {"isoflop", "frontier"}
    assert "IsoFLOP minima" in page_of(tmp_path)


def test_browser_and_paper_show_the_same_points(study: Path) -> None:
    charts = charts_of(read_page(study))
    panels = EXHIBITS["frontier"].panels(read_evidence(study))
    for index, panel in enumerate(panels):
        drawn = [
            trace for trace in charts[f"frontier-{index}"]["data"] if trace["mode"] == "markers"
        ]
        points = [series for series in panel.series if series.shape == "points"]
        for trace, series in zip(drawn, points, strict=True):
            assert trace["y"] == pytest.approx(series.y, rel=1e-5)


def test_records_alone_make_a_report_that_says_what_is_not_there_yet(
    tmp_path: Path, studies: SimpleNamespace
) -> None:
    studies.write(tmp_path, fitted=False, planned=False)
    for path in (tmp_path / "runs").glob("*/metrics.jsonl"):
        path.unlink()
    assert drawn_of(tmp_path) == {"loss_curves", "isoflop"}
    body = body_of(page_of(tmp_path))
    for words in ("law.json is not there", "No larger run is planned yet", "no law is fitted yet",
                  "No law has been fitted yet", "No laws were compared"):  # fmt: skip
        assert words in body


def test_warnings_stand_before_everything_but_the_headline(study: Path) -> None:
    body = body_of(read_page(study))
    assert body.index("The second budget has 5 runs") < body.index("<nav") < body.index("<section")


def test_every_section_is_linked_and_every_table_can_be_reached_by_keys(study: Path) -> None:
    body = body_of(read_page(study))
    linked = re.findall(r'<a href="#([\w-]+)">', body)
    assert linked == re.findall(r'<h2 id="([\w-]+)">', body)
    assert body.count('<div class="table"') == body.count('role="group" tabindex="0"') > 8


def test_both_themes_give_every_colour_that_the_charts_name(study: Path) -> None:
    page = read_page(study)
    both, texts = data_of(page)["themes"], data_of(page)["texts"]
    named = set(re.findall(r'"(@[\w-]+)"', json.dumps(charts_of(page))))
    assert both["light"].keys() == both["dark"].keys() >= named - texts.keys()
    assert both["light"] != both["dark"]


def test_planned_run_that_is_not_trained_is_announced_as_such(
    tmp_path: Path, studies: SimpleNamespace
) -> None:
    studies.write(tmp_path)
    (tmp_path / "verdict.json").unlink()
    assert "has not been trained yet" in body_of(page_of(tmp_path))


def test_one_run_alone_can_be_drawn(tmp_path: Path, studies: SimpleNamespace) -> None:
    (tmp_path / "records").mkdir()
    record = studies.record(61_000, 3e11, loss=3.5, run_id="alone")
    (tmp_path / "records" / "alone.json").write_text(json.dumps(record))
    assert drawn_of(tmp_path) == {"loss_curves", "isoflop"}
    assert len(charts_of(page_of(tmp_path))) == 2


def test_law_that_changed_after_the_plan_is_warned_of(
    tmp_path: Path, studies: SimpleNamespace
) -> None:
    studies.write(tmp_path)
    digest = hashlib.sha256((tmp_path / "law.json").read_bytes()).hexdigest()
    change(tmp_path / "plan.json", law={"name": "chinchilla", "sha256": digest})
    assert read_evidence(tmp_path).problems == ()
    (tmp_path / "law.json").write_text((tmp_path / "law.json").read_text() + "\n")
    assert "not the one that plan.json was made with" in body_of(page_of(tmp_path))


def test_plan_made_after_the_run_is_not_called_a_prediction(
    tmp_path: Path, studies: SimpleNamespace
) -> None:
    studies.write(tmp_path)
    change(tmp_path / "plan.json", created="2026-11-25T00:00:00Z")
    assert "is not a prediction" in body_of(page_of(tmp_path))


def test_text_of_strangers_is_shown_and_never_run(tmp_path: Path, studies: SimpleNamespace) -> None:
    page = page_of(studies.hostile(tmp_path))
    assert page.count("<script") - get_plotlyjs().count("<script") == 3
    assert "<img src" not in body_of(page)
    assert "&lt;img src=x onerror=alert(1)&gt;" in body_of(page)
    assert "\x1b" not in page
    hovers = data_of(page)["texts"].values()
    assert any("&lt;script&gt;" in texts[0] for texts in hovers)
    assert not any("<script" in text or "<img" in text for texts in hovers for text in texts)


def test_law_of_a_table_makes_a_report_without_any_record(
    tmp_path: Path, studies: SimpleNamespace
) -> None:
    studies.write(tmp_path)
    alone = tmp_path / "alone"
    alone.mkdir()
    (tmp_path / "law.json").rename(alone / "law.json")
    change(alone / "law.json", convention={"params": "N", "tokens": "D", "flops": "C"})
    assert drawn_of(alone) == {*EXHIBITS} - {"fit", "plan"}
    page = page_of(alone)
    assert (
        "Parameters (column N)" in charts_of(page)["isoflop-0"]["layout"]["xaxis"]["title"]["text"]
    )
    law = json.loads((alone / "law.json").read_text())
    for row in law["diagnostics"]["residuals"]:
        assert f"<td>{row['run_id']}</td>" in page


def test_law_of_another_target_says_why_there_is_no_frontier(
    tmp_path: Path, studies: SimpleNamespace
) -> None:
    (tmp_path / "law.json").write_text(json.dumps(studies.accuracy()))
    assert drawn_of(tmp_path) == {"fit", "profiles", "residuals"}
    body = body_of(page_of(tmp_path))
    assert "accuracy predicts accuracy from loss" in body
    assert "its runs have no loss to draw" in body
