"""A study from end to end: grid, law, plan, the planned run, verdict, report; each stage made
once."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from rich.console import Console

from scaling.analysis.fit import AUTO, fit
from scaling.analysis.fitted import Law
from scaling.analysis.plan import plan, verdict
from scaling.analysis.report import write_report
from scaling.analysis.rules import LAWS
from scaling.config import ConfigError
from scaling.files import write_json
from scaling.records import Record
from scaling.runs import load
from scaling.sweep.launch import launch
from scaling.sweep.planned import nearest_shape, planned_cell
from scaling.sweep.tasks import Packing
from scaling.workshop import Workshop

LEAST_SAMPLES = 100


def study(
    config: ConfigDict,
    cells: Sequence[ConfigDict],
    workdir: Path,
    *,
    console: Console,
    packed: Packing = 1,
    stop: Callable[[], bool] = lambda: False,
) -> list[Path]:
    """Carry the study as far as it goes and return the files it made now.

    The prediction stands in `plan.json` before the run it is for starts, and is never rewritten.
    What is there already is kept, so the same call resumes an interrupted study and leaves a
    complete one alone. The caller holds the work directory (`scaling.sweep.workdir.claim`).

    Raises:
      FitError: too few of the cells ended well for a law.
      Stopped: `stop` said so while a run was trained; the same call goes on from there.
      OSError: a file could not be written; those before it are intact.
    """
    made: list[Path] = []
    workshop = Workshop(workdir)
    trained = launch(
        cells,
        workshop,
        console=console,
        stop=stop,
        trunks=config.sweep.trunks,
        early_stop=config.sweep.early_stop,
        packed=packed,
    )
    law_path, plan_path, verdict_path = (workdir / f"{x}.json" for x in ("law", "plan", "verdict"))
    if not law_path.exists():
        console.print(f"fitting the {config.study.law} law to {len(trained)} runs", highlight=False)
        made.append(write_json(law_path, fit_study(config, workdir, trained).to_json()))
    if config.study.target_flops is not None:
        if not plan_path.exists():
            law = Law.from_json(_read(law_path))
            content = plan(law, [config.study.target_flops], shape_for=nearest_shape(config))
            made.append(write_json(plan_path, content))
        target = _read(plan_path)["targets"][0]
        if target["run"] is not None and not verdict_path.exists():
            console.print(_sentence(target), highlight=False, soft_wrap=True)
            cell = planned_cell(config, target)
            [record] = launch([cell], workshop, console=console, stop=stop)
            if record.status == "ok":
                made.append(write_json(verdict_path, verdict(_read(plan_path), record)))
    if made or not (workdir / "report.html").exists():
        made += write_report(workdir)
    return made


def check(config: ConfigDict, cells: Sequence[ConfigDict]) -> None:
    """Refuse, before anything is trained, what the later stages of the study would refuse.

    Raises:
      ConfigError: an unknown law, fewer than 100 bootstrap samples, a target that is no budget,
        cells whose losses no one law is of.
    """
    law, samples, target = (
        config.study[key] for key in ("law", "bootstrap_samples", "target_flops")
    )
    if law not in (AUTO, *LAWS):
        raise ConfigError(f"study.law is {law!r}; use {AUTO}, or one of {', '.join(LAWS)}")
    if samples < LEAST_SAMPLES:
        raise ConfigError(f"study.bootstrap_samples is {samples}; use {LEAST_SAMPLES} at least")
    if target is not None and not 0 < target < math.inf:
        raise ConfigError(f"study.target_flops is {target}; use a positive number, or None")
    objectives = sorted({cell.objective.name for cell in cells})
    if len(objectives) > 1:
        raise ConfigError(
            f"the grid has the objectives {' and '.join(objectives)}, whose losses no one law is "
            "of; use `scaling sweep`, or a grid of one of them"
        )


def fit_study(config: ConfigDict, workdir: Path, trained: Sequence[Record]) -> Law:
    """Fit the study's law to the records of its own cells, whatever else the folder holds."""
    runs = load(workdir / "records", objective=trained[0].objective)
    return fit(
        runs.only({record.run_id for record in trained}),
        law=config.study.law,
        bootstrap=config.study.bootstrap_samples,
    )


def _sentence(target: dict[str, Any]) -> str:
    run = target["run"]
    low, high = run["loss"]["interval_90"]
    return (
        f"predicted before training: {run['params']:,} parameters on {run['tokens']:,} tokens "
        f"({run['flops']:.2e} FLOPs) will reach a loss of {run['loss']['value']:.4f}, "
        f"90% interval {low:.4f} to {high:.4f}; plan.json is written"
    )


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
