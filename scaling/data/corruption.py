"""What an objective hides of a batch, and what it asks for: pure functions of a batch and a random
generator."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from scaling.data.tokenizer import END_OF_DOCUMENT, FIRST_SENTINEL

Batch = dict[str, np.ndarray]
MASK = 0
"""The piece for unknown text: bytes stand in for it, so that no text ever has it."""
KEPT_AS_THEY_ARE, REPLACED = 0.1, 0.1


def masked(
    batch: Mapping[str, np.ndarray],
    random: np.random.Generator,
    *,
    rate: float,
    pieces: range,
    word_starts: np.ndarray | None = None,
) -> Batch:
    """Hide `rate` of the tokens of each window, rounded up to whole words where `word_starts` (a
    flag for every piece) is given; ask for them alone.

    Of the chosen tokens 80% become `MASK`, 10% one of `pieces`, 10% stay (Devlin et al. 2019,
    section 3.1). The end of a document is never chosen. `targets_BT` are the tokens themselves.
    """
    tokens_BT = batch["tokens_BT"]
    windows, length = tokens_BT.shape
    words_BT = np.broadcast_to(np.arange(length), tokens_BT.shape)
    if word_starts is not None:
        starts_BT = word_starts[tokens_BT] | (tokens_BT == END_OF_DOCUMENT)
        starts_BT[:, 1:] |= tokens_BT[:, :-1] == END_OF_DOCUMENT
        words_BT = np.maximum(np.cumsum(starts_BT, axis=1) - 1, 0)
    order_BT = np.take_along_axis(random.random((windows, length)), words_BT, axis=1)
    order_BT[tokens_BT == END_OF_DOCUMENT] = np.inf
    wanted = max(1, round(rate * length))
    limit_B1 = np.partition(order_BT, wanted - 1, axis=1)[:, wanted - 1 : wanted]
    chosen_BT = (order_BT <= limit_B1) & np.isfinite(order_BT)
    fate_BT = random.random((windows, length))
    others_BT = random.integers(pieces.start, pieces.stop, (windows, length), tokens_BT.dtype)
    shown_BT = np.where(fate_BT < REPLACED, others_BT, MASK)
    shown_BT = np.where(fate_BT >= 1 - KEPT_AS_THEY_ARE, tokens_BT, shown_BT)
    return dict(batch) | {
        "tokens_BT": np.where(chosen_BT, shown_BT, tokens_BT).astype(tokens_BT.dtype),
        "targets_BT": tokens_BT,
        "weights_BT": batch["weights_BT"] * chosen_BT,
    }


def prefix(batch: Mapping[str, np.ndarray], random: np.random.Generator) -> Batch:
    """Open a prefix of each window to all of it, its length uniform in 1..T-1; ask for the rest
    (Raffel et al. 2020, section 3.2.1)."""
    windows, length = batch["tokens_BT"].shape
    split_B1 = random.integers(1, length, (windows, 1))
    index_1T = np.arange(length)[None]
    # The last token of the prefix predicts the first after it.
    asked_BT = index_1T >= split_B1 - 1
    return dict(batch) | {
        "prefix_BT": index_1T < split_B1,
        "weights_BT": batch["weights_BT"] * asked_BT,
    }


class Spans(NamedTuple):
    """How many tokens of a window are used, how many of them are hidden, and in how many spans."""

    used: int
    hidden: int
    number: int


def spans_of(length: int, *, rate: float, mean_span_tokens: float) -> Spans:
    """The most tokens that fit in a window of `length` with two sentinels for each span; what is
    left, a token or two, is padding."""
    for used in range(length, 1, -1):
        hidden = min(max(1, round(rate * used)), used - 1)
        count = min(max(1, round(hidden / mean_span_tokens)), hidden, used - hidden)
        if used + 2 * count <= length:
            return Spans(used, hidden, count)
    raise ValueError(
        f"a window of {length} tokens cannot hold a span and its sentinels; use a longer "
        "model.context_tokens"
    )


def span(
    batch: Mapping[str, np.ndarray],
    random: np.random.Generator,
    *,
    rate: float,
    mean_span_tokens: float,
    sentinels: int,
) -> Batch:
    """Replace spans of each window by sentinels, then ask for the spans, each after its sentinel,
    and the end (Raffel et al. 2020, section 3.1.4, in one window as in Tay et al. 2023, section
    3.1).

    The corrupted text is the prefix, open to all. A window is read as one document; the tokens that
    no longer fit at its end are left out (see `spans_of`). Text and spans together give back what
    was used of the window.

    Raises:
      ValueError: more spans than sentinels, or a window too short.
    """
    tokens_BT = batch["tokens_BT"]
    windows, length = tokens_BT.shape
    used, hidden, count = spans_of(length, rate=rate, mean_span_tokens=mean_span_tokens)
    if count > sentinels:
        raise ValueError(
            f"a window of {length} tokens has {count} spans, the tokenizer {sentinels} sentinels; "
            f"set corpus.sentinels={count} or longer spans"
        )
    marks = FIRST_SENTINEL + np.arange(count)
    rows = np.full((windows, length + 1), END_OF_DOCUMENT, tokens_BT.dtype)
    shown = used - hidden + count
    for row, tokens in zip(rows, tokens_BT[:, :used], strict=True):
        lengths = np.empty(2 * count, np.int64)
        lengths[0::2] = _parts(random, used - hidden, count)
        lengths[1::2] = _parts(random, hidden, count)
        inside = np.repeat(np.arange(2 * count) % 2 == 1, lengths)
        begins = np.cumsum(lengths)[0::2]
        text = tokens.copy()
        text[begins] = marks
        keep = ~inside
        keep[begins] = True
        row[:shown] = text[keep]
        asked = np.insert(tokens[inside], np.cumsum(lengths[1::2]) - lengths[1::2], marks)
        row[shown : shown + hidden + count] = asked
    index_BT = np.broadcast_to(np.arange(length, dtype=np.int32), tokens_BT.shape)
    # The last target is the end of the document; what is beyond is padding.
    asked_BT = (index_BT >= shown - 1) & (index_BT < used + 2 * count)
    return dict(batch) | {
        "tokens_BT": rows[:, :-1],
        "targets_BT": rows[:, 1:],
        "segments_BT": np.zeros_like(index_BT),
        "positions_BT": index_BT,
        "prefix_BT": index_BT < shown,
        "weights_BT": batch["weights_BT"] * asked_BT,
    }


def _parts(random: np.random.Generator, total: int, count: int) -> np.ndarray:
    """`total` as an ordered sum of `count` positive numbers, every one equally likely."""
    cuts = np.sort(random.choice(total - 1, count - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))
