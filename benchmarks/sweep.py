"""A grid of learning rates, from nothing to the last loss: packed, one run after
another, and a shell loop of plain PyTorch.

    python benchmarks/sweep.py                          # needs the extra `peers`
    python benchmarks/sweep.py --updates=100 --rounds=1
    python benchmarks/sweep.py --shape=5M --rates=16    # for an accelerator

Every contestant is what a user would type, in processes that start cold, with an empty compile
cache; the text is tokenized before, for all. The same GPT-2, batches, AdamW, warm-up, constant
rate, precision and validation text; the best of the losses must agree within 2%, else the exit
status is 1.

- measured: `scaling sweep`, which measures how many to pack;
- packed: `scaling sweep`, all in one program (`sweep.packed`);
- one_by_one: `scaling sweep`, one program, a run after the other;
- workers: the same in two processes of one core each (`--workers=2`);
- torch: `for rate in ...; do python rate_in_torch.py --rate=$rate; done`, all cores for each.

They take turns, round by round. Wall seconds with their range, and ratios to torch's loop of the
same round; beside them the tokens of all runs over the seconds in which they trained, start,
compilation and measurement left out. The JSON on the last line has versions and flags too.
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
TOLERANCE = 0.02
WARMUP = 20


class Shape(NamedTuple):
    """A GPT-2 and how it is trained; the batch in tokens."""

    width: int
    depth: int
    heads: int
    batch: int
    precision: str
    dispatch: int


SHAPES: Mapping[str, Shape] = {
    "1M": Shape(width=128, depth=4, heads=4, batch=512, precision="float32", dispatch=1),
    # The batch is that of `scaling.sizes.training`.
    "5M": Shape(width=256, depth=6, heads=8, batch=2048, precision="bfloat16", dispatch=10),
}
CONFIG = """
from scaling.config import default
from scaling.sweep.grid import cells, param


def get_config(arg=""):
    config = default()
    config.model.family, config.corpus.vocabulary = "gpt2", 1024
    config.model.width, config.model.depth, config.model.heads = {width}, {depth}, {heads}
    config.precision, config.runtime.dispatch_steps = "{precision}", {dispatch}
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
    "measured": (),
    "packed": (),
    "one_by_one": ("--config.sweep.packed=1",),
    "workers": ("--config.sweep.packed=1", "--workers=2"),
    "torch": (),
}


def rates_of(number: int) -> tuple[float, ...]:
    """From 3e-4 to 3.4e-3, equal steps of the logarithm."""
    return tuple(3e-4 * 2.0 ** (3.5 * i / max(number - 1, 1)) for i in range(number))


def prepare(folder: Path, shape: Shape, rates: Sequence[float], updates: int) -> None:
    """The config, the tokens and what the torch runs are told."""
    from scaling import config as configs
    from scaling.cells import architecture_of, size_of
    from scaling.counts import parameters
    from scaling.workshop import Workshop

    path = folder / "rates.py"
    path.write_text(
        CONFIG.format(
            tokens=shape.batch * updates,
            warmup=shape.batch * WARMUP,
            rates=rates,
            **shape._asdict(),
        )
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
        "batch_windows": shape.batch // size.context,
        "precision": shape.precision,
        "updates": updates,
        "warmup_updates": WARMUP,
        "threads": len(os.sched_getaffinity(0)),
    }
    (folder / "job.json").write_text(json.dumps(job))


class Ran(NamedTuple):
    """Wall seconds of a contestant, those in which it trained, and its losses by rate."""

    seconds: float
    training: float
    losses: list[float]


