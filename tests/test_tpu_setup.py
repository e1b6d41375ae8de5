"""Claims about tpu_setup.sh, run in a folder where Python and pip only say what they would do."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "tpu_setup.sh"
# Answers as a Python inside the window, makes .venv out of itself, writes down every call.
PYTHON = """#!/bin/bash
echo "$*" >>"{log}"
case "$1 $2" in
  "--version ") echo "Python 3.12.1" ;;
  "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip") exit {pip_status} ;;
esac
"""


@dataclass(frozen=True)
class Machine:
    """A folder that holds the script, and the only programs that it can find."""

    folder: Path
    programs: Path
    log: Path

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the script with nothing in its environment but PATH and what the test sets."""
        return subprocess.run(
            ["/bin/bash", "tpu_setup.sh", *arguments],
            cwd=self.folder,
            env={"PATH": str(self.programs), **environment},
            capture_output=True,
            text=True,
        )

    def program(self, name: str, text: str) -> None:
        """Put a program on the machine's PATH."""
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def calls(self) -> list[str]:
        """What the stand-in interpreters were asked to make or install, in order."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if line.startswith("-m ")]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with Python 3.12 and no accelerator of its own."""
    made = Machine(tmp_path / "clone", tmp_path / "bin", tmp_path / "log")
    made.folder.mkdir()
    made.programs.mkdir()
    shutil.copy(SCRIPT, made.folder)
    (made.folder / "pyproject.toml").write_text("[project]\n")
    for name in ("dirname", "cat", "cksum", "grep", "mkdir", "cp"):
        found = shutil.which(name)
        assert found is not None, f"this test needs the program {name}"
        (made.programs / name).symlink_to(found)
    made.program("python3.12", PYTHON.format(log=made.log, pip_status=0))
    return made


def test_dry_run_says_every_step_and_changes_nothing(machine: Machine) -> None:
    before = sorted(machine.folder.iterdir())
    answer = machine.run("--accelerator=tpu", "--dry_run")
    assert answer.returncode == 0, answer.stderr
    assert "+ python3.12 -m venv .venv" in answer.stdout
    assert "+ .venv/bin/python -m pip install --quiet --editable .[tpu]" in answer.stdout
    assert answer.stdout.endswith("next: .venv/bin/scaling quickstart\n")
    assert sorted(machine.folder.iterdir()) == before
    assert machine.calls() == []


def test_second_run_makes_and_installs_nothing(machine: Machine) -> None:
    assert machine.run("--accelerator=cpu").returncode == 0
    first = machine.calls()
    assert first == ["-m venv .venv", "-m pip install --quiet --editable ."]
    answer = machine.run("--accelerator=cpu")
    assert answer.returncode == 0
    assert "kept: .venv (Python 3.12.1)" in answer.stdout
    assert machine.calls() == first


@pytest.mark.parametrize("change", ["another accelerator", "other dependencies"])
def test_what_changed_is_installed_into_the_same_environment(machine: Machine, change: str) -> None:
    machine.run("--accelerator=cpu")
    if change == "other dependencies":
        (machine.folder / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    machine.run("--accelerator=cpu" if change == "other dependencies" else "--accelerator=cuda")
    assert [call.split()[1] for call in machine.calls()] == ["venv", "pip", "pip"]


def test_failed_installation_is_tried_again(machine: Machine) -> None:
    machine.program("python3.12", PYTHON.format(log=machine.log, pip_status=1))
    assert machine.run("--accelerator=cpu").returncode != 0
    assert machine.run("--accelerator=cpu").returncode != 0
    assert [call.split()[1] for call in machine.calls()] == ["venv", "pip", "pip"]


def test_accelerator_is_found_on_the_machine(machine: Machine) -> None:
    assert "accelerator: tpu" in machine.run("--dry_run", TPU_NAME="v5e-8").stdout
    machine.program("nvidia-smi", "#!/bin/bash\nexit 9\n")
    without = machine.run("--dry_run").stdout
    machine.program("nvidia-smi", "#!/bin/bash\n")
    with_driver = machine.run("--dry_run").stdout
    if "accelerator: tpu" in without:
        pytest.skip("this machine has a TPU, which goes before a GPU")
    assert "accelerator: cpu" in without
    assert "accelerator: cuda" in with_driver


def test_python_that_does_not_work_is_passed_over(machine: Machine) -> None:
    machine.program("python3", "#!/bin/bash\nexit 127\n")
    assert "+ python3.12 -m venv .venv" in machine.run("--dry_run", "--accelerator=cpu").stdout


def test_machine_without_a_python_in_the_window_is_told_what_to_install(machine: Machine) -> None:
    machine.program("python3.12", "#!/bin/bash\nexit 1\n")
    answer = machine.run("--dry_run", "--accelerator=cpu")
    assert answer.returncode == 1
    assert "sudo apt-get install python3.11 python3.11-venv" in answer.stderr


def test_environment_that_no_longer_works_is_refused_and_kept(machine: Machine) -> None:
    (machine.folder / ".venv").mkdir()
    answer = machine.run("--accelerator=cpu")
    assert answer.returncode == 1
    assert "rm -r .venv" in answer.stderr
    assert (machine.folder / ".venv").is_dir()


@pytest.mark.parametrize("option", ["--dryrun", "--accelerator=npu", "quickstart"])
def test_unknown_option_is_named_and_exits_with_2(machine: Machine, option: str) -> None:
    answer = machine.run(option)
    assert answer.returncode == 2
    assert f"unknown option '{option}'" in answer.stderr
    assert machine.calls() == []


def test_help_explains_every_option(machine: Machine) -> None:
    answer = machine.run("--help")
    assert answer.returncode == 0
    assert all(option in answer.stdout for option in ("--accelerator", "--dry_run", "--help"))
