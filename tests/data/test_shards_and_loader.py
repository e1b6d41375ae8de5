"""Tokens on disk and the batches made of them."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from scaling.data import corruption, loader, shards
from scaling.data.corpus import Document, wiki_leads
from scaling.data.tokenizer import END_OF_DOCUMENT, Tokenizer

CONTEXT = 7
CORRUPTIONS = (
    None,
    partial(corruption.masked, rate=0.3, pieces=range(258, 400)),
    corruption.prefix,
    partial(corruption.span, rate=0.3, mean_span_tokens=2.0, sentinels=2),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    documents = [document for _, document in zip(range(60), wiki_leads("train"), strict=False)]
    tokenizer = Tokenizer.train((d.text for d in documents), vocabulary=400, sentinels=0)
    path = tmp_path_factory.mktemp("data") / "tokens"
    shards.write(path, {"train": documents}, tokenizer, corpus={"name": "sixty"})
    return path


def test_the_manifest_counts_what_is_there(folder: Path) -> None:
    manifest = shards.read(folder)
    split = manifest.splits["train"]
    tokens = np.load(folder / split.file)
    assert tokens.dtype == np.uint16
    assert split.tokens == len(tokens)
    assert split.documents == np.sum(tokens == END_OF_DOCUMENT) == 60
    tokenizer = Tokenizer.load(folder / "tokenizer.model")
    pieces = np.split(tokens, np.flatnonzero(tokens == END_OF_DOCUMENT) + 1)[:-1]
    text = [tokenizer.decode(piece[:-1].tolist()) for piece in pieces]
    assert sum(len(entry.encode()) for entry in text) == split.text_bytes
    assert manifest.tokenizer_sha256 == tokenizer.hash


def test_a_damaged_token_file_is_named(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    damaged = bytearray((copy / "train.npy").read_bytes())
    damaged[-1] ^= 1
    (copy / "train.npy").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"train\.npy has SHA-256 .* delete"):
        shards.read(copy)


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    class Broken:
        model, hash, vocabulary = b"", "", 400

        def encode(self, texts: list[str]) -> list[list[int]]:
            raise OSError("no space left")

    document = Document(language="en", title="t", topic="x", text="words")
    with pytest.raises(OSError, match="no space"):
        shards.write(tmp_path / "data", {"train": [document]}, Broken(), corpus={})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_every_token_is_a_target_exactly_once(folder: Path) -> None:
    windows = loader.Windows(folder / "train.npy", context=CONTEXT)
    tokens = np.load(folder / "train.npy")
    batches = list(loader.evaluation(windows, batch_windows=4))
    weights = np.concatenate([batch["weights_BT"] for batch in batches])
    targets = np.concatenate([batch["targets_BT"] for batch in batches])[weights > 0]
    np.testing.assert_array_equal(targets, tokens[1 : 1 + windows.count * CONTEXT])


def test_a_limited_evaluation_is_spread_over_the_whole_split(folder: Path) -> None:
    windows = loader.Windows(folder / "train.npy", context=CONTEXT)
    batches = list(loader.evaluation(windows, batch_windows=4, limit=10))
    weights = np.concatenate([batch["weights_BT"] for batch in batches])
    tokens = np.concatenate([batch["tokens_BT"] for batch in batches])[weights[:, 0] > 0]
    expected = [windows.batch(np.array([i * windows.count // 10]))["tokens_BT"] for i in range(10)]
    np.testing.assert_array_equal(tokens, np.concatenate(expected))


def test_segments_and_positions_restart_after_each_document(tmp_path: Path) -> None:
    end = END_OF_DOCUMENT
    np.save(tmp_path / "t.npy", np.array([5, 6, end, 7, end, 8, 9, 10], np.uint16))
    batch = loader.Windows(tmp_path / "t.npy", context=CONTEXT).batch(np.array([0]))
    assert batch["tokens_BT"].tolist() == [[5, 6, end, 7, end, 8, 9]]
    assert batch["targets_BT"].tolist() == [[6, end, 7, end, 8, 9, 10]]
    assert batch["segments_BT"].tolist() == [[0, 0, 0, 1, 1, 2, 2]]
    assert batch["positions_BT"].tolist() == [[0, 1, 2, 0, 1, 0, 1]]


def test_a_batch_depends_on_seed_and_number_alone_and_no_window_comes_twice(folder: Path) -> None:
    windows = loader.Windows(folder / "train.npy", context=CONTEXT)
    one, two = (loader.TrainStream(windows, batch_windows=3, seed=5) for _ in range(2))
    forward = [one.batch(step)["tokens_BT"] for step in range(one.steps)]
    backward = [two.batch(step)["tokens_BT"] for step in reversed(range(two.steps))][::-1]
    np.testing.assert_array_equal(forward, backward)
    other = loader.TrainStream(windows, batch_windows=3, seed=6)
    assert not np.array_equal(forward[0], other.batch(0)["tokens_BT"])
    starts = np.load(folder / "train.npy")[: windows.count * CONTEXT].reshape(-1, CONTEXT)
    seen = sorted(map(tuple, np.concatenate(forward).tolist()))
    remaining = sorted(map(tuple, starts.tolist()))
    for window in seen:
        remaining.remove(window)
    assert len(remaining) < 3
    with pytest.raises(IndexError, match="no window is used twice"):
        one.batch(one.steps)


def test_repeated_windows_come_once_an_epoch_each_epoch_in_an_order_of_its_own(
    folder: Path,
) -> None:
    windows = loader.Windows(folder / "train.npy", context=CONTEXT)
    once = loader.TrainStream(windows, batch_windows=3, seed=5)
    stream = loader.TrainStream(windows, batch_windows=3, seed=5, repeated=4)
    rows = np.concatenate([stream.batch(step)["tokens_BT"] for step in range(8)])
    epochs = [sorted(map(tuple, part.tolist())) for part in rows.reshape(6, 4, CONTEXT)]
    assert all(epoch == epochs[0] for epoch in epochs)
    first = np.concatenate([once.batch(step)["tokens_BT"] for step in range(2)])[:4]
    np.testing.assert_array_equal(rows[:4], first)
    assert len({tuple(part.reshape(-1).tolist()) for part in rows.reshape(6, 4, CONTEXT)}) > 1
    np.testing.assert_array_equal(stream.batch(1)["tokens_BT"], rows[3:6])


@pytest.mark.parametrize("corrupt", CORRUPTIONS)
def test_some_rows_of_a_batch_are_those_rows_of_the_whole(
    folder: Path, corrupt: loader.Corruption | None
) -> None:
    windows = loader.Windows(folder / "train.npy", context=CONTEXT)
    stream = loader.TrainStream(windows, batch_windows=5, seed=5, corrupt=corrupt)
    whole, some = stream.batch(3), stream.batch(3, rows=slice(1, 4))
    assert whole.keys() == some.keys()
    for name in whole:
        np.testing.assert_array_equal(some[name], whole[name][1:4])


@pytest.mark.parametrize("corrupt", CORRUPTIONS[1:])
def test_a_measured_window_hides_the_same_whatever_is_measured_beside_it(
    folder: Path, corrupt: loader.Corruption
) -> None:
    windows = loader.Windows(folder / "train.npy", context=CONTEXT)

    def measured(batch_windows: int, limit: int | None) -> np.ndarray:
        batches = loader.evaluation(
            windows, batch_windows=batch_windows, limit=limit, corrupt=corrupt
        )
        return np.concatenate([b["tokens_BT"] + 1000 * b["weights_BT"] for b in batches])

    whole, other = measured(4, None)[: windows.count], measured(6, None)[: windows.count]
    np.testing.assert_array_equal(whole, other)
    chosen = np.arange(10) * windows.count // 10
    np.testing.assert_array_equal(measured(4, 10)[:10], whole[chosen])
