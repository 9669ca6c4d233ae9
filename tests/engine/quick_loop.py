"""An event loop on which waiting costs no time, and the clock that goes with it.

When nothing can run, the loop's time jumps to the next timer; while somebody waits for a worker thread it
goes on as everywhere. So the tests see the real policy's time-outs, graces and heartbeats in milliseconds.
"""

import asyncio
import functools
import selectors
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, ParamSpec, TypeVar

import pytest

from tusserve.storage.file_threads import Job
from tusserve.stores.sqlite import SQLiteStore
from tusserve.stores.sqlite_worker import Worker

P = ParamSpec("P")
T = TypeVar("T")

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
THREADED: Final = (
    (Job, "wait"),
    (Worker, "call"),
    (SQLiteStore, "__aenter__"),
    (SQLiteStore, "__aexit__"),
)
"""Everything that waits for a thread, in the parts that these tests use."""


class _JumpingSelector(selectors.DefaultSelector):
    """Waits only while a thread works; else adds up how long it was asked to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.jumped = 0.0
        self.threads = 0
        """How many tasks wait for a thread just now."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        if self.threads:
            return super().select(timeout)
        ready = super().select(0)
        if not ready:
            self.jumped += timeout
        return ready


class QuickLoop(asyncio.SelectorEventLoop):
    """As any loop, but its time runs ahead while it is idle, and may be made to leap."""

    def __init__(self) -> None:
        self.jumping = _JumpingSelector()
        super().__init__(self.jumping)
        self.began = self.time()

    def time(self) -> float:
        return super().time() + self.jumping.jumped

    def leap(self, step: timedelta) -> None:
        """So much time passes in which this process does nothing."""
        self.jumping.jumped += step.total_seconds()

    def call_exception_handler(self, context: Mapping[str, Any]) -> None:
        """What a process could no longer do because it is dead is no news."""
        if type(context.get("exception")).__name__ != "Crashed":
            super().call_exception_handler(dict(context))


def no_jump(call: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """The call, during which the time of a quick loop does not jump: it waits for a thread."""

    @functools.wraps(call)
    async def steady(*args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, QuickLoop)
        loop.jumping.threads += 1
        try:
            return await call(*args, **kwargs)
        finally:
            loop.jumping.threads -= 1

    return steady


def let_threads_work(patching: pytest.MonkeyPatch) -> None:
    """From now on time does not jump while somebody waits for a thread of a storage or a store."""
    for owner, name in THREADED:
        patching.setattr(owner, name, no_jump(getattr(owner, name)))


class LoopClock:
    """The wall clock of the world whose time is the running loop's; the same for all who ask there."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        assert isinstance(self._loop, QuickLoop)
        self._began = self._loop.began

    def __call__(self) -> datetime:
        return START + timedelta(seconds=self._loop.time() - self._began)
