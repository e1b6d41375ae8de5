"""A fitted law in one picture: its runs at equal compute, the frontier, the residuals."""

import functools

from matplotlib.figure import Figure

from scaling.analysis.evidence import Evidence
from scaling.analysis.fitted import Law
from scaling.analysis.report.exhibits import EXHIBITS
from scaling.analysis.report.figures import paper, save

SHOWN = ("isoflop", "frontier", "fit", "residuals")
MOST = 6
"""Two rows of three."""


def plot(law: Law) -> Figure:
    """The law's figures of the report in one: loss against size at equal compute, the
    compute-optimal loss, size and tokens per parameter with 90% bands, residuals in per cent.

    A law of something else than the loss has its curve through the runs in place of the first. A
    notebook shows what is returned; `figure.savefig("law.pdf")` writes it.
    """
    evidence = Evidence(law=law.to_json())
    panels = [panel for name in SHOWN for panel in EXHIBITS[name].panels(evidence)]
    figure = paper(panels[:MOST])
    # Notebooks know figures of pyplot alone, which would keep every one of them in memory.
    setattr(figure, "_repr_png_", functools.partial(save, figure, "png"))  # noqa: B010
    return figure
