"""One run from config to record: resumed equals uninterrupted, and what goes wrong is recorded."""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from ml_collections import ConfigDict

from scaling import cells, records, run
from scaling import config as configs
from scaling.run import Tick
from scaling.sweep.workdir import set_failed_aside
from scaling.train.loop import Stopped
from scaling.workshop import Workshop, run_id


def tiny_cell(*overrides: str) -> ConfigDict:
    config = configs.default()
    common = [
        "model.width=16",
        "model.context_tokens=16",
        "batch_tokens=128",
        "budget.tokens=3840",
        "corpus.languages=es",
        "runtime.evaluate_every_steps=8",
        "runtime.evaluate_windows=8",
        "runtime.log_every_steps=4",
        "runtime.checkpoint_every_steps=10",
    ]
    configs.override(config, [*common, *overrides])
    return cells.cell_of(config)


class Killed(BaseException):
    """Stands for a kill at a moment of our choosing."""


def killed_at(step: int) -> Callable[[Tick], None]:
    def watch(tick: Tick) -> None:
        if tick.step >= step:
            raise Killed

    return watch


def ignore(tick: Tick) -> None:
    pass


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("work"))


def final_state(workdir: Path, name: str) -> dict[str, np.ndarray]:
    folder = workdir / "runs" / name / "checkpoints"
    steps = [path for path in folder.iterdir() if path.is_dir()]
    newest = max(steps, key=lambda path: int(path.name))
    with ocp.StandardCheckpointer() as checkpointer:
        state = checkpointer.restore(newest)
    flat = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in flat}


def test_a_record_says_what_was_trained_and_what_it_scored(workshop: Workshop) -> None:
    cell = tiny_cell()
    record = run.run(cell, workshop, watch=ignore)
    assert record.status == "ok"
    assert record.tokens == record.unique_tokens == 3840
    assert record.epochs == 1
    assert record.flops_6nd == 6 * record.params_total * 3840
    assert 3 < record.loss < 7
    assert record.loss_stderr > 0
    [data] = (workshop.workdir / "data").iterdir()
    split = json.loads((data / "manifest.json").read_text())["splits"]["validation"]
    bits = record.loss * split["tokens"] / split["text_bytes"] / np.log(2)
    assert record.bits_per_byte == pytest.approx(bits)
    assert record.mfu is None
    assert "no published peak" in record.null_reasons["mfu"]
    assert record.wall_seconds >= record.train_seconds > 0
    assert records.read(workshop.workdir / "records" / f"{record.run_id}.json") == record
    lines = [
        json.loads(line)
        for line in (workshop.workdir / "runs" / record.run_id / "metrics.jsonl")
        .read_text()
        .splitlines()
    ]
    assert [line["step"] for line in lines if "train/loss" in line] == [
        4,
        8,
        12,
        16,
        20,
        24,
        28,
        30,
    ]
    assert [line["step"] for line in lines if "eval/validation/loss" in line] == [8, 16, 24, 30]
    assert lines[-1]["eval/validation/loss"] == record.loss


@pytest.mark.parametrize("steps", [(5,), (14, 22), (29,)], ids=str)
def test_an_interrupted_run_ends_bit_for_bit_like_an_uninterrupted_one(
    workshop: Workshop, tmp_path: Path, steps: tuple[int, ...]
) -> None:
    cell = tiny_cell()
    whole = run.run(cell, workshop, watch=ignore)
    other = workshop.elsewhere(tmp_path)
    for step in steps:
        with pytest.raises(Killed):
            run.run(cell, other, watch=killed_at(step))
        assert not (tmp_path / "records").exists()
    resumed = run.run(cell, other, watch=ignore)
    assert resumed.loss == whole.loss
    expected, found = (final_state(w.workdir, whole.run_id) for w in (workshop, other))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(value, found[name], err_msg=name)
    journals = [
        [
            (line["step"], line.get("train/loss"), line.get("eval/validation/loss"))
            for line in map(json.loads, path.read_text().splitlines())
            if "train/loss" in line or "eval/validation/loss" in line
        ]
        for path in (w.workdir / "runs" / whole.run_id / "metrics.jsonl" for w in (workshop, other))
    ]
    assert journals[0] == journals[1]


