import dataclasses

import numpy as np
import pytest

from scaling.analysis.allocation import allocate, cheapest, run_at, run_of
from scaling.analysis.batches import critical
from scaling.analysis.budget import Budget
from scaling.analysis.devices import HOUR, Machine, PlanError
from scaling.analysis.fitted import PARTS_OF_A_BUDGET, optimum
from scaling.analysis.rules import LAWS

CHINCHILLA = LAWS["chinchilla"]
SARDANA = np.array([1.69, 406.4, 410.7, 0.336, 0.283])
"""E, A, B, alpha, beta as Sardana et al. 2024 use them."""
REFIT = np.array([1.8172, 482.01, 2085.43, 0.3478, 0.3658])
E, A, B, ALPHA, BETA = SARDANA


def machine(**changes):
    made = Machine(chips=64, peak_flops=989e12, utilization=0.4, tokens_per_chip=4096)
    return dataclasses.replace(made, **changes)


def loss(params, tokens):
    return E + A / params**ALPHA + B / tokens**BETA


def test_flops_alone_give_the_closed_form_optimum():
    flops = np.array([1e18, 1e21, 5.76e23])
    G = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA))
    for one in flops:
        found = allocate(CHINCHILLA, SARDANA, Budget(flops=one))
        assert found.params == pytest.approx(G * (one / 6) ** (BETA / (ALPHA + BETA)), rel=1e-6)
        assert found.flops == pytest.approx(one, rel=1e-12)
        assert found.loss == pytest.approx(loss(found.params, found.tokens), rel=1e-12)
        assert found.params == pytest.approx(optimum(CHINCHILLA, SARDANA, one).params, rel=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        n
        for n, f in LAWS.items()
        if f.published and f.target == "loss" and set(f.inputs) <= PARTS_OF_A_BUDGET
    ],
)
@pytest.mark.parametrize("flops", [1e19, 1e21])
def test_flops_alone_give_the_optimum_of_every_law(name, flops):
    form = LAWS[name]
    values = np.array([list(form.published.values())[-1][n] for n in form.names])
    before = optimum(form, values, np.array(flops))
    found = allocate(form, values, Budget(flops=flops))
    # At the kink of a law of repeats a size is known less well than the loss there.
    np.testing.assert_allclose(found.params, before.params, rtol=1e-3)
    np.testing.assert_allclose(found.loss, before.loss, rtol=1e-7)


def test_samples_of_a_law_are_solved_as_if_one_by_one():
    samples = np.stack([SARDANA, REFIT, SARDANA * [1.1, 0.8, 1.2, 1.02, 0.99]])
    budget = Budget(hours=72.0, machine=machine(), critical=critical("kaplan_2020"))
    together = allocate(CHINCHILLA, samples, budget)
    for i, values in enumerate(samples):
        alone = allocate(CHINCHILLA, values, budget)
        np.testing.assert_allclose([x[i] for x in together], alone, rtol=1e-5)


@pytest.mark.parametrize(
    ("size", "inference", "params", "tokens", "saved"),
    [
        # Sardana et al. 2024, section 3: model quality, tokens answered -> size, tokens, FLOPs.
        (30e9, 5e12, 16.4e9, 3.27e12, 0.16),
        (70e9, 10e12, 41.6e9, 7.92e12, 0.12),
        (7e9, 1e11, 6.0e9, 1.18 * 276.4e9, 0.0085),
    ],
)
def test_lifetime_inference_gives_the_published_sizes(size, inference, params, tokens, saved):
    optimal = (BETA * B * size**ALPHA / (ALPHA * A)) ** (1 / BETA)
    found = cheapest(CHINCHILLA, SARDANA, loss(size, optimal), Budget(inference_tokens=inference))
    assert found.params == pytest.approx(params, rel=0.005)
    assert found.tokens == pytest.approx(tokens, rel=0.005)
    chinchilla = 6 * size * optimal + 2 * size * inference
    assert 1 - found.spent / chinchilla == pytest.approx(saved, abs=0.005)
    # Their first-order condition.
    left = ALPHA * A * found.params**-ALPHA / (BETA * B * found.tokens**-BETA)
    assert left == pytest.approx(1 + inference / (3 * found.tokens), rel=1e-3)


