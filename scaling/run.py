"""The composition root: resolved configs become trained states and Records."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from scaling import config as configs
from scaling import provenance, records
from scaling.cells import trunk_content
from scaling.files import write_json
from scaling.inputs import batches_of, hyper_of, hypers_of
from scaling.outcome import (
    Branch,
    Evaluation,
    Outcome,
    evaluator,
    flops_counted,
    logged,
    packed_of,
    peak_flops,
    record_of,
)
from scaling.records import Record
from scaling.train import processes
from scaling.train.checkpoint import Checkpoints
from scaling.train.journal import Journal, Judge, Reporter
from scaling.train.loop import Cadence, Diverged, Hopeless, train
from scaling.train.profiler import Profiler
from scaling.train.program import Program, TrainState
from scaling.train.trackers import Run as Tracked
from scaling.train.trackers import open_trackers
from scaling.train.watchdog import Watchdog
from scaling.workshop import Workshop, program_key, run_id


class Tick(NamedTuple):
    """Progress of one run, or of packed ones, for whoever watches."""

    run_id: str
    step: int
    steps: int
    loss: float
    tokens_per_second: float
    resumed_from: int


Watcher = Callable[[Tick], None]


def run(
    cell: ConfigDict,
    workshop: Workshop,
    *,
    watch: Watcher,
    stop: Callable[[], bool] = lambda: False,
) -> Record:
    """Train one resolved cell by itself: see `run_packed`."""
    [record] = run_packed([cell], workshop, watch=watch, stop=stop)
    return record


def run_packed(
    cells: Sequence[ConfigDict],
    workshop: Workshop,
    *,
    watch: Watcher,
    stop: Callable[[], bool] = lambda: False,
    branches: Sequence[Branch] | None = None,
    judge: Judge | None = None,
) -> list[Record]:
    """Train resolved cells of one program and one length together, to their budgets, or return
    their records if those are already there.

    Interrupted runs go on from their newest checkpoint and end in the same state, bit for bit, as
    if they had not been. A run that diverges, or that the device cannot hold, gets a record that
    says so. `branches` gives for each the trunk that it leaves. `stop` is asked after every
    dispatch whether to keep the state and leave; `judge` after every measurement whether to give
    the runs up, whose records then say why.

    Raises:
      ConfigError: the corpus has fewer tokens than the budget; cells that cannot be packed.
      CheckpointError: no checkpoint of the run is whole, or it was made with other data.
      Stopped: `stop` said so; the same call goes on from there.
      OSError: something could not be written; what was written before is intact.
    """
    names = [run_id(cell) for cell in cells]
    paths = [workshop.workdir / "records" / f"{name}.json" for name in names]
    if all(path.exists() for path in paths):
        return [records.read(path) for path in paths]
    _check_alike(cells)
    started = time.perf_counter()
    _, manifest = workshop.data(cells[0])
    program = workshop.program(cells[0], packed=packed_of(cells))
    compiled_before = program.compile_seconds
    folders = [workshop.workdir / "runs" / name for name in names]
    if processes.first():
        for cell, folder in zip(cells, folders, strict=True):
            write_json(folder / "config.json", configs.plain(cell))
    outcomes = _attempt(
        cells, workshop, folders, watch=watch, stop=stop, branches=branches, judge=judge
    )
    done = []
    for lane, (cell, name) in enumerate(zip(cells, names, strict=True)):
        record = record_of(
            name,
            cell,
            manifest,
            outcomes[lane],
            packed=len(cells),
            branch=None if branches is None else branches[lane],
            compile_seconds=program.compile_seconds - compiled_before,
            wall_seconds=time.perf_counter() - started,
        )
        if processes.first():
            records.write(record, workshop.workdir / "records")
        done.append(record)
    return done


def train_trunk(
    cell: ConfigDict,
    workshop: Workshop,
    *,
    trunk: str,
    steps: Sequence[int],
    watch: Watcher,
    stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Train `cell` without its budget, and keep its state after each of `steps`; the folder of
    those states.

    Raises:
      Diverged: it did; no run can leave it after that.
      Stopped: `stop` said so; the same call goes on from there.
    """
    folder = workshop.workdir / "trunks" / trunk
    there = {int(path.parent.name) for path in (folder / "checkpoints").glob("*/manifest.json")}
    if there.issuperset(steps):
        return folder / "checkpoints"
    if processes.first():
        write_json(folder / "config.json", configs.plain(cell))
    endless = hyper_of(cell)._replace(total_tokens=jnp.float32(ENDLESS))
    program = workshop.program(cell)
    with _open([cell], workshop, [folder], pinned=steps, trunk=trunk) as opened:
        state = opened.state
        reporter = opened.reporter(
            evaluate=lambda state: [{}], watch=watch, stop=stop, steps=max(steps), name=trunk
        )
        for until in sorted(steps):
            state = train(
                program,
                state,
                workshop.stream(cell, tokens=max(steps) * cell.batch_tokens).batch,
                endless,
                steps=until,
                cadence=_cadence(cell)._replace(evaluate=NEVER),
                hooks=reporter,
            )
    return folder / "checkpoints"


