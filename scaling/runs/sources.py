"""Rows of a source, whatever it is: a folder of records, JSON, JSON lines, or cells with a header.

Nothing is made of the cells here: a row is what stood there, and where.
"""

import csv
import dataclasses
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from scaling.records import BadTable, parse, read, read_text

PLURALS = {"row": "rows", "line": "lines", "entry": "entries"}


class Row(NamedTuple):
    """One row: what an error message calls it, and its cells by the source's own names."""

    where: str
    cells: Mapping[str, Any]


class Columns(Protocol):
    """Columns by name, such as a pandas DataFrame or a dict of arrays."""

    def keys(self) -> Iterable[str]: ...

    def __getitem__(self, name: str, /) -> Any: ...


def rows_of(source: str | Path | Columns) -> list[Row]:
    """The rows of a folder of records (or one that holds `records/`), .json, .jsonl, .csv, .tsv, or
    of columns at hand, where NaN is an empty cell and rows count from 0.

    A .json holds a list of objects, one object, or an object of columns, as pandas writes them.

    Raises:
      BadTable: no such source, an unknown kind of file, no rows, malformed JSON, rows or columns
        that differ in length.
    """
    rows = list(_rows(Path(source)) if isinstance(source, str | Path) else _of_columns(source))
    if not rows:
        raise BadTable(
            f"{name_of(source)} holds no runs; give a source with at least one run in it"
        )
    return rows


def name_of(source: str | Path | Columns) -> str:
    """What messages call a source."""
    return str(source) if isinstance(source, str | Path) else "the table"


def at(places: Sequence[str], *, most: int = 8) -> str:
    """Several rows in words: `rows 3, 4, 9 and 12 more`."""
    kinds = {place.partition(" ")[0] for place in places}
    shown = list(places[:most])
    if len(places) > 1 and len(kinds) == 1 and kinds <= PLURALS.keys():
        shown = [place.partition(" ")[2] for place in shown]
        shown[0] = f"{PLURALS[kinds.pop()]} {shown[0]}"
    more = len(places) - most
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _of_columns(columns: Columns) -> Iterator[Row]:
    lists = {str(name): np.asarray(columns[name]).tolist() for name in columns.keys()}  # noqa: SIM118
    lengths = {name: len(cells) for name, cells in lists.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise BadTable(f"the columns of the table differ in length: {found}; mend them")
    for i, cells in enumerate(zip(*lists.values(), strict=True)):
        empty = [isinstance(cell, float) and math.isnan(cell) for cell in cells]
        cleared = (None if gone else cell for cell, gone in zip(cells, empty, strict=True))
        yield Row(f"row {i}", dict(zip(lists, cleared, strict=True)))


def _rows(path: Path) -> Iterator[Row]:
    if not path.exists():
        raise BadTable(
            f"no file or folder {path}; give a folder of records, a .json, .jsonl, .csv or .tsv"
        )
    if path.is_dir():
        folder = path / "records" if (path / "records").is_dir() else path
        for file in sorted(folder.glob("*.json")):
            yield Row(str(file), dataclasses.asdict(read(file)))
        return
    text = read_text(path)
    match path.suffix.lower():
        case ".json":
            parsed = parse(text, where=str(path))
            for index, item in enumerate(_objects(parsed), start=1):
                yield _row(f"entry {index}", item, path)
        case ".jsonl":
            for number, line in enumerate(text.split("\n"), start=1):
                if line.strip():
                    item = parse(line, where=str(path), line=number)
                    yield _row(f"line {number}", item, path)
        case ".csv" | ".tsv":
            yield from _cells(text, path)
        case suffix:
            raise BadTable(
                f"{path} ends in {suffix!r}; give a folder of records, a .json, .jsonl, .csv or "
                ".tsv"
            )


def _row(where: str, item: object, path: Path) -> Row:
    if not isinstance(item, dict):
        raise BadTable(f"{where} of {path} is {type(item).__name__}; each run must be an object")
    return Row(where, item)


def _objects(parsed: Any) -> Sequence[Any]:
    """A list of rows; columns of equal length, as lists or by index, are turned into one."""
    if isinstance(parsed, list):
        return parsed
    columns = parsed.values() if isinstance(parsed, dict) else ()
    lengths = {len(column) if isinstance(column, list) else None for column in columns}
    if len(lengths) == 1 and None not in lengths:
        return [dict(zip(parsed, cells, strict=True)) for cells in zip(*columns, strict=True)]
    if columns and all(isinstance(column, dict) for column in columns):
        keys = list(next(iter(columns)))
        if all(list(column) == keys for column in columns):
            return [{name: parsed[name][key] for name in parsed} for key in keys]
    return [parsed]


def _cells(text: str, path: Path) -> Iterator[Row]:
    first = text.partition("\n")[0]
    # Tables from a spreadsheet come with semicolons or tabs.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count))
    header = [name.strip() for name in next(reader, [])]
    for name in header:
        if header.count(name) > 1:
            raise BadTable(f"{path} has two columns named {name!r}; rename one")
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            raise BadTable(
                f"row {reader.line_num} of {path} has {len(cells)} cells and its header has "
                f"{len(header)}; mend or remove the row"
            )
        yield Row(f"row {reader.line_num}", dict(zip(header, cells, strict=True)))
