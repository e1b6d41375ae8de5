"""The table of finished runs that laws are fitted to."""

import dataclasses
import importlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaling.records import BadTable
from scaling.runs.doubts import doubts
from scaling.runs.names import FOLLOWS, option
from scaling.runs.sources import at

Array = NDArray[np.float64]

RATIOS = ("tokens_per_parameter", "epochs")


class Dropped(NamedTuple):
    """A run that was left out, and why."""

    run_id: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Runs:
    """A table of finished runs: arrays of one length, and what was left out.

    `params`, `tokens`, `flops` are counts, `loss` is in nats per token (or the unit of the source);
    all NaN where the source has none. `others` are further columns by name, such as
    `unique_tokens`, `width` or `learning_rate`, with NaN for a cell that is empty. `series` names
    the run of which each row is a checkpoint, where rows are that. `convention` names the source's
    column behind each of ours; `notes` tell what could not be read as it may have been meant.
    """

    run_id: tuple[str, ...]
    params: Array
    tokens: Array
    loss: Array
    flops: Array
    others: Mapping[str, Array] = field(default_factory=dict)
    series: tuple[str, ...] | None = None
    dropped: tuple[Dropped, ...] = ()
    convention: Mapping[str, str] = field(
        default_factory=lambda: {
            "params": "params", "tokens": "tokens", "flops": "flops", "loss": "nats per token",
        }
    )  # fmt: skip
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.run_id)

    @property
    def columns(self) -> dict[str, Array]:
        """All columns of numbers by name."""
        own = {name: getattr(self, name) for name in ("params", "tokens", "flops", "loss")}
        return {name: x for name, x in own.items() if not (x.size and np.isnan(x).all())} | dict(
            self.others
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know of these rows before a law is fitted to them."""
        by_reason: dict[str, list[str]] = {}
        for run_id, reason in self.dropped:
            by_reason.setdefault(reason, []).append(run_id)
        left = "; ".join(f"{at(ids)} ({reason})" for reason, ids in by_reason.items())
        were = "1 run was" if len(self.dropped) == 1 else f"{len(self.dropped)} runs were"
        out = [f"{were} left out: {left}"] if left else []
        return (*self.notes, *out, *doubts(self))

    def column(self, name: str) -> Array:
        """A column by name; `tokens_per_parameter` and `epochs` follow from the others.

        Raises:
          BadTable: there is none of this name (the message says which there are), or cells of it
            are empty.
        """
        columns = self.columns
        if name not in columns and name in RATIOS and columns.keys() >= set(FOLLOWS[name]):
            over, under = (self.column(part) for part in FOLLOWS[name])
            return over / under
        if name not in columns:
            raise BadTable(
                f"the runs have no column {name}; found {', '.join(columns)}; name the source's "
                f"with {option(**{name: 'NAME'})}"
            )
        found = columns[name]
        empty = np.flatnonzero(np.isnan(found))
        if empty.size:
            raise BadTable(
                f"{name} is empty in {at([self.run_id[i] for i in empty])}; fill it in, or leave "
                "these runs out"
            )
        return found

    def log(self, name: str) -> Array:
        """Natural logarithms of a column.

        Raises:
          BadTable: as `column`, or a number that is not positive.
        """
        found = self.column(name)
        low = np.flatnonzero(found <= 0)
        if low.size:
            raise BadTable(
                f"{name} is {found[low[0]]:g} in {at([self.run_id[i] for i in low])}; a law takes "
                "its logarithm, so it must be positive"
            )
        return np.log(found)

    def where(self, keep: NDArray[np.bool_]) -> "Runs":
        """The rows that are kept, and all that was dropped."""
        rows = np.flatnonzero(keep)
        return dataclasses.replace(
            self,
            run_id=tuple(self.run_id[row] for row in rows),
            params=self.params[rows],
            tokens=self.tokens[rows],
            loss=self.loss[rows],
            flops=self.flops[rows],
            others={name: values[rows] for name, values in self.others.items()},
            series=None if self.series is None else tuple(self.series[row] for row in rows),
        )

    def only(self, run_ids: Set[str]) -> "Runs":
        """The rows, and the runs left out, whose ids are among `run_ids`."""
        kept = self.where(np.array([name in run_ids for name in self.run_id], bool))
        dropped = tuple(entry for entry in self.dropped if entry.run_id in run_ids)
        return dataclasses.replace(kept, dropped=dropped)

    def that_are(self, kind: str) -> "Runs":
        """The runs whose rates are `tuned` (carried from where they were tuned, or bracketed) or
        `bracketed`; all others are dropped with that reason.

        Raises:
          BadTable: none is, or nothing says which are.
        """
        keep = self.others.get(kind, np.zeros(len(self))) == 1
        if not keep.any():
            said = "are 0 or empty" if kind in self.others else "are not there"
            raise BadTable(
                f"none of the {len(self)} runs is {kind}: its cells {said}; give records whose "
                f"rates were varied or carried (scaling.runs.tuning), or a column {kind} of 0 and 1"
            )
        left = (Dropped(name, f"not {kind}")
                for name, kept in zip(self.run_id, keep, strict=True) if not kept)  # fmt: skip
        return dataclasses.replace(self.where(keep), dropped=(*self.dropped, *left))

    def to_pandas(self) -> Any:
        """A pandas DataFrame: a row for each run, a column for each of `columns`, `series` if any.

        Raises:
          ImportError: pandas, which nothing here needs, is not installed.
        """
        series = {} if self.series is None else {"series": list(self.series)}
        return data_frame(series | self.columns, index=self.run_id)


def data_frame(columns: Mapping[str, Any], *, index: Sequence[str] | None = None) -> Any:
    """A pandas DataFrame of these columns; `index` is that of runs.

    Raises:
      ImportError: pandas, which nothing here needs, is not installed.
    """
    try:
        pandas = importlib.import_module("pandas")
    except ModuleNotFoundError as error:
        raise ImportError(
            "to_pandas needs pandas, which is not installed: pip install pandas; without it "
            "every column is a NumPy array, as in runs.column('loss')"
        ) from error
    named = None if index is None else pandas.Index(index, name="run_id")
    return pandas.DataFrame(columns, index=named)
