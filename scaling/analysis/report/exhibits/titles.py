"""What the axes are called: a column in words, with its unit and what was counted."""

from collections.abc import Callable

from scaling.analysis.evidence import Evidence
from scaling.analysis.report.panels import count, power, tidy

COUNTED = {
    "params_total": "Parameters (embedding included)",
    "params_non_embedding": "Parameters (embedding excluded)",
    "params_embedding": "Parameters (embedding alone)",
    "flops_6nd": "Training FLOPs (6 × parameters × tokens)",
    "flops_counted": "Training FLOPs (all matrix products)",
}
NAMED = {
    "params": "Parameters",
    "flops": "Training FLOPs",
    "tokens": "Training tokens",
    "loss": "Loss",
    "accuracy": "Accuracy (share of right answers)",
    "error": "Error (share of wrong answers)",
    "batch_tokens": "Batch (tokens)",
    "tokens_per_parameter": "Tokens per parameter",
}


def title(evidence: Evidence, name: str) -> str:
    """A column of the runs as the title of an axis."""
    words = NAMED.get(name, name.replace("_", " ").capitalize())
    of_the_law = evidence.law["convention"] if evidence.law else {}
    source = of_the_law.get(name) or evidence.convention.get(name)
    if name == "loss" and evidence.records:
        return "Validation loss (nats per token)"
    if source is None or source == name:
        return words
    if source in COUNTED:
        return COUNTED[source]
    if source.startswith("6 * "):
        return COUNTED["flops_6nd"]
    return f"{words} ({source if source == 'nats per token' else f'column {source}'})"


def writer(name: str) -> Callable[[float], str]:
    """How numbers of a column are written."""
    written: dict[str, Callable[[float], str]] = {"flops": power, "params": count}
    return written.get(name, count if "tokens" in name else tidy)
