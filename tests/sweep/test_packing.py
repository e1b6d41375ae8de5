"""How many cells train at once is what was measured to be best, and all processes hold to it."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.sweep.cells import Cell, Cells
from scaling.sweep.measure import Updates
from scaling.sweep.packing import (
    FACTOR,
    GAIN,
    MEMORY,
    Choice,
    Tried,
    choose,
    choose_all,
    read_packing,
    undecided,
    write_packing,
)
from scaling.sweep.tasks import Pack, evenly, tasks_of
from scaling.sweep.workdir import WorkdirError
from scaling.train.loop import Stopped
from scaling.workshop import Workshop
from tests.sweep.test_tasks import cell_of

Timer = Callable[[Sequence[Cell]], Updates]


def alike(count: int, steps: int = 20) -> list[Pack]:
    """One group of so many cells that differ in their seeds."""
    grid = Cells.of([cell_of(steps, seed=seed) for seed in range(count)])
    return [task for task in tasks_of(grid, trunks=False, packed=count) if isinstance(task, Pack)]


def timer(step: Callable[[int], float], *, compiling: float = 0.0, memory: int = 1) -> Timer:
    return lambda cells: Updates(step(len(cells)), compiling, memory * len(cells))


@given(count=st.integers(1, 200), most=st.integers(1, 50))
def test_even_parts_need_no_more_turns(count: int, most: int) -> None:
    width = evenly(count, most)
    assert width <= most
    assert -(-count // width) == -(-count // most)
    assert width == 1 or -(-count // (width - 1)) > -(-count // most)


def test_all_train_together_where_that_costs_nothing_more() -> None:
    choice = choose(alike(20), timer(lambda packed: 1.0), memory_bytes=10**9)
    assert (choice.packed, choice.why) == (20, "no more are alike")
    # 16 at once would need as many turns as 10.
    assert [tried.packed for tried in choice.tried] == [1, 4, 10, 20]


def test_packing_ends_where_a_device_is_full() -> None:
    # An update of up to 4 takes as long as of 1; from there on each run takes its time.
    choice = choose(alike(64), timer(lambda packed: max(packed, 4.0)), memory_bytes=10**9)
    assert choice.packed == 4
    assert choice.tried[-1].packed == 4 * FACTOR
    assert "at once train +0% of the tokens a second" in choice.why


def test_each_by_itself_where_packing_does_not_pay() -> None:
    almost = 4 / (1 + 0.9 * GAIN)
    choice = choose(
        alike(8), timer(lambda packed: max(1.0, almost * (packed > 1))), memory_bytes=99
    )
    assert choice.packed == 1
    more = 4 / (1 + 1.1 * GAIN)
    choice = choose(alike(4), timer(lambda packed: max(1.0, more * (packed > 1))), memory_bytes=99)
    assert choice.packed == 4


def test_nothing_is_compiled_that_training_would_not_pay_for() -> None:
    # 8 runs of 20 updates of 10 ms: 1.6 s are left; a compilation of 1 s is not tried twice.
    choice = choose(alike(8), timer(lambda packed: 0.01, compiling=1.0), memory_bytes=10**9)
    assert choice.packed == 1
    assert [tried.packed for tried in choice.tried] == [1]
    assert "2 s of training do not pay for compiling 4 at once" in choice.why


def test_no_more_are_tried_than_memory_holds() -> None:
    free = timer(lambda packed: 1.0, memory=100)
    assert choose(alike(16), free, memory_bytes=1600).packed == 4
    assert choose(alike(16), free, memory_bytes=int(1600 / MEMORY) + 1).packed == 16


def test_a_device_that_runs_out_keeps_what_went_before() -> None:
    def time(cells: Sequence[Cell]) -> Updates:
        if len(cells) > 4:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory\nmore of it")
        return Updates(1.0, 0.0, 1)

    choice = choose(alike(16), time, memory_bytes=10**9)
    assert choice.packed == 4
    assert choice.why == "16 at once: RESOURCE_EXHAUSTED: out of memory"


def test_a_choice_is_kept_and_nothing_is_chosen_twice(tmp_path: Path) -> None:
    grid = Cells.of([cell_of(20, seed=seed) for seed in range(3)])
    [program] = undecided(grid, tmp_path, trunks=False)
    write_packing(tmp_path, [Choice("other", 2, "", ())])
    assert set(undecided(grid, tmp_path, trunks=False)) == {program}
    write_packing(tmp_path, [Choice(program, 2, "because", (Tried(1, 1.0, 1.0, 1),))])
    assert undecided(grid, tmp_path, trunks=False) == {}
    assert read_packing(tmp_path) == {"other": 2, program: 2}
    packs = tasks_of(grid, trunks=False, packed=read_packing(tmp_path))
    assert [pack.lanes for pack in packs] == [2, 1]
    assert undecided(Cells.of([cell_of(20)]), tmp_path / "none", trunks=False) == {}


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"schema": 9, "choices": []}', '{"schema": 1, "choices": [{"program": "x"}]}',
     '{"schema": 1, "choices": [{"program": "x", "packed": 0}]}',
     '{"schema": 1, "choices": [{"program": 3, "packed": 1}]}'],
)  # fmt: skip
def test_a_damaged_file_is_named_and_left(tmp_path: Path, text: str) -> None:
    path = tmp_path / "packing.json"
    path.write_text(text)
    with pytest.raises(WorkdirError, match=f"{path} is damaged .*; remove it"):
        read_packing(tmp_path)
    with pytest.raises(WorkdirError, match="is damaged"):
        write_packing(tmp_path, [])
    assert path.read_text() == text


def test_the_real_benchmark_chooses_and_stops_when_told(tmp_path: Path) -> None:
    grid = Cells.of([cell_of(20, seed=seed) for seed in range(2)])
    left = undecided(grid, tmp_path, trunks=False)
    said: list[str] = []
    [choice] = choose_all(left, Workshop(tmp_path), say=said.append)
    assert said[0].startswith("how many at once, 1 of 1: width ")
    assert choice.tried[0].packed == 1
    assert min(choice.tried[0].step, choice.tried[0].compile, choice.tried[0].memory_bytes) > 0
    write_packing(tmp_path, [choice])
    content = json.loads((tmp_path / "packing.json").read_text())["choices"][0]
    assert content["device_kind"] == jax.local_devices()[0].device_kind
    assert content["why"] in said[1]
    with pytest.raises(Stopped):
        choose_all(left, Workshop(tmp_path), say=said.append, stop=lambda: True)
