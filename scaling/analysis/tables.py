"""The tables of a study as plain text cells, for the browser and for the terminal alike."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from scaling.analysis.evidence import Evidence
from scaling.analysis.panels import count, power
from scaling.records import NUMBERS, Record

DIAGNOSTICS = {
    "starts": "Starting points of the fit",
    "share_best": "Share of them that reached the best objective",
    "second_basin_gap": "Gap from the best basin to the next (objective)",
    "gradient_norm": "Gradient norm at the optimum",
    "residual_sd": "Standard deviation of the residuals (log loss)",
    "degrees_of_freedom": "Degrees of freedom",
}


class Cell(NamedTuple):
    """A cell that stands empty, and why."""

    why: str
    text: str = "–"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A titled table; the columns named in `wordy` hold running text, the others short entries."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    wordy: Sequence[str] = ()


def run_table(evidence: Evidence) -> Table:
    """All runs in the order of compute and size, with what each cost and scored."""
    convention = evidence.convention
    fields = [
        convention["params"],
        "tokens",
        convention["flops"],
        "loss",
        "loss_stderr",
        "bits_per_byte",
        "learning_rate",
        "wall_seconds",
    ]
    writers = [
        count,
        count,
        power,
        "{:.4f}".format,
        "{:.4f}".format,
        "{:.4f}".format,
        "{:.3g}".format,
        "{:.0f}".format,
    ]

    def place(record: Record) -> tuple[float, float]:
        # Two digits of compute: whole steps put runs of one budget a little apart.
        flops = float(f"{getattr(record, fields[2]) or 0:.1e}")
        return flops, getattr(record, fields[0]) or 0

    rows: list[list[str | Cell]] = []
    for record in sorted(evidence.records, key=place):
        cells: list[str | Cell] = [record.run_id, record.status]
        for field, write in zip(fields, writers, strict=True):
            value = getattr(record, field)
            why = record.null_reasons.get(field, "no reason given")
            cells.append(Cell(str(why)) if value is None else write(value))
        rows.append(cells)
    head = [
        "Run",
        "Status",
        "Params",
        "Tokens",
        "FLOPs",
        "Loss",
        "± s.e.",
        "Bits/byte",
        "Learning rate",
        "Seconds",
    ]
    return Table(title="Runs", head=head, rows=rows)


def minimum_table(evidence: Evidence) -> Table:
    """The minimum of each IsoFLOP parabola with its 90% intervals."""
    rows: list[list[str | Cell]] = []
    for budget in evidence.law["isoflop"]["budgets"] if evidence.law else []:
        row: list[str | Cell] = [power(budget["flops"]), str(budget["n_runs"])]
        if budget.get("params_opt") is None:
            rows.append([*row, *[Cell("the parabola has no minimum")] * 5, "no"])
            continue
        intervals = budget.get("interval_90") or {}
        row += [count(budget["params_opt"]), between(intervals.get("params_opt"), write=count)]
        row += [count(budget["tokens_opt"])]
        row += [f"{budget['loss_opt']:.4f}", between(intervals.get("loss_opt"))]
        rows.append([*row, "yes" if budget["interior"] else "no"])
    head = [
        "FLOPs",
        "Runs",
        "Best size",
        "90% interval",
        "Its tokens",
        "Loss",
        "90% interval",
        "Interior",
    ]
    return Table(title="IsoFLOP minima", head=head, rows=rows)


def law_table(evidence: Evidence) -> Table:
    """The law's parameters, and the exponents of the optimal size in compute that follow."""
    if not evidence.law:
        return Table(title="Law", head=[], rows=[])
    law, rows = evidence.law, []
    for name, value in law["params"].items():
        error = (law.get("stderr") or {}).get(name)
        shown = Cell("not estimated") if error is None else f"{error:.2g}"
        interval = between((law.get("interval_95") or {}).get(name), write="{:.4g}".format)
        rows.append([name, f"{value:.4g}", shown, interval])
    sizes, flops = law["frontier"]["params"], law["frontier"]["flops"]
    slope = math.log(sizes[-1] / sizes[0]) / math.log(flops[-1] / flops[0])
    empty = Cell("follows from the parameters above")
    rows.append(["size exponent, law", f"{slope:.3f}", empty, empty])
    measured = law["isoflop"].get("params_exponent")
    if measured:
        interval = between(measured.get("interval_90"), write="{:.3f}".format)
        rows.append(
            [
                "size exponent, IsoFLOP (90%)",
                f"{measured['value']:.3f}",
                Cell("not estimated"),
                interval,
            ]
        )
    return Table(
        title="Law", head=["Parameter", "Value", "Standard error", "95% interval"], rows=rows
    )


def plan_table(evidence: Evidence) -> Table:
    """Per planned budget: the optimum, the run that stands for it, and what it scored."""
    rows = []
    verdict = evidence.verdict
    for target in evidence.plan["targets"] if evidence.plan else []:
        run = target.get("run")
        stands = run or {"params": target["params"]["value"], "loss": target["loss"]}
        row: list[str | Cell] = [power(target["flops"])]
        row += [
            count(target["params"]["value"]),
            between(target["params"].get("interval_90"), write=count),
        ]
        row += [count(stands["params"])] if run else [Cell("no model of the ladder was chosen")]
        row += [f"{stands['loss']['value']:.4f}", between(stands["loss"].get("interval_90"))]
        trained = verdict and run and abs(verdict["flops"] / run["flops"] - 1) < 0.01
        if verdict and trained:
            row += [f"{verdict['measured']:.4f}", signed_percent(verdict["relative_error"])]
            rows.append([*row, "yes" if verdict["inside_interval"] else "no"])
        else:
            rows.append([*row, *[Cell("not trained yet")] * 3])
    head = [
        "FLOPs",
        "Optimal size",
        "90% interval",
        "Run's size",
        "Predicted loss",
        "90% interval",
        "Measured",
        "Error",
        "Held",
    ]
    return Table(title="Prediction and measurement", head=head, rows=rows)


