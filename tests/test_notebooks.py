"""The notebooks run from top to bottom, and the file for Colab is the text's own."""

from pathlib import Path

import jupytext
import nbclient
import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
TINY = [
    "corpus.languages=es",
    "model.context_tokens=16",
    "batch_tokens=128",
    "study.budgets_flops=(6e8,1.2e9,2.4e9)",
    "study.widths=((16,24,32),(16,24,32),(16,24,32))",
    "study.target_flops=8e9",
    "study.bootstrap_samples=100",
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_quickstart_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    text = (ROOT / "notebooks" / "quickstart.py").read_text(encoding="utf-8")
    switch = "OVERRIDES: list[str] = []"
    assert switch in text
    notebook = jupytext.reads(text.replace(switch, f"OVERRIDES = {TINY!r}"), fmt="py:percent")
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    assert "90% interval" in str(outputs[-1])


def test_the_file_for_colab_is_the_text_of_the_notebook() -> None:
    text = jupytext.read(ROOT / "notebooks" / "quickstart.py")
    colab = nbformat.read(ROOT / "notebooks" / "quickstart.ipynb", as_version=4)
    assert [(cell.cell_type, cell.source) for cell in colab.cells] == [
        (cell.cell_type, cell.source) for cell in text.cells
    ]
