import dataclasses
import errno
import json
import os

import pytest

from scaling.files import write_json
from scaling.records import NUMBERS, BadTable, Record, read, write


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
        ({"status": "done"}, "'done'; use one of ok, diverged, stopped, failed"),
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


def test_a_record_of_another_schema_or_with_a_wrong_field_is_refused(tmp_path):
    obj = dataclasses.asdict(example())
    with pytest.raises(BadTable, match=r"not a record of schema 1 \(found 2\)"):
        read(write_json(tmp_path / "new.json", obj | {"schema": 2}))
    with pytest.raises(BadTable, match="'done'; use one of"):
        read(write_json(tmp_path / "bad.json", obj | {"status": "done"}))
    del obj["config"]
    with pytest.raises(BadTable, match="config"):
        read(write_json(tmp_path / "short.json", obj))
