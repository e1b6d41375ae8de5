"""The grid runs of all seeds fitted together, with and without the smallest budgets.

python experiments/2026-11-23-quickstart/pooled.py
"""

import json
import tempfile
from pathlib import Path

from scaling.analysis.fit import fit
from scaling.runs import load

KEPT = Path(__file__).parent / "records"
LEAST_FLOPS = (0.0, 3e11, 5e11)


def main() -> None:
    studies = [json.loads(path.read_text()) for path in sorted(KEPT.glob("seed*.json"))]
    planned = {study["verdict"]["run_id"] for study in studies}
    records = [record for study in studies for record in study["records"]]
    targets = [record for record in records if record["run_id"] in planned]
    print(
        "| budgets from | runs | p: size, compute, curvature | predicted over measured, by seed |"
    )
    print("| --- | --- | --- | --- |")
    for least in LEAST_FLOPS:
        grid = [r for r in records if r["run_id"] not in planned and r["flops_6nd"] > least]
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(grid, file)
            file.flush()
            law = fit(load(file.name))
        trends = ", ".join(f"{t['p_value']:.3f}" for t in law.diagnostics["trend"].values())
        errors = ", ".join(
            f"{100 * (float(law.predict(r['params_total'], r['tokens'])) / r['loss'] - 1):+.2f}%"
            for r in targets
        )
        smallest = min(r["flops_6nd"] for r in grid)
        print(f"| {smallest:.2e} | {len(grid)} | {trends} | {errors} |")


if __name__ == "__main__":
    main()
