"""The flag of a run says whether its rates were tuned, and by what."""

import copy
import itertools
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling import config as configs
from scaling.cells import cell_of
from scaling.records import BadTable, write
from scaling.runs import load
from scaling.runs.tuning import SHARED, Scored, flags, group_of
from tests.runs.test_reading import record

LADDER = (0.25, 0.5, 1.0, 2.0)


def plain(*overrides: str, rate: float = 1.0, width: int = 24) -> dict[str, Any]:
    """A resolved config, its rates in multiples of 0.01 and 0.03."""
    made = configs.default()
    configs.override(made, [
        f"model.width={width}", "budget.tokens=100_000", f"optimizer.learning_rate={0.01 * rate}",
        f"optimizer.vector_learning_rate={0.03 * rate}", *overrides,
    ])  # fmt: skip
    return configs.plain(cell_of(made))


BASE = plain()


def tried(rate: float, loss: float | None, status: str = "ok", *, vector: float = 1.0) -> Scored:
    content = copy.deepcopy(BASE)
    content["optimizer"] |= {"learning_rate": rate, "vector_learning_rate": vector}
    return Scored(content, status, loss)


def test_every_part_of_a_config_is_one_that_alternatives_share_or_may_differ_in() -> None:
    may_differ = {"seed", "rates_from", "runtime", "mesh", "study", "sweep"}
    assert {*SHARED, *may_differ} == set(configs.default())


def test_alternatives_differ_in_rates_and_seed_and_in_nothing_that_a_run_is() -> None:
    same = [plain(rate=2.0), plain("seed=7"), plain("runtime.log_every_steps=7")]
    others = [plain(width=32), plain("batch_tokens=1024"), plain("budget.tokens=200_000"),
              plain("optimizer.weight_decay=0.1"), plain("precision=bfloat16"),
              plain("objective.name=masked"), plain("budget.unique_tokens=50_000")]  # fmt: skip
    assert {group_of(one) for one in same} == {group_of(BASE)}
    assert len({group_of(one) for one in [BASE, *others]}) == len(others) + 1
    assert group_of({"model": {"width": 24}}) is None


@given(
    losses=st.lists(
        st.tuples(st.sampled_from(LADDER), st.sampled_from((1.0, 2.0, 3.0)), st.floats(2, 4)),
        min_size=1,
        max_size=16,
    )
)
def test_bracketed_are_the_runs_of_the_best_rates_inside_what_was_tried(losses: Any) -> None:
    found = flags([tried(rate, loss, vector=vector) for rate, vector, loss in losses])
    # Another way: among all pairs, none has a lower mean, and on each side of each rate is another.
    pairs = {(rate, vector) for rate, vector, _ in losses}
    means = {p: statistics.fmean(x for *q, x in losses if tuple(q) == p) for p in pairs}
    for (rate, vector, _), flag in zip(losses, found, strict=True):
        least = all(means[rate, vector] <= mean + 1e-12 for mean in means.values())
        sides = [
            {np.sign(other[i] - own) for other in pairs} - {0}
            for i, own in enumerate((rate, vector))
        ]
        inside = any(sides) and all(not side or len(side) == 2 for side in sides)
        assert flag == "untuned" or (least and inside)
        if (
            least
            and inside
            and sum(mean <= means[rate, vector] + 1e-12 for mean in means.values()) == 1
        ):
            assert flag == "bracketed"


def test_what_diverged_or_was_stopped_was_tried_and_what_failed_was_not() -> None:
    known = [tried(0.5, 3.2), tried(1.0, 3.0)]
    for status, flag in (
        ("diverged", "bracketed"),
        ("stopped", "bracketed"),
        ("failed", "untuned"),
    ):
        assert flags([*known, tried(2.0, None, status)])[:2] == ["untuned", flag]
    # A seed that diverged makes its rates bad.
    assert "bracketed" not in flags([*known, tried(2.0, 3.5), tried(1.0, None, "diverged")])


def test_one_run_and_the_ends_of_what_was_tried_are_untuned() -> None:
    assert flags([tried(1.0, 3.0)]) == ["untuned"]
    rising = [tried(rate, 3 + rate) for rate in LADDER]
    assert flags(rising) == ["untuned"] * 4


