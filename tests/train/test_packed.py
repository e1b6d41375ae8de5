"""Packed runs: each is its twin trained alone, whatever becomes of the others."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.architecture import LADDER
from scaling.model.parameterization import standard
from scaling.model.transformer import Decoder
from scaling.sizes import Size
from scaling.train import objectives, optim
from scaling.train.loop import Cadence, Diverged, train
from scaling.train.program import Metrics, Program, TrainState
from scaling.train.sharding import MESH_AXES, make_mesh

TINY = Size(
    width=24, depth=2, heads=4, kv_heads=2, head_width=6, feedforward=40, vocabulary=64, context=8
)
RULES = standard(TINY.lengths)
WINDOWS, CONTEXT, STEPS = 4, 8, 50
RATES = (0.002, 0.005, 0.01, 0.02)
RUNS = len(RATES)


def program(packed: int | None, *, optimizer: str = "adamw", **settings: int) -> Program:
    axes = {axis: settings.pop(axis, 1) for axis in MESH_AXES}
    rule = optim.Rule(optimizer=optimizer, schedule_name="wsd", decays=(0.9, 0.95), epsilon=1e-8)
    return Program(
        lambda key: Decoder(TINY, LADDER, RULES, key=key),
        objectives.cross_entropy,
        measure=objectives.cross_entropy,
        rule=rule,
        scale=RULES.scale,
        batch_windows=WINDOWS,
        context=CONTEXT,
        mesh=make_mesh(**axes),
        packed=packed,
        **settings,
    )


def batch_of(run: int, step: int) -> dict[str, np.ndarray]:
    """Every run reads tokens of its own."""
    tokens = np.random.default_rng((run, step)).integers(0, 64, (WINDOWS, CONTEXT), np.int32)
    return {
        "tokens_BT": tokens,
        "targets_BT": (tokens * 7 + 3) % 64,
        "segments_BT": np.zeros_like(tokens),
        "positions_BT": np.broadcast_to(np.arange(CONTEXT, dtype=np.int32), tokens.shape),
        "weights_BT": np.ones(tokens.shape, np.float32),
    }


def packed_batch(step: int) -> dict[str, np.ndarray]:
    each = [batch_of(run, step) for run in range(RUNS)]
    return {name: np.stack([one[name] for one in each]) for name in each[0]}


def hyper(rate: float) -> optim.Hyper:
    values = (rate, rate, 1e-4, 1.0, 100.0, 0.3, float(STEPS * WINDOWS * CONTEXT))
    return optim.Hyper(*map(jnp.float32, values))


def hypers(rates: tuple[float, ...] = RATES) -> optim.Hyper:
    return jax.tree.map(lambda *values: jnp.stack(values), *map(hyper, rates))


class Kept:
    """What the loop reported, and the state at the end."""

    def __init__(self) -> None:
        self.losses: dict[tuple[int, int], float] = {}
        self.gone: dict[int, str] = {}
        self.state: TrainState | None = None

    def begin(self, step: int) -> None:
        return

    def waited(self, seconds: float) -> None:
        return

    def finished(self, step: int) -> None:
        return

    def log(self, step: int, metrics: Metrics, *, lane: int) -> None:
        self.losses[lane, step] = float(metrics.loss)

    def skipped(self, step: int, metrics: Metrics, *, lane: int) -> None:
        return

    def diverged(self, error: Exception, *, lane: int) -> None:
        self.gone[lane] = str(error)

    def evaluate(self, step: int, state: TrainState) -> None:
        return

    def save(self, state: TrainState) -> None:
        self.state = jax.tree.map(np.array, state)

    def stop(self, step: int) -> bool:
        return False


CADENCE = Cadence(log=1, evaluate=1000, checkpoint=1000, skip_limit=3)


def trained(
    shape: Program, keys: jax.Array, batch: Any, values: optim.Hyper, *, steps: int = STEPS
) -> Kept:
    kept = Kept()
    train(shape, shape.init(keys), batch, values, steps=steps, cadence=CADENCE, hooks=kept)
    return kept


KEYS = jax.vmap(jax.random.key)(jnp.arange(RUNS))


@pytest.fixture(scope="module")
def packed() -> Kept:
    return trained(program(RUNS), KEYS, packed_batch, hypers())


def test_each_packed_run_is_its_twin_after_50_steps(packed: Kept) -> None:
    alone = program(None)
    assert packed.state is not None
    for run, rate in enumerate(RATES):
        twin = trained(alone, KEYS[run], lambda step, run=run: batch_of(run, step), hyper(rate))
        assert twin.state is not None
        for step in range(1, STEPS + 1):
            np.testing.assert_allclose(
                packed.losses[run, step], twin.losses[0, step], rtol=1e-4, err_msg=f"{run} {step}"
            )
        assert int(packed.state.step[run]) == int(twin.state.step) == STEPS


@pytest.mark.parametrize(
    "axes",
    [
        pytest.param({"data": 4}, marks=pytest.mark.slow),
        {"data": 2, "fsdp": 2},
        pytest.param({"fsdp": 4}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_packed_and_sharded_runs_have_the_losses_of_packed_ones(
    packed: Kept, axes: Mapping[str, int]
) -> None:
    shape = program(RUNS, **axes)
    found = trained(shape, KEYS, packed_batch, hypers(), steps=20)
    for place, loss in found.losses.items():
        # The schedule is of 50 steps; both have trained the same 20 of them.
        np.testing.assert_allclose(loss, packed.losses[place], rtol=1e-4, err_msg=str(place))
    spec = shape.abstract_state.params["blocks.feedforward.up"].sharding.spec
    assert spec[0] in ("data", ("data",))


@pytest.mark.parametrize("optimizer", [pytest.param("adamw", marks=pytest.mark.slow), "muon"])
def test_a_run_that_diverges_leaves_its_neighbours_bitwise_alone(optimizer: str) -> None:
    shape = program(RUNS, optimizer=optimizer)

    def poisoned(step: int) -> dict[str, np.ndarray]:
        batch = packed_batch(step)
        if step >= 5:
            batch["weights_BT"] = batch["weights_BT"].copy()
            batch["weights_BT"][2] = np.nan
        return batch

    healthy = trained(shape, KEYS, packed_batch, hypers(), steps=20)
    found = trained(shape, KEYS, poisoned, hypers(), steps=20)
    assert list(found.gone) == [2]
    assert "at step 8 (batch 7), the last of 3 updates in a row" in found.gone[2]
    assert max(step for lane, step in found.losses if lane == 2) == 5
    assert found.state is not None
    assert healthy.state is not None
    for name, value in healthy.state.params.items():
        for run in (0, 1, 3):
            np.testing.assert_array_equal(found.state.params[name][run], value[run])
        assert np.isfinite(found.state.params[name][2]).all()


def test_a_pack_whose_runs_all_diverge_is_stopped() -> None:
    def poisoned(step: int) -> dict[str, np.ndarray]:
        batch = packed_batch(step)
        return batch | {"weights_BT": batch["weights_BT"] * np.float32(np.nan)}

    with pytest.raises(Diverged, match="at step 3 "):
        trained(program(RUNS), KEYS, poisoned, hypers())


def test_rates_of_packed_runs_share_one_compilation() -> None:
    shape = program(RUNS)
    trained(shape, KEYS, packed_batch, hypers(), steps=3)
    spent = shape.compile_seconds
    trained(shape, KEYS, packed_batch, hypers((0.1, 0.2, 0.3, 0.4)), steps=3)
    assert shape.compile_seconds == spent


@pytest.mark.parametrize("packed", [None, RUNS])
def test_what_is_compiled_ahead_is_what_runs_need(packed: int | None) -> None:
    ahead, later = program(packed), program(packed)
    batch, told = (
        (batch_of(0, 0), hyper(RATES[0])) if packed is None else (packed_batch(0), hypers())
    )
    key = KEYS[0] if packed is None else KEYS
    with ThreadPoolExecutor(3) as pool:
        ahead.compile_ahead(pool, batch=batch, hyper=told, measured=batch_of(1, 1))
    found = []
    for shape in (ahead, later):
        state, metrics = shape.step(shape.init(key), shape.put([batch]), told)
        totals, _ = shape.evaluate(state.params, [batch_of(1, 1)])
        found.append((metrics.loss, state.params, totals))
    jax.tree.map(np.testing.assert_array_equal, *found)
    assert ahead.compile_seconds < 0.1 * later.compile_seconds


def test_packed_runs_are_measured_on_one_batch_each_with_its_own_weights() -> None:
    shape, alone = program(RUNS), program(None)
    state = shape.init(KEYS)
    totals, weights = shape.evaluate(state.params, [batch_of(0, 0), batch_of(0, 1)])
    assert totals.shape == weights.shape == (RUNS, 2 * WINDOWS)
    for run in range(RUNS):
        params = {name: value[run] for name, value in state.params.items()}
        expected, _ = alone.evaluate(params, [batch_of(0, 0), batch_of(0, 1)])
        np.testing.assert_allclose(totals[run], expected, rtol=1e-5)
