"""A TUS client for tests that talks to an ASGI app in memory, without a server.

Owns `TusClient` and `HalfOpen`: what a client may do to a server, orderly or not. Knows the words of TUS
1.0.0 and nothing of tusserve's inside, so it drives any app. Tests of host applications use it.
"""

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Final, Literal, Self, TypeAlias
from urllib.parse import quote, unquote, urlsplit

from starlette.types import ASGIApp, Scope

from tusserve.testing.client_exchange import Exchange, NoResponse, Response
from tusserve.testing.client_lifespan import Lifespan

__all__ = ["Body", "HalfOpen", "HeadersGiven", "NoResponse", "Response", "TusClient"]

Body: TypeAlias = bytes | Sequence[bytes] | AsyncIterable[bytes] | None
"""A request's body: bytes, its pieces, or a stream of pieces, one of which is taken when the app asks."""

HeadersGiven: TypeAlias = Mapping[str, str | None] | Sequence[tuple[str, str | None]]
"""Headers to send. They replace what the client would send by itself; None: not that one at all. Pairs may
name a header several times."""

Told: TypeAlias = int | Literal["auto"] | None
"""What Content-Length says: a number (true or not), nothing (a chunked body), or what is right."""

CHUNK: Final = 64 * 1024
OFFSET_STREAM: Final = "application/offset+octet-stream"
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


