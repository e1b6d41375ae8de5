"""Which law, and which runs: laws compared by what they say of larger runs they were not shown."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling.analysis.fitted import FitError
from scaling.analysis.forms import Array, Form
from scaling.analysis.frontier import interval
from scaling.analysis.holdout import Cut, Cuts, Tried, budgets_of, cuts_of, try_law, weights_of
from scaling.analysis.objective import check, check_count, form_of, problem_of
from scaling.analysis.rules import LOSS_LAWS
from scaling.analysis.solver import Problem
from scaling.records import BadTable
from scaling.runs import Dropped, Runs

MOST_ROWS = 1024
UNPROVEN = ("chinchilla_tied", "power_flops_floor", "power_flops")
"""What is taken where too few runs are there to hold any out: size and data with one exponent, as
published fits find them nearly equal; for runs of one shape a power law of compute."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Laws, what each said of larger runs that it was not shown, and which to take.

    `laws` and `subset` are those of `to_json`.
    """

    cuts: tuple[Cut, ...]
    laws: tuple[Mapping[str, Any], ...]
    subset: Mapping[str, Any]
    chosen: str
    why: str
    method: str
    n_runs: int

    def kept(self, runs: Runs) -> Runs:
        """The runs that the chosen law is to be fitted to; the others are named as dropped."""
        least = self.subset["from_flops"]
        if least is None:
            return runs
        keep = runs.flops >= least
        reason = f"under {least:.4g} FLOPs: {self.dropping}"
        out = tuple(Dropped(runs.run_id[i], reason) for i in np.flatnonzero(~keep))
        return dataclasses.replace(runs.where(keep), dropped=(*runs.dropped, *out))

    @property
    def warnings(self) -> list[str]:
        """What to know before the choice is believed."""
        if not self.cuts:
            return [f"{self.why}: train larger runs, and let them choose"]
        if self.subset["from_flops"] is None:
            return []
        return [
            f"{self.dropping}: they are left out, as they seem to lie before its power law begins"
        ]

    @property
    def dropping(self) -> str:
        """What leaving out the early runs does, in words."""
        before, after = self.subset["score_before"], self.subset["score_after"]
        return (
            f"without the {self.subset['runs_dropped']} smallest runs {self.chosen} is wrong about "
            f"larger runs by {after:.2%} instead of {before:.2%}"
        )

    def to_json(self) -> dict[str, Any]:
        """The `comparison` object of law.json.

        - cuts, the largest first: `flops` (the most compute trained on), `n_train`, `n_test`,
          `factor` (the largest compute over `flops`).
        - laws, best first: `law`; `parameters`, how many; `errors`, for each cut the `rms` and the
          `mean` of log loss less log predicted of what was held out, and `interval_90` of the rms;
          `by_factor`, the same of all cuts together by how many times the compute trained on a run
          has: `from`, `to`, `n`, `rms`, `mean`; `score`, `score_stderr`; `within`, whether it is
          within one standard error of the best; `converged`; `from_flops`, below which it leaves
          runs out, null for none; and `reason`, why the law was left out, null if it was not. A law
          that was left out has null for the rest.
        - subset, of the chosen law: `from_flops`, `runs_dropped`, `dropped_budgets` (compute of
          each, null where runs do not come in budgets), `score_before`, `score_after`.
        - `chosen`, and `why`, a sentence; `method`, how the standard errors came about; `n_runs`.

        Errors and scores are shares of the loss. Where nothing could be held out, `cuts` is empty,
        and so is `laws`.
        """
        return {
            "cuts": [cut._asdict() for cut in self.cuts],
            "laws": [dict(entry) for entry in self.laws],
            "subset": dict(self.subset),
            "chosen": self.chosen,
            "why": self.why,
            "method": self.method,
            "n_runs": self.n_runs,
        }


def compare(
    runs: Runs,
    laws: Sequence[str] | None = None,
    *,
    cuts: Sequence[float] | None = None,
    delta: float | None = None,
    asymmetry: float = 1.0,
    samples: int = 200,
    seed: int = 0,
) -> Comparison:
    """Fit each law to the runs of less compute, and see how wrong it is about those of more.

    Cuts: runs that come in budgets are cut below the largest one, two, three and four of them;
    others at 1/2, 1/4, 1/8, ... of the largest compute, the first four that differ. Every cut must
    leave ten runs, of two budgets, to fit, and three to judge by. `cuts` gives others: the most
    compute to train on. `laws` None takes every law of the loss whose inputs are there, and are
    told apart by the runs of each cut, of which there must be more than it has parameters. Each is
    fitted as `fit` would fit it. Of more than 1,024 runs so many are taken, evenly in order of
    compute.

    Score: the geometric mean over the cuts of the root mean square of log loss less log predicted,
    so that each cut counts alike, whatever the size of its error. Standard errors come from
    `samples` resamples (`scaling.analysis.holdout.weights_of`), under which each law is fitted and
    judged anew. All laws see the same ones, so that the difference between two laws has a standard
    error of its own, without what moves both.

    Early runs may lie before the power law begins: each law is also tried without the smallest one
    to four budgets (or the smallest runs up to 1/8, 1/4, 3/8 and 1/2 of the logarithm of compute
    that the last cut spans), at those cuts that can spare them. The best of these is taken where it
    lowers the score by more than two standard errors.

    Choice: of the laws within one standard error of the best, those that have a floor and are of
    more than one input, if any, and of them the one with the fewest parameters (the rule of Breiman
    et al. 1984, section 3.4.3); of several, the one with the least score. A law on
    whose best fit no two starts agree is not chosen.

    Where there are too few runs to hold any out, `chosen` is Chinchilla's law with one exponent, or
    a power law of compute where size and data cannot be told apart.

    Raises:
      FitError: an unknown law, or one that is not of the loss; a cut that leaves nothing to fit or
        to judge by; no law that can be fitted.
    """
    forms = _forms(laws)
    runs = _thinned(runs)
    plan = cuts_of(runs, cuts)
    if not plan.cuts:
        return _unproven(runs, UNPROVEN if laws is None else laws)
    weights = weights_of(runs, samples, seed)
    of = "series of checkpoints" if len(set(runs.series or ())) not in (0, len(runs)) else "runs"
    tried: dict[str, Tried] = {}
    reasons: dict[str, str] = {}
    for form in forms:
        try:
            problem = _problem(runs, form, plan)
        except (FitError, BadTable) as error:
            reasons[form.name] = str(error)
        else:
            tried[form.name] = try_law(problem, plan, weights, delta=delta, asymmetry=asymmetry)
    if not tried:
        causes = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise FitError(f"none of the laws can be fitted to these runs: {causes}")
    return _choose(
        runs, plan, tried, reasons, f"{samples} Bayesian bootstraps of {of}, the same for every law"
    )


def _forms(laws: Sequence[str] | None) -> list[Form]:
    if laws is None:
        return list(LOSS_LAWS)
    forms = [form_of(law) for law in dict.fromkeys(laws)]
    for form in forms:
        if form.target != "loss":
            raise FitError(
                f"{form.name} predicts {form.target}; only laws of the loss are compared: "
                f"{', '.join(form.name for form in LOSS_LAWS)}"
            )
    return forms


def _thinned(runs: Runs) -> Runs:
    if len(runs) <= MOST_ROWS:
        return runs
    keep = np.zeros(len(runs), bool)
    order = np.argsort(runs.flops, kind="stable")
    keep[order[np.linspace(0, len(runs) - 1, MOST_ROWS).astype(int)]] = True
    return runs.where(keep)


def _problem(runs: Runs, form: Form, plan: Cuts) -> Problem:
    """The law at the runs, where those of every cut can determine it."""
    missing = [name for name in form.inputs if not _has(runs, name)]
    if missing:
        raise BadTable(f"no column {', '.join(missing)}")
    problem = problem_of(runs, form)
    check(runs, problem)
    fewest = runs.where(plan.train[0, -1])
    try:
        check_count(fewest, form, len(form.names))
        check(fewest, problem_of(fewest, form))
    except FitError as error:
        raise FitError(f"below the cut at {plan.cuts[-1].flops:.3g} FLOPs, {error}") from error
    return problem


def _has(runs: Runs, name: str) -> bool:
    try:
        runs.column(name)
    except BadTable:
        return False
    return True


def _unproven(runs: Runs, laws: Sequence[str]) -> Comparison:
    """Where nothing can be held out: the first law that the runs can determine."""
    causes = []
    for law in laws:
        form = form_of(law)
        try:
            check_count(runs, form, len(form.names))
            check(runs, problem_of(runs, form))
        except (FitError, BadTable) as error:
            causes.append(f"{law}: {error}")
            continue
        why = (
            f"{len(runs)} runs are too few, or lie too close in compute, to hold any out: "
            f"{law} is taken unproven"
        )
        nothing = dict.fromkeys(("from_flops", "dropped_budgets", "score_before", "score_after"))
        return Comparison(
            cuts=(), laws=(), subset=nothing | {"runs_dropped": 0}, chosen=law, why=why,
            method="nothing was held out", n_runs=len(runs),
        )  # fmt: skip
    raise FitError(f"none of the laws can be fitted to these runs: {'; '.join(causes)}")


def _choose(
    runs: Runs, plan: Cuts, tried: Mapping[str, Tried], reasons: Mapping[str, str], method: str
) -> Comparison:
    sound = {law: one.taken for law, one in tried.items() if one.taken.converged}
    sound = sound or {law: one.taken for law, one in tried.items()}
    best = min(sound, key=lambda law: sound[law].log_score)

    def behind(law: str) -> tuple[float, float]:
        """By how much, in logs, a law's score is above the best, and the error of that."""
        trial, least = tried[law].taken, sound[best]
        error = float(np.std(trial.log_scores - least.log_scores, ddof=1))
        return trial.log_score - least.log_score, error

    near = [law for law in sound if behind(law)[0] <= behind(law)[1]]
    # A loss has a floor, and compute alone does not tell size from data: a law without either has
    # to be better, not merely as good.
    whole = [law for law in near if _whole(law)]
    chosen = min(whole or near, key=lambda law: (_size(law), sound[law].log_score))
    passed_over = any(_size(law) < _size(chosen) for law in near)
    entries = [_entry(runs, plan, law, one) | {"within": law in near} for law, one in tried.items()]
    entries.sort(key=lambda entry: entry["score"])
    nothing = dict.fromkeys(entries[0])
    for law, reason in reasons.items():
        entries.append(nothing | {"law": law, "parameters": _size(law), "reason": reason})
    return Comparison(
        cuts=plan.cuts,
        laws=tuple(entries),
        subset=_subset(runs, plan, tried[chosen]),
        chosen=chosen,
        why=_why(
            chosen,
            best,
            sound[chosen].log_score,
            sound[best].log_score,
            among=" that has a floor and tells size from data" if passed_over else "",
            unproven=sorted(
                law
                for law, one in tried.items()
                if law not in sound and one.taken.log_score < sound[best].log_score
            ),
        ),
        method=method,
        n_runs=len(runs),
    )


