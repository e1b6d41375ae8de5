"""The watchdog: a run that finishes no step for too long says where it stands, and ends."""

import contextlib
import faulthandler
import os
import threading
from pathlib import Path
from types import TracebackType

STALLED = 124
"""Exit status of a run that the watchdog ended, as `timeout` has it."""
LAST_WORDS_SECONDS = 10.0
"""How long a report may take: the disk or the terminal may be what hangs."""


class Watchdog:
    """Ends the process with status 124 when it was not fed for `seconds`.

    First the stacks of all threads go to `report` and to the standard error. Time is counted in
    slices of a second at most, so that a process that was stopped and continued is not charged for
    the time that it could not run. It bites while the main thread waits in compiled code, as long
    as that has released Python's interpreter lock; waiting for a device does.
    """

    def __init__(self, seconds: float, *, report: Path) -> None:
        self._meals = 0
        self._slice = min(1.0, seconds / 10)
        self._limit = round(seconds / self._slice)
        self._seconds, self._report = seconds, report
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.set()
        self._thread.join()

    def fed(self) -> None:
        """A step was finished: count from here."""
        self._meals += 1

    def _watch(self) -> None:
        slices = meals = 0
        while not self._closed.wait(self._slice):
            # Each counter is written by one thread alone, so that no meal can get lost.
            slices = slices + 1 if meals == self._meals else 0
            meals = self._meals
            if slices >= self._limit:
                self._bite()

    def _bite(self) -> None:
        threading.Timer(LAST_WORDS_SECONDS, os._exit, (STALLED,)).start()
        words = (
            f"no step was finished in {self._seconds:g} seconds, as runtime.watchdog_seconds "
            "allows; the run ends here, and the same command goes on from its newest checkpoint\n"
        )
        with contextlib.suppress(OSError), self._report.open("w", encoding="utf-8") as file:
            file.write(words)
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)
        with contextlib.suppress(OSError):
            os.write(2, f"{words}stacks of all threads, kept in {self._report}:\n".encode())
            faulthandler.dump_traceback(2, all_threads=True)
        os._exit(STALLED)
