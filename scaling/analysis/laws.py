"""Laws of size, data and shape: each says its equation, its parameters, its source, and what was
found there.

Letters are those of the papers; inputs are columns of a table of runs (`scaling.runs.Runs`).
"""

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
    Pivot,
    grid,
    lse,
    power_sum,
    term,
)

NATS = "nats per token"


def floor(name: str = "E") -> Parameter:
    """What no size and no data take away."""
    return Parameter(name, NATS, NOTHING, 1e3, True)


def exponent(name: str, low: float = 0.0, high: float = 4.0) -> Parameter:
    """A power, which moves as it is."""
    return Parameter(name, "1", low, high)


def at_the_middle(name: str, unit: str) -> Parameter:
    """A coefficient whose bounds are those of its term at the middle of the runs."""
    return Parameter(name, unit, NOTHING, 1e3, True)


CHINCHILLA = power_sum(
    name="chinchilla",
    equation="L = E + A/params^alpha + B/tokens^beta",
    reference="Hoffmann et al. 2022, equation 2 and section 3.3 (Approach 3)",
    terms=(
        term("A", f"{NATS} x params^alpha", ("params", "alpha")),
        term("B", f"{NATS} x tokens^beta", ("tokens", "beta")),
    ),
    published={
        "Hoffmann et al. 2022, TeX source": {
            "E": 1.6934, "A": 406.4, "B": 410.7, "alpha": 0.3392, "beta": 0.2849,
        },
        "Besiroglu et al. 2024": {
            "E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658,
        },
    },
)  # fmt: skip

CHINCHILLA_TIED = power_sum(
    name="chinchilla_tied",
    equation="L = E + A/params^alpha + B/tokens^alpha",
    reference="Muennighoff et al. 2023, appendix B",
    terms=(
        term("A", f"{NATS} x params^alpha", ("params", "alpha")),
        term("B", f"{NATS} x tokens^alpha", ("tokens", "alpha")),
    ),
    published={
        "Muennighoff et al. 2023": {
            "E": 1.8691439, "A": 520.82537, "B": 1487.7156, "alpha": 0.3526596,
        }
    },
)  # fmt: skip

OVER_TRAINING = power_sum(
    name="over_training",
    equation="L = E + (a * tokens_per_parameter^eta + b * tokens_per_parameter^-eta) * flops^-eta",
    reference="Gadre et al. 2024, equation 4; exponents of size and data are tied: 2 eta",
    terms=(
        term(
            "a", f"{NATS} x flops^eta", ("flops", "eta"), ("tokens_per_parameter", "eta", -1.0)
        ),
        term("b", f"{NATS} x flops^eta", ("flops", "eta"), ("tokens_per_parameter", "eta")),
    ),
    published={
        "Gadre et al. 2024, RedPajama": {
            "E": 1.83665, "a": 212.2347, "b": 366.69, "eta": 0.136425,
        }
    },
)  # fmt: skip


def _power(column: str, *, floor: bool, **published: Mapping[str, float]) -> Form:
    return power_sum(
        name=f"power_{column}_floor" if floor else f"power_{column}",
        equation=f"L = {'E + ' if floor else ''}A/{column}^alpha",
        reference="Henighan et al. 2020, equation 1.1"
        if floor
        else "Kaplan et al. 2020, section 1.2",
        terms=(term("A", f"{NATS} x {column}^alpha", (column, "alpha")),),
        floor="E" if floor else None,
        published={name.replace("_", " "): values for name, values in published.items()},
    )


POWER_LAWS = (
    # Printed as (x_c/x)^alpha: A = x_c^alpha.
    _power("params", floor=False, Kaplan_2020={"A": 8.8e13**0.076, "alpha": 0.076}),
    _power("tokens", floor=False, Kaplan_2020={"A": 5.4e13**0.095, "alpha": 0.095}),
    _power("flops", floor=False),
    _power("params", floor=True),
    _power("tokens", floor=True),
    _power("flops", floor=True),
)

WIDTH_DEPTH = power_sum(
    name="width_depth",
    equation="L = E + A/width^a + B/depth^b + C/tokens^c",
    reference="McLeish et al. 2025 (Gemstones), section 4.3",
    terms=(
        term("A", f"{NATS} x width^a", ("width", "a")),
        term("B", f"{NATS} x depth^b", ("depth", "b")),
        term("C", f"{NATS} x tokens^c", ("tokens", "c")),
    ),
)

