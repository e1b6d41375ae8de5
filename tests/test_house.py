"""Claims about the house: names, lengths, imports, and a README that tells the truth about them."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parent.parent
CODE = ("scaling", "configs", "tests")
TEXT = {".md", ".py", ".toml", ".sh", ".txt", ".ipynb"}
RUNS_WHAT_IT_READS = {"pickle", "dill", "cloudpickle", "shelve", "marshal"}
NEVER_IMPORTED = ("tensorflow", "torch", "transformers", "pandas", "wandb", "optuna")


def sources(*folders: str) -> list[Path]:
    """Python files below these folders of the repository, in a stable order."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name(path: Path) -> str:
    """A file's path inside the repository."""
    return path.relative_to(ROOT).as_posix()


def readme() -> str:
    """The README's text."""
    return (ROOT / "README.md").read_text(encoding="utf-8")


def tree_entries(text: str) -> Iterator[PurePosixPath]:
    """Paths named in the README's tree: the fenced block that has a line for pyproject.toml.

    One entry a line; a folder ends in a slash; indentation (or box-drawing lines) says what holds
    what; two blanks part the name from its annotation. A line indented by 24 or more continues an
    annotation. An entry with a placeholder such as <date> stands for many: it and what it holds are
    left out.
    """
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    trees = [block for block in blocks if re.search(r"^\W*pyproject\.toml\b", block, re.MULTILINE)]
    assert len(trees) == 1, f"found {len(trees)} blocks with a line for pyproject.toml, required 1"
    holders: list[tuple[int, PurePosixPath | None]] = []
    for line in re.sub(r"[│├└─]", " ", trees[0]).splitlines():
        entry = re.match(r"^( {0,23})([^\s/]\S*)(?:  .*)?$", line)
        if not entry:
            continue
        depth = len(entry[1])
        holders = [holder for holder in holders if holder[0] < depth]
        above = holders[-1][1] if holders else PurePosixPath()
        path = None if above is None or "<" in entry[2] else above / entry[2]
        if path is not None:
            yield path
        if entry[2].endswith("/"):
            holders.append((depth, path))


def test_readme_tree_names_only_what_stands() -> None:
    missing = [str(path) for path in tree_entries(readme()) if not (ROOT / path).exists()]
    assert not missing, f"the README's tree names {missing}, which do not exist; mend the tree"


def test_readme_tree_names_every_module() -> None:
    modules = {name(path) for path in sources("scaling") if path.name != "__init__.py"}
    unnamed = sorted(modules - {str(path) for path in tree_entries(readme())})
    assert not unnamed, f"the README's tree does not name {unnamed}; add a line for each"


def test_readme_gives_two_commands_that_each_set_themselves_up() -> None:
    commands = re.findall(r"^ *(python3 -m venv \.venv && .*)$", readme(), flags=re.MULTILINE)
    ends = [command.rpartition(" && ")[2] for command in commands]
    assert ends == [".venv/bin/scaling quickstart", ".venv/bin/python -m pytest"]


def test_no_text_tells_to_install_the_stranger_named_scaling() -> None:
    stranger = re.compile(r"\bpip3? +install\s+(?:-\S+\s+)*['\"]?scaling(?![\w-])")
    folders = (*CODE, ".ci", "experiments", "benchmarks")
    files = [*ROOT.iterdir(), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    texts = [path for path in files if path.is_file() and path.suffix in {*TEXT, ""}]
    guilty = [name(path) for path in texts if stranger.search(path.read_text(encoding="utf-8"))]
    assert not guilty, f"{guilty} would install another project; the distribution is scaling-laws"


def test_no_file_is_a_room_for_leftovers() -> None:
    rooms = {"utils", "util", "helpers", "helper", "common", "misc"}
    guilty = [name(path) for path in sources(*CODE) if rooms & {path.stem, path.parent.name}]
    assert not guilty, f"{guilty}: name the file after its one noun"


def test_no_source_file_outgrows_its_room() -> None:
    files = [*sources(*CODE), ROOT / "tpu_setup.sh"]
    lengths = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    long = {file: lines for file, lines in lengths.items() if lines > 450}
    assert not long, f"{long}: over 450 lines another noun is hiding; give it a file of its own"


@pytest.mark.parametrize("path", sources("scaling", "configs"), ids=name)
def test_module_never_unpickles(path: Path) -> None:
    """Records, laws and token shards come from strangers; to unpickle one is to run it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert ast.unparse(node.value) == "False", f"line {node.value.lineno}: allow_pickle"
        found = RUNS_WHAT_IT_READS & {module.partition(".")[0] for module in modules}
        assert not found, f"imports {found}; keep data as JSON or plain arrays"


def test_training_imports_no_other_framework() -> None:
    program = f"""
import json, sys
import scaling.run
print(json.dumps([name for name in {NEVER_IMPORTED} if name in sys.modules]))
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == []


def test_every_dependency_has_a_floor_and_an_upper_bound() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = dict(project["optional-dependencies"])
    # The accelerator extras add plug-ins to a jax whose window is stated in the core.
    assert extras.pop("cuda") == ["jax[cuda12]"]
    assert extras.pop("tpu") == ["jax[tpu]"]
    stated = [*project["dependencies"], *(text for extra in extras.values() for text in extra)]
    bounded = re.compile(r"^[\w-]+>=[\d.]+,<[\d.]+$|^scaling-laws\[")
    loose = [text for text in stated if not bounded.match(text)]
    assert not loose, f"{loose}: state the window that was tested, as in name>=1.0,<2"
