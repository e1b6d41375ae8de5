"""A search goes where its rules say: from home, up the ladder, within its budget, and always so."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from scaling import cli, counts, records, sizes
from scaling.analysis import Law, fit
from scaling.commands import tuning
from scaling.config import ConfigError, default
from scaling.runs import Runs
from scaling.sweep.cells import Cells
from scaling.sweep.prior import MARGIN, Prior
from scaling.sweep.space import Axis, Search, among, between, resolved, rungs_of, times, value_of
from scaling.sweep.tune import NEAR, Score, counts_of, early_places, tune
from scaling.train.loop import Stopped

RATE, VECTOR = "optimizer.learning_rate", "optimizer.vector_learning_rate"
LADDER = [
    {"model.width": 16, "budget.tokens": 60_000},
    {"model.width": 24, "budget.tokens": 120_000},
    {"model.width": 128, "budget.tokens": 500_000},
]


def config_of(**changes: Any) -> ConfigDict:
    config = default()
    for key, value in changes.items():
        config[key] = value
    return config


def search_of(space: dict[str, Axis] | None = None, **changes: Any) -> Search:
    chosen: dict[str, Any] = {"rungs": LADDER, "max_flops": 6e12}
    return Search(space=space or {RATE: times(between(1 / 16, 16))}, **(chosen | changes))


class Bowl:
    """In place of the trainer: a bowl in the logarithm of the rate, its least at `best` times the
    rule; rates from `diverges` on have no loss. It keeps what it has trained, as records do."""

    def __init__(self, *, best: float = 1.0, diverges: float = math.inf, stops: int = 0) -> None:
        self.best, self.diverges, self.stops = best, diverges, stops
        self.trained: Counter[str] = Counter()
        self.kept: dict[str, Score] = {}
        self.flops = 0.0

    def __call__(self, cells: Cells) -> list[Score]:
        return [self._score(cell) for cell in cells.planned]

    def _score(self, cell: Any) -> Score:
        if cell.run_id not in self.kept:
            if self.stops and len(self.trained) == self.stops:
                raise Stopped("as it was told")
            self.trained[cell.run_id] += 1
            self.flops += cell.flops
            multiple = (
                value_of(cell, RATE) / sizes.training(value_of(cell, "model.width")).matrix_rate
            )
            loss = 3 + math.log2(multiple / self.best) ** 2 / 10 + 1e9 / cell.flops
            lost = multiple >= self.diverges
            self.kept[cell.run_id] = Score(
                cell.run_id, None if lost else loss, "loss is not finite" if lost else None
            )
        return self.kept[cell.run_id]


def searched(train: Bowl, search: Search | None = None, **how: Any) -> dict[str, Any]:
    config = how.pop("config", config_of())
    how = {"prior": Prior(config)} | how
    return tune(search or search_of(), config, train=train, **how)


def runs_on(found: dict[str, Any], rung: int) -> list[dict[str, Any]]:
    return [t["runs"][rung] | t for t in found["trials"] if len(t["runs"]) > rung]


@pytest.mark.parametrize("promote", [2, 3, 5])
@pytest.mark.parametrize("max_flops", [4.7e12, 7.1e12, 2.3e13])
def test_the_trials_are_the_most_that_the_budget_pays(promote: int, max_flops: float) -> None:
    """Of which two reach the top where there is a prior: the best, and what it says."""
    search = search_of(promote=promote, max_flops=max_flops)
    rungs = rungs_of(search, config_of())

    def cost(first: int) -> float:
        each = [max(2, first // promote**rung) for rung in range(3)]
        return sum(n * rung.flops for n, rung in zip(each, rungs, strict=True))

    affordable = [n for n in range(2, 2000) if cost(n) <= max_flops]
    assert counts_of(search, rungs, least=2)[0] == max(affordable)
    trained = Bowl()
    found = searched(trained, search)
    assert trained.flops <= max_flops
    assert [rung["trained"] for rung in found["rungs"]] == counts_of(search, rungs, least=2)


def test_a_budget_that_does_not_reach_the_top_is_refused_with_what_would() -> None:
    with pytest.raises(ConfigError, match=r"does not pay for 2 trials on each of 3 rungs"):
        searched(Bowl(), search_of(max_flops=1e12))


def test_the_first_trial_is_what_the_rules_say() -> None:
    asked: list[Any] = []

    def train(cells: Cells) -> list[Score]:
        asked.extend(cells.planned)
        return Bowl()(cells)

    space = {
        RATE: times(between(1 / 16, 16)),
        "batch_tokens": times(among(0.5, 1, 2)),
        "optimizer.weight_decay": among(0.0, 0.01),
        "optimizer.cooldown_fraction": between(0.1, 0.9),
    }
    config = config_of()
    tune(search_of(space), config, train=train, prior=Prior(config))
    own = resolved(config, LADDER[0] | {"seed": 1})
    for key in (*space, VECTOR, "optimizer.warmup_tokens", "budget.tokens"):
        assert value_of(asked[0], key) == pytest.approx(value_of(own, key), rel=1e-12)
    assert [cell.content["seed"] for cell in asked[:3]] == [1, 2, 3]


def test_early_trials_lie_near_home_and_later_ones_anywhere() -> None:
    space = {"a": times(between(1 / 16, 16)), "b": among(1, 2, 4, 8, 16)}
    homes = {"a": space["a"].home(0.01), "b": space["b"].home(16)}
    early = early_places(space, homes, count=300, seed=0)
    assert early[0] == homes == {"a": 4.0, "b": 4}
    assert {place["b"] for place in early} == {3, 4}
    away = [place["a"] - 4 for place in early]
    assert max(map(abs, away)) <= NEAR
    assert min(away) < -0.9 * NEAR
    assert max(away) > 0.9 * NEAR
    found = searched(Bowl(best=12.0))
    sources = [trial["source"] for trial in found["trials"]]
    third = len(sources) // 3
    assert sources == ["rules", *["near"] * (third - 1), *["tpe"] * (len(sources) - third)]


@pytest.mark.parametrize("seed", range(3))
def test_a_prior_that_is_far_off_costs_its_early_trials_alone(seed: int) -> None:
    found = searched(Bowl(best=12.0), seed=seed)
    multiple = found["best"]["overrides"][RATE] / 0.01
    assert abs(math.log2(multiple / 12)) < 1


@pytest.mark.slow
def test_the_search_does_better_than_chance_where_rules_are_right_and_no_prior_is_needed() -> None:
    def regret(**how: Any) -> float:
        losses = [searched(Bowl(best=3.0), seed=seed, **how)["best"]["loss"] for seed in range(12)]
        return float(np.mean(losses)) - 3

    top = search_of(rungs=LADDER[-1:])
    chance = regret(search=top, sampler="random", prior=None)
    assert regret() < chance / 2
    assert regret(prior=None) < chance / 2


def test_multiples_of_the_rules_are_carried_up_the_ladder() -> None:
    space = {RATE: times(between(0.5, 2)), VECTOR: times(between(0.5, 2))}
    found = searched(Bowl(), search_of(space, max_flops=9e12))
    [top] = runs_on(found, 2)[:1]
    for rung, run in zip(LADDER, top["runs"], strict=True):
        rule = sizes.training(rung["model.width"])
        asked = run["overrides"]
        assert {key: asked[key] for key in rung} == rung
        ratios = asked[RATE] / rule.matrix_rate, asked[VECTOR] / rule.vector_rate
        first = top["runs"][0]["overrides"]
        assert ratios == pytest.approx((first[RATE] / 0.01, first[VECTOR] / 0.03))
    assert sizes.training(128).vector_rate < 0.03


def test_the_best_climb_and_one_in_so_many() -> None:
    found = searched(Bowl(best=0.3), prior=None)
    for rung in (0, 1):
        below = sorted(run["runs"][rung]["loss"] for run in runs_on(found, rung))
        above = [run["runs"][rung]["loss"] for run in runs_on(found, rung + 1)]
        assert sorted(above) == below[: len(above)]
        assert len(above) == found["rungs"][rung + 1]["trials"]


def test_what_the_rules_say_climbs_to_the_top_beside_the_best() -> None:
    """However bad it is on the way: small sizes may mislead, and then the rules win at the top."""

    def train(cells: Cells) -> list[Score]:
        wide = cells.planned[0].content["model"]["width"] == 128
        return Bowl(best=1.0 if wide else 14.0)(cells)

    config = config_of()
    found = tune(search_of(), config, train=train, prior=Prior(config))
    assert len(found["trials"][0]["runs"]) == 3
    assert (found["best"]["trial"], found["best"]["source"]) == (1, "rules")
    free = tune(search_of(), config, train=train)
    assert free["best"]["loss"] > found["best"]["loss"] + 0.5
    lost = searched(Bowl(best=0.1, diverges=0.01))
    assert len(lost["trials"][0]["runs"]) == 1


def test_what_diverges_is_told_and_does_not_climb() -> None:
    found = searched(Bowl(best=2.0, diverges=2.0))
    lost = [run for run in runs_on(found, 0) if run["loss"] is None]
    assert lost
    assert {run["reason"] for run in lost} == {"loss is not finite"}
    assert all(len(run["runs"]) == 1 for run in lost)
    assert found["best"]["overrides"][RATE] < 0.02
    json.dumps(found, allow_nan=False)
    assert searched(Bowl(diverges=0.0))["best"] is None


def test_a_best_at_the_edge_is_not_bracketed() -> None:
    inside, beyond = searched(Bowl()), searched(Bowl(best=1000.0))
    assert inside["best"]["bracketed"]
    assert not inside["best"]["warnings"]
    assert not beyond["best"]["bracketed"]
    assert beyond["best"]["warnings"][0].startswith(f"{RATE}=")


@pytest.mark.parametrize("batch", [1, 4])
def test_a_search_that_is_stopped_goes_on_as_if_it_had_not_been(batch: int) -> None:
    whole = searched(Bowl(), batch=batch)
    train = Bowl(stops=7)
    with pytest.raises(Stopped):
        searched(train, batch=batch)
    train.stops = 0
    assert searched(train, batch=batch) == whole
    assert set(train.trained.values()) == {1}


def test_another_seed_is_another_search() -> None:
    assert searched(Bowl(), seed=1)["trials"] != searched(Bowl(), seed=2)["trials"]


@pytest.fixture(scope="module")
def law() -> Law:
    """A law of the loss whose best size grows from width 16 to 128 over the budgets used here."""
    params, tokens = np.meshgrid(np.geomspace(1e4, 1e6, 5), np.geomspace(1e5, 1e7, 5))
    params, tokens = params.ravel(), tokens.ravel()
    loss = 2.0 + 60 / params**0.35 + 200 / tokens**0.36
    names = tuple(f"run-{i}" for i in range(params.size))
    runs = Runs(run_id=names, params=params, tokens=tokens, loss=loss, flops=6 * params * tokens)
    return fit(runs, "chinchilla", bootstrap=10)


def expected(cell: Any) -> float:
    params = counts.parameters(cell.shape.size, cell.shape.architecture).total
    return 2.0 + 60 / params**0.35 + 200 / cell.tokens**0.36


def test_what_is_far_above_the_law_does_not_climb_but_the_best_and_the_rules_do(law: Law) -> None:

    def train(cells: Cells, *, good: Sequence[int]) -> list[Score]:
        return [
            Score(cell.run_id, expected(cell) * (1.0 if cell.content["seed"] in good else 1.2))
            for cell in cells.planned
        ]

    config = config_of()
    search = search_of(max_flops=1.1e13)
    prior = Prior(config, law)
    found = tune(search, config, train=lambda cells: train(cells, good=(3, 5)), prior=prior)
    assert [run["number"] for run in runs_on(found, 1)] == [1, 3, 5]
    assert found["rungs"][1]["trials"] > 3
    barred = [trial for trial in found["trials"] if trial["barred"]]
    assert len(barred) == found["rungs"][1]["trials"] - 3
    assert f"{MARGIN:g} times what the law expects" in barred[0]["barred"]
    hopeless = tune(search, config, train=lambda cells: train(cells, good=()), prior=prior)
    assert [len(runs_on(hopeless, rung)) for rung in (1, 2)] == [1, 1]
    free = tune(search, config, train=lambda cells: train(cells, good=()), prior=Prior(config))
    assert len(runs_on(free, 1)) == free["rungs"][1]["trials"]


def test_a_width_keeps_its_distance_from_the_law(law: Law) -> None:
    widths = (16, 24, 32, 40, 48, 56, 64, 72, 80, 88)
    budgets = (3e10, 3e11, 2e12)
    config = config_of()
    space = {"model.width": among(*widths), RATE: times(between(0.5, 2))}
    search = search_of(space, rungs=[{"budget.flops": x} for x in budgets], max_flops=1.2e13)
    prior = Prior(config, law)
    found = tune(search, config, train=Bowl(), prior=prior)
    homes = [prior.homes(search, rung)["model.width"] for rung in rungs_of(search, config)]
    assert homes[0] < homes[-1]
    for budget, home in zip(budgets, homes, strict=True):
        best = float(law.optimum(budget).params)
        around = [counts.parameters(sizes.size(w, vocabulary=512),
                                    resolved(config, {"budget.flops": budget}).shape.architecture
                                    ).total for w in widths]  # fmt: skip
        assert min(around, key=lambda x: abs(math.log(x / best))) == around[int(home)]
    [top] = runs_on(found, 2)[:1]
    places = [widths.index(run["overrides"]["model.width"]) for run in top["runs"]]
    wanted = [min(max(places[0] + h - homes[0], 0), len(widths) - 1) for h in homes]
    assert places == wanted


def test_a_law_of_rates_stands_in_for_the_rule() -> None:
    params = np.geomspace(1e4, 1e7, 6)
    tokens = params * np.array([10, 40, 20, 80, 15, 30])
    rate = 0.5 * params**-0.3 * tokens**-0.05
    names = tuple(f"run-{i}" for i in range(6))
    none = np.full(6, np.nan)
    runs = Runs(
        run_id=names, params=params, tokens=tokens, loss=none, flops=6 * params * tokens,
        others={"learning_rate": rate},
    )  # fmt: skip
    rates = fit(runs, "learning_rate", bootstrap=10)
    config = config_of()
    space = {RATE: times(between(0.5, 2)), VECTOR: times(between(0.5, 2))}
    search = search_of(space)
    rungs = rungs_of(search, config)
    found = Prior(config, rates=rates).setting(search, rungs, rungs[2], {RATE: 1.0, VECTOR: 2.0})
    cell = resolved(config, LADDER[2])
    law_of_rates = 0.5 * cell.shape.parameters.total**-0.3 * cell.tokens**-0.05
    rule = sizes.training(128)
    assert found[RATE] == pytest.approx(law_of_rates, rel=1e-3)
    assert found[VECTOR] == pytest.approx(
        2 * rule.vector_rate * law_of_rates / rule.matrix_rate, rel=1e-3
    )
    with pytest.raises(ConfigError, match="--law: the law learning_rate gives learning_rate"):
        Prior(config, rates)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: between(1.0, 1.0), "give 0 < low < high"),
        (lambda: among(1), "give two values or more"),
        (lambda: among(1, 2, 1), "each once"),
        (lambda: times(among(0.0, 1.0)), "give numbers > 0"),
        (lambda: search_of(promote=1), "give 2 or more"),
        (lambda: search_of(rungs=[]), "one of each at least"),
        (lambda: search_of(max_flops=0.0), "positive number of FLOPs"),
        (lambda: search_of({"batch_tokens": times(between(0.5, 2))}), "name some with among"),
        (lambda: search_of({"model.width": among(16, 24)}), "give every rung a budget.flops"),
        (lambda: searched(Bowl(), search_of(rungs=LADDER[::-1])), "give the cheapest first"),
        (lambda: searched(Bowl(), search_of(rungs=[{"model.width": 16}])), "needs a budget"),
        (lambda: searched(Bowl(), sampler="grid"), "use one of tpe, random"),
        (
            lambda: searched(Bowl(), search_of({"optimizer.weight_decay": times(among(1, 2))})),
            "0.0 by rule, which has no multiples",
        ),
        (
            lambda: searched(Bowl(), search_of({"budget.tokens": times(among(1, 2))})),
            "budget.tokens is set twice",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused(make: Any, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        make()


STUDY = """
from scaling.config import default, override
from scaling.sweep.space import Search, between, times


