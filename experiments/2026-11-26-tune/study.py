"""Which search finds the better setting for the same FLOPs?

scaling sweep --config=experiments/2026-11-26-tune/grid.py --workdir=DIR
python experiments/2026-11-26-tune/study.py collect DIR    # DIR/records -> records.json
python experiments/2026-11-26-tune/study.py search         # over records.json -> searches.json
python experiments/2026-11-26-tune/study.py table          # what the README says, and its figure
"""

import argparse
import importlib.util
import json
import math
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib.pyplot as plt
from ml_collections import ConfigDict

from scaling import sizes
from scaling.analysis import Law, fit, load
from scaling.config import ConfigError
from scaling.files import write_json
from scaling.sweep.cells import Cells
from scaling.sweep.grid import Overrides
from scaling.sweep.prior import Prior
from scaling.sweep.space import Search, among, times, value_of
from scaling.sweep.tune import Score, tune

HERE = Path(__file__).parent
QUICKSTART = HERE.parent / "2026-11-23-quickstart" / "records"
KEPT = ("run_id", "status", "reason", "loss", "flops_6nd", "seed", "learning_rate", "code_version",
        "train_seconds")  # fmt: skip
BUDGETS = (2, 3, 4, 6, 8, 12)
"""In runs of the target size."""
SEARCHES = 20
"""Seeds of the proposals."""
RATE, VECTOR = "optimizer.learning_rate", "optimizer.vector_learning_rate"
ARMS = {
    "random": "random, target size alone",
    "halving": "random, halving",
    "tpe": "TPE, halving",
    "tune": "TPE, halving, rules as prior",
    "misled": "TPE, halving, a prior in the worst corner",
    "from 24, halving": "random, halving from width 24",
    "from 24, tune": "TPE, halving from width 24, rules as prior",
}
Key = tuple[int, float, float, int]
"""A size, the multiples of both rates, and the seed of the run."""


