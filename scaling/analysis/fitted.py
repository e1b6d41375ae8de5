"""A fitted law: what law.json holds, and predictions from it."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

from scaling.analysis.forms import Array, Form
from scaling.analysis.rules import LAWS
from scaling.files import encode
from scaling.runs.table import data_frame

SCHEMA = 1
REMEDY = "make one with: scaling fit RUNS"
PARTS_OF_A_BUDGET = {"params", "tokens", "flops", "tokens_per_parameter", "unique_tokens"}
"""A law of these alone has a compute optimum."""
NOTHING_OF = 1e-6
"""Sizes and tokens are searched from here on: far below one, so that a law's optimum is its own."""
BEYOND, POINTS = 10.0, 60
"""A frontier goes so many times beyond the largest compute of the runs, at so many budgets."""
JSON_NAMES = {"optima": "frontier"}
"""What a field is called in law.json."""


class FitError(ValueError):
    """Runs or a file that cannot give a law; the message says what was found and the remedy."""


class Interval(NamedTuple):
    """Lower and upper ends, in the unit of the target."""

    low: Array
    high: Array


class Optimum(NamedTuple):
    """The size and data that a law holds best at a budget, and the loss there."""

    params: Array
    tokens: Array
    loss: Array


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """The compute-optimal curve: arrays [budgets] of FLOPs, size, tokens, their ratio and loss.

    `intervals` holds, for each of the last four, the `level` interval over the refits: of the curve
    itself, while one more run has noise of its own (`Law.predict_interval`).
    """

    flops: Array
    params: Array
    tokens: Array
    tokens_per_parameter: Array
    loss: Array
    intervals: Mapping[str, Interval]
    level: float

    def to_pandas(self) -> Any:
        """A pandas DataFrame, a row for each budget, `NAME_low` and `NAME_high` beside each NAME.

        Raises:
          ImportError: pandas, which nothing here needs, is not installed.
        """
        columns = {"flops": self.flops}
        for name, ends in self.intervals.items():
            columns |= {name: getattr(self, name)}
            columns |= {f"{name}_low": ends.low, f"{name}_high": ends.high}
        return data_frame(columns)


def inputs_of(form: Form, given: Mapping[str, ArrayLike | None]) -> dict[str, Array]:
    """The law's inputs from the columns `given`; flops and tokens_per_parameter follow from params
    and tokens, and tokens that are not said to repeat are unique.

    Raises:
      FitError: an input that is neither given nor follows.
    """
    found = {n: np.asarray(x, np.float64) for n, x in given.items() if x is not None}
    if "params" in found and "tokens" in found:
        found.setdefault("flops", 6 * found["params"] * found["tokens"])
        found.setdefault("tokens_per_parameter", found["tokens"] / found["params"])
    if "tokens" in found:
        found.setdefault("unique_tokens", found["tokens"])
    missing = [name for name in form.inputs if name not in found]
    if missing:
        raise FitError(
            f"{form.name} predicts {form.target} from {', '.join(form.inputs)}; "
            f"{', '.join(missing)} was not given: pass {missing[0]}=..."
        )
    return {name: found[name] for name in form.inputs}


def optimum(form: Form, values: Array, flops: Array) -> Optimum:
    """The minimum of the loss over 6 x params x tokens = flops, for parameters [..., parameters]
    and budgets [...] that broadcast.

    By a search over log params, zoomed in on four times, and the vertex of a parabola through the
    last three points; where the least loss is at an end of the search there is no optimum, and all
    three are NaN.

    Raises:
      FitError: a law that is not of size, data and compute alone.
    """
    if not PARTS_OF_A_BUDGET.issuperset(form.inputs) or form.target != "loss":
        raise FitError(
            f"{form.name} is a law of {', '.join(form.inputs)}: compute alone does not choose "
            "them; use predict"
        )
    flops = np.asarray(flops, np.float64)
    batch = np.broadcast_shapes(values.shape[:-1], flops.shape)
    low = np.full(batch, np.log(NOTHING_OF))
    high = np.broadcast_to(np.log(flops / 6 / NOTHING_OF), batch)
    ends = low, high
    at, step = low, high
    for points in (121, 17, 17, 17):
        x = low + (high - low) * np.linspace(0, 1, points).reshape(-1, *[1] * len(batch))
        losses = _loss_at(form, values, flops, x)
        best = np.argmin(losses, axis=0)[None]
        at = np.take_along_axis(x, best, axis=0)[0]
        step = (high - low) / (points - 1)
        low, high = np.maximum(at - step, ends[0]), np.minimum(at + step, ends[1])
    x = at + step * np.array([-1.0, 0.0, 1.0]).reshape(-1, *[1] * len(batch))
    left, middle, right = _loss_at(form, values, flops, x)
    bend = left - 2 * middle + right
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = np.where(bend > 0, np.clip(0.5 * (left - right) / bend, -1, 1), 0.0)
    inside = (at > ends[0] + 1e-6) & (at < ends[1] - 1e-6)
    log_params = np.where(inside, at + shift * step, np.nan)
    loss = _loss_at(form, values, flops, log_params[None])[0]
    return Optimum(np.exp(log_params), flops / 6 / np.exp(log_params), loss)


