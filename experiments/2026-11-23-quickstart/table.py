"""The table of this study from its records; with work directories as arguments, gather them first.

python experiments/2026-11-23-quickstart/table.py runs/quickstart-seed{0,1,2,3,4}
python experiments/2026-11-23-quickstart/table.py
"""

import json
import sys
import tempfile
from pathlib import Path

from scaling.analysis.fit import fit
from scaling.files import write_json
from scaling.runs import load

KEPT = Path(__file__).parent / "records"


def gather(workdir: Path) -> None:
    """Keep a finished study: its records (one file), plan and verdict, without the bootstrap."""
    records = [json.loads(path.read_text()) for path in sorted(workdir.glob("records/*.json"))]
    kept = {
        "plan": json.loads((workdir / "plan.json").read_text()),
        "verdict": json.loads((workdir / "verdict.json").read_text()),
        "records": records,
    }
    seed = json.loads((workdir / "study.json").read_text())["seed"]
    write_json(KEPT / f"seed{seed}.json", kept)


def row(path: Path) -> str:
    """One study as a line of the table."""
    kept = json.loads(path.read_text())
    verdict = kept["verdict"]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump([r for r in kept["records"] if r["run_id"] != verdict["run_id"]], file)
        file.flush()
        law = fit(load(file.name))
    interior = sum(budget["interior"] for budget in law.isoflop["budgets"])
    trend = law.diagnostics["trend"]
    low, high = verdict["predicted"]["interval_90"]
    cells = [
        path.stem.removeprefix("seed"),
        f"{interior} of {len(law.isoflop['budgets'])}",
        f"{100 * law.diagnostics['residual_sd']:.2f}%",
        f"{trend['params']['p_value']:.2f}, {trend['flops']['p_value']:.2f}",
        f"{law.params['alpha']:.2f}, {law.params['beta']:.2f}",
        f"{verdict['optimal_params']['value'] / 1e3:.0f}k, {verdict['params'] / 1e3:.0f}k",
        f"{verdict['predicted']['value']:.4f} ({low:.4f} to {high:.4f})",
        f"{verdict['measured']:.4f}",
        f"{100 * verdict['relative_error']:+.2f}%",
        "yes" if verdict["inside_interval"] else "no",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    for workdir in map(Path, sys.argv[1:]):
        gather(workdir)
    head = (
        "seed",
        "interior minima",
        "residual sd",
        "trend in size, compute (p)",
        "alpha, beta",
        "optimal size, run's size",
        "predicted (90%)",
        "measured",
        "error",
        "held",
    )
    print(f"| {' | '.join(head)} |")
    print(f"|{' --- |' * len(head)}")
    for path in sorted(KEPT.glob("seed*.json")):
        print(row(path))


if __name__ == "__main__":
    main()
