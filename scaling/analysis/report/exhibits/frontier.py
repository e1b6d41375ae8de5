"""The compute-optimal loss, size and tokens per parameter, with bands, runs and plans."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from scaling.analysis.evidence import Evidence, Run
from scaling.analysis.fitted import PARTS_OF_A_BUDGET
from scaling.analysis.report.exhibits.marks import band, hover, interval_of
from scaling.analysis.report.exhibits.titles import title
from scaling.analysis.report.panels import (
    Panel,
    Series,
    above,
    count,
    log_axis,
    loss_axis,
    power,
    tidy,
)

# More intervals than this are drawn thin.
FEW = 8
Ends = Sequence[float] | None


class Optimum(NamedTuple):
    """A value at a budget, with its 90% interval where there is one."""

    flops: float
    value: float
    ends: Ends


def panels(evidence: Evidence) -> list[Panel]:
    """Compute-optimal loss, size and tokens per parameter against compute."""
    frontier = evidence.frontier
    if not frontier:
        return []
    flops: Sequence[float] = frontier["flops"]
    bands = frontier.get("interval_90") or {}
    minima = [budget for budget in evidence.budgets if budget["interior"]]
    ratio = [t / p for t, p in zip(frontier["tokens"], frontier["params"], strict=True)]
    sizes = bands.get("params")
    # At a budget the ratio is flops / 6 / params^2: the ends of one give the ends of the other.
    ratios = [ratio_ends(c, pair) for c, pair in zip(flops, sizes, strict=True)] if sizes else None

    loss = [
        *band(flops, frontier["loss"], bands.get("loss"), label="Fitted law"),
        *_minima([Optimum(b["flops"], b["loss_opt"], interval_of(b, "loss_opt")) for b in minima]),
        *_planned(evidence, "loss"),
    ]
    runs = _runs(evidence)
    if runs:
        loss.insert(min(1, len(loss) - 1), _marks(runs))
    size = [
        *band(flops, frontier["params"], sizes, label="Fitted law"),
        *_minima(
            [Optimum(b["flops"], b["params_opt"], interval_of(b, "params_opt")) for b in minima]
        ),
        *_planned(evidence, "params"),
    ]
    data = [
        *band(flops, ratio, ratios, label="Fitted law"),
        *_minima([_ratio(b) for b in minima]),
        *_planned(evidence, "ratio"),
    ]
    verdict = evidence.verdict
    if verdict:
        loss.append(_measured(verdict["flops"], verdict["measured"]))
    fitted = [float(row["flops"]) for row in evidence.fitted if row.get("flops")]
    found = []
    for name, y_title, series, write in (
        ("Compute-optimal loss", title(evidence, "loss"), loss, None),
        ("Compute-optimal size", title(evidence, "params"), size, count),
        ("Compute-optimal data", "Tokens per parameter", data, tidy),
    ):
        values = [v for s in series for values in (s.y, s.y_low, s.y_high) for v in values or ()]
        # Intervals of the minima may be far wider than all losses, so they stretch no axis of them.
        least = [v for s in series for v in (*s.y, *(s.y_low or () if s.shape == "band" else ()))]
        y = log_axis(y_title, values, write=write) if write else loss_axis(y_title, least)
        found.append(
            Panel(
                title=name,
                x=log_axis(title(evidence, "flops"), [v for s in series for v in s.x], write=power),
                y=y,
                series=series,
                beyond=max(fitted) if fitted else None,
                notes=[] if write else above([run.loss for run in runs], y),
            )
        )
    return found


def absent(evidence: Evidence) -> str:
    """Why there are no panels."""
    if not evidence.law:
        return "No law has been fitted yet (law.json is not there), so there is no frontier."
    form = evidence.form
    if form and not (form.target == "loss" and PARTS_OF_A_BUDGET.issuperset(form.inputs)):
        return (
            f"{form.name} predicts {form.target} from {', '.join(form.inputs)}: compute alone "
            "does not choose them, so there is no frontier."
        )
    return "The law has no optimum inside the range of compute, so there is no frontier."


def ratio_ends(flops: float, sizes: Sequence[float]) -> list[float]:
    """The interval of tokens per parameter that follows from that of the size at a budget."""
    low, high = sizes
    return [flops / 6 / high**2, flops / 6 / low**2]


def planned_runs(evidence: Evidence) -> list[Mapping[str, Any]]:
    """The runs of the plan with their predicted losses; the optimum where no run was chosen."""
    if evidence.plan:
        return [
            target.get("run")
            or {
                "flops": target["flops"],
                "params": target["params"]["value"],
                "tokens": target["tokens"]["value"],
                "loss": target["loss"],
            }
            for target in evidence.plan["targets"]
        ]
    if evidence.verdict:
        return [{**evidence.verdict, "loss": evidence.verdict["predicted"]}]
    return []


def _runs(evidence: Evidence) -> list[Run]:
    """The runs that were fitted: all but the one that the verdict is about."""
    verdict = evidence.verdict
    return [run for run in evidence.measured() if not verdict or run.run_id != verdict["run_id"]]


def _ratio(budget: Mapping[str, Any]) -> Optimum:
    ends = interval_of(budget, "params_opt")
    return Optimum(
        budget["flops"],
        budget["tokens_opt"] / budget["params_opt"],
        ratio_ends(budget["flops"], ends) if ends else None,
    )


def _minima(optima: Sequence[Optimum]) -> list[Series]:
    if not optima:
        return []
    ends = [optimum.ends for optimum in optima if optimum.ends]
    bounded = len(ends) == len(optima)
    return [
        Series(
            x=[optimum.flops for optimum in optima],
            y=[optimum.value for optimum in optima],
            y_low=[pair[0] for pair in ends] if bounded else None,
            y_high=[pair[1] for pair in ends] if bounded else None,
            shape="points",
            role="minimum",
            small=len(optima) > FEW,
            label="IsoFLOP minimum",
            marker="diamond",
        )
    ]


def _planned(evidence: Evidence, name: str) -> list[Series]:
    found = []
    for index, run in enumerate(planned_runs(evidence)):
        ends = run["loss"].get("interval_90") if name == "loss" else None
        values = {
            "loss": run["loss"]["value"],
            "params": run["params"],
            "ratio": run["tokens"] / run["params"],
        }
        found.append(
            Series(
                x=[run["flops"]],
                y=[values[name]],
                y_low=[ends[0]] if ends else None,
                y_high=[ends[1]] if ends else None,
                shape="points",
                role="predicted",
                marker="circle-open",
                label="" if index else "Planned run (90%)",
            )
        )
    return found


def _marks(runs: Sequence[Run]) -> Series:
    return Series(
        x=[run.flops for run in runs],
        y=[run.loss for run in runs],
        shape="points",
        role="muted",
        small=True,
        label="Runs",
        hover=[hover(run) for run in runs],
    )


def _measured(flops: float, loss: float) -> Series:
    return Series(
        x=[flops], y=[loss], shape="points", role="measured", marker="star", label="Measured"
    )