def lost_table(evidence: Evidence) -> Table:
    """Runs that diverged, failed or were left out of the fit, each with its reason."""
    lost = [[r.run_id, r.status, r.reason or ""] for r in evidence.records if r.status != "ok"]
    known = {row[0] for row in lost}
    for dropped in (evidence.law or {}).get("dropped") or []:
        if dropped["run_id"] not in known:
            lost.append([str(dropped["run_id"]), "left out of the fit", str(dropped["reason"])])
    lost += [
        [run_id, "unfinished", "it has metrics but no record"] for run_id in evidence.unfinished
    ]
    return Table(
        title="Runs without a part in the fit",
        head=["Run", "Status", "Reason"],
        rows=lost,
        wordy=["Reason"],
    )


def missing_table(evidence: Evidence) -> Table:
    """Numbers that are null in the records, by cause."""
    causes = Counter(
        (name, str(record.null_reasons.get(name, "no reason given")))
        for record in evidence.records
        for name in NUMBERS
        if getattr(record, name) is None
    )
    rows = [[name, str(number), cause] for (name, cause), number in sorted(causes.items())]
    return Table(
        title="Missing numbers", head=["Field", "Runs", "Cause"], rows=rows, wordy=["Cause"]
    )


def diagnostic_table(evidence: Evidence) -> Table:
    """How the fit went: objective, optimiser, residuals, trends, bootstrap, conventions."""
    if not evidence.law:
        return Table(title="Diagnostics", head=[], rows=[])
    law, rows = evidence.law, [["Runs in the fit", _plain(evidence.law.get("n_runs"))]]
    for name, value in (law.get("objective") or {}).items():
        rows.append([f"Objective: {name}", _plain(value)])
    for name, value in law["diagnostics"].items():
        if isinstance(value, str | int | float) or value is None:
            rows.append([DIAGNOSTICS.get(name, name), _plain(value)])
    for name, trend in (law["diagnostics"].get("trend") or {}).items():
        shown = ", ".join(
            f"{key.replace('_', ' ')} {_plain(value)}" for key, value in trend.items()
        )
        rows.append([f"Trend of the residuals in {name.replace('_', ' ')}", shown])
    bootstrap = law.get("bootstrap") or {}
    rows += [[f"Bootstrap: {key}", _plain(bootstrap[key])] for key in bootstrap if key != "samples"]
    rows += [[f"Convention: {key}", _plain(value)] for key, value in law["convention"].items()]
    return Table(
        title="Diagnostics", head=["Quantity", "Value"], rows=rows, wordy=["Quantity", "Value"]
    )


def origin_table(evidence: Evidence) -> Table:
    """Devices, versions of software, tokenizer and data, with the number of runs that used each."""
    seen: Counter[tuple[str, str]] = Counter()
    for record in evidence.records:
        devices = f"{record.device_count or '?'} × {record.device_kind or 'not recorded'}"
        named = {"device": devices, "code": record.code_version, "objective": record.objective}
        named |= {"tokenizer": record.tokenizer_hash, "data": record.data_hash}
        seen.update((name, str(value)) for name, value in named.items() if value is not None)
        seen.update((name, str(value)) for name, value in record.versions.items())
    rows = [[name, value, str(number)] for (name, value), number in seen.items()]
    return Table(title="Origin", head=["What", "Value", "Runs"], rows=rows, wordy=["Value"])


def config_table(evidence: Evidence) -> Table:
    """Every configuration key: its value where all runs agree, else how many values it takes."""
    flat = [dict(_leaves(record.config)) for record in evidence.records]
    rows = []
    for key in sorted({key for config in flat for key in config}):
        values = list(dict.fromkeys(config[key] for config in flat if key in config))
        shown = values[0] if len(values) == 1 else f"{len(values)} values: {', '.join(values[:8])}"
        rows.append([key, shown + (", …" if len(values) > 8 else "")])
    return Table(title="Configuration", head=["Key", "Value"], rows=rows, wordy=["Value"])


def between(interval: Sequence[float] | None, *, write: Any = "{:.4f}".format) -> str | Cell:
    """An interval in words, `low to high`."""
    if not interval:
        return Cell("no interval was computed")
    return f"{write(interval[0])} to {write(interval[1])}"


def signed_percent(fraction: float) -> str:
    """A signed percentage with one digit after the point, two below 1%."""
    digits = 1 if abs(fraction) >= 0.01 else 2
    return f"{100 * fraction:+.{digits}f}%".replace("-", "−")


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _leaves(config: Any, prefix: str = "") -> list[tuple[str, str]]:
    if isinstance(config, Mapping) and config:
        return [
            leaf
            for key, value in config.items()
            for leaf in _leaves(value, f"{prefix}.{key}" if prefix else str(key))
        ]
    return [(prefix, json.dumps(config, ensure_ascii=False))]
