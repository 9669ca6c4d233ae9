"""Writing one body to a file of a `FileStorage`.

Owns the writer that the engine pushes bytes into, and the open file behind it. Knows nothing of seal, discard
and reading. `FileStorage.writer` makes them.

Only worker threads touch the file: they open it with the first batch, write one batch while the next one
gathers, and close it with the last. So no cancelled task can close a file that a thread still writes to.
"""

import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Final, Self

from tusserve.contracts import Cursor, Durable, Lease, Place
from tusserve.storage.budget import MAX_BATCH, ByteBudget
from tusserve.storage.file_area import WorkArea, taken, translated
from tusserve.storage.file_state import (
    Closed,
    Receiving,
    Sealed,
    Segment,
    dump_entry,
    dump_state,
    new_nonce,
    parse_state,
)
from tusserve.storage.file_threads import Job, WorkerThreads
from tusserve.storage.file_unsynced import Unsynced, synced_to

_FIRST_BATCH: Final = 256 << 10


@dataclass(frozen=True, slots=True)
class Means:
    """What the writers of one storage share."""

    area: WorkArea
    threads: WorkerThreads
    budget: ByteBudget
    unsynced: Unsynced
    durability: str
    checkpoint_bytes: int


@dataclass(frozen=True, slots=True)
class Opening:
    """Where a writer writes: decided from the committed cursor before any file is touched."""

    place: Place
    at: int
    segment: Segment
    before: Receiving | None
    run: str

    @classmethod
    def decide(cls, place: Place, cursor: Cursor, at: int, lease: Lease) -> "Opening":
        """Go on in the newest segment if all who may still write to it are dead, else in a new one."""
        before = parse_state(cursor.state)
        if isinstance(before, Sealed):
            raise ValueError("a sealed upload takes no more bytes")
        if before is not None and before.newest.fence > lease.alive:
            segment = before.newest
        else:
            segment = Segment.new(lease.fence.number, at)
        return cls(place, at, segment, before, new_nonce())

    @property
    def closes(self) -> Closed | None:
        """The segment that ends here because a new one begins."""
        if self.before is None or self.segment == self.before.newest or self.before.newest.start == self.at:
            return None
        return Closed(self.before.newest.name, self.before.newest.start, self.at)


@dataclass(frozen=True, slots=True)
class Batch:
    """What a worker thread does in one go: write `chunks`, and then what the flags say."""

    chunks: list[bytes]
    taken: int = 0
    """Of the budget."""
    sync: bool = False
    close: bool = False
    protect: bool = False


class SegmentFile:
    """The open file of one writer. All methods block and are for worker threads, one at a time."""

    def __init__(self, means: Means, opening: Opening) -> None:
        self._means, self._opening = means, opening
        self._path = means.area.path(opening.place.id, opening.segment.name)
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._unchecked = 0
        self._name_synced = False
        self.touched = False
        """Whether it was opened at all."""
        self.created = False
        self.ended = False
        """Nothing will be written any more."""
        self.end = opening.at
        """The offset behind the last byte that was written."""
        self.synced = opening.at

    @property
    def is_open(self) -> bool:
        return self._fd is not None

    def put(self, batch: Batch) -> None:
        """Write a batch. Raises `StorageFull`, `StorageUnavailable`, `CursorLost`, `KeyTaken`."""
        try:
            with self._lock, translated():
                if self.ended:
                    return
                if self._fd is None:
                    self._open(sum(map(len, batch.chunks)))
                self._write(batch.chunks)
                if batch.protect:
                    self._means.area.disk.protect(self._path)
                self._sync_or_note(batch)
                if batch.close:
                    self._close()
        finally:
            self._means.budget.give(batch.taken)

    def finish(self, keep: bool) -> None:
        """Close the file for good, after whatever still runs. What nobody was told of need not be kept."""
        with self._lock:
            self.ended = True
            with suppress(OSError):
                self._close()
                if self.created and not keep:
                    self._means.area.disk.remove(self._path)

    def _open(self, needed: int) -> None:
        area, opening = self._means.area, self._opening
        area.check_room(needed)
        if self.touched:
            self._fd = area.disk.open(self._path)
        elif opening.before is not None and opening.segment == opening.before.newest:
            self._go_on(opening.before)
        else:
            self._begin()
        self.touched = True

    def _go_on(self, before: Receiving) -> None:
        """Open the segment that is there, and drop what lies behind the committed offset."""
        area, opening = self._means.area, self._opening
        self.synced = synced_to(area, opening.place.id, before, opening.at)
        self._name_synced = before.boot is None
        try:
            self._fd = area.disk.open(self._path)
        except FileNotFoundError:
            raise area.lost() from None
        length, size = opening.at - opening.segment.start, area.disk.size(self._fd)
        if size < length:
            raise area.lost()
        if size > length:
            area.disk.truncate(self._fd, length)

    def _begin(self) -> None:
        """Create a new segment, behind the one that is closed by it."""
        area, opening = self._means.area, self._opening
        place, before = opening.place, opening.before
        if before is None:
            if opening.at:
                raise area.lost()
            if place.key is not None and area.has_key(place.key):
                raise taken(place.key)
        else:
            self.synced = synced_to(area, place.id, before, opening.at)
            area.at_least(place.id, before.newest.name, opening.at - before.newest.start)
            if area.syncs and before.newest.start <= self.synced < opening.at:
                area.sync_file(place.id, before.newest.name)
                self.synced = opening.at
        self._fd = area.create(self._path)
        self.created = True

    def _write(self, chunks: list[bytes]) -> None:
        assert self._fd is not None
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()  # not all of it twice in memory
        if self._unchecked >= self._means.checkpoint_bytes:
            self._means.area.check_room(len(data))
            self._unchecked = 0
        self._means.area.disk.write(self._fd, data, self.end - self._opening.segment.start)
        if not self._means.area.disk.has_name(self._fd):
            raise self._means.area.lost()  # somebody removed it: nobody would find these bytes
        self.end += len(data)
        self._unchecked += len(data)

    def _sync_or_note(self, batch: Batch) -> None:
        assert self._fd is not None
        upload, segment = self._opening.place.id, self._opening.segment
        if batch.sync:
            self._means.area.disk.sync(self._fd)
            if not self._name_synced:
                self._means.area.sync_folder(upload)
                self._name_synced = True
            if self.synced >= segment.start:  # else earlier segments are not synced
                self.synced = self.end
            self._means.unsynced.drop(upload, segment.name)
        elif batch.close and self._means.durability == "checkpoint":
            self._means.unsynced.add(upload, segment.name, self._opening.run, self.end)

    def _close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            self._means.area.disk.close(fd)


