"""What the runs of one work directory share: tokenized data and compiled programs."""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from scaling import cells
from scaling import config as configs
from scaling.data import corpus, corruption, loader, shards
from scaling.data.tokenizer import FIRST_SENTINEL, Tokenizer
from scaling.model.layers import Kernel
from scaling.model.parameterization import Parameterization
from scaling.model.transformer import Decoder, Encoder
from scaling.train import objectives, optim, processes
from scaling.train.program import Program
from scaling.train.sharding import make_mesh


def run_id(cell: ConfigDict | Mapping[str, Any]) -> str:
    """The name of a run: readable, and unique to what its resolved config says of it."""
    content = configs.content(cell)
    digest = configs.hash_of(configs.identity(content))[:8]
    flops = f"{content['budget']['flops']:.2e}".replace("+", "")
    return f"w{content['model']['width']:03d}-{flops}-s{content['seed']}-{digest}"


def seen_of(cell: ConfigDict) -> int | None:
    """The tokens that a run sees again and again, in whole windows; None where none comes twice."""
    unique, context = cell.budget.unique_tokens, cell.model.context_tokens
    return None if unique is None else unique // context * context


class Workshop:
    """Tokenized data and compiled programs of one work directory, each made on first use."""

    def __init__(self, workdir: Path) -> None:
        self.workdir = workdir
        self._tokens = workdir / "data"
        self._data: dict[str, tuple[Path, shards.Manifest]] = {}
        self._programs: dict[str, Program] = {}

    def data(self, cell: ConfigDict) -> tuple[Path, shards.Manifest]:
        """The folder and manifest of the cell's tokens; made on first use, verified before each
        study."""
        wanted = configs.plain(cell.corpus)
        name = configs.hash_of(wanted)[:12]
        if name not in self._data:
            folder = self._tokens / name
            if not folder.exists():
                if processes.first():
                    tokenize(folder, cell.corpus, wanted)
                else:
                    processes.wait_for(folder)
            self._data[name] = folder, shards.read(folder)
        return self._data[name]

    def elsewhere(self, workdir: Path) -> "Workshop":
        """The same data and programs, for runs in another work directory."""
        other = Workshop(workdir)
        other._tokens, other._data, other._programs = self._tokens, self._data, self._programs
        return other

    def stream(self, cell: ConfigDict, *, tokens: int | None = None) -> loader.TrainStream:
        """The cell's batches, enough of them for `tokens`, those of its budget where None.

        Raises:
          ConfigError: the corpus has fewer tokens than the cell's budget.
        """
        windows = self._windows(cell, "train")
        unique = seen_of(cell)
        stream = loader.TrainStream(
            windows,
            batch_windows=cell.batch_tokens // cell.model.context_tokens,
            seed=cell.seed,
            corrupt=self._corruption(cell),
            repeated=None if unique is None else unique // windows.context,
        )
        available = (windows.count if unique else stream.steps * stream.rows) * windows.context
        needed = unique or (cell.budget.tokens if tokens is None else tokens)
        if needed > available:
            raise configs.ConfigError(
                f"{run_id(cell)} needs {needed} tokens, the corpus has {available} for training "
                "and none is used twice; use a wider model or a smaller budget, or repeat some "
                "with budget.unique_tokens"
            )
        return stream

    def validation(self, cell: ConfigDict, *, limit: int | None) -> Iterator[loader.Batch]:
        """The validation split in batches, all of it or `limit` windows; the same for every run of
        one objective."""
        return loader.evaluation(
            self._windows(cell, "validation"),
            batch_windows=cell.batch_tokens // cell.model.context_tokens,
            limit=limit,
            corrupt=self._corruption(cell),
        )

    def _windows(self, cell: ConfigDict, split: str) -> loader.Windows:
        folder, manifest = self.data(cell)
        return loader.Windows(
            folder / manifest.splits[split].file, context=cell.model.context_tokens
        )

    def _corruption(self, cell: ConfigDict) -> loader.Corruption | None:
        objective, sentinels = cell.objective, cell.corpus.sentinels
        if objective.name == "masked":
            words = None
            if objective.whole_words:
                words = Tokenizer.load(self.data(cell)[0] / "tokenizer.model").word_starts()
            pieces = range(FIRST_SENTINEL + sentinels, cell.corpus.vocabulary)
            return functools.partial(
                corruption.masked, rate=objective.mask_rate, pieces=pieces, word_starts=words
            )
        if objective.name == "prefix":
            return corruption.prefix
        if objective.name == "span":
            return functools.partial(
                corruption.span,
                rate=objective.mask_rate,
                mean_span_tokens=objective.mean_span_tokens,
                sentinels=sentinels,
            )
        return None

    def program(self, cell: ConfigDict, *, packed: int | None = None) -> Program:
        """The compiled functions of the cell's shape, for one run or for so many packed."""
        name = f"{program_key(cell)}-{packed}"
        if name not in self._programs:
            self._programs[name] = make_program(cell, packed=packed)
        return self._programs[name]


