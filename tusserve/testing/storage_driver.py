"""What the checks of the storage kit stand on: a storage in a fresh place, and a store that is three fields.

Owns the driver that commits cursors and makes leases as a real store and engine would, the list that checks
are noted in, and the native cancellation at the n-th await. Knows no storage. The kit's checks use it.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from anyio import CancelScope

from tusserve.contracts import Cursor, Durable, Fence, Lease, Place, StorageBackend, Writer

Make: TypeAlias = Callable[[Path], AbstractAsyncContextManager[StorageBackend]]
Function = TypeVar("Function", bound="Callable[[Bench], Awaitable[None]]")

CHUNK: Final = 64 << 10
"""What servers hand over at a time."""


def made_up(length: int, seed: int) -> bytes:
    """Bytes that no other seed has."""
    return random.Random(seed).randbytes(length)


@dataclass(frozen=True, slots=True)
class Noted:
    """A check as it is written down, without the storage that it will be run on."""

    clause: str
    title: str
    run: "Callable[[Bench], Awaitable[None]]"
    needs: frozenset[str]


class Checklist:
    """Notes checks in the order in which they are written."""

    def __init__(self) -> None:
        self.noted: list[Noted] = []

    def check(self, clause: str, title: str, *needs: str) -> Callable[[Function], Function]:
        """Note the decorated function; `needs` names what a storage under test may lack."""

        def note(function: Function) -> Function:
            self.noted.append(Noted(clause, title, function, frozenset(needs)))
            return function

        return note


class Bench:
    """One check's storage in its fresh place."""

    def __init__(self, make: Make, place: Path, *, durable: bool) -> None:
        self.storage: StorageBackend
        self._make, self._place, self._durable = make, place, durable
        self._stack = AsyncExitStack()

    @classmethod
    @asynccontextmanager
    async def opened(cls, make: Make, place: Path, *, durable: bool) -> AsyncGenerator["Bench"]:
        """A bench with its storage open; everything that was opened on it is left at the end."""
        bench = cls(make, place, durable=durable)
        async with bench._stack:
            bench.storage = await bench._stack.enter_async_context(make(place))
            yield bench

    async def reopen(self) -> None:
        """As after a crash: leave the open storage as it is, and go on with a new one in the same place."""
        if self._durable:
            self.storage = await self._stack.enter_async_context(self._make(self._place))

    def upload(self, id: str = "upload", *, key: str | None = None, length: int | None = None) -> "Upload":
        """A new upload, of which nothing is stored."""
        return Upload(self, Place(id=id, key=key, length=length, content_type=None))

    async def standing_still(self, writer: AbstractAsyncContextManager[Writer]) -> Writer:
        """Enter a writer as a process does that then stands still: it is left when the check is over."""
        return await self._stack.enter_async_context(writer)