class TusClient:
    """Runs an ASGI app in memory: its lifespan while entered, and any number of requests, at once too.

        async with TusClient(app) as client:
            url = await client.create("/files", length=10)
            await client.append(url, b"0123456789", cut_after=4)
            assert await client.offset(url) == 4

    What the app raises comes out of the request that it was raised in; a breach of the ASGI rules is an
    `AssertionError`. Every request waits until the app has returned, not only until it has answered.

    `root_path` is the scope's; URLs are what the app sees, so they begin with it. `broken_pipe`: sending to a
    client that is gone raises `OSError`, as some servers do; others, and this by default, drop what is sent.
    `timeout`, in seconds, only tells an app that is slow from one that hangs.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        root_path: str = "",
        client: tuple[str, int] | None = ("127.0.0.1", 50000),
        http_version: str = "1.1",
        extensions: Mapping[str, Mapping[str, object]] | None = None,
        broken_pipe: bool = False,
        timeout: float = 100.0,
    ) -> None:
        self._app = app
        self._root_path = root_path
        self._client = client
        self._http_version = http_version
        self._extensions = dict(extensions or {})
        self._broken_pipe = broken_pipe
        self._timeout = timeout
        self._lifespan = Lifespan(app, timeout=timeout)
        self._open: set[Exchange] = set()
        self._killed = False

    async def __aenter__(self) -> Self:
        await self._lifespan.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._killed:
            return
        for exchange in list(self._open):
            await exchange.close()
        await self._lifespan.stop()

    async def kill(self) -> None:
        """End without a shutdown: every request and the lifespan are cancelled, whatever they then raise.

        To end an app whose "process" crashed (`tusserve.testing.faults`): its cleaning up reaches nothing.
        """
        self._killed = True
        for exchange in list(self._open):
            with suppress(AssertionError):
                await exchange.cancel()
            await exchange.close()
        await self._lifespan.kill()

    # ---- any request

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: HeadersGiven | None = None,
        body: Body = None,
        content_length: Told = "auto",
        cut_after: int | None = None,
        chunk_size: int = CHUNK,
    ) -> Response:
        """Send a request and return the answer.

        `cut_after`: the client goes away after so many bytes of the body, without ending it, even if those
        are all. `chunk_size` is how `bytes` are cut into pieces. Raises what the app raises, and `NoResponse`
        if it does not answer.
        """
        exchange = self._start(method, url, headers, _told(method, body, content_length))
        feeding = asyncio.ensure_future(_feed(exchange, body, chunk_size, cut_after))
        try:
            answer = await exchange.response()
            if feeding.done():
                feeding.result()
            return answer
        finally:
            self._open.discard(exchange)
            if not exchange.over:  # whoever waited was cancelled: a client that goes away
                exchange.cut()
                self._open.add(exchange)
            feeding.cancel()
            await asyncio.wait({feeding})

    def _start(self, method: str, url: str, headers: HeadersGiven | None, told: int | None) -> Exchange:
        defaults = {"host": "testserver", "tus-resumable": "1.0.0"}
        if told is not None:
            defaults["content-length"] = str(told)
        elif self._http_version.startswith("1"):
            defaults["transfer-encoding"] = "chunked"
        if told is None and method not in _WITH_BODY:
            defaults.pop("transfer-encoding", None)
        scope = self._scope(method, url, _merged(defaults, headers))
        exchange = Exchange(self._app, scope, timeout=self._timeout, broken_pipe=self._broken_pipe)
        self._open.add(exchange)
        return exchange

    def _scope(self, method: str, url: str, headers: list[tuple[bytes, bytes]]) -> Scope:
        parts = urlsplit(url)
        raw_path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": self._http_version,
            "method": method,
            "scheme": parts.scheme or "http",
            "path": unquote(raw_path),
            "raw_path": raw_path.encode("ascii"),
            "query_string": parts.query.encode("ascii"),
            "root_path": self._root_path,
            "headers": headers,
            "client": self._client,
            "server": (parts.hostname or "testserver", parts.port or 80),
            "extensions": dict(self._extensions),
            "state": dict(self._lifespan.state),
        }

    # ---- in the words of TUS

    async def create(
        self,
        path: str,
        *,
        length: int | None = None,
        metadata: Mapping[str, str | bytes] | str | None = None,
        body: Body = None,
        headers: HeadersGiven | None = None,
    ) -> str:
        """Open an upload of `length` bytes (None: not known yet) and return its URL, as the app told it.

        `metadata` is encoded, or sent as it is where it is a `str`. `body` are its first bytes. Raises
        `AssertionError` with status and body unless the app answers 201 with a Location.
        """
        sent: dict[str, str | None] = (
            {"Upload-Defer-Length": "1"} if length is None else {"Upload-Length": str(length)}
        )
        if metadata is not None:
            sent["Upload-Metadata"] = metadata if isinstance(metadata, str) else _encoded(metadata)
        if body is not None:
            sent["Content-Type"] = OFFSET_STREAM
        answer = await self.request("POST", path, headers=_more(sent, headers), body=body)
        assert answer.status == 201, f"POST {path}: {_shown(answer)}"
        assert "location" in answer.headers, f"POST {path}: 201 without a Location"
        return str(answer.headers["location"])

    async def append(
        self,
        url: str,
        data: Body,
        *,
        at: int = 0,
        cut_after: int | None = None,
        content_length: Told = "auto",
        chunk_size: int = CHUNK,
        headers: HeadersGiven | None = None,
    ) -> Response:
        """PATCH `data` at offset `at`. `cut_after` and the rest as in `request`."""
        return await self.request(
            "PATCH",
            url,
            headers=_more(_patch_headers(at), headers),
            body=data,
            content_length=content_length,
            cut_after=cut_after,
            chunk_size=chunk_size,
        )

    @asynccontextmanager
    async def half_open(
        self,
        url: str,
        data: bytes = b"",
        *,
        at: int = 0,
        content_length: int | None = None,
        headers: HeadersGiven | None = None,
    ) -> AsyncGenerator["HalfOpen"]:
        """A PATCH that sends `data` and then is silent. Entered once the app has taken `data`, or is through
        with the request. Leaving cuts what is not over, and waits until the app is through."""
        exchange = self._start("PATCH", url, _more(_patch_headers(at), headers), content_length)
        try:
            patch = HalfOpen(exchange)
            if data:
                await patch.more(data)
            yield patch
        finally:
            self._open.discard(exchange)
            await exchange.close()

    async def head(self, url: str, *, headers: HeadersGiven | None = None) -> Response:
        """HEAD."""
        return await self.request("HEAD", url, headers=headers)

    async def offset(self, url: str) -> int:
        """The offset that HEAD tells. `AssertionError` unless it answers 200 or 204 with one."""
        answer = await self.head(url)
        assert answer.status in (200, 204), f"HEAD {url}: {_shown(answer)}"
        assert "upload-offset" in answer.headers, f"HEAD {url}: {answer.status} without an Upload-Offset"
        return int(answer.headers["upload-offset"])

    async def delete(self, url: str, *, headers: HeadersGiven | None = None) -> Response:
        """DELETE."""
        return await self.request("DELETE", url, headers=headers)

    async def options(self, url: str, *, headers: HeadersGiven | None = None) -> Response:
        """OPTIONS."""
        return await self.request("OPTIONS", url, headers=headers)


class HalfOpen:
    """A PATCH whose body goes on only when told to."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    @property
    def taken(self) -> int:
        """How many bytes of the body the app has taken."""
        return self._exchange.taken

    @property
    def over(self) -> bool:
        """Whether the app is through with it."""
        return self._exchange.over

    def offer(self, data: bytes) -> None:
        """Send more, without waiting until it is taken."""
        self._exchange.offer(data)

    async def more(self, data: bytes) -> None:
        """Send more, and wait until the app has taken it or is through."""
        self._exchange.offer(data)
        await self._exchange.until_taken()

    async def until_asked(self) -> None:
        """Wait until the app asks for more than it was sent, or is through."""
        await self._exchange.until_asked()

    def end(self) -> None:
        """The body ends here."""
        self._exchange.end()

    def cut(self) -> None:
        """The client goes away."""
        self._exchange.cut()

    async def cancel(self) -> Response | None:
        """Cancel the request's task natively, as servers do when they stop, and wait until it has ended.
        None: it had not answered."""
        return await self._exchange.cancel()

    async def response(self) -> Response:
        """Wait until the app is through; as `TusClient.request`."""
        return await self._exchange.response()