def program_key(cell: ConfigDict | Mapping[str, Any]) -> str:
    """Names a compiled program: all that is not an argument of its step."""
    content = configs.content(cell)
    optimizer = {
        key: content["optimizer"][key] for key in ("name", "schedule", "decays", "epsilon")
    }
    runtime = {
        key: content["runtime"][key]
        for key in ("dispatch_steps", "microbatches", "loss_chunk_tokens", "remat",
                    "layers_unrolled", "attention_kernel")
    }  # fmt: skip
    sections = {
        key: content[key]
        for key in ("model", "parameterization", "objective", "mesh", "batch_tokens", "precision")
    }
    return configs.hash_of(sections | {"optimizer": optimizer, "runtime": runtime})


def make_program(cell: ConfigDict, *, packed: int | None = None) -> Program:
    """The compiled functions for cells of this shape, none of them compiled yet."""
    size, kind, runtime = cells.size_of(cell), cells.architecture_of(cell), cell.runtime
    if runtime.attention_kernel == "cudnn" and jax.default_backend() != "gpu":
        raise configs.ConfigError(
            f"runtime.attention_kernel is cudnn, which is for NVIDIA devices, and JAX runs on "
            f"{jax.default_backend()}; use xla"
        )
    kernel: Kernel = "xla"
    if runtime.attention_kernel == "cudnn":
        kernel = "cudnn" if packed is None else "cudnn_packed"
    optimizer, context = cell.optimizer, cell.model.context_tokens
    rules = Parameterization(lengths=size.lengths, tied=kind.tied, **cell.parameterization)
    build = Decoder if kind.attention == "causal" else Encoder
    return Program(
        lambda key: build(
            size,
            kind,
            rules,
            key=key,
            compute_dtype=jnp.dtype(cell.precision),
            remat=runtime.remat,
            layers_unrolled=runtime.layers_unrolled,
            attention_kernel=kernel,
        ),
        functools.partial(objectives.cross_entropy, z_loss=cell.objective.z_loss),
        measure=objectives.cross_entropy,
        rule=optim.Rule(
            optimizer=optimizer.name,
            schedule_name=optimizer.schedule,
            decays=tuple(optimizer.decays),
            epsilon=optimizer.epsilon,
        ),
        scale=functools.partial(rules.scale, optimizer=optimizer.name),
        batch_windows=cell.batch_tokens // context,
        context=context,
        mesh=make_mesh(**cell.mesh),
        microbatches=runtime.microbatches,
        chunk_tokens=runtime.loss_chunk_tokens,
        dispatch_steps=runtime.dispatch_steps,
        packed=packed,
    )


def tokenize(folder: Path, section: ConfigDict, description: dict[str, Any]) -> shards.Manifest:
    """Train the tokenizer on the training split and write all splits as token files.

    Raises:
      ConfigError: a corpus that is not known.
    """
    if section.name != "wiki-leads":
        raise configs.ConfigError(
            f"corpus.name is {section.name!r}; the known corpus is 'wiki-leads'"
        )

    def documents(split: corpus.Split) -> list[corpus.Document]:
        return list(corpus.wiki_leads(split, languages=section.languages))

    tokenizer = Tokenizer.train(
        (document.text for document in documents("train")),
        vocabulary=section.vocabulary,
        sentinels=section.sentinels,
    )
    splits = {str(split): documents(split) for split in corpus.SPLITS}
    return shards.write(folder, splits, tokenizer, corpus=description)
