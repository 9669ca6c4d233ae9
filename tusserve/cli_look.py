"""`tusserve ls` and `tusserve show`: what is in a folder, by its records.

Owns the paging over the records and the two forms of answer; opens no bytes, takes no lease, and asks no
writer for anything. `cli_uploads` calls it.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tusserve import FileStorage, SQLiteStore, UploadState
from tusserve.cli_app import opened_records
from tusserve.cli_words import HEADING, clean, columns, everything, period, row, size, summary
from tusserve.contracts import Held
from tusserve.protocol.records import Json, UploadRecord
from tusserve.upload import Shelf

PAGE: Final = 500
"""Records read at a time: a list of millions needs no more memory than this."""
COMPLETED_AT_MOST: Final = 100
_SIZES: Final = frozenset({"length", "offset", "max_size", "rate"})
"""Numbers of bytes, which are told to people a second time in larger units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which uploads to list. `states` None: all but GONE; `limit` None: all."""

    name: str
    states: frozenset[UploadState] | None
    owner: str | None
    after: str | None
    limit: int | None


def list_uploads(folder: Path, state: Path, wanted: Wanted, *, as_json: bool) -> None:
    """Print a line for each upload, as they are read."""
    asyncio.run(_list(folder, state, wanted, as_json=as_json))
    sys.stdout.flush()  # here, so that a pipe that is closed is no traceback at the end


async def _list(folder: Path, state: Path, wanted: Wanted, *, as_json: bool) -> None:
    async with opened_records(folder, state) as store:
        shelf = Shelf(FileStorage(folder), store)
        if not as_json:
            print(columns(HEADING))
        listed = 0
        last = ""
        async for record in _records(store, wanted):
            if listed == wanted.limit:
                print(f"There are more: go on with --after {last}", file=sys.stderr)
                break
            now = datetime.now(UTC)
            print(json.dumps(summary(record, shelf, now)) if as_json else row(record, shelf, now))
            listed, last = listed + 1, record.id


async def _records(store: SQLiteStore, wanted: Wanted) -> AsyncIterator[UploadRecord]:
    """Page after page: what changes meanwhile is told as it is when its page is read."""
    states = frozenset(UploadState) - {UploadState.GONE} if wanted.states is None else wanted.states
    one = next(iter(states)) if len(states) == 1 else None
    size = PAGE if wanted.limit is None else min(PAGE, wanted.limit + 1)
    after = wanted.after
    while True:
        page = await store.uploads(wanted.name, owner=wanted.owner, state=one, after=after, limit=size)
        for record in page:
            if record.state in states:
                yield record
        if len(page) < size:
            return
        after = page[-1].id


def show_upload(folder: Path, state: Path, id: str, *, as_json: bool) -> int:
    """Print what is known of one upload; the exit code: 1 if there is none."""
    told = asyncio.run(_facts(folder, state, id))
    if told is None:
        print(f"tusserve: there is no upload {clean(id)} in {folder}", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps(told))
        return 0
    width = max(map(len, told))
    for name, value in told.items():
        print(f"{name:<{width}}  {_told(name, value)}")
    return 0


async def _facts(folder: Path, state: Path, id: str) -> dict[str, Json] | None:
    async with opened_records(folder, state) as store:
        found: tuple[UploadRecord, Held | None] | None = await store.get(id)
        if found is None:
            return None
        return everything(*found, Shelf(FileStorage(folder), store), datetime.now(UTC))


def _told(name: str, value: Json) -> str:
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, int) and name in _SIZES:
        return f"{value} ({size(value)})"
    if isinstance(value, int) and name == "age":
        return period(value)
    if isinstance(value, str):
        return clean(value)
    return clean(json.dumps(value, ensure_ascii=False))


async def ids_like(folder: Path, state: Path, beginning: str) -> list[str]:
    """Some of the ids that begin like this, for a shell to complete. Those that are gone do not count."""
    async with opened_records(folder, state) as store:
        page = await store.uploads("default", after=beginning or None, limit=COMPLETED_AT_MOST)
        return [
            record.id
            for record in page
            if record.id.startswith(beginning) and record.state is not UploadState.GONE
        ]
