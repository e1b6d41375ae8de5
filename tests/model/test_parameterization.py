"""Parameterizations: multipliers by role, and what stays the same when a model grows."""

import math

import numpy as np
import pytest

from scaling.axes import parse
from scaling.model.parameterization import (
    DEPTH_KNOWN,
    NAMES,
    RATE_EXPONENTS,
    Parameterization,
    standard,
)

BASE = {"D": 24, "F": 56, "N": 3, "K": 3, "H": 8, "L": 5, "V": 97, "T": 13}
WIDE = BASE | {"D": 96, "F": 224, "N": 12, "K": 12}
DEEP = WIDE | {"L": 15}
WEIGHTS = ("D->F", "F->D", "D->NH", "NH->D", "V->D", "D->V", "->D", "->V", "->H")


def make(name: str, lengths: dict[str, int]) -> Parameterization:
    return Parameterization(
        name=name, lengths=lengths, base_width=24, base_depth=5, base_head_width=8, tied=False
    )


@pytest.mark.parametrize("optimizer", RATE_EXPONENTS)
@pytest.mark.parametrize("name", NAMES)
def test_every_parameterization_is_standard_at_its_base(name: str, optimizer: str) -> None:
    if name == "completep" and optimizer not in DEPTH_KNOWN:
        return  # refused, as another test claims
    at_base, plain = make(name, BASE), standard(BASE)
    for declaration in WEIGHTS:
        scale = at_base.scale(parse(declaration), optimizer=optimizer)
        assert scale == pytest.approx(plain.scale(parse(declaration), optimizer=optimizer))
    assert at_base.attention_scale == pytest.approx(plain.attention_scale)
    assert (at_base.residual_scale, at_base.output_scale) == (1.0, 1.0)


def test_mup_at_four_times_the_width_has_the_multipliers_of_its_table() -> None:
    wide = make("mup", WIDE)
    rates = {text: wide.scale(parse(text)).rate for text in WEIGHTS}
    assert {text for text, rate in rates.items() if rate == 0.25} == {
        "D->F", "F->D", "D->NH", "NH->D",
    }  # fmt: skip
    assert {rate for rate in rates.values() if rate != 0.25} == {1.0}
    assert (wide.output_scale, wide.residual_scale) == (0.25, 1.0)
    assert wide.scale(parse("D->V")).deviation == pytest.approx(24**-0.5)
    assert wide.scale(parse("D->F")).deviation == pytest.approx(96**-0.5)
    assert wide.scale(parse("V->D")).deviation == standard(BASE).scale(parse("V->D")).deviation


def test_muon_takes_one_rate_at_every_width_and_sgd_raises_all_but_hidden_ones() -> None:
    wide = make("mup", WIDE)
    assert {wide.scale(parse(text), optimizer="muon").rate for text in WEIGHTS} == {1.0}
    sgd = {text: wide.scale(parse(text), optimizer="sgd").rate for text in WEIGHTS}
    assert {text for text, rate in sgd.items() if rate == 4.0} == {"V->D", "D->V", "->D"}


def test_completep_scales_branches_by_depth_and_adams_epsilon_by_both() -> None:
    deep = make("completep", DEEP)
    assert deep.residual_scale == pytest.approx(1 / 3)
    assert deep.scale(parse("D->F")).epsilon == pytest.approx(1 / 12)
    assert deep.scale(parse("->D")).epsilon == pytest.approx(1 / 12)
    assert deep.scale(parse("V->D")).epsilon == pytest.approx(1 / 4)
    assert deep.scale(parse("D->F")).rate == make("mup", WIDE).scale(parse("D->F")).rate


@pytest.mark.parametrize("name", NAMES)
def test_look_ups_and_vectors_do_not_decay(name: str) -> None:
    decays = {text: make(name, DEEP).scale(parse(text)).decay for text in WEIGHTS}
    assert {text for text, decay in decays.items() if decay == 0} == {"V->D", "->D", "->V", "->H"}
    assert set(decays.values()) == {0.0, 1.0}


@pytest.mark.parametrize("factor", [2, 8])
def test_one_step_of_sign_descent_moves_mup_logits_alike_at_every_width(factor: int) -> None:
    def moved(width: int) -> float:
        lengths = BASE | {"D": width}
        mup = Parameterization(
            name="mup", lengths=lengths, base_width=64, base_depth=5, base_head_width=8, tied=False
        )
        generator = np.random.default_rng(0)
        x, target = np.ones(width), np.ones(1)
        hidden_scale, head_scale = mup.scale(parse("D->D'")), mup.scale(parse("D->V"))
        head = generator.normal(size=(width, 1)) * head_scale.deviation
        gradient = np.outer(x, head @ target)
        step = 0.1 * hidden_scale.rate * np.sign(gradient)
        return float(np.abs((x @ step) @ head * mup.output_scale).item())

    assert moved(64 * factor) == pytest.approx(moved(64), rel=0.2)


@pytest.mark.parametrize(
    ("name", "optimizer", "declaration"),
    [("completep", "sgd", "D->F"), ("completep", "adafactor", "D->F"), ("mup", "adamw", "D->R")],
)
def test_what_theory_does_not_cover_is_refused(name: str, optimizer: str, declaration: str) -> None:
    with pytest.raises(ValueError, match="no known"):
        make(name, DEEP).scale(parse(declaration), optimizer=optimizer)


def test_attention_follows_head_width_from_the_base_on() -> None:
    heads = make("mup", BASE | {"H": 32})
    assert heads.attention_scale == pytest.approx(math.sqrt(8) / 32)


@pytest.mark.parametrize(("name", "base"), [("ntk", 24), ("mup", 0)])
def test_an_unknown_name_or_base_is_refused(name: str, base: int) -> None:
    with pytest.raises(ValueError, match="parameterization"):
        Parameterization(
            name=name, lengths=BASE, base_width=base, base_depth=5, base_head_width=8, tied=True
        )
