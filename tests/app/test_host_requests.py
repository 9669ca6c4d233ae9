"""A host's part in requests: errors in its own words, who asks in its own routes, how many bodies at once,
and how an app stops."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable
from datetime import timedelta

import pytest
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.app.stage import (
    OCTETS,
    NotingStorage,
    NotingStore,
    Stage,
    assert_head_refused,
    assert_refused,
    id_of,
    stage,
    until,
)
from tusserve import Action, NewUpload, Problem, Rejected, TusApp, Upload, UploadState
from tusserve.errors import StoreUnavailable
from tusserve.testing.client import TusClient

pytestmark = pytest.mark.anyio


# ---- errors in the host's words


async def test_a_refusal_in_the_host_s_words_keeps_our_status_and_headers() -> None:
    problems: list[Problem] = []

    def envelope(request: Request, problem: Problem) -> Response:
        problems.append(problem)
        body = {"error": {"code": problem.code, "message": problem.message, **problem.extra}}
        headers = {"X-Mine": request.method, "Upload-Offset": "99", "Tus-Resumable": "9", "Set-Cookie": "a=b"}
        return JSONResponse(body, status_code=200, headers=headers)

    def refuse(new: NewUpload, request: Request) -> None:
        if new.metadata:
            raise Rejected(413, "over_quota", "Too much.", extra={"used": 7}, headers={"X-Quota": "10"})

    async with stage(render_error=envelope, on_create=refuse) as s:
        url = await s.client.create("/files", length=5)
        await s.client.append(url, b"he")
        answer = await s.client.append(url, b"x", at=4)
        assert (answer.status, answer.headers["content-type"]) == (409, "application/json")
        assert answer.json() == {"error": {"code": "offset_mismatch", "message": problems[0].message}}
        assert answer.headers["content-length"] == str(len(answer.body))
        assert answer.headers.getlist("upload-offset") == ["2"]
        assert answer.headers.getlist("tus-resumable") == ["1.0.0"]
        assert (answer.headers["x-mine"], answer.headers["set-cookie"]) == ("PATCH", "a=b")
        assert (problems[0].status, problems[0].upload_id) == (409, id_of(url))
        assert problems[0].headers["upload-offset"] == "2"
        sent = {"Upload-Length": "5", "Upload-Metadata": "a"}
        answer = await s.client.request("POST", "/files", headers=sent)
        assert (answer.status, answer.headers["x-quota"]) == (413, "10")
        assert answer.json() == {"error": {"code": "over_quota", "message": "Too much.", "used": 7}}
        assert (problems[1].extra, problems[1].upload_id) == ({"used": 7}, None)


async def test_only_refusals_are_rendered_and_never_to_head() -> None:
    problems: list[Problem] = []

    async def note(request: Request, problem: Problem) -> Response:
        problems.append(problem)
        return PlainTextResponse(problem.message)

    async with stage(render_error=note) as s:
        url = await s.whole(b"hello")
        await s.client.options(url)
        await s.client.head(url)
        assert_head_refused(await s.client.head("/files/nobody"), 404)
        await s.client.delete(url)
        assert not problems
        answer = await s.client.delete(url)
        assert (answer.status, answer.body.decode()) == (410, problems[0].message)
        s.store.at.coming["get"].append(StoreUnavailable("away"))
        answer = await s.client.delete(url)
        assert (answer.status, answer.body.decode()) == (503, problems[1].message)
        assert (await s.client.request("BREW", "/files")).body.decode() == problems[2].message


def _raise(request: Request, problem: Problem) -> Response:
    raise ValueError("boom")


def _nothing(request: Request, problem: Problem) -> Response:
    return None  # type: ignore[return-value]


def _stream(request: Request, problem: Problem) -> Response:
    return StreamingResponse(iter([b"x"]))


def _cancelled(request: Request, problem: Problem) -> Awaitable[Response]:
    async def cancelled() -> Response:
        raise asyncio.CancelledError

    return cancelled()


@pytest.mark.parametrize("render", [_raise, _nothing, _stream, _cancelled])
async def test_words_that_fail_are_ours_again(render: object, caplog: pytest.LogCaptureFixture) -> None:
    async with stage(render_error=render) as s:  # type: ignore[arg-type]
        assert_refused(await s.client.delete("/files/nobody"), 404, "upload_not_found")
    assert [record.getMessage() for record in caplog.records] == ["render_error failed"]


# ---- who asks, in a route of the host's own


def in_a_route(tus: TusApp, background: list[str] | None = None) -> ASGIApp:
    """An app that says who asks, as a host's own route does."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await tus(scope, receive, send)
            return
        response = tus.response(owner=Request(scope).headers.get("who"))
        if background is not None:
            response.background = BackgroundTask(background.append, "ran")
        await response(scope, receive, send)

    return app


