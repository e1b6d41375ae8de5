"""Which batch and which rates: train the settings (given a work directory), print the table.

python experiments/2026-11-23-batch-and-rate/study.py runs/batch-and-rate
python experiments/2026-11-23-batch-and-rate/study.py
"""

import itertools
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from scaling import cells
from scaling import config as configs
from scaling.files import write_json
from scaling.run import run
from scaling.workshop import Workshop

KEPT = Path(__file__).parent / "records.json"
FLOPS = 2.5e11
SEEDS = 4
# width, batch tokens, rate of hidden matrices, rate of everything else, cooldown fraction
SETTINGS = (
    (40, 1024, 0.02, 0.06, 0.3),
    (40, 1024, 0.01, 0.06, 0.3),
    (40, 1024, 0.01, 0.03, 0.3),
    (40, 1024, 0.02, 0.06, 0.5),
    (48, 1024, 0.02, 0.06, 0.3),
    (40, 512, 0.01, 0.03, 0.3),
    (40, 512, 0.02, 0.04, 0.3),
)


def train(workdir: Path) -> None:
    """Train every setting with every seed and keep the records in one file."""
    workshop = Workshop(workdir)
    for (width, batch, matrix, vector, cooldown), seed in itertools.product(SETTINGS, range(SEEDS)):
        config = configs.default()
        overrides = [
            f"model.width={width}",
            f"batch_tokens={batch}",
            f"optimizer.learning_rate={matrix}",
            f"optimizer.vector_learning_rate={vector}",
            f"optimizer.cooldown_fraction={cooldown}",
            f"budget.flops={FLOPS}",
            f"seed={seed}",
        ]
        configs.override(config, overrides)
        run(cells.cell_of(config), workshop, watch=lambda tick: None)
    gather(workdir)


def gather(workdir: Path) -> None:
    """Keep the records of a work directory in one file."""
    paths = sorted((workdir / "records").glob("*.json"))
    write_json(KEPT, [json.loads(path.read_text()) for path in paths])


def setting(record: dict[str, Any]) -> tuple[float, ...]:
    """What a run was trained with, in the order of SETTINGS."""
    config = record["config"]
    optimizer = config["optimizer"]
    return (
        config["model"]["width"],
        config["batch_tokens"],
        optimizer["learning_rate"],
        optimizer["vector_learning_rate"],
        optimizer["cooldown_fraction"],
    )


def main() -> None:
    if len(sys.argv) > 1:
        train(Path(sys.argv[1]))
    records = json.loads(KEPT.read_text())
    print("| width | batch tokens | matrix rate | vector rate | cooldown | seeds | loss | sd |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for wanted in SETTINGS:
        losses = [record["loss"] for record in records if setting(record) == wanted]
        mean = statistics.mean(losses)
        spread = f"{100 * statistics.stdev(losses) / mean:.2f}%"
        cells = (*wanted, len(losses), f"{mean:.4f}", spread)
        print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    main()
