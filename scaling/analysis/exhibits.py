"""What each of the four figures shows, said once for paper and browser alike."""

import html
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from scaling.analysis.evidence import Evidence, Run
from scaling.analysis.panels import (
    Panel,
    Series,
    colour_scale,
    count,
    linear_axis,
    log_axis,
    loss_axis,
    power,
)

AXIS_TITLES = {
    "params_total": "Parameters (embedding included)",
    "params_non_embedding": "Parameters (embedding excluded)",
    "params_embedding": "Parameters (embedding alone)",
    "flops_6nd": "Training FLOPs (6 × parameters × tokens)",
    "flops_counted": "Training FLOPs (all matrix products)",
}
LOSS_TITLE = "Validation loss (nats per token)"


def loss_panels(evidence: Evidence) -> list[Panel]:
    """Validation loss while training, against tokens and compute, coloured by model size."""
    runs = [run for run in evidence.measured() if run.run_id in evidence.curves]
    runs = [run for run in runs if len(evidence.curves[run.run_id].loss) > 1]
    if not runs:
        return []
    scale = colour_scale("Parameters", [run.params for run in runs], write=count)
    final = [run.loss for run in runs]
    # The first evaluations, before anything is learnt, would press the rest together.
    low, high = min(final), max(final)
    y = linear_axis(LOSS_TITLE, low - 0.08 * (high - low) - 0.02, high + 0.7 * (high - low) + 0.1)
    panels = []
    for title, of_tokens in (("tokens seen", False), ("training compute", True)):
        series, seen = [], []
        for run in runs:
            curve = evidence.curves[run.run_id]
            each = run.flops / run.tokens if of_tokens else 1.0
            x = [each * tokens for tokens in curve.tokens]
            seen += [value for value, loss in zip(x, curve.loss, strict=True) if loss <= y.high]
            seen.append(each * run.tokens)
            shade, hover = run.params, _hover(run)
            series.append(Series(x=x, y=curve.loss, shade=shade, hover=[hover] * len(x)))
            series.append(
                Series(
                    x=[each * run.tokens],
                    y=[run.loss],
                    shape="points",
                    shade=shade,
                    small=True,
                    hover=[hover],
                )
            )
        name = AXIS_TITLES[evidence.convention["flops"]] if of_tokens else "Tokens seen"
        write = power if of_tokens else count
        if of_tokens and evidence.law:
            frontier = evidence.law["frontier"]
            series.append(
                Series(
                    x=frontier["flops"],
                    y=frontier["loss"],
                    role="predicted",
                    dashed=True,
                    label="Fitted compute-optimal loss",
                )
            )
        panels.append(
            Panel(
                title=f"Validation loss against {title}",
                x=log_axis(name, seen, write=write),
                y=y,
                series=series,
                scale=scale,
            )
        )
    return panels


def isoflop_panels(evidence: Evidence) -> list[Panel]:
    """Loss against size at each compute budget, the fitted parabolas and their minima."""
    runs = evidence.measured()
    budgets = evidence.law["isoflop"]["budgets"] if evidence.law else []
    # A run belongs to a budget within 10% of its own compute; the planned run belongs to none.
    groups = [[run for run in runs if abs(run.flops / b["flops"] - 1) <= 0.1] for b in budgets]
    drawn = [run for group in groups for run in group] if budgets else runs
    if not drawn:
        return []
    losses = [run.loss for run in drawn]
    flops = [b["flops"] for b in budgets] or [run.flops for run in runs]
    scale = colour_scale("Training FLOPs", flops, write=power)
    series = [
        Series(x=[run.params], y=[run.loss], shape="points", shade=run.flops, hover=[_hover(run)])
        for run in drawn
    ]
    x_axis = log_axis(
        AXIS_TITLES[evidence.convention["params"]],
        [run.params for run in drawn],
        write=count,
        room=0.24 if budgets else 0.06,
    )
    labelled: set[str] = set()
    unit = " FLOPs"
    for budget, group in zip(budgets, groups, strict=True):
        if budget.get("coefficients") is not None and group:
            x = np.geomspace(group[0].params, group[-1].params, 60)
            y = np.polynomial.polynomial.polyval(np.log(x), budget["coefficients"])
            losses += [float(y.max()), float(y.min())]
            tag, unit = power(budget["flops"]) + unit, ""
            series.insert(0, Series(x=x.tolist(), y=y.tolist(), shade=budget["flops"], tag=tag))
        if x_axis.low < (budget.get("params_opt") or 0) < x_axis.high:
            label = "Minimum" if budget["interior"] else "Minimum outside the tested sizes"
            size = f"{count(budget['params_opt'])} parameters"
            hover = f"{label}, {power(budget['flops'])} FLOPs<br>{size}"
            low, high = _pair(budget, "params_opt")
            series.append(
                Series(
                    x=[budget["params_opt"]],
                    y=[budget["loss_opt"]],
                    shape="points",
                    x_low=low,
                    x_high=high,
                    role="minimum",
                    hover=[hover],
                    marker="diamond" if budget["interior"] else "diamond-open",
                    label="" if label in labelled else label,
                )
            )
            labelled.add(label)
    return [
        Panel(
            title="Loss at equal compute",
            x=x_axis,
            y=loss_axis(LOSS_TITLE, losses),
            scale=scale,
            series=series,
        )
    ]


