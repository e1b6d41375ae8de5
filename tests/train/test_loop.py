"""The step and the loop: sharded equals unsharded, divergence is noticed, one compilation."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from scaling.architecture import LADDER
from scaling.model.parameterization import standard
from scaling.model.transformer import Decoder
from scaling.sizes import Size
from scaling.train import objectives, optim
from scaling.train.loop import Cadence, Diverged, Stopped, train
from scaling.train.program import Metrics, Program, TrainState
from scaling.train.sharding import MESH_AXES, batch_sharding, make_mesh, sharding

TINY = Size(
    width=24, depth=2, heads=4, kv_heads=2, head_width=6, feedforward=40, vocabulary=64, context=8
)
RULES = standard(TINY.lengths)
WINDOWS, CONTEXT, STEPS = 8, 8, 20
HYPER = optim.Hyper(0.02, 0.02, 1e-4, 1.0, 100.0, 0.3, float(STEPS * WINDOWS * CONTEXT))
ADAMW = optim.Rule(optimizer="adamw", schedule_name="wsd", decays=(0.9, 0.95), epsilon=1e-8)
# Learnable: each token names the next.
RULE = np.random.default_rng(0).permutation(64).astype(np.int32)


def batch(step: int) -> dict[str, np.ndarray]:
    tokens = np.random.default_rng(step).integers(0, 64, (WINDOWS, CONTEXT), np.int32)
    return {
        "tokens_BT": tokens,
        "targets_BT": RULE[tokens],
        "segments_BT": np.zeros_like(tokens),
        "positions_BT": np.broadcast_to(np.arange(CONTEXT, dtype=np.int32), tokens.shape),
        "weights_BT": np.ones(tokens.shape, np.float32),
    }


def program(model: Mapping[str, Any] = MappingProxyType({}), **settings: int) -> Program:
    axes = {axis: settings.pop(axis, 1) for axis in MESH_AXES}
    return Program(
        lambda key: Decoder(TINY, LADDER, RULES, key=key, **model),
        objectives.cross_entropy,
        measure=objectives.cross_entropy,
        rule=ADAMW,
        scale=RULES.scale,
        batch_windows=WINDOWS,
        context=CONTEXT,
        mesh=make_mesh(**axes),
        **settings,
    )


class Recorder:
    """Keeps what the loop reports."""

    def __init__(self) -> None:
        self.losses: dict[int, float] = {}
        self.evaluated: list[int] = []
        self.saved: list[int] = []
        self.bad: list[int] = []
        self.ends: list[int] = []
        self.lanes: dict[tuple[int, int], float] = {}
        self.gone: list[int] = []
        self.stop_after: int | None = None

    def begin(self, step: int) -> None:
        pass

    def waited(self, seconds: float) -> None:
        assert seconds >= 0

    def skipped(self, step: int, metrics: Metrics, *, lane: int) -> None:
        self.bad.append(step)

    def diverged(self, error: Exception, *, lane: int) -> None:
        self.gone.append(lane)

    def finished(self, step: int) -> None:
        self.ends.append(step)

    def stop(self, step: int) -> bool:
        return step == self.stop_after

    def log(self, step: int, metrics: Metrics, *, lane: int) -> None:
        self.losses[step] = float(metrics.loss)
        self.lanes[lane, step] = float(metrics.loss)

    def evaluate(self, step: int, state: TrainState) -> None:
        self.evaluated.append(step)

    def save(self, state: TrainState) -> None:
        self.saved.append(int(state.step))


def run(program: Program, hyper: optim.Hyper = HYPER, cadence: Cadence | None = None) -> Recorder:
    hooks = Recorder()
    state = program.init(jax.random.key(0))
    cadence = cadence or Cadence(log=1, evaluate=5, checkpoint=4, skip_limit=3)
    train(program, state, batch, hyper, steps=STEPS, cadence=cadence, hooks=hooks)
    return hooks


@pytest.fixture(scope="module")
def single() -> Recorder:
    return run(program())


def test_training_learns(single: Recorder) -> None:
    assert single.losses[STEPS] < single.losses[1] - 0.3


@pytest.mark.parametrize(
    "axes",
    [
        pytest.param({"data": 8}, marks=pytest.mark.slow),
        pytest.param({"fsdp": 8}, marks=pytest.mark.slow),
        pytest.param({"tensor": 2}, marks=pytest.mark.slow),
        {"context": 4},
        {"data": 2, "fsdp": 2, "tensor": 2},
        {"fsdp": 2, "tensor": 2, "context": 2},
    ],
    ids=str,
)
def test_sharded_training_equals_one_device(single: Recorder, axes: Mapping[str, int]) -> None:
    losses = run(program(**axes)).losses
    np.testing.assert_allclose(list(losses.values()), list(single.losses.values()), rtol=1e-5)


def test_parameters_and_moments_are_really_split() -> None:
    split = program(fsdp=2, tensor=2)
    state = split.init(jax.random.key(0))
    assert state.params["blocks.feedforward.up"].sharding.spec == PartitionSpec(
        None, ("fsdp",), ("tensor",)
    )
    assert state.params["embedding"].sharding.spec == PartitionSpec(("tensor",), ("fsdp",))
    moments = [leaf for leaf in jax.tree.leaves(state.optimizer) if leaf.shape == (2, 24, 40)]
    assert moments
    assert all(leaf.sharding == state.params["blocks.feedforward.up"].sharding for leaf in moments)


def test_hooks_are_called_at_their_steps_and_the_last_state_is_kept(single: Recorder) -> None:
    assert list(single.losses) == list(range(1, STEPS + 1))
    assert single.evaluated == [5, 10, 15]
    assert single.saved == [4, 8, 12, 16, 20]
    assert single.ends == list(range(1, STEPS + 1))


def test_rates_and_budgets_share_one_compilation() -> None:
    shared = program()
    run(shared)
    compiled = shared.compile_seconds
    assert compiled > 0
    run(shared, HYPER._replace(learning_rate=0.01, total_tokens=1e6))
    assert shared.compile_seconds == compiled


def test_a_run_that_diverges_is_stopped_with_its_step_and_is_not_saved() -> None:
    hooks = Recorder()
    split = program()
    state = split.init(jax.random.key(0))
    cadence = Cadence(log=2, evaluate=100, checkpoint=4, skip_limit=3)
    with pytest.raises(
        Diverged,
        match=r"loss (nan|inf).* at step [3-5] \(batch [2-4]\), the last of 3 updates in a row",
    ):
        train(
            split,
            state,
            batch,
            HYPER._replace(learning_rate=jnp.inf),
            steps=STEPS,
            cadence=cadence,
            hooks=hooks,
        )
    assert hooks.saved == []


def test_a_mesh_larger_than_the_machine_is_refused_with_the_numbers() -> None:
    with pytest.raises(ValueError, match=r"needs 16 devices, JAX has 8"):
        make_mesh(data=4, fsdp=2, tensor=2, context=1)


def test_a_batch_that_does_not_divide_is_refused_with_the_numbers() -> None:
    mesh = make_mesh(data=4, fsdp=2, tensor=1, context=1)
    with pytest.raises(
        ValueError, match=r"12 windows .* 8 data-parallel devices; .* multiple of 8"
    ):
        batch_sharding(mesh, windows=12, context=8)


def test_a_mesh_axis_is_used_once_and_a_length_it_does_not_divide_stays_whole() -> None:
    mesh = make_mesh(data=1, fsdp=2, tensor=4, context=1)
    assert sharding(("D", "F"), (24, 40), mesh).spec == PartitionSpec(("fsdp",), ("tensor",))
    assert sharding(("D", "D'"), (24, 24), mesh).spec == PartitionSpec(("fsdp",), None)
    assert sharding(("N", "H"), (3, 10), mesh).spec == PartitionSpec(None, None)


def test_a_batch_cut_into_microbatches_trains_alike(single: Recorder) -> None:
    losses = run(program(microbatches=4, data=2)).losses
    np.testing.assert_allclose(list(losses.values()), list(single.losses.values()), rtol=1e-5)


def test_logits_in_chunks_train_alike(single: Recorder) -> None:
    losses = run(program(chunk_tokens=WINDOWS * 2, data=2)).losses
    np.testing.assert_allclose(list(losses.values()), list(single.losses.values()), rtol=1e-5)


def test_several_steps_of_one_dispatch_train_alike_and_the_rest_one_by_one(
    single: Recorder,
) -> None:
    cadence = Cadence(log=1, evaluate=6, checkpoint=9, skip_limit=3)
    hooks = run(program(dispatch_steps=3), cadence=cadence)
    losses = list(hooks.losses.values())
    np.testing.assert_allclose(losses, list(single.losses.values()), rtol=1e-5)
    assert hooks.ends == [3, 6, 9, 12, 15, 18, 19, 20]
    assert hooks.saved == [9, 18, 20]


def poisoned(step: int) -> dict[str, np.ndarray]:
    """Batches 5 and 6 ask for a token that makes their loss undefined."""
    found = batch(step)
    if step in (5, 6):
        found["weights_BT"] = found["weights_BT"] * np.float32(np.nan)
    return found


@pytest.mark.parametrize("dispatch", [1, 4])
def test_an_update_that_is_not_finite_is_skipped_and_counted(dispatch: int) -> None:
    split, hooks = program(dispatch_steps=dispatch), Recorder()
    cadence = Cadence(log=1, evaluate=100, checkpoint=100, skip_limit=3)
    state = train(
        split, split.init(jax.random.key(0)), poisoned, HYPER, steps=STEPS, cadence=cadence,
        hooks=hooks,
    )  # fmt: skip
    assert hooks.bad == [6, 7]
    assert (int(state.step), int(state.skipped), int(state.skipped_in_row)) == (STEPS, 2, 0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    assert hooks.losses[STEPS] < hooks.losses[1] - 0.2


def test_a_skipped_update_leaves_parameters_and_moments_bitwise_alone() -> None:
    split = program()
    state = split.init(jax.random.key(0))
    state, _ = split.step(state, split.put([batch(0)]), HYPER)
    before = jax.tree.map(np.array, state)
    after, metrics = split.step(state, split.put([poisoned(5)]), HYPER)
    assert bool(metrics.skipped[0])
    jax.tree.map(np.testing.assert_array_equal, before.params, after.params)
    jax.tree.map(np.testing.assert_array_equal, before.optimizer, after.optimizer)


@pytest.mark.parametrize("stop_after", [7, 10], ids=["between", "where it is measured"])
def test_a_run_that_is_told_to_stop_keeps_its_state_and_goes_on_bit_for_bit(
    single: Recorder, stop_after: int
) -> None:
    split, hooks = program(), Recorder()
    hooks.stop_after = stop_after
    cadence = Cadence(log=1, evaluate=5, checkpoint=100, skip_limit=3)
    kept: list[TrainState] = []
    hooks.save = lambda state: kept.append(jax.tree.map(np.array, state))  # type: ignore[method-assign]
    with pytest.raises(Stopped, match=f"after step {stop_after} of 20"):
        train(
            split, split.init(jax.random.key(0)), batch, HYPER, steps=STEPS, cadence=cadence,
            hooks=hooks,
        )  # fmt: skip
    [state] = kept
    assert int(state.step) == stop_after
    placed = jax.tree.map(jax.device_put, state, jax.tree.map(
        lambda leaf: leaf.sharding, split.abstract_state))  # fmt: skip
    hooks.stop_after = None
    train(split, placed, batch, HYPER, steps=STEPS, cadence=cadence, hooks=hooks)
    assert hooks.losses == single.losses
    assert hooks.evaluated == [5, 10, 15]


def test_bfloat16_trains_close_to_float32_on_float32_weights(single: Recorder) -> None:
    split = program(model={"compute_dtype": "bfloat16"})
    hooks = run(split)
    found, wanted = np.array(list(hooks.losses.values())), np.array(list(single.losses.values()))
    np.testing.assert_allclose(found, wanted, rtol=0.05)
    assert (found != wanted).any()
    leaves = jax.tree.leaves(split.abstract_state.params)
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
