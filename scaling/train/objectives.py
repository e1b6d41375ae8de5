"""Objectives: (logits, batch) to summed loss and weight, so that batches of any weight can be
averaged.

Causal, masked, prefix and span differ in the tokens, targets and weights of their batches
(`scaling.data.corruption`); the loss of all four is the same.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

Batch = Mapping[str, Array]
Weights = TypeVar("Weights")


class Loss(NamedTuple):
    """Sums over a batch; their ratio is the mean loss in nats per token."""

    total: Array
    weight: Array
    total_B: Array
    weight_B: Array


Objective = Callable[[Array, Batch], Loss]


def cross_entropy(logits_BTV: Array, batch: Batch, *, z_loss: float = 0.0) -> Loss:
    """-log softmax(logits)[targets_BT] + z_loss log(Z)^2, weighted by weights_BT, in float32.

    Z is the sum of exp(logits). The second term keeps log(Z) near 0 (Chowdhery et al. 2022, PaLM,
    section 5: 1e-4); it belongs to training, a loss that is reported leaves it out.
    """
    logits_BTV = logits_BTV.astype(jnp.float32)
    normaliser_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
    targets_BT1 = batch["targets_BT"][..., None]
    chosen_BT = jnp.take_along_axis(logits_BTV, targets_BT1, axis=-1)[..., 0]
    loss_BT = normaliser_BT - chosen_BT
    if z_loss:
        loss_BT = loss_BT + z_loss * jnp.square(normaliser_BT)
    weights_BT = batch["weights_BT"]
    total_B = jnp.sum(loss_BT * weights_BT, axis=1)
    weight_B = jnp.sum(weights_BT, axis=1)
    return Loss(total_B.sum(), weight_B.sum(), total_B, weight_B)


def over_chunks(
    objective: Objective,
    head: Callable[[Weights, Array], Array],
    weights: Weights,
    x_BTD: Array,
    batch: Batch,
    *,
    chunk_tokens: int,
) -> Loss:
    """`objective(head(weights, x_BTD), batch)`, with the logits of `chunk_tokens` tokens at a time.

    A chunk has as many positions of every window. Only `total` has a gradient, with respect to
    `weights` and `x_BTD`. It is taken chunk by chunk together with the loss, so that logits are
    neither kept nor computed again; sums over chunks are float32. The objective must be a sum over
    positions.

    Raises:
      ValueError: a chunk is not a whole number of positions of each window, or the positions of a
        window are not a whole number of chunks.
    """
    windows, context, _ = x_BTD.shape
    positions = chunk_tokens // windows
    if positions * windows != chunk_tokens or positions < 1 or context % positions:
        raise ValueError(
            f"chunks of {chunk_tokens} tokens do not divide {windows} windows of {context} tokens; "
            f"use {windows} times a divisor of {context}"
        )

    def chunked(array: Array) -> Array:
        # Every so-many-th position, so that a window split over devices is cut within each.
        cut = array.reshape(windows, positions, context // positions, *array.shape[2:])
        return jnp.moveaxis(cut, 2, 0)

    def of_chunk(weights: Weights, x_BTD: Array, batch: Batch) -> Loss:
        return objective(head(weights, x_BTD), batch)

    def forward(weights: Weights, x_BTD: Array, batch: Batch) -> Loss:
        chunks = jax.tree.map(chunked, (x_BTD, dict(batch)))

        def add(sums: Loss, chunk: tuple[Array, Batch]) -> tuple[Loss, None]:
            return jax.tree.map(jnp.add, sums, of_chunk(weights, *chunk)), None

        return jax.lax.scan(add, _no_loss(windows), chunks)[0]

    def forward_and_gradients(
        weights: Weights, x_BTD: Array, batch: Batch
    ) -> tuple[Loss, tuple[Any, Array]]:
        chunks = jax.tree.map(chunked, (x_BTD, dict(batch)))

        def add(
            sums: tuple[Loss, Any], chunk: tuple[Array, Batch]
        ) -> tuple[tuple[Loss, Any], Array]:
            def total(weights: Weights, x_BTD: Array) -> tuple[Array, Loss]:
                loss = of_chunk(weights, x_BTD, chunk[1])
                return loss.total, loss

            take = jax.grad(total, argnums=(0, 1), has_aux=True)
            (of_weights, of_x_BTD), loss = take(weights, chunk[0])
            return jax.tree.map(jnp.add, sums, (loss, of_weights)), of_x_BTD

        zeros = jax.tree.map(lambda weight: jnp.zeros(weight.shape, jnp.float32), weights)
        (loss, of_weights), cut = jax.lax.scan(add, (_no_loss(windows), zeros), chunks)
        return loss, (of_weights, jnp.moveaxis(cut, 0, 2).reshape(x_BTD.shape))

    def backward(gradients: tuple[Any, Array], cotangent: Loss) -> tuple[Any, Array, None]:
        scaled = jax.tree.map(lambda gradient: gradient * cotangent.total, gradients)
        of_weights, of_x_BTD = jax.tree.map(
            lambda gradient, value: gradient.astype(value.dtype), scaled, (weights, x_BTD)
        )
        return of_weights, of_x_BTD, None

    loss = jax.custom_vjp(forward)
    loss.defvjp(forward_and_gradients, backward)
    return loss(weights, x_BTD, batch)


def _no_loss(windows: int) -> Loss:
    zero, zero_B = jnp.zeros(()), jnp.zeros(windows)
    return Loss(zero, zero, zero_B, zero_B)
