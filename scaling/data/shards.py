"""Documents to a file of token ids with a manifest that says exactly what is in it."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scaling.data.corpus import Document
from scaling.data.tokenizer import END_OF_DOCUMENT, Tokenizer
from scaling.files import write_json, writing

MANIFEST_SCHEMA = 1
DOCUMENTS_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split on disk: token ids (end of document after each), and what they count."""

    file: str
    tokens: int
    documents: int
    text_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """`manifest.json`: the seam between corpus and loader."""

    schema: int
    corpus: dict[str, Any]
    vocabulary: int
    tokenizer_sha256: str
    splits: dict[str, Split]

    @property
    def hash(self) -> str:
        """Identifies the data a model has seen: corpus, tokenizer and tokens."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def write(
    folder: Path,
    splits: Mapping[str, Iterable[Document]],
    tokenizer: Tokenizer,
    *,
    corpus: dict[str, Any],
) -> Manifest:
    """Tokenize each split into `folder`, which appears whole or not at all.

    Raises:
      OSError: the disk is full, the folder read-only, ...; nothing is left behind.
    """
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            (scratch / "tokenizer.model").write_bytes(tokenizer.model)
            manifest = Manifest(
                schema=MANIFEST_SCHEMA,
                corpus=corpus,
                vocabulary=tokenizer.vocabulary,
                tokenizer_sha256=tokenizer.hash,
                splits={
                    name: _write_split(scratch / f"{name}.npy", documents, tokenizer)
                    for name, documents in splits.items()
                },
            )
            write_json(scratch / "manifest.json", asdict(manifest))
            os.rename(scratch, folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return manifest


def read(folder: Path) -> Manifest:
    """Read the manifest and check that the files are those it names.

    Raises:
      ValueError: a file differs from the manifest; the message says which.
    """
    content = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    content["splits"] = {name: Split(**split) for name, split in content["splits"].items()}
    manifest = Manifest(**content)
    wanted = {split.file: split.sha256 for split in manifest.splits.values()}
    for name, digest in (wanted | {"tokenizer.model": manifest.tokenizer_sha256}).items():
        found = _sha256(folder / name)
        if found != digest:
            raise ValueError(
                f"{folder / name} has SHA-256 {found[:12]}..., its manifest says {digest[:12]}...; "
                f"delete {folder} and run the same command to make it again"
            )
    return manifest


def _write_split(path: Path, documents: Iterable[Document], tokenizer: Tokenizer) -> Split:
    texts = [document.text for document in documents]
    ids: list[int] = []
    for start in range(0, len(texts), DOCUMENTS_AT_ONCE):
        for document in tokenizer.encode(texts[start : start + DOCUMENTS_AT_ONCE]):
            ids.extend(document)
            ids.append(END_OF_DOCUMENT)
    np.save(path, np.asarray(ids, np.min_scalar_type(tokenizer.vocabulary - 1)), allow_pickle=False)
    return Split(
        file=path.name,
        tokens=len(ids),
        documents=len(texts),
        text_bytes=sum(len(text.encode()) for text in texts),
        sha256=_sha256(path),
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
