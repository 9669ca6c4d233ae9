"""The same requests on every framework: what a client, a proxy and a forgetful host may expect of each."""

import logging
from collections.abc import Awaitable, Callable

import pytest
from fastapi import FastAPI
from hypercorn.middleware.dispatcher import AsyncioDispatcherMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from tests.app.hosts import HELLO, HOSTS, Build
from tests.app.stage import OCTETS, id_of
from tusserve import MemoryStorage, MemoryStore, SQLiteStore, TusApp
from tusserve.testing.client import TusClient

VERSION = {"Tus-Resumable": "1.0.0"}
ROOMY = 1_000_000


@pytest.fixture(params=HOSTS)
def build(request: pytest.FixtureRequest) -> Build:
    """How a framework takes uploads in."""
    return HOSTS[request.param]


@pytest.fixture
def tus() -> TusApp:
    return TusApp("/v1/files", storage=MemoryStorage(), store=MemoryStore(), sweep_every=None)


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What we logged as a warning or worse."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.name == "tusserve"
    ]


async def upload(client: TusClient, path: str, *, below: str | None = None) -> str:
    """A whole upload, cut once; the path of its Location. `below`: Locations are there, `path` is what is
    left of it behind the proxy."""
    answer = await client.request("POST", path, headers={"Upload-Length": "10"})
    assert (answer.status, answer.headers["tus-resumable"]) == (201, "1.0.0")
    location = answer.headers["location"]
    outside = path.rstrip("/") if below is None else below
    assert location == f"{outside}/{id_of(location)}"
    url = location if below is None else f"{path.rstrip('/')}/{id_of(location)}"
    assert await client.offset(url) == 0
    await client.append(url, b"0123456789", cut_after=4)
    assert await client.offset(url) == 4
    assert (await client.append(url, b"456", at=4)).status == 204
    assert (await client.append(url, b"789", at=7)).headers["upload-offset"] == "10"
    head = await client.head(url)
    assert (head.status, head.headers["upload-offset"], head.body) == (200, "10", b"")
    return location


# ---- paths


@pytest.mark.anyio
async def test_the_bare_path_with_and_without_a_slash(
    build: Build, tus: TusApp, caplog: pytest.LogCaptureFixture
) -> None:
    async with TusClient(build(ROOMY, (tus,))) as client:
        for path in ("/v1/files", "/v1/files/"):
            announced = await client.options(path)
            assert announced.status == 204
            assert "creation" in announced.headers["tus-extension"]
            url = await upload(client, path)
            assert (await client.options(url)).headers["tus-version"] == "1.0.0"
            assert (await client.delete(url)).status == 204
            assert (await client.head(url)).status == 410
        missing = await client.head("/v1/files/nobody")
        assert (missing.status, missing.headers["tus-resumable"]) == (404, "1.0.0")
    assert not warned(caplog)


@pytest.mark.anyio
async def test_the_host_s_own_paths_are_the_host_s(build: Build, tus: TusApp) -> None:
    if build is HOSTS["bare"]:
        build = HOSTS["fastapi"]  # nothing beside us: the server's own 404 is all there could be
    async with TusClient(build(ROOMY, (tus,))) as client:
        assert (await client.request("POST", HELLO, body=b"12345")).body == b"5"
        for path in ("/", "/v1", "/files", "/v1/filesystem/x", "/v1/files2"):
            answer = await client.request("POST", path, headers={"Upload-Length": "5"})
            assert answer.status in (404, 405)


def mounting(app: ASGIApp, at: str) -> ASGIApp:
    """As ASGI has it: what is mounted finds its place in `root_path`, which stays a part of the path."""

    async def mount(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "root_path": scope.get("root_path", "") + at}
        await app(scope, receive, send)

    return mount


@pytest.mark.anyio
@pytest.mark.parametrize("root_path", ["", "/api"])
async def test_in_a_mount_that_does_not_say_what_the_root_path_was(tus: TusApp, root_path: str) -> None:
    async with TusClient(mounting(tus, "/v1/files"), root_path=root_path) as client:
        for path in (f"{root_path}/v1/files", f"{root_path}/v1/files/"):
            assert (await client.options(path)).status == 204
            await upload(client, path)


@pytest.mark.anyio
async def test_in_hypercorn_s_dispatcher(tus: TusApp, caplog: pytest.LogCaptureFixture) -> None:
    app = AsyncioDispatcherMiddleware({"/v1/files": tus})  # type: ignore[dict-item]
    async with TusClient(app) as client:  # type: ignore[arg-type]
        for path in ("/v1/files", "/v1/files/"):
            assert (await client.options(path)).status == 204
            await upload(client, path)
    assert not warned(caplog)


