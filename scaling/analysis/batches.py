"""Critical batch sizes: what a larger batch saves in steps and costs in tokens.

With B_crit the critical batch and D the tokens that suffice at batches far below it, a batch B
takes steps = (D/B_crit) (1 + B_crit/B) and tokens = D (1 + B/B_crit), since (S/S_min - 1)
(E/E_min - 1) = 1 and B_crit = E_min/S_min (McCandlish et al. 2018, equations 2.11 and 2.12; Kaplan
et al. 2020, section 5).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from scaling.analysis.devices import PlanError
from scaling.analysis.fitted import Law
from scaling.analysis.forms import Array
from scaling.analysis.rules import CRITICAL_BATCH

KNOWN = ("params", "tokens", "flops", "loss")
"""What a critical batch may follow from."""


@dataclass(frozen=True, kw_only=True)
class Critical:
    """A law of the critical batch.

    `at` gives it in tokens, from columns by name: the `inputs`, some of params, tokens, flops (6 x
    params x tokens) and loss at the end of the run; tokens are those of a small batch. `measured`
    is the range of tokens that it was fitted in, where that is known.
    """

    name: str
    inputs: tuple[str, ...]
    at: Callable[[Mapping[str, Array]], Array]
    measured: tuple[float, float] | None = None


def tokens_of(useful: ArrayLike, batch: ArrayLike, critical: ArrayLike) -> Array:
    """Tokens that a batch takes to do what `useful` tokens do at small ones."""
    useful = np.asarray(useful, np.float64)
    found: Array = useful * (1 + np.asarray(batch) / np.asarray(critical))
    return found


def steps_of(useful: ArrayLike, batch: ArrayLike, critical: ArrayLike) -> Array:
    """Steps that a batch takes to do what `useful` tokens do at small ones."""
    found: Array = tokens_of(useful, batch, critical) / np.asarray(batch)
    return found


def _kaplan(given: Mapping[str, Array]) -> Array:
    published = CRITICAL_BATCH.published["Kaplan et al. 2020"]
    values = np.array([published[name] for name in CRITICAL_BATCH.names])
    return CRITICAL_BATCH.predict(values, {"loss": given["loss"]})


ZHANG_SEQUENCE = 512.0
ZHANG_REFERENCE = 256.0
ZHANG_LEAST_TOKENS = 1.7e9


def _zhang(given: Mapping[str, Array]) -> Array:
    """Theirs is the batch B* that takes 1.2 times the steps of linear scaling from 256 sequences:
    1 + B_crit/B* = 1.2 (256/B*)(1 + B_crit/256), so that B_crit = 5 B* - 6 x 256 sequences. On the
    steps that they publish for five sizes this is within 4% of B_crit fitted to each.
    """

    def sequences(tokens: Array) -> Array:
        found: Array = 5 * 22.91 * (tokens / 1e6) ** 0.47 - 6 * ZHANG_REFERENCE
        return found

    # Below their smallest run the reference batch is no longer a small one: the power goes on.
    least = np.asarray(ZHANG_LEAST_TOKENS)
    within = np.maximum(given["tokens"], least)
    return ZHANG_SEQUENCE * sequences(within) * (given["tokens"] / within) ** 0.47


PUBLISHED: Mapping[str, Critical] = {
    "zhang_2025": Critical(
        name="Zhang et al. 2025: B* = 22.91 (tokens/1e6)^0.47 sequences of 512, as B_crit = 5 B* - "
        "1536 sequences",
        inputs=("tokens",),
        at=_zhang,
        measured=(ZHANG_LEAST_TOKENS, 2.4e10),
    ),
    "kaplan_2020": Critical(
        name="Kaplan et al. 2020, equation 1.4: B_crit = 2.1e8 loss^(-1/0.21) tokens, for losses "
        "of their tokenizer and text",
        inputs=("loss",),
        at=_kaplan,
    ),
}
DEFAULT = "zhang_2025"
"""It follows from tokens, which every tokenizer has; a loss depends on the text."""


def critical(source: float | str | Law) -> Critical:
    """The law of a number of tokens, of a published name, or of a fitted law of `batch_tokens`.

    Raises:
      PlanError: an unknown name, a number that is not positive, a law of something else.
    """
    if isinstance(source, Law):
        form, values = source.form, source.values
        if form.target != "batch_tokens" or not set(form.inputs) <= set(KNOWN):
            raise PlanError(
                f"the law {form.name} gives {form.target} from {', '.join(form.inputs)}; needed is "
                f"a law of batch_tokens from {', '.join(KNOWN)}, such as critical_batch"
            )
        return Critical(
            name=f"fitted {form.name}: {form.equation}",
            inputs=form.inputs,
            at=lambda given: form.predict(values, given),
        )
    if isinstance(source, str):
        if source not in PUBLISHED:
            raise PlanError(
                f"critical batch {source!r} is not known; give tokens, a fitted law, or one of "
                f"{', '.join(PUBLISHED)}"
            )
        return PUBLISHED[source]
    if not (np.isfinite(source) and source > 0):
        raise PlanError(f"critical batch {source} is not a positive number of tokens; give one")
    return Critical(
        name=f"given: {source:.6g} tokens",
        inputs=(),
        at=lambda given: np.full_like(given["tokens"], source),
    )
