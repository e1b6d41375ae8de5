"""The step and the loop: sharded equals unsharded, divergence is noticed, one compilation."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from scaling.architecture import LADDER, Architecture
from scaling.model.parameterization import standard
from scaling.model.transformer import Decoder
from scaling.sizes import Size
from scaling.train import objectives, optim
from scaling.train.loop import Cadence, Diverged, Metrics, Program, TrainState, train
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


def program(rule: optim.Rule = ADAMW, kind: Architecture = LADDER, **settings: int) -> Program:
    axes = {axis: settings.pop(axis, 1) for axis in MESH_AXES}
    return Program(
        lambda key: Decoder(TINY, kind, RULES, key=key),
        objectives.cross_entropy,
        measure=objectives.cross_entropy,
        rule=rule,
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
        self.stop_after: int | None = None

    def begin(self, step: int) -> None:
        pass

    def waited(self, seconds: float) -> None:
        assert seconds >= 0

    def skipped(self, step: int, metrics: Metrics) -> None:
        self.bad.append(step)

    def finished(self, step: int) -> None:
        self.ends.append(step)

    def stop(self, step: int) -> bool:
        return step == self.stop_after

    def log(self, step: int, metrics: Metrics) -> None:
        self.losses[step] = float(metrics.loss)

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
        {"data": 8},
        {"fsdp": 8},
        {"tensor": 2},
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
