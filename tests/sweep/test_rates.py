"""Rates that were tuned are carried to every size, and each cell says by what."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from scaling import config as configs
from scaling import sizes
from scaling.analysis import fit
from scaling.cells import cell_of
from scaling.config import ConfigError
from scaling.files import write_json
from scaling.runs import Runs
from scaling.runs.tuning import declared
from scaling.sweep.cells import Cell
from scaling.sweep.grid import cells, param, prod
from scaling.sweep.rates import carried
from scaling.sweep.study import planned_cell

WIDTHS = param("model.width", (24, 40, 128))


def study(*overrides: str) -> ConfigDict:
    made = configs.default()
    configs.override(made, ["budget.flops=1e12", *overrides])
    return made


def rates(cell: Cell) -> tuple[float, float]:
    optimizer = cell.content["optimizer"]
    return optimizer["learning_rate"], optimizer["vector_learning_rate"]


def by_hand(cell: Cell) -> float:
    """The law of the file, written again."""
    return float(0.5 * cell.shape.parameters.total**-0.3 * cell.tokens**-0.05)


@pytest.fixture(scope="module")
def law(tmp_path_factory: pytest.TempPathFactory) -> Path:
    n, d = (np.repeat([1e4, 1e5, 1e6, 1e7], 4), np.tile([1e6, 1e7, 1e8, 1e9], 4))
    runs = Runs(run_id=tuple(map(str, range(16))), params=n, tokens=d, flops=6 * n * d,
                loss=np.full(16, np.nan),
                others={"learning_rate": 0.5 * n**-0.3 * d**-0.05})  # fmt: skip
    found = fit(runs, "learning_rate", bootstrap=10)
    return write_json(tmp_path_factory.mktemp("law") / "law.json", found.to_json())


def test_a_law_gives_every_size_and_budget_its_rate(law: Path) -> None:
    grid = cells(
        study(f"study.rates_from={law}"), prod(WIDTHS, param("budget.flops", (1e11, 1e12)))
    )
    digest = hashlib.sha256(law.read_bytes()).hexdigest()[:12]
    assert len({rates(cell)[0] for cell in grid.planned}) == 6
    for cell in grid.planned:
        rule = sizes.training(cell.content["model"]["width"])
        first, second = rates(cell)
        assert first == pytest.approx(by_hand(cell), rel=1e-3)
        assert second / first == pytest.approx(rule.vector_rate / rule.matrix_rate)
        assert cell.content["rates_from"] == f"law:{digest}"
        assert declared(cell.content)


def test_an_optimizer_without_a_rule_takes_the_law_as_it_is(law: Path) -> None:
    grid = cells(study(f"study.rates_from={law}", "optimizer.name=adamw"), WIDTHS)
    for cell in grid.planned:
        assert rates(cell) == pytest.approx([by_hand(cell)] * 2, rel=1e-3)


def test_a_single_run_and_a_planned_one_are_carried_as_a_cell_is(law: Path) -> None:
    config = study(f"study.rates_from={law}", "model.width=40", "seed=3")
    [cell] = cells(config, [{"seed": 3}]).planned
    assert cell_of(carried(config)).to_dict() == cell.config.to_dict()
    planned = planned_cell(config, {"overrides": {"model.width": 40, "budget.flops": 1e12}})
    assert planned.optimizer.learning_rate == rates(cell)[0]
    untouched = study()
    assert carried(untouched) is untouched


def test_the_source_of_rates_makes_no_other_run(law: Path) -> None:
    [carried_cell] = cells(study(f"study.rates_from={law}"), [{"seed": 1}]).planned
    first, second = rates(carried_cell)
    [given] = cells(study(), [{"seed": 1, "optimizer.learning_rate": first,
                               "optimizer.vector_learning_rate": second}]).planned  # fmt: skip
    assert given.run_id == carried_cell.run_id
    assert given.content["rates_from"] == "given"


def searched(path: Path, **changes: Any) -> Path:
    """A tune.json whose best trial has 4 and 0.5 times the rule's rates, at width 128."""
    rule = sizes.training(128)
    best = {
        "overrides": {"model.width": 128, "budget.tokens": 4_000_000, "optimizer.weight_decay": 0.1,
                      "optimizer.learning_rate": 4 * rule.matrix_rate,
                      "optimizer.vector_learning_rate": 0.5 * rule.vector_rate},
        "warnings": ["optimizer.weight_decay=0.1 lies at the edge of what was searched"],
    } | changes  # fmt: skip
    content = {"best": best, "search": {"config": configs.plain(study())}, "trials": []}
    return write_json(path / "tune.json", content)


def test_a_search_gives_every_size_the_multiples_of_its_best_trial(tmp_path: Path) -> None:
    grid = cells(study(f"study.rates_from={searched(tmp_path)}"), param("model.width", (40, 256)))
    for cell in grid.planned:
        rule = sizes.training(cell.content["model"]["width"])
        assert rates(cell) == pytest.approx([4 * rule.matrix_rate, 0.5 * rule.vector_rate])
        assert cell.content["rates_from"].startswith("search:")
        assert cell.content["optimizer"]["weight_decay"] == 0  # for the config to say


def tune_at_an_edge(folder: Path) -> Path:
    text = "optimizer.learning_rate=0.16 lies at the edge of what was searched: widen its range"
    return searched(folder, warnings=[text])


def of_the_loss(folder: Path) -> Path:
    n, d = (np.repeat([1e4, 1e5, 1e6, 1e7], 4), np.tile([1e6, 1e7, 1e8, 1e9], 4))
    runs = Runs(run_id=tuple(map(str, range(16))), params=n, tokens=d, flops=6 * n * d,
                loss=2 + 400 / n**0.34 + 400 / d**0.28)  # fmt: skip
    return write_json(folder / "law.json", fit(runs, "chinchilla", bootstrap=10).to_json())


@pytest.mark.parametrize(
    ("source", "overrides", "complaint"),
    [
        (searched, ["optimizer.name=adamw"], "a search with optimizer.name=muon, found adamw"),
        (searched, ["objective.name=masked"], "with objective.name=causal, found masked"),
        (searched, ["optimizer.learning_rate=0.1"], "learning_rate is set, and .* sets it too"),
        (tune_at_an_edge, [], "learning_rate=0.16 lies at the edge .* is not tuned"),
        (of_the_loss, [], "the law chinchilla gives loss from params, tokens; needed is a law"),
        (lambda folder: folder / "no.json", [], "no.json cannot be read"),
        (None, ["parameterization.name=mup", "parameterization.base_width=24"],
         "carries rates already; use one of them"),
    ],
)  # fmt: skip
def test_what_does_not_carry_rates_is_refused(
    law: Path, tmp_path: Path, source: Callable[[Path], Path] | None, overrides: list[str],
    complaint: str,
) -> None:  # fmt: skip
    path = law if source is None else source(tmp_path)
    with pytest.raises(ConfigError, match=complaint):
        cells(study(f"study.rates_from={path}", *overrides), WIDTHS)


def test_a_grid_that_varies_rates_is_not_carried_too(law: Path) -> None:
    grid = param("optimizer.vector_learning_rate", (0.01, 0.02))
    with pytest.raises(ConfigError, match=r"vector_learning_rate is set, and study\.rates_from"):
        cells(study(f"study.rates_from={law}"), grid)


def test_a_file_that_is_no_law_is_told(tmp_path: Path) -> None:
    path = tmp_path / "law.json"
    path.write_text(json.dumps({"trials": []}))
    with pytest.raises(ValueError, match=r"law"):
        cells(study(f"study.rates_from={path}"), WIDTHS)
