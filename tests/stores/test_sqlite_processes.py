"""SQLiteStore with real processes: one is killed, one stands still, one leaves, two race."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from anyio import fail_after, to_thread

from tusserve.contracts import Acquired, Held
from tusserve.protocol.records import Action
from tusserve.stores.sqlite import SQLiteStore
from tusserve.testing.store_driver import NOON, new_record

SCRIPT = Path(__file__).with_name("store_process.py")
LONG = timedelta(minutes=10)


class Process:
    """A second process with the store open, its holder enlisted."""

    def __init__(self, running: "subprocess.Popen[str]") -> None:
        self._running = running

    async def hear(self) -> str:
        """The next line that it says."""
        assert self._running.stdout is not None
        with fail_after(30):
            line = await to_thread.run_sync(self._running.stdout.readline)
        assert line, "the process ended"
        return str(line).strip()

    async def do(self, order: str) -> str:
        """What it says to an order."""
        self.tell(order)
        return await self.hear()

    def tell(self, order: str) -> None:
        assert self._running.stdin is not None
        self._running.stdin.write(order + "\n")
        self._running.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        self._running.send_signal(number)

    async def die(self) -> None:
        """Be killed, as by the kernel."""
        self._running.kill()
        await to_thread.run_sync(self._running.wait)


@contextmanager
def process(path: Path, holder: str) -> Generator[Process]:
    arguments = [sys.executable, str(SCRIPT), str(path), holder]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield Process(running)
        finally:
            running.kill()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "uploads.db"


@pytest.fixture
async def store(path: Path) -> AsyncGenerator[SQLiteStore]:
    async with SQLiteStore(path) as store:
        await store.enlist("here")
        await store.create(new_record(due_at=NOON))
        yield store


async def holds(store: SQLiteStore) -> Held | None:
    found = await store.get("upload")
    assert found is not None
    return found[1]


@pytest.mark.anyio
async def test_a_killed_process_leaves_its_leases_free_at_once(store: SQLiteStore, path: Path) -> None:
    with process(path, "there") as other:
        await other.hear()
        assert await other.do("acquire upload") == "Acquired"
        held = await holds(store)
        assert held is not None
        assert await store.due("default", NOON, 9) == []
        await other.die()
    with fail_after(5):  # the kernel frees the lock; an answer from before is believed for a moment
        while await holds(store) is not None:
            pass
    assert [record.id for record in await store.due("default", NOON, 9)] == ["upload"]
    assert not await store.ask("upload", held.fence, Action.APPEND)
    got = await store.acquire("upload", "here", LONG)
    assert isinstance(got, Acquired)
    assert (got.lease.unclean, got.lease.alive) == (held.fence.number, 0)


@pytest.mark.anyio
async def test_a_killed_sweeper_makes_way_at_once(store: SQLiteStore, path: Path) -> None:
    with process(path, "there") as other:
        await other.hear()
        assert await other.do("elected default") == "True"
        assert not await store.elected("default")
        assert await store.elected("another name")
        await other.die()
    assert await store.elected("default")


@pytest.mark.anyio
async def test_a_death_stays_proven_after_its_file_is_gone(store: SQLiteStore, path: Path) -> None:
    folder = path.with_name("uploads.db-holders")
    with process(path, "there") as other:
        await other.hear()
        await other.do("acquire upload")
        assert len(list(folder.iterdir())) == 2
        await other.die()
    async with SQLiteStore(path) as third:  # opening it clears away the dead
        assert len(list(folder.iterdir())) == 1
        assert await holds(third) is None
        got = await third.acquire("upload", "third", LONG)
        assert isinstance(got, Acquired)
        assert got.lease.alive == 0


@pytest.mark.anyio
async def test_a_process_that_stands_still_is_robbed_by_the_exact_fence_only(
    store: SQLiteStore, path: Path
) -> None:
    with process(path, "there") as other:
        await other.hear()
        await other.do("acquire upload")
        other.signal(signal.SIGSTOP)
        refused = await store.acquire("upload", "here", LONG)
        assert isinstance(refused, Held), "a process that stands still is not dead"
        wrong = refused.fence._replace(token="other")
        assert isinstance(await store.acquire("upload", "here", LONG, steal=wrong), Held)
        got = await store.acquire("upload", "here", LONG, steal=refused.fence)
        assert isinstance(got, Acquired)
        assert (got.lease.unclean, got.lease.alive) == (refused.fence.number, refused.fence.number)
        committed = await store.commit(got.lease, replace(got.record, offset=7))
        before = await store.get("upload")
        other.signal(signal.SIGCONT)
        for order in ("commit", "renew", "release"):
            assert await other.do(f"{order} upload") == "False", f"a process that woke up can {order}"
        after = await store.get("upload")
        assert before is not None
        assert after is not None
        assert after[0] == before[0] == committed
        assert after[1] == before[1]


@pytest.mark.anyio
async def test_a_process_that_leaves_frees_its_leases(store: SQLiteStore, path: Path) -> None:
    with process(path, "there") as other:
        await other.hear()
        await other.do("acquire upload")
        assert await holds(store) is not None
        assert await other.do("leave") == "left"
        with fail_after(5):
            while await holds(store) is not None:
                pass
    assert len(list(path.with_name("uploads.db-holders").iterdir())) == 1


@pytest.mark.anyio
async def test_a_child_does_not_keep_its_dead_parent_alive(store: SQLiteStore, path: Path) -> None:
    with process(path, "there") as other:
        await other.hear()
        await other.do("acquire upload")
        child = int(await other.do("fork"))
        try:
            await other.die()
            with fail_after(5):
                while await holds(store) is not None:
                    pass
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.anyio
async def test_an_ask_reaches_another_process(store: SQLiteStore, path: Path) -> None:
    with process(path, "there") as other:
        await other.hear()
        assert await other.do("listen") == "listening"
        await other.do("acquire upload")
        held = await holds(store)
        assert held is not None
        assert await store.ask("upload", held.fence, Action.APPEND)
        assert await other.hear() == "asked for upload: APPEND"


@pytest.mark.anyio
async def test_processes_that_race_lose_no_commit(store: SQLiteStore, path: Path) -> None:
    with process(path, "one") as one, process(path, "two") as two:
        await one.hear()
        await two.hear()
        for other in (one, two):
            other.tell("count 100 upload")
        assert [await one.hear(), await two.hear()] == ["100", "100"]
    found = await store.get("upload")
    assert found is not None
    assert found[0].offset == 200