def test_a_finished_run_is_not_trained_again(workshop: Workshop) -> None:
    cell = tiny_cell()
    record = run.run(cell, workshop, watch=ignore)
    assert run.run(cell, workshop, watch=killed_at(0)) == record


def test_a_run_on_repeated_text_says_how_much_is_unique_and_how_often_it_came(
    workshop: Workshop,
) -> None:
    record = run.run(tiny_cell("budget.unique_tokens=1925"), workshop, watch=ignore)
    assert (record.tokens, record.unique_tokens, record.epochs) == (3840, 1920, 2.0)
    assert record.loss != run.run(tiny_cell(), workshop, watch=ignore).loss
    with pytest.raises(configs.ConfigError, match=r"needs 9999\d+ tokens, the corpus has \d+"):
        run.run(tiny_cell("budget.unique_tokens=99999872"), workshop, watch=ignore)


def test_a_run_that_diverges_is_recorded_with_its_reason(workshop: Workshop) -> None:
    record = run.run(tiny_cell("optimizer.learning_rate=1e38"), workshop, watch=ignore)
    assert record.status == "diverged"
    assert "at step" in record.reason
    assert record.loss is None
    assert "diverged" in record.null_reasons["loss"]


def test_a_request_to_stop_is_heard_between_the_batches_of_a_measurement(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, asked = tiny_cell(), []
    program = workshop.program(cell, packed=None)
    evaluate = type(program).evaluate

    def counted(self: object, params: object, batches: object, *, between: Callable[[], None]):
        def heard() -> None:
            asked.append(True)
            between()

        return evaluate(self, params, batches, between=heard)

    monkeypatch.setattr(type(program), "evaluate", counted)
    other = workshop.elsewhere(tmp_path)
    with pytest.raises(Stopped, match=r"stopped after step 8 of 30, while it was measured"):
        run.run(cell, other, watch=ignore, stop=lambda: len(asked) == 1)
    assert len(asked) == 1
    monkeypatch.undo()
    assert run.run(cell, other, watch=ignore).loss == run.run(cell, workshop, watch=ignore).loss


def test_a_device_without_memory_is_recorded_as_failed_and_tried_again_when_asked(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, other = tiny_cell(), workshop.elsewhere(tmp_path)

    def init(self: object, *_: object, **__: object) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory\nwhile allocating")

    monkeypatch.setattr(type(workshop.program(cell, packed=None)), "init", init)
    record = run.run(cell, other, watch=ignore)
    monkeypatch.undo()
    assert (record.status, record.loss) == ("failed", None)
    assert record.reason == "the device gave up: RESOURCE_EXHAUSTED: out of memory"
    assert run.run(cell, other, watch=ignore) == record
    assert set_failed_aside(tmp_path, [cell]) == [record.run_id]
    assert (tmp_path / "failed" / f"{record.run_id}.1.json").exists()
    assert run.run(cell, other, watch=ignore).status == "ok"
    assert set_failed_aside(tmp_path, [cell]) == []


def test_a_budget_beyond_the_corpus_is_refused_with_the_numbers(workshop: Workshop) -> None:
    with pytest.raises(configs.ConfigError, match=r"needs 99999\d+ tokens, the corpus has \d+"):
        run.run(tiny_cell("budget.tokens=99999872"), workshop, watch=ignore)


def test_an_unknown_corpus_is_refused(workshop: Workshop) -> None:
    with pytest.raises(configs.ConfigError, match="the known corpus is 'wiki-leads'"):
        run.run(tiny_cell("corpus.name=c4"), workshop, watch=ignore)


def test_run_ids_name_files_and_differ_with_any_setting() -> None:
    names = {run_id(tiny_cell(*o)) for o in ([], ["seed=1"], ["optimizer.clip_norm=2"])}
    assert len(names) == 3
    for name in names:
        assert len(name) <= 64
        assert name.replace("-", "").replace(".", "").isalnum()
