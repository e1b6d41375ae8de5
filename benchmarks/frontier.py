"""A frontier with and without what its cells can share: the same grid, from nothing to its law.

    python benchmarks/frontier.py                     # 12 minutes on 2 cores
    python benchmarks/frontier.py --scale=0.1 --rounds=1

Four sizes, budgets 1, 2, 4 and 8, three seeds: 48 runs. Every contestant is `scaling sweep` in a
process that starts cold, with an empty compile cache, and then `scaling fit`; the text is tokenized
before, for all. They take turns.

- neither: every cell trained by itself;
- trunks: budgets of one size and seed leave a trunk;
- packed: seeds of one size and budget train as one program;
- both: trunks, and what leaves them, packed;
- default: trunks, and as many packed as is measured to pay.

Wall seconds of the sweep, ratios to `neither` of the same round, FLOPs trained (6ND), and what the
law says: the best size at the largest budget and the loss there, with 90% intervals. The JSON on
the last line has versions and flags too.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
SEEDS, LEAST = 3, 3e10
CONFIG = """
from scaling.config import default
from scaling.sweep.grid import cells, param, prod


def get_config(arg=""):
    config = default()
    config.runtime.evaluate_every_steps = 10**9
    return config


def get_grid(config):
    return cells(config, prod(
        param("model.width", (24, 32, 40, 48)),
        param("budget.flops", [{least} * x for x in (1, 2, 4, 8)]),
        param("seed", range(1, {seeds} + 1)),
    ))
"""
CONTESTANTS: Mapping[str, Sequence[str]] = {
    "neither": ("sweep.trunks=False", "sweep.packed=1"),
    "trunks": ("sweep.packed=1",),
    "packed": ("sweep.trunks=False", f"sweep.packed={SEEDS}"),
    "both": (f"sweep.packed={SEEDS}",),
    "default": (),
}


class Ran(NamedTuple):
    """Wall seconds of a sweep, FLOPs that it trained, and the plan of its law."""

    seconds: float
    flops: float
    target: Mapping[str, Any]


def run(name: str, folder: Path, place: Path, largest: float) -> Ran:
    """One contestant, from a cold start."""
    env = os.environ | {"XDG_CACHE_HOME": str(place / "cache")}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    workdir = place / "work"
    shutil.copytree(folder / "data", workdir / "data")
    config = f"--config={folder / 'frontier.py'}"
    overrides = [f"--config.{override}" for override in CONTESTANTS[name]]

    def scaling(*words: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "scaling", *words],
            env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{name} ended with {done.returncode}: {done.stdout}{done.stderr}")

    begun = time.perf_counter()
    scaling("sweep", config, f"--workdir={workdir}", *overrides)
    seconds = time.perf_counter() - begun
    scaling("fit", str(workdir / "records"), f"--out={place}")
    scaling("plan", str(place / "law.json"), config, f"--flops={largest:g}", f"--out={place}")
    grid = json.loads((workdir / "grid.json").read_text())
    [target] = json.loads((place / "plan.json").read_text())["targets"]
    told = {key: target[key] for key in ("params", "loss")}
    return Ran(seconds, sum(task["flops"] for task in grid["tasks"]), told)


def show(ran: Mapping[str, Sequence[Ran]]) -> dict[str, list[float]]:
    """Print the table; the ratios to `neither`."""
    print(f"\n{'':8}  seconds  (from - to)          over neither  (from - to)   FLOPs     "
          "best size (90%)             loss there (90%)")  # fmt: skip
    ratios: dict[str, list[float]] = {}
    for name, each in ran.items():
        mine, plain = ([one.seconds for one in x] for x in (each, ran.get("neither", each)))
        ratios[name] = [theirs / ours for theirs, ours in zip(plain, mine, strict=True)]
        size, loss = each[-1].target["params"], each[-1].target["loss"]
        low, high = size["interval_90"]
        print(
            f"{name:8}  {statistics.median(mine):7.1f}  ({min(mine):6.1f} - {max(mine):6.1f})  "
            f"{statistics.median(ratios[name]):14.2f}x  ({min(ratios[name]):.2f} - "
            f"{max(ratios[name]):.2f})  {each[-1].flops:.2e}  {size['value']:9,.0f} ({low:,.0f} - "
            f"{high:,.0f})  {loss['value']:.4f} ({loss['interval_90'][0]:.4f} - "
            f"{loss['interval_90'][1]:.4f})"
        )
    return ratios


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--scale", type=float, default=1.0, help="of the budgets")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    options = parser.parse_args()
    least = LEAST * options.scale
    ran: dict[str, list[Ran]] = {name: [] for name in options.contestants}
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = folder / "frontier.py"
        path.write_text(CONFIG.format(least=least, seeds=SEEDS))
        prepare(folder, path)
        for turn in range(options.rounds):
            names = options.contestants if turn % 2 == 0 else options.contestants[::-1]
            for name in names:
                place = Path(tempfile.mkdtemp(dir=folder))
                ran[name].append(run(name, folder, place, 8 * least))
                shutil.rmtree(place)
                print(f"round {turn + 1}: {name:8} {ran[name][-1].seconds:7.1f} s", flush=True)
    ratios = show(ran)
    summary: dict[str, Any] = {
        "versions": {name: metadata.version(name) for name in ("jax", "jaxlib", "flax")}
        | {"python": platform.python_version()},
        "cores": len(os.sched_getaffinity(0)),
        "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES"),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS"),
        "load_before": load,
        "least_flops": least,
        "ran": {name: [one._asdict() for one in each] for name, each in ran.items()},
        "times_as_fast_as_neither": ratios,
    }
    print(json.dumps(summary))
    return 0


def prepare(folder: Path, path: Path) -> None:
    """The tokens that all read."""
    from scaling import config as configs
    from scaling.workshop import Workshop

    loaded = configs.load(str(path), [])
    assert loaded.grid is not None
    Workshop(folder).data(loaded.grid(loaded.config)[0])


if __name__ == "__main__":
    sys.exit(main())
