import dataclasses
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from scaling.analysis.fit import fit
from scaling.analysis.fitted import FitError
from scaling.runs import Dropped, load

PUBLISHED = Path(__file__).parents[3] / "shared" / "published" / "chinchilla_fig4.csv"


def test_fit_recovers_a_known_law_exactly_without_noise(known):
    law = fit(known.runs(), bootstrap=20)
    np.testing.assert_allclose(law.values, known.values, rtol=1e-6)
    assert law.diagnostics["warnings"] == []
    assert len(repr(law)) < 300
    assert "alpha=0.35" in repr(law)


@pytest.mark.parametrize("bad", [{3: 0.05}, {3: 10.8, 11: 1.15}])
def test_a_few_bad_runs_cannot_carry_the_fit(known, bad):
    runs = known.runs(noise=0.005)
    clean = fit(runs, bootstrap=20)
    factors = np.ones(len(runs))
    factors[list(bad)] = list(bad.values())
    law = fit(dataclasses.replace(runs, loss=runs.loss * factors), bootstrap=20)
    assert law.objective["delta"] < 3 * clean.objective["delta"]
    # Near the runs it says what it says without them, within the noise of the fit.
    at = runs.params[4:8], runs.tokens[4:8]
    np.testing.assert_allclose(law.predict(*at), clean.predict(*at), rtol=0.01)
    assert abs(law.params["alpha"] / clean.params["alpha"] - 1) < 0.5


def test_a_search_from_random_starts_finds_nothing_lower(known):
    runs = known.runs(noise=0.005)
    law = fit(runs, bootstrap=20)
    delta = law.objective["delta"]

    def objective(x: np.ndarray) -> float:
        e, a, b, alpha, beta = x
        terms = [np.full(20, e), a - alpha * np.log(runs.params), b - beta * np.log(runs.tokens)]
        r = np.abs(np.log(runs.loss) - np.logaddexp.reduce(terms, axis=0))
        return float(np.sum(np.where(r <= delta, r * r / 2, delta * (r - delta / 2))))

    rng = np.random.default_rng(0)
    best = min(
        scipy.optimize.minimize(
            objective, rng.uniform((-1, 0, 0, 0.1, 0.1), (1, 8, 8, 1, 1)), method="BFGS"
        ).fun
        for _ in range(20)
    )
    assert law.objective["value"] <= best * (1 + 1e-6)
    assert law.objective["value"] == pytest.approx(best, rel=1e-3)


def test_standard_errors_agree_with_the_linear_theory(known):
    runs = known.runs(noise=0.003)
    law = fit(runs, delta=math.inf, bootstrap=1000)
    E, A, B, alpha, beta = law.values
    size, data = runs.params**-alpha, runs.tokens**-beta
    derivatives = [
        np.ones(20),
        size,
        data,
        -A * size * np.log(runs.params),
        -B * data * np.log(runs.tokens),
    ]
    predicted = E + A * size + B * data
    jacobian = np.stack(derivatives, axis=1) / predicted[:, None]
    variance = np.linalg.inv(jacobian.T @ jacobian) * law.diagnostics["residual_sd"] ** 2
    # A t distribution with 15 degrees of freedom is sqrt(15/13) wider than a normal one.
    theory = np.sqrt(np.diag(variance) * 15 / 13)
    for name in ("E", "alpha", "beta"):
        index = law.form.names.index(name)
        assert law.stderr[name] == pytest.approx(theory[index], rel=0.12)


def test_one_bad_run_moves_the_robust_fit_less_than_least_squares(known):
    runs = known.runs(noise=0.003)
    loss = runs.loss.copy()
    loss[7] *= 1.2
    bad = dataclasses.replace(runs, loss=loss)
    larger = known.optimum(3 * known.budgets[-1])
    moved = {}
    for delta in (None, math.inf):
        clean, spoiled = (
            float(fit(each, delta=delta, bootstrap=2).predict(larger.params, larger.tokens))
            for each in (runs, bad)
        )
        moved[delta] = abs(spoiled / clean - 1)
    assert moved[None] < 0.005
    assert moved[None] < moved[math.inf] / 2


def test_runs_from_before_the_power_law_make_the_fit_warn(known):
    runs = known.runs(noise=0.003)
    early = (runs.flops / runs.flops.min()) ** -1.5
    law = fit(dataclasses.replace(runs, loss=runs.loss * (1 - 0.05 * early)), bootstrap=20)
    assert law.diagnostics["trend"]["flops_curvature"]["p_value"] < 0.05
    (warning,) = law.diagnostics["warnings"]
    assert "compute" in warning
    assert "leave them out" in warning


def test_a_law_without_a_floor_warns_that_it_cannot_find_one(known):
    law = fit(dataclasses.replace(known, E=1e-9).runs(noise=0.005), bootstrap=100)
    assert any(text.startswith("E ends on") for text in law.diagnostics["warnings"])


def test_flops_of_another_convention_are_pointed_out(known):
    runs = known.runs(noise=0.005)
    law = fit(dataclasses.replace(runs, flops=runs.flops * 1.3), bootstrap=20)
    assert any("1.3 to 1.3 times 6 * params" in text for text in law.diagnostics["warnings"])


def test_the_same_seed_gives_the_same_law_and_dropped_runs_are_named(known):
    runs = known.runs(noise=0.005)
    runs = dataclasses.replace(runs, dropped=(Dropped("gone", "diverged: loss 1e9 at step 3"),))
    first, again, other = (fit(runs, bootstrap=20, seed=seed) for seed in (0, 0, 1))
    assert first.sha256 == again.sha256
    assert first.params == other.params
    assert first.stderr != other.stderr
    assert first.dropped == [{"run_id": "gone", "reason": "diverged: loss 1e9 at step 3"}]


