"""SentencePiece as we set it up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.data.corpus import wiki_leads
from scaling.data.tokenizer import END_OF_DOCUMENT, Tokenizer

TEXTS = [document.text for _, document in zip(range(400), wiki_leads("train"), strict=False)]
TOKENIZER = Tokenizer.train(TEXTS, vocabulary=400, sentinels=0)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=200))
def test_any_text_survives_encoding_unless_it_holds_the_word_separator(text: str) -> None:
    # SentencePiece itself writes a space as U+2581, so that one character comes back as a space.
    [tokens] = TOKENIZER.encode([text])
    assert TOKENIZER.decode(tokens) == text.replace("\N{LOWER ONE EIGHTH BLOCK}", " ")
    assert END_OF_DOCUMENT not in tokens
    assert 0 not in tokens


def test_training_twice_gives_the_same_model() -> None:
    assert Tokenizer.train(TEXTS, vocabulary=400, sentinels=0).hash == TOKENIZER.hash


def test_vocabulary_is_the_one_asked_for() -> None:
    assert TOKENIZER.vocabulary == 400
    assert max(max(tokens) for tokens in TOKENIZER.encode(TEXTS)) < 400


def test_a_vocabulary_without_room_for_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"cannot train 64 pieces .* use a larger"):
        Tokenizer.train(TEXTS, vocabulary=64, sentinels=0)