WIDTH_DEPTH_PARAMS = power_sum(
    name="width_depth_params",
    equation="L = E + A/width^a + B/depth^b + C/params^c + D/tokens^d",
    reference="McLeish et al. 2025 (Gemstones), section 4.3",
    terms=(
        term("A", f"{NATS} x width^a", ("width", "a")),
        term("B", f"{NATS} x depth^b", ("depth", "b")),
        term("C", f"{NATS} x params^c", ("params", "c")),
        term("D", f"{NATS} x tokens^d", ("tokens", "d")),
    ),
    published={
        "McLeish et al. 2025, to 350B tokens": {
            "E": float(np.exp(0.4282048563)),
            "A": float(np.exp(1.082043835)), "a": 0.2195783536,
            "B": float(np.exp(-0.2186969889)), "b": 0.4758917337,
            "C": float(np.exp(6.0902355695)), "c": 0.3636454068,
            "D": float(np.exp(10.4720427681)), "d": 0.4935127042,
        }
    },
)  # fmt: skip


def _kaplan(p: Coordinates, x: Logs) -> jax.Array:
    ratio = p["alpha_N"] / p["alpha_D"]
    return p["alpha_D"] * lse(ratio * (p["N_c"] - x["params"]), p["D_c"] - x["tokens"])


def _kaplan_starts(x: Mapping[str, Array], y: Array) -> Array:
    """Exponents, and the share of size in the sum at the middle of the runs."""
    found = grid(
        alpha_N=(0.05, 0.1, 0.2, 0.4, 0.8), alpha_D=(0.05, 0.1, 0.2, 0.4, 0.8),
        share=(0.1, 0.3, 0.5, 0.7, 0.9),
    )  # fmt: skip
    alpha_N, alpha_D, share = found.T
    size = (np.log(share) + y.mean() / alpha_D) * alpha_D / alpha_N
    return np.stack([size, np.log1p(-share) + y.mean() / alpha_D, alpha_N, alpha_D], axis=1)


KAPLAN = Form(
    name="kaplan",
    equation="L = ((N_c/params)^(alpha_N/alpha_D) + D_c/tokens)^alpha_D",
    reference="Kaplan et al. 2020, equation 1.5, table 2",
    departures="their params leave the embedding out",
    inputs=("params", "tokens"),
    parameters=(
        Parameter("N_c", "params", 1e-30, 1e60, True),
        Parameter("D_c", "tokens", 1e-30, 1e60, True),
        exponent("alpha_N", 0.005),
        exponent("alpha_D", 0.005),
    ),
    pivots=(Pivot("N_c", None, "params"), Pivot("D_c", None, "tokens")),
    linked=_kaplan,
    starts=_kaplan_starts,
    published={
        "Kaplan et al. 2020": {"N_c": 6.4e13, "D_c": 1.8e13, "alpha_N": 0.076, "alpha_D": 0.103}
    },
)


def _farseer(p: Coordinates, x: Logs) -> jax.Array:
    def power(name: str) -> jax.Array:
        number = name[-1]
        return p[name] * jnp.exp(p[f"gamma_{number}"] * x["params"]) + p[f"b_{number}"]

    return lse(power("a_3"), power("a_2") - jnp.exp(power("a_1")) * x["tokens"])


def _farseer_starts(x: Mapping[str, Array], y: Array) -> Array:
    """Around a law of Chinchilla's kind: what its floor, coefficient and exponent do with size."""
    size, data, level = x["params"].mean(), x["tokens"].mean(), y.mean()
    found = grid(
        floor=(0.3, 0.6, 0.9), fall_3=(-1.0, -0.3, -0.05), gamma_3=(0.1, 0.2),
        exponent=(0.2, 0.35, 0.6),
        fall_1=(-0.5, 0.3), gamma_1=(0.1, 0.2), rise_2=(0.3, 2.0), gamma_2=(-0.1, 0.1),
    )  # fmt: skip
    floor, fall_3, gamma_3, exponent, fall_1, gamma_1, rise_2, gamma_2 = found.T
    log_floor = np.log(floor) + level
    log_rest = np.log1p(-floor) + level + exponent * data
    b_3, b_2, b_1 = log_floor - fall_3, log_rest - rise_2, np.log(exponent) - fall_1

    def at(value: Array, gamma: Array) -> Array:
        return value * np.exp(-gamma * size)

    columns = [at(fall_3, gamma_3), gamma_3, b_3, at(rise_2, gamma_2), gamma_2, b_2,
               at(fall_1, gamma_1), gamma_1, b_1]  # fmt: skip
    return np.stack(columns, axis=1)


