"""The fault injection itself: what strikes, when, and what it must leave alone."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
from starlette.types import Receive, Scope, Send

from tusserve.contracts import (
    Acquired,
    Cursor,
    HasIdentity,
    HasLocalPath,
    Lease,
    ListsStrays,
    ListsUploads,
    Place,
    ProvesDeath,
    RemembersStore,
    Writer,
)
from tusserve.errors import StorageFull, StoreUnavailable
from tusserve.protocol.life import Kept, advance, open_upload
from tusserve.protocol.records import Action, Expiry, UploadRecord
from tusserve.storage.memory import MemoryStorage
from tusserve.stores.memory import MemoryStore
from tusserve.testing.client import NoResponse, TusClient
from tusserve.testing.faults import CancelsAt, Crashed, Faults, faulty_storage, faulty_store

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TTL = timedelta(seconds=15)
PLACE = Place(id="a", key=None, length=10, content_type=None)


def record(id: str = "a") -> UploadRecord:
    return open_upload(
        id=id,
        name="default",
        owner=None,
        length=10,
        max_size=100,
        metadata=None,
        gated=False,
        now=NOW,
        expiry=Expiry(),
    )


async def no_entries(start: int, stop: int) -> Sequence[str]:
    return []


EMPTY = Cursor("", 0, no_entries)


async def leased(store: MemoryStore) -> Acquired:
    await store.create(record())
    got = await store.acquire("a", "me", TTL)
    assert isinstance(got, Acquired)
    return got


async def revision(store: MemoryStore) -> int:
    found = await store.get("a")
    assert found is not None
    return found[0].revision


# ---- counting


async def test_every_call_is_counted_by_name() -> None:
    faults, storage, store = Faults(), MemoryStorage(), MemoryStore()
    disk, records = faulty_storage(storage, faults), faulty_store(store, faults)
    async with disk, records:
        await records.create(record())
        got = await records.acquire("a", "me", TTL)
        assert isinstance(got, Acquired)
        async with disk.writer(PLACE, EMPTY, 0, got.lease) as writer:
            await writer.write(b"0123456789")
            durable = await writer.flush(True)
        cursor = Cursor(durable.state, 0, no_entries)
        await records.commit(
            got.lease,
            advance(got.record, Kept(offset=10, cursor=durable.state), NOW, None),
            release=True,
        )
        assert await disk.seal(PLACE, cursor, 10)
        async with disk.read(PLACE, cursor, 0, 10) as pieces:
            assert b"".join([piece async for piece in pieces]) == b"0123456789"
        await disk.discard(PLACE, cursor)
        await records.get("a")
    assert faults.calls == [
        "storage.enter",
        "store.enter",
        "store.create",
        "store.acquire",
        "storage.writer.enter",
        "writer.write",
        "writer.flush",
        "storage.writer.exit",
        "store.commit",
        "storage.seal",
        "storage.read.enter",
        "storage.read.next",
        "storage.read.next",
        "storage.read.exit",
        "storage.discard",
        "store.get",
        "store.exit",
        "storage.exit",
    ]


class WithPath(MemoryStorage):
    def local_path(self, place: Place, state: str) -> Path | None:
        return Path(place.id)


async def test_abilities_are_those_of_the_inner_one() -> None:
    bare = faulty_storage(MemoryStorage(), Faults())
    able = faulty_storage(WithPath(), Faults())
    assert not isinstance(bare, HasLocalPath)
    assert isinstance(able, HasLocalPath)
    assert able.local_path(PLACE, "") == Path("a")
    for storage in (bare, able):
        assert not isinstance(storage, ListsStrays)
        assert not isinstance(storage, RemembersStore)
        assert storage.checkpoint_bytes == MemoryStorage().checkpoint_bytes
    store = faulty_store(MemoryStore(), Faults())
    assert isinstance(store, ListsUploads)
    assert await store.uploads("default") == []
    assert not isinstance(store, ProvesDeath)
    assert not isinstance(store, HasIdentity)


# ---- failing


async def test_a_failing_call_changes_nothing_and_only_it_fails() -> None:
    faults, inner = Faults(), MemoryStore()
    store = faulty_store(inner, faults)
    faults.fail(StoreUnavailable, on="store.create", at=2)
    await store.create(record("a"))
    with pytest.raises(StoreUnavailable):
        await store.create(record("b"))
    assert await inner.get("b") is None
    await store.create(record("b"))


async def test_a_lost_answer_took_effect() -> None:
    faults, inner = Faults(), MemoryStore()
    faults.fail(StoreUnavailable, after=True)
    with pytest.raises(StoreUnavailable):
        await faulty_store(inner, faults).create(record())
    assert await inner.get("a") is not None


async def test_a_store_may_be_away_until_it_is_healed() -> None:
    faults = Faults()
    store = faulty_store(MemoryStore(), faults)
    faults.fail(lambda: StoreUnavailable("away"), on="store.*", times=None)
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="away"):
            await store.get("a")
    faults.heal()
    assert await store.get("a") is None


class Resource:
    """A writer that notes what is done with it."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    opened: str | None = None
    settled = True

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Writer]:
        self.steps.append("open")
        try:
            yield self  # type: ignore[misc]
            self.steps.append("left")
        finally:
            self.steps.append("closed")

    async def write(self, data: bytes) -> None:
        self.steps.append(f"wrote {data.decode()}")

    async def flush(self, everything: bool) -> None:
        self.steps.append("flushed")


