"""Objectives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.train.objectives import cross_entropy, over_chunks
from scaling.train.sharding import batch_sharding, make_mesh


def batch(weights_BT: jax.Array) -> dict[str, jax.Array]:
    return {
        "targets_BT": jax.random.randint(jax.random.key(1), weights_BT.shape, 0, 64),
        "weights_BT": weights_BT,
    }


def test_causal_loss_equals_minus_log_probability_summed_by_hand() -> None:
    logits_BTV = jax.random.normal(jax.random.key(0), (2, 7, 64))
    weights_BT = jnp.ones((2, 7)).at[1, 3:].set(0)
    data = batch(weights_BT)
    loss = cross_entropy(logits_BTV, data)
    expected = 0.0
    for b in range(2):
        for t in range(7 if b == 0 else 3):
            probabilities = np.exp(np.asarray(logits_BTV[b, t], np.float64))
            expected -= np.log(probabilities[data["targets_BT"][b, t]] / probabilities.sum())
    assert float(loss.total) == pytest.approx(expected, rel=1e-5)
    assert float(loss.weight) == 10
    assert loss.weight_B.tolist() == [7, 3]


def test_uniform_logits_cost_the_logarithm_of_the_vocabulary() -> None:
    loss = cross_entropy(jnp.zeros((2, 7, 64)), batch(jnp.ones((2, 7))))
    assert float(loss.total / loss.weight) == pytest.approx(np.log(64))


@pytest.fixture(name="inputs")
def _inputs() -> tuple[dict[str, jax.Array], jax.Array, dict[str, jax.Array]]:
    keys = jax.random.split(jax.random.key(3), 3)
    table_VD = jax.random.normal(keys[0], (64, 24)) / 4
    weights_BT = (jax.random.uniform(keys[1], (8, 12)) > 0.3).astype(jnp.float32)
    return {"table_VD": table_VD}, jax.random.normal(keys[2], (8, 12, 24)), batch(weights_BT)


def head(weights: dict[str, jax.Array], x_BTD: jax.Array) -> jax.Array:
    table_VD = weights["table_VD"].astype(x_BTD.dtype)
    return jnp.einsum("btd,vd->btv", x_BTD, table_VD).astype(jnp.float32)


def whole(weights, x_BTD, data):
    # The embedding is tied: the table is looked up too, so that its gradient has two parts.
    x_BTD = x_BTD + weights["table_VD"].astype(x_BTD.dtype)[data["targets_BT"]]
    return OBJECTIVE(head(weights, x_BTD), data)


def in_chunks(weights, x_BTD, data, *, positions=3):
    x_BTD = x_BTD + weights["table_VD"].astype(x_BTD.dtype)[data["targets_BT"]]
    return over_chunks(
        OBJECTIVE, head, weights, x_BTD, data, chunk_tokens=positions * x_BTD.shape[0]
    )


OBJECTIVE = functools.partial(cross_entropy, z_loss=1e-2)


def mean(loss_of):
    def value(weights, x_BTD, data):
        loss = loss_of(weights, x_BTD, data)
        return loss.total / loss.weight

    return value


@pytest.mark.parametrize("positions", [1, 3, 12])
def test_a_loss_in_chunks_has_the_sums_and_gradients_of_the_whole(inputs, positions) -> None:
    weights, x_BTD, data = inputs
    chunked = functools.partial(in_chunks, positions=positions)
    for found, wanted in zip(chunked(*inputs), whole(*inputs), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
    take = [jax.jit(jax.value_and_grad(mean(f), argnums=(0, 1))) for f in (chunked, whole)]
    found, wanted = (jax.tree.leaves(f(weights, x_BTD, data)) for f in take)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_chunks_of_a_batch_on_eight_devices_give_the_gradients_of_one(inputs) -> None:
    weights, x_BTD, data = inputs
    mesh = make_mesh(data=4, fsdp=1, tensor=1, context=2)
    place = batch_sharding(mesh, windows=8, context=12)
    spread = jax.device_put((x_BTD, data), (place, dict.fromkeys(data, place)))
    take = jax.jit(jax.value_and_grad(mean(in_chunks), argnums=(0, 1)))
    found, wanted = jax.tree.leaves(take(weights, *spread)), jax.tree.leaves(take(*inputs))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_packed_runs_in_chunks_have_the_gradients_of_each_alone(inputs) -> None:
    weights, x_BTD, data = inputs
    runs = {"table_VD": jnp.stack([weights["table_VD"], 2 * weights["table_VD"]])}
    take = jax.grad(mean(in_chunks), argnums=(0, 1))
    together = jax.vmap(take, in_axes=(0, None, None))(runs, x_BTD, data)
    for index in range(2):
        alone = take({"table_VD": runs["table_VD"][index]}, x_BTD, data)
        for one, other in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(one[index], other, rtol=1e-5, atol=1e-6)


def test_half_precision_features_in_chunks_sum_their_gradients_in_float32(inputs) -> None:
    weights, x_BTD, data = inputs
    x_BTD = x_BTD.astype(jnp.bfloat16)
    take = [jax.grad(mean(f), argnums=(0, 1)) for f in (in_chunks, whole)]
    (found, found_x), (wanted, wanted_x) = (f(weights, x_BTD, data) for f in take)
    assert found["table_VD"].dtype == jnp.float32
    assert found_x.dtype == jnp.bfloat16
    scale = float(jnp.abs(wanted["table_VD"]).max())
    np.testing.assert_allclose(found["table_VD"], wanted["table_VD"], atol=0.01 * scale)
    found_x, wanted_x = (x.astype(jnp.float32) for x in (found_x, wanted_x))
    np.testing.assert_allclose(found_x, wanted_x, atol=0.01 * float(jnp.abs(wanted_x).max()))


def test_chunks_need_far_less_memory_than_the_logits() -> None:
    table_VD, x_BTD = jnp.zeros((4096, 16)), jnp.zeros((2, 512, 16))
    data = batch(jnp.ones((2, 512)))
    logits_bytes = 4 * 2 * 512 * 4096
    temporary = {}
    for name, loss_of in (("whole", whole), ("chunks", functools.partial(in_chunks, positions=16))):
        compiled = jax.jit(jax.grad(mean(loss_of), argnums=(0, 1))).lower(
            {"table_VD": table_VD}, x_BTD, data
        )
        temporary[name] = compiled.compile().memory_analysis().temp_size_in_bytes
    assert temporary["whole"] >= logits_bytes
    assert temporary["chunks"] < logits_bytes / 8, temporary


def test_chunks_that_do_not_divide_are_refused_with_the_numbers(inputs) -> None:
    with pytest.raises(ValueError, match=r"chunks of 40 tokens .* 8 windows of 12 tokens; use 8"):
        in_chunks(*inputs, positions=5)
