"""SQLiteStore in one process: groups and their failures, cancellation, beginning and end, asks."""

import asyncio
import gc
import resource
import sqlite3
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from anyio import fail_after
from blockbuster import BlockBuster

from tusserve.contracts import Acquired, Ask, Held
from tusserve.errors import ConfigError, IdTaken, StoreUnavailable
from tusserve.protocol.records import Action, UploadRecord, UploadState
from tusserve.stores import sqlite_file
from tusserve.stores.sqlite import SQLiteStore
from tusserve.testing.clock import ManualClock
from tusserve.testing.storage_driver import cancelled_at
from tusserve.testing.store_driver import NOON, new_record

LONG = timedelta(minutes=10)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "uploads.db"


@pytest.fixture
async def store(path: Path) -> AsyncGenerator[SQLiteStore]:
    async with SQLiteStore(path) as store:
        yield store


async def take(store: SQLiteStore, id: str = "upload") -> Acquired:
    got = await store.acquire(id, "holder", LONG)
    assert isinstance(got, Acquired)
    return got


async def do(store: SQLiteStore, step: Callable[[sqlite3.Connection], object]) -> None:
    """Something else on the connection that writes, in a transaction of its own."""
    assert store._opened is not None
    await store._opened.writer.call(lambda connection, _: step(connection))


class Gate:
    """Holds the thread that writes up, so that calls queue behind it."""

    def __init__(self, store: SQLiteStore) -> None:
        self._store = store
        self._reached, self._open = threading.Event(), threading.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(do(self._store, self._wait))
        await asyncio.to_thread(self._reached.wait, 10)

    def _wait(self, _: sqlite3.Connection) -> None:
        self._reached.set()
        self._open.wait(10)

    async def __aexit__(self, *_: object) -> None:
        self._open.set()
        assert self._task is not None
        await self._task


async def together(store: SQLiteStore, *calls: Awaitable[object]) -> list[object]:
    """Do the calls in one batch. Exceptions are results."""
    async with Gate(store):
        tasks = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(0)  # each is in the queue now
    return list(await asyncio.gather(*tasks, return_exceptions=True))


async def traced(store: SQLiteStore, work: Awaitable[object]) -> list[str]:
    """Every statement that the writing connection does meanwhile."""
    seen: list[str] = []
    await do(store, lambda connection: connection.set_trace_callback(seen.append))
    seen.clear()
    await work
    await do(store, lambda connection: connection.set_trace_callback(None))
    return seen


# ---- groups