class Shelf(MemoryStorage):
    def __init__(self) -> None:
        super().__init__()
        self.resource = Resource()

    def writer(  # type: ignore[override]
        self, place: Place, cursor: Cursor, at: int, lease: Lease
    ) -> AbstractAsyncContextManager[Writer]:
        return self.resource.open()


async def write(storage: Shelf, faults: Faults) -> list[str]:
    lease = (await leased(MemoryStore())).lease
    async with faulty_storage(storage, faults).writer(PLACE, EMPTY, 0, lease) as writer:
        await writer.write(b"abcd")
        await writer.flush(True)
    return storage.resource.steps


@pytest.mark.parametrize(
    ("on", "after", "steps"),
    [
        ("storage.writer.enter", False, []),
        ("storage.writer.enter", True, ["open", "closed"]),
        ("writer.write", False, ["open", "closed"]),
        ("writer.write", True, ["open", "wrote abcd", "closed"]),
        ("writer.flush", False, ["open", "wrote abcd", "closed"]),
        ("storage.writer.exit", False, ["open", "wrote abcd", "flushed", "left", "closed"]),
        ("storage.writer.exit", True, ["open", "wrote abcd", "flushed", "left", "closed"]),
    ],
)
@pytest.mark.parametrize("how", ["fail", "cancel"])
async def test_a_failure_or_a_cancel_leaves_nothing_open(
    on: str, after: bool, steps: list[str], how: str
) -> None:
    faults, shelf = Faults(), Shelf()
    if how == "fail":
        faults.fail(StorageFull, on=on, after=after)
        with pytest.raises(StorageFull):
            await write(shelf, faults)
    else:
        faults.cancel(on=on, after=after)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(write(shelf, faults))
    assert shelf.resource.steps == steps


# ---- dying


@pytest.mark.parametrize(
    ("on", "after", "steps"),
    [
        ("storage.writer.enter", False, []),
        ("storage.writer.enter", True, ["open"]),
        ("writer.write", False, ["open"]),
        ("writer.write", True, ["open", "wrote abcd"]),
        ("writer.flush", True, ["open", "wrote abcd", "flushed"]),
        ("storage.writer.exit", False, ["open", "wrote abcd", "flushed"]),
    ],
)
async def test_a_crash_closes_nothing_until_it_is_buried(on: str, after: bool, steps: list[str]) -> None:
    faults, shelf = Faults(), Shelf()
    faults.crash(on=on, after=after)
    with pytest.raises(Crashed):
        await write(shelf, faults)
    assert shelf.resource.steps == steps
    await faults.bury("store")
    assert shelf.resource.steps == steps
    await faults.bury()
    assert shelf.resource.steps == [*steps, *(["closed"] if steps else [])]


async def test_a_torn_write_leaves_its_first_half() -> None:
    faults, shelf = Faults(), Shelf()
    faults.crash(on="writer.write", torn=True)
    with pytest.raises(Crashed):
        await write(shelf, faults)
    assert shelf.resource.steps == ["open", "wrote ab"]


@pytest.mark.parametrize("at", [1, 2, 3])
async def test_the_dead_change_nothing_whatever_their_cleaning_up_tries(at: int) -> None:
    faults, inner = Faults(), MemoryStore()
    got = await leased(inner)
    store = faulty_store(inner, faults)
    before = await revision(inner)

    async def process() -> None:
        try:
            await store.get("a")
            await store.get("a")
            await store.get("a")
        finally:
            await store.release(got.lease, clean=True)

    faults.crash(at=at)
    with pytest.raises(Crashed):
        await process()
    assert faults.crashed
    assert len(faults.calls) == at
    assert await revision(inner) == before
    found = await inner.get("a")
    assert found is not None and found[1] is not None, "the lease of the dead was let go"


async def test_everything_of_one_process_dies_together_and_no_other() -> None:
    mine, other, inner, bytes_ = Faults(), Faults(), MemoryStore(), MemoryStorage()
    store, storage = faulty_store(inner, mine), faulty_storage(bytes_, mine)
    mine.crash_now()
    with pytest.raises(Crashed):
        await store.get("a")
    with pytest.raises(Crashed):
        await storage.__aenter__()
    async with faulty_storage(bytes_, other), faulty_store(inner, other) as theirs:
        assert await theirs.get("a") is None


