"""The watchdog: it bites in compiled code, says where, and spares what moves or was stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scaling.train.watchdog import STALLED, Watchdog

ASLEEP = """
import sys, time
from pathlib import Path
from scaling.train.watchdog import Watchdog
with Watchdog(0.3, report=Path(sys.argv[1])) as dog:
    def stuck():
        time.sleep(60)
    stuck()
"""
DEVICE = """
import sys
from pathlib import Path
import jax
from scaling.train.watchdog import Watchdog
endless = jax.jit(lambda x: jax.lax.while_loop(lambda x: x < 1, lambda x: x * 0.5, x))
compiled = endless.lower(0.5).compile()
with Watchdog(0.5, report=Path(sys.argv[1])):
    compiled(0.5).block_until_ready()
"""
PAUSED = """
import sys, time
from pathlib import Path
from scaling.train.watchdog import Watchdog
with Watchdog(1.0, report=Path(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(0.5)
"""


@pytest.mark.parametrize(("program", "place"), [(ASLEEP, "in stuck"), (DEVICE, "<module>")])
def test_a_run_that_stands_still_ends_with_the_stacks_of_its_threads(
    program: str, place: str, tmp_path: Path
) -> None:
    report = tmp_path / "stalled.txt"
    done = subprocess.run(
        [sys.executable, "-c", program, str(report)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == STALLED
    for text in (report.read_text(), done.stderr):
        assert "no step was finished in 0." in text
        assert place in text


def test_a_report_that_cannot_be_written_delays_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASLEEP, str(tmp_path / "absent" / "stalled.txt")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == STALLED
    assert "in stuck" in done.stderr


def test_a_run_that_moves_is_left_alone(tmp_path: Path) -> None:
    report = tmp_path / "stalled.txt"
    with Watchdog(0.5, report=report) as dog:
        for _ in range(10):
            time.sleep(0.1)
            dog.fed()
    assert not report.exists()


def test_time_that_a_stopped_process_could_not_use_is_not_counted(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", PAUSED, str(tmp_path / "stalled.txt")],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    os.kill(child.pid, signal.SIGSTOP)
    time.sleep(2.0)
    os.kill(child.pid, signal.SIGCONT)
    assert child.wait(timeout=30) == 0
    child.stdout.close()
