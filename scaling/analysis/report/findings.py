"""What a study comes to in words: the headline, and everything that warns."""

import contextlib
import datetime
from collections.abc import Mapping

from scaling.analysis.evidence import Evidence
from scaling.analysis.report.exhibits.comparison import compared
from scaling.analysis.report.panels import count, percent, power
from scaling.analysis.report.tables.laws import AGREED


def headline(evidence: Evidence) -> str:
    """One paragraph: what was predicted, what was measured, and whether the interval held it."""
    law, plan, verdict = evidence.law, evidence.plan, evidence.verdict
    good = sum(record.status == "ok" for record in evidence.records)
    if verdict:
        predicted, error = verdict["predicted"], verdict["relative_error"]
        low, high = predicted["interval_90"]
        held = "held" if verdict["inside_interval"] else "did not hold"
        side = "above" if error > 0 else "below"
        return (
            f"Predicted {predicted['value']:.3f} {evidence.unit}, "
            f"measured {verdict['measured']:.3f}, "
            f"for a run of {power(verdict['flops'])} FLOPs{_reach(evidence)}. "
            f"The 90% interval, {low:.3f} to {high:.3f}, {held} the measured loss; "
            f"the prediction was {abs(100 * error):.2f}% {side} the measurement."
        )
    if plan and plan["targets"]:
        target = plan["targets"][0]
        loss = (target.get("run") or target)["loss"]
        low, high = loss["interval_90"]
        return (
            f"Predicted {loss['value']:.3f} {evidence.unit} (90% interval {low:.3f} to {high:.3f}) "
            f"for a run of {power(target['flops'])} FLOPs that has not been trained yet."
        )
    if law:
        return f"{law['equation']} fitted to {law['n_runs']} runs; no larger run is planned yet."
    return f"{good} of {len(evidence.records)} runs have ended well; no law is fitted yet."


def warnings(evidence: Evidence) -> list[str]:
    """All that the files, the fit and the plan warn of."""
    law, plan = evidence.law, evidence.plan
    found = list(evidence.problems)
    found += [str(text) for text in (law["diagnostics"].get("warnings") or [] if law else [])]
    for target in plan["targets"] if plan else []:
        found += [str(text) for text in target.get("warnings") or []]
    found += [str(text) for text in ((plan or {}).get("next_runs") or {}).get("warnings") or []]
    found += _unproven(evidence)
    return list(dict.fromkeys([*found, *_late(evidence)]))


def choice(evidence: Evidence) -> str:
    """Which law was chosen of those compared, why, and which runs were left out for it."""
    comparison = compared(evidence)
    if not comparison:
        return ""
    subset = comparison.get("subset") or {}
    said = [f"Chosen: {comparison.get('chosen')}.", _sentence(comparison.get("why"))]
    if subset.get("from_flops"):
        said.append(
            f"It is fitted from {power(subset['from_flops'])} FLOPs on, without "
            f"{subset.get('runs_dropped')} earlier runs: the error on the runs left out falls from "
            f"{percent(100 * subset['score_before'])} to {percent(100 * subset['score_after'])}."
        )
    return " ".join(text for text in said if text)


def promise(evidence: Evidence) -> str:
    """What the next runs are expected to do for the prediction."""
    chosen = (evidence.plan or {}).get("next_runs") or {}
    if not (chosen.get("now") and chosen.get("expected")):
        return ""
    (low, high), (lower, upper) = (chosen[when]["interval_90"] for when in ("now", "expected"))
    return (
        f"With these runs the 90% interval of the prediction at "
        f"{count(chosen['target']['params'])} parameters and {count(chosen['target']['tokens'])} "
        f"tokens, now {low:.4f} to {high:.4f}, is expected to be as narrow as {lower:.4f} to "
        f"{upper:.4f}. (It is that of the law; one run has noise of its own besides, which the "
        "interval of a planned run includes.)"
    )


def assumptions(evidence: Evidence) -> list[str]:
    """What the plan takes for granted, and where its rates and batches come from."""
    plan = evidence.plan or {}
    found = [str(text) for text in plan.get("assumptions") or []]
    for target in plan.get("targets") or []:
        rate = (target.get("run") or target).get("learning_rate")
        for name, source in (
            ("the learning rate", rate.get("source") if isinstance(rate, Mapping) else None),
            ("the batch", target.get("batch_source")),
        ):
            found += [f"{name} is from {source}"] if source else []
    return list(dict.fromkeys(found))


def commands(evidence: Evidence) -> list[str]:
    """What trains each planned run."""
    found = []
    for target in (evidence.plan or {}).get("targets") or []:
        words = [f"--config.{key}={value}" for key, value in (target["overrides"] or {}).items()]
        found += [f"scaling train --config=CONFIG {' '.join(words)} --workdir=DIR"] if words else []
    return found


def _unproven(evidence: Evidence) -> list[str]:
    """That the fit may not be the best one, where its own proof says so."""
    found = evidence.law["diagnostics"] if evidence.law else {}
    if found.get("share_best") != 0 or (found.get("polish_gain") or 0) < AGREED:
        return []
    return [
        f"none of {found.get('starts')} starts ended at this fit: a second solver went "
        f"{percent(100 * found['polish_gain'])} below the best of them, and there may be better "
        "ones; read no parameter by itself, or fit a law with fewer"
    ]


def _sentence(text: object) -> str:
    words = str(text or "").strip()
    return words and words[0].upper() + words[1:].rstrip(".") + "."


def _reach(evidence: Evidence) -> str:
    fitted = [row["flops"] for row in evidence.fitted if row.get("flops")]
    if not fitted or not evidence.verdict:
        return ""
    return f", {evidence.verdict['flops'] / max(fitted):.1f} times the largest that was fitted"


def _late(evidence: Evidence) -> list[str]:
    plan, verdict = evidence.plan, evidence.verdict
    runs = {record.run_id: record for record in evidence.records}
    if not (plan and verdict and verdict["run_id"] in runs):
        return []
    ended = runs[verdict["run_id"]].created
    planned, ran = _moment(plan.get("created")), _moment(ended)
    if not (planned and ran and planned > ran):
        return []
    return [
        f"plan.json was written at {plan['created']}, after the planned run ended ({ended}): what "
        "it holds is not a prediction"
    ]


def _moment(text: object) -> datetime.datetime | None:
    """A time from ISO 8601, taken as UTC where it names no zone; nothing where it is not one."""
    with contextlib.suppress(TypeError, ValueError):
        moment = datetime.datetime.fromisoformat(text)  # type: ignore[arg-type]
        return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    return None
