"""Kinds of transformer, and the claims that hold for every family."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from scaling.architecture import FAMILIES, LADDER, PUBLIC, Architecture
from scaling.model.parameterization import standard
from scaling.model.transformer import Decoder, Encoder, Transformer
from scaling.sizes import Size

TINY = Size(
    width=24, depth=3, heads=4, kv_heads=2, head_width=10, feedforward=40, vocabulary=64, context=9,
    token_types=2,
)  # fmt: skip
B, T = 2, 7
CAUSAL = [name for name, kind in FAMILIES.items() if kind.attention == "causal"]


@functools.cache
def build(kind: Architecture, **how: Any) -> Transformer:
    make = Decoder if kind.attention == "causal" else Encoder
    model = make(TINY, kind, standard(TINY.lengths), key=jax.random.key(0), **how)
    # Look-ups start small: attention would hardly tell one position from another.
    for table in (model.embedding, model.positions):
        if table is not None:
            table.set_value(30 * table[...])
    return model


@nnx.jit
def logits(model: Transformer, given: dict[str, jax.Array]) -> jax.Array:
    return model(given)


def batch(seed: int = 1, **arrays: jax.Array) -> dict[str, jax.Array]:
    tokens_BT = jax.random.randint(jax.random.key(seed), (B, T), 0, TINY.vocabulary)
    plain = {
        "tokens_BT": tokens_BT,
        "segments_BT": jnp.zeros_like(tokens_BT),
        "positions_BT": jnp.broadcast_to(jnp.arange(T), (B, T)),
    }
    return plain | arrays


def reads(model: Transformer, given: dict[str, jax.Array], changed: int) -> np.ndarray:
    """Which positions of the first window notice another token at position `changed`."""
    tokens_BT = given["tokens_BT"]
    other = given | {"tokens_BT": tokens_BT.at[:, changed].set((tokens_BT[:, changed] + 1) % 64)}
    before, after = (np.asarray(logits(model, each)) for each in (given, other))
    return np.any(before[0] != after[0], axis=-1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_position_is_noticed_by_those_that_may_read_it(family: str) -> None:
    model = build(FAMILIES[family])
    expected = np.arange(T) >= 3 if family in CAUSAL else np.ones(T, bool)
    np.testing.assert_array_equal(reads(model, batch(), 3), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_document_notices_another_in_its_window(family: str) -> None:
    segments_BT = jnp.broadcast_to((jnp.arange(T) >= 4).astype(jnp.int32), (B, T))
    noticed = reads(build(FAMILIES[family]), batch(segments_BT=segments_BT), 1)
    assert noticed[1]
    assert not noticed[4:].any()


@pytest.mark.parametrize("family", ["ladder", "bert"])
def test_each_layer_reaches_no_further_than_the_window(family: str) -> None:
    model = build(dataclasses.replace(FAMILIES[family], window_tokens=2))
    noticed = reads(model, batch(), 2)
    reach = (2 - 1) * TINY.depth
    after = np.arange(T) - 2
    expected = (np.abs(after) <= reach) & ((after >= 0) | (family == "bert"))
    np.testing.assert_array_equal(noticed, expected)


@pytest.mark.parametrize("family", CAUSAL)
def test_a_prefix_sees_its_own_future_and_none_beyond_it(family: str) -> None:
    model = build(FAMILIES[family])
    prefix_BT = jnp.broadcast_to(jnp.arange(T) < 4, (B, T))
    assert reads(model, batch(prefix_BT=prefix_BT), 3).all()
    np.testing.assert_array_equal(reads(model, batch(prefix_BT=prefix_BT), 5), np.arange(T) >= 5)


def gradients(model: Transformer) -> dict[str, np.ndarray]:
    given = batch()

    def loss(model: Transformer) -> jax.Array:
        return jnp.mean(jnp.square(jax.nn.log_softmax(model(given))))

    found = nnx.jit(nnx.grad(loss))(model)
    return {
        ".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(found)
    }


@pytest.mark.parametrize(
    ("family", "remat", "layers_unrolled"),
    [
        ("ladder", "dots", 3),
        pytest.param("ladder", "full", 1, marks=pytest.mark.slow),
        pytest.param("bert", "dots", 1, marks=pytest.mark.slow),
        pytest.param("bert", "full", 3, marks=pytest.mark.slow),
    ],
)
def test_remat_and_unrolled_layers_leave_gradients_unchanged(
    family: str, remat: str, layers_unrolled: int
) -> None:
    kind = FAMILIES[family]
    expected = gradients(build(kind))
    found = gradients(build(kind, remat=remat, layers_unrolled=layers_unrolled))
    # Of the largest: a key's bias shifts every score alike, so its gradient is rounding alone.
    atol = 1e-6 * max(np.abs(gradient).max() for gradient in expected.values())
    for name, gradient in found.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("family", ["qwen3", "bert"])
def test_bfloat16_products_stay_close_and_logits_are_float32(family: str) -> None:
    given = batch()
    exact = np.asarray(logits(build(FAMILIES[family]), given))
    rough = logits(build(FAMILIES[family], compute_dtype="bfloat16"), given)
    assert rough.dtype == jnp.float32
    error = np.linalg.norm(rough - exact) / np.linalg.norm(exact)
    assert 0 < error < 0.03


def test_a_head_with_the_embeddings_entries_gives_the_tied_logits() -> None:
    tied = build(LADDER)
    untied = nnx.clone(build(dataclasses.replace(LADDER, tied=False)))
    assert tied.head is None
    assert untied.head is not None
    expected = logits(tied, batch())
    assert not np.allclose(expected, logits(untied, batch()))
    untied.head.set_value(tied.embedding[...].T)
    np.testing.assert_allclose(expected, logits(untied, batch()), atol=1e-5)


def test_a_cap_bounds_the_logits_and_keeps_their_order() -> None:
    free = np.asarray(logits(build(LADDER), batch()))
    capped = np.asarray(logits(build(dataclasses.replace(LADDER, logit_cap=5.0)), batch()))
    assert np.abs(free).max() > 5
    assert np.abs(capped).max() <= 5
    np.testing.assert_array_equal(capped.argmax(-1), free.argmax(-1))
    np.testing.assert_allclose(capped, 5 * np.tanh(free / 5), atol=1e-5)


def test_an_encoder_without_pooler_refuses_to_pool() -> None:
    kind = dataclasses.replace(FAMILIES["bert"], pooler=False)
    model = nnx.eval_shape(lambda: build.__wrapped__(kind))
    assert isinstance(model, Encoder)
    with pytest.raises(ValueError, match="set pooler=True"):
        model.pooled(jnp.zeros((B, T, TINY.width)))


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_shape_is_of_a_known_family_and_has_whole_groups(name: str) -> None:
    public = PUBLIC[name]
    assert public.family in FAMILIES
    assert public.heads % public.kv_heads == 0
    assert public.head_width % 2 == 0
