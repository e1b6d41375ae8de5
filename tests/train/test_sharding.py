"""The mesh splits the work and changes nothing of it; what it cannot split is said with numbers."""

import itertools
import logging
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from jax import Array
from jax.sharding import PartitionSpec

from scaling.architecture import LADDER
from scaling.axes import parse
from scaling.model.parameterization import standard
from scaling.model.transformer import Decoder
from scaling.sizes import Size
from scaling.train import objectives
from scaling.train.sharding import batch_sharding, make_mesh, sharding

SIZE = Size(
    width=24, depth=2, heads=4, kv_heads=2, head_width=6, feedforward=40, vocabulary=72, context=32
)
RULES = standard(SIZE.lengths)
WINDOWS, CONTEXT = 4, 32
ENDS = ((5, 6, 17), (9, 30), (16,), ())
"""Where documents end in each window: at a seam between devices, beside it, and in mid-shard."""


def packed_batch(context: int) -> dict[str, np.ndarray]:
    tokens = np.random.default_rng(3).integers(0, SIZE.vocabulary, (WINDOWS, context), np.int32)
    segments = np.zeros_like(tokens)
    positions = np.zeros_like(tokens)
    for row, ends in enumerate(ENDS):
        edges = [0, *ends, context]
        for number, (start, end) in enumerate(itertools.pairwise(edges)):
            segments[row, start:end] = number
            positions[row, start:end] = np.arange(end - start)
    return {
        "tokens_BT": tokens,
        "targets_BT": np.roll(tokens, -1, axis=1),
        "segments_BT": segments,
        "positions_BT": positions,
        "weights_BT": np.random.default_rng(4).random(tokens.shape, np.float32),
    }


class Placed:
    """Logits and gradient of one model, compiled for a mesh."""

    def __init__(self, *, length: int = CONTEXT, **axes: int) -> None:
        mesh = make_mesh(**{"data": 1, "fsdp": 1, "tensor": 1, "context": 1, **axes})
        graph, state = nnx.split(Decoder(SIZE, LADDER, RULES, key=jax.random.key(1)), nnx.Param)
        place = batch_sharding(mesh, windows=WINDOWS, context=length)

        def where(variable: Any) -> Any:
            stacked = variable.get_metadata().get("stacked")
            letters = ((stacked,) if stacked else ()) + parse(variable.axes).letters
            return variable.replace(sharding(letters, variable.shape, mesh))

        places = jax.tree.map(where, state, is_leaf=lambda leaf: isinstance(leaf, nnx.Param))
        self.params = jax.device_put(state, places)
        self.batch = jax.device_put(packed_batch(length), place)

        def logits(params: nnx.State, batch: Mapping[str, Array]) -> Array:
            return nnx.merge(graph, params)(batch)

        def total(params: nnx.State, batch: Mapping[str, Array]) -> Array:
            return objectives.cross_entropy(logits(params, batch), batch).total

        with jax.set_mesh(mesh):
            self.logits = jax.jit(logits).lower(self.params, self.batch).compile()
            self.gradient = jax.jit(jax.grad(total)).lower(self.params, self.batch).compile()


@pytest.fixture(scope="module")
def single() -> Placed:
    return Placed()


@pytest.mark.parametrize(
    "axes", [{"context": 4}, {"data": 2, "context": 2, "tensor": 2}, {"context": 8}], ids=str
)
def test_packed_documents_cut_over_the_context_axis_read_what_they_read_on_one_device(
    single: Placed, axes: dict[str, int]
) -> None:
    split = Placed(**axes)
    spec = split.batch["tokens_BT"].sharding.spec
    assert spec == PartitionSpec(("data", "fsdp"), ("context",))
    shards = {shard.data.shape for shard in split.batch["tokens_BT"].addressable_shards}
    assert shards == {(WINDOWS // axes.get("data", 1), CONTEXT // axes["context"])}
    np.testing.assert_allclose(
        split.logits(split.params, split.batch), single.logits(single.params, single.batch),
        rtol=1e-4, atol=2e-6,
    )  # fmt: skip
    expected = jax.tree.leaves_with_path(single.gradient(single.params, single.batch))
    found = jax.tree.leaves(split.gradient(split.params, split.batch))
    for (path, one), other in zip(expected, found, strict=True):
        np.testing.assert_allclose(
            other, one, rtol=1e-4, atol=1e-5, err_msg=jax.tree_util.keystr(path)
        )


def test_a_token_is_read_by_the_later_ones_of_its_document_on_every_device_and_by_no_other() -> (
    None
):
    split = Placed(context=4, length=CONTEXT)
    changed = np.array(split.batch["tokens_BT"])
    changed[1, 12] = (changed[1, 12] + 1) % SIZE.vocabulary
    batch = split.batch | {"tokens_BT": jax.device_put(changed, split.batch["tokens_BT"].sharding)}
    before, after = (np.asarray(split.logits(split.params, each)) for each in (split.batch, batch))
    differs = (before != after).any(axis=-1)
    # The document in window 1 from position 9 up to 30 lies on three of the four devices.
    expected = np.zeros_like(differs)
    expected[1, 12:30] = True
    np.testing.assert_array_equal(differs, expected)


def test_the_memory_of_a_device_goes_down_as_the_context_axis_goes_up() -> None:
    whole, split = Placed(length=128, context=1), Placed(length=128, context=8)
    # Keys, values and the gradients of weights are whole on every device.
    for name, share in (("logits", 1 / 8), ("gradient", 1 / 4)):
        before, after = (
            getattr(placed, name).memory_analysis().temp_size_in_bytes for placed in (whole, split)
        )
        assert after < before * share, name


def test_what_the_mesh_does_not_divide_stays_whole_and_is_logged_with_the_numbers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    mesh = make_mesh(data=2, fsdp=1, tensor=4, context=1)
    with caplog.at_level(logging.WARNING):
        place = sharding(("D", "K", "H"), (24, 2, 6), mesh, name="blocks.attention.key")
    assert place.spec == PartitionSpec(("fsdp",), None, None)
    [record] = caplog.records
    assert "blocks.attention.key: K of length 2 does not divide over tensor=4" in record.message
    assert "kept whole on every device" in record.message
    caplog.clear()
    whole = sharding(("D", "N", "H"), (24, 8, 6), mesh)
    assert whole.spec == PartitionSpec(("fsdp",), ("tensor",), None)
    assert not caplog.records


def test_windows_that_the_data_axes_do_not_divide_are_refused_with_the_numbers() -> None:
    mesh = make_mesh(data=4, fsdp=2, tensor=1, context=1)
    with pytest.raises(
        ValueError,
        match="a batch of 12 windows is not divisible over 8 data-parallel devices; use a multiple "
        "of 8",
    ):
        batch_sharding(mesh, windows=12, context=30)


def test_positions_that_the_context_axis_does_not_divide_are_refused_with_the_numbers() -> None:
    mesh = make_mesh(data=2, fsdp=1, tensor=1, context=4)
    with pytest.raises(
        ValueError, match="a batch of 30 positions is not divisible over 4 context-parallel"
    ):
        batch_sharding(mesh, windows=6, context=30)