def test_the_least_loss_of_a_budget_costs_that_budget():
    """Two routes to one curve: the loss of a cost, and the cost of a loss."""
    for budget, by in (
        (Budget(flops=1e22), "flops"),
        (Budget(flops=1e22, inference_tokens=1e12), "flops"),
        (Budget(flops=1e22, unique_tokens=5e10), "flops"),
        (Budget(hours=50.0, machine=machine(), critical=critical(2e6)), "time"),
        (Budget(hours=50.0, machine=machine(), critical=critical("zhang_2025")), "time"),
    ):
        best = allocate(CHINCHILLA, SARDANA, budget)
        free = dataclasses.replace(budget, flops=None, hours=None)
        back = cheapest(CHINCHILLA, SARDANA, float(best.loss), free, by=by)
        cost = back.spent / 1e22 if by == "flops" else back.seconds / (50 * HOUR)
        assert cost == pytest.approx(1, rel=1e-5)
        assert back.params == pytest.approx(float(best.params), rel=0.01)


SITUATIONS = [
    Budget(flops=3e21),
    Budget(flops=3e21, critical=critical(1e6), least_batch_tokens=5e5),
    Budget(flops=3e21, unique_tokens=2e10),
    Budget(flops=3e21, unique_tokens=2e10, epochs=3.0, inference_tokens=1e12),
    Budget(flops=3e21, params_high=2e9),
    Budget(hours=24.0, machine=machine(), critical=critical(5e5)),
    Budget(hours=24.0, machine=machine(chips=1024), critical=critical("zhang_2025")),
    Budget(hours=24.0, machine=machine(step_seconds=2.0), critical=critical(3e6)),
    Budget(flops=2e21, hours=24.0, machine=machine(chips=512), critical=critical("kaplan_2020")),
    Budget(flops=3e21, critical=critical("zhang_2025"), batch_tokens=3e6),
    Budget(hours=24.0, machine=machine(chips=512), critical=critical(1e6), batch_tokens=4e6),
    Budget(hours=24.0, machine=machine(chips=512), critical=critical(1e6), batch_tokens=1e6),
    Budget(
        hours=10.0, machine=machine(chips=256, memory_bytes=80e9), critical=critical(4e6),
        unique_tokens=1e11, params_low=1e9,
    ),
]  # fmt: skip


@pytest.mark.parametrize("budget", SITUATIONS, ids=range(len(SITUATIONS)))
def test_the_solver_agrees_with_a_brute_force_search_over_size_tokens_and_batch(budget):
    found = allocate(CHINCHILLA, SARDANA, budget)
    params = np.geomspace(1e8, 1e11, 181)[:, None, None]
    useful = np.geomspace(1e9, 1e13, 321)[None, :, None]
    batch = np.geomspace(1e3, 1e9, 97)[None, None, :]
    if budget.batch_tokens is not None:
        batch = np.full((1, 1, 1), budget.batch_tokens)
    losses = loss(params, useful)
    crowding = 0.0
    if budget.critical is not None:
        given = {"params": params, "tokens": useful, "loss": losses}
        crowding = 1 / np.broadcast_to(
            budget.critical.at({k: np.broadcast_to(x, (181, 321, 1)) for k, x in given.items()}),
            (181, 321, 1),
        )
    tokens = useful * (1 + batch * crowding)
    low, high = budget.sizes
    fits = (params >= low) & (params <= high) & (batch >= budget.least_batch_tokens)
    if budget.flops is not None:
        fits = fits & (6 * params * tokens + 2 * params * budget.inference_tokens <= budget.flops)
    if budget.unique_tokens is not None:
        fits = fits & (tokens <= budget.unique_tokens * (budget.epochs or 1))
    if budget.machine is not None and budget.hours is not None:
        m = budget.machine
        per_chip = np.maximum(batch / m.chips, m.tokens_per_chip)
        step = np.maximum(6 * params * per_chip / (m.peak_flops * m.utilization), m.step_seconds)
        fits = fits & (tokens / batch * step <= budget.hours * 3600)
    best = np.where(fits, losses, np.inf).min()
    assert found.loss <= best
    # The grid is 4% to 15% apart in each direction, so that it may miss this much.
    assert found.loss == pytest.approx(best, rel=0.005)


