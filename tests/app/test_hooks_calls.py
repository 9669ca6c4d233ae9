"""How hooks are called, whatever they are, and what becomes of what they raise; authorize and on_create."""

import asyncio
import functools
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from datetime import timedelta

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from tests.app.stage import OCTETS, assert_head_refused, assert_refused, id_of, stage
from tusserve import (
    Accepted,
    Action,
    Authorize,
    ConfigError,
    Expiry,
    Kind,
    MemoryStorage,
    MemoryStore,
    NewUpload,
    OnCreate,
    Rejected,
    Timeouts,
    TusApp,
    Upload,
    UploadState,
)
from tusserve.testing.client import TusClient

pytestmark = pytest.mark.anyio

LOOP = threading.get_ident


def errors(caplog: pytest.LogCaptureFixture) -> list[tuple[object, object]]:
    """The id and code of everything that was logged as an error by tusserve."""
    return [
        (getattr(record, "id", None), getattr(record, "code", None))
        for record in caplog.records
        if record.levelname == "ERROR"
    ]


# ---- what a hook may be


class CalledInThread:
    def __init__(self) -> None:
        self.threads: list[int] = []

    def __call__(self, upload: Upload) -> None:
        self.threads.append(threading.get_ident())


class CalledInLoop:
    def __init__(self) -> None:
        self.threads: list[int] = []

    async def __call__(self, upload: Upload) -> None:
        await asyncio.sleep(0)
        self.threads.append(threading.get_ident())

    async def method(self, upload: Upload) -> None:
        await self(upload)

    async def with_more(self, more: str, upload: Upload) -> None:
        await self(upload)

    def returns_a_coroutine(self, upload: Upload) -> object:
        return self(upload)


def _plain(threads: list[int], upload: Upload) -> None:
    threads.append(threading.get_ident())


async def test_plain_functions_run_in_threads_and_coroutines_in_the_loop() -> None:
    in_thread, in_loop = CalledInThread(), CalledInLoop()
    threads: list[int] = []
    hooks: list[tuple[Callable[[Upload], None], list[int], bool]] = [
        (in_thread, in_thread.threads, False),
        (functools.partial(_plain, threads), threads, False),
        (in_loop, in_loop.threads, True),  # type: ignore[list-item]
        (in_loop.method, in_loop.threads, True),  # type: ignore[list-item]
        (functools.partial(in_loop.with_more, "more"), in_loop.threads, True),  # type: ignore[list-item]
        (functools.partial(functools.partial(in_loop)), in_loop.threads, True),  # type: ignore[list-item]
        (in_loop.returns_a_coroutine, in_loop.threads, True),  # type: ignore[list-item]
    ]
    for hook, seen, is_here in hooks:
        seen.clear()
        async with stage(on_complete=hook) as s:
            await s.whole(b"hello")
        assert len(seen) == 1, hook
        assert (seen[0] == LOOP()) is is_here, hook


async def test_every_hook_may_be_plain() -> None:
    threads: dict[str, int] = {}

    def note(name: str) -> None:
        threads[name] = threading.get_ident()

    def authorize(request: Request, action: Action, upload: Upload | None) -> str | None:
        note("authorize")
        return None

    async with stage(
        authorize=authorize,
        on_create=lambda new, request: note("on_create"),
        on_first_chunk=lambda upload, head: note("on_first_chunk"),
        on_complete=lambda upload: note("on_complete"),
        on_terminate=lambda upload, reason: note("on_terminate"),
        observe=lambda event: note("observe"),
    ) as s:
        await s.client.delete(await s.whole(b"hello"))
    assert set(threads) == {
        *("authorize", "on_create", "on_first_chunk", "on_complete", "on_terminate", "observe")
    }
    assert LOOP() not in threads.values()


