"""The compute-optimal frontier: by a law (Approach 3), by IsoFLOP parabolas (Approach 2)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling.analysis.fitted import Law
from scaling.runs import Runs

Array = NDArray[np.float64]

# Runs whose compute differs by less than this factor share a budget: integer widths and whole
# batches spread a budget by a few per cent, and neighbouring budgets stand 1.5 or more apart.
SAME_BUDGET = 1.1


def frontier(law: Law) -> dict[str, Any] | None:
    """The `frontier` object of law.json, `Law.frontier` in plain numbers: columns flops, params,
    tokens, loss and `interval_90` of all but the first and of tokens_per_parameter; None where the
    law has no optimum at some budget, or fewer than two of its refits have one."""
    curve = law.frontier()
    if np.isnan(curve.loss).any() or np.isnan(curve.intervals["loss"].low).any():
        return None
    columns = ("flops", "params", "tokens", "loss")
    return {name: getattr(curve, name).tolist() for name in columns} | {
        "interval_90": {
            name: np.stack(ends, axis=-1).tolist() for name, ends in curve.intervals.items()
        }
    }


def interval(drawn: Array, *, level: float = 0.9) -> Any:
    """Equal-tailed interval over the first axis: [samples] -> [low, high], [samples, n] -> n.

    Of the samples that are finite (a law may have no optimum in some); None where none is.
    """
    tails = (0.5 - level / 2, 0.5 + level / 2)
    drawn = drawn[np.isfinite(drawn).reshape(len(drawn), -1).all(axis=1)]
    if not len(drawn):
        return None
    return np.moveaxis(np.quantile(drawn, tails, axis=0), 0, -1).tolist()


def budgets(runs: Runs) -> list[NDArray[np.intp]]:
    """Indices of the runs of each budget, smallest budget first; see `SAME_BUDGET`."""
    order = np.argsort(runs.flops, kind="stable")
    groups: list[list[int]] = []
    for index in order.tolist():
        if groups and runs.flops[index] <= SAME_BUDGET * runs.flops[groups[-1][0]]:
            groups[-1].append(index)
        else:
            groups.append([index])
    return [np.array(group, dtype=np.intp) for group in groups]


def isoflop(runs: Runs, *, draws: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Fit loss = c0 + c1 x + c2 x^2, x = log params, to each budget and find the minima.

    Hoffmann et al. 2022, section 3.2. A minimum is `interior` when the parabola opens upwards and
    its lowest point lies strictly between the smallest and the largest size tested. Budgets with
    fewer than three sizes are left out. Intervals come from `draws` of the coefficients: normal,
    with the residual variance pooled over the budgets and itself drawn (scaled inverse chi-square),
    each draw's minimum taken within the tested sizes; they are null where the minimum is not
    interior, or where no run is left to estimate the noise.

    Returns:
      The `isoflop` object of law.json. `params_exponent` is the slope of log params_opt over log
      flops through the interior minima, null if there are fewer than two.
    """
    groups = [group for group in budgets(runs) if np.unique(runs.params[group]).size >= 3]
    fits = [_Parabola(np.log(runs.params[group]), runs.loss[group]) for group in groups]
    freedom = sum(fit.x.size - 3 for fit in fits)
    rng = np.random.default_rng(seed)
    noise = np.zeros(draws)
    if freedom:
        squares = sum(float(fit.residuals @ fit.residuals) for fit in fits)
        noise = np.sqrt(squares / rng.chisquare(freedom, draws))

    found: list[dict[str, Any]] = []
    logs: list[
        tuple[float, float, Array]
    ] = []  # of each interior minimum: log flops, log params, draws
    for group, fit in zip(groups, fits, strict=True):
        flops = float(np.exp(np.log(runs.flops[group]).mean()))
        minimum = fit.minimum
        x_drawn, loss_drawn = fit.draw(noise, rng)
        entry: dict[str, Any] = {
            "flops": flops,
            "n_runs": len(group),
            "interior": fit.interior,
            "params_opt": None if minimum is None else float(np.exp(minimum)),
            "tokens_opt": None if minimum is None else float(flops / 6 / np.exp(minimum)),
            "loss_opt": None if minimum is None else fit.at(minimum),
            "interval_90": None,
            "coefficients": fit.coefficients,
        }
        if minimum is not None and fit.interior:
            logs.append((float(np.log(flops)), minimum, x_drawn))
            if freedom:
                entry["interval_90"] = {
                    "params_opt": interval(np.exp(x_drawn)),
                    "loss_opt": interval(loss_drawn),
                }
        found.append(entry)
    return {"budgets": found, "params_exponent": _exponent(logs, known_noise=freedom > 0)}


def _exponent(
    logs: list[tuple[float, float, Array]], *, known_noise: bool
) -> dict[str, Any] | None:
    if len(logs) < 2:
        return None
    log_flops = np.array([entry[0] for entry in logs])
    weights = (log_flops - log_flops.mean()) / ((log_flops - log_flops.mean()) ** 2).sum()
    value = float(weights @ np.array([entry[1] for entry in logs]))
    drawn = weights @ np.stack([entry[2] for entry in logs])
    found: dict[str, Any] = {"value": value}
    for level in (0.9, 0.95):
        key = f"interval_{100 * level:.0f}"
        found[key] = interval(drawn, level=level) if known_noise else None
    return found


class _Parabola:
    """Least squares in x - mean(x), where the three columns are far from collinear."""

    def __init__(self, x: Array, loss: Array) -> None:
        self.x = x
        self.middle = float(x.mean())
        design = np.vander(x - self.middle, 3, increasing=True)
        self.centred = np.linalg.lstsq(design, loss, rcond=None)[0]
        self.residuals = loss - design @ self.centred
        self.root = np.linalg.cholesky(np.linalg.inv(design.T @ design))

    @property
    def coefficients(self) -> list[float]:
        """c0, c1, c2 of c0 + c1 x + c2 x^2."""
        c0, c1, c2 = self.centred.tolist()
        m = self.middle
        return [c0 - c1 * m + c2 * m * m, c1 - 2 * c2 * m, c2]

    @property
    def minimum(self) -> float | None:
        """The lowest point in x, None when the parabola does not open upwards."""
        _, c1, c2 = self.centred.tolist()
        return self.middle - c1 / (2 * c2) if c2 > 0 else None

    @property
    def interior(self) -> bool:
        return self.minimum is not None and bool(self.x.min() < self.minimum < self.x.max())

    def at(self, x: float) -> float:
        return float(np.polynomial.polynomial.polyval(x - self.middle, self.centred))

    def draw(self, noise: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """Drawn minima within the tested sizes and the losses there, one per entry of `noise`."""
        c = self.centred + noise[:, None] * (rng.standard_normal((noise.size, 3)) @ self.root.T)
        low, high = self.x.min() - self.middle, self.x.max() - self.middle
        inside = np.clip(-c[:, 1] / (2 * np.where(c[:, 2] > 0, c[:, 2], 1.0)), low, high)
        edge = np.where(c[:, 1] * (high - low) + c[:, 2] * (high**2 - low**2) < 0, high, low)
        x = np.where(c[:, 2] > 0, inside, edge)
        return x + self.middle, c[:, 0] + c[:, 1] * x + c[:, 2] * x**2
