"""The notebooks run from top to bottom, and the files for Colab are the texts' own."""

from pathlib import Path

import jupytext
import nbclient
import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = ROOT.parent / "shared" / "published" / "chinchilla_fig4.csv"
TINY = [
    "corpus.languages=es",
    "model.context_tokens=16",
    "batch_tokens=128",
    "study.budgets_flops=(6e8,1.2e9,2.4e9)",
    "study.widths=((16,24,32),(16,24,32),(16,24,32))",
    "study.target_flops=4e9",
    "study.bootstrap_samples=100",
]


def executed(name: str, folder: Path, **switches: object) -> list[nbformat.NotebookNode]:
    """The outputs of a notebook, run in `folder` with other values for its upper-case names."""
    text = (ROOT / "notebooks" / f"{name}.py").read_text(encoding="utf-8")
    lines = text.splitlines()
    for switch, value in switches.items():
        [line] = [i for i, line in enumerate(lines) if line.split("=")[0].split(":")[0].rstrip()
                  == switch]  # fmt: skip
        lines[line] = f"{switch} = {value!r}"
    notebook = jupytext.reads("\n".join(lines) + "\n", fmt="py:percent")
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def pictures(outputs: list[nbformat.NotebookNode]) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_quickstart_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    outputs = executed("quickstart", tmp_path, OVERRIDES=TINY)
    assert pictures(outputs) == 4
    assert "90% interval" in str(outputs[-1])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_chinchilla_notebook_says_where_its_runs_are_made_up(tmp_path: Path) -> None:
    outputs = executed("chinchilla", tmp_path, RESAMPLES=50)
    text = "".join(output.get("text", "") for output in outputs)
    assert "SYNTHETIC: there is no analyzing-chinchilla/data/svg_extracted_data.csv" in text
    assert "243 made-up runs of known law" in text
    assert "published: 0.001" not in text
    assert "identified: the runs determine every parameter" in text
    assert pictures(outputs) == 1


@pytest.mark.skipif(not PUBLISHED.exists(), reason=f"no published runs at {PUBLISHED}")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_chinchilla_notebook_reproduces_the_published_refit(tmp_path: Path) -> None:
    outputs = executed("chinchilla", tmp_path, TABLE=str(PUBLISHED), RESAMPLES=100)
    text = "".join(output.get("text", "") for output in outputs)
    assert "SYNTHETIC" not in text
    assert "240 runs from" in text
    assert "objective 0.00101827402," in text
    assert "5.76e+23 FLOPs: 73.2B parameters, 1.31T tokens\ntokens per parameter 17.9," in text
    assert pictures(outputs) == 1


@pytest.mark.parametrize("name", ["quickstart", "chinchilla"])
def test_the_file_for_colab_is_the_text_of_the_notebook(name: str) -> None:
    text = jupytext.read(ROOT / "notebooks" / f"{name}.py")
    colab = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    assert [(cell.cell_type, cell.source) for cell in colab.cells] == [
        (cell.cell_type, cell.source) for cell in text.cells
    ]
