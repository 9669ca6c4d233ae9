"""Files in the working area of a `FileStorage` that nobody names.

Owns how strays are told from what must stay, and the note of whose bytes these are. Knows no writer.
`FileStorage` calls it for the reaper.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

from tusserve.contracts import CursorOf, Held
from tusserve.storage.file_area import SEALED, WorkArea, split_name, translated
from tusserve.storage.file_disk import is_protected
from tusserve.storage.file_state import Sealed, closed_segments, new_nonce, parse_state
from tusserve.storage.file_threads import WorkerThreads
from tusserve.storage.file_unsynced import note_of

_IDENTITY: Final = "store-identity"
_MAX_IDENTITY: Final = 4096


async def sweep(
    area: WorkArea, threads: WorkerThreads, cursor_of: CursorOf, older_than: datetime, *, dry_run: bool
) -> int:
    """Remove the files, last written before `older_than`, that no committed cursor names: how many."""
    before = older_than.timestamp()
    strays = 0
    for shard in await threads.start(partial(_shards, area)).wait():
        for upload, names in (await threads.start(partial(_old, area, shard, before)).wait()).items():
            kept = await _named(cursor_of, upload)
            if isinstance(kept, Held):
                continue
            remove = partial(_remove, area, upload, names, kept, before, dry_run=dry_run)
            strays += await threads.start(remove).wait()
    return strays


async def _named(cursor_of: CursorOf, upload: str) -> Collection[str] | Held | None:
    """The names of an upload's files that must stay; None: the store does not know it."""
    found = await cursor_of(upload)
    if found is None or isinstance(found, Held):
        return found
    _, cursor = found
    state = parse_state(cursor.state)
    if isinstance(state, Sealed):
        return {state.name}
    if state is None:
        return {SEALED}
    closed = [each.name for each in await closed_segments(cursor)]
    # A joined file that no cursor names yet may have its key already: a later seal has to find it.
    return {SEALED, state.newest.name, note_of(state.newest.name), *closed}


def _shards(area: WorkArea) -> list[Path]:
    with translated():
        return [area.data / name for name in sorted(area.disk.names(area.data)) if len(name) == 2]


def _old(area: WorkArea, shard: Path, before: float) -> Mapping[str, list[str]]:
    """By upload, the names of the files below a folder that nobody wrote to since `before`."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    with translated():
        for folder in area.disk.names(shard):
            for file in area.disk.names(shard / folder):
                named = split_name(file)
                status = area.disk.status(shard / folder / file)
                if named is not None and status is not None and status.st_mtime < before:
                    found[named[0]].append(named[1])
    return found


def _remove(
    area: WorkArea,
    upload: str,
    names: list[str],
    kept: Collection[str] | None,
    before: float,
    *,
    dry_run: bool,
) -> int:
    strays = 0
    with translated():
        for name in names:
            path = area.path(upload, name)
            status = area.disk.status(path)
            if status is None or status.st_mtime >= before:
                continue
            # A sealed file of an upload that the store does not know is one whose record was forgotten.
            if is_protected(status) if kept is None else name in kept:
                continue
            strays += 1
            if not dry_run:
                area.disk.remove(path)
    return strays


def kept_identity(root: Path) -> str | None:
    """Whose bytes are in this folder, by the note in it; None: there is no note, so no server kept any here.
    Makes nothing. Raises `OSError`."""
    try:
        with (root / _IDENTITY).open("rb") as note:
            return note.read(_MAX_IDENTITY).decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None


def claim(area: WorkArea, identity: str) -> bool:
    """Note whose bytes these are, if nobody did. Says whether they are this store's."""
    disk, path = area.disk, area.root / _IDENTITY
    with translated():
        if disk.status(path) is None:
            draft = area.root / f".{_IDENTITY}-{new_nonce()}"
            fd = disk.create(draft)
            try:
                disk.write(fd, identity.encode(), 0)
                if area.syncs:
                    disk.sync(fd)
            finally:
                disk.close(fd)
            with suppress(FileExistsError):  # another process was quicker
                disk.link(draft, path)
            disk.remove(draft)
            if area.syncs:
                disk.sync_folder(area.root)
        fd = disk.open_to_read(path)
        try:
            return disk.read(fd, _MAX_IDENTITY, 0) == identity.encode()
        finally:
            disk.close(fd)
