"""The parts of a transformer, each weight declared once by its letters."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from scaling.architecture import Architecture
from scaling.axes import parse, role, shape
from scaling.model.parameterization import Parameterization

Module = TypeVar("Module", bound=nnx.Module)
Kernel = Literal["xla", "cudnn", "cudnn_packed"]
"""`cudnn_packed` is for models under `vmap`."""
Attend = Callable[[Array, Array, Array, Array], Array]
"""Of queries, keys, values and the mask."""


def weight(declaration: str, rules: Parameterization, key: Array) -> nnx.Param:
    """Declare a random matrix or look-up: `weight("D->F", rules, key)`, normal with the deviation
    that `rules` give to its role. The declaration stays with the array as its metadata `axes`."""
    axes = parse(declaration)
    if role(axes) == "vector":
        raise ValueError(f"weight {declaration!r} is a vector; use gain or bias")
    deviation = rules.scale(axes).deviation
    value = deviation * jax.random.normal(key, shape(axes, rules.lengths), jnp.float32)
    return nnx.Param(value, axes=declaration)


def gain(declaration: str, rules: Parameterization) -> nnx.Param:
    """Declare a vector of ones, to multiply with."""
    return nnx.Param(jnp.ones(shape(parse(declaration), rules.lengths)), axes=declaration)


def bias(declaration: str, rules: Parameterization) -> nnx.Param:
    """Declare a vector of zeros, to add."""
    return nnx.Param(jnp.zeros(shape(parse(declaration), rules.lengths)), axes=declaration)


def stack(make: Callable[[Array], Module], keys: Array) -> Module:
    """One module whose every weight has a leading axis L: a slice per key, made by `make(key)`.

    The letter L is kept as the metadata `stacked`, beside the declaration of a single layer.
    """
    graph, _ = nnx.split(nnx.eval_shape(make, keys[0]))
    state = jax.vmap(lambda key: nnx.split(make(key))[1])(keys)
    for _, parameter in nnx.to_flat_state(state):
        parameter.set_metadata(stacked="L")
    return nnx.merge(graph, state)


def contract(x: Array, kernel: nnx.Param, added: nnx.Param | None = None) -> Array:
    """Multiply the trailing axes of `x` with the kernel's inputs, and add a bias if there is one:
    x_...D with "D->NH" gives x_...NH.

    Leading axes are flattened into one first: a plain matrix product, and so its gradient, is what
    every backend has its fastest kernel for.
    """
    axes = parse(kernel.axes)
    contracted = len(axes.inputs)
    leading = x.shape[: x.ndim - contracted]
    inputs = math.prod(x.shape[x.ndim - contracted :])
    product = x.reshape(-1, inputs) @ kernel[...].astype(x.dtype).reshape(inputs, -1)
    if added is not None:
        product = product + added[...].astype(x.dtype).reshape(1, -1)
    return product.reshape(*leading, *kernel.shape[contracted:])


def rms_norm(x: Array, gains: nnx.Param, *, epsilon: float) -> Array:
    """x / rms(x) * gains over the last axis, in float32 (Zhang and Sennrich 2019, eq. 4)."""
    wide = x.astype(jnp.float32)
    scale = jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + epsilon)
    return (wide * scale).astype(x.dtype) * _trailing(gains, x)


def layer_norm(x: Array, gains: nnx.Param, biases: nnx.Param, *, epsilon: float) -> Array:
    """(x - mean) / deviation * gains + biases over the last axis, in float32 (Ba et al. 2016, eq.
    4)."""
    wide = x.astype(jnp.float32)
    centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
    scale = jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + epsilon)
    return (centred * scale).astype(x.dtype) * _trailing(gains, x) + _trailing(biases, x)


def _trailing(vector: nnx.Param, x: Array) -> Array:
    return jnp.expand_dims(vector[...].astype(x.dtype), tuple(range(x.ndim - 1)))


class Norm(nnx.Module):
    """The architecture's norm over D."""

    def __init__(self, architecture: Architecture, rules: Parameterization) -> None:
        self.epsilon = architecture.norm_epsilon
        self.gain = gain("->D", rules)
        self.bias = bias("->D", rules) if architecture.norm == "layer" else None

    def __call__(self, x_BTD: Array) -> Array:
        if self.bias is None:
            return rms_norm(x_BTD, self.gain, epsilon=self.epsilon)
        return layer_norm(x_BTD, self.gain, self.bias, epsilon=self.epsilon)


class Rotation(NamedTuple):
    """Cosines and sines of a batch's positions, the same for every layer."""

    cosine_BTH: Array
    sine_BTH: Array


