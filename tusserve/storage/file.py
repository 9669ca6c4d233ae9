"""Bytes in files of this machine.

Owns `FileStorage`: its settings, its threads, and what each call of the contract is made of. Knows no record
and no store. The engine calls it; what is done to files is in the modules `file_*`, in worker threads.
"""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeAlias, TypeVar, get_args

from tusserve.contracts import Cursor, CursorOf, Lease, Place, Writer
from tusserve.errors import ConfigError
from tusserve.storage.budget import BUDGET, ByteBudget
from tusserve.storage.file_area import WorkArea, translated
from tusserve.storage.file_disk import Disk
from tusserve.storage.file_reader import FileReader
from tusserve.storage.file_sealing import discard, seal, sweep_trash
from tusserve.storage.file_state import Sealed, closed_segments, dump_state, parse_state
from tusserve.storage.file_sweep import claim, sweep
from tusserve.storage.file_threads import WorkerThreads
from tusserve.storage.file_unsynced import Unsynced
from tusserve.storage.file_writer import FileWriter, Means

__all__ = ["Durability", "FileStorage"]

Durability: TypeAlias = Literal["full", "checkpoint", "none"]
Result = TypeVar("Result")


class FileStorage:
    """Keeps uploads in a directory of a local file system.

    `durability` says what an acknowledged byte survives:

    - `full`: a loss of power. Data and names are synced before each acknowledgement.
    - `checkpoint`: a loss of power if it was acknowledged by a checkpoint, at the end of the upload, or
      before the storage was left in order; a killed process in any case.
    - `none`: a killed process. Nothing is ever synced.

    Below `full`, an upload that is not sealed and may have lost bytes to a new start of the machine is lost.

    `reserve` bytes of the disk are left free: with less than that, writers raise `StorageFull`, so that
    uploads can still be terminated and the records kept. `checkpoint_bytes` is how often a long body is made
    durable. `threads` wait for the disk, beside those of the application. `budget` bounds the bytes that
    writers hold in memory; all storages of a process share one of 64 MiB unless told otherwise. A reader
    holds one chunk of at most 512 KiB.

    A sealed upload without a key is a read-only file in the working area `DIR/data`. With a key it has a
    second name, `DIR/files/KEY`. An application that wants such bytes gone terminates the upload: removing
    the one name frees nothing.

    Raises `ConfigError` when it is entered and the directory cannot be used.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        durability: Durability = "full",
        reserve: int = 64 << 20,
        checkpoint_bytes: int = 16 << 20,
        threads: int = 16,
        budget: ByteBudget = BUDGET,
        disk: Disk | None = None,
    ) -> None:
        if durability not in get_args(Durability):
            raise ConfigError(f"durability is one of {', '.join(get_args(Durability))}, not {durability!r}")
        if not os.fspath(directory):
            raise ConfigError("FileStorage needs a directory, and was given an empty path")
        if reserve < 0 or checkpoint_bytes < 1 or threads < 1:
            raise ConfigError("FileStorage takes no negative reserve, and at least 1 thread and 1 byte")
        self._checkpoint_bytes = checkpoint_bytes
        self._durability = durability
        self._threads = WorkerThreads(threads)
        # Absolute: the process may change its working directory later.
        root = Path(directory).absolute()
        self._area = WorkArea(root, disk or Disk(), reserve=reserve, syncs=durability != "none")
        self._unsynced = Unsynced(self._area)
        self._means = Means(self._area, self._threads, budget, self._unsynced, durability, checkpoint_bytes)
        self._entered = 0

    @property
    def checkpoint_bytes(self) -> int:
        """As it was set."""
        return self._checkpoint_bytes

    async def __aenter__(self) -> Self:
        self._entered += 1
        try:
            await self._threads.start(self._area.prepare).wait()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._entered -= 1
        if self._entered == 0:
            try:
                await self._run(self._unsynced.sync_all)
            finally:
                await self._threads.stop()

    def writer(
        self, place: Place, cursor: Cursor, at: int, lease: Lease
    ) -> AbstractAsyncContextManager[Writer]:
        """A writer that goes on at `at`. It touches no file before a batch is full or flushed, so what is
        wrong with the files shows there: `StorageFull`, `StorageUnavailable`, `CursorLost`, `KeyTaken`.

        A small body is opened, written, synced and closed by its `flush(True)`.
        """
        return FileWriter(self._means, place, cursor, at, lease)

    def read(
        self, place: Place, cursor: Cursor, start: int, stop: int
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Exactly the bytes of the half-open range. Whether all are there is seen before the first is given:
        then `CursorLost`."""
        return FileReader(self._area, self._threads, place, cursor, start, stop)

    async def seal(self, place: Place, cursor: Cursor, length: int) -> str:
        """One segment: it stays where it is, and gets its key. Several: they are joined to one file, for
        which there must be room. Raises `CursorLost`, `KeyTaken`, `StorageFull`, `StorageUnavailable`."""
        state = parse_state(cursor.state)
        if isinstance(state, Sealed):
            return dump_state(await self._run(partial(sweep_trash, self._area, place, state)))
        closed = await closed_segments(cursor)
        sealed = await self._run(partial(seal, self._area, place, state, closed, length))
        if state is not None:
            self._unsynced.drop(place.id, state.newest.name)
        return dump_state(sealed)

    async def discard(self, place: Place, cursor: Cursor) -> None:  # noqa: ARG002 - all its files are found
        """Remove every file of the upload, and its key if it is a name of one of them."""
        await self._run(partial(discard, self._area, place))

    def local_path(self, place: Place, state: str) -> Path | None:
        """Where a sealed upload's bytes are: under its key if it has one. None: it is not sealed."""
        sealed = parse_state(state)
        if not isinstance(sealed, Sealed):
            return None
        if place.key is not None:
            return self._area.files / place.key
        return self._area.path(place.id, sealed.name)

    async def sweep_strays(self, cursor_of: CursorOf, older_than: datetime, *, dry_run: bool) -> int:
        """Remove files of the working area, last written before `older_than`, that no committed cursor names.

        A sealed file whose record the store no longer has is none: its bytes stay.
        """
        return await sweep(self._area, self._threads, cursor_of, older_than, dry_run=dry_run)

    async def has_bytes(self, id: str) -> bool:
        """Whether there is any file of an upload of this id."""
        return bool(await self._run(partial(self._area.names, id)))

    async def claim(self, identity: str) -> bool:
        """Note in `DIR/store-identity` whose bytes these are. False: another store's."""
        return await self._run(partial(claim, self._area, identity))

    async def _run(self, call: Callable[[], Result]) -> Result:
        def translating() -> Result:
            with translated():
                return call()

        return await self._threads.start(translating).wait()
