"""The exhibits of a study: what each figure shows, said once for paper and browser alike."""

from collections.abc import Callable
from dataclasses import dataclass

from scaling.analysis.evidence import Evidence
from scaling.analysis.report.exhibits import (
    approaches,
    comparison,
    curves,
    frontier,
    isoflop,
    marks,
    plans,
    profiles,
    residuals,
)
from scaling.analysis.report.panels import Panel


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """A figure of the report: its panels, how to read them, and why there may be none.

    The title is for a figure that has no section of its own.
    """

    title: str = ""
    panels: Callable[[Evidence], list[Panel]]
    caption: str
    absent: Callable[[Evidence], str]


EXHIBITS = {
    "plan": Exhibit(
        panels=plans.panels,
        caption="Twice of each against the run as planned, and the runs that would make its "
        "prediction surest for what they cost.",
        absent=plans.absent,
    ),
    "frontier": Exhibit(
        panels=frontier.panels,
        caption="The fitted law at its compute-optimal sizes, with the 90% interval from the "
        "bootstrap. The grey region lies beyond the compute of the runs that were fitted.",
        absent=frontier.absent,
    ),
    "approaches": Exhibit(
        title="Approaches 1, 2 and 3",
        panels=approaches.panels,
        caption="Three ways from the same runs to the optimal size: 1 along training curves (along "
        "the ends of the runs where the table has no checkpoints), 2 across sizes at one compute, "
        "3 by the law. Where their intervals have no value in common, one of them reads the runs "
        "wrongly.",
        absent=approaches.absent,
    ),
    "loss_curves": Exhibit(
        panels=curves.panels,
        caption="Each dot is a run's final loss, each line its way there, where that was kept; the "
        "first evaluations are cut off (double-click shows them). The final loss may be taken on "
        "more validation text than the evaluations before it, which shows as a step. The envelope "
        "is the falling part of the lower convex hull of all points: no run lies below it.",
        absent=marks.no_runs,
    ),
    "isoflop": Exhibit(
        panels=isoflop.panels,
        caption="Each curve is one compute budget: a parabola in the logarithm of the size, fitted "
        "to its runs. Diamonds mark the minima (with their 90% intervals where there are few); a "
        "hollow one lies outside the tested sizes and is no evidence of an optimum.",
        absent=isoflop.absent,
    ),
    "fit": Exhibit(
        title="Fit",
        panels=residuals.fit_panels,
        caption="What was measured, and what the law says.",
        absent=lambda evidence: "",
    ),
    "profiles": Exhibit(
        title="Profiles of the parameters",
        panels=profiles.panels,
        caption="How the objective rises as one parameter is held away from its best value and the "
        "others follow. Where the curve crosses the dashed line ends the 95% interval. A valley "
        "that never does is not identified on that side: the runs allow any value there. A "
        "coefficient is that of its whole term at the middle of the runs, in units of the target.",
        absent=profiles.absent,
    ),
    "comparison": Exhibit(
        panels=comparison.panels,
        caption="Each law was fitted without the largest compute and asked for it. Further right, "
        "the runs left out lie further beyond those that were fitted.",
        absent=comparison.absent,
    ),
    "residuals": Exhibit(
        title="Residuals",
        panels=residuals.panels,
        caption="What the law leaves unexplained, as measured over predicted. A trend in size or "
        "in compute says that the law does not hold over this range.",
        absent=residuals.absent,
    ),
}
