"""The composition root: a resolved config becomes a trained state and a Record."""

import math
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from scaling import cells, counts, provenance, records
from scaling import config as configs
from scaling.data import shards
from scaling.files import write_json
from scaling.records import Record
from scaling.train import optim, processes
from scaling.train.checkpoint import Checkpoints
from scaling.train.journal import Journal, Reporter
from scaling.train.loop import Cadence, Diverged, train
from scaling.train.profiler import Profiler
from scaling.train.program import Program, TrainState
from scaling.train.trackers import Run as Tracked
from scaling.train.trackers import open_trackers
from scaling.train.watchdog import Watchdog
from scaling.workshop import Workshop, run_id


class Tick(NamedTuple):
    """Progress of one run, for whoever watches."""

    run_id: str
    step: int
    steps: int
    loss: float
    tokens_per_second: float
    resumed_from: int


Watcher = Callable[[Tick], None]


class _Evaluation(NamedTuple):
    loss: float
    stderr: float | None
    bits_per_byte: float | None


def run(
    cell: ConfigDict,
    workshop: Workshop,
    *,
    watch: Watcher,
    stop: Callable[[], bool] = lambda: False,
) -> Record:
    """Train one resolved cell to its budget, or return its record if that is already there.

    An interrupted run goes on from its newest checkpoint and ends in the same state, bit for bit,
    as one that was not interrupted. A run that diverges, or that the device cannot hold, gets a
    record that says so. `stop` is asked after every dispatch whether to keep the state and leave.

    Raises:
      ConfigError: the corpus has fewer tokens than the budget.
      CheckpointError: no checkpoint of the run is whole, or it was made with other data.
      Stopped: `stop` said so; the same call goes on from there.
      OSError: something could not be written; what was written before is intact.
    """
    name = run_id(cell)
    record_path = workshop.workdir / "records" / f"{name}.json"
    if record_path.exists():
        return records.read(record_path)
    started = time.perf_counter()
    _, manifest = workshop.data(cell)
    program = workshop.program(cell)
    compiled_before = program.compile_seconds
    folder = workshop.workdir / "runs" / name
    if processes.first():
        write_json(folder / "config.json", configs.plain(cell))
    outcome = _attempt(cell, workshop, folder, watch=watch, stop=stop)
    record = _record(
        name,
        cell,
        manifest,
        outcome,
        compile_seconds=program.compile_seconds - compiled_before,
        wall_seconds=time.perf_counter() - started,
    )
    if processes.first():
        records.write(record, workshop.workdir / "records")
    return record


class _Outcome(NamedTuple):
    status: str
    reason: str | None
    evaluation: _Evaluation | None
    train_seconds: float


