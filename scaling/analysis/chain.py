"""Two laws in a chain: size and data give a loss, and the loss gives what a task scores."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

from scaling.analysis.fitted import FitError, Interval, Law, inputs_of, optimum
from scaling.analysis.forms import Array

LOSSES = (1e-6, 1e6)
"""A score is looked for between these losses, in the unit of the law's input."""
BUDGETS = (1.0, 1e40)
"""A loss is looked for between these FLOPs."""
HALVINGS = 60
NOISES = 25
"""Draws of the noise of a run for each sample of the laws."""
LAST = 10
"""Evaluations at the end of a run that tell the noise of its checkpoints."""


class Estimate(NamedTuple):
    """A value and its interval; NaN where there is none."""

    value: float
    low: float
    high: float


class Reach(NamedTuple):
    """What it takes to score `score`: NaN where the laws say that nothing does.

    `reached` is the share of the bootstrap samples of the chain in which something does; the
    intervals are of those.
    """

    score: float
    loss: Estimate
    flops: Estimate
    params: Estimate
    tokens: Estimate
    reached: float


class Verdict(NamedTuple):
    """Whether a task's score can be foretold at a run; see `Chain.verdict`.

    `held` says whether the run, once measured, scored within the interval and its noise, None
    before that; `error_over_noise` is its distance from the prediction in deviations of a
    checkpoint.
    """

    predictable: bool
    predicted: Estimate
    known: float
    noise: float
    doubt: float
    held: bool | None
    error_over_noise: float | None
    text: str


@dataclass(frozen=True)
class Chain:
    """`loss` is a law of a loss (or of bits per byte of a task's answers) from size and data,
    `task` a law of one input, that loss: such as `accuracy` or `error` of `scaling.analysis.rules`.

    Bhagia et al. 2024 (OLMo ladder), sections 3.1 to 3.3; Gadre et al. 2024, section 3.4. Bootstrap
    sample i of the one law goes through sample i of the other: where both were fitted to the same
    runs with the same seed and both drew whole series, that keeps what their errors have in common.

    Raises:
      FitError: the second law is of something else than one loss.
    """

    loss: Law
    task: Law

    def __post_init__(self) -> None:
        if len(self.task.form.inputs) != 1:
            raise FitError(
                f"{self.task.law} is a law of {', '.join(self.task.form.inputs)}; the second law "
                "of a chain takes one loss: fit accuracy or error"
            )

    def predict(
        self,
        params: ArrayLike | None = None,
        tokens: ArrayLike | None = None,
        **others: ArrayLike,
    ) -> Array:
        """The score of runs of `params` parameters on `tokens` tokens."""
        return self._score(self.task.values, self.loss.predict(params, tokens, **others))

    def predict_samples(
        self,
        params: ArrayLike | None = None,
        tokens: ArrayLike | None = None,
        **others: ArrayLike,
    ) -> Array:
        """The same of every pair of bootstrap samples [samples, ...]."""
        losses = self.loss.predict_samples(params, tokens, **others)[: self._count]
        return self._score(self._samples(self.task, losses.ndim - 1), losses)

    def predict_interval(
        self,
        params: ArrayLike | None = None,
        tokens: ArrayLike | None = None,
        *,
        level: float = 0.9,
        **others: ArrayLike,
    ) -> Interval:
        """The interval that holds the score of one more run with probability `level`.

        Per pair of samples: the first law's linked prediction plus normal noise of its residual
        deviation, put through the second law, plus normal noise of that one's. So an error of the
        loss is carried to the score by the slope of the task's law, and a score near its floor or
        its ceiling is sure although the loss is not.
        """
        losses = self.loss.predict_samples(params, tokens, **others)[: self._count]
        rank = losses.ndim - 1
        values = self._samples(self.task, rank)
        # The same draws for every prediction: the same chain always gives the same interval.
        rng = np.random.default_rng(0)
        drawn = []
        for _ in range(NOISES):
            noisy = self._noisy(self.loss, losses, rng)
            drawn.append(self._noisy(self.task, self._score(values, noisy), rng))
        tails = (0.5 - level / 2, 0.5 + level / 2)
        low, high = np.quantile(np.concatenate(drawn), tails, axis=0)
        return Interval(low, high)

    def loss_for(self, score: float) -> Array:
        """The loss that gives a score [1 + samples]: the laws' own first, then of their samples.

        NaN where no loss does. The task's law must rise or fall throughout.
        """
        values = np.concatenate([self.task.values[None], self._samples(self.task, 0)])

        def above(log_loss: Array) -> Array:
            return self._score(values, np.exp(log_loss)) - score

        return np.exp(_root(above, LOSSES, len(values)))

    def reach(
        self,
        score: float,
        *,
        tokens_per_parameter: float | None = None,
        level: float = 0.9,
    ) -> Reach:
        """The cheapest size and tokens that score `score`: the inverse of `predict`.

        Along the compute optimum of the first law, or at a fixed `tokens_per_parameter`. The
        intervals are of the laws' parameters; that the chain's own best guess scores it means that
        about half of such runs do.

        Raises:
          FitError: the first law is not of size, data and compute alone.
        """
        losses = self.loss_for(score)
        values = np.concatenate([self.loss.values[None], self._samples(self.loss, 0)])

        def best(flops: Array) -> tuple[Array, Array, Array]:
            if tokens_per_parameter is None:
                return optimum(self.loss.form, values, flops)
            params = np.sqrt(flops / 6 / tokens_per_parameter)
            tokens = params * tokens_per_parameter
            given = inputs_of(self.loss.form, {"params": params, "tokens": tokens})
            return params, tokens, self.loss.form.predict(values, given)

        def above(log_flops: Array) -> Array:
            found: Array = best(np.exp(log_flops))[2] - losses
            return found

        flops = np.exp(_root(above, BUDGETS, len(values)))
        found = np.isfinite(flops)
        params, tokens, _ = best(np.where(found, flops, 1.0))
        return Reach(
            score=score,
            loss=_estimate(losses, level),
            flops=_estimate(flops, level),
            params=_estimate(np.where(found, params, np.nan), level),
            tokens=_estimate(np.where(found, tokens, np.nan), level),
            reached=float(np.mean(found[1:])),
        )

    def verdict(
        self,
        evaluations: Sequence[float] | Array,
        params: ArrayLike,
        tokens: ArrayLike,
        *,
        measured: float | None = None,
        level: float = 0.9,
        **others: ArrayLike,
    ) -> Verdict:
        """Whether the task's score is predictable at a larger run.

        `evaluations` are scores of the largest run fitted, in the order of its checkpoints: it
        stands at the mean of the last five, and `checkpoint_noise` is the deviation of the last ten
        from their own straight line.

        The rule: a task is predictable where the foretold change from what that run stands at is
        larger than the doubt about it. doubt^2 = w^2 + (z noise)^2, w being how far
        `predict_interval` at `level` reaches from the prediction to that side (it is often skewed),
        z the normal quantile of that level. Otherwise the prediction says no more than that the
        larger run will score about as the last one. Once the run is `measured`, the prediction held
        if it is off by no more than the same of the side where the run came out.
        """
        scores = np.asarray(evaluations, np.float64)
        noise, known = checkpoint_noise(scores), float(scores[-5:].mean())
        value = float(self.predict(params, tokens, **others))
        low, high = self.predict_interval(params, tokens, level=level, **others)
        spread = float(norm.ppf(0.5 + level / 2)) * noise

        def towards(score: float) -> float:
            return math.hypot(float(high) - value if score > value else value - float(low), spread)

        doubt = towards(known)
        predictable = abs(value - known) > doubt
        text = (
            f"{'predictable' if predictable else 'not predictable'}: from {known:.3f} to "
            f"{value:.3f}, give or take {doubt:.3f} (checkpoint noise {noise:.3f})"
        )
        held = over = None
        if measured is not None:
            off = abs(value - measured)
            held, over = off <= towards(measured), off / max(noise, 1e-12)
            text += f"; {'held' if held else 'missed'}: measured {measured:.3f}"
        estimate = Estimate(value, float(low), float(high))
        return Verdict(predictable, estimate, known, noise, doubt, held, over, text)

    @property
    def _count(self) -> int:
        return min(len(self.loss.samples), len(self.task.samples))

    def _samples(self, law: Law, rank: int) -> Array:
        samples = law.samples[: self._count]
        return samples.reshape(self._count, *[1] * rank, samples.shape[-1])

    def _noisy(self, law: Law, values: Array, rng: np.random.Generator) -> Array:
        spread = np.array(law.bootstrap["residual_sd"])[: self._count]
        noise = spread.reshape(-1, *[1] * (values.ndim - 1)) * rng.standard_normal(values.shape)
        return values * np.exp(noise) if law.form.link == "log" else values + noise

    def _score(self, values: Array, losses: Array) -> Array:
        form = self.task.form
        return form.predict(values, {form.inputs[0]: losses})


