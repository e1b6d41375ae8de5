"""The decoder, by second routes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.architecture import BERT, GPT2, LADDER, Architecture
from scaling.model.layers import attention, contract, gain, rms_norm, rotate, rotation, weight
from scaling.model.parameterization import standard
from scaling.model.transformer import Decoder, Encoder, Transformer
from scaling.sizes import Size

TINY = Size(
    width=24, depth=3, heads=4, kv_heads=2, head_width=10, feedforward=40, vocabulary=64, context=9,
    token_types=3,
)  # fmt: skip
RULES = standard(TINY.lengths)
B, T = 2, 7


@pytest.fixture(scope="module")
def model() -> Decoder:
    return Decoder(TINY, LADDER, RULES, key=jax.random.key(0))


def tokens(seed: int = 1) -> jax.Array:
    return jax.random.randint(jax.random.key(seed), (B, T), 0, TINY.vocabulary)


def batch(
    tokens_BT: jax.Array,
    segments_BT: jax.Array | None = None,
    positions_BT: jax.Array | None = None,
) -> dict[str, jax.Array]:
    windows, length = tokens_BT.shape
    counting_BT = jnp.broadcast_to(jnp.arange(length), (windows, length))
    return {
        "tokens_BT": tokens_BT,
        "segments_BT": jnp.zeros_like(tokens_BT) if segments_BT is None else segments_BT,
        "positions_BT": counting_BT if positions_BT is None else positions_BT,
    }


@pytest.mark.parametrize("changed", range(1, T))
def test_future_tokens_leave_earlier_logits_unchanged(model: Decoder, changed: int) -> None:
    tokens_BT = tokens()
    other_BT = tokens_BT.at[:, changed:].add(1) % TINY.vocabulary
    before, after = (np.asarray(model(batch(x))) for x in (tokens_BT, other_BT))
    np.testing.assert_array_equal(before[:, :changed], after[:, :changed])
    assert not np.allclose(before[:, changed], after[:, changed])


def test_packed_documents_give_the_logits_of_each_alone(model: Decoder) -> None:
    tokens_BT = tokens()
    first = 3
    segments_BT = jnp.broadcast_to((jnp.arange(T) >= first).astype(jnp.int32), (B, T))
    positions_BT = jnp.where(segments_BT == 0, jnp.arange(T)[None], jnp.arange(T)[None] - first)
    packed = model(batch(tokens_BT, segments_BT, positions_BT))
    left = model(batch(tokens_BT[:, :first]))
    right = model(batch(tokens_BT[:, first:]))
    np.testing.assert_allclose(packed[:, :first], left, atol=1e-5)
    np.testing.assert_allclose(packed[:, first:], right, atol=1e-5)


def test_shifting_all_positions_changes_nothing(model: Decoder) -> None:
    here = batch(tokens())
    there = model(here | {"positions_BT": here["positions_BT"] + 11})
    here = model(here)
    np.testing.assert_allclose(here, there, atol=1e-4)


def test_attention_equals_a_loop_over_heads_and_queries() -> None:
    keys = jax.random.split(jax.random.key(3), 3)
    q, k, v = (np.asarray(jax.random.normal(key, (B, T, 4, 10))) for key in keys)
    mask = np.tril(np.ones((T, T), bool))[None].repeat(B, 0)
    mixed = np.asarray(attention(q, k, v, mask, scale=10**-0.5))
    for b in range(B):
        for n in range(4):
            for t in range(T):
                scores = np.array([q[b, t, n] @ k[b, s, n] for s in range(t + 1)]) / np.sqrt(10)
                shares = np.exp(scores - scores.max())
                expected = (shares / shares.sum()) @ v[b, : t + 1, n]
                np.testing.assert_allclose(mixed[b, t, n], expected, atol=1e-5)


def test_rotary_keeps_lengths_and_makes_scores_depend_on_distance_alone() -> None:
    x = jax.random.normal(jax.random.key(4), (1, 1, 1, 10)).repeat(T, axis=1)
    turned_by = rotation(
        jnp.arange(T)[None], head_width=10, theta=100.0, dtype=jnp.dtype("float32")
    )
    turned = np.asarray(rotate(x, turned_by))[0, :, 0]
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
    kernel = weight(declaration, RULES, jax.random.key(6))
    np.testing.assert_allclose(contract(x, kernel), jnp.einsum(einsum, x, kernel[...]), atol=1e-5)


def test_rms_norm_gives_unit_mean_square() -> None:
    x = 5 * jax.random.normal(jax.random.key(7), (B, T, TINY.width))
    normed = rms_norm(x, gain("->D", RULES), epsilon=1e-6)
    np.testing.assert_allclose(np.mean(np.square(normed), axis=-1), 1, rtol=1e-4)


def test_weights_start_with_the_deviation_of_their_fan_in() -> None:
    shape = Size(
        width=256, depth=2, heads=4, kv_heads=4, head_width=64, feedforward=1024, vocabulary=512,
        context=8,
    )  # fmt: skip
    model = Decoder(shape, LADDER, standard(shape.lengths), key=jax.random.key(8))
    assert np.std(model.blocks.feedforward.up[...]) == pytest.approx(256**-0.5, rel=0.02)
    assert np.std(model.blocks.feedforward.down[...]) == pytest.approx(1024**-0.5, rel=0.02)
    assert np.std(model.embedding[...]) == pytest.approx(0.02, rel=0.02)
    assert not np.allclose(model.blocks.feedforward.up[...][0], model.blocks.feedforward.up[...][1])


def test_a_vector_is_no_weight() -> None:
    with pytest.raises(ValueError, match="use gain or bias"):
        weight("->F", RULES, jax.random.key(0))


@pytest.mark.parametrize(
    ("make", "kind", "size", "complaint"),
    [
        (Decoder, dataclasses.replace(BERT, token_types=3), TINY, "use Decoder for causal"),
        (Encoder, LADDER, TINY, "use Decoder for causal"),
        (Decoder, LADDER, dataclasses.replace(TINY, width=32), "lengths of the other"),
        (Encoder, BERT, TINY, "2 token types, the size 3"),
    ],
)
def test_parts_that_speak_of_different_models_are_refused(
    make: type[Transformer], kind: Architecture, size: Size, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        make(size, kind, RULES, key=jax.random.key(0))


def test_a_window_beyond_the_table_of_positions_is_refused() -> None:
    model = Decoder(TINY, GPT2, RULES, key=jax.random.key(0))
    long_BT = jnp.zeros((B, TINY.context + 1), jnp.int32)
    with pytest.raises(ValueError, match="10 positions, the learned table 9"):
        model(batch(long_BT))
