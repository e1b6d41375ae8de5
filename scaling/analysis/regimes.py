"""Laws of how else a model is trained: in few bits, with experts, from another model, on a task."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from scaling.analysis.forms import (
    Array,
    Coordinates,
    Form,
    Logs,
    Parameter,
    Pivot,
    grid,
    lse,
    power_sum,
    term,
)
from scaling.analysis.laws import CHINCHILLA, NATS, at_the_middle, exponent, floor

LOG10 = float(np.log(10.0))

MOE_GRANULARITY = power_sum(
    name="moe_granularity",
    equation="L = c + (g/granularity^gamma + a)/params^alpha + b/tokens^beta",
    reference="Krajewski et al. 2024, equation 9, table 1",
    departures="params are all of the mixture's: only so do its constants give its table 2",
    terms=(
        term(
            "g", f"{NATS} x params^alpha granularity^gamma",
            ("params", "alpha"), ("granularity", "gamma"),
        ),
        term("a", f"{NATS} x params^alpha", ("params", "alpha")),
        term("b", f"{NATS} x tokens^beta", ("tokens", "beta")),
    ),
    floor="c",
    published={
        "Krajewski et al. 2024": {
            "c": 0.47, "g": 2.1, "a": 18.1, "b": 30.8,
            "alpha": 0.115, "gamma": 0.58, "beta": 0.147,
        }
    },
)  # fmt: skip

FINETUNING = power_sum(
    name="finetuning",
    equation="L = E + A/params^alpha/finetuning_tokens^beta",
    reference="Zhang et al. 2024, equation 1, table 4",
    departures="their data are counted in examples; with adapters, read rank for params",
    terms=(
        term(
            "A", f"{NATS} x params^alpha finetuning_tokens^beta",
            ("params", "alpha"), ("finetuning_tokens", "beta"),
        ),
    ),
    exponents={"alpha": (-1.0, 4.0)},
    published={
        "Zhang et al. 2024, WMT14 En-De, all parameters": {
            "E": 0.75, "A": 1.2e5, "alpha": 0.52, "beta": 0.15,
        },
        "Zhang et al. 2024, WMT14 En-De, LoRA": {
            "E": 0.62, "A": 2.1e3, "alpha": 0.36, "beta": 0.081,
        },
    },
)  # fmt: skip


BITS = {"weight_bits": "w", "activation_bits": "a", "cache_bits": "kv"}


def _precision(p: Coordinates, x: Logs) -> jax.Array:
    size = x["params"]
    for column, part in BITS.items():
        lost = p[f"n_{part}"] - jnp.exp(x[column] - p[f"gamma_{part}"])
        # Below some precision nothing is left of a parameter, and the law says nothing more.
        size = size + jnp.log(-jnp.expm1(jnp.minimum(lost, -1e-9)))
    return lse(p["E"], p["A"] - p["alpha"] * size, p["B"] - p["beta"] * x["tokens"])


def _precision_starts(x: Mapping[str, Array], y: Array) -> Array:
    base = CHINCHILLA.starts({name: x[name] for name in CHINCHILLA.inputs}, y)[::3]
    found = grid(gamma=(0.7, 2.0, 4.0), n=(0.0, 1.0))
    return np.array(
        [
            [*one, *(value for _ in BITS for value in (np.log(g), n))]
            for one in base
            for g, n in found
        ]
    )


PRECISION = Form(
    name="precision",
    equation="L = E + A/params_eff^alpha + B/tokens^beta, "
    "params_eff = params x product over w, a, kv of (1 - exp(n - bits/gamma))",
    reference="Kumar et al. 2024, equations 3 and 4, table 2",
    departures="table 2 ties alpha = beta; quantisation after training (equation 2) is left out: "
    "the sign of its offset is not stated",
    inputs=("params", "tokens", *BITS),
    parameters=(
        *CHINCHILLA.parameters,
        *(
            one
            for part in BITS.values()
            for one in (
                Parameter(f"gamma_{part}", "bits", 0.05, 50.0, True),
                Parameter(f"n_{part}", "1", -5.0, 10.0),
            )
        ),
    ),
    pivots=CHINCHILLA.pivots,
    linked=_precision,
    starts=_precision_starts,
    published={
        "Kumar et al. 2024": {
            "E": 2.7648, "A": 4.299e3, "B": 1.806e4, "alpha": 0.4965, "beta": 0.4965,
            "gamma_w": 2.6745, "n_w": 0.3037, "gamma_a": 2.2102, "n_a": 1.4072,
            "gamma_kv": 0.9578, "n_kv": 2.4185,
        }
    },
)  # fmt: skip


def _effective_experts(p: Coordinates, x: Logs) -> jax.Array:
    """log of E_hat: 1/E_hat = 1/(experts - 1 + 1/(1/E_start - 1/E_max)) + 1/E_max."""
    inside = 1 / (jnp.exp(-p["E_start"]) - jnp.exp(-p["E_max"]))
    return -jnp.log(1 / (jnp.expm1(x["experts"]) + inside) + jnp.exp(-p["E_max"]))


EXPERTS = (
    Parameter("E_start", "experts", 1.0, 20.0, True),
    Parameter("E_max", "experts", 21.0, 1e5, True),
)


def _moe_experts(p: Coordinates, x: Logs) -> jax.Array:
    size, experts = x["params"] / LOG10, _effective_experts(p, x) / LOG10
    return LOG10 * (p["a"] * size + p["b"] * experts + p["c"] * size * experts + p["d"])


MOE_EXPERTS = Form(
    name="moe_experts",
    equation="log10 L = a log10 params + b log10 E_hat + c log10 params log10 E_hat + d, "
    "1/E_hat = 1/(experts - 1 + 1/(1/E_start - 1/E_max)) + 1/E_max",
    reference="Clark et al. 2022, equation 1, table 3",
    departures="params are those of the dense model, at one number of tokens",
    inputs=("params", "experts"),
    parameters=(
        *(Parameter(name, "1", -2.0, 2.0) for name in ("a", "b", "c")),
        Parameter("d", "1", -10.0, 10.0),
        *EXPERTS,
    ),
    linked=_moe_experts,
    starts=lambda x, y: np.array(
        [
            (a, b, c, (y - a * x["params"]).mean() / LOG10, np.log(start), np.log(most))
            for a, b, c, start, most in grid(
                a=(-0.15, -0.08, -0.04), b=(-0.2, -0.1), c=(0.0, 0.01),
                start=(1.5, 4.0), most=(100.0, 1e3),
            )
        ]
    ),
    published={
        "Clark et al. 2022, S-BASE": {
            "a": -0.082, "b": -0.108, "c": 0.009, "d": 1.104, "E_start": 1.847, "E_max": 314.478,
        }
    },
)  # fmt: skip


def _moe_joint(p: Coordinates, x: Logs) -> jax.Array:
    experts = _effective_experts(p, x)
    size = p["a"] + p["delta"] * experts + (p["alpha"] + p["gamma"] * experts) * x["params"]
    data = p["b"] + p["omega"] * experts + (p["beta"] + p["zeta"] * experts) * x["tokens"]
    return lse(p["c"], size, data)


def _moe_joint_starts(x: Mapping[str, Array], y: Array) -> Array:
    base = CHINCHILLA.starts({name: x[name] for name in CHINCHILLA.inputs}, y)[::3]
    found = grid(delta=(-0.3, 0.0), gamma=(0.0, 0.01), omega=(0.0, 0.5), zeta=(0.0, -0.03))
    start = [np.log(2.0), np.log(300.0)]
    return np.array(
        [[e, a, b, -alpha, -beta, *rest, *start] for e, a, b, alpha, beta in base for rest in found]
    )


MOE_JOINT = Form(
    name="moe_joint",
    equation="L = c + a E_hat^delta params^(alpha + gamma ln E_hat) "
    "+ b E_hat^omega tokens^(beta + zeta ln E_hat), E_hat as in moe_experts",
    reference="Ludziejewski et al. 2025, equation 1, table 3",
    departures="params are the active ones, embedding and head included",
    inputs=("params", "tokens", "experts"),
    parameters=(
        floor("c"),
        at_the_middle("a", f"{NATS} x params^-alpha"),
        at_the_middle("b", f"{NATS} x tokens^-beta"),
        *(exponent(name, -4.0) for name in ("alpha", "beta", "delta", "gamma", "omega", "zeta")),
        *EXPERTS,
    ),
    pivots=(Pivot("a", "alpha", "params", -1.0), Pivot("b", "beta", "tokens", -1.0)),
    linked=_moe_joint,
    starts=_moe_joint_starts,
    published={
        "Ludziejewski et al. 2025": {
            "c": 1.3637, "a": 35.91, "alpha": -0.1889, "delta": -0.2285, "gamma": 0.0098,
            "b": 35.98, "beta": -0.1775, "omega": 0.5529, "zeta": -0.0259,
            "E_start": 2.0732, "E_max": 290.4521,
        }
    },
)  # fmt: skip


def _distillation(p: Coordinates, x: Logs) -> jax.Array:
    teacher, f = x["teacher_loss"], jnp.exp(p["f_1"])
    bend = jax.nn.softplus((teacher - x["supervised_loss"] - p["d_1"]) / f)
    student = lse(p["A"] - p["alpha"] * x["params"], p["B"] - p["beta"] * x["tokens"])
    return lse(teacher, -p["c_0"] * teacher - p["c_1"] * f * bend + p["gamma"] * student)


def _distillation_starts(x: Mapping[str, Array], y: Array) -> Array:
    found = grid(alpha=(0.2, 0.4), beta=(0.3, 0.6), gamma=(0.5, 1.0), c_0=(1.0, 3.0),
                 c_1=(50.0, 500.0), f=(0.05, 0.15), d=(1.1, 1.4), share=(0.3, 0.7))  # fmt: skip
    alpha, beta, gamma, c_0, c_1, f, d, share = found.T
    size = np.log(share) / gamma + c_0 * x["teacher_loss"].mean() / gamma
    data = np.log1p(-share) / gamma + c_0 * x["teacher_loss"].mean() / gamma
    return np.stack([size, data, alpha, beta, gamma, c_0, c_1, np.log(f), np.log(d)], axis=1)


DISTILLATION = Form(
    name="distillation",
    equation="L = teacher_loss + teacher_loss^-c_0 "
    "* (1 + (teacher_loss/(d_1 * supervised_loss))^(1/f_1))^(-c_1 * f_1) "
    "* (A/params^alpha + B/tokens^beta)^gamma",
    reference="Busbridge et al. 2025, equation 8, table 6",
    departures="supervised_loss is a column: that of the student without a teacher, by another law",
    inputs=("params", "tokens", "teacher_loss", "supervised_loss"),
    parameters=(
        Parameter("A", "params^alpha", 1e-30, 1e30, True),
        Parameter("B", "tokens^beta", 1e-30, 1e30, True),
        exponent("alpha"),
        exponent("beta"),
        exponent("gamma", 0.01),
        exponent("c_0", -10.0, 20.0),
        Parameter("c_1", "1", 0.0, 1e5),
        Parameter("f_1", "1", 1e-3, 10.0, True),
        Parameter("d_1", "1", 0.1, 10.0, True),
    ),
    pivots=(Pivot("A", "alpha", "params"), Pivot("B", "beta", "tokens")),
    linked=_distillation,
    starts=_distillation_starts,
    published={
        "Busbridge et al. 2025": {
            "A": 2243.0, "B": 24181.0, "alpha": 0.321, "beta": 0.637, "gamma": 0.764,
            "c_0": 2.549, "c_1": 522.6, "f_1": 0.090, "d_1": 1.315,
        }
    },
)  # fmt: skip