def frontier_panels(evidence: Evidence) -> list[Panel]:
    """The compute-optimal loss and size against compute, the runs, and the planned run."""
    if not evidence.law:
        return []
    runs = evidence.measured()
    frontier, bands = evidence.law["frontier"], evidence.law["frontier"].get("interval_90") or {}
    minima = [b for b in evidence.law["isoflop"]["budgets"] if b["interior"]]
    fitted = [float(r["flops"]) for r in evidence.law["diagnostics"].get("residuals") or []]
    beyond = max(fitted) if fitted else None
    verdict = evidence.verdict
    planned = {verdict["run_id"]} if verdict else set()
    runs = [run for run in runs if run.run_id not in planned]
    compute = AXIS_TITLES[evidence.convention["flops"]]

    def minimum_marks(field: str) -> list[Series]:
        if not minima:
            return []
        ends = [_pair(b, field) for b in minima]
        bounded = all(low and high for low, high in ends)
        return [
            Series(
                x=[b["flops"] for b in minima],
                y=[b[field] for b in minima],
                y_low=[low[0] for low, _ in ends if low] if bounded else None,
                y_high=[high[0] for _, high in ends if high] if bounded else None,
                shape="points",
                role="minimum",
                label="IsoFLOP minimum",
                marker="diamond",
            )
        ]

    def law_marks(field: str, label: str) -> list[Series]:
        x, y, band = frontier["flops"], frontier[field], bands.get(field)
        line = Series(x=x, y=y, role="predicted", label=label)
        if not band:
            return [line]
        lows, highs = [pair[0] for pair in band], [pair[1] for pair in band]
        return [
            Series(
                x=x,
                y=y,
                y_low=lows,
                y_high=highs,
                shape="band",
                role="predicted",
                label="90% interval",
            ),
            line,
        ]

    loss, size = law_marks("loss", "Fitted law"), law_marks("params", "Fitted law")
    if runs:
        loss.insert(
            1,
            Series(
                x=[run.flops for run in runs],
                y=[run.loss for run in runs],
                shape="points",
                role="muted",
                small=True,
                label="Grid runs",
                hover=[_hover(run) for run in runs],
            ),
        )
    loss += minimum_marks("loss_opt")
    size += minimum_marks("params_opt")
    for index, run in enumerate(_planned(evidence)):
        lows, highs = ([end] for end in run["loss"]["interval_90"])
        loss.append(
            Series(
                x=[run["flops"]],
                y=[run["loss"]["value"]],
                y_low=lows,
                y_high=highs,
                shape="points",
                role="predicted",
                marker="circle-open",
                label="" if index else "Predicted run (90%)",
            )
        )
        size.append(
            Series(
                x=[run["flops"]],
                y=[run["params"]],
                shape="points",
                role="predicted",
                marker="circle-open",
                label="" if index else "Planned run",
            )
        )
    if verdict:
        loss.append(
            Series(
                x=[verdict["flops"]],
                y=[verdict["measured"]],
                shape="points",
                role="measured",
                marker="star",
                label="Measured",
            )
        )
    panels = []
    for title, name, series in (
        ("Compute-optimal loss", LOSS_TITLE, loss),
        ("Compute-optimal size", AXIS_TITLES[evidence.convention["params"]], size),
    ):
        x = log_axis(compute, [value for s in series for value in s.x], write=power)
        values = [v for s in series for values in (s.y, s.y_low, s.y_high) for v in values or ()]
        y = loss_axis(name, values) if series is loss else log_axis(name, values, write=count)
        panels.append(Panel(title=title, x=x, y=y, series=series, beyond=beyond))
    return panels


