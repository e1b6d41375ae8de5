"""What came out of runs: how they are measured, and the Record of each."""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from scaling import cells, counts, provenance
from scaling import config as configs
from scaling.data import shards
from scaling.records import Record
from scaling.runs.tuning import declared
from scaling.train.loop import Stopped
from scaling.train.program import TrainState
from scaling.workshop import Workshop, seen_of


class Branch(NamedTuple):
    """Where a run leaves its trunk, a run that knows no budget: its first `step` updates are the
    trunk's, kept in `folder`."""

    trunk: str
    step: int
    folder: Path


class Evaluation(NamedTuple):
    """The loss on the validation split in nats per token, over windows its standard error."""

    loss: float
    stderr: float | None
    bits_per_byte: float | None


class Outcome(NamedTuple):
    """How a run ended, a status of a record, and why."""

    status: str
    reason: str | None
    evaluation: Evaluation | None
    train_seconds: float


def packed_of(cells: Sequence[ConfigDict]) -> int | None:
    """How many runs are packed; None for one by itself."""
    return len(cells) if len(cells) > 1 else None


def evaluator(
    packed: Sequence[ConfigDict], workshop: Workshop, *, stop: Callable[[], bool]
) -> Callable[[TrainState, int | None], list[Evaluation]]:
    """Measures the runs of a state on the validation split, all of it or a number of windows.

    The loss is the mean over the tokens that the objective predicts, its standard error is over
    windows; bits_per_byte = loss * tokens / text bytes / ln 2 with the ratio of the whole split,
    where every token is predicted.
    """
    cell = packed[0]
    program = workshop.program(cell, packed=packed_of(packed))
    _, manifest = workshop.data(cell)
    split = manifest.splits["validation"]

    def evaluate(state: TrainState, limit: int | None) -> list[Evaluation]:
        def asked() -> None:
            if stop():
                done = int(np.max(np.asarray(state.step)))
                steps = cell.budget.tokens // cell.batch_tokens
                raise Stopped(f"stopped after step {done} of {steps}, while it was measured")

        batches = workshop.validation(cell, limit=limit)
        found = program.evaluate(state.params, batches, between=asked)
        return [
            one(totals, weights) for totals, weights in zip(*map(np.atleast_2d, found), strict=True)
        ]

    def one(totals: np.ndarray, weights: np.ndarray) -> Evaluation:
        kept = weights > 0
        means = totals[kept] / weights[kept]
        loss = float(totals.sum(dtype=np.float64) / weights.sum(dtype=np.float64))
        stderr = float(means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else None
        bits = loss * split.tokens / split.text_bytes / math.log(2)
        return Evaluation(loss, stderr, bits if cell.objective.name == "causal" else None)

    return evaluate


def logged(result: Evaluation) -> dict[str, float]:
    """An evaluation as the journal names it."""
    values = {"eval/validation/loss": result.loss}
    if result.bits_per_byte is not None:
        values["eval/validation/bpb"] = result.bits_per_byte
    return values


def flops_counted(cell: Mapping[str, Any], *, tokens: int) -> float:
    """FLOPs that training on so many tokens takes: see `scaling.counts`."""
    return float(
        counts.flops_counted(
            cells.size_of(cell),
            cells.architecture_of(cell),
            tokens=tokens,
            context=cell["model"]["context_tokens"],
        )
    )


def peak_flops(cell: ConfigDict) -> float | None:
    """Dense bf16 peak of all devices of the mesh together, None where it is not published."""
    peak = counts.PEAK_FLOPS.get(jax.devices()[0].device_kind)
    return None if peak is None else peak * math.prod(cell.mesh.values())


MEASURED = ("tokens", "unique_tokens", "epochs", "flops_6nd", "flops_counted", "loss",
            "loss_stderr", "bits_per_byte", "tokens_per_second", "mfu")  # fmt: skip
"""Fields of a record that only a run which ended well has."""


def record_of(
    name: str,
    cell: ConfigDict,
    manifest: shards.Manifest,
    outcome: Outcome,
    *,
    packed: int,
    branch: Branch | None,
    compile_seconds: float,
    wall_seconds: float,
) -> Record:
    """The record of one run, alone or packed; times of packed runs are of all of them together."""
    shape, architecture = cells.size_of(cell), cells.architecture_of(cell)
    count = counts.parameters(shape, architecture)
    content = configs.plain(cell)
    values, reasons = _measured(cell, outcome, branch)
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
        parent=None if branch is None else branch.trunk,
        branch_tokens=None if branch is None else branch.step * cell.batch_tokens,
        packed=packed,
        tuned=declared(content) or None,
        null_reasons=reasons,
        **values,
    )


class _Measured(NamedTuple):
    values: dict[str, Any]
    null_reasons: dict[str, str]


def _measured(cell: ConfigDict, outcome: Outcome, branch: Branch | None) -> _Measured:
    values: dict[str, Any] = dict.fromkeys(MEASURED)
    if outcome.evaluation is None:
        lost = f"the run {outcome.status}: {outcome.reason}"
        return _Measured(values, dict.fromkeys(values, lost))
    shape, architecture = cells.size_of(cell), cells.architecture_of(cell)
    tokens, seconds = cell.budget.tokens, outcome.train_seconds
    unique = min(tokens, seen_of(cell) or tokens)
    counted, peak = flops_counted(cell, tokens=tokens), peak_flops(cell)
    # The seconds are those of the run itself, without its trunk's.
    own = tokens - (0 if branch is None else branch.step * cell.batch_tokens)
    values |= {
        "tokens": tokens,
        "unique_tokens": unique,
        "epochs": tokens / unique,
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
        values["tokens_per_second"] = own / seconds
    else:
        reasons["tokens_per_second"] = "the journal of a finished run was lost, and its clock"
    if peak is None:
        kind = jax.devices()[0].device_kind
        reasons["mfu"] = f"no published peak for the device kind {kind!r}"
    elif seconds > 0:
        values["mfu"] = flops_counted(cell, tokens=own) / seconds / peak
    else:
        reasons["mfu"] = reasons["tokens_per_second"]
    return _Measured(values, reasons)