def _attempt(
    cell: ConfigDict,
    workshop: Workshop,
    folder: Path,
    *,
    watch: Watcher,
    stop: Callable[[], bool],
) -> _Outcome:
    """Train from the newest checkpoint, or from the start, to the end; measure what came out."""
    name, steps = run_id(cell), cell.budget.tokens // cell.batch_tokens
    program, stream, runtime = workshop.program(cell), workshop.stream(cell), cell.runtime
    evaluate = _evaluator(cell, workshop)
    status, reason, result = "ok", None, None
    with ExitStack() as stack:
        checkpoints = stack.enter_context(
            Checkpoints(
                folder / "checkpoints",
                keep=runtime.keep_checkpoints,
                identity=_identity(cell, workshop),
            )
        )
        state = checkpoints.restore(program.abstract_state)
        if state is None:
            state = program.init(jax.random.key(cell.seed))
        start = int(state.step)
        trackers = open_trackers(
            runtime.trackers if processes.first() else (),
            Tracked(name, folder, configs.plain(cell)),
        )
        journal = stack.enter_context(
            closing(
                Journal(
                    folder / "metrics.jsonl",
                    resumed_from=start,
                    writes=processes.first(),
                    trackers=trackers,
                )
            )
        )
        profiler = stack.enter_context(
            Profiler(tuple(runtime.profile_steps), folder=folder / "profile")
        )
        watchdog = stack.enter_context(
            Watchdog(runtime.watchdog_seconds, report=folder / "stalled.txt")
        )
        reporter = Reporter(
            journal,
            checkpoints,
            program,
            evaluate=lambda state: _logged(evaluate(state, runtime.evaluate_windows)),
            rate=cell.optimizer.learning_rate,
            flops_per_token=_counted(cell, tokens=1),
            peak_flops=_peak_flops(cell),
            tick=lambda step, loss, speed: watch(Tick(name, step, steps, loss, speed, start)),
            profiler=profiler,
            watchdog=watchdog,
            stopping=stop,
            start=start,
        )
        cadence = Cadence(
            log=runtime.log_every_steps,
            evaluate=runtime.evaluate_every_steps,
            checkpoint=runtime.checkpoint_every_steps,
            skip_limit=cell.optimizer.skip_limit,
        )
        try:
            state = train(
                program,
                state,
                stream.batch,
                hyper(cell),
                steps=steps,
                cadence=cadence,
                hooks=reporter,
            )
            result = evaluate(state, None)
            reporter.clock.charge("eval")
            watchdog.fed()
            if not math.isfinite(result.loss):
                raise Diverged(f"validation loss {result.loss} after the last step {steps}")
            journal.write(steps, cell.budget.tokens, _logged(result) | reporter.clock.values())
        except Diverged as error:
            status, reason, result = "diverged", str(error), None
        except jax.errors.JaxRuntimeError as error:
            if jax.process_count() > 1:
                # Before the checkpoints are closed, which would wait for the others.
                processes.leave_lost(error)
            status, reason = "failed", f"the device gave up: {str(error).splitlines()[0]}"
    return _Outcome(status, reason, result, reporter.clock.stepping_seconds)