@pytest.mark.anyio
async def test_below_a_root_path_that_is_called_as_we_are(tus: TusApp) -> None:
    async with TusClient(tus, root_path="/v1/files") as client:
        await upload(client, "/v1/files/v1/files")


# ---- behind a proxy


@pytest.mark.anyio
@pytest.mark.parametrize("root_path", ["/api", "/a/b", "/api v1"])
async def test_the_location_below_a_root_path(build: Build, tus: TusApp, root_path: str) -> None:
    async with TusClient(build(ROOMY, (tus,)), root_path=root_path) as client:
        for slash in ("", "/"):
            assert (await client.options(f"{root_path}/v1/files{slash}")).status == 204
            quoted = root_path.replace(" ", "%20") + "/v1/files"
            answer = await client.request(
                "POST", f"{root_path}/v1/files{slash}", headers={"Upload-Length": "5"}
            )
            location = answer.headers["location"]
            assert location == f"{quoted}/{id_of(location)}"
            assert await client.offset(location) == 0
            assert (await client.append(location, b"hello")).status == 204


@pytest.mark.anyio
async def test_the_location_below_a_root_path_that_the_path_does_not_have(build: Build, tus: TusApp) -> None:
    """Some servers name the prefix that a proxy took away, and hand on the path without it."""
    async with TusClient(build(ROOMY, (tus,)), root_path="/api") as client:
        for slash in ("", "/"):
            assert (await client.options(f"/v1/files{slash}")).status == 204
            await upload(client, f"/v1/files{slash}", below="/api/v1/files")


@pytest.mark.anyio
async def test_forwarded_headers_change_no_path(build: Build, tus: TusApp) -> None:
    """Whether somebody believes them or not: a path is right on every host and scheme."""
    forwarded = {
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "up.example",
        "X-Forwarded-For": "192.0.2.7",
        "X-Forwarded-Prefix": "/api",
    }
    app = build(ROOMY, (tus,))
    for outside in (app, ProxyHeadersMiddleware(app, trusted_hosts="*")):  # type: ignore[arg-type]
        async with TusClient(outside) as client:  # type: ignore[arg-type]
            answer = await client.request("POST", "/v1/files", headers={"Upload-Length": "5", **forwarded})
            location = answer.headers["location"]
            assert location == f"/v1/files/{id_of(location)}"
            assert (await client.head(location, headers=forwarded)).status == 200


@pytest.mark.anyio
@pytest.mark.parametrize("root_path", ["", "/inside"])
async def test_a_base_url_is_what_the_location_begins_with(build: Build, root_path: str) -> None:
    tus = TusApp(
        "/v1/files", storage=MemoryStorage(), store=MemoryStore(), base_url="https://up.example/api/"
    )
    async with TusClient(build(ROOMY, (tus,)), root_path=root_path) as client:
        answer = await client.request("POST", f"{root_path}/v1/files", headers={"Upload-Length": "5"})
        location = answer.headers["location"]
        assert location == f"https://up.example/api/v1/files/{id_of(location)}"
        behind = root_path + location.removeprefix("https://up.example/api")
        assert await client.offset(behind) == 0


@pytest.mark.anyio
@pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated")  # but hosts have it
async def test_a_root_path_that_fastapi_was_given(tus: TusApp) -> None:
    app = FastAPI(routes=tus.routes, lifespan=tus.lifespan, root_path="/api")
    async with TusClient(app) as client:
        await upload(client, "/v1/files", below="/api/v1/files")
        await upload(client, "/api/v1/files")


# ---- the lifespan


def without_lifespan(app: ASGIApp) -> ASGIApp:
    """As a server that was told to run none, or a host that forgot ours."""

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError("not here")
        await app(scope, receive, send)

    return served


def runs(tus: TusApp) -> bool:
    return tus._lifetime._started


@pytest.mark.anyio
async def test_the_lifespan_starts_and_ends_us(
    build: Build, tus: TusApp, caplog: pytest.LogCaptureFixture
) -> None:
    async with TusClient(build(ROOMY, (tus,))) as client:
        assert runs(tus)
        await upload(client, "/v1/files")
    assert not runs(tus)
    assert not warned(caplog)