def test_residuals_hold_every_input_of_the_law(known):
    runs = known.runs(noise=0.005)
    unique = np.where(np.arange(20) % 2, runs.tokens / 4, runs.tokens)
    runs = dataclasses.replace(runs, others={"unique_tokens": unique})
    law = fit(runs, "data_constrained", bootstrap=2, starts=np.array(
        [[1.6, 60, 200, 0.35, 0.36, 5.0, 15.0]]
    ))  # fmt: skip
    assert set(law.form.inputs) == {"params", "tokens", "unique_tokens"}
    entries = law.diagnostics["residuals"]
    for name in (*law.form.inputs, "flops", "loss"):
        np.testing.assert_array_equal([entry[name] for entry in entries], runs.column(name))


def test_residuals_in_the_diagnostics_are_log_loss_less_log_predicted(known):
    law = fit(known.runs(noise=0.005), bootstrap=20)
    entries = law.diagnostics["residuals"]
    for entry in entries:
        assert entry["predicted"] == pytest.approx(
            float(law.predict(entry["params"], entry["tokens"])), rel=1e-9
        )
        assert entry["residual"] == pytest.approx(
            math.log(entry["loss"] / entry["predicted"]), abs=1e-12
        )
    squares = sum(entry["residual"] ** 2 for entry in entries)
    assert law.diagnostics["residual_sd"] == pytest.approx(math.sqrt(squares / 15))
    assert law.diagnostics["gradient_norm"] < 1e-8


def test_a_fit_leaves_jax_in_float32(known):
    fit(known.runs(noise=0.005), bootstrap=2)
    assert jnp.ones(1).dtype == jnp.float32
    assert not jax.config.jax_enable_x64


@pytest.mark.parametrize(
    ("keep", "text"),
    [
        (lambda runs: np.arange(5), r"5 runs cannot determine the 5 parameters.*at least 6"),
        (lambda runs: np.arange(0), r"0 runs cannot"),
    ],
)
def test_too_few_runs_are_refused(known, keep, text):
    runs = known.runs(noise=0.005)
    with pytest.raises(FitError, match=text):
        fit(runs.where(np.isin(np.arange(len(runs)), keep(runs))))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda runs: {"params": np.full(20, 5e4)}, "all 20 runs have params = 50000;.*sizes too"),
        (lambda runs: {"tokens": np.full(20, 1e6)}, r"tokens = 1e\+06;.*lengths too"),
        (lambda runs: {"tokens": 20 * runs.params}, "20 tokens per parameter.*fewer or more"),
        (lambda runs: {"loss": np.full(20, 3.0)}, "loss 3; a law needs a loss that varies"),
    ],
)
def test_runs_that_cannot_tell_the_terms_apart_are_refused(known, change, text):
    runs = known.runs(noise=0.005)
    with pytest.raises(FitError, match=text):
        fit(dataclasses.replace(runs, **change(runs)))


def test_an_unknown_law_is_refused_with_the_known_ones(known):
    with pytest.raises(FitError, match="'newton' is unknown; use one of chinchilla"):
        fit(known.runs(), law="newton")


@pytest.mark.skipif(not PUBLISHED.exists(), reason=f"no published runs at {PUBLISHED}")
@pytest.mark.parametrize(
    ("without_outliers", "minimum"), [(True, 0.0010182740177), (False, 0.0018260105238)]
)
def test_fit_reaches_the_known_minimum_on_the_runs_of_hoffmann_et_al(without_outliers, minimum):
    runs = load(PUBLISHED, columns={"params": "params_n", "tokens": "tokens_d"})
    outlier = np.genfromtxt(PUBLISHED, delimiter=",", names=True)["epoch_dropped_outlier"]
    law = fit(runs.where(outlier == 0) if without_outliers else runs, delta=1e-3, bootstrap=20)
    assert law.n_runs == (240 if without_outliers else 245)
    assert law.objective["value"] <= minimum * (1 + 1e-6)
    assert law.objective["value"] == pytest.approx(minimum, rel=1e-6)


def test_few_runs_determine_less_and_the_verdict_says_so(known):
    runs = known.runs(noise=0.005)
    rng = np.random.default_rng(1)
    kept = rng.permutation(20)
    few = fit(runs.where(np.isin(np.arange(20), kept[:6])), bootstrap=100)
    told = few.diagnostics["identifiability"]
    # One degree of freedom: Student's t at 97.5% is 12.7, and its square half of the rise.
    assert told["threshold"] == pytest.approx(12.706**2 / 2, rel=1e-3)
    assert told["verdict"].startswith("not identified")
    whole = fit(runs, bootstrap=100).diagnostics["identifiability"]
    assert whole["not_identified"] == []


def test_a_parameter_whose_resamples_end_on_a_bound_is_not_identified(known):
    # The profile rises far enough on the way to no floor at all; the resamples go there.
    law = fit(known.runs(noise=0.03, seed=1), bootstrap=200)
    told = law.diagnostics["identifiability"]
    assert told["parameters"]["E"]["profile"]["rise"][0] > told["threshold"]
    assert np.quantile(law.bootstrap["samples"]["E"], 0.025) < 1e-6
    assert told["not_identified"] == ["E"]
    assert "E (only bounded above" in told["verdict"]