def _size(law: str) -> int:
    return len(form_of(law).names)


def _whole(law: str) -> bool:
    """Whether a law has a floor, and is of more than one thing."""
    form = form_of(law)
    return len(form.inputs) > 1 and any(p.unit == "nats per token" for p in form.parameters)


def _why(
    chosen: str, best: str, score: float, least: float, *, among: str, unproven: Sequence[str]
) -> str:
    found = f"{chosen} ({_size(chosen)} parameters)"
    aside = (
        f" ({', '.join(unproven)} scored better, on fits that no two starts agree on)"
        if unproven else ""
    )  # fmt: skip
    if chosen == best:
        return (
            f"{found} is the least wrong about larger runs, by {math.exp(score):.2%} of the loss, "
            f"and no law{among} of fewer parameters comes within a standard error of it{aside}"
        )
    return (
        f"{found}, wrong about larger runs by {math.exp(score):.2%} of the loss, is the simplest "
        f"law{among} within a standard error of {best} ({_size(best)} parameters, "
        f"{math.exp(least):.2%}){aside}"
    )


def _entry(runs: Runs, plan: Cuts, law: str, one: Tried) -> dict[str, Any]:
    trial = one.taken
    errors = [
        {
            "rms": math.exp(trial.log_rms[cut]),
            "mean": float(trial.residuals[cut][plan.test[cut]].mean()),
            "interval_90": interval(np.exp(trial.resampled[:, cut])),
        }
        for cut in range(len(plan.cuts))
    ]
    score = math.exp(trial.log_score)
    return {
        "law": law,
        "parameters": _size(law),
        "errors": errors,
        "by_factor": _by_factor(runs, plan, trial.residuals),
        "score": score,
        "score_stderr": score * float(np.std(trial.log_scores, ddof=1)),
        "converged": trial.converged,
        "from_flops": plan.early[trial.way - 1] if trial.way else None,
        "reason": None,
    }