@pytest.mark.parametrize("flops", [None, 2.5e22, 1.9e22])
def test_the_shortest_way_to_a_loss_agrees_with_a_brute_force_search(flops):
    """Where compute is scarce too, the batch is smaller than what keeps all chips busy."""
    budget = Budget(flops=flops, machine=machine(chips=1024), critical=critical(3e6))
    found = cheapest(CHINCHILLA, SARDANA, 2.1, budget, by="time")
    params = np.geomspace(1e9, 1e11, 301)[:, None]
    batch = np.geomspace(1e4, 1e8, 401)[None, :]
    useful = (B / np.maximum(2.1 - E - A / params**ALPHA, 1e-300)) ** (1 / BETA)
    tokens = useful * (1 + batch / 3e6)
    m = budget.machine
    step = 6 * params * np.maximum(batch / m.chips, m.tokens_per_chip)
    seconds = tokens / batch * step / (m.peak_flops * m.utilization)
    fits = 6 * params * tokens <= (flops or np.inf)
    best = np.where(fits, seconds, np.inf).min()
    assert found.seconds <= best * (1 + 1e-9)
    assert found.seconds == pytest.approx(best, rel=0.03)
    assert found.loss == pytest.approx(2.1)
    assert found.flops <= (flops or np.inf) * (1 + 1e-9)


@pytest.mark.parametrize("budget", SITUATIONS, ids=range(len(SITUATIONS)))
def test_the_run_that_is_found_keeps_every_limit(budget):
    found = allocate(CHINCHILLA, SARDANA, budget)
    least, most = budget.sizes
    assert least <= found.params <= most * (1 + 1e-9)
    assert found.batch_tokens >= budget.least_batch_tokens
    assert found.steps * found.batch_tokens == pytest.approx(float(found.tokens))
    if budget.flops is not None:
        assert found.spent <= budget.flops * (1 + 1e-9)
    if budget.unique_tokens is not None:
        assert found.tokens <= budget.unique_tokens * (budget.epochs or 1) * (1 + 1e-9)
    if budget.hours is not None:
        step = budget.machine.step(found.params, found.batch_tokens)
        assert found.steps * step == pytest.approx(float(found.seconds))
        assert found.seconds <= budget.hours * HOUR * (1 + 1e-9)


def test_twice_the_chips_halve_the_time_below_the_critical_batch_and_not_beyond():
    budget = Budget(machine=machine(), critical=critical(2e6))

    def hours(chips):
        limits = dataclasses.replace(budget, machine=machine(chips=chips))
        return float(cheapest(CHINCHILLA, SARDANA, 2.2, limits, by="time").seconds / HOUR)

    # 1 chip takes 4,096 tokens a step, 488 chips the critical batch.
    speedups = [hours(chips) / hours(2 * chips) for chips in (1, 8, 64, 488, 4096, 65536)]
    assert speedups == sorted(speedups, reverse=True)
    assert speedups[0] == pytest.approx(2, abs=0.01)
    assert 1.3 < speedups[3] < 1.6
    assert speedups[-1] < 1.02


def test_at_one_size_the_steps_are_those_of_mccandlish():
    limits = Budget(machine=machine(chips=488), critical=critical(2e6))
    runs = [
        run_at(CHINCHILLA, SARDANA, limits, 1e9, tokens, batch_tokens=batch)
        for batch, tokens in ((2e6, 4e10), (1e3, 2e10 * (1 + 1e3 / 2e6)))
    ]
    # At the critical batch twice the least tokens and twice the least steps.
    assert runs[0].useful == pytest.approx(2e10)
    assert runs[1].useful == pytest.approx(2e10)
    assert runs[0].steps == pytest.approx(2 * 2e10 / 2e6)
    for run in runs:
        least_steps, least_tokens = run.useful / 2e6, run.useful
        product = (run.steps / least_steps - 1) * (run.tokens / least_tokens - 1)
        assert product == pytest.approx(1, rel=1e-6)


def test_more_of_any_limit_never_raises_the_loss_and_a_larger_critical_batch_never_either():
    base = Budget(
        flops=5e21, hours=20.0, machine=machine(chips=256), critical=critical(1e6),
        unique_tokens=3e10, inference_tokens=1e12, params_high=3e9,
    )  # fmt: skip
    before = allocate(CHINCHILLA, SARDANA, base).loss
    for changes in (
        {"flops": 1e22}, {"hours": 40.0}, {"machine": machine(chips=512)},
        {"critical": critical(4e6)}, {"unique_tokens": 6e10}, {"epochs": 2.0},
        {"inference_tokens": 0.0}, {"params_high": 6e9},
    ):  # fmt: skip
        after = allocate(CHINCHILLA, SARDANA, dataclasses.replace(base, **changes)).loss
        assert after <= before + 1e-9, changes


