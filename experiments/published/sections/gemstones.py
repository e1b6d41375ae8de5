"""McLeish et al. 2025 (Gemstones): 22 shapes of model, along whole training runs."""

from typing import Any, NamedTuple

from scaling.analysis.agreement import disagreement
from scaling.analysis.approaches import Allocation, envelope, hull, of_law
from scaling.analysis.fit import fit
from scaling.analysis.laws import CHINCHILLA
from sections.rows import Row, Section, beside, close, interval, least, minimum, near, runs_of
from sections.sources import Source, Table, where


class Objective(NamedTuple):
    """A published fit and the least value of its objective."""

    rows: str
    size: str
    delta: float
    published: float
    minimum: float
    at: tuple[str, str, str, str]  # E, alpha, beta, beta/(alpha + beta)


WITHOUT = "params_minus_input_embed"
OBJECTIVES = (
    Objective("to 100B", "params", 1e-4, 2.076018e-4, 2.07505155e-4,
              ("2.1494", ".29279", ".72890", ".71342")),
    Objective("all", "params", 1e-4, 6.923300e-4, 6.92328908e-4,
              ("1.9457", ".25769", ".58954", ".69585")),
    Objective("cooled down", "params", 1e-4, 2.059406e-4, 2.04779068e-4,
              ("2.0799", ".30064", ".58597", ".66091")),
    Objective("cooled down", WITHOUT, 1e-4, 1.799117e-4, 1.79719309e-4,
              ("2.0828", ".27969", ".63645", ".69471")),
    Objective("to 100B", "params", 1e-3, 1.9816129e-3, 1.981612808e-3,
              ("2.1432", ".29289", ".71298", ".70882")),
    Objective("all", "params", 1e-3, 6.5925344e-3, 6.592534166e-3,
              ("1.9508", ".25916", ".59730", ".69740")),
    Objective("cooled down", "params", 1e-3, 1.9640865e-3, 1.964086436e-3,
              ("2.0748", ".30036", ".58017", ".65889")),
)  # fmt: skip
HULLS = {
    "to 100B": (21, {
        "params": (0.4993802161, -2.845107696), "params_body": (0.6268625279, -9.044791057),
        "tokens": (0.4809888232, 1.896320827),
    }),
    "all": (28, {
        "params": (0.4579030797, -1.025860401), "params_body": (0.5689324102, -6.504684872),
        "tokens": (0.5248986844, -0.02952087),
    }),
}  # fmt: skip


def table_of(source: Source, name: str, rows: str) -> Table:
    """Rows of one of the published selections."""
    table = source.tables["cooldown_end" if rows == "cooled down" else name]
    return where(table, table["to_100b"] == 1) if rows == "to 100B" else table


def along(table: Table, size: str = "params") -> Any:
    """A table of checkpoints, each run being a series."""
    series = table["run"] if "run" in table else table["series"]
    return runs_of(
        table[size], table["tokens"], table["loss"], flops=table["flops"], series=series
    )  # fmt: skip


def study(source: Source) -> Section:
    """All of section 4."""
    rows: list[Row] = []
    numbers: dict[str, Any] = {"hulls": {}, "fits": []}
    for name, (vertices, published) in HULLS.items():
        table = table_of(source, "dense", name)
        for size in ("params", "params_body"):
            found = hull(along(table, size), vantage=True)
            rows += _slopes(found, published, name, size)
            if size == "params":
                count = len(found.points["flops"])
                what = f"hull, {name}: vertices"
                rows.append(Row(what, str(count), str(vertices), "equal", count == vertices))
                numbers["hulls"][name] = {
                    "points": {n: x.tolist() for n, x in found.points.items()},
                    **{
                        line: getattr(found, line)._asdict() for line in ("params", "tokens")
                    },
                }  # fmt: skip
    for one in OBJECTIVES:
        table = table_of(source, "main", one.rows)
        runs = runs_of(table[one.size], table["tokens"], table["loss"])
        got = minimum(CHINCHILLA, runs, one.delta)
        of = "" if one.size == "params" else ", no input embedding"
        what = f"{one.rows} ({len(runs)} rows){of}, delta {one.delta:g}"
        p = got.params
        share = p["beta"] / (p["alpha"] + p["beta"])
        named = {"E": p["E"], "alpha": p["alpha"], "beta": p["beta"], "a": share}
        rows += [
            least(what, got.value, one.minimum),
            beside(f"{what}: published objective", f"{got.value:.7g}", f"{one.published:.7g}"),
            *(
                close(f"{what}: {name}", value, text, share=1e-4)
                for (name, value), text in zip(named.items(), one.at, strict=True)
            ),
        ]
        said = {"rows": what, "objective": got.value, "published": one.published}
        numbers["fits"].append(said | p)
    rows += _approaches(source, numbers)
    return Section("4. Gemstones (McLeish et al. 2025)", rows, numbers)


def _slopes(found: Allocation, published: dict, name: str, size: str) -> list[Row]:
    lines = {size: found.params} | ({"tokens": found.tokens} if size == "params" else {})
    rows = []
    for what, line in lines.items():
        slope, intercept = published[what]
        at = f"hull, {name}"
        rows += [
            near(f"{at}: slope of {what}", line.exponent, slope, within=1e-6, show=".10f"),
            near(f"{at}: its intercept", line.intercept, intercept, within=1e-5, show=".8f"),
        ]
    return rows


def _approaches(source: Source, numbers: dict[str, Any]) -> list[Row]:
    """Do the hull and the law agree? They do not, and that is a warning of every fit."""
    dense, main = (along(table_of(source, name, "all")) for name in ("dense", "main"))
    law = fit(main, "chinchilla", delta=1e-4, bootstrap=200, intervals="series")
    found = [hull(dense), envelope(dense), of_law(law)]
    numbers["approaches"] = [
        {"approach": each.approach, "exponent": each.params.exponent,
         "interval_95": list(each.params.interval or ())} for each in found
    ]  # fmt: skip
    numbers["disagreement"] = disagreement(found)
    return [
        beside(
            f"all rows, {each.approach}: exponent of N (95% by whole runs)",
            f"{each.params.exponent:.3f} ({interval(each.params.interval or ())})",
            "",
        )
        for each in found
    ]
