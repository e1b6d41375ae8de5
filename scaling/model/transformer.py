"""Decoder and Encoder: the same blocks under two masks."""

from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from scaling.architecture import Architecture
from scaling.model.layers import (
    ACTIVATIONS,
    Kernel,
    Norm,
    Rotation,
    attention,
    attention_mask,
    bias,
    contract,
    gain,
    rms_norm,
    rotate,
    rotation,
    stack,
    weight,
)
from scaling.model.parameterization import Parameterization
from scaling.sizes import Size

REMAT = {
    "full": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
"""What the backward pass computes again: `full` a layer, `dots` all but its dense products."""


class Attention(nnx.Module):
    """Multi-head attention: grouped keys and values, norms of queries and keys if so built."""

    def __init__(self, kind: Architecture, rules: Parameterization, *, key: Array) -> None:
        keys = jax.random.split(key, 4)
        self.query = weight("D->NH", rules, keys[0])
        self.key = weight("D->KH", rules, keys[1])
        self.value = weight("D->KH", rules, keys[2])
        self.project = weight("NH->D", rules, keys[3])
        self.query_bias = bias("->NH", rules) if kind.biases else None
        self.key_bias = bias("->KH", rules) if kind.biases else None
        self.value_bias = bias("->KH", rules) if kind.biases else None
        self.project_bias = bias("->D", rules) if kind.biases else None
        self.query_gain = gain("->H", rules) if kind.query_key_norm else None
        self.key_gain = gain("->H", rules) if kind.query_key_norm else None
        self.epsilon = kind.norm_epsilon
        self.scale = rules.attention_scale

    def __call__(
        self, x_BTD: Array, turned: Rotation | None, mask_BTS: Array, kernel: Kernel
    ) -> Array:
        q_BTNH = contract(x_BTD, self.query, self.query_bias)
        k_BSKH = contract(x_BTD, self.key, self.key_bias)
        v_BSKH = contract(x_BTD, self.value, self.value_bias)
        if self.query_gain is not None and self.key_gain is not None:
            q_BTNH = rms_norm(q_BTNH, self.query_gain, epsilon=self.epsilon)
            k_BSKH = rms_norm(k_BSKH, self.key_gain, epsilon=self.epsilon)
        if turned is not None:
            q_BTNH, k_BSKH = rotate(q_BTNH, turned), rotate(k_BSKH, turned)
        mixed_BTNH = attention(q_BTNH, k_BSKH, v_BSKH, mask_BTS, scale=self.scale, kernel=kernel)
        return contract(mixed_BTNH, self.project, self.project_bias)


class FeedForward(nnx.Module):
    """activation(x up) down; under swiglu (silu(x gate) * x up) down (Shazeer 2020, eq. 6)."""

    def __init__(self, kind: Architecture, rules: Parameterization, *, key: Array) -> None:
        keys = jax.random.split(key, 3)
        self.up = weight("D->F", rules, keys[0])
        self.down = weight("F->D", rules, keys[1])
        self.gate = weight("D->F", rules, keys[2]) if kind.activation == "swiglu" else None
        self.up_bias = bias("->F", rules) if kind.biases else None
        self.down_bias = bias("->D", rules) if kind.biases else None
        self.activation = kind.activation

    def __call__(self, x_BTD: Array) -> Array:
        h_BTF = contract(x_BTD, self.up, self.up_bias)
        if self.gate is None:
            h_BTF = ACTIVATIONS[self.activation](h_BTF)
        else:
            h_BTF = ACTIVATIONS[self.activation](contract(x_BTD, self.gate)) * h_BTF
        return contract(h_BTF, self.down, self.down_bias)


class Block(nnx.Module):
    """One layer: x + attention(norm(x)), then x + feed-forward(norm(x)); or norm(x + branch(x)).

    Each branch is multiplied with the parameterization's residual scale.
    """

    def __init__(self, kind: Architecture, rules: Parameterization, *, key: Array) -> None:
        attention_key, feedforward_key = jax.random.split(key)
        self.attention_norm = Norm(kind, rules)
        self.attention = Attention(kind, rules, key=attention_key)
        self.feedforward_norm = Norm(kind, rules)
        self.feedforward = FeedForward(kind, rules, key=feedforward_key)
        self.post = kind.norm_position == "post"
        self.scale = rules.residual_scale

    def __call__(
        self, x_BTD: Array, turned: Rotation | None, mask_BTS: Array, kernel: Kernel
    ) -> Array:
        if self.post:
            x_BTD = self.attention_norm(
                x_BTD + self._scaled(self.attention(x_BTD, turned, mask_BTS, kernel))
            )
            return self.feedforward_norm(x_BTD + self._scaled(self.feedforward(x_BTD)))
        x_BTD = x_BTD + self._scaled(
            self.attention(self.attention_norm(x_BTD), turned, mask_BTS, kernel)
        )
        return x_BTD + self._scaled(self.feedforward(self.feedforward_norm(x_BTD)))

    def _scaled(self, x_BTD: Array) -> Array:
        return x_BTD if self.scale == 1 else x_BTD * self.scale


class Transformer(nnx.Module):
    """Tokens to features and logits, attending within each packed document only.

    `compute_dtype` is that of activations and products; weights, norms, softmax and logits are
    float32. `layers_unrolled` layers make one turn of the loop over them.

    Raises:
      ValueError: size, architecture and parameterization do not speak of one model, or a window is
        longer than the table of positions.
    """

    ATTENTION: ClassVar[str]

    def __init__(
        self,
        size: Size,
        kind: Architecture,
        rules: Parameterization,
        *,
        key: Array,
        compute_dtype: jnp.dtype | str = "float32",
        remat: str = "none",
        layers_unrolled: int = 1,
        attention_kernel: Kernel = "xla",
    ) -> None:
        self._require_one_model(size, kind, rules)
        keys = jax.random.split(key, 6)
        self.embedding = weight("V->D", rules, keys[0])
        learned = kind.positions == "learned"
        self.positions = weight("T->D", rules, keys[1]) if learned else None
        self.types = weight("C->D", rules, keys[2]) if kind.token_types else None
        self.embedding_norm = Norm(kind, rules) if kind.embedding_norm else None
        self.blocks = stack(
            lambda key: Block(kind, rules, key=key), jax.random.split(keys[3], size.depth)
        )
        # After the last sum of post-norm blocks stands a norm already.
        self.norm = Norm(kind, rules) if kind.norm_position == "pre" else None
        self.pooler = weight("D->D'", rules, keys[4]) if kind.pooler else None
        self.pooler_bias = bias("->D", rules) if kind.pooler else None
        transform = kind.head_transform
        head_key, transform_key = jax.random.split(keys[5])
        self.head = None if kind.tied else weight("D->V", rules, head_key)
        self.head_transform = weight("D->D'", rules, transform_key) if transform else None
        self.head_transform_bias = bias("->D", rules) if transform else None
        self.head_norm = Norm(kind, rules) if transform else None
        self.head_bias = bias("->V", rules) if transform else None
        self.kind, self.depth, self.head_width = kind, size.depth, size.head_width
        self.output_scale = rules.output_scale
        self.compute_dtype, self.remat = jnp.dtype(compute_dtype), remat
        self.layers_unrolled, self.attention_kernel = layers_unrolled, attention_kernel

    def _require_one_model(self, size: Size, kind: Architecture, rules: Parameterization) -> None:
        if kind.attention != self.ATTENTION:
            raise ValueError(
                f"{type(self).__name__} has {self.ATTENTION} attention, but the architecture's is "
                f"{kind.attention}; use Decoder for causal and Encoder for bidirectional attention"
            )
        if dict(rules.lengths) != dict(size.lengths):
            raise ValueError(
                f"the parameterization has lengths {dict(rules.lengths)}, the size "
                f"{dict(size.lengths)}; make the one with the lengths of the other"
            )
        if kind.token_types not in (0, size.token_types):
            raise ValueError(
                f"the architecture has {kind.token_types} token types, the size "
                f"{size.token_types}; give both the same number"
            )

    @property
    def HEAD(self) -> tuple[str, ...]:
        """The attributes whose weights `logits` reads."""
        rest = ("head_transform", "head_transform_bias", "head_norm", "head_bias")
        return ("embedding" if self.kind.tied else "head", *rest)

    def mask(self, batch: Mapping[str, Array]) -> Array:
        """mask_BTS: which positions S each position T reads."""
        return attention_mask(
            batch["segments_BT"],
            causal=self.kind.attention == "causal",
            window_tokens=self.kind.window_tokens,
            prefix_BT=batch.get("prefix_BT"),
        )

    def features(self, batch: Mapping[str, Array]) -> Array:
        """x_BTD after the last layer, of `tokens_BT`; `segments_BT` numbers the documents,
        `positions_BT` counts within them; `prefix_BT` and `types_BT` where the batch has them."""
        x_BTD, turned = self.embed(batch)
        mask_BTS = self.mask(batch)
        graph, layers = nnx.split(self.blocks)

        def layer(x_BTD: Array, weights: nnx.State) -> tuple[Array, None]:
            block = nnx.merge(graph, weights)
            return block(x_BTD, turned, mask_BTS, self.attention_kernel), None

        if self.remat != "none":
            layer = jax.checkpoint(layer, policy=REMAT[self.remat])
        x_BTD, _ = jax.lax.scan(layer, x_BTD, layers, unroll=self.layers_unrolled)
        return x_BTD if self.norm is None else self.norm(x_BTD)

    def embed(self, batch: Mapping[str, Array]) -> tuple[Array, Rotation | None]:
        """What the first layer reads: the sum of the tables' rows, and the turns of its heads."""
        tokens_BT, positions_BT = batch["tokens_BT"], batch["positions_BT"]
        x_BTD = self.embedding[...][tokens_BT]
        turned = None
        if self.positions is not None:
            # A look-up beyond a table's end would give its last row.
            rows, length = self.positions.shape[0], tokens_BT.shape[1]
            if length > rows:
                raise ValueError(
                    f"a window has {length} positions, the learned table {rows}; use shorter "
                    "windows, a longer context or rotary positions"
                )
            x_BTD = x_BTD + self.positions[...][positions_BT]
        else:
            turned = rotation(
                positions_BT,
                head_width=self.head_width,
                theta=self.kind.rotary_theta,
                dtype=self.compute_dtype,
            )
        if self.types is not None:
            x_BTD = x_BTD + self.types[...][batch.get("types_BT", jnp.zeros_like(tokens_BT))]
        if self.embedding_norm is not None:
            x_BTD = self.embedding_norm(x_BTD)
        return x_BTD.astype(self.compute_dtype), turned

    def logits(self, x: Array) -> Array:
        """x_...D to logits_...V in float32."""
        if self.head_transform is not None and self.head_norm is not None:
            x = contract(x, self.head_transform, self.head_transform_bias)
            x = self.head_norm(ACTIVATIONS[self.kind.activation](x))
        flat = x.reshape(-1, x.shape[-1])
        table = self.embedding[...].T if self.head is None else self.head[...]
        scores = jnp.matmul(flat, table.astype(x.dtype), preferred_element_type=jnp.float32)
        if self.output_scale != 1:
            scores = scores * self.output_scale
        if self.head_bias is not None:
            scores = scores + self.head_bias[...][None]
        if self.kind.logit_cap is not None:
            scores = self.kind.logit_cap * jnp.tanh(scores / self.kind.logit_cap)
        return scores.reshape(*x.shape[:-1], -1)

    def __call__(self, batch: Mapping[str, Array]) -> Array:
        return self.logits(self.features(batch))


class Decoder(Transformer):
    """A transformer that reads from left to right, but for a prefix that is open to all of it."""

    ATTENTION = "causal"


class Encoder(Transformer):
    """A transformer in which every position sees all others of its document."""

    ATTENTION = "bidirectional"

    def pooled(self, x_BTD: Array) -> Array:
        """tanh of a dense layer over the first position (Devlin et al. 2019)."""
        if self.pooler is None:
            raise ValueError("this architecture has no pooler; set pooler=True")
        return jnp.tanh(contract(x_BTD[:, 0], self.pooler, self.pooler_bias))
