"""Native cancellation at every place where a request can be cancelled.

Owns `CancelsAt`, which counts the awaits of a request's own task and cancels it at one of them; knows nothing
of what the app does there. Tests run an app under it once for each await.
"""

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send


class CancelsAt:
    """An ASGI app around another: the request's task is cancelled by `Task.cancel()` where it waits for the
    `at`-th time, once. `suspensions` counts the waits of the last HTTP request; without `at` it only counts.

    Only the request's own task is cancelled, as servers do; tasks of the app go on.
    """

    def __init__(self, app: ASGIApp, at: int | None = None) -> None:
        self._app = app
        self._at = at
        self.suspensions = 0
        self.struck = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request, or be cancelled in it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def work() -> None:
            await self._app(scope, receive, send)

        self.suspensions = 0
        await _Stepped(self, work())

    def suspended(self) -> None:
        """The task is about to wait: cancelled now, it is cancelled in this wait."""
        self.suspensions += 1
        if self.suspensions == self._at and not self.struck:
            self.struck = True
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
