"""The report shows what the files say, to anybody, in any browser, and fetches nothing."""

import hashlib
import io
import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plotly.offline import get_plotlyjs
from rich.console import Console

from scaling.analysis.evidence import read_evidence
from scaling.analysis.exhibits import FIGURES
from scaling.analysis.report import headline, render_page, terminal_table, write_report

BUDGETS = (3e11, 5.5e11, 1e12, 1.8e12)
SIZES = (19_000, 34_000, 61_000, 107_000, 190_000, 330_000)
LAW = {"E": 1.51, "A": 82.0, "B": 240.0, "alpha": 0.4, "beta": 0.4}


def law_loss(params: Any, tokens: Any) -> Any:
    return LAW["E"] + LAW["A"] / params ** LAW["alpha"] + LAW["B"] / tokens ** LAW["beta"]


def best_size(flops: Any) -> Any:
    ratio, total = LAW["alpha"] * LAW["A"] / (LAW["beta"] * LAW["B"]), LAW["alpha"] + LAW["beta"]
    return ratio ** (1 / total) * (flops / 6) ** (LAW["beta"] / total)


def make_record(
    params: float, flops: float, *, loss: float, run_id: str, **other: Any
) -> dict[str, Any]:
    tokens = round(flops / (6 * params))
    record = {
        "schema": 1, "run_id": run_id, "status": "ok", "reason": None,
        "config": {"study": "quickstart", "data": {"languages": ["en", "fr", "es"]},
                   "model": {"params": params, "vocabulary": 512},
                   "optimizer": {"learning_rate": 0.02 * (1e5 / params) ** 0.25}, "seed": 0},
        "config_hash": "00ff", "params_total": params,
        "params_non_embedding": int(params * 0.8), "params_embedding": int(params * 0.2),
        "tokens": tokens, "unique_tokens": tokens, "epochs": 1.0, "flops_6nd": 6 * params * tokens,
        "flops_counted": 6.3 * params * tokens, "loss": loss, "loss_stderr": 0.004,
        "bits_per_byte": loss / math.log(2) / 2.1, "seed": 0,
        "learning_rate": 0.02 * (1e5 / params) ** 0.25, "batch_tokens": 2048,
        "wall_seconds": flops / 4e10 + 6, "train_seconds": flops / 4e10, "compile_seconds": 6.0,
        "tokens_per_second": tokens / (flops / 4e10), "mfu": None, "device_kind": "cpu",
        "device_count": 1, "versions": {"jax": "0.10.2", "flax": "0.12.8", "python": "3.11.7"},
        "code_version": "0.1.0", "created": "2026-11-24T10:00:00+00:00", "objective": "causal",
        "tokenizer_hash": "ab12", "data_hash": "cd34", "parent": None, "tuned": False,
        "null_reasons": {"mfu": "no peak is known for this cpu", "parent": "trained from scratch"},
    }  # fmt: skip
    return record | other


def make_metrics(record: dict[str, Any]) -> str:
    lines = []
    for index, part in enumerate(np.geomspace(0.02, 1.0, 14)):
        tokens = int(part * record["tokens"])
        reached = record["loss"] + (6.2 - record["loss"]) * math.exp(-3.2 * (part / 0.1) ** 0.45)
        lines.append(
            {"step": index, "tokens": tokens, "eval/validation/loss": reached,
             "eval/validation/bpb": reached / 1.45}
        )  # fmt: skip
    return "\n".join(json.dumps(line) for line in lines) + "\n"


