"""A short benchmark of every executable that a sweep needs, on batches of its own."""

import functools
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from scaling.inputs import hypers_of
from scaling.sweep.cells import Cell
from scaling.sweep.forecast import Key, Speed, key_of
from scaling.sweep.tasks import Pack, Task
from scaling.train.program import Program, TrainState
from scaling.workshop import Workshop

LEAST_SECONDS = 0.5
"""For so long updates are timed, and for two dispatches at least."""


def measure(tasks: Iterable[Task], *, say: Callable[[str], None]) -> dict[Key, Speed]:
    """Compile each executable that `tasks` need, time a few updates and the measuring of a state,
    and ask XLA for its memory; `say` is told of each.

    The text is tokenized in a folder that is gone afterwards; no state is kept.

    Raises:
      ValueError: a mesh or a kernel that this machine does not have.
      ConfigError: a text of fewer tokens than a few batches.
      JaxRuntimeError: a device that cannot hold one of them.
    """
    firsts: dict[Key, Task] = {}
    for task in tasks:
        firsts.setdefault(key_of(task), task)
    with tempfile.TemporaryDirectory(prefix="scaling-measure-") as folder:
        workshop = Workshop(Path(folder))
        found = {}
        for number, (key, task) in enumerate(firsts.items(), 1):
            say(f"measuring {number} of {len(firsts)}: {described(task)}")
            cells = task.cells if isinstance(task, Pack) else (task.cell,)
            found[key] = _measure(cells, workshop)
        return found


def described(task: Task) -> str:
    """The shape of a task, in words."""
    size = task.shape.size
    packed = f", {task.lanes} at once" if task.lanes > 1 else ""
    return f"width {size.width}, depth {size.depth}{packed}"


def _measure(cells: tuple[Cell, ...], workshop: Workshop) -> Speed:
    configs = [cell.config for cell in cells]
    first, lanes = configs[0], len(configs)
    program = workshop.program(first, packed=lanes if lanes > 1 else None)
    _, manifest = workshop.data(first)
    state, batches, told = _arguments(configs, program, workshop)
    seconds, state = _time_steps(program, state, batches, told)
    rows, context = cells[0].batch_tokens // first.model.context_tokens, first.model.context_tokens
    sample = list(workshop.validation(first, limit=2 * rows))
    program.evaluate(state.params, sample)
    began = time.perf_counter()
    program.evaluate(state.params, sample)
    window = (time.perf_counter() - began) / (len(sample) * rows)
    whole = manifest.splits["validation"].tokens // context
    runtime = first.runtime
    evaluated = min(runtime.evaluate_windows or whole, whole)
    return Speed(
        step=seconds,
        measure=window * evaluated / runtime.evaluate_every_steps,
        end=window * whole,
        compile=program.compile_seconds,
        memory_bytes=_memory(program.compiled[f"{program.dispatch_steps} steps"]),
    )


def _arguments(
    configs: list[ConfigDict], program: Program, workshop: Workshop
) -> tuple[TrainState, Any, Any]:
    keys = [jax.random.key(config.seed) for config in configs]
    told = hypers_of(configs)
    each = []
    for config in configs:
        stream = workshop.stream(config, tokens=program.dispatch_steps * config.batch_tokens)
        each.append([stream.batch(number) for number in range(program.dispatch_steps)])
    if len(configs) == 1:
        return program.init(keys[0]), program.put(each[0]), told
    lanes = [
        {name: np.stack([one[name] for one in step]) for name in step[0]}
        for step in zip(*each, strict=True)
    ]
    return program.init(jnp.stack(keys)), program.put(lanes), told


def _time_steps(
    program: Program, state: TrainState, batches: Any, told: Any
) -> tuple[float, TrainState]:
    step = functools.partial(program.step, batches=batches, hyper=told)
    # The first call compiles, and warms what is allocated once.
    state, _ = step(state)
    jax.block_until_ready(state)
    began, dispatched = time.perf_counter(), 0
    before = None
    while dispatched < 2 or time.perf_counter() - began < LEAST_SECONDS:
        state, metrics = step(state)
        # As the loop does: the next one waits while one is under way.
        jax.block_until_ready(before)
        before = metrics
        dispatched += 1
    jax.block_until_ready(state)
    elapsed = time.perf_counter() - began
    return elapsed / (dispatched * program.dispatch_steps), state


def _memory(executable: Any) -> int:
    """Bytes of a device: arguments, results that take no argument's place, and workspace."""
    found = executable.memory_analysis()
    return int(
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        - found.alias_size_in_bytes
        + found.temp_size_in_bytes
    )
