"""The loop of these tests keeps the order of time, and lets threads answer."""

import asyncio
import time
from datetime import timedelta
from typing import cast

import anyio.to_thread
import pytest

from tests.engine.quick_loop import LoopClock, QuickLoop

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


async def test_time_stands_while_a_thread_works() -> None:
    async with asyncio.timeout(100):
        await anyio.to_thread.run_sync(time.sleep, 0.1)


async def test_an_idle_thread_keeps_nobody_waiting() -> None:
    await anyio.to_thread.run_sync(int)
    began = time.monotonic()
    await asyncio.sleep(3600)
    assert time.monotonic() - began < 10
