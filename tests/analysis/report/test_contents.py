"""A file that lacks something costs the parts that need it, and never the report."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scaling.analysis.evidence import read_evidence
from scaling.analysis.report import page, render_page
from scaling.analysis.report.contents import contents
from scaling.analysis.report.terminal import shown

DEPTH = 4
WRONG = (None, "word", -1.0, [], {})


def places(value: Any, depth: int = DEPTH) -> Iterator[tuple[Any, ...]]:
    """The way to every part of a document, of lists only the first element."""
    if depth and isinstance(value, dict | list) and value:
        entries = value.items() if isinstance(value, dict) else [(0, value[0])]
        for key, part in entries:
            yield (key,)
            for rest in places(part, depth - 1):
                yield (key, *rest)


def altered(document: Any, place: tuple[Any, ...], wrong: Any) -> Any:
    """The document with one part of another kind, or without it."""
    document = copy.deepcopy(document)
    part = document
    for key in place[:-1]:
        part = part[key]
    if wrong is KeyError:
        del part[place[-1]]
    else:
        part[place[-1]] = wrong
    return document


@pytest.mark.parametrize("name", ["law.json", "plan.json", "verdict.json"])
def test_whatever_is_missing_or_of_another_kind_never_stops_the_report(
    study: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "get_plotlyjs", lambda: "")  # megabytes, each time
    for path in ("law.json", "plan.json", "verdict.json"):
        (tmp_path / path).write_bytes((study / path).read_bytes())
    (tmp_path / "records").symlink_to(study / "records")
    whole = json.loads((study / name).read_text())
    every = 1 if name == "verdict.json" else 3
    for index, place in enumerate([*places(whole)][::every]):
        wrong = (*WRONG, KeyError)[index % (len(WRONG) + 1)]
        (tmp_path / name).write_text(json.dumps(altered(whole, place, wrong)))
        evidence = read_evidence(tmp_path)
        found = contents(evidence)
        assert found.sentences["headline"] or found.warnings, place
        assert "Scaling report" in render_page(evidence, found)
        assert shown(found)


def test_part_that_is_lost_is_named_with_its_remedy(study: Path, tmp_path: Path) -> None:
    law = json.loads((study / "law.json").read_text())
    (tmp_path / "law.json").write_text(json.dumps(altered(law, ("frontier", "loss"), KeyError)))
    written = render_page(read_evidence(tmp_path))
    assert "left out of this report: figure frontier" in written
    assert "make law.json and plan.json again" in written
    assert 'id="isoflop-0"' in written  # the others are there


def test_law_of_a_law_json_that_is_no_object_is_left_out(study: Path, tmp_path: Path) -> None:
    law = json.loads((study / "law.json").read_text())
    (tmp_path / "law.json").write_text(json.dumps({**law, "diagnostics": []}))
    (tmp_path / "records").symlink_to(study / "records")
    evidence = read_evidence(tmp_path)
    assert evidence.law is None
    assert "lacks diagnostics" in evidence.problems[0]
