"""One training step of a small GPT-2 on the CPU: this project beside plain PyTorch.

    python benchmarks/train_step.py                       # both shapes, needs the extra `peers`
    python benchmarks/train_step.py --shapes C1 --rounds 3 --seconds 2

Contestants take turns, a burst at a time, each in a process of its own that sleeps while the others
work. All are held to the same two cores and do the same sums: shape, initial weights, tokens,
float32, AdamW with decay of matrices, clipping at norm 1, a constant rate. Their losses after 50
steps must agree within 2%, else the exit status is 1.

In every process glibc keeps freed memory, in huge pages (GLIBC_TUNABLES, see the README):
a step's workspace is otherwise returned to the system and faulted in again, 4 KiB at a time, by the
next step. `--return_memory` leaves the allocator alone, in all of them.

- ours: `scaling.train.program.Program` on a mesh of two CPU devices, half of the batch each;
  ours_one_device: the same on one device, whose products use both cores.
- torch_eager, torch_compile: the recipe of Karpathy's nanoGPT in plain PyTorch, written anew: fused
  QKV, `scaled_dot_product_attention`, fused AdamW, gradients set to None. Departures, on both
  sides: GELU by its tanh, no decay of the embedding.

C1 is nanoGPT's smallest shape for a CPU (its README: 4 layers, width 128, 4 heads, 64 tokens, batch
12, 65 characters). C2 has 6 layers as its `train_shakespeare_char`, heads of width 32 as in C1.

What is measured, per contestant: median seconds of a step over all bursts, the batch's way from
NumPy arrays and the arrival of the loss included; tokens/s; `flops_counted`/s
(`scaling.counts.flops_counted`: matrix products alone, causal attention at half); `matmul_share`,
that over the rate of a 1024 x 1024 x 1024 float32 product in the same process; `mfu_counted`, that
over the fastest such product of any contestant, since the maker of this CPU states no peak;
peak resident memory of the process, the framework included; time until a dispatched step gives
the host back (PyTorch's is the whole step: it computes in the calling thread); and the seconds of
the first step beyond a usual one, which are those of compiling.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scaling import counts
from scaling.architecture import FAMILIES
from scaling.sizes import Size

CORES = 2
COMPARED_STEPS = 50
TOLERANCE = 0.02
RATE, DECAY, CLIP, DECAYS, EPSILON = 1e-3, 1e-4, 1.0, (0.9, 0.99), 1e-8
BATCHES = 64
KEEP_MEMORY = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=2147483647"
)
CONTESTANTS = ("ours", "ours_one_device", "torch_eager", "torch_compile")
ARCHITECTURE = FAMILIES["gpt2"]


class Shape(NamedTuple):
    """A model and the windows of its batch."""

    size: Size
    windows: int


def _shape(
    *, depth: int, width: int, heads: int, context: int, windows: int, vocabulary: int
) -> Shape:
    size = Size(
        width=width,
        depth=depth,
        heads=heads,
        kv_heads=heads,
        head_width=width // heads,
        feedforward=4 * width,
        vocabulary=vocabulary,
        context=context,
    )
    return Shape(size, windows)


SHAPES: Mapping[str, Shape] = {
    "C1": _shape(depth=4, width=128, heads=4, context=64, windows=12, vocabulary=65),
    "C2": _shape(depth=6, width=256, heads=8, context=128, windows=16, vocabulary=4096),
}


def token_stream(shape: Shape) -> np.ndarray:
    """tokens[BATCHES, B, T + 1] with something to learn: half of them follow from the one before,
    by a fixed permutation, the others are drawn with weights 1/rank."""
    random, vocabulary = np.random.default_rng(0), shape.size.vocabulary
    follower = random.permutation(vocabulary)
    shares = 1 / np.arange(1, vocabulary + 1)
    dims = BATCHES, shape.windows, shape.size.context + 1
    tokens = random.choice(vocabulary, dims, p=shares / shares.sum())
    follows = random.random(dims) < 0.5
    for position in range(1, dims[-1]):
        before = follower[tokens[..., position - 1]]
        tokens[..., position] = np.where(follows[..., position], before, tokens[..., position])
    return tokens.astype(np.int32)


class Stepper(NamedTuple):
    """A contestant made ready: `step(t)` trains on batch t and returns its loss and the seconds
    until the host was free; `matmul` multiplies two matrices of 1024 x 1024; `program` is the text
    of the compiled step, where there is one."""

    step: Callable[[int], tuple[float, float]]
    matmul: Callable[[], object]
    program: Callable[[], str] = str


# Each contestant imports its framework inside, so that its process holds no other.


def ours(shape: Shape, *, devices: int) -> Stepper:
    """The project's own compiled step, on `devices` CPU devices."""
    import jax
    import jax.numpy as jnp

    from scaling.model.parameterization import Parameterization
    from scaling.model.transformer import Decoder
    from scaling.train import objectives, optim
    from scaling.train.program import Program
    from scaling.train.sharding import make_mesh

    size = shape.size
    rules = Parameterization(
        name="standard",
        lengths=size.lengths,
        base_width=size.width,
        base_depth=size.depth,
        base_head_width=size.head_width,
        tied=ARCHITECTURE.tied,
    )
    program = Program(
        lambda key: Decoder(size, ARCHITECTURE, rules, key=key, layers_unrolled=size.depth),
        objectives.cross_entropy,
        measure=objectives.cross_entropy,
        rule=optim.Rule(
            optimizer="adamw", schedule_name="constant", decays=DECAYS, epsilon=EPSILON
        ),
        scale=rules.scale,
        batch_windows=shape.windows,
        context=size.context,
        mesh=make_mesh(data=devices, fsdp=1, tensor=1, context=1),
    )
    hyper = optim.Hyper(
        *map(jnp.float32, (RATE, RATE, DECAY, CLIP, 0.0, 0.0, BATCHES * COMPARED_STEPS))
    )
    weights = initial_weights(shape)
    state = program.init(jax.random.key(0))
    found = {name: value.shape for name, value in state.params.items()}
    if found != {name: value.shape for name, value in weights.items()}:
        raise ValueError(f"the model's weights are {found}; `initial_weights` must make the same")
    places = {name: value.sharding for name, value in state.params.items()}
    state = state._replace(params=jax.device_put(weights, places))
    tokens = token_stream(shape)
    positions_BT = np.broadcast_to(
        np.arange(size.context, dtype=np.int32), (shape.windows, size.context)
    )
    common = {
        "segments_BT": np.zeros(positions_BT.shape, np.int32),
        "positions_BT": positions_BT,
        "weights_BT": np.ones(positions_BT.shape, np.float32),
    }

    def step(number: int) -> tuple[float, float]:
        nonlocal state
        ids = tokens[number % BATCHES]
        started = time.perf_counter()
        batch = {"tokens_BT": ids[:, :-1], "targets_BT": ids[:, 1:], **common}
        state, metrics = program.step(state, program.put([batch]), hyper)
        free = time.perf_counter() - started
        return float(metrics.loss[0]), free

    square = jnp.ones((1024, 1024))
    product = jax.jit(jnp.matmul)
    return Stepper(
        step,
        lambda: product(square, square).block_until_ready(),
        lambda: program.compiled["1 steps"].as_text(),
    )