def test_a_parameterization_carries_the_rates_of_a_bracketed_base() -> None:
    def of(width: int, depth: int, rate: float, name: str = "mup") -> dict[str, Any]:
        return plain(f"model.depth={depth}", "model.heads=2", "model.feedforward_width=96",
                     f"parameterization.name={name}", "parameterization.base_width=24",
                     "parameterization.base_depth=2", "parameterization.base_head_width=12",
                     "optimizer.warmup_tokens=9000", rate=rate, width=width)  # fmt: skip

    base = [Scored(of(24, 2, rate), "ok", loss) for rate, loss in ((0.5, 3.2), (1, 3.0), (2, 3.1))]
    for content, flag in (
        (of(48, 2, 1), "tuned"),
        (of(48, 4, 1), "untuned"),  # muP says nothing of depth
        (of(48, 4, 1, "completep"), "tuned"),
        (of(48, 2, 2), "untuned"),  # not the best rates of the base
        (plain(width=48), "untuned"),
    ):
        found = flags([*base, Scored(content, "ok", 2.9)])
        assert found == ["untuned", "bracketed", "untuned", flag]
    assert flags([*base[1:], Scored(of(48, 2, 1), "ok", 2.9)])[-1] == "untuned"  # not bracketed


@pytest.mark.parametrize(
    ("source", "tuned", "flag"),
    [("law:ab12", None, "tuned"), ("search:ab12", None, "tuned"), ("rule", None, "untuned"),
     (None, True, "tuned"), ("law:ab12", False, "untuned")],
)  # fmt: skip
def test_a_config_and_a_record_say_that_rates_were_carried(source, tuned, flag) -> None:
    assert flags([Scored(BASE | {"rates_from": source}, "ok", 3.0, tuned)]) == [flag]
    assert flags([Scored({"model": {}}, "ok", 3.0)]) == [None]


def test_a_config_says_where_its_rates_come_from_and_cannot_say_what_is_not_so() -> None:
    ruled = configs.default()
    configs.override(ruled, ["model.width=24", "budget.tokens=100_000"])
    assert cell_of(ruled).rates_from == "rule"
    assert plain(rate=1.0, width=24)["rates_from"] == "rule"
    assert plain("rates_from=rule", rate=2.0)["rates_from"] == "given"
    with pytest.raises(configs.ConfigError, match="rates_from is 'hearsay'; leave it out, or use"):
        plain("rates_from=hearsay")


def test_tables_hold_the_flags_and_can_be_asked_for_what_is_tuned(tmp_path: Path) -> None:
    for number, (width, rate) in enumerate(itertools.product((24, 32, 40), (0.5, 1.0, 2.0))):
        name, loss = f"r{number}", 3 + abs(np.log2(rate)) / 9 - number / 30
        write(record(name, config=plain(rate=rate, width=width), loss=loss), tmp_path)
    write(record("carried", config=plain("rates_from=law:ab12", width=48)), tmp_path)
    runs = load(tmp_path)
    best = np.isin(runs.run_id, ("r1", "r4", "r7"))
    np.testing.assert_array_equal(runs.column("bracketed"), best)
    np.testing.assert_array_equal(runs.column("tuned"), best | (np.array(runs.run_id) == "carried"))
    assert any("marked as not tuned: 6 of 10 runs" in text for text in runs.warnings)
    kept = runs.that_are("bracketed")
    assert kept.run_id == ("r1", "r4", "r7")
    assert [tuple(row) for row in kept.dropped][:2] == [("carried", "not bracketed"),
                                                        ("r0", "not bracketed")]  # fmt: skip
    assert runs.that_are("tuned").run_id == ("carried", "r1", "r4", "r7")
    assert not any("tuned" in text for text in load(tmp_path).that_are("tuned").warnings[1:])


def test_records_that_someone_cut_down_are_read_without_flags(tmp_path: Path) -> None:
    rows = [{"run_id": f"{n}", "params_total": 1e5 * n, "tokens": 1e6, "flops_6nd": 6e11 * n,
             "loss": 3.0 - 0.1 * n, "status": "ok"} for n in range(1, 4)]  # fmt: skip
    path = tmp_path / "runs.json"
    path.write_text(json.dumps(rows))
    runs = load(path)
    assert len(runs) == 3
    assert not {"tuned", "bracketed"} & set(runs.columns)


def test_a_table_in_which_nothing_is_tuned_is_refused_by_that_name(tmp_path: Path) -> None:
    write(record("a"), tmp_path)
    with pytest.raises(BadTable, match="none of the 1 runs is tuned: its cells are not there"):
        load(tmp_path).that_are("tuned")
    write(record("b", config=BASE), tmp_path)
    runs = load(tmp_path)
    # Where nothing is tuned, nothing is to be told apart.
    assert not any("tuned" in text for text in runs.warnings)
    with pytest.raises(BadTable, match="its cells are 0 or empty"):
        runs.that_are("tuned")
