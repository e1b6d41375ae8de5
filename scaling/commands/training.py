"""The verbs that train: quickstart, train, sweep, and what a work directory holds.

What they need is imported when one of them runs: `scaling --help` waits for no JAX.
"""

import argparse
import contextlib
import functools
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from scaling.commands import preview
from scaling.commands.arguments import QUICKSTART

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scaling.config import Study as Loaded
    from scaling.sweep.cells import Cells
    from scaling.sweep.engines.drive import Engine
    from scaling.sweep.tasks import Packing


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
    if options.from_plan is not None:
        options.config = options.config or QUICKSTART
        options.workdir = options.workdir or options.from_plan.parent
    for name in ("config", "workdir"):
        if getattr(options, name) is None:
            raise ConfigError(f"--{name} is missing; give it, or a plan with --from_plan")
    loaded = load(options.config, options.overrides)
    if options.engine != "local" and options.workers > 1:
        raise ConfigError(
            f"--workers are processes of this machine, found --engine={options.engine} too; use one"
        )
    if options.engine != "ray" and options.ray_address is not None:
        raise ConfigError(
            f"--ray_address belongs to --engine=ray, found --engine={options.engine}; give both"
        )
    if options.max_flops is not None and (options.workers > 1 or options.engine != "local"):
        raise ConfigError(
            "--max_flops is for one process; use it without --workers and --engine, or --max_hours"
        )
    if options.dry_run:
        return preview.dry_run(loaded, _cells(loaded, options), options)
    if options.worker is not None or options.task is not None:
        return _work(loaded, options)
    return _study(loaded, options.workdir, options, whole=False)


def _work(loaded: "Loaded", options: argparse.Namespace) -> int:
    """One of the processes of `--workers`, or the one that does a task for an engine; the process
    that started it holds the work directory."""
    from scaling.sweep import child
    from scaling.sweep.grid import chosen
    from scaling.sweep.packing import TASK, read_packing
    from scaling.sweep.tasks import Pack, tasks_of
    from scaling.sweep.workdir import WorkdirError, read_study
    from scaling.sweep.workers import work
    from scaling.train.loop import Stopped
    from scaling.train.processes import StopRequest

    orphaned = child.orphaned()
    child.listen_to_parent()
    child.keep_to_cores()
    if read_study(options.workdir) is None:
        raise WorkdirError(
            f"{options.workdir} holds no study on this machine; use a --workdir on a file system "
            "that all machines share"
        )
    open_compile_cache(loaded.config.runtime.compile_cache)
    cells, sweep = _cells(loaded, options), loaded.config.sweep
    if options.task == TASK:
        _choose_packing(loaded, cells, options.workdir, stop=orphaned)
        return 0
    only = chosen(cells, options.only)
    packed = sweep.packed or read_packing(options.workdir)
    tasks = tasks_of(
        cells, trunks=sweep.trunks, packed=packed, only=only, early_stop=sweep.early_stop
    )
    if options.task is not None:
        [named] = [task for task in tasks if task.name == options.task]
        # Its trunks are there; what this machine does not see yet it would make, never wait for.
        tasks = [*((isinstance(named, Pack) and named.trunks) or ()), named]
    with StopRequest() as asked:
        try:
            work(
                tasks,
                options.workdir,
                watch=lambda tick: None,
                stop=lambda: asked() or orphaned(),
                lease_seconds=sweep.lease_seconds,
            )
        except Stopped as error:
            return stopped(error)
    return 0


def _cells(loaded: "Loaded", options: argparse.Namespace) -> "Cells":
    from scaling.config import ConfigError
    from scaling.sweep.cells import Cells
    from scaling.sweep.hopeless import rivals_of
    from scaling.sweep.planned import proposed

    if getattr(options, "from_plan", None) is not None:
        return proposed(loaded.config, options.from_plan)
    if loaded.grid is None:
        raise ConfigError(
            "this config has no get_grid(config); use `scaling train` for a single run"
        )
    cells = Cells.of(loaded.grid(loaded.config))
    if not cells:
        raise ConfigError("the grid of this config has no cells; give its axes some values")
    if loaded.config.sweep.early_stop:
        rivals_of(cells.planned)  # refused before anything is measured or written
    return cells


