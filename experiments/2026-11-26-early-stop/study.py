"""Tables of this study from records.json; with work directories, records.json from them.

python experiments/2026-11-26-early-stop/study.py
python experiments/2026-11-26-early-stop/study.py --whole DIR DIR --stopped DIR DIR
"""

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scaling import records
from scaling.files import write_json
from scaling.runs.tuning import group_of, rates_of
from scaling.sweep.survey import survey

HERE = Path(__file__).parent
FROM = (0.1, 0.25, 0.5)


def runs_of(workdirs: Sequence[Path]) -> list[dict[str, Any]]:
    """Every run of these, with its validation losses while it was trained."""
    found = []
    for workdir in workdirs:
        for path in sorted((workdir / "records").glob("*.json")):
            record = records.read(path)
            journal = (workdir / "runs" / record.run_id / "metrics.jsonl").read_text()
            lines = [json.loads(line) for line in journal.splitlines()]
            curve = {
                line["step"]: line["eval/validation/loss"]
                for line in lines
                if line.get("eval/validation/loss") is not None
            }
            config = record.config
            steps = config["budget"]["tokens"] // config["batch_tokens"]
            curve.pop(steps, None)  # on the whole split
            found.append({
                "run_id": record.run_id, "group": (group_of(config) or "")[:12],
                "width": config["model"]["width"], "batch_tokens": config["batch_tokens"],
                "seed": record.seed, "rates": rates_of(config), "steps": steps,
                "flops": config["budget"]["flops"], "status": record.status,
                "reason": record.reason, "loss": record.loss,
                "trained_steps": max(line["step"] for line in lines), "curve": curve,
            })  # fmt: skip
    return found


def vertex(runs: Sequence[dict[str, Any]]) -> float:
    """The rate at the vertex of the parabola through the best run and its neighbours."""
    done = sorted((run for run in runs if run["loss"] is not None), key=lambda run: run["rates"])
    best = min(range(len(done)), key=lambda i: done[i]["loss"])
    if not 0 < best < len(done) - 1:
        return math.nan
    x = [math.log(run["rates"][0]) for run in done[best - 1 : best + 2]]
    left, middle, right = (run["loss"] for run in done[best - 1 : best + 2])
    return math.exp(x[1] + 0.5 * (x[1] - x[0]) * (left - right) / (left - 2 * middle + right))


def made_up(runs: Sequence[dict[str, Any]], share: float) -> float:
    """How far the best run of the end was behind the leader of a step, after `share` of them."""
    runs = sorted(runs, key=lambda run: run["rates"])
    best = min(range(len(runs)), key=lambda i: runs[i]["loss"])
    behind = 0.0
    for step in runs[best]["curve"]:
        if int(step) >= share * runs[best]["steps"]:
            leader = min(run["curve"][step] for run in runs)
            behind = max(behind, runs[best]["curve"][step] / leader - 1)
    return behind


def main() -> None:
    """Write records.json where directories are given, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--whole", type=Path, nargs="+", default=[])
    parser.add_argument("--stopped", type=Path, nargs="+", default=[])
    options = parser.parse_args()
    path = HERE / "records.json"
    if options.whole:
        costs = {
            name: [survey(workdir).flops for workdir in getattr(options, name)]
            for name in ("whole", "stopped")
        }
        content = {name: runs_of(getattr(options, name)) for name in ("whole", "stopped")}
        write_json(path, {**content, "flops": costs})
    content = json.loads(path.read_text(encoding="utf-8"))
    groups: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for name in ("whole", "stopped"):
        groups[name] = defaultdict(list)
        for run in content[name]:
            groups[name][run["group"]].append(run)
    print("| width | batch | stopped | FLOPs trained | best rate | fitted rate | behind |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for key, whole in groups["whole"].items():
        early = groups["stopped"][key]
        lost = sum(run["status"] == "stopped" for run in early)
        part = sum(run["trained_steps"] for run in early) / sum(run["steps"] for run in early)
        best, fitted = (
            [f"{at(runs):.4g}" for runs in (whole, early)] for at in (best_rate, vertex)
        )
        behind = ", ".join(f"{made_up(whole, share):.1%}" for share in FROM)
        print(
            f"| {whole[0]['width']} | {whole[0]['batch_tokens']} | {lost} of {len(early)} | "
            f"{part:.1%} | {' / '.join(best)} | {' / '.join(fitted)} | {behind} |"
        )
    for name, flops in content["flops"].items():
        print(f"{name}: {sum(flops):.4g} FLOPs ({', '.join(f'{x:.4g}' for x in flops)})")


def best_rate(runs: Sequence[dict[str, Any]]) -> float:
    """The first rate of the best run."""
    return min((run for run in runs if run["loss"]), key=lambda run: run["loss"])["rates"][0]


if __name__ == "__main__":
    main()
