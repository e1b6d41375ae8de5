"""Objectives: (logits, batch) to summed loss and weight, so that batches of any weight can be
averaged."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Loss(NamedTuple):
    """Sums over a batch; their ratio is the mean loss in nats per token."""

    total: Array
    weight: Array
    total_B: Array
    weight_B: Array


def causal(logits_BTV: Array, batch: Mapping[str, Array]) -> Loss:
    """Cross-entropy of the next token: -log softmax(logits)[targets_BT], weighted by weights_BT."""
    normaliser_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
    targets_BT1 = batch["targets_BT"][..., None]
    chosen_BT = jnp.take_along_axis(logits_BTV, targets_BT1, axis=-1)[..., 0]
    weights_BT = batch["weights_BT"]
    total_B = jnp.sum((normaliser_BT - chosen_BT) * weights_BT, axis=1)
    weight_B = jnp.sum(weights_BT, axis=1)
    return Loss(total_B.sum(), weight_B.sum(), total_B, weight_B)
