"""What a table of runs may have wrong: units, conventions, copies, runs that went badly.

What cannot be meant is refused where the table is read; what may be meant is a warning that goes
with the law. Thresholds are stated here, and were chosen from the range of published runs.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scaling.records import BadTable
from scaling.runs.names import in_bits, option
from scaling.runs.sources import at

if TYPE_CHECKING:
    from scaling.runs.table import Runs

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

TWICE = 2.0
IMPOSSIBLE = 500.0
"""Conventions of FLOPs differ by less (experts that are not active included); units by more."""
GAP = 1e4
"""Neighbouring sizes, lengths, or tokens per parameter of one study differ by less."""
FEWEST_TOKENS_PER_PARAMETER, MOST_TOKENS_PER_PARAMETER = 1e-6, 1e6
"""Of the middle run; published tables lie between 0.006 and 64,000 in every row."""
PF_DAY = 1e15 * 86400
NATS_PER_BIT = math.log(2)
ABOVE_A_LANGUAGE_MODEL = 12.0
"""Nats per token of a uniform guess among 160,000 tokens."""
OFF = 0.05
"""So far above a run that had no more of anything, a loss is more than noise."""
REFERENCES = 2000
LEAST_FOR_TWO = 12
"""Rows from which two units are told from one."""


def refuse(runs: "Runs", places: Sequence[str]) -> None:
    """Refuse a table whose numbers contradict each other as no convention does.

    `places` says where each run stood. Refused are: flops over 500 times (or under 1/500 of) 6 *
    params * tokens; runs of which the middle one has over 1e6 or under 1e-6 tokens per parameter;
    sizes, tokens or their ratio with a gap of 10,000 between neighbours; shares above one.

    Raises:
      BadTable: names the rows, and what would bring them to our units.
    """
    if not len(runs):
        return
    ratio = _against_6nd(runs)
    far = np.abs(np.log(ratio)) > math.log(IMPOSSIBLE)
    if far.any():
        raise BadTable(
            f"flops is {np.median(ratio[far]):.2g} times 6 * params * tokens in "
            f"{_at(far, places)}: {_explain(runs, ratio, far)}"
        )
    _refuse_gaps(runs, places)
    per = float(np.median(runs.tokens / runs.params))
    if per < FEWEST_TOKENS_PER_PARAMETER or per > MOST_TOKENS_PER_PARAMETER:
        name = "tokens" if per < 1 else "params"
        values, theirs = getattr(runs, name), runs.convention.get(name, name)
        remedy = f"{option(**{name: f'{theirs}*1e6'})} (or 1e9)"
        if " / " in theirs:  # they follow from flops
            remedy = option(flops="NAME*FACTOR")
        raise BadTable(
            f"{name} is {values.min():.3g} to {values.max():.3g} in all {len(runs)} rows, and the "
            f"middle one has {per:.2g} tokens per parameter: if these are millions or billions, "
            f"use {remedy}"
        )
    for name in ("accuracy", "error"):
        over = runs.others.get(name, np.zeros(0)) > 1
        if over.any():
            raise BadTable(
                f"{name} is above 1 in {_at(over, places)}, and must be a share; if these are per "
                f"cent, use {option(**{name: f'{runs.convention.get(name, name)}*0.01'})}"
            )


def _refuse_gaps(runs: "Runs", places: Sequence[str]) -> None:
    for name, values in (
        ("params", runs.params),
        ("tokens", runs.tokens),
        ("tokens per parameter", runs.tokens / runs.params),
    ):
        apart = _apart(values, GAP)
        if apart is not None:
            few, rest = values[apart], values[~apart]
            raise BadTable(
                f"{name} is {few.min():.3g} to {few.max():.3g} in {_at(apart, places)}, and "
                f"{rest.min():.3g} to {rest.max():.3g} elsewhere, with nothing between: these rows "
                "are in another unit (millions, billions?); bring all to one"
            )


def _explain(runs: "Runs", ratio: Array, far: Mask) -> str:
    """What unit would explain flops so far from 6 * params * tokens, and the remedy."""
    if not far.all():
        return "they seem to be in another unit than the rest; mend these rows"
    middle = float(np.median(ratio))
    flops = runs.convention.get("flops", "flops")
    if abs(math.log10(middle * PF_DAY)) < 0.7:
        return f"it looks like PF-days; if so, use {option(flops=f'{flops}*{PF_DAY:g}')}"
    power = 3 * round(math.log10(middle) / 3)
    if power > 0 and abs(math.log10(middle) - power) < 0.7:
        name = "tokens" if np.median(runs.tokens / runs.params) < 1 else "params"
        theirs = runs.convention.get(name, name)
        unit = {3: "thousands", 6: "millions", 9: "billions"}.get(power, f"units of 1e{power}")
        return f"{name} looks like {unit}; if so, use {option(**{name: f'{theirs}*1e{power}'})}"
    return f"one is in another unit; use {option(flops=f'{flops}*FACTOR')}, or mend the table"


def doubts(runs: "Runs") -> list[str]:
    """What may be wrong with these runs, in words; empty where nothing seems to be."""
    if not len(runs):
        return []
    mixed = _mixed(runs)
    # What two units do to the order says nothing more.
    checks = (_copies, _flops, _small, _losses, _untuned, *(() if mixed else (_out_of_order,)))
    return [*mixed, *(text for check in checks for text in check(runs))]


def _mixed(runs: "Runs") -> list[str]:
    """Losses of which some lie 1 / ln 2 = 1.44 times above the others at like sizes and tokens.

    The log loss is fitted by a quadratic in log params and log tokens, and by a step between two
    groups of rows, each row being put where it fits better, until none changes.
    """
    y = np.log(runs.loss)
    if len(runs) < LEAST_FOR_TWO or np.isnan([y, runs.params, runs.tokens]).any():
        return []
    n, d = (np.log(x) - np.log(x).mean() for x in (runs.params, runs.tokens))
    design = np.column_stack([np.ones_like(n), n, d, n * n, n * d, d * d])
    step = -math.log(NATS_PER_BIT)
    splits = []
    for columns in (design[:, :3], design):
        left = y - columns @ np.linalg.lstsq(columns, y, rcond=None)[0]
        splits += [left > x for x in np.unique(np.quantile(left, np.linspace(0.02, 0.98, 25)))]
    for high in splits:
        for _ in range(20):
            found = np.linalg.lstsq(np.column_stack([design, high]), y, rcond=None)[0]
            rest = y - design @ found[:-1]
            before, high = high, rest > found[-1] / 2
            if (before == high).all():
                break
        off = float(np.std(rest - found[-1] * high))
        few = min(high.sum(), (~high).sum()) < 2
        if not few and abs(found[-1] - step) < 0.05 and off < min(step / 8, left.std() / 3):
            name = runs.convention.get("loss", "loss")
            return [
                f"{name} is {math.exp(found[-1]):.2f} times as high in {_at(high, runs.run_id)} as "
                "in the others at like sizes and tokens, and bits are 1.44 times nats: two units "
                "seem to be mixed; bring all to one, as no law fits both"
            ]
    return []


def _copies(runs: "Runs") -> list[str]:
    """Rows that repeat another in every column of numbers; a repeat with another seed does not."""
    table = np.column_stack([*runs.columns.values()])
    series = np.array(runs.series or [""] * len(runs))
    _, first, of = np.unique(np.nan_to_num(table), axis=0, return_index=True, return_inverse=True)
    first = first[of.reshape(-1)]
    copies = (first != np.arange(len(runs))) & (series == series[first])
    if not copies.any():
        return []
    return [
        f"every number of {_at(copies, runs.run_id)} is that of {_at(first[copies], runs.run_id)}: "
        "a copy counts as a second measurement, so that intervals come out too narrow; remove "
        "copies, or give repeats a column `seed`"
    ]


def _against_6nd(runs: "Runs") -> Array:
    """flops / (6 params tokens), one where any of them is not there."""
    ratio = runs.flops / (6 * runs.params * runs.tokens)
    found: Array = np.where(np.isfinite(ratio), ratio, 1.0)
    return found


def _flops(runs: "Runs") -> list[str]:
    found = []
    ratio = _against_6nd(runs)
    far = np.abs(np.log(ratio)) > math.log(TWICE)
    if far.any():
        found.append(
            f"flops is {ratio[far].min():.3g} to {ratio[far].max():.3g} times 6 * params * tokens "
            f"in {_at(far, runs.run_id)}, more than 2 times off: check that params, tokens and "
            "flops count the same model (embeddings, experts) and the same tokens"
        )
    apart = _apart(ratio, 1.2)
    if apart is not None:
        few, many = runs.params[apart], runs.params[~apart]
        # Where one kind of rows has all the large models, one convention may well explain both.
        if few.min() <= many.max() and few.max() >= many.min():
            found.append(
                f"flops is {np.median(ratio[apart]):.3g} times 6 * params * tokens in "
                f"{_at(apart, runs.run_id)} and {np.median(ratio[~apart]):.3g} times elsewhere, "
                "at like sizes: two conventions seem to be mixed; count all runs in one"
            )
    return found


def _small(runs: "Runs") -> list[str]:
    found = []
    for name, values, least in (("params", runs.params, 1e4), ("tokens", runs.tokens, 1e5)):
        if values.max() < least:
            remedy = option(**{name: f"{runs.convention.get(name, name)}*1e6"})
            found.append(
                f"{name} is {values.min():.3g} to {values.max():.3g}, less than any language "
                f"model has: if these are millions (or billions), use {remedy} (or 1e9), else "
                "plans will be wrong"
            )
    per = float(np.median(runs.tokens / runs.params))
    if per < 1e-3 or per > 1e5:
        found.append(
            f"the middle run has {per:.2g} tokens per parameter: check the units of params and "
            "tokens"
        )
    return found


def _losses(runs: "Runs") -> list[str]:
    found = []
    loss, middle = runs.loss, float(np.median(runs.loss))
    if middle > ABOVE_A_LANGUAGE_MODEL:
        found.append(
            f"the middle loss is {middle:.3g}, more than a uniform guess costs in nats per token: "
            "if these are perplexities, fit their logarithms"
        )
    name = runs.convention.get("loss", "loss")
    if in_bits(name):
        found.append(
            f"loss is read from {name}, which seems to be in bits: the law is then in bits too, "
            f"and 1.44 times one in nats; {option(loss=f'{name}*{NATS_PER_BIT:.4f}')} gives nats"
        )
    else:
        times = _against_published(runs)
        if times > 1.33:
            found.append(
                f"losses are {times:.2f} times what models of these sizes and tokens have in nats "
                "per token of text (published tables: 1.0 to 1.24), and bits would be 1.44 times "
                f"or more: if they are bits, {option(loss=f'{name}*{NATS_PER_BIT:.4f}')} gives nats"
            )
        elif times < 0.55:
            found.append(
                f"losses are {times:.2f} times what models of these sizes and tokens have in nats "
                "per token of text: they look like bits per byte, or another unit, and so will "
                "the law"
            )
    apart = _apart(loss, 1.5)
    if apart is not None and apart.mean() < 0.2 and loss[apart].max() < middle:
        found.append(
            f"loss is {loss[apart].min():.3g} to {loss[apart].max():.3g} in "
            f"{_at(apart, runs.run_id)}, and {loss[~apart].min():.3g} or more elsewhere: another "
            "unit, or not a loss?"
        )
    return found


def _against_published(runs: "Runs") -> float:
    """The middle loss over 1.8172 + 482.01/params^0.3478 + 2085.43/tokens^0.3658, which Besiroglu
    et al. 2024 give for text in nats per token; NaN where few runs are of such sizes."""
    like = (runs.params >= 1e7) & (runs.tokens >= 1e8)
    if like.mean() < 0.5:
        return math.nan
    params, tokens = runs.params[like], runs.tokens[like]
    usual = 1.8172 + 482.01 / params**0.3478 + 2085.43 / tokens**0.3658
    return float(np.median(runs.loss[like] / usual))


def _untuned(runs: "Runs") -> list[str]:
    tuned = runs.others.get("tuned", np.ones(len(runs)))
    untuned = tuned == 0
    # Where no run is tuned, there is nothing to leave out.
    if not (untuned.any() and (tuned == 1).any()):
        return []
    return [
        f"marked as not tuned: {int(untuned.sum())} of {len(runs)} runs "
        f"({_at(untuned, runs.run_id)}); they lie above the law of tuned runs, so leave them out "
        "with --only=tuned, or fit the lower side of the runs with --asymmetry"
    ]


def _out_of_order(runs: "Runs") -> list[str]:
    """Runs whose loss is 5% above that of one with no more size, tokens, or anything else; or 5%
    below those of most that have more.

    A law falls with each of these, so no law explains them. Which of two runs is to blame is told
    by the others. Of a long table some 2,000 runs serve for comparison.
    """
    more = ("params", "tokens", "unique_tokens", "finetuning_tokens", "experts", "weight_bits",
            "activation_bits", "cache_bits", "width", "depth", "granularity")  # fmt: skip
    columns = [x for name, x in runs.columns.items() if name in more and not np.isnan(x).any()]
    if len(columns) < 2 or np.isnan(runs.loss).any():
        return []
    of = np.argsort(runs.loss, kind="stable")[:: math.ceil(len(runs) / REFERENCES)]
    larger = np.ones((len(of), len(runs)), bool)
    for x in columns:
        larger &= x >= x[of, None]
    larger[np.arange(len(of)), of] = False
    worse = larger & (runs.loss > (1 + OFF) * runs.loss[of, None])
    most = (worse.sum(axis=1) >= 3) & (2 * worse.sum(axis=1) > larger.sum(axis=1))
    by_others = worse[~most].any(axis=0)
    low = most & (2 * (worse & ~by_others).sum(axis=1) > worse.sum(axis=1))
    high = worse[~low].any(axis=0)
    found = []
    if high.any():
        found.append(
            "a loss over 5% above that of a run with no more size, tokens, or anything else: "
            f"{int(high.sum())} of {len(runs)} runs ({_at(high, runs.run_id)}); no law explains "
            "that, but bad tuning, a rate not yet cooled down, data seen too often, or divergence "
            "may: leave them out, or fit the lower side of the runs with --asymmetry"
        )
    if low.any():
        rows = np.sort(of[low])
        found.append(
            "a loss over 5% below those of most runs with more size, tokens and all else: "
            f"{len(rows)} of {len(runs)} runs ({_at(rows, runs.run_id)}); no law explains that, "
            "but another unit, other data to test on, or a slip in the table may: mend them or "
            "leave them out"
        )
    return found


def _apart(values: Array, times: float) -> Mask | None:
    """The smaller part of the values, where the widest gap between neighbours is `times` or more,
    and three times (in logarithms) the next."""
    if np.isnan(values).any() or len(values) < 3:
        return None
    logs = np.log(values)
    ordered = np.sort(logs)
    gaps = np.diff(ordered)
    widest = int(np.argmax(gaps))
    if gaps[widest] < math.log(times) or (len(gaps) > 1 and gaps[widest] < 3 * np.sort(gaps)[-2]):
        return None
    low: Mask = logs <= ordered[widest]
    return low if 2 * int(low.sum()) <= len(values) else ~low


def _at(which: NDArray[np.generic], places: Sequence[str]) -> str:
    rows = np.flatnonzero(which) if which.dtype == bool else which
    if len(rows) == len(places):
        return f"all {len(places)} runs"
    return at([places[int(row)] for row in rows])
