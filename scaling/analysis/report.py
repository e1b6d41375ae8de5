"""The report of a study: one HTML file that opens offline, figures for a paper, a summary.

All of it is a function of the files in the work directory. Records may come from strangers: all
text is escaped, and the page's own policy lets the browser run two scripts, known by their hashes,
and fetch nothing.
"""

import base64
import contextlib
import datetime
import hashlib
import html
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Literal

from plotly.offline import get_plotlyjs
from rich import box
from rich import table as rich_table
from rich.console import Group
from rich.text import Text

from scaling.analysis import tables
from scaling.analysis.charts import chart, themes
from scaling.analysis.evidence import Evidence, read_evidence
from scaling.analysis.exhibits import FIGURES
from scaling.analysis.figures import draw
from scaling.analysis.panels import Panel, count, power
from scaling.analysis.tables import Cell, Table
from scaling.files import write_bytes

ABSENT = {
    "loss_curves": "No run with a record has metrics yet, so there are no curves to draw.",
    "isoflop": "No run has ended well yet, so there is nothing to draw.",
    "frontier": "No law has been fitted yet (law.json is not there), so there is no frontier.",
    "residuals": "No law has been fitted yet (law.json is not there), so there are no residuals.",
}
CAPTIONS = {
    "loss_curves": "Each line is a run, each dot its final loss; the first evaluations "
    "are cut off (double-click shows them). The final loss may be taken on more validation text "
    "than the evaluations before it, which shows as a step at the end.",
    "isoflop": "Each curve is one compute budget: a parabola in the logarithm of the size, fitted "
    "to its runs. Diamonds mark the minima with their 90% intervals; a hollow one lies "
    "outside the tested sizes and is no evidence of an optimum.",
    "frontier": "The fitted law at its compute-optimal sizes, with the 90% interval from the "
    "bootstrap. The grey region lies beyond the runs that were fitted.",
    "residuals": "What the law leaves unexplained. A trend in size or in compute would say that "
    "the law does not hold over this range.",
}
# Left out where a terminal of 80 letters has no room.
WIDE = ("± s.e.", "Learning rate", "Seconds", "Its tokens")
HEADINGS = {
    "loss_curves": "Loss curves",
    "isoflop": "IsoFLOP curves",
    "frontier": "Frontier",
    "residuals": "Residuals",
}


def write_report(workdir: str | Path) -> list[Path]:
    """Write `report.html` and `figures/*.png` into a work directory and return their paths.

    Needs `records/*.json`; uses `runs/*/metrics.jsonl`, `law.json`, `plan.json` and `verdict.json`
    where they are there. The same files give the same bytes.

    Raises:
      ReportError: no record can be read.
      OSError: a file cannot be written; earlier files are intact.
    """
    workdir = Path(workdir)
    evidence = read_evidence(workdir)
    written = []
    for name, build in FIGURES.items():
        if panels := build(evidence):
            written.append(write_bytes(workdir / "figures" / f"{name}.png", draw(panels)))
    page = render_page(evidence).encode()
    return [write_bytes(workdir / "report.html", page), *written]


def terminal_table(workdir: str | Path) -> Group:
    """The runs, IsoFLOP minima, law and verdict of a work directory, for `rich` to print.

    Raises:
      ReportError: no record can be read.
    """
    return summarize(read_evidence(Path(workdir)))


def summarize(evidence: Evidence) -> Group:
    """The same of evidence at hand, which may be a law or a plan alone."""
    shown = [
        tables.run_table(evidence),
        tables.minimum_table(evidence),
        tables.law_table(evidence),
        tables.plan_table(evidence),
    ]
    warnings = [Text(f"Warning: {_visible(text)}", style="yellow") for text in _warnings(evidence)]
    return Group(
        *(_rich(table) for table in shown if table.rows), *warnings, Text(headline(evidence))
    )


