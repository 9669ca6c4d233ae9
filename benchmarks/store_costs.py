"""What a call of a store costs, in CPU and wall microseconds, and how long an ask takes to reach its holder.

Run it as it is; it makes its files in a temporary directory (the first argument, where there is one: the
disk matters for `full`). CPU is that of the whole process, all threads.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from tusserve.contracts import Acquired, UploadRecord, UploadStore
from tusserve.protocol.records import Action, UploadState
from tusserve.stores.memory import MemoryStore
from tusserve.stores.sqlite import SQLiteStore

TTL = timedelta(seconds=15)
CALLS = 3200


def record(id: str) -> UploadRecord:
    """Like that of a small upload by a browser."""
    now = datetime.now(UTC)
    return UploadRecord(
        id=id,
        name="default",
        owner="acct_1",
        state=UploadState.RECEIVING,
        created_at=now,
        due_at=now + timedelta(days=7),
        length=1024,
        max_size=50 << 30,
        metadata="filename d29ybGRfZG9taW5hdGlvbl9wbGFuLnBkZg==,filetype YXBwbGljYXRpb24vcGRm",
        expires_at=now + timedelta(days=7),
    )


async def spent(callers: int, call: Callable[[int], Awaitable[object]]) -> str:
    """Run `call` with every number, by so many callers at once."""

    async def caller(first: int) -> None:
        for number in range(first, CALLS, callers):
            await call(number)

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*map(caller, range(callers)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return f"{cpu / CALLS * 1e6:7.0f} cpu {wall / CALLS * 1e6:6.0f} wall"


async def costs(name: str, store: UploadStore, callers: int) -> None:
    got: dict[int, Acquired] = {}

    async def acquire(number: int) -> None:
        taken = await store.acquire(f"{callers}-{number}", "holder", TTL)
        assert isinstance(taken, Acquired)
        got[number] = taken

    async def commit(number: int) -> None:
        taken = got[number]
        done = replace(taken.record, offset=1024, state=UploadState.FINISHING, due_at=datetime.now(UTC))
        assert await store.commit(taken.lease, done, release=True) is not None

    create = await spent(callers, lambda number: store.create(record(f"{callers}-{number}")))
    get = await spent(callers, lambda number: store.get(f"{callers}-{number}"))
    print(
        f"{name:20} {callers:3}: create {create} | get {get} | acquire {await spent(callers, acquire)}"
        f" | commit {await spent(callers, commit)}",
        flush=True,
    )


async def hearing(name: str, holding: UploadStore, asking: UploadStore) -> None:
    """How long after `ask` was called the holder hears it."""
    taken_ms = []
    await holding.create(record("asked"))
    taken = await holding.acquire("asked", "holder", TTL)
    assert isinstance(taken, Acquired)
    async with holding.asked("holder") as asks:
        for number in range(20):
            heard = asyncio.ensure_future(anext(aiter(asks)))
            await asyncio.sleep(number / 1000)  # at any moment of the holder's pace
            begin = time.perf_counter()
            assert await asking.ask("asked", taken.lease.fence, Action.APPEND)
            await heard
            taken_ms.append((time.perf_counter() - begin) * 1e3)
            await holding.renew([taken.lease])
    taken_ms.sort()
    print(
        f"{name:20} an ask is heard after {taken_ms[10]:.1f} ms (half of them), {taken_ms[-1]:.1f} ms (all)"
    )


async def main(place: Path) -> None:
    print(f"microseconds a call, {CALLS} calls each; after the name: callers at once")
    for callers in (1, 32):
        async with MemoryStore() as memory:
            await costs("memory", memory, callers)
        async with SQLiteStore(place / f"none-{callers}.db", durability="none") as none:
            await costs("sqlite none", none, callers)
        async with SQLiteStore(place / f"checkpoint-{callers}.db", durability="checkpoint") as checkpoint:
            await costs("sqlite checkpoint", checkpoint, callers)
        async with SQLiteStore(place / f"full-{callers}.db") as full:
            await costs("sqlite full", full, callers)
    async with MemoryStore() as memory:
        await hearing("memory", memory, memory)
    async with SQLiteStore(place / "asks.db") as one:
        await hearing("sqlite, one store", one, one)
    async with SQLiteStore(place / "asks-2.db") as one, SQLiteStore(place / "asks-2.db") as two:
        await hearing("sqlite, two stores", one, two)


if __name__ == "__main__":
    with TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as directory:
        asyncio.run(main(Path(directory)))
