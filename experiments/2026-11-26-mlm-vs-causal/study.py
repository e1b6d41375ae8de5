"""Which objective, causal or masked, scales how on the packaged text?

for seed in 0 1 2; do
  scaling sweep --config=configs/mlm_vs_causal.py --config.study.widths=32,40,48,56 \
    --config.study.budgets_flops=3.5e11,7e11,1.4e12 --config.seed=$seed --workdir=DIR/seed$seed
done
python experiments/2026-11-26-mlm-vs-causal/study.py collect DIR/seed*   # -> records.json
python experiments/2026-11-26-mlm-vs-causal/study.py table               # all that the README says
"""

import argparse
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from scaling.analysis import Law, fit, load
from scaling.files import write_json

HERE = Path(__file__).parent
OBJECTIVES = {"causal": "#1f77b4", "masked": "#d95f02"}
KEPT = ("run_id", "status", "objective", "loss", "loss_stderr", "bits_per_byte", "params_total",
        "tokens", "flops_6nd", "flops_counted", "seed", "parent", "branch_tokens", "learning_rate",
        "batch_tokens", "train_seconds", "tokens_per_second", "code_version")  # fmt: skip
RESAMPLES = 4000
SHOWN_WIDTH, POINTS_IN_ONE = 48, 4
"""The width whose training is drawn, and how many logged batches make a point of it."""
Row = Mapping[str, Any]
Array = NDArray[np.float64]


def collect(folders: Iterable[Path]) -> None:
    """What the table needs of every record, and how the trunks of one width trained."""
    records, curves = [], []
    for folder in folders:
        for path in sorted((folder / "records").glob("*.json")):
            record = json.loads(path.read_text(encoding="utf-8"))
            config = record["config"]
            width, rate = config["model"]["width"], config["objective"]["mask_rate"]
            context, budget = config["model"]["context_tokens"], config["budget"]["flops"]
            hidden = round(rate * context) / context
            records.append({key: record[key] for key in KEPT} | {
                "width": width, "budget_flops": budget,
                "targets_per_token": hidden if record["objective"] == "masked" else 1.0,
            })  # fmt: skip
        trunks = {r["parent"]: r for r in records if (folder / "trunks" / r["parent"]).exists()}
        for trunk, of in trunks.items():
            if of["width"] == SHOWN_WIDTH:
                tokens, losses = trained(folder / "trunks" / trunk / "metrics.jsonl")
                curves.append({"trunk": trunk, "objective": of["objective"],
                               "tokens": tokens, "train_loss": losses})  # fmt: skip
    write_json(HERE / "records.json", {"records": records, "curves": curves})


