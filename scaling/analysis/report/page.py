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
from scaling.analysis.report.cards import Card
from scaling.analysis.report.charts import chart, shared_texts, themes
from scaling.analysis.report.contents import Contents, contents
from scaling.analysis.report.exhibits import EXHIBITS
from scaling.analysis.report.figures import FORMATS, paper, save
from scaling.analysis.report.legend import colours, legend
from scaling.analysis.report.panels import Panel, describe
from scaling.analysis.report.tables import Cell, Table
from scaling.analysis.report.terminal import visible
from scaling.files import write_bytes

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
    found = contents(evidence)
    page = render_page(evidence, found).encode(errors="replace")
    written = [write_bytes(folder / "report.html", page)]
    for name, panels in found.figures.items():
        if panels:
            drawn = paper(panels)
            written += [
                write_bytes(folder / "figures" / f"{name}.{kind}", save(drawn, kind))
                for kind in FORMATS
            ]
    return written


def render_page(evidence: Evidence, found: Contents | None = None) -> str:
    """The whole of `report.html`."""
    found = contents(evidence) if found is None else found
    source = resources.files("scaling.analysis.report")
    draw_script = (source / "page.js").read_text(encoding="utf-8")
    plotly = get_plotlyjs()
    charts = {
        f"{name}-{index}": chart(panel)
        for name, panels in found.figures.items()
        for index, panel in enumerate(panels)
    }
    texts = shared_texts(charts.values())
    data = json.dumps(
        {"themes": themes(), "texts": texts, "panels": charts},
        allow_nan=False, ensure_ascii=False, separators=(",", ":"),
    )  # fmt: skip
    return Template((source / "page.html").read_text(encoding="utf-8")).substitute(
        title="Scaling report",
        colours=colours(),
        script_hashes=" ".join(_hash(script) for script in (plotly, draw_script)),
        body=_body(evidence, found),
        # In JSON these letters stand only inside texts, where an escape means the same.
        charts=data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"),
        plotly=plotly,
        draw=draw_script,
    )


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _body(evidence: Evidence, found: Contents) -> str:
    def exhibit(name: str, *below: Table) -> list[str]:
        return [_exhibit(name, found), *map(_titled, below)]

    law, tables, lists = evidence.law, found.tables, found.lists
    sections = {
        "Plan": [
            _titled(tables["plan"], absent="No larger run is planned yet."),
            _titled(tables["recipe"]),
            *map(_command, lists["commands"]),
            _titled(tables["alternative"]),
            _long(tables["next"]),
            _paragraph(found.sentences["promise"]),
            *exhibit("plan"),
            _list("Taken for granted", lists["assumptions"]),
        ],
        "Frontier": exhibit("frontier"),
        "Approaches": exhibit("approaches", tables["approach"]),
        "Loss curves": exhibit("loss_curves"),
        "IsoFLOP": [*exhibit("isoflop"), _long(tables["minimum"])],
        "Law": [
            _command(str(law.get("equation"))) if law else "",
            _titled(tables["law"], absent="No law has been fitted yet."),
            _titled(tables["proof"]),
            *exhibit("fit"),
            *exhibit("profiles", tables["profile"]),
            *exhibit("residuals"),
            _folded(tables["diagnostic"]),
        ],
        "Comparison": [
            _paragraph(found.sentences["choice"]),
            *exhibit("comparison", tables["comparison"]),
        ],
        "Runs": [
            _long(tables["run"] if evidence.records else tables["fitted"]),
            _titled(tables["lost"], absent="Every run ended well and took part in the fit."),
            *(_folded(tables[name]) for name in ("missing", "config", "origin")),
        ],
    }
    links = "".join(f'<li><a href="#{_id(name)}">{name}</a></li>' for name in sections)
    parts = [
        f'<p class="verdict">{_safe(found.sentences["headline"])}</p>',
        f'<div class="cards">{"".join(map(_card, found.cards))}</div>' if found.cards else "",
        _warning_box(found.warnings),
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>',
    ]
    parts += [
        f'<section aria-labelledby="{_id(name)}"><h2 id="{_id(name)}">{name}</h2>'
        f"{''.join(inside)}</section>"
        for name, inside in sections.items()
    ]
    return "\n".join(part for part in parts if part)


def _command(text: str) -> str:
    words = " ".join(f"<span>{_safe(word)}</span>" for word in text.split(" "))
    return f"<p><code>{words}</code></p>"


def _list(title: str, texts: Sequence[str]) -> str:
    items = "".join(f"<li>{_safe(text)}</li>" for text in texts)
    return f'<h3>{title}</h3><ul class="quiet">{items}</ul>' if texts else ""


def _paragraph(text: str) -> str:
    return f"<p>{_safe(text)}</p>" if text else ""


def _id(name: str) -> str:
    return name.lower().replace(" ", "-")


def _exhibit(name: str, found: Contents) -> str:
    exhibit, panels = EXHIBITS[name], found.figures[name]
    if not panels:
        why = found.absent[name]
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


def _card(card: Card) -> str:
    return (
        f'<div class="card"><div class="name">{_safe(card.name)}</div>'
        f'<div class="value">{_safe(card.value)}</div>'
        f'<div class="note {card.tone}">{_safe(card.note)}</div></div>'
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
