"""A bad table at the command line: named with its rows, exit code 2, and nothing overwritten."""

import json
import signal
import subprocess
import sys

import pytest

from scaling.cli import BAD_INPUT, main
from scaling.commands import analysis


def billions(table, rows=None):
    return [
        [n, d / (1e9 if rows is None or i in rows else 1), x] for i, (n, d, x) in enumerate(table)
    ]


def losses(value, row):
    def changed(table):
        table[row][2] = value
        return table

    return changed


@pytest.fixture
def fit(monkeypatch, capsys):
    """Runs the verb in this process: its exit code, and what it says."""
    monkeypatch.setattr(analysis, "_open_compile_cache", lambda: None)
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["fit", *map(str, arguments)])
        return ended.value.code, capsys.readouterr()

    yield run
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize("law", ["chinchilla", "auto"])
@pytest.mark.parametrize(
    ("head", "change", "message"),
    [
        ("params,tokens,loss", lambda rows: [], "holds no runs; give a source"),
        ("params,tokens,loss", lambda rows: rows[:4], "4 runs cannot determine"),
        ("params,tokens,loss", lambda rows: [[1e8, d, x] for _, d, x in rows],
         "all 20 runs have params = 1e+08; chinchilla needs at least three different values"),
        ("params,tokens,loss", billions,
         "tokens is 2 to 40 in all 20 rows, and the middle one has 2.2e-08 tokens per parameter"),
        ("params,tokens,loss", lambda rows: billions(rows, (3, 8)),
         "tokens is 2 to 40 in rows 5, 10, and 2e+09"),
        ("params,tokens,loss", losses(0, 4), "row 6: loss is '0'"),
        ("params,tokens,loss", losses(-1.5, 4), "row 6: loss is '-1.5'"),
        ("params,tokens,loss", losses("nan", 19), "row 21: loss is 'nan'"),
        ("params,tokens,nats", lambda rows: rows, "no column loss; found params, tokens, nats"),
        ("run_id,tokens,loss", lambda rows: rows, "no column params"),
    ],
)  # fmt: skip
def test_what_cannot_be_fitted_is_refused_and_the_law_that_was_there_stays(
    study, fit, tmp_path, law, head, change, message
):
    source = study(head=head, change=change)
    old = tmp_path / "law.json"
    old.write_text('{"an": "old law"}', encoding="utf-8")
    code, said = fit(source, f"--law={law}", f"--out={tmp_path}", "--overwrite")
    assert code == BAD_INPUT
    assert message in said.err
    assert len(said.err.splitlines()) == 1
    assert old.read_text(encoding="utf-8") == '{"an": "old law"}'
    assert sorted(path.name for path in tmp_path.iterdir()) == ["law.json", "runs.csv"]


def test_a_grid_of_two_objectives_is_fitted_one_at_a_time(study, fit, tmp_path):
    source = study(
        head="params,tokens,loss,objective",
        change=lambda rows: [[n, d, x * times, name] for n, d, x in rows
                             for times, name in ((1, "causal"), (0.9, "masked"))],
    )  # fmt: skip
    code, said = fit(source, f"--out={tmp_path}")
    assert code == BAD_INPUT
    assert "causal (20 of 40) and masked (20 of 40), whose losses no one law is of" in said.err
    assert not (tmp_path / "law.json").exists()
    code, said = fit(source, "--objective=masked", "--bootstrap=20", f"--out={tmp_path}")
    assert code == 0
    assert "Read 20 masked runs of" in said.out
    law = json.loads((tmp_path / "law.json").read_text(encoding="utf-8"))
    assert law["convention"]["objective"] == "masked"
    assert law["params"]["E"] == pytest.approx(0.9 * 1.8172, rel=1e-3)


def test_a_law_that_is_there_is_not_overwritten_unasked(study, fit, tmp_path):
    old = tmp_path / "law.json"
    old.write_text("{}", encoding="utf-8")
    code, said = fit(study(), f"--out={tmp_path}")
    assert code == BAD_INPUT
    assert "is there already; use --out=DIR for another place, or --overwrite" in said.err
    assert old.read_text(encoding="utf-8") == "{}"


def spoil(rows):
    """Losses in bits, one below the floor, FLOPs in two conventions and three times off, copies."""
    bits = [[n, d, 1.4427 * x, (6 if i % 8 < 4 else 3.5) * n * d] for i, (n, d, x) in
            enumerate(rows)]  # fmt: skip
    bits[5][3] *= 5
    bits[2][2] = 2.2
    return [*bits, bits[3], bits[7]]


def test_what_may_be_meant_is_fitted_with_a_warning_that_names_the_rows(study, tmp_path):
    source = study(head="params,tokens,loss,flops", change=spoil, noise=0.003)
    result = subprocess.run(
        [sys.executable, "-m", "scaling", "fit", source, "--bootstrap=2", f"--out={tmp_path}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    law = json.loads((tmp_path / "law.json").read_text(encoding="utf-8"))
    for text in (
        "every number of rows 22, 23 is that of rows 5, 9",
        "if they are bits, --columns 'loss=loss*0.6931'",
        "times 6 * params * tokens in row 7, more than 2 times off",
        "5% below those of most runs with more size, tokens and all else: 1 of 22 runs (row 4)",
        "row 4 under the floor of 2.6",
        "flops is 0.583 to 2.92 times 6 * params * tokens: budgets are grouped",
    ):
        assert any(text in warning for warning in law["diagnostics"]["warnings"]), text
        assert text in result.stdout