def rotation(positions_BT: Array, *, head_width: int, theta: float, dtype: jnp.dtype) -> Rotation:
    """Angles position * theta^(-2i/H) of the pairs i of a head (Su et al. 2021, section 3.2.2)."""
    half = head_width // 2
    frequencies = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles_BTH = positions_BT[:, :, None].astype(jnp.float32) * frequencies[None, None, :]
    return Rotation(jnp.cos(angles_BTH).astype(dtype), jnp.sin(angles_BTH).astype(dtype))


def rotate(x_BTNH: Array, by: Rotation) -> Array:
    """Rotate pairs (i, i + H/2) of each head.

    Departure from Su et al.: halves are paired instead of neighbours, as in the Llama and Qwen
    weights.
    """
    half = x_BTNH.shape[-1] // 2
    cosine, sine = by.cosine_BTH[:, :, None], by.sine_BTH[:, :, None]
    first, second = x_BTNH[..., :half], x_BTNH[..., half:]
    return jnp.concatenate(
        [first * cosine - second * sine, second * cosine + first * sine], axis=-1
    )


def attention_mask(
    segments_BT: Array,
    *,
    causal: bool,
    window_tokens: int | None = None,
    prefix_BT: Array | None = None,
) -> Array:
    """mask_BTS: which keys S each query T may attend to.

    Those of its own document, not later ones if `causal` (but those of the prefix are open to all),
    and none that is `window_tokens` or more away.
    """
    length = segments_BT.shape[1]
    mask_BTS = segments_BT[:, :, None] == segments_BT[:, None, :]
    distance_TS = jnp.arange(length)[:, None] - jnp.arange(length)[None, :]
    if causal:
        open_BTS = (distance_TS >= 0)[None]
        if prefix_BT is not None:
            open_BTS = open_BTS | prefix_BT[:, None, :]
        mask_BTS = mask_BTS & open_BTS
    if window_tokens is not None:
        mask_BTS = mask_BTS & (jnp.abs(distance_TS) < window_tokens)[None]
    return mask_BTS


def attention(
    q_BTNH: Array,
    k_BSKH: Array,
    v_BSKH: Array,
    mask_BTS: Array,
    *,
    scale: float,
    kernel: Kernel = "xla",
) -> Array:
    """softmax(scale q k) v where `mask_BTS` is true (Vaswani et al. 2017, eq. 1); softmax in
    float32.

    Query head n reads key/value head n // G, G = N / K (Ainslie et al. 2023). Under `xla` heads are
    moved next to the batch, and the G queries of one head beside each other, so that scores and
    values are contiguous batched products; `cudnn` is its fused kernel, on NVIDIA devices alone.
    """
    if kernel != "xla":
        fused: Attend = functools.partial(_fused, scale=scale)
        attend = fused if kernel == "cudnn" else rows_of_batch(fused)
        return attend(q_BTNH, k_BSKH, v_BSKH, mask_BTS)
    B, T, N, H = q_BTNH.shape
    K = k_BSKH.shape[2]
    G = N // K
    q_BKTGH = (q_BTNH * scale).reshape(B, T, K, G, H).transpose(0, 2, 1, 3, 4)
    k_BKSH, v_BKSH = k_BSKH.transpose(0, 2, 1, 3), v_BSKH.transpose(0, 2, 1, 3)
    mixed_BKMH = _attend(q_BKTGH.reshape(B, K, T * G, H), k_BKSH, v_BKSH, mask_BTS)
    return mixed_BKMH.reshape(B, K, T, G, H).transpose(0, 2, 1, 3, 4).reshape(B, T, N, H)


def _fused(q_BTNH: Array, k_BSKH: Array, v_BSKH: Array, mask_BTS: Array, *, scale: float) -> Array:
    mask = mask_BTS[:, None]
    return jax.nn.dot_product_attention(
        q_BTNH, k_BSKH, v_BSKH, mask=mask, scale=scale, implementation="cudnn"
    )


def rows_of_batch(attend: Attend) -> Attend:
    """The same function of q, k, v and mask, under `vmap` too: runs become rows of the batch B.

    JAX's own rule for the fused kernel has no place for a mask that all heads share. The gradient
    runs `attend` once more, since what it keeps for it has no shape of its own to be folded.
    """

    @jax.custom_vjp
    def folded(q: Array, k: Array, v: Array, mask: Array) -> Array:
        return _folded(attend)(q, k, v, mask)

    def forward(q: Array, k: Array, v: Array, mask: Array) -> tuple[Array, tuple[Array, ...]]:
        return folded(q, k, v, mask), (q, k, v, mask)

    def gradient(q: Array, k: Array, v: Array, mask: Array, by_out: Array) -> tuple[Array, ...]:
        return jax.vjp(lambda q, k, v: attend(q, k, v, mask), q, k, v)[1](by_out)

    def backward(kept: tuple[Array, ...], by_out: Array) -> tuple[Array | None, ...]:
        return *_folded(gradient)(*kept, by_out), None

    folded.defvjp(forward, backward)
    return folded