def residual_panels(evidence: Evidence) -> list[Panel]:
    """Residuals of the fit in per cent of the loss, against size and against compute."""
    diagnostics = evidence.law["diagnostics"] if evidence.law else {}
    residuals = diagnostics.get("residuals") or []
    if not residuals:
        return []
    percent = [100 * (math.exp(r["residual"]) - 1) for r in residuals]
    reach = 1.15 * max(0.1, *(abs(value) for value in percent))
    spread = 100 * (diagnostics.get("residual_sd") or 0)
    reach = max(reach, 1.3 * spread)
    y = linear_axis("Residual (measured over fitted, %)", -reach, reach)
    titles = {field: AXIS_TITLES[evidence.convention[field]] for field in ("params", "flops")}
    write = {"params": count, "flops": power}
    panels = []
    for field, other in (("params", "flops"), ("flops", "params")):
        values = [float(r[field]) for r in residuals]
        x = log_axis(titles[field], values, write=write[field])
        shades = [float(r[other]) for r in residuals]
        hover = [
            f"{html.escape(str(r['run_id']))}<br>{count(r['params'])} parameters, "
            f"{power(r['flops'])} FLOPs<br>measured {r['loss']:.4f}, fitted {r['predicted']:.4f}"
            for r in residuals
        ]
        series = [
            Series(x=[x.low, x.high], y=[0, 0], role="ink"),
            Series(x=values, y=percent, shape="points", shade=shades, hover=hover),
        ]
        if spread:
            band = Series(
                x=[x.low, x.high],
                y=[0, 0],
                y_low=[-spread] * 2,
                y_high=[spread] * 2,
                shape="band",
                role="muted",
                label="One standard deviation",
            )
            series.insert(0, band)
        name = "Training FLOPs" if other == "flops" else "Parameters"
        against = "size" if field == "params" else "compute"
        trend = (diagnostics.get("trend") or {}).get(field) or {}
        note = f"trend: p = {trend['p_value']:.2g}" if trend.get("p_value") is not None else ""
        panels.append(
            Panel(
                title=f"Residuals against {against}",
                x=x,
                y=y,
                series=series,
                scale=colour_scale(name, shades, write=write[other]),
                notes=[note] if note else [],
            )
        )
    return panels


FIGURES: Mapping[str, Callable[[Evidence], list[Panel]]] = {
    "loss_curves": loss_panels,
    "isoflop": isoflop_panels,
    "frontier": frontier_panels,
    "residuals": residual_panels,
}


def _planned(evidence: Evidence) -> list[Mapping[str, Any]]:
    """The runs of the plan with their predicted losses; the optimum where no run was chosen."""
    if evidence.plan:
        optima = [
            {"flops": t["flops"], "params": t["params"]["value"], "loss": t["loss"]}
            for t in evidence.plan["targets"]
        ]
        targets = evidence.plan["targets"]
        return [t.get("run") or o for t, o in zip(targets, optima, strict=True)]
    if evidence.verdict:
        return [{**evidence.verdict, "loss": evidence.verdict["predicted"]}]
    return []


def _pair(budget: Mapping[str, Any], field: str) -> tuple[list[float] | None, list[float] | None]:
    interval = (budget.get("interval_90") or {}).get(field)
    return ([interval[0]], [interval[1]]) if interval else (None, None)


def _hover(run: Run) -> str:
    return (
        f"{html.escape(run.run_id)}<br>{count(run.params)} parameters, {count(run.tokens)} tokens"
        f"<br>{power(run.flops)} FLOPs, final loss {run.loss:.4f}"
    )
