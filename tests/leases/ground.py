"""Several processes on one place: two apps with one store and one storage, or with files opened twice.

Owns `Ground` (the place), `Worker` (a process on it) and `Sleeper`, by which a process stands still.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Self, TypedDict, TypeVar, Unpack

from starlette.types import ASGIApp

from tests.engine.quick_loop import LoopClock
from tests.engine.world import Site, id_of, site_of
from tests.leases.hurried_loop import HurriedLoop
from tusserve import Authorize, Expiry, OnComplete, OnFirstChunk, OnTerminate, Timeouts, TusApp
from tusserve.protocol.records import UploadRecord
from tusserve.testing.client import HalfOpen, Response, TusClient
from tusserve.testing.faults import Faults, faulty_storage, faulty_store

T = TypeVar("T")

PAIRS = (("memory", "memory"), ("file", "sqlite"))
WEEK = timedelta(days=7)


class Sleeper(Faults):
    """A process that may stand still: no call of its begins or comes back, until it wakes."""

    def __init__(self) -> None:
        super().__init__()
        self._awake = asyncio.Event()
        self._awake.set()
        self._asleep = asyncio.Event()
        self._where: tuple[str, int] | None = None

    def fall_asleep(self, *, at: str | None = None, nth: int = 1) -> None:
        """Now, or just before the `nth` call from here that `at` matches."""
        if at is None:
            self._awake.clear()
            self._asleep.set()
        else:
            self._where = (at, nth)

    async def asleep(self) -> None:
        """Wait until it stands still."""
        await self._asleep.wait()

    def wake(self) -> None:
        """It goes on as if nothing had been."""
        self._where = None
        self._awake.set()

    async def _nap(self, name: str) -> None:
        if self._where is not None and fnmatchcase(name, self._where[0]):
            self._where = (self._where[0], self._where[1] - 1)
            if self._where[1] == 0:
                self._where = None
                self.fall_asleep()
        await self._awake.wait()

    async def call(
        self,
        name: str,
        work: Callable[[], Awaitable[T]],
        *,
        torn: Callable[[], Awaitable[object]] | None = None,
    ) -> T:
        await self._nap(name)
        answer = await super().call(name, work, torn=torn)
        await self._awake.wait()
        return answer

    async def wait(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        await self._nap(name)
        answer = await super().wait(name, work)
        await self._awake.wait()
        return answer

    async def enter(self, name: str, inner: AbstractAsyncContextManager[T]) -> T:
        await self._nap(f"{name}.enter")
        held = await super().enter(name, inner)
        await self._awake.wait()
        return held

    async def leave(
        self, name: str, inner: AbstractAsyncContextManager[T], error: BaseException | None
    ) -> bool | None:
        await self._nap(f"{name}.exit")
        swallowed = await super().leave(name, inner, error)
        await self._awake.wait()
        return swallowed


class Options(TypedDict, total=False):
    """What a test may want of its apps."""

    name: str
    authorize: Authorize | None
    on_first_chunk: OnFirstChunk | None
    on_complete: OnComplete | None
    on_terminate: OnTerminate | None
    timeouts: Timeouts
    expiry: Expiry | None
    sniff_size: int
    max_bodies: int
    sweep_every: timedelta | None


class Worker:
    """A process: an app of its own, with a client of its own and faults of its own."""

    def __init__(
        self, site: Site, *, around: Callable[[ASGIApp], ASGIApp] | None = None, **options: Unpack[Options]
    ) -> None:
        self.faults = Sleeper()
        options.setdefault("sweep_every", None)
        self.tus = TusApp(
            "/files",
            storage=faulty_storage(site.storage(), self.faults),
            store=faulty_store(site.store(), self.faults),
            clock=LoopClock(),
            **options,
        )
        app: ASGIApp = self.tus
        self.client = TusClient(around(app) if around else app, timeout=3600)

    async def __aenter__(self) -> Self:
        await self.client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.faults.crashed:
            await self.client.kill()
            await self.faults.bury()
        else:
            self.faults.wake()
            self.faults.heal()
            await self.client.__aexit__(None, None, None)

    async def crash(self) -> None:
        """Die as by `kill -9`: nothing that it left open is closed."""
        self.faults.crash_now()
        await self.client.kill()

    async def settle(self) -> None:
        """Wait until the tasks of the app are through."""
        await self.tus._lifetime._tasks.drained()

    def calls_since(self, mark: int) -> list[str]:
        """Its calls to the store since there were `mark` calls in all, but those of the heart and the ear."""
        return [
            name
            for name in self.faults.calls[mark:]
            if name.startswith("store.") and not name.startswith("store.asked") and name != "store.renew"
        ]

    @property
    def mark(self) -> int:
        """How many calls there were."""
        return len(self.faults.calls)


class Ground:
    """A place where uploads are, and the processes that work on it."""

    def __init__(self, site: Site, stack: AsyncExitStack) -> None:
        self._site = site
        self._stack = stack

    async def worker(
        self, *, around: Callable[[ASGIApp], ASGIApp] | None = None, **options: Unpack[Options]
    ) -> Worker:
        """One more process. It ends with the ground."""
        return await self._stack.enter_async_context(Worker(self._site, around=around, **options))

    async def two(self, **options: Unpack[Options]) -> tuple[Worker, Worker]:
        """Two of the same."""
        return await self.worker(**options), await self.worker(**options)

    async def half_open(self, worker: Worker, url: str, data: bytes = b"", *, at: int = 0) -> HalfOpen:
        """A PATCH that goes on until the test ends it, or the ground does."""
        return await self._stack.enter_async_context(worker.client.half_open(url, data, at=at))

    async def record(self, url: str) -> UploadRecord:
        """What is committed."""
        record = await self._site.record(id_of(url))
        assert record is not None
        return record

    async def content(self, url: str) -> bytes:
        """The bytes that the committed record names."""
        record, content = await self._site.content(id_of(url))
        assert len(content) == record.offset
        return content

    async def held(self, url: str) -> bool:
        """Whether anybody has a live lease."""
        found = await self._site._eye.store.get(id_of(url))
        assert found is not None
        return found[1] is not None

    def leftovers(self, url: str) -> list[str]:
        """What of its bytes there still is."""
        return self._site.leftovers(id_of(url))


@asynccontextmanager
async def ground(pair: tuple[str, str], folder: Path) -> AsyncGenerator[Ground]:
    """A place of such a storage and such a store."""
    async with site_of(*pair, folder) as site, AsyncExitStack() as stack:
        yield Ground(site, stack)


def now() -> float:
    """The time of the loop, which is not ours."""
    return asyncio.get_running_loop().time()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """`AssertionError` if it took longer, by the time of a loop on which computing costs next to nothing.

    With threads and files the machine has its say, so there nothing is measured.
    """
    began = now()
    yield
    if not isinstance(asyncio.get_running_loop(), HurriedLoop):
        assert now() - began < seconds


def code(answer: Response) -> object:
    """The stable code of a refusal."""
    document = answer.json()
    assert isinstance(document, dict)
    return document["code"]


def assert_interrupted(answer: Response, offset: int) -> None:
    """The answer to a request that had to let go: where it was, and no further use of the connection."""
    assert (answer.status, code(answer)) == (423, "upload_interrupted")
    assert answer.headers["upload-offset"] == str(offset)
    assert answer.headers["connection"] == "close"
    assert int(answer.headers["retry-after"]) > 0
