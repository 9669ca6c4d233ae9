"""A page of another origin reads every answer, errors included, and only if its origin is allowed."""

from collections.abc import Collection

import pytest
from starlette.applications import Starlette

from tests.app.stage import OCTETS, NotingStorage, NotingStore, assert_refused, stage
from tusserve import (
    ALLOW_HEADERS,
    EXPOSE_HEADERS,
    METHODS,
    ConfigError,
    Cors,
    MemoryStorage,
    MemoryStore,
    TusApp,
)
from tusserve.errors import StoreUnavailable
from tusserve.testing import TusClient
from tusserve.testing.client import Response

pytestmark = pytest.mark.anyio

HERE = "https://app.example.com"
ORIGIN = {"Origin": HERE}
PREFLIGHT = {**ORIGIN, "Access-Control-Request-Method": "PATCH", "Tus-Resumable": None}


def varies(answer: Response) -> list[str]:
    return [name.strip().lower() for each in answer.headers.getlist("vary") for name in each.split(",")]


def assert_readable(answer: Response) -> None:
    """The page gets the answer, and every header of it that is not readable anyway."""
    assert answer.headers.getlist("access-control-allow-origin") == [HERE], answer
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert exposed == list(EXPOSE_HEADERS)
    assert varies(answer).count("origin") == 1


def assert_no_cors(answer: Response) -> None:
    assert [name for name in answer.headers if name.startswith("access-control-")] == []


async def test_every_answer_is_readable() -> None:
    async with stage(cors=[HERE], downloads=True, max_size=100) as on:
        ask = on.client.request
        created = await ask("POST", "/files", headers={**ORIGIN, "Upload-Length": "5"})
        url = created.headers["location"]
        patch = {**ORIGIN, "Content-Type": OCTETS, "Upload-Offset": "0"}
        answers = [
            created,
            await ask("OPTIONS", "/files", headers=ORIGIN),
            await ask("GET", url, headers=ORIGIN),
            await ask("PATCH", url, headers={**patch, "Upload-Offset": "3"}, body=b"ab"),
            await ask("PATCH", url, headers={**patch, "Content-Type": "text/plain"}, body=b"ab"),
            await ask("PATCH", url, headers=patch, body=b"hello"),
            await ask("HEAD", url, headers=ORIGIN),
            await ask("GET", url, headers=ORIGIN),
            await ask("GET", url, headers={**ORIGIN, "Range": "bytes=1-2"}),
            await ask("GET", url, headers={**ORIGIN, "Range": "bytes=9-"}),
            await ask("PUT", url, headers=ORIGIN),
            await ask("HEAD", url, headers={**ORIGIN, "Tus-Resumable": "2"}),
            await ask("DELETE", url, headers=ORIGIN),
            await ask("HEAD", url, headers=ORIGIN),
            await ask("HEAD", "/files/none", headers=ORIGIN),
            await ask("GET", "/elsewhere", headers=ORIGIN),
        ]
    statuses = [201, 204, 404, 409, 415, 204, 200, 200, 206, 416, 405, 412, 204, 410, 404, 404]
    assert [answer.status for answer in answers] == statuses
    for answer in answers:
        assert_readable(answer)
        assert answer.headers["tus-resumable"] == "1.0.0"


async def test_a_failure_is_readable() -> None:
    store = NotingStore()
    async with stage(cors=[HERE], store=store) as on:
        store.at.coming["create"] = [StoreUnavailable("away"), RuntimeError("a bug")]
        for code in ("store_unavailable", "internal_error"):
            answer = await on.client.request("POST", "/files", headers={**ORIGIN, "Upload-Length": "5"})
            assert_refused(answer, 503, code)
            assert_readable(answer)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("url", ["/files", "/files/", "/files/abc"])
async def test_a_preflight_allows_all_that_clients_send(method: str, url: str) -> None:
    asked = ", ".join(name.lower() for name in ALLOW_HEADERS)
    more = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": asked}
    async with stage(cors=[HERE]) as on:
        for version in (None, "1.0.0", "nonsense"):
            answer = await on.client.options(url, headers={**PREFLIGHT, **more, "Tus-Resumable": version})
            assert 200 <= answer.status < 300, answer
            assert answer.headers["access-control-allow-origin"] == HERE
            assert answer.headers["access-control-allow-methods"].split(", ") == list(METHODS)
            assert set(ALLOW_HEADERS) <= set(answer.headers["access-control-allow-headers"].split(", "))
            assert int(answer.headers["access-control-max-age"]) >= 600
            assert varies(answer).count("origin") == 1
            assert "access-control-allow-credentials" not in answer.headers
        assert on.store.at.calls == []


async def test_a_preflight_for_what_no_client_sends_is_refused() -> None:
    async with stage(cors=[HERE]) as on:
        for more in (
            {"Access-Control-Request-Headers": "x-of-my-own"},
            {"Access-Control-Request-Method": "PUT"},
        ):
            answer = await on.client.options("/files", headers={**PREFLIGHT, **more})
            assert answer.status == 400, answer