def make_law(runs: list[dict[str, Any]]) -> dict[str, Any]:
    def interval(value: float, spread: float) -> list[float]:
        return [value * (1 - spread), value * (1 + spread)]

    residuals, budgets = [], []
    for run in runs:
        predicted = float(law_loss(run["params_total"], run["tokens"]))
        residuals.append(
            {"run_id": run["run_id"], "params": run["params_total"], "tokens": run["tokens"],
             "flops": run["flops_6nd"], "loss": run["loss"], "predicted": predicted,
             "residual": math.log(run["loss"] / predicted)}
        )  # fmt: skip
    for flops in BUDGETS:
        own = [run for run in runs if abs(run["flops_6nd"] / flops - 1) < 0.1]
        x = np.log([run["params_total"] for run in own])
        c0, c1, c2 = np.polynomial.polynomial.polyfit(x, [run["loss"] for run in own], 2).tolist()
        best = math.exp(-c1 / (2 * c2))
        lowest = c0 - c1**2 / (4 * c2)
        budgets.append(
            {"flops": flops, "n_runs": len(own),
             "interior": bool(min(np.exp(x)) < best < max(np.exp(x))), "params_opt": best,
             "tokens_opt": flops / (6 * best), "loss_opt": lowest, "coefficients": [c0, c1, c2],
             "interval_90": {"params_opt": interval(best, 0.17),
                             "loss_opt": interval(lowest, 0.003)}}
        )  # fmt: skip
    flops = np.geomspace(min(BUDGETS), 10 * max(BUDGETS), 60)
    params, centre = best_size(flops), math.log(7e11)
    tokens = flops / (6 * params)
    spread = 0.04 + 0.07 * np.abs(np.log(flops) - centre)
    loss = law_loss(params, tokens)
    return {
        "schema": 1, "law": "chinchilla", "equation": "L = E + A/params^alpha + B/tokens^beta",
        "params": LAW, "stderr": {name: 0.06 * value for name, value in LAW.items()},
        "interval_95": {name: interval(value, 0.12) for name, value in LAW.items()},
        "objective": {"name": "huber_log", "delta": 0.001, "value": 3.1e-4}, "n_runs": len(runs),
        "dropped": [{"run_id": "w120-1.8e12", "reason": "status diverged: loss rose to 9.1"}],
        "convention": {"params": "params_total", "tokens": "tokens", "flops": "flops_6nd",
                       "loss": "nats per token"},
        "diagnostics": {
            "starts": 4500, "share_best": 0.83, "second_basin_gap": None, "gradient_norm": 2.1e-12,
            "residual_sd": 0.0041, "degrees_of_freedom": len(runs) - 5, "residuals": residuals,
            "trend": {"params": {"slope": 0.0004, "p_value": 0.62},
                      "flops": {"slope": -0.0011, "p_value": 0.31}},
            "warnings": ["The second budget has 5 runs; 6 or more make its minimum firmer."],
        },
        "isoflop": {"budgets": budgets,
                    "params_exponent": {"value": 0.51, "interval_90": [0.43, 0.58]}},
        "frontier": {
            "flops": flops.tolist(), "params": params.tolist(), "tokens": tokens.tolist(),
            "loss": loss.tolist(),
            "interval_90": {
                "params": [[p * (1 - s), p * (1 + s)] for p, s in zip(params, spread, strict=True)],
                "loss": [[v * (1 - s / 14), v * (1 + s / 14)]
                         for v, s in zip(loss, spread, strict=True)]}},
        "bootstrap": {"method": "residual", "n": 1000, "seed": 0, "samples": {"E": [1.5, 1.6]}},
    }  # fmt: skip


def make_plan(params: float, flops: float) -> dict[str, Any]:
    best = float(best_size(flops))
    loss = float(law_loss(params, flops / 6 / params))
    at_best = float(law_loss(best, flops / 6 / best))
    return {
        "schema": 1, "law": {"name": "chinchilla"}, "created": "2026-11-24T09:00:00+00:00",
        "targets": [{
            "flops": flops,
            "params": {"value": best, "interval_90": [best * 0.85, best * 1.2]},
            "tokens": {"value": flops / 6 / best,
                       "interval_90": [flops / 7 / best, flops / 5 / best]},
            "loss": {"value": at_best, "interval_90": [at_best * 0.99, at_best * 1.01]},
            "run": {"params": params, "tokens": round(flops / 6 / params), "flops": flops,
                    "loss": {"value": loss, "interval_90": [loss * 0.988, loss * 1.012]}},
            "overrides": {"model.width": 88, "training.tokens": round(flops / 6 / params)},
        }],
    }  # fmt: skip


