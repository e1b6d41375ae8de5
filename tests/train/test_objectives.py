"""Objectives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.train.objectives import cross_entropy


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