def _patch_headers(at: int) -> dict[str, str | None]:
    return {"Content-Type": OFFSET_STREAM, "Upload-Offset": str(at)}


def _encoded(metadata: Mapping[str, str | bytes]) -> str:
    def pair(key: str, value: str | bytes) -> str:
        held = value.encode() if isinstance(value, str) else value
        return f"{key} {base64.b64encode(held).decode('ascii')}".rstrip()

    return ",".join(pair(key, value) for key, value in metadata.items())


def _shown(answer: Response) -> str:
    return f"{answer.status} {answer.body[:500].decode('utf-8', 'replace')}".rstrip()


def _pairs(headers: HeadersGiven | None) -> list[tuple[str, str | None]]:
    if headers is None:
        return []
    return list(headers.items()) if isinstance(headers, Mapping) else list(headers)


def _more(own: Mapping[str, str | None], headers: HeadersGiven | None) -> list[tuple[str, str | None]]:
    given = _pairs(headers)
    named = {name.lower() for name, _ in given}
    return [pair for pair in own.items() if pair[0].lower() not in named] + given


def _merged(defaults: Mapping[str, str], headers: HeadersGiven | None) -> list[tuple[bytes, bytes]]:
    return [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in _more(dict(defaults), headers)
        if value is not None
    ]


def _told(method: str, body: Body, content_length: Told) -> int | None:
    if content_length != "auto":
        return content_length
    if body is None:
        return 0 if method in _WITH_BODY else None
    if isinstance(body, bytes):
        return len(body)
    return None if isinstance(body, AsyncIterable) else sum(len(piece) for piece in body)


async def _feed(exchange: Exchange, body: Body, chunk_size: int, cut_after: int | None) -> None:
    left = cut_after
    pieces = _pieces(body, chunk_size)
    if isinstance(pieces, AsyncIterable):
        left = await _stream(exchange, pieces, left)
    else:
        for piece in pieces:
            left = _offer(exchange, piece, left)
    if left is None:
        exchange.end()
    else:
        exchange.cut()


async def _stream(exchange: Exchange, body: AsyncIterable[bytes], left: int | None) -> int | None:
    pieces = aiter(body)
    try:
        while left != 0:
            await exchange.until_asked()
            if exchange.over:
                break
            left = _offer(exchange, await anext(pieces), left)
    except StopAsyncIteration:
        pass
    except BaseException:
        exchange.cut()  # a stream that fails is a client that dies
        raise
    return left


def _offer(exchange: Exchange, piece: bytes, left: int | None) -> int | None:
    if left is None:
        exchange.offer(piece)
        return None
    if left > 0:
        exchange.offer(piece[:left])
    return max(left - len(piece), 0)


def _pieces(body: Body, chunk_size: int) -> Iterable[bytes] | AsyncIterable[bytes]:
    if body is None:
        return ()
    if isinstance(body, bytes):
        return [body[begin : begin + chunk_size] for begin in range(0, len(body), chunk_size)]
    return body