ENDLESS = 1e30
"""Tokens of a run that never cools down."""
NEVER = 1 << 62


def _check_alike(cells: Sequence[ConfigDict]) -> None:
    """Refuse cells that are not of one compiled program and one number of steps."""
    first = cells[0]
    for cell in cells[1:]:
        same = program_key(cell) == program_key(first)
        if not same or cell.budget.tokens != first.budget.tokens or cell.corpus != first.corpus:
            raise configs.ConfigError(
                f"{run_id(cell)} and {run_id(first)} differ in more than seed, rates and decay; "
                "pack runs of one shape and one budget"
            )


class _Opened(NamedTuple):
    """What an attempt works with, closed when it is over."""

    checkpoints: Checkpoints
    journals: list[Journal]
    profiler: Profiler
    watchdog: Watchdog
    state: TrainState
    start: int
    cells: Sequence[ConfigDict]
    program: Program
    since: float
    compiled_before: float

    def reporter(
        self,
        *,
        evaluate: Callable[[TrainState], Sequence[Mapping[str, float]]],
        watch: Watcher,
        stop: Callable[[], bool],
        steps: int,
        name: str,
        judge: Judge | None = None,
    ) -> Reporter:
        cell = self.cells[0]
        return Reporter(
            self.journals,
            self.checkpoints,
            self.program,
            evaluate=evaluate,
            rates=[cell.optimizer.learning_rate for cell in self.cells],
            flops_per_token=flops_counted(cell, tokens=1),
            peak_flops=peak_flops(cell),
            tick=lambda step, loss, speed: watch(Tick(name, step, steps, loss, speed, self.start)),
            profiler=self.profiler,
            watchdog=self.watchdog,
            stopping=stop,
            judge=judge,
            start=self.start,
            since=self.since,
            compiled_before=self.compiled_before,
        )


@contextmanager
def _open(
    cells: Sequence[ConfigDict],
    workshop: Workshop,
    folders: Sequence[Path],
    *,
    pinned: Sequence[int] = (),
    trunk: str | None = None,
    branches: Sequence[Branch] | None = None,
) -> Iterator[_Opened]:
    """The state to go on from, and the files of the runs.

    Packed runs keep their states together, in a folder named after all of them.
    """
    since = time.perf_counter()
    cell, runtime = cells[0], cells[0].runtime
    program = workshop.program(cell, packed=packed_of(cells))
    compiled_before = program.compile_seconds
    home = folders[0]
    if len(cells) > 1:
        together = configs.hash_of({"runs": [run_id(cell) for cell in cells]})[:12]
        home = workshop.workdir / "packs" / together
    identity = _identity(cells, workshop, trunk=trunk)
    with ExitStack() as stack:
        checkpoints = stack.enter_context(
            Checkpoints(
                home / "checkpoints",
                keep=runtime.keep_checkpoints,
                identity=identity,
                pinned=pinned,
            )
        )
        state = checkpoints.restore(program.abstract_state)
        if state is None and branches is not None:
            state = _leave(cells, workshop, branches)
        if state is None:
            keys = [jax.random.key(cell.seed) for cell in cells]
            state = program.init(keys[0] if len(cells) == 1 else jnp.stack(keys))
        start = int(np.ravel(state.step)[0])
        journals = []
        for cell, folder in zip(cells, folders, strict=True):
            tracked = Tracked(trunk or run_id(cell), folder, configs.plain(cell))
            trackers = open_trackers(runtime.trackers if processes.first() else (), tracked)
            journal = Journal(
                folder / "metrics.jsonl",
                resumed_from=start,
                writes=processes.first(),
                trackers=trackers,
            )
            journals.append(stack.enter_context(closing(journal)))
        yield _Opened(
            checkpoints,
            journals,
            stack.enter_context(Profiler(tuple(runtime.profile_steps), folder=home / "profile")),
            stack.enter_context(Watchdog(runtime.watchdog_seconds, report=home / "stalled.txt")),
            state,
            start,
            cells,
            program,
            since,
            compiled_before,
        )