async def test_a_response_stands_in_for_authorize() -> None:
    def never(request: Request, action: Action, upload: Upload | None) -> str | None:
        raise AssertionError("the host has said who asks")

    tus = TusApp("/files", storage=NotingStorage(), store=NotingStore(), sweep_every=None, authorize=never)
    async with TusClient(in_a_route(tus)) as client:
        me, other = {"who": "me"}, {"who": "other"}
        url = await client.create("/files", length=5, headers=me)
        upload = await tus.get(id_of(url))
        assert upload is not None
        assert upload.owner == "me"
        assert (await client.append(url, b"hel", headers=me)).status == 204
        for headers in (other, {}):
            assert (await client.head(url, headers=headers)).status == 404
            assert (await client.append(url, b"lo", at=3, headers=headers)).status == 404
            assert (await client.delete(url, headers=headers)).status == 404
        nobodys = await client.create("/files", length=5)
        assert (await client.head(nobodys, headers=me)).status == 404
        assert (await client.head(nobodys)).status == 200
        assert (await client.options(url)).status == 204
        assert (await client.append(url, b"lo", at=3, headers=me)).status == 204


async def test_the_background_of_a_response_runs() -> None:
    background: list[str] = []
    tus = TusApp("/files", storage=NotingStorage(), store=NotingStore(), sweep_every=None)
    async with TusClient(in_a_route(tus, background)) as client:
        await client.create("/files", length=5)
    assert background == ["ran"]


# ---- how many bodies at once


async def test_beyond_the_limit_a_body_is_503_before_it_is_asked_for() -> None:
    async with stage(max_bodies=2) as s:
        urls = [await s.client.create("/files", length=10) for _ in range(3)]
        async with s.client.half_open(urls[0], b"x") as one, s.client.half_open(urls[1], b"x"):
            answer = await s.client.append(urls[2], b"x", headers={"Expect": "100-continue"})
            assert_refused(answer, 503, "too_many_uploads")
            assert int(answer.headers["retry-after"]) >= 1
            assert not answer.asked
            sent = {"Upload-Length": "5", "Content-Type": OCTETS, "Expect": "100-continue"}
            answer = await s.client.request("POST", "/files", headers=sent, body=b"hello")
            assert_refused(answer, 503, "too_many_uploads")
            assert not answer.asked
            assert len(s.store.records) == 3
            fine = [
                await s.client.request("POST", "/files", headers={"Upload-Length": "5"}),
                await s.client.head(urls[2]),
                await s.client.append(urls[2], b""),
                await s.client.options("/files"),
                await s.client.delete(urls[2]),
            ]
            assert [answer.status for answer in fine] == [201, 200, 204, 204, 204]
            one.cut()
            await one.response()
            assert (await s.client.append(fine[0].headers["location"], b"x")).status == 204


async def test_the_limit_holds_for_any_number_at_the_same_moment() -> None:
    async with stage(max_bodies=2) as s:
        urls = [await s.client.create("/files", length=10) for _ in range(8)]
        go_on = asyncio.Event()

        async def slow() -> list[int]:
            answers = await asyncio.gather(*(s.client.append(url, _held(go_on)) for url in urls))
            return [answer.status for answer in answers]

        sending = asyncio.ensure_future(slow())
        await asyncio.sleep(0.05)
        go_on.set()
        statuses = await sending
        assert (statuses.count(204), statuses.count(503)) == (2, 6)


async def test_the_limit_holds_for_creations_that_a_hook_held_up() -> None:
    go_on = asyncio.Event()

    async def slow(new: NewUpload, request: Request) -> None:
        await go_on.wait()

    bodies = 0
    most = 0

    def gate(upload: Upload, head: bytes) -> None:
        nonlocal bodies, most
        bodies += 1
        most = max(most, bodies)

    async with stage(max_bodies=2, on_create=slow, on_first_chunk=gate) as s:
        sent = {"Upload-Length": "5", "Content-Type": OCTETS}
        release = asyncio.Event()
        posts = [
            asyncio.ensure_future(s.client.request("POST", "/files", headers=sent, body=_held(release)))
            for _ in range(6)
        ]
        await asyncio.sleep(0.02)
        go_on.set()
        await asyncio.sleep(0.02)
        release.set()
        answers = await asyncio.gather(*posts)
        assert most <= 2
        assert [answer.status for answer in answers].count(201) == 2
        assert [answer.status for answer in answers].count(503) == 4
        assert len(s.store.records) == 2


async def _held(go_on: asyncio.Event) -> AsyncGenerator[bytes]:
    """A body that ends when it is told to."""
    yield b"he"
    await go_on.wait()
    yield b"llo"


# ---- draining


async def test_a_drain_lets_running_bodies_go_committed_and_answered() -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=10)
        async with s.client.half_open(url, b"0123") as body:
            await s.tus.drain(timedelta(seconds=5))
            answer = await body.response()
            assert_refused(answer, 503, "draining")
            assert answer.headers["upload-offset"] == "4"
            assert answer.headers["connection"] == "close"
            assert int(answer.headers["retry-after"]) >= 1
        assert s.kept(url).offset == 4
        assert await s.client.offset(url) == 4


