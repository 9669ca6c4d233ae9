"""What is open while an SQLite store is entered: two threads, three connections, the lock files.

Owns their beginning and end, and what may be read without a thread; knows no upload. `SQLiteStore` makes one
of these each time that it is entered anew.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, Literal, TypeAlias

from tusserve.errors import TusError
from tusserve.stores.sqlite_file import PATIENCE, begin, connect
from tusserve.stores.sqlite_holders import Bodies, Holders
from tusserve.stores.sqlite_schema import open_file
from tusserve.stores.sqlite_sweeper import Sweepers
from tusserve.stores.sqlite_worker import Reads, Transactions, Worker, unavailable

Durability: TypeAlias = Literal["full", "checkpoint", "none"]
Parameters: TypeAlias = tuple[str | int | None, ...]


class Opened:
    """An open file. Opening and closing happen in its threads; `ready` and `gone` tell when they are done.

    `previous` is what the same store had open before: it is closed before this one opens, so that what it
    notes about its holders at the end does not hit those of this one.
    """

    def __init__(
        self, path: Path, durability: Durability, now: Callable[[], int], previous: "Opened | None"
    ) -> None:
        self.writer: Final = Worker()
        self.reader: Final = Worker()
        self.holders: Final = Holders(path.with_name(path.name + "-holders"))
        self.sweepers: Final = Sweepers(path)
        self.identity = ""
        self.ready: Final = _promise()
        self._closed: Final = _promise()
        self.glance: Glance
        self._path, self._durability, self._now = path, durability, now
        self._name: Final = str(path)
        # Daemons: a store that nobody left does not keep its process from ending.
        self._thread = threading.Thread(
            target=self._live, args=(previous,), name=f"tusserve store {path.name}", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Begin to close: what waits is still done, nothing new is taken."""
        self.writer.stop()

    async def gone(self) -> None:
        """Wait until it is closed and its thread has ended."""
        await asyncio.wrap_future(self._closed)
        # At its last steps: to join it would block the loop for them.
        while self._thread.is_alive():  # noqa: ASYNC110 - its end sets no event
            await asyncio.sleep(0.001)

    def _live(self, previous: "Opened | None") -> None:
        if previous is not None:
            previous._thread.join()  # noqa: SLF001 - of this class
        previous = None
        failure: Exception | None = None
        try:
            with ExitStack() as stack:
                connection = self._open(stack)
                self.ready.set_result(None)
                self.writer.serve(Transactions(connection, self._name, self._durability, self._now).do)
        except TusError as error:
            failure = error
        except (sqlite3.Error, OSError) as error:
            failure = unavailable(self._name, error)
        finally:
            self.writer.stop()
            if not self.ready.done():
                self.ready.set_exception(failure or RuntimeError("the thread of a store ended by a bug"))
            self._closed.set_result(None)

    def _open(self, stack: ExitStack) -> sqlite3.Connection:
        """The connection that writes. The end, in order: reads, the holders' leave, connections."""
        connection, self.identity = open_file(self._path)
        stack.callback(connection.close)
        reads = connect(self._path, reads_only=True, timeout=PATIENCE)
        stack.callback(reads.close)
        self.glance = Glance(connect(self._path, reads_only=True))
        stack.callback(self.glance.close)
        self._remove_dead_holders(connection)
        stack.callback(self._leave, connection)
        stack.callback(self.sweepers.leave)
        reader = threading.Thread(
            target=self.reader.serve,
            args=(Reads(reads, self._name, self._now).do,),
            name=f"{self._thread.name}, reads",
            daemon=True,
        )
        reader.start()
        stack.callback(reader.join)
        stack.callback(self.reader.stop)
        return connection

    def _remove_dead_holders(self, connection: sqlite3.Connection) -> None:
        """Housekeeping: what cannot be noted now is proven by its file as before."""
        bodies = Bodies()
        noted = False
        try:
            with suppress(sqlite3.Error, OSError):
                begin(connection)
                self.holders.note_deaths(connection, self._now(), bodies)
                connection.execute("COMMIT")
                noted = True
        finally:
            bodies.close(remove=noted)

    def _leave(self, connection: sqlite3.Connection) -> None:
        noted = False
        try:
            with suppress(sqlite3.Error):
                begin(connection)
                self.holders.note_leave(connection, self._now())
                connection.execute("COMMIT")
                noted = True
        finally:
            self.holders.leave(noted=noted)


class Glance:
    """Reads so short that they are done where they are asked for, mostly on an event loop.

    By primary key, in WAL mode, which waits for no writer: 4 us of CPU, where the hop to a thread and back
    costs 45 us, and on a busy loop milliseconds of waiting for the interpreter. A `get` precedes everything
    that a request does. What it reads was written lately and is in memory; if the file is locked all the same
    (SQLite recovers its log), this raises at once, and a thread waits.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        # For event loops in several threads: a connection serves one at a time.
        self._lock = threading.Lock()

    def one(self, statement: str, parameters: Parameters = ()) -> tuple[object, ...] | None:
        """The first row. Raises `sqlite3.Error`."""
        with self._lock:
            found: tuple[object, ...] | None = self._connection.execute(statement, parameters).fetchone()
            return found

    def close(self) -> None:
        """No more."""
        with self._lock:
            self._connection.close()


def _promise() -> "Future[None]":
    """A future that those who wait for it cannot cancel: several may."""
    promise: Future[None] = Future()
    promise.set_running_or_notify_cancel()
    return promise
