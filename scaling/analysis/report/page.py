"""The report of a study: one HTML file that opens offline, and figures for a paper.

All of it is a function of the files in a folder. Records may come from strangers: all text is
escaped, and the page's own policy lets the browser run two scripts, known by their hashes, and
fetch nothing.
"""

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template

from plotly.offline import get_plotlyjs

from scaling.analysis.evidence import Evidence, read_evidence
from scaling.analysis.report import tables
from scaling.analysis.report.charts import chart, themes
from scaling.analysis.report.exhibits import EXHIBITS
from scaling.analysis.report.figures import FORMATS, paper, save
from scaling.analysis.report.findings import choice, headline, promise, warnings
from scaling.analysis.report.legend import colours, legend
from scaling.analysis.report.panels import Panel, count, describe, percent, power
from scaling.analysis.report.tables import Cell, Table
from scaling.analysis.report.terminal import visible
from scaling.files import write_bytes

Figures = dict[str, list[Panel]]
MOST_ROWS = 30
"""A longer table is folded."""


def write_report(folder: str | Path) -> list[Path]:
    """Write `report.html` and `figures/*.png` and `.pdf` into a folder and return their paths.

    Of a work directory: `records/*.json`, `runs/*/metrics.jsonl`, `law.json`, `plan.json` and
    `verdict.json`, as far as they are there. Of a law fitted to somebody's table: `law.json`, which
    holds its runs, and `plan.json`. The same files give the same bytes.

    Raises:
      ReportError: there is neither a readable record nor a readable law.
      OSError: a file cannot be written; earlier files are intact.
    """
    folder = Path(folder)
    evidence = read_evidence(folder)
    figures = _figures(evidence)
    page = render_page(evidence, figures).encode()
    written = [write_bytes(folder / "report.html", page)]
    for name, panels in figures.items():
        if panels:
            drawn = paper(panels)
            written += [
                write_bytes(folder / "figures" / f"{name}.{kind}", save(drawn, kind))
                for kind in FORMATS
            ]
    return written


def render_page(evidence: Evidence, figures: Figures | None = None) -> str:
    """The whole of `report.html`."""
    figures = _figures(evidence) if figures is None else figures
    source = resources.files("scaling.analysis.report")
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
        colours=colours(),
        script_hashes=" ".join(_hash(script) for script in (plotly, draw_script)),
        body=_body(evidence, figures),
        # In JSON these letters stand only inside texts, where an escape means the same.
        charts=data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"),
        plotly=plotly,
        draw=draw_script,
    )


def _figures(evidence: Evidence) -> Figures:
    return {name: exhibit.panels(evidence) for name, exhibit in EXHIBITS.items()}


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _body(evidence: Evidence, figures: Figures) -> str:
    def exhibit(name: str, *below: Table) -> list[str]:
        return [_exhibit(name, figures[name], evidence), *map(_titled, below)]

    law = evidence.law
    sections = {
        "Plan": [
            _titled(tables.plan_table(evidence), absent="No larger run is planned yet."),
            _titled(tables.recipe_table(evidence)),
            _titled(tables.alternative_table(evidence)),
            _titled(tables.next_table(evidence)),
            _paragraph(promise(evidence)),
        ],
        "Frontier": exhibit("frontier"),
        "Loss curves": exhibit("loss_curves"),
        "IsoFLOP": [
            *exhibit("isoflop"),
            _long(tables.minimum_table(evidence)),
        ],
        "Law": [
            f"<p><code>{_safe(str(law.get('equation')))}</code></p>" if law else "",
            _titled(tables.law_table(evidence), absent="No law has been fitted yet."),
            _titled(tables.proof_table(evidence)),
            *exhibit("fit"),
            *exhibit("profiles", tables.profile_table(evidence)),
            *exhibit("residuals"),
            _folded(tables.diagnostic_table(evidence)),
        ],
        "Comparison": [
            _paragraph(choice(evidence)),
            *exhibit("comparison", tables.comparison_table(evidence)),
        ],
        "Runs": [
            _long(
                tables.run_table(evidence) if evidence.records else tables.fitted_table(evidence)
            ),
            _titled(
                tables.lost_table(evidence),
                absent="Every run ended well and took part in the fit.",
            ),
            _folded(tables.missing_table(evidence)),
            _folded(tables.config_table(evidence)),
            _folded(tables.origin_table(evidence)),
        ],
    }
    links = "".join(f'<li><a href="#{_id(name)}">{name}</a></li>' for name in sections)
    parts = [
        f'<p class="verdict">{_safe(headline(evidence))}</p>',
        _cards(evidence),
        _warning_box(warnings(evidence)),
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>',
    ]
    parts += [
        f'<section aria-labelledby="{_id(name)}"><h2 id="{_id(name)}">{name}</h2>'
        f"{''.join(inside)}</section>"
        for name, inside in sections.items()
    ]
    return "\n".join(part for part in parts if part)


