"""The composition root: a resolved config becomes data, a model, a trained state and a Record."""

import hashlib
import importlib.metadata
import math
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

import scaling
from scaling import config as configs
from scaling import counts, records
from scaling.data import corpus, loader, shards
from scaling.data.tokenizer import Tokenizer
from scaling.files import write_json
from scaling.model.transformer import Decoder
from scaling.records import Record
from scaling.train import objectives, optim
from scaling.train.checkpoint import Checkpoints
from scaling.train.journal import Journal, Reporter
from scaling.train.loop import Cadence, Diverged, Program, TrainState, train
from scaling.train.sharding import make_mesh

VERSIONED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "sentencepiece")


class Tick(NamedTuple):
    """Progress of one run, for whoever watches."""

    run_id: str
    step: int
    steps: int
    loss: float
    tokens_per_second: float
    resumed_from: int


Watcher = Callable[[Tick], None]


def run_id(cell: ConfigDict) -> str:
    """The name of a run: readable, and unique to its resolved config."""
    digest = configs.hash_of(configs.plain(cell))[:8]
    flops = f"{cell.budget.flops:.2e}".replace("+", "")
    return f"w{cell.model.width:03d}-{flops}-s{cell.seed}-{digest}"


class Workshop:
    """What the runs of one work directory share: tokenized data and compiled programs."""

    def __init__(self, workdir: Path) -> None:
        self.workdir = workdir
        self._data: dict[str, tuple[Path, shards.Manifest]] = {}
        self._programs: dict[str, Program] = {}

    def data(self, cell: ConfigDict) -> tuple[Path, shards.Manifest]:
        """The folder and manifest of the cell's tokens; made on first use, verified before each
        study."""
        wanted = configs.plain(cell.corpus)
        name = configs.hash_of(wanted)[:12]
        if name not in self._data:
            folder = self.workdir / "data" / name
            if not folder.exists():
                tokenize(folder, cell.corpus, wanted)
            self._data[name] = folder, shards.read(folder)
        return self._data[name]

    def stream(self, cell: ConfigDict) -> loader.TrainStream:
        """The cell's batches.

        Raises:
          ConfigError: the corpus has fewer tokens than the cell's budget.
        """
        data, manifest = self.data(cell)
        context = cell.model.context_tokens
        windows = loader.Windows(data / manifest.splits["train"].file, context=context)
        stream = loader.TrainStream(
            windows, batch_windows=cell.batch_tokens // context, seed=cell.seed
        )
        available = stream.steps * cell.batch_tokens
        if cell.budget.tokens > available:
            raise configs.ConfigError(
                f"{run_id(cell)} needs {cell.budget.tokens} tokens, the corpus has {available} for "
                "training and none is used twice; use a wider model or a smaller budget"
            )
        return stream

    def program(self, cell: ConfigDict) -> Program:
        """The compiled functions of the cell's shape."""
        shape = configs.size_of(cell)
        context = cell.model.context_tokens
        name = f"{shape} {context} {cell.batch_tokens} {configs.plain(cell.mesh)}"
        if name not in self._programs:
            self._programs[name] = Program(
                lambda key: Decoder(shape, key=key),
                objectives.causal,
                lengths=shape.lengths,
                batch_windows=cell.batch_tokens // context,
                context=context,
                mesh=make_mesh(**cell.mesh),
            )
        return self._programs[name]


def tokenize(folder: Path, section: ConfigDict, description: dict[str, Any]) -> shards.Manifest:
    """Train the tokenizer on the training split and write all splits as token files.

    Raises:
      ConfigError: a corpus that is not known.
    """
    if section.name != "wiki-leads":
        raise configs.ConfigError(
            f"corpus.name is {section.name!r}; the known corpus is 'wiki-leads'"
        )

    def documents(split: corpus.Split) -> list[corpus.Document]:
        return list(corpus.wiki_leads(split, languages=section.languages))

    tokenizer = Tokenizer.train(
        (document.text for document in documents("train")), vocabulary=section.vocabulary
    )
    splits = {str(split): documents(split) for split in corpus.SPLITS}
    return shards.write(folder, splits, tokenizer, corpus=description)


class _Evaluation(NamedTuple):
    loss: float
    stderr: float | None
    bits_per_byte: float


