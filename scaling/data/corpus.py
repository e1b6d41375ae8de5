"""Documents of a corpus, with the split that is fixed for ever."""

import hashlib
import json
import lzma
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Literal

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
LANGUAGES = ("en", "es", "fr")


@dataclass(frozen=True, kw_only=True)
class Document:
    """One article: its language (ISO 639-1), title, topic label and text."""

    language: str
    title: str
    topic: str
    text: str


def split_of(language: str, title: str) -> Split:
    """The split an article belongs to, whatever else the corpus holds: 90% train, 5% and 5%.

    The first eight bytes of SHA-256 of "language TAB title" as a big-endian integer, modulo 20: 0
    is test, 1 is validation, the rest train. Results and classifiers depend on it, so it never
    changes.
    """
    digest = hashlib.sha256(f"{language}\t{title}".encode()).digest()
    bucket = int.from_bytes(digest[:8], "big") % 20
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"


def wiki_leads(split: Split, *, languages: Sequence[str] = LANGUAGES) -> Iterator[Document]:
    """The packaged corpus: lead sections of Wikipedia's vital articles (text under CC BY-SA 4.0).

    Raises:
      ValueError: an unknown split or language.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; the splits are {', '.join(SPLITS)}")
    if unknown := sorted(set(languages) - set(LANGUAGES)):
        raise ValueError(
            f"no text in {', '.join(unknown)}; the packaged corpus has {', '.join(LANGUAGES)}"
        )
    packed = resources.files("scaling.data").joinpath("packaged/wiki_leads.jsonl.xz")
    with packed.open("rb") as stream, lzma.open(stream, "rt", encoding="utf-8") as lines:
        for line in lines:
            document = Document(**json.loads(line))
            if (
                document.language in languages
                and split_of(document.language, document.title) == split
            ):
                yield document
