"""The trainer: a pure step over pytrees, and the loop that dispatches it and reads results late."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from scaling.axes import Axes, parse
from scaling.train import optim
from scaling.train.objectives import Loss
from scaling.train.sharding import batch_sharding, sharding

Batch = Mapping[str, np.ndarray]
Objective = Callable[[Array, Mapping[str, Array]], Loss]
INPUTS = ("tokens_BT", "segments_BT", "positions_BT")


class TrainState(NamedTuple):
    """All that a resumed run needs; `step` also says which batch comes next."""

    step: Array
    params: dict[str, Array]
    optimizer: optim.OptimizerState


class Metrics(NamedTuple):
    """What one step reports."""

    loss: Array
    gradient_norm: Array
    multiplier: Array


class Program:
    """The compiled functions of one model shape, shared by every run of that shape.

    `make_model` builds the model from a key; parameters are addressed by dotted names.
    """

    def __init__(
        self,
        make_model: Callable[[Array], nnx.Module],
        objective: Objective,
        *,
        lengths: Mapping[str, int],
        batch_windows: int,
        context: int,
        mesh: Mesh,
    ) -> None:
        graph, abstract = nnx.split(nnx.eval_shape(make_model, jax.random.key(0)), nnx.Param)
        declared = {".".join(map(str, path)): value for path, value in nnx.to_flat_state(abstract)}
        self.axes: dict[str, Axes] = {name: parse(value.axes) for name, value in declared.items()}
        self.batch_tokens = batch_windows * context
        self.compile_seconds = 0.0
        self._directions = optim.directions(self.axes)
        self._replicated = NamedSharding(mesh, PartitionSpec())
        self._batch = batch_sharding(mesh, windows=batch_windows)
        self._compiled: dict[str, Any] = {}

        def letters(name: str) -> tuple[str, ...]:
            stacked = declared[name].get_metadata().get("stacked")
            return ((stacked,) if stacked else ()) + self.axes[name].letters

        self._params = {
            name: sharding(letters(name), value.shape, mesh) for name, value in declared.items()
        }

        def apply(params: dict[str, Array], batch: Mapping[str, Array]) -> Array:
            state = nnx.from_flat_state((tuple(name.split(".")), params[name]) for name in declared)
            return nnx.merge(graph, state)(*(batch[name] for name in INPUTS))

        def init(key: Array) -> TrainState:
            state = nnx.split(make_model(key), nnx.Param)[1]
            flat = {".".join(map(str, path)): v[...] for path, v in nnx.to_flat_state(state)}
            return TrainState(jnp.zeros((), jnp.int32), flat, self._directions.init(flat))

        def mean_loss(params: dict[str, Array], batch: Mapping[str, Array]) -> Array:
            loss = objective(apply(params, batch), batch)
            return loss.total / loss.weight

        def step(
            state: TrainState, batch: Mapping[str, Array], hyper: optim.Hyper
        ) -> tuple[TrainState, Metrics]:
            loss, gradients = jax.value_and_grad(mean_loss)(state.params, batch)
            norm = optax.tree.norm(gradients)
            gradients = optim.clip(gradients, norm=norm, limit=hyper.clip_norm)
            updates, optimizer = self._directions.update(gradients, state.optimizer, state.params)
            # The rate in the middle of the step, so that neither the first nor the last update is
            # zero.
            tokens = (state.step.astype(jnp.float32) + 0.5) * self.batch_tokens
            multiplier = optim.warmup_stable_decay(tokens, hyper)
            params = optim.update(
                state.params,
                updates,
                axes=self.axes,
                lengths=lengths,
                multiplier=multiplier,
                hyper=hyper,
            )
            return TrainState(state.step + 1, params, optimizer), Metrics(loss, norm, multiplier)

        def evaluate(params: dict[str, Array], batch: Mapping[str, Array]) -> tuple[Array, Array]:
            loss = objective(apply(params, batch), batch)
            return loss.total_B, loss.weight_B

        state_shapes = jax.eval_shape(init, jax.random.key(0))
        self._state = jax.tree_util.tree_map_with_path(self._place, state_shapes)
        self.abstract_state: TrainState = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            state_shapes,
            self._state,
        )
        self._init = jax.jit(init, out_shardings=self._state)
        self._step = jax.jit(step, donate_argnums=0, out_shardings=(self._state, self._replicated))
        self._evaluate = jax.jit(evaluate, out_shardings=self._replicated)

    def _place(self, path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        """Optimizer moments live where their parameter does; counters are replicated."""
        names = [str(getattr(key, "key", "")) for key in path]
        owner = next((name for name in names if name in self._params), None)
        if owner is None or len(leaf.shape) != len(self._params[owner].spec):
            return self._replicated
        return self._params[owner]

    def put(self, batch: Batch) -> dict[str, Array]:
        """Move a batch to the devices."""
        return {name: jax.device_put(value, self._batch) for name, value in batch.items()}

    def init(self, key: Array) -> TrainState:
        """Fresh parameters and optimizer state."""
        return self._call("init", self._init, key)

    def step(
        self, state: TrainState, batch: Batch, hyper: optim.Hyper
    ) -> tuple[TrainState, Metrics]:
        """One update; `state` is donated."""
        return self._call("step", self._step, state, self.put(batch), hyper)

    def evaluate(
        self, params: dict[str, Array], batches: Iterable[Batch]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Summed loss and weight of every window of `batches`."""
        sums = [self._call("evaluate", self._evaluate, params, self.put(b)) for b in batches]
        totals, weights = zip(
            *((np.asarray(total), np.asarray(weight)) for total, weight in sums), strict=True
        )
        return np.concatenate(totals), np.concatenate(weights)

    def _call(self, name: str, function: Any, *arguments: Any) -> Any:
        if name not in self._compiled:
            started = time.perf_counter()
            self._compiled[name] = function.lower(*arguments).compile()
            self.compile_seconds += time.perf_counter() - started
        return self._compiled[name](*arguments)


