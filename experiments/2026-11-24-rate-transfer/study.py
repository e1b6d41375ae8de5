"""Does the best learning rate move with width, or with depth? Train grids, print tables, draw.

python experiments/2026-11-24-rate-transfer/study.py train WORKDIR [--share=0/2]
python experiments/2026-11-24-rate-transfer/study.py gather WORKDIR
python experiments/2026-11-24-rate-transfer/study.py figures
"""

import argparse
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scaling import config as configs
from scaling.cells import cell_of
from scaling.files import write_json
from scaling.run import run
from scaling.workshop import Workshop, run_id

HERE = Path(__file__).parent
STEPS, BATCH_TOKENS, CONTEXT = 250, 1024, 128
HEAD_WIDTH = 16
SEEDS = (0, 1)
KEPT = ("run_id", "status", "loss", "params_total", "tokens", "train_seconds", "code_version",
        "versions", "device_kind")  # fmt: skip


class Arm(NamedTuple):
    """One parameterization over one direction of growth."""

    name: str
    parameterization: str
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    exponents: tuple[float, ...]


WIDTH_RATES = (-10.0, -9.0, -8.0, -7.0, -6.0, -5.0, -4.0)
DEPTH_RATES = (-9.0, -8.0, -7.0, -6.0, -5.0, -4.0)
ARMS = (
    Arm("width, standard", "standard", (16, 32, 64, 128), (2,), WIDTH_RATES),
    Arm("width, muP", "mup", (16, 32, 64, 128), (2,), WIDTH_RATES),
    Arm("depth, muP", "mup", (64,), (2, 4, 8), DEPTH_RATES),
    Arm("depth, CompleteP", "completep", (64,), (2, 4, 8), DEPTH_RATES),
)
BASE_WIDTH, BASE_DEPTH = 32, 2


class Point(NamedTuple):
    """One run of an arm."""

    arm: str
    parameterization: str
    width: int
    depth: int
    exponent: float
    seed: int

    @property
    def overrides(self) -> list[str]:
        return [
            f"model.width={self.width}",
            f"model.depth={self.depth}",
            f"model.heads={self.width // HEAD_WIDTH}",
            f"model.feedforward_width={4 * self.width}",
            f"model.context_tokens={CONTEXT}",
            "model.tied=False",
            f"parameterization.name={self.parameterization}",
            f"parameterization.base_width={BASE_WIDTH}",
            f"parameterization.base_depth={BASE_DEPTH}",
            f"parameterization.base_head_width={HEAD_WIDTH}",
            f"batch_tokens={BATCH_TOKENS}",
            f"budget.tokens={STEPS * BATCH_TOKENS}",
            "optimizer.name=adamw",
            "optimizer.schedule=linear",
            f"optimizer.learning_rate={2.0**self.exponent!r}",
            f"optimizer.warmup_tokens={25 * BATCH_TOKENS}",
            f"seed={self.seed}",
            "runtime.evaluate_every_steps=100000",
            "runtime.checkpoint_every_steps=100000",
        ]


def points() -> Iterator[Point]:
    """Every run: over width, then over depth, each cheapest first."""
    grid = [
        Point(arm.name, arm.parameterization, width, depth, exponent, seed)
        for arm in ARMS
        for width, depth, exponent, seed in itertools.product(
            arm.widths, arm.depths, arm.exponents, SEEDS
        )
    ]
    return iter(sorted(grid, key=lambda p: (p.arm[:5] != "width", p.depth * p.width**2)))


def train(workdir: Path, share: str) -> None:
    """Train this share of the runs; those that are there are kept."""
    index, shares = map(int, share.split("/"))
    workshop = Workshop(workdir)
    for number, point in enumerate(points()):
        if number % shares == index:
            config = configs.default()
            configs.override(config, point.overrides)
            record = run(cell_of(config), workshop, watch=lambda tick: None)
            print(
                number, *point, record.status, record.loss, round(record.wall_seconds), flush=True
            )


def gather(workdir: Path) -> None:
    """Keep what the figures need of the records of a work directory."""
    kept = []
    for point in points():
        config = configs.default()
        configs.override(config, point.overrides)
        path = workdir / "records" / f"{run_id(cell_of(config))}.json"
        record = json.loads(path.read_text())
        kept.append(point._asdict() | {field: record[field] for field in KEPT})
    write_json(HERE / "records.json", kept)