async def test_many_blocked_hooks_hold_no_file_write_and_end() -> None:
    release, full = threading.Event(), threading.Event()
    waiting: list[str] = []

    def blocked(upload: Upload) -> None:
        waiting.append(upload.id)
        if len(waiting) == 40:
            full.set()
        release.wait()

    async with stage(on_complete=blocked) as s:
        uploads = [asyncio.ensure_future(s.whole(b"x")) for _ in range(60)]
        try:
            assert await asyncio.to_thread(full.wait, 30), "the default threads are free"
            url = await s.client.create("/files", length=2)
            assert (await s.client.append(url, b"x")).status == 204
        finally:
            release.set()
        assert len(await asyncio.gather(*uploads)) == 60
    assert len(waiting) == 60


# ---- what authorize and on_create raise

Boom = Callable[[], BaseException]
FAILURES: dict[str, Boom] = {
    "an exception": lambda: ValueError("boom"),
    "a group": lambda: ExceptionGroup("boom", [ValueError("boom")]),
    "a time-out of its own": lambda: TimeoutError("boom"),
    "a cancellation of its own": lambda: asyncio.CancelledError("boom"),
    "a key error": lambda: KeyError("id"),
    "a stop": lambda: StopAsyncIteration(),
}


def authorizing(boom: Boom, *, plain: bool) -> Authorize:
    """An `authorize` that lets creation pass and then raises."""

    async def in_loop(request: Request, action: Action, upload: Upload | None) -> str | None:
        if action is not Action.CREATE:
            raise boom()
        return None

    def in_thread(request: Request, action: Action, upload: Upload | None) -> str | None:
        if action is not Action.CREATE:
            raise boom()
        return None

    return in_thread if plain else in_loop


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("failure", FAILURES)
async def test_an_authorize_that_fails_is_503_and_423_to_head(
    failure: str, plain: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with stage(authorize=authorizing(FAILURES[failure], plain=plain)) as s:
        url = await s.client.create("/files", length=5)
        assert_refused(await s.client.append(url, b"hello"), 503, "hook_failed")
        assert errors(caplog) == [(id_of(url), "hook_failed")]
        answer = await s.client.head(url)
        assert_head_refused(answer, 423)
        assert int(answer.headers["retry-after"]) >= 1
        assert_refused(await s.client.delete(url), 503, "hook_failed")
        assert len(errors(caplog)) == 3
        assert s.store.records[id_of(url)].offset == 0
        assert s.storage.bytes == 0


def creating(boom: Boom, *, plain: bool) -> OnCreate:
    """An `on_create` that raises."""

    async def in_loop(new: NewUpload, request: Request) -> None:
        raise boom()

    def in_thread(new: NewUpload, request: Request) -> None:
        raise boom()

    return in_thread if plain else in_loop


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("failure", FAILURES)
async def test_an_on_create_that_fails_is_503_and_leaves_nothing(
    failure: str, plain: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with stage(on_create=creating(FAILURES[failure], plain=plain)) as s:
        answer = await s.client.request("POST", "/files", headers={"Upload-Length": "5"})
        assert_refused(answer, 503, "hook_failed")
        assert int(answer.headers["retry-after"]) >= 1
        ((upload_id, code),) = errors(caplog)
        assert code == "hook_failed"
        assert isinstance(upload_id, str)
        assert s.nothing_kept()


@pytest.mark.parametrize("plain", [False, True])
async def test_a_hook_that_takes_too_long_is_given_up(plain: bool, caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()

    async def slow(new: NewUpload, request: Request) -> None:
        await asyncio.Event().wait()

    def slow_in_thread(new: NewUpload, request: Request) -> None:
        release.wait()

    hook = slow_in_thread if plain else slow
    try:
        async with stage(on_create=hook, timeouts=Timeouts(hook=timedelta(seconds=0.1))) as s:
            answer = await s.client.request("POST", "/files", headers={"Upload-Length": "5"})
            assert_refused(answer, 503, "hook_failed")
            assert len(errors(caplog)) == 1
            assert s.nothing_kept()
    finally:
        release.set()


async def test_an_http_exception_keeps_its_status_and_headers(caplog: pytest.LogCaptureFixture) -> None:
    def authorize(request: Request, action: Action, upload: Upload | None) -> str | None:
        raise HTTPException(401, "Who are you.", headers={"WWW-Authenticate": "Bearer"})

    async with stage(authorize=authorize) as s:
        answer = await s.client.request("POST", "/files", headers={"Upload-Length": "5"})
        assert_refused(answer, 401, "rejected")
        assert answer.headers["www-authenticate"] == "Bearer"
        head = await s.client.head("/files/nobody")
        assert_head_refused(head, 401)
        assert head.headers["www-authenticate"] == "Bearer"
        assert not errors(caplog)


@pytest.mark.parametrize("status", [500, 503, 423])
async def test_an_http_exception_of_a_server_is_never_5xx_to_head(status: int) -> None:
    def authorize(request: Request, action: Action, upload: Upload | None) -> str | None:
        raise HTTPException(status, "Not now.")

    async with stage(authorize=authorize) as s:
        assert (await s.client.delete("/files/nobody")).status == status
        assert_head_refused(await s.client.head("/files/nobody"), 423)


async def test_rejected_is_told_with_extra_and_headers_but_changes_no_protocol_header() -> None:
    def refuse(new: NewUpload, request: Request) -> None:
        raise Rejected(
            413,
            "over_quota",
            "Too much.",
            headers={
                "X-Quota": "10",
                "Retry-After": "60",
                "Tus-Resumable": "9",
                "Content-Length": "1",
                "Content-Type": "x/y",
            },
            extra={"used": 10, "status": 200, "code": "mine"},
        )

    async with stage(on_create=refuse) as s:
        answer = await s.client.request("POST", "/files", headers={"Upload-Length": "5"})
        assert_refused(answer, 413, "over_quota")
        assert (answer.headers["x-quota"], answer.headers["retry-after"]) == ("10", "60")
        document = answer.json()
        assert isinstance(document, dict)
        assert document["used"] == 10
        assert s.nothing_kept()


@pytest.mark.parametrize(
    "headers",
    [{"X-Name": "\u0444\u0430\u0439\u043b"}, {"X-Name": "a\r\nSet-Cookie: x=y"}, {"X Name": "x"}, {"": "x"}],
)
async def test_a_header_that_cannot_be_sent_does_not_cost_the_answer(headers: dict[str, str]) -> None:
    def refuse(new: NewUpload, request: Request) -> Accepted:
        if "refuse" in new.metadata:
            raise Rejected(403, "forbidden", "No.", headers={**headers, "X-Good": "1"})
        return Accepted(headers={**headers, "X-Good": "1"})

    async with stage(on_create=refuse) as s:
        sent = {"Upload-Length": "5", "Upload-Metadata": "refuse"}
        answer = await s.client.request("POST", "/files", headers=sent)
        assert_refused(answer, 403, "forbidden")
        assert answer.headers["x-good"] == "1"
        assert "set-cookie" not in answer.headers
        answer = await s.client.request("POST", "/files", headers={"Upload-Length": "5"})
        assert (answer.status, answer.headers["x-good"]) == (201, "1")


@pytest.mark.parametrize("status", [200, 204, 304, 100])
async def test_an_http_exception_that_is_no_refusal_is_a_failure(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(new: NewUpload, request: Request) -> None:
        raise HTTPException(status)

    async with stage(on_create=refuse) as s:
        answer = await s.client.request("POST", "/files", headers={"Upload-Length": "5"})
        assert_refused(answer, 503, "hook_failed")
        assert len(errors(caplog)) == 1
        assert s.nothing_kept()


# ---- authorize


async def test_authorize_is_asked_once_a_request_and_never_for_options() -> None:
    asked: list[tuple[Action, str | None]] = []

    def authorize(request: Request, action: Action, upload: Upload | None) -> str | None:
        asked.append((action, None if upload is None else upload.id))
        return None

    async with stage(authorize=authorize) as s:
        url = await s.client.create("/files", length=5)
        mine = id_of(url)
        await s.client.options(url)
        await s.client.head(url)
        await s.client.append(url, b"hello")
        await s.client.delete(url)
        await s.client.head(url)
        await s.client.head("/files/nobody")
        await s.client.request("BREW", url)
        await s.client.head(url, headers={"Tus-Resumable": None})
        await s.client.head("/files/no.id")
        assert asked == [
            (Action.CREATE, None),
            (Action.INSPECT, mine),
            (Action.APPEND, mine),
            (Action.TERMINATE, mine),
            (Action.INSPECT, mine),
            (Action.INSPECT, None),
        ]


async def test_authorize_comes_before_the_holder_is_asked_to_let_go() -> None:
    def authorize(request: Request, action: Action, upload: Upload | None) -> str | None:
        if "refuse" in request.headers:
            raise Rejected(403, "forbidden", "No.")
        return None

    async with stage(authorize=authorize) as s:
        url = await s.client.create("/files", length=10)
        async with s.client.half_open(url, b"01234") as busy:
            s.store.at.calls.clear()
            for method in ("HEAD", "PATCH", "DELETE"):
                assert (await s.client.request(method, url, headers={"refuse": "1"})).status == 403
            assert s.store.at.calls == ["get"] * 3
            busy.offer(b"56789")
            busy.end()
            assert (await busy.response()).status == 204


async def test_authorize_cannot_read_the_body() -> None:
    async def authorize(request: Request, action: Action, upload: Upload | None) -> str | None:
        if action is Action.APPEND:
            with pytest.raises(RuntimeError):
                await request.body()
        return None

    async with stage(authorize=authorize) as s:
        assert await s.content(await s.whole(b"hello")) == b"hello"


async def test_an_owner_is_kept_and_compared_none_included() -> None:
    def who(request: Request, action: Action, upload: Upload | None) -> str | None:
        return request.headers.get("who")

    async with stage(authorize=who) as s:
        mine = await s.client.create("/files", length=5, headers={"who": "me"})
        nobodys = await s.client.create("/files", length=5)
        assert ((await s.upload(mine)).owner, (await s.upload(nobodys)).owner) == ("me", None)

        async def seen(client: TusClient, url: str, who: str | None) -> set[int]:
            headers = {"who": who}
            patch = await client.append(url, b"", headers=headers)
            return {(await client.head(url, headers=headers)).status // 100, patch.status // 100}

        for url, owner in ((mine, "me"), (nobodys, None)):
            for asking in ("me", "other", "", None):
                expected = {2} if asking == owner else {4}
                assert await seen(s.client, url, asking) == expected, (owner, asking)
        assert_refused(await s.client.delete(mine, headers={"who": "other"}), 404, "upload_not_found")
        assert_refused(await s.client.delete(mine), 404, "upload_not_found")
        assert await s.state(mine) is UploadState.RECEIVING
        assert (await s.client.delete(mine, headers={"who": "me"})).status == 204


async def test_without_authorize_nothing_is_compared() -> None:
    async with stage() as s:
        upload = await s.tus.create(length=5, owner="somebody")
        assert (await s.client.append(s.tus.url_for(upload), b"hello")).status == 204


@pytest.mark.parametrize("who", [5, b"me", ("a", "b"), False])
async def test_an_owner_that_is_no_text_is_a_failure_and_not_kept(
    who: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with stage(authorize=lambda request, action, upload: who) as s:  # type: ignore[arg-type, return-value]
        answer = await s.client.request("POST", "/files", headers={"Upload-Length": "5"})
        assert_refused(answer, 503, "hook_failed")
        assert len(errors(caplog)) == 1
        assert s.nothing_kept()


# ---- on_create


async def test_on_create_sees_what_is_to_be_opened() -> None:
    seen: list[NewUpload] = []

    async def on_create(new: NewUpload, request: Request) -> None:
        assert s.nothing_kept()
        assert request.headers["who"] == "me"
        seen.append(new)

    def who(request: Request, action: Action, upload: Upload | None) -> str | None:
        return request.headers["who"]

    expiry = Expiry(initial=timedelta(hours=5))
    async with stage(on_create=on_create, authorize=who, expiry=expiry) as s:
        url = await s.client.create(
            "/files", length=5, metadata={"a": "b", "bin": b"\xff"}, headers={"who": "me"}
        )
        (new,) = seen
        assert (new.id, new.length, new.owner, new.kind) == (id_of(url), 5, "me", Kind.WHOLE)
        assert new.metadata.bytes("bin") == b"\xff"
        assert new.expires_at == s.clock() + timedelta(hours=5)
        await s.tus.create(length=5)
        assert len(seen) == 1, "tus.create asks no hook"


async def test_everything_that_on_create_may_say() -> None:
    accepted = Accepted(
        key="me/file.bin",
        content_type="x/y",
        attributes={"a": [1, {"b": None}]},
        max_size=7,
        expires_in=timedelta(minutes=1),
        headers={"X-Asset": "7", "Location": "/elsewhere"},
        body=b'{"id":7}',
    )
    async with stage(on_create=lambda new, request: accepted) as s:
        answer = await s.client.request("POST", "/files", headers={"Upload-Length": "5"})
        assert (answer.status, answer.body, answer.headers["x-asset"]) == (201, b'{"id":7}', "7")
        assert answer.headers["location"] != "/elsewhere"
        upload = await s.upload(answer.headers["location"])
        assert (upload.key, upload.content_type) == ("me/file.bin", "x/y")
        assert upload.attributes == {"a": [1, {"b": None}]}
        assert upload.expires_at == s.clock() + timedelta(minutes=1)
        answer = await s.client.request("POST", "/files", headers={"Upload-Length": "8"})
        assert_refused(answer, 413, "upload_too_large")
        assert len(s.store.records) == 1


async def test_what_on_create_says_of_a_length_0_is_kept_too() -> None:
    accepted = Accepted(key="empty", expires_in=timedelta(minutes=1), body=b"hi")
    async with stage(on_create=lambda new, request: accepted) as s:
        answer = await s.client.request("POST", "/files", headers={"Upload-Length": "0"})
        assert (answer.status, answer.body) == (201, b"hi")
        upload = await s.upload(answer.headers["location"])
        assert (upload.key, upload.state) == ("empty", UploadState.COMPLETE)
        assert await s.content(answer.headers["location"]) == b""


async def test_on_create_cannot_raise_the_largest_size() -> None:
    async with stage(max_size=5, on_create=lambda new, request: Accepted(max_size=100)) as s:
        answer = await s.client.request("POST", "/files", headers={"Upload-Length": "6"})
        assert_refused(answer, 413, "upload_too_large")
        url = await s.client.create("/files", length=5)
        assert s.store.records[id_of(url)].max_size == 5


@pytest.mark.parametrize("said", [True, {"key": "x"}, "yes", 5])
async def test_an_answer_that_is_none_is_a_failure(said: object, caplog: pytest.LogCaptureFixture) -> None:
    async with stage(on_create=lambda new, request: said) as s:  # type: ignore[arg-type, return-value]
        answer = await s.client.request("POST", "/files", headers={"Upload-Length": "5"})
        assert_refused(answer, 503, "hook_failed")
        assert len(errors(caplog)) == 1
        assert type(said).__name__ in caplog.text
        assert s.nothing_kept()


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "a/../b", "..", "./a", "a\\b", "a\0b", "x" * 1025, "a\ud800"]
)
def test_a_key_that_is_no_relative_path_is_a_value_error(key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        Accepted(key=key)


@pytest.mark.parametrize("hook", ["authorize", "on_create"])
async def test_a_refusal_with_409_is_logged_once_with_a_hint(
    hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: object) -> None:
        raise Rejected(409, "conflict", "No.")

    options = {hook: refuse}
    async with stage(**options) as s:  # type: ignore[arg-type]
        for _ in range(3):
            answer = await s.client.request("POST", "/files", headers={"Upload-Length": "5"})
            assert_refused(answer, 409, "conflict")
    hints = [record for record in caplog.records if "409" in record.getMessage()]
    assert len(hints) == 1
    assert hook in hints[0].getMessage()
    assert hints[0].levelname == "WARNING"


async def test_a_creation_with_upload_whose_gate_fails_for_now_is_201_at_offset_0() -> None:
    def boom(upload: Upload, head: bytes) -> None:
        raise ValueError("boom")

    async with stage(on_first_chunk=boom) as s:
        sent = {"Upload-Length": "5", "Content-Type": OCTETS}
        answer = await s.client.request("POST", "/files", headers=sent, body=b"hello")
        assert (answer.status, answer.headers["upload-offset"]) == (201, "0")
        assert await s.client.offset(answer.headers["location"]) == 0
        assert s.storage.bytes == 0


def test_hooks_are_told_apart_as_the_docs_say() -> None:
    assert inspect.iscoroutinefunction(CalledInLoop.__call__)
    assert not inspect.iscoroutinefunction(CalledInThread.__call__)


# ---- what is no hook, and what is no answer


def _yields(*args: object) -> Generator[None]:
    yield


async def _yields_late(*args: object) -> AsyncGenerator[None]:
    yield


@pytest.mark.parametrize("hook", ["on_create", "on_first_chunk", "on_complete", "on_terminate", "observe"])
@pytest.mark.parametrize("generator", [_yields, _yields_late, functools.partial(_yields_late, 1)])
def test_what_would_only_begin_is_no_hook(hook: str, generator: object) -> None:
    """It would never run, and the upload would be complete all the same."""
    with pytest.raises(ConfigError, match=f"{hook}=.*yield"):
        TusApp("/files", storage=MemoryStorage(), store=MemoryStore(), **{hook: generator})  # type: ignore[arg-type]


@pytest.mark.parametrize("generator", [_yields, _yields_late])
async def test_a_generator_that_a_hook_returns_is_a_failure(generator: Callable[..., object]) -> None:
    async with stage(on_complete=lambda upload: generator(upload)) as s:  # type: ignore[arg-type,return-value]
        url = await s.client.create("/files", length=5)
        assert_refused(await s.client.append(url, b"hello"), 503, "hook_failed")


async def test_a_hook_with_other_parameters_is_a_failure_that_is_tried_again_later() -> None:
    async def takes_nothing() -> None: ...

    async with stage(on_complete=takes_nothing) as s:  # type: ignore[arg-type]
        url = await s.client.create("/files", length=5)
        assert_refused(await s.client.append(url, b"hello"), 503, "hook_failed")
        assert (s.kept(url).state, s.kept(url).attempts) == (UploadState.FINISHING, 1)
        empty = await s.client.request("POST", "/files", headers={"Upload-Length": "0"})
        assert_refused(empty, 503, "hook_failed")
        assert {record.state for record in s.store.records.values()} == {
            UploadState.FINISHING,
            UploadState.GONE,
        }


@pytest.mark.parametrize(
    "wrong",
    [
        {"headers": {"X-N": 5}},
        {"headers": {b"x": "y"}},
        {"body": "text"},
        {"max_size": "9"},
        {"content_type": b"text/plain"},
        {"attributes": {"at": timedelta(1)}},
        {"attributes": {"size": float("nan")}},
        {"expires_in": timedelta.max},
    ],
)
async def test_an_answer_that_cannot_be_sent_or_kept_is_told_where_it_is_made(
    wrong: dict[str, object],
) -> None:
    async with stage(on_create=lambda new, request: Accepted(**wrong)) as s:  # type: ignore[arg-type]
        answer = await s.client.request("POST", "/files", headers={"Upload-Length": "5"})
        assert_refused(answer, 503, "hook_failed")
        assert s.nothing_kept()


async def test_headers_of_a_refusal_may_be_bytes() -> None:
    def refuse(request: Request, action: Action, upload: Upload | None) -> str | None:
        raise HTTPException(401, "Who?", {b"www-authenticate": b"Bearer"})  # type: ignore[dict-item]

    async with stage(authorize=refuse) as s:
        answer = await s.client.request("HEAD", "/files/abc")
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")


async def test_an_owner_that_is_no_text_outside_of_python_is_a_failure() -> None:
    async with stage(authorize=lambda request, action, upload: "\udce9t") as s:
        answer = await s.client.request("POST", "/files", headers={"Upload-Length": "5"})
        assert_refused(answer, 503, "hook_failed")
        assert s.nothing_kept()