def _loss_at(form: Form, values: Array, flops: Array, log_params: Array) -> Array:
    params = np.exp(log_params)
    given = inputs_of(form, {"params": params, "tokens": flops / 6 / params})
    return form.predict(np.broadcast_to(values, (*params.shape, values.shape[-1])), given)


@dataclass(frozen=True, kw_only=True)
class Law:
    """A fitted law: the content of law.json, and predictions from it.

    `params`, `stderr`, `interval_95` are keyed by the law's parameters, in the units of its `Form`;
    the other fields are plain JSON objects as documented with `fit` and `isoflop`; `optima`, the
    `frontier` of law.json, with `scaling.analysis.frontier.frontier`; `comparison`, of a law that
    was chosen among many, with `Comparison.to_json`.
    """

    law: str
    params: Mapping[str, float]
    stderr: Mapping[str, float]
    interval_95: Mapping[str, list[float]]
    objective: Mapping[str, Any]
    n_runs: int
    dropped: list[dict[str, str]]
    convention: Mapping[str, str]
    diagnostics: Mapping[str, Any]
    isoflop: Mapping[str, Any] | None
    optima: Mapping[str, Any] | None
    bootstrap: Mapping[str, Any]
    comparison: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        """In a few words; all of it is in `to_json`."""
        values = ", ".join(f"{name}={value:.5g}" for name, value in self.params.items())
        known = self.diagnostics.get("identifiability", {}).get("verdict", "")
        return f"Law({self.law}: {values}; {self.n_runs} runs{known and f'; {known}'})"

    @property
    def form(self) -> Form:
        """The entry of the table of laws."""
        return LAWS[self.law]

    @property
    def values(self) -> Array:
        """The parameters in the order of `form.names`."""
        return np.array([self.params[name] for name in self.form.names])

    @functools.cached_property
    def samples(self) -> Array:
        """Bootstrap samples of the parameters [samples, parameters]."""
        return np.stack([self.bootstrap["samples"][name] for name in self.form.names], axis=-1)

    @property
    def sha256(self) -> str:
        """Hash of the bytes that `write_json` writes for this law."""
        return hashlib.sha256(encode(self.to_json())).hexdigest()

    @property
    def warnings(self) -> list[str]:
        """What to know before the law is believed."""
        return list(self.diagnostics["warnings"])

    def predict(
        self,
        params: ArrayLike | None = None,
        tokens: ArrayLike | None = None,
        **others: ArrayLike,
    ) -> Array:
        """The target (loss in nats per token) of runs of `params` parameters on `tokens` tokens, or
        of whatever else the law predicts from: `law.predict(width=512, depth=8, tokens=1e10)`.

        Raises:
          FitError: an input of the law is missing, or not a positive number.
        """
        return self.form.predict(self.values, self._given(params, tokens, others))

    def predict_samples(
        self,
        params: ArrayLike | None = None,
        tokens: ArrayLike | None = None,
        **others: ArrayLike,
    ) -> Array:
        """The same of every bootstrap sample [samples, ...]."""
        given = self._given(params, tokens, others)
        shape = np.broadcast_shapes(*(x.shape for x in given.values()))
        samples = self.samples.reshape(len(self.samples), *[1] * len(shape), -1)
        return self.form.predict(samples, given)

    def predict_interval(
        self,
        params: ArrayLike | None = None,
        tokens: ArrayLike | None = None,
        *,
        level: float = 0.9,
        **others: ArrayLike,
    ) -> Interval:
        """The interval that holds the target of one more run with probability `level`.

        Per bootstrap sample: its law's linked prediction plus normal noise of its own residual
        standard deviation. Where the law is near linear in its parameters that is Student's t
        prediction interval.

        Raises:
          FitError: as `predict`; a level that is no share.
        """
        _share(level)
        drawn = self.predict_samples(params, tokens, **others)
        logs = self.form.link == "log"
        linked = np.log(drawn) if logs else drawn
        # Quantiles in place of random draws: the same law always gives the same interval.
        noise = scipy.stats.norm.ppf((np.arange(25) + 0.5) / 25)
        spread = np.array(self.bootstrap["residual_sd"]).reshape(-1, *[1] * (linked.ndim - 1))
        noisy = np.concatenate([linked + spread * z for z in noise])
        low, high = np.quantile(noisy, (0.5 - level / 2, 0.5 + level / 2), axis=0)
        return Interval(np.exp(low), np.exp(high)) if logs else Interval(low, high)

    def optimum(self, flops: ArrayLike) -> Optimum:
        """The compute-optimal size, data and loss at 6 * params * tokens = `flops`; NaN where the
        loss only falls towards one end of the sizes.

        Raises:
          FitError: a compute that is not positive; a law that compute alone does not choose by.
        """
        return optimum(self.form, self.values, _positive("flops", flops))

    def optimum_samples(self, flops: ArrayLike) -> Optimum:
        """The same of every bootstrap sample, arrays [samples, ...]."""
        flops = _positive("flops", flops)
        samples = self.samples.reshape(len(self.samples), *[1] * flops.ndim, -1)
        return optimum(self.form, samples, flops)

    def frontier(self, flops: ArrayLike | None = None, *, level: float = 0.9) -> Frontier:
        """The compute-optimal curve at these budgets, or from the least compute of the runs to ten
        times the largest. Intervals are over the refits that have an optimum.

        Raises:
          FitError: as `optimum`; a level that is no share.
        """
        _share(level)
        if flops is None:
            given = [row["flops"] for row in self.diagnostics["residuals"] if row["flops"]]
            if not given:
                raise FitError("the runs have no compute; say at which FLOPs the frontier is asked")
            flops = np.geomspace(min(given), BEYOND * max(given), POINTS)
        flops = np.atleast_1d(_positive("flops", flops))
        best, drawn = self.optimum(flops), self.optimum_samples(flops)
        ratio = drawn.tokens / drawn.params
        columns = drawn._asdict() | {"tokens_per_parameter": ratio}
        tails = [0.5 - level / 2, 0.5 + level / 2]
        there = np.isfinite(drawn.loss).all(axis=1)
        none = np.full((2, len(flops)), np.nan)
        intervals = {
            name: Interval(*(np.quantile(x[there], tails, axis=0) if there.any() else none))
            for name, x in columns.items()
        }
        return Frontier(
            flops=flops, **best._asdict(), tokens_per_parameter=best.tokens / best.params,
            intervals=intervals, level=level,
        )  # fmt: skip

    def _given(
        self, params: ArrayLike | None, tokens: ArrayLike | None, others: Mapping[str, ArrayLike]
    ) -> dict[str, Array]:
        given = inputs_of(self.form, {"params": params, "tokens": tokens, **others})
        return {name: _positive(name, x) for name, x in given.items()}

    def to_json(self) -> dict[str, Any]:
        """The object to write as law.json."""
        head = {"schema": SCHEMA, "law": self.law, "equation": self.form.equation}
        content = dataclasses.asdict(self)
        return head | {JSON_NAMES.get(name, name): value for name, value in content.items()}

    @classmethod
    def from_json(cls, obj: Mapping[str, Any]) -> "Law":
        """The law that `to_json` wrote; unknown fields are ignored.

        Raises:
          FitError: another schema, an unknown law, or a missing field.
        """
        if not isinstance(obj, Mapping):
            raise FitError(f"found {type(obj).__name__}, not an object; {REMEDY}")
        if obj.get("schema") != SCHEMA or obj.get("law") not in LAWS:
            raise FitError(
                f"found schema {obj.get('schema')!r} and law {obj.get('law')!r}; needs a law.json "
                f"of schema {SCHEMA} with one of {', '.join(LAWS)}; {REMEDY}"
            )
        names = {e.name: JSON_NAMES.get(e.name, e.name) for e in dataclasses.fields(cls)}
        missing = [name for name in names.values() if name not in obj and name != "comparison"]
        if missing:
            raise FitError(f"this law.json lacks {', '.join(missing)}; {REMEDY}")
        law = cls(**{field: obj[name] for field, name in names.items() if name in obj})
        try:
            residuals = [float(entry["residual"]) for entry in law.diagnostics["residuals"]]
            drawn = np.asarray(law.bootstrap["residual_sd"], np.float64)
            numbers = [law.values.astype(np.float64), law.samples.astype(np.float64), drawn]
            whole = all(np.isfinite(array).all() and array.size for array in numbers)
            positive = [
                value for p, value in zip(law.form.parameters, law.values, strict=True) if p.log
            ]
            if not (whole and residuals and min(positive, default=1) >= 0
                    and len(drawn) == len(law.samples)):  # fmt: skip
                raise ValueError("a number is missing, infinite or negative")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FitError(f"this law.json is damaged ({error!r}); {REMEDY}") from error
        return law


def _positive(name: str, given: ArrayLike) -> Array:
    found = np.asarray(given, np.float64)
    wrong = found[~(found > 0)]
    if wrong.size:
        raise FitError(
            f"{name} is {wrong.flat[0]:g}; a law takes its logarithm: give numbers over 0"
        )
    return found


def _share(level: float) -> None:
    if not 0 < level < 1:
        raise FitError(f"level is {level:g}; give a share between 0 and 1, such as 0.9")
