"""The plan for larger runs, written before they start, and the verdict on one trained."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from scaling.analysis.fitted import Law
from scaling.analysis.frontier import interval
from scaling.records import Record

SCHEMA = 1
# Beyond this factor over the largest budget fitted, small errors of the exponents dominate the
# prediction.
FAR = 100.0
# A trained run is the planned one if its size and tokens agree to this share: tokens round to whole
# batches.
SAME_RUN = 0.01


class PlanError(ValueError):
    """A budget that cannot be planned for, or a run that was not; the message says the remedy."""


@dataclass(frozen=True, kw_only=True)
class RunShape:
    """A model that can be built: parameters, tokens, and the config overrides that train it."""

    params: int
    tokens: int
    overrides: Mapping[str, Any] = field(default_factory=dict)


def plan(
    law: Law,
    flops: Sequence[float],
    *,
    shape_for: Callable[[float, float], RunShape | None] | None = None,
) -> dict[str, Any]:
    """The object of plan.json: per budget the compute optimum and the nearest real model.

    `shape_for(params, flops)` gives the model nearest to the optimal `params` for a budget, None
    where no ladder reaches it. Every interval is 90%. A size's interval is the spread of the
    optimum over the bootstrap samples; a loss's is the prediction interval of one run,
    `Law.predict_interval`, at the fitted size and tokens.

    Raises:
      PlanError: no budget, or one that is not a positive finite number.
    """
    if not flops:
        raise PlanError("no budget to plan for; give at least one, such as --flops=1e21")
    for budget in flops:
        if not (math.isfinite(budget) and budget > 0):
            raise PlanError(
                f"budget {budget} is not a positive finite number of FLOPs; give one like 1e21"
            )
    return {
        "schema": SCHEMA,
        "law": {"name": law.law, "sha256": law.sha256},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "targets": [_target(law, float(budget), shape_for) for budget in flops],
    }


def _target(
    law: Law, flops: float, shape_for: Callable[[float, float], RunShape | None] | None
) -> dict[str, Any]:
    best, drawn = law.optimum(flops), law.optimum_samples(flops)
    shape = shape_for(float(best.params), flops) if shape_for is not None else None
    run = None
    if shape is not None:
        run = {
            "params": shape.params,
            "tokens": shape.tokens,
            "flops": 6 * shape.params * shape.tokens,
            "loss": _loss(law, shape.params, shape.tokens),
        }
    largest = max(entry["flops"] for entry in law.diagnostics["residuals"])
    warnings = []
    if flops > FAR * largest:
        warnings.append(
            f"{flops:.3g} FLOPs is {flops / largest:.3g} times the largest budget fitted "
            f"({largest:.3g}): beyond {FAR:.0f} times the interval rests on the law's "
            "form; train a budget in between first"
        )
    return {
        "flops": flops,
        "params": {"value": float(best.params), "interval_90": interval(drawn.params)},
        "tokens": {"value": float(best.tokens), "interval_90": interval(drawn.tokens)},
        "loss": _loss(law, float(best.params), float(best.tokens)),
        "run": run,
        "overrides": dict(shape.overrides) if shape is not None else {},
        "warnings": warnings,
    }


def _loss(law: Law, params: float, tokens: float) -> dict[str, Any]:
    ends = law.predict_interval(params, tokens)
    return {
        "value": float(law.predict(params, tokens)),
        "interval_90": [float(ends.low), float(ends.high)],
    }


def verdict(plan: Mapping[str, Any], record: Record) -> dict[str, Any]:
    """The object of verdict.json: what `plan` predicted for a run, and what it scored.

    relative_error = predicted / measured - 1.

    Raises:
      PlanError: the run did not finish, or the plan holds no run of its size and tokens (within
        1%).
    """
    if record.status != "ok" or record.loss is None:
        cause = record.reason or record.null_reasons.get("loss")
        raise PlanError(
            f"{record.run_id} is {record.status} without a loss ({cause}), so there is nothing to "
            "compare; run it again"
        )
    if record.params_total is None or record.tokens is None:
        raise PlanError(
            f"{record.run_id} has no params_total or no tokens; give a record that has both"
        )
    planned = [target for target in plan["targets"] if target["run"] is not None]
    for target in planned:
        run = target["run"]
        ratios = (record.params_total / run["params"], record.tokens / run["tokens"])
        if max(abs(np.log(ratio)) for ratio in ratios) > SAME_RUN:
            continue
        low, high = run["loss"]["interval_90"]
        return {
            "schema": SCHEMA,
            "run_id": record.run_id,
            "flops": record.flops_6nd,
            "params": record.params_total,
            "tokens": record.tokens,
            "predicted": run["loss"],
            "measured": record.loss,
            "relative_error": run["loss"]["value"] / record.loss - 1,
            "inside_interval": bool(low <= record.loss <= high),
            "optimal_params": target["params"],
        }
    have = ", ".join(f"{run['params']} x {run['tokens']}" for run in (t["run"] for t in planned))
    raise PlanError(
        f"{record.run_id} has {record.params_total} params x {record.tokens} tokens, and the plan "
        f"holds {have or 'no run'}; plan that run before it is trained"
    )
