"""The whole loop at a tiny setting, and what interrupts it."""

import dataclasses
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scaling import config as configs
from scaling import records
from scaling.records import Record
from scaling.sweep.grid import SEEDS, isoflop
from scaling.sweep.planned import FIRST_SEED
from scaling.sweep.study import check, fit_study
from scaling.sweep.workdir import WorkdirError, claim, read_study

TINY = (
    "--config=configs/quickstart.py:tiny",
    "--config.corpus.languages=es",
    "--config.model.context_tokens=16",
    "--config.batch_tokens=128",
    "--config.study.budgets_flops=(6e8,1.2e9,2.4e9)",
    "--config.study.widths=((16,24,32),(16,24,32),(16,24,32))",
    "--config.study.target_flops=4e9",
    "--config.study.bootstrap_samples=100",
    "--config.runtime.evaluate_every_steps=40",
    "--config.runtime.evaluate_windows=16",
    "--config.runtime.checkpoint_every_steps=40",
    "--config.runtime.log_every_steps=5",
)


def scaling(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scaling", *arguments], capture_output=True, text=True, check=False
    )


def quickstart(workdir: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return scaling("quickstart", *TINY, f"--workdir={workdir}", *more)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that was killed once in the middle of a cell, then run to its end."""
    workdir = tmp_path_factory.mktemp("study")
    process = subprocess.Popen(
        [sys.executable, "-m", "scaling", "quickstart", *TINY, f"--workdir={workdir}"],
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list(workdir.glob("runs/*/checkpoints/*/_CHECKPOINT_METADATA")):
        assert time.monotonic() < deadline, "no checkpoint within two minutes"
        assert process.poll() is None, "the study ended before it was killed"
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    result = quickstart(workdir)
    assert result.returncode == 0, result.stderr
    return workdir


def contents(workdir: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(workdir)): path.read_bytes()
        for path in sorted(workdir.rglob("*"))
        if path.is_file()
    }


def test_the_loop_closes_after_a_kill(finished: Path) -> None:
    trained = [records.read(path) for path in (finished / "records").glob("*.json")]
    assert len(trained) == 10
    assert {record.status for record in trained} == {"ok"}
    verdict = json.loads((finished / "verdict.json").read_text())
    plan = json.loads((finished / "plan.json").read_text())
    [target] = [record for record in trained if record.run_id == verdict["run_id"]]
    assert target.flops_6nd == pytest.approx(4e9, rel=0.02)
    assert plan["targets"][0]["run"]["tokens"] == target.tokens
    assert plan["targets"][0]["run"]["params"] == target.params_total
    assert verdict["measured"] == target.loss
    law = json.loads((finished / "law.json").read_text())
    assert law["n_runs"] == 9
    assert (finished / "report.html").stat().st_size > 100_000
    pictures = {path.name for path in (finished / "figures").iterdir()}
    assert {"loss_curves.png", "isoflop.png", "frontier.png", "residuals.png"} <= pictures


def test_the_prediction_was_written_before_the_run_it_is_for(finished: Path) -> None:
    verdict = json.loads((finished / "verdict.json").read_text())
    config = finished / "runs" / verdict["run_id"] / "config.json"
    assert (finished / "plan.json").stat().st_mtime_ns < config.stat().st_mtime_ns


def test_a_complete_study_run_again_changes_nothing(finished: Path) -> None:
    before = contents(finished)
    result = quickstart(finished)
    assert result.returncode == 0
    assert "complete already; nothing was changed" in result.stdout
    assert contents(finished) == before


def test_another_config_is_refused_with_the_fields_that_differ(finished: Path) -> None:
    before = contents(finished)
    result = quickstart(finished, "--config.seed=3")
    assert result.returncode == 2
    assert "holds another study" in result.stderr
    assert "seed: 0 -> 3" in result.stderr
    assert contents(finished) == before


def test_status_and_report_speak_of_a_finished_study(finished: Path) -> None:
    result = scaling("status", str(finished))
    assert result.returncode == 0
    assert "9 cells: 9 done" in result.stdout
    assert "1 runs beside the grid: 1 done" in result.stdout
    again = scaling("report", str(finished))
    assert again.returncode == 0
    assert "report.html" in again.stdout


def test_fit_and_plan_work_on_the_records(finished: Path, tmp_path: Path) -> None:
    result = scaling("fit", str(finished / "records"), f"--out={tmp_path}", "--bootstrap=100")
    assert result.returncode == 0, result.stderr
    plan = scaling("plan", str(tmp_path / "law.json"), "--flops=1e10", f"--out={tmp_path}")
    assert plan.returncode == 0, plan.stderr
    target = json.loads((tmp_path / "plan.json").read_text())["targets"][0]
    assert set(target["overrides"]) == {"model.width", "budget.flops"}
    # Made with another config: this one's models have other sizes.
    shutil.copytree(finished, tmp_path / "study")
    sweep = ("sweep", f"--from_plan={tmp_path / 'plan.json'}", f"--workdir={tmp_path / 'study'}")
    other = scaling(*sweep, *TINY, "--config.corpus.vocabulary=400")
    assert other.returncode == 2
    assert "give the --config, and its overrides" in other.stderr
    refused = scaling("fit", str(finished / "records"), f"--out={tmp_path}")
    assert refused.returncode == 2
    assert "--overwrite" in refused.stderr


def test_the_next_runs_of_a_plan_are_trained_beside_the_grid(
    finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "study")
    overrides = [word for word in TINY if word.startswith("--config.")]
    plan = scaling(
        "plan", str(finished / "law.json"), "--flops=4e9", "--next_flops=2.4e9",
        f"--out={tmp_path}", *overrides,
    )  # fmt: skip
    assert plan.returncode == 0, plan.stderr
    cells = json.loads((tmp_path / "plan.json").read_text())["next_runs"]["cells"]
    before = {path.name for path in (tmp_path / "study" / "records").iterdir()}
    sweep = ("sweep", f"--from_plan={tmp_path / 'plan.json'}", f"--workdir={tmp_path / 'study'}")
    asked = scaling(*sweep, *TINY, "--dry_run")
    assert f"grid: {sum(cell['runs'] for cell in cells)} cells" in asked.stdout, asked.stderr
    result = scaling(*sweep, *TINY)
    assert result.returncode == 0, result.stderr
    after = {path.name for path in (tmp_path / "study" / "records").iterdir()}
    new = [records.read(tmp_path / "study" / "records" / name) for name in after - before]
    assert sorted((record.params_total, record.seed >= FIRST_SEED) for record in new) == sorted(
        (int(cell["params"]), True) for cell in cells for _ in range(cell["runs"])
    )
    assert before < after
    status = scaling("status", str(tmp_path / "study"))
    assert f"{len(after) - 1} cells: {len(after) - 1} done" in status.stdout
    again = scaling(*sweep, *TINY)
    assert again.returncode == 0
    assert {path.name for path in (tmp_path / "study" / "records").iterdir()} == after


def test_a_diverged_cell_is_recorded_and_left_out_and_the_sweep_goes_on(
    finished: Path, tmp_path: Path
) -> None:
    for path in (finished / "records").glob("*.json"):
        (tmp_path / "records").mkdir(exist_ok=True)
        record = records.read(path)
        if record.seed == 3:
            lost = ("tokens", "unique_tokens", "epochs", "flops_6nd", "flops_counted", "loss",
                    "loss_stderr", "bits_per_byte", "tokens_per_second", "mfu")  # fmt: skip
            record = dataclasses.replace(
                record,
                status="diverged",
                reason="loss nan at step 7",
                **dict.fromkeys(lost),
                null_reasons=dict.fromkeys(lost, "the run diverged"),
            )
        if record.seed != 0:
            records.write(record, tmp_path / "records")
    result = quickstart(tmp_path, "--config.study.target_flops=None")
    assert result.returncode == 0, result.stderr
    law = json.loads((tmp_path / "law.json").read_text())
    assert law["n_runs"] == 8
    [dropped] = law["dropped"]
    assert "loss nan at step 7" in dropped["reason"]
    assert "loss nan at step 7" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    with (
        claim(tmp_path, {"a": 1}),
        pytest.raises(WorkdirError, match="another process"),
        claim(tmp_path, {"a": 1}),
    ):
        pass
    with claim(tmp_path, {"a": 1}):
        assert read_study(tmp_path) == {"a": 1}


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes where nobody may")
def test_a_read_only_work_directory_is_refused_with_its_remedy(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    result = quickstart(tmp_path / "inside")
    assert result.returncode == 2
    assert "--workdir=DIR" in result.stderr


def test_a_full_disk_is_said_and_leaves_earlier_records_intact(
    finished: Path, tmp_path: Path
) -> None:
    record: Record = records.read(next((finished / "records").glob("*.json")))
    first = records.write(record, tmp_path)
    before = first.read_bytes()
    # A limit on the size of files stands for a full disk: both fail in the middle of a write.
    script = (
        "import resource, signal, sys, dataclasses; from scaling import records\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "record = dataclasses.replace(records.read(sys.argv[1]), run_id='second')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "records.write(record, sys.argv[2])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(first), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "could not write" in result.stderr
    assert "written earlier is intact" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [first.name]
    assert first.read_bytes() == before


def test_a_grid_has_a_cell_for_each_budget_and_width_with_a_seed_of_its_own() -> None:
    study = configs.load("configs/quickstart.py", ["seed=2"])
    cells = isoflop(study.config)
    assert len(cells) == sum(map(len, study.config.study.widths)) >= 16
    assert len({cell.seed for cell in cells}) == len(cells)
    assert all(2 * SEEDS < cell.seed < 3 * SEEDS for cell in cells)
    assert all("study" not in cell for cell in cells)
    ratios = [
        b / a for a, b in zip(*(study.config.study.budgets_flops[i:] for i in (0, 1)), strict=False)
    ]
    assert all(1.7 <= ratio <= 2 for ratio in ratios)


def test_a_study_refused_before_its_first_run_leaves_its_work_directory_free(
    tmp_path: Path,
) -> None:
    with claim(tmp_path, {"a": 1}):
        pass
    with claim(tmp_path, {"a": 2}):
        (tmp_path / "runs").mkdir()
    with pytest.raises(WorkdirError, match="a: 2 -> 3"), claim(tmp_path, {"a": 3}):
        pass


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("study.law=foo", "use auto, or one of chinchilla"),
        ("study.bootstrap_samples=0", "use 100 at least"),
        ("study.target_flops=-1", "use a positive number"),
    ],
)
def test_what_could_only_fail_after_the_grid_is_refused_before_it(
    override: str, complaint: str
) -> None:
    config = configs.load("configs/quickstart.py", [override]).config
    with pytest.raises(configs.ConfigError, match=complaint):
        check(config, [])


def test_the_law_is_of_the_studys_own_cells_where_others_have_another_objective(
    finished: Path, tmp_path: Path
) -> None:
    law = json.loads((finished / "law.json").read_text(encoding="utf-8"))
    own = [
        records.read(finished / "records" / f"{row['run_id']}.json")
        for row in law["diagnostics"]["residuals"]
    ]
    for record in own:
        assert record.loss is not None
        other = {"run_id": f"masked-{record.run_id}", "objective": "masked"}
        records.write(record, tmp_path / "records")
        records.write(
            dataclasses.replace(record, **other, loss=0.9 * record.loss), tmp_path / "records"
        )
    config = configs.load("configs/quickstart.py:tiny", ["study.bootstrap_samples=100"]).config
    assert fit_study(config, tmp_path, own).params == law["params"]


@pytest.mark.parametrize("budgets", [(-1.0,), ("a",), (float("inf"),), (float("nan"),)], ids=str)
def test_a_budget_that_is_no_positive_number_is_refused(budgets: tuple[object, ...]) -> None:
    config = configs.default()
    config.study.widths = ((16,),)
    config.study.budgets_flops = budgets
    with pytest.raises(configs.ConfigError, match="positive numbers"):
        isoflop(config)


def test_a_grid_the_text_does_not_suffice_for_is_refused_before_its_first_run(
    tmp_path: Path,
) -> None:
    result = quickstart(tmp_path, "--config.study.budgets_flops=(6e8,1.2e9,9e13)")
    assert result.returncode == 2
    assert "the corpus has" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_budgets_without_widths_are_refused() -> None:
    config = configs.default()
    configs.override(config, ["study.budgets_flops=(1e9,2e9)", "study.widths=((16,),)"])
    with pytest.raises(configs.ConfigError, match=r"2 entries and study\.widths 1"):
        isoflop(config)
