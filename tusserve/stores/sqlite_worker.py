"""A thread that does the calls of event loops on its own connection, a batch at a time.

Owns the hop there and back, and the transaction that a batch of writes shares; knows no table. `sqlite_open`
has one worker that writes and one that reads.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar, cast

from tusserve.errors import StoreUnavailable, TusError
from tusserve.stores.sqlite_file import begin

T = TypeVar("T")
Step: TypeAlias = Callable[[sqlite3.Connection, int], T]
"""What a call does, given the connection and the time in microseconds since 1970."""

LARGEST_BATCH: Final = 128
"""Calls in one transaction: it holds other processes up for as long as it lasts."""


@dataclass(slots=True, eq=False)
class Call:
    """A step that somebody waits for."""

    step: Step[object]
    synced: bool
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[object]
    result: object = None
    error: Exception | None = None


class Worker:
    """Takes calls from any event loop and does them in their order, all that wait at once.

    It takes what is there the moment it is free: grouping costs an idle store nothing. A caller that is
    cancelled before its call's turn is left out; after that the call takes effect unheard.
    """

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._stopped = False

    async def call(self, step: Step[T], *, synced: bool = False) -> T:
        """What `step` returns, or raises. `synced`: not before its effect survives a loss of power."""
        loop = asyncio.get_running_loop()
        call = Call(step, synced, loop, loop.create_future())
        with self._lock:  # nothing is put behind the end
            if self._stopped:
                raise StoreUnavailable("the store was left while it was in use")
            self._waiting.put(call)
        return cast("T", await call.future)

    def stop(self) -> None:
        """What waits is still done, and nothing new is taken."""
        with self._lock:
            if not self._stopped:
                self._stopped = True
                self._waiting.put(None)

    def serve(self, do: Callable[[Sequence[Call]], None]) -> None:
        """The thread's life: hand batches to `do`, which fills in how each call went, until stopped."""
        while self._serve_batch(do):
            pass  # a batch is a frame of its own, so that a waiting thread holds on to nobody's future

    def _serve_batch(self, do: Callable[[Sequence[Call]], None]) -> bool:
        batch, more = self._next_batch()
        calls = [call for call in batch if not call.future.cancelled()]
        if calls:
            try:
                do(calls)
            except Exception as error:  # noqa: BLE001 - not kept here: it is raised where it is waited for
                for call in calls:
                    call.result, call.error = None, error
            _answer(calls)
        return more

    def _next_batch(self) -> tuple[list[Call], bool]:
        """What waits, and whether more may come."""
        batch: list[Call] = []
        try:
            call = self._waiting.get()
            while call is not None:
                batch.append(call)
                if len(batch) == LARGEST_BATCH:
                    return batch, True
                call = self._waiting.get_nowait()
        except queue.Empty:
            return batch, True
        return batch, False


def _answer(calls: Sequence[Call]) -> None:
    """Wake each event loop once, however many of its callers have their answer."""
    for loop in {call.loop for call in calls}:
        try:
            loop.call_soon_threadsafe(_settle, [call for call in calls if call.loop is loop])
        except RuntimeError:  # the loop is closed, so nobody waits
            continue


def _settle(calls: Sequence[Call]) -> None:
    for call in calls:
        if call.future.done():  # cancelled
            continue
        if call.error is not None:
            call.future.set_exception(call.error)
        else:
            call.future.set_result(call.result)


class Transactions:
    """Does batches of writes: one transaction, one commit and at most one sync each.

    `durability` is `full` (what is synced is so before its caller hears), `checkpoint` (only SQLite's own
    checkpoints sync) or `none`. `now` gives the time in microseconds since 1970.
    """

    def __init__(
        self, connection: sqlite3.Connection, name: str, durability: str, now: Callable[[], int]
    ) -> None:
        self._connection = connection
        self._name = name
        self._syncs = durability == "full"
        self._now = now
        self._synchronous = ""
        self._sync_level("OFF" if durability == "none" else "NORMAL")
        self._least = self._synchronous
        if self._syncs:  # on macOS a sync else ends in the drive's memory; elsewhere it says nothing
            connection.execute("PRAGMA fullfsync = ON")

    def do(self, calls: Sequence[Call]) -> None:
        """Each call in a savepoint of its own, all in one transaction. What becomes of a commit that fails
        is not known, to none of them."""
        try:
            if self._connection.in_transaction:  # a rollback failed
                self._connection.rollback()
            # A commit without sync is made durable by the next one with: in WAL mode both sync the same file.
            syncs = self._syncs and any(call.synced for call in calls)
            self._sync_level("FULL" if syncs else self._least)
            begin(self._connection)
            now = self._now()  # read when we have the file, so that times follow the order of the writes
            for call in calls:
                self._do_one(call, now)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            for call in calls:
                call.result, call.error = None, unavailable(self._name, error)
        finally:
            if self._connection.in_transaction:
                with suppress(sqlite3.Error):  # the next batch tries it again
                    self._connection.rollback()

    def _do_one(self, call: Call, now: int) -> None:
        execute = self._connection.execute
        execute("SAVEPOINT one")
        try:
            call.result = call.step(self._connection, now)
        except (sqlite3.Error, OSError, ValueError, TusError) as error:
            if not self._connection.in_transaction:  # SQLite gave up all of it, not just this step
                raise
            execute("ROLLBACK TO one")
            call.error = (
                unavailable(self._name, error) if isinstance(error, sqlite3.Error | OSError) else error
            )
        execute("RELEASE one")

    def _sync_level(self, level: str) -> None:
        if level != self._synchronous:
            self._connection.execute(f"PRAGMA synchronous = {level}")
            self._synchronous = level


class Reads:
    """Does batches of reads, each for itself."""

    def __init__(self, connection: sqlite3.Connection, name: str, now: Callable[[], int]) -> None:
        self._connection = connection
        self._name = name
        self._now = now

    def do(self, calls: Sequence[Call]) -> None:
        """Each call sees everything that was committed before it."""
        now = self._now()
        for call in calls:
            try:
                call.result = call.step(self._connection, now)
            except (sqlite3.Error, OSError) as error:
                call.error = unavailable(self._name, error)


def unavailable(name: str, error: Exception) -> StoreUnavailable:
    """What callers hear of a failure of SQLite or of the disk under it."""
    told = StoreUnavailable(f"the store {name} cannot be used for now: {error}")
    told.__cause__ = error
    return told
