"""Do runs that leave a shared trunk say what separate runs say, and what do they save?

for arm in branched same own eight; do
  scaling sweep --config=experiments/2026-11-25-trunks/grid.py:$arm --workdir=DIR/$arm; done
python experiments/2026-11-25-trunks/study.py collect DIR    # DIR/ARM/records -> records.json
python experiments/2026-11-25-trunks/study.py table          # all that the README says
"""

import argparse
import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scaling.analysis import Law, fit, load
from scaling.files import write_json

HERE = Path(__file__).parent
ARMS = ("branched", "same", "own", "eight")
KEPT = ("run_id", "status", "loss", "loss_stderr", "params_total", "params_non_embedding", "tokens",
        "flops_6nd", "seed", "parent", "branch_tokens", "train_seconds")  # fmt: skip
Row = Mapping[str, Any]


def collect(folder: Path) -> None:
    """What the table needs of every record."""
    found = {}
    for arm in ARMS:
        paths = sorted((folder / arm / "records").glob("*.json"))
        records = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        found[arm] = [{key: record[key] for key in KEPT} for record in records]
    write_json(HERE / "records.json", found)


def flops_trained(rows: Sequence[Row]) -> float:
    """6 N D of what was trained: each trunk once, as far as the last run leaves it, and the rest of
    every run."""
    trunks: dict[str, float] = defaultdict(float)
    total = 0.0
    for row in rows:
        per_token = row["flops_6nd"] / row["tokens"]
        shared = row["branch_tokens"] or 0
        total += per_token * (row["tokens"] - shared)
        if row["parent"]:
            trunks[row["parent"]] = max(trunks[row["parent"]], per_token * shared)
    return total + sum(trunks.values())


def cell(row: Row) -> tuple[int, int]:
    """Size and length."""
    return row["params_total"], row["tokens"]


def beside_own(branched: Sequence[Row], own: Sequence[Row]) -> tuple[float, float, float]:
    """Mean over the cells of the difference of log losses, its standard error, and the deviation
    between seeds of the runs by themselves.

    A seed's runs share trunks, so that the error of the branched ones is that of the means of the
    seeds; those by themselves are independent.
    """
    losses: dict[tuple[int, int], list[float]] = defaultdict(list)
    for row in own:
        losses[cell(row)].append(math.log(row["loss"]))
    middle = {key: float(np.mean(each)) for key, each in losses.items()}
    left = [x - middle[key] for key, each in losses.items() for x in each]
    freedom = len(left) - len(middle)
    noise = math.sqrt(sum(x * x for x in left) / freedom)
    of_seeds: dict[int, list[float]] = defaultdict(list)
    for row in branched:
        of_seeds[row["seed"]].append(math.log(row["loss"]) - middle[cell(row)])
    means = [float(np.mean(each)) for each in of_seeds.values()]
    error = math.hypot(np.std(means, ddof=1) / math.sqrt(len(means)), noise / math.sqrt(len(own)))
    return float(np.mean(means)), error, noise


def law_of(rows: Sequence[Row], folder: Path) -> Law:
    """Chinchilla's law, its intervals by trunk where there are trunks."""
    table = folder / "runs.json"
    named = [{"params": row["params_total"], "tokens": row["tokens"], "loss": row["loss"],
              "trunk": row["parent"] or row["run_id"]} for row in rows]  # fmt: skip
    write_json(table, named)
    shared = any(row["parent"] for row in rows)
    return fit(load(table, columns={"series": "trunk"} if shared else {}), "chinchilla")


def table(folder: Path) -> None:
    """Print every number of the README."""
    found: dict[str, list[Row]] = json.loads((HERE / "records.json").read_text(encoding="utf-8"))
    print({arm: (len(rows), {row["status"] for row in rows}) for arm, rows in found.items()})
    print("\n| arm | runs | FLOPs trained | of those by themselves | seconds of training |")
    print("| --- | --- | --- | --- | --- |")
    for arm, rows in found.items():
        alone = sum(row["flops_6nd"] for row in rows)
        took, seconds = flops_trained(rows), sum(row["train_seconds"] for row in rows)
        print(f"| {arm} | {len(rows)} | {took:.3g} | {took / alone:.3f} | {seconds:.0f} |")
    same = {(*cell(row), row["seed"]): row["loss"] for row in found["same"]}
    apart = [abs(row["loss"] / same[*cell(row), row["seed"]] - 1) for row in found["branched"]]
    print(f"\nsame seeds: {sum(x == 0 for x in apart)} of {len(apart)} losses are the same to the "
          f"last bit; the others differ by at most {max(apart):.2g}")  # fmt: skip
    mean, error, noise = beside_own(found["branched"], found["own"])
    print(f"own seeds: branched losses are {mean:+.4%} off (standard error {error:.4%}, "
          f"{mean / error:+.2f} of it); between seeds a loss varies by {noise:.3%}")  # fmt: skip
    flops = 3 * max(row["flops_6nd"] for row in found["own"])
    print(
        f"\n| arm | alpha, 95% | beta, 95% | best size at {flops:.3g}, 90% | loss there, 90% | by |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for arm in ("branched", "own"):
        law = law_of(found[arm], folder)
        curve = law.frontier([flops])
        ends = {name: [float(x[0]) for x in curve.intervals[name]] for name in ("params", "loss")}
        exponents = " | ".join(
            f"{law.params[name]:.3f} ({law.interval_95[name][0]:.3f} to "
            f"{law.interval_95[name][1]:.3f})"
            for name in ("alpha", "beta")
        )
        print(
            f"| {arm} | {exponents} | {float(curve.params[0]):,.0f} ({ends['params'][0]:,.0f} to "
            f"{ends['params'][1]:,.0f}) | {float(curve.loss[0]):.4f} ({ends['loss'][0]:.4f} to "
            f"{ends['loss'][1]:.4f}) | {law.bootstrap['kind']} |"
        )
        for text in law.warnings:
            print(f"    {arm}: {text}")


def main() -> None:
    """The verb."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=("collect", "table"))
    parser.add_argument("folder", type=Path, nargs="?", default=Path())
    options = parser.parse_args()
    if options.verb == "collect":
        collect(options.folder)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            table(Path(temporary))


if __name__ == "__main__":
    main()
