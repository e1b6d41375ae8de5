"""Counts, checked against the arrays themselves and against the compiler's own cost analysis."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from scaling import counts
from scaling.model.transformer import Decoder
from scaling.sizes import Size, size

TINY = Size(width=24, depth=3, heads=4, head_width=10, feedforward=40, vocabulary=64)


@pytest.mark.parametrize("shape", [TINY, size(32, vocabulary=512), size(128, vocabulary=512)])
def test_parameters_equal_the_arrays_of_the_model(shape: Size) -> None:
    model = nnx.eval_shape(lambda: Decoder(shape, key=jax.random.key(0)))
    leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
    count = counts.parameters(shape)
    assert count.total == sum(leaf.size for leaf in leaves)
    assert count.embedding == model.embedding.size
    assert count.total == count.embedding + count.non_embedding


def test_forward_flops_equal_the_cost_analysis_of_the_compiler() -> None:
    shape, batch, context = size(64, vocabulary=512), 2, 64
    graph, state = nnx.split(Decoder(shape, key=jax.random.key(0)))
    tokens_BT = jnp.zeros((batch, context), jnp.int32)

    def forward(state: nnx.State, tokens_BT: jax.Array) -> jax.Array:
        return nnx.merge(graph, state)(tokens_BT, tokens_BT, tokens_BT)

    measured = jax.jit(forward).lower(state, tokens_BT).compile().cost_analysis()["flops"]
    tokens = batch * context
    causal = counts.flops_counted(shape, tokens=tokens, context=context) / 3
    # The compiler computes the whole square of scores and values, and counts elementwise work.
    square = 2 * shape.depth * shape.width * context * tokens
    assert causal + square < measured < 1.25 * (causal + square)


def test_flops_6nd_with_a_tied_head_is_six_times_all_parameters() -> None:
    shape = size(48, vocabulary=512)
    total = counts.parameters(shape).total
    assert counts.flops_6nd(shape, tokens=1000) == 6 * total * 1000
    assert counts.tokens_for(shape, flops=6.0 * total * 1000) == 1000


def test_counted_flops_approach_6nd_where_attention_is_small() -> None:
    shape = size(512, vocabulary=512)
    ratio = counts.flops_counted(shape, tokens=1, context=2) / counts.flops_6nd(shape, tokens=1)
    assert ratio == pytest.approx(1, abs=0.01)
