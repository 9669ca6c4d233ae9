"""Beside frameworks: mounted, wrapped, in middleware, below a root path, with and without a lifespan."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, NoMatchFound, Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.app.stage import OCTETS, NotingStorage, NotingStore, id_of
from tusserve import ALLOW_HEADERS, EXPOSE_HEADERS, METHODS, ConfigError, TusApp
from tusserve.errors import StoreUnavailable
from tusserve.testing.client import TusClient

VERSION = {"Tus-Resumable": "1.0.0"}


def make(path: str = "/files", store: NotingStore | None = None) -> TusApp:
    """An app that nobody sweeps by itself."""
    return TusApp(path, storage=NotingStorage(), store=store or NotingStore(), sweep_every=None)


def hello(request: Request) -> Response:
    return PlainTextResponse("hello")


async def upload(client: TusClient, path: str) -> str:
    """A whole upload, in two requests, below this path."""
    assert (await client.options(path)).headers["tus-version"] == "1.0.0"
    url = await client.create(path, length=10)
    assert await client.offset(url) == 0
    assert (await client.append(url, b"01234")).status == 204
    assert (await client.append(url, b"56789", at=5)).status == 204
    return url


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged as a warning or worse."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# ---- mounted


@pytest.mark.anyio
@pytest.mark.parametrize("framework", [Starlette, FastAPI])
async def test_routes_answer_with_and_without_a_slash(framework: Callable[..., ASGIApp]) -> None:
    tus = make()
    app = framework(routes=[*tus.routes, Route("/", hello)], lifespan=tus.lifespan)
    async with TusClient(app) as client:
        for path in ("/files", "/files/"):
            url = await upload(client, path)
            assert url.startswith("/files/")
        assert (await client.request("GET", "/")).body == b"hello"
        assert (await client.request("GET", "/filesystem")).status == 404


@pytest.mark.anyio
@pytest.mark.parametrize("root_path", ["/api", "/a/b", "/api v1", "/\u0434"])
async def test_below_a_root_path_the_location_is_below_it_too(root_path: str) -> None:
    tus = make()
    app = Starlette(routes=tus.routes, lifespan=tus.lifespan)
    async with TusClient(app, root_path=root_path) as client:
        url = await upload(client, f"{root_path}/files")
        assert url.isascii()
        assert url.endswith("/files/" + id_of(url))
        assert await client.offset(url) == 10


@pytest.mark.anyio
async def test_below_a_mount_with_the_whole_path_as_its_own() -> None:
    tus = make("/v1/files")
    app = Starlette(routes=[Mount("/v1", routes=[Mount("/files", tus)])], lifespan=tus.lifespan)
    async with TusClient(app) as client:
        url = await client.create("/v1/files/", length=5)
        assert url.startswith("/v1/files/")
        assert (await client.append(url, b"hello")).status == 204
    async with TusClient(app, root_path="/edge") as client:
        url = await client.create("/edge/v1/files/", length=5)
        assert url.startswith("/edge/v1/files/")
        assert (await client.append(url, b"hello")).status == 204


@pytest.mark.anyio
async def test_in_an_app_that_is_mounted_in_another() -> None:
    tus = make("/v1/files")
    inner = FastAPI(routes=[Mount("/files", tus)])
    outer = FastAPI(routes=[Mount("/v1", inner)], lifespan=tus.lifespan)
    async with TusClient(outer) as client:
        url = await client.create("/v1/files/", length=5)
        assert url.startswith("/v1/files/")
        assert await client.offset(url) == 0


@pytest.mark.anyio
async def test_the_wrong_path_for_a_mount_is_one_clear_error(caplog: pytest.LogCaptureFixture) -> None:
    tus = make()
    app = Starlette(routes=[Mount("/uploads", tus)], lifespan=tus.lifespan)
    async with TusClient(app) as client:
        for _ in range(3):
            answer = await client.request("POST", "/uploads/", headers={"Upload-Length": "5"})
            assert answer.status == 404
            document = answer.json()
            assert isinstance(document, dict)
            assert "'/files'" in document["detail"]
            assert "'/uploads'" in document["detail"]
    (error,) = warned(caplog)
    assert "'/files'" in error
    assert "'/uploads'" in error


@pytest.mark.anyio
async def test_names_of_routes_are_found_beside_us() -> None:
    tus = make()
    routes: list[BaseRoute] = [*tus.routes, Mount("/again", tus), Route("/hello", hello, name="hello")]
    app = Starlette(routes=routes)
    assert app.url_path_for("hello") == "/hello"
    assert app.url_path_for("tusserve:default") == "/files"
    with pytest.raises(NoMatchFound):
        app.url_path_for("nobody")


# ---- the lifespan


@pytest.mark.anyio
async def test_a_forgotten_lifespan_is_one_warning_and_everything_works(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tus = make()
    app = Starlette(routes=tus.routes)
    async with TusClient(app) as client:
        assert (await client.options("/files")).status == 204
        assert not warned(caplog), "that needs nothing to be started"
        answers = await asyncio.gather(*(client.head("/files/0123") for _ in range(5)))
        assert {answer.status for answer in answers} == {404}
        await upload(client, "/files")
        await tus.create(length=5)
        (warning,) = warned(caplog)
        assert "lifespan" in warning
        assert "shutting down" in warning
    async with tus:
        pass


@pytest.mark.anyio
async def test_the_host_s_own_upload_may_come_before_any_request(caplog: pytest.LogCaptureFixture) -> None:
    tus = make()
    created = await tus.create(length=5)
    assert len(warned(caplog)) == 1
    app = Starlette(routes=tus.routes, lifespan=tus.lifespan)
    async with TusClient(app) as client:
        assert (await client.append(tus.url_for(created), b"hello")).status == 204
    assert len(warned(caplog)) == 1


@pytest.mark.anyio
async def test_a_lifespan_that_runs_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    tus = make()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        async with tus, tus:
            yield

    async with TusClient(Starlette(routes=tus.routes, lifespan=lifespan)) as client:
        await upload(client, "/files")
    assert not warned(caplog)


class Away(NotingStore):
    """A store that cannot be entered at first."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error: Exception | None = error

    async def __aenter__(self) -> "Away":  # noqa: PYI034
        if self.error is not None:
            raise self.error
        return self


