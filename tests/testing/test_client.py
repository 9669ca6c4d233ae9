"""The client in memory: what an app sees of it, and what it makes of the app's answers."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import MappingProxyType

import anyio
import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tusserve.testing.client import NoResponse, TusClient

pytestmark = pytest.mark.anyio


class Recorder:
    """An app that takes the whole body and answers with what `answer` says."""

    def __init__(self, *answer: Message) -> None:
        self.scopes: list[Scope] = []
        self.messages: list[Message] = []
        self._answer = answer or (start(204), {"type": "http.response.body"})

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.scopes[-1]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError("no lifespan here")
        self.scopes.append(scope)
        more = True
        while more:
            self.messages.append(await receive())
            more = self.messages[-1].get("more_body", False)
        for message in self._answer:
            await send(message)


def start(status: int, *headers: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes = b"", *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


# ---- what the app sees


async def test_a_body_arrives_whole_and_in_pieces() -> None:
    app = Recorder()
    async with TusClient(app) as client:
        answer = await client.append("/files/a", b"0123456789", at=3, chunk_size=4)
    assert [m["body"] for m in app.messages] == [b"0123", b"4567", b"89"]
    assert [m["more_body"] for m in app.messages] == [True, True, False]
    assert app.headers[b"content-length"] == b"10"
    assert app.headers[b"upload-offset"] == b"3"
    assert app.headers[b"content-type"] == b"application/offset+octet-stream"
    assert app.headers[b"tus-resumable"] == b"1.0.0"
    assert (answer.taken, answer.asked) == (10, True)


async def test_a_stream_is_pulled_only_as_the_app_asks() -> None:
    pulled: list[int] = []

    async def pieces() -> AsyncGenerator[bytes]:
        for number in range(100):
            pulled.append(number)
            yield b"x"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await receive()
            await receive()
            await send(start(204))
            await send(body())

    async with TusClient(app) as client:
        answer = await client.request("PATCH", "/", body=pieces())
    assert pulled == [0, 1]
    assert answer.taken == 2


async def test_a_stream_has_no_length_and_ends() -> None:
    async def pieces() -> AsyncGenerator[bytes]:
        yield b"ab"
        yield b"cd"

    app = Recorder()
    async with TusClient(app) as client:
        await client.append("/", pieces())
    assert app.body == b"abcd"
    assert app.messages[-1]["more_body"] is False
    assert b"content-length" not in app.headers
    assert app.headers[b"transfer-encoding"] == b"chunked"


async def test_a_list_of_pieces_has_a_length() -> None:
    app = Recorder()
    async with TusClient(app) as client:
        await client.request("PATCH", "/", body=[b"ab", b"", b"c"])
    assert [m["body"] for m in app.messages] == [b"ab", b"", b"c"]
    assert app.headers[b"content-length"] == b"3"


@pytest.mark.parametrize("after", [0, 4, 5, 10])
@pytest.mark.parametrize("kind", ["bytes", "stream"])
async def test_a_cut_body_is_never_ended(after: int, kind: str) -> None:
    async def pieces() -> AsyncGenerator[bytes]:
        yield b"01234"
        yield b"56789"

    app = Recorder(start(423), body())
    async with TusClient(app) as client:
        data = b"0123456789" if kind == "bytes" else pieces()
        answer = await client.append("/", data, cut_after=after, chunk_size=5)
    assert app.body == b"0123456789"[:after]
    assert all(m["more_body"] for m in app.messages[:-1])
    assert app.messages[-1] == {"type": "http.disconnect"}
    assert (answer.status, answer.taken) == (423, after)


async def test_after_the_cut_every_receive_is_a_disconnect() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            seen.extend([(await receive())["type"] for _ in range(4)])
            await send(start(204))
            await send(body())

    async with TusClient(app) as client:
        await client.append("/", b"01", cut_after=1)
    assert seen == ["http.request", "http.disconnect", "http.disconnect", "http.disconnect"]


async def test_after_the_answer_receive_is_a_disconnect() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send(start(204))
            await send(body())
            seen.append((await receive())["type"])

    async with TusClient(app) as client:
        answer = await client.append("/", b"0123")
    assert seen == ["http.disconnect"]
    assert answer.taken == 0


async def test_after_the_body_receive_waits_for_the_client_to_go() -> None:
    gone = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()
        await send(start(204))
        await send(body())

    async with TusClient(app) as client, client.half_open("/", b"ab") as patch:
        patch.end()
        await patch.until_asked()
        await anyio.sleep(0.01)
        assert not gone.is_set()
        patch.cut()
        assert (await patch.response()).status == 204


async def test_content_length_may_lie_or_be_left_out() -> None:
    app = Recorder()
    async with TusClient(app) as client:
        await client.append("/", b"abc", content_length=7)
        assert app.headers[b"content-length"] == b"7"
        await client.append("/", b"abc", content_length=None)
        assert b"content-length" not in app.headers
        await client.append("/", b"abc", headers={"Content-Length": "nonsense"})
        assert app.headers[b"content-length"] == b"nonsense"


async def test_defaults_can_be_replaced_removed_and_repeated() -> None:
    app = Recorder()
    async with TusClient(app) as client:
        await client.append("/", b"", headers={"tus-RESUMABLE": None, "Upload-Offset": "9"})
        assert b"tus-resumable" not in app.headers
        assert app.headers[b"upload-offset"] == b"9"
        await client.head("/", headers=[("X-Twice", "1"), ("X-Twice", "2")])
        assert [v for n, v in app.scopes[-1]["headers"] if n == b"x-twice"] == [b"1", b"2"]
        assert b"content-length" not in app.headers


async def test_the_scope_is_a_servers() -> None:
    app = Recorder()
    extensions = {"http.response.pathsend": MappingProxyType[str, object]({})}
    client = TusClient(app, root_path="/api", client=("10.0.0.1", 7), http_version="2", extensions=extensions)
    async with client:
        await client.head("https://example.com/api/a%2Fb/ü?x=1")
    scope = app.scopes[0]
    assert (scope["path"], scope["raw_path"]) == ("/api/a/b/ü", b"/api/a%2Fb/%C3%BC")
    assert (scope["root_path"], scope["query_string"], scope["scheme"]) == ("/api", b"x=1", "https")
    assert (scope["client"], scope["http_version"]) == (("10.0.0.1", 7), "2")
    assert set(scope["extensions"]) == {"http.response.pathsend"}


# ---- what the client makes of it


async def test_create_returns_the_location_and_says_what_was_refused() -> None:
    app = Recorder(start(201, (b"location", b"/files/x")), body())
    async with TusClient(app) as client:
        url = await client.create("/files", length=3, metadata={"name": "ä", "flag": ""}, body=b"ab")
    assert url == "/files/x"
    assert app.headers[b"upload-metadata"] == b"name w6Q=,flag"
    assert app.headers[b"upload-length"] == b"3"
    assert app.body == b"ab"
    async with TusClient(Recorder(start(413), body(b"too large"))) as client:
        with pytest.raises(AssertionError, match="413 too large"):
            await client.create("/files", length=3)


async def test_offset_wants_an_offset() -> None:
    async with TusClient(Recorder(start(200, (b"upload-offset", b"4")), body())) as client:
        assert await client.offset("/x") == 4
    for answer in (start(423), start(200)):
        async with TusClient(Recorder(answer, body())) as client:
            with pytest.raises(AssertionError, match="HEAD /x"):
                await client.offset("/x")


async def test_an_answer_is_read_without_regard_to_case() -> None:
    app = Recorder(start(200, (b"x-a", b"1"), (b"x-a", b"2")), body(b'{"a":'), body(b" 1}"))
    app._answer[1]["more_body"] = True
    async with TusClient(app) as client:
        answer = await client.request("GET", "/")
    assert answer.headers["X-A"] == "1"
    assert answer.headers.getlist("x-A") == ["1", "2"]
    assert answer.json() == {"a": 1}


@pytest.mark.parametrize(
    ("answer", "rule"),
    [
        ((body(),), "before http.response.start"),
        ((start(200), start(200)), "twice"),
        ((start(200), body(), body()), "after the end"),
        ((start(200, (b"X-Upper", b"1")), body()), "lower case"),
        ((start(200, ("x-text", "1")), body()), "bytes"),  # type: ignore[arg-type]
        ((start(200, (b"x-split", b"1\r\nx: 2")), body()), "line break"),
        ((start(204), body(b"x")), "no body"),
        ((start(104), body()), "104"),
        ((start(200, (b"content-length", b"3")), body(b"xy")), "content-length"),
        (({"type": "http.response.pathsend"},), "pathsend"),
    ],
)
@pytest.mark.parametrize("swallows", [False, True])
async def test_a_breach_of_the_rules_is_told(answer: tuple[Message, ...], rule: str, swallows: bool) -> None:
    inner = Recorder(*answer)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await inner(scope, receive, send)
        except AssertionError:
            if not swallows:
                raise

    async with TusClient(app) as client:
        with pytest.raises(AssertionError, match=rule):
            await client.request("GET", "/")


async def test_an_app_that_does_not_answer_is_told() -> None:
    async with TusClient(Recorder(start(200))) as client:
        with pytest.raises(NoResponse):
            await client.request("GET", "/")


async def test_what_the_app_raises_comes_out() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("here")

    async with TusClient(app) as client:
        with pytest.raises(LookupError, match="here"):
            await client.request("GET", "/")


async def test_an_app_that_hangs_is_told() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep_forever()

    client = TusClient(app, timeout=0.05)
    with pytest.raises(AssertionError, match="lifespan"):
        await client.__aenter__()
    with pytest.raises(AssertionError, match="no answer"):
        await client.request("GET", "/")


async def test_a_server_may_refuse_to_send_to_the_gone() -> None:
    failed: list[OSError] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                await Recorder(start(423), body())(scope, receive, send)
            except OSError as error:
                failed.append(error)

    async with TusClient(app, broken_pipe=True) as client:
        assert (await client.append("/", b"ab", cut_after=1)).status == 423
        assert len(failed) == 1
        assert (await client.append("/", b"ab")).status == 423
        assert len(failed) == 1


# ---- half open


async def test_half_open_goes_on_when_told() -> None:
    app = Recorder()
    async with TusClient(app) as client, client.half_open("/x", b"ab", at=5, content_length=6) as patch:
        assert (patch.taken, patch.over) == (2, False)
        await patch.more(b"cd")
        assert patch.taken == 4
        patch.offer(b"ef")
        patch.end()
        answer = await patch.response()
    assert patch.over
    assert answer.status == 204
    assert app.body == b"abcdef"
    assert app.headers[b"upload-offset"] == b"5"
    assert app.headers[b"content-length"] == b"6"


async def test_leaving_half_open_cuts() -> None:
    app = Recorder()
    async with TusClient(app) as client:
        async with client.half_open("/x", b"ab"):
            pass
        assert app.messages[-1] == {"type": "http.disconnect"}


async def test_half_open_does_not_wait_for_an_app_that_takes_nothing() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send(start(409))
            await send(body())

    async with TusClient(app) as client, client.half_open("/x", b"ab") as patch:
        answer = await patch.response()
    assert (answer.status, answer.taken, answer.asked) == (409, 0, False)


async def test_a_native_cancel_reaches_the_app() -> None:
    reached: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await Recorder()(scope, receive, send)
        except asyncio.CancelledError:
            reached.append("cancelled")
            raise

    async with TusClient(app) as client, client.half_open("/x", b"ab") as patch:
        assert await patch.cancel() is None
        assert reached == ["cancelled"]
        with pytest.raises(NoResponse):
            await patch.response()


async def test_a_client_that_gives_up_is_one_that_goes_away() -> None:
    app = Recorder()

    async def stuck() -> AsyncGenerator[bytes]:
        yield b"ab"
        await anyio.sleep_forever()

    async with TusClient(app) as client:
        with anyio.move_on_after(0.05):
            await client.append("/x", stuck())
    assert app.messages[-1] == {"type": "http.disconnect"}


# ---- the lifespan


async def test_the_lifespan_is_run_and_its_state_handed_on() -> None:
    steps: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, str]]:
        steps.append("up")
        yield {"pool": "open"}
        steps.append("down")

    fastapi = FastAPI(lifespan=lifespan)
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope.get("state", {}).get("pool"))
        await fastapi(scope, receive, send)

    async with TusClient(app) as client:
        assert steps == ["up"]
        assert (await client.request("GET", "/nowhere")).status == 404
    assert steps == ["up", "down"]
    assert seen[-1] == "open"


def failing(when: str) -> ASGIApp:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        if when == "startup":
            raise LookupError("no database")
        yield
        raise LookupError("no database")

    return FastAPI(lifespan=lifespan)


@pytest.mark.parametrize("when", ["startup", "shutdown"])
async def test_a_failed_lifespan_is_told(when: str) -> None:
    with pytest.raises(AssertionError, match=f"{when} failed"):
        async with TusClient(failing(when)):
            assert when == "shutdown"


async def test_killing_ends_without_a_shutdown() -> None:
    steps: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        try:
            yield
            steps.append("orderly")
        finally:
            steps.append("cleaning up")

    async with TusClient(FastAPI(lifespan=lifespan)) as client:
        await client.kill()
    assert steps == ["cleaning up"]
