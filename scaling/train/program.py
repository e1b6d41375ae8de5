"""The compiled step of one model shape: a pure function over pytrees, for one run or for several
packed into one program."""

import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from scaling.axes import Axes, parse
from scaling.model.parameterization import Scale
from scaling.train import optim
from scaling.train.objectives import Loss, Objective, over_chunks
from scaling.train.sharding import batch_sharding, sharding

Batch = Mapping[str, np.ndarray]
IN_FLIGHT = 2
"""Batches that are measured at once: they wait on the devices, never many."""


class TrainState(NamedTuple):
    """All that a resumed run needs; `step` also says which batch comes next.

    Of packed runs every leaf has a leading axis E.
    """

    step: Array
    params: dict[str, Array]
    optimizer: optim.OptimizerState
    skipped: Array
    skipped_in_row: Array


class Metrics(NamedTuple):
    """What one update reports; K updates of one dispatch report arrays [K], packed runs [K, E]."""

    loss: Array
    gradient_norm: Array
    multiplier: Array
    skipped: Array
    skipped_in_row: Array


class Program:
    """The compiled functions of one model shape, shared by every run of that shape.

    `make_model` builds the model from a key; parameters are addressed by dotted names. An update
    takes the mean loss over its batch, whatever the number of `microbatches` it is cut into; with
    `chunk_tokens` the logits of a batch never exist at once.

    With `packed` runs one program trains that many at once: states, batches, hyper-parameters and
    metrics have a leading axis E, and no run sees another. E is split over the data axis where it
    divides, else the windows of every run are.
    """

    def __init__(
        self,
        make_model: Callable[[Array], nnx.Module],
        objective: Objective,
        *,
        measure: Objective,
        rule: optim.Rule,
        scale: Callable[[Axes], Scale],
        batch_windows: int,
        context: int,
        mesh: Mesh,
        microbatches: int = 1,
        chunk_tokens: int | None = None,
        dispatch_steps: int = 1,
        packed: int | None = None,
    ) -> None:
        graph, abstract = nnx.split(nnx.eval_shape(make_model, jax.random.key(0)), nnx.Param)
        declared = {".".join(map(str, path)): value for path, value in nnx.to_flat_state(abstract)}
        self.axes: dict[str, Axes] = {name: parse(value.axes) for name, value in declared.items()}
        self.batch_tokens = batch_windows * context
        self.dispatch_steps = dispatch_steps
        self.packed = packed
        self.compile_seconds = 0.0
        """How long runs have waited for executables."""
        place = functools.partial(batch_sharding, mesh, context=context)
        batch = place(windows=batch_windows, packed=packed)
        if microbatches > 1:
            try:
                place(windows=batch_windows // microbatches, packed=packed)
            except ValueError as error:
                raise ValueError(f"with {microbatches} microbatches, {error}") from error
        self._stack = NamedSharding(mesh, PartitionSpec(None, *batch.spec))
        self._measured = place(windows=batch_windows)
        self._replicated = NamedSharding(mesh, PartitionSpec())
        self.compiled: dict[str, Any] = {}
        """The executables made so far, for those who ask for their memory or their text."""
        self._ahead: dict[str, Future[Any]] = {}
        scales = {name: scale(axes) for name, axes in self.axes.items()}
        directions = rule.directions(self.axes, scales)

        def letters(name: str) -> tuple[str, ...]:
            stacked = declared[name].get_metadata().get("stacked")
            prefix = (*(("E",) if packed else ()), *((stacked,) if stacked else ()))
            return prefix + self.axes[name].letters

        self._params = {
            name: sharding(
                letters(name), ((packed,) if packed else ()) + value.shape, mesh, name=name
            )
            for name, value in declared.items()
        }

        def model(params: Mapping[str, Array]) -> Any:
            state = nnx.from_flat_state((tuple(name.split(".")), params[name]) for name in declared)
            return nnx.merge(graph, state)

        def loss_of(
            objective: Objective, params: dict[str, Array], batch: Mapping[str, Array]
        ) -> Loss:
            built = model(params)
            x_BTD = built.features(batch)
            if chunk_tokens is None:
                return objective(built.logits(x_BTD), batch)
            head = {name: params[name] for name in params if name.split(".")[0] in built.HEAD}

            def logits(weights: Mapping[str, Array], x_BTD: Array) -> Array:
                # What the head does not read takes no part: any array of its shape would do.
                unread = {n: jnp.zeros(v.shape) for n, v in params.items() if n not in weights}
                return model({**unread, **weights}).logits(x_BTD)

            return over_chunks(
                objective,
                logits,
                head,
                x_BTD,
                batch,
                chunk_tokens=chunk_tokens,
            )

        def init(key: Array) -> TrainState:
            state = nnx.split(make_model(key), nnx.Param)[1]
            flat = {".".join(map(str, path)): v[...] for path, v in nnx.to_flat_state(state)}
            zero = jnp.zeros((), jnp.int32)
            return TrainState(zero, flat, directions.init(flat), zero, zero)

        def total(params: dict[str, Array], batch: Mapping[str, Array]) -> tuple[Array, Array]:
            loss = loss_of(objective, params, batch)
            return loss.total, loss.weight

        def gradients_of(
            params: dict[str, Array], batch: Mapping[str, Array]
        ) -> tuple[Array, Array, dict[str, Array]]:
            (loss, weight), gradients = jax.value_and_grad(total, has_aux=True)(params, batch)
            return loss, weight, gradients

        def accumulate(
            params: dict[str, Array], batch: Mapping[str, Array]
        ) -> tuple[Array, Array, dict[str, Array]]:
            if microbatches == 1:
                return gradients_of(params, batch)
            # Every so-many-th window, so that a batch split over devices is cut within each.
            parts = {
                name: jnp.swapaxes(
                    value.reshape(-1, microbatches, *value.shape[1:]), 0, 1
                )
                for name, value in batch.items()
            }  # fmt: skip
            zero = jnp.zeros(())
            start = zero, zero, jax.tree.map(jnp.zeros_like, params)
            sums, _ = jax.lax.scan(
                lambda sums, part: (jax.tree.map(jnp.add, sums, gradients_of(params, part)), None),
                start,
                parts,
            )
            return sums

        def step(
            state: TrainState, batch: Mapping[str, Array], hyper: optim.Hyper
        ) -> tuple[TrainState, Metrics]:
            loss, weight, gradients = accumulate(state.params, batch)
            loss, norm = loss / weight, optax.tree.norm(gradients) / weight
            # The rate in the middle of the step, so that neither the first nor the last update is
            # zero.
            tokens = (state.step.astype(jnp.float32) + 0.5) * self.batch_tokens
            multiplier = rule.schedule(tokens, hyper)
            # From sums over the batch to their mean and, where that is too long, to the limit.
            scale = optim.clip_scale(norm, limit=hyper.clip_norm) / weight
            gradients = jax.tree.map(lambda gradient: gradient * scale, gradients)
            updates, optimizer = directions.update(gradients, state.optimizer, state.params)
            params = rule.update(
                state.params,
                updates,
                axes=self.axes,
                scales=scales,
                multiplier=multiplier,
                hyper=hyper,
            )
            ok = jnp.isfinite(loss) & jnp.isfinite(norm)
            bad = 1 - ok.astype(jnp.int32)
            new = TrainState(
                state.step + 1,
                optim.select(ok, params, state.params),
                optim.select(ok, optimizer, state.optimizer),
                state.skipped + bad,
                (state.skipped_in_row + 1) * bad,
            )
            return new, Metrics(loss, norm, multiplier, ~ok, new.skipped_in_row)

        def steps(
            state: TrainState, batches: Mapping[str, Array], hyper: optim.Hyper
        ) -> tuple[TrainState, Metrics]:
            one = jax.vmap(step) if packed else step
            if next(iter(batches.values())).shape[0] == 1:
                only = {name: value[0] for name, value in batches.items()}
                state, metrics = one(state, only, hyper)
                return state, jax.tree.map(lambda value: value[None], metrics)
            return jax.lax.scan(lambda state, batch: one(state, batch, hyper), state, batches)

        def evaluate(params: dict[str, Array], batch: Mapping[str, Array]) -> tuple[Array, Array]:
            loss = loss_of(measure, params, batch)
            return loss.total_B, loss.weight_B

        if packed:
            # What is measured with is the same for all of them.
            init, evaluate = jax.vmap(init), jax.vmap(evaluate, (0, None))
        key = jax.random.key(0)
        state_shapes = jax.eval_shape(init, jnp.stack([key] * packed) if packed else key)
        self._state = jax.tree_util.tree_map_with_path(self._place, state_shapes)
        self.abstract_state: TrainState = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            state_shapes,
            self._state,
        )
        self._init = jax.jit(init, out_shardings=self._state)
        self._steps = jax.jit(
            steps, donate_argnums=0, out_shardings=(self._state, self._replicated)
        )
        self._evaluate = jax.jit(evaluate, out_shardings=self._replicated)

    def _place(self, path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        """Optimizer moments live where their parameter does; counters are replicated."""
        names = [str(getattr(key, "key", "")) for key in path]
        owner = next((name for name in names if name in self._params), None)
        if owner is None or len(leaf.shape) != len(self._params[owner].spec):
            return self._replicated
        return self._params[owner]

    def compile_ahead(
        self,
        pool: Executor,
        *,
        batch: Batch,
        hyper: optim.Hyper,
        starts: bool = True,
        measured: Batch | None = None,
    ) -> None:
        """Let `pool` compile what runs with such a `batch` and `hyper` need, before they need it:
        `init` where one `starts`, and what measures where there is a batch to be `measured`.

        Whoever needs one of them first waits for it, and is told of an error.
        """
        shapes = functools.partial(jax.tree.map, jax.typeof)
        asked: dict[str, tuple[Any, ...]] = {}
        if starts:
            key = jax.random.key(0)
            asked["init"] = (self._init, jnp.stack([key] * self.packed) if self.packed else key)
        stacked = {
            name: jax.ShapeDtypeStruct(
                (self.dispatch_steps, *value.shape), value.dtype, sharding=self._stack
            )
            for name, value in batch.items()
        }
        asked[f"{self.dispatch_steps} steps"] = (
            self._steps, self.abstract_state, stacked, shapes(hyper),
        )  # fmt: skip
        if measured is not None:
            windows = {
                name: jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=self._measured)
                for name, value in measured.items()
            }
            asked["evaluate"] = (self._evaluate, self.abstract_state.params, windows)
        for name, (function, *arguments) in asked.items():
            if name not in self.compiled and name not in self._ahead:
                self._ahead[name] = pool.submit(_compiled, function, *arguments)

    def init(self, key: Array) -> TrainState:
        """Fresh parameters and optimizer state; of packed runs from keys [E]."""
        return self._call("init", self._init, key)

    def put(self, batches: Sequence[Batch]) -> dict[str, Array]:
        """Stack the batches of one dispatch and move them to the devices."""
        stacked = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
        return {name: _put(value, self._stack) for name, value in stacked.items()}

    def step(
        self, state: TrainState, batches: Mapping[str, Array], hyper: optim.Hyper
    ) -> tuple[TrainState, Metrics]:
        """One update for each batch that was put; `state` is donated."""
        count = next(iter(batches.values())).shape[0]
        return self._call(f"{count} steps", self._steps, state, batches, hyper)

    def evaluate(
        self,
        params: dict[str, Array],
        batches: Iterable[Batch],
        *,
        between: Callable[[], None] = lambda: None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Summed loss and weight of every window of `batches`, [windows] or [E, windows].

        `between` is called after each batch, and may raise.
        """
        sums = []
        for batch in batches:
            placed = {name: _put(value, self._measured) for name, value in batch.items()}
            sums.append(self._call("evaluate", self._evaluate, params, placed))
            # Batches wait on the devices, and with them every process: never many at once.
            jax.block_until_ready(sums[-IN_FLIGHT:][0])
            between()
        totals, weights = zip(
            *((np.asarray(total), np.asarray(weight)) for total, weight in sums), strict=True
        )
        return np.concatenate(totals, axis=-1), np.concatenate(weights, axis=-1)

    def _call(self, name: str, function: Any, *arguments: Any) -> Any:
        if name not in self.compiled:
            started = time.perf_counter()
            ahead = self._ahead.pop(name, None)
            self.compiled[name] = (
                _compiled(function, *arguments) if ahead is None else ahead.result()
            )
            self.compile_seconds += time.perf_counter() - started
        return self.compiled[name](*arguments)


def _compiled(function: Any, *arguments: Any) -> Any:
    return function.lower(*arguments).compile()


def _put(value: np.ndarray, place: NamedSharding) -> Array:
    """Each process gives the part that its own devices hold."""
    if jax.process_count() == 1:
        return jax.device_put(value, place)
    return jax.make_array_from_callback(value.shape, place, lambda index: value[index])