def _folded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of arrays [B, ...] to arrays [B, ...] that is called once under `vmap`, with
    [E x B, ...]."""
    called = jax.custom_batching.custom_vmap(function)

    @called.def_vmap
    def fold(runs: int, mapped: Sequence[bool], *arrays: Array) -> tuple[Any, Any]:
        each = [
            x if has else jnp.broadcast_to(x, (runs, *x.shape))
            for x, has in zip(arrays, mapped, strict=True)
        ]
        out = called(*(x.reshape(-1, *x.shape[2:]) for x in each))
        out = jax.tree.map(lambda x: x.reshape(runs, -1, *x.shape[1:]), out)
        return out, jax.tree.map(lambda _: True, out)

    return called


class _Attended(NamedTuple):
    """What the gradient of attention needs: its arguments, what came out, and the softmax before
    and after its sum, `exp_BKMS` / `sum_BKM1`."""

    q_BKMH: Array
    k_BKSH: Array
    v_BKSH: Array
    out_BKMH: Array
    exp_BKMS: Array
    sum_BKM1: Array


@jax.custom_vjp
def _attend(q_BKMH: Array, k_BKSH: Array, v_BKSH: Array, mask_BTS: Array) -> Array:
    """softmax(q k) v for M = T x G queries beside each other, T the slower: a window that is split
    over devices stays so.

    The gradient is written out: the row sums of softmax's derivative are those of `out` times its
    cotangent (Dao et al. 2022, appendix B.2), so that nothing of shape M x S is summed again.
    """
    return _attend_forward(q_BKMH, k_BKSH, v_BKSH, mask_BTS)[0]


def _attend_forward(
    q_BKMH: Array, k_BKSH: Array, v_BKSH: Array, mask_BTS: Array
) -> tuple[Array, _Attended]:
    B, T, S = mask_BTS.shape
    scores = (q_BKMH @ k_BKSH.swapaxes(-1, -2)).astype(jnp.float32)
    scores_BKTGS = jnp.where(
        mask_BTS[:, None, :, None], scores.reshape(B, -1, T, scores.shape[2] // T, S), -1e30
    )
    scores_BKMS = scores_BKTGS.reshape(scores.shape)
    exp_BKMS = jnp.exp(scores_BKMS - jnp.max(scores_BKMS, axis=-1, keepdims=True))
    sum_BKM1 = jnp.sum(exp_BKMS, axis=-1, keepdims=True)
    exp_BKMS = exp_BKMS.astype(v_BKSH.dtype)
    out_BKMH = ((exp_BKMS @ v_BKSH) / sum_BKM1).astype(v_BKSH.dtype)
    return out_BKMH, _Attended(q_BKMH, k_BKSH, v_BKSH, out_BKMH, exp_BKMS, sum_BKM1)


def _attend_backward(kept: _Attended, by_out_BKMH: Array) -> tuple[Array, Array, Array, None]:
    scaled_BKMH = (by_out_BKMH / kept.sum_BKM1).astype(by_out_BKMH.dtype)
    by_v_BKSH = kept.exp_BKMS.swapaxes(-1, -2) @ scaled_BKMH
    rows_BKM1 = jnp.sum(scaled_BKMH * kept.out_BKMH, axis=-1, keepdims=True)
    by_scores_BKMS = kept.exp_BKMS * (scaled_BKMH @ kept.v_BKSH.swapaxes(-1, -2) - rows_BKM1)
    by_q_BKMH = by_scores_BKMS @ kept.k_BKSH
    by_k_BKSH = by_scores_BKMS.swapaxes(-1, -2) @ kept.q_BKMH
    return by_q_BKMH, by_k_BKSH, by_v_BKSH, None


_attend.defvjp(_attend_forward, _attend_backward)


def squared_relu(x: Array) -> Array:
    """max(x, 0)^2 (So et al. 2021)."""
    return jnp.square(jax.nn.relu(x))


def gelu(x: Array) -> Array:
    """x Phi(x), Phi the normal distribution function (Hendrycks and Gimpel 2016)."""
    return jax.nn.gelu(x, approximate=False)


def gelu_tanh(x: Array) -> Array:
    """GELU with its tanh approximation, as in GPT-2."""
    return jax.nn.gelu(x, approximate=True)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "swiglu": jax.nn.silu,
    "squared_relu": squared_relu,
}