async def test_options_that_is_no_preflight_tells_the_capabilities() -> None:
    async with stage(cors=[HERE]) as on:
        for headers in ({}, ORIGIN, {"Access-Control-Request-Method": "PATCH"}):
            answer = await on.client.options("/files", headers=headers)
            assert answer.status == 204
            assert "creation" in answer.headers["tus-extension"].split(",")


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example.com",
        "https://app.example.com.evil.org",
        "https://app.example.com/",
        "http://app.example.com",
        "https://app.example.com:443",
        "HTTPS://APP.EXAMPLE.COM",
        "null",
        "*",
        "",
        "https://app.example.com, https://evil.example.com",
        "\xff\x00\t",
    ],
)
async def test_another_origin_is_served_and_told_nothing(origin: str) -> None:
    async with stage(cors=[HERE]) as on:
        answer = await on.client.request("POST", "/files", headers={"Origin": origin, "Upload-Length": "5"})
        assert answer.status == 201
        assert_no_cors(answer)
        assert varies(answer) == ["origin"]
        preflight = await on.client.options("/files", headers={**PREFLIGHT, "Origin": origin})
        assert preflight.status == 204
        assert_no_cors(preflight)
        assert varies(preflight) == ["origin"]


async def test_an_answer_without_origin_is_not_for_a_page() -> None:
    async with stage(cors=[HERE]) as on:
        answer = await on.client.head("/files/none")
        assert_no_cors(answer)
        assert varies(answer) == ["origin"]


@pytest.mark.parametrize("cors", ["*", ["*"], Cors("*"), ["https://other.example", "*"]])
async def test_every_origin(cors: Cors | Collection[str]) -> None:
    async with stage(cors=cors) as on:
        for origin in (HERE, "null", "https://evil.example.com"):
            for cookie in ({}, {"Cookie": "a=b"}):
                answer = await on.client.head("/files/none", headers={"Origin": origin, **cookie})
                assert answer.headers["access-control-allow-origin"] in {"*", origin}
                assert "access-control-allow-credentials" not in answer.headers
                assert varies(answer).count("origin") == 1
            preflight = await on.client.options("/files", headers={**PREFLIGHT, "Origin": origin})
            assert preflight.headers["access-control-allow-origin"] == "*"


async def test_cookies_only_where_they_are_wanted() -> None:
    async with stage(cors=Cors([HERE, "http://localhost:5173"], credentials=True)) as on:
        for origin in (HERE, "http://localhost:5173"):
            answer = await on.client.head("/files/none", headers={"Origin": origin})
            assert answer.headers["access-control-allow-origin"] == origin
            assert answer.headers["access-control-allow-credentials"] == "true"
            preflight = await on.client.options("/files", headers={**PREFLIGHT, "Origin": origin})
            assert preflight.headers["access-control-allow-credentials"] == "true"
        assert_no_cors(await on.client.head("/files/none", headers={"Origin": "https://evil.example.com"}))


@pytest.mark.parametrize(
    "origins",
    [
        [],
        ["https://app.example.com/"],
        ["https://app.example.com/page"],
        ["https://App.example.com"],
        ["app.example.com"],
        ["https://app.example.com:443"],
        ["http://app.example.com:80"],
        ["https://*.example.com"],
        ["null"],
        [""],
        [b"https://app.example.com"],
        ["https://a.example\n"],
        "https://a.example, https://b.example",
    ],
)
def test_what_no_browser_sends_is_no_origin(origins: Collection[str]) -> None:
    with pytest.raises(ConfigError, match="cors="):
        TusApp("/files", storage=MemoryStorage(), store=MemoryStore(), cors=origins)


def test_cookies_from_everywhere_are_refused() -> None:
    with pytest.raises(ConfigError, match="cookies"):
        Cors("*", credentials=True)


@pytest.mark.parametrize("origin", ["capacitor://localhost", "http://[::1]:8000", "http://127.0.0.1:1"])
async def test_odd_origins_that_browsers_send(origin: str) -> None:
    async with stage(cors=origin) as on:
        answer = await on.client.head("/files/none", headers={"Origin": origin})
        assert answer.headers["access-control-allow-origin"] == origin


async def test_without_cors_nothing_is_said() -> None:
    async with stage() as on:
        for headers in ({}, ORIGIN, PREFLIGHT):
            answer = await on.client.options("/files", headers=headers)
            assert answer.status == 204
            assert_no_cors(answer)
            assert "vary" not in answer.headers


async def test_in_a_framework_and_around_one() -> None:
    tus = TusApp("/files", storage=NotingStorage(), store=NotingStore(), cors=[HERE])
    for app in (Starlette(routes=tus.routes, lifespan=tus.lifespan), tus.wrap(Starlette())):
        async with TusClient(app) as client:
            for url in ("/files", "/files/"):
                assert (await client.options(url, headers=PREFLIGHT)).status == 200
                answer = await client.request("POST", url, headers={**ORIGIN, "Upload-Length": "5"})
                assert answer.status == 201
                assert_readable(answer)
            assert_no_cors(await client.request("GET", "/of-the-host", headers=ORIGIN))
