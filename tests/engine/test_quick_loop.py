"""The loop of these tests keeps the order of time, and lets threads answer."""

import asyncio
import time
from datetime import timedelta
from pathlib import Path
from typing import cast

import anyio.to_thread
import pytest

from tests.engine.quick_loop import LoopClock, QuickLoop, no_jump
from tusserve.storage.file import FileStorage
from tusserve.stores.sqlite import SQLiteStore

pytestmark = pytest.mark.anyio


async def test_an_hour_takes_no_time_and_timers_keep_their_order() -> None:
    began = time.monotonic()
    clock = LoopClock()
    before, order = clock(), list[int]()

    async def wait(seconds: int) -> None:
        await asyncio.sleep(seconds)
        order.append(seconds)

    await asyncio.gather(wait(3600), wait(1), wait(60))
    assert order == [1, 60, 3600]
    assert timedelta(hours=1) <= clock() - before < timedelta(hours=1, minutes=1)
    assert time.monotonic() - began < 60


async def test_a_leap_is_time_in_which_nothing_ran() -> None:
    loop = cast("QuickLoop", asyncio.get_running_loop())
    clock = LoopClock()
    before = clock()
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(1)
            ticks += 1

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0)
    loop.leap(timedelta(days=3))
    await asyncio.sleep(0)
    ticking.cancel()
    assert clock() - before >= timedelta(days=3)
    assert ticks <= 1


async def test_time_does_not_jump_while_somebody_waits_for_a_thread() -> None:
    async with asyncio.timeout(1):
        await no_jump(anyio.to_thread.run_sync)(time.sleep, 0.05)
    before = asyncio.get_running_loop().time()
    await asyncio.sleep(3600)
    assert asyncio.get_running_loop().time() - before >= 3600


async def test_the_threads_of_storage_and_store_are_waited_for(tmp_path: Path) -> None:
    for turn in range(20):
        async with asyncio.timeout(1), FileStorage(tmp_path), SQLiteStore(tmp_path / "a.db") as store:
            await store.enlist(str(turn))
            assert await store.due("default", LoopClock()(), 10) == []
