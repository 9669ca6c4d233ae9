"""What the checks of the store kit stand on: a store in a fresh place, and processes that share the place.

Owns the bench, the records that the checks are made with, and the list that checks are noted in. Knows no
store. The kit's checks use it.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from anyio import move_on_after, sleep

from tusserve.contracts import Acquired, Ask, Fence, Held, Lease, UploadRecord, UploadStore
from tusserve.protocol.records import UploadState

Make: TypeAlias = Callable[[Path], AbstractAsyncContextManager[UploadStore]]
Function = TypeVar("Function", bound="Callable[[Bench], Awaitable[None]]")

NOON: Final = datetime(2026, 3, 1, 12, 0, 0, 123_457, tzinfo=UTC)
"""When the records of the checks were made; `due` is asked by such times, never by the system's clock."""
LONG: Final = timedelta(minutes=10)
"""A lease that stands for the whole of a check, however slow the machine."""
SHORT: Final = timedelta(milliseconds=80)
"""A lease that runs out soon."""
PATIENCE: Final = 10.0
"""Seconds after which something that should have happened is not going to."""


@dataclass(frozen=True, slots=True)
class Noted:
    """A check as it is written down, without the store that it will be run on."""

    clause: str
    title: str
    run: "Callable[[Bench], Awaitable[None]]"
    shares: bool


class Checklist:
    """Notes checks in the order in which they are written."""

    def __init__(self) -> None:
        self.noted: list[Noted] = []

    def check(self, clause: str, title: str, *, shares: bool = False) -> Callable[[Function], Function]:
        """Note the decorated function; one that `shares` opens its place more than once."""

        def note(function: Function) -> Function:
            self.noted.append(Noted(clause, title, function, shares))
            return function

        return note


class Bench:
    """One check's store in its fresh place."""

    def __init__(self, make: Make, place: Path) -> None:
        self._make, self._place = make, place
        self._stack = AsyncExitStack()
        self._here = AsyncExitStack()
        self.store: UploadStore

    @classmethod
    @asynccontextmanager
    async def opened(cls, make: Make, place: Path) -> AsyncGenerator["Bench"]:
        """A bench with its store open; everything that was opened on it is left at the end."""
        bench = cls(make, place)
        async with bench._stack, bench._here:
            bench.store = await bench._here.enter_async_context(make(place))
            yield bench

    async def another(self) -> UploadStore:
        """The same place as a second process opens it, while the first goes on."""
        return await self._stack.enter_async_context(self._make(self._place))

    async def reopen(self) -> None:
        """Leave the store and open the place anew."""
        await self.leave()
        self.store = await self._here.enter_async_context(self._make(self._place))

    async def leave(self) -> None:
        """Leave the store."""
        await self._here.aclose()

    async def create(self, id: str = "upload", **columns: object) -> UploadRecord:
        """A new record in the store."""
        return await self.store.create(new_record(id, **columns))

    async def take(
        self,
        id: str = "upload",
        *,
        ttl: timedelta = LONG,
        holder: str = "holder-1",
        steal: Fence | None = None,
        store: UploadStore | None = None,
    ) -> Acquired:
        """The lease of an upload that has to be free, or held under `steal`."""
        got = await (store or self.store).acquire(id, holder, ttl, steal=steal)
        assert isinstance(got, Acquired), f"U3: a lease that nobody holds is not given: {got}"
        return got

    async def commit(
        self, lease: Lease, record: UploadRecord, *added: str, release: bool = False
    ) -> UploadRecord:
        """Commit what has to be committable: `record`, with `added` counted in."""
        counted = replace(record, entries=record.entries + len(added))
        committed = await self.store.commit(lease, counted, added, release=release)
        assert committed is not None, "U4: a commit under the newest fence and revision is refused"
        return committed

    async def refused(
        self, lease: Lease, record: UploadRecord, *added: str, complaint: str, release: bool = False
    ) -> None:
        """Try a commit that may not take effect, whether or not its entries add up."""
        try:
            committed = await self.store.commit(lease, record, added, release=release)
        except ValueError as error:  # it was looked at as if it could
            raise AssertionError(complaint) from error
        assert committed is None, complaint

    async def put_away(self, state: UploadState, id: str = "upload", **columns: object) -> UploadRecord:
        """A record in that state, under no lease."""
        await self.create(id, **columns)
        got = await self.take(id)
        return await self.commit(got.lease, replace(got.record, state=state), release=True)

    async def look(
        self, id: str = "upload", *, store: UploadStore | None = None
    ) -> tuple[UploadRecord, Held | None]:
        """What `get` says of an upload that has to be there."""
        found = await (store or self.store).get(id)
        assert found is not None, f"U2: upload {id} is not there"
        return found

    async def read(self, id: str = "upload") -> UploadRecord:
        """The record of an upload that has to be there."""
        return (await self.look(id))[0]

    async def held(self, id: str = "upload") -> Held:
        """Who holds an upload that has to be held."""
        held = (await self.look(id))[1]
        assert held is not None, "U6: a lease is gone that neither ran out nor was let go"
        return held

    async def run_out(self, id: str = "upload") -> None:
        """Wait until a lease has run out."""
        with move_on_after(PATIENCE):
            while (await self.look(id))[1] is not None:  # noqa: ASYNC110 - no store tells when one runs out
                await sleep(0.01)
            return
        raise AssertionError("U6: a lease does not run out")


async def next_of(asks: AsyncIterator[Ask]) -> Ask:
    """The next ask of a stream on which one has to come."""
    with move_on_after(PATIENCE):
        return await anext(asks)
    raise AssertionError("U7: an ask does not reach its holder")


def new_record(id: str = "upload", **columns: object) -> UploadRecord:
    """A record as an app makes it for a new upload."""
    made = UploadRecord(
        id=id,
        name="default",
        owner=None,
        state=UploadState.RECEIVING,
        created_at=NOON,
        due_at=None,
        length=100,
        max_size=1000,
    )
    return replace(made, **columns)  # type: ignore[arg-type]