def get_config(arg):
    config = default()
    override(config, ["corpus.languages=es", "model.context_tokens=16", "batch_tokens=128",
                      "optimizer.warmup_tokens=512", "runtime.evaluate_every_steps=10",
                      "runtime.evaluate_windows=8", "sweep.packed=2"])
    return config


def get_search(config):
    return Search(
        space={"optimizer.learning_rate": times(between(0.1, 10))},
        rungs=[{"model.width": 16, "budget.flops": 2e8}, {"model.width": 16, "budget.flops": 6e8}],
        max_flops=2.5e9,
    )
"""


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_verb_searches_and_leaves_ordinary_records(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study.py").write_text(STUDY, encoding="utf-8")
    there = ("tune", f"--config={tmp_path / 'study.py'}", f"--workdir={tmp_path / 'work'}")
    assert command(*there) == 0
    said = capfd.readouterr().out
    written = (tmp_path / "work/tune.json").read_bytes()
    found = json.loads(written)
    made = {path.stem: records.read(path) for path in (tmp_path / "work/records").glob("*.json")}
    runs = [run for trial in found["trials"] for run in trial["runs"]]
    assert {run["run_id"]: run["loss"] for run in runs} == {k: r.loss for k, r in made.items()}
    assert len(made) == len(runs) == 8
    assert {record.packed for record in made.values()} == {2}
    assert found["flops"]["trained"] == sum(record.flops_6nd or 0 for record in made.values())
    assert found["flops"]["trained"] <= 2.5e9
    best = found["best"]
    assert best["loss"] == made[best["run_id"]].loss
    for key, value in best["overrides"].items():
        assert f"--config.{key}={value}" in said
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.json")}
    assert command(*there) == 0
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    capfd.readouterr()
    assert command(*there, "--seed=1") == 2
    assert "search; it differs in (there -> here)\n  seed: 0 -> 1" in capfd.readouterr().err
    assert (tmp_path / "work/tune.json").read_bytes() == written
    assert command("status", str(tmp_path / "work")) == 0
    assert "tune.json" in capfd.readouterr().out


def test_without_the_extra_the_verb_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tuning, "EXTRA", "optuna_that_is_absent")
    assert command("tune", "--config=configs/tune.py", f"--workdir={tmp_path / 'x'}") == 2
    assert "pip install 'scaling-laws[search]'" in capfd.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_config_without_a_search_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command("tune", "--config=configs/ladder.py", f"--workdir={tmp_path / 'x'}") == 2
    assert "no get_search(config); configs/tune.py has one" in capfd.readouterr().err