def headline(evidence: Evidence) -> str:
    """One paragraph: what was predicted, what was measured, and whether the interval held it."""
    law, plan, verdict = evidence.law, evidence.plan, evidence.verdict
    good = sum(record.status == "ok" for record in evidence.records)
    if verdict:
        predicted, error = verdict["predicted"], verdict["relative_error"]
        low, high = predicted["interval_90"]
        held = "held" if verdict["inside_interval"] else "did not hold"
        side = "above" if error > 0 else "below"
        return (
            f"Predicted {predicted['value']:.3f} nats per token, "
            f"measured {verdict['measured']:.3f}, "
            f"for a run of {power(verdict['flops'])} FLOPs{_reach(evidence)}. "
            f"The 90% interval, {low:.3f} to {high:.3f}, {held} the measured loss; "
            f"the prediction was {abs(100 * error):.2f}% {side} the measurement."
        )
    if plan and plan["targets"]:
        target = plan["targets"][0]
        loss = (target.get("run") or target)["loss"]
        low, high = loss["interval_90"]
        return (
            f"Predicted {loss['value']:.3f} nats per token (90% interval {low:.3f} to {high:.3f}) "
            f"for a run of {power(target['flops'])} FLOPs that has not been trained yet."
        )
    if law:
        return f"{law['equation']} fitted to {law['n_runs']} runs; no larger run is planned yet."
    return f"{good} of {len(evidence.records)} runs have ended well; no law is fitted yet."


def _reach(evidence: Evidence) -> str:
    residuals = evidence.law["diagnostics"].get("residuals") if evidence.law else None
    if not residuals or not evidence.verdict:
        return ""
    times = evidence.verdict["flops"] / max(r["flops"] for r in residuals)
    return f", {times:.1f} times the largest that was fitted"


def _warnings(evidence: Evidence) -> list[str]:
    law, plan, verdict = evidence.law, evidence.plan, evidence.verdict
    found = list(evidence.problems)
    found += [str(text) for text in (law["diagnostics"].get("warnings") or [] if law else [])]
    for target in plan["targets"] if plan else []:
        found += [str(text) for text in target.get("warnings") or []]
    runs = {record.run_id: record for record in evidence.records}
    if plan and verdict and verdict["run_id"] in runs:
        planned, ran = _moment(plan.get("created")), _moment(runs[verdict["run_id"]].created)
        if planned and ran and planned > ran:
            found.append(
                f"plan.json was written at {plan['created']}, after the planned run ended "
                f"({runs[verdict['run_id']].created}): what it holds is not a prediction"
            )
    return found


def _moment(text: object) -> datetime.datetime | None:
    """A time from ISO 8601, taken as UTC where it names no zone; nothing where it is not one."""
    with contextlib.suppress(TypeError, ValueError):
        moment = datetime.datetime.fromisoformat(text)  # type: ignore[arg-type]
        return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    return None


def render_page(evidence: Evidence) -> str:
    """The whole of `report.html`."""
    figures = {name: build(evidence) for name, build in FIGURES.items()}
    source = resources.files("scaling.analysis")
    draw_script = (source / "page.js").read_text(encoding="utf-8")
    plotly = get_plotlyjs()
    charts = {
        f"{name}-{index}": chart(panel)
        for name, panels in figures.items()
        for index, panel in enumerate(panels)
    }
    data = json.dumps({"themes": themes(), "panels": charts}, allow_nan=False)
    return Template((source / "page.html").read_text(encoding="utf-8")).substitute(
        title="Scaling report",
        script_hashes=" ".join(_hash(script) for script in (plotly, draw_script)),
        body=_body(evidence, figures),
        # In JSON these letters stand only inside texts, where an escape means the same.
        charts=data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"),
        plotly=plotly,
        draw=draw_script,
    )


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _body(evidence: Evidence, figures: dict[str, list[Panel]]) -> str:
    parts = ["<h1>Scaling report</h1>", f'<p class="verdict">{_safe(headline(evidence))}</p>']
    parts += [_cards(evidence), _warning_box(_warnings(evidence))]
    plan = tables.plan_table(evidence)
    parts.append(_table(plan, absent="No larger run is planned yet (plan.json is not there)."))
    for name, panels in figures.items():
        parts.append(f"<h2>{HEADINGS[name]}</h2>")
        if not panels:
            parts.append(f'<p class="quiet">{ABSENT[name]}</p>')
            continue
        charts = [
            f'<figure><h3>{_safe(panel.title)}</h3><div class="chart" id="{name}-{index}" '
            f'role="img" aria-label="{_safe(panel.title)}"></div></figure>'
            for index, panel in enumerate(panels)
        ]
        parts.append(f'<div class="figures">{"".join(charts)}</div>')
        parts.append(f'<p class="quiet">{CAPTIONS[name]} For a paper: figures/{name}.png.</p>')
        if name == "isoflop":
            table = tables.minimum_table(evidence)
            parts.append(_table(table, absent="No parabola is fitted yet (law.json is not there)."))
    if evidence.law:
        parts.append(f"<h2>Law</h2><p><code>{_safe(str(evidence.law.get('equation')))}</code></p>")
        parts.append(_grid(tables.law_table(evidence)))
        parts.append(_table(tables.diagnostic_table(evidence), heading="h3"))
    parts.append(_table(tables.run_table(evidence)))
    lost = tables.lost_table(evidence)
    parts.append(_table(lost, absent="Every run ended well and took part in the fit."))
    folded = (tables.missing_table, tables.config_table, tables.origin_table)
    parts += [_folded(build(evidence)) for build in folded]
    return "\n".join(part for part in parts if part)


