"""Where the time of a training step goes, operation by operation, as XLA's own trace has it.

    taskset -c 0 python benchmarks/profile_step.py --shape C2     # one core: times do not overlap
    python benchmarks/profile_step.py --shape C1 --devices 2

The step is that of `train_step.py`. Operations of one kind, shape and pass are added up; matrix
products also get their rate, from the shapes in the compiled program. On several cores operations
run side by side and their times add up to more than the step's.
"""

import argparse
import json
import math
import os
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

STEPS = 5


class Operation(NamedTuple):
    """One instruction of the compiled program, as far as the table needs it."""

    kind: str
    shape: str
    where: str
    flops: float


def operations(text: str) -> dict[str, Operation]:
    """The instructions of a compiled program by name; a fused product has its FLOPs too."""
    shapes = dict(re.findall(r"%?([\w.\-]+) = (?:\()?(\w+\[[\d,]*\])", text))
    bodies = {
        match.group(1): match.group(2)
        for match in re.finditer(r"^%?([\w.\-]+) \(.*?\{\n(.*?)^\}", text, re.M | re.S)
    }
    found = {}
    for line in text.splitlines():
        if not (match := re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = (\w+\[[\d,]*\]).*", line)):
            continue
        named = re.search(r'op_name="([^"]*)"', line)
        path = named.group(1) if named else ""
        called = re.search(r"calls=%?([\w.\-]+)", line)
        products = [line, *(bodies[called.group(1)] if called else "").splitlines()]
        flops = sum(_flops(product, shapes) for product in products)
        found[match.group(1)] = Operation(
            "product" if flops else path.rpartition("/")[2] or match.group(1),
            match.group(2),
            "backward" if "transpose(" in path else "forward",
            flops,
        )
    return found


def _flops(line: str, shapes: dict[str, str]) -> float:
    match = re.search(
        r"= (\w+\[[\d,]*\])\S* dot\(%?([\w.\-]+).*lhs_contracting_dims=\{([\d,]*)\}", line
    )
    if match is None:
        return 0.0
    lengths = _lengths(shapes[match.group(2)])
    contracted = [lengths[int(axis)] for axis in match.group(3).split(",")]
    return 2.0 * math.prod(_lengths(match.group(1))) * math.prod(contracted)


def _lengths(shape: str) -> list[int]:
    return [int(length) for length in re.findall(r"\d+", shape.partition("[")[2])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", default="C2")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--rows", type=int, default=40)
    given = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = (
        f"--xla_force_host_platform_device_count={given.devices} --xla_cpu_enable_xprof_traceme"
    )
    import jax
    from train_step import SHAPES, ours

    stepper = ours(SHAPES[given.shape], devices=given.devices)
    for number in range(STEPS):
        stepper.step(number)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for number in range(STEPS):
                stepper.step(number)
        [path] = Path(folder).rglob("*.xplane.pb")
        trace = jax.profiler.ProfileData.from_file(str(path))
    known = operations(stepper.program())
    totals: Counter[tuple[str, str, str]] = Counter()
    flops: Counter[tuple[str, str, str]] = Counter()
    for event in (e for plane in trace.planes for line in plane.lines for e in line.events):
        name = dict(event.stats).get("hlo_op")
        if name in known:
            operation = known[name]
            totals[operation[:3]] += event.duration_ns / 1e6 / STEPS
            flops[operation[:3]] += operation.flops / STEPS
    rows: list[dict[str, Any]] = []
    for key, milliseconds in totals.most_common():
        rate = flops[key] / milliseconds / 1e6 if flops[key] else None
        rows.append(dict(zip(Operation._fields, key, strict=False))
                    | {"ms": milliseconds, "gflops_per_second": rate})  # fmt: skip
    print(f"{'ms':>8} {'GFLOP/s':>8}  operation")
    for row in rows[: given.rows]:
        rate = f"{row['gflops_per_second']:8.0f}" if row["gflops_per_second"] else " " * 8
        print(f"{row['ms']:8.2f} {rate}  {row['where']:8} {row['kind']:20} {row['shape']}")
    print(f"{sum(totals.values()):8.1f} in all")
    print(json.dumps({"shape": given.shape, "devices": given.devices,
                      "cores": len(os.sched_getaffinity(0)), "operations": rows}))  # fmt: skip


if __name__ == "__main__":
    main()