class Optimum(NamedTuple):
    """The best rate of one size and seed as a power of two; whether it lies inside the grid."""

    exponent: float
    inside: bool


def optimum(exponents: list[float], losses: list[float]) -> Optimum:
    """The vertex of the parabola in log2(rate) through the least loss and its two neighbours on
    each side, as far as there are any."""
    order = np.argsort(exponents)
    x, y = np.asarray(exponents)[order], np.asarray(losses)[order]
    best = int(np.argmin(y))
    first, last = max(0, best - 1), min(len(x), best + 2)
    if last - first < 3:
        return Optimum(float(x[best]), False)
    a, b, _ = np.polyfit(x[first:last], y[first:last], 2)
    return Optimum(float(-b / (2 * a)), True)


def optima(records: list[dict[str, Any]]) -> dict[str, dict[int, list[Optimum]]]:
    """By arm and size (width or depth), one optimum for each seed and one, last, for their mean."""
    found: dict[str, dict[int, list[Optimum]]] = defaultdict(dict)
    for arm in ARMS:
        letter = "width" if len(arm.widths) > 1 else "depth"
        for size in getattr(arm, letter + "s"):
            rows = [r for r in records if r["arm"] == arm.name and r[letter] == size and r["loss"]]
            curves = []
            for seed in SEEDS:
                mine = [r for r in rows if r["seed"] == seed]
                curves.append({r["exponent"]: r["loss"] for r in mine})
            common = sorted(set.intersection(*map(set, curves)))
            curves.append({e: float(np.mean([c[e] for c in curves])) for e in common})
            found[arm.name][size] = [optimum(list(c), list(c.values())) for c in curves]
    return found


def figures() -> None:
    """Tables on the terminal, and figures/: loss against rate for every arm."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    records = json.loads((HERE / "records.json").read_text())
    found = optima(records)
    for arm, sizes in found.items():
        print(arm)
        for size, optimums in sizes.items():
            row = "  ".join(f"{o.exponent:6.2f}{'' if o.inside else '*'}" for o in optimums)
            print(f"  {size:4d}  {row}")
        means = [optimums[-1].exponent for optimums in sizes.values()]
        print(f"  moves {max(means) - min(means):.2f} octaves")
    (HERE / "figures").mkdir(exist_ok=True)
    for direction, arms in (("width", ARMS[:2]), ("depth", ARMS[2:])):
        fig, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True, layout="constrained")
        for ax, arm in zip(axes, arms, strict=True):
            sizes = getattr(arm, direction + "s")
            colors = plt.cm.viridis(np.linspace(0, 0.85, len(sizes)))
            for size, color in zip(sizes, colors, strict=True):
                curve = defaultdict(list)
                for r in records:
                    if r["arm"] == arm.name and r[direction] == size and r["loss"] is not None:
                        curve[r["exponent"]].append(r["loss"])
                x = sorted(curve)
                y = [float(np.mean(curve[e])) for e in x]
                low, high = ([float(f(curve[e])) for e in x] for f in (np.min, np.max))
                ax.fill_between(x, low, high, color=color, alpha=0.2, lw=0)
                ax.plot(x, y, "o-", ms=3, color=color, label=f"{direction} {size}")
                best = found[arm.name][size][-1]
                ax.axvline(best.exponent, color=color, ls=":", lw=1)
            ax.set_title(arm.name, fontsize=10)
            ax.set_xlabel("log2 of the learning rate")
        lowest = min(r["loss"] for r in records if r["loss"])
        axes[0].set_ylim(lowest - 0.1, lowest + 1.6)
        axes[0].set_ylabel("validation loss, nats per token")
        axes[1].legend(fontsize=8, frameon=False)
        for suffix in ("png", "svg"):
            fig.savefig(HERE / "figures" / f"{direction}.{suffix}", dpi=160)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=("train", "gather", "figures"))
    parser.add_argument("workdir", type=Path, nargs="?")
    parser.add_argument("--share", default="0/1")
    options = parser.parse_args()
    if options.verb == "train":
        train(options.workdir, options.share)
    elif options.verb == "gather":
        gather(options.workdir)
    else:
        figures()
