"""Schedules and update rules."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.axes import Axes, parse
from scaling.model.parameterization import Parameterization, Scale
from scaling.train import optim

HYPER = optim.Hyper(
    learning_rate=0.1,
    vector_learning_rate=0.01,
    weight_decay=0.0,
    clip_norm=1.0,
    warmup_tokens=100.0,
    cooldown_fraction=0.25,
    total_tokens=1000.0,
)
SHAPES = {
    "up": ("D->F", (3, 6, 8)),
    "mix": ("D->NH", (3, 6, 2, 5)),
    "bias": ("->F", (3, 8)),
    "table": ("V->D", (9, 6)),
    "head": ("D->V", (6, 9)),
    "gain": ("->D", (6,)),
}
AXES = {name: parse(text) for name, (text, _) in SHAPES.items()}
LENGTHS = {"D": 6, "F": 8, "N": 2, "H": 5, "V": 9, "L": 3}
STACKED = ("up", "mix", "bias")
OPTIMIZERS = ("muon", "adamw", "lion", "adafactor", "sgd")
Arrays = dict[str, jax.Array]


def params(seed: int = 0) -> Arrays:
    keys = jax.random.split(jax.random.key(seed), len(SHAPES))
    return {
        name: jax.random.normal(key, size)
        for key, (name, (_, size)) in zip(keys, SHAPES.items(), strict=True)
    }


def rule(optimizer: str, schedule: str = "wsd", epsilon: float = 1e-8) -> optim.Rule:
    return optim.Rule(
        optimizer=optimizer, schedule_name=schedule, decays=(0.9, 0.95), epsilon=epsilon
    )


def scales(axes: Mapping[str, Axes], *, name: str = "standard", base: int = 6) -> dict[str, Scale]:
    made = Parameterization(
        name=name, lengths=LENGTHS, base_width=base, base_depth=3, base_head_width=5, tied=False
    )
    return {weight: made.scale(letters) for weight, letters in axes.items()}


def run(
    optimizer: str, start: Arrays, hyper: optim.Hyper, *, steps: int = 3, **options: Any
) -> Arrays:
    """Some updates, each with the weights' own sine for a gradient."""
    axes = {name: AXES[name] for name in start}
    factors = options.get("scales") or scales(axes)
    made = rule(optimizer, epsilon=options.get("epsilon", 1e-8))
    directions = made.directions(axes, factors)
    state, new = directions.init(start), start
    for _ in range(steps):
        gradients = jax.tree.map(jnp.sin, new)
        updates, state = directions.update(gradients, state, new)
        new = made.update(
            new, updates, axes=axes, scales=factors, multiplier=jnp.asarray(0.5), hyper=hyper
        )
    return new


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("wsd", [0, 0.5, 1, 1, 1, 0.5, 0, 0]),
        ("wsd_sqrt", [0, 0.5, 1, 1, 1, 1 - 0.5**0.5, 0, 0]),
        ("cosine", [0, 0.5, 1, 0.5, 0.5 + 0.5 * np.cos(np.pi * 13 / 18), None, 0, 0]),
        ("linear", [0, 0.5, 1, 0.5, 5 / 18, 125 / 900, 0, 0]),
        ("constant", [0, 0.5, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_each_schedule_has_the_values_of_its_formula(
    schedule: str, expected: list[float | None]
) -> None:
    times = (0, 50, 100, 550, 750, 875, 1000, 2000)
    for tokens, value in zip(times, expected, strict=True):
        found = rule("adamw", schedule).schedule(jnp.asarray(float(tokens)), HYPER)
        if value is not None:
            assert found == pytest.approx(value, abs=1e-6), (schedule, tokens)


@pytest.mark.parametrize("schedule", ["wsd", "wsd_sqrt"])
def test_budgets_of_one_size_share_their_trunk(schedule: str) -> None:
    longer = HYPER._replace(total_tokens=4000.0)
    made = rule("adamw", schedule)
    for tokens in np.linspace(0, 750, 16):
        at = jnp.asarray(tokens)
        assert made.schedule(at, HYPER) == made.schedule(at, longer)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_stacked_weight_moves_as_each_of_its_layers_would_alone(optimizer: str) -> None:
    start = {name: params()[name] for name in STACKED}
    # One layer times 1000: what is shared between layers would show.
    start = {name: value.at[1].multiply(1000.0) for name, value in start.items()}
    trained = jax.jit(lambda start: run(optimizer, start, HYPER, steps=2))
    together = trained(start)
    for layer in range(3):
        alone = trained({name: value[layer : layer + 1] for name, value in start.items()})
        for name in STACKED:
            np.testing.assert_allclose(
                together[name][layer], alone[name][0], rtol=1e-5, atol=1e-5, err_msg=name
            )


def test_muon_orthogonalises_each_layer_of_a_stack_as_its_own_matrix() -> None:
    directions = rule("muon").directions(AXES, scales(AXES))
    updates, _ = directions.update(params(), directions.init(params()), params())
    for name in ("up", "mix"):
        for layer in range(3):
            values = np.linalg.svd(np.asarray(updates[name][layer]).reshape(6, -1))[1]
            assert np.all((values > 0.5) & (values < 1.5))


@pytest.mark.parametrize("table", ["T->D", "C->D"])
def test_muon_takes_no_head_look_up_or_vector(table: str) -> None:
    axes = {**AXES, "position": parse(table)}
    gradients = {**params(), "position": params(1)["head"].T}
    directions = rule("muon").directions(axes, scales(AXES) | {"position": scales(AXES)["table"]})
    updates, _ = directions.update(gradients, directions.init(gradients), gradients)
    # Adam's first step is the sign.
    for name in ("table", "head", "gain", "bias", "position"):
        np.testing.assert_allclose(updates[name], np.sign(gradients[name]), atol=1e-4, err_msg=name)


def test_adamw_is_the_formula_of_its_paper() -> None:
    hyper = HYPER._replace(weight_decay=0.02)
    found = run("adamw", params(), hyper)
    for name, (text, _) in SHAPES.items():
        w = np.asarray(params()[name], np.float64)
        m, v = np.zeros_like(w), np.zeros_like(w)
        for step in (1, 2, 3):
            g = np.sin(w)
            m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g**2
            direction = m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.95**step)) + 1e-8)
            decay = 0.02 if text in ("D->F", "D->NH", "D->V") else 0.0
            w = w - 0.5 * (0.1 * direction + decay * w)
        np.testing.assert_allclose(found[name], w, rtol=1e-4, atol=1e-5, err_msg=name)


