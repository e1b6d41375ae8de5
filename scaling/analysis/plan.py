"""The plan for larger runs, written before they start, and the verdict on one trained."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from scaling import sizes
from scaling.analysis.allocation import Allocation, Cost, allocate, cheapest
from scaling.analysis.budget import Budget
from scaling.analysis.chain import Chain
from scaling.analysis.design import Criterion, next_runs
from scaling.analysis.devices import HOUR, PlanError, positive
from scaling.analysis.fitted import Law
from scaling.analysis.forms import Array
from scaling.analysis.frontier import interval
from scaling.analysis.limits import assumptions, binding, refusal, warnings
from scaling.analysis.shapes import Built, RunShape, ShapeFor, build
from scaling.analysis.tradeoffs import compare
from scaling.records import Record

__all__ = ["Aim", "PlanError", "RunShape", "aim_at", "plan", "verdict"]

SCHEMA = 1
# A trained run is the planned one if its size and tokens agree to this share: tokens round to whole
# batches.
SAME_RUN = 0.01
TRIED_PARAMS = 1e6
"""The rules of `scaling.sizes` for batch and rate were tried on smaller models alone."""


@dataclass(frozen=True, kw_only=True)
class Aim:
    """A loss to reach.

    `samples` are the same of the bootstrap samples of a law, where the loss is itself uncertain:
    what a score asks for, by a law of the task (`aim_at`). Sample i goes with sample i of the law
    of the loss, NaN where none does it. `name` says what it stands for.
    """

    loss: float
    samples: Array | None = None
    name: str | None = None


def aim_at(chain: Chain, score: float) -> Aim:
    """The loss at which a task is done so well, by a chain of laws.

    Raises:
      PlanError: none does.
    """
    first, *samples = chain.loss_for(score)
    name = f"{chain.task.form.target} of {score:g}"
    if np.isnan(first):
        raise PlanError(
            f"no loss gives {name}: {chain.task.form.equation} with "
            + ", ".join(f"{key} {value:.4g}" for key, value in chain.task.params.items())
            + "; ask for a score between its floor and its ceiling"
        )
    return Aim(loss=float(first), samples=np.array(samples), name=name)


def plan(
    law: Law,
    flops: Sequence[float] = (),
    *,
    budget: Budget | None = None,
    losses: Sequence[float | Aim] = (),
    by: Cost | None = None,
    shape_for: ShapeFor | None = None,
    rates: Law | None = None,
    batches: Law | None = None,
    next_flops: float | None = None,
    criterion: Criterion = "variance",
) -> dict[str, Any]:
    """The object of plan.json: the best run within each budget, or the cheapest to each loss, and
    the nearest real model.

    `budget` holds the limits of every target; each of `flops` is one of its own. For each of
    `losses` the plan is the cheapest way there within the limits, `by` FLOPs, or by time (the
    default where a machine is given), that of the answers with it. `shape_for(params, flops)` gives
    the model nearest to the optimal `params` for a budget, None where no ladder reaches it. `rates`
    and `batches` are fitted laws of learning_rate and batch_tokens; without them the rules of
    `scaling.sizes` hold.
    `next_flops` asks for the runs of so much compute that would make the loss of the first target
    surest by a `criterion`, see `scaling.analysis.design.next_runs`.

    Every interval is 90%. A size's interval is the spread of the optimum over the bootstrap
    samples; a loss's is the prediction interval of one run, `Law.predict_interval`, at the fitted
    size and tokens.

    Raises:
      PlanError: nothing that limits a run, limits that leave none, a loss that none reaches.
    """
    budget = Budget() if budget is None else budget
    if not flops and not losses and not budget.limited:
        raise PlanError(
            "no budget to plan for; give at least one, such as --flops=1e21, --chips=64 "
            "--device=h200 --hours=72, or a loss to reach with --loss=2.0"
        )
    for one in flops:
        positive("a budget of FLOPs", one)
    aims = [aim if isinstance(aim, Aim) else Aim(loss=float(aim)) for aim in losses]
    for aim in aims:
        positive(f"the loss to reach{f' for {aim.name}' if aim.name else ''}", aim.loss)
    asked: list[tuple[Budget, Aim | None]] = [
        (dataclasses.replace(budget, flops=float(one)), None) for one in flops
    ]
    asked += [(budget, aim) for aim in aims]
    by = by or ("flops" if budget.machine is None else "time")
    planner = _Planner(law, by, shape_for, rates, batches)
    asked = asked or [(budget, None)]
    targets = [planner.target(*one) for one in asked]
    first = targets[0]["run"] or targets[0] | {
        name: targets[0][name]["value"] for name in ("params", "tokens")
    }
    limits, goal = asked[0]
    if goal is not None and by == "flops":
        # What is to be least is what the rows have twice of.
        limits = dataclasses.replace(limits, flops=targets[0]["flops_lifetime"]["value"])
    return {
        "schema": SCHEMA,
        "law": {"name": law.law, "sha256": law.sha256},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": None if budget.machine is None else dataclasses.asdict(budget.machine),
        "assumptions": assumptions(law.form, budget),
        "null_reasons": _null_reasons(budget, next_flops),
        "targets": targets,
        "comparison": compare(
            law, first["params"], first["tokens"], batch_tokens=first["batch_tokens"],
            budget=planner.ruled(limits),
        ),
        "next_runs": None
        if next_flops is None
        else next_runs(
            law, flops=next_flops, params=first["params"], tokens=first["useful_tokens"],
            shape_for=shape_for, criterion=criterion,
            most_tokens=budget.most_tokens(law.form),
        ),
    }  # fmt: skip


@dataclass(frozen=True)
class _Planner:
    law: Law
    by: Cost
    shape_for: ShapeFor | None
    rates: Law | None
    batches: Law | None

    def target(self, budget: Budget, aim: Aim | None) -> dict[str, Any]:
        law = self.law
        loss = None if aim is None else aim.loss
        budget, batch_source = self._with_batch(budget, loss)
        best = self._solve(law.values, budget, loss)
        if np.isnan(best.params):
            raise PlanError(refusal(law, budget, loss))
        drawn = self._solve(
            law.samples, budget, None if aim is None else _paired(aim, len(law.samples))
        )
        built = None
        if self.shape_for is not None:
            built = build(law, budget, best, shape_for=self.shape_for, loss=loss, by=self.by)
            if built is not None and self.batches is None and not budget.chooses_batch:
                # The rule gives powers of two: those of the rung, which the config will train with.
                width = built.overrides.get("model.width", sizes.nearest(built.params))
                batch = float(sizes.training(width).batch_tokens)
                budget = dataclasses.replace(budget, least_batch_tokens=batch, batch_rule=None)
                built = build(law, budget, best, shape_for=self.shape_for, loss=loss, by=self.by)
        near = float(best.params) if self.shape_for is None else built and float(built.params)
        flops = float(best.flops) if budget.flops is None else budget.flops
        return {
            "flops": flops,
            "params": _quantity(best.params, drawn.params),
            "tokens": _quantity(best.tokens, drawn.tokens),
            "tokens_per_parameter": _quantity(
                best.tokens / best.params, drawn.tokens / drawn.params
            ),
            "loss": _loss(law, budget, best),
            "run": None if built is None else self._run(built, budget),
            "overrides": {} if built is None else self._overrides(built),
            "warnings": [
                *warnings(law, budget, best, built=near, cheapest=aim is not None),
                *self._untried(budget, best),
            ],
            "asked": _asked(budget, aim, self.by),
            "binding": binding(law.form, budget, best),
            "reached_in_samples": float(np.mean(np.isfinite(drawn.params))),
            **self._facts(best, budget),
            "batch_source": batch_source,
            "flops_lifetime": _quantity(best.spent, drawn.spent),
            "hours": _quantity(best.seconds / HOUR, drawn.seconds / HOUR),
        }

    def _solve(self, values: Array, budget: Budget, loss: Array | float | None) -> Allocation:
        if loss is None:
            return allocate(self.law.form, values, budget)
        return cheapest(self.law.form, values, loss, budget, by=self.by)

    def ruled(self, budget: Budget) -> Budget:
        """The budget with the batches of the size table, where nothing else gives them."""
        if self.batches is not None or budget.batch_tokens is not None:
            return budget
        return dataclasses.replace(budget, batch_rule=sizes.batch_tokens)

    def _with_batch(self, budget: Budget, loss: float | None) -> tuple[Budget, str]:
        """The budget with the rule's batch as its least, and where the batch comes from."""
        if budget.batch_tokens is not None:
            return budget, "given"
        if self.batches is None:
            budget = self.ruled(budget)
            source = "scaling.sizes: the batch of its width"
        else:
            # The law's batch follows from the run, and the run a little from the batch.
            first = self._solve(self.law.values, budget, loss)
            ruled = np.isfinite(first.params)
            least = _ruled(self.batches, "batch_tokens", first) if ruled else 1.0
            budget = dataclasses.replace(budget, least_batch_tokens=max(least, 1.0))
            source = f"fitted {self.batches.law}: {self.batches.form.equation}"
        if budget.machine is not None:
            source = (
                f"the machine and the critical batch, at least that of {source}, or of a busy "
                "machine where that is less"
            )
        return budget, source

    def _facts(self, run: Allocation, budget: Budget) -> dict[str, Any]:
        hours, cost, life, price = None, None, None, None
        if budget.machine is not None:
            hours, price = float(run.seconds) / HOUR, budget.machine.price_per_hour
            life = hours + float(budget.answer_seconds(run.params)) / HOUR
            cost = None if price is None else price * budget.machine.chips * life
        return {
            "useful_tokens": float(run.useful),
            "batch_tokens": float(run.batch_tokens),
            "steps": float(run.steps),
            "hours": hours,
            "hours_lifetime": life,
            "cost": cost,
            "flops_training": float(run.flops),
            "flops_lifetime": float(run.spent),
            "epochs": None
            if budget.unique_tokens is None
            else max(1.0, float(run.tokens) / budget.unique_tokens),
            "learning_rate": self._rate(run),
        }

    def _rate(self, run: Allocation) -> dict[str, Any]:
        if self.rates is None:
            source = "scaling.sizes: Muon's rate for every width, tried from 16 to 88 alone"
            rule = sizes.training(sizes.nearest(float(run.params)))
            return {"value": rule.matrix_rate, "source": source}
        source = f"fitted {self.rates.law}: {self.rates.form.equation}"
        return {"value": _ruled(self.rates, "learning_rate", run), "source": source}

    def _untried(self, budget: Budget, run: Allocation) -> list[str]:
        """Warns of a rule for batch or rate far from where it was tried."""
        lacking = {
            "rate (--rates)": self.rates is None,
            "batch (--batches, or --batch_tokens)": self.batches is None
            and not budget.chooses_batch,
        }
        if run.params < TRIED_PARAMS or not any(lacking.values()):
            return []
        named = " and ".join(name for name, missing in lacking.items() if missing)
        return [
            f"{named}: taken from the smallest models, far below {float(run.params):.3g} "
            "parameters; tune some, fit a law of it, and give that"
        ]

    def _run(self, built: Built, budget: Budget) -> dict[str, Any]:
        facts = {
            "params": built.params,
            "tokens": built.tokens,
            "flops": 6 * built.params * built.tokens,
            "loss": _loss(self.law, budget, built.allocation),
        }
        return facts | self._facts(built.allocation, budget)

    def _overrides(self, built: Built) -> dict[str, Any]:
        if self.rates is None:
            return built.overrides
        rate = self._rate(built.allocation)["value"]
        return built.overrides | {"optimizer.learning_rate": rate}


