"""A terminal shows the same tables, a pipe gets whole rows in plain lines."""

import io
from pathlib import Path
from types import SimpleNamespace

from rich.console import Console

from scaling.analysis.evidence import Evidence, read_evidence
from scaling.analysis.report import show, terminal_table


def printed(evidence: Evidence, *, terminal: bool) -> str:
    file = io.StringIO()
    show(evidence, Console(file=file, width=80, force_terminal=terminal, color_system=None))
    return file.getvalue()


def test_terminal_shows_runs_minima_law_and_verdict_within_80_letters(study: Path) -> None:
    text = printed(read_evidence(study), terminal=True)
    for words in ("p61000-c3.0e11", "diverged", "IsoFLOP minima", "alpha", "2.6210", "+0.57%",
                  "Is this the best fit?", "chinchilla_tied"):  # fmt: skip
        assert words in text
    assert max(map(len, text.splitlines())) <= 80


def test_pipe_gets_each_row_of_a_table_in_one_plain_line(study: Path) -> None:
    text = printed(read_evidence(study), terminal=False)
    (row,) = [line for line in text.splitlines() if line.startswith("planned-6.0e12")]
    assert row.split()[:3] == ["planned-6.0e12", "ok", "190k"]
    assert len(row) > 80  # with the columns that a terminal has no room for
    assert not set("─│┃━\x1b") & set(text)


def test_both_name_every_warning(study: Path) -> None:
    for terminal in (True, False):
        assert "Warning: The second budget has 5 runs" in printed(
            read_evidence(study), terminal=terminal
        )


def test_long_table_is_cut_short_and_says_so(study: Path) -> None:
    evidence = read_evidence(study)
    many = Evidence(records=evidence.records * 5)
    for terminal in (True, False):
        assert "and 50 more, which report.html lists" in printed(many, terminal=terminal)


def test_neither_lets_a_control_character_through(tmp_path: Path, studies: SimpleNamespace) -> None:
    evidence = read_evidence(studies.hostile(tmp_path))
    assert "\x1b" not in printed(evidence, terminal=False)
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(terminal_table(tmp_path))
    assert "\x1b" not in console.export_text(styles=False)
