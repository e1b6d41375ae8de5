"""A sweep of `grid.py` by the command line, watched from outside."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import grid
from rich.console import Console

from scaling.records import read
from scaling.sweep.launch import launch
from scaling.workshop import Workshop

CONFIG = Path(grid.__file__)
PATIENCE_SECONDS = 150.0
[LONG, *_] = [cell.run_id for cell in grid.get_grid(grid.get_config()).planned]


def local(workdir: Path) -> dict[str, float]:
    """The losses of the same grid, trained in this process."""
    cells = grid.get_grid(grid.get_config())
    made = launch(cells, Workshop(workdir), console=Console(quiet=True), trunks=True)
    return {record.run_id: record.loss for record in made}


def losses(workdir: Path) -> dict[str, float]:
    return {path.stem: read(path).loss for path in (workdir / "records").iterdir()}


def sweep(workdir: Path, *words: str, **environment: str) -> "subprocess.Popen[bytes]":
    command = ["sweep", f"--config={CONFIG}", f"--workdir={workdir}", *words]
    with (workdir.parent / f"{workdir.name}.txt").open("ab") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "scaling", *command],
            env=os.environ | environment,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def said(workdir: Path) -> str:
    return (workdir.parent / f"{workdir.name}.txt").read_text(encoding="utf-8")


class Attempt(NamedTuple):
    """An attempt at the long cell: its folder, its process, and the newest step that is kept."""

    folder: Path
    process: int
    step: int


def attempts(workdir: Path) -> list[Attempt]:
    found = []
    for folder in (workdir / "attempts").glob(f"{LONG}.*"):
        process = int(folder.name.rsplit("-", 2)[1])
        steps = [
            int(path.parent.name) for path in folder.glob("runs/*/checkpoints/*/manifest.json")
        ]
        found.append(Attempt(folder, process, max(steps, default=0)))
    return found


def awaited(
    workdir: Path, sweep: "subprocess.Popen[bytes]", wanted: Callable[[Attempt], bool]
) -> Attempt:
    """The first attempt that is as wanted."""
    limit = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < limit:
        for attempt in attempts(workdir):
            if wanted(attempt):
                return attempt
        assert sweep.poll() is None, said(workdir)
        time.sleep(0.02)
    raise TimeoutError(said(workdir))


def parents() -> dict[int, int]:
    """The parent of every process of this machine."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            found[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has just ended
    return found


def command_of(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def above(process: int, name: str) -> int:
    """The process above this one in whose command `name` is."""
    up = parents()
    while name not in command_of(process):
        process = up[process]
    return process


def below(process: int) -> list[int]:
    """A process and all that it has started, itself first."""
    up = parents()
    found = [process]
    for one in found:
        found += [child for child, parent in up.items() if parent == one]
    return found


def steps_of(workdir: Path) -> list[int]:
    """The steps that the journal of the long cell reports, in its order."""
    lines = (workdir / "runs" / LONG / "metrics.jsonl").read_text().splitlines()
    return [line["step"] for line in map(json.loads, lines) if "train/loss" in line]


def whole(workdir: Path, wanted: Mapping[str, float]) -> None:
    """Every cell has one record, that of a local sweep; nothing is left lying about."""
    assert losses(workdir) == wanted
    every = range(50, grid.LONG_STEPS + 1, 50)
    assert sorted(set(steps_of(workdir))) == steps_of(workdir) == list(every)
    assert not list((workdir / "attempts").iterdir())
    assert not list((workdir / "claims").glob("*.claim"))
