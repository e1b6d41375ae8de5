"""Schedules and update rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.axes import parse
from scaling.train import optim

HYPER = optim.Hyper(
    matrix_rate=0.1,
    vector_rate=0.01,
    weight_decay=0.0,
    clip_norm=1.0,
    warmup_tokens=100.0,
    cooldown_fraction=0.25,
    total_tokens=1000.0,
)
AXES = {name: parse(text) for name, text in {"up": "D->F", "mix": "D->NH", "table": "V->D"}.items()}
LENGTHS = {"D": 6, "F": 8, "N": 2, "H": 5, "V": 9, "L": 3}


def params() -> dict[str, jax.Array]:
    keys = jax.random.split(jax.random.key(0), 3)
    return {
        "up": jax.random.normal(keys[0], (3, 6, 8)),
        "mix": jax.random.normal(keys[1], (3, 6, 2, 5)),
        "table": jax.random.normal(keys[2], (9, 6)),
    }


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [(0, 0), (50, 0.5), (100, 1), (700, 1), (875, 0.5), (1000, 0), (2000, 0)],
)
def test_the_rate_rises_stays_and_falls(tokens: float, expected: float) -> None:
    assert optim.warmup_stable_decay(jnp.asarray(float(tokens)), HYPER) == pytest.approx(expected)


def test_budgets_of_one_size_share_their_trunk() -> None:
    longer = HYPER._replace(total_tokens=4000.0)
    for tokens in np.linspace(0, 750, 16):
        at = jnp.asarray(tokens)
        assert optim.warmup_stable_decay(at, HYPER) == optim.warmup_stable_decay(at, longer)


def test_muon_orthogonalises_each_layer_of_a_stack_as_its_own_matrix() -> None:
    gradients = params()
    rule = optim.directions(AXES)
    stacked, _ = rule.update(gradients, rule.init(params()), params())
    for name, rows in (("up", 6), ("mix", 6)):
        for layer in range(3):
            alone = {name: gradients[name][layer : layer + 1]}
            single = optim.directions({name: AXES[name]})
            expected, _ = single.update(alone, single.init(alone), alone)
            np.testing.assert_allclose(stacked[name][layer], expected[name][0], atol=1e-5)
            values = np.linalg.svd(np.asarray(stacked[name][layer]).reshape(rows, -1))[1]
            assert np.all((values > 0.5) & (values < 1.5))


def test_embeddings_get_adam_whose_first_step_is_the_sign() -> None:
    rule = optim.directions(AXES)
    updates, _ = rule.update(params(), rule.init(params()), params())
    np.testing.assert_allclose(updates["table"], np.sign(params()["table"]), atol=1e-4)


def test_an_update_moves_each_role_by_its_own_rate_and_decays_matrices_alone() -> None:
    ones = jax.tree.map(jnp.ones_like, params())
    hyper = HYPER._replace(weight_decay=0.5)
    new = optim.update(
        ones, ones, axes=AXES, lengths=LENGTHS, multiplier=jnp.asarray(0.5), hyper=hyper
    )
    np.testing.assert_allclose(new["up"], 1 - 0.05 * ((8 / 6) ** 0.5 + 0.5), rtol=1e-6)
    np.testing.assert_allclose(new["mix"], 1 - 0.05 * ((10 / 6) ** 0.5 + 0.5), rtol=1e-6)
    np.testing.assert_allclose(new["table"], 1 - 0.005, rtol=1e-6)


@pytest.mark.parametrize("limit", [0.5, 1e9])
def test_clipping_scales_to_the_limit_and_leaves_small_gradients_alone(limit: float) -> None:
    gradients = params()
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in gradients.values()))
    clipped = optim.clip(gradients, norm=norm, limit=limit)
    after = np.sqrt(sum(float(jnp.sum(jnp.square(g))) for g in clipped.values()))
    assert after == pytest.approx(min(limit, float(norm)), rel=1e-5)
