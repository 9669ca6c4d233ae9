"""Who is believed about X-Forwarded-*, and what a Location looks like from outside."""

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from tusserve.cli_options import parse_networks
from tusserve.cli_proxy import ForwardedHeaders

PROXY = "10.0.0.9"


async def seen(
    headers: dict[str, str], client: str | None = PROXY, location: str = "/files/abc"
) -> tuple[str, str | None, str]:
    """The URL and client that the app saw, and the Location that went out."""
    noted: dict[str, str | None] = {}
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        noted["url"] = str(request.url)
        noted["client"] = request.client.host if request.client else None
        await JSONResponse({}, headers={"Location": location})(scope, receive, send)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {
        "type": "http",
        "method": "POST",
        "scheme": "http",
        "path": "/files/",
        "root_path": "",
        "query_string": b"",
        "server": ("127.0.0.1", 1080),
        "client": None if client is None else (client, 1234),
        "headers": [(b"host", b"inner:1080")]
        + [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }
    before = dict(scope, headers=list(scope["headers"]))
    await ForwardedHeaders(app, parse_networks("10.0.0.0/8"))(scope, receive, send)
    assert scope == before, "the server's own scope was changed"
    answer = dict(sent[0]["headers"])
    return noted["url"] or "", noted["client"], answer[b"location"].decode()


FORWARDED = {
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "uploads.example.com",
    "X-Forwarded-For": "203.0.113.5",
}


@pytest.mark.anyio
async def test_a_trusted_proxy_is_believed() -> None:
    url, client, location = await seen(FORWARDED)
    assert url == "https://uploads.example.com/files/"
    assert client == "203.0.113.5"
    assert location == "https://uploads.example.com/files/abc"


@pytest.mark.anyio
@pytest.mark.parametrize("client", ["192.0.2.1", "not an address", None])
async def test_nobody_else_is(client: str | None) -> None:
    url, seen_client, location = await seen(FORWARDED, client=client)
    assert url == "http://inner:1080/files/"
    assert seen_client == client
    assert location == "/files/abc"


@pytest.mark.anyio
async def test_a_mapped_address_is_its_ipv4_address() -> None:
    assert (await seen(FORWARDED, client="::ffff:10.0.0.9"))[1] == "203.0.113.5"


@pytest.mark.anyio
async def test_the_last_hop_outside_is_the_client() -> None:
    """A client may send the header itself: what stands left of a hop that is not ours proves nothing."""
    chain = {"X-Forwarded-For": "127.0.0.1, 203.0.113.5, 10.0.0.3"}
    assert (await seen(chain))[1] == "203.0.113.5"
    assert (await seen({"X-Forwarded-For": "1.2.3.4, unknown, 10.0.0.3"}))[1] == PROXY
    assert (await seen({"X-Forwarded-For": "10.0.0.3"}))[1] == PROXY


@pytest.mark.anyio
async def test_of_several_values_the_nearest_proxys_counts() -> None:
    url, _, _ = await seen(
        {"X-Forwarded-Host": "evil.example, uploads.example.com", "X-Forwarded-Proto": "x, https"}
    )
    assert url == "https://uploads.example.com/files/"


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["a/b", "user@a", "a b", "", "a:99999999", "a?b", "a\\b"])
async def test_what_is_no_host_is_ignored(host: str) -> None:
    url, _, location = await seen({"X-Forwarded-Host": host})
    assert url == "http://inner:1080/files/"
    assert location == "/files/abc"


@pytest.mark.anyio
@pytest.mark.parametrize("location", ["https://other.example/x", "//other.example/x", "abc"])
async def test_only_a_path_becomes_absolute(location: str) -> None:
    assert (await seen(FORWARDED, location=location))[2] == location


@pytest.mark.anyio
async def test_an_unknown_scheme_is_ignored() -> None:
    assert (await seen({"X-Forwarded-Proto": "javascript"}))[0] == "http://inner:1080/files/"
