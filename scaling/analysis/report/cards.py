"""The few numbers at the head of the page."""

from typing import NamedTuple

from scaling.analysis.evidence import Evidence
from scaling.analysis.report.panels import count, percent, power
from scaling.analysis.report.tables import signed_percent


class Card(NamedTuple):
    """A number with its name and a note, whose tone may be "good" or "bad"."""

    name: str
    value: str
    note: str
    tone: str = ""


def cards(evidence: Evidence) -> list[Card]:
    """The prediction and how it held, or else the law; and the runs."""
    cards = [*_of_verdict(evidence), *_of_law(evidence)]
    if evidence.records:
        good = [record for record in evidence.records if record.status == "ok"]
        seconds = sum(record.wall_seconds or 0 for record in evidence.records)
        note = f"{len(good)} ended well; {seconds / 60:.1f} minutes in all"
        cards.append(Card("Runs", str(len(evidence.records)), note))
    return cards


def _of_verdict(evidence: Evidence) -> list[Card]:
    verdict = evidence.verdict
    if not verdict:
        return []
    low, high = verdict["predicted"]["interval_90"]
    held = verdict["inside_interval"]
    cards = [
        Card(
            "Predicted loss",
            f"{verdict['predicted']['value']:.3f}",
            f"90%: {low:.3f} to {high:.3f}",
        ),
        Card(
            "Measured loss",
            f"{verdict['measured']:.3f}",
            "inside the interval" if held else "outside the interval",
            tone="good" if held else "bad",
        ),
        Card(
            "Prediction error",
            signed_percent(verdict["relative_error"]),
            "predicted over measured",
        ),
    ]
    best = verdict.get("optimal_params")
    if best:
        low, high = best["interval_90"]
        note = f"90%: {count(low)} to {count(high)}; trained: {count(verdict['params'])}"
        name = f"Optimal size at {power(verdict['flops'])} FLOPs"
        cards.append(Card(name, count(best["value"]), note))
    return cards


def _of_law(evidence: Evidence) -> list[Card]:
    law = evidence.law
    if not law or evidence.verdict:
        return []
    diagnostics = law["diagnostics"]
    known = diagnostics.get("identifiability") or {}
    open_ended = known.get("not_identified") or []
    spread = diagnostics.get("residual_sd")
    cards = [Card("Law", str(law["law"]), f"fitted to {law['n_runs']} runs")]
    if spread is not None and evidence.of_logs:
        cards.append(Card("Spread of the residuals", percent(100 * spread), "standard deviation"))
    if known:
        cards.append(
            Card(
                "Parameters determined",
                f"{len(law['params']) - len(open_ended)} of {len(law['params'])}",
                f"not identified: {', '.join(open_ended)}" if open_ended else "by the runs",
                tone="bad" if open_ended else "good",
            )
        )
    return cards
