"""The lifespan of an ASGI app in memory, as a server runs it.

Owns startup, shutdown and the state that the app hands to its requests; knows no request. `TusClient` uses
it.
"""

import asyncio

from starlette.types import ASGIApp, Message, Scope

from tusserve.testing.client_exchange import Bell


class Lifespan:
    """Runs the lifespan of `app`, in a task of its own. An app that refuses it has none, which is fine."""

    def __init__(self, app: ASGIApp, *, timeout: float) -> None:
        self.state: dict[str, object] = {}
        self._app = app
        self._timeout = timeout
        self._bell = Bell()
        self._requests: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: list[Message] = []
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the app. `AssertionError`: it says that it failed, or says nothing."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        await self._tell("startup")

    async def stop(self) -> None:
        """Stop the app in an orderly way. `AssertionError`: it says that it failed, or does not end."""
        if self._task is None or self._task.done():
            self._error()  # looked at, or the event loop reports it some time later
            return
        await self._tell("shutdown")
        await self._ended()
        if (error := self._error()) is not None:
            raise error

    async def kill(self) -> None:
        """Cancel the app where it waits. What its cleaning up raises is of no interest."""
        if self._task is not None:
            self._task.cancel()
            await self._ended()
            self._error()

    async def _run(self) -> None:
        scope: Scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self._app(scope, self._requests.get, self._take)
        finally:
            self._bell.ring()

    async def _take(self, message: Message) -> None:
        self._answers.append(message)
        self._bell.ring()

    async def _tell(self, what: str) -> None:
        task, before = self._task, len(self._answers)
        assert task is not None
        self._requests.put_nowait({"type": f"lifespan.{what}"})
        # One turn of the loop lies between the last word of a task and its being done.
        ended = asyncio.ensure_future(asyncio.wait({task}))
        ended.add_done_callback(lambda _: self._bell.ring())
        try:
            async with asyncio.timeout(self._timeout):
                await self._bell.until(lambda: len(self._answers) > before or task.done())
        except TimeoutError:
            raise AssertionError(f"the app did not answer lifespan.{what} in {self._timeout} s") from None
        finally:
            ended.cancel()
        for answer in self._answers[before:]:
            if answer["type"] == f"lifespan.{what}.failed":
                raise AssertionError(
                    f"the app's {what} failed: {answer.get('message', '')}"
                ) from self._error()

    async def _ended(self) -> None:
        assert self._task is not None
        done, _ = await asyncio.wait({self._task}, timeout=self._timeout)
        if not done:
            self._task.cancel()
            raise AssertionError(f"the app's lifespan did not end within {self._timeout} s")

    def _error(self) -> BaseException | None:
        if self._task is None or not self._task.done() or self._task.cancelled():
            return None
        return self._task.exception()