def write_study(workdir: Path, *, fitted: bool = True, planned: bool = True) -> Path:
    """A workdir as the quickstart leaves it: 4 budgets, 5 sizes each, one run diverged."""
    random = np.random.default_rng(0)
    runs = []
    for index, flops in enumerate(BUDGETS):
        for params in SIZES[index // 2 : index // 2 + 5]:
            loss = float(law_loss(params, flops / 6 / params)) * math.exp(random.normal(0, 0.004))
            run_id = f"p{params}-c{flops:.1e}".replace("+", "")
            runs.append(make_record(params, flops, loss=loss, run_id=run_id))
    lost = make_record(
        410_000, 1.8e12, loss=0.0, run_id="w120-1.8e12", status="diverged",
        reason="the training loss rose to 9.1 at step 140, above 6.2 at the start",
    )  # fmt: skip
    for field in ("loss", "loss_stderr", "bits_per_byte"):
        lost[field] = None
        lost["null_reasons"][field] = "the run diverged"
    written = [*runs, lost]
    if planned:
        target = make_record(190_000, 6e12, loss=2.621, run_id="planned-6.0e12",
                             created="2026-11-24T11:00:00+00:00")  # fmt: skip
        written.append(target)
        plan = make_plan(190_000, 6e12)
        predicted = plan["targets"][0]["run"]["loss"]
        verdict = {
            "schema": 1, "run_id": target["run_id"], "flops": 6e12, "params": 190_000,
            "tokens": target["tokens"], "predicted": predicted, "measured": target["loss"],
            "relative_error": predicted["value"] / target["loss"] - 1,
            "inside_interval": True,
            "optimal_params": plan["targets"][0]["params"],
        }  # fmt: skip
        (workdir / "plan.json").write_text(json.dumps(plan))
        (workdir / "verdict.json").write_text(json.dumps(verdict))
    if fitted:
        (workdir / "law.json").write_text(json.dumps(make_law(runs)))
    (workdir / "records").mkdir()
    for record in written:
        (workdir / "records" / f"{record['run_id']}.json").write_text(json.dumps(record))
        if record["status"] == "ok":
            folder = workdir / "runs" / record["run_id"]
            folder.mkdir(parents=True)
            (folder / "metrics.jsonl").write_text(make_metrics(record))
    return workdir


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


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = write_study(tmp_path_factory.mktemp("study"))
    write_report(workdir)
    return workdir


def test_report_writes_the_page_and_four_figures(study: Path) -> None:
    written = [path.relative_to(study).as_posix() for path in write_report(study)]
    assert written == ["report.html", *(f"figures/{name}.png" for name in FIGURES)]
    for path in written[1:]:
        assert (study / path).read_bytes().startswith(b"\x89PNG")
    assert (study / "report.html").stat().st_size < 6e6


def test_headline_says_predicted_measured_and_whether_the_interval_held(study: Path) -> None:
    text = headline(read_evidence(study))
    verdict = json.loads((study / "verdict.json").read_text())
    assert f"Predicted {verdict['predicted']['value']:.3f}" in text
    assert "measured 2.621" in text
    assert "held the measured loss" in text
    assert "3.3 times the largest" in text


def test_headline_says_so_when_the_interval_did_not_hold(tmp_path: Path) -> None:
    write_study(tmp_path)
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
    assert 'title="the run diverged">–</td>' in row[0]
    assert "the training loss rose to 9.1 at step 140" in body


def test_drawn_minima_are_those_of_the_law_file_and_lie_on_their_parabolas(study: Path) -> None:
    law = json.loads((study / "law.json").read_text())
    (panel,) = FIGURES["isoflop"](read_evidence(study))
    curves = [series for series in panel.series if series.shape == "line"]
    minima = [series for series in panel.series if series.marker.startswith("diamond")]
    assert len(curves) == len(minima) == len(law["isoflop"]["budgets"])
    lowest = sorted(min(curve.y) for curve in curves)
    marked = sorted(mark.y[0] for mark in minima)
    np.testing.assert_allclose(lowest, marked, rtol=1e-3)


def test_minimum_that_is_not_interior_is_drawn_hollow(tmp_path: Path) -> None:
    write_study(tmp_path)
    law = json.loads((tmp_path / "law.json").read_text())
    law["isoflop"]["budgets"][0]["interior"] = False
    nothing = {"params_opt": None, "tokens_opt": None, "loss_opt": None, "interior": False}
    law["isoflop"]["budgets"][1] |= nothing
    (tmp_path / "law.json").write_text(json.dumps(law))
    (panel,) = FIGURES["isoflop"](read_evidence(tmp_path))
    drawn = [series.marker for series in panel.series if series.marker.startswith("diamond")]
    assert drawn == ["diamond-open", "diamond", "diamond"]
    assert "the parabola has no minimum" in body_of(page_of(tmp_path))


def test_law_without_any_interior_minimum_can_be_drawn(tmp_path: Path) -> None:
    write_study(tmp_path)
    law = json.loads((tmp_path / "law.json").read_text())
    for budget in law["isoflop"]["budgets"]:
        budget |= {"interior": False, "interval_90": None, "params_opt": 1e-9}
    law["isoflop"]["params_exponent"] = None
    (tmp_path / "law.json").write_text(json.dumps(law))
    assert len(write_report(tmp_path)) == 5


def test_browser_and_paper_show_the_same_points(study: Path) -> None:
    charts = charts_of(read_page(study))
    panels = FIGURES["frontier"](read_evidence(study))
    for index, panel in enumerate(panels):
        drawn = [
            trace for trace in charts[f"frontier-{index}"]["data"] if trace["mode"] == "markers"
        ]
        points = [series for series in panel.series if series.shape == "points"]
        assert [trace["y"] for trace in drawn] == [list(series.y) for series in points]


def test_same_files_give_the_same_bytes_and_are_not_written_again(study: Path) -> None:
    paths = write_report(study)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}
    write_report(study)
    assert before == {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def test_records_alone_make_a_report_that_says_what_is_not_there_yet(tmp_path: Path) -> None:
    write_study(tmp_path, fitted=False, planned=False)
    for path in (tmp_path / "runs").glob("*/metrics.jsonl"):
        path.unlink()
    written = [path.name for path in write_report(tmp_path)]
    assert written == ["report.html", "isoflop.png"]
    body = body_of(read_page(tmp_path))
    for words in ("No run with a record has metrics yet", "law.json is not there",
                  "plan.json is not there", "no law is fitted yet"):  # fmt: skip
        assert words in body


def test_planned_run_that_is_not_trained_is_announced_as_such(tmp_path: Path) -> None:
    write_study(tmp_path)
    (tmp_path / "verdict.json").unlink()
    assert "has not been trained yet" in body_of(page_of(tmp_path))


def test_one_run_alone_can_be_drawn(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    record = make_record(61_000, 3e11, loss=3.5, run_id="alone")
    (tmp_path / "records" / "alone.json").write_text(json.dumps(record))
    assert [path.name for path in write_report(tmp_path)] == ["report.html", "isoflop.png"]


def test_law_that_changed_after_the_plan_is_warned_of(tmp_path: Path) -> None:
    write_study(tmp_path)
    digest = hashlib.sha256((tmp_path / "law.json").read_bytes()).hexdigest()
    change(tmp_path / "plan.json", law={"name": "chinchilla", "sha256": digest})
    assert read_evidence(tmp_path).problems == ()
    (tmp_path / "law.json").write_text((tmp_path / "law.json").read_text() + "\n")
    assert "not the one that plan.json was made with" in body_of(page_of(tmp_path))


def test_plan_made_after_the_run_is_not_called_a_prediction(tmp_path: Path) -> None:
    write_study(tmp_path)
    change(tmp_path / "plan.json", created="2026-11-25T00:00:00Z")
    assert "is not a prediction" in body_of(page_of(tmp_path))


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>&\"'\x1b[31m"


def write_hostile_study(workdir: Path) -> Path:
    write_study(workdir)
    record = make_record(
        61_000, 1e12, loss=3.2, run_id="stranger", status="ok", device_kind=HOSTILE,
        config={HOSTILE: HOSTILE}, code_version=HOSTILE, versions={HOSTILE: HOSTILE},
        null_reasons={"mfu": HOSTILE},
    )  # fmt: skip
    (workdir / "records" / "stranger.json").write_text(json.dumps(record))
    law = json.loads((workdir / "law.json").read_text())
    law |= {"equation": HOSTILE, "dropped": [{"run_id": HOSTILE, "reason": HOSTILE}]}
    law["diagnostics"]["warnings"] = [HOSTILE]
    law["diagnostics"]["residuals"][0]["run_id"] = HOSTILE
    (workdir / "law.json").write_text(json.dumps(law))
    return workdir


def test_text_of_strangers_is_shown_and_never_run(tmp_path: Path) -> None:
    page = page_of(write_hostile_study(tmp_path))
    assert page.count("<script") - get_plotlyjs().count("<script") == 3
    assert "<img src" not in body_of(page)
    assert "&lt;img src=x onerror=alert(1)&gt;" in body_of(page)
    assert "\x1b" not in page
    hovers = [trace.get("text") for trace in charts_of(page)["residuals-0"]["data"]]
    assert any(texts and "&lt;script&gt;" in texts[0] for texts in hovers)


def test_terminal_table_shows_runs_minima_law_and_verdict_within_80_letters(study: Path) -> None:
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(terminal_table(study))
    text = console.export_text()
    for words in ("p61000-c3.0e11", "diverged", "IsoFLOP minima", "alpha", "2.6210", "+0.57%"):
        assert words in text
    assert max(map(len, text.splitlines())) <= 80


def test_terminal_table_lets_no_control_character_through(tmp_path: Path) -> None:
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(terminal_table(write_hostile_study(tmp_path)))
    assert "\x1b" not in console.export_text(styles=False)


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def open_in_browser(page: Path, *, folder: Path) -> subprocess.CompletedProcess[str]:
    """Chromium's rendered page on stdout, its console on stderr, every request in net.json."""
    assert CHROMIUM
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             "--enable-logging=stderr", "--v=0", f"--user-data-dir={folder / 'profile'}",
             "--host-resolver-rules=MAP * ~NOTFOUND", f"--log-net-log={folder / 'net.json'}",
             "--dump-dom"]  # fmt: skip
    command = [CHROMIUM, *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)


def requests_of_page(folder: Path) -> list[str]:
    """What the page asked of the network; the browser's own services bear "not an origin"."""
    log = (folder / "net.json").read_text()
    started = re.findall(r'"initiator":"([^"]*)"[^\n]*?"url":"(https?:[^"]*)"', log)
    return [url for initiator, url in started if initiator != "not an origin"]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="neither chromium nor google-chrome is installed")
@pytest.mark.parametrize("write", [write_study, write_hostile_study])
def test_report_opens_in_a_browser_without_console_error_or_request(
    tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    page = write_report(write(tmp_path))[0]
    seen = open_in_browser(page, folder=tmp_path)
    assert "CONSOLE" not in seen.stderr
    charts = charts_of(read_page(tmp_path))
    for name in charts:
        place = rf'class="chart js-plotly-plot" id="{name}"'
        drawn = re.search(place + r'[^<]*(<div[^>]*>){1,4}<svg class="main-svg"', seen.stdout)
        assert drawn, f"{name} was not drawn"
    assert requests_of_page(tmp_path) == []


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="neither chromium nor google-chrome is installed")
def test_browser_check_sees_console_errors_and_requests(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    image = '<img src="http://example.invalid/x.png">'
    page.write_text(f'<script>console.error("seen")</script>{image}')
    seen = open_in_browser(page, folder=tmp_path)
    assert "CONSOLE" in seen.stderr
    assert requests_of_page(tmp_path) == ["http://example.invalid/x.png"]
