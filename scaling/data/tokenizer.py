"""SentencePiece: train on documents, load, and the hash that says which vocabulary a loss belongs
to."""

import hashlib
import io
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import sentencepiece

END_OF_DOCUMENT = 1
FIRST_SENTINEL = 2
WORD_BREAKS = ("▁", "\n")
IDEOGRAPHS = ("CJK UNIFIED", "CJK COMPATIBILITY", "HIRAGANA", "KATAKANA")
LEADING_BYTE = re.compile("<0x(0A|20|E[3-9]|F0)>")
"""Line break, space, and how UTF-8 begins U+3000 to U+9FFF and the ideographs above U+FFFF."""


class Tokenizer:
    """A trained SentencePiece model; lossless, since unknown characters fall back to bytes."""

    def __init__(self, model: bytes) -> None:
        self.model = model
        self.hash = hashlib.sha256(model).hexdigest()
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.vocabulary: int = self._processor.vocab_size()

    @classmethod
    def train(cls, texts: Iterable[str], *, vocabulary: int, sentinels: int) -> "Tokenizer":
        """Train byte-pair encoding with byte fallback on `texts`.

        Ids: 0 unknown (never produced), 1 end of document, sentinels (which no text produces), 256
        bytes, then pieces. Line breaks are kept as text, spaces are not normalised away, so
        decode(encode(text)) == text.

        Raises:
          ValueError: SentencePiece cannot train on these texts, as with too small a vocabulary.
        """
        model = io.BytesIO()
        try:
            # One thread: the merges then come out the same on every machine.
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(texts),
                model_writer=model,
                model_type="bpe",
                vocab_size=vocabulary,
                byte_fallback=True,
                character_coverage=0.9995,
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                add_dummy_prefix=False,
                max_sentence_length=1 << 20,
                unk_id=0,
                eos_id=END_OF_DOCUMENT,
                bos_id=-1,
                pad_id=-1,
                control_symbols=[f"<sentinel_{number}>" for number in range(sentinels)],
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise ValueError(
                f"SentencePiece cannot train {vocabulary} pieces on these texts ({error}); "
                "256 bytes and every frequent character must fit: use a larger corpus.vocabulary"
            ) from error
        return cls(model.getvalue())

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Read a model file written by `save`."""
        return cls(path.read_bytes())

    def word_starts(self) -> np.ndarray:
        """For every piece, whether a word begins with it: after a space or a line break, and at
        every ideograph or kana, since Chinese and Japanese put no spaces between words.

        So does the first byte of a character that has no piece and may be one of those.
        """
        pieces = (self._processor.id_to_piece(number) for number in range(self.vocabulary))
        return np.array([_begins_a_word(piece) for piece in pieces])

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, without the end of document."""
        return self._processor.encode(texts, num_threads=1)

    def decode(self, tokens: list[int]) -> str:
        """The text of token ids."""
        return self._processor.decode(tokens)


def _begins_a_word(piece: str) -> bool:
    if LEADING_BYTE.fullmatch(piece) or piece[:1] in WORD_BREAKS:
        return True
    return bool(piece) and unicodedata.name(piece[0], "").startswith(IDEOGRAPHS)
