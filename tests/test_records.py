import dataclasses
import errno
import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.files import write_json
from scaling.records import NUMBERS, BadTable, Record, read, write
from scaling.runs import load


def example(run_id: str = "width-64", **changes: object) -> Record:
    """A finished run; `changes` replaces fields."""
    values = dict.fromkeys(NUMBERS, 1) | {
        "params_total": 100_000,
        "params_non_embedding": 60_000,
        "tokens": 2_000_000,
        "flops_6nd": 1.2e12,
        "loss": 3.25,
        "mfu": None,
        "null_reasons": {"mfu": "the peak of this device is unknown"},
    }
    fixed = {
        "run_id": run_id,
        "status": "ok",
        "config": {"model": {"width": 64}},
        "config_hash": "abc",
        "device_kind": "cpu",
        "versions": {"jax": "0.10.2"},
        "code_version": "0.1.0",
        "created": "2026-01-01T00:00:00Z",
    }
    return Record(**(fixed | values | changes))


def table(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_a_record_survives_its_file(tmp_path):
    record = example()
    assert read(write(record, tmp_path / "records")) == record


def test_unknown_fields_are_ignored_and_absent_numbers_get_a_cause(tmp_path):
    obj = dataclasses.asdict(example()) | {"field_of_the_future": [1]}
    del obj["bits_per_byte"]
    record = read(write_json(tmp_path / "old.json", obj))
    assert record.bits_per_byte is None
    assert record.null_reasons["bits_per_byte"] == "absent from the file"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"mfu": None, "null_reasons": {}}, "mfu of width-64 is null without a cause"),
        ({"loss": float("nan")}, "loss of width-64 is nan; write null"),
        ({"wall_seconds": float("inf")}, "wall_seconds of width-64 is inf"),
        ({"mfu": 0.4}, r"names mfu, which is 0\.4"),
        ({"status": "done"}, "'done'; use one of ok, diverged, failed"),
        ({"status": "diverged"}, "diverged without a reason"),
        ({"run_id": "../escape"}, "cannot name a file"),
    ],
)
def test_a_record_that_hides_something_is_refused(changes, text):
    with pytest.raises(ValueError, match=text):
        example(**changes)


def test_the_same_record_again_changes_nothing_and_another_is_refused(tmp_path):
    path = write(example(), tmp_path)
    before = path.stat().st_mtime_ns
    assert write(example(), tmp_path) == path
    assert path.stat().st_mtime_ns == before
    with pytest.raises(FileExistsError, match="another record of width-64"):
        write(example(loss=3.0), tmp_path)
    assert read(path).loss == 3.25


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_write_that_fails_says_the_remedy_and_leaves_the_old_file_whole(
    tmp_path, monkeypatch, code
):
    path = write_json(tmp_path / "law.json", {"old": 1})

    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="could not write") as caught:
        write_json(path, {"new": 2})
    assert caught.value.errno == code
    assert ("free space" in str(caught.value)) == (code == errno.ENOSPC)
    assert "written earlier is intact" in str(caught.value)
    assert json.loads(path.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_a_file_gets_a_clear_message(tmp_path):
    blocker = table(tmp_path / "records", "not a folder")
    with pytest.raises(OSError, match=r"could not write .* written earlier is intact"):
        write(example(), blocker)


def test_numbers_that_json_cannot_hold_are_refused_with_their_place(tmp_path):
    with pytest.raises(ValueError, match=r"a\.b\[1\] is nan"):
        write_json(tmp_path / "x.json", {"a": {"b": [1.0, float("nan")]}})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_records_loads_by_either_path_and_drops_what_did_not_finish(tmp_path):
    folder = tmp_path / "records"
    write(example("b", params_total=200_000), folder)
    write(example("a"), folder)
    write(example("c", status="diverged", reason="loss 1e9 at step 3"), folder)
    write(example("d", loss=None, null_reasons={"loss": "no validation", "mfu": "none"}), folder)
    for source in (tmp_path, folder):
        runs = load(source)
        assert runs.run_id == ("a", "b")
        np.testing.assert_array_equal(runs.params, [100_000, 200_000])
        np.testing.assert_array_equal(runs.flops, [1.2e12, 1.2e12])
        assert [tuple(run) for run in runs.dropped] == [
            ("c", "diverged: loss 1e9 at step 3"),
            ("d", "loss is null: no validation"),
        ]
        assert runs.convention == {
            "params": "params_total",
            "tokens": "tokens",
            "flops": "flops_6nd",
            "loss": "nats per token",
        }


def test_another_count_of_parameters_takes_its_own_flops(tmp_path):
    write(example(), tmp_path)
    runs = load(tmp_path, columns={"params": "params_non_embedding"})
    assert runs.params[0] == 60_000
    assert runs.flops[0] == 6 * 60_000 * 2_000_000
    assert runs.convention["flops"] == "6 * params_non_embedding * tokens"
    chosen = load(tmp_path, columns={"params": "params_non_embedding", "flops": "flops_counted"})
    assert chosen.flops[0] == 1


CELLS = st.floats(1e-3, 1e30, allow_nan=False)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=5))
def test_csv_json_and_jsonl_of_the_same_numbers_give_the_same_runs(tmp_path_factory, cells):
    folder = tmp_path_factory.mktemp("tables")
    rows = [dict(zip(("N", "tokens", "final_loss"), row, strict=True)) for row in cells]
    sources = [
        table(folder / "t.json", json.dumps(rows)),
        table(folder / "t.jsonl", "\n".join(json.dumps(row) for row in rows)),
        table(
            folder / "t.csv",
            "\ufeffN, tokens,final_loss\n" + "\n".join(f"{a!r},{b!r},{c!r}" for a, b, c in cells),
        ),
    ]
    for source in sources:
        runs = load(source, columns={"params": "N", "loss": "final_loss"})
        expected = np.array(cells).T
        for name, column in zip(("params", "tokens", "loss"), expected, strict=True):
            np.testing.assert_array_equal(getattr(runs, name), column)
        np.testing.assert_array_equal(runs.flops, 6 * expected[0] * expected[1])
        assert runs.convention["flops"] == "6 * N * tokens"