def _leave(
    cells: Sequence[ConfigDict], workshop: Workshop, branches: Sequence[Branch]
) -> TrainState:
    """The states in which the runs leave their trunks, packed as the runs are."""
    single = workshop.program(cells[0])
    states = []
    for cell, branch in zip(cells, branches, strict=True):
        identity = _identity([cell], workshop, trunk=branch.trunk)
        with Checkpoints(branch.folder, keep=1, identity=identity) as checkpoints:
            found = checkpoints.restore(single.abstract_state, step=branch.step)
        assert found is not None, "a step that is named is there, or is an error"
        states.append(found)
    if len(states) == 1:
        return states[0]
    packed = workshop.program(cells[0], packed=len(cells)).abstract_state
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    return jax.tree.map(lambda leaf, place: jax.device_put(leaf, place.sharding), stacked, packed)


def _cadence(cell: ConfigDict) -> Cadence:
    return Cadence(
        log=cell.runtime.log_every_steps,
        evaluate=cell.runtime.evaluate_every_steps,
        checkpoint=cell.runtime.checkpoint_every_steps,
        skip_limit=cell.optimizer.skip_limit,
    )


def _attempt(
    cells: Sequence[ConfigDict],
    workshop: Workshop,
    folders: Sequence[Path],
    *,
    watch: Watcher,
    stop: Callable[[], bool],
    branches: Sequence[Branch] | None,
    judge: Judge | None,
) -> list[Outcome]:
    """Train from the newest checkpoint, or from the start, to the end; measure what came out."""
    cell = cells[0]
    steps, runtime = cell.budget.tokens // cell.batch_tokens, cell.runtime
    program, evaluate = (
        workshop.program(cell, packed=packed_of(cells)),
        evaluator(cells, workshop, stop=stop),
    )
    results: list[Evaluation | None] = [None] * len(cells)
    lost: dict[int, tuple[str, str | None]] = {}
    reporter: Reporter | None = None
    try:
        with _open(cells, workshop, folders, branches=branches) as opened:
            reporter = opened.reporter(
                evaluate=lambda state: [
                    logged(found) for found in evaluate(state, runtime.evaluate_windows)
                ],
                watch=watch,
                stop=stop,
                judge=judge,
                steps=steps,
                name=run_id(cell) if len(cells) == 1 else f"{len(cells)} x {run_id(cell)}",
            )
            try:
                state = train(
                    program,
                    opened.state,
                    batches_of(cells, workshop),
                    hypers_of(cells),
                    steps=steps,
                    cadence=_cadence(cell),
                    hooks=reporter,
                )
                found = evaluate(state, None)
                reporter.clock.charge("eval")
                opened.watchdog.fed()
                lost |= {lane: ("diverged", reason) for lane, reason in reporter.lost.items()}
                for lane, result in enumerate(found):
                    if lane not in lost and not math.isfinite(result.loss):
                        text = f"validation loss {result.loss} after the last step {steps}"
                        lost[lane] = "diverged", text
                    if lane not in lost:
                        line = logged(result) | reporter.clock.values()
                        opened.journals[lane].write(steps, cell.budget.tokens, line)
                        results[lane] = result
            except Diverged as error:
                lost = dict.fromkeys(range(len(cells)), ("diverged", str(error)))
                lost |= {lane: ("diverged", reason) for lane, reason in reporter.lost.items()}
            except Hopeless as error:
                lost = {lane: ("stopped", reason) for lane, reason in enumerate(error.reasons)}
                lost |= {lane: ("diverged", reason) for lane, reason in reporter.lost.items()}
            except jax.errors.JaxRuntimeError as error:
                if jax.process_count() > 1:
                    # Before the checkpoints are closed, which would wait for the others.
                    processes.leave_lost(error)
                raise
    except jax.errors.JaxRuntimeError as error:
        text = f"the device gave up: {str(error).splitlines()[0]}"
        lost = dict.fromkeys(range(len(cells)), ("failed", text))
    ends = [lost.get(lane, ("ok", None)) for lane in range(len(cells))]
    return [
        Outcome(
            status,
            reason,
            None if lane in lost else results[lane],
            reporter.clock.stepping_seconds if reporter is not None else 0.0,
        )
        for lane, (status, reason) in enumerate(ends)
    ]


def _identity(
    cells: Sequence[ConfigDict], workshop: Workshop, *, trunk: str | None = None
) -> dict[str, Any]:
    """What a checkpoint must have in common with the run that resumes it.

    Everything random (first weights, order of the data, masks) is a function of the seed and the
    step, so that the two are all that a generator's state would say. A trunk has no budget.
    """
    contents = [configs.identity(configs.plain(cell)) for cell in cells]
    if trunk is not None:
        contents = [trunk_content(content) for content in contents]
    content = contents[0] if len(contents) == 1 else {"runs": contents}
    return {
        "config": content,
        "config_hash": configs.hash_of(content),
        "data_hash": workshop.data(cells[0])[1].hash,
        "seed": cells[0].seed if len(cells) == 1 else [cell.seed for cell in cells],
        "code_version": provenance.code_version(),
    }
