"""The search: Optuna proposes, runs of the smallest size tell, and the best climb the ladder.

1. Proposals are trained on the first rung, as many together as are packed, and told to the sampler;
   a run that diverged, or failed, is told as infinitely bad.
2. The first proposal is the home that rules and laws name (`scaling.sweep.prior`). A third of all,
   `EARLY` at most, are drawn evenly near it: within `NEAR` octaves of a continuous axis, one choice
   of another. From then on the tree-structured Parzen estimator (Bergstra et al. 2011) proposes,
   anywhere: a prior that is wrong costs those few trials. `random` proposes without it.
3. The home climbs to the top whatever it scores: what is found is compared with what was known.
   One in `Search.promote` climbs to the next rung, the best first (successive halving, Jamieson and
   Talwalkar 2016), unless it is over the bar of the law; the best of all climbs
   whatever the law says.
4. The number of trials is the largest that is paid with `Search.max_flops`, whatever diverges.

All follows from the seed and the losses. The records hold these, and nothing else is kept: the same
search again goes the same way, over what is trained already.
"""

import dataclasses
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import optuna
from ml_collections import ConfigDict

from scaling.config import ConfigError, identity, plain
from scaling.sweep.cells import Cells
from scaling.sweep.grid import SEEDS, Overrides, cells
from scaling.sweep.prior import MARGIN, Prior
from scaling.sweep.space import Axis, Rung, Search, rungs_of

SCHEMA = 1
SAMPLERS = ("tpe", "random")
EARLY = 10
NEAR = 2.0
HOME = "rules"
"""Who proposes the home of the search."""


class Score(NamedTuple):
    """What a run came to; without a loss, why."""

    run_id: str
    loss: float | None
    reason: str | None = None


Train = Callable[[Cells], Sequence[Score]]


@dataclass(eq=False)
class Trial:
    """A point of the space, and how it did on each rung that it reached."""

    number: int
    source: str
    places: Mapping[str, float]
    asked: optuna.Trial
    settings: list[Overrides] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    flops: float = 0.0
    bound: float | None = None
    barred: str | None = None

    @property
    def loss(self) -> float:
        """On the highest rung that it reached; infinite where it has none."""
        found = self.scores[-1].loss
        return math.inf if found is None else found

    @property
    def over(self) -> bool:
        """Whether the law says that it is hopeless."""
        return self.bound is not None and self.loss > self.bound