def _ruled(rule: Law, target: str, run: Allocation) -> float:
    """What a law of a rate or a batch says of a run.

    Raises:
      PlanError: a law of something else.
    """
    known = {"params": run.params, "tokens": run.tokens, "flops": run.flops, "loss": run.loss}
    form = rule.form
    if form.target != target or not set(form.inputs) <= set(known):
        raise PlanError(
            f"the law {rule.law} gives {form.target} from {', '.join(form.inputs)}; needed is a "
            f"law of {target} from {', '.join(known)}: fit one to runs that were tuned"
        )
    return float(form.predict(rule.values, known))


def _paired(aim: Aim, samples: int) -> Array | float:
    """A loss for each of the law's samples."""
    if aim.samples is None:
        return aim.loss
    # Where there are fewer, the first ones still belong together.
    drawn = np.asarray(aim.samples, np.float64)
    return drawn[np.arange(samples) % len(drawn)]


def _quantity(value: Array, drawn: Array) -> dict[str, Any] | None:
    if np.isnan(value):
        return None
    return {"value": float(value), "interval_90": interval(np.atleast_1d(drawn))}


def _loss(law: Law, budget: Budget, run: Allocation) -> dict[str, Any]:
    given: dict[str, Any] = dict(budget.data(law.form, run.params, run.useful))
    ends = law.predict_interval(**given)
    return {
        "value": float(law.predict(**given)),
        "interval_90": [float(ends.low), float(ends.high)],
    }


def _asked(budget: Budget, aim: Aim | None, by: Cost) -> dict[str, Any]:
    """The limits as they were given."""
    limits = ("flops", "hours", "lifetime_hours", "unique_tokens", "epochs", "inference_tokens",
              "params_high")  # fmt: skip
    asked: dict[str, Any] = {name: value for name in limits if (value := getattr(budget, name))}
    if budget.critical is not None:
        asked["critical_batch"] = budget.critical.name
    if aim is not None:
        asked |= {"loss": aim.loss, "name": aim.name, "cheapest_by": by}
    return asked


def _null_reasons(budget: Budget, next_flops: float | None) -> dict[str, str]:
    reasons = {}
    if next_flops is None:
        reasons["next_runs"] = "no compute was given for them"
    if budget.machine is None:
        reasons |= dict.fromkeys(("hours", "hours_lifetime"), "no machine was given")
    if budget.machine is None or budget.machine.price_per_hour is None:
        reasons["cost"] = "no price was given"
    if budget.unique_tokens is None:
        reasons["epochs"] = "the unique tokens were not given"
    return reasons


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