class FileWriter:
    """Gathers what is written into batches and has worker threads write them, one at a time.

    A failure is final: whatever comes after it fails like it.
    """

    opened: str | None = None

    def __init__(self, means: Means, place: Place, cursor: Cursor, at: int, lease: Lease) -> None:
        self._means, self._cursor = means, cursor
        self._opening = Opening.decide(place, cursor, at, lease)
        self._file = SegmentFile(means, self._opening)
        self._chunks: list[bytes] = []
        self._size = self._taken = 0
        """Of the batch that gathers: its bytes, and how many the budget gave for it."""
        self._short = False
        """Whether the budget gave less than was wanted."""
        self._batch = _FIRST_BATCH
        """How much to gather: more and more, so that slow clients do not keep what fast ones need."""
        self._sent = at
        """The offset behind the last batch that was handed to a thread."""
        self._job: Job[None] | None = None
        self._told = False
        """Whether a flush returned a state that names the file."""

    @property
    def settled(self) -> bool:
        """Nothing of this writer can still land."""
        return self._file.ended

    async def __aenter__(self) -> Self:
        self._means.budget.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._means.budget.give(self._taken)
        self._means.budget.leave()
        self._chunks.clear()
        running = self._job is not None and not self._job.done
        if running or self._file.is_open or (self._file.created and not self._told):
            # A native cancellation may end the waiting; the thread goes on, closes the file, and settles.
            await self._means.threads.start(partial(self._file.finish, self._told)).outlast()
        else:
            self._file.ended = True

    async def write(self, data: bytes) -> None:
        """Take `data`: also if waiting for the disk is cancelled."""
        if data:
            self._chunks.append(data)
            self._size += len(data)
            if self._size >= self._taken:
                await self._enough()

    async def flush(self, everything: bool) -> Durable:
        """Write all that is gathered. What is synced is said by the durability: `FileStorage`."""
        await self._landed()
        if not self._size and not self._file.touched:
            return Durable(offset=self._sent, state=self._cursor.state)
        end = self._sent + self._size
        seals = everything and self._is_all(end)
        durability = self._means.durability
        sync = durability == "full" or (durability == "checkpoint" and (seals or not everything))
        if self._size or (everything and self._file.is_open) or (sync and self._file.synced < end):
            self._begin_batch(sync=sync, close=everything, protect=seals)
            await self._landed()
        closes = self._opening.closes
        added = (dump_entry(closes),) if closes is not None and not self._told else ()
        self._told = True
        return Durable(offset=end, state=self._state(seals), added=added, sealed=seals)

    async def _enough(self) -> None:
        """What is gathered fills what the budget gave for it: ask once, then write."""
        if not self._taken:
            length = self._opening.place.length
            # One more than there will be: the last bytes of a body go with its flush, in one go.
            left = self._batch if length is None else length - self._sent + 1
            wanted = min(self._batch, left)
            self._taken = self._means.budget.take(self._size, wanted)
            self._short = self._taken < wanted
            if self._size < self._taken:
                return
        elif self._size > self._taken:
            self._taken += self._means.budget.take(self._size - self._taken, 0)
        await self._landed()
        self._batch = min(2 * self._batch, MAX_BATCH)
        self._begin_batch()
        if self._short:
            await self._landed()

    def _begin_batch(self, *, sync: bool = False, close: bool = False, protect: bool = False) -> None:
        batch = Batch(self._chunks, taken=self._taken, sync=sync, close=close, protect=protect)
        self._job = self._means.threads.start(partial(self._file.put, batch))
        self._sent += self._size
        self._chunks, self._size, self._taken = [], 0, 0

    async def _landed(self) -> None:
        """Wait for the batch in flight. One that failed stays, and fails each time."""
        if self._job is not None:
            await self._job.wait()
            self._job = None

    def _is_all(self, end: int) -> bool:
        """Whether the upload ends here and is this one file, under no key: then there is nothing to seal."""
        place = self._opening.place
        return self._opening.segment.start == 0 and place.key is None and place.length == end

    def _state(self, seals: bool) -> str:
        if seals:
            return dump_state(Sealed(self._opening.segment.name, self._sent))
        if self._file.synced == self._sent:
            return dump_state(Receiving(self._opening.segment))
        area = self._means.area
        return dump_state(Receiving(self._opening.segment, area.boot, self._file.synced, self._opening.run))
