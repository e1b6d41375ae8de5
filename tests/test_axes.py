"""The alphabet: everything that follows from a declaration."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.axes import ALPHABET, fan_in, parse, role, shape

LENGTHS = {"D": 24, "F": 40, "N": 4, "K": 2, "H": 10, "V": 64, "T": 9, "C": 3}


@pytest.mark.parametrize(
    ("declaration", "expected_shape", "expected_fan_in", "expected_role"),
    [
        ("D->F", (24, 40), 24, "hidden"),
        ("D->NH", (24, 4, 10), 24, "hidden"),
        ("NH->D", (4, 10, 24), 40, "hidden"),
        ("D->D'", (24, 24), 24, "hidden"),
        ("V->D", (64, 24), 1, "input"),
        ("T->D", (9, 24), 1, "input"),
        ("C->D", (3, 24), 1, "input"),
        ("D->V", (24, 64), 24, "output"),
        ("D->C", (24, 3), 24, "output"),
        ("->D", (24,), 1, "vector"),
    ],
)
def test_shape_fan_in_and_role_follow_from_the_letters(
    declaration: str, expected_shape: tuple[int, ...], expected_fan_in: int, expected_role: str
) -> None:
    axes = parse(declaration)
    assert shape(axes, LENGTHS) == expected_shape
    assert fan_in(axes, LENGTHS) == expected_fan_in
    assert role(axes) == expected_role


@given(st.permutations(sorted(ALPHABET)), st.integers(0, 3), st.integers(1, 3))
def test_any_distinct_letters_survive_parsing(
    letters: list[str], inputs: int, outputs: int
) -> None:
    left, right = "".join(letters[:inputs]), "".join(letters[inputs : inputs + outputs])
    axes = parse(f"{left}->{right}")
    assert "".join(axes.inputs) == left
    assert "".join(axes.outputs) == right


@pytest.mark.parametrize(
    ("declaration", "complaint"),
    [
        ("D", "arrows"),
        ("D->F->D", "arrows"),
        ("D->Q", "not in the alphabet"),
        ("'D->F", "not in the alphabet"),
        ("D->D", "twice"),
        ("D->", "no outputs"),
    ],
)
def test_a_wrong_declaration_is_refused_with_its_reason(declaration: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse(declaration)
