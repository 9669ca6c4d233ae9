"""A request that is cancelled at any of its awaits: what came is kept or not, but never wrong."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeAlias

import pytest
from starlette.types import ASGIApp

from tests.engine.oracle import Attempt, Expected
from tests.engine.quick_loop import LoopClock
from tests.engine.world import PAIRS, Host, Process, Site, site_of
from tusserve.protocol.records import UploadState
from tusserve.testing.client import NoResponse, Response
from tusserve.testing.faults import CancelsAt

pytestmark = pytest.mark.anyio

LENGTH = 30
Act: TypeAlias = Callable[[Process, Expected], Awaitable[Response]]


async def append_first(process: Process, upload: Expected) -> Response:
    return await process.client.append(upload.url, upload.body(1, 14, 0), chunk_size=3)


async def append_middle(process: Process, upload: Expected) -> Response:
    return await process.client.append(upload.url, upload.body(1, 14, 10), at=10, chunk_size=3)


async def append_cut(process: Process, upload: Expected) -> Response:
    body = upload.body(1, 14, 10)
    return await process.client.append(upload.url, body, at=10, cut_after=12, chunk_size=3)


async def append_last(process: Process, upload: Expected) -> Response:
    return await process.client.append(upload.url, upload.body(1, 20, 10), at=10, chunk_size=3)


async def delete(process: Process, upload: Expected) -> Response:
    upload.terminated = True
    return await process.client.delete(upload.url)


async def head(process: Process, upload: Expected) -> Response:
    return await process.client.head(upload.url)


ACTS: tuple[tuple[Act, int], ...] = (
    (append_first, 0),
    (append_middle, 10),
    (append_cut, 10),
    (append_last, 10),
    (delete, 10),
    (head, 10),
)


async def cancelled(
    site: Site, act: Act, before: int, at: int | None, *, scoped: bool = False
) -> tuple[int, Response | None]:
    """The act, cancelled at its `at`-th await, and the proof that everything is as it should be then.

    Returns how many awaits there were, and the answer.
    """
    host, now = Host(), LoopClock()
    around: list[CancelsAt] = []

    def wrap(app: ASGIApp) -> ASGIApp:
        around.append(CancelsAt(app, scoped=scoped))
        return around[0]

    async with Process(site, host, around=wrap) as process:
        upload = Expected(await process.client.create("/files", length=LENGTH), LENGTH)
        if before:
            answer = await process.client.append(upload.url, upload.body(0, before, 0))
            assert answer.status == 204
        await upload.check(site, host, now())
        around[0].arm(at)
        answered: Response | None = None
        with suppress(NoResponse):
            answered = await act(process, upload)
        await process.settle()
        assert around[0].struck is (at is not None)
        suspensions = around[0].suspensions
        around[0].arm(None)
        # A HEAD takes nothing away from anybody, and tells at least what was told before.
        looked = await process.client.head(upload.url)
        record = await upload.check(site, host, now())
        assert record is not None
        if upload.state is UploadState.GONE:
            assert looked.status == 410
        else:
            assert looked.status == 200, f"{looked}"
            assert int(looked.headers["upload-offset"]) == record.offset
            await resume(process, upload)
            await upload.check(site, host, now())
            assert upload.state is UploadState.COMPLETE
        return suspensions, answered


async def resume(process: Process, upload: Expected) -> None:
    at = len(upload.known)
    if at < LENGTH:
        answer = await process.client.append(upload.url, upload.body(2, LENGTH - at, at), at=at)
        assert answer.status == 204, f"{answer}"


@pytest.mark.parametrize(("act", "before"), ACTS)
@pytest.mark.parametrize("scoped", [False, True], ids=["natively", "by a scope"])
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
async def test_a_cancellation_at_every_await(
    pair: tuple[str, str], act: Act, before: int, scoped: bool, tmp_path: Path
) -> None:
    make = partial(site_of, *pair)
    async with make(tmp_path / "none") as site:
        suspensions, answered = await cancelled(site, act, before, None)
    assert answered is not None
    assert suspensions > 0
    for at in range(1, suspensions + 1):
        async with make(tmp_path / f"{at}") as site:
            await cancelled(site, act, before, at, scoped=scoped)


@pytest.mark.parametrize("scoped", [False, True], ids=["natively", "by a scope"])
async def test_a_creation_is_cancelled_at_every_await(scoped: bool, tmp_path: Path) -> None:
    host, now = Host(), LoopClock()
    app: list[CancelsAt] = []

    def wrap(inner: ASGIApp) -> ASGIApp:
        app.append(CancelsAt(inner, scoped=scoped))
        return app[-1]

    at, struck = 1, True
    while struck:
        async with site_of("memory", "memory", tmp_path) as site, Process(site, host, around=wrap) as process:
            app[-1].arm(at)
            body = bytes(range(12))
            with suppress(NoResponse):
                await process.client.create("/files", length=LENGTH, body=body)
            await process.settle()
            struck = app[-1].struck
            app[-1].arm(None)
            for found in await process.tus.uploads():
                upload = Expected(process.tus.url_for(found), LENGTH, attempts=[Attempt(0, body)])
                await upload.check(site, host, now())
                await resume(process, upload)
                await upload.check(site, host, now())
                assert upload.state is UploadState.COMPLETE
        at += 1
    assert at > 3


@pytest.mark.parametrize(("act", "before"), ACTS)
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
async def test_a_cancellation_during_every_call(
    pair: tuple[str, str], act: Act, before: int, tmp_path: Path
) -> None:
    """The task is cancelled while a call of the contracts is under way, in it or in a task of the app."""
    make = partial(site_of, *pair)
    at, reached = 1, True
    while reached:
        async with make(tmp_path / f"{at}") as site:
            reached = await cancelled_during(site, act, before, at)
        at += 1
    assert at > 2


async def cancelled_during(site: Site, act: Act, before: int, at: int) -> bool:
    """The act, cancelled while its `at`-th call is under way. False: it makes fewer."""
    host, now = Host(), LoopClock()
    async with Process(site, host) as process:
        upload = Expected(await process.client.create("/files", length=LENGTH), LENGTH)
        if before:
            await process.client.append(upload.url, upload.body(0, before, 0))
        await process.settle()
        stall = process.faults.stall(at=at)
        acting = asyncio.ensure_future(act(process, upload))
        waiting = asyncio.ensure_future(stall.reached())
        await asyncio.wait({acting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        reached = not acting.done()
        for exchange in list(process.client._open):
            await exchange.cancel()
        process.faults.heal()
        with suppress(NoResponse):
            await acting
        await process.settle()
        record = await upload.check(site, host, now())
        assert record is not None
        if upload.state is not UploadState.GONE:
            assert await process.client.offset(upload.url) == record.offset
            await resume(process, upload)
            await upload.check(site, host, now())
            assert upload.state is UploadState.COMPLETE
        return reached


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
async def test_what_a_cancelled_request_began_is_ended(pair: tuple[str, str], tmp_path: Path) -> None:
    """Every byte that came before the cancellation is kept, by a flush and commit that no checkpoint made."""
    host = Host()
    async with site_of(*pair, tmp_path) as site, Process(site, host) as process:
        upload = Expected(await process.client.create("/files", length=LENGTH), LENGTH)
        async with process.client.half_open(upload.url, upload.body(1, 6, 0)) as patch:
            await patch.until_asked()
            await patch.cancel()
            await process.settle()
            record = await upload.check(site, host, LoopClock()())
            assert record is not None
            assert record.offset == 6
        assert await process.client.offset(upload.url) == 6
        await resume(process, upload)


async def test_a_cancelled_finish_goes_on(tmp_path: Path) -> None:
    """The host's hook is slow and the client's server gives up: the upload is complete all the same."""
    host = Host()
    async with site_of("memory", "memory", tmp_path) as site:
        process = Process(site, host)
        stall = process.faults.stall(on="storage.seal", after=True)
        async with process:
            upload = Expected(await process.client.create("/files", length=LENGTH), LENGTH)
            async with process.client.half_open(upload.url, upload.body(1, LENGTH, 0)) as patch:
                patch.end()
                await stall.reached()
                assert await patch.cancel() is None
            stall.release()
            await process.settle()
            await upload.check(site, host, LoopClock()())
            assert upload.state is UploadState.COMPLETE
            assert host.completed[upload.id] == 1