def test_scarce_data_ask_for_a_larger_model_and_a_law_of_repeats_for_several_epochs():
    form = LAWS["data_constrained"]
    values = np.array([form.published["Muennighoff et al. 2023"][name] for name in form.names])
    plenty = allocate(form, values, Budget(flops=1e22))
    scarce = allocate(form, values, Budget(flops=1e22, unique_tokens=2.5e10))
    once = allocate(form, values, Budget(flops=1e22, unique_tokens=2.5e10, epochs=1.0))
    assert plenty.loss < scarce.loss < once.loss
    assert scarce.tokens > 2 * 2.5e10
    assert once.tokens == pytest.approx(2.5e10)
    # A second route over a grid of epochs.
    epochs = np.geomspace(1, 100, 2001)
    tokens = 2.5e10 * epochs
    losses = form.predict(
        values,
        {"params": 1e22 / 6 / tokens, "tokens": tokens, "unique_tokens": np.full(2001, 2.5e10)},
    )
    assert scarce.loss == pytest.approx(losses.min(), rel=1e-6)
    assert scarce.tokens == pytest.approx(tokens[losses.argmin()], rel=0.01)


def test_a_size_that_is_given_is_trained_on_what_is_left():
    budget = Budget(flops=6e20)
    run = run_of(CHINCHILLA, SARDANA, budget, np.array([1e9, 2e9]))
    np.testing.assert_allclose(run.tokens, [1e11, 5e10], rtol=1e-12)


def test_without_a_limit_or_with_a_law_of_something_else_there_is_no_plan():
    with pytest.raises(PlanError, match="nothing limits the tokens"):
        allocate(CHINCHILLA, SARDANA, Budget(params_high=1e9))
    with pytest.raises(PlanError, match="accuracy from loss"):
        allocate(LAWS["accuracy"], np.ones(4), Budget(flops=1e20))
    with pytest.raises(PlanError, match="time needs a machine"):
        cheapest(CHINCHILLA, SARDANA, 2.5, Budget(), by="time")


def test_what_cannot_be_reached_is_nan_and_no_number():
    assert np.isnan(cheapest(CHINCHILLA, SARDANA, 1.6, Budget()).params)
    assert np.isnan(cheapest(CHINCHILLA, SARDANA, 2.0, Budget(flops=1e20)).params)
    # The answers alone cost more than the budget at any size that is allowed.
    asked = Budget(flops=1e20, inference_tokens=1e13, params_low=1e9)
    assert np.isnan(allocate(CHINCHILLA, SARDANA, asked).loss)


def test_a_target_that_only_just_fits_the_limits_is_found():
    best = allocate(CHINCHILLA, SARDANA, Budget(flops=1e21))
    found = cheapest(CHINCHILLA, SARDANA, float(best.loss) * (1 + 1e-9), Budget(flops=1e21))
    assert found.params == pytest.approx(float(best.params), rel=0.01)


def test_a_life_on_one_machine_is_the_compute_that_it_makes_in_that_time():
    # Without a critical batch the chips are always busy: hours are FLOPs, of training and answers.
    answers = 3e12
    of = machine(serving_utilization=0.1)
    life = Budget(machine=of, lifetime_hours=100.0, inference_tokens=answers,
                  least_batch_tokens=64 * 4096)  # fmt: skip
    flops = Budget(flops=100 * HOUR * of.flops_per_second, inference_tokens=4 * answers)
    one, other = (allocate(CHINCHILLA, SARDANA, budget) for budget in (life, flops))
    for name in ("params", "tokens", "loss"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-6)
    spent = one.seconds + life.answer_seconds(one.params)
    assert spent == pytest.approx(100 * HOUR, rel=1e-9)
    # And so is the cheapest way to a loss.
    target = float(other.loss) + 0.1
    one = cheapest(CHINCHILLA, SARDANA, target, life, by="time")
    other = cheapest(CHINCHILLA, SARDANA, target, flops, by="flops")
    assert one.params == pytest.approx(other.params, rel=1e-4)
    silent = dataclasses.replace(life, inference_tokens=0.0)
    assert allocate(CHINCHILLA, SARDANA, silent).params > 2 * one.params