def _evaluator(
    cell: ConfigDict, workshop: Workshop
) -> Callable[[TrainState, int | None], _Evaluation]:
    """Measures a state on the validation split, all of it or a number of windows.

    The loss is the mean over the tokens that the objective predicts, its standard error is over
    windows; bits_per_byte = loss * tokens / text bytes / ln 2 with the ratio of the whole split,
    where every token is predicted.
    """
    program: Program = workshop.program(cell)
    _, manifest = workshop.data(cell)
    split = manifest.splits["validation"]

    def evaluate(state: TrainState, limit: int | None) -> _Evaluation:
        totals, weights = program.evaluate(state.params, workshop.validation(cell, limit=limit))
        kept = weights > 0
        means = totals[kept] / weights[kept]
        loss = float(totals.sum(dtype=np.float64) / weights.sum(dtype=np.float64))
        stderr = float(means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else None
        bits = loss * split.tokens / split.text_bytes / math.log(2)
        return _Evaluation(loss, stderr, bits if cell.objective.name == "causal" else None)

    return evaluate


def _logged(result: _Evaluation) -> dict[str, float]:
    values = {"eval/validation/loss": result.loss}
    if result.bits_per_byte is not None:
        values["eval/validation/bpb"] = result.bits_per_byte
    return values


def hyper(cell: ConfigDict) -> optim.Hyper:
    """What the compiled step of the cell's shape is told of this one run."""
    optimizer = cell.optimizer
    values = optim.Hyper(
        learning_rate=optimizer.learning_rate,
        vector_learning_rate=optimizer.vector_learning_rate,
        weight_decay=optimizer.weight_decay,
        clip_norm=optimizer.clip_norm,
        warmup_tokens=optimizer.warmup_tokens,
        cooldown_fraction=optimizer.cooldown_fraction,
        total_tokens=cell.budget.tokens,
    )
    return optim.Hyper(*(jnp.asarray(value, jnp.float32) for value in values))


def _identity(cell: ConfigDict, workshop: Workshop) -> dict[str, Any]:
    """What a checkpoint must have in common with the run that resumes it.

    Everything random (first weights, order of the data, masks) is a function of the seed and the
    step, so that the two are all that a generator's state would say.
    """
    content = configs.identity(configs.plain(cell))
    return {
        "config": content,
        "config_hash": configs.hash_of(content),
        "data_hash": workshop.data(cell)[1].hash,
        "seed": cell.seed,
        "code_version": provenance.code_version(),
    }


def _counted(cell: ConfigDict, *, tokens: int) -> float:
    return float(
        counts.flops_counted(
            cells.size_of(cell),
            cells.architecture_of(cell),
            tokens=tokens,
            context=cell.model.context_tokens,
        )
    )


def _peak_flops(cell: ConfigDict) -> float | None:
    """Dense bf16 peak of all devices of the mesh together, None where it is not published."""
    peak = counts.PEAK_FLOPS.get(jax.devices()[0].device_kind)
    return None if peak is None else peak * math.prod(cell.mesh.values())


MEASURED = ("tokens", "unique_tokens", "epochs", "flops_6nd", "flops_counted", "loss",
            "loss_stderr", "bits_per_byte", "tokens_per_second", "mfu")  # fmt: skip
"""Fields of a record that only a run which ended well has."""


def _record(
    name: str,
    cell: ConfigDict,
    manifest: shards.Manifest,
    outcome: _Outcome,
    *,
    compile_seconds: float,
    wall_seconds: float,
) -> Record:
    shape, architecture = cells.size_of(cell), cells.architecture_of(cell)
    count = counts.parameters(shape, architecture)
    content = configs.plain(cell)
    values, reasons = _measured(cell, outcome)
    return Record(
        run_id=name,
        status=outcome.status,
        reason=outcome.reason,
        config=content,
        config_hash=configs.hash_of(configs.identity(content)),
        params_total=count.total,
        params_non_embedding=count.non_embedding,
        params_embedding=count.embedding,
        seed=cell.seed,
        learning_rate=cell.optimizer.learning_rate,
        batch_tokens=cell.batch_tokens,
        wall_seconds=wall_seconds,
        train_seconds=outcome.train_seconds,
        compile_seconds=compile_seconds,
        device_kind=jax.devices()[0].device_kind,
        device_count=math.prod(cell.mesh.values()),
        versions=provenance.versions(),
        code_version=provenance.code_version(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        objective=cell.objective.name,
        tokenizer_hash=manifest.tokenizer_sha256,
        data_hash=manifest.hash,
        null_reasons=reasons,
        **values,
    )


class _Measured(NamedTuple):
    values: dict[str, Any]
    null_reasons: dict[str, str]


def _measured(cell: ConfigDict, outcome: _Outcome) -> _Measured:
    values: dict[str, Any] = dict.fromkeys(MEASURED)
    if outcome.evaluation is None:
        lost = f"the run {outcome.status}: {outcome.reason}"
        return _Measured(values, dict.fromkeys(values, lost))
    shape, architecture = cells.size_of(cell), cells.architecture_of(cell)
    tokens, seconds = cell.budget.tokens, outcome.train_seconds
    counted, peak = _counted(cell, tokens=tokens), _peak_flops(cell)
    values |= {
        "tokens": tokens,
        "unique_tokens": tokens,
        "epochs": 1.0,
        "flops_6nd": float(counts.flops_6nd(shape, architecture, tokens=tokens)),
        "flops_counted": counted,
        "loss": outcome.evaluation.loss,
        "loss_stderr": outcome.evaluation.stderr,
        "bits_per_byte": outcome.evaluation.bits_per_byte,
    }
    reasons: dict[str, str] = {}
    if outcome.evaluation.stderr is None:
        reasons["loss_stderr"] = "the validation split is a single window"
    if outcome.evaluation.bits_per_byte is None:
        reasons["bits_per_byte"] = (
            f"the {cell.objective.name} objective predicts a part of the text, given the rest"
        )
    if seconds > 0:
        values["tokens_per_second"] = tokens / seconds
    else:
        reasons["tokens_per_second"] = "the journal of a finished run was lost, and its clock"
    if peak is None:
        kind = jax.devices()[0].device_kind
        reasons["mfu"] = f"no published peak for the device kind {kind!r}"
    elif seconds > 0:
        values["mfu"] = counted / seconds / peak
    else:
        reasons["mfu"] = reasons["tokens_per_second"]
    return _Measured(values, reasons)