def _grid() -> ModuleType:
    spec = importlib.util.spec_from_file_location("grid", HERE / "grid.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


grid = _grid()
TARGET = grid.WIDTHS[-1]


def key_of(width: int, matrix: float, vector: float, seed: int) -> Key:
    """Where a run stands in the table."""
    rule = sizes.training(width)
    return width, round(matrix / rule.matrix_rate, 6), round(vector / rule.vector_rate, 6), seed


def collect(folder: Path) -> None:
    """What the searches need of every record."""
    found = []
    for path in sorted((folder / "records").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        model, optimizer = record["config"]["model"], record["config"]["optimizer"]
        found.append(
            {key: record[key] for key in KEPT}
            | {"width": model["width"], "vector_learning_rate": optimizer["vector_learning_rate"]}
        )
    write_json(HERE / "records.json", found)


def table_of() -> dict[Key, Mapping[str, Any]]:
    """Every run that was trained."""
    rows = json.loads((HERE / "records.json").read_text(encoding="utf-8"))
    return {
        key_of(r["width"], r["learning_rate"], r["vector_learning_rate"], r["seed"]): r
        for r in rows
    }


def law_of() -> Law:
    """Chinchilla's law of the quickstart's grids, five seeds together: made before, with the rules
    of the ladder."""
    studies = [
        json.loads(path.read_text("utf-8")) for path in sorted(QUICKSTART.glob("seed*.json"))
    ]
    planned = {study["verdict"]["run_id"] for study in studies}
    records = [r for study in studies for r in study["records"] if r["run_id"] not in planned]
    with tempfile.TemporaryDirectory() as folder:
        return fit(load(write_json(Path(folder) / "runs.json", records)))


def space_of(config: ConfigDict, arm: str) -> dict[str, Any]:
    """Both rates as multiples of the rules; `misled` has its rules in the worst corner."""
    axes = {RATE: grid.MATRIX, VECTOR: grid.VECTOR}
    if arm == "misled":
        rule = sizes.training(TARGET)
        worst = {RATE: grid.MATRIX[-1], VECTOR: grid.VECTOR[0]}
        config.optimizer.learning_rate = rule.matrix_rate * worst[RATE]
        config.optimizer.vector_learning_rate = rule.vector_rate * worst[VECTOR]
        axes = {key: tuple(x / worst[key] for x in values) for key, values in axes.items()}
    return {key: times(among(*values)) for key, values in axes.items()}


def search(
    runs: Mapping[Key, Mapping[str, Any]],
    arm: str,
    *,
    flops: float,
    trained: int,
    seed: int,
    law: Law,
) -> tuple[float, float, float, int]:
    """One search on the runs of one seed: the multiples that it chose, the FLOPs it spent, and how
    many trials the law barred."""
    config = grid.get_config()
    space = space_of(config, arm)
    rungs: Sequence[Overrides] = grid.rungs(config)
    first = {"random": len(rungs) - 1, "from 24, halving": 1, "from 24, tune": 1}.get(arm, 0)
    prior = Prior(config, law)

    def look_up(cells: Cells) -> list[Score]:
        found = []
        for cell in cells.planned:
            width, rate, vector = (value_of(cell, key) for key in ("model.width", RATE, VECTOR))
            run = runs[key_of(width, rate, vector, trained)]
            found.append(Score(run["run_id"], run["loss"], run["reason"]))
        return found

    found = tune(
        Search(space=space, rungs=rungs[first:], max_flops=flops),
        config,
        train=look_up,
        prior=prior if arm.endswith("tune") or arm == "misled" else None,
        sampler="random" if arm.endswith(("random", "halving")) else "tpe",
        seed=seed,
    )
    asked = found["best"]["overrides"]
    _, matrix, vector, _ = key_of(TARGET, asked[RATE], asked[VECTOR], trained)
    barred = sum(trial["barred"] is not None for trial in found["trials"])
    return matrix, vector, found["flops"]["trained"], barred


def search_all() -> None:
    """Every arm that is not there yet, with every budget and seed: chosen on the runs of one seed
    and judged on another's; regret is the loss over the least of that other seed."""
    runs, law = table_of(), law_of()
    target = max(run["flops_6nd"] for run in runs.values())
    path = HERE / "searches.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    there = {(row["arm"], row["trained"]) for row in found}
    for held, trained in (grid.SEEDS, grid.SEEDS[::-1]):
        losses = {
            key[1:3]: run["loss"]
            for key, run in runs.items()
            if key[0] == TARGET and key[3] == held and run["loss"] is not None
        }
        least = min(losses.values())
        for arm in (arm for arm in ARMS if (arm, trained) not in there):
            for budget in BUDGETS:
                for seed in range(SEARCHES):
                    flops = budget * target * 1.001  # whole batches are rounded down
                    try:
                        *chosen, spent, barred = search(
                            runs, arm, flops=flops, trained=trained, seed=seed, law=law
                        )
                    except ConfigError:
                        continue  # too little for this ladder
                    # The worst that was seen stands for a setting that is lost with another seed.
                    loss = losses.get((chosen[0], chosen[1]), max(losses.values()))
                    found.append({
                        "arm": arm, "budget": budget, "trained": trained, "seed": seed,
                        "matrix": chosen[0], "vector": chosen[1],
                        "regret": loss - least, "flops": spent, "barred": barred,
                    })  # fmt: skip
            print(f"{arm}, runs of seed {trained}: done", flush=True)
    write_json(path, found)


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error."""
    return statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))


def show_runs(runs: Mapping[Key, Mapping[str, Any]], target: float) -> None:
    """What the runs cost, and what they say."""
    statuses = {run["status"] for run in runs.values()}
    versions = len({run["code_version"] for run in runs.values()})
    flops, seconds = (sum(r[key] for r in runs.values()) for key in ("flops_6nd", "train_seconds"))
    print(f"{len(runs)} runs {statuses}, {flops:.3g} FLOPs, {seconds:.0f} s of training, "
          f"{versions} code versions; a run of the target is {target:.3g} FLOPs")  # fmt: skip
    for width in grid.WIDTHS:
        for seed in grid.SEEDS:
            of = {k[1:3]: r["loss"] for k, r in runs.items() if (k[0], k[3]) == (width, seed)}
            best = min(of, key=of.__getitem__)
            print(f"width {width}, seed {seed}: least {of[best]:.4f} at {best}, "
                  f"the rule has {of[1.0, 1.0]:.4f}, the worst {max(of.values()):.4f}")  # fmt: skip
    squares = [
        (run["loss"] - runs[(*key[:3], 2)]["loss"]) ** 2 / 2
        for key, run in runs.items()
        if key[0] == TARGET and key[3] == 1
    ]
    print(f"between seeds a loss deviates by {math.sqrt(statistics.fmean(squares)):.4f} at the top")


def table() -> None:
    """Print every number of the README, and draw its figure."""
    runs = table_of()
    rows = json.loads((HERE / "searches.json").read_text(encoding="utf-8"))
    target = max(run["flops_6nd"] for run in runs.values())
    show_runs(runs, target)

    def regrets(arm: str, budget: int, trained: int | None = None) -> list[float]:
        return [1000 * r["regret"] for r in rows if r["arm"] == arm and r["budget"] == budget
                and trained in (None, r["trained"])]  # fmt: skip

    def both(arm: str, budget: int) -> str:
        each = [regrets(arm, budget, seed) for seed in grid.SEEDS]
        return ", ".join(f"{statistics.fmean(x):.0f} ({statistics.stdev(x):.0f})" for x in each)

    def gain(arm: str, budget: int) -> str:
        pairs = zip(regrets("random", budget), regrets(arm, budget), strict=True)
        return "{:+.0f} ± {:.0f}".format(*mean_and_error([a - b for a, b in pairs]))

    def spent(arm: str, budget: int) -> str:
        each = [r["flops"] for r in rows if (r["arm"], r["budget"]) == (arm, budget)]
        return f"{statistics.fmean(each) / budget / target:.2f}"

    def show(title: str, cell: Callable[[str, int], str]) -> None:
        print(f"\n{title}\n\n| search | {' | '.join(map(str, BUDGETS))} |")
        print("| --- |" + " --- |" * len(BUDGETS))
        for arm, name in ARMS.items():
            each = (cell(arm, b) if regrets(arm, b) else "too little" for b in BUDGETS)
            print(f"| {name} | {' | '.join(each)} |")

    def pooled(arm: str, budget: int) -> str:
        return "{:.0f} ± {:.0f}".format(*mean_and_error(regrets(arm, budget)))

    show("regret x 1000, mean and standard error over all searches", pooled)
    show("by the seed of the runs that were seen; in brackets the deviation over searches", both)
    show("less than random search has, paired by seeds", gain)
    show("share of the budget that was spent", spent)
    print(f"\nbarred by the law: {sum(r['barred'] for r in rows)} trials of {len(rows)} searches")
    tops = [
        {key[1:3]: run["loss"] for key, run in runs.items() if (key[0], key[3]) == (TARGET, seed)}
        for seed in grid.SEEDS
    ]
    rule = statistics.fmean(1000 * (top[1.0, 1.0] - min(top.values())) for top in tops)
    print(f"regret of the rules themselves: {rule:.0f}")
    draw(regrets, runs, rule)


def draw(
    regrets: Callable[..., list[float]], runs: Mapping[Key, Mapping[str, Any]], rule: float
) -> None:
    """Regret against compute, and where the losses are least on every rung."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    colours = {"random": "#7f7f7f", "halving": "#ff7f0e", "tpe": "#2ca02c", "tune": "#1f77b4",
               "misled": "#d62728", "from 24, halving": "#ff7f0e",
               "from 24, tune": "#1f77b4"}  # fmt: skip
    left.axhline(rule, color="black", linewidth=0.9, linestyle=":", label="the rules, no search")
    for arm, name in ARMS.items():
        budgets = [budget for budget in BUDGETS if regrets(arm, budget)]
        each = [mean_and_error(regrets(arm, budget)) for budget in budgets]
        means = [mean for mean, _ in each]
        left.plot(budgets, means, marker="o", markersize=3.5, color=colours[arm], label=name,
                  linestyle="--" if arm.startswith("from") else "-")  # fmt: skip
        left.fill_between(
            budgets,
            [m - e for m, e in each],
            [m + e for m, e in each],
            color=colours[arm], alpha=0.15, linewidth=0,
        )  # fmt: skip
    left.set(xscale="log", xlabel="compute of the search, in runs of the target")
    left.set_ylabel("regret, 0.001 nats per token")
    left.set_xticks(BUDGETS, [str(budget) for budget in BUDGETS])
    left.minorticks_off()
    left.set_ylim(bottom=0)
    left.legend(frameon=False, fontsize=7, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    for vector, shade in zip(grid.VECTOR, (0.25, 0.4, 0.6, 0.8, 1.0), strict=True):
        for width, style in zip(grid.WIDTHS, (":", "--", "-"), strict=True):
            losses = [
                statistics.fmean(
                    runs[width, round(matrix, 6), round(vector, 6), seed]["loss"]
                    for seed in grid.SEEDS
                )
                for matrix in grid.MATRIX
            ]
            label = f"{vector:g}" if width == TARGET else None
            right.plot(
                grid.MATRIX, losses, style, color=plt.get_cmap("viridis")(1 - shade), label=label
            )
    right.axvline(1.0, color="#bbbbbb", linewidth=0.8, zorder=0)
    right.set_xscale("log", base=2)
    right.set(xlabel="matrix rate over the rule", ylabel="loss, nats per token (two seeds)")
    widths = ", ".join(map(str, grid.WIDTHS))
    right.set_title(f"widths {widths}: dotted, dashed, drawn", fontsize=9)
    right.legend(
        frameon=False, fontsize=8, ncols=5, title="vector rate over the rule", title_fontsize=8,
        loc="upper center",
    )  # fmt: skip
    right.set_ylim(top=5.15)
    (HERE / "figures").mkdir(exist_ok=True)
    for ending in ("png", "svg"):
        figure.savefig(
            HERE / "figures" / f"regret.{ending}",
            dpi=160,
            metadata={"Date": None} if ending == "svg" else None,
        )


def main() -> None:
    """The verb."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=("collect", "search", "table"))
    parser.add_argument("folder", type=Path, nargs="?", default=Path())
    options = parser.parse_args()
    if options.verb == "collect":
        collect(options.folder)
    else:
        {"search": search_all, "table": table}[options.verb]()


if __name__ == "__main__":
    main()
