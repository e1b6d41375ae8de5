"""Anybody's table becomes runs, and what cannot be read is named by its row."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.analysis.rules import LAWS
from scaling.records import NUMBERS, BadTable, Record, write
from scaling.runs import COLUMNS, load


def record(run_id: str, **changes: object) -> Record:
    """A finished run; `changes` replaces fields."""
    values = dict.fromkeys(NUMBERS, 1) | {
        "params_total": 100_000,
        "params_non_embedding": 60_000,
        "tokens": 2_000_000,
        "unique_tokens": 1_000_000,
        "learning_rate": 0.02,
        "batch_tokens": 4096,
        "seed": 0,
        "flops_6nd": 1.2e12,
        "flops_counted": 1.3e12,
        "loss": 3.25,
        "mfu": None,
        "null_reasons": {"mfu": "the peak of this device is unknown"},
    }
    fixed = {
        "run_id": run_id,
        "status": "ok",
        "config": {"model": {"width": 64, "depth": 3}},
        "config_hash": "abc",
        "device_kind": "cpu",
        "versions": {"jax": "0.10.2"},
        "code_version": "0.1.0",
        "created": "2026-01-01T00:00:00Z",
    }
    return Record(**(fixed | values | changes))


def table(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_folder_of_records_loads_by_either_path_and_drops_what_did_not_finish(tmp_path):
    folder = tmp_path / "records"
    write(record("b", params_total=200_000, flops_6nd=2.4e12), folder)
    write(record("a"), folder)
    write(record("c", status="diverged", reason="loss 1e9 at step 3"), folder)
    write(record("d", loss=None, null_reasons={"loss": "no validation", "mfu": "none"}), folder)
    for source in (tmp_path, folder):
        runs = load(source)
        assert runs.run_id == ("a", "b")
        np.testing.assert_array_equal(runs.params, [100_000, 200_000])
        np.testing.assert_array_equal(runs.flops, [1.2e12, 2.4e12])
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
        (warning,) = runs.warnings
        assert warning.startswith("2 runs were left out: c (diverged: loss 1e9 at step 3); d (")


def test_records_bring_what_laws_use_and_the_shape_of_the_model(tmp_path):
    write(record("a", tuned=False), tmp_path)
    write(record("b", config={"model": {"width": 96, "depth": 5}}, tuned=True), tmp_path)
    runs = load(tmp_path)
    for name, expected in {
        "width": [64, 96], "depth": [3, 5], "unique_tokens": [1e6, 1e6], "epochs": [2, 2],
        "learning_rate": [0.02, 0.02], "batch_tokens": [4096, 4096], "seed": [0, 0],
        "tuned": [0, 1], "tokens_per_parameter": [20, 20],
    }.items():  # fmt: skip
        np.testing.assert_array_equal(runs.column(name), expected, err_msg=name)
    assert any("marked as not tuned: 1 of 2 runs (a)" in text for text in runs.warnings)


def test_runs_that_share_trunks_are_told_and_can_be_drawn_by_them(tmp_path):
    of = {"a": "t", "b": "t", "c": None, "d": "u"}
    for tokens, (run_id, parent) in enumerate(of.items(), 1_000_000):
        branch = {"parent": parent, "branch_tokens": 500_000} if parent else {}
        write(record(run_id, tokens=tokens, flops_6nd=6e5 * tokens, **branch), tmp_path)
    (warning,) = load(tmp_path).warnings
    assert warning.startswith("2 of 4 runs share 1 trunks and the noise of these")
    runs = load(tmp_path, columns={"series": "trunk"})
    assert runs.series == ("t", "t", "c", "u")
    assert not runs.warnings


def test_another_count_of_parameters_takes_its_own_flops(tmp_path):
    write(record("a"), tmp_path)
    runs = load(tmp_path, columns={"params": "params_non_embedding"})
    assert runs.params[0] == 60_000
    assert runs.flops[0] == 6 * 60_000 * 2_000_000
    assert runs.convention["flops"] == "6 * params_non_embedding * tokens"
    chosen = load(tmp_path, columns={"params": "params_non_embedding", "flops": "flops_counted"})
    assert chosen.flops[0] == 1.3e12


@given(
    st.lists(
        st.tuples(st.floats(1e8, 1e10), st.floats(1e9, 1e11), st.floats(0.5, 12)),
        min_size=1,
        max_size=5,
    )
)
def test_every_kind_of_file_with_the_same_numbers_gives_the_same_runs(tmp_path_factory, cells):
    folder = tmp_path_factory.mktemp("tables")
    names = ("N", "tokens", "final_loss")
    rows = [dict(zip(names, row, strict=True)) for row in cells]
    columns = {name: [row[name] for row in rows] for name in names}
    by_index = {n: {str(i): x for i, x in enumerate(column)} for n, column in columns.items()}
    plain = "\n".join(f"{a!r},{b!r},{c!r}" for a, b, c in cells)
    sources = [
        table(folder / "rows.json", json.dumps(rows)),
        table(folder / "columns.json", json.dumps(columns)),
        table(folder / "pandas.json", json.dumps(by_index)),
        table(folder / "t.jsonl", "\n".join(json.dumps(row) for row in rows)),
        table(folder / "t.csv", "\ufeffN, tokens,final_loss\n" + plain),
        table(folder / "t.tsv", ("N,tokens,final_loss\n" + plain).replace(",", "\t")),
        table(folder / "spreadsheet.csv", ("N,tokens,final_loss\n" + plain).replace(",", ";")),
    ]
    for source in sources:
        runs = load(source, columns={"params": "N", "loss": "final_loss"})
        expected = np.array(cells).T
        for name, column in zip(("params", "tokens", "loss"), expected, strict=True):
            np.testing.assert_array_equal(getattr(runs, name), column)
        np.testing.assert_array_equal(runs.flops, 6 * expected[0] * expected[1])
        assert runs.convention["flops"] == "6 * N * tokens"


@pytest.mark.parametrize(
    ("head", "convention"),
    [
        ("params_total,tokens,loss", ("params_total", "tokens", "loss")),
        ("N,D,final_loss", ("N", "D", "final_loss")),
        ("params_n,tokens_d,val_loss", ("params_n", "tokens_d", "val_loss")),
        ("Model Size,Training Tokens,Loss", ("Model Size", "Training Tokens", "Loss")),
        ("Model Size,D,n", ("Model Size", "D", "n")),
        ("params_active_precise,tokens,final_loss",
         ("params_active_precise", "tokens", "final_loss")),
    ],
)  # fmt: skip
def test_known_spellings_are_read_and_the_convention_says_which(study, head, convention):
    runs = load(study(head=head), columns={"loss": convention[2]})
    assert tuple(runs.convention[name] for name in ("params", "tokens", "loss")) == convention
    assert len(runs) == 20
    assert runs.warnings == ()


def test_tokens_follow_from_flops_where_there_is_no_column_of_them(study):
    source = study(
        head="Model Size,Training FLOP,loss",
        change=lambda rows: [[n, 6 * n * d, x] for n, d, x in rows],
    )
    runs = load(source)
    np.testing.assert_allclose(runs.tokens[:4], [2e9, 5e9, 1.3e10, 4e10])
    assert runs.convention["tokens"] == "Training FLOP / (6 * Model Size)"


def test_a_spelling_that_two_columns_share_is_refused_where_needed_and_told_where_not(study):
    both = study(
        head="params_n,params_total,tokens,loss",
        change=lambda rows: [[n, n, d, x] for n, d, x in rows],
    )
    with pytest.raises(BadTable, match="params_n and params_total, which could each be params"):
        load(both)
    assert load(both, columns={"params": "params_n"}).convention["params"] == "params_n"
    two = study(
        name="flops.csv",
        head="params,tokens,loss,FLOP,total_flops",
        change=lambda rows: [[n, d, x, 6 * n * d, 7 * n * d] for n, d, x in rows],
    )
    runs = load(two)
    assert runs.convention["flops"] == "6 * params * tokens"
    assert runs.warnings[0].startswith("FLOP and total_flops could each be flops, and neither was")


def test_a_factor_brings_a_column_to_our_unit(study):
    source = study(
        head="millions,billions,bits",
        change=lambda rows: [[n / 1e6, d / 1e9, x / np.log(2)] for n, d, x in rows],
    )
    columns = {"params": "millions*1e6", "tokens": "billions * 1e9", "loss": "bits*0.69314718056"}
    runs, plain = load(source, columns=columns), load(study(name="plain.csv"))
    for name in ("params", "tokens", "loss", "flops"):
        np.testing.assert_allclose(runs.column(name), plain.column(name))


def test_rows_that_name_one_run_at_different_tokens_are_its_checkpoints(study):
    named = study(
        head="params,tokens,loss,run_name",
        change=lambda rows: [[*row, f"size-{row[0]:g}"] for row in rows],
    )
    runs = load(named)
    assert runs.series is not None
    assert len(set(runs.series)) == 5
    assert runs.convention["series"] == "run_name"
    assert len(runs.where(runs.tokens > 3e9).series or ()) == 15
    alone = study(
        name="alone.csv",
        head="params,tokens,loss,run",
        change=lambda rows: [[*row, f"run-{i}"] for i, row in enumerate(rows)],
    )
    assert load(alone).series is None
    assert load(alone).run_id[3] == "run-3"
    # Repeats with other seeds have the same tokens: they are runs of their own.
    seeds = study(
        name="seeds.csv",
        head="params,tokens,loss,run",
        change=lambda rows: [[*row, f"run-{i % 20}"] for i, row in enumerate(rows * 2)],
    )
    assert load(seeds).series is None
    mapped = load(seeds, columns={"series": "run"})
    assert mapped.series is not None
    assert mapped.series[:3] == ("run-0", "run-1", "run-2")


def test_runs_of_two_objectives_are_no_one_table_and_either_can_be_chosen(study, tmp_path):
    for name, objective in (("a", "causal"), ("b", "causal"), ("c", "masked"), ("d", None)):
        write(record(name, objective=objective), tmp_path)
    with pytest.raises(
        BadTable,
        match=r"objectives causal \(2 of 4\) and masked \(1 of 4\), .*--objective=causal",
    ):
        load(tmp_path)
    chosen = load(tmp_path, objective="masked")
    assert (chosen.run_id, chosen.convention["objective"]) == (("c",), "masked")
    assert load(tmp_path, objective="causal").run_id == ("a", "b")
    with pytest.raises(
        BadTable, match=r"no runs of the objective 'maskd', found causal \(2 of 4\)"
    ):
        load(tmp_path, objective="maskd")

    either = study(
        head="params,tokens,loss,task",
        change=lambda rows: [[*row, ("causal", "masked")[i % 2]] for i, row in enumerate(rows)],
    )
    assert "objective" not in load(either).convention  # nothing says that `task` is one
    named = {"objective": "task"}
    with pytest.raises(BadTable, match=r"causal \(10 of 20\) and masked \(10 of 20\)"):
        load(either, columns=named)
    half = load(either, columns=named, objective="masked")
    np.testing.assert_array_equal(half.loss, load(either).loss[1::2])
    with pytest.raises(BadTable, match=r"found none named; .*--columns objective=NAME"):
        load(either, objective="masked")


def test_a_column_of_numbers_that_is_called_objective_is_a_loss_at_most(study):
    source = study(head="params,tokens,objective")
    np.testing.assert_array_equal(
        load(source, columns={"loss": "objective"}).loss, load(study(name="plain.csv")).loss
    )


def test_a_law_of_other_things_needs_no_sizes(tmp_path):
    source = table(tmp_path / "task.csv", "loss,acc\n3,0.3\n2.5,0.5\n2,0.7\n")
    with pytest.raises(BadTable, match="no column params and no column tokens"):
        load(source)
    runs = load(source, needed=("loss", "accuracy"))
    np.testing.assert_array_equal(runs.column("accuracy"), [0.3, 0.5, 0.7])
    assert np.isnan(runs.params).all()
    with pytest.raises(BadTable, match="no column params; found loss, accuracy"):
        runs.column("params")
    with pytest.raises(BadTable, match="no column steps"):
        load(source, needed=("loss", "steps"))


def test_what_follows_from_others_counts_as_there(study):
    source = study()
    assert len(load(source, needed=("flops", "tokens_per_parameter", "loss"))) == 20
    with pytest.raises(BadTable, match="no column unique_tokens"):
        load(source, needed=("epochs", "loss"))


def test_every_input_and_target_of_a_law_is_a_column_that_we_know() -> None:
    used = {name for form in LAWS.values() for name in (*form.inputs, form.target)}
    assert used <= COLUMNS.keys()


GOOD = "params,tokens,loss\n1e5,1e6,4.0\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size,tokens,loss\n1,1,1\n", r"no column params; .*--columns params="),
        ("parms,tokens,loss\n1,1,1\n", r"no column params; .*--columns params=parms"),
        (GOOD + "big,1e6,3.9\n", "row 3: params is 'big'; mend or remove"),
        (GOOD + "7B,1e6,3.9\n", "row 3: params is '7B'; write numbers out, as in 7e9 for 7B"),
        ("params;tokens;loss\n1e8;2e9;3,2\n", "loss is '3,2'; write decimals with a point"),
        (GOOD + "1e5,1e6,nan\n1e5,1e6,NaN\n", "row 3: loss is 'nan'; row 4: loss is 'NaN'"),
        (GOOD + "-1e5,1e6,3.9\n", "row 3: params is '-1e5'"),
        (GOOD + "1e5,0,3.9\n", "row 3: tokens is '0'"),
        (GOOD + "1e5,1e6,-0.1\n", "row 3: loss is '-0.1'"),
        (GOOD + "1e5,inf,3.9\n", "row 3: tokens is 'inf'"),
        ("params,tokens,loss\n1e5,,3.9\n", r"no run that can be used: row 2 \(tokens is empty\)"),
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
        ("runs.json", "[]", "holds no runs"),
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


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"loss": "LOSS"}, "no column LOSS; found .*--columns loss=loss"),
        ({"parms": "size"}, r"maps 'parms', .* did you mean params\?"),
        ({"learnin_rate": "lr"}, "did you mean learning_rate"),
        ({"x": "y"}, "not a column of ours; use params, tokens"),
    ],
)
def test_a_mapping_of_an_unknown_name_is_refused_with_the_nearest(tmp_path, columns, message):
    with pytest.raises(BadTable, match=message):
        load(table(tmp_path / "runs.csv", GOOD), columns=columns)


def test_a_mapping_written_backwards_is_turned_round(tmp_path):
    source = table(tmp_path / "runs.csv", GOOD.replace("params", "N"))
    with pytest.raises(BadTable, match=r"'N', .* write OURS=THEIRS, as in params=N"):
        load(source, columns={"N": "params"})


def test_rows_with_an_empty_cell_or_that_are_not_finished_are_left_out_by_name(study):
    def spoil(rows):
        states = ["finished"] * len(rows)
        states[3], states[7] = "crashed", "running"
        rows[5][2] = ""
        return [[*row, state] for row, state in zip(rows, states, strict=True)]

    runs = load(study(head="params,tokens,loss,State", change=spoil))
    assert [tuple(run) for run in runs.dropped] == [
        ("row 5", "crashed"), ("row 7", "loss is empty"), ("row 9", "running"),
    ]  # fmt: skip
    assert runs.warnings == (
        "3 runs were left out: row 5 (crashed); row 7 (loss is empty); row 9 (running)",
    )


def test_columns_at_hand_are_read_as_a_file_of_them_is(study):
    file = load(study())
    columns = {"N": file.params, "D": file.tokens, "loss": file.loss, "seed": np.arange(20)}
    runs = load(columns)
    for name in ("params", "tokens", "flops", "loss"):
        np.testing.assert_array_equal(runs.column(name), file.column(name))
    assert runs.run_id[:2] == ("row 0", "row 1")
    columns["loss"] = np.where(np.arange(20) == 3, np.nan, file.loss)
    assert load(columns).dropped[0] == ("row 3", "loss is empty")
    with pytest.raises(BadTable, match="differ in length: N 20, D 20, loss 5"):
        load(columns | {"loss": file.loss[:5]})
    with pytest.raises(BadTable, match="the table has no column loss"):
        load({"N": file.params, "D": file.tokens})
    with pytest.raises(BadTable, match="the table holds no runs"):
        load({})


def test_json_lines_of_checkpoints_are_read_as_their_project_wrote_them(tmp_path):
    lines = [
        {"run_name": f"PyGemma-{width}x28_pretrain", "params_active_precise": params,
         "width": width, "depth": 28, "tokens": tokens, "step": 2385, "final_loss": loss}
        for width, params in ((1024, 543482880), (768, 320000000))
        for tokens, loss in ((10003415040, 3.1010556221), (20006830080, 2.950905323))
    ]  # fmt: skip
    runs = load(table(tmp_path / "runs.jsonl", "\n".join(map(json.dumps, lines)) + "\n"))
    assert runs.series is not None
    assert runs.series[::2] == ("PyGemma-1024x28_pretrain", "PyGemma-768x28_pretrain")
    np.testing.assert_array_equal(runs.column("width"), [1024, 1024, 768, 768])
    assert runs.convention["loss"] == "final_loss"
    assert runs.run_id[0] == "line 1"


def test_blank_rows_are_no_runs(tmp_path):
    runs = load(table(tmp_path / "runs.csv", "N,D,loss\n1e8,2e9,3\n,,\n\n 1e8, 3e9, 2.9\n"))
    assert runs.run_id == ("row 2", "row 5")
    assert runs.dropped == ()
