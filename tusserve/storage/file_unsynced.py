"""Bytes that a `FileStorage` acknowledged without syncing them, and what becomes of them.

Owns what a state says about the boot under which it was written, and the list of what is to be synced when
the storage is left. Knows no writer. Writers, readers and seal ask it, in worker threads.
"""

import threading
from contextlib import suppress
from dataclasses import dataclass

from tusserve.storage.file_area import WorkArea, lost
from tusserve.storage.file_state import Receiving


@dataclass(frozen=True, slots=True)
class _Tail:
    id: str
    name: str


class Unsynced:
    """Which segments have acknowledged bytes that are not synced, at most `limit` of them."""

    def __init__(self, area: WorkArea, limit: int = 1_000) -> None:
        self._area, self._limit = area, limit
        self._lock = threading.Lock()
        self._tails: dict[_Tail, tuple[str, int]] = {}

    def add(self, id: str, name: str, run: str, stop: int) -> None:
        """Bytes up to offset `stop`, by the writer `run`, are acknowledged and not synced. Where they are
        too many, the oldest are synced at once."""
        with self._lock:
            self._tails.pop(_Tail(id, name), None)
            self._tails[_Tail(id, name)] = run, stop
            oldest = next(iter(self._tails.items())) if len(self._tails) > self._limit else None
        if oldest is not None:
            self._sync(*oldest)

    def drop(self, id: str, name: str) -> None:
        """All of a segment is synced, or it is gone."""
        with self._lock:
            self._tails.pop(_Tail(id, name), None)

    def sync_all(self) -> None:
        """Sync what is left: before the storage is."""
        with self._lock:
            tails = list(self._tails.items())
        for tail in tails:
            self._sync(*tail)

    def _sync(self, tail: _Tail, last: tuple[str, int]) -> None:
        """Sync one, and note it where a later boot finds it: the record no longer can be changed."""
        disk = self._area.disk
        with suppress(FileNotFoundError):
            self._area.sync_file(tail.id, tail.name)
            note = self._area.path(tail.id, note_of(tail.name))
            disk.remove(note)
            fd = disk.create(note)
            try:
                run, stop = last
                disk.write(fd, f"{run} {stop}".encode(), 0)
                disk.sync(fd)
            finally:
                disk.close(fd)
            self._area.sync_folder(tail.id)
        with self._lock:
            if self._tails.get(tail) == last:
                del self._tails[tail]


def synced_to(area: WorkArea, id: str, state: Receiving, stop: int) -> int:
    """Up to which offset an upload that has `stop` bytes would survive a loss of power from now on.

    Raises `CursorLost` if the machine was started anew since, and not all of them were synced before.
    """
    if state.boot is None:
        return stop
    if state.boot == area.boot:
        return min(state.synced, stop)
    if stop > max(state.synced, _noted(area, id, state)):
        raise lost()
    return stop


def note_of(name: str) -> str:
    """The name of the note about a segment; it goes with the upload's other files."""
    return f"{name}-synced"


def _noted(area: WorkArea, id: str, state: Receiving) -> int:
    """What was noted for exactly the writer whose state this is: a later one may have changed the file."""
    try:
        fd = area.disk.open_to_read(area.path(id, note_of(state.newest.name)))
    except FileNotFoundError:
        return 0
    try:
        run, _, stop = area.disk.read(fd, 64, 0).decode("ascii", "replace").partition(" ")
    finally:
        area.disk.close(fd)
    return int(stop) if run == state.run and stop.isdecimal() else 0
