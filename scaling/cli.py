"""`scaling <verb>`: parse, call one function, exit."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

from scaling import __version__
from scaling.commands import analysis, arguments, training, tuning

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
        training.quickstart,
    ),
    "train": Verb(
        "train the single run that a config describes",
        "scaling train --config=configs/quickstart.py --config.model.width=48 "
        "--config.budget.flops=3e11 --workdir=runs/one",
        arguments.run,
        training.train,
    ),
    "sweep": Verb(
        "train the grid of a config, without fitting, or tell what it costs",
        "scaling sweep --config=configs/ladder.py --workdir=runs/ladder --dry_run",
        arguments.sweep,
        training.sweep,
    ),
    "tune": Verb(
        "search for the rates, batch, ... to train with, from the smallest size up",
        "scaling tune --config=configs/tune.py --workdir=runs/tune",
        arguments.tune,
        tuning.tune,
    ),
    "status": Verb(
        "what a work directory holds and what is still to do",
        "scaling status runs/quickstart --watch",
        arguments.status,
        training.status,
    ),
    "fit": Verb(
        "fit a law to anybody's runs and write law.json",
        "scaling fit runs.csv --columns params=N,tokens=D,loss=final_loss --out=fits\n"
        "  scaling fit tasks.csv --law=accuracy --columns accuracy=hellaswag --out=fits",
        arguments.runs,
        analysis.fit,
    ),
    "plan": Verb(
        "the compute-optimal run at a budget, with intervals and the overrides that train it",
        "scaling plan law.json --flops=1e21",
        arguments.plan,
        analysis.plan,
    ),
    "report": Verb(
        "write report.html and figures/ of a work directory",
        "scaling report runs/quickstart",
        arguments.workdir,
        analysis.report,
    ),
    "doctor": Verb(
        "check this machine and installation", "scaling doctor", arguments.nothing, _doctor
    ),
}
