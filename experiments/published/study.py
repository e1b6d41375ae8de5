"""Published scaling laws, fitted again from the published runs: ours beside what was printed.

python experiments/published/study.py --data=DIR [--only=SECTION,...] [--workers=2]

DIR holds the tables that the README of this study describes, or clones of the authors' repositories
with their own files; what is there is used. Each section writes records/SECTION.json; the tables of
the README and the figures are made anew from all records. The exit code is 1 if a number misses its
rule, or if no section could be run.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scaling.files import write_bytes, write_json

HERE = Path(__file__).resolve().parent
SECTIONS = ("chinchilla", "porian", "gadre", "gemstones", "datablations", "ladder")
BEGIN, END = "<!-- tables: written by study.py -->", "<!-- end of tables -->"
WORDS = {True: "pass", False: "**FAIL**", None: ""}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sections whose tables are there; 0 if all that was run passes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="tables, or clones")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, parted by commas")
    parser.add_argument("--out", type=Path, default=HERE, help="holds records/ and README.md")
    parser.add_argument("--workers", type=int, default=2, help="processes of the slow refits")
    parser.add_argument(
        "--figures", action=argparse.BooleanOptionalAction, default=True, help="draw the records"
    )
    options = parser.parse_args(arguments)
    chosen = options.only.split(",")
    unknown = sorted(set(chosen) - set(SECTIONS))
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    if not options.data.is_dir():
        parser.error(f"{options.data} is no folder; the README says what to clone into one")
    _open_compile_cache()
    failed, run = 0, 0
    for name in chosen:
        record = section(name, options.data, workers=options.workers)
        if record is None:
            continue
        run += 1
        write_json(options.out / "records" / f"{name}.json", record)
        print("\n".join(table(record)), flush=True)
        failed += sum(row["passed"] is False for row in record["rows"])
    write_tables(options.out)
    if options.figures:
        importlib.import_module("pictures").draw(options.out)
    print(f"\n{run} of {len(chosen)} sections run, {failed} of their numbers miss their rule")
    return 1 if failed or not run else 0


def section(name: str, data: Path, *, workers: int) -> dict[str, Any] | None:
    """The record of a section; None, and the reason on the terminal, where its runs are absent."""
    # Imported here, so that a process that only draws resamples waits for no JAX.
    sources = importlib.import_module("sections.sources")
    try:
        source = sources.READERS[name](data)
    except sources.NoData as reason:
        print(f"\nSKIPPED {name}: {reason}", flush=True)
        return None
    more = {"workers": workers} if name == "chinchilla" else {}
    found = importlib.import_module(f"sections.{name}").study(source, **more)
    return {
        "section": name,
        "title": found.title,
        "files": source.digests(),
        "rows": [row._asdict() for row in found.rows],
        "numbers": found.numbers,
    }


def table(record: Mapping[str, Any]) -> list[str]:
    """A section in Markdown."""
    lines = [f"### {record['title']}", "", "| | ours | published | rule | |", "|-|-|-|-|-|"]
    for row in record["rows"]:
        cells = (row["what"], row["ours"], row["published"], row["rule"], WORDS[row["passed"]])
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return ["", *lines]


def summary(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """How many numbers of each section have a rule, and pass."""
    lines = ["| section | numbers with a rule | pass | fail | beside them, without one |",
             "|-|-|-|-|-|"]  # fmt: skip
    for record in records:
        counts = [[row["passed"] for row in record["rows"]].count(x) for x in (True, False, None)]
        passed, failed, without = counts
        lines.append(f"| {record['title']} | {passed + failed} | {passed} | {failed} | {without} |")
    return lines


def write_tables(folder: Path) -> None:
    """Write all records that there are between the marks of README.md, if it has them."""
    readme = folder / "README.md"
    paths = [folder / "records" / f"{name}.json" for name in SECTIONS]
    records = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    if BEGIN not in text or END not in text:
        return
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    lines = [*summary(records), *(line for record in records for line in table(record))]
    body = "\n".join(lines)
    write_bytes(readme, f"{before}{BEGIN}\n\n{body}\n\n{END}{after}".encode())


def _open_compile_cache() -> None:
    """Compiled fits are kept on disk; without that all goes on, and takes longer."""
    from scaling.train import compile_cache

    try:
        compile_cache.open_cache(compile_cache.default_folder())
    except OSError as error:
        print(f"fitting without a compile cache: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
