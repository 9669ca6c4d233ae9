"""The ends of an upload in a `FileStorage`: seal and discard.

Owns what becomes of the files then, step by step, so that a crash after any step and a repetition of all of
them come out the same. Knows no writer. `FileStorage` runs these functions in worker threads.

A sealed upload keeps its file in the working area, also under a key, which is a second name of the same file.
So reading knows one place only, and whether a key is this upload's own can be seen for certain: both names
are one file. An inode number alone proves nothing, it is given again as soon as a file is gone.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tusserve.contracts import Place
from tusserve.storage.file_area import SEALED, WorkArea, lost
from tusserve.storage.file_state import Closed, Receiving, Sealed, new_nonce
from tusserve.storage.file_unsynced import synced_to


@dataclass(frozen=True, slots=True)
class Source:
    """The first `size` bytes of a file of an upload."""

    upload: str
    name: str
    size: int


def seal(
    area: WorkArea, place: Place, state: Receiving | None, closed: Sequence[Closed], length: int
) -> Sealed:
    """Make one file of the upload, and give it its key. Changes nothing that the cursor names.

    Raises `CursorLost` and `KeyTaken`.
    """
    if state is None:
        name = SEALED
        if length:
            raise lost()
        _join(area, place.id, ())
    else:
        synced_to(area, place.id, state, length)
        newest = state.newest
        name = SEALED if closed else newest.name
        if closed:
            segments = (*closed, Closed(newest.name, newest.start, length))
            _join(area, place.id, [Source(place.id, each.name, each.stop - each.start) for each in segments])
        else:
            _cut_off(area, place.id, name, length)
    return _named(area, place, name, length)


def concatenate(area: WorkArea, place: Place, sources: Sequence[Source]) -> Sealed:
    """Make one file of those of other uploads, and give it its key. Changes nothing of theirs.

    Raises `CursorLost` and `KeyTaken`.
    """
    _join(area, place.id, sources)
    return _named(area, place, SEALED, sum(each.size for each in sources))


def _named(area: WorkArea, place: Place, name: str, length: int) -> Sealed:
    """The file is whole: its names become lasting, and nobody is to change it."""
    if area.syncs:
        area.sync_folder(place.id)
    path = area.path(place.id, name)
    if place.key is None:
        # Only what no key names is marked: a sweep must not take it for a stray once its record is forgotten.
        area.disk.protect(path)
    else:
        area.link_key(place.key, path)
    return Sealed(name, length, trash=any(each != name for each in area.names(place.id)))


def sweep_trash(area: WorkArea, place: Place, state: Sealed) -> Sealed:
    """The sealed state is committed: remove the upload's other files."""
    area.at_least(place.id, state.name, state.length)
    if state.trash:
        for name in area.names(place.id):
            if name != state.name:
                area.disk.remove(area.path(place.id, name))
    return Sealed(state.name, state.length)


def discard(area: WorkArea, place: Place) -> None:
    """Remove every file of the upload. The key goes first: without the files nothing says whose it is."""
    area.check_there()
    paths = [area.path(place.id, name) for name in area.names(place.id)]
    if place.key is not None:
        area.remove_key(place.key, paths)
    for path in paths:
        area.disk.remove(path)
    if paths and area.syncs:
        area.sync_folder(place.id)


def _cut_off(area: WorkArea, upload: str, name: str, length: int) -> None:
    """The one segment is the upload: only what lies behind its end has to go."""
    try:
        fd = area.disk.open(area.path(upload, name))
    except FileNotFoundError:
        raise area.lost() from None
    try:
        size = area.disk.size(fd)
        if size < length:
            raise area.lost()
        if size > length:
            area.disk.truncate(fd, length)
        if area.syncs:
            area.disk.sync(fd)
    finally:
        area.disk.close(fd)


def _join(area: WorkArea, upload: str, sources: Sequence[Source]) -> None:
    """Make one file of several. It gets its name when it is whole, and only once: who comes second, after a
    crash or beside the first, finds it."""
    whole = area.path(upload, SEALED)
    length = sum(each.size for each in sources)
    if area.disk.status(whole) is None:
        if length:
            area.check_room(length)
        path = area.path(upload, f"join-{new_nonce()}")
        fd = area.create(path)
        try:
            try:
                at = 0
                for source in sources:
                    _copy(area, source, fd, at)
                    at += source.size
                if area.syncs:
                    area.disk.sync(fd)
            finally:
                area.disk.close(fd)
            _link_once(area, path, whole)
        finally:
            area.disk.remove(path)
    area.at_least(upload, SEALED, length)


def _copy(area: WorkArea, source: Source, target: int, at: int) -> None:
    try:
        fd = area.disk.open_to_read(area.path(source.upload, source.name))
    except FileNotFoundError:
        raise area.lost() from None
    try:
        if area.disk.copy(fd, target, source.size, at) < source.size:
            raise area.lost()
    finally:
        area.disk.close(fd)


def _link_once(area: WorkArea, path: Path, whole: Path) -> None:
    """Name the joined file. Another seal may have been quicker, or a discard: then this file is gone."""
    with suppress(FileExistsError):
        try:
            area.disk.link(path, whole)
        except FileNotFoundError:
            if area.disk.status(whole) is None:
                raise area.lost() from None
