"""The command line as a user meets it."""

import json
import math
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
        (["report", "nowhere"], "readable record"),
        (["fit", "nowhere"], "no file or folder nowhere"),
        (["fit", "x", "--law=chinchila"], "did you mean chinchilla or chinchilla_tied?"),
        (["fit", "x", "--intervals=boot"], "use one of residual, case, series, seeds"),
        (["fit", "x", "--columns=params"], "--columns has 'params'; write --columns params=N"),
        (["fit", "x", "--columns=loss=a,loss=b"], "maps loss to a and to b; leave one"),
        (["fit", "x", "--bootstrap=1"], "--bootstrap: 1 is not a whole number of 2 or more"),
        (["fit", "x", "--delta=0"], "--delta: 0 is not a number over 0"),
        (["fit", "x", "--asymmetry=inf"], "--asymmetry: inf is not a finite number"),
        (["fit", "x", "--seed=a"], "--seed: 'a' is not a whole number"),
        (["plan", "nowhere.json", "--flops=1e21"], "nowhere.json"),
        (["plan", "nowhere.json", "--flops=0"], "--flops: 0 is not a number over 0"),
        (["plan", "nowhere.json", "--hours"], "--hours: expected one argument"),
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
    assert "params from N, tokens from D, loss from final" in result.stdout
    assert "identified: the runs determine every parameter" in result.stdout
    before = (tmp_path / "law.json").read_bytes()
    again = scaling("fit", str(tmp_path / "runs.csv"), columns, f"--out={tmp_path}")
    assert again.returncode == 2
    assert "use --out=DIR for another place, or --overwrite" in again.stderr
    assert (tmp_path / "law.json").read_bytes() == before


def test_fit_of_another_law_needs_its_columns_alone_and_passes_every_option_on(
    tmp_path: Path,
) -> None:
    accuracies = [0.9 - 0.65 / (1 + math.exp(-3 * (2 + x / 10 - 2.8))) for x in range(20)]
    rows = [f"{2 + x / 10},{100 * y:.2f}" for x, y in enumerate(accuracies)]
    (tmp_path / "tasks.csv").write_text("\n".join(["nats,hellaswag", *rows]))
    result = scaling(
        "fit", str(tmp_path / "tasks.csv"), "--law=accuracy", "--delta=inf", "--asymmetry=2",
        "--columns=loss=nats,accuracy=hellaswag*0.01", "--intervals=case", "--bootstrap=30",
        "--seed=5", f"--out={tmp_path}",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    law = json.loads((tmp_path / "law.json").read_text())
    assert law["params"]["x_0"] == pytest.approx(2.8, abs=0.01)
    assert law["convention"] == {"loss": "nats", "accuracy": "hellaswag*0.01"}
    assert (law["objective"]["delta"], law["objective"]["asymmetry"]) == (None, 2)
    assert (law["bootstrap"]["kind"], law["bootstrap"]["n"]) == ("case", 30)
    assert law["bootstrap"]["seed"] == 5
    assert law["diagnostics"]["residuals"][0]["params"] is None


def test_warnings_of_the_table_go_with_the_law(tmp_path: Path) -> None:
    lines = CSV.splitlines()
    (tmp_path / "runs.csv").write_text("\n".join([*lines, lines[3], "7e6,1e9,"]))
    columns = "--columns=params=N,tokens=D,loss=final"
    result = scaling(
        "fit", str(tmp_path / "runs.csv"), columns, "--bootstrap=20", f"--out={tmp_path}"
    )
    assert result.returncode == 0, result.stderr
    first, second, *_ = json.loads((tmp_path / "law.json").read_text())["diagnostics"]["warnings"]
    assert first == "1 run was left out: row 12 (final is empty)"
    assert second.startswith("every number of row 11 is that of row 4")
    assert "Warning: 1 run was left out" in result.stdout


@pytest.mark.slow
def test_a_second_fit_finds_what_the_first_compiled(
    tmp_path: Path, user_environment: dict[str, str]
) -> None:
    (tmp_path / "runs.csv").write_text(CSV)
    environment = user_environment | {
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    command = [
        sys.executable, "-m", "scaling", "fit", str(tmp_path / "runs.csv"), "--bootstrap=20",
        "--columns=loss=final", f"--out={tmp_path}", "--overwrite",
    ]  # fmt: skip
    made = []
    for _ in range(2):
        subprocess.run(command, env=environment, check=True, capture_output=True)
        made.append({path.name for path in (tmp_path / "cache").rglob("*-cache")})
    assert made[0]
    assert made[1] == made[0]


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
        (
            "params,tokens,loss\n" + "".join(f"{n}e8,{20 * n},3\n" for n in range(1, 9)),
            "tokens is 20 to 160 in all 8 rows",
        ),
        (
            "params,tokens,flops,loss\n" + "".join(f"{n}e8,2e9,{n}e5,3\n" for n in range(1, 9)),
            "times 6 * params * tokens in all 8 runs",
        ),
        (
            "params,tokens,loss\n" + "".join(f"{n}e8,2e9,3\n" for n in range(1, 9)) + "7,2e9,3",
            "params is 7 to 7 in row 10",
        ),
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
