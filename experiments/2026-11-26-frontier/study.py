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
        found.append(
            _kept(record) | {"way": way, "study": int(seed), "round": _round(record, path)}
        )
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


def laws(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[int, str, int], Law]:
    """Chinchilla's law of each study and way after each round."""
    found = {}
    for study in sorted({row["study"] for row in rows if row["way"] != "target"}):
        for way in WAYS:
            for number in range(ROUNDS + 1):
                mine = [r for r in rows if (r["way"], r.get("study")) == (way, study)
                        and r["round"] <= number]  # fmt: skip
                with tempfile.TemporaryDirectory() as folder:
                    runs = load(write_json(Path(folder) / "runs.json", mine))
                found[study, way, number] = fit(runs, bootstrap=400)
    return found


def table() -> None:
    """Print every number of the README, and draw its figure."""
    rows = json.loads((HERE / "records.json").read_text(encoding="utf-8"))
    targets = [row for row in rows if row["way"] == "target"]
    params, tokens = targets[0]["params_total"], targets[0]["tokens"]
    measured = [row["loss"] for row in targets]
    mean = statistics.fmean(measured)
    error = statistics.stdev(measured) / len(measured) ** 0.5
    versions = {row["code_version"] for row in rows}
    print(f"the target, {params:,} parameters on {tokens:,} tokens: {mean:.4f} +- {error:.4f} "
          f"({len(measured)} seeds); code {', '.join(sorted(versions))}")  # fmt: skip
    spent(rows)
    found: dict[tuple[int, str, int], tuple[float, float, float, float]] = {}
    print("\n| study | round | way | runs | loss foretold (90% of a run) | width | error | "
          "best size there (90%) | warnings |")  # fmt: skip
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for (study, way, number), law in laws(rows).items():
        low, high = (float(x) for x in law.predict_interval(params, tokens))
        guess = float(law.predict(params, tokens))
        flops = 6.0 * params * tokens
        best = float(law.optimum(flops).params)
        sizes = sorted(float(x) for x in law.optimum_samples(flops).params)
        ends = sizes[len(sizes) // 20], sizes[-1 - len(sizes) // 20]
        found[study, way, number] = (low, guess, high, guess / mean - 1)
        warned = sum("trend" in text for text in law.warnings)
        print(
            f"| {study} | {number} | {way} | {law.n_runs} "
            f"| {guess:.4f} ({low:.4f} to {high:.4f}) | {high / low - 1:.1%} "
            f"| {guess / mean - 1:+.2%} | {best:,.0f} ({ends[0]:,.0f} to {ends[1]:,.0f}) "
            f"| {len(law.warnings)}, {warned} of a trend |"
        )
    draw(found, mean)


def spent(rows: Sequence[Mapping[str, Any]]) -> None:
    """What each way trained in each round."""
    print(
        "\n| study | round | way | FLOPs | runs: width, tokens |\n| --- | --- | --- | --- | --- |"
    )
    for study in sorted({row["study"] for row in rows if row["way"] != "target"}):
        for number in range(ROUNDS + 1):
            for way in WAYS:
                mine = [r for r in rows if (r["way"], r.get("study"), r.get("round"))
                        == (way, study, number)]  # fmt: skip
                listed = ", ".join(f"w{r['width']} {r['tokens'] / 1e6:.2f}M" for r in mine)
                print(f"| {study} | {number} | {way} | {sum(r['flops_6nd'] for r in mine):.3g} | "
                      f"{listed} |")  # fmt: skip


def draw(found: Mapping[tuple[int, str, int], Sequence[float]], mean: float) -> None:
    """The prediction and its interval after each round, over the measured loss."""
    studies = sorted({study for study, *_ in found})
    figure, axes = plt.subplots(1, len(studies), figsize=(3.4 * len(studies), 3.2), sharey=True,
                                squeeze=False, layout="constrained")  # fmt: skip
    for axis, study in zip(axes[0], studies, strict=True):
        for shift, way in zip((-0.07, 0.07), WAYS, strict=True):
            each = [found[study, way, number] for number in range(ROUNDS + 1)]
            low, guess, high = ([100 * (x[i] / mean - 1) for x in each] for i in range(3))
            places = [number + shift for number in range(ROUNDS + 1)]
            axis.errorbar(
                places, guess, capsize=3, marker="o", markersize=4, linewidth=1.2, label=way,
                yerr=[[g - x for g, x in zip(guess, low, strict=True)],
                      [x - g for g, x in zip(guess, high, strict=True)]],
                color=COLOURS[way],
            )  # fmt: skip
        axis.axhline(0, color="black", linewidth=0.8, linestyle=":")
        axis.set(xlabel="rounds", xticks=range(ROUNDS + 1), title=f"seed {study}")
    axes[0][0].set_ylabel("foretold over measured loss, %")
    axes[0][0].legend(frameon=False)
    (HERE / "figures").mkdir(exist_ok=True)
    for ending in ("png", "svg"):
        figure.savefig(HERE / "figures" / f"rounds.{ending}", dpi=160,
                       metadata={"Date": None} if ending == "svg" else None)  # fmt: skip


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
        scaling(
            "sweep", f"--config={HERE / 'grid.py'}:target", f"--workdir={options.folder / 'target'}"
        )
    elif options.verb == "collect":
        collect(options.folder)
    else:
        table()


if __name__ == "__main__":
    main()
