"""`tusserve rm`: uploads are ended, by the same way as `TusApp.terminate`.

Owns who is asked first, what is left to an application with hooks, and what is said of each; the ending
itself is the app's. `cli_uploads` calls it.
"""

import asyncio
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from tusserve import Expiry, FileStorage, TusError, UploadBusy, UploadState
from tusserve.cli_app import check_folder, check_uploads, make_app, opened_records, started
from tusserve.cli_logging import set_up_logging
from tusserve.cli_options import AppOptions, CommandError
from tusserve.cli_words import briefly, clean
from tusserve.protocol.records import UploadRecord
from tusserve.upload import Shelf

ENDED_ALREADY = frozenset({UploadState.ENDING, UploadState.GONE})


def end_uploads(folder: Path, state: Path, ids: Sequence[str], *, ask: bool, force: bool) -> int:
    """End these uploads and say so, one a line; the exit code: 1 if one of them was not ended.

    `ask`: somebody at a terminal is asked before anything is done. `force`: uploads whose application has
    hooks are ended, too; it carries that out.
    """
    set_up_logging("text")
    logging.getLogger("tusserve").setLevel(logging.WARNING)  # what is done is said here
    check_uploads(folder, state)
    check_folder(folder, state)
    shelf, records = asyncio.run(_look_up(folder, state, ids))
    for typed in dict.fromkeys(ids):
        if typed not in records:
            _say(f"there is no upload {clean(typed)} in {folder}")
    mine = [record for record in records.values() if _is_to_end(record, force=force)]
    if ask and mine and _at_terminal() and not _may_end(mine, shelf):
        return 1
    ended = asyncio.run(_end(folder, state, mine)) if mine else 0
    return 0 if ended == len(set(ids)) else 1


async def _look_up(folder: Path, state: Path, ids: Sequence[str]) -> tuple[Shelf, dict[str, UploadRecord]]:
    async with opened_records(folder, state) as store:
        found = [await store.get(each) for each in dict.fromkeys(ids)]
        shelf = Shelf(FileStorage(folder), store)
        return shelf, {each[0].id: each[0] for each in found if each is not None}


def _is_to_end(record: UploadRecord, *, force: bool) -> bool:
    if record.state in ENDED_ALREADY:
        _say(f"upload {record.id} has ended already")
        return False
    if record.gated and not force:
        _say(
            f"upload {record.id} was left alone: its application has hooks that would not be asked here. End "
            "it there, or with --force: then its end is decided now, and the application carries it out"
        )
        return False
    return True


def _at_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _may_end(records: Sequence[UploadRecord], shelf: Shelf) -> bool:
    for record in records:
        print(briefly(record, shelf), file=sys.stderr)
    what = "this upload" if len(records) == 1 else f"these {len(records)} uploads"
    return typer.confirm(f"End {what} and remove the bytes?", err=True)


async def _end(folder: Path, state: Path, records: Sequence[UploadRecord]) -> int:
    """How many of them were ended."""
    ended = 0
    for name in dict.fromkeys(record.name for record in records):
        options = AppOptions(folder=folder, state=state, durability="full", expiry=Expiry(), name=name)
        app = make_app(options)
        async with started(app, options):
            for record in records:
                if record.name != name:
                    continue
                try:
                    done = await app.terminate(record.id)
                    now = await app.get(record.id)
                except UploadBusy:
                    _say(
                        f"upload {record.id} cannot be ended now: it is being finished, or whoever writes to "
                        "it does not let go; try again"
                    )
                    continue
                except TusError as error:
                    raise CommandError(str(error)) from None
                ended += done
                if not done:
                    _say(f"upload {record.id} has ended already")
                elif now is None or now.state is UploadState.GONE:
                    print(f"ended {record.id}")
                elif record.gated:
                    print(f"ends {record.id}: its application does the rest when it sweeps next")
                else:
                    print(f"ends {record.id}: its bytes go when the server sweeps next")
    return ended


def _say(sentence: str) -> None:
    print(f"tusserve: {sentence}", file=sys.stderr)
