"""The life of an app in a process: who enters, who leaves, and what is left behind."""

import asyncio

import pytest

from tests.app.stage import until
from tusserve import MemoryStorage, MemoryStore, TusApp, Upload
from tusserve.testing import TusClient
from tusserve.testing.client import NoResponse

pytestmark = pytest.mark.anyio


async def test_who_enters_while_the_last_one_leaves_is_not_closed_under() -> None:
    deciding, decide = asyncio.Event(), asyncio.Event()

    async def slow(upload: Upload, head: bytes) -> None:
        deciding.set()
        await decide.wait()

    tus = TusApp(
        "/files", storage=MemoryStorage(), store=MemoryStore(), on_first_chunk=slow, sweep_every=None
    )
    client = TusClient(tus)
    await tus.__aenter__()
    url = await client.create("/files", length=5)
    patch = asyncio.ensure_future(client.append(url, b"hello"))
    await deciding.wait()
    leaving = asyncio.ensure_future(tus.__aexit__(None, None, None))
    await asyncio.sleep(0.01)
    entering = asyncio.ensure_future(tus.__aenter__())
    await asyncio.sleep(0.01)
    decide.set()
    await asyncio.gather(patch, leaving, entering)
    try:
        assert (await client.request("POST", "/files", headers={"Upload-Length": "5"})).status == 201
        assert tus._lifetime._started
        assert tus._lifetime._entered == 1
    finally:
        await tus.__aexit__(None, None, None)
    assert not tus._lifetime._started


async def test_a_body_whose_task_never_began_takes_nobody_s_place() -> None:
    tus = TusApp("/files", storage=MemoryStorage(), store=MemoryStore(), max_bodies=1, sweep_every=None)
    client = TusClient(tus)
    async with tus:
        url = await client.create("/files", length=5)
        patch = asyncio.ensure_future(client.append(url, b"hello"))
        await until(lambda: tus._engine._bodies == 1)
        await tus._lifetime._tasks.cancel()
        with pytest.raises(NoResponse):
            await patch
        assert tus._engine._bodies == 0
