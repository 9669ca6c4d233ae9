"""Reading a range of an upload from the files of a `FileStorage`.

Owns which bytes of which file a range is, and the reader that gives them. Knows nothing of writing.
`FileStorage.read` makes readers. Only worker threads touch the open file, as in `file_writer`.
"""

import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from tusserve.contracts import Cursor, Place
from tusserve.storage.file_area import WorkArea, lost, translated
from tusserve.storage.file_state import Closed, Receiving, Sealed, closed_segments, parse_state
from tusserve.storage.file_threads import Job, WorkerThreads
from tusserve.storage.file_unsynced import synced_to

_CHUNK: Final = 512 << 10


@dataclass(frozen=True, slots=True)
class Piece:
    """The bytes `start` to `stop` of the file `name`."""

    name: str
    start: int
    stop: int


async def pieces_of(cursor: Cursor, start: int, stop: int) -> Sequence[Piece]:
    """Where the bytes of a range are, in order. Raises `CursorLost` where nothing is stored at all."""
    state = parse_state(cursor.state)
    if start == stop:
        return ()
    if state is None:
        raise lost()
    if isinstance(state, Sealed):
        return (Piece(state.name, start, stop),)
    newest = state.newest
    segments = await closed_segments(cursor) if start < newest.start else ()
    segments = (*segments, Closed(newest.name, newest.start, max(stop, newest.start)))
    return tuple(
        Piece(each.name, max(start, each.start) - each.start, min(stop, each.stop) - each.start)
        for each in segments
        if each.start < stop and each.stop > start
    )


class FileReader:
    """The bytes of a range, in chunks of at most 512 KiB. One task uses it at a time."""

    def __init__(
        self, area: WorkArea, threads: WorkerThreads, place: Place, cursor: Cursor, start: int, stop: int
    ) -> None:
        self._area, self._threads = area, threads
        self._place, self._cursor, self._start, self._stop = place, cursor, start, stop
        self._pieces: list[Piece] = []
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._position = 0
        """In the file of the first piece that is left."""
        self._job: Job[bytes] | None = None
        self._ended = False

    async def __aenter__(self) -> AsyncIterator[bytes]:
        self._pieces = list(await pieces_of(self._cursor, self._start, self._stop))
        if self._pieces:
            self._position = self._pieces[0].start
            await self._threads.start(self._look).wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._fd is not None or (self._job is not None and not self._job.done):
            await self._threads.start(self._finish).outlast()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._pieces:
            raise StopAsyncIteration
        self._job = self._threads.start(self._next)
        return await self._job.wait()

    def _look(self) -> None:
        """Before the first byte is given: is all of it there?"""
        with translated():
            state = parse_state(self._cursor.state)
            if isinstance(state, Receiving):
                synced_to(self._area, self._place.id, state, self._stop)
            for piece in self._pieces:
                self._area.at_least(self._place.id, piece.name, piece.stop)

    def _next(self) -> bytes:
        with self._lock, translated():
            if self._ended:
                return b""
            piece = self._pieces[0]
            if self._fd is None:
                try:
                    self._fd = self._area.disk.open_to_read(self._area.path(self._place.id, piece.name))
                except FileNotFoundError:
                    raise self._area.lost() from None
            data = self._area.disk.read(self._fd, min(_CHUNK, piece.stop - self._position), self._position)
            if not data:
                raise self._area.lost()
            self._position += len(data)
            if self._position == piece.stop:
                self._close()
                del self._pieces[0]
                self._position = self._pieces[0].start if self._pieces else 0
            return data

    def _finish(self) -> None:
        with self._lock, suppress(OSError):
            self._ended = True
            self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            self._area.disk.close(fd)
