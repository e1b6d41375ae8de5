"""The verbs that look at runs: fit, plan, report.

What they need is imported when one of them runs: `scaling --help` waits for no JAX.
"""

import argparse
import difflib
import json
import shlex
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scaling.analysis.budget import Budget
    from scaling.analysis.chain import Chain
    from scaling.analysis.fitted import Law


def fit(options: argparse.Namespace) -> int:
    """Fit a law, or the best of all, to a table of runs and write law.json."""
    from rich.console import Console

    from scaling.analysis.evidence import Evidence
    from scaling.analysis.fit import AUTO, fit
    from scaling.analysis.intervals import METHODS
    from scaling.analysis.report.terminal import show, visible
    from scaling.analysis.rules import LAWS
    from scaling.files import write_json
    from scaling.runs import NEEDED, load

    path = options.out / "law.json"
    _refuse_existing(path, options)
    columns = _columns(options.columns)
    name = _one_of("law", options.law, (AUTO, *LAWS))
    if options.intervals is not None:
        _one_of("intervals", options.intervals, METHODS)
    needed = NEEDED if name == AUTO else (*LAWS[name].inputs, LAWS[name].target)
    runs = load(options.runs, columns=columns, needed=needed, objective=options.objective)
    if options.only is not None:
        runs = runs.that_are(options.only)
    _open_compile_cache()
    law = fit(
        runs,
        name,
        delta=options.delta,
        asymmetry=options.asymmetry,
        intervals=options.intervals,
        bootstrap=options.bootstrap,
        seed=options.seed,
    )
    console = Console()
    show(Evidence(law=law.to_json()), console)
    convention = dict(law.convention)
    kind = f"{convention.pop('objective', '')} runs".lstrip()
    read = ", ".join(f"{ours} from {theirs}" for ours, theirs in convention.items())
    for line in (
        f"Read {len(runs)} {kind} of {options.runs}: {read}.",
        f"The parameters are {law.diagnostics['identifiability']['verdict']}.",
        f"Intervals: {law.bootstrap['n']} refits; {law.bootstrap['method']}.",
        f"  {write_json(path, law.to_json())}",
    ):
        console.print(visible(line), highlight=False, markup=False, soft_wrap=True)
    return 0


def plan(options: argparse.Namespace) -> int:
    """The best run within a budget, or the cheapest to a loss or an accuracy."""
    from rich.console import Console

    from scaling.analysis.evidence import Evidence
    from scaling.analysis.plan import aim_at, plan
    from scaling.analysis.report.terminal import show, visible
    from scaling.config import load
    from scaling.files import write_json
    from scaling.sweep.planned import nearest_shape

    if options.out is not None:
        _refuse_existing(options.out / "plan.json", options)
    law = law_at(options.law)
    config = load(options.config, options.overrides).config
    chain = _chain(options, law)
    aims = [] if chain is None else [aim_at(chain, score) for score in options.score]
    content = plan(
        law,
        options.flops or (),
        budget=_budget(options, config.corpus.vocabulary),
        losses=[*(options.loss or ()), *aims],
        by=options.by,
        shape_for=nearest_shape(config),
        rates=None if options.rates is None else law_at(options.rates),
        batches=None if options.batches is None else law_at(options.batches),
        next_flops=options.next_flops,
        criterion=options.criterion,
    )
    console = Console()
    show(Evidence(plan=content), console)
    scored = [] if chain is None else [_score(chain, target) for target in content["targets"]]
    said = scored + [f"The law itself warns: {text}" for text in law.warnings]
    said += [f"Taken for granted: {text}." for text in content["assumptions"]]
    for target in content["targets"]:
        words = [f"--config.{key}={value}" for key, value in target["overrides"].items()]
        if words:
            words = [f"--config.{override}" for override in options.overrides] + words
            # A shell splits tuples at their spaces.
            line = shlex.join([f"--config={options.config}", *words])
            said.append(f"  scaling train {line} --workdir=DIR")
    if options.out is not None:
        said.append(f"  {write_json(options.out / 'plan.json', content)}")
    for line in said:
        console.print(visible(line), highlight=False, markup=False, soft_wrap=True)
    return 0


