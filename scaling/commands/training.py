"""The verbs that train: quickstart, train, sweep, and what a work directory holds.

What they need is imported when one of them runs: `scaling --help` waits for no JAX.
"""

import argparse
import contextlib
import functools
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from scaling.commands import preview

if TYPE_CHECKING:
    from scaling.config import Study as Loaded
    from scaling.sweep.cells import Cells


def quickstart(options: argparse.Namespace) -> int:
    """Grid, law, prediction, larger run, report."""
    from scaling.config import load

    loaded = load(options.config, options.overrides)
    workdir = options.workdir or Path("runs") / loaded.config.study.name
    return _study(loaded, workdir, options, whole=True)


def sweep(options: argparse.Namespace) -> int:
    """Train the grid of a config, or say what it would cost."""
    from scaling.config import ConfigError, load

    if options.measure and not options.dry_run:
        raise ConfigError("--measure belongs to --dry_run; give both")
    loaded = load(options.config, options.overrides)
    if options.max_flops is not None and options.workers > 1:
        raise ConfigError(
            "--max_flops is for one process; use it without --workers, or --max_hours"
        )
    if options.dry_run:
        return preview.dry_run(loaded, _cells(loaded), options)
    if options.worker is not None:
        return _work(loaded, options)
    return _study(loaded, options.workdir, options, whole=False)


def _work(loaded: "Loaded", options: argparse.Namespace) -> int:
    """One of the processes of `--workers`; the one that started them holds the work directory."""
    from scaling.sweep.grid import chosen
    from scaling.sweep.tasks import tasks_of
    from scaling.sweep.workers import keep_to_cores, work
    from scaling.train.loop import Stopped
    from scaling.train.processes import StopRequest

    keep_to_cores()
    open_compile_cache(loaded.config.runtime.compile_cache)
    cells, sweep = _cells(loaded), loaded.config.sweep
    only = chosen(cells, options.only)
    tasks = tasks_of(cells, trunks=sweep.trunks, packed=sweep.packed or 1, only=only)
    with StopRequest() as stop:
        try:
            work(tasks, options.workdir, watch=lambda tick: None, stop=stop)
        except Stopped as error:
            return stopped(error)
    return 0


def _cells(loaded: "Loaded") -> "Cells":
    from scaling.config import ConfigError
    from scaling.sweep.cells import Cells

    if loaded.grid is None:
        raise ConfigError(
            "this config has no get_grid(config); use `scaling train` for a single run"
        )
    cells = Cells.of(loaded.grid(loaded.config))
    if not cells:
        raise ConfigError("the grid of this config has no cells; give its axes some values")
    return cells


def _study(loaded: "Loaded", workdir: Path, options: argparse.Namespace, *, whole: bool) -> int:
    from rich.console import Console

    from scaling.analysis.report import terminal_table
    from scaling.config import plain
    from scaling.provenance import devices
    from scaling.sweep.grid import chosen
    from scaling.sweep.launch import launch
    from scaling.sweep.limits import Limits
    from scaling.sweep.roster import write_roster
    from scaling.sweep.study import check, study
    from scaling.sweep.tasks import pack_ids, tasks_of
    from scaling.sweep.workdir import claim, set_failed_aside
    from scaling.sweep.workers import supervise
    from scaling.train.loop import Stopped
    from scaling.train.processes import StopRequest
    from scaling.workshop import Workshop

    console = Console()
    cells, sweep = _cells(loaded), loaded.config.sweep
    only = None if whole else chosen(cells, options.only)
    limits = Limits() if whole else Limits(flops=options.max_flops, hours=options.max_hours)
    if whole:
        check(loaded.config, cells)
    open_compile_cache(loaded.config.runtime.compile_cache)
    console.print(f"{len(cells)} cells on {devices()}; work directory {workdir}", highlight=False)
    grouped = functools.partial(tasks_of, cells, trunks=sweep.trunks, packed=sweep.packed or 1)
    with claim(workdir, plain(loaded.config)), StopRequest() as asked:

        def stop() -> bool:
            return asked() or limits.over()

        write_roster(workdir, cells, grouped())
        if options.retry_failed:
            set_failed_aside(workdir, cells)
        try:
            if options.workers > 1:
                words = [f"--config={options.config}", f"--workdir={workdir}"]
                words += [f"--config.{override}" for override in options.overrides]
                words += [f"--only={','.join(options.only)}"] if only is not None else []
                supervise(
                    cells.only(pack_ids(grouped(only=only))),
                    workdir,
                    command=lambda index: ["sweep", *words, f"--worker={index}"],
                    workers=options.workers,
                    console=console,
                    stop=stop,
                )
            if whole:
                made = study(loaded.config, cells, workdir, console=console, stop=stop)
            else:
                launch(
                    cells,
                    Workshop(workdir),
                    console=console,
                    stop=stop,
                    trunks=sweep.trunks,
                    packed=sweep.packed or 1,
                    only=only,
                    limits=limits,
                )
                made = []
        except Stopped as error:
            return stopped(error, "--max_hours is over: " if limits.over() else "")
        console.print(terminal_table(workdir))
        for name in (
            "records",
            "runs",
            "law.json",
            "plan.json",
            "verdict.json",
            "report.html",
            "figures",
        ):
            if (workdir / name).exists():
                console.print(f"  {workdir / name}", highlight=False, soft_wrap=True)
        if whole and not made:
            console.print("complete already; nothing was changed", highlight=False)
        return 0


