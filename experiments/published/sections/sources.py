"""The published runs, from tables of one form or from the authors' repositories as cloned.

Every reader gives the same columns whichever it finds. Nothing is unpickled: to unpickle a file is
to run it.
"""

import csv
import hashlib
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scaling.runs import load

Table = Mapping[str, np.ndarray]
"""Columns of numbers, or of text, all of one length."""


class NoData(ValueError):
    """A folder that does not hold a publication's runs; the message says what was looked for."""


@dataclass(frozen=True)
class Source:
    """Tables by name, and the files that they were read from."""

    tables: Mapping[str, Table]
    files: tuple[Path, ...]

    def digests(self) -> dict[str, str]:
        """SHA-256 of each file by its name."""
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in self.files}


def columns(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Rows as columns: numbers where every cell is one or empty (NaN), else text."""
    rows = list(rows)

    def column(name: str) -> np.ndarray:
        cells = [row[name] for row in rows]
        try:
            return np.array([math.nan if cell in ("", None) else float(cell) for cell in cells])
        except ValueError:
            return np.array(["" if cell is None else str(cell) for cell in cells])

    return {name: column(name) for name in rows[0]}


def where(table: Table, keep: np.ndarray) -> Table:
    """The rows that are kept."""
    return {name: values[keep] for name, values in table.items()}


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV by its header."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def chinchilla(data: Path) -> Source:
    """Hoffmann et al.'s figure 4: params, flops, tokens, loss, and which rows are outliers."""
    path = find(
        data,
        ["chinchilla_fig4.csv"],
        [f"{clone}{file}" for clone, file in (
            ("analyzing-chinchilla/", "data/svg_extracted_data.csv"),
            ("", "data/svg_extracted_data.csv"),
            ("gemstone-scaling-laws/", "data/epoch_chinchilla_svg_extracted_data.csv"),
        )],
    )  # fmt: skip
    runs = load(path)
    # Besiroglu et al. leave out the five highest losses.
    outlier = runs.loss >= np.sort(runs.loss)[-5]
    table = {"params": runs.params, "flops": runs.flops, "tokens": runs.tokens, "loss": runs.loss,
             "outlier": outlier.astype(float)}  # fmt: skip
    return Source({"runs": table}, (path,))


PORIAN = {
    "porian_refinedweb.csv": ("step", "flops_c", "params_n", "tokens_d", "loss"),
    "porian_refinedweb_optima.csv": ("step", "flops_c", "n_opt", "log_n_std"),
}
"""Files that stand for Porian et al.'s pickle, and the columns that each must have."""


def porian(data: Path) -> Source:
    """IsoFLOP rows and published optima of Porian et al., from CSV alone."""
    paths = [data / name for name in PORIAN]
    needed = "; ".join(f"{name} with {', '.join(columns)}" for name, columns in PORIAN.items())
    if not all(path.exists() for path in paths):
        for folder in ("", "data/", "resolving-scaling-law-discrepancies/data/"):
            pickle = data / folder / "summary_df.pickle.xz"
            if pickle.exists():
                raise NoData(
                    f"{pickle} is a pickle, and to read one is to run it: in a place that you "
                    f"trust with it, export {needed} (rows and steps: README), and put both files "
                    f"into {data}"
                )
        raise NoData(f"{data} does not hold {needed}")
    read = [columns(read_csv(path)) for path in paths]
    for path, table in zip(paths, read, strict=True):
        missing = [name for name in PORIAN[path.name] if name not in table]
        if missing:
            raise NoData(f"{path} has no column {', '.join(missing)}; needed: {needed}")
    return Source({"runs": renamed(read[0]), "optima": read[1]}, tuple(paths))


EASY_17 = (
    "bigbench_operators", "pubmed_qa_labeled", "hellaswag_zeroshot", "boolq", "arc_easy", "coqa",
    "bigbench_dyck_languages", "lambada_openai", "bigbench_novel_concepts", "winograd",
    "bigbench_cs_algorithms", "commonsense_qa", "bigbench_qa_wikidata", "hellaswag", "copa",
    "squad", "piqa",
)  # fmt: skip
"""The tasks of Gadre et al. whose mean error their downstream law predicts."""


def gadre(data: Path) -> Source:
    """Gadre et al.'s runs on RedPajama: params, tokens, ratio, loss (C4), error (17 tasks)."""
    path = find(data, ["gadre_redpajama.csv"], ["scaling/exp_data/models", "exp_data/models"])
    if path.is_file():
        table = renamed(columns(read_csv(path)))
        return Source({"runs": table}, (path,))
    rows, files = [], []
    for file in sorted(path.glob("rpj-*.json")):
        run = json.loads(file.read_text(encoding="utf-8"))
        scores = path.parent / "evals" / f"evaluation_{run['name']}_heavy.json"
        icl = json.loads(scores.read_text(encoding="utf-8"))["eval_metrics"]["icl"]
        (loss,) = (
            result["loss"]
            for result in run["results"]
            if Path(result["val_data"][0]).parent.name == "c4_val"
        )
        known = run["hyperparameters"]
        rows.append({
            "model": Path(known["model"]).stem,
            "params": known["params"],
            "tokens": known["tokens"],
            "ratio": 20 * known["chinchilla_multiplier"],
            "loss": loss,
            "error": float(np.mean([1 - icl[task] for task in EASY_17])),
        })  # fmt: skip
        files += [file, scores]
    if not rows:
        raise NoData(f"{path} holds no rpj-*.json; clone mlfoundations/scaling whole")
    table = dict(columns(rows))
    table["flops"] = 6 * table["params"] * table["tokens"]
    return Source({"runs": table}, tuple(files))


VOCABULARY = 50304  # of the Gemstones
WINDOW = 2048
TO_100B = 101e9
"""The published fits to 100B tokens take the rows up to here: the last is at 100.03B."""


def flops_per_token(width: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Training FLOP per token of a Gemstone as McLeish et al. count them.

    Forward and twice that backward for 30 width^2 weights a block and its 61.25 width of vector
    operations, and for the head; scores, softmax and values of attention at 2.5 backward.
    """
    block = 3 * (30 * width**2 + 61.25 * width) + 10.5 * WINDOW * width * (1 + 1 / 128)
    return depth * block + 3 * (2 * width * VOCABULARY + 7 * width)


def gemstones(data: Path) -> Source:
    """McLeish et al.'s tables: main, dense, cooldown_end."""
    tables, files = {}, []
    for name, table, dump in (
        ("main", "gemstones_main.csv", "hot_100b+"),
        ("dense", "gemstones_main_dense.csv", "hot_100b+_477"),
        ("cooldown_end", "gemstones_cooldown_end.csv", "cool_end"),
    ):
        file = f"wandb_dfs/wandb_df_for_fitting_{dump}.jsonl"
        path = find(data, [table], [f"gemstone-scaling-laws/{file}", file])
        files.append(path)
        if path.suffix == ".csv":
            tables[name] = renamed(columns(read_csv(path)))
            continue
        lines = path.read_text(encoding="utf-8").splitlines()
        read = columns(json.loads(line) for line in lines if line.strip())
        read = where(read, read["step"] > 0)
        width, params, tokens = (read[n] for n in ("width", "params_active_precise", "tokens"))
        tables[name] = {
            "series": read["run_name"],
            "width": width,
            "depth": read["depth"],
            "params": params,
            "params_minus_input_embed": params - VOCABULARY * width,
            "params_body": params - 2 * VOCABULARY * width,
            "tokens": tokens,
            "loss": read["final_loss"],
            "flops": flops_per_token(width, read["depth"]) * tokens,
            "to_100b": (tokens <= TO_100B).astype(float),
        }
    return Source(tables, tuple(files))


SIZES = {
    "7m": 7098752, "14m": 1.41e7, "20m": 19703712, "25m": 3.55e7, "44m": 4.4e7, "83m": 8.27e7,
    "146m": 1.465e8, "196m": 201236224, "220m": 2.205e8, "221m": 2.205e8, "280m": 2.81e8,
    "421m": 4.212e8, "574m": 5.737e8, "619m": 6.187e8, "1b1": 1.0963e9, "1b5": 1.5173e9,
    "2b2": 2160013824, "2b8": 2.81e9, "3b8": 3581186048, "3b9": 3899710720, "4b2": 4.2465e9,
    "8b7": 8.67e9,
}  # fmt: skip
"""Parameters behind the first part of a run's name, as Muennighoff et al. list them."""
LEFT_OUT = frozenset({
    "2b84b4b", "2b88b4b", "2b812b4b", "2b816b4b", "2b824b4b", "2b855b1b25", "4b212b12b",
    "4b224b12b", "4b284b1b9", "4b284b6b", "2b8100m100m", "14m7b5100m", "14m300b100m", "1b12b7100m",
    "1b13b9100m", "1b15b9100m", "1b17b5100m", "619m3b9100m", "619m5b9100m", "619m7b5100m",
    "2b84b8100m", "1b58b8100m", "1b112b100m", "619m22b100m", "421m300b1b5", "221m91b400m",
    "221m174b400m", "221m600b400m", "8b712b12b", "8b712b1b5", "8b712b400m", "8b712b100m",
    "3b926b1b5", "2b836b1b5", "2b836b400m", "2b836b100m", "2b246b400m", "2b246b100m", "1b566b1b5",
    "1b566b100m", "1b191b400m", "1b191b1b5", "1b1250b1b5", "1b5174b1b5", "2b291b1b5", "2b2174b1b5",
    "8b720b1b5", "2b877b1b5",
})  # fmt: skip
"""The 48 of 230 main runs that the authors took out of their fit by hand."""
ENTRY = re.compile(r'^\s*"(\w+)"\s*:\s*([0-9.eE+-]+)')


def billions(text: str) -> float:
    """Tokens of a name's part: 12b is 12e9, 1b25 is 1.25e9, 100m is 1e8."""
    if text.endswith("m"):
        return float(text[:-1]) * 1e6
    return float(text.replace("b", ".").strip(".")) * 1e9


def named(run: str) -> tuple[float, float, float]:
    """params, tokens, unique tokens of a run named <params><tokens><unique tokens>."""
    first = next(n for n in range(2, len(run)) if run[:n] in SIZES)
    # The unique tokens are the last four characters, or three where they end in b5 and the like,
    # as far as they name one number.
    last = 3 if run[-1] not in "bm" and run[-2] in "bm" else 4
    while run[-last:].count("b") > 1 or run[-last:].count("m") > 1:
        last -= 1
    return SIZES[run[:first]], billions(run[first:-last]), billions(run[-last:])


def datablations(data: Path) -> Source:
    """Muennighoff et al.'s main runs: params, tokens, unique_tokens, loss, which were fitted."""
    notebooks = ["plotstables/return.ipynb", "utils/parametric_fit.ipynb"]
    path = find(
        data, ["datablations.csv"], [f"{at}{n}" for at in ("datablations/", "") for n in notebooks]
    )
    if path.suffix == ".csv":
        table = renamed(columns(read_csv(path)))
        return Source({"runs": where(table, table["kind"] == "main")}, (path,))
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    text = next((s for s in sources if "NAMES_TO_VAL_LOSSES = {" in s), None)
    if text is None:
        raise NoData(
            f"no cell of {path} assigns NAMES_TO_VAL_LOSSES; take the commit in the README"
        )
    lines = text.partition("NAMES_TO_VAL_LOSSES = {")[2].splitlines()
    lines = itertools.takewhile(lambda line: line.strip() != "}", lines)
    rows = []
    for run, loss in (m.groups() for m in map(ENTRY.match, lines) if m):
        if float(loss) == 0 or run.endswith("dedup") or "seed" in run or "opt" in run:
            continue
        params, tokens, unique = named(run)
        rows.append({"run": run, "params": params, "tokens": tokens, "unique_tokens": unique,
                     "loss": loss, "fitted": float(run not in LEFT_OUT)})  # fmt: skip
    return Source({"runs": columns(rows)}, (path,))


TASKS = (
    "mmlu",
    "hellaswag",
    "arc_challenge",
    "arc_easy",
    "piqa",
    "csqa",
    "socialiqa",
    "openbookqa",
)
SPLITS = {
    "hellaswag": "val", "arc_challenge": "test", "arc_easy": "test", "piqa": "val", "csqa": "val",
    "socialiqa": "val", "openbookqa": "test",
}  # fmt: skip
OF_MMLU = {"stem": 0.215, "humanities": 0.335, "social_sciences": 0.219, "other": 0.231}
LADDER = {"190M": 190354176, "370M": 371262464, "760M": 758220288, "1B": 1279395840}
LENGTHS = ("1xC", "2xC", "5xC", "10xC")
TARGET = ("peteish7_eval_anneal", 6887575552)


def ladder(data: Path) -> Source:
    """Evaluations of the OLMo ladder's 16 runs and of the 7B target: run, target, params, tokens,
    and bits per byte and accuracy of each task."""
    folder = "src/scripts/paper/data/ladder-runs"
    path = find(data, ["olmo_ladder.csv"], [f"OLMo-ladder/{folder}", folder])
    if path.is_file():
        table = renamed(columns(read_csv(path)))
        return Source({"runs": where(table, table["used_in_paper"] == 1)}, (path,))
    files = {f"{size}-{length}": n for size, n in LADDER.items() for length in LENGTHS}
    rows, paths = [], []
    for run, params in (*files.items(), TARGET):
        paths.append(path / f"{run}.csv")
        for cells in read_csv(paths[-1]):
            tokens = cells.get("throughput/total_tokens")
            if not tokens:
                tokens = float(cells["_step"]) * float(cells["batch_size_in_tokens"])
            row = {"run": run, "target": float(run == TARGET[0]), "params": params,
                   "tokens": float(tokens)}  # fmt: skip
            for task in TASKS:
                row |= {f"{task}_bpb": _score(cells, task, "downstream_bpb", "bpb"),
                        f"{task}_acc": _score(cells, task, "downstream", "len_norm")}  # fmt: skip
            rows.append(row)
    return Source({"runs": columns(rows)}, tuple(paths))


def _score(cells: Mapping[str, str], task: str, kind: str, ending: str) -> float:
    if task != "mmlu":
        return float(cells[f"eval/{kind}/{task}_{SPLITS[task]}_rc_5shot_{ending}"])
    parts = [float(cells[f"eval/{kind}/mmlu_{group}_test_rc_5shot_{ending}"]) for group in OF_MMLU]
    return float(np.dot(parts, list(OF_MMLU.values())) / sum(OF_MMLU.values()))


OURS = {
    "params_n": "params", "tokens_d": "tokens", "flops_c": "flops", "run": "series",
    "epoch_dropped_outlier": "outlier", "token_multiplier": "ratio", "loss_c4_val": "loss",
    "err_avg17": "error", "in_hot_le100b": "to_100b", "unique_tokens_u": "unique_tokens",
    "in_paper_fit_182": "fitted", "params_non_embed": "params",
}  # fmt: skip
"""Columns of the tables, and what they are called here."""
KEPT_NAMES = frozenset({"run"})


def renamed(table: Table) -> Table:
    """A table with our names for its columns; `run` stays beside `series`."""
    own = {OURS.get(name, name): values for name, values in table.items() if name != "series"}
    return own | {name: table[name] for name in KEPT_NAMES & table.keys()}


def find(data: Path, tables: Sequence[str], clones: Sequence[str]) -> Path:
    """The first of these that is in `data`.

    Raises:
      NoData: none is.
    """
    for name in (*tables, *clones):
        if (data / name).exists():
            return data / name
    raise NoData(f"{data} holds neither {' nor '.join((*tables, *clones))}")


READERS: Mapping[str, Callable[[Path], Source]] = {
    "chinchilla": chinchilla,
    "porian": porian,
    "gadre": gadre,
    "gemstones": gemstones,
    "datablations": datablations,
    "ladder": ladder,
}