def trained(path: Path) -> tuple[list[float], list[float]]:
    """Tokens and training loss, each the mean of some logged batches."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    logged = [(line["tokens"], line["train/loss"]) for line in lines if "train/loss" in line]
    whole = np.array(logged[: len(logged) // POINTS_IN_ONE * POINTS_IN_ONE])
    tokens, losses = whole.reshape(-1, POINTS_IN_ONE, 2).mean(axis=1).T
    return tokens.tolist(), [round(loss, 4) for loss in losses.tolist()]


def law_of(rows: Sequence[Row], objective: str, intervals: str | None = None) -> Law:
    """Chinchilla's law of one objective; its resamples draw whole trunks, and are made with a seed
    of its own: those of two laws must not draw alike."""
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    runs = load(columns, columns={"series": "parent"}, objective=objective)
    return fit(runs, "chinchilla", bootstrap=RESAMPLES, intervals=intervals,
               seed=list(OBJECTIVES).index(objective))  # fmt: skip


def ends(drawn: Array, level: float = 0.9) -> tuple[float, float]:
    """The interval of a resampled number, of the resamples that have it."""
    low, high = np.nanquantile(drawn, (0.5 - level / 2, 0.5 + level / 2))
    return float(low), float(high)


def said(value: float, drawn: Array, form: str = ".3f", *, times: float = 1.0) -> str:
    """A number with its 90% interval."""
    low, high = ends(drawn)
    return f"{value * times:{form}} ({low * times:{form}} to {high * times:{form}})"


def size_exponent(law: Law, budgets: Array) -> tuple[float, Array]:
    """The exponent of the best size in compute, and that of every resample."""
    span = math.log(budgets[-1] / budgets[0])
    best, drawn = law.optimum(budgets).params, law.optimum_samples(budgets).params
    return math.log(best[-1] / best[0]) / span, np.log(drawn[:, -1] / drawn[:, 0]) / span


def cells(rows: Sequence[Row], objective: str) -> dict[tuple[int, float], list[float]]:
    """The losses of all seeds at every width and budget."""
    found: dict[tuple[int, float], list[float]] = defaultdict(list)
    for row in rows:
        if row["objective"] == objective:
            found[row["width"], row["budget_flops"]].append(row["loss"])
    return found


def deviation(groups: Iterable[Sequence[float]]) -> float:
    """Of log losses within groups, pooled."""
    left = [math.log(x) - statistics.fmean(map(math.log, each)) for each in groups for x in each]
    return math.sqrt(sum(x * x for x in left) / sum(len(each) - 1 for each in groups))


def show_runs(rows: Sequence[Row]) -> None:
    """What was trained, what a token costs, and how seeds differ."""
    print(f"{len(rows)} runs {({row['status'] for row in rows})}, code "
          f"{({row['code_version'] for row in rows})}, "
          f"{sum(row['train_seconds'] for row in rows):.0f} s of training, "
          f"{len({row['parent'] for row in rows})} trunks, rates "
          f"{({row['learning_rate'] for row in rows})}, batches "
          f"{({row['batch_tokens'] for row in rows})} tokens")  # fmt: skip
    widths, budgets = (sorted({r[key] for r in rows}) for key in ("width", "budget_flops"))
    for objective in OBJECTIVES:
        own = [row for row in rows if row["objective"] == objective]
        cost = {r["width"]: r["flops_counted"] / r["flops_6nd"] for r in own}
        per_token = {r["width"]: r["flops_6nd"] / r["tokens"] for r in own}
        targets, batch = own[0]["targets_per_token"], own[0]["batch_tokens"]
        without = sum(r["bits_per_byte"] is None for r in own)
        error = statistics.median(r["loss_stderr"] / r["loss"] for r in own)
        speed = statistics.median(r["tokens_per_second"] for r in own)
        print(f"\n{objective}: {targets:.3f} targets a token, {batch * targets:.0f} a batch; "
              f"{without} of {len(own)} without bits per byte; evaluation error {error:.2%}; "
              f"{speed:,.0f} tokens/s")  # fmt: skip
        print("  width: 6ND FLOPs a token, all matrix products over it: "
              + ", ".join(f"{w}: {per_token[w]:,.0f}, {cost[w]:.3f}" for w in widths))  # fmt: skip
        of = cells(rows, objective)
        print("| width | " + " | ".join(f"{b:.3g}" for b in budgets) + " |")
        for width in widths:
            each = (of[width, budget] for budget in budgets)
            shown = (f"{statistics.fmean(x):.3f} ± {statistics.stdev(x):.3f}" for x in each)
            print(f"| {width} | {' | '.join(shown)} |")
        by_budget = [deviation([of[w, budget] for w in widths]) for budget in budgets]
        print(f"between seeds {', '.join(f'{x:.2%}' for x in by_budget)} by budget, "
              f"{deviation(list(of.values())):.2%} in all")  # fmt: skip


def show_law(objective: str, law: Law, budgets: Array, targets: float) -> None:
    """What one law says, and all that it warns of."""
    print(f"\n{objective}: {law.n_runs} runs, residuals deviate by "
          f"{law.diagnostics['residual_sd']:.2%}; {law.bootstrap['method']}; "
          f"{law.diagnostics['identifiability']['verdict']}")  # fmt: skip
    for name in law.params:
        low, high = law.interval_95[name]
        print(f"  {name} {law.params[name]:.4g} (95%: {low:.4g} to {high:.4g})")
    print("  size exponent, law: " + said(*size_exponent(law, budgets)))
    assert law.isoflop is not None
    exponent = law.isoflop["params_exponent"]
    low, high = exponent["interval_90"]
    print(f"  size exponent, parabolas: {exponent['value']:.3f} ({low:.3f} to {high:.3f})")
    best, drawn = law.optimum(budgets), law.optimum_samples(budgets)
    ratio, ratios = best.tokens / best.params, drawn.tokens / drawn.params
    for i, (budget, curve) in enumerate(zip(budgets, law.isoflop["budgets"], strict=True)):
        ends_ = (curve.get("interval_90") or {}).get("params_opt")
        inside = f"({ends_[0]:,.0f} to {ends_[1]:,.0f})" if ends_ else "(beyond the sizes)"
        parabola = f"{curve['params_opt']:,.0f} {inside}, {curve['loss_opt']:.3f}"
        print(f"  {budget:.3g}: best size {said(best.params[i], drawn.params[:, i], ',.0f')}, "
              f"tokens per parameter {said(ratio[i], ratios[:, i], '.1f')}, "
              f"targets {said(ratio[i], ratios[:, i], '.1f', times=targets)}, "
              f"loss {said(best.loss[i], drawn.loss[:, i])}; by parabola {parabola}")  # fmt: skip
    for i in range(1, len(budgets)):
        now, drawn_now = (fall(x.loss[..., i - 1 : i + 1]) for x in (best, drawn))
        print(f"  from {budgets[i - 1]:.3g} to {budgets[i]:.3g} the best loss falls by "
              f"{said(now, drawn_now, '.1f', times=100)}%")  # fmt: skip
    print(f"  over all budgets by {said(fall(best.loss), fall(drawn.loss), '.1f', times=100)}%")
    for text in law.warnings:
        print(f"  warning: {text}")


def show_briefly(name: str, law: Law, budgets: Array) -> None:
    """What changes with the bootstrap or with the runs."""
    intervals = (f"{x} {law.params[x]:.3f} ({law.interval_95[x][0]:.3f} to "
                 f"{law.interval_95[x][1]:.3f})" for x in ("alpha", "beta"))  # fmt: skip
    best, drawn = law.optimum(budgets[-1]).params, law.optimum_samples(budgets[-1]).params
    print(f"  {name}: size exponent {said(*size_exponent(law, budgets))}, {', '.join(intervals)}, "
          f"best size at {budgets[-1]:.3g} {said(float(best), drawn, ',.0f')}")  # fmt: skip


def show_difference(laws: Mapping[str, Law], budgets: Array) -> None:
    """Masked against causal: their resamples are independent of each other."""
    causal, masked = (laws[objective] for objective in OBJECTIVES)
    one, other = (size_exponent(law, budgets) for law in (masked, causal))
    print(f"\nmasked against causal, by {causal.bootstrap['kind']}")
    print(f"  size exponent {said(one[0] - other[0], one[1] - other[1], '+.3f')}")
    for i, name in enumerate(causal.form.names):
        if name in ("alpha", "beta"):
            apart = masked.samples[:, i] - causal.samples[:, i]
            print(f"  {name} {said(masked.params[name] - causal.params[name], apart, '+.3f')}")
    times, drawn = (
        getattr(masked, name)(budgets).params / getattr(causal, name)(budgets).params
        for name in ("optimum", "optimum_samples")
    )
    for i, budget in enumerate(budgets):
        print(f"  {budget:.3g}: best size {said(times[i], drawn[:, i], '.2f')} times")
    further, drawn = (
        fall(getattr(masked, name)(budgets).loss) - fall(getattr(causal, name)(budgets).loss)
        for name in ("optimum", "optimum_samples")
    )
    print(f"  the best loss falls by {said(further, drawn, '.1f', times=100)} points more, "
          f"{budgets[0]:.3g} to {budgets[-1]:.3g}")  # fmt: skip


def fall(losses: Array) -> Any:
    """By what share the last loss is below the first."""
    return 1 - losses[..., -1] / losses[..., 0]


def table() -> None:
    """Print every number of the README, and draw its figure."""
    found = json.loads((HERE / "records.json").read_text(encoding="utf-8"))
    rows: list[Row] = found["records"]
    show_runs(rows)
    budgets = np.array(sorted({row["budget_flops"] for row in rows}))
    targets = {row["objective"]: row["targets_per_token"] for row in rows}
    laws = {objective: law_of(rows, objective) for objective in OBJECTIVES}
    for objective, law in laws.items():
        show_law(objective, law, budgets, targets[objective])
    show_difference(laws, budgets)
    others = {objective: law_of(rows, objective, "seeds") for objective in OBJECTIVES}
    show_difference(others, budgets)
    for objective, law in others.items():
        show_briefly(objective, law, budgets)
    print("\nwithout the least budget")
    late = [row for row in rows if row["budget_flops"] > budgets[0]]
    for objective in OBJECTIVES:
        show_briefly(objective, law_of(late, objective), budgets[1:])
    draw(rows, found["curves"], laws, budgets)


def draw(
    rows: Sequence[Row], curves: Sequence[Row], laws: Mapping[str, Law], budgets: Array
) -> None:
    """Both sets of losses with their laws, the best sizes, and how one width trained."""
    plt.rcParams.update({"font.size": 9, "svg.hashsalt": "mlm-vs-causal"})
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.6), layout="constrained")
    for axis, objective in zip(axes[0], OBJECTIVES, strict=True):
        draw_losses(axis, rows, objective, laws[objective], budgets)
    draw_sizes(axes[1, 0], laws, budgets)
    draw_training(axes[1, 1], curves)
    for letter, axis in zip("abcd", axes.flat, strict=True):
        axis.set_title(f"({letter}) {axis.get_title()}", loc="left", fontsize=9)
        axis.set_title("")
        axis.spines[["top", "right"]].set_visible(False)
    (HERE / "figures").mkdir(exist_ok=True)
    for ending in ("png", "svg"):
        figure.savefig(
            HERE / "figures" / f"objectives.{ending}",
            dpi=200,
            metadata={"Date": None} if ending == "svg" else None,
        )


def draw_losses(axis: Axes, rows: Sequence[Row], objective: str, law: Law, budgets: Array) -> None:
    """Every run against its size, and the law at each budget."""
    own = [row for row in rows if row["objective"] == objective]
    sizes = np.geomspace(3.7e4, 1.16e5, 100)
    for budget, shade in zip(budgets, (0.45, 0.7, 1.0), strict=True):
        at = [row for row in own if row["budget_flops"] == budget]
        axis.scatter(
            [row["params_total"] / 1e3 for row in at], [row["loss"] for row in at], s=16,
            color=OBJECTIVES[objective], alpha=shade, linewidth=0,
        )  # fmt: skip
        losses = law.predict(params=sizes, tokens=budget / 6 / sizes)
        axis.plot(sizes / 1e3, losses, color=OBJECTIVES[objective], alpha=shade, linewidth=1.1)
        axis.annotate(
            written(budget), (sizes[-1] / 1e3, losses[-1]), (4, 0), textcoords="offset points",
            va="center", fontsize=8, color=OBJECTIVES[objective],
        )  # fmt: skip
    axis.set_xscale("log")
    axis.set_xlim(right=1.45e2)
    plain_ticks(axis.xaxis, (40, 50, 60, 80, 100))
    per = "token" if objective == "causal" else "hidden token"
    axis.set(xlabel="parameters, thousands", ylabel=f"loss, nats per {per}")
    axis.set_title(f"{objective}: three seeds and their law, by FLOPs")


def draw_sizes(axis: Axes, laws: Mapping[str, Law], budgets: Array) -> None:
    """The best size against compute, by the law and by each budget's parabola."""
    flops = np.geomspace(budgets[0], budgets[-1], 40)
    for objective, law in laws.items():
        colour = OBJECTIVES[objective]
        curve = law.frontier(flops)
        low, high = curve.intervals["params"]
        axis.plot(flops, curve.params / 1e3, color=colour, label=f"{objective}, law")
        axis.fill_between(flops, low / 1e3, high / 1e3, color=colour, alpha=0.18, linewidth=0)
        assert law.isoflop is not None
        shift = 0.985 if objective == "causal" else 1.015
        for i, found in enumerate(law.isoflop["budgets"]):
            inside = (found.get("interval_90") or {}).get("params_opt")
            at, value = found["flops"] * shift, found["params_opt"] / 1e3
            if inside:
                axis.plot([at, at], [x / 1e3 for x in inside], color=colour, linewidth=1)
            axis.plot(
                at, value, marker="o", markersize=5, color=colour,
                markerfacecolor=colour if inside else "white", linestyle="none",
                label=f"{objective}, parabola" if i == 0 else None,
            )  # fmt: skip
    axis.plot([], [], "o", markersize=5, color="grey", markerfacecolor="white",
              label="parabola, beyond the sizes")  # fmt: skip
    axis.set(xscale="log", yscale="log")
    axis.set_xticks(budgets, [written(budget) for budget in budgets])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_ylim(38, 175)
    plain_ticks(axis.yaxis, (40, 60, 80, 100, 140))
    axis.set(xlabel="compute, FLOPs (6 × parameters × tokens)", ylabel="best size, thousands")
    axis.set_title("best size, 90% intervals")
    axis.legend(frameon=False, fontsize=8, loc="upper left")