@pytest.mark.anyio
async def test_a_start_that_fails_is_told_to_the_server() -> None:
    tus = make(store=Away(ConfigError("these bytes belong to another store")))
    with pytest.raises(AssertionError, match="these bytes belong to another store"):
        async with TusClient(tus):
            pass


@pytest.mark.anyio
@pytest.mark.parametrize("error", [StoreUnavailable("away"), ConfigError("another store"), OSError("bug")])
async def test_a_lazy_start_that_fails_is_503_and_423_to_head_and_tried_again(error: Exception) -> None:
    store = Away(error)
    tus = make(store=store)
    async with TusClient(Starlette(routes=tus.routes)) as client:
        assert (await client.head("/files/0123")).status == 423
        answer = await client.request("POST", "/files", headers={"Upload-Length": "5"})
        assert (answer.status, answer.headers["tus-resumable"]) == (503, "1.0.0")
        store.error = None
        await upload(client, "/files")
    async with tus:
        pass


# ---- Starlette's own client: a loop for each request without `with`


def test_starlette_s_test_client_with_a_lifespan() -> None:
    tus = make()
    with TestClient(Starlette(routes=tus.routes, lifespan=tus.lifespan)) as client:
        _by_test_client(client)


def test_starlette_s_test_client_without_a_lifespan(caplog: pytest.LogCaptureFixture) -> None:
    tus = make()
    client = TestClient(FastAPI(routes=tus.routes, lifespan=tus.lifespan))
    _by_test_client(client)
    _by_test_client(TestClient(tus.wrap(FastAPI())))
    assert len(warned(caplog)) == 1


def test_starlette_s_test_client_without_a_lifespan_with_hooks_and_a_sweeper() -> None:
    seen: list[str] = []
    tus = TusApp(
        "/files",
        storage=NotingStorage(),
        store=NotingStore(),
        on_first_chunk=lambda upload, head: seen.append("first"),
        on_complete=lambda upload: seen.append("complete"),
        on_terminate=lambda upload, reason: seen.append("gone"),
        observe=lambda event: None,
    )
    _by_test_client(TestClient(Starlette(routes=tus.routes)))
    assert seen == ["first", "complete", "gone"]


