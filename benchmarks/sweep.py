"""A grid of eight rates, from nothing to the last loss: one packed program, eight runs one after
another, and a shell loop of plain PyTorch.

    python benchmarks/sweep.py                          # needs the extra `peers`
    python benchmarks/sweep.py --updates=100 --rounds=1

Every contestant is what a user would type, in processes that start cold, with an empty compile
cache; the text is tokenized before, for all. The same GPT-2 (0.95M parameters), batches (512
tokens), AdamW, warm-up, constant rate, float32 and validation text; the best of the eight losses
must agree within 2%, else the exit status is 1.

- packed: `scaling sweep`, all eight in one program (`sweep.packed=8`);
- one_by_one: `scaling sweep`, one program, a run after the other;
- workers: the same in two processes of one core each (`--workers=2`);
- torch: `for rate in ...; do python rate_in_torch.py --rate=$rate; done`, both cores for each.

They take turns, round by round. Wall seconds with their range, and ratios to torch's loop of the
same round; the JSON on the last line has versions and flags too.
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
from typing import Any

ROOT = Path(__file__).parents[1]
RATES = tuple(3e-4 * 2.0 ** (i / 2) for i in range(8))
TOLERANCE = 0.02
BATCH, WARMUP = 512, 20
CONFIG = """
from scaling.config import default
from scaling.sweep.grid import cells, param


def get_config(arg=""):
    config = default()
    config.model.family, config.model.width, config.model.depth = "gpt2", 128, 4
    config.model.heads, config.corpus.vocabulary = 4, 1024
    config.optimizer.name, config.optimizer.schedule = "adamw", "constant"
    config.batch_tokens, config.budget.tokens = {batch}, {tokens}
    config.optimizer.warmup_tokens = {warmup}
    config.runtime.evaluate_every_steps = 10**9
    config.sweep.trunks = False
    return config


def get_grid(config):
    return cells(config, [
        {{"seed": 0, "optimizer.learning_rate": rate, "optimizer.vector_learning_rate": rate}}
        for rate in {rates}
    ])
"""
CONTESTANTS: Mapping[str, Sequence[str]] = {
    "packed": ("--config.sweep.packed=8",),
    "one_by_one": ("--config.sweep.packed=1",),
    "workers": ("--config.sweep.packed=1", "--workers=2"),
    "torch": (),
}


def prepare(folder: Path, updates: int) -> None:
    """The config, the tokens and what the torch runs are told."""
    from scaling import config as configs
    from scaling.cells import architecture_of, size_of
    from scaling.counts import parameters
    from scaling.workshop import Workshop

    path = folder / "rates.py"
    path.write_text(
        CONFIG.format(batch=BATCH, tokens=BATCH * updates, warmup=BATCH * WARMUP, rates=RATES)
    )
    loaded = configs.load(str(path), [])
    assert loaded.grid is not None
    cell = loaded.grid(loaded.config)[0]
    data, manifest = Workshop(folder).data(cell)
    size = size_of(cell)
    job = {
        "size": vars(size),
        "params": parameters(size, architecture_of(cell)).total,
        "train": str(data / manifest.splits["train"].file),
        "validation": str(data / manifest.splits["validation"].file),
        "validation_tokens": manifest.splits["validation"].tokens,
        "batch_windows": BATCH // size.context,
        "updates": updates,
        "warmup_updates": WARMUP,
        "threads": len(os.sched_getaffinity(0)),
    }
    (folder / "job.json").write_text(json.dumps(job))


def run(name: str, folder: Path, place: Path) -> tuple[float, list[float]]:
    """Wall seconds of a contestant, and its losses by rate."""
    env = os.environ | {"XDG_CACHE_HOME": str(place / "cache"), "PYTHONPATH": str(ROOT)}
    if name == "torch":
        env["PYTHONPATH"] += f":{ROOT / 'benchmarks'}"
        loop = [sys.executable, str(ROOT / "benchmarks" / "rate_in_torch.py")]
        begun = time.perf_counter()
        out = [
            subprocess.run(
                [*loop, str(folder / "job.json"), f"--rate={rate}"], env=env, check=True,
                capture_output=True, text=True,
            ).stdout
            for rate in RATES
        ]  # fmt: skip
        return time.perf_counter() - begun, [json.loads(line)["loss"] for line in out]
    workdir = place / "work"
    shutil.copytree(folder / "data", workdir / "data")
    command = [sys.executable, "-m", "scaling", "sweep", f"--config={folder / 'rates.py'}"]
    begun = time.perf_counter()
    done = subprocess.run(
        [*command, f"--workdir={workdir}", *CONTESTANTS[name]], env=env, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise SystemExit(f"{name} ended with {done.returncode}: {done.stdout}{done.stderr}")
    records = [json.loads(path.read_text()) for path in (workdir / "records").glob("*.json")]
    of = {record["learning_rate"]: record["loss"] for record in records}
    return seconds, [of[rate] for rate in RATES]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--updates", type=int, default=400, help="of each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in options.contestants}
    losses: dict[str, list[float]] = {}
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder, options.updates)
        job = json.loads((folder / "job.json").read_text())
        for turn in range(options.rounds):
            names = options.contestants if turn % 2 == 0 else options.contestants[::-1]
            for name in names:
                place = Path(tempfile.mkdtemp(dir=folder))
                took, losses[name] = run(name, folder, place)
                seconds[name].append(took)
                shutil.rmtree(place)
                print(f"round {turn + 1}: {name:11} {took:7.1f} s", flush=True)
    print(f"\n{len(RATES)} rates, {options.updates} updates of {BATCH} tokens, "
          f"{job['params']:,} parameters")  # fmt: skip
    print(f"{'':11}  seconds  (from - to)          over torch  (from - to)      best loss")
    ratios: dict[str, list[float]] = {}
    for name, each in seconds.items():
        torch = seconds.get("torch", each)
        ratios[name] = [theirs / ours for theirs, ours in zip(torch, each, strict=True)]
        print(
            f"{name:11}  {statistics.median(each):7.1f}  ({min(each):6.1f} - {max(each):6.1f})  "
            f"{statistics.median(ratios[name]):14.2f}x  ({min(ratios[name]):.2f} - "
            f"{max(ratios[name]):.2f})  {min(losses[name]):13.4f}"
        )
    best = [min(each) for each in losses.values()]
    spread = max(best) / min(best) - 1
    summary: dict[str, Any] = {
        "versions": {name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "torch")}
        | {"python": platform.python_version()},
        "cores": len(os.sched_getaffinity(0)),
        "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES"),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS"),
        "load_before": load,
        "updates": options.updates,
        "batch_tokens": BATCH,
        "params": job["params"],
        "validation_tokens": job["validation_tokens"],
        "seconds": seconds,
        "times_as_fast_as_torch": ratios,
        "losses": losses,
        "spread_of_best": spread,
    }
    print(json.dumps(summary))
    return 0 if spread <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
