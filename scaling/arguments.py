"""What the verbs of the command line take."""

import argparse
from pathlib import Path

CONFIG_HELP = "a Python config file (it is run as code), with its argument after a colon"
OVERRIDES = "override any key of the config with --config.KEY=VALUE, as in --config.seed=1"


def study(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", required=True, metavar="FILE[:ARG]", help=f"{CONFIG_HELP}; {OVERRIDES}"
    )
    parser.add_argument(
        "--workdir",
        required=True,
        type=Path,
        metavar="DIR",
        help="where results go; the same again resumes",
    )


def run(parser: argparse.ArgumentParser) -> None:
    study(parser)
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="one of several processes of this run, on a TPU slice, Slurm, Open MPI or GKE",
    )
    parser.add_argument(
        "--coordinator", metavar="HOST:PORT", help="where process 0 is, when nothing else tells"
    )
    parser.add_argument("--processes", type=int, metavar="N", help="how many processes there are")
    parser.add_argument("--process", type=int, metavar="I", help="which one this is, from 0")


def quickstart(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", default="configs/quickstart.py", metavar="FILE[:ARG]",
        help=f"{CONFIG_HELP} (default configs/quickstart.py; "
        f"configs/quickstart.py:tiny takes 2 minutes); {OVERRIDES}",
    )  # fmt: skip
    parser.add_argument(
        "--workdir", type=Path, metavar="DIR",
        help="where results go; the same again resumes (default runs/ and the study's name)",
    )  # fmt: skip


def workdir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir", type=Path, metavar="WORKDIR", help="the directory of a study")


def runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        type=Path,
        metavar="RUNS",
        help="a folder of records, a .json or .jsonl, or a CSV with columns params, tokens, loss "
        "(flops optional)",
    )
    parser.add_argument("--law", default="chinchilla", help="which law to fit (default chinchilla)")
    parser.add_argument(
        "--columns",
        default="",
        metavar="OURS=THEIRS,...",
        help="names in the table, as in params=N,tokens=D,loss=final_loss",
    )
    parser.add_argument(
        "--bootstrap",
        type=int,
        default=1000,
        metavar="N",
        help="resamples for the intervals (default 1000)",
    )
    parser.add_argument(
        "--delta",
        type=float,
        metavar="DELTA",
        help="threshold of the Huber loss (default: from the residuals)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where law.json goes (default: here)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a law.json that is there")


def plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("law", type=Path, metavar="LAW.json", help="a law that `scaling fit` wrote")
    parser.add_argument(
        "--flops",
        required=True,
        type=float,
        action="append",
        help="a budget; may be given several times",
    )
    parser.add_argument(
        "--config",
        default="configs/quickstart.py",
        metavar="FILE[:ARG]",
        help=f"the config whose overrides to write (default configs/quickstart.py); {OVERRIDES}",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write plan.json here (default: print only)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a plan.json that is there"
    )


def nothing(parser: argparse.ArgumentParser) -> None:
    pass
