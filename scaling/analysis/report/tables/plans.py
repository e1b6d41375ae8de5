"""What to train next, what it will score, what it scored, and what more would buy."""

from collections.abc import Callable, Mapping
from typing import Any

from scaling.analysis.evidence import Evidence
from scaling.analysis.report.panels import count, percent, power, tidy
from scaling.analysis.report.tables.table import Cell, Entry, Table, between, cell, signed_percent

FACTS: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "batch_tokens": ("Batch (tokens)", count),
    "steps": ("Steps", count),
    "learning_rate": ("Learning rate", tidy),
    "hours": ("Hours", tidy),
    "hours_lifetime": ("Hours with inference", tidy),
    "cost": ("Cost", tidy),
    "epochs": ("Epochs", tidy),
    "flops_training": ("FLOPs of training", power),
    "flops_lifetime": ("FLOPs with inference", power),
}

CELL = ("params", "tokens", "cost", "runs", "overrides")


def plan_table(evidence: Evidence) -> Table:
    """Per planned budget: the optimum, the run that stands for it, and what it scored."""
    rows = []
    verdict = evidence.verdict
    head = [
        "FLOPs", "Optimal size", "Size, 90%", "Tokens/param, 90%", "Run's size", "Run's tokens",
        "Predicted loss", "Loss, 90%",
    ]  # fmt: skip
    head += ["Measured", "Error", "Held"] if verdict else []
    for target in _targets(evidence):
        run = target.get("run")
        stands = run or {"params": target["params"]["value"], "loss": target["loss"]}
        row: list[Entry] = [power(target["flops"])]
        row += [
            count(target["params"]["value"]),
            between(target["params"].get("interval_90"), write=count),
            between((target.get("tokens_per_parameter") or {}).get("interval_90"), write=tidy),
        ]
        none = Cell("no model of the ladder was chosen")
        row += [count(run["params"]), count(run["tokens"])] if run else [none, none]
        row += [f"{stands['loss']['value']:.4f}", between(stands["loss"].get("interval_90"))]
        trained = verdict and run and abs(verdict["flops"] / run["flops"] - 1) < 0.01
        if verdict and trained:
            row += [f"{verdict['measured']:.4f}", signed_percent(verdict["relative_error"])]
            rows.append([*row, "yes" if verdict["inside_interval"] else "no"])
        else:
            rows.append([*row, *[Cell("not trained yet")] * (3 if verdict else 0)])
    title = "Prediction and measurement" if verdict else "The planned run"
    return Table(title=title, head=head, rows=rows, wide=["Run's tokens", "Tokens/param, 90%"])


def recipe_table(evidence: Evidence) -> Table:
    """Per planned budget: batch, steps, rate, time and cost, of the run where one was chosen."""
    targets = [(target, target.get("run") or target) for target in _targets(evidence)]
    reasons = (evidence.plan or {}).get("null_reasons") or {}
    kept = [name for name in FACTS if any(_tells(name, *target) for target in targets)]
    rows: list[list[Entry]] = []
    for target, run in targets if kept else ():
        row: list[Entry] = [power(target["flops"])]
        for name in kept:
            why = str(reasons.get(name) or "it was not given")
            row.append(cell(_value(run.get(name)), write=FACTS[name][1], why=why))
        rows.append([*row, _words(target.get("binding")) or Cell("nothing but the compute")])
    head = ["FLOPs", *(FACTS[name][0] for name in kept), "Limited by"]
    return Table(title="How to train it", head=head, rows=rows, wordy=["Limited by"])


def alternative_table(evidence: Evidence) -> Table:
    """Twice the parameters, the tokens or the time: what each would take off the loss."""
    comparison = (evidence.plan or {}).get("comparison") or {}
    rows: list[list[Entry]] = []
    base = comparison.get("base")
    options = [{"name": "the run as planned", **base}, *comparison["options"]] if base else []
    answers = any(option.get("flops_lifetime", 0) > option["flops"] for option in options)
    flops, hours = ("flops_lifetime", "hours_lifetime") if answers else ("flops", "hours")
    spent = (FACTS[flops][0], FACTS[hours][0]) if answers else ("FLOPs", "Hours")
    for option in options:
        change = option.get("change")
        interval = (change or {}).get("interval_90")
        beyond = "" if option.get("within_limits", True) else " (beyond the limits)"
        row: list[Entry] = [
            option["name"] + beyond,
            count(option["params"]),
            count(option["tokens"]),
        ]
        row += [power(option[flops])]
        row += [cell(option.get(hours), write=tidy, why="no machine was given")]
        row += [f"{option['loss']:.4f}"]
        row += [cell(change, write=lambda c: _signed(c["value"]), why="it is what others change")]
        row += [between(interval, write=_signed, why="it is what others change")]
        share = option.get("best_in_samples")
        row += [cell(share, write=lambda x: percent(100 * x), why="it costs another amount")]
        rows.append(row)
    head = [
        "Choice", "Params", "Tokens", *spent, "Loss", "Change", "Change, 90%",
        "Best in samples",
    ]  # fmt: skip
    return Table(
        title="Twice the parameters, the tokens or the time?",
        head=head,
        rows=rows,
        wide=["Best in samples"],
    )


def next_table(evidence: Evidence) -> Table:
    """The runs that make the prediction at the target surest, for what they cost."""
    rows: list[list[Entry]] = []
    cells = ((evidence.plan or {}).get("next_runs") or {}).get("cells") or []
    others = [name for name in (cells[0] if cells else ()) if name not in CELL]
    for chosen in cells:
        row: list[Entry] = [count(chosen["params"]), count(chosen["tokens"])]
        row += [tidy(chosen[name]) for name in others]
        rows.append([*row, str(chosen["runs"]), power(chosen["cost"])])
    head = ["Params", "Tokens", *others, "Runs", "FLOPs of each"]
    return Table(title="The next runs", head=head, rows=rows)


def _targets(evidence: Evidence) -> list[Mapping[str, Any]]:
    return list(evidence.plan["targets"]) if evidence.plan else []


def _tells(name: str, target: Mapping[str, Any], run: Mapping[str, Any]) -> bool:
    """Whether a fact of a run is there, and not the compute of the target once more."""
    found = _value(run.get(name))
    if name == "hours_lifetime" and found == run.get("hours"):
        return False
    return bool(found) and not (
        name.startswith("flops") and abs(float(found or 0) / target["flops"] - 1) < 1e-3
    )


def _value(fact: Any) -> float | None:
    """A number, which may come with its interval or its source."""
    found: float | None = fact.get("value") if isinstance(fact, Mapping) else fact
    return found


def _words(binding: Any) -> str:
    return ", ".join(binding) if isinstance(binding, list | tuple) else str(binding or "")


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")