def report(options: argparse.Namespace) -> int:
    """Write report.html and the figures of a work directory, or of a folder with a law.json."""
    from rich.console import Console

    from scaling.analysis.evidence import read_evidence
    from scaling.analysis.report import write_report
    from scaling.analysis.report.terminal import show

    console = Console()
    paths = write_report(options.workdir)
    show(read_evidence(options.workdir), console)
    for path in paths:
        console.print(f"  {path}", highlight=False, soft_wrap=True)
    return 0


def _budget(options: argparse.Namespace, vocabulary: int) -> "Budget":
    from scaling.analysis.budget import budget_of
    from scaling.analysis.devices import device, measured_utilization
    from scaling.records import read

    utilization, source = options.mfu, "as given"
    if utilization is None and options.records is not None:
        if not options.records.is_dir():
            raise ValueError(f"--records={options.records}: there is no such folder")
        kind = None if options.device is None else device(options.device).kind
        found = [read(path) for path in sorted(options.records.glob("*.json"))]
        utilization = measured_utilization(found, kind=kind)
        source = f"the median of the runs in {options.records}"
    return budget_of(
        chips=options.chips,
        device_name=options.device,
        hours=options.hours,
        lifetime_hours=options.lifetime_hours,
        utilization=utilization,
        utilization_source=source,
        serving_utilization=options.serving_mfu,
        peak_flops=options.peak_flops,
        memory_bytes=options.memory_bytes,
        price_per_hour=options.price,
        vocabulary=vocabulary,
        critical_batch=_critical(options.critical_batch),
        batch_tokens=options.batch_tokens,
        unique_tokens=options.unique_tokens,
        epochs=options.epochs,
        inference_tokens=options.inference_tokens,
        params_low=options.min_params,
        params_high=options.max_params,
    )


def _critical(text: str | None) -> "float | str | Law | None":
    """Tokens, the name of a published law, or the file of a fitted one."""
    if text is None:
        return None
    if text.endswith(".json"):
        return law_at(Path(text))
    try:
        return float(text)
    except ValueError:
        return text


def _chain(options: argparse.Namespace, law: "Law") -> "Chain | None":
    """The law of the loss and the law of a task, where one is given."""
    from scaling.analysis.chain import Chain

    if (options.task is None) != (options.score is None):
        raise ValueError(
            "--score and --task belong together, as in --score=0.85 --task=LAW.json: the score to "
            "reach, and a law of it that `scaling fit --law=accuracy` made"
        )
    return None if options.task is None else Chain(loss=law, task=law_at(options.task))


def _score(chain: "Chain", target: Mapping[str, Any]) -> str:
    """What a planned run will score, in words."""
    run = target["run"]
    params = run["params"] if run else target["params"]["value"]
    useful = (run or target)["useful_tokens"]
    name, task = chain.task.form.target, chain.task.diagnostics["identifiability"]
    low, high = (float(end) for end in chain.predict_interval(params, useful))
    doubt = f"; of its law {task['verdict']}" if task["not_identified"] else ""
    return (
        f"Predicted {name} {float(chain.predict(params, useful)):.4g} (90% interval {low:.4g} to "
        f"{high:.4g}){doubt}."
    )


def law_at(path: Path) -> "Law":
    """The law of a law.json."""
    from scaling.analysis.fitted import Law

    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"there is no file {path}; make one with: scaling fit RUNS --out={path.parent}"
        ) from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is not JSON ({error}); give a law.json of `scaling fit`"
        ) from None
    return Law.from_json(content)


def _open_compile_cache() -> None:
    """Look for compiled fits on disk; a fit goes on without, and says so."""
    from scaling.train import compile_cache

    try:
        compile_cache.open_cache(compile_cache.default_folder())
    except OSError as error:
        print(f"fitting without a compile cache: {error}", file=sys.stderr)


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
