"""Every law of the table: one contract for all, and numbers of the papers."""

import math

import jax
import numpy as np
import pytest
import scipy.optimize

from scaling.analysis.fitted import optimum
from scaling.analysis.rules import LAWS, LOSS_LAWS
from scaling.analysis.solver import Penalty, Problem

RANGES = {
    "params": (1e7, 1e10), "tokens": (1e9, 1e12), "flops": (1e17, 1e22), "width": (256, 8192),
    "tokens_per_parameter": (5, 600), "unique_tokens": (1e9, 3e10), "depth": (4, 80),
    "weight_bits": (3, 16), "activation_bits": (4, 16), "cache_bits": (3, 16), "experts": (1, 256),
    "granularity": (1, 64), "finetuning_tokens": (1e4, 1e8), "teacher_loss": (1.8, 3.0),
    "supervised_loss": (1.9, 2.8), "loss": (1.6, 4.0), "source_loss": (1.8, 4.5),
    "batch_tokens": (1e4, 1e7),
}  # fmt: skip
"""Where each input lies in what was published."""

UNPUBLISHED = {
    "power_flops": {"A": 30.0, "alpha": 0.05},
    "power_params_floor": {"E": 1.7, "A": 400.0, "alpha": 0.34},
    "power_tokens_floor": {"E": 1.7, "A": 410.0, "alpha": 0.28},
    "power_flops_floor": {"E": 1.7, "A": 1070.0, "alpha": 0.155},
    "width_depth": {"E": 1.2, "A": 8.3, "a": 0.26, "B": 2.1, "b": 0.14, "C": 1e5, "c": 0.54},
    "data_constrained_tokens": {
        "E": 1.87, "A": 521.0, "B": 1488.0, "alpha": 0.35, "beta": 0.35, "R_D": 15.0,
    },
    "data_constrained_geometric": {
        "E": 1.87, "A": 521.0, "B": 1488.0, "alpha": 0.35, "beta": 0.35, "R_D": 0.03, "R_N": 0.2,
    },
    "steps": {"S_min": 3e3, "B_crit": 1e6},
    "loss_to_loss": {"E_1": 0.8, "K": 1.1, "kappa": 1.3, "E_0": 1.5},
    "accuracy": {"s": -0.6, "k": 4.0, "x_0": 2.4, "t": 0.9},
}  # fmt: skip
"""Parameters for laws of which no paper gives all."""


def known_values(name: str) -> np.ndarray:
    form = LAWS[name]
    values = UNPUBLISHED[name] if name in UNPUBLISHED else next(iter(form.published.values()))
    return np.array([values[parameter] for parameter in form.names])