def _study(loaded: "Loaded", workdir: Path, options: argparse.Namespace, *, whole: bool) -> int:
    from rich.console import Console

    from scaling.analysis.report import terminal_table
    from scaling.config import plain
    from scaling.provenance import devices
    from scaling.sweep.engines.drive import drive
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
    cells, sweep = _cells(loaded, options), loaded.config.sweep
    only = None if whole else chosen(cells, options.only)
    limits = Limits() if whole else Limits(flops=options.max_flops, hours=options.max_hours)
    if whole:
        check(loaded.config, cells)
    open_compile_cache(loaded.config.runtime.compile_cache)
    if options.workers > 1:
        # The memory of devices is for the workers.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    with (
        claim(workdir, plain(loaded.config)),
        _cluster(loaded, options) as engine,
        StopRequest() as asked,
    ):
        where = devices() if engine is None else engine.where
        console.print(
            f"{len(cells)} cells on {where}; work directory {workdir}",
            highlight=False,
            soft_wrap=True,
        )

        def stop() -> bool:
            return asked() or limits.over()

        if options.retry_failed:
            set_failed_aside(workdir, cells)
        try:
            packed = _packing(loaded, cells, workdir, options, engine, stop)
            grouped = functools.partial(
                tasks_of,
                cells,
                trunks=sweep.trunks,
                packed=packed,
                early_stop=sweep.early_stop,
            )
            write_roster(workdir, cells, grouped())
            tasks = grouped(only=only)
            if engine is not None:
                drive(
                    tasks,
                    cells.only(pack_ids(tasks)),
                    workdir,
                    engine=engine,
                    retries=sweep.retries,
                    console=console,
                    stop=stop,
                )
            elif options.workers > 1:
                words = _words(workdir, options)
                supervise(
                    cells.only(pack_ids(tasks)),
                    workdir,
                    command=lambda index: [*words, f"--worker={index}"],
                    workers=options.workers,
                    console=console,
                    stop=stop,
                )
            if whole:
                made = study(
                    loaded.config, cells, workdir, packed=packed, console=console, stop=stop
                )
            else:
                launch(
                    cells,
                    Workshop(workdir),
                    console=console,
                    stop=stop,
                    trunks=sweep.trunks,
                    packed=packed,
                    only=only,
                    early_stop=sweep.early_stop,
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


def _packing(
    loaded: "Loaded",
    cells: "Cells",
    workdir: Path,
    options: argparse.Namespace,
    engine: "Engine | None",
    stop: "Callable[[], bool]",
) -> "Packing":
    """How many cells train at once: as the config says, or as it was measured where they train."""
    from scaling.sweep import child
    from scaling.sweep.engines.drive import carry_out
    from scaling.sweep.packing import TASK, read_packing, undecided

    sweep = loaded.config.sweep
    if sweep.packed is not None:
        return int(sweep.packed)
    if undecided(cells, workdir, trunks=sweep.trunks):
        if engine is not None:
            carry_out(TASK, engine, stop=stop)
        elif options.workers > 1:
            words = [*_words(workdir, options), f"--task={TASK}"]
            child.carry_out(words, child.part(0, options.workers))
        else:
            _choose_packing(loaded, cells, workdir, stop=stop)
    return read_packing(workdir)


def _choose_packing(
    loaded: "Loaded", cells: "Cells", workdir: Path, *, stop: "Callable[[], bool]"
) -> None:
    from rich.console import Console

    from scaling.sweep.packing import choose_all, undecided, write_packing
    from scaling.workshop import Workshop

    console = Console()
    choices = choose_all(
        undecided(cells, workdir, trunks=loaded.config.sweep.trunks),
        Workshop(workdir),
        say=lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True),
        stop=stop,
    )
    write_packing(workdir, choices)


def _words(workdir: Path, options: argparse.Namespace) -> list[str]:
    """The command of a process of this sweep, wherever it is."""
    from scaling.config import located

    words = ["sweep", f"--config={located(options.config)}", f"--workdir={workdir.resolve()}"]
    words += [f"--config.{override}" for override in options.overrides]
    if getattr(options, "from_plan", None) is not None:
        words.append(f"--from_plan={options.from_plan.resolve()}")
    if getattr(options, "only", None) is not None:
        words.append(f"--only={','.join(options.only)}")
    return words


@contextlib.contextmanager
def _cluster(loaded: "Loaded", options: argparse.Namespace) -> "Iterator[Engine | None]":
    """The engine that is asked for; None for this machine. The work directory is held."""
    if options.engine == "local":
        yield None
        return
    import jax

    from scaling.provenance import code_version
    from scaling.sweep.engines.on_ray import OnRay
    from scaling.sweep.engines.on_slurm import OnSlurm

    # This process trains nothing: devices that may be here are for the tasks.
    jax.config.update("jax_platforms", "cpu")
    sweep, workdir = loaded.config.sweep, options.workdir.resolve()
    words = _words(workdir, options)

    def command(task: str) -> list[str]:
        return [*words, f"--task={task}"]

    with contextlib.closing(
        OnRay(
            sweep.ray,
            address=options.ray_address or "auto",
            workdir=workdir,
            command=command,
            code_version=code_version(),
        )
        if options.engine == "ray"
        else OnSlurm(sweep.slurm, workdir=workdir, command=command, retries=sweep.retries)
    ) as engine:
        yield engine


def train(options: argparse.Namespace) -> int:
    """Train one run, in this process or together with others."""
    from rich.console import Console

    from scaling.cells import cell_of
    from scaling.config import load, plain
    from scaling.provenance import devices
    from scaling.sweep.launch import launch
    from scaling.sweep.rates import carried
    from scaling.sweep.workdir import claim, set_failed_aside
    from scaling.train import processes
    from scaling.train.loop import Stopped
    from scaling.workshop import Workshop

    cell = cell_of(carried(load(options.config, options.overrides).config))
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
