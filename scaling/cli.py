"""`scaling <verb>`: parse, call one function, print. Heavy modules are imported by the verb that
needs them."""

import argparse
import contextlib
import difflib
import os
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from scaling import __version__, arguments

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from scaling.config import Study as Loaded

BAD_INPUT = 2
INTERRUPTED = 130

DESCRIPTION = """Scaling laws, closed: train a grid of models, fit the frontier, predict a larger
run before training it, and check.

  scaling quickstart                   the whole loop on packaged text, on 2 cores in minutes
  scaling fit RUNS                     a law from anybody's runs
  scaling plan law.json --flops=1e21   what to train next, and what it will score
"""


class Verb(NamedTuple):
    """One verb: its line in the help, an example, its arguments, and what it does."""

    summary: str
    example: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one verb and exit: 0 done, 2 bad input (nothing overwritten), 75 told to stop and all
    kept, 130 interrupted."""
    rest, overrides = _split_overrides(list(sys.argv[1:] if argv is None else argv))
    parser = _parser()
    options = parser.parse_args(rest)
    options.overrides = overrides
    if overrides and "config" not in options:
        parser.error(f"{options.verb} takes no config, found --config.{overrides[0]}")
    try:
        code = VERBS[options.verb].run(options)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command continues where it was", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except (ValueError, OSError) as error:
        if os.environ.get("SCALING_TRACEBACK"):
            raise
        # Without its number, where the message is our own.
        text = error.args[-1] if isinstance(error, OSError) and error.filename is None else error
        print(f"scaling {options.verb}: {text}", file=sys.stderr)
        code = BAD_INPUT
    # What was to be kept is kept: a request to stop that comes now finds the verb's own status.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(code)


def _split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    rest: list[str] = []
    overrides: list[str] = []
    waiting = iter(words)
    for argument in waiting:
        if not argument.startswith("--config."):
            rest.append(argument)
            continue
        override = argument.removeprefix("--config.")
        if "=" not in override:
            override = f"{override}={next(waiting, '')}"
        overrides.append(override)
    return rest, overrides


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scaling",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"scaling {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, verb in VERBS.items():
        child = verbs.add_parser(
            name,
            help=verb.summary,
            description=verb.summary,
            epilog=f"example:\n  {verb.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        verb.arguments(child)
    return parser


def _quickstart(options: argparse.Namespace) -> int:
    from scaling.config import load

    loaded = load(options.config, options.overrides)
    workdir = options.workdir or Path("runs") / loaded.config.study.name
    return _study(loaded, workdir, options, whole=True)


def _sweep(options: argparse.Namespace) -> int:
    from scaling.config import load

    loaded = load(options.config, options.overrides)
    if options.worker is not None:
        return _work(loaded, options.workdir)
    return _study(loaded, options.workdir, options, whole=False)


def _work(loaded: "Loaded", workdir: Path) -> int:
    """One of the processes of `--workers`; the one that started them holds the work directory."""
    from scaling.sweep.tasks import tasks_of
    from scaling.sweep.workers import keep_to_cores, work
    from scaling.train.loop import Stopped
    from scaling.train.processes import StopRequest

    keep_to_cores()
    _compile_cache(loaded.config.runtime.compile_cache)
    sweep = loaded.config.sweep
    tasks = tasks_of(_cells(loaded), trunks=sweep.trunks, packed=sweep.packed or 1)
    with StopRequest() as stop:
        try:
            work(tasks, workdir, watch=lambda tick: None, stop=stop)
        except Stopped as error:
            return _stopped(error)
    return 0


def _cells(loaded: "Loaded") -> "list[ConfigDict]":
    from scaling.config import ConfigError

    if loaded.grid is None:
        raise ConfigError(
            "this config has no get_grid(config); use `scaling train` for a single run"
        )
    return loaded.grid(loaded.config)


def _study(loaded: "Loaded", workdir: Path, options: argparse.Namespace, *, whole: bool) -> int:
    from rich.console import Console

    from scaling.analysis.report import terminal_table
    from scaling.config import plain
    from scaling.provenance import devices
    from scaling.sweep.launch import launch
    from scaling.sweep.study import check, study
    from scaling.sweep.workdir import claim, set_failed_aside
    from scaling.sweep.workers import supervise
    from scaling.train.loop import Stopped
    from scaling.train.processes import StopRequest
    from scaling.workshop import Workshop

    console = Console()
    cells, sweep = _cells(loaded), loaded.config.sweep
    if whole:
        check(loaded.config)
    _compile_cache(loaded.config.runtime.compile_cache)
    console.print(f"{len(cells)} cells on {devices()}; work directory {workdir}", highlight=False)
    with claim(workdir, plain(loaded.config)), StopRequest() as stop:
        if options.retry_failed:
            set_failed_aside(workdir, cells)
        try:
            if options.workers > 1:
                words = [f"--config={options.config}", f"--workdir={workdir}"]
                words += [f"--config.{override}" for override in options.overrides]
                supervise(
                    cells,
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
                )
                made = []
        except Stopped as error:
            return _stopped(error)
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


def _train(options: argparse.Namespace) -> int:
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
    _compile_cache(cell.runtime.compile_cache)
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
            return _stopped(error)
        console.print(
            f"  {options.workdir / 'records' / record.run_id}.json", highlight=False, soft_wrap=True
        )
        if record.status == "failed":
            print(
                f"{record.run_id} failed: {record.reason}; free what it lacked or change runtime.*, "
                "and run the same command with --retry_failed",
                file=sys.stderr,
            )
        return 0 if record.status == "ok" else 1


def _stopped(error: Exception) -> int:
    from scaling.train.processes import STOPPED

    print(f"{error}; the same command continues there", file=sys.stderr)
    return STOPPED


def _compile_cache(wanted: bool) -> None:
    from scaling.train import compile_cache

    if wanted:
        compile_cache.open_cache(compile_cache.default_folder())


def _compile_cache_for_a_fit() -> None:
    """The same, but a fit goes on without a cache, and says so."""
    try:
        _compile_cache(True)
    except OSError as error:
        print(f"fitting without a compile cache: {error}", file=sys.stderr)


def _status(options: argparse.Namespace) -> int:
    from rich.console import Console

    from scaling.sweep.status import status

    Console().print(status(options.workdir))
    return 0


def _fit(options: argparse.Namespace) -> int:
    from rich.console import Console

    from scaling.analysis.evidence import Evidence
    from scaling.analysis.fit import fit
    from scaling.analysis.intervals import METHODS
    from scaling.analysis.report.terminal import show, visible
    from scaling.analysis.rules import LAWS
    from scaling.files import write_json
    from scaling.runs import load

    path = options.out / "law.json"
    _refuse_existing(path, options)
    columns = _columns(options.columns)
    form = LAWS[_one_of("law", options.law, LAWS)]
    if options.intervals is not None:
        _one_of("intervals", options.intervals, METHODS)
    runs = load(options.runs, columns=columns, needed=(*form.inputs, form.target))
    _compile_cache_for_a_fit()
    law = fit(
        runs,
        form.name,
        delta=options.delta,
        asymmetry=options.asymmetry,
        intervals=options.intervals,
        bootstrap=options.bootstrap,
        seed=options.seed,
    )
    console = Console()
    show(Evidence(law=law.to_json()), console)
    read = ", ".join(f"{ours} from {theirs}" for ours, theirs in law.convention.items())
    for line in (
        f"Read {len(runs)} runs of {options.runs}: {read}.",
        f"The parameters are {law.diagnostics['identifiability']['verdict']}.",
        f"Intervals: {law.bootstrap['n']} refits; {law.bootstrap['method']}.",
        f"  {write_json(path, law.to_json())}",
    ):
        console.print(visible(line), highlight=False, markup=False, soft_wrap=True)
    return 0


def _one_of(option: str, found: str, known: Collection[str]) -> str:
    """The value, if it is known; otherwise an error that names the nearest."""
    if found in known:
        return found
    near = difflib.get_close_matches(found, known, 3, 0.5)
    hint = f" did you mean {' or '.join(near)}?" if near else ""
    raise ValueError(f"--{option}={found} is unknown;{hint} use one of {', '.join(known)}")


def _columns(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in filter(None, text.split(",")):
        ours, equals, theirs = (part.strip() for part in pair.partition("="))
        if not (ours and equals and theirs):
            raise ValueError(f"--columns has {pair!r}; write --columns params=N,tokens=D")
        if ours in found:
            raise ValueError(f"--columns maps {ours} to {found[ours]} and to {theirs}; leave one")
        found[ours] = theirs
    return found


def _refuse_existing(path: Path, options: argparse.Namespace) -> None:
    if path.exists() and not options.overwrite:
        raise FileExistsError(
            f"{path} is there already; use --out=DIR for another place, or --overwrite"
        )


def _plan(options: argparse.Namespace) -> int:
    import json

    from rich.console import Console

    from scaling.analysis.evidence import Evidence
    from scaling.analysis.fitted import Law
    from scaling.analysis.plan import plan
    from scaling.analysis.report import summarize
    from scaling.config import load
    from scaling.files import write_json
    from scaling.sweep.study import nearest_shape

    if options.out is not None:
        _refuse_existing(options.out / "plan.json", options)
    try:
        law = Law.from_json(json.loads(options.law.read_text(encoding="utf-8")))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{options.law} is not JSON ({error}); give a law.json of `scaling fit`"
        ) from None
    config = load(options.config, options.overrides).config
    content = plan(law, options.flops, shape_for=nearest_shape(config))
    console = Console()
    console.print(summarize(Evidence(plan=content)))
    for target in content["targets"]:
        overrides = " ".join(
            f"--config.{key}={value}" for key, value in target["overrides"].items()
        )
        console.print(
            f"  scaling train --config={options.config} {overrides} --workdir=DIR",
            highlight=False,
            soft_wrap=True,
        )
    if options.out is not None:
        path = write_json(options.out / "plan.json", content)
        console.print(f"  {path}", highlight=False, soft_wrap=True)
    return 0


def _report(options: argparse.Namespace) -> int:
    from rich.console import Console

    from scaling.analysis.report import terminal_table, write_report

    console = Console()
    paths = write_report(options.workdir)
    console.print(terminal_table(options.workdir))
    for path in paths:
        console.print(f"  {path}", highlight=False, soft_wrap=True)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from rich.console import Console

    from scaling.doctor import examine

    findings = examine()
    console = Console()
    for finding in findings:
        mark = "[green]ok[/]  " if finding.ok else "[red]bad[/] "
        console.print(f"{mark}{finding.text}", highlight=False, soft_wrap=True)
    return 0 if all(finding.ok for finding in findings) else 1


VERBS = {
    "quickstart": Verb(
        "the whole loop on the packaged text: grid, law, prediction, larger run, report",
        "scaling quickstart --config=configs/quickstart.py:tiny",
        arguments.quickstart,
        _quickstart,
    ),
    "train": Verb(
        "train the single run that a config describes",
        "scaling train --config=configs/quickstart.py --config.model.width=48 "
        "--config.budget.flops=3e11 --workdir=runs/one",
        arguments.run,
        _train,
    ),
    "sweep": Verb(
        "train the grid of a config, without fitting",
        "scaling sweep --config=configs/quickstart.py --workdir=runs/grid",
        arguments.sweep,
        _sweep,
    ),
    "status": Verb(
        "what a work directory holds and what is still to do",
        "scaling status runs/quickstart",
        arguments.workdir,
        _status,
    ),
    "fit": Verb(
        "fit a law to anybody's runs and write law.json",
        "scaling fit runs.csv --columns params=N,tokens=D,loss=final_loss --out=fits\n"
        "  scaling fit tasks.csv --law=accuracy --columns accuracy=hellaswag --out=fits",
        arguments.runs,
        _fit,
    ),
    "plan": Verb(
        "the compute-optimal run at a budget, with intervals and the overrides that train it",
        "scaling plan law.json --flops=1e21",
        arguments.plan,
        _plan,
    ),
    "report": Verb(
        "write report.html and figures/ of a work directory",
        "scaling report runs/quickstart",
        arguments.workdir,
        _report,
    ),
    "doctor": Verb(
        "check this machine and installation", "scaling doctor", arguments.nothing, _doctor
    ),
}
