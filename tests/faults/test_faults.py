"""A few faults of every kind: nothing is lost, and nothing wrong is taken for right."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent / "faults.py"


def faults(*arms: str, environment: dict[str, str]) -> dict[str, Any]:
    """The report of the script, which must have passed."""
    found = subprocess.run(
        [sys.executable, str(SCRIPT), *arms],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert found.returncode == 0, found.stdout + found.stderr[-3000:]
    return json.loads(found.stdout.splitlines()[-1])["arms"]


def test_no_damage_to_a_checkpoint_goes_unnoticed_where_orbax_alone_restores_it_wrong(
    user_environment: dict[str, str],
) -> None:
    arms = faults("--flips=30", "--damages=20", "--full=6", environment=user_environment)
    assert arms["flips"]["ours"] == {"named and stepped back": 30}
    assert arms["flips"]["orbax_alone"]["silently wrong"] > 15
    assert arms["damages"]["both_steps"] == {"refused": 2}
    assert arms["full"]["refused, older intact"] > 0


@pytest.mark.slow
def test_workers_that_race_leave_each_cell_one_result(user_environment: dict[str, str]) -> None:
    arms = faults("--workers=6", environment=user_environment)
    assert arms["workers"]["whole"] == 6
    assert arms["workers"]["kills"] > 0


@pytest.mark.slow
def test_runs_that_are_killed_or_stopped_end_in_the_same_bits(
    user_environment: dict[str, str],
) -> None:
    arms = faults("--kills=3", "--terms=5", environment=user_environment)
    assert arms["kills"]["bitwise_equal"] == 3
    assert arms["terms"]["bitwise_equal"] == 6


@pytest.mark.slow
def test_bad_batches_are_skipped_and_a_run_moves_between_meshes(
    user_environment: dict[str, str],
) -> None:
    arms = faults("--bad=1", "--meshes=1", environment=user_environment)
    assert arms["meshes"]["bitwise_equal"] == arms["meshes"]["restores"] == 4
    assert arms["meshes"]["data_order_equal"] == 1
