"""Runs held out: where a table is cut, and how wrong a law fitted below a cut is about the rest."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaling.analysis.fitted import FitError
from scaling.analysis.forms import Array
from scaling.analysis.frontier import budgets
from scaling.analysis.objective import delta_of
from scaling.analysis.solver import Penalty, Problem
from scaling.runs import Runs

Mask = NDArray[np.bool_]

CUTS = 4
EARLY = 4
"""So many cuts, and so many ways to leave out early runs, are tried where the runs allow them."""
LEAST_TRAINED = 10
"""Fewer runs than these say little about which law is theirs."""
LEAST_JUDGED = 3
"""The error about one run or two may be next to nothing by luck, and its logarithm count most."""
SPREAD = 1.25
"""Runs come in budgets where those of one differ by less than this factor, and budgets by more."""
ERRORS_TO_DROP = 2.0
"""Runs are evidence: to leave some out takes a gain of two standard errors, about p = 0.05."""
STARTS, LEADING, LONG = 60, 8, 400
"""Starts of a fit; how many of their ends go on for how many steps, if no two agree."""
ALIKE = 1e-6
"""Errors of less than one in a million are rounding."""
ABSURD = 5.0
"""A loss wrong by a factor of e^5 counts like any worse."""


class Cut(NamedTuple):
    """Laws are fitted to the runs of at most `flops`, and judged by the others."""

    flops: float
    n_train: int
    n_test: int
    factor: float  # the largest compute over `flops`


class Cuts(NamedTuple):
    """What is trained on and judged by.

    `train` [ways, cuts, runs]: the first way leaves out nothing early, each other what has less
    compute than its entry of `early`, at those cuts where enough is left.
    """

    cuts: tuple[Cut, ...]
    train: Mask
    test: Mask  # [cuts, runs]
    early: tuple[float, ...]


class Trial(NamedTuple):
    """One law with the early runs of one way left out, at every cut.

    `residuals` are of log loss [cuts, runs]; `log_rms` [cuts] is of the held-out ones, and
    `resampled` [samples, cuts] the same when runs are weighed otherwise, in the fit and in the sum.
    """

    way: int
    residuals: Array
    log_rms: Array
    resampled: Array
    converged: bool

    @property
    def log_score(self) -> float:
        """Log of the geometric mean of the errors over the cuts."""
        return float(self.log_rms.mean())

    @property
    def log_scores(self) -> Array:
        """The same of the resamples [samples]."""
        found: Array = self.resampled.mean(axis=1)
        return found


class Tried(NamedTuple):
    """A law fitted to all runs below the cuts; and to those that it is to be fitted to."""

    whole: Trial
    taken: Trial


def cuts_of(runs: Runs, given: Sequence[float] | None = None) -> Cuts:
    """Where to cut the runs, and which early ones to try to do without: see `compare`.

    Raises:
      FitError: a given cut that leaves nothing to fit, or nothing to judge by.
    """
    flops = runs.flops
    if given is None and (len(runs) <= LEAST_TRAINED or np.isnan(flops).any()):
        return _no_cuts(runs)
    steps = budgets_of(runs)
    if given is not None:
        ends = sorted(given, reverse=True)
        for end in ends:
            below = int((flops <= end).sum())
            if below in (0, len(runs)):
                raise FitError(
                    f"the cut at {end:.3g} FLOPs leaves {below} of {len(runs)} runs to fit; the "
                    f"runs have {flops.min():.3g} to {flops.max():.3g}, so cut in between"
                )
    elif steps is not None:
        ends = [float(high) for high in steps[-2::-1, 1]]
    else:
        halvings = math.ceil(math.log2(flops.max() / flops.min()))
        ends = [float(flops.max()) / 2**halving for halving in range(1, halvings + 1)]
    trained = [flops <= end for end in ends]
    if given is None:
        trained = [
            mask for mask in _distinct(trained)
            if _enough(flops, mask, steps) and len(runs) - int(mask.sum()) >= LEAST_JUDGED
        ][:CUTS]  # fmt: skip
    if not trained:
        return _no_cuts(runs)
    found = []
    for mask in trained:
        most, n = float(flops[mask].max()), int(mask.sum())
        found.append(Cut(most, n, len(runs) - n, float(flops.max()) / most))

    if steps is not None:
        firsts = [float(low) for low in steps[1 : 1 + EARLY, 0]]
    else:
        low, high = math.log(flops.min()), math.log(found[-1].flops)
        firsts = [math.exp(low + (high - low) * k / (2 * EARLY)) for k in range(1, EARLY + 1)]
    ways, early = [np.array(trained)], []
    for first in firsts:
        late = [mask & (flops >= first) for mask in trained]
        way = np.array(
            [
                mask if _enough(flops, mask, steps) else whole
                for mask, whole in zip(late, trained, strict=True)
            ]
        )
        if not any(np.array_equal(way, other) for other in ways):
            ways.append(way)
            early.append(float(flops[flops >= first].min()))
    return Cuts(tuple(found), np.array(ways), ~np.array(trained), tuple(early))


def budgets_of(runs: Runs) -> Array | None:
    """Least and most compute of each budget [budgets, 2]; None for runs that do not come in them:
    three to each, within a factor of 1.25, which is less than lies between any two."""
    groups = budgets(runs)
    ends = np.array([(runs.flops[group].min(), runs.flops[group].max()) for group in groups])
    wide = (ends[:, 1] > SPREAD * ends[:, 0]).any()
    close = (ends[1:, 0] < SPREAD * ends[:-1, 1]).any()
    return None if wide or close or 3 * len(groups) > len(runs) else ends


def _no_cuts(runs: Runs) -> Cuts:
    return Cuts((), np.zeros((0, 0, len(runs)), bool), np.zeros((0, len(runs)), bool), ())


def _distinct(masks: Sequence[Mask]) -> list[Mask]:
    """The masks that differ from the one before."""
    return [mask for i, mask in enumerate(masks) if not i or (mask != masks[i - 1]).any()]


def _enough(flops: Array, mask: Mask, steps: Array | None) -> bool:
    """Whether a law can be told from these runs: ten of them, and of two budgets."""
    if int(mask.sum()) < LEAST_TRAINED:
        return False
    if steps is None:
        return True
    lows, highs = steps.T
    return int(np.sum((highs >= flops[mask].min()) & (lows <= flops[mask].max()))) >= 2


def weights_of(runs: Runs, samples: int, seed: int) -> Array:
    """Weights of a Bayesian bootstrap [samples, runs]: of runs, or of series of checkpoints.

    Exponentially distributed (Rubin 1981): no resample is without a run, so that even of ten runs
    every one determines the law.
    """
    of = np.arange(len(runs))
    if runs.series is not None:
        of = np.unique(np.array(runs.series), return_inverse=True)[1].reshape(-1)
    drawn: Array = np.random.default_rng(seed).exponential(size=(samples, int(of.max()) + 1))
    return drawn[:, of]


def try_law(
    problem: Problem, cuts: Cuts, weights: Array, *, delta: float | None, asymmetry: float
) -> Tried:
    """Fit the law below every cut, with and without early runs; see how wrong it is above.

    Only what may be taken is resampled: all runs, and the way with the least error.
    """
    rows = len(problem.target)
    enough = (cuts.train.sum(axis=2) > len(problem.form.names)).all(axis=1)
    ways = [0, *(np.flatnonzero(enough[1:]) + 1).tolist()]
    fits = _fit(problem, cuts.train[ways].reshape(-1, rows), delta, asymmetry)
    shape = len(ways), len(cuts.cuts)
    theta, deltas = fits.theta.reshape(*shape, -1), fits.delta.reshape(shape)
    agreed = fits.agreed.reshape(shape)
    residuals = _residuals(problem, theta)
    log_rms = _log_rms(residuals, cuts.test.astype(np.float64))

    def trial(at: int) -> Trial:
        resampled = [
            _resampled(
                problem,
                theta[at, cut],
                Penalty(float(deltas[at, cut]), asymmetry),
                train=weights * cuts.train[ways[at], cut],
                test=weights * cuts.test[cut],
            )
            for cut in range(len(cuts.cuts))
        ]
        drawn = np.stack(resampled, axis=1)
        return Trial(ways[at], residuals[at], log_rms[at], drawn, bool(agreed[at].all()))

    whole = trial(0)
    best = int(np.argmin(log_rms.mean(axis=1)))
    if best:
        other = trial(best)
        error = float(np.std(whole.log_scores - other.log_scores, ddof=1))
        if whole.log_score - other.log_score > ERRORS_TO_DROP * error:
            return Tried(whole, other)
    return Tried(whole, whole)


class _Fits(NamedTuple):
    theta: Array  # [fits, parameters]
    delta: Array  # [fits]
    agreed: NDArray[np.bool_]  # [fits]: two starts ended there


def _fit(problem: Problem, trained: Mask, delta: float | None, asymmetry: float) -> _Fits:
    """Fit the law to each row of `trained` [fits, runs], from the starts that suit those runs best:
    of the law's own, and of the ends of a search on all runs."""
    own = problem.starts()
    ends = problem.search(own, Penalty(math.inf))
    order = np.argsort(ends.value)
    levels = np.round(np.log(ends.value[order] + ALIKE**2), 4)
    kinds = np.sort(np.unique(levels, return_index=True)[1])[: STARTS // 4]
    pool = np.concatenate([ends.theta[order[kinds]], own])
    # Always as many, so that what is compiled for one table serves the next.
    same_size = np.concatenate([ends.theta[order[np.resize(kinds, STARTS // 4)]], own])
    squares = _residuals(problem, same_size) ** 2
    squares = np.concatenate([squares[: len(kinds)], squares[STARTS // 4 :]])
    first = np.argsort(squares @ trained.T.astype(np.float64), axis=0, kind="stable")[:STARTS].T
    each = first.shape[1]

    weights = trained.astype(np.float64)
    found = problem.solve(
        pool[first.reshape(-1)], Penalty(math.inf), weights=np.repeat(weights, each, axis=0)
    )
    theta = found.theta.reshape(len(trained), each, -1)
    least = found.value.reshape(len(trained), each).argmin(axis=1)

    def one(at: int) -> tuple[Array, float, bool]:
        turn = delta
        if turn is None:
            left = (problem.target - problem.linked(theta[at, least[at]]))[trained[at]]
            turn = delta_of(left, len(left) - theta.shape[-1])
        penalty = Penalty(turn, asymmetry)
        ends = problem.solve(theta[at], penalty, weights=weights[at])
        freedom = int(trained[at].sum()) - theta.shape[-1]
        if not _agreed(ends.value, freedom):
            leading = ends.theta[np.argsort(ends.value)[:LEADING]]
            ends = problem.solve(leading, penalty, weights=weights[at], steps=LONG)
        return ends.theta[np.argmin(ends.value)], turn, _agreed(ends.value, freedom)

    with ThreadPoolExecutor() as threads:
        columns = list(zip(*threads.map(one, range(len(trained))), strict=True))
    return _Fits(*(np.array(column) for column in columns))


def _agreed(values: Array, freedom: int) -> bool:
    """Whether the two least values differ by less than a tenth of the noise variance."""
    least, second = np.sort(values)[:2] + freedom * ALIKE**2
    return bool((second / least - 1) * freedom < 0.1)


def _resampled(
    problem: Problem, theta: Array, penalty: Penalty, *, train: Array, test: Array
) -> Array:
    """Log rms of what was held out under each resample [samples]."""
    ends = problem.solve(np.tile(theta, (len(train), 1)), penalty, weights=train)
    return _log_rms(_residuals(problem, ends.theta), test)


def _residuals(problem: Problem, theta: Array) -> Array:
    """Log loss less log predicted, of parameters [..., parameters]: [..., runs]."""
    predicted = problem.linked(theta.reshape(-1, theta.shape[-1]))
    left = np.nan_to_num(problem.target - predicted, nan=ABSURD)
    return np.clip(left, -ABSURD, ABSURD).reshape(*theta.shape[:-1], -1)


def _log_rms(residuals: Array, weights: Array) -> Array:
    """Log of the root mean square of residuals [..., runs] under weights that broadcast."""
    squares = (weights * residuals**2).sum(axis=-1) / weights.sum(axis=-1)
    found: Array = 0.5 * np.log(np.maximum(squares, ALIKE**2))
    return found
