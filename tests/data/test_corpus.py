"""The packaged corpus and its split."""

from importlib import resources

import pytest

from scaling.data.corpus import LANGUAGES, SPLITS, split_of, wiki_leads


def test_the_package_holds_every_article_once_with_its_topic_and_licence() -> None:
    documents = [document for split in SPLITS for document in wiki_leads(split)]
    counted = {lang: sum(d.language == lang for d in documents) for lang in LANGUAGES}
    assert counted == {"en": 10_033, "fr": 9_946, "es": 6_216}
    assert len({(d.language, d.title) for d in documents}) == len(documents)
    assert all(d.topic and d.text for d in documents)
    folder = resources.files("scaling.data").joinpath("packaged")
    assert "CC BY-SA 4.0" in folder.joinpath("ATTRIBUTION.md").read_text(encoding="utf-8")
    assert len(folder.joinpath("wiki_leads.jsonl.xz").read_bytes()) < 5_000_000


def test_the_split_is_fixed_for_ever() -> None:
    # From the rule, worked out apart: int(sha256("en\tFahrenheit")[:16], 16) % 20 is 13.
    assert split_of("en", "Fahrenheit") == "train"
    sizes = {split: sum(1 for _ in wiki_leads(split)) for split in SPLITS}
    assert sizes == {"train": 23_585, "validation": 1_375, "test": 1_235}


def test_no_article_is_in_two_splits() -> None:
    texts = {split: {document.text for document in wiki_leads(split)} for split in SPLITS}
    assert not texts["train"] & texts["validation"]
    assert not texts["train"] & texts["test"]


def test_unknown_splits_and_languages_are_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="train, validation, test"):
        next(wiki_leads("dev"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"no text in de.*en, es, fr"):
        next(wiki_leads("train", languages=("en", "de")))