def run(
    name: str, folder: Path, place: Path, rates: Sequence[float], overrides: Sequence[str]
) -> Ran:
    """One contestant, from a cold start."""
    env = os.environ | {"XDG_CACHE_HOME": str(place / "cache")}
    paths = (str(ROOT), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", ""))
    env["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    if name == "torch":
        loop = [sys.executable, str(ROOT / "benchmarks" / "rate_in_torch.py")]
        begun = time.perf_counter()
        out = [
            subprocess.run(
                [*loop, str(folder / "job.json"), f"--rate={rate}"], env=env, check=True,
                stdout=subprocess.PIPE, text=True,
            ).stdout
            for rate in rates
        ]  # fmt: skip
        seconds, told = time.perf_counter() - begun, [json.loads(line) for line in out]
        return Ran(seconds, sum(x["train_seconds"] for x in told), [x["loss"] for x in told])
    workdir = place / "work"
    shutil.copytree(folder / "data", workdir / "data")
    command = [sys.executable, "-m", "scaling", "sweep", f"--config={folder / 'rates.py'}"]
    command += [f"--workdir={workdir}", *CONTESTANTS[name], *overrides]
    if name == "packed":
        command.append(f"--config.sweep.packed={len(rates)}")
    begun = time.perf_counter()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise SystemExit(f"{name} ended with {done.returncode}: {done.stdout}{done.stderr}")
    records = [json.loads(path.read_text()) for path in (workdir / "records").glob("*.json")]
    of = {record["learning_rate"]: record["loss"] for record in records}
    # Packed runs have the seconds of all of them; workers train side by side.
    training = sum(record["train_seconds"] / record["packed"] for record in records)
    training /= 2 if name == "workers" else 1
    return Ran(seconds, training, [of[rate] for rate in rates])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=SHAPES, default="1M")
    parser.add_argument("--rates", type=int, default=8, help="how many")
    parser.add_argument("--updates", type=int, default=400, help="of each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    options, overrides = parser.parse_known_args()
    if any(not text.startswith("--config.") for text in overrides):
        parser.error(f"unknown arguments {overrides}; --config.KEY=VALUE goes to `scaling sweep`")
    shape, rates = SHAPES[options.shape], rates_of(options.rates)
    ran: dict[str, list[Ran]] = {name: [] for name in options.contestants}
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder, shape, rates, options.updates)
        job = json.loads((folder / "job.json").read_text())
        for turn in range(options.rounds):
            names = options.contestants if turn % 2 == 0 else options.contestants[::-1]
            for name in names:
                place = Path(tempfile.mkdtemp(dir=folder))
                ran[name].append(run(name, folder, place, rates, overrides))
                shutil.rmtree(place)
                print(f"round {turn + 1}: {name:11} {ran[name][-1].seconds:7.1f} s", flush=True)
    print(f"\n{len(rates)} rates, {options.updates} updates of {shape.batch} tokens, "
          f"{job['params']:,} parameters, {shape.precision}")  # fmt: skip
    print(f"{'':11}  seconds  (from - to)          over torch  (from - to)      tokens/s   best")
    ratios: dict[str, list[float]] = {}
    tokens = len(rates) * options.updates * shape.batch
    for name, each in ran.items():
        mine, torch = ([one.seconds for one in found] for found in (each, ran.get("torch", each)))
        ratios[name] = [theirs / ours for theirs, ours in zip(torch, mine, strict=True)]
        rate = tokens / statistics.median(one.training for one in each)
        print(
            f"{name:11}  {statistics.median(mine):7.1f}  ({min(mine):6.1f} - {max(mine):6.1f})  "
            f"{statistics.median(ratios[name]):14.2f}x  ({min(ratios[name]):.2f} - "
            f"{max(ratios[name]):.2f})  {rate:10,.0f}  {min(each[-1].losses):.4f}"
        )
    best = [min(each[-1].losses) for each in ran.values()]
    spread = max(best) / min(best) - 1
    summary: dict[str, Any] = {
        "versions": {name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "torch")}
        | {"python": platform.python_version()},
        "device": device(),
        "cores": len(os.sched_getaffinity(0)),
        "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES"),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS"),
        "overrides": overrides,
        "load_before": load,
        "shape": shape._asdict(),
        "updates": options.updates,
        "params": job["params"],
        "validation_tokens": job["validation_tokens"],
        "ran": {name: [one._asdict() for one in each] for name, each in ran.items()},
        "times_as_fast_as_torch": ratios,
        "spread_of_best": spread,
    }
    print(json.dumps(summary))
    return 0 if spread <= TOLERANCE else 1


def device() -> str:
    """What JAX runs on; asked in a process of its own, which lets go of it again."""
    code = "import jax; print(jax.devices()[0].device_kind)"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return asked.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
