"""What objectives hide: how much, of what, and that nothing is lost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.data import corruption
from scaling.data.corruption import MASK, masked, prefix, span, spans_of
from scaling.data.tokenizer import END_OF_DOCUMENT, FIRST_SENTINEL, Tokenizer

B, T, V = 6, 240, 300
PIECES = range(40, V)


def batch(seed: int = 0) -> corruption.Batch:
    random = np.random.default_rng(seed)
    tokens_BT = random.integers(40, V, (B, T), np.int32)
    tokens_BT[:, 17::60] = END_OF_DOCUMENT
    index_BT = np.broadcast_to(np.arange(T, dtype=np.int32), (B, T))
    return {
        "tokens_BT": tokens_BT,
        "targets_BT": np.roll(tokens_BT, -1, axis=1),
        "segments_BT": np.cumsum(tokens_BT == END_OF_DOCUMENT, axis=1, dtype=np.int32),
        "positions_BT": index_BT,
        "weights_BT": np.ones((B, T), np.float32),
    }


@pytest.mark.parametrize("rate", [0.15, 0.4])
def test_masking_hides_its_share_of_every_window_and_asks_for_that_alone(rate: float) -> None:
    before = batch()
    after = masked(before, np.random.default_rng(1), rate=rate, pieces=PIECES)
    chosen = after["weights_BT"] == 1
    assert (chosen.sum(axis=1) == round(rate * T)).all()
    np.testing.assert_array_equal(after["targets_BT"], before["tokens_BT"])
    unseen = after["tokens_BT"] != before["tokens_BT"]
    assert not (unseen & ~chosen).any()
    assert not (chosen & (before["tokens_BT"] == END_OF_DOCUMENT)).any()


def test_of_the_chosen_eight_in_ten_are_masked_one_replaced_and_one_left() -> None:
    counts = np.zeros(3)
    for seed in range(40):
        before = batch(seed)
        after = masked(before, np.random.default_rng(seed), rate=0.15, pieces=PIECES)
        chosen = after["weights_BT"] == 1
        shown, told = after["tokens_BT"][chosen], before["tokens_BT"][chosen]
        counts += [(shown == MASK).sum(), ((shown != told) & (shown != MASK)).sum(),
                   (shown == told).sum()]  # fmt: skip
    np.testing.assert_allclose(counts / counts.sum(), [0.8, 0.1, 0.1], atol=0.01)


def test_whole_words_are_hidden_whole() -> None:
    starts = np.zeros(V, bool)
    starts[::3] = True
    before = batch()
    after = masked(
        before, np.random.default_rng(2), rate=0.15, pieces=PIECES, word_starts=starts
    )  # fmt: skip
    chosen = after["weights_BT"] == 1
    assert (chosen.sum(axis=1) >= round(0.15 * T)).all()
    tokens = before["tokens_BT"]
    inner = ~starts[tokens] & (tokens != END_OF_DOCUMENT)
    inner[:, 1:] &= tokens[:, :-1] != END_OF_DOCUMENT
    assert (chosen[:, 1:] == chosen[:, :-1])[inner[:, 1:]].all()


def test_a_prefix_is_open_and_the_rest_is_asked_for() -> None:
    after = prefix(batch(), np.random.default_rng(3))
    opened = after["prefix_BT"].sum(axis=1)
    assert ((opened >= 1) & (opened < T)).all()
    np.testing.assert_array_equal(after["weights_BT"].sum(axis=1), T - opened + 1)
    for row, count in enumerate(opened):
        assert after["prefix_BT"][row, :count].all()
        assert not after["weights_BT"][row, : count - 1].any()


@given(
    length=st.integers(8, 300),
    rate=st.floats(0.05, 0.6),
    mean=st.floats(1.0, 8.0),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_text_and_spans_give_back_what_was_used(
    length: int, rate: float, mean: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    tokens = random.integers(400, 900, (2, length), np.int32)
    whole = {
        "tokens_BT": tokens,
        "targets_BT": tokens,
        "weights_BT": np.ones((2, length), np.float32),
    }
    used, hidden, count = spans_of(length, rate=rate, mean_span_tokens=mean)
    assert length - 3 <= used + 2 * count <= length
    after = span(whole, random, rate=rate, mean_span_tokens=mean, sentinels=count)
    sentinels = range(FIRST_SENTINEL, FIRST_SENTINEL + count)
    for row in range(2):
        sequence = [*after["tokens_BT"][row], after["targets_BT"][row, -1]]
        split = int(after["prefix_BT"][row].sum())
        shown, asked = sequence[:split], sequence[split : used + 2 * count]
        hidden_spans: dict[int, list[int]] = {}
        for token in asked:
            if token in sentinels:
                hidden_spans[token] = []
            else:
                hidden_spans[list(hidden_spans)[-1]].append(token)
        rebuilt: list[int] = []
        for token in shown:
            rebuilt += hidden_spans[token] if token in sentinels else [token]
        assert rebuilt == tokens[row, :used].tolist()
        assert sum(map(len, hidden_spans.values())) == hidden
        # Every hidden token, its sentinels and the end are asked for, and nothing else.
        assert after["weights_BT"][row].sum() == hidden + count + 1
        counted = after["targets_BT"][row][after["weights_BT"][row] == 1].tolist()
        assert counted == [*asked, END_OF_DOCUMENT]


def test_more_spans_than_sentinels_are_refused_with_the_numbers() -> None:
    with pytest.raises(ValueError, match=r"has 11 spans, the tokenizer 4 .* corpus.sentinels=11"):
        span(batch(), np.random.default_rng(0), rate=0.15, mean_span_tokens=3.0, sentinels=4)


def test_sentinels_and_the_mask_come_from_no_text() -> None:
    texts = ["The sea is <sentinel_0> wide, 海很宽。\nSo it is.", "Words and more words"] * 30
    tokenizer = Tokenizer.train(texts, vocabulary=320, sentinels=5)
    ids = {piece for text in tokenizer.encode([*texts, "<sentinel_3> ☃"]) for piece in text}
    assert not ids & {MASK, END_OF_DOCUMENT, *range(FIRST_SENTINEL, FIRST_SENTINEL + 5)}
    assert tokenizer.decode(tokenizer.encode(texts)[0]) == texts[0]


def test_words_begin_after_spaces_and_at_every_chinese_character() -> None:
    tokenizer = Tokenizer.train(
        ["more words and words", "海很宽海很宽", "one\ntwo"] * 40, vocabulary=300, sentinels=0
    )
    starts = tokenizer.word_starts()
    [ids] = tokenizer.encode(["and words海很宽"])
    flags = [(tokenizer.decode([i]), bool(starts[i])) for i in ids]
    assert all(flag for piece, flag in flags if piece[:1] in "海很宽")
    assert sum(flag for _, flag in flags if "海" not in _ and "很" not in _ and "宽" not in _) >= 1
