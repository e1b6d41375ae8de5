"""The tables of a study in a terminal: drawn with rich, or plain lines for a pipe or a log."""

from pathlib import Path

from rich import box
from rich import table as rich_table
from rich.console import Console, Group
from rich.text import Text

from scaling.analysis.evidence import Evidence, read_evidence
from scaling.analysis.report.contents import Contents, contents
from scaling.analysis.report.tables import Cell, Entry, Table

SHOWN = (
    "run", "minimum", "law", "proof", "approach", "comparison", "plan", "recipe", "alternative",
    "next",
)  # fmt: skip
MOST_ROWS = 60
"""A longer table is cut short, and says so."""
MOST_LETTERS = 30
"""A longer name is folded."""


def show(evidence: Evidence, console: Console) -> None:
    """Print the tables, warnings and headline of a study.

    On a terminal drawn with rich, without the columns that have no room in 80 letters. Elsewhere
    plain lines: no folding, no colour, every column, blanks between the cells, so that `grep` and
    `awk` find a whole row in a line.
    """
    if console.is_terminal:
        console.print(summarize(evidence))
        return
    for line in lines(evidence):
        console.print(Text(line), soft_wrap=True)


def summarize(evidence: Evidence) -> Group:
    """The tables, warnings and headline, for `rich` to draw."""
    found = contents(evidence, drawn=False)
    warned = [Text(f"Warning: {visible(text)}", style="yellow") for text in found.warnings]
    return Group(*map(_drawn, shown(found)), *warned, *map(Text, _said(found)))


def terminal_table(folder: str | Path) -> Group:
    """The same of a folder.

    Raises:
      ReportError: there is neither a record nor a law in it.
    """
    return summarize(read_evidence(folder))


def lines(evidence: Evidence) -> list[str]:
    """The same as plain lines."""
    found = contents(evidence, drawn=False)
    written = []
    for table in shown(found):
        written += [visible(table.title), *_aligned(table), ""]
    written += [f"Warning: {visible(text)}" for text in found.warnings]
    return [*written, *_said(found)]


def shown(found: Contents) -> list[Table]:
    """The tables of results that have rows, in the order of the report."""
    return [found.tables[name] for name in SHOWN if found.tables[name].rows]


def _said(found: Contents) -> list[str]:
    said = (found.sentences[name] for name in ("choice", "promise", "headline"))
    return [visible(text) for text in said if text]


def visible(text: str) -> str:
    """The text with control characters, which could steer a terminal, made visible."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def _letters(entry: Entry) -> str:
    return visible(entry.text if isinstance(entry, Cell) else entry)


def _cut(table: Table) -> str:
    left = len(table.rows) - MOST_ROWS
    return f"and {left} more, which report.html lists" if left > 0 else ""


def _drawn(table: Table) -> rich_table.Table:
    drawn = rich_table.Table(
        title=table.title,
        caption=_cut(table) or None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    names = max(len(_letters(row[0])) for row in table.rows)
    kept = [index for index, name in enumerate(table.head) if name not in table.wide]
    for index in kept:
        wordy = index == 0 or table.head[index] in table.wordy
        drawn.add_column(
            Text(visible(table.head[index])),
            justify="left" if wordy else "right",
            overflow="fold",
            no_wrap=index == 0 and names <= MOST_LETTERS,
        )
    for row in table.rows[:MOST_ROWS]:
        drawn.add_row(*(Text(_letters(row[index])) for index in kept))
    return drawn


def _aligned(table: Table) -> list[str]:
    cells = [[visible(name) for name in table.head]]
    cells += [[_letters(entry) for entry in row] for row in table.rows[:MOST_ROWS]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    found = []
    for row in cells:
        padded = [
            text.ljust(width) if index == 0 or table.head[index] in table.wordy
            else text.rjust(width)
            for index, (text, width) in enumerate(zip(row, widths, strict=True))
        ]  # fmt: skip
        found.append("  ".join(padded).rstrip())
    return found + [text for text in [_cut(table)] if text]
