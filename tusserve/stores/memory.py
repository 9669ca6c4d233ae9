"""Records in the memory of one process, in the simplest code that keeps the clauses.

Owns `MemoryStore`: for tests, for trying things out, and as the oracle that other stores are compared with.
Knows no file, no event loop and no other store; `TusApp` and the conformance kit use it.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from secrets import token_hex
from types import TracebackType
from typing import Final, Self

from tusserve.contracts import Acquired, Ask, Fence, Held, Lease
from tusserve.errors import IdTaken
from tusserve.protocol.records import Action, UploadRecord, UploadState

__all__ = ["MemoryStore"]

_NO_FENCE: Final = Fence(0, "")


class MemoryStore:
    """Keeps records until the process ends. An `UploadStore`, and `ListsUploads`.

    `clock` rules the leases; without one it is the system's. Any number of event loops and threads may use it
    at a time, one after another or at once.
    """

    def __init__(self, clock: Callable[[], datetime] | None = None) -> None:
        self._clock = clock or _system_clock
        self._rows: dict[str, _Row] = {}
        self._listeners: list[_Listener] = []
        # No method waits for anything while it has this; event loops in several threads may share the store.
        # Reentrant: the garbage collector closes a stream that was abandoned, in the middle of anything.
        self._lock = threading.RLock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        return None

    async def create(self, record: UploadRecord) -> UploadRecord:
        """Keep a new record; returns it with revision 1. Raises `IdTaken`: choose another id."""
        if record.entries:
            raise ValueError(
                f"upload {record.id}: a new record has no entries, this one says {record.entries}"
            )
        with self._lock:
            if record.id in self._rows:
                raise IdTaken(f"there is an upload {record.id} already")
            created = replace(record, revision=1)
            self._rows[record.id] = _Row(_copy(created))
            return created

    async def get(self, id: str) -> tuple[UploadRecord, Held | None] | None:
        """The record and who holds it now; None: no such upload."""
        with self._lock:
            row, now = self._rows.get(id), self._clock()
            return None if row is None else (_copy(row.record), row.held(now))

    async def acquire(
        self,
        id: str,
        holder: str,
        ttl: timedelta,
        *,
        steal: Fence | None = None,
        durable: bool = False,  # noqa: ARG002 - of the contract
    ) -> Acquired | Held | None:
        """Take the lease, or say who holds it. `durable` asks for nothing here: nothing survives."""
        with self._lock:
            row, now = self._rows.get(id), self._clock()
            if row is None:
                return None
            held = row.held(now)
            if held is not None and held.fence != steal:
                return held
            if row.until is not None:
                # It ran out or is stolen: what was begun under it may still land, and nothing here can prove
                # that its process is dead.
                row.unclean = row.alive = row.fence.number
            row.fence = Fence(row.fence.number + 1, token_hex(8))
            row.holder, row.until = holder, now + ttl
            row.asked_at, row.answered, row.why = None, False, frozenset()
            row.record = replace(row.record, revision=row.record.revision + 1)
            lease = Lease(id=id, fence=row.fence, ttl=ttl, unclean=row.unclean, alive=row.alive)
            return Acquired(_copy(row.record), lease)

    async def renew(self, leases: Sequence[Lease]) -> Sequence[Lease]:
        """Give each lease its `ttl` again; returns the lost ones."""
        with self._lock:
            now = self._clock()
            return [lease for lease in leases if not self._renew(lease, now)]

    def _renew(self, lease: Lease, now: datetime) -> bool:
        row = self._row_under(lease)
        if row is None or row.until is None:
            return False
        row.until, row.answered = now + lease.ttl, True
        return True

    async def commit(
        self, lease: Lease, record: UploadRecord, added: Sequence[str] = (), *, release: bool = False
    ) -> UploadRecord | None:
        """Replace the record and append the entries; None: the lease or the revision is no longer the
        newest. Raises `ValueError` if `record.entries` is not what the store would have then."""
        if record.id != lease.id:
            raise ValueError(f"the lease is for upload {lease.id}, the record is of {record.id}")
        with self._lock:
            row, now = self._row_under(lease), self._clock()
            if row is None:
                return None
            committed = replace(record, revision=record.revision + 1)
            if _copy(committed) != row.record or row.entries[record.entries - len(added) :] != list(added):
                if row.until is None or row.record.revision != record.revision:
                    return None
                row.entries = _entries_after(row.entries, record, added)
                row.record = _copy(committed)
            if release:
                row.until = None
            elif row.until is not None:
                row.until, row.answered = now + lease.ttl, True
            return committed

    async def release(self, lease: Lease, *, clean: bool) -> bool:
        """Let the lease go. False: it was lost, or was let go before."""
        with self._lock:
            row = self._row_under(lease)
            if row is None or row.until is None:
                return False
            row.until = None
            if not clean:
                row.unclean = row.alive = row.fence.number
            return True

    async def ask(self, id: str, fence: Fence, why: Action) -> bool:
        """Ask the holder under `fence`. False: nobody holds the upload under it."""
        with self._lock:
            row, now = self._rows.get(id), self._clock()
            if row is None or row.fence != fence or not row.is_live(now):
                return False
            if row.asked_at is None or row.answered:
                row.asked_at, row.answered, row.why = now, False, frozenset()
            row.why |= {why}
            for listener in tuple(self._listeners):
                listener.tell(row)
            return True

    def asked(self, holder: str) -> AbstractAsyncContextManager[AsyncIterator[Ask]]:
        """The asks for the leases of `holder`, those that stand at entering first."""
        return self._listen(holder)

    @asynccontextmanager
    async def _listen(self, holder: str) -> AsyncGenerator[AsyncIterator[Ask]]:
        listener = _Listener(holder, asyncio.get_running_loop())
        with self._lock:
            self._listeners.append(listener)
            for row in self._rows.values():
                if row.asked_at is not None and row.is_live(self._clock()):
                    listener.tell(row)
        try:
            yield listener
        finally:
            with self._lock:
                self._listeners.remove(listener)

    async def entries(self, id: str, start: int, stop: int) -> Sequence[str]:
        """The entries at the positions from `start` up to, not including, `stop`."""
        with self._lock:
            row = self._rows.get(id)
            return [] if row is None else row.entries[start:stop]

    async def due(self, name: str, now: datetime, limit: int) -> Sequence[UploadRecord]:
        """At most `limit` records of `name` that are due at `now`, under no live lease, oldest first."""
        with self._lock:
            waiting = [
                (record.due_at, record.id)
                for row in self._rows.values()
                if (record := row.record).name == name
                and record.due_at is not None
                and record.due_at <= now
                and not row.is_live(self._clock())
            ]
            return [_copy(self._rows[key].record) for _, key in sorted(waiting)[:limit]]

    async def forget(self, id: str, now: datetime) -> bool:
        """Remove a GONE record, or a COMPLETE one that is due at `now`."""
        with self._lock:
            row = self._rows.get(id)
            if row is None or row.is_live(self._clock()) or not _is_over(row.record, now):
                return False
            del self._rows[id]
            return True

    async def uploads(
        self,
        name: str,
        *,
        owner: str | None = None,
        state: UploadState | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Sequence[UploadRecord]:
        """Records of `name` by id, those after `after`."""
        with self._lock:
            wanted = [
                record
                for row in self._rows.values()
                if (record := row.record).name == name
                and (owner is None or record.owner == owner)
                and (state is None or record.state is state)
                and (after is None or record.id > after)
            ]
            return [_copy(record) for record in sorted(wanted, key=attrgetter("id"))[:limit]]

    def _row_under(self, lease: Lease) -> "_Row | None":
        row = self._rows.get(lease.id)
        return row if row is not None and row.fence == lease.fence else None


@dataclass(slots=True)
class _Row:
    """A record, its entries and its newest lease, whose fence stays after it was let go."""

    record: UploadRecord
    entries: list[str] = field(default_factory=list)
    fence: Fence = _NO_FENCE
    holder: str = ""
    until: datetime | None = None
    """None: nobody ever held it, or the lease was let go."""
    unclean: int = 0
    alive: int = 0
    asked_at: datetime | None = None
    answered: bool = False
    why: frozenset[Action] = frozenset()

    def is_live(self, now: datetime) -> bool:
        return self.until is not None and self.until > now

    def held(self, now: datetime) -> Held | None:
        if not self.is_live(now):
            return None
        waited = None if self.asked_at is None else max(now - self.asked_at, timedelta(0))
        return Held(fence=self.fence, waited=waited, answered=waited is not None and self.answered)


class _Listener:
    """The stream of one entered `asked`. It belongs to one loop; asks may come from others."""

    def __init__(self, holder: str, loop: asyncio.AbstractEventLoop) -> None:
        self._holder = holder
        self._loop = loop
        self._woken = asyncio.Event()
        self._pending: dict[str, Ask] = {}

    def tell(self, row: _Row) -> None:
        """Hand over what is asked of `row`; called with the store's lock."""
        if row.holder != self._holder or self._loop.is_closed():
            return
        self._pending[row.record.id] = Ask(row.record.id, row.fence, row.why)
        self._loop.call_soon_threadsafe(self._woken.set)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Ask:
        while not self._pending:
            # `tell` fills first and wakes then, by a callback on this loop: nothing slips in between.
            self._woken.clear()
            await self._woken.wait()
        return self._pending.pop(next(iter(self._pending)))


def _copy(record: UploadRecord) -> UploadRecord:
    """The record as it would come back from a disk, so that nobody shares its attributes with the store."""
    return UploadRecord.load(
        record.dump(),
        id=record.id,
        name=record.name,
        owner=record.owner,
        state=record.state,
        created_at=record.created_at,
        due_at=record.due_at,
        revision=record.revision,
    )


def _entries_after(entries: list[str], record: UploadRecord, added: Sequence[str]) -> list[str]:
    if record.entries == len(entries) + len(added):
        return [*entries, *added]
    if record.entries == 0 and not added:
        return []
    raise ValueError(
        f"upload {record.id}: {len(entries)} entries and {len(added)} more are not the {record.entries} that"
        " its record says"
    )


def _is_over(record: UploadRecord, now: datetime) -> bool:
    if record.state is UploadState.COMPLETE:
        return record.due_at is not None and record.due_at <= now
    return record.state is UploadState.GONE


def _system_clock() -> datetime:
    return datetime.now(UTC)
