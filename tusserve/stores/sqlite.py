"""Records in an SQLite file, for any number of processes on one machine.

Owns `SQLiteStore`: what is checked and made before a call's turn, and what becomes of its answer. Knows no
statement, and no thread but by its calls. `TusApp` uses it, and the conformance kit.
"""

import asyncio
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self, get_args

from tusserve.contracts import Acquired, Ask, Fence, Held, Lease
from tusserve.errors import ConfigError, IdTaken, StoreUnavailable
from tusserve.protocol.records import Action, UploadRecord, UploadState, to_micros
from tusserve.stores import sqlite_steps as steps
from tusserve.stores.sqlite_asks import Listener, Listeners
from tusserve.stores.sqlite_file import is_busy
from tusserve.stores.sqlite_open import Durability, Opened
from tusserve.stores.sqlite_worker import unavailable

__all__ = ["SQLiteStore"]


class SQLiteStore:
    """Keeps records in the SQLite file at `path`, which is made where there is none.

    An `UploadStore`, and `ListsUploads`, `HasIdentity`, `ProvesDeath` and `ElectsSweeper`: beside the file
    are a folder with a lock file for each process, and a lock file for the one that sweeps. Any number of
    processes of one machine may share the file; several machines may not, and a network file system will not
    do.

    `durability` says what an answered `create` or `commit` survives: `full` a loss of power; `checkpoint` and
    `none` only the end of the process, whatever ends it, and after a loss of power the file is sound with
    `checkpoint` and may not be with `none`. `clock` rules the leases, and several threads call it; without
    one it is the system's.

    Every call may raise `StoreUnavailable`; entering raises `ConfigError` for a file that is not the store's.
    The store may be entered more than once, and again after it was left.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Callable[[], datetime] | None = None,
        durability: Durability = "full",
    ) -> None:
        if durability not in get_args(Durability):
            raise ConfigError(f"durability is one of {', '.join(get_args(Durability))}, not {durability}")
        if os.fspath(path).startswith(":memory:") or not os.fspath(path):
            raise ConfigError("an SQLiteStore needs a file; MemoryStore keeps records in memory")
        if str(path).startswith("sqlite:"):
            raise ConfigError(f"an SQLiteStore takes a path, not a URL: {str(path)!r}")
        self._path = Path(path).absolute()
        self._now: Callable[[], int] = _system_micros if clock is None else lambda: to_micros(clock())
        self._durability: Durability = durability
        self._listeners = Listeners()
        self._lock = threading.Lock()
        self._entered = 0
        self._opened: Opened | None = None
        self._previous: Opened | None = None
        self._dropped: weakref.finalize[[], SQLiteStore]
        _stores.add(self)

    # ---- open and close

    async def __aenter__(self) -> Self:
        with self._lock:
            self._entered += 1
            if self._opened is None:
                self._opened = Opened(self._path, self._durability, self._now, self._previous)
                self._previous = None
                # For a store that is dropped without being left: its threads hold on to it no longer.
                self._dropped = weakref.finalize(self, self._opened.close)
                self._dropped.atexit = False
            opened = self._opened
        try:
            await asyncio.wrap_future(opened.ready)
        except BaseException:
            self._leave(opened)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        opened = self._opened
        if opened is not None and self._leave(opened):
            await opened.gone()

    def _leave(self, opened: Opened) -> bool:
        """Count one user less; True if it was the last."""
        with self._lock:
            self._entered -= 1
            if self._entered:
                return False
            self._opened, self._previous = None, opened
        self._dropped.detach()
        opened.close()
        self._listeners.over()
        return True

    def _use(self) -> Opened:
        opened = self._opened
        if opened is None:
            raise StoreUnavailable(f"the store {self._path} is not open: use it inside `async with store`")
        return opened

    def _forget_fork(self) -> None:
        """In the child of a fork: the threads stayed behind, and the connections are the parent's."""
        self._lock = threading.Lock()
        if self._opened is not None:
            self._opened.holders.drop()
            self._opened.sweepers.leave()
            _inherited.append(self._opened)
        self._entered, self._opened, self._previous = 0, None, None

    # ---- records and leases

    async def create(self, record: UploadRecord) -> UploadRecord:
        """Keep a new record; returns it with revision 1. Raises `IdTaken`: choose another id."""
        if record.entries:
            raise ValueError(
                f"upload {record.id}: a new record has no entries, this one says {record.entries}"
            )
        columns = steps.columns_of(record, revision=1)
        if not await self._use().writer.call(
            lambda connection, _: steps.create(connection, record.id, columns), synced=True
        ):
            raise IdTaken(f"there is an upload {record.id} already")
        return replace(record, revision=1)

    async def get(self, id: str) -> tuple[UploadRecord, Held | None] | None:
        """The record and who holds it now; None: no such upload."""
        opened = self._use()
        try:
            found = opened.glance.one(steps.BY_ID, (id,))
        except sqlite3.Error as error:
            if not is_busy(error):
                raise unavailable(str(self._path), error) from error
            row = await opened.reader.call(lambda connection, _: steps.read(connection, id))
        else:
            row = None if found is None else steps.Row(*found)  # type: ignore[arg-type]
        if row is None:
            return None
        held = row.held(self._now())
        if held is not None and not opened.holders.is_ours(row.holder):
            # Only here a get takes a thread: to look whether whoever is in the way is alive.
            holder = row.holder
            if await opened.reader.call(lambda connection, _: opened.holders.is_dead(connection, holder)):
                held = None
        return self._record(row), held

    async def acquire(
        self, id: str, holder: str, ttl: timedelta, *, steal: Fence | None = None, durable: bool = False
    ) -> Acquired | Held | None:
        """Take the lease, or say who holds it; None: no such upload."""
        opened = self._use()
        got = await opened.writer.call(
            lambda connection, now: steps.acquire(
                connection, now, id, holder, ttl, steal=steal, is_dead=opened.holders.is_dead
            ),
            synced=durable,
        )
        if not isinstance(got, tuple):
            return got
        row, lease = got
        self._listeners.taken(lease.fence.token)
        return Acquired(self._record(row), lease)

    async def renew(self, leases: Sequence[Lease]) -> Sequence[Lease]:
        """Give each lease its `ttl` again; returns the lost ones."""
        lost = await self._use().writer.call(lambda connection, now: steps.renew(connection, now, leases))
        for lease in lost:
            self._listeners.gone(lease.fence.token)
        return lost

    async def commit(
        self, lease: Lease, record: UploadRecord, added: Sequence[str] = (), *, release: bool = False
    ) -> UploadRecord | None:
        """Replace the record and append the entries; None: the lease or the revision is no longer the
        newest. Raises `ValueError` if `record.entries` is not what the store would have then."""
        if record.id != lease.id:
            raise ValueError(f"the lease is for upload {lease.id}, the record is of {record.id}")
        committed = replace(record, revision=record.revision + 1)
        columns = steps.columns_of(committed, revision=committed.revision)
        done = await self._use().writer.call(
            lambda connection, now: steps.commit(connection, now, lease, columns, added, release=release),
            synced=True,
        )
        if release or not done:
            self._listeners.gone(lease.fence.token)
        return committed if done else None

    async def release(self, lease: Lease, *, clean: bool) -> bool:
        """Let the lease go. False: it was lost, or was let go before."""
        self._listeners.gone(lease.fence.token)
        return await self._use().writer.call(
            lambda connection, _: steps.release(connection, lease, clean=clean)
        )

    # ---- asks

    async def ask(self, id: str, fence: Fence, why: Action) -> bool:
        """Ask the holder under `fence`. False: nobody holds the upload under it."""
        opened = self._use()
        holder = await opened.writer.call(
            lambda connection, now: steps.ask(connection, now, id, fence, why, opened.holders.is_dead)
        )
        if holder is not None:
            self._listeners.wake(holder)  # others find it by themselves, within their pace
        return holder is not None

    @asynccontextmanager
    async def _listen(self, holder: str) -> AsyncGenerator[AsyncIterator[Ask]]:
        opened = self._use()

        def version() -> int:
            found = opened.glance.one("PRAGMA data_version")
            return 0 if found is None else int(str(found[0]))

        async def look() -> Sequence[tuple[Ask, int]]:
            return await opened.reader.call(lambda connection, _: steps.asks(connection, holder))

        listener = Listener(holder, self._listeners, version, look)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.remove(listener)

    def asked(self, holder: str) -> AbstractAsyncContextManager[AsyncIterator[Ask]]:
        """The asks for the leases of `holder`, those that stand at entering first."""
        return self._listen(holder)

    # ---- lists

    async def entries(self, id: str, start: int, stop: int) -> Sequence[str]:
        """The entries at the positions from `start` up to, not including, `stop`."""
        return await self._use().reader.call(lambda connection, _: steps.entries(connection, id, start, stop))

    async def due(self, name: str, now: datetime, limit: int) -> Sequence[UploadRecord]:
        """At most `limit` records of `name` that are due at `now`, under no live lease, oldest first."""
        opened, moment = self._use(), to_micros(now)
        return self._records(
            await opened.reader.call(
                lambda connection, ours: steps.due(
                    connection, ours, name, moment, limit, opened.holders.is_dead
                )
            )
        )

    async def forget(self, id: str, now: datetime) -> bool:
        """Remove a GONE record, or a COMPLETE one that is due at `now`."""
        opened, moment = self._use(), to_micros(now)
        return await opened.writer.call(
            lambda connection, ours: steps.forget(connection, ours, id, moment, opened.holders.is_dead)
        )

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
        return self._records(
            await self._use().reader.call(
                lambda connection, _: steps.uploads(connection, name, owner, state, after, limit)
            )
        )

    # ---- abilities

    async def identity(self) -> str:
        """Made when the file was, the same for every process and for ever."""
        return self._use().identity

    async def enlist(self, holder: str) -> None:
        """From now on, until this process ends or the store is left, others can tell that `holder` lives."""
        opened = self._use()
        await opened.writer.call(lambda connection, _: opened.holders.enlist(connection, holder))

    async def elected(self, name: str) -> bool:
        """Whether this process is the one that sweeps the uploads of `name`; it stays so until it leaves."""
        opened = self._use()
        return await opened.reader.call(lambda _, __: opened.sweepers.elected(name))

    def _record(self, row: steps.Row) -> UploadRecord:
        try:
            return row.record()
        except ValueError as error:  # of a newer version: away for this process until it is upgraded
            raise StoreUnavailable(f"the store {self._path} has a record too new to read: {error}") from error

    def _records(self, rows: Iterable[steps.Row]) -> list[UploadRecord]:
        return [self._record(row) for row in rows]


def _system_micros() -> int:
    return time.time_ns() // 1000


_stores: "weakref.WeakSet[SQLiteStore]" = weakref.WeakSet()
_inherited: list[Opened] = []
"""Never closed: closing would do to the parent's files what only the parent may."""


def _after_fork() -> None:
    for store in _stores:
        store._forget_fork()  # noqa: SLF001 - of this module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