def peer(shape: Shape, *, compiled: bool) -> Stepper:
    """Plain PyTorch."""
    import torch
    from gpt2_in_torch import GPT2, port

    torch.set_num_threads(CORES)
    model = GPT2(shape.size)
    model.load_state_dict(port(initial_weights(shape), shape.size))
    tables = {"embedding.weight", "positions.weight"}
    matrices, rest = [], []
    for name, parameter in model.named_parameters():
        (matrices if parameter.dim() > 1 and name not in tables else rest).append(parameter)
    # PyTorch multiplies the decay with the rate, this project does not.
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": DECAY / RATE},
            {"params": rest, "weight_decay": 0.0},
        ],
        lr=RATE,
        betas=DECAYS,
        eps=EPSILON,
        fused=True,
    )
    loss_of = torch.compile(model) if compiled else model
    tokens = token_stream(shape).astype(np.int64)

    def step(number: int) -> tuple[float, float]:
        started = time.perf_counter()
        ids = torch.from_numpy(tokens[number % BATCHES])
        loss = loss_of(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item(), time.perf_counter() - started

    square = torch.ones(1024, 1024)
    return Stepper(step, lambda: torch.mm(square, square))


def initial_weights(shape: Shape) -> dict[str, np.ndarray]:
    """Weights by this project's names: normal with deviation 0.02 as in GPT-2, gains one, biases
    zero; layers are stacked."""
    random, size = np.random.default_rng(1), shape.size
    L, D, F, N, H = size.depth, size.width, size.feedforward, size.heads, size.head_width

    def normal(*dims: int) -> np.ndarray:
        return random.normal(0, 0.02, dims).astype(np.float32)

    def constant(value: float, *dims: int) -> np.ndarray:
        return np.full(dims, value, np.float32)

    return {
        "embedding": normal(size.vocabulary, D),
        "positions": normal(size.context, D),
        "blocks.attention.query": normal(L, D, N, H),
        "blocks.attention.key": normal(L, D, N, H),
        "blocks.attention.value": normal(L, D, N, H),
        "blocks.attention.project": normal(L, N, H, D),
        "blocks.feedforward.up": normal(L, D, F),
        "blocks.feedforward.down": normal(L, F, D),
        **{
            f"blocks.attention.{name}_bias": constant(0, L, N, H)
            for name in ("query", "key", "value")
        },
        "blocks.attention.project_bias": constant(0, L, D),
        "blocks.feedforward.up_bias": constant(0, L, F),
        "blocks.feedforward.down_bias": constant(0, L, D),
        **{f"blocks.{name}_norm.gain": constant(1, L, D) for name in ("attention", "feedforward")},
        **{f"blocks.{name}_norm.bias": constant(0, L, D) for name in ("attention", "feedforward")},
        "norm.gain": constant(1, D),
        "norm.bias": constant(0, D),
    }


def contend(contestant: str, shape_name: str, cores: set[int], pipe: Connection) -> None:
    """The life of a contestant's process: get ready, then a burst for every number of seconds
    received, until None."""
    os.sched_setaffinity(0, cores)
    os.environ["OMP_NUM_THREADS"] = str(len(cores))
    os.environ["JAX_PLATFORMS"] = "cpu"
    # Compiling is measured cold.
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
    devices = 2 if contestant == "ours" else 1
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    shape = SHAPES[shape_name]
    if contestant.startswith("ours"):
        stepper = ours(shape, devices=devices)
    else:
        stepper = peer(shape, compiled=contestant == "torch_compile")
    number = 0

    def timed() -> tuple[float, float, float]:
        nonlocal number
        started = time.perf_counter()
        loss, free = stepper.step(number)
        number += 1
        return loss, free, time.perf_counter() - started

    losses, _, seconds = zip(*(timed() for _ in range(COMPARED_STEPS)), strict=True)
    pipe.send(
        {
            "loss_after_50_steps": statistics.mean(losses[-5:]),
            "compile_seconds": seconds[0] - statistics.median(seconds),
        }
    )
    while (limit := pipe.recv()) is not None:
        stop, burst, matmuls = time.perf_counter() + limit, [], []
        while time.perf_counter() < stop or len(burst) < 3:
            burst.append(timed())
        for _ in range(8):
            started = time.perf_counter()
            stepper.matmul()
            matmuls.append(time.perf_counter() - started)
        pipe.send(
            {
                "seconds": [row[2] for row in burst],
                "free": [row[1] for row in burst],
                "matmul_flops": 2 * 1024**3 / statistics.median(matmuls),
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )


def compete(
    shape_name: str, *, names: tuple[str, ...], rounds: int, seconds: float
) -> dict[str, dict[str, Any]]:
    """Measurements of every contestant on one shape."""
    cores = set(sorted(os.sched_getaffinity(0))[:CORES])
    if len(cores) < CORES:
        raise SystemExit(f"this machine lends {len(cores)} core; the comparison needs {CORES}")
    spawn = multiprocessing.get_context("spawn")
    pipes, processes, results = {}, {}, {}
    for name in names:
        pipes[name], theirs = spawn.Pipe()
        processes[name] = spawn.Process(target=contend, args=(name, shape_name, cores, theirs))
        processes[name].start()
        theirs.close()
        results[name] = pipes[name].recv()
    bursts: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else reversed(names):
            pipes[name].send(seconds)
            bursts[name].append(pipes[name].recv())
    for name in names:
        pipes[name].send(None)
        processes[name].join()
    shape = SHAPES[shape_name]
    tokens = shape.windows * shape.size.context
    flops = counts.flops_counted(
        shape.size, ARCHITECTURE, tokens=tokens, context=shape.size.context
    )
    best = max(burst["matmul_flops"] for rows in bursts.values() for burst in rows)
    for name, rows in bursts.items():
        medians = [statistics.median(row["seconds"]) for row in rows]
        step = statistics.median(second for row in rows for second in row["seconds"])
        rate = statistics.median(row["matmul_flops"] for row in rows)
        results[name] |= {
            "step_ms": 1e3 * step,
            "step_ms_of_bursts": [1e3 * median for median in medians],
            "tokens_per_second": tokens / step,
            "flops_counted_per_second": flops / step,
            "matmul_flops_per_second": rate,
            "matmul_share": flops / step / rate,
            "mfu_counted": flops / step / best,
            "host_us": 1e6 * statistics.median(second for row in rows for second in row["free"]),
            "peak_mib": rows[-1]["peak_mib"],
        }
    return results


def report(shape_name: str, results: Mapping[str, Mapping[str, Any]]) -> None:
    """A line for every contestant."""
    print(
        f"\n{shape_name:16} ms/step  (bursts from - to)   tokens/s  matmul_share  mfu_counted"
        "  peak MiB   host us  compile s    loss"
    )
    for name, row in results.items():
        low, high = min(row["step_ms_of_bursts"]), max(row["step_ms_of_bursts"])
        print(
            f"{name:16} {row['step_ms']:7.1f}  ({low:7.1f} - {high:7.1f})  "
            f"{row['tokens_per_second']:10,.0f}  {row['matmul_share']:12.1%}  "
            f"{row['mfu_counted']:11.1%}  {row['peak_mib']:8,.0f}  {row['host_us']:8,.0f}  "
            f"{row['compile_seconds']:9.1f}  {row['loss_after_50_steps']:6.3f}"
        )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--rounds", type=int, default=7, help="bursts of every contestant")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a burst")
    parser.add_argument(
        "--return_memory",
        action="store_true",
        help="leave the C library's allocator as it is, in every process",
    )
    given = parser.parse_args()
    if not given.return_memory:
        os.environ["GLIBC_TUNABLES"] = KEEP_MEMORY  # read when a process starts
    summary: dict[str, Any] = {
        "versions": {name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "torch")}
        | {"python": platform.python_version()},
        "processor": _processor(),
        "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES"),
        "load_before": os.getloadavg()[0],
        "shapes": {},
    }
    agree = True
    for shape_name in given.shapes:
        results = compete(
            shape_name, names=tuple(given.contestants), rounds=given.rounds, seconds=given.seconds
        )
        report(shape_name, results)
        losses = [row["loss_after_50_steps"] for row in results.values()]
        spread = max(losses) / min(losses) - 1
        agree = agree and spread <= TOLERANCE
        entry: dict[str, Any] = {"contestants": results, "loss_spread": spread}
        own, others = ([r["step_ms"] for n, r in results.items() if n.startswith("ours") == mine]
                       for mine in (True, False))  # fmt: skip
        if own and others:
            entry["speed_against_torch"] = min(others) / min(own)
            print(f"losses agree within {spread:.2%}; {entry['speed_against_torch']:.2f}x PyTorch")
        summary["shapes"][shape_name] = entry
    print(json.dumps(summary))
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