def draw_training(axis: Axes, curves: Sequence[Row]) -> None:
    """The training loss of the trunks of one width."""
    seen = set()
    for curve in curves:
        objective = curve["objective"]
        axis.plot(
            [x / 1e6 for x in curve["tokens"]], curve["train_loss"], linewidth=1.1, alpha=0.8,
            color=OBJECTIVES[objective], label=None if objective in seen else objective,
        )  # fmt: skip
        seen.add(objective)
    axis.set(xlabel="tokens, millions", ylabel="training loss, nats per target")
    axis.set_title(f"training at width {SHOWN_WIDTH}, three seeds each")
    axis.legend(frameon=False, fontsize=8)


def written(flops: float) -> str:
    """FLOPs as they are printed."""
    mantissa, exponent = f"{flops:.1e}".split("e")
    return rf"${float(mantissa):g}\times10^{{{int(exponent)}}}$"


def plain_ticks(axis: Axis, ticks: Sequence[int]) -> None:
    """These ticks on a logarithmic axis, and no others."""
    axis.set_ticks(ticks, [str(tick) for tick in ticks])
    axis.set_minor_locator(NullLocator())


def main() -> None:
    """The verb."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=("collect", "table"))
    parser.add_argument("folders", type=Path, nargs="*")
    options = parser.parse_args()
    if options.verb == "collect":
        collect(options.folders)
    else:
        table()


if __name__ == "__main__":
    main()
