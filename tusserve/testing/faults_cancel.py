"""Cancellation at every place where a request can be cancelled.

Owns `CancelsAt`, which counts the awaits of a request's own task and cancels it at one of them; knows nothing
of what the app does there. Tests run an app under it once for each await.
"""

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any

import anyio
from starlette.types import ASGIApp, Receive, Scope, Send


class CancelsAt:
    """An ASGI app around another: the request's task is cancelled where it waits for the `at`-th time, once.

    It is cancelled by `Task.cancel()`, as servers do when they stop; or if `scoped` by a cancel scope of
    anyio around it, as middleware with a time-out does. Only the request's own task is: tasks of the app go
    on. `suspensions` counts the waits of the last HTTP request; without `at` it only counts.
    """

    def __init__(self, app: ASGIApp, at: int | None = None, *, scoped: bool = False) -> None:
        self._app = app
        self._scoped = scoped
        self._scope: anyio.CancelScope | None = None
        self.suspensions = 0
        self.arm(at)

    def arm(self, at: int | None) -> None:
        """Cancel the next request that comes so far, at its `at`-th wait; None: none."""
        self._at = at
        self.struck = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request, or be cancelled in it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def work() -> None:
            await self._app(scope, receive, send)

        self.suspensions = 0
        if not self._scoped:
            await _Stepped(self, work())
            return
        with anyio.CancelScope() as self._scope:
            await _Stepped(self, work())

    def suspended(self) -> None:
        """The task is about to wait: cancelled now, it is cancelled in this wait."""
        self.suspensions += 1
        if self.suspensions != self._at or self.struck:
            return
        self.struck = True
        if self._scope is not None:
            self._scope.cancel()
        else:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()


class _Stepped:
    """Runs a coroutine inside the current task, and tells before each of its waits."""

    def __init__(self, owner: CancelsAt, work: Coroutine[Any, Any, None]) -> None:
        self._owner = owner
        self._work = work

    def __await__(self) -> Generator[Any, Any, None]:
        step, value = self._work.send, None
        while True:
            try:
                waits_for = step(value)
            except StopIteration:
                return
            self._owner.suspended()
            try:
                value = yield waits_for
                step = self._work.send
            except BaseException as error:  # noqa: BLE001 - whatever is thrown in is handed on
                step, value = self._work.throw, error
