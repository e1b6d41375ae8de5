"""Do runs that a design chooses make a prediction surer than an IsoFLOP grid of the same FLOPs?

python experiments/2026-11-26-frontier/study.py run DIR --seed=0    # resumes; also --seed=1, ...
python experiments/2026-11-26-frontier/study.py target DIR          # the run that is foretold
python experiments/2026-11-26-frontier/study.py collect DIR         # -> records.json
python experiments/2026-11-26-frontier/study.py table               # what the README says
"""

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib.pyplot as plt

from scaling.analysis import Law, fit, load
from scaling.files import write_json

HERE = Path(__file__).parent
ROUNDS = 3
KEPT = ("run_id", "status", "loss", "params_total", "params_non_embedding", "tokens", "flops_6nd",
        "seed", "code_version", "train_seconds")  # fmt: skip
WAYS = ("designed", "fixed")
COLOURS = {"designed": "#1f77b4", "fixed": "#ff7f0e"}


def _grid() -> ModuleType:
    spec = importlib.util.spec_from_file_location("grid", HERE / "grid.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


grid = _grid()


def scaling(*words: str) -> None:
    """A command of the command line, as a user would type it."""
    print("scaling", *words, flush=True)
    subprocess.run([sys.executable, "-m", "scaling", *words], check=True)


def run(folder: Path, seed: int) -> None:
    """The fixed grid, and three rounds of fit, plan, sweep that spend what the grid does."""
    fixed, designed = (folder / f"seed{seed}" / way for way in ("fixed", "designed"))
    config, of_seed = f"--config={HERE / 'grid.py'}", f"--config.seed={seed}"
    scaling("sweep", f"{config}:fixed", of_seed, f"--workdir={fixed}")
    scaling("sweep", f"{config}:start", of_seed, f"--workdir={designed}")
    for number in range(ROUNDS):
        here = folder / f"seed{seed}" / f"round{number + 1}"
        place = grid.START + number
        flops = grid.BUDGETS[place] * len(grid.WIDTHS[place])
        if not (here / "law.json").exists():
            scaling("fit", str(designed / "records"), f"--out={here}", "--bootstrap=400")
        if not (here / "plan.json").exists():
            scaling(
                "plan", str(here / "law.json"), f"{config}:start", of_seed,
                f"--flops={grid.TARGET['budget.flops']:g}", f"--next_flops={flops:g}",
                f"--unique_tokens={grid.UNIQUE_TOKENS:g}", f"--out={here}",
            )  # fmt: skip
        scaling(
            "sweep", f"{config}:start", of_seed, f"--workdir={designed}",
            f"--from_plan={here / 'plan.json'}",
        )  # fmt: skip


def collect(folder: Path) -> None:
    """Every run with its way, seed of the study and round (0: the start), and the targets."""
    found: list[dict[str, Any]] = []
    for path in sorted(folder.glob("seed*/*/records/*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        seed, way = path.parents[2].name.removeprefix("seed"), path.parents[1].name
        found.append(_kept(record) | {"way": way, "study": int(seed), "round": _round(record, path)})
    for path in sorted(folder.glob("target/records/*.json")):
        found.append(_kept(json.loads(path.read_text(encoding="utf-8"))) | {"way": "target"})
    write_json(HERE / "records.json", found)


def _kept(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: record[key] for key in KEPT} | {"width": record["config"]["model"]["width"]}


def _round(record: Mapping[str, Any], path: Path) -> int:
    """When a run was trained."""
    study = path.parents[2]
    for number in range(1, ROUNDS + 1):
        plan = study / f"round{number}" / "plan.json"
        if path.parents[1].name == "designed" and plan.exists():
            seeds = _seeds_of(study, plan)
            if record["seed"] in seeds:
                return number
    budget = record["config"]["budget"]["tokens"] * 6 * record["params_total"]
    place = min(range(len(grid.BUDGETS)), key=lambda i: abs(grid.BUDGETS[i] / budget - 1))
    return max(0, place - grid.START + 1)


def _seeds_of(study: Path, plan: Path) -> set[int]:
    """Of the runs that a plan proposed."""
    from scaling import config
    from scaling.sweep.planned import proposed

    made = config.load(f"{HERE / 'grid.py'}:start", [f"seed={study.name.removeprefix('seed')}"])
    return {cell.config.seed for cell in proposed(made.config, plan).planned}


def main() -> None:
    """The verb."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=("run", "target", "collect", "table"))
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.verb == "run":
        run(options.folder, options.seed)
    elif options.verb == "target":
        scaling("sweep", f"--config={HERE / 'grid.py'}:target", f"--workdir={options.folder / 'target'}")
    elif options.verb == "collect":
        collect(options.folder)
    else:
        table()


if __name__ == "__main__":
    main()