def counts_of(search: Search, rungs: Sequence[Rung], *, least: int = 1) -> list[int]:
    """How many trials each rung gets, `least` or more: the most that `max_flops` pays.

    Raises:
      ConfigError: it does not pay `least` trials on every rung.
    """

    def counts(first: int) -> list[int]:
        return [max(least, first // search.promote**place) for place in range(len(rungs))]

    def cost(first: int) -> float:
        return sum(n * rung.flops for n, rung in zip(counts(first), rungs, strict=True))

    if cost(least) > search.max_flops:
        raise ConfigError(
            f"a search of {search.max_flops:.3g} FLOPs does not pay for {least} trials on each of "
            f"{len(rungs)} rungs, {cost(least):.3g} FLOPs; raise max_flops to that at least"
        )
    low, high = least, 2 * least
    while cost(high) <= search.max_flops:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= search.max_flops else (low, middle)
    if low >= SEEDS:
        raise ConfigError(
            f"a search of {low} trials, and a study has seeds for {SEEDS - 1}; lower --max_flops"
        )
    return counts(low)


class Proposer:
    """Points of the space: first those that the prior names, then Optuna's."""

    def __init__(
        self, space: Mapping[str, Axis], early: Sequence[Mapping[str, float]], *,
        sampler: str, seed: int,
    ) -> None:  # fmt: skip
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._sources = [HOME, *["near"] * (len(early) - 1)] if early else []
        self._sampler = sampler
        self._study = optuna.create_study(
            sampler=optuna.samplers.RandomSampler(seed=seed)
            if sampler == "random"
            else optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(len(early), 1))
        )
        self._distributions: dict[str, optuna.distributions.BaseDistribution] = {
            key: optuna.distributions.FloatDistribution(0.0, axis.end)
            if axis.continuous
            else optuna.distributions.IntDistribution(0, int(axis.end))
            for key, axis in space.items()
        }
        for places in early:
            self._study.enqueue_trial(dict(places))

    def ask(self, count: int) -> list[Trial]:
        """So many points more."""
        found = []
        for _ in range(count):
            asked = self._study.ask(self._distributions)
            early = asked.number < len(self._sources)
            source = self._sources[asked.number] if early else self._sampler
            found.append(Trial(asked.number + 1, source, asked.params, asked))
        return found

    def tell(self, trials: Sequence[Trial]) -> None:
        """How they did."""
        for trial in trials:
            self._study.tell(trial.asked, trial.loss)


def early_places(
    space: Mapping[str, Axis], homes: Mapping[str, float], *, count: int, seed: int
) -> list[dict[str, float]]:
    """The home of the search, and points drawn evenly near it."""
    draw = random.Random(seed)

    def near(axis: Axis, home: float) -> float:
        if axis.continuous:
            return draw.uniform(max(home - NEAR, 0.0), min(home + NEAR, axis.end))
        return draw.randint(max(int(home) - 1, 0), min(int(home) + 1, int(axis.end)))

    drawn = [{key: near(axis, homes[key]) for key, axis in space.items()} for _ in range(count - 1)]
    return [dict(homes), *drawn]


def climbing(trials: Sequence[Trial], count: int) -> list[Trial]:
    """The best of those that were trained on the rung before, at most so many, and the home among
    them; those that the law bars are told so."""
    ranked = sorted((t for t in trials if t.loss < math.inf), key=lambda t: (t.loss, t.number))
    known = [trial for trial in ranked if trial.source == HOME]
    found = ranked[:count]
    if not set(known) <= set(found):
        found = [*found[: count - 1], *known]
    for trial in found:
        if trial.over and trial not in [*ranked[:1], *known]:
            trial.barred = (
                f"loss {trial.loss:.4f} on rung {len(trial.scores)} is over {trial.bound:.4f}, "
                f"{MARGIN:g} times what the law expects"
            )
    return [trial for trial in found if trial.barred is None]


def tune(
    search: Search,
    config: ConfigDict,
    *,
    train: Train,
    prior: Prior | None = None,
    sampler: str = "tpe",
    seed: int = 0,
    batch: int = 1,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Search, and return the object of tune.json: the best, and all that was tried.

    `train` trains cells and tells their scores in order; each is an ordinary run, with a seed of
    its own. Without a `prior` every proposal is the sampler's, and multiples are of the rules.

    Raises:
      ConfigError: an unknown sampler, a space, ladder or budget that cannot be searched.
    """
    if sampler not in SAMPLERS:
        raise ConfigError(f"sampler is {sampler!r}; use one of {', '.join(SAMPLERS)}")
    rungs = rungs_of(search, config)
    carrier = prior or Prior(config)
    early: list[dict[str, float]] = []
    counts = counts_of(search, rungs, least=1 if prior is None or sampler == "random" else 2)
    if prior is not None and sampler != "random":
        homes = prior.homes(search, rungs[0])
        early = early_places(
            search.space, homes, count=min(max(counts[0] // 3, 1), EARLY), seed=seed
        )
    proposer = Proposer(search.space, early, sampler=sampler, seed=seed)

    def climb(trials: Sequence[Trial], rung: Rung) -> None:
        if not trials:
            return
        for trial in trials:
            trial.settings.append(carrier.setting(search, rungs, rung, trial.places))
        seeded = [{**t.settings[-1], "seed": config.seed * SEEDS + t.number} for t in trials]
        runs = cells(config, seeded)
        for trial, cell, score in zip(trials, runs.planned, train(runs), strict=True):
            trial.scores.append(score)
            trial.flops += float(cell.tokens * cell.shape.flops_6nd_per_token)
            trial.bound = carrier.bound(cell)

    trials: list[Trial] = []
    going = trials
    for place, (rung, count) in enumerate(zip(rungs, counts, strict=True), 1):
        said = ", ".join(f"{key}={value!r}" for key, value in rung.overrides.items())
        say(f"rung {place} of {len(rungs)} ({said}): {count} trials of {rung.flops:.3g} FLOPs")
        if place > 1:
            going = climbing(going, count)
            climb(going, rung)
        while place == 1 and len(trials) < count:
            asked = proposer.ask(min(batch, count - len(trials)))
            climb(asked, rung)
            proposer.tell(asked)
            trials += asked
    best = min(going, key=lambda t: (t.loss, t.number), default=None)
    planned = sum(n * rung.flops for n, rung in zip(counts, rungs, strict=True))
    return {
        "schema": SCHEMA,
        "search": described(search, config, prior=prior, sampler=sampler, seed=seed, batch=batch),
        "best": None if best is None or best.loss == math.inf else _best(search, best),
        "flops": {"planned": planned, "trained": sum(trial.flops for trial in trials)},
        "rungs": [
            {"overrides": dict(rung.overrides), "flops": rung.flops, "trials": count,
             "trained": sum(len(trial.scores) >= place for trial in trials)}
            for place, (rung, count) in enumerate(zip(rungs, counts, strict=True), 1)
        ],
        "trials": [
            {"number": trial.number, "source": trial.source, "barred": trial.barred,
             "runs": [{**score._asdict(), "overrides": dict(overrides)}
                      for score, overrides in zip(trial.scores, trial.settings, strict=True)]}
            for trial in trials
        ],
    }  # fmt: skip


def described(
    search: Search, config: ConfigDict, *, prior: Prior | None, sampler: str, seed: int, batch: int
) -> dict[str, Any]:
    """What a search is: two with the same description, over the same records, end alike."""
    laws = {"law": prior and prior.loss, "rates": prior and prior.rates}
    return {
        "space": {key: dataclasses.asdict(axis) for key, axis in search.space.items()},
        "rungs": [dict(rung) for rung in search.rungs],
        "max_flops": search.max_flops,
        "promote": search.promote,
        "sampler": sampler,
        "prior": prior is not None and sampler != "random",
        **{key: law and law.sha256 for key, law in laws.items()},
        "seed": seed,
        "batch": batch,
        "config": identity(plain(config)),
    }


def _best(search: Search, trial: Trial) -> dict[str, Any]:
    overrides = trial.settings[-1]
    edges = [
        key for key, axis in search.space.items()
        if axis.at_edge(trial.places[key] if axis.continuous or axis.relative
                        else axis.values.index(overrides[key]))
    ]  # fmt: skip
    return {
        "trial": trial.number,
        "source": trial.source,
        "run_id": trial.scores[-1].run_id,
        "loss": trial.loss,
        "overrides": dict(overrides),
        "bracketed": not edges,
        "warnings": [
            f"{key}={overrides[key]!r} lies at the edge of what was searched: the best is not "
            "bracketed; widen its range"
            for key in edges
        ],
    }