def _cards(evidence: Evidence) -> str:
    cards = []
    verdict = evidence.verdict
    if verdict:
        low, high = verdict["predicted"]["interval_90"]
        held = verdict["inside_interval"]
        cards += [
            _card(
                "Predicted loss",
                f"{verdict['predicted']['value']:.3f}",
                f"90%: {low:.3f} to {high:.3f}",
            ),
            _card(
                "Measured loss",
                f"{verdict['measured']:.3f}",
                "inside the interval" if held else "outside the interval",
                tone="good" if held else "bad",
            ),
            _card(
                "Prediction error",
                tables.signed_percent(verdict["relative_error"]),
                "predicted over measured",
            ),
        ]
        best = verdict.get("optimal_params")
        if best:
            low, high = best["interval_90"]
            note = f"90%: {count(low)} to {count(high)}; trained: {count(verdict['params'])}"
            cards.append(
                _card(
                    f"Optimal size at {power(verdict['flops'])} FLOPs", count(best["value"]), note
                )
            )
    good = [record for record in evidence.records if record.status == "ok"]
    seconds = sum(record.wall_seconds or 0 for record in evidence.records)
    note = f"{len(good)} ended well; {seconds / 60:.1f} minutes in all"
    cards.append(_card("Runs", str(len(evidence.records)), note))
    return f'<div class="cards">{"".join(cards)}</div>'


def _card(name: str, value: str, note: str, *, tone: str = "") -> str:
    return (
        f'<div class="card"><div class="name">{_safe(name)}</div>'
        f'<div class="value">{_safe(value)}</div><div class="note {tone}">{_safe(note)}</div></div>'
    )


def _warning_box(texts: Sequence[str]) -> str:
    if not texts:
        return '<p class="quiet">No warnings.</p>'
    items = "".join(f"<li>{_safe(text)}</li>" for text in texts)
    name = "1 warning" if len(texts) == 1 else f"{len(texts)} warnings"
    return f'<div class="warnings"><strong>{name}</strong><ul>{items}</ul></div>'


def _table(table: Table, *, absent: str = "", heading: str = "h2") -> str:
    title = f"<{heading}>{_safe(table.title)}</{heading}>"
    if not table.rows:
        return f'{title}<p class="quiet">{_safe(absent)}</p>' if absent else ""
    return title + _grid(table)


def _folded(table: Table) -> str:
    if not table.rows:
        return ""
    return f"<details><summary>{_safe(table.title)}</summary>{_grid(table)}</details>"


def _grid(table: Table) -> str:
    kinds = [' class="text"' if name in table.wordy else "" for name in table.head]
    head = "".join(f"<th{kind}>{_safe(n)}</th>" for kind, n in zip(kinds, table.head, strict=True))
    rows = []
    for row in table.rows:
        cells = []
        for kind, cell in zip(kinds, row, strict=True):
            if isinstance(cell, Cell):
                cells.append(f'<td{kind} title="{_safe(cell.why)}">{cell.text}</td>')
            else:
                cells.append(f"<td{kind}>{_safe(cell)}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="table"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def _rich(table: Table) -> rich_table.Table:
    drawn = rich_table.Table(
        title=table.title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    kept = [index for index, name in enumerate(table.head) if name not in WIDE]
    for index in kept:
        justify: Literal["left", "right"] = "right" if index else "left"
        drawn.add_column(table.head[index], justify=justify, overflow="fold")
    for row in table.rows:
        cells = (row[index] for index in kept)
        texts = (cell.text if isinstance(cell, Cell) else cell for cell in cells)
        drawn.add_row(*(Text(_visible(text)) for text in texts))
    return drawn


def _safe(text: str) -> str:
    return html.escape(_visible(text))


def _visible(text: str) -> str:
    """The text with control characters, which could steer a terminal, made visible."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
