"""What columns are called: our names with their units, and what others call the same."""

import difflib
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from scaling.records import BadTable

COUNTS = ("params", "tokens", "flops")
COLUMNS: Mapping[str, str] = {
    "params": "parameters of the model",
    "tokens": "tokens trained on",
    "flops": "training FLOPs",
    "loss": "nats per token, unless the source says otherwise",
    "unique_tokens": "how many of the tokens differ",
    "tokens_per_parameter": "tokens / params",
    "epochs": "tokens / unique_tokens",
    "width": "of the residual stream",
    "depth": "blocks",
    "experts": "of a mixture",
    "granularity": "of a mixture's experts",
    "weight_bits": "bits of a weight",
    "activation_bits": "bits of an activation",
    "cache_bits": "bits of a key or value",
    "finetuning_tokens": "tokens of the second training",
    "teacher_loss": "nats per token",
    "supervised_loss": "nats per token",
    "source_loss": "nats per token on the first data",
    "learning_rate": "peak",
    "batch_tokens": "tokens per update",
    "steps": "updates",
    "accuracy": "share of right answers, 0 to 1",
    "error": "share of wrong answers, 0 to 1",
    "seed": "of the run",
    "tuned": "1 where the run's rates were tuned, or carried from where they were, 0 where not",
    "bracketed": "1 where they are the best of those tried, lower and higher ones too, 0 where not",
}
"""Every input and target of a law, and what else is known of a run."""

RECORD_COLUMNS = {"params": "params_total", "flops": "flops_6nd"}
TEXTS = ("run_id", "series", "status", "objective")
FOLLOWS: Mapping[str, tuple[str, str]] = {
    "tokens": ("flops", "params"),
    "flops": ("tokens", "params"),
    "tokens_per_parameter": ("tokens", "params"),
    "epochs": ("tokens", "unique_tokens"),
}
"""Columns that follow from two others."""

SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "params": (
        "n", "params_n", "params_total", "total_params", "n_params", "num_params", "param_count",
        "parameters", "num_parameters", "model_size", "params_active_precise",
    ),
    "tokens": (
        "d", "tokens_d", "n_tokens", "num_tokens", "training_tokens", "train_tokens",
        "total_tokens",
    ),
    "flops": (
        "c", "flops_c", "flop", "training_flop", "training_flops", "train_flops", "total_flops",
    ),
    "loss": ("final_loss", "val_loss", "validation_loss", "eval_loss", "test_loss"),
    "unique_tokens": ("unique_tokens_u",),
    "width": ("d_model", "hidden_size", "n_embd"),
    "depth": ("n_layers", "num_layers", "n_layer"),
    "learning_rate": ("lr", "peak_lr", "max_lr", "learning_rate_peak"),
    "batch_tokens": ("batch_size_tokens", "batch_size_in_tokens"),
    "accuracy": ("acc",),
    "status": ("state",),
}  # fmt: skip
"""What others call our columns, in small letters with _ for all that is no letter or digit. A
spelling is believed where no other column of the table could be meant too."""


BITS = ("bit", "bpb", "bpc", "bpt", "bpw")
"""What the name of a loss in bits has in it."""


def in_bits(column: str) -> bool:
    """Whether a loss read from this column seems to be in bits."""
    return "*" not in column and any(part in column.lower() for part in BITS)


def unit_of_loss(column: str | None) -> str:
    """The unit of a loss read from this column: nats per token, unless its name says otherwise."""
    return f"in the unit of {column}" if column and in_bits(column) else "nats per token"


class Named(NamedTuple):
    """A column of a source, and the factor that brings it to our unit."""

    column: str
    factor: float = 1.0

    def __str__(self) -> str:
        return self.column if self.factor == 1 else f"{self.column}*{self.factor:g}"


def option(**columns: str) -> str:
    """What to type to map columns, quoted where a shell would read it otherwise."""
    pairs = ",".join(f"{ours}={theirs}" for ours, theirs in columns.items())
    return f"--columns {shlex.quote(pairs)}"


class Resolved(NamedTuple):
    """Which column of the source stands behind each of ours; what could not be told, in words."""

    names: dict[str, Named]
    notes: list[str]


def resolve(
    found: Sequence[str], mapped: Mapping[str, str], *, needed: Collection[str], source: object
) -> Resolved:
    """Our names for the columns `found` in a source: as mapped, else our own, else as spelled.

    Raises:
      BadTable: a mapped name that we do not know or that is not there; two columns that could both
        be one that is needed.
    """
    for name in mapped:
        if name not in (*COLUMNS, *TEXTS):
            near = difflib.get_close_matches(name, (*COLUMNS, *TEXTS), 1, 0.6)
            hint = f"did you mean {near[0]}?" if near else f"use {', '.join(COLUMNS)}"
            if name in found and mapped[name] in (*COLUMNS, *TEXTS):
                hint = f"write OURS=THEIRS, as in {mapped[name]}={name}"
            raise BadTable(f"--columns maps {name!r}, which is not a column of ours; {hint}")
    names = {ours: _named(theirs, found) for ours, theirs in mapped.items()}
    notes = []
    taken = {named.column for named in names.values()}
    for ours in (*COLUMNS, *TEXTS):
        if ours in names:
            continue
        spelled = [
            theirs
            for theirs in found
            if theirs not in taken and _plain(theirs) in (ours, *SPELLINGS.get(ours, ()))
        ]
        # A letter may be anything where a whole word says it.
        spelled = [theirs for theirs in spelled if len(theirs) > 1] or spelled
        if ours in found:
            names[ours] = Named(ours)
        elif len(spelled) == 1:
            names[ours] = Named(spelled[0])
        elif spelled and ours in needed:
            raise BadTable(
                f"{source} has {' and '.join(spelled)}, which could each be {ours}; say which with "
                f"{option(**{ours: spelled[0]})}"
            )
        elif spelled:
            notes.append(
                f"{' and '.join(spelled)} could each be {ours}, and neither was taken; say which "
                f"with {option(**{ours: spelled[0]})}"
            )
    return Resolved(names, notes)


def missing(
    absent: Mapping[str, str], found: Sequence[str], *, taken: Collection[str], source: object
) -> BadTable:
    """The error for columns that are not there, {ours: theirs}, with the nearest that are free."""
    near = {}
    for ours, theirs in absent.items():
        others = {*taken, *COLUMNS} - {ours}
        free = {name.lower(): name for name in found if name not in others}
        match = difflib.get_close_matches(theirs.lower(), free, 1, 0.3)
        near[ours] = free[match[0]] if match else "NAME"
    return BadTable(
        f"{source} has no column {' and no column '.join(absent.values())}; found "
        f"{', '.join(found)}; name the right ones with {option(**near)}"
    )


def _named(theirs: str, found: Sequence[str]) -> Named:
    """A column's name, or NAME*FACTOR where no column is called that."""
    column, times, factor = theirs.rpartition("*")
    if theirs in found or not times:
        return Named(theirs)
    try:
        return Named(column.strip(), float(factor))
    except ValueError:
        return Named(theirs)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