def train(options: argparse.Namespace) -> int:
    """Train one run, in this process or together with others."""
    from rich.console import Console

    from scaling.cells import cell_of
    from scaling.config import load, plain
    from scaling.provenance import devices
    from scaling.sweep.launch import launch
    from scaling.sweep.workdir import claim, set_failed_aside
    from scaling.train import processes
    from scaling.train.loop import Stopped
    from scaling.workshop import Workshop

    cell = cell_of(load(options.config, options.overrides).config)
    described = (options.coordinator, options.processes, options.process)
    if options.distributed or any(one is not None for one in described):
        processes.join(
            coordinator=options.coordinator, processes=options.processes, process=options.process
        )
    open_compile_cache(cell.runtime.compile_cache)
    console = Console(quiet=not processes.first())
    console.print(f"one run on {devices()}; work directory {options.workdir}", highlight=False)
    with (
        processes.Together(coordinator=options.coordinator),
        claim(options.workdir, plain(cell)) if processes.first() else contextlib.nullcontext(),
        processes.StopRequest() as stop,
    ):
        if options.retry_failed and processes.first():
            set_failed_aside(options.workdir, [cell])
        try:
            [record] = launch([cell], Workshop(options.workdir), console=console, stop=stop)
        except Stopped as error:
            return stopped(error)
        console.print(
            f"  {options.workdir / 'records' / record.run_id}.json", highlight=False, soft_wrap=True
        )
        if record.status == "failed":
            print(
                f"{record.run_id} failed: {record.reason}; free what it lacked or change "
                "runtime.*, and run the same command with --retry_failed",
                file=sys.stderr,
            )
        return 0 if record.status == "ok" else 1


def stopped(error: Exception, why: str = "") -> int:
    """Say that a verb was stopped, and how it goes on; the exit code."""
    from scaling.train.processes import STOPPED

    print(f"{why}{error}; the same command continues there", file=sys.stderr)
    return STOPPED


def open_compile_cache(wanted: bool) -> None:
    """Let this process find what others compiled, where that is wanted."""
    from scaling.train import compile_cache

    if wanted:
        compile_cache.open_cache(compile_cache.default_folder())


def status(options: argparse.Namespace) -> int:
    """Say what is done and what is not, once or again and again."""
    from rich.console import Console
    from rich.live import Live

    from scaling.sweep.status import complete, status

    console = Console()
    if options.watch is None:
        console.print(status(options.workdir))
        return 0
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while not complete(options.workdir):
            shown = status(options.workdir, finished=False)
            if console.is_terminal:
                live.update(shown, refresh=True)
            else:
                console.print(shown)
            time.sleep(options.watch)
    console.print(status(options.workdir))
    return 0