FARSEER = Form(
    name="farseer",
    equation=(
        "L = exp(a_3 * params^gamma_3 + b_3) + exp(a_2 * params^gamma_2 + b_2) "
        "* tokens^-exp(a_1 * params^gamma_1 + b_1)"
    ),
    reference="Li et al. 2025 (Farseer), equations 3 and 15",
    departures="their losses are in bits per character; params leave the embedding out",
    inputs=("params", "tokens"),
    parameters=tuple(
        Parameter(f"{letter}_{number}", "1", low, high)
        for number in (3, 2, 1)
        for letter, low, high in (("a", -1e4, 1e4), ("gamma", -1.0, 1.0), ("b", -200.0, 200.0))
    ),
    linked=_farseer,
    starts=_farseer_starts,
    published={
        "Li et al. 2025": {
            "a_3": -0.021, "gamma_3": 0.169, "b_3": -0.091, "a_2": 88.01, "gamma_2": -0.1,
            "b_2": -6.287, "a_1": -0.124, "gamma_1": 0.123, "b_1": 0.424,
        }
    },
)  # fmt: skip


def _bnsl(p: Coordinates, x: Logs) -> jax.Array:
    sharpness = jnp.exp(p["f"])
    bend = p["c_1"] * sharpness * jax.nn.softplus((x["flops"] - p["d"]) / sharpness)
    return lse(p["a"], p["b"] - p["c_0"] * x["flops"] - bend)


def _bnsl_starts(x: Mapping[str, Array], y: Array) -> Array:
    u = x["flops"] - x["flops"].mean()
    found = grid(
        floor=(0.1, 0.6, 0.95), c_0=(0.05, 0.2, 0.5), c_1=(-0.2, 0.1, 0.4),
        where=np.quantile(u, (0.1, 0.3, 0.5, 0.7, 0.9)), f=(0.1, 0.5),
    )  # fmt: skip
    floor, c_0, c_1, where, f = found.T
    bend = c_1 * f * np.logaddexp(0, -where / f)
    b = y.mean() + np.log1p(-floor * np.exp(y.min() - y.mean())) + bend
    return np.stack([np.log(floor) + y.min(), b, c_0, c_1, where, np.log(f)], axis=1)


BNSL = Form(
    name="bnsl",
    equation="L = a + b * flops^-c_0 * (1 + (flops/d)^(1/f))^(-c_1 * f)",
    reference="Caballero et al. 2023, equation 1, with one break",
    inputs=("flops",),
    parameters=(
        floor("a"),
        at_the_middle("b", f"{NATS} x flops^c_0"),
        exponent("c_0", -4.0),
        exponent("c_1", -8.0, 8.0),
        Parameter("d", "flops", 1e-12, 1e12, True),
        Parameter("f", "1", 1e-2, 10.0, True),
    ),
    pivots=(Pivot("b", "c_0", "flops"), Pivot("d", None, "flops")),
    linked=_bnsl,
    starts=_bnsl_starts,
    published={
        "their example, 4-digit addition": {
            "a": 0.41388453071629455, "b": 2.2772722897737556, "c_0": 0.055077348404973955,
            "c_1": 5.662903816010331, "d": 612.5836172918001, "f": 0.059193036393742314,
        }
    },
)  # fmt: skip


def _saturated(unique: jax.Array, repeats: jax.Array, limit: jax.Array) -> jax.Array:
    """log of unique (1 + R* (1 - exp(-repeats/R*))); limit is log R*.

    With expm1: for a large R* the plain difference loses every digit, and makes a minimum that is
    not there.
    """
    return unique + jnp.log1p(-jnp.exp(limit) * jnp.expm1(-repeats * jnp.exp(-limit)))