def _by_factor(runs: Runs, plan: Cuts, residuals: Array) -> list[dict[str, Any]]:
    """Errors by how many times the compute trained on a run has, in steps of two."""
    trained = np.array([cut.flops for cut in plan.cuts])
    steps = np.floor(np.log2(runs.flops[None] / trained[:, None]) + 1e-9).astype(int)
    found = []
    for step in np.unique(steps[plan.test]):
        left = residuals[plan.test & (steps == step)]
        found.append(
            {
                "from": float(2.0**step),
                "to": float(2.0 ** (step + 1)),
                "n": int(left.size),
                "rms": float(np.sqrt(np.mean(left**2))),
                "mean": float(left.mean()),
            }
        )
    return found


def _subset(runs: Runs, plan: Cuts, one: Tried) -> dict[str, Any]:
    least = plan.early[one.taken.way - 1] if one.taken.way else None
    steps = budgets_of(runs)
    left = runs.flops < (0.0 if least is None else least)
    return {
        "from_flops": least,
        "runs_dropped": int(left.sum()),
        "dropped_budgets": None if steps is None else [
            float(low) for low, high in steps if least is not None and high < least
        ],
        "score_before": math.exp(one.whole.log_score),
        "score_after": math.exp(one.taken.log_score),
    }  # fmt: skip
