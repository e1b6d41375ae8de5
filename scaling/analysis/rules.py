"""Laws of other things than the loss of a run: rates, batches, steps, and what a loss is worth."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from scaling.analysis.forms import (
    NOTHING,
    Array,
    Coordinates,
    Form,
    Logs,
    Parameter,
    grid,
    lse,
    power_sum,
    term,
)
from scaling.analysis.laws import (
    BNSL,
    CHINCHILLA,
    CHINCHILLA_TIED,
    DATA_CONSTRAINED,
    FARSEER,
    KAPLAN,
    NATS,
    OVER_TRAINING,
    POWER_LAWS,
    WIDTH_DEPTH,
    WIDTH_DEPTH_PARAMS,
)
from scaling.analysis.regimes import (
    DISTILLATION,
    FINETUNING,
    MOE_EXPERTS,
    MOE_GRANULARITY,
    MOE_JOINT,
    PRECISION,
)

SIGNED = (-4.0, 4.0)

LEARNING_RATE = power_sum(
    name="learning_rate",
    equation="learning_rate = c * params^-a * tokens^-b",
    reference="Li et al. 2025 (Step Law), equation 1",
    terms=(term("c", "rate x params^a tokens^b", ("params", "a"), ("tokens", "b")),),
    floor=None,
    target="learning_rate",
    unit="1",
    exponents={"a": SIGNED, "b": SIGNED},
    published={"Li et al. 2025, AdamW": {"c": 1.79, "a": 0.713, "b": -0.307}},
)

LEARNING_RATE_FLOPS = power_sum(
    name="learning_rate_flops",
    equation="learning_rate = c * flops^-a",
    reference="DeepSeek-AI 2024 (DeepSeek LLM), equation 1",
    terms=(term("c", "rate x flops^a", ("flops", "a")),),
    floor=None,
    target="learning_rate",
    unit="1",
    exponents={"a": SIGNED},
    published={"DeepSeek-AI 2024": {"c": 0.3118, "a": 0.1250}},
)

BATCH = power_sum(
    name="batch",
    equation="batch_tokens = c * tokens^-a",
    reference="Li et al. 2025 (Step Law), equation 1; a critical batch size by Zhang et al. 2025",
    terms=(term("c", "tokens x tokens^a", ("tokens", "a")),),
    floor=None,
    target="batch_tokens",
    unit="tokens",
    exponents={"a": SIGNED},
    largest=1e12,
    published={"Li et al. 2025": {"c": 0.58, "a": -0.571}},
)

BATCH_FLOPS = power_sum(
    name="batch_flops",
    equation="batch_tokens = c * flops^-a",
    reference="DeepSeek-AI 2024 (DeepSeek LLM), equation 1",
    terms=(term("c", "tokens x flops^a", ("flops", "a")),),
    floor=None,
    target="batch_tokens",
    unit="tokens",
    exponents={"a": SIGNED},
    largest=1e12,
    published={"DeepSeek-AI 2024": {"c": 0.2920, "a": -0.3271}},
)

CRITICAL_BATCH = power_sum(
    name="critical_batch",
    equation="batch_tokens = c * loss^-a",
    reference="Kaplan et al. 2020, equation 1.4: a = 1/alpha_B",
    terms=(term("c", f"tokens x ({NATS})^a", ("loss", "a")),),
    floor=None,
    target="batch_tokens",
    unit="tokens",
    exponents={"a": (0.0, 20.0)},
    largest=1e12,
    published={"Kaplan et al. 2020": {"c": 2.1e8, "a": 1 / 0.21}},
)


def _steps(p: Coordinates, x: Logs) -> jax.Array:
    return p["S_min"] + jnp.logaddexp(0.0, p["B_crit"] - x["batch_tokens"])


STEPS = Form(
    name="steps",
    equation="steps = S_min * (1 + B_crit/batch_tokens)",
    reference="McCandlish et al. 2018, equation 2.11: (S/S_min - 1)(E/E_min - 1) = 1",
    target="steps",
    inputs=("batch_tokens",),
    parameters=(
        Parameter("S_min", "steps", 1.0, 1e12, True),
        Parameter("B_crit", "tokens", 1.0, 1e15, True),
    ),
    linked=_steps,
    starts=lambda x, y: grid(
        S_min=(y.min() - 2.0, y.min() - 0.5, y.min()),
        B_crit=tuple(np.quantile(x["batch_tokens"], (0.0, 0.25, 0.5, 0.75, 1.0))),
    ),
)


def _loss_to_loss(p: Coordinates, x: Logs) -> jax.Array:
    above = jnp.exp(x["source_loss"]) - p["E_0"]
    return lse(p["E_1"], p["K"] + p["kappa"] * jnp.log(jnp.maximum(above, 1e-9)))


def _loss_to_loss_starts(x: Mapping[str, Array], y: Array) -> Array:
    source, target = np.exp(x["source_loss"]), np.exp(y)
    found = grid(floor=(0.01, 0.3, 0.6, 0.9), kappa=(0.5, 1.0, 1.5, 2.5),
                 below=(0.0, 0.3, 0.6, 0.9, 0.97))  # fmt: skip
    floor, kappa, below = found.T
    e_1, e_0 = floor * target.min(), below * source.min()
    above = np.maximum(target.mean() - e_1, 1e-6)
    k = np.log(above) - kappa * np.log(source.mean() - e_0)
    return np.stack([np.log(e_1), k, kappa, e_0], axis=1)


LOSS_TO_LOSS = Form(
    name="loss_to_loss",
    equation="L = E_1 + K * (source_loss - E_0)^kappa",
    reference="Brandfonbrener et al. 2024, section 3",
    inputs=("source_loss",),
    parameters=(
        Parameter("E_1", NATS, NOTHING, 1e3, True),
        Parameter("K", f"{NATS}^(1 - kappa)", 1e-6, 1e6, True),
        Parameter("kappa", "1", 0.0, 8.0),
        Parameter("E_0", NATS, 0.0, 100.0),
    ),
    linked=_loss_to_loss,
    starts=_loss_to_loss_starts,
)


def _sigmoid(p: Coordinates, x: Logs) -> jax.Array:
    return p["s"] * jax.nn.sigmoid(jnp.exp(p["k"]) * (jnp.exp(x["loss"]) - p["x_0"])) + p["t"]


def _sigmoid_starts(x: Mapping[str, Array], y: Array) -> Array:
    loss = np.exp(x["loss"])
    return np.array(
        [
            (-drop, np.log(slope), middle, top)
            for drop, slope, middle, top in grid(
                drop=(0.3, 0.6, 0.9), slope=(1.0, 3.0, 10.0),
                middle=tuple(np.quantile(loss, (0.05, 0.25, 0.5, 0.75))),
                top=(float(np.max(y)), 0.7, 1.0),
            )
        ]
    )  # fmt: skip


ACCURACY = Form(
    name="accuracy",
    equation="accuracy = t + s/(1 + exp(-k * (loss - x_0)))",
    reference="Bhagia et al. 2024 (OLMo ladder), equation 3",
    departures="there loss is in bits per byte of the right answer",
    target="accuracy",
    link="identity",
    inputs=("loss",),
    parameters=(
        Parameter("s", "1", -1.0, 0.0),
        Parameter("k", "1/loss", 1e-3, 1e3, True),
        Parameter("x_0", "loss", 0.0, 100.0),
        Parameter("t", "1", 0.0, 1.0),
    ),
    linked=_sigmoid,
    starts=_sigmoid_starts,
)


def _error(p: Coordinates, x: Logs) -> jax.Array:
    return p["epsilon"] - jnp.exp(p["k"] - jnp.exp(p["gamma"] + x["loss"]))


ERROR = Form(
    name="error",
    equation="error = epsilon - k * exp(-gamma * loss)",
    reference="Gadre et al. 2024, equation 5",
    target="error",
    link="identity",
    inputs=("loss",),
    parameters=(
        Parameter("epsilon", "1", 0.0, 2.0),
        Parameter("k", "1", 1e-4, 1e6, True),
        Parameter("gamma", "1/nats per token", 1e-3, 50.0, True),
    ),
    linked=_error,
    starts=lambda x, y: np.array(
        [
            (
                top + y.max(),
                np.log(top + y.max() - y.min() + 1e-3) + gamma * np.exp(x["loss"].min()),
                np.log(gamma),
            )
            for top, gamma in grid(top=(0.0, 0.02, 0.1, 0.3), gamma=(0.1, 0.3, 0.7, 1.5, 3.0))
        ]
    ),
    published={"Gadre et al. 2024, RedPajama": {"epsilon": 0.85699, "k": 2.2065, "gamma": 0.71459}},
)

LOSS_LAWS = (
    CHINCHILLA,
    CHINCHILLA_TIED,
    KAPLAN,
    OVER_TRAINING,
    FARSEER,
    *POWER_LAWS,
    BNSL,
    *DATA_CONSTRAINED,
    WIDTH_DEPTH,
    WIDTH_DEPTH_PARAMS,
    PRECISION,
    MOE_EXPERTS,
    MOE_GRANULARITY,
    MOE_JOINT,
    FINETUNING,
    DISTILLATION,
)
RULES = (
    LEARNING_RATE,
    LEARNING_RATE_FLOPS,
    BATCH,
    BATCH_FLOPS,
    CRITICAL_BATCH,
    STEPS,
    LOSS_TO_LOSS,
    ACCURACY,
    ERROR,
)

LAWS: Mapping[str, Form] = {form.name: form for form in (*LOSS_LAWS, *RULES)}
"""All laws by name."""
