"""Which processes are dead: a locked file for each that is not.

Owns the folder of lock files beside the store, and the table of noted deaths; knows no upload. The store's
threads ask here when a lease of somebody else is in the way.

The kernel frees a lock the moment its process ends, however it ends, and not before: a process that stands
still has it, too. `flock`, because two stores of one process have to see each other, and POSIX locks are the
process's. A file comes under its name only when it is locked, so whoever finds one unlocked has found a dead
holder. A holder without a file and without a noted death is not proven dead.
"""

import os
import sqlite3
import sys
import time
from hashlib import blake2b
from pathlib import Path
from typing import Final

from tusserve.errors import StoreUnavailable

if sys.platform != "win32":
    import fcntl

BELIEVED: Final = 0.1
"""Seconds for which an answer about a holder is believed, so that many who wait cost one look."""
REMEMBERED: Final = 30 * 86_400 * 1_000_000
"""Microseconds after which a death is forgotten; leases that old ran out long ago, and without the proof a
storage only takes more care than it needs to."""

UNFINISHED: Final = 60.0
"""Seconds that a file may take from being made to being locked and named."""


class Holders:
    """The lock files of the holders of this process, and looks at those of others.

    All methods but `drop` are for the store's threads, inside a transaction where they write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ours: dict[str, int] = {}
        self._looked: dict[str, tuple[float, bool]] = {}

    def enlist(self, connection: sqlite3.Connection, holder: str) -> None:
        """From now on others can tell whether `holder`, which is this process, lives."""
        if sys.platform == "win32":
            return
        if holder not in self._ours:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._ours[holder] = self._locked_file(holder)
        connection.execute("DELETE FROM deaths WHERE holder = ?", (holder,))

    def _locked_file(self, holder: str) -> int:
        path = self._path(holder)
        if path.exists():  # left by one of that name that died, or there is one
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            if _lock(descriptor):
                return descriptor
            os.close(descriptor)
            raise StoreUnavailable(f"a living process is called {holder}, too: give each a name of its own")
        unfinished = path.with_suffix(".new")
        descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _lock(descriptor)
            os.write(descriptor, holder.encode())
            unfinished.rename(path)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def is_ours(self, holder: str) -> bool:
        """Whether `holder` is this process."""
        return holder in self._ours

    def is_dead(self, connection: sqlite3.Connection, holder: str) -> bool:
        """Whether `holder` is proven dead."""
        if holder in self._ours:
            return False
        now = time.monotonic()
        looked = self._looked.get(holder)
        if looked is None or now - looked[0] > BELIEVED:
            if len(self._looked) > 1000:
                self._looked.clear()
            self._looked[holder] = looked = (now, self._look(connection, holder))
        return looked[1]

    def _look(self, connection: sqlite3.Connection, holder: str) -> bool:
        # The file first: it is removed only after the death was noted.
        try:
            descriptor = os.open(self._path(holder), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return (
                connection.execute("SELECT 1 FROM deaths WHERE holder = ?", (holder,)).fetchone() is not None
            )
        try:
            return _lock(descriptor, shared=True)  # several may look at once
        finally:
            os.close(descriptor)

    def note_deaths(self, connection: sqlite3.Connection, now: int, bodies: "Bodies") -> None:
        """Write down who died and left a file, and add the files to `bodies`: once that is committed they
        may go."""
        connection.execute("DELETE FROM deaths WHERE noted_at < ?", (now - REMEMBERED,))
        for path in self._folder.glob("*") if self._folder.is_dir() else ():
            if (holder := bodies.add(path)) is not None and self._path(holder) == path:
                _note(connection, holder, now)

    def note_leave(self, connection: sqlite3.Connection, now: int) -> None:
        """Write down that the holders of this process do nothing any more."""
        for holder in self._ours:
            _note(connection, holder, now)

    def leave(self, *, noted: bool) -> None:
        """Let go of the locks. Files stay where the leave could not be noted: unlocked they are the proof."""
        for holder, descriptor in self._ours.items():
            if noted:
                self._path(holder).unlink(missing_ok=True)
            os.close(descriptor)
        self._ours.clear()

    def drop(self) -> None:
        """After a fork, in the child: close what it inherited, or it would keep its parent's locks alive."""
        for descriptor in self._ours.values():
            os.close(descriptor)
        self._ours.clear()

    def _path(self, holder: str) -> Path:
        return self._folder / blake2b(holder.encode(), digest_size=16).hexdigest()


class Bodies:
    """Files of dead holders, locked so that nobody takes one over meanwhile."""

    def __init__(self) -> None:
        self._files: list[tuple[Path, int]] = []

    def add(self, path: Path) -> str | None:
        """Lock one more file if its holder does not, and read whose it is."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        fresh = path.suffix and time.time() - os.fstat(descriptor).st_mtime < UNFINISHED
        if fresh or not _lock(descriptor):
            os.close(descriptor)
            return None
        self._files.append((path, descriptor))
        return os.read(descriptor, 4096).decode(errors="replace")

    def close(self, *, remove: bool) -> None:
        """Let them go, and remove them if their deaths are committed."""
        for path, descriptor in self._files:
            if remove and _is(path, descriptor):
                path.unlink(missing_ok=True)
            os.close(descriptor)
        self._files.clear()


def _note(connection: sqlite3.Connection, holder: str, now: int) -> None:
    connection.execute("INSERT OR REPLACE INTO deaths (holder, noted_at) VALUES (?, ?)", (holder, now))


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _lock(descriptor: int, *, shared: bool = False) -> bool:
    """Take the lock if nobody has it. Where there is none to take, nobody is ever proven dead."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
