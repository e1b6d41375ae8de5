"""Counts, checked against the arrays themselves and against the compiler's own cost analysis."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from scaling import counts
from scaling.architecture import FAMILIES, LADDER, PUBLIC, Architecture
from scaling.model.layers import attention_mask
from scaling.model.parameterization import standard
from scaling.model.transformer import Decoder, Encoder, Transformer
from scaling.sizes import Size, size

TINY = Size(
    width=24, depth=3, heads=4, kv_heads=2, head_width=10, feedforward=40, vocabulary=64, context=9,
    token_types=2,
)  # fmt: skip


def build(shape: Size, kind: Architecture) -> Transformer:
    make = Decoder if kind.attention == "causal" else Encoder
    return make(
        shape, kind, standard(shape.lengths), key=jax.random.key(0), layers_unrolled=shape.depth
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shape", [TINY, size(128, vocabulary=512)], ids=["tiny", "rung"])
def test_parameters_equal_the_arrays_of_the_model(shape: Size, family: str, tied: bool) -> None:
    kind = dataclasses.replace(FAMILIES[family], tied=tied)
    shape = dataclasses.replace(shape, token_types=kind.token_types)
    model = nnx.eval_shape(lambda: build(shape, kind))
    leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
    count = counts.parameters(shape, kind)
    assert count.total == sum(leaf.size for leaf in leaves)
    tables = (model.embedding, model.positions, model.types)
    assert count.embedding == sum(table.size for table in tables if table is not None)
    assert count.head == (model.embedding if tied else model.head).size
    assert count.total == count.embedding + count.non_embedding


@pytest.mark.parametrize("family", FAMILIES)
def test_forward_flops_equal_the_cost_analysis_of_the_compiler(family: str) -> None:
    kind, batch, context = FAMILIES[family], 2, 64
    shape = Size(
        width=64, depth=2, heads=6, kv_heads=3, head_width=16, feedforward=176, vocabulary=512,
        context=context, token_types=kind.token_types,
    )  # fmt: skip
    graph, state = nnx.split(build(shape, kind))
    tokens_BT = jnp.zeros((batch, context), jnp.int32)

    def forward(state: nnx.State, tokens_BT: jax.Array) -> jax.Array:
        names = ("tokens_BT", "segments_BT", "positions_BT")
        return nnx.merge(graph, state)(dict.fromkeys(names, tokens_BT))

    measured = jax.jit(forward).lower(state, tokens_BT).compile().cost_analysis()["flops"]
    # The compiler computes the whole square of scores and values, and counts elementwise work.
    whole = dataclasses.replace(kind, attention="bidirectional")
    counted = counts.flops_counted(shape, whole, tokens=batch * context, context=context) / 3
    assert counted < measured < 1.25 * counted


@pytest.mark.parametrize("window", [None, 1, 16, 500])
@pytest.mark.parametrize("family", ["ladder", "bert"])
def test_counted_attention_is_what_the_mask_lets_through(family: str, window: int | None) -> None:
    kind, context = dataclasses.replace(FAMILIES[family], window_tokens=window), 256
    long, one = (
        counts.flops_counted(TINY, kind, tokens=1, context=length) for length in (context, 1)
    )
    reach = (long - one) / (3 * 2 * TINY.depth * 2 * TINY.heads * TINY.head_width)
    mask_BTS = attention_mask(
        jnp.zeros((1, context), jnp.int32), causal=family == "ladder", window_tokens=window
    )
    # A window counts in full at the ends of the context too, the causal diagonal as half.
    assert reach == pytest.approx(float(mask_BTS.sum()) / context - 1, rel=0.05, abs=1)


def test_flops_6nd_with_a_tied_head_is_six_times_all_parameters() -> None:
    shape = size(48, vocabulary=512)
    total = counts.parameters(shape, LADDER).total
    assert counts.flops_6nd(shape, LADDER, tokens=1000) == 6 * total * 1000
    assert counts.tokens_for(shape, LADDER, flops=6.0 * total * 1000) == 1000


def test_counted_flops_approach_6nd_where_attention_is_small() -> None:
    shape = size(512, vocabulary=512)
    ratio = counts.flops_counted(shape, LADDER, tokens=1, context=2) / counts.flops_6nd(
        shape, LADDER, tokens=1
    )
    assert ratio == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
        ("llama-2-7b", 6_738_415_616),
        ("llama-3.2-1b", 1_235_814_400),
        ("qwen3-0.6b", 596_049_920),
        ("qwen3-1.7b", 1_720_574_976),
    ],
)
def test_public_shapes_have_their_published_number_of_parameters(name: str, total: int) -> None:
    assert counts.parameters(*published(name)).total == total


def test_bert_has_its_published_parameters_without_the_head_of_its_pretraining() -> None:
    shape, kind = published("bert-base")
    bare = dataclasses.replace(kind, head_transform=False)
    assert counts.parameters(shape, bare).total == 109_482_240


def published(name: str) -> tuple[Size, Architecture]:
    public = PUBLIC[name]
    kind = dataclasses.replace(FAMILIES[public.family], tied=public.tied)
    shape = Size(
        width=public.width,
        depth=public.depth,
        heads=public.heads,
        kv_heads=public.kv_heads,
        head_width=public.head_width,
        feedforward=public.feedforward,
        vocabulary=public.vocabulary,
        context=public.context,
        token_types=kind.token_types,
    )
    return shape, kind
