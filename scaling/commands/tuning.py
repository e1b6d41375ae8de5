"""The verb that searches: tune.

What it needs is imported when it runs: `scaling --help` waits for no JAX.
"""

import argparse
import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

from scaling.commands.analysis import law_at
from scaling.commands.training import open_compile_cache, stopped

EXTRA = "optuna"


def tune(options: argparse.Namespace) -> int:
    """Search the space of a config, and write tune.json."""
    from rich.console import Console

    from scaling.config import ConfigError, load, plain
    from scaling.files import write_json
    from scaling.provenance import devices
    from scaling.sweep.cells import Cells
    from scaling.sweep.launch import check_data, launch
    from scaling.sweep.prior import Prior
    from scaling.sweep.space import resolved
    from scaling.sweep.workdir import claim, set_failed_aside
    from scaling.train.loop import Stopped
    from scaling.train.processes import StopRequest
    from scaling.workshop import Workshop

    if importlib.util.find_spec(EXTRA) is None:
        raise ConfigError("scaling tune needs Optuna: pip install 'scaling-laws[search]'")
    from scaling.sweep.tune import Score, described, tune

    loaded = load(options.config, options.overrides)
    config = loaded.config
    if loaded.search is None:
        raise ConfigError("this config has no get_search(config); configs/tune.py has one")
    search = loaded.search(config)
    if options.max_flops is not None:
        search = dataclasses.replace(search, max_flops=options.max_flops)
    prior = Prior(
        config,
        None if options.law is None else law_at(options.law),
        None if options.rates is None else law_at(options.rates),
    )
    packed = config.sweep.packed or 1
    how = {"prior": prior, "sampler": options.sampler, "seed": options.seed, "batch": packed}
    path = options.workdir / "tune.json"
    _refuse_another(path, described(search, config, **how))
    open_compile_cache(config.runtime.compile_cache)
    console = Console()

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    say(f"a search within {search.max_flops:.3g} FLOPs on {devices()}; {options.workdir}")
    with claim(options.workdir, plain(config)), StopRequest() as stop:
        workshop = Workshop(options.workdir)
        check_data([resolved(config, rung).config for rung in search.rungs], workshop)

        def train(cells: Cells) -> list[Score]:
            if options.retry_failed:
                set_failed_aside(options.workdir, cells)
            records = launch(cells, workshop, console=console, stop=stop, packed=packed)
            return [Score(record.run_id, record.loss, record.reason) for record in records]

        try:
            found = tune(search, config, train=train, say=say, **how)
        except Stopped as error:
            return stopped(error)
        write_json(path, found)
    for line in _summary(found, options.config):
        say(line)
    say(f"  {path}")
    return 0 if found["best"] is not None else 1


def _refuse_another(path: Path, wanted: dict[str, Any]) -> None:
    """A work directory holds one search, whose result stays."""
    from scaling.files import differences, encode
    from scaling.sweep.workdir import WorkdirError

    if not path.exists():
        return
    found = json.loads(path.read_text(encoding="utf-8"))["search"]
    lines = "\n  ".join(differences(found, json.loads(encode(wanted))))
    if lines:
        raise WorkdirError(
            f"{path} is of another search; it differs in (there -> here)\n  {lines}\n"
            "use another --workdir, or the search it is of"
        )


def _summary(found: dict[str, Any], config: str) -> list[str]:
    best, flops, trials = found["best"], found["flops"], found["trials"]
    lost = sum(run["loss"] is None for trial in trials for run in trial["runs"])
    barred = sum(trial["barred"] is not None for trial in trials)
    lines = [
        f"{len(trials)} trials, {' then '.join(str(rung['trained']) for rung in found['rungs'])} "
        f"on the rungs; {lost} runs without a loss, {barred} trials over the law's bar; "
        f"{flops['trained']:.3g} FLOPs of {flops['planned']:.3g} planned"
    ]
    if best is None:
        return [*lines, "no trial reached the top with a loss; search lower rates, or widen them"]
    words = [f"--config.{key}={value}" for key, value in best["overrides"].items()]
    return [
        *lines,
        f"best: loss {best['loss']:.4f}, trial {best['trial']} (proposed by {best['source']}), "
        f"{'bracketed' if best['bracketed'] else 'not bracketed'}",
        *best["warnings"],
        f"  scaling train --config={config} {' '.join(words)} --workdir=DIR",
    ]
