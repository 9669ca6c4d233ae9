"""What clients, hosts and plug-ins do that they should not: lies, sudden ends, errors from everywhere.

After each of them nothing is left that holds an upload, a body or a task, and the upload goes on.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import pytest
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.app.stage import (
    OCTETS,
    Faults,
    NotingStorage,
    NotingStore,
    Stage,
    assert_head_refused,
    assert_refused,
    id_of,
    stage,
    until,
)
from tests.app.test_hooks_calls import errors
from tusserve import (
    Action,
    ConfigError,
    NewUpload,
    Rejected,
    Timeouts,
    TusApp,
    Upload,
    UploadBusy,
    UploadState,
)
from tusserve.errors import StorageFull, StorageUnavailable, StoreUnavailable
from tusserve.testing.client import Response, TusClient

pytestmark = pytest.mark.anyio

LETTERS = b"abcdefghijklmnopqrstuvwxyz"


async def assert_idle(tus: TusApp) -> None:
    """Nothing of a request is left behind in the process."""
    engine, leases = tus._engine, tus._engine._leases
    await until(lambda: not engine._tasks._running)
    assert not leases._held, "a lease is still held"
    assert engine._bodies == 0, "a body still counts"
    assert len(engine._lookout) == 0, "a body is still watched"


async def go_on(s: Stage, url: str) -> None:
    """Bring the upload to its end, as a client does that was interrupted: HEAD, then PATCH."""
    for _ in range(10):
        head = await s.client.head(url)
        assert head.status in (200, 423), head
        if head.status == 200:
            at = int(head.headers["upload-offset"])
            if at == len(LETTERS):
                break
            answer = await s.client.append(url, LETTERS[at:], at=at, chunk_size=5)
            assert answer.status in (204, 423, 503, 507), answer
        s.clock.advance(timedelta(seconds=5))
    assert await s.content(url) == LETTERS


# ---- errors from everywhere

STORAGE_CALLS = ["open", "write", "flush", "leave", "seal"]
STORE_CALLS = ["get", "acquire", "commit", "committed", "release"]
FAILURES: dict[str, Callable[[], Exception]] = {
    "unavailable": lambda: StorageUnavailable("away"),
    "full": lambda: StorageFull("full"),
    "a bug": lambda: ZeroDivisionError("a bug"),
    "an os error": lambda: OSError(5, "Input/output error"),
}


async def break_and_go_on(
    at: Callable[[Stage], Faults], call: str, error: Callable[[], Exception], times: int, last: bool
) -> None:
    done: list[str] = []
    async with stage(on_complete=lambda upload: done.append(upload.id)) as s:
        url = await s.client.create("/files", length=len(LETTERS))
        for method in ("PATCH", "PATCH", "HEAD", "DELETE"):
            at(s).coming[call].extend(error() for _ in range(times))
            offset = s.kept(url).offset
            match method:
                case "PATCH":
                    sent = LETTERS[offset:] if last else LETTERS[offset : offset + 7]
                    answer = await s.client.append(url, sent, at=offset, chunk_size=3)
                    assert answer.status in (204, 423, 503, 507), answer
                    if answer.status == 204:
                        assert int(answer.headers["upload-offset"]) == s.kept(url).offset
                case "HEAD":
                    assert (await s.client.head(url)).status in (200, 423)
                case _:
                    if s.kept(url).state is not UploadState.RECEIVING:
                        break
            at(s).coming[call].clear()
            assert s.kept(url).offset >= offset
            await assert_idle(s.tus)
        s.clock.advance(timedelta(minutes=5))
        await _when_leases_are_free(s, url)
        await go_on(s, url)
        assert set(done) == {id_of(url)}
        await assert_idle(s.tus)


async def _when_leases_are_free(s: Stage, url: str) -> None:
    """A lease that could not be let go runs out by itself: here at once."""
    row = s.store._rows[id_of(url)]
    row.until = None if row.until is None else s.store._clock()


@pytest.mark.parametrize("last", [False, True], ids=["in the middle", "at the end"])
@pytest.mark.parametrize("call", STORAGE_CALLS)
@pytest.mark.parametrize("error", FAILURES)
async def test_a_storage_that_fails_anywhere_costs_no_byte(call: str, error: str, last: bool) -> None:
    await break_and_go_on(lambda s: s.storage.at, call, FAILURES[error], 1, last)


@pytest.mark.parametrize("times", [1, 10])
@pytest.mark.parametrize("last", [False, True], ids=["in the middle", "at the end"])
@pytest.mark.parametrize("call", STORE_CALLS)
async def test_a_store_that_fails_anywhere_costs_no_byte(
    call: str, last: bool, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tusserve.lease.REPEATS", (0.001, 0.002))
    await break_and_go_on(lambda s: s.store.at, call, lambda: StoreUnavailable("away"), times, last)


@pytest.mark.parametrize("last", [False, True], ids=["in the middle", "at the end"])
@pytest.mark.parametrize("call", STORE_CALLS)
async def test_a_store_with_a_bug_anywhere_costs_no_byte(call: str, last: bool) -> None:
    await break_and_go_on(lambda s: s.store.at, call, lambda: ZeroDivisionError("a bug"), 1, last)


@pytest.mark.parametrize("call", ["get", "create", "acquire", "commit", "release", "ask"])
@pytest.mark.parametrize("error", [StoreUnavailable("away"), ZeroDivisionError("a bug")])
async def test_every_request_is_answered_whatever_the_store_does(
    call: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tusserve.lease.REPEATS", (0.001,))
    async with stage() as s:
        url = await s.client.create("/files", length=10)
        async with s.client.half_open(url, b"01"):
            s.store.at.coming[call].extend([error] * 100)
            sent = {"Upload-Length": "5", "Content-Type": OCTETS}
            answers = [
                await s.client.request("POST", "/files", headers={"Upload-Length": "5"}),
                await s.client.request("POST", "/files", headers={"Upload-Length": "0"}),
                await s.client.request("POST", "/files", headers=sent, body=b"hello"),
                await s.client.append(url, b"01234"),
                await s.client.delete(url),
                await s.client.options(url),
            ]
            assert {answer.headers["tus-resumable"] for answer in answers} == {"1.0.0"}
            assert {answer.status for answer in answers} <= {201, 204, 409, 410, 423, 503}
            assert (await s.client.head(url)).status in (200, 410, 423)
        s.store.at.coming[call].clear()
        await assert_idle(s.tus)


# ---- servers and middleware that raise


def bending(
    app: ASGIApp, *, on_receive: Exception | None = None, on_send: Exception | None = None
) -> ASGIApp:
    """A server whose connection breaks: after some bytes of the body, or as the answer is sent."""

    async def bent(scope: Scope, receive: Receive, send: Send) -> None:
        received = 0

        async def bent_receive() -> Message:
            nonlocal received
            received += 1
            if on_receive is not None and received > 2:
                raise on_receive
            return await receive()

        async def bent_send(message: Message) -> None:
            if on_send is not None and message["type"] == "http.response.start":
                raise on_send
            await send(message)

        if scope["type"] == "http" and scope["method"] == "PATCH":
            await app(scope, bent_receive, bent_send)
        else:
            await app(scope, receive, send)

    return bent


async def test_a_body_whose_reading_raises_ends_there(caplog: pytest.LogCaptureFixture) -> None:
    tus = TusApp("/files", storage=NotingStorage(), store=NotingStore(), sweep_every=None)
    async with TusClient(bending(tus, on_receive=OSError("the connection broke"))) as client:
        url = await client.create("/files", length=26)
        answer = await client.append(url, LETTERS, chunk_size=5)
        assert_refused(answer, 423, "upload_interrupted")
        assert answer.headers["upload-offset"] == "10"
        assert await client.offset(url) == 10
        assert (await client.append("/files/nobody", LETTERS, chunk_size=5)).status == 404
        await assert_idle(tus)
    assert len(errors(caplog)) == 2


async def test_an_answer_that_cannot_be_sent_undoes_nothing() -> None:
    tus = TusApp("/files", storage=NotingStorage(), store=NotingStore(), sweep_every=None)
    async with TusClient(bending(tus, on_send=BrokenPipeError("gone"))) as client:
        url = await client.create("/files", length=26)
        with pytest.raises(BrokenPipeError):
            await client.append(url, LETTERS[:10])
        assert await client.offset(url) == 10
        with pytest.raises(BrokenPipeError):
            await client.append(url, LETTERS[10:], at=10)
        assert await client.offset(url) == 26
        await assert_idle(tus)


async def test_a_client_that_is_gone_before_its_answer(caplog: pytest.LogCaptureFixture) -> None:
    tus = TusApp("/files", storage=NotingStorage(), store=NotingStore(), sweep_every=None)
    async with TusClient(tus, broken_pipe=True) as client:
        url = await client.create("/files", length=26)
        with pytest.raises(BrokenPipeError):
            await client.append(url, LETTERS, cut_after=10)
        assert await client.offset(url) == 10
        await assert_idle(tus)
    assert not caplog.records


# ---- requests that are cancelled


@asynccontextmanager
async def cancelled(s: Stage, method: str, url: str, sent: dict[str, str]) -> AsyncGenerator[None]:
    """A request that is cancelled, as servers do it, when the block is left."""
    before = set(s.client._open)
    request = asyncio.ensure_future(s.client.request(method, url, headers=sent, body=b"hello"))
    await asyncio.sleep(0)
    (exchange,) = s.client._open - before
    try:
        yield
    finally:
        await exchange.cancel()
        request.cancel()
        await asyncio.wait({request})


async def test_a_creation_that_is_cancelled_in_a_hook_leaves_nothing() -> None:
    asked = asyncio.Event()

    async def slow(new: NewUpload, request: Request) -> None:
        asked.set()
        await asyncio.Event().wait()

    async with stage(on_create=slow) as s:
        async with cancelled(s, "POST", "/files", {"Upload-Length": "5", "Content-Type": OCTETS}):
            await asked.wait()
        assert s.nothing_kept()
        await assert_idle(s.tus)


async def test_a_patch_that_is_cancelled_while_it_waits_for_the_lease_never_begins() -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=26)
        async with s.client.half_open(url, b"a") as busy:

            async def keep_on() -> None:
                for letter in LETTERS[1:-1]:
                    await asyncio.sleep(0.01)
                    await busy.more(bytes([letter]))
                busy.offer(LETTERS[-1:])
                busy.end()

            going_on = asyncio.ensure_future(keep_on())
            async with cancelled(s, "PATCH", url, {"Upload-Offset": "0", "Content-Type": OCTETS}):
                await s.store.at.until("ask")
            await going_on
            assert (await busy.response()).status == 204
        assert await s.content(url) == LETTERS
        await assert_idle(s.tus)


async def test_a_patch_that_is_cancelled_waiting_for_a_lease_that_comes_free_takes_no_body() -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=26)
        async with s.client.half_open(url, b"") as idle:
            await idle.until_asked()
            s.store.at.coming["renew"].extend(StoreUnavailable("busy") for _ in range(3))
            async with cancelled(s, "PATCH", url, {"Upload-Offset": "0", "Content-Type": OCTETS}):
                await asyncio.sleep(0)
            await asyncio.sleep(0.05)
        s.store.at.coming.clear()
        await assert_idle(s.tus)
        assert await s.client.offset(url) in (0, 5)


async def test_an_authorize_that_is_cancelled_asks_nobody_to_let_go() -> None:
    asked = asyncio.Event()

    async def slow(request: Request, action: Action, upload: Upload | None) -> str | None:
        if action is Action.TERMINATE:
            asked.set()
            await asyncio.Event().wait()
        return None

    async with stage(authorize=slow) as s:
        url = await s.client.create("/files", length=10)
        async with s.client.half_open(url, b"01") as busy:
            async with cancelled(s, "DELETE", url, {}):
                await asked.wait()
            assert "ask" not in s.store.at.calls
            busy.offer(b"23456789")
            busy.end()
            assert (await busy.response()).status == 204
        await assert_idle(s.tus)


# ---- hooks that call back


async def test_a_gate_may_look_at_its_app() -> None:
    seen: list[object] = []

    async def gate(upload: Upload, head: bytes) -> None:
        found = await s.tus.get(upload.id)
        seen.append(None if found is None else found.offset)
        await s.tus.create(length=5, id="other")

    async with stage(on_first_chunk=gate) as s:
        await s.whole(b"hello")
        assert seen == [0]
        assert await s.tus.get("other") is not None


@pytest.mark.parametrize("hook", ["on_complete", "on_first_chunk"])
async def test_a_hook_cannot_end_its_own_upload_but_does_not_hang_either(hook: str) -> None:
    caught: list[type[Exception]] = []

    async def end_me(upload: Upload, head: bytes = b"") -> None:
        try:
            await s.tus.terminate(upload.id)
        except UploadBusy as error:
            caught.append(type(error))

    options = {hook: end_me}
    async with stage(**options) as s:  # type: ignore[arg-type]
        url = await s.client.create("/files", length=5)
        answer = await s.client.append(url, b"hello")
        assert caught == [UploadBusy]
        assert s.kept(url).reason is None
        await assert_idle(s.tus)
        assert answer.status != 410, "nobody ended it"


async def test_a_patch_is_not_told_410_for_a_delete_that_gave_up() -> None:
    go, thinking = asyncio.Event(), asyncio.Event()

    async def slow(upload: Upload, head: bytes) -> None:
        thinking.set()
        await go.wait()

    async with stage(on_first_chunk=slow) as s:
        url = await s.client.create("/files", length=5)
        patch = asyncio.ensure_future(s.client.append(url, b"hello"))
        await thinking.wait()
        delete = await s.client.delete(url)
        assert delete.status in (204, 423)
        go.set()
        answer = await patch
        if delete.status == 204:
            assert_refused(answer, 410, "upload_terminated")
        else:
            assert answer.status in (204, 423)
            assert s.kept(url).reason is None
        await assert_idle(s.tus)


async def test_a_hook_that_is_refused_for_good_by_a_retry_ends_what_the_host_wanted_to_end() -> None:
    coming: list[Exception] = [ValueError("boom"), Rejected(422, "no", "No.")]

    def done(upload: Upload) -> None:
        raise coming.pop(0)

    async with stage(on_complete=done) as s:
        url = await s.client.create("/files", length=5)
        assert (await s.client.append(url, b"hello")).status == 503
        s.clock.advance(timedelta(seconds=1))
        assert await s.tus.terminate(id_of(url))
        assert s.kept(url).state is UploadState.GONE
        assert not await s.tus.terminate(id_of(url))


async def test_a_retry_by_head_that_is_refused_for_good_says_so() -> None:
    coming: list[Exception] = [ValueError("boom"), Rejected(422, "no", "No.")]

    def done(upload: Upload) -> None:
        raise coming.pop(0)

    async with stage(on_complete=done) as s:
        url = await s.client.create("/files", length=5)
        assert (await s.client.append(url, b"hello")).status == 503
        s.clock.advance(timedelta(seconds=1))
        assert_head_refused(await s.client.head(url), 422)
        assert_head_refused(await s.client.head(url), 410)
        assert s.storage.bytes == 0


# ---- clocks


async def test_a_clock_that_goes_back_harms_nobody() -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=10)
        await s.client.append(url, b"01234")
        s.clock.advance(timedelta(days=-400))
        assert not await s.tus.sweep()
        assert (await s.client.append(url, b"56789", at=5)).status == 204
        assert await s.content(url) == b"0123456789"


def test_a_clock_without_a_zone_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="clock"):
        TusApp("/files", storage=NotingStorage(), store=NotingStore(), clock=datetime.now)


# ---- other servers


async def test_a_whole_life_over_http_2() -> None:
    tus = TusApp("/files", storage=NotingStorage(), store=NotingStore(), sweep_every=None)
    async with TusClient(tus, http_version="2") as client:
        answer = await client.request("POST", "/files", headers={"Upload-Length": "10"}, content_length=None)
        assert answer.status == 201
        url = answer.headers["location"]
        async with client.half_open(url, b"01") as silent:
            assert await client.offset(url) == 2
            interrupted = await silent.response()
            assert "connection" not in interrupted.headers
        assert (await client.append(url, b"x" * 20, at=2, content_length=None)).status == 413
        assert (await client.append(url, b"23456789", at=2, content_length=None)).status == 204
        assert (await client.append(url, None, at=10, content_length=None)).status == 204
        assert (await client.request("DELETE", url, content_length=None)).status == 204
        await assert_idle(tus)


async def test_a_server_that_gives_no_raw_path() -> None:
    tus = TusApp("/files", storage=NotingStorage(), store=NotingStore(), sweep_every=None)

    async def without(scope: Scope, receive: Receive, send: Send) -> None:
        await tus({k: v for k, v in scope.items() if k not in ("raw_path", "root_path")}, receive, send)

    async with TusClient(without) as client:
        url = await client.create("/files", length=5)
        assert (await client.append(url, b"hello")).status == 204
        for odd in ("/files/a%2fb", "/files/a%20b", "/files/%c3%bc", "/files/a%00"):
            assert (await client.head(odd)).status == 404


async def test_what_proxies_say_changes_no_url() -> None:
    lies = {
        "Host": "evil.example",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Prefix": "/evil",
        "Forwarded": "host=evil.example;proto=https",
        "X-Original-URL": "/evil",
    }
    async with stage() as s:
        answer = await s.client.request("POST", "/files", headers={"Upload-Length": "5", **lies})
        assert answer.headers["location"].startswith("/files/")


@pytest.mark.parametrize("method", ["HEAD", "DELETE", "GET", "OPTIONS", "POST"])
@pytest.mark.parametrize("told", [5, None])
async def test_a_body_where_none_belongs_disturbs_nothing(method: str, told: int | None) -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=5)
        headers = {"Transfer-Encoding": "chunked"} if told is None else {}
        answer = await s.client.request(
            method, url, headers={**headers, "Content-Type": OCTETS}, body=b"hello", content_length=told
        )
        assert answer.status == {"HEAD": 200, "DELETE": 204, "OPTIONS": 204}.get(method, 405)
        assert s.storage.bytes == 0
        await assert_idle(s.tus)


# ---- crowds


async def test_a_crowd_of_clients_that_do_everything_at_once() -> None:
    """DELETE, HEAD and PATCH of one upload from all sides: each is answered, and the end is consistent."""
    async with stage(timeouts=Timeouts(idle=timedelta(seconds=2))) as s:
        url = await s.client.create("/files", length=len(LETTERS))

        async def writer(n: int) -> Response:
            await asyncio.sleep(n * 0.003)
            head = await s.client.head(url)
            at = int(head.headers.get("upload-offset", 0))
            return await s.client.append(url, LETTERS[at : at + 4], at=at, chunk_size=1)

        async def deleter() -> Response:
            await asyncio.sleep(0.05)
            return await s.client.delete(url)

        answers = await asyncio.gather(*(writer(n) for n in range(25)), deleter(), deleter())
        assert {answer.status for answer in answers} <= {204, 403, 409, 410, 423}
        assert {answer.status for answer in answers[-2:]} <= {204, 410}
        assert s.kept(url).state is UploadState.GONE
        assert s.storage.bytes == 0
        await assert_idle(s.tus)


async def test_a_hundred_half_open_bodies_are_all_given_up() -> None:
    async with stage(timeouts=Timeouts(idle=timedelta(seconds=0.2))) as s:
        urls = [await s.client.create("/files", length=10) for _ in range(100)]

        async def hang(url: str) -> Response:
            async with s.client.half_open(url, b"01") as silent:
                return await silent.response()

        answers = await asyncio.gather(*(hang(url) for url in urls))
        assert {(answer.status, answer.headers["upload-offset"]) for answer in answers} == {(423, "2")}
        await assert_idle(s.tus)
