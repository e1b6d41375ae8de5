"""Of any number of workers one has a task; one that falls silent loses it, and wakes to that."""

import os
import time
from pathlib import Path

from scaling.sweep.claims import Claims

LEASE = 0.3


def taken_after(claims: Claims, task: str, seconds: float) -> bool:
    """Whether the task is given to `claims` before so many seconds are over."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if (claim := claims.take(task)) is not None:
            with claim:
                return True
        time.sleep(0.02)
    return False


def test_a_task_is_given_to_one_and_again_when_it_is_released(tmp_path: Path) -> None:
    first, second = Claims(tmp_path, lease_seconds=LEASE), Claims(tmp_path, lease_seconds=LEASE)
    claim = first.take("w016")
    assert claim is not None
    with claim:
        assert second.take("w016") is None
        assert not taken_after(second, "w016", 3 * LEASE)
        assert not claim.lost()
        other = second.take("w024")
        assert other is not None
        with other:
            assert first.take("w024") is None
    assert taken_after(second, "w016", 0.1)
    assert list(tmp_path.iterdir()) == []


def test_a_claim_whose_owner_fell_silent_is_taken_and_the_owner_sees_it(tmp_path: Path) -> None:
    silent, other = Claims(tmp_path, lease_seconds=LEASE), Claims(tmp_path, lease_seconds=LEASE)
    claim = silent.take("w016")  # never entered: it does not beat
    assert claim is not None
    assert not taken_after(other, "w016", LEASE / 2)
    taken = None
    limit = time.monotonic() + 10 * LEASE
    while taken is None and time.monotonic() < limit:
        taken = other.take("w016")
        time.sleep(0.02)
    assert taken is not None
    with taken:
        assert claim.lost()
        with claim:  # it wakes, and beats again
            time.sleep(2 * LEASE / 6)
            assert claim.lost()
        assert not taken.lost()


def test_clocks_that_are_an_hour_off_steal_nothing(tmp_path: Path) -> None:
    owner, other = Claims(tmp_path, lease_seconds=LEASE), Claims(tmp_path, lease_seconds=LEASE)
    claim = owner.take("w016")
    assert claim is not None
    with claim:
        [path] = tmp_path.glob("*.claim")
        for hour in (-3600, 3600):
            os.utime(path, (time.time() + hour,) * 2)
            assert not taken_after(other, "w016", 2 * LEASE)
