"""Promises that hang on one moment each: a tail, the last byte, a writer that wakes too late."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import anyio
import pytest

from tests.engine.oracle import Expected
from tests.engine.quick_loop import LoopClock
from tests.engine.world import PAIRS, Host, Process, Site, site_of
from tusserve.protocol.records import UploadState

pytestmark = pytest.mark.anyio

LENGTH = 30
Promise: TypeAlias = Callable[[Site], Awaitable[None]]


async def opened(process: Process) -> Expected:
    return Expected(await process.client.create("/files", length=LENGTH), LENGTH)


async def finish(process: Process, upload: Expected, site: Site, host: Host) -> None:
    """Send the rest; then every byte is there."""
    at = len(upload.known)
    answer = await process.client.append(upload.url, upload.body(99, LENGTH - at, at), at=at)
    assert answer.status == 204, f"{answer}"
    await upload.check(site, host, LoopClock()())
    assert upload.state is UploadState.COMPLETE


async def a_body_that_overran_leaves_nothing(site: Site) -> None:
    host = Host()
    async with Process(site, host) as process:
        upload = await opened(process)
        await process.client.append(upload.url, upload.body(1, 10, 0))
        await upload.check(site, host, LoopClock()())
        long = upload.body(2, 5, 10) + bytes(30)
        answer = await process.client.append(upload.url, [long[:5], long[5:]], at=10, content_length=None)
        assert answer.status == 413
        await upload.check(site, host, LoopClock()())
        assert await process.client.offset(upload.url) == len(upload.known)
        await finish(process, upload, site, host)


async def the_last_byte_is_not_told_before_the_host_was_asked(site: Site) -> None:
    """A client that reads offset == length believes in success, whatever on_complete says."""
    host = Host()
    async with Process(site, host) as process:
        upload = await opened(process)
        async with process.client.half_open(upload.url, upload.body(1, LENGTH, 0)) as patch:
            looked = await process.client.head(upload.url)
            await upload.check(site, host, LoopClock()())
            if looked.status == 200 and int(looked.headers["upload-offset"]) == LENGTH:
                assert host.completed[upload.id] == 1
            patch.end()
            await patch.response()
        await upload.check(site, host, LoopClock()())
        assert upload.state is UploadState.COMPLETE


async def a_writer_that_lost_its_lease_changes_nothing(site: Site) -> None:
    host = Host()
    async with Process(site, host) as late, Process(site, host) as quick:
        upload = await opened(quick)
        await quick.client.append(upload.url, upload.body(0, 5, 0))
        await upload.check(site, host, LoopClock()())
        late.faults.stall(on="store.renew", times=None)
        async with late.client.half_open(upload.url, upload.body(1, 6, 5), at=5) as patch:
            await patch.until_asked()
            await anyio.sleep(20)
            answer = await quick.client.append(upload.url, upload.body(2, 12, 5), at=5, chunk_size=3)
            assert answer.status == 204
            await upload.check(site, host, LoopClock()())
            assert len(upload.known) == 17
            await patch.more(bytes(9))
            await upload.check(site, host, LoopClock()())
            late.faults.heal()
            patch.end()
            assert (await patch.response()).status == 423
        await upload.check(site, host, LoopClock()())
        await finish(quick, upload, site, host)


async def of_two_live_writers_the_first_wins(site: Site) -> None:
    host = Host()
    async with Process(site, host) as first, Process(site, host) as second:
        upload = await opened(first)
        body = upload.body(1, LENGTH, 0)
        async with first.client.half_open(upload.url, body[:5]) as patch:
            other = upload.body(2, LENGTH, 0)
            robbing = asyncio.ensure_future(second.client.append(upload.url, other))
            sent = 5
            while not robbing.done() and sent < LENGTH - 1:
                await anyio.sleep(0.3)
                await patch.more(body[sent : sent + 1])
                sent += 1
            answer = await robbing
            assert answer.status == 423, f"{answer}"
            assert "retry-after" in answer.headers
            await patch.more(body[sent:])
            patch.end()
            assert (await patch.response()).status == 204
        await upload.check(site, host, LoopClock()())
        assert upload.known == body


PROMISES: tuple[Promise, ...] = (
    a_body_that_overran_leaves_nothing,
    the_last_byte_is_not_told_before_the_host_was_asked,
    a_writer_that_lost_its_lease_changes_nothing,
    of_two_live_writers_the_first_wins,
)


@pytest.mark.parametrize("promise", PROMISES)
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
async def test_a_promise_is_kept(pair: tuple[str, str], promise: Promise, tmp_path: Path) -> None:
    async with site_of(*pair, tmp_path) as site:
        await promise(site)
