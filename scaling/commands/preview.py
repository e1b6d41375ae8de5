"""`scaling sweep --dry_run`: what a sweep will cost, before anything of it is paid."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scaling.config import Study as Loaded
    from scaling.sweep.cells import Cells


def dry_run(loaded: "Loaded", cells: "Cells", options: argparse.Namespace) -> int:
    """Print the cost of the cells; nothing is written in the work directory."""
    import tempfile

    from rich.console import Console

    from scaling.commands.training import open_compile_cache
    from scaling.config import plain
    from scaling.provenance import devices
    from scaling.sweep.forecast import forecast
    from scaling.sweep.grid import chosen
    from scaling.sweep.measure import measure
    from scaling.sweep.packing import choose_all, packing_of, read_packing, undecided
    from scaling.sweep.preview import preview
    from scaling.sweep.tasks import pack_ids, tasks_of
    from scaling.sweep.workdir import check_study
    from scaling.workshop import Workshop

    check_study(options.workdir, plain(loaded.config))
    sweep = loaded.config.sweep
    console, known = Console(), read_packing(options.workdir)
    open_programs = {} if sweep.packed else undecided(cells, options.workdir, trunks=sweep.trunks)

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    if options.measure:
        open_compile_cache(loaded.config.runtime.compile_cache)
        with tempfile.TemporaryDirectory() as folder:
            choices = choose_all(open_programs, Workshop(Path(folder)), say=say)
        known, open_programs = known | packing_of(choices), {}
    tasks = tasks_of(
        cells,
        trunks=sweep.trunks,
        packed=sweep.packed or known,
        only=chosen(cells, options.only),
    )
    cells = cells.only(pack_ids(tasks))
    found = forecast(cells, tasks, options.workdir)
    if options.measure:
        speeds = measure(found.left, say=say)
        found = forecast(cells, tasks, options.workdir, speeds=speeds)
    console.print(
        preview(found, undecided=len(open_programs), where=devices(), measured=options.measure)
    )
    return 0