def test_adafactor_of_a_rank_one_gradient_is_its_sign() -> None:
    left, right = jnp.arange(1.0, 7.0), jnp.arange(-3.0, 5.0) + 0.5
    gradient = {"up": jnp.broadcast_to(left[:, None] * right[None, :], (3, 6, 8))}
    axes = {"up": AXES["up"]}
    directions = rule("adafactor").directions(axes, scales(axes))
    updates, _ = directions.update(gradient, directions.init(gradient), gradient)
    np.testing.assert_allclose(updates["up"], np.sign(gradient["up"]), rtol=1e-4)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_three_packed_runs_are_the_three_runs_one_after_another(optimizer: str) -> None:
    starts = [params(seed) for seed in range(3)]
    hypers = [
        optim.Hyper(*(jnp.float32(value) for value in HYPER))._replace(
            learning_rate=jnp.float32(rate), weight_decay=jnp.float32(rate / 4)
        )
        for rate in (0.01, 0.03, 0.1)
    ]
    trained = jax.jit(lambda start, hyper: run(optimizer, start, hyper, steps=2))
    packed = jax.vmap(trained)(
        jax.tree.map(lambda *values: jnp.stack(values), *starts),
        jax.tree.map(lambda *values: jnp.stack(values), *hypers),
    )
    for index, (start, hyper) in enumerate(zip(starts, hypers, strict=True)):
        alone = trained(start, hyper)
        for name in SHAPES:
            np.testing.assert_allclose(packed[name][index], alone[name], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_epsilon_of_each_weight_reaches_adam(optimizer: str) -> None:
    # At an epsilon far above the gradient, steps go as 1/epsilon: m d = 2 in vectors, m in tables.
    plain = scales(AXES)
    deep = {name: scale._replace(rate=1.0) for name, scale in plain.items()} | {
        name: plain[name]._replace(epsilon=0.5) for name in ("gain", "table")
    }
    before = params()
    once = run(optimizer, before, HYPER, steps=1, epsilon=1e4)
    half = run(optimizer, before, HYPER, steps=1, epsilon=1e4, scales=deep)
    for name, ratio in (("gain", 2.0), ("table", 2.0), ("bias", 1.0), ("head", 1.0)):
        moved = np.abs(np.asarray(half[name] - before[name])).sum()
        base = np.abs(np.asarray(once[name] - before[name])).sum()
        assert moved / base == pytest.approx(ratio, rel=0.05), name


def test_an_update_moves_each_role_by_its_own_rate() -> None:
    ones = jax.tree.map(jnp.ones_like, params())
    hyper = HYPER._replace(weight_decay=0.04)
    new = rule("muon").update(
        ones, ones, axes=AXES, scales=scales(AXES), multiplier=jnp.asarray(0.5), hyper=hyper
    )
    np.testing.assert_allclose(new["up"], 1 - 0.05 * (8 / 6) ** 0.5 - 0.02, rtol=1e-6)
    np.testing.assert_allclose(new["mix"], 1 - 0.05 * (10 / 6) ** 0.5 - 0.02, rtol=1e-6)
    np.testing.assert_allclose(new["head"], 1 - 0.005 - 0.02, rtol=1e-6)
    for name in ("table", "gain", "bias"):
        np.testing.assert_allclose(new[name], 1 - 0.005, rtol=1e-6)


def test_rates_of_a_parameterization_multiply_steps() -> None:
    ones = jax.tree.map(jnp.ones_like, params())
    new = rule("adamw").update(
        ones,
        ones,
        axes=AXES,
        scales=scales(AXES, name="mup", base=2),
        multiplier=jnp.asarray(1.0),
        hyper=HYPER,
    )
    np.testing.assert_allclose(new["up"], 1 - 0.1 / 3, rtol=1e-6)
    np.testing.assert_allclose(new["head"], 1 - 0.1, rtol=1e-6)


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(ValueError, match="shampoo"):
        rule("shampoo").directions(AXES, scales(AXES))


@pytest.mark.parametrize("limit", [0.5, 1e9])
def test_clipping_scales_to_the_limit_and_leaves_small_gradients_alone(limit: float) -> None:
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in params().values()))
    after = float(norm * optim.clip_scale(norm, limit=limit))
    assert after == pytest.approx(min(limit, float(norm)), rel=1e-5)


def test_a_bad_update_leaves_every_leaf_as_it_was() -> None:
    bad = jax.tree.map(lambda value: value * jnp.nan, params())
    kept = optim.select(jnp.asarray(False), bad, params())
    taken = optim.select(jnp.asarray(True), params(1), params())
    for name in SHAPES:
        np.testing.assert_array_equal(kept[name], params()[name])
        np.testing.assert_array_equal(taken[name], params(1)[name])