def _evaluate(
    program: Program,
    params: dict[str, Array],
    windows: loader.Windows,
    split: shards.Split,
    *,
    batch: int,
    limit: int | None,
) -> _Evaluation:
    """Mean loss over the windows of a split, its standard error over windows, and bits per byte.

    bits_per_byte = loss * tokens / text bytes / ln 2, the ratio being that of the whole split.
    """
    totals, weights = program.evaluate(
        params, loader.evaluation(windows, batch_windows=batch, limit=limit)
    )
    kept = weights > 0
    means = totals[kept] / weights[kept]
    loss = float(totals.sum(dtype=np.float64) / weights.sum(dtype=np.float64))
    stderr = float(means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else None
    return _Evaluation(loss, stderr, loss * split.tokens / split.text_bytes / math.log(2))


def run(cell: ConfigDict, workshop: Workshop, *, watch: Watcher) -> Record:
    """Train one resolved cell to its budget, or return its record if that is already there.

    An interrupted run goes on from its newest checkpoint and ends in the same state, bit for bit,
    as one that was not interrupted. A run that diverges, or that the device cannot hold, gets a
    record that says so.

    Raises:
      ConfigError: the corpus has fewer tokens than the budget.
      OSError: something could not be written; what was written before is intact.
    """
    name = run_id(cell)
    record_path = workshop.workdir / "records" / f"{name}.json"
    if record_path.exists():
        return records.read(record_path)
    started = time.perf_counter()
    data, manifest = workshop.data(cell)
    stream = workshop.stream(cell)
    program = workshop.program(cell)
    compiled_before = program.compile_seconds
    folder = workshop.workdir / "runs" / name
    write_json(folder / "config.json", configs.plain(cell))
    split = manifest.splits["validation"]
    windows = loader.Windows(data / split.file, context=cell.model.context_tokens)

    def evaluate(state: TrainState, limit: int | None) -> _Evaluation:
        batch = cell.batch_tokens // cell.model.context_tokens
        return _evaluate(program, state.params, windows, split, batch=batch, limit=limit)

    outcome = _attempt(cell, folder, program, stream, evaluate, watch=watch)
    record = _record(
        name,
        cell,
        manifest,
        outcome,
        compile_seconds=program.compile_seconds - compiled_before,
        wall_seconds=time.perf_counter() - started,
    )
    records.write(record, workshop.workdir / "records")
    return record


class _Outcome(NamedTuple):
    status: str
    reason: str | None
    evaluation: _Evaluation | None
    train_seconds: float


def _attempt(
    cell: ConfigDict,
    folder: Path,
    program: Program,
    stream: loader.TrainStream,
    evaluate: Callable[[TrainState, int | None], _Evaluation],
    *,
    watch: Watcher,
) -> _Outcome:
    """Train from the newest checkpoint, or from the start, to the end; measure what came out."""
    name, steps = run_id(cell), cell.budget.tokens // cell.batch_tokens
    status, reason, result = "ok", None, None
    with Checkpoints(folder / "checkpoints", keep=cell.keep_checkpoints) as checkpoints:
        start = checkpoints.latest() or 0
        journal = Journal(folder / "metrics.jsonl", resumed_from=start)
        reporter = Reporter(
            journal,
            checkpoints,
            program,
            evaluate=lambda state: _logged(evaluate(state, cell.evaluate_windows)),
            rate=cell.optimizer.learning_rate,
            tick=lambda step, loss, speed: watch(Tick(name, step, steps, loss, speed, start)),
            start=start,
        )
        cadence = Cadence(
            log=cell.log_every_steps,
            evaluate=cell.evaluate_every_steps,
            checkpoint=cell.checkpoint_every_steps,
        )
        try:
            if start:
                state = checkpoints.restore(start, program.abstract_state)
            else:
                state = program.init(jax.random.key(cell.seed))
            reporter.skip()
            state = train(
                program,
                state,
                stream.batch,
                _hyper(cell),
                steps=steps,
                cadence=cadence,
                hooks=reporter,
            )
            result = evaluate(state, None)
            if not math.isfinite(result.loss):
                raise Diverged(f"validation loss {result.loss} after the last step {steps}")
            journal.write(steps, cell.budget.tokens, _logged(result))
        except Diverged as error:
            status, reason, result = "diverged", str(error), None
        except jax.errors.JaxRuntimeError as error:
            status, reason = "failed", f"the device gave up: {str(error).splitlines()[0]}"
        finally:
            journal.close()
    return _Outcome(status, reason, result, journal.train_seconds)


def _logged(result: _Evaluation) -> dict[str, float]:
    return {"eval/validation/loss": result.loss, "eval/validation/bpb": result.bits_per_byte}


def _hyper(cell: ConfigDict) -> optim.Hyper:
    optimizer = cell.optimizer
    values = optim.Hyper(
        matrix_rate=optimizer.learning_rate,
        vector_rate=optimizer.vector_learning_rate,
        weight_decay=optimizer.weight_decay,
        clip_norm=optimizer.clip_norm,
        warmup_tokens=optimizer.warmup_tokens,
        cooldown_fraction=optimizer.cooldown_fraction,
        total_tokens=cell.budget.tokens,
    )
    return optim.Hyper(*(jnp.asarray(value, jnp.float32) for value in values))


def _record(
    name: str,
    cell: ConfigDict,
    manifest: shards.Manifest,
    outcome: _Outcome,
    *,
    compile_seconds: float,
    wall_seconds: float,
) -> Record:
    shape = configs.size_of(cell)
    count = counts.parameters(shape)
    context = cell.model.context_tokens
    content = configs.plain(cell)
    device = jax.devices()[0]
    device_count = math.prod(cell.mesh.values())
    reasons: dict[str, str] = {}
    values: dict[str, Any] = dict.fromkeys(
        ("tokens", "unique_tokens", "epochs", "flops_6nd", "flops_counted", "loss", "loss_stderr",
         "bits_per_byte", "tokens_per_second", "mfu")
    )  # fmt: skip
    if outcome.evaluation is not None:
        tokens, seconds = cell.budget.tokens, outcome.train_seconds
        counted = counts.flops_counted(shape, tokens=tokens, context=context)
        values |= {
            "tokens": tokens,
            "unique_tokens": tokens,
            "epochs": 1.0,
            "flops_6nd": float(counts.flops_6nd(shape, tokens=tokens)),
            "flops_counted": float(counted),
            "loss": outcome.evaluation.loss,
            "loss_stderr": outcome.evaluation.stderr,
            "bits_per_byte": outcome.evaluation.bits_per_byte,
        }
        if outcome.evaluation.stderr is None:
            reasons["loss_stderr"] = "the validation split is a single window"
        if seconds > 0:
            values["tokens_per_second"] = tokens / seconds
        else:
            reasons["tokens_per_second"] = "the journal of a finished run was lost, and its clock"
        if seconds > 0 and device.device_kind in counts.PEAK_FLOPS:
            peak = counts.PEAK_FLOPS[device.device_kind] * device_count
            values["mfu"] = counted / seconds / peak
        else:
            reasons["mfu"] = f"no published peak for the device kind {device.device_kind!r}"
    else:
        reasons = dict.fromkeys(values, f"the run {outcome.status}: {outcome.reason}")
    return Record(
        run_id=name,
        status=outcome.status,
        reason=outcome.reason,
        config=content,
        config_hash=configs.hash_of(content),
        params_total=count.total,
        params_non_embedding=count.non_embedding,
        params_embedding=count.embedding,
        seed=cell.seed,
        learning_rate=cell.optimizer.learning_rate,
        batch_tokens=cell.batch_tokens,
        wall_seconds=wall_seconds,
        train_seconds=outcome.train_seconds,
        compile_seconds=compile_seconds,
        device_kind=device.device_kind,
        device_count=device_count,
        versions={
            "python": platform.python_version(),
            "scaling": scaling.__version__,
            **{package: importlib.metadata.version(package) for package in VERSIONED},
        },
        code_version=code_version(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        objective="causal",
        tokenizer_hash=manifest.tokenizer_sha256,
        data_hash=manifest.hash,
        null_reasons=reasons,
        **values,
    )


def devices() -> str:
    """What JAX runs on, in words: "1 cpu (2 cores)", "8 NVIDIA H200"."""
    found = jax.devices()
    cores = f" ({os.cpu_count()} cores)" if found[0].platform == "cpu" else ""
    return f"{len(found)} {found[0].device_kind}{cores}"


def code_version() -> str:
    """The version with the first digits of a SHA-256 over the package's source, as in
    0.1.0+1f2e3d4c."""
    digest = hashlib.sha256()
    package = Path(scaling.__file__).parent
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{scaling.__version__}+{digest.hexdigest()[:8]}"
