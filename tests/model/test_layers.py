"""Masks, grouped heads and vectors, by second routes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from scaling.model.layers import (
    Attend,
    attention,
    attention_mask,
    bias,
    contract,
    gain,
    layer_norm,
    rows_of_batch,
    weight,
)
from scaling.model.parameterization import standard

RULES = standard({"D": 24, "F": 40, "N": 6, "K": 2, "H": 10, "L": 3, "V": 64, "T": 9, "C": 3})
B, T = 2, 7
SEGMENTS_BT = np.array([[0, 0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1, 2]])
PREFIX_BT = np.array([[1, 1, 0, 0, 1, 0, 0], [0, 0, 1, 1, 1, 0, 1]], bool)


@pytest.mark.parametrize("prefixed", [False, True])
@pytest.mark.parametrize("window", [None, 1, 3])
@pytest.mark.parametrize("causal", [False, True])
def test_the_mask_equals_its_rule_position_by_position(
    causal: bool, window: int | None, prefixed: bool
) -> None:
    mask_BTS = attention_mask(
        jnp.asarray(SEGMENTS_BT),
        causal=causal,
        window_tokens=window,
        prefix_BT=jnp.asarray(PREFIX_BT) if prefixed else None,
    )
    for b, t, s in np.ndindex(B, T, T):
        together = SEGMENTS_BT[b, t] == SEGMENTS_BT[b, s]
        visible = not causal or s <= t or (prefixed and PREFIX_BT[b, s])
        near = window is None or abs(t - s) <= window - 1
        assert mask_BTS[b, t, s] == (together and visible and near), (b, t, s)


def test_grouped_heads_equal_repeated_keys_and_values() -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    q_BTNH = jax.random.normal(keys[0], (B, T, 6, 10))
    k_BSKH, v_BSKH = (jax.random.normal(key, (B, T, 2, 10)) for key in keys[1:])
    mask_BTS = attention_mask(jnp.asarray(SEGMENTS_BT), causal=True)
    # Compiled as one: each product alone would be compiled by itself.
    attend = jax.jit(attention, static_argnames=("scale", "kernel"))
    grouped = attend(q_BTNH, k_BSKH, v_BSKH, mask_BTS, scale=0.3)
    k_BSNH, v_BSNH = (x.repeat(3, axis=2) for x in (k_BSKH, v_BSKH))
    repeated = attend(q_BTNH, k_BSNH, v_BSNH, mask_BTS, scale=0.3)
    np.testing.assert_allclose(grouped, repeated, atol=1e-5)
    reference = jax.jit(jax.nn.dot_product_attention, static_argnames=("scale", "implementation"))
    expected = reference(
        q_BTNH, k_BSKH, v_BSKH, mask=mask_BTS[:, None], scale=0.3, implementation="xla"
    )
    np.testing.assert_allclose(grouped, expected, atol=1e-5)


def test_gains_start_at_one_and_biases_at_zero() -> None:
    np.testing.assert_array_equal(gain("->KH", RULES)[...], np.ones((2, 10)))
    np.testing.assert_array_equal(bias("->F", RULES)[...], np.zeros(40))


def test_contract_adds_the_bias_to_every_position() -> None:
    x_BTD = jax.random.normal(jax.random.key(1), (B, T, 24))
    kernel, added = weight("D->KH", RULES, jax.random.key(2)), bias("->KH", RULES)
    added.set_value(jax.random.normal(jax.random.key(3), (2, 10)))
    plain, shifted = contract(x_BTD, kernel), contract(x_BTD, kernel, added)
    expected = np.broadcast_to(added[...], (B, T, 2, 10))
    np.testing.assert_allclose(shifted - plain, expected, atol=1e-5)


def test_layer_norm_gives_no_mean_and_unit_variance() -> None:
    x_BTD = 3 + 5 * jax.random.normal(jax.random.key(4), (B, T, 24))
    normed = np.asarray(layer_norm(x_BTD, gain("->D", RULES), bias("->D", RULES), epsilon=1e-6))
    np.testing.assert_allclose(normed.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(normed.var(-1), 1, rtol=1e-4)


def test_packed_runs_become_rows_of_the_batch_of_a_kernel_that_is_called_once() -> None:
    shapes: list[tuple[int, ...]] = []

    def kernel(q: Array, k: Array, v: Array, mask: Array) -> Array:
        shapes.append(q.shape)
        return attention(q, k, v, mask, scale=0.4)

    runs = 3
    q_EBTNH, k_EBSKH, v_EBSKH, weights = (
        jax.random.normal(key, (runs, B, T, heads, 4))
        for key, heads in zip(jax.random.split(jax.random.key(0), 4), (4, 2, 2, 4), strict=True)
    )
    mask_EBTS = jnp.tril(jnp.ones((runs, B, T, T), bool)).at[1, 0, 3, :2].set(False)

    def loss(attend: Attend) -> Callable[..., Array]:
        return lambda q, k, v, mask, weight: jnp.sum(attend(q, k, v, mask) * weight)

    for mask, axis in ((mask_EBTS, 0), (mask_EBTS[1], None)):
        axes = (0, 0, 0, axis, 0)
        plain = jax.vmap(jax.value_and_grad(loss(kernel), (0, 1, 2)), axes)
        folded = jax.vmap(jax.value_and_grad(loss(rows_of_batch(kernel)), (0, 1, 2)), axes)
        expected = plain(q_EBTNH, k_EBSKH, v_EBSKH, mask, weights)
        shapes.clear()
        found = jax.jit(folded)(q_EBTNH, k_EBSKH, v_EBSKH, mask, weights)
        assert (runs * B, T, 4, 4) in shapes
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
                     found, expected)  # fmt: skip
