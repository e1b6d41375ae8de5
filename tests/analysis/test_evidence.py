"""What stands in a work directory is read back whole, and what is damaged is named."""

import json
from pathlib import Path

import pytest

from scaling.analysis.evidence import ReportError, read_evidence

RECORD = {
    "schema": 1,
    "run_id": "a",
    "status": "ok",
    "config": {},
    "config_hash": "0",
    "versions": {},
    "created": "2026-11-24T10:00:00+00:00",
}


def write_one_run(workdir: Path) -> Path:
    (workdir / "records").mkdir()
    (workdir / "records" / "a.json").write_text(json.dumps(RECORD))
    return workdir


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("records/bad.json", "{", "records/bad.json was left out: it"),
        ("law.json", '{"schema": 1}', "it lacks law, params"),
        ("law.json", '{"schema": 1, "law": NaN}', "contains NaN"),
        ("plan.json", "[]", "is not a JSON object of schema 1"),
        ("runs/x/metrics.jsonl", 'no\n{"step": 1}\n', "line 1"),
        ("runs/x/metrics.jsonl", '{"tokens": 1}\n{"step": 1}\n', "line 1 is not an object"),
    ],
)
def test_damaged_file_is_named_and_the_rest_is_read(
    tmp_path: Path, name: str, text: str, found: str
) -> None:
    write_one_run(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
    (tmp_path / name).write_text(text)
    evidence = read_evidence(tmp_path)
    assert len(evidence.problems) == 1
    assert found in evidence.problems[0]
    assert [record.run_id for record in evidence.records] == ["a"]


def test_line_cut_off_by_a_kill_is_no_damage_and_a_resumed_run_counts_once(tmp_path: Path) -> None:
    write_one_run(tmp_path)
    (tmp_path / "runs" / "a").mkdir(parents=True)
    lines = [
        {"step": step, "tokens": 100 * step, "eval/validation/loss": loss}
        for step, loss in ((1, 5.0), (2, 4.0), (3, 3.5), (2, 4.1), (3, 3.6))
    ]
    text = "\n".join(json.dumps(line) for line in lines) + '\n{"step": 4, "tok'
    (tmp_path / "runs" / "a" / "metrics.jsonl").write_text(text)
    evidence = read_evidence(tmp_path)
    assert evidence.problems == ()
    curve = evidence.curves["a"]
    assert curve.tokens == (100.0, 200.0, 300.0)
    assert curve.loss == (5.0, 4.1, 3.6)


def test_losses_of_two_objectives_are_told_apart_and_a_law_brings_its_own_alone(
    tmp_path: Path,
) -> None:
    (tmp_path / "records").mkdir()
    numbers = {"params_total": 1000, "tokens": 20_000, "flops_6nd": 1.2e8, "loss": 3.0}
    for name, objective in (("a", "causal"), ("b", "masked")):
        record = RECORD | numbers | {"run_id": name, "objective": objective}
        (tmp_path / "records" / f"{name}.json").write_text(json.dumps(record))
    mixed = read_evidence(tmp_path)
    assert len(mixed.problems) == 1
    assert "runs of causal and masked" in mixed.problems[0]
    law = {"schema": 1, "law": "chinchilla", "params": {"E": 2.0}, "diagnostics": {"warnings": []}}
    convention = {"objective": "masked"}
    (tmp_path / "law.json").write_text(json.dumps(law | {"convention": convention}))
    chosen = read_evidence(tmp_path)
    assert chosen.problems == ()
    assert [run.run_id for run in chosen.measured()] == ["b"]


def test_run_with_metrics_and_no_record_is_unfinished(tmp_path: Path) -> None:
    write_one_run(tmp_path)
    (tmp_path / "runs" / "b").mkdir(parents=True)
    (tmp_path / "runs" / "b" / "metrics.jsonl").write_text("")
    assert read_evidence(tmp_path).unfinished == ("b",)


def test_empty_folder_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="train a run, fit a law there"):
        read_evidence(tmp_path)
