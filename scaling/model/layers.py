"""The parts of a transformer, each weight declared once by its letters."""

import math
from collections.abc import Callable, Mapping
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from scaling.axes import fan_in, parse, role, shape

NORM_EPSILON = 1e-6
LOOKUP_DEVIATION = 0.02

Module = TypeVar("Module", bound=nnx.Module)


def weight(declaration: str, lengths: Mapping[str, int], key: Array | None = None) -> nnx.Param:
    """Declare and initialise a weight: `weight("D->F", lengths, key)`.

    Matrices are normal with standard deviation 1/sqrt(fan-in), look-ups (`"V->D"`) 0.02, vectors
    one (and need no key). The declaration stays with the array as its metadata `axes`.
    """
    axes = parse(declaration)
    if role(axes) == "vector":
        return nnx.Param(jnp.ones(shape(axes, lengths), jnp.float32), axes=declaration)
    if key is None:
        raise ValueError(f"weight {declaration!r} is random; pass a key")
    deviation = LOOKUP_DEVIATION if role(axes) == "input" else fan_in(axes, lengths) ** -0.5
    value = deviation * jax.random.normal(key, shape(axes, lengths), jnp.float32)
    return nnx.Param(value, axes=declaration)


def stack(make: Callable[[Array], Module], keys: Array) -> Module:
    """One module whose every weight has a leading axis L: a slice per key, made by `make(key)`.

    The letter L is kept as the metadata `stacked`, beside the declaration of a single layer.
    """
    graph, _ = nnx.split(nnx.eval_shape(make, keys[0]))
    state = jax.vmap(lambda key: nnx.split(make(key))[1])(keys)
    for _, parameter in nnx.to_flat_state(state):
        parameter.set_metadata(stacked="L")
    return nnx.merge(graph, state)


def contract(x: Array, kernel: nnx.Param) -> Array:
    """Multiply the trailing axes of `x` with the kernel's inputs: x_...D with "D->NH" gives
    x_...NH.

    Leading axes are flattened into one first: a plain matrix product, and so its gradient, is what
    every backend has its fastest kernel for.
    """
    axes = parse(kernel.axes)
    contracted = len(axes.inputs)
    leading = x.shape[: x.ndim - contracted]
    inputs = math.prod(x.shape[x.ndim - contracted :])
    product = x.reshape(-1, inputs) @ kernel[...].astype(x.dtype).reshape(inputs, -1)
    return product.reshape(*leading, *kernel.shape[contracted:])


def rms_norm(x: Array, gain: nnx.Param) -> Array:
    """x / rms(x) * gain over the last axis, in float32 (Zhang and Sennrich 2019, eq. 4)."""
    wide = x.astype(jnp.float32)
    scale = jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + NORM_EPSILON)
    gains = jnp.expand_dims(gain[...].astype(x.dtype), tuple(range(x.ndim - 1)))
    return (wide * scale).astype(x.dtype) * gains


def rotary(x_BTNH: Array, positions_BT: Array, *, theta: float) -> Array:
    """Rotate pairs (i, i + H/2) of each head by position * theta^(-2i/H) (Su et al. 2021, section
    3.2.2).

    Departure from the paper: halves are paired instead of neighbours, as in the Llama and Qwen
    weights.
    """
    half = x_BTNH.shape[-1] // 2
    frequencies = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions_BT[:, :, None, None].astype(jnp.float32) * frequencies[None, None, None, :]
    cosine, sine = jnp.cos(angles).astype(x_BTNH.dtype), jnp.sin(angles).astype(x_BTNH.dtype)
    first, second = x_BTNH[..., :half], x_BTNH[..., half:]
    return jnp.concatenate(
        [first * cosine - second * sine, second * cosine + first * sine], axis=-1
    )


def attention(q_BTNH: Array, k_BSNH: Array, v_BSNH: Array, mask_BTS: Array) -> Array:
    """softmax(q k / sqrt(H)) v where `mask_BTS` is true (Vaswani et al. 2017, eq. 1); softmax in
    float32.

    Heads are moved next to the batch so that scores and values are contiguous batched products.
    """
    q_BNTH, k_BNSH, v_BNSH = (jnp.swapaxes(x, 1, 2) for x in (q_BTNH, k_BSNH, v_BSNH))
    scores_BNTS = q_BNTH @ jnp.swapaxes(k_BNSH, 2, 3) / math.sqrt(q_BTNH.shape[-1])
    scores_BNTS = jnp.where(mask_BTS[:, None], scores_BNTS.astype(jnp.float32), -1e30)
    weights_BNTS = jax.nn.softmax(scores_BNTS, axis=-1).astype(v_BSNH.dtype)
    return jnp.swapaxes(weights_BNTS @ v_BNSH, 1, 2)
