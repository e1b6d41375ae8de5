"""What the verbs of the command line take."""

import argparse
import math
from pathlib import Path

CONFIG_HELP = "a Python config file (it is run as code), with its argument after a colon"
QUICKSTART = "configs/quickstart.py"
ENGINES = ("local", "ray", "slurm")
OVERRIDES = "override any key of the config with --config.KEY=VALUE, as in --config.seed=1"


def study(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", required=True, metavar="FILE[:ARG]", help=f"{CONFIG_HELP}; {OVERRIDES}"
    )
    parser.add_argument(
        "--workdir",
        required=True,
        type=_folder,
        metavar="DIR",
        help="where results go; the same again resumes",
    )


def _folder(text: str) -> Path:
    if "://" in text:
        raise argparse.ArgumentTypeError(
            f"found {text}, and an object store is no file system; give a folder that all machines "
            "of the sweep see"
        )
    return Path(text)


def _again(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--retry_failed",
        action="store_true",
        help="train again what failed (a device without memory, ...); its records are set aside",
    )


def _workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers",
        type=_one_or_more,
        default=1,
        metavar="K",
        help="train in so many processes that share the work directory, each with its part of the "
        "cores and devices (default 1: in this one)",
    )


def sweep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", metavar="FILE[:ARG]",
        help=f"{CONFIG_HELP} (with --from_plan as `scaling plan` has it, {QUICKSTART}); "
        f"{OVERRIDES}",
    )  # fmt: skip
    parser.add_argument(
        "--workdir", type=_folder, metavar="DIR",
        help="where results go; the same again resumes (with --from_plan the folder of the plan)",
    )  # fmt: skip
    parser.add_argument(
        "--from_plan",
        type=Path,
        metavar="PLAN.json",
        help="in place of the config's grid, train the next runs that this plan proposes, or its "
        "targets where it proposes none; the work directory may be that of the study",
    )
    _again(parser)
    _workers(parser)
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default=ENGINES[0],
        help="where the tasks run: on this machine (the default, see --workers), on a Ray cluster "
        "or as jobs of Slurm, with what config.sweep.ray or .slurm asks for each",
    )
    parser.add_argument(
        "--ray_address",
        metavar="HOST:PORT",
        help="where the Ray cluster is, for --engine=ray (default: as RAY_ADDRESS says, or here)",
    )
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="print what it will cost (parameters, tokens, FLOPs, memory, time) and stop; nothing "
        "is written in the work directory",
    )
    parser.add_argument(
        "--measure",
        action="store_true",
        help="with --dry_run: compile every shape and try it for a second, for its time and memory",
    )
    parser.add_argument(
        "--only",
        type=_patterns,
        metavar="GLOB_OR_RUN_ID,...",
        help="these cells of the grid alone, as in --only='w016-*,w024-2.07e10-s2-e66d1a98'; what "
        "trains as one program with them comes along",
    )
    parser.add_argument(
        "--max_hours",
        type=_positive,
        metavar="HOURS",
        help="stop when this command has run so long, and start nothing that would take longer; "
        "everything is kept, exit code 75",
    )
    parser.add_argument(
        "--max_flops",
        type=_positive,
        metavar="FLOPS",
        help="start nothing that would bring this command over so many FLOPs (6ND); everything is "
        "kept, exit code 75",
    )
    # Of a process that --workers starts, and of one that does a single task for an engine.
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--task", help=argparse.SUPPRESS)


def tune(parser: argparse.ArgumentParser) -> None:
    study(parser)
    _again(parser)
    parser.add_argument(
        "--max_flops",
        type=_positive,
        metavar="FLOPS",
        help="what all trials may cost (6ND; default: as the config has it)",
    )
    parser.add_argument(
        "--sampler",
        choices=("tpe", "random"),
        default="tpe",
        help="who proposes: Optuna's TPE from where rules and laws point, or chance (default tpe)",
    )
    parser.add_argument(
        "--seed",
        type=_seed,
        default=0,
        metavar="N",
        help="of the proposals (default 0); --config.seed is that of the runs",
    )
    parser.add_argument(
        "--law",
        type=Path,
        metavar="LAW.json",
        help="a law of the loss: what is far above it does not climb, widths start at its best",
    )
    parser.add_argument(
        "--rates",
        type=Path,
        metavar="LAW.json",
        help="a fitted law of learning_rate, in place of the rules of the size table",
    )