GOOD = "params,tokens,loss\n1e5,1e6,4.0\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("params_n,tokens,loss\n1,1,1\n", r"no column params; .*--columns params=params_n"),
        (GOOD + "big,1e6,3.9\n", "row 3: params is 'big'"),
        (GOOD + "1e5,1e6,nan\n1e5,1e6,NaN\n", "row 3: loss is 'nan'; row 4: loss is 'NaN'"),
        (GOOD + "-1e5,1e6,3.9\n", "row 3: params is '-1e5'"),
        (GOOD + "1e5,0,3.9\n", "row 3: tokens is '0'"),
        (GOOD + "1e5,inf,3.9\n", "row 3: tokens is 'inf'"),
        (GOOD + "1e5,,3.9\n", "row 3: tokens is ''"),
        (GOOD + "1e5,1e6\n", "row 3 .* has 2 cells and its header has 3"),
        ("params,tokens,loss\n", "holds no runs"),
        ("", "holds no runs"),
        ("params,params,tokens,loss\n1,1,1,1\n", "two columns named 'params'"),
        ("run_id,params,tokens,loss\na,1,1,1\na,2,1,1\n", "'a' stands twice .*row 2 and row 3"),
    ],
)
def test_a_bad_csv_is_refused_with_the_row_and_the_remedy(tmp_path, text, message):
    with pytest.raises(BadTable, match=message):
        load(table(tmp_path / "runs.csv", text))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("runs.json", '[\n{"params": 1,,}]', "runs.json, line 2, column 14: malformed JSON"),
        ("runs.jsonl", '{"params": 1}\n{"params"', "runs.jsonl, line 2, column 10: malformed"),
        ("runs.json", '[{"params": 1, "tokens": 1, "loss": NaN}]', "holds NaN, which is not JSON"),
        ("runs.json", '[{"params": true, "tokens": 1, "loss": 1}]', "entry 1: params is True"),
        ("runs.json", "[3]", "entry 1 of .* is int; each run must be an object"),
        ("runs.parquet", "", r"ends in '\.parquet'; give a folder"),
    ],
)
def test_a_bad_file_is_refused_with_the_place(tmp_path, name, text, message):
    with pytest.raises(BadTable, match=message):
        load(table(tmp_path / name, text))


def test_a_source_that_is_missing_empty_or_not_text_is_refused(tmp_path):
    with pytest.raises(BadTable, match="no file or folder"):
        load(tmp_path / "nothing")
    with pytest.raises(BadTable, match="holds no runs"):
        load(tmp_path)
    (tmp_path / "runs.csv").write_bytes(b"params\xff")
    with pytest.raises(BadTable, match="not UTF-8"):
        load(tmp_path / "runs.csv")


def test_a_mapping_of_an_unknown_name_is_refused(tmp_path):
    with pytest.raises(BadTable, match="maps 'N', which is not a column of ours; use params"):
        load(table(tmp_path / "runs.csv", GOOD), columns={"N": "params"})


def test_a_record_of_another_schema_or_with_a_wrong_field_is_refused(tmp_path):
    obj = dataclasses.asdict(example())
    with pytest.raises(BadTable, match=r"not a record of schema 1 \(found 2\)"):
        read(write_json(tmp_path / "new.json", obj | {"schema": 2}))
    with pytest.raises(BadTable, match="'done'; use one of"):
        read(write_json(tmp_path / "bad.json", obj | {"status": "done"}))
    del obj["config"]
    with pytest.raises(BadTable, match="config"):
        read(write_json(tmp_path / "short.json", obj))
