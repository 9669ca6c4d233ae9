"""How asks reach those who listen: a look at the file whenever it may have changed.

Owns the listeners of a store and their pace; knows no table. `SQLiteStore` tells when there may be something
to hear and how to look.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Self, TypeAlias

from anyio import move_on_after

from tusserve.contracts import Ask
from tusserve.errors import StoreUnavailable

Version: TypeAlias = Callable[[], int]
Look: TypeAlias = Callable[[], Awaitable[Sequence[tuple[Ask, int]]]]

PACE: Final = 0.05
"""Seconds between two looks for what other processes ask, while there are leases that they may ask for."""


class Listeners:
    """Everybody who listens on one store, and whether there can be anything to hear."""

    def __init__(self) -> None:
        self._all: set[Listener] = set()
        self._held: set[str] = set()

    def add(self, listener: "Listener") -> None:
        """From now on it is woken."""
        self._all.add(listener)

    def remove(self, listener: "Listener") -> None:
        """It listens no more."""
        self._all.discard(listener)

    def wake(self, holder: str | None = None) -> None:
        """There may be something to hear, for `holder` or for all."""
        for listener in tuple(self._all):
            if holder is None or listener.holder == holder:
                listener.wake()

    def taken(self, token: str) -> None:
        """This process has a lease: from now on others may ask for it."""
        if not self._held:
            self.wake()
        self._held.add(token)

    def gone(self, token: str) -> None:
        """This process has that lease no more."""
        self._held.discard(token)

    def over(self) -> None:
        """The store was left: nothing is held any more, and who listens is to hear that."""
        self._held.clear()
        for listener in tuple(self._all):
            listener.end()

    @property
    def pace(self) -> float | None:
        """How long to wait for a wake-up before looking by oneself; None: for ever."""
        return PACE if self._held else None


class Listener:
    """The stream of one entered `asked`. It belongs to one event loop; others may wake it.

    `version` is SQLite's count of what other connections committed, which costs 3 us to read; only when it
    moved is the file searched. It is read on a connection that never writes, so that it moves for the asks
    of this process, too.
    """

    def __init__(self, holder: str, listeners: Listeners, version: Version, look: Look) -> None:
        self.holder: Final = holder
        self._listeners = listeners
        self._version, self._look = version, look
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._pending: list[Ask] = []
        self._heard: dict[Ask, int] = {}
        self._looked_at: int | None = None
        self._ended = False

    def wake(self) -> None:
        """Look again, now."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._woken.set)

    def end(self) -> None:
        """The store was left: there is nothing more to hear."""
        self._ended = True
        self.wake()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Ask:
        while not self._pending:
            if self._ended:
                raise StoreUnavailable("the store was left, so nobody can be heard any more")
            # Cleared before looking: what comes after the look sets it again.
            self._woken.clear()
            await self._refresh()
            if not self._pending:
                with move_on_after(self._listeners.pace):
                    await self._woken.wait()
        return self._pending.pop(0)

    async def _refresh(self) -> None:
        try:
            version: int | None = self._version()
        except sqlite3.Error:  # locked for a moment, which the look waits for, or closed, which it tells
            version = None
        if version is not None and version == self._looked_at:
            return
        asks = dict(await self._look())
        self._looked_at = version
        # Counted, not timed: a heartbeat may have answered an ask before anybody here heard of it.
        self._pending = [ask for ask, count in asks.items() if self._heard.get(ask) != count]
        self._heard = asks
