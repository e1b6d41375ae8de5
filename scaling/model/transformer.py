"""The decoder: pre-norm blocks with rotary attention, QK-norm and squared ReLU, and a tied head."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from scaling.model.layers import attention, contract, rms_norm, rotary, stack, weight
from scaling.sizes import Size

ROTARY_THETA = 10_000.0


class Block(nnx.Module):
    """One layer: x + attention(norm(x)), then x + feed-forward(norm(x)).

    Queries and keys are normalised per head (Henry et al. 2020), the feed-forward is relu(x)^2 (So
    et al. 2021).
    """

    def __init__(self, size: Size, *, key: Array) -> None:
        lengths = size.lengths
        keys = jax.random.split(key, 6)
        self.attention_gain = weight("->D", lengths)
        self.query = weight("D->NH", lengths, keys[0])
        self.key = weight("D->NH", lengths, keys[1])
        self.value = weight("D->NH", lengths, keys[2])
        self.query_gain = weight("->H", lengths)
        self.key_gain = weight("->H", lengths)
        self.project = weight("NH->D", lengths, keys[3])
        self.feedforward_gain = weight("->D", lengths)
        self.up = weight("D->F", lengths, keys[4])
        self.down = weight("F->D", lengths, keys[5])

    def __call__(self, x_BTD: Array, positions_BT: Array, mask_BTS: Array) -> Array:
        h_BTD = rms_norm(x_BTD, self.attention_gain)
        q_BTNH = rms_norm(contract(h_BTD, self.query), self.query_gain)
        k_BSNH = rms_norm(contract(h_BTD, self.key), self.key_gain)
        q_BTNH = rotary(q_BTNH, positions_BT, theta=ROTARY_THETA)
        k_BSNH = rotary(k_BSNH, positions_BT, theta=ROTARY_THETA)
        mixed_BTNH = attention(q_BTNH, k_BSNH, contract(h_BTD, self.value), mask_BTS)
        x_BTD = x_BTD + contract(mixed_BTNH, self.project)
        h_BTF = contract(rms_norm(x_BTD, self.feedforward_gain), self.up)
        return x_BTD + contract(jnp.square(jax.nn.relu(h_BTF)), self.down)


class Decoder(nnx.Module):
    """A causal language model: tokens_BT to logits_BTV, attending within each packed document
    only."""

    def __init__(self, size: Size, *, key: Array) -> None:
        embedding_key, blocks_key = jax.random.split(key)
        self.depth = size.depth
        self.embedding = weight("V->D", size.lengths, embedding_key)
        self.blocks = stack(
            lambda key: Block(size, key=key), jax.random.split(blocks_key, size.depth)
        )
        self.gain = weight("->D", size.lengths)

    def __call__(self, tokens_BT: Array, segments_BT: Array, positions_BT: Array) -> Array:
        """Logits in float32; `segments_BT` numbers the documents, `positions_BT` counts within
        them."""
        length = tokens_BT.shape[1]
        same_document_BTS = segments_BT[:, :, None] == segments_BT[:, None, :]
        mask_BTS = jnp.tril(jnp.ones((length, length), bool))[None] & same_document_BTS
        graph, layers = nnx.split(self.blocks)

        def layer(x_BTD: Array, weights: nnx.State) -> tuple[Array, None]:
            return nnx.merge(graph, weights)(x_BTD, positions_BT, mask_BTS), None

        x_BTD = self.embedding[...][tokens_BT]
        # Unrolled: on the CPU a rolled loop ran 1.3 to 2 times slower at these depths.
        x_BTD, _ = jax.lax.scan(layer, x_BTD, layers, unroll=True)
        x_BTD = rms_norm(x_BTD, self.gain)
        return (x_BTD @ self.embedding[...].T).astype(jnp.float32)