def _paragraph(text: str) -> str:
    return f"<p>{_safe(text)}</p>" if text else ""


def _id(name: str) -> str:
    return name.lower().replace(" ", "-")


def _exhibit(name: str, panels: Sequence[Panel], evidence: Evidence) -> str:
    exhibit = EXHIBITS[name]
    if not panels:
        why = exhibit.absent(evidence)
        return f'<p class="quiet">{_safe(why)}</p>' if why else ""
    title, level = "", "h3"
    if exhibit.title:
        title, level = f"<h3>{_safe(exhibit.title)}</h3>", "h4"
    charts = [
        f"<figure><{level}>{_safe(panel.title)}</{level}>{_note(panel)}"
        f'<div class="chart" id="{name}-{index}" role="img" aria-label="{_safe(describe(panel))}">'
        "</div></figure>"
        for index, panel in enumerate(panels)
    ]
    files = ", ".join(f"figures/{name}.{kind}" for kind in FORMATS)
    small = " small" if len(panels) > 3 else ""
    return (
        f'{title}<div class="figures{small}">{"".join(charts)}</div>{legend(panels)}'
        f'<p class="quiet">{_safe(exhibit.caption)} For a paper: {files}.</p>'
    )


def _note(panel: Panel) -> str:
    return f'<p class="note">{_safe("; ".join(panel.notes))}</p>' if panel.notes else ""


def _cards(evidence: Evidence) -> str:
    cards = [*_verdict_cards(evidence), *_law_cards(evidence)]
    if evidence.records:
        good = [record for record in evidence.records if record.status == "ok"]
        seconds = sum(record.wall_seconds or 0 for record in evidence.records)
        note = f"{len(good)} ended well; {seconds / 60:.1f} minutes in all"
        cards.append(_card("Runs", str(len(evidence.records)), note))
    return f'<div class="cards">{"".join(cards)}</div>'


def _verdict_cards(evidence: Evidence) -> list[str]:
    verdict = evidence.verdict
    if not verdict:
        return []
    low, high = verdict["predicted"]["interval_90"]
    held = verdict["inside_interval"]
    cards = [
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
        name = f"Optimal size at {power(verdict['flops'])} FLOPs"
        cards.append(_card(name, count(best["value"]), note))
    return cards


def _law_cards(evidence: Evidence) -> list[str]:
    law = evidence.law
    if not law or evidence.verdict:
        return []
    diagnostics = law["diagnostics"]
    known = diagnostics.get("identifiability") or {}
    open_ended = known.get("not_identified") or []
    spread = diagnostics.get("residual_sd")
    cards = [_card("Law", str(law["law"]), f"fitted to {law['n_runs']} runs")]
    if spread is not None and evidence.of_logs:
        cards.append(_card("Spread of the residuals", percent(100 * spread), "standard deviation"))
    if known:
        cards.append(
            _card(
                "Parameters determined",
                f"{len(law['params']) - len(open_ended)} of {len(law['params'])}",
                f"not identified: {', '.join(open_ended)}" if open_ended else "by the runs",
                tone="bad" if open_ended else "good",
            )
        )
    return cards


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


def _titled(table: Table, *, absent: str = "") -> str:
    title = f"<h3>{_safe(table.title)}</h3>"
    if not table.rows:
        return f'{title}<p class="quiet">{_safe(absent)}</p>' if absent else ""
    return title + _grid(table)


def _long(table: Table) -> str:
    return _folded(table) if len(table.rows) > MOST_ROWS else _titled(table)


def _folded(table: Table) -> str:
    if not table.rows:
        return ""
    title = f"{_safe(table.title)} ({len(table.rows)})"
    return f"<details><summary>{title}</summary>{_grid(table)}</details>"


def _grid(table: Table) -> str:
    kinds = [' class="text"' if name in table.wordy else "" for name in table.head]
    names = zip(kinds, table.head, strict=True)
    head = "".join(f'<th scope="col"{kind}>{_safe(name)}</th>' for kind, name in names)
    rows = []
    for row in table.rows:
        cells = []
        for kind, entry in zip(kinds, row, strict=True):
            if isinstance(entry, Cell):
                why = _safe(entry.why)
                # The title is for who points at it, the hidden words for who listens.
                heard = f'<span class="heard"> ({why})</span>'
                cells.append(f'<td{kind} title="{why}">{_safe(entry.text)}{heard}</td>')
            else:
                cells.append(f"<td{kind}>{_safe(entry)}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    # It scrolls sideways where it must, so that keys have to reach it.
    return (
        f'<div class="table" role="group" tabindex="0" aria-label="{_safe(table.title)}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _safe(text: str) -> str:
    return html.escape(visible(text))