def checkpoint_noise(evaluations: Array, *, last: int = LAST) -> float:
    """The deviation of the last evaluations of a run from their own straight line.

    The line takes out what the run still learns, so that the noise of a checkpoint is left; Bhagia
    et al. 2024, section 4.3, take the plain deviation of the last ten.

    Raises:
      FitError: fewer than three evaluations.
    """
    if len(evaluations) < 3:
        raise FitError(
            f"{len(evaluations)} evaluations tell nothing of the noise of a checkpoint; give at "
            f"least 3, better {last}, of the end of one run"
        )
    tail = np.asarray(evaluations[-last:], np.float64)
    x = np.arange(len(tail)) - (len(tail) - 1) / 2
    left = tail - tail.mean() - x * (x @ tail) / (x @ x)
    return math.sqrt(float(left @ left) / (len(tail) - 2))


def _root(above: Callable[[Array], Array], ends: tuple[float, float], count: int) -> Array:
    """Logs between those of `ends` at which `above` [count] changes its sign; NaN where it does
    not."""
    low, high = (np.full(count, math.log(end)) for end in ends)
    first, last = above(low), above(high)
    crosses = (first > 0) != (last > 0)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        right = (above(middle) > 0) == (last > 0)
        low, high = np.where(right, low, middle), np.where(right, middle, high)
    return np.where(crosses & np.isfinite(first + last), (low + high) / 2, np.nan)


def _estimate(drawn: Array, level: float) -> Estimate:
    samples = drawn[1:][np.isfinite(drawn[1:])]
    low, high = (math.nan, math.nan)
    if len(samples):
        low, high = np.quantile(samples, (0.5 - level / 2, 0.5 + level / 2))
    return Estimate(float(drawn[0]), float(low), float(high))