def drawn_inputs(name: str, rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    if name == "bnsl":
        return {"flops": np.geomspace(1, 4095, rows)}  # their example counts training examples
    found = {
        column: np.exp(rng.uniform(*np.log(RANGES[column]), rows)) for column in LAWS[name].inputs
    }
    if "unique_tokens" in found:
        found["tokens"] = found["unique_tokens"] * rng.uniform(1, 60, rows)
    return found


def published(name: str, which: str) -> np.ndarray:
    found = LAWS[name].published[which]
    return np.array([found[parameter] for parameter in LAWS[name].names])


@pytest.mark.parametrize("name", LAWS)
def test_every_parameter_has_a_unit_and_bounds_that_hold_what_is_known(name: str) -> None:
    form = LAWS[name]
    assert len(set(form.names)) == len(form.names)
    assert all(parameter.unit for parameter in form.parameters)
    for which in form.published.values():
        assert set(which) == set(form.names)
    means = {column: float(np.log(x).mean()) for column, x in drawn_inputs(name, 50).items()}
    lower, upper = form.bounds
    theta = form.coordinates(known_values(name), means)
    assert np.all((lower < theta) & (theta < upper)), dict(zip(form.names, theta, strict=True))


@pytest.mark.parametrize("name", LAWS)
def test_the_solvers_coordinates_and_the_parameters_give_one_prediction(name: str) -> None:
    form, inputs = LAWS[name], drawn_inputs(name, 9)
    means = {column: float(np.log(x).mean()) for column, x in inputs.items()}
    values = known_values(name)
    theta = form.coordinates(values, means)
    np.testing.assert_allclose(form.natural(theta, means), values, rtol=1e-9)
    logs = {column: np.log(x) for column, x in inputs.items()}
    linked = Problem(form, logs, np.zeros(9), means).linked(theta)
    expected = form.predict(values, inputs)
    np.testing.assert_allclose(np.exp(linked) if form.link == "log" else linked, expected)


@pytest.mark.parametrize("name", LAWS)
def test_a_prediction_is_what_the_stated_equation_says(name: str) -> None:
    """The text is read as an equation of its own, where it is one."""
    form, inputs = LAWS[name], drawn_inputs(name, 5)
    left, _, right = form.equation.partition(" = ")
    assert left in ("L", form.target, "log10 L")
    if ", " in right or left == "log10 L":
        pytest.skip("the equation has definitions beside it")
    names = dict(zip(form.names, known_values(name), strict=True)) | {"exp": np.exp}
    found = eval(right.replace("^", "**"), {}, names | inputs)
    np.testing.assert_allclose(form.predict(known_values(name), inputs), found, rtol=1e-9)


@pytest.mark.parametrize("name", LAWS)
def test_a_law_is_found_again_from_its_own_starts_in_what_it_predicts(name: str) -> None:
    form, inputs = LAWS[name], drawn_inputs(name, 60)
    target = form.predict(known_values(name), inputs)
    logs = {column: np.log(x) for column, x in inputs.items()}
    problem = Problem.of(form, logs, np.log(target) if form.link == "log" else target)
    starts = problem.starts()
    assert np.isfinite(starts).all()
    ends = problem.search(starts, Penalty(math.inf))
    spread = math.sqrt(2 * ends.value.min() / 60)
    assert spread < 1e-3 * np.ptp(problem.target)


@pytest.mark.parametrize("form", LOSS_LAWS, ids=lambda form: form.name)
def test_derivatives_by_jax_are_those_of_differences(form) -> None:
    inputs = drawn_inputs(form.name, 4)
    logs = {column: np.log(x) for column, x in inputs.items()}
    problem = Problem.of(form, logs, np.zeros(4))
    theta = form.coordinates(known_values(form.name), problem.means)
    with jax.enable_x64(True):
        exact = problem.jacobian(theta)
    for i in range(len(theta)):
        step = np.eye(len(theta))[i] * 1e-6
        slope = (problem.linked(theta + step) - problem.linked(theta - step)) / 2e-6
        np.testing.assert_allclose(exact[:, i], slope, rtol=1e-4, atol=1e-7)


def test_chinchilla_gives_the_allocations_that_were_published() -> None:
    tex = published("chinchilla", "Hoffmann et al. 2022, TeX source")
    at_gopher = optimum(LAWS["chinchilla"], tex, np.array(5.76e23))
    assert float(at_gopher.params) == pytest.approx(40e9, rel=0.01)  # their table A3
    tied = published("chinchilla_tied", "Muennighoff et al. 2023")
    at_gopher = optimum(LAWS["chinchilla_tied"], tied, np.array(5.76e23))
    assert float(at_gopher.params) == pytest.approx(69.96e9, rel=1e-3)
    assert float(at_gopher.tokens) == pytest.approx(1.372e12, rel=1e-3)


def test_kaplans_law_asks_for_data_as_the_paper_says() -> None:
    """D >= 5e3 N^0.74 keeps the loss within 0.02 of that of endless data (equation 4.4)."""
    values = published("kaplan", "Kaplan et al. 2020")
    for params in (1e8, 1e10):
        endless = LAWS["kaplan"].predict(values, {"params": params, "tokens": np.array(1e30)})
        found = scipy.optimize.brentq(
            lambda log_tokens, params=params, endless=endless: LAWS["kaplan"].predict(
                values, {"params": params, "tokens": np.exp(log_tokens)}
            ) / endless - 1.02,
            10, 40,
        )  # fmt: skip
        assert np.exp(found) == pytest.approx(5e3 * params**0.74, rel=0.12)


def test_gadres_law_predicts_their_largest_over_trained_run() -> None:
    values = published("over_training", "Gadre et al. 2024, RedPajama")
    params, ratio = 1439795200.0, 640.0
    found = LAWS["over_training"].predict(
        values, {"flops": 6 * params**2 * ratio, "tokens_per_parameter": ratio}
    )
    assert float(found) / 2.50205 - 1 == pytest.approx(0.007103, abs=2e-5)
    error = LAWS["error"].predict(
        published("error", "Gadre et al. 2024, RedPajama"), {"loss": np.array(2.51984)}
    )
    assert float(error) == pytest.approx(0.49250, abs=1e-5)


def test_a_break_bends_where_the_authors_example_does() -> None:
    values = published("bnsl", "their example, 4-digit addition")
    found = LAWS["bnsl"].predict(values, {"flops": np.array([1.0, 100.0, 1000.0, 4095.0])})
    np.testing.assert_allclose(found, [2.691157, 2.180981, 0.510910, 0.413915], rtol=1e-5)


def test_repeated_tokens_are_worth_what_the_paper_says() -> None:
    """Up to 4 epochs repeated data are nearly as good as new; by 40 they are worthless."""
    form = LAWS["data_constrained_tokens"]
    values = known_values(form.name) * np.array([1, 0, 1, 1, 1, 1])
    values[-1] = 15.387756
    unique = 1e10

    def worth(epochs: float) -> float:
        inputs = {"params": np.array(1e9), "tokens": np.array(epochs * unique),
                  "unique_tokens": np.array(unique)}  # fmt: skip
        with np.errstate(divide="ignore"):
            rest = float(form.predict(values, inputs)) - values[0]
        return float((values[2] / rest) ** (1 / values[4]) / (epochs * unique))

    found = [worth(epochs) for epochs in (4, 8, 16, 40)]
    np.testing.assert_allclose(found, [0.93142, 0.82801, 0.66140, 0.37919], rtol=1e-4)


def test_gemstones_width_and_depth_predict_one_of_their_runs() -> None:
    found = LAWS["width_depth_params"].predict(
        known_values("width_depth_params"),
        {"width": 1024.0, "depth": 28.0, "params": 543482880.0, "tokens": np.array(100.03e9)},
    )
    assert float(found) == pytest.approx(2.767768, rel=1e-3)  # measured there


def test_seven_bits_are_the_best_precision_of_kumar_et_al() -> None:
    """At a cost of 6/16 N D P the best precision is 7 to 8 bits (their section 4.3)."""
    form, values = LAWS["precision"], published("precision", "Kumar et al. 2024")
    bits = np.linspace(4.5, 16, 2000)
    effective = np.ones_like(bits)
    for part in ("w", "a", "kv"):
        gamma, n = (values[form.names.index(f"{what}_{part}")] for what in ("gamma", "n"))
        effective *= 1 - np.exp(n - bits / gamma)
    inputs = {"params": np.array(1e8), "tokens": np.array(1e10), "weight_bits": bits,
              "activation_bits": bits, "cache_bits": bits}  # fmt: skip
    E, A, B, alpha, beta = values[:5]
    by_hand = E + A * (1e8 * effective) ** -alpha + B * 1e10**-beta
    np.testing.assert_allclose(form.predict(values, inputs), by_hand, rtol=1e-9)
    assert bits[np.argmin(effective**-alpha * bits**alpha)] == pytest.approx(7.0, abs=0.1)


def test_routed_models_are_worth_the_dense_sizes_of_clark_et_al() -> None:
    """5M parameters with 128 experts do as well as 55M dense ones (their section 5)."""
    form, values = LAWS["moe_experts"], published("moe_experts", "Clark et al. 2022, S-BASE")
    routed = float(form.predict(values, {"params": np.array(5e6), "experts": np.array(128.0)}))
    dense = scipy.optimize.brentq(
        lambda x: float(form.predict(values, {"params": np.exp(x), "experts": np.array(1.0)}))
        - routed,
        10, 25,
    )  # fmt: skip
    assert np.exp(dense) == pytest.approx(55e6, rel=0.1)


def test_granular_mixtures_have_the_losses_of_their_table_2() -> None:
    values = published("moe_granularity", "Krajewski et al. 2024")
    active = np.array([1e8, 1e9, 7e9])
    found = LAWS["moe_granularity"].predict(
        values,
        {
            "params": 43 * active,  # (4 + 8 x 64)/12: all 64 expansions of the feed-forward
            "tokens": np.array([4.37e9, 28.94e9, 137.6e9]),
            "granularity": np.array([8.0, 16.0, 32.0]),
        },
    )
    np.testing.assert_allclose(found, [3.133, 2.491, 2.076], rtol=0.01)


def test_joint_mixtures_have_the_optima_of_their_table_1() -> None:
    form, values = LAWS["moe_joint"], published("moe_joint", "Ludziejewski et al. 2025")
    for flops, experts, wanted in ((1e20, 1.0, 1.7e9), (1e20, 8.0, 990e6), (1e21, 8.0, 3.8e9)):
        params = np.geomspace(1e8, 1e11, 4001)
        losses = form.predict(
            values, {"params": params, "tokens": flops / 6 / params, "experts": np.array(experts)}
        )
        assert params[np.argmin(losses)] == pytest.approx(wanted, rel=0.02)


def test_finetuning_methods_cross_as_in_their_table_5() -> None:
    """Data from which full tuning beats LoRA go as size^gamma, gamma = -2.4."""
    full, lora = (
        LAWS["finetuning"].published[f"Zhang et al. 2024, WMT14 En-De, {which}"]
        for which in ("all parameters", "LoRA")
    )
    gamma = (lora["alpha"] - full["alpha"]) / (full["beta"] - lora["beta"])
    assert gamma == pytest.approx(-2.4, abs=0.1)
    found = LAWS["finetuning"].predict(
        known_values("finetuning"), {"params": np.array(1e9), "finetuning_tokens": np.array(1e6)}
    )
    assert float(found) == pytest.approx(1.065632, abs=1e-6)


def test_a_student_of_a_weak_teacher_ends_at_the_teachers_loss() -> None:
    values = published("distillation", "Busbridge et al. 2025")
    supervised = 1.220 + (3355 / 1.82e9**0.408 + 18186 / 512e9**0.431) ** 0.452
    found = LAWS["distillation"].predict(
        values,
        {
            "params": np.array(1.82e9), "tokens": np.array(512e9),
            "teacher_loss": np.array([1.9, 2.0, 2.2, 2.8]),
            "supervised_loss": np.array(supervised),
        },
    )  # fmt: skip
    np.testing.assert_allclose(found, [2.070417, 2.081667, 2.205072, 2.8], rtol=1e-5)


def test_farseers_constants_give_their_bits_per_character() -> None:
    values = published("farseer", "Li et al. 2025")
    found = LAWS["farseer"].predict(
        values, {"params": np.array([1e9, 25.1e9]), "tokens": np.array([2e10, 1.42e11])}
    )
    np.testing.assert_allclose(found, [0.527224, 0.413811], atol=1e-6)


def test_rates_and_batches_are_those_that_were_used() -> None:
    """DeepSeek 7B on 2T tokens was trained at 4.2e-4 with 2304 x 4096 tokens."""
    flops = {"flops": np.array(6 * 6.9e9 * 2e12)}
    rate = LAWS["learning_rate_flops"].predict(known_values("learning_rate_flops"), flops)
    batch = LAWS["batch_flops"].predict(known_values("batch_flops"), flops)
    assert float(rate) == pytest.approx(4.2e-4, rel=0.02)
    assert float(batch) == pytest.approx(2304 * 4096, rel=0.03)
    step_law = LAWS["learning_rate"].predict(
        known_values("learning_rate"), {"params": np.array(1e9), "tokens": np.array(1e11)}
    )
    assert float(step_law) == pytest.approx(1.6325e-3, rel=1e-4)


def test_the_critical_batch_doubles_for_every_13_percent_of_loss() -> None:
    values = known_values("critical_batch")
    at, lower = LAWS["critical_batch"].predict(values, {"loss": np.array([3.0, 3.0 * 0.87])})
    assert at == pytest.approx(1.1226e6, rel=1e-4)
    assert lower / at == pytest.approx(2, rel=0.05)


def test_at_the_critical_batch_steps_and_tokens_are_twice_the_least() -> None:
    values = known_values("steps")
    steps = float(LAWS["steps"].predict(values, {"batch_tokens": np.array(1e6)}))
    assert steps == pytest.approx(2 * 3e3)
    tokens, least = steps * 1e6, 3e3 * 1e6
    assert (steps / 3e3 - 1) * (tokens / least - 1) == pytest.approx(1)


def test_loss_to_loss_is_exact_between_two_power_laws_of_compute() -> None:
    """With L0 = E0 + a C^-p and L1 = E1 + b C^-q: kappa = q/p and K = b a^-kappa."""
    compute = np.geomspace(1e18, 1e22, 9)
    source, target = 1.5 + 300 * compute**-0.13, 0.8 + 900 * compute**-0.169
    kappa = 0.169 / 0.13
    values = np.array([0.8, 900 * 300**-kappa, kappa, 1.5])
    np.testing.assert_allclose(
        LAWS["loss_to_loss"].predict(values, {"source_loss": source}), target, rtol=1e-9
    )