async def test_a_drained_app_takes_nothing_new_and_still_tells() -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=10)
        complete = await s.whole(b"hello")
        await s.tus.drain()
        sent = {"Upload-Length": "5", "Content-Type": OCTETS, "Expect": "100-continue"}
        for answer in (
            await s.client.request("POST", "/files", headers={"Upload-Length": "5"}),
            await s.client.request("POST", "/files", headers={"Upload-Length": "0"}),
            await s.client.request("POST", "/files", headers=sent, body=b"hello"),
            await s.client.append(url, b"0123", headers={"Expect": "100-continue"}),
        ):
            assert_refused(answer, 503, "draining")
            assert not answer.asked
        assert len(s.store.records) == 2
        assert await s.client.offset(url) == 0
        assert (await s.client.append(complete, b"", at=5)).status == 204
        assert (await s.client.options("/files")).status == 204
        assert (await s.client.delete(url)).status == 204


async def test_a_drain_also_stops_a_body_that_has_not_begun() -> None:
    """One that waited for a lease, or for a hook, when the drain began."""
    go_on = asyncio.Event()

    async def slow(new: NewUpload, request: Request) -> None:
        if new.length == 7:
            await go_on.wait()

    async with stage(on_create=slow) as s:
        url = await s.client.create("/files", length=10)
        sent = {"Upload-Length": "7", "Content-Type": OCTETS}
        post = asyncio.ensure_future(s.client.request("POST", "/files", headers=sent, body=b"0123456"))
        async with s.client.half_open(url, b"01") as busy:
            waiting = asyncio.ensure_future(s.client.append(url, b"0123456789"))
            await s.store.at.until("ask")
            await s.tus.drain()
            answer = await busy.response()
            assert answer.status in (423, 503)
            answer = await waiting
            assert_refused(answer, 503, "draining")
            assert answer.taken in (0, 10), "nothing of it was kept"
        go_on.set()
        answer = await post
        assert (answer.status, answer.headers.get("upload-offset")) in {(503, None), (201, "0")}
        assert max(record.offset for record in s.store.records.values()) == 2


async def test_a_drain_waits_for_what_is_being_finished() -> None:
    go_on = asyncio.Event()
    done: list[str] = []

    async def slow(upload: Upload) -> None:
        await go_on.wait()
        done.append(upload.id)

    async with stage(on_complete=slow) as s:
        url = await s.client.create("/files", length=5)
        sending = asyncio.ensure_future(s.client.append(url, b"hello"))
        await until(lambda: bool(s.store.records) and s.kept(url).state is UploadState.FINISHING)
        draining = asyncio.ensure_future(s.tus.drain(timedelta(seconds=30)))
        await asyncio.sleep(0.01)
        assert not draining.done()
        assert_head_refused(await s.client.head(url), 423)
        go_on.set()
        await draining
        assert (await sending).status == 204
        assert done == [id_of(url)]


async def test_a_drain_gives_up_at_its_deadline() -> None:
    go_on = asyncio.Event()

    async def slow(upload: Upload) -> None:
        await go_on.wait()

    async with stage(on_complete=slow) as s:
        url = await s.client.create("/files", length=5)
        sending = asyncio.ensure_future(s.client.append(url, b"hello"))
        await until(lambda: s.kept(url).state is UploadState.FINISHING)
        await s.tus.drain(timedelta(seconds=0.05))
        assert not sending.done()
        go_on.set()
        assert (await sending).status == 204


async def test_leaving_the_lifespan_drains_and_entering_it_again_takes_bodies() -> None:
    storage, store = NotingStorage(), NotingStore()
    tus = TusApp("/files", storage=storage, store=store, sweep_every=None)
    async with TusClient(tus) as client:
        url = await client.create("/files", length=10)
        assert (await client.append(url, b"01234")).status == 204
        async with client.half_open(url, b"56", at=5) as body:
            async with asyncio.timeout(30):
                await _leave_beside(tus)
            assert not body.over, "the client still holds the app"
    async with TusClient(tus) as client:
        offset = await client.offset(url)
        assert offset == 7
        assert (await client.append(url, b"789", at=7)).status == 204


async def _leave_beside(tus: TusApp) -> None:
    async with tus:
        pass


async def test_the_log_of_a_quiet_day_is_its_ends_and_refusals(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="tusserve")
    async with stage() as s:
        await _a_quiet_day(s)
    assert [(record.levelname, record.getMessage().split()[-1]) for record in caplog.records] == [
        ("INFO", "complete"),
        ("INFO", "upload_complete"),
        ("INFO", "CLIENT"),
        ("INFO", "upload_terminated"),
    ]


async def _a_quiet_day(s: Stage) -> None:
    url = await s.whole(b"hello")
    await s.client.head(url)
    await s.client.append(url, b"x", at=2)
    await s.client.delete(url)
    await s.client.head(url)
