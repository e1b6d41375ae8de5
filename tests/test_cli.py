"""The command line as a user meets it."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from scaling.cli import VERBS

CSV = "N,D,final\n" + "\n".join(
    f"{n},{d},{1.7 + 400 / n**0.34 + 400 / d**0.28:.5f}"
    for n in (10_000_000, 30_000_000, 100_000_000)
    for d in (1e9, 3e9, 1e10)
)


def scaling(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scaling", *arguments], capture_output=True, text=True, check=False
    )


def test_help_answers_in_under_half_a_second() -> None:
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        result = scaling("--help")
        seconds.append(time.perf_counter() - started)
    assert result.returncode == 0
    assert all(verb in result.stdout for verb in VERBS)
    assert min(seconds) < 0.5


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    result = scaling(verb, "--help")
    assert result.returncode == 0
    assert f"example:\n  scaling {verb}" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["fly"], "invalid choice: 'fly'"),
        (["quickstart", "--config.sed=1"], "nearest known one is 'seed'"),
        (["quickstart", "--config.model.wdth", "3"], "nearest known one is 'model.width'"),
        (["quickstart", "--config=nowhere.py"], "no config file 'nowhere.py'"),
        (["status", "--config.seed=1", "x"], "status takes no config"),
        (["status", "nowhere"], "no study.json"),
        (["report", "nowhere"], "no readable record"),
        (["fit", "nowhere"], "no file or folder nowhere"),
        (["plan", "nowhere.json", "--flops=1e21"], "nowhere.json"),
        (["plan", "nowhere.json"], "--flops"),
        (["train", "--config=configs/quickstart.py"], "--workdir"),
    ],
)
def test_a_wrong_command_says_what_is_wrong_and_exits_with_2(
    arguments: list[str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = scaling(*arguments)
    assert result.returncode == 2
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_fit_reads_a_foreign_table_by_its_own_column_names(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text(CSV)
    columns = "--columns=params=N,tokens=D,loss=final"
    result = scaling("fit", str(tmp_path / "runs.csv"), columns, f"--out={tmp_path}")
    assert result.returncode == 0, result.stderr
    assert "alpha" in result.stdout
    assert (tmp_path / "law.json").exists()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("params,tokens\n1e6,1e9\n", "loss"),
        ("params,tokens,loss\n1e6,1e9,high\n", "row 2"),
        ("params,tokens,loss\n1e6,1e9,3\n1e6,-1,3\n", "row 3"),
        ("params,tokens,loss\n1e6,1e9,nan\n", "row 2"),
        ("params,tokens,loss\n1e6,1e9,3\n2e6,1e9,2.9\n", "2 runs"),
        (
            "params,tokens,loss\n" + "".join(f"1e6,{d}e9,{3 - d / 20}\n" for d in range(1, 9)),
            "size",
        ),
        ("", "no runs"),
    ],
)
def test_a_bad_table_is_refused_with_the_row_and_writes_nothing(
    text: str, complaint: str, tmp_path: Path
) -> None:
    table = tmp_path / "runs.csv"
    table.write_text(text)
    result = scaling("fit", str(table), f"--out={tmp_path}")
    assert result.returncode == 2
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == [table]


def test_doctor_finds_this_machine_well() -> None:
    result = scaling("doctor")
    assert "JAX runs on" in result.stdout
    assert "GFLOP/s" in result.stdout
    assert result.returncode == 0, result.stdout