def _by_test_client(client: TestClient) -> None:
    answer = client.post("/files", headers={**VERSION, "Upload-Length": "10"})
    assert answer.status_code == 201
    url = answer.headers["location"]
    for at in (0, 5):
        sent = {**VERSION, "Upload-Offset": str(at), "Content-Type": OCTETS}
        assert client.patch(url, headers=sent, content=b"01234").status_code == 204
        assert client.head(url, headers=VERSION).headers["upload-offset"] == str(at + 5)
    assert client.delete(url, headers=VERSION).status_code == 204
    assert client.head(url, headers=VERSION).status_code == 410


# ---- middleware around us


async def passing(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers["X-Passed"] = "yes"
    return response


def behind(tus: TusApp, *middleware: Middleware) -> Starlette:
    """A host's app with this middleware."""
    return Starlette(routes=tus.routes, lifespan=tus.lifespan, middleware=list(middleware))


@pytest.mark.anyio
async def test_base_http_middleware_around_us() -> None:
    tus = make()
    async with TusClient(behind(tus, Middleware(BaseHTTPMiddleware, dispatch=passing))) as client:
        url = await upload(client, "/files")
        head = await client.head(url)
        assert head.headers["x-passed"] == "yes"
        missing = await client.append("/files/nobody", b"hello")
        assert (missing.status, missing.headers["x-passed"]) == (404, "yes")
        url = await client.create("/files", length=10)
        await client.append(url, b"0123456789", cut_after=4)
        assert await client.offset(url) == 4
        async with client.half_open(url, b"45", at=4) as silent:
            assert await client.offset(url) == 6
            assert (await silent.response()).status == 423
        async with client.half_open(url, b"67", at=6) as busy:
            assert (await client.delete(url)).status == 204
            assert (await busy.response()).status == 410


@pytest.mark.anyio
async def test_base_http_middleware_and_a_head_that_asks_a_live_writer() -> None:
    tus = make()
    async with TusClient(behind(tus, Middleware(BaseHTTPMiddleware, dispatch=passing))) as client:
        url = await client.create("/files", length=26)
        async with client.half_open(url, b"ab") as busy:

            async def keep_on() -> None:
                for letter in b"cdefghijklmnopqrstuvwxyz":
                    await asyncio.sleep(0.01)
                    await busy.more(bytes([letter]))

            going_on = asyncio.ensure_future(keep_on())
            while not going_on.done():
                assert 0 <= await client.offset(url) < 26
            busy.end()
            assert (await busy.response()).status == 204
        made = await tus.get(id_of(url))
        assert made is not None
        async with made.open() as body:
            assert b"".join([piece async for piece in body]) == b"abcdefghijklmnopqrstuvwxyz"


@pytest.mark.anyio
async def test_gzip_and_cors_around_us() -> None:
    tus = make()
    cors = Middleware(
        CORSMiddleware,
        allow_origins=["https://a.example"],
        allow_methods=METHODS,
        allow_headers=ALLOW_HEADERS,
        expose_headers=EXPOSE_HEADERS,
    )
    origin = {"Origin": "https://a.example"}
    async with TusClient(behind(tus, cors, Middleware(GZipMiddleware, minimum_size=1))) as client:
        url = await client.create("/files", length=5, headers=origin)
        answer = await client.append(url, b"x", at=3, headers={**origin, "Accept-Encoding": "gzip"})
        assert answer.status == 409
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        exposed = answer.headers["access-control-expose-headers"].lower().split(", ")
        assert "upload-offset" in exposed
        assert "location" in exposed
        for method in METHODS:
            preflight = await client.options(
                url,
                headers={
                    **origin,
                    "Access-Control-Request-Method": method,
                    "Access-Control-Request-Headers": ", ".join(ALLOW_HEADERS),
                },
            )
            assert preflight.status == 200, preflight.body


@pytest.mark.anyio
@pytest.mark.parametrize("framework", [Starlette, FastAPI])
async def test_a_limit_on_bodies_of_the_host_s_is_not_ours(framework: Callable[..., ASGIApp]) -> None:
    """Where the framework has such a limit: it is about forms and JSON, `max_size` about uploads."""
    tus = make()
    try:
        app = framework(routes=tus.routes, lifespan=tus.lifespan, max_body_size=10)
    except TypeError:
        pytest.fail("the framework that is installed for the tests knows no max_body_size")
    async with TusClient(app) as client:
        for told in (100, None):
            url = await client.create("/files", length=100)
            answer = await client.append(url, b"x" * 100, content_length=told, chunk_size=30)
            assert (answer.status, answer.body) == (204, b"")
            sent = {"Upload-Length": "100", "Content-Type": OCTETS}
            answer = await client.request(
                "POST", "/files", headers=sent, body=b"x" * 100, content_length=told
            )
            assert answer.status == 201


# ---- wrapped


class Django:
    """An app that refuses the lifespan, as some do."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"no {scope['type']} here")
        self.paths.append(scope["path"])
        await hello(Request(scope))(scope, receive, send)


@pytest.mark.anyio
async def test_wrapped_around_an_app_that_refuses_the_lifespan(caplog: pytest.LogCaptureFixture) -> None:
    tus, inner = make(), Django()
    async with TusClient(tus.wrap(inner)) as client:
        await upload(client, "/files")
        for path in ("/", "/filesystem", "/file", "/v1/files"):
            assert (await client.request("GET", path)).body == b"hello"
        assert inner.paths == ["/", "/filesystem", "/file", "/v1/files"]
    assert not warned(caplog)


@pytest.mark.anyio
async def test_as_a_middleware_of_the_host() -> None:
    events: list[str] = []
    tus = make()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        events.append("host starts")
        yield
        events.append("host ends")

    app = FastAPI(lifespan=lifespan, routes=[Route("/", hello)])
    app.add_middleware(tus.wrap)
    async with TusClient(app) as client:
        await upload(client, "/files")
        assert (await client.request("GET", "/")).body == b"hello"
        assert events == ["host starts"]
    assert events == ["host starts", "host ends"]


class Steps:
    """An inner app that answers its lifespan as `script` says: messages to send, and an error to raise."""

    def __init__(self, *script: str | Exception) -> None:
        self._script = script

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await hello(Request(scope))(scope, receive, send)
            return
        for step in self._script:
            if isinstance(step, Exception):
                raise step
            if step == "receive":
                await receive()
            else:
                await send({"type": f"lifespan.{step}"})


async def lifespan_of(tus: TusApp, inner: ASGIApp) -> tuple[list[str], bool]:
    """What a server hears of the lifespan of the wrapped app, and whether ours was ended."""
    heard: list[str] = []
    questions = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Message:
        return questions.pop(0)

    async def send(message: Message) -> None:
        heard.append(message["type"].removeprefix("lifespan."))

    try:
        await tus.wrap(inner)({"type": "lifespan", "state": {}}, receive, send)
    except ValueError as error:
        heard.append(str(error))
    return heard, not tus._lifetime._started


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("script", "heard"),
    [
        (
            ["receive", "startup.complete", "receive", "shutdown.complete"],
            "startup.complete shutdown.complete",
        ),
        (["receive", "startup.failed"], "startup.failed"),
        (["receive", "startup.failed", ValueError("x")], "startup.failed x"),
        (["receive", "startup.complete", "receive", "shutdown.failed"], "startup.complete shutdown.failed"),
        ([ValueError("x")], "startup.complete shutdown.complete"),
        (["receive", ValueError("x")], "startup.complete shutdown.complete"),
        ([], "startup.complete shutdown.complete"),
        (["receive", "startup.complete", "receive", ValueError("x")], "startup.complete x"),
        (["receive", "startup.complete", ValueError("x")], "startup.complete x"),
        (["receive", "startup.complete"], "startup.complete shutdown.complete"),
        (["receive", "startup.complete", "receive"], "startup.complete shutdown.complete"),
    ],
)
async def test_both_lifespans_end_whatever_the_inner_one_does(
    script: list[str | Exception], heard: str
) -> None:
    tus = make()
    told, ended = await lifespan_of(tus, Steps(*script))
    assert " ".join(told) == heard
    assert ended