@pytest.mark.anyio
async def test_what_waits_shares_one_transaction_and_one_wake_up(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    wake = loop.call_soon_threadsafe
    wakes: list[object] = []

    def counted(callback: Callable[..., object], *arguments: object, **more: object) -> asyncio.Handle:
        if threading.current_thread().name.startswith("tusserve store"):
            wakes.append(callback)
        return wake(callback, *arguments)

    async def work() -> None:
        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        got = await together(store, *(store.create(new_record(f"upload-{number}")) for number in range(20)))
        assert all(isinstance(each, UploadRecord) for each in got)
        monkeypatch.undo()

    seen = await traced(store, work())
    began = [line for line in seen if line.startswith("BEGIN")]
    assert len(began) == 3, "one for the gate, one for the twenty, one for the end of the trace"
    assert len(wakes) == 2


@pytest.mark.anyio
async def test_one_that_fails_in_a_group_hurts_nobody_else(store: SQLiteStore) -> None:
    await store.create(new_record("taken"))
    got = await take(store, "taken")

    def half(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO entries VALUES ('taken', 5, 'half')")
        raise ValueError("the other half")

    results = await together(
        store,
        store.create(new_record("first")),
        do(store, half),
        store.create(new_record("taken")),
        store.commit(got.lease, replace(got.record, entries=7), ["one"]),
        do(store, lambda connection: connection.execute("INSERT INTO entries VALUES ('x', 1, NULL)")),
        store.commit(got.lease, replace(got.record, entries=1), ["one"]),
        store.create(new_record("last")),
    )
    kinds = [type(each) for each in results]
    assert kinds == [
        UploadRecord,
        ValueError,
        IdTaken,
        ValueError,
        StoreUnavailable,
        UploadRecord,
        UploadRecord,
    ]
    assert [record.id for record in await store.uploads("default")] == ["first", "last", "taken"]
    assert await store.entries("taken", 0, 9) == ["one"]


@contextmanager
def files_end_at(size: int) -> Generator[None]:
    """Writing beyond `size` fails, as on a full disk: for every file of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.anyio
async def test_a_commit_that_fails_is_unknown_to_all_of_its_group(store: SQLiteStore, path: Path) -> None:
    await store.create(new_record("before"))
    got = await take(store, "before")
    full = path.with_name(path.name + "-wal").stat().st_size + 100
    with files_end_at(full):
        results = await together(
            store,
            store.create(new_record("one")),
            store.create(new_record("two", attributes={"filler": "x" * 20_000})),
            store.create(new_record("before")),
            store.commit(got.lease, replace(got.record, offset=5)),
            store.renew([got.lease]),
        )
    assert [type(each) for each in results] == [StoreUnavailable] * 5
    assert "full" in str(results[0]) or "I/O" in str(results[0])
    assert isinstance(await store.commit(got.lease, replace(got.record, offset=5)), UploadRecord), (
        "it repeats"
    )
    assert isinstance(await store.create(new_record("one")), UploadRecord)
    assert [record.id for record in await store.uploads("default")] == ["before", "one"]


@pytest.mark.anyio
async def test_a_step_after_which_the_transaction_is_gone_fails_its_group(store: SQLiteStore) -> None:
    def give_up(connection: sqlite3.Connection) -> None:
        connection.execute("ROLLBACK")
        raise sqlite3.OperationalError("disk I/O error")

    results = await together(
        store, store.create(new_record("one")), do(store, give_up), store.create(new_record("two"))
    )
    assert [type(each) for each in results] == [StoreUnavailable] * 3
    assert list(await store.uploads("default")) == []
    await store.create(new_record("one"))


@pytest.mark.anyio
async def test_only_what_has_to_survive_a_loss_of_power_is_synced(path: Path) -> None:
    for durability, level in (("full", "FULL"), ("checkpoint", None), ("none", None)):
        async with SQLiteStore(path.with_name(durability), durability=durability) as store:  # type: ignore[arg-type]

            async def level_of(work: Awaitable[object], store: SQLiteStore = store) -> str | None:
                lines = await traced(store, work)
                levels = [line.split()[-1] for line in lines if line.startswith("PRAGMA synchronous")]
                return levels[0] if levels else None

            assert await level_of(store.create(new_record())) == level
            got = await take(store)
            assert await level_of(store.renew([got.lease])) is None
            assert await level_of(store.ask("upload", got.lease.fence, Action.APPEND)) is None
            assert await level_of(store.commit(got.lease, got.record)) == level
            assert await level_of(store.release(got.lease, clean=True)) is None
            assert await level_of(store.acquire("upload", "holder", LONG)) is None
            assert await level_of(store.acquire("upload", "holder", LONG, durable=True)) == level


# ---- waiting for others


@pytest.mark.anyio
async def test_a_call_waits_for_another_program_that_writes(store: SQLiteStore, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(store.create(new_record()))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    assert await store.get("upload") is None, "a read waits for nobody"
    other.execute("COMMIT")
    other.close()
    with fail_after(10):
        assert (await waiting).id == "upload"


@pytest.mark.anyio
async def test_a_call_does_not_wait_for_ever(
    store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "PATIENCE", 0.05)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        await store.create(new_record())
    other.execute("COMMIT")
    other.close()
    await store.create(new_record())


@pytest.mark.anyio
async def test_a_get_that_finds_the_file_locked_waits_in_a_thread(
    store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = await store.create(new_record())
    assert store._opened is not None
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as first:
        first.execute("BEGIN IMMEDIATE")

        def locked(*_: object) -> None:
            with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as second:
                second.execute("BEGIN IMMEDIATE")

        monkeypatch.setattr(store._opened.glance, "one", locked)
        assert await store.get("upload") == (created, None)


# ---- cancellation


@pytest.mark.anyio
async def test_a_call_that_is_cancelled_before_its_turn_does_not_happen(store: SQLiteStore) -> None:
    async with Gate(store):
        waiting = asyncio.create_task(store.create(new_record()))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
    await store.renew([])
    assert await store.get("upload") is None


@pytest.mark.anyio
async def test_a_call_that_is_cancelled_at_its_turn_happens_whole(store: SQLiteStore) -> None:
    await store.create(new_record())
    got = await take(store)
    done = threading.Event()

    def lasting(_: sqlite3.Connection) -> None:
        done.wait(10)

    # The gate is in the same batch behind the commit, which therefore is done and not yet answered.
    async with Gate(store):
        commit = asyncio.create_task(store.commit(got.lease, replace(got.record, entries=1), ["one"]))
        behind = asyncio.create_task(do(store, lasting))
        await asyncio.sleep(0)
    await asyncio.sleep(0.02)
    commit.cancel()
    await asyncio.wait([commit])
    done.set()
    await behind
    found = await store.get("upload")
    assert found is not None
    assert found[0].entries == 1
    assert await store.entries("upload", 0, 9) == ["one"]


@pytest.mark.anyio
@pytest.mark.parametrize("suspension", [1, 2, 3])
async def test_entering_that_is_cancelled_leaves_nothing(path: Path, suspension: int) -> None:
    store = SQLiteStore(path)

    async def work() -> None:
        async with store:
            await store.create(new_record(f"upload-{suspension}"))

    await cancelled_at(suspension, work())
    async with store:
        await store.create(new_record())
    await no_threads()


# ---- beginning and end


_strangers: set[threading.Thread] = set()
"""Threads of stores that other tests abandoned, as a crash does."""


@pytest.fixture(autouse=True)
def strangers() -> None:
    _strangers.clear()
    _strangers.update(threading.enumerate())


def threads() -> set[str]:
    own = set(threading.enumerate()) - _strangers
    return {thread.name for thread in own if thread.name.startswith("tusserve")}


async def no_threads() -> None:
    with fail_after(10):
        while threads():  # noqa: ASYNC110 - a thread's end sets no event
            await asyncio.sleep(0.01)


def descriptors() -> set[str]:
    links = set()
    for each in Path("/proc/self/fd").iterdir():
        try:
            links.add(str(each.readlink()))
        except FileNotFoundError:
            continue
    return links


@pytest.mark.anyio
async def test_leaving_leaves_nothing_behind_and_entering_again_works(path: Path) -> None:
    store = SQLiteStore(path)
    for turn in range(3):
        async with store:
            await store.enlist(f"holder-{turn}")
            await store.create(new_record(f"upload-{turn}"))
            assert len(await store.uploads("default")) == turn + 1
        assert threads() == set()
        assert not [each for each in descriptors() if each.startswith(str(path.parent))]
        assert sorted(each.name for each in path.parent.iterdir()) == ["uploads.db", "uploads.db-holders"]
        assert list(path.with_name("uploads.db-holders").iterdir()) == []


@pytest.mark.anyio
async def test_it_may_be_entered_by_several(path: Path) -> None:
    store = SQLiteStore(path)
    async with store:
        async with store:
            await store.create(new_record())
        assert await store.get("upload") is not None
    assert threads() == set()
    await asyncio.gather(*(store.__aenter__() for _ in range(3)))
    assert len(threads()) == 2
    await asyncio.gather(*(store.__aexit__(None, None, None) for _ in range(3)))
    assert threads() == set()


@pytest.mark.anyio
async def test_outside_of_its_context_it_is_unavailable(path: Path) -> None:
    store = SQLiteStore(path)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="async with"):
            await store.get("upload")
        with pytest.raises(StoreUnavailable, match="async with"):
            await store.create(new_record())
        async with store:
            pass


@pytest.mark.anyio
async def test_what_waits_when_the_store_is_left_is_done(path: Path) -> None:
    store = SQLiteStore(path)
    async with store:
        waiting = [asyncio.create_task(store.create(new_record(f"upload-{number}"))) for number in range(10)]
        await asyncio.sleep(0)
    assert {(await each).id for each in waiting} == {f"upload-{number}" for number in range(10)}


def test_each_request_may_have_an_event_loop_of_its_own(path: Path) -> None:
    store = SQLiteStore(path)

    async def first() -> Acquired:
        await store.__aenter__()
        await store.create(new_record())
        return await take(store)

    async def ask(got: Acquired) -> None:
        async with store.asked("holder") as asks:
            await store.ask("upload", got.lease.fence, Action.APPEND)
            with fail_after(10):
                assert (await anext(asks)).id == "upload"

    async def abandon() -> None:
        waiting = store.asked("holder")
        await waiting.__aenter__()

    got = asyncio.run(first())
    asyncio.run(ask(got))
    asyncio.run(abandon())
    asyncio.run(ask(got))
    asyncio.run(store.__aexit__(None, None, None))
    assert threads() == set()


def test_event_loops_in_several_threads_may_share_it(path: Path) -> None:
    store = SQLiteStore(path)

    async def work(name: str) -> None:
        async with store:
            for number in range(20):
                await store.create(new_record(f"{name}-{number}"))
                assert await store.get(f"{name}-{number}") is not None

    workers = [threading.Thread(target=lambda name=name: asyncio.run(work(name))) for name in "abc"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    async def count() -> int:
        async with store:
            return len(await store.uploads("default", limit=100))

    assert asyncio.run(count()) == 60


@pytest.mark.anyio
async def test_a_store_that_is_dropped_takes_its_threads_along(path: Path) -> None:
    store = SQLiteStore(path)
    await store.__aenter__()
    await store.create(new_record())
    assert len(threads()) == 2
    del store
    gc.collect()
    await no_threads()


@pytest.mark.anyio
async def test_its_files_are_private(store: SQLiteStore, path: Path) -> None:
    await store.enlist("holder")
    await store.create(new_record())
    modes = {each.name: each.stat().st_mode & 0o777 for each in path.parent.rglob("*") if each.is_file()}
    assert len(modes) == 4
    assert set(modes.values()) == {0o600}
    assert path.with_name("uploads.db-holders").stat().st_mode & 0o777 == 0o700


def test_settings_that_cannot_work_are_refused_at_once(path: Path) -> None:
    with pytest.raises(ConfigError, match="durability"):
        SQLiteStore(path, durability="always")  # type: ignore[arg-type]
    for memory in (":memory:", ""):
        with pytest.raises(ConfigError, match="MemoryStore"):
            SQLiteStore(memory)


# ---- holders, clocks, asks


@pytest.mark.anyio
async def test_two_holders_of_one_name_are_told_apart(store: SQLiteStore, path: Path) -> None:
    await store.enlist("holder")
    async with SQLiteStore(path) as other:
        with pytest.raises(StoreUnavailable, match="a name of its own"):
            await other.enlist("holder")
    await store.create(new_record())
    got = await take(store)
    async with SQLiteStore(path) as other:
        assert isinstance(await other.acquire("upload", "other", LONG), Held)
    assert await store.renew([got.lease]) == []


@pytest.mark.anyio
async def test_a_holder_that_left_may_come_back(path: Path) -> None:
    store = SQLiteStore(path)
    async with SQLiteStore(path) as other:
        await other.create(new_record())
        for _ in range(2):
            async with store:
                await store.enlist("holder")
                got = await take(store)
                await asyncio.sleep(0.11)  # longer than an answer about a holder is believed
                assert isinstance(await other.acquire("upload", "other", LONG), Held)
                await store.release(got.lease, clean=True)
        async with store:
            await store.enlist("holder")
            await take(store)
            for file in path.with_name("uploads.db-holders").iterdir():
                file.unlink()
            await asyncio.sleep(0.11)
            assert isinstance(await other.acquire("upload", "other", LONG), Held), "an old death counts"


@pytest.mark.anyio
async def test_its_clock_rules_the_leases(path: Path) -> None:
    clock = ManualClock()
    async with SQLiteStore(path, clock=clock) as store:
        await store.create(new_record(due_at=NOON))
        got = await take(store)
        clock.advance(LONG - timedelta(microseconds=1))
        found = await store.get("upload")
        assert found is not None
        assert found[1] == Held(fence=got.lease.fence, waited=None, answered=False)
        assert await store.ask("upload", got.lease.fence, Action.APPEND)
        assert await store.due("default", NOON, 9) == []
        clock.advance(timedelta(microseconds=1))
        assert await store.get("upload") == (got.record, None)
        assert not await store.ask("upload", got.lease.fence, Action.APPEND)
        assert await store.due("default", NOON, 9) == [got.record]


@pytest.mark.anyio
async def test_a_clock_that_fails_is_heard_of_and_hurts_only_its_call(path: Path) -> None:
    clock = ManualClock()
    broken = False

    def fragile() -> object:
        if broken:
            raise ZeroDivisionError
        return clock()

    async with SQLiteStore(path, clock=fragile) as store:  # type: ignore[arg-type]
        broken = True
        with pytest.raises(ZeroDivisionError):
            await store.create(new_record())
        broken = False
        await store.create(new_record())


@pytest.mark.anyio
async def test_a_holder_may_come_back_before_its_leave_is_through(path: Path) -> None:
    store = SQLiteStore(path)
    async with SQLiteStore(path) as other:
        await other.create(new_record())
        await store.__aenter__()
        await store.enlist("holder")
        assert store._opened is not None
        read = threading.Event()
        reading = asyncio.create_task(store._opened.reader.call(lambda _, __: read.wait(10)))
        went = await cancelled_at(1, store.__aexit__(None, None, None))
        assert not went.through
        again = asyncio.create_task(store.__aenter__())
        await asyncio.sleep(0.05)
        assert not again.done(), "a read is still under way in what is to be left"
        read.set()
        assert await reading
        async with await again:
            await store.enlist("holder")
            await take(store)
            await asyncio.sleep(0.11)  # longer than an answer about a holder is believed
            assert isinstance(await other.acquire("upload", "other", LONG), Held), "its old leave hit it"


@pytest.mark.anyio
async def test_asks_between_two_stores_of_one_file(store: SQLiteStore, path: Path) -> None:
    await store.create(new_record())
    heard: asyncio.Queue[Ask] = asyncio.Queue()

    async def listen() -> None:
        async with store.asked("holder") as asks:
            async for ask in asks:
                heard.put_nowait(ask)

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0.05)  # it listens already, while nobody could ask for anything
    async with SQLiteStore(path) as other:
        for asking in (other, store):
            got = await take(store)
            for why in (Action.APPEND, Action.APPEND, Action.INSPECT):
                assert await asking.ask("upload", got.lease.fence, why)
                with fail_after(10):
                    assert await heard.get() == Ask("upload", got.lease.fence, frozenset({why}))
                assert heard.empty()
                assert await store.renew([got.lease]) == []
            await store.release(got.lease, clean=True)
    listening.cancel()
    await asyncio.wait([listening])


@pytest.mark.anyio
async def test_who_listens_to_a_store_that_is_left_hears_of_it(path: Path) -> None:
    store = SQLiteStore(path)

    async def listen() -> None:
        async with store.asked("holder") as asks:
            await anext(asks)

    async with store:
        await store.create(new_record())
        listening = asyncio.create_task(listen())
        await take(store)
        await asyncio.sleep(0.02)
    with fail_after(10), pytest.raises(StoreUnavailable, match="left"):
        await listening
    assert store._listeners.pace is None


@pytest.mark.anyio
async def test_who_holds_nothing_looks_for_no_asks(store: SQLiteStore, path: Path) -> None:
    def looks() -> bool:
        return store._listeners.pace is not None

    await store.create(new_record())
    assert not looks()
    got = await take(store)
    assert looks()
    await store.release(got.lease, clean=True)
    assert not looks(), "after a release"
    got = await take(store)
    await store.commit(got.lease, got.record, release=True)
    assert not looks(), "after a commit that lets go"
    async with SQLiteStore(path) as other:
        got = await take(store)
        thief = await other.acquire("upload", "thief", LONG, steal=got.lease.fence)
        assert isinstance(thief, Acquired)
        assert looks(), "nobody said yet that it is lost"
        await store.renew([got.lease])
    assert not looks(), "after it was lost"


@pytest.mark.anyio
async def test_nothing_but_a_glance_blocks_the_event_loop(path: Path) -> None:
    blockbuster = BlockBuster()
    for function in blockbuster.functions.values():
        function.can_block_in("tusserve/stores/sqlite_open.py", "one")
    store = SQLiteStore(path)
    blockbuster.activate()
    try:
        async with store:
            await store.enlist("holder")
            await store.create(new_record(due_at=NOON))
            got = await take(store)
            assert isinstance(await store.acquire("upload", "other", LONG), Held)
            async with store.asked("holder") as asks:
                await store.ask("upload", got.lease.fence, Action.APPEND)
                await anext(asks)
            await store.renew([got.lease])
            gone = replace(got.record, state=UploadState.GONE, entries=1)
            await store.commit(got.lease, gone, ["one"], release=True)
            assert await store.get("upload") is not None
            assert await store.entries("upload", 0, 9) == ["one"]
            assert len(await store.due("default", NOON, 9)) == 1
            assert len(await store.uploads("default")) == 1
            assert await store.identity()
            assert await store.forget("upload", NOON)
    finally:
        blockbuster.deactivate()
