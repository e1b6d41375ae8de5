"""The report shows what the files say, to anybody, in any browser, and fetches nothing."""

import hashlib
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from plotly.offline import get_plotlyjs

from scaling.analysis.evidence import read_evidence
from scaling.analysis.report import headline, render_page, write_report
from scaling.analysis.report.exhibits import EXHIBITS


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def read_page(workdir: Path) -> str:
    return (workdir / "report.html").read_text(encoding="utf-8")


def page_of(workdir: Path) -> str:
    return render_page(read_evidence(workdir))


def body_of(page: str) -> str:
    return page[page.index("<main>") : page.index("</main>")]


def charts_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="charts">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found[1])["panels"]


def drawn_of(workdir: Path) -> set[str]:
    evidence = read_evidence(workdir)
    return {name for name, exhibit in EXHIBITS.items() if exhibit.panels(evidence)}


def test_report_is_the_page_and_every_figure_as_png_and_pdf_and_the_same_again(study: Path) -> None:
    first = {path: path.stat().st_mtime_ns for path in study.rglob("*") if path.is_file()}
    written = [path.relative_to(study).as_posix() for path in write_report(study)]
    names = [name for name in EXHIBITS if name != "fit"]  # the frontier shows that better
    drawn = [f"figures/{name}.{kind}" for name in names for kind in ("png", "pdf")]
    assert written == ["report.html", *drawn]
    for path in drawn:
        magic = b"\x89PNG" if path.endswith("png") else b"%PDF"
        assert (study / path).read_bytes().startswith(magic)
    assert (study / "report.html").stat().st_size < 6e6
    # The same bytes are not written again.
    assert first == {path: path.stat().st_mtime_ns for path in study.rglob("*") if path.is_file()}


def test_headline_says_predicted_measured_and_whether_the_interval_held(study: Path) -> None:
    text = headline(read_evidence(study))
    verdict = json.loads((study / "verdict.json").read_text())
    assert f"Predicted {verdict['predicted']['value']:.3f}" in text
    assert "measured 2.621" in text
    assert "held the measured loss" in text
    assert "3.3 times the largest" in text


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
        assert [trace["y"] for trace in drawn] == [list(series.y) for series in points]


def test_records_alone_make_a_report_that_says_what_is_not_there_yet(
    tmp_path: Path, studies: SimpleNamespace
) -> None:
    studies.write(tmp_path, fitted=False, planned=False)
    for path in (tmp_path / "runs").glob("*/metrics.jsonl"):
        path.unlink()
    written = [path.name for path in write_report(tmp_path)]
    drawn = ["loss_curves.png", "loss_curves.pdf", "isoflop.png", "isoflop.pdf"]
    assert written == ["report.html", *drawn]
    body = body_of(read_page(tmp_path))
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
    both = json.loads(re.search(r'id="charts">(.*?)</script>', page, re.S)[1])["themes"]
    named = set(re.findall(r'"(@[\w-]+)"', json.dumps(charts_of(page))))
    assert both["light"].keys() == both["dark"].keys() >= named
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
    hovers = [trace.get("text") for trace in charts_of(page)["residuals-0"]["data"]]
    assert any(texts and "&lt;script&gt;" in texts[0] for texts in hovers)


def test_law_of_a_table_makes_a_report_without_any_record(
    tmp_path: Path, studies: SimpleNamespace
) -> None:
    studies.write(tmp_path)
    alone = tmp_path / "alone"
    alone.mkdir()
    (tmp_path / "law.json").rename(alone / "law.json")
    change(alone / "law.json", convention={"params": "N", "tokens": "D", "flops": "C"})
    assert drawn_of(alone) == {*EXHIBITS} - {"fit"}
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
    drawn = {path.stem for path in write_report(tmp_path)}
    assert drawn == {"report", "fit", "profiles", "residuals"}
    body = body_of(read_page(tmp_path))
    assert "accuracy predicts accuracy from loss" in body
    assert "its runs have no loss to draw" in body