class Cadence(NamedTuple):
    """How often, in steps, a run does what costs time."""

    log: int
    evaluate: int
    checkpoint: int


class Hooks(Protocol):
    """What a run does beside training; the loop calls these and knows nothing of files."""

    def log(self, step: int, metrics: Metrics) -> None:
        """Metrics of the update that finished step number `step` (counted from 1)."""

    def evaluate(self, step: int, state: TrainState) -> None:
        """Measure the state after `step` updates."""

    def save(self, state: TrainState) -> None:
        """Keep the state."""


class Diverged(FloatingPointError):
    """The loss or gradient became infinite or undefined; the message says at which step."""


def train(
    program: Program,
    state: TrainState,
    batch: Callable[[int], Batch],
    hyper: optim.Hyper,
    *,
    steps: int,
    cadence: Cadence,
    hooks: Hooks,
) -> TrainState:
    """Run updates `state.step .. steps`; batch t is asked for by its number.

    Metrics of a step are read only after later steps have been dispatched, so that the devices
    never wait for the host. The state after the last step is kept; measuring it is left to the
    caller.

    Raises:
      Diverged: a loss that was read is not finite.
    """
    pending: list[tuple[int, Metrics]] = []
    for done in range(int(state.step) + 1, steps + 1):
        state, metrics = program.step(state, batch(done - 1), hyper)
        if done % cadence.log == 0 or done == steps:
            pending.append((done, metrics))
        if len(pending) > 1:
            _report(*pending.pop(0), hooks)
        saving = done % cadence.checkpoint == 0 or done == steps
        if saving:
            # A state that diverged is not kept: what is pending is read before it is written.
            while pending:
                _report(*pending.pop(0), hooks)
        if done % cadence.evaluate == 0 and done < steps:
            hooks.evaluate(done, state)
        if saving:
            hooks.save(state)
    return state


def _report(step: int, metrics: Metrics, hooks: Hooks) -> None:
    loss, norm = float(metrics.loss), float(metrics.gradient_norm)
    if not (np.isfinite(loss) and np.isfinite(norm)):
        raise Diverged(f"loss {loss} with gradient norm {norm} at step {step}")
    hooks.log(step, metrics)