@pytest.mark.anyio
async def test_a_forgotten_lifespan_is_one_warning(
    build: Build, tus: TusApp, caplog: pytest.LogCaptureFixture
) -> None:
    async with TusClient(without_lifespan(build(ROOMY, (tus,)))) as client:
        for _ in range(3):
            await upload(client, "/v1/files")
    (warning,) = warned(caplog)
    assert "lifespan" in warning
    async with tus:
        pass


def test_starlette_s_test_client_without_with(
    build: Build, tus: TusApp, caplog: pytest.LogCaptureFixture
) -> None:
    """A new event loop for each request, and no lifespan."""
    client = TestClient(build(ROOMY, (tus,)))
    for path in ("/v1/files", "/v1/files/"):
        answer = client.post(path, headers={**VERSION, "Upload-Length": "10"}, follow_redirects=False)
        assert answer.status_code == 201
        url = answer.headers["location"]
        for at in (0, 5):
            sent = {**VERSION, "Upload-Offset": str(at), "Content-Type": OCTETS}
            assert client.patch(url, headers=sent, content=b"01234").status_code == 204
            assert client.head(url, headers=VERSION).headers["upload-offset"] == str(at + 5)
    assert len(warned(caplog)) == 1


# ---- the host's own limits and middleware


@pytest.mark.anyio
async def test_a_limit_on_bodies_of_the_host_s_is_not_ours(build: Build, tus: TusApp) -> None:
    async with TusClient(build(10, (tus,))) as client:
        if build is not HOSTS["bare"]:
            assert (await client.request("POST", HELLO, body=b"x" * 100)).status in (400, 413)
        for told in (100, None):
            url = await client.create("/v1/files", length=100)
            answer = await client.append(url, b"x" * 100, content_length=told, chunk_size=30)
            assert (answer.status, answer.body) == (204, b"")
            sent = {"Upload-Length": "100", "Content-Type": OCTETS}
            answer = await client.request(
                "POST", "/v1/files", headers=sent, body=b"x" * 100, content_length=told
            )
            assert (answer.status, answer.headers["upload-offset"]) == (201, "100")


async def passing(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers["X-Passed"] = "yes"
    return response


@pytest.mark.anyio
async def test_base_http_middleware_around_the_host(
    build: Build, tus: TusApp, caplog: pytest.LogCaptureFixture
) -> None:
    app = BaseHTTPMiddleware(build(ROOMY, (tus,)), dispatch=passing)
    async with TusClient(app) as client:
        url = await upload(client, "/v1/files")
        assert (await client.head(url)).headers["x-passed"] == "yes"
        url = await client.create("/v1/files", length=10)
        refused = await client.append(url, b"x", at=3)
        assert (refused.status, refused.headers["x-passed"]) == (409, "yes")
        async with client.half_open(url, b"0123") as silent:
            assert await client.offset(url) == 4
            assert (await client.delete(url)).status == 204
            assert (await silent.response()).status in (410, 423)
    assert not warned(caplog)


# ---- several apps


@pytest.mark.anyio
@pytest.mark.parametrize("store", [MemoryStore, SQLiteStore])
async def test_several_apps_on_one_store(
    build: Build,
    store: type[MemoryStore] | type[SQLiteStore],
    tmp_path_factory: pytest.TempPathFactory,
    caplog: pytest.LogCaptureFixture,
) -> None:
    storage = MemoryStorage()
    records = (
        SQLiteStore(tmp_path_factory.mktemp("store") / "records.db")
        if store is SQLiteStore
        else MemoryStore()
    )
    videos = TusApp("/videos", name="videos", storage=storage, store=records, max_size=100)
    images = TusApp("/images", name="images", storage=storage, store=records, max_size=10)
    async with TusClient(build(ROOMY, (videos, images))) as client:
        image, video = await upload(client, "/images"), await upload(client, "/videos/")
        for theirs in (f"/videos/{id_of(image)}", f"/images/{id_of(video)}"):
            assert (await client.head(theirs)).status == 404
            assert (await client.append(theirs, b"x", at=10)).status == 404
            assert (await client.delete(theirs)).status == 404
        for path, most in (("/videos", 100), ("/images", 10)):
            assert (await client.options(path)).headers["tus-max-size"] == str(most)
            answer = await client.request("POST", path, headers={"Upload-Length": str(most + 1)})
            assert answer.status == 413
        assert await videos.get(id_of(video)) is not None
        assert await videos.get(id_of(image)) is None
        assert (await client.head(image)).status == (await client.head(video)).status == 200
    assert not warned(caplog)
