"""`scaling sweep --dry_run`: what a sweep will cost, before anything of it is paid."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scaling.config import Study as Loaded
    from scaling.sweep.cells import Cells


def dry_run(loaded: "Loaded", cells: "Cells", options: argparse.Namespace) -> int:
    """Print the cost of the cells; nothing is written in the work directory."""
    from rich.console import Console

    from scaling.commands.training import open_compile_cache
    from scaling.config import plain
    from scaling.provenance import devices
    from scaling.sweep.forecast import forecast
    from scaling.sweep.grid import chosen
    from scaling.sweep.measure import measure
    from scaling.sweep.preview import preview
    from scaling.sweep.tasks import pack_ids, tasks_of
    from scaling.sweep.workdir import check_study

    check_study(options.workdir, plain(loaded.config))
    sweep = loaded.config.sweep
    packed = sweep.packed or 1
    tasks = tasks_of(cells, trunks=sweep.trunks, packed=packed, only=chosen(cells, options.only))
    cells = cells.only(pack_ids(tasks))
    console = Console()
    found = forecast(cells, tasks, options.workdir)
    if options.measure:
        open_compile_cache(loaded.config.runtime.compile_cache)
        speeds = measure(found.left, say=lambda text: console.print(text, highlight=False))
        found = forecast(cells, tasks, options.workdir, speeds=speeds)
    console.print(preview(found, packed=packed, where=devices(), measured=options.measure))
    return 0
