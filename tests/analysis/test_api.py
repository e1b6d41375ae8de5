"""The analysis in a few words, as a notebook has it."""

import re
import subprocess
import sys

import matplotlib.figure
import numpy as np
import pytest

import scaling.analysis
from scaling.analysis import LAWS, fit, load, plot


@pytest.fixture(scope="module")
def law(known):
    return fit(known.runs(noise=0.003), "chinchilla", bootstrap=50)


def test_the_words_of_the_docstring_do_what_it_says(known, tmp_path):
    runs = known.runs(noise=0.003)
    rows = np.column_stack([runs.params, runs.tokens, runs.loss])
    np.savetxt(tmp_path / "runs.csv", rows, delimiter=",", header="params,tokens,loss", comments="")
    example = re.search(r"( {4}from .*)\n\nCounts", scaling.analysis.__doc__, re.DOTALL)[1]
    text = re.sub(r"^ {4}", "", example, flags=re.MULTILINE).replace(
        '"runs.csv"', f'"{tmp_path}/runs.csv"'
    )
    names: dict = {}
    exec(text, names)
    best = names["law"].optimum(5.76e23)
    assert float(6 * best.params * best.tokens) == pytest.approx(5.76e23)
    assert names["law"].optimum_samples(5.76e23).params.shape == (1000,)


def test_fit_stays_a_function_however_its_file_is_imported():
    program = """
import scaling.analysis.fit
from scaling.sweep import study
from scaling.analysis import fit, load, plot
assert callable(fit) and callable(load) and callable(plot)
from scaling.analysis.fit import fit as again
assert again is fit
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_fit_and_load_come_without_matplotlib_and_the_package_without_jax():
    program = """
import sys
import scaling
assert not {"jax", "numpy", "matplotlib"} & sys.modules.keys()
from scaling.analysis import fit, load
assert "matplotlib" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_word_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'plt'"):
        scaling.analysis.plt  # noqa: B018


def test_plot_shows_runs_frontier_and_residuals_and_a_notebook_can_draw_it(law):
    figure = plot(law)
    assert isinstance(figure, matplotlib.figure.Figure)
    titles = " ".join(axes.get_title(loc="left") for axes in figure.axes)
    for part in ("equal compute", "optimal loss", "optimal size", "gainst size"):
        assert part in titles
    assert figure._repr_png_()[:8] == b"\x89PNG\r\n\x1a\n"


def test_plot_of_a_law_of_other_things_shows_what_it_fits(tmp_path):
    loss = np.linspace(2, 4, 20)
    accuracy = 0.9 - 0.65 / (1 + np.exp(-3 * (loss - 2.8)))
    np.savetxt(
        tmp_path / "tasks.csv",
        np.column_stack([loss, accuracy]),
        delimiter=",",
        header="loss,accuracy",
        comments="",
    )
    runs = load(tmp_path / "tasks.csv", needed=("loss", "accuracy"))
    figure = plot(fit(runs, "accuracy", bootstrap=20))
    assert len(figure.axes) >= 2


def test_every_law_gives_equation_units_and_source():
    for form in LAWS.values():
        assert form.equation
        assert re.search(r"\b(19|20)\d\d\b", form.reference)
        assert all(parameter.unit for parameter in form.parameters)
