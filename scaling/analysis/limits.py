"""What the limits of a plan rest on, which of them bind, and why no run may be within them."""

import math

import numpy as np

from scaling.analysis.allocation import Allocation, allocate
from scaling.analysis.budget import LEAST, MOST, TIGHT, Budget
from scaling.analysis.fitted import Law
from scaling.analysis.forms import Form

SMALL = 1e3
"""Parameters of a model as small as any."""
OFF = 1.5
"""A model that is smaller or larger than the best by this factor is said not to be near it."""
FAR = 100.0
"""Beyond this factor over the largest budget fitted, small errors of the exponents dominate."""


def assumptions(form: Form, budget: Budget) -> list[str]:
    """What a plan takes for granted, in sentences."""
    found = ["FLOPs of training are 6 params tokens"]
    if budget.inference_tokens:
        found.append(
            f"FLOPs count the {budget.inference_tokens:.4g} tokens that the model will read and "
            "write in its life too, at 2 params each (Sardana et al. 2024)"
        )
        if budget.machine is not None:
            share = budget.machine.serving_utilization
            found.append(
                "answers take the time of the same chips at "
                + ("the share of their peak that training has, which is more than most make"
                   if share is None else f"{share:.3g} of their peak")
            )  # fmt: skip
    machine = budget.machine
    if machine is not None:
        found.append(
            f"{machine.chips} x {machine.name} compute {machine.utilization:.3g} of their peak of "
            f"{machine.peak_flops:.4g} FLOP/s each ({machine.utilization_source}), as long as each "
            f"has {machine.tokens_per_chip} tokens a step or more; with fewer a step takes no less "
            "time"
        )
    if machine is not None and machine.step_seconds:
        found.append(f"a step takes {machine.step_seconds:.3g} s or more")
    if machine is not None and machine.memory_bytes is not None:
        found.append(
            f"a chip of {machine.memory_bytes:.4g} bytes holds its share of 16 bytes a parameter "
            "and the activations of its tokens, with each layer's computed again"
        )
    if budget.critical is not None:
        found.append(
            f"steps = (D/B_crit)(1 + B_crit/B) and tokens = D (1 + B/B_crit), with D what the law "
            f"calls tokens: its runs were trained far below their critical batch; "
            f"{budget.critical.name}"
        )
    elif budget.chooses_batch:
        found.append("no critical batch was given: a larger batch is taken to cost no tokens")
    if budget.unique_tokens is not None:
        repeats = budget.repeats(form)
        if "unique_tokens" in form.inputs:
            found.append(f"{form.name} says what repeats of the unique tokens are worth")
        elif repeats > 1:
            found.append(
                f"up to {repeats:g} epochs a repeated token counts as a fresh one, for all that "
                f"{form.name} knows (Muennighoff et al. 2023: about so up to 4)"
            )
        else:
            found.append(
                f"no token is seen twice: {form.name} does not know what repeats are worth; fit a "
                "data_constrained law, or allow some with --epochs"
            )
    return found


def binding(form: Form, budget: Budget, run: Allocation) -> list[str]:
    """The limits of which the run leaves less than 0.1%."""
    low, high = budget.sizes
    found = []
    most = budget.most(form, run.params)
    if "compute" in most and run.tokens >= (1 - TIGHT) * most["compute"]:
        found.append("compute")
    for name, seconds in budget.training_seconds(run.params).items():
        if run.seconds >= (1 - TIGHT) * seconds:
            found.append(name)
    if "unique data" in most and run.tokens >= (1 - TIGHT) * most["unique data"]:
        found.append("unique data")
    if low > LEAST and run.params <= (1 + TIGHT) * low:
        found.append("smallest size")
    if run.params >= (1 - TIGHT) * high:
        found.append("largest size" if high == budget.params_high else "memory")
    return found


def warnings(
    law: Law, budget: Budget, run: Allocation, *, built: float | None, cheapest: bool = False
) -> list[str]:
    """What to know before a run is paid for; `built` are the parameters of the model that stands
    for it, None where there is none; `cheapest` where it is that to a loss."""
    found = []
    if (
        budget.inference_tokens
        and not cheapest
        and budget.flops is None
        and budget.lifetime_hours is None
    ):
        found.append(
            f"the {budget.inference_tokens:.4g} inference tokens change nothing here: hours are "
            "those of training; limit both together with --lifetime_hours or --flops"
        )
    fitted = [entry["flops"] for entry in law.diagnostics["residuals"]]
    largest = max((flops for flops in fitted if flops is not None), default=math.inf)
    flops = float(run.flops)
    if flops > FAR * largest:
        found.append(
            f"{flops:.3g} FLOPs is {flops / largest:.3g} times the largest budget fitted "
            f"({largest:.3g}): beyond {FAR:.0f} times the interval rests on the law's "
            "form; train a budget in between first"
        )
    critical = budget.critical
    if critical is not None and critical.measured is not None:
        low, high = critical.measured
        if not low <= run.useful <= high:
            found.append(
                f"the critical batch was measured from {low:.3g} to {high:.3g} tokens, and "
                f"{float(run.useful):.3g} lie outside; measure it on runs of your own"
            )
    if built is None:
        found.append("no model that can be built keeps these limits near the best size")
    elif not 1 / OFF < built / float(run.params) < OFF:
        found.append(
            f"the nearest model that can be built within the limits has {built:.3g} parameters, "
            f"{built / float(run.params):.3g} times the best size: what is said of the run is said "
            "of that model"
        )
    return found


def refusal(law: Law, budget: Budget, loss: float | None) -> str:
    """Why there is no run: the limits against what they would leave, and the remedy."""
    form, values = law.form, law.values
    if loss is not None:
        ends = np.asarray(MOST)
        least = float(form.predict(values, budget.data(form, ends, ends)))
        if loss <= least:
            what = "on that data " if budget.unique_tokens is not None else ""
            return (
                f"a loss of {loss:.6g} lies below the floor of the law, {least:.6g} {what}at any "
                f"size; aim above it, or change what is trained on"
            )
    if budget.limited:
        best = allocate(form, values, budget)
        if np.isfinite(best.loss):
            return (
                f"a loss of {loss:.6g} is out of reach within these limits: the best is "
                f"{float(best.loss):.6g}, by {float(best.params):.4g} parameters on "
                f"{float(best.tokens):.4g} tokens, where {_listed(binding(form, budget, best))} "
                "ends; give more of that, or aim for a higher loss"
            )
    low, high = budget.sizes
    tokens = min(map(float, budget.most(form, np.asarray(SMALL)).values()), default=math.inf)
    step = float(budget.least_batch(np.asarray(SMALL)))
    if low < SMALL and tokens < step:
        return (
            f"these limits leave a model of {SMALL:,.0f} parameters {max(tokens, 0):.4g} tokens, "
            f"less than one batch of {step:.4g}; give more, or a smaller --batch_tokens"
        )
    batch = "" if budget.batch_tokens is None else f" in batches of {budget.batch_tokens:.6g}"
    if low > LEAST:
        told = "; ".join(
            f"{name} leaves {max(float(tokens), 0):.4g} tokens"
            for name, tokens in budget.most(form, np.asarray(low)).items()
        )
        return (
            f"no size from {low:.4g} to {high:.4g} parameters can be trained{batch}: at the "
            f"smallest {told or 'nothing limits the tokens'}; give more, or lower the size or the "
            "batch"
        )
    return (
        f"{form.name} has no best size within these limits: its loss falls to the end of the "
        "sizes; give --max_params, or fit a law in which size and data trade"
    )


def _listed(names: list[str]) -> str:
    return " and ".join(names) or "the budget"