class Upload:
    """One upload as a store would keep it: offset, state, entries, and who may still act on it."""

    def __init__(self, bench: Bench, place: Place) -> None:
        self.place = place
        self.offset = 0
        self.state = ""
        self.entries: list[str] = []
        self._bench = bench
        self._newest = self._unclean = self._alive = 0
        self._held = False

    @property
    def cursor(self) -> Cursor:
        """What is committed now; later commits do not change it."""
        entries = tuple(self.entries)

        async def page(start: int, stop: int) -> Sequence[str]:
            return entries[start:stop]

        return Cursor(self.state, len(entries), page)

    def take(self, *, died: bool = False) -> Lease:
        """The next lease. The process that had the one before may still act, if it did not let go: unless
        it is proven that it `died`."""
        if self._held:
            self._unclean = self._newest
            if not died:
                self._alive = self._newest
        self._newest += 1
        self._held = True
        return Lease(
            id=self.place.id,
            fence=Fence(self._newest, f"token-{self._newest}"),
            ttl=timedelta(seconds=15),
            unclean=self._unclean,
            alive=self._alive,
        )

    def let_go(self) -> None:
        """The newest lease ends cleanly."""
        self._held = False

    def commit(self, durable: Durable) -> None:
        """Keep what a flush returned: the commit point."""
        assert self.offset <= durable.offset, "B3: what flush covers goes back"
        assert len(durable.state) <= 128 << 10, "a state is at most 128 KiB"
        self.offset, self.state = durable.offset, durable.state
        self.entries += durable.added

    def writer(self, lease: Lease) -> AbstractAsyncContextManager[Writer]:
        """A writer at the committed offset, under this lease."""
        return self._bench.storage.writer(self.place, self.cursor, self.offset, lease)

    async def append(self, data: bytes, *, died: bool = False) -> None:
        """Add `data` as one request does: lease, write, flush, commit, let go."""
        lease = self.take(died=died)
        async with self.writer(lease) as writer:
            await write_all(writer, data)
            durable = await writer.flush(True)
        self.commit(durable)
        self.let_go()

    async def content(self, start: int = 0, stop: int | None = None) -> bytes:
        """What the storage gives for a range; by default everything that is committed."""
        return await self.content_of(self.cursor, start, self.offset if stop is None else stop)

    async def content_of(self, cursor: Cursor, start: int, stop: int) -> bytes:
        """What the storage gives for a range of what `cursor` names."""
        async with self._bench.storage.read(self.place, cursor, start, stop) as chunks:
            return b"".join([chunk async for chunk in chunks])

    async def seal(self, *, commit: bool = True) -> str:
        """Seal what is committed, and keep the sealed state unless told not to."""
        sealed = await self._bench.storage.seal(self.place, self.cursor, self.offset)
        if commit:
            self.state, self.entries = sealed, []
        return sealed

    async def finish(self) -> None:
        """Seal, commit, and seal once more: all that an engine does after the last byte."""
        await self.seal()
        await self.seal(commit=False)

    async def discard(self) -> None:
        """Remove it."""
        await self._bench.storage.discard(self.place, self.cursor)


@contextmanager
def raising(kind: type[Exception], complaint: str) -> Generator[None, None, None]:
    """The block has to raise `kind`: else the check fails with this complaint."""
    try:
        yield
    except kind:
        return
    raise AssertionError(complaint)


async def write_all(writer: Writer, data: bytes) -> None:
    """Hand `data` over as a server does, in chunks."""
    for begin in range(0, len(data), CHUNK):
        await writer.write(data[begin : begin + CHUNK])


@dataclass(frozen=True, slots=True)
class Interrupted:
    """How it went with work that was to be cancelled at its n-th suspension."""

    reached: bool
    """It did suspend that often."""
    through: bool
    """It came to its end all the same."""


async def cancelled_at(
    suspension: int, work: Coroutine[object, None, None], *, scoped: bool = False
) -> Interrupted:
    """Run `work` as a task of its own and cancel it at its n-th suspension, counted from 1: natively, or
    `scoped` by an anyio cancel scope around it."""
    scope = CancelScope()
    steps = _Counted(suspension, work, lambda: scope.cancel() if scoped else task.cancel())

    async def run() -> None:
        with scope:
            await steps

    task = asyncio.get_running_loop().create_task(run())
    await asyncio.wait([task])
    cancelled = scope.cancelled_caught or task.cancelled()
    if not task.cancelled():
        task.result()
    return Interrupted(steps.left <= 0, not cancelled)


class _Counted:
    """An awaitable that has its task cancelled when the work suspends for the n-th time."""

    def __init__(
        self, suspension: int, work: Coroutine[object, None, None], cancel: Callable[[], object]
    ) -> None:
        self.left, self._work, self._cancel = suspension, work, cancel

    def __await__(self) -> Generator[object, None, None]:
        work = self._work.__await__()
        step: Callable[[], object] = partial(next, work)
        while True:
            try:
                waiting_for = step()
            except StopIteration:
                return
            self.left -= 1
            if self.left == 0:
                asyncio.get_running_loop().call_soon(self._cancel)
            try:
                yield waiting_for
                step = partial(next, work)
            except BaseException as error:  # noqa: BLE001
                step = partial(work.throw, error)
