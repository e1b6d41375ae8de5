"""Twice the parameters, twice the tokens or twice the time: what each takes off the loss."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from scaling.analysis.allocation import Allocation, allocate, run_at
from scaling.analysis.budget import Budget
from scaling.analysis.devices import HOUR
from scaling.analysis.fitted import Law
from scaling.analysis.frontier import interval


def compare(
    law: Law,
    params: float,
    tokens: float,
    *,
    batch_tokens: float | None = None,
    budget: Budget | None = None,
    factor: float = 2.0,
) -> dict[str, Any]:
    """What `factor` times the parameters, the tokens, the compute (best split), or the chips do to
    a run's loss.

    Twice the parameters and twice the tokens each cost twice the compute; "2x the time" is the best
    split of that, on the machine of the budget twice its hours. "2x the chips" is in the hours of
    the base run. Of a model that will answer, compute and hours are those of its life: else a
    size would be chosen whose answers cost many times what was planned. `tokens` are those that are
    seen, at `batch_tokens` (where None, see `allocation.run_at`). The budget's limits on size and
    data hold for the time and the chips, and `within_limits` says whether the others keep them. Its
    FLOPs and hours matter only where a model answers: `factor` times them (for the chips, its
    hours as they are), or the time meant for answers would go into training.

    Returns:
      base: params, tokens, flops, hours (null without a machine), both of the training and, as
      flops_lifetime and hours_lifetime, with the answers, and loss of the run. options: the
      same of each, and its `change` of the loss with its 90% interval, paired: both losses by the
      same bootstrap sample, the seed's noise left out. `best_in_samples` is the share of samples in
      which it lowers the loss the most of those that cost as much and keep the limits.
    """
    asked = budget or Budget()
    budget = dataclasses.replace(asked, flops=None, hours=None, lifetime_hours=None)
    base = run_at(law.form, law.values, budget, params, tokens, batch_tokens=batch_tokens)
    solved = list(_options(law, base, budget, factor, asked))
    named = {name: run for name, run, _ in solved}
    drawn = {name: _sampled(law, budget, run) for name, run in named.items()}
    before = _sampled(law, budget, base)
    changes = {name: losses - before for name, losses in drawn.items()}
    within = {name: _within(law, budget, run) for name, run in named.items()}
    alike = [name for name in changes if "chips" not in name and within[name]]
    best = np.argmin([changes[name] for name in alike], axis=0) if alike else None
    options = []
    for name, run, limits in solved:
        share = float(np.mean(best == alike.index(name))) if name in alike else None
        options.append(
            {"name": name}
            | _facts(limits, run)
            | {
                "change": {
                    "value": float(run.loss - base.loss),
                    "interval_90": interval(changes[name]),
                },
                "best_in_samples": share,
                "within_limits": within[name],
            }
        )
    return {"base": _facts(budget, base), "factor": factor, "options": options}


def _options(
    law: Law, base: Allocation, budget: Budget, factor: float, asked: Budget
) -> Iterator[tuple[str, Allocation, Budget]]:
    form, values, times = law.form, law.values, f"{factor:g}x the"
    params, tokens = float(base.params), float(base.tokens)
    batch = float(base.batch_tokens)
    for name, more in (("parameters", (factor, 1)), ("tokens", (1, factor))):
        yield (
            f"{times} {name}",
            run_at(form, values, budget, more[0] * params, more[1] * tokens, batch_tokens=batch),
            budget,
        )
    longer = dataclasses.replace(budget, flops=factor * float(base.spent))
    wider = None
    if budget.machine is not None:
        trained, life = float(base.seconds) / HOUR, _life(budget, base)
        flops, hours = None, None
        if budget.inference_tokens:
            # The run itself may lie beyond what was asked.
            flops = asked.flops and factor * max(asked.flops, float(base.spent))
            hours = asked.hours and max(asked.hours, trained)
        longer = dataclasses.replace(
            budget, flops=flops, hours=hours and factor * hours, lifetime_hours=factor * life
        )
        machine = dataclasses.replace(budget.machine, chips=round(factor * budget.machine.chips))
        wider = dataclasses.replace(
            budget, flops=flops, hours=hours, lifetime_hours=life, machine=machine
        )
    for name, limits in ((f"{times} time", longer), (f"{times} chips", wider)):
        if limits is None:
            continue
        best = allocate(form, values, limits)
        if np.isfinite(best.loss):
            yield name, best, limits


def _sampled(law: Law, budget: Budget, run: Allocation) -> Any:
    given = budget.data(law.form, run.params, run.useful)
    return law.form.predict(law.samples, given)


def _within(law: Law, budget: Budget, run: Allocation) -> bool:
    data = budget.most(law.form, run.params).get("unique data", np.inf)
    low, high = budget.sizes
    return bool(low <= run.params <= high and run.tokens <= data)


def _life(budget: Budget, run: Allocation) -> float:
    """Hours of training and answers, on the machine of the budget."""
    return float(run.seconds + budget.answer_seconds(run.params)) / HOUR


def _facts(budget: Budget, run: Allocation) -> dict[str, Any]:
    seconds = float(run.seconds)
    return {
        "params": float(run.params),
        "tokens": float(run.tokens),
        "flops": float(run.flops),
        "batch_tokens": float(run.batch_tokens),
        "hours": None if np.isnan(seconds) else seconds / HOUR,
        "flops_lifetime": float(run.spent),
        "hours_lifetime": None if np.isnan(seconds) else _life(budget, run),
        "loss": float(run.loss),
    }