def _geometric(unique: jax.Array, repeats: jax.Array, decay: jax.Array) -> jax.Array:
    """log of unique (1 + (1-R*) (1 - (1-R*)^repeats) / R*); decay is log R*."""
    rate = jnp.exp(decay)
    kept = jnp.log1p(-jnp.minimum(rate, 1 - 1e-12))
    return unique + jnp.log1p(-jnp.exp(kept - decay) * jnp.expm1(repeats * kept))


def _unique_size(p: Coordinates, x: Logs) -> jax.Array:
    """log of min(params, the size whose compute-optimal tokens are unique_tokens)."""
    alpha, beta = p["alpha"], p["beta"]
    log_g = (jnp.log(alpha / beta) + p["A"] - p["B"]) / (alpha + beta)
    return jnp.minimum(x["params"], beta / alpha * (x["unique_tokens"] + log_g) + log_g)


def _data_constrained(decay: str):  # type: ignore[no-untyped-def]
    def linked(p: Coordinates, x: Logs) -> jax.Array:
        shrink = _geometric if decay == "geometric" else _saturated
        repeats = jnp.maximum(jnp.expm1(x["tokens"] - x["unique_tokens"]), 0.0)
        tokens = shrink(jnp.minimum(x["tokens"], x["unique_tokens"]), repeats, p["R_D"])
        params = x["params"]
        if decay != "tokens":
            unique = _unique_size(p, x)
            excess = jnp.expm1(x["params"] - unique)
            params = shrink(unique, excess, p["R_N"])
        return lse(p["E"], p["A"] - p["alpha"] * params, p["B"] - p["beta"] * tokens)

    def starts(x: Mapping[str, Array], y: Array) -> Array:
        base = CHINCHILLA.starts({name: x[name] for name in CHINCHILLA.inputs}, y)[::4]
        limits = grid(R_D=(0.01, 0.1) if decay == "geometric" else (2.0, 15.0, 100.0),
                      R_N=(0.3,) if decay == "geometric" else (2.0, 30.0))  # fmt: skip
        if decay == "tokens":
            limits = limits[::2, :1]
        return np.array([[*one, *np.log(limit)] for one in base for limit in limits])

    what = {
        "both": ("data_constrained", "U_x (1 + R_x (1 - exp(-r_x/R_x)))", "5 and 6"),
        "tokens": ("data_constrained_tokens", "U_D (1 + R_D (1 - exp(-r_D/R_D)))", "5"),
        "geometric": (
            "data_constrained_geometric",
            "U_x (1 + (1 - R_x) (1 - (1 - R_x)^r_x)/R_x)",
            "4, the series before its approximation",
        ),
    }[decay]
    name, shrunk, number = what
    # Excess parameters over those that the unique data deserve reach 1e6 times and more, so that a
    # limit where nothing decays lies far beyond.
    limit = (1e-6, 1 - 1e-9) if decay == "geometric" else (1e-3, 1e12)
    both = decay != "tokens"
    size = ", params' = that of params" if both else ""
    return Form(
        name=name,
        equation=f"L = E + A/{'params' if not both else 'params_eff'}^alpha + B/tokens_eff^beta, "
        f"x_eff = {shrunk}, r = x/U - 1, U_D = unique_tokens"
        + (", U_N = min(params, the optimal size for U_D)" if both else ""),
        reference=f"Muennighoff et al. 2023, equations {number}{size if False else ''}",
        inputs=("params", "tokens", "unique_tokens"),
        parameters=(
            *CHINCHILLA.parameters,
            Parameter("R_D", "repetitions", *limit, True),
            *((Parameter("R_N", "repetitions", *limit, True),) if both else ()),
        ),
        pivots=CHINCHILLA.pivots,
        linked=linked,
        starts=starts,
        published={
            "Muennighoff et al. 2023": {
                "E": float(np.exp(0.6254804)), "A": float(np.exp(6.255414)),
                "B": float(np.exp(7.3049974)), "alpha": 0.3526596, "beta": 0.3526596,
                "R_D": 15.387756, "R_N": 5.309743,
            }
        } if decay == "both" else {},
    )  # fmt: skip


DATA_CONSTRAINED = tuple(_data_constrained(decay) for decay in ("both", "tokens", "geometric"))