def _patterns(text: str) -> list[str]:
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        raise argparse.ArgumentTypeError("give run ids or patterns such as 'w016-*'")
    return found


def run(parser: argparse.ArgumentParser) -> None:
    study(parser)
    _again(parser)
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
        "--config", default=QUICKSTART, metavar="FILE[:ARG]",
        help=f"{CONFIG_HELP} (default {QUICKSTART}; {QUICKSTART}:tiny takes 2 minutes); "
        f"{OVERRIDES}",
    )  # fmt: skip
    parser.add_argument(
        "--workdir", type=_folder, metavar="DIR",
        help="where results go; the same again resumes (default runs/ and the study's name)",
    )  # fmt: skip
    _again(parser)
    _workers(parser)
    parser.set_defaults(engine=ENGINES[0])


def workdir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir", type=Path, metavar="WORKDIR", help="the directory of a study")


def status(parser: argparse.ArgumentParser) -> None:
    workdir(parser)
    parser.add_argument(
        "--watch",
        nargs="?",
        const=5.0,
        type=_positive,
        metavar="SECONDS",
        help="show what is under way again every so many seconds (5 where none are given), until "
        "the grid is done",
    )


def runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        type=Path,
        metavar="RUNS",
        help="a folder of records, a .json, .jsonl, .csv or .tsv; for most laws with columns "
        "params, tokens, loss (any two of params, tokens, flops do, if params is one)",
    )
    parser.add_argument(
        "--law", default="chinchilla", metavar="NAME",
        help="which law to fit (default chinchilla; a wrong name lists them all), or auto: that "
        "which foretells larger runs best, and of which runs",
    )  # fmt: skip
    parser.add_argument(
        "--columns",
        default="",
        metavar="OURS=THEIRS,...",
        help="names in the table, as in params=N,tokens=D,loss=final_loss,width=d_model; "
        "tokens=billions*1e9 brings one to our unit",
    )
    parser.add_argument(
        "--objective", metavar="NAME",
        help="which runs to fit where the table has several objectives, such as masked: no one law "
        "is of the losses of two",
    )  # fmt: skip
    parser.add_argument(
        "--delta", type=_positive, metavar="DELTA",
        help="where the Huber loss turns from square to straight, in log loss (default: 1.345 "
        "robust standard deviations of the residuals; Hoffmann et al. took 1e-3; inf is least "
        "squares)",
    )  # fmt: skip
    parser.add_argument(
        "--asymmetry", type=_times, default=1.0, metavar="TIMES",
        help="how much worse a prediction above a run counts than one below (default 1): over 1 "
        "fits the lower side of runs of which some were badly tuned",
    )  # fmt: skip
    parser.add_argument(
        "--only", choices=("tuned", "bracketed"),
        help="fit these runs alone: rates tuned or carried from where they were, or the best of "
        "those tried with lower and higher ones (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--intervals", metavar="METHOD",
        help="residual, case, series or seeds (default: by series where rows are checkpoints, by "
        "case where runs are many, else by residual)",
    )  # fmt: skip
    parser.add_argument(
        "--bootstrap", type=_two_or_more, default=1000, metavar="N",
        help="resamples for the intervals (default 1000)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=_seed, default=0, metavar="N", help="of the resamples (default 0)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where law.json goes (default: here)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a law.json that is there")


def _positive(text: str) -> float:
    return _number(text, float, least=0.0, over=True)


def _zero_or_more(text: str) -> float:
    return _number(text, float, least=0.0)


def _times(text: str) -> float:
    number = _positive(text)
    if math.isinf(number):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return number


def _one_or_more(text: str) -> int:
    return int(_number(text, int, least=1))


def _two_or_more(text: str) -> int:
    return int(_number(text, int, least=2))


def _seed(text: str) -> int:
    return int(_number(text, int, least=0))


def _number(text: str, kind: type, *, least: float, over: bool = False) -> float:
    """A number of a kind, at least (or over) `least`; argparse prints what is raised here."""
    word = "a whole number" if kind is int else "a number"
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not {word}") from None
    if kind is int and not number.is_integer():
        raise argparse.ArgumentTypeError(f"{text!r} is not {word}")
    if not (number > least or (number == least and not over)):
        limit = f"over {least:g}" if over else f"of {least:g} or more"
        raise argparse.ArgumentTypeError(f"{text} is not {word} {limit}")
    return number


def plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("law", type=Path, metavar="LAW.json", help="a law that `scaling fit` wrote")
    goals = parser.add_argument_group("what is asked, each as often as you like")
    goals.add_argument(
        "--flops", type=_positive, action="append", help="the best run within so much compute"
    )
    goals.add_argument(
        "--loss", type=_positive, action="append", help="the cheapest run to a loss, in nats"
    )
    goals.add_argument(
        "--score", type=_positive, action="append", metavar="SHARE",
        help="the cheapest run to a score of --task, such as 0.85",
    )  # fmt: skip
    goals.add_argument(
        "--task", type=Path, metavar="LAW.json",
        help="a law of the score from the loss, as of `scaling fit --law=accuracy`",
    )  # fmt: skip
    goals.add_argument(
        "--by", choices=("flops", "time"),
        help="what is cheapest, with the answers (default: time where there is a machine, else "
        "flops)",
    )  # fmt: skip
    goals.add_argument(
        "--next_flops", type=_positive, metavar="FLOPS",
        help="and the runs of so much compute that would make the first answer surest, none on "
        "more tokens than --unique_tokens and --epochs allow",
    )  # fmt: skip
    parser.add_argument(
        "--criterion", choices=("variance", "determinant"), default="variance",
        help="by what the next runs are chosen: the variance of the first answer (the default), or "
        "the determinant of the parameters' covariance (D-optimal)",
    )  # fmt: skip
    limits = parser.add_argument_group("limits, in any combination")
    for name, kind, text in (
        ("chips", _one_or_more, "how many chips train together"),
        ("device", str, "which (a wrong name lists them)"),
        ("hours", _positive, "how long they train, at most"),
        ("lifetime_hours", _positive, "how long they train and answer, at most"),
        ("mfu", _positive, "share of their peak that they reach (default 0.4)"),
        ("serving_mfu", _positive, "share of it that they reach in answering (default: as --mfu)"),
        ("records", Path, "or measured: records of runs on that device"),
        ("peak_flops", _positive, "FLOP/s of a chip that has no name here"),
        ("memory_bytes", _positive, "its memory"),
        ("price", _positive, "of a chip and hour, in your money"),
        ("critical_batch", str, "tokens, a law.json, zhang_2025 or kaplan_2020"),
        ("batch_tokens", _positive, "the batch, where it is not to be chosen"),
        ("unique_tokens", _positive, "tokens of text that there are"),
        ("epochs", _positive, "how often each may be seen (default: by the law, else once)"),
        ("min_params", _positive, "no smaller model"),
        ("max_params", _positive, "no larger model"),
    ):
        shown = name.upper() if kind is not Path else "DIR"
        limits.add_argument(f"--{name}", type=kind, metavar=shown, help=text)
    limits.add_argument(
        "--inference_tokens", type=_zero_or_more, default=0.0, metavar="TOKENS",
        help="what the model will read and write in its life; its compute counts then",
    )  # fmt: skip
    rules = parser.add_argument_group("rules, in place of those of the size table")
    rules.add_argument(
        "--rates", type=Path, metavar="LAW.json", help="a fitted law of learning_rate"
    )
    rules.add_argument(
        "--batches", type=Path, metavar="LAW.json", help="a fitted law of batch_tokens"
    )
    parser.add_argument(
        "--config",
        default=QUICKSTART,
        metavar="FILE[:ARG]",
        help=f"the config whose overrides to write (default {QUICKSTART}); {OVERRIDES}",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write plan.json here (default: print only)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a plan.json that is there"
    )


def nothing(parser: argparse.ArgumentParser) -> None:
    pass
