"""Storages and stores that fail, hang and die as planned.

Owns `faulty_storage` and `faulty_store`, which wrap any backend and count each call of the contracts; what
strikes and when is the `Faults` plan's. Knows no engine. Tests of tusserve and of people's own backends use
them.

    faults = Faults()
    tus = TusApp("/files", storage=faulty_storage(disk, faults), store=faulty_store(records, faults))
    ...                                    # once without a fault: faults.calls is the log
    faults.crash(on="store.commit")        # then with one

The calls by name:

    storage.enter .exit .writer.enter .writer.exit .read.enter .read.next .read.exit .seal .discard
            .local_path .sweep_strays .has_bytes .claim
    writer.write .flush
    store.enter .exit .create .get .acquire .renew .commit .release .ask .asked.enter .asked.next .asked.exit
          .entries .due .forget .identity .enlist .elected .uploads .create_in

A crash closes nothing: writers, readers and streams of the dead process stay open, as nobody closes them
when a process dies. Leaving them would run their orderly ends. `Faults.bury` gives them back when the test no
longer needs the corpse. What a backend's own threads had under way at that moment may still land, as it may
with a real process.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar, cast

from tusserve.contracts import (
    Acquired,
    Ask,
    Cursor,
    CursorOf,
    Durable,
    ElectsSweeper,
    Fence,
    HasIdentity,
    HasLocalPath,
    Held,
    JoinsTransaction,
    KnowsIds,
    Lease,
    ListsStrays,
    ListsUploads,
    Place,
    ProvesDeath,
    RemembersStore,
    StorageBackend,
    UploadStore,
    Writer,
)
from tusserve.protocol.records import Action, UploadRecord, UploadState
from tusserve.testing.faults_cancel import CancelsAt
from tusserve.testing.faults_plan import Crashed, Faults, Stall

__all__ = ["CancelsAt", "Crashed", "Faults", "Stall", "faulty_storage", "faulty_store"]

T = TypeVar("T")


def faulty_storage(inner: StorageBackend, faults: Faults) -> StorageBackend:
    """`inner` under the plan of `faults`, with the abilities that `inner` has and no other."""
    abilities = [wrapper for ability, wrapper in _STORAGE_ABILITIES if isinstance(inner, ability)]
    made = type("FaultyStorage", (*abilities, _Storage), {})
    return cast("StorageBackend", made(inner, faults))


def faulty_store(inner: UploadStore, faults: Faults) -> UploadStore:
    """`inner` under the plan of `faults`, with the abilities that `inner` has and no other."""
    abilities = [wrapper for ability, wrapper in _STORE_ABILITIES if isinstance(inner, ability)]
    made = type("FaultyStore", (*abilities, _Store), {})
    return cast("UploadStore", made(inner, faults))


class _Opened(Generic[T]):
    """A context manager whose entering and leaving are calls."""

    def __init__(
        self,
        faults: Faults,
        name: str,
        inner: AbstractAsyncContextManager[T],
        wrapped: Callable[[T], T],
    ) -> None:
        self._faults = faults
        self._name = name
        self._inner = inner
        self._wrapped = wrapped

    async def __aenter__(self) -> T:
        return self._wrapped(await self._faults.enter(self._name, self._inner))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None:
        return await self._faults.leave(self._name, self._inner, error)


class _Storage:
    def __init__(self, inner: StorageBackend, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults

    @property
    def checkpoint_bytes(self) -> int:
        return self._inner.checkpoint_bytes

    async def __aenter__(self) -> Self:
        await self._faults.enter("storage", self._inner)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None:
        return await self._faults.leave("storage", self._inner, error)

    def writer(
        self, place: Place, cursor: Cursor, at: int, lease: Lease
    ) -> AbstractAsyncContextManager[Writer]:
        inner = self._inner.writer(place, cursor, at, lease)
        return _Opened(self._faults, "storage.writer", inner, lambda held: _Writer(held, self._faults))

    def read(
        self, place: Place, cursor: Cursor, start: int, stop: int
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        inner = self._inner.read(place, cursor, start, stop)
        return _Opened(self._faults, "storage.read", inner, lambda held: _Pieces(held, self._faults))

    async def seal(self, place: Place, cursor: Cursor, length: int) -> str:
        return await self._faults.call("storage.seal", lambda: self._inner.seal(place, cursor, length))

    async def discard(self, place: Place, cursor: Cursor) -> None:
        await self._faults.call("storage.discard", lambda: self._inner.discard(place, cursor))


class _Writer:
    def __init__(self, inner: Writer, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults

    @property
    def opened(self) -> str | None:
        return self._inner.opened

    @property
    def settled(self) -> bool:
        return self._inner.settled

    async def write(self, data: bytes) -> None:
        half = data[: len(data) // 2]
        await self._faults.call(
            "writer.write", lambda: self._inner.write(data), torn=lambda: self._inner.write(half)
        )

    async def flush(self, everything: bool) -> Durable:
        return await self._faults.call("writer.flush", lambda: self._inner.flush(everything))


class _Pieces:
    def __init__(self, inner: AsyncIterator[bytes], faults: Faults) -> None:
        self._inner = inner
        self._faults = faults

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        return await self._faults.call("storage.read.next", self._inner.__anext__)


class _WithLocalPath(_Storage):
    def local_path(self, place: Place, state: str) -> Path | None:
        able = cast("HasLocalPath", self._inner)
        return self._faults.call_at_once("storage.local_path", lambda: able.local_path(place, state))


class _WithStrays(_Storage):
    async def sweep_strays(self, cursor_of: CursorOf, older_than: datetime, *, dry_run: bool) -> int:
        able = cast("ListsStrays", self._inner)
        return await self._faults.call(
            "storage.sweep_strays", lambda: able.sweep_strays(cursor_of, older_than, dry_run=dry_run)
        )


class _WithIds(_Storage):
    async def has_bytes(self, id: str) -> bool:
        able = cast("KnowsIds", self._inner)
        return await self._faults.call("storage.has_bytes", lambda: able.has_bytes(id))


class _WithMemoryOfStore(_Storage):
    async def claim(self, identity: str) -> bool:
        able = cast("RemembersStore", self._inner)
        return await self._faults.call("storage.claim", lambda: able.claim(identity))


_STORAGE_ABILITIES: tuple[tuple[type, type[_Storage]], ...] = (
    (HasLocalPath, _WithLocalPath),
    (ListsStrays, _WithStrays),
    (KnowsIds, _WithIds),
    (RemembersStore, _WithMemoryOfStore),
)


class _Store:
    def __init__(self, inner: UploadStore, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults

    async def __aenter__(self) -> Self:
        await self._faults.enter("store", self._inner)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None:
        return await self._faults.leave("store", self._inner, error)

    async def create(self, record: UploadRecord) -> UploadRecord:
        return await self._faults.call("store.create", lambda: self._inner.create(record))

    async def get(self, id: str) -> tuple[UploadRecord, Held | None] | None:
        return await self._faults.call("store.get", lambda: self._inner.get(id))

    async def acquire(
        self,
        id: str,
        holder: str,
        ttl: timedelta,
        *,
        steal: Fence | None = None,
        durable: bool = False,
    ) -> Acquired | Held | None:
        return await self._faults.call(
            "store.acquire",
            lambda: self._inner.acquire(id, holder, ttl, steal=steal, durable=durable),
        )

    async def renew(self, leases: Sequence[Lease]) -> Sequence[Lease]:
        return await self._faults.call("store.renew", lambda: self._inner.renew(leases))

    async def commit(
        self, lease: Lease, record: UploadRecord, added: Sequence[str] = (), *, release: bool = False
    ) -> UploadRecord | None:
        return await self._faults.call(
            "store.commit", lambda: self._inner.commit(lease, record, added, release=release)
        )

    async def release(self, lease: Lease, *, clean: bool) -> bool:
        return await self._faults.call("store.release", lambda: self._inner.release(lease, clean=clean))

    async def ask(self, id: str, fence: Fence, why: Action) -> bool:
        return await self._faults.call("store.ask", lambda: self._inner.ask(id, fence, why))

    def asked(self, holder: str) -> AbstractAsyncContextManager[AsyncIterator[Ask]]:
        inner = self._inner.asked(holder)
        return _Opened(self._faults, "store.asked", inner, lambda held: _Asks(held, self._faults))

    async def entries(self, id: str, start: int, stop: int) -> Sequence[str]:
        return await self._faults.call("store.entries", lambda: self._inner.entries(id, start, stop))

    async def due(self, name: str, now: datetime, limit: int) -> Sequence[UploadRecord]:
        return await self._faults.call("store.due", lambda: self._inner.due(name, now, limit))

    async def forget(self, id: str, now: datetime) -> bool:
        return await self._faults.call("store.forget", lambda: self._inner.forget(id, now))


class _Asks:
    def __init__(self, inner: AsyncIterator[Ask], faults: Faults) -> None:
        self._inner = inner
        self._faults = faults

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Ask:
        return await self._faults.wait("store.asked.next", self._inner.__anext__)


class _WithIdentity(_Store):
    async def identity(self) -> str:
        able = cast("HasIdentity", self._inner)
        return await self._faults.call("store.identity", able.identity)


class _WithProofOfDeath(_Store):
    async def enlist(self, holder: str) -> None:
        able = cast("ProvesDeath", self._inner)
        await self._faults.call("store.enlist", lambda: able.enlist(holder))


class _WithElection(_Store):
    async def elected(self, name: str) -> bool:
        able = cast("ElectsSweeper", self._inner)
        return await self._faults.call("store.elected", lambda: able.elected(name))


class _WithList(_Store):
    async def uploads(
        self,
        name: str,
        *,
        owner: str | None = None,
        state: UploadState | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Sequence[UploadRecord]:
        able = cast("ListsUploads", self._inner)
        return await self._faults.call(
            "store.uploads",
            lambda: able.uploads(name, owner=owner, state=state, after=after, limit=limit),
        )


class _WithTransactions(_Store):
    async def create_in(self, record: UploadRecord, transaction: object) -> UploadRecord:
        able = cast("JoinsTransaction", self._inner)
        return await self._faults.call("store.create_in", lambda: able.create_in(record, transaction))


_STORE_ABILITIES: tuple[tuple[type, type[_Store]], ...] = (
    (HasIdentity, _WithIdentity),
    (ProvesDeath, _WithProofOfDeath),
    (ElectsSweeper, _WithElection),
    (ListsUploads, _WithList),
    (JoinsTransaction, _WithTransactions),
)
