"""The study of published runs: its readers, its rules, and what comes out where the runs are."""

import base64
import csv
import importlib
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import jupytext
import nbclient
import nbformat
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
STUDY = ROOT / "experiments" / "published"
NOTEBOOKS = ROOT / "notebooks"
PUBLISHED = ROOT.parent / "shared" / "published"

if not STUDY.exists():
    pytest.skip(f"{STUDY} is not shipped with the package", allow_module_level=True)
sys.path.insert(0, str(STUDY))  # the study is a program with a folder of its own
chinchilla, porian, gemstones, datablations, ladder, rows, sources = (
    importlib.import_module(f"sections.{name}")
    for name in ("chinchilla", "porian", "gemstones", "datablations", "ladder", "rows", "sources")
)


def needs(*names: str) -> pytest.MarkDecorator:
    missing = [name for name in names if not (PUBLISHED / name).exists()]
    return pytest.mark.skipif(bool(missing), reason=f"{PUBLISHED} does not hold {missing}")


@pytest.fixture
def study() -> ModuleType:
    """study.py, under a name that no other study has."""
    spec = importlib.util.spec_from_file_location("published_study", STUDY / "study.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(path: Path, header: Sequence[str], lines: Sequence[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *lines])


def write_lines(path: Path, objects: Sequence[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(each) for each in objects), encoding="utf-8")


# What is in a clone is read as it lies there.


def test_figure_4_is_read_by_its_own_column_names_and_without_the_five_highest(
    tmp_path: Path,
) -> None:
    sizes, flops = np.repeat([1e8, 3e8, 1e9], 4), np.tile([1e19, 3e19, 1e20, 3e20], 3)
    loss = 1.8 + 482 / sizes**0.35 + 2085 / (flops / 6 / sizes) ** 0.37
    lines = np.stack([sizes, flops, loss], axis=1).tolist()
    clone = tmp_path / "analyzing-chinchilla" / "data" / "svg_extracted_data.csv"
    write(clone, ("Model Size", "Training FLOP", "loss"), lines)
    read = sources.chinchilla(tmp_path).tables["runs"]
    np.testing.assert_allclose(read["tokens"], flops / 6 / sizes)
    assert read["outlier"].sum() == 5
    assert read["loss"][read["outlier"] == 1].min() >= read["loss"][read["outlier"] == 0].max()


def test_a_pickle_is_refused_with_the_columns_of_an_export(tmp_path: Path) -> None:
    pickle = tmp_path / "resolving-scaling-law-discrepancies" / "data" / "summary_df.pickle.xz"
    pickle.parent.mkdir(parents=True)
    pickle.write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(sources.NoData, match="to read one is to run it") as refused:
        sources.porian(tmp_path)
    for columns in sources.PORIAN.values():
        assert ", ".join(columns) in str(refused.value)


def test_an_export_without_a_column_is_named(tmp_path: Path) -> None:
    write(tmp_path / "porian_refinedweb.csv", ("step", "flops_c", "params_n", "tokens_d"), [])
    write(tmp_path / "porian_refinedweb_optima.csv", ("step", "flops_c", "n_opt"), [["5", 1, 2]])
    write(tmp_path / "porian_refinedweb.csv", ("step", "flops_c", "params_n"), [["5", 1, 2]])
    with pytest.raises(sources.NoData, match="no column tokens_d, loss"):
        sources.porian(tmp_path)


def test_evaluations_of_open_lm_are_read_from_its_json(tmp_path: Path) -> None:
    for name, loss in (("rpj-open_lm_1b-1.0", 2.77), ("rpj-open_lm_1b-32.0", 2.5)):
        data = ["training/eval_data/c4_val/shard-{0000000..0000010}.tar"], ["x/paloma_c4_en/1.tar"]
        run = {
            "name": name,
            "hyperparameters": {"model": "open_lm_1b", "tokens": 2.9e10, "params": 1.4e9,
                                "chinchilla_multiplier": float(name.split("-")[-1])},
            "results": [{"loss": loss, "val_data": data[0]}, {"loss": 9.0, "val_data": data[1]}],
        }  # fmt: skip
        icl = dict.fromkeys(sources.EASY_17, 0.25) | {"mmlu": 0.9}
        models = tmp_path / "scaling" / "exp_data" / "models"
        write_lines(models / f"{name}.json", [run])
        scores = models.parent / "evals" / f"evaluation_{name}_heavy.json"
        write_lines(scores, [{"eval_metrics": {"icl": icl}}])
    found = sources.gadre(tmp_path)
    read = found.tables["runs"]
    assert read["ratio"].tolist() == [20, 640]
    assert read["loss"].tolist() == [2.77, 2.5]
    np.testing.assert_allclose(read["error"], 0.75)
    assert len(found.digests()) == 4


def test_gemstones_are_read_from_their_dumps_with_three_ways_to_count(tmp_path: Path) -> None:
    row = {"run_name": "PyGemma-1024x28_pretrain", "params_active_precise": 543482880,
           "width": 1024, "depth": 28, "final_loss": 3.1}  # fmt: skip
    lines = [row | {"tokens": t, "step": s} for t, s in ((0, 0), (10003415040, 1), (2e11, 9))]
    for dump in ("hot_100b+", "hot_100b+_477", "cool_end"):
        write_lines(
            tmp_path / "gemstone-scaling-laws" / "wandb_dfs" / f"wandb_df_for_fitting_{dump}.jsonl",
            lines,
        )
    read = sources.gemstones(tmp_path).tables["main"]
    assert read["to_100b"].tolist() == [1, 0]
    assert read["params_minus_input_embed"].tolist() == [491971584] * 2
    assert read["params_body"].tolist() == [440460288] * 2
    np.testing.assert_allclose(read["flops"][0], 3.579370816e19, rtol=1e-9)


def test_repeated_data_is_read_out_of_the_notebook_without_running_it(tmp_path: Path) -> None:
    cell = 'NAMES_TO_VAL_LOSSES = {\n    "2b84b4b": 3.265024E+00,\n    # "2b88b4b": 1.0,\n'
    cell += '    "146m14b100m": 3.801428E+00, ### DOUBLE DESCENT\n    "2b855b4bc4seed1": 2.69,\n'
    cell += '    "220m3b9100mdedup": 3.86,\n    "1b58b81b5": 3.07,\n}\nraise SystemExit'
    notebook = {"cells": [{"cell_type": "code", "source": cell.splitlines(keepends=True)}]}
    write_lines(tmp_path / "datablations" / "plotstables" / "return.ipynb", [notebook])
    read = sources.datablations(tmp_path).tables["runs"]
    assert read["run"].tolist() == ["2b84b4b", "146m14b100m", "1b58b81b5"]
    assert read["params"].tolist() == [2.81e9, 1.465e8, 1.5173e9]
    assert read["tokens"].tolist() == [4e9, 14e9, 8.8e9]
    assert read["unique_tokens"].tolist() == [4e9, 1e8, 1.5e9]
    assert read["fitted"].tolist() == [0, 1, 1]


def test_the_ladder_is_read_from_its_csv_files(tmp_path: Path) -> None:
    folder = tmp_path / "OLMo-ladder" / "src" / "scripts" / "paper" / "data" / "ladder-runs"
    tasks = [f"{task}_{split}" for task, split in sources.SPLITS.items()]
    tasks += [f"mmlu_{group}_test" for group in sources.OF_MMLU]
    header = [f"eval/downstream_bpb/{task}_rc_5shot_bpb" for task in tasks]
    header += [f"eval/downstream/{task}_rc_5shot_len_norm" for task in tasks]
    scores = [0.7] * len(tasks) + [0.4] * len(tasks)
    for size in sources.LADDER:
        for length in sources.LENGTHS:
            counts = ("throughput/total_tokens", *header)
            write(folder / f"{size}-{length}.csv", counts, [[1e9, *scores], [2e9, *scores]])
    own = ("_step", "batch_size_in_tokens", *header)
    write(folder / f"{sources.TARGET[0]}.csv", own, [[100, 4e6, *scores]])
    read = sources.ladder(tmp_path).tables["runs"]
    assert len(read["run"]) == 33
    assert read["target"].sum() == 1
    assert read["tokens"][-1] == 4e8
    np.testing.assert_allclose(read["mmlu_acc"], 0.4)


@needs("datablations.csv", "gemstones_main.csv", "gadre_redpajama.csv", "chinchilla_fig4.csv")
def test_what_is_known_of_the_clones_agrees_with_every_row_of_the_tables() -> None:
    runs = sources.datablations(PUBLISHED).tables["runs"]
    names = [sources.named(run) for run in runs["run"]]
    columns = np.stack([runs[name] for name in ("params", "tokens", "unique_tokens")], axis=1)
    np.testing.assert_allclose(names, columns)
    kept = [run not in sources.LEFT_OUT for run in runs["run"]]
    assert kept == (runs["fitted"] == 1).tolist()
    stones = sources.gemstones(PUBLISHED).tables["main"]
    flops = sources.flops_per_token(stones["width"], stones["depth"]) * stones["tokens"]
    np.testing.assert_allclose(flops, stones["flops"], rtol=1e-9)
    assert ((stones["tokens"] <= sources.TO_100B) == (stones["to_100b"] == 1)).all()
    table = sources.read_csv(PUBLISHED / "gadre_redpajama.csv")
    for row in table:
        mean = np.mean([float(row[f"err_{task}"]) for task in sources.EASY_17])
        assert mean == pytest.approx(float(row["err_avg17"]), abs=1e-8)
    figure = sources.read_csv(PUBLISHED / "chinchilla_fig4.csv")
    dropped = [float(row["epoch_dropped_outlier"]) for row in figure]
    assert sources.chinchilla(PUBLISHED).tables["runs"]["outlier"].tolist() == dropped


# Rules.


def test_a_number_has_the_printed_digits_within_half_of_the_last() -> None:
    assert rows.printed("", 0.77224, "0.7722").passed
    assert not rows.printed("", 0.77226, "0.7722").passed
    assert rows.printed("", 1.74e-49, "1.7e-49").passed
    assert not rows.printed("", 1.76e-49, "1.7e-49").passed


def test_an_objective_may_be_below_the_least_known_one_but_not_above() -> None:
    assert rows.least("", 1.0000009, 1.0).passed
    assert rows.least("", 0.9, 1.0).passed
    assert not rows.least("", 1.000002, 1.0).passed


@pytest.mark.parametrize(("passed", "code"), [(True, 0), (False, 1), (None, 0)])
def test_the_exit_code_and_the_table_say_what_misses(
    passed: bool | None, code: int, tmp_path: Path, study: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    found = rows.Section(
        "2. A section", [rows.Row("a number", "1", "2", "equal", passed)], {"x": 3}
    )
    read = lambda data: sources.Source({}, ())  # noqa: E731
    monkeypatch.setattr(porian, "study", lambda source: found)
    monkeypatch.setattr(sources, "READERS", {"porian": read})
    (tmp_path / "README.md").write_text(f"before\n{study.BEGIN}\nold\n{study.END}\nafter\n")
    options = [f"--data={tmp_path}", f"--out={tmp_path}", "--only=porian", "--no-figures"]
    assert study.main(options) == code
    kept = json.loads((tmp_path / "records" / "porian.json").read_text())
    assert kept["numbers"] == {"x": 3}
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert f"| a number | 1 | 2 | equal | {study.WORDS[passed]} |" in text
    assert "old" not in text


def test_sections_without_runs_are_skipped_with_the_reason(
    tmp_path: Path, study: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study.main([f"--data={tmp_path}", f"--out={tmp_path}"]) == 1
    said = capsys.readouterr().out
    for name in study.SECTIONS:
        assert f"SKIPPED {name}: {tmp_path} " in said
    assert "0 of 6 sections run" in said
    assert not (tmp_path / "records").exists()


def test_the_tables_of_the_readme_are_those_of_the_records(
    study: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "records").symlink_to(STUDY / "records")
    text = (STUDY / "README.md").read_text(encoding="utf-8")
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    study.write_tables(tmp_path)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == text


# What comes out, where the runs are.


@needs(*sources.PORIAN)
def test_the_five_exponents_of_porian_et_al_come_out_of_the_isoflop_rows() -> None:
    isoflop = porian.study(sources.porian(PUBLISHED)).rows
    ruled = [row for row in isoflop if row.passed is not None]
    assert len(ruled) == 28
    assert not [row for row in ruled if not row.passed]
    exponents = [row.ours for row in isoflop if row.rule.startswith("inside the interval")]
    assert [float(x) for x in exponents] == pytest.approx(
        [0.8353, 0.7065, 0.602, 0.5715, 0.4969], abs=0.01
    )


@needs("chinchilla_fig4.csv")
def test_both_minima_of_figure_4_are_reached_and_the_published_refit_stops_above_them() -> None:
    table = sources.chinchilla(PUBLISHED).tables["runs"]
    besiroglu = importlib.import_module("sections.besiroglu")
    for keep, least in ((table["outlier"] == 0, 0.0010182740177),
                        (table["outlier"] >= 0, 0.0018260105238)):  # fmt: skip
        columns = [table[name][keep] for name in ("params", "tokens", "loss")]
        found = rows.minimum(chinchilla.CHINCHILLA, rows.runs_of(*columns), besiroglu.DELTA)
        assert found.value == pytest.approx(least, rel=1e-6)
        logs = besiroglu.Runs(*(np.log(column) for column in columns))
        own, _ = besiroglu.objective(chinchilla.packed(found.params), logs)
        assert own == pytest.approx(found.value, rel=1e-9)
        refit, _ = besiroglu.objective(besiroglu.refit(logs), logs)
        assert refit >= found.value * (1 - 1e-9)


@needs("chinchilla_fig4.csv")
def test_draws_and_their_optima_are_those_of_the_published_bootstrap() -> None:
    besiroglu = importlib.import_module("sections.besiroglu")
    table = sources.chinchilla(PUBLISHED).tables["runs"]
    columns = [table[name][table["outlier"] == 0] for name in ("params", "tokens", "loss")]
    drawn = besiroglu.resamples(4, 240)
    assert drawn[0][:3].tolist() == np.random.RandomState(42).choice(240, 240)[:3].tolist()
    found = rows.minimum(chinchilla.CHINCHILLA, rows.runs_of(*columns), besiroglu.DELTA)
    logs = besiroglu.Runs(*(np.log(column) for column in columns))
    theirs = besiroglu.published_bootstrap(logs, drawn, 1)
    for rows_, once, best in zip(
        drawn, theirs, chinchilla.true_bootstrap(found, drawn), strict=True
    ):
        resample = logs.drawn(rows_)
        least = besiroglu.objective(best, resample)[0]
        assert besiroglu.objective(once, resample)[0] >= least * (1 - 1e-9)


@needs("gemstones_main_dense.csv")
@pytest.mark.parametrize("name", ["to 100B", "all"])
def test_the_hulls_of_the_gemstones_have_the_published_slopes(name: str) -> None:
    vertices, published = gemstones.HULLS[name]
    table = gemstones.table_of(sources.gemstones(PUBLISHED), "dense", name)
    for size in ("params", "params_body"):
        found = gemstones.hull(gemstones.along(table, size), vantage=True, samples=2)
        assert found.params.exponent == pytest.approx(published[size][0], abs=1e-6)
        assert len(found.points["flops"]) == vertices
    assert found.tokens.exponent == pytest.approx(published["tokens"][0], abs=1e-6)


@needs("olmo_ladder.csv")
def test_a_task_of_the_7b_model_is_foretold_as_published() -> None:
    table = sources.ladder(PUBLISHED).tables["runs"]
    small, large = (sources.where(table, table["target"] == which) for which in (0, 1))
    chain = ladder.chain_of(small, "piqa", bootstrap=40)
    size, tokens, measured = (large[name][0] for name in ("params", "tokens", "piqa_acc"))
    off = 100 * abs(float(chain.predict(size, tokens)) / measured - 1)
    assert off == pytest.approx(1.006, abs=0.01)
    low, high = chain.predict_interval(size, tokens)
    assert low < measured < high


def test_a_constant_is_determined_where_its_interval_is_closed_and_narrow() -> None:
    assert datablations._verdict([2.0, 4.0]) == "determined, to a factor of 2"
    assert datablations._verdict([9.6, 7.3e5]).startswith("not determined, to a factor of 7.6e+04")
    assert datablations._verdict([1.3e5, None]).endswith("its interval is open")


# The notebook.


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_notebook_draws_six_pictures_from_the_records() -> None:
    notebook = jupytext.read(NOTEBOOKS / "published.py")
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOKS)}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 6
    text = "".join(output.get("text", "") for output in outputs)
    assert text.count(" pass\n") == 6


def test_the_file_for_colab_is_the_text_of_the_notebook_with_its_pictures() -> None:
    text = jupytext.read(NOTEBOOKS / "published.py")
    colab = nbformat.read(NOTEBOOKS / "published.ipynb", as_version=4)
    assert [(cell.cell_type, cell.source) for cell in colab.cells] == [
        (cell.cell_type, cell.source) for cell in text.cells
    ]
    outputs = [output for cell in colab.cells for output in cell.get("outputs", [])]
    shown = [
        output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})
    ]
    drawn = [f"{name}.png" for name in ("chinchilla", "porian", "gadre", "gemstones",
                                        "datablations", "ladder")]  # fmt: skip
    assert [base64.b64decode(each) for each in shown] == [
        (STUDY / "figures" / name).read_bytes() for name in drawn
    ]
