"""`tusserve sweep`: what is due in a folder, done once.

Owns how a sweep's report is shown; the sweep itself is the app's. `cli` calls it.
"""

import asyncio
import sys
from dataclasses import fields

from tusserve import StoreUnavailable, SweepReport
from tusserve.cli_app import check_folder, check_uploads, make_app, started
from tusserve.cli_logging import set_up_logging
from tusserve.cli_options import AppOptions, CommandError


def sweep_folder(options: AppOptions, *, dry_run: bool) -> int:
    """Sweep and print the report; the exit code: 1 if something failed."""
    set_up_logging("text")
    check_uploads(options.folder, options.state)
    check_folder(options.folder, options.state)
    report = asyncio.run(_sweep(options, dry_run=dry_run))
    _show(report, "would be " if dry_run else "")
    return 1 if report.failed else 0


async def _sweep(options: AppOptions, *, dry_run: bool) -> SweepReport:
    app = make_app(options)
    async with started(app, options):
        try:
            return await app.sweep(dry_run=dry_run)
        except StoreUnavailable as error:
            raise CommandError(str(error)) from None


def _show(report: SweepReport, mood: str) -> None:
    counts = [
        (" ".join(f"{mood} {each.name}".split()), getattr(report, each.name)) for each in fields(report)
    ]
    if not sys.stdout.isatty():
        for name, count in counts:
            print(f"{name}: {count}")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False)
    for name, count in counts:
        table.add_row(name, str(count))
    Console().print(table)