async def test_a_call_under_way_gets_no_answer_after_the_crash() -> None:
    faults = Faults(suspends=False)
    goes_on = asyncio.Event()

    class Slow(MemoryStore):
        async def forget(self, id: str, now: datetime) -> bool:
            await goes_on.wait()
            return True

    store = faulty_store(Slow(), faults)
    task = asyncio.create_task(store.forget("a", NOW))
    await asyncio.sleep(0)
    faults.crash_now()
    goes_on.set()
    with pytest.raises(Crashed):
        await task


async def test_a_crash_wakes_those_who_wait_in_a_stream() -> None:
    faults, inner = Faults(), MemoryStore()
    store = faulty_store(inner, faults)

    async def listen() -> None:
        async with store.asked("me") as asks:
            async for _ in asks:
                pass

    listening = asyncio.create_task(listen())
    await anyio.wait_all_tasks_blocked()
    assert faults.calls[-1] == "store.asked.next"
    faults.crash_now()
    with pytest.raises(Crashed):
        await listening


async def test_a_stream_hands_on_what_comes() -> None:
    faults, inner = Faults(), MemoryStore()
    got = await leased(inner)
    async with faulty_store(inner, faults).asked("me") as asks:
        assert await inner.ask("a", got.lease.fence, Action.APPEND)
        assert (await anext(asks)).why == {Action.APPEND}


# ---- hanging


async def test_a_stalled_call_hangs_until_it_is_released() -> None:
    faults, inner = Faults(), MemoryStore()
    store = faulty_store(inner, faults)
    stall = faults.stall(on="store.create")
    task = asyncio.create_task(store.create(record()))
    await stall.reached()
    await anyio.sleep(0.01)
    assert not task.done()
    assert await inner.get("a") is None
    stall.release()
    await task
    assert await inner.get("a") is not None


async def test_a_stalled_answer_has_taken_effect() -> None:
    faults, inner = Faults(), MemoryStore()
    stall = faults.stall(on="store.create", after=True)
    task = asyncio.create_task(faulty_store(inner, faults).create(record()))
    await stall.reached()
    assert await inner.get("a") is not None
    assert not task.done()
    faults.heal()
    await task


async def test_all_calls_may_stall_until_they_are_released() -> None:
    faults = Faults()
    store = faulty_store(MemoryStore(), faults)
    stall = faults.stall(on="store.get", times=None)
    tasks = [asyncio.create_task(store.get("a")) for _ in range(3)]
    await anyio.sleep(0.01)
    assert not any(task.done() for task in tasks)
    stall.release()
    await asyncio.gather(*tasks)


async def test_a_crash_ends_a_stall() -> None:
    faults, inner = Faults(), MemoryStore()
    stall = faults.stall(on="store.create")
    task = asyncio.create_task(faulty_store(inner, faults).create(record()))
    await stall.reached()
    faults.crash_now()
    with pytest.raises(Crashed):
        await task
    assert await inner.get("a") is None


# ---- cancelling


@pytest.mark.parametrize("after", [False, True])
async def test_a_cancel_strikes_in_the_call(after: bool) -> None:
    faults, inner = Faults(), MemoryStore()
    faults.cancel(on="store.create", after=after)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(faulty_store(inner, faults).create(record()))
    assert (await inner.get("a") is not None) is after


async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
    """Three waits of its own, and one in each of two messages."""
    if scope["type"] != "http":
        return
    for _ in range(3):
        await asyncio.sleep(0)
    await asyncio.shield(asyncio.create_task(asyncio.sleep(0)))
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


async def test_every_wait_of_a_request_is_counted_and_can_be_cancelled() -> None:
    app = CancelsAt(waiting)
    async with TusClient(app) as client:
        assert (await client.head("/")).status == 204
    assert app.suspensions == 4
    for at in range(1, 5):
        for scoped in (False, True):
            app = CancelsAt(waiting, at, scoped=scoped)
            async with TusClient(app) as client:
                with pytest.raises(NoResponse):
                    await client.head("/")
                assert (await client.head("/")).status == 204, "it strikes once"


async def test_a_cancelled_request_cleans_up_and_its_tasks_go_on() -> None:
    steps: list[str] = []

    async def work() -> None:
        await anyio.sleep(0.01)
        steps.append("work is done")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        task = asyncio.create_task(work())
        try:
            await asyncio.shield(task)
        finally:
            steps.append("cleaned up")
            await task

    async with TusClient(CancelsAt(app, 1)) as client:
        with pytest.raises(NoResponse):
            await client.head("/")
    assert steps == ["cleaned up", "work is done"]


async def test_what_is_thrown_in_otherwise_goes_through() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        with anyio.move_on_after(0.01):
            await anyio.sleep_forever()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async with TusClient(CancelsAt(app)) as client:
        assert (await client.head("/")).status == 204


# ---- for wrappers of one's own


async def test_a_wrapper_of_ones_own_may_use_the_plan() -> None:
    faults = Faults()

    async def pages() -> AsyncIterator[int]:
        yield 1

    async def effect() -> int:
        return 7

    assert await faults.call("mine.effect", effect) == 7
    faults.crash(on="mine.*")
    with pytest.raises(Crashed, match=r"mine\.effect"):
        await faults.call("mine.effect", effect)
