"""The decoder, by second routes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from scaling.model.layers import attention, contract, rms_norm, rotary, weight
from scaling.model.transformer import Decoder
from scaling.sizes import Size

TINY = Size(width=24, depth=3, heads=4, head_width=10, feedforward=40, vocabulary=64)
B, T = 2, 7


@pytest.fixture(scope="module")
def model() -> Decoder:
    return Decoder(TINY, key=jax.random.key(0))


def tokens(seed: int = 1) -> jax.Array:
    return jax.random.randint(jax.random.key(seed), (B, T), 0, TINY.vocabulary)


def one_document() -> tuple[jax.Array, jax.Array]:
    return jnp.zeros((B, T), jnp.int32), jnp.broadcast_to(jnp.arange(T), (B, T))


@pytest.mark.parametrize("changed", range(1, T))
def test_future_tokens_leave_earlier_logits_unchanged(model: Decoder, changed: int) -> None:
    tokens_BT = tokens()
    other_BT = tokens_BT.at[:, changed:].add(1) % TINY.vocabulary
    before, after = (np.asarray(model(x, *one_document())) for x in (tokens_BT, other_BT))
    np.testing.assert_array_equal(before[:, :changed], after[:, :changed])
    assert not np.allclose(before[:, changed], after[:, changed])


def test_packed_documents_give_the_logits_of_each_alone(model: Decoder) -> None:
    tokens_BT = tokens()
    first = 3
    segments_BT = jnp.broadcast_to((jnp.arange(T) >= first).astype(jnp.int32), (B, T))
    positions_BT = jnp.where(segments_BT == 0, jnp.arange(T)[None], jnp.arange(T)[None] - first)
    packed = model(tokens_BT, segments_BT, positions_BT)
    zeros, counting = one_document()
    left = model(tokens_BT[:, :first], zeros[:, :first], counting[:, :first])
    right = model(tokens_BT[:, first:], zeros[:, first:], counting[:, : T - first])
    np.testing.assert_allclose(packed[:, :first], left, atol=1e-5)
    np.testing.assert_allclose(packed[:, first:], right, atol=1e-5)


def test_shifting_all_positions_changes_nothing(model: Decoder) -> None:
    segments_BT, positions_BT = one_document()
    here = model(tokens(), segments_BT, positions_BT)
    there = model(tokens(), segments_BT, positions_BT + 11)
    np.testing.assert_allclose(here, there, atol=1e-4)


def test_attention_equals_a_loop_over_heads_and_queries() -> None:
    keys = jax.random.split(jax.random.key(3), 3)
    q, k, v = (np.asarray(jax.random.normal(key, (B, T, 4, 10))) for key in keys)
    mask = np.tril(np.ones((T, T), bool))[None].repeat(B, 0)
    mixed = np.asarray(attention(q, k, v, mask))
    for b in range(B):
        for n in range(4):
            for t in range(T):
                scores = np.array([q[b, t, n] @ k[b, s, n] for s in range(t + 1)]) / np.sqrt(10)
                shares = np.exp(scores - scores.max())
                expected = (shares / shares.sum()) @ v[b, : t + 1, n]
                np.testing.assert_allclose(mixed[b, t, n], expected, atol=1e-5)


def test_rotary_keeps_lengths_and_makes_scores_depend_on_distance_alone() -> None:
    x = jax.random.normal(jax.random.key(4), (1, 1, 1, 10)).repeat(T, axis=1)
    turned = np.asarray(rotary(x, jnp.arange(T)[None], theta=100.0))[0, :, 0]
    np.testing.assert_allclose(
        np.linalg.norm(turned, axis=-1), np.linalg.norm(x[0, 0, 0]), rtol=1e-5
    )
    scores = turned @ turned.T
    for distance in range(1, T):
        diagonal = np.diagonal(scores, distance)
        np.testing.assert_allclose(diagonal, diagonal[0], rtol=1e-4)


@pytest.mark.parametrize(
    ("declaration", "einsum"), [("D->F", "btd,df->btf"), ("D->NH", "btd,dnh->btnh")]
)
def test_contract_equals_the_einsum_that_the_letters_spell(declaration: str, einsum: str) -> None:
    x = jax.random.normal(jax.random.key(5), (B, T, TINY.width))
    kernel = weight(declaration, TINY.lengths, jax.random.key(6))
    np.testing.assert_allclose(contract(x, kernel), jnp.einsum(einsum, x, kernel[...]), atol=1e-5)


def test_rms_norm_gives_unit_mean_square() -> None:
    x = 5 * jax.random.normal(jax.random.key(7), (B, T, TINY.width))
    normed = rms_norm(x, nnx.Param(jnp.ones(TINY.width)))
    np.testing.assert_allclose(np.mean(np.square(normed), axis=-1), 1, rtol=1e-4)


def test_weights_start_with_the_deviation_of_their_fan_in() -> None:
    shape = Size(width=256, depth=2, heads=4, head_width=64, feedforward=1024, vocabulary=512)
    model = Decoder(shape, key=jax.random.key(8))
    assert np.std(model.blocks.up[...]) == pytest.approx(256**-0.5, rel=0.02)
    assert np.std(model.blocks.down[...]) == pytest.approx(1024**-0.5, rel=0.02)
    assert np.std(model.embedding[...]) == pytest.approx(0.02, rel=0.02)
    assert not np.allclose(model.blocks.up[...][0], model.blocks.up[...][1])


def test_a_random_weight_without_a_key_is_refused() -> None:
    with pytest.raises(ValueError, match="pass a key"):
        weight("D->F", TINY.lengths)
