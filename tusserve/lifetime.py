"""The life of an app in a process: started once, counted, drained, left.

Owns starting (by a lifespan, or by the first request if nobody ran it), the sweeper's task and the orderly
end; knows no request. `TusApp` goes through it before anything else.
"""

import asyncio
import contextlib
import logging
from collections.abc import MutableMapping
from datetime import timedelta
from typing import Any, Final

from tusserve.contracts import HasIdentity, RemembersStore
from tusserve.engine import Engine
from tusserve.errors import ConfigError
from tusserve.lease import Leases
from tusserve.mounting import ASGIApp, Receive, Scope, Send
from tusserve.reaper import Reaper
from tusserve.tasks import AppTasks
from tusserve.upload import Shelf

logger = logging.getLogger("tusserve")

DRAIN_DEADLINE: Final = timedelta(seconds=10)


class AnothersBytes(ConfigError):
    """The bytes in the storage are not those that the store has records of."""


class Lifetime:
    """Whether an app runs. May be entered several times; the last to leave ends it."""

    def __init__(
        self,
        shelf: Shelf,
        engine: Engine,
        reaper: Reaper,
        leases: Leases,
        tasks: AppTasks,
        sweep_every: timedelta | None,
    ) -> None:
        self._shelf = shelf
        self._engine = engine
        self._reaper = reaper
        self._leases = leases
        self._tasks = tasks
        self._sweep_every = sweep_every
        self._entered = 0
        self._started = False
        self._warned = False
        self._starting: asyncio.Task[None] | None = None
        self._stopping: asyncio.Future[None] | None = None
        self._stack = contextlib.AsyncExitStack()
        self._sweeper: asyncio.Task[None] | None = None

    async def enter(self) -> None:
        """Start, or count one more. Raises `ConfigError` if storage and store do not belong together."""
        self._entered += 1
        try:
            await self._be_stopped()
            await self._start()
        except BaseException:
            self._entered -= 1
            raise
        self._sweep()

    async def leave(self) -> None:
        """Count one less; the last one drains and closes everything."""
        self._entered -= 1
        if self._entered:
            return
        self._stopping = stopping = asyncio.get_running_loop().create_future()
        try:
            await self._stop()
        finally:
            self._stopping = None
            stopping.set_result(None)

    async def _be_stopped(self) -> None:
        """Who enters while the last one leaves begins anew, and is not closed under."""
        stopping = self._stopping
        if stopping is not None and stopping.get_loop() is asyncio.get_running_loop():
            await asyncio.shield(stopping)

    async def be_started(self) -> None:
        """Start if nobody did: everything works, but nobody will end it in an orderly way."""
        if not self._started:
            await self._start()
            if not self._entered and not self._warned:
                self._warned = True
                logger.warning(
                    "started by the first request, because nobody ran the lifespan of this TusApp: uploads "
                    "work, but shutting down will not be orderly. Give `tus.lifespan` to your application."
                )
        self._sweep()

    async def _start(self) -> None:
        if self._started:
            return
        starting = self._starting
        if starting is None or starting.get_loop() is not asyncio.get_running_loop():
            starting = self._starting = asyncio.get_running_loop().create_task(self._open())
        try:
            await asyncio.shield(starting)
        finally:
            if starting.done():
                self._starting = None

    async def _open(self) -> None:
        stack = contextlib.AsyncExitStack()
        async with stack:
            store = await stack.enter_async_context(self._shelf.store)
            storage = await stack.enter_async_context(self._shelf.storage)
            if isinstance(store, HasIdentity) and isinstance(storage, RemembersStore):
                identity = await store.identity()
                if not await storage.claim(identity):
                    raise AnothersBytes(
                        "these bytes belong to another store: use the store they were uploaded with, or "
                        "another place for the bytes"
                    )
            self._stack = stack.pop_all()
        self._engine.open()
        self._started = True

    def _sweep(self) -> None:
        if self._sweep_every is None:
            return
        running = self._sweeper
        if running is None or running.done() or running.get_loop() is not asyncio.get_running_loop():
            self._sweeper = asyncio.get_running_loop().create_task(self._reaper.run(self._sweep_every))

    async def drain(self, deadline: timedelta) -> None:
        """Take no more bodies; wait, at most so long, until what comes in is committed and answered."""
        self._engine.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline.total_seconds()):
                await self._tasks.drained()

    async def _stop(self) -> None:
        await self.drain(DRAIN_DEADLINE)
        await self._tasks.cancel()
        sweeper, self._sweeper = self._sweeper, None
        if sweeper is not None and sweeper.get_loop() is asyncio.get_running_loop():
            sweeper.cancel()
            await asyncio.wait({sweeper})
        await self._leases.close()
        self._started = False
        await self._stack.aclose()


async def answer_lifespan(lifetime: Lifetime, receive: Receive, send: Send) -> None:
    """The lifespan of a server that runs the app itself."""
    await receive()
    if await _enter(lifetime, send):
        await send({"type": "lifespan.startup.complete"})
        await _wait_and_leave(lifetime, receive, send)


async def answer_both_lifespans(
    lifetime: Lifetime, app: ASGIApp, scope: Scope, receive: Receive, send: Send
) -> None:
    """The lifespan of an app around which ours is wrapped: ours begins first and ends last. An app that
    refuses the lifespan, or ignores it, has none: then ours is all there is."""
    startup = await receive()
    if not await _enter(lifetime, send):
        return
    inner = _Inner(lifetime, startup, receive, send)
    try:
        await app(scope, inner.receive, inner.send)
    except Exception:
        if inner.started:
            await inner.leave()
            raise
    await inner.go_on_alone()


class _Inner:
    """The lifespan of the app inside, as far as it cares for one."""

    def __init__(
        self, lifetime: Lifetime, startup: MutableMapping[str, Any], receive: Receive, send: Send
    ) -> None:
        self.started = False
        self._lifetime = lifetime
        self._startup: MutableMapping[str, Any] | None = startup
        self._receive = receive
        self._send = send
        self._stopping = False
        self._left = False

    async def receive(self) -> MutableMapping[str, Any]:
        startup, self._startup = self._startup, None
        if startup is not None:
            return startup
        message = await self._receive()
        self._stopping = True
        return message

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self.started = True
        if message["type"] != "lifespan.startup.complete":
            await self.leave()
        await self._send(message)

    async def leave(self) -> None:
        """Ours ends, once."""
        if not self._left:
            self._left = True
            await self._lifetime.leave()

    async def go_on_alone(self) -> None:
        """The app inside has returned: say what it left unsaid."""
        if not self.started:
            await self._send({"type": "lifespan.startup.complete"})
        if not self._left:
            if not self._stopping:
                await self._receive()
            await self.leave()
            await self._send({"type": "lifespan.shutdown.complete"})


async def _enter(lifetime: Lifetime, send: Send) -> bool:
    try:
        await lifetime.enter()
    except Exception as error:  # noqa: BLE001 - the server wants a sentence, and stops by itself
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        return False
    return True


async def _wait_and_leave(lifetime: Lifetime, receive: Receive, send: Send) -> None:
    await receive()
    await lifetime.leave()
    await send({"type": "lifespan.shutdown.complete"})
