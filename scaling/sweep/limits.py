"""How much one command may spend before it stops, everything kept."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scaling.sweep.tasks import Task
from scaling.train.loop import Stopped


@dataclass
class Limits:
    """Limits of one command: FLOPs by `scaling.counts.flops_6nd`, and hours by the wall.

    A task is not started that would pass one of them; its time is taken from the FLOPs per second
    of the tasks before it, so that of the first is not foreseen. Whatever runs when the hours are
    over is stopped there. A task that goes on from a state counts whole, and so
    does one that is given up.
    """

    flops: float | None = None
    hours: float | None = None
    spent: float = 0.0
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._began = self.clock()

    @property
    def elapsed(self) -> float:
        """Seconds since the command began."""
        return self.clock() - self._began

    def over(self) -> bool:
        """Whether the hours are over."""
        return self.hours is not None and self.elapsed >= 3600 * self.hours

    def admit(self, task: Task, left: Sequence[Task]) -> None:
        """Count a task that comes next.

        Raises:
          Stopped: it would pass a limit; what is `left` is told.
        """
        rest = f"{len(left)} tasks are left, {sum(one.flops for one in left):.3g} FLOPs"
        if self.flops is not None and self.spent + task.flops > self.flops:
            raise Stopped(
                f"stopped before {task.name}, whose {task.flops:.3g} FLOPs would pass "
                f"--max_flops={self.flops:.3g} ({self.spent:.3g} are spent); {rest}"
            )
        expected = self.elapsed * task.flops / self.spent if self.spent else 0.0
        if self.hours is not None and self.elapsed + expected > 3600 * self.hours:
            raise Stopped(
                f"stopped before {task.name}, which takes about {expected / 3600:.2g} hours and "
                f"would pass --max_hours={self.hours:g} ({self.elapsed / 3600:.2g} are over); "
                f"{rest}"
            )
        self.spent += task.flops
