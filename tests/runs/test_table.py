"""Columns of runs by name, and as pandas has them."""

import dataclasses
import sys
import types

import numpy as np
import pytest

from scaling.records import BadTable
from scaling.runs import Runs, load


def test_further_columns_of_numbers_come_along_and_text_does_not(study):
    source = study(
        head="params,tokens,loss,d_model,outlier,note,gap",
        change=lambda rows: [[*row, 64 + i, i % 2, "fine", "" if i else 3]
                             for i, row in enumerate(rows)],
    )  # fmt: skip
    runs = load(source)
    assert set(runs.others) == {"width", "outlier", "gap"}
    assert runs.convention["width"] == "d_model"
    assert len(runs.where(runs.column("outlier") == 0)) == 10
    with pytest.raises(BadTable, match=r"gap is empty in rows 3, 4, 5, .* and 11 more; fill it in"):
        runs.column("gap")
    with pytest.raises(BadTable, match=r"no column depth; found params, .*--columns depth=NAME"):
        runs.column("depth")
    with pytest.raises(BadTable, match=r"outlier is 0 in rows 2, 4, .*must be positive"):
        runs.log("outlier")


def test_to_pandas_says_what_is_missing_where_pandas_is_not(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    one = np.ones(1)
    runs = Runs(run_id=("a",), params=one, tokens=one, loss=one, flops=one)
    with pytest.raises(ImportError, match="pip install pandas"):
        runs.to_pandas()


def test_to_pandas_gives_every_column_by_run(monkeypatch):
    class Frame(dict):
        def __init__(self, data, index):
            super().__init__(data)
            self.index = index

    def named(data, name):
        return name, list(data)

    pandas = types.SimpleNamespace(DataFrame=Frame, Index=named)
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    one = np.ones(1)
    runs = Runs(run_id=("a",), params=one, tokens=2 * one, loss=3 * one, flops=4 * one)
    frame = dataclasses.replace(runs, others={"width": 5 * one}, series=("s",)).to_pandas()
    assert frame.index == ("run_id", ["a"])
    assert frame == {
        "series": ["s"], "params": one, "tokens": 2 * one, "flops": 4 * one, "loss": 3 * one,
        "width": 5 * one,
    }  # fmt: skip
