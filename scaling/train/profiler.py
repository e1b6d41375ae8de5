"""A profile of a few steps of a run, to be opened in XProf, TensorBoard or Perfetto."""

from pathlib import Path
from types import TracebackType

import jax


class Profiler:
    """Traces the steps numbered from `steps[0]` to `steps[1]` into `folder`, once.

    Steps count from 1. Those of the dispatches just before and after can be on the trace in part.
    """

    def __init__(self, steps: tuple[int, int] | tuple[()], *, folder: Path) -> None:
        self._first, self._last = steps or (-1, -1)
        self._folder, self._tracing, self._over = folder, False, not steps

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def begin(self, step: int) -> None:
        """Step number `step` comes next; more may be dispatched with it."""
        if not self._over and not self._tracing and self._first <= step <= self._last:
            jax.profiler.start_trace(self._folder)
            self._tracing = True

    def finished(self, step: int) -> None:
        """The devices have finished step number `step`."""
        if step >= self._last:
            self._stop()

    def _stop(self) -> None:
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing, self._over = False, True
