"""The cells of a grid as a sweep plans with them: resolved in bulk, made into configs when they are
trained."""

import copy
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from ml_collections import ConfigDict

from scaling import config as configs
from scaling import counts, outcome, sizes
from scaling.architecture import Architecture
from scaling.cells import architecture_of, fill_run, fill_shape, size_of
from scaling.workshop import program_key, run_id

NOT_OF_A_CELL = ("study", "sweep")
SECTIONS = ("budget", "optimizer")
"""Those that `RUN_KEYS` are in."""


@dataclass(frozen=True, eq=False)
class Shape:
    """What cells have in common that differ in `scaling.cells.RUN_KEYS` alone: one compiled program
    and one model."""

    content: Mapping[str, Any]
    size: sizes.Size
    architecture: Architecture

    @classmethod
    def of(cls, config: ConfigDict) -> "Shape":
        """The shape that a config describes.

        Raises:
          ValueError: it describes none.
        """
        filled = copy.deepcopy(config)
        fill_shape(filled)
        content = {k: v for k, v in configs.content(filled).items() if k not in NOT_OF_A_CELL}
        return cls(content, size_of(content), architecture_of(content))

    def cell(self, values: Mapping[str, Any]) -> "Cell":
        """The cell with these values of `RUN_KEYS`.

        Raises:
          ConfigError: values out of range, or no budget.
        """
        # What cells of a shape share, model and all, stays one object: thousands of them are small.
        content = {**self.content, **{name: {**self.content[name]} for name in SECTIONS}}
        for key, value in values.items():
            section, _, leaf = key.rpartition(".")
            (content[section] if section else content)[leaf] = value
        fill_run(content, self.size, self.architecture)
        return Cell(self, content)

    @functools.cached_property
    def program(self) -> str:
        """Names the compiled program."""
        return program_key(self.content)

    @functools.cached_property
    def corpus(self) -> str:
        """Names the text."""
        return configs.hash_of(self.content["corpus"])

    @functools.cached_property
    def parameters(self) -> counts.Parameters:
        """The parameters of the model."""
        return counts.parameters(self.size, self.architecture)

    @functools.cached_property
    def flops_6nd_per_token(self) -> int:
        """See `scaling.counts.flops_6nd`."""
        return counts.flops_6nd(self.size, self.architecture, tokens=1)

    @functools.cached_property
    def flops_counted_per_token(self) -> float:
        """See `scaling.counts.flops_counted`."""
        return outcome.flops_counted(self.content, tokens=1)


@dataclass(frozen=True, eq=False)
class Cell:
    """A resolved cell: its shape, and all it is as plain content."""

    shape: Shape
    content: Mapping[str, Any]

    @property
    def config(self) -> ConfigDict:
        """As those who train it read it."""
        return ConfigDict(self.content)

    @functools.cached_property
    def run_id(self) -> str:
        """The name of its run."""
        return run_id(self.content)

    @property
    def trunk_key(self) -> tuple[Any, ...]:
        """The same for cells that differ in their budget alone."""
        optimizer = self.content["optimizer"]
        unique = self.content["budget"]["unique_tokens"]
        return id(self.shape), self.content["seed"], unique, *optimizer.values()

    @property
    def tokens(self) -> int:
        """How many it is trained on."""
        tokens: int = self.content["budget"]["tokens"]
        return tokens

    @property
    def batch_tokens(self) -> int:
        """How many an update takes."""
        tokens: int = self.content["batch_tokens"]
        return tokens

    @property
    def flops(self) -> float:
        """Its budget, by `flops_6nd`."""
        flops: float = self.content["budget"]["flops"]
        return flops


class Cells(Sequence[ConfigDict]):
    """Resolved cells: a sequence of configs, each made when it is asked for."""

    def __init__(self, planned: Iterable[Cell]) -> None:
        self.planned = tuple(planned)

    @classmethod
    def of(cls, cells: Sequence[ConfigDict]) -> "Cells":
        """Any resolved configs as cells; those that are already are given back."""
        if isinstance(cells, Cells):
            return cells
        shapes: dict[str, Shape] = {}
        planned = []
        for content in map(configs.content, cells):
            name = program_key(content)
            if name not in shapes:
                shapes[name] = Shape(content, size_of(content), architecture_of(content))
            planned.append(Cell(shapes[name], content))
        return cls(planned)

    def only(self, run_ids: Iterable[str]) -> "Cells":
        """Those of these names, in the order of the grid."""
        wanted = frozenset(run_ids)
        return Cells(cell for cell in self.planned if cell.run_id in wanted)

    @overload
    def __getitem__(self, index: int) -> ConfigDict: ...

    @overload
    def __getitem__(self, index: slice) -> "Cells": ...

    def __getitem__(self, index: int | slice) -> "ConfigDict | Cells":
        if isinstance(index, slice):
            return Cells(self.planned[index])
        return self.planned[index].config

    def __len__(self) -> int:
        return len(self.planned)

    def __add__(self, other: Sequence[ConfigDict]) -> "Cells":
        return Cells((*self.planned, *Cells.of(other).planned))
