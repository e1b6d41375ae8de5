"""How a budget is best spent: the size, tokens and batch with the least loss, or the cheapest way
to a loss.

One idea serves every combination of limits: a size, once chosen, can do more with more tokens, so
that the limits leave it the most useful tokens (or a loss asks it for the fewest), and what remains
is a search over sizes.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaling.analysis.budget import LEAST, MOST, Budget
from scaling.analysis.devices import HOUR, PlanError
from scaling.analysis.fitted import PARTS_OF_A_BUDGET
from scaling.analysis.forms import Array, Form
from scaling.analysis.search import AT_AN_END, halved, largest, lowest

ONE_STEP = 1.001
"""A run of no more steps is none."""

Cost = Literal["flops", "time"]


class Allocation(NamedTuple):
    """A run, or a run of every sample of a law; NaN throughout where there is none.

    `useful` tokens at small batches do what `tokens` do at this one; `flops` are those of the
    training, `spent` those of the answers as well; `seconds` are NaN without a machine.
    """

    params: Array
    tokens: Array
    batch_tokens: Array
    steps: Array
    flops: Array
    spent: Array
    seconds: Array
    loss: Array
    useful: Array


def allocate(form: Form, values: Array, budget: Budget) -> Allocation:
    """The run with the least loss within the budget, for parameters [..., parameters] of the law.

    NaN where the loss falls to the end of the sizes and no limit of the budget stands there.

    Raises:
      PlanError: a law that is not of size, data and compute alone, or nothing that limits tokens.
    """
    _check(form)
    if not budget.limited:
        raise PlanError(
            "nothing limits the tokens, so there is no best size; give --flops, --chips with "
            "--hours, or --unique_tokens"
        )

    def loss_at(log_params: Array) -> Array:
        params = np.exp(log_params)
        useful = most_useful(form, values, budget, params)
        return _loss(form, values, budget, params, useful)

    low, high = _range(form, values, budget)
    found = lowest(loss_at, low, high)
    open_low, open_high = budget.sizes[0] <= LEAST, budget.sizes[1] >= MOST
    natural = (open_low & (found <= low + AT_AN_END)) | (open_high & (found >= high - AT_AN_END))
    run = run_of(form, values, budget, np.exp(np.where(natural, np.nan, found)))
    # A law whose loss falls with size for ever ends where all goes into one step.
    none = run.steps <= ONE_STEP
    return Allocation(*(np.where(none, np.nan, column) for column in run))


def run_of(form: Form, values: Array, budget: Budget, params: Array) -> Allocation:
    """What a size is best given: all the useful tokens that the budget leaves it."""
    return _spend(form, values, budget, params, most_useful(form, values, budget, params))


def cheapest(
    form: Form, values: Array, loss: Array | float, budget: Budget, *, by: Cost = "flops"
) -> Allocation:
    """The cheapest run that reaches a loss within the limits of the budget: by the FLOPs of
    training and answers, or by the time of both on the machine. NaN where no run reaches it.

    Raises:
      PlanError: a law that is not of size, data and compute alone, time without a machine.
    """
    _check(form)
    if by == "time" and budget.machine is None:
        raise PlanError("time needs a machine; say which, with --chips=64 --device=h200 --mfu=0.4")

    def cost_at(log_params: Array) -> Array:
        params = np.exp(log_params)
        useful = fewest_useful(form, values, loss, budget, params)
        run = _spend(form, values, budget, params, useful, by=by)
        time = run.seconds + budget.answer_seconds(run.params)
        return np.log(time if by == "time" else run.spent)

    low, high = _range(form, values, budget)
    best = None
    if budget.limited:
        # Where the limits leave just a few sizes, this is one of them.
        best = np.log(allocate(form, values, budget).params)
    params = np.exp(lowest(cost_at, low, high, also=best))
    return reach_of(form, values, loss, budget, params, by=by)


def run_at(
    form: Form,
    values: Array,
    budget: Budget,
    params: float,
    tokens: float,
    *,
    batch_tokens: float | None = None,
) -> Allocation:
    """The run of so many parameters on so many tokens, whatever the limits.

    At the batch that is given, else that of the budget, else the one that keeps its machine just
    busy, else its least.
    """
    size, seen = np.asarray(float(params)), np.asarray(float(tokens))
    batch = batch_tokens or budget.batch_tokens
    if batch is None:
        machine = budget.machine
        batch = float(budget.least_batch(size) if machine is None else machine.busy_batch(size))

    def within(useful: Array) -> NDArray[np.bool_]:
        crowding = _crowding(form, values, budget, size, useful)
        return np.asarray(useful * (1 + batch * crowding) <= seen)

    useful = largest(within, seen)
    return _filled(form, values, budget, size, useful, seen, np.asarray(batch))


def reach_of(
    form: Form, values: Array, loss: Array | float, budget: Budget, params: Array, *, by: Cost
) -> Allocation:
    """What a size takes to reach a loss; NaN where the limits do not let it."""
    useful = fewest_useful(form, values, loss, budget, params)
    return _spend(form, values, budget, params, useful, by=by)


def with_tokens(
    form: Form, values: Array, budget: Budget, run: Allocation, tokens: float
) -> Allocation:
    """The same size and batch on other tokens, such as a whole number of batches."""
    # So near to the old tokens the critical batch is the same.
    useful = run.useful * tokens / run.tokens
    return _filled(
        form, values, budget, run.params, useful, np.asarray(float(tokens)), run.batch_tokens
    )


def most_useful(form: Form, values: Array, budget: Budget, params: Array) -> Array:
    """The most useful tokens that the limits leave each size; NaN where they leave none."""
    most = np.minimum.reduce([np.full_like(params, np.inf), *budget.most(form, params).values()])
    most = np.where(most > 0, most, np.nan)

    def fits(useful: Array) -> NDArray[np.bool_]:
        crowding = _crowding(form, values, budget, params, useful)
        low, high = budget.batches(form, params, useful, crowding)
        return low <= high

    return largest(fits, most)


def fewest_useful(
    form: Form, values: Array, loss: Array | float, budget: Budget, params: Array
) -> Array:
    """The fewest useful tokens with which each size reaches a loss; NaN where none do."""

    def above(useful: Array) -> NDArray[np.bool_]:
        return _loss(form, values, budget, params, useful) > loss

    batch = np.broadcast_shapes(params.shape, values.shape[:-1])
    low, high = (np.full(batch, np.log(end)) for end in (LEAST, MOST))
    unreached = above(np.exp(high)) | np.isnan(params) | np.isnan(loss)
    return np.where(unreached, np.nan, np.exp(halved(above, low, high)[1]))


def _spend(
    form: Form, values: Array, budget: Budget, params: Array, useful: Array, *, by: Cost = "flops"
) -> Allocation:
    crowding = _crowding(form, values, budget, params, useful)
    batches = budget.batches(form, params, useful, crowding)
    batch = batches.low
    if by == "time" and budget.machine is not None:
        # The shortest run keeps the chips just busy; a larger batch only adds tokens.
        batch = np.clip(budget.machine.busy_batch(params), batches.low, np.maximum(
            batches.low, batches.high
        ))  # fmt: skip
    batch = np.where(batches.low <= batches.high, batch, np.nan)
    tokens = np.where(np.isnan(batch), np.nan, useful * (1 + np.nan_to_num(batch) * crowding))
    none = np.isnan(tokens)
    params, useful = (np.where(none, np.nan, x) for x in (params, useful))
    return _filled(form, values, budget, params, useful, tokens, batch)


def _filled(
    form: Form,
    values: Array,
    budget: Budget,
    params: Array,
    useful: Array,
    tokens: Array,
    batch: Array,
) -> Allocation:
    return Allocation(
        params=params,
        tokens=tokens,
        batch_tokens=batch,
        steps=tokens / batch,
        flops=6 * params * tokens,
        spent=budget.spent(params, tokens),
        seconds=budget.seconds(params, tokens, batch),
        loss=_loss(form, values, budget, params, useful),
        useful=useful,
    )


def _crowding(form: Form, values: Array, budget: Budget, params: Array, useful: Array) -> Array:
    """1/B_crit, 0 without a critical batch."""
    if budget.critical is None:
        return np.zeros(np.broadcast_shapes(params.shape, useful.shape))
    given = {"params": params, "tokens": useful, "flops": 6 * params * useful}
    if "loss" in budget.critical.inputs:
        given["loss"] = _loss(form, values, budget, params, useful)
    return 1 / budget.critical.at(given)


def _loss(form: Form, values: Array, budget: Budget, params: Array, useful: Array) -> Array:
    shape = np.broadcast_shapes(params.shape, useful.shape, values.shape[:-1])
    params, useful = np.broadcast_to(params, shape), np.broadcast_to(useful, shape)
    given = budget.data(form, params, useful)
    return form.predict(np.broadcast_to(values, (*shape, values.shape[-1])), given)


def _range(form: Form, values: Array, budget: Budget) -> tuple[Array, Array]:
    """Logs of the sizes to search, of the shape of the samples."""
    low, high = budget.sizes
    compute = [budget.flops] if budget.flops is not None else []
    if budget.machine is not None:
        for hours in filter(None, (budget.hours, budget.lifetime_hours)):
            compute.append(hours * HOUR * budget.machine.flops_per_second)
    for flops in compute:
        high = min(high, max(flops / 6 / LEAST, low))
    shape = values.shape[:-1]
    return np.full(shape, np.log(low)), np.full(shape, np.log(high))


def _check(form: Form) -> None:
    if not PARTS_OF_A_BUDGET.issuperset(form.inputs) or form.target != "loss":
        raise PlanError(
            f"{form.name} gives {form.target} from {', '.join(form.inputs)}: a budget alone does "
            f"not choose them; fit a law of {', '.join(sorted(PARTS_OF_A_BUDGET))}"
        )
