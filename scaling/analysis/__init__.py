"""Laws fitted to runs, in a few words:

    from scaling.analysis import fit, load, plot

    runs = load("runs.csv")                      # anybody's table; runs.warnings, runs.to_pandas()
    law = fit(runs, "chinchilla")                # LAWS holds all, each with equation and source
    law.predict(params=7e9, tokens=1.4e11)       # loss; law.predict_interval(...) of one more run
    law.optimum(5.76e23)                         # best params, tokens and loss at these FLOPs
    law.frontier([1e21, 1e22, 1e23])             # the same with tokens per parameter and intervals
    law.optimum_samples(5.76e23)                 # of every refit: quantiles are intervals
    plot(law)                                    # runs, frontier with its band, residuals

Counts are plain numbers of parameters, tokens and floating-point operations; a loss is in nats per
token unless the table says otherwise. Every function's docstring gives equation, units and source.
"""

from typing import TYPE_CHECKING, Any

# These two at once: a later import of the file fit.py would rebind the name `fit` to the module.
from scaling.analysis.fit import fit
from scaling.analysis.fitted import Law, Optimum
from scaling.analysis.rules import LAWS
from scaling.runs import Runs, load

if TYPE_CHECKING:
    from scaling.analysis.picture import plot

__all__ = ["LAWS", "Law", "Optimum", "Runs", "fit", "load", "plot"]


def __getattr__(name: str) -> Any:
    """`plot` when it is asked for: Matplotlib takes as long to import as all the rest."""
    if name == "plot":
        from scaling.analysis.picture import plot

        return plot
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
