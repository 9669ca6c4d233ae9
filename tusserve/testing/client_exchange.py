"""One request to an ASGI app in memory, and the answer.

Owns the two ends that a server gives an app, `receive` and `send`, and the rules of ASGI that the app has to
keep; knows no upload. `TusClient` makes one for each request.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Scope

_BODILESS: Final = frozenset({204, 304})


class NoResponse(AssertionError):
    """The app ended, or was cancelled, without a whole response."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What the app answered: also what it said to a client that was gone by then.

    `headers` is a mapping that does not care about case; `headers.getlist(name)` gives repetitions. `taken`
    is how many bytes of the request's body the app took, `asked` whether it asked for the body at all.
    """

    status: int
    headers: Headers
    body: bytes
    taken: int
    asked: bool

    def json(self) -> object:
        """The body as JSON. `ValueError` if it is none."""
        return json.loads(self.body)


class Exchange:
    """A request under way.

    The body is what `offer` was given, handed over piece by piece as the app asks; then comes its end (`end`)
    or the client's (`cut`), or else silence. `taken` counts the bytes that the app has taken.
    """

    def __init__(self, app: ASGIApp, scope: Scope, *, timeout: float, broken_pipe: bool) -> None:
        self.taken = 0
        self.asked = False
        self._timeout = timeout
        self._broken_pipe = broken_pipe
        self._bell = Bell()
        self._pieces: deque[bytes] = deque()
        self._ended = False
        self._last_given = False
        self._is_cut = False
        self._waiting = 0
        self._answer = _Answer(scope["method"])
        self._title = f"{scope['method']} {scope['path']}"
        self._task = asyncio.get_running_loop().create_task(self._run(app, scope))

    async def _run(self, app: ASGIApp, scope: Scope) -> None:
        try:
            await app(scope, self._receive, self._send)
        finally:
            self._bell.ring()

    # ---- the client's side

    @property
    def over(self) -> bool:
        """Whether the app is through with this request."""
        return self._task.done()

    def offer(self, data: bytes) -> None:
        """Let the app have more of the body when it asks."""
        if self._ended or self._is_cut:
            raise ValueError(f"{self._title}: the body has ended, nothing can follow")
        self._pieces.append(data)
        self._bell.ring()

    def end(self) -> None:
        """The body ends after what was offered."""
        self._ended = True
        self._bell.ring()

    def cut(self) -> None:
        """The client is gone: after what was offered comes `http.disconnect`, as often as the app asks."""
        self._is_cut = True
        self._bell.ring()

    async def until_taken(self) -> None:
        """Wait until the app has taken everything that was offered, or is through."""
        await self._wait(lambda: not self._pieces or self.over, "did not take the body")

    async def until_asked(self) -> None:
        """Wait until the app has taken everything that was offered and asks for more, or is through."""
        await self._wait(lambda: (self._waiting > 0 and not self._pieces) or self.over, "does not ask")

    async def response(self) -> Response:
        """Wait until the app is through, and return what it answered.

        Raises what the app raised, `NoResponse`, or an `AssertionError` that names the rule of ASGI it broke.
        """
        await self._finished()
        if self._answer.broken is not None:
            raise self._answer.broken
        if self._task.cancelled():
            raise NoResponse(f"{self._title}: the request was cancelled")
        if (error := self._task.exception()) is not None:
            raise error
        answered = self._answered()
        if answered is None:
            raise NoResponse(f"{self._title}: the app returned without a whole response")
        return answered

    async def cancel(self) -> Response | None:
        """Cancel the request's task as servers do, and wait until it has ended. None: it had not answered."""
        self._task.cancel()
        await self._finished()
        if self._answer.broken is not None:
            raise self._answer.broken
        return self._answered()

    async def close(self) -> None:
        """Cut it if it goes on, wait for its end, and leave alone what came of it."""
        if not self.over:
            self.cut()
        await self._finished()
        if not self._task.cancelled():
            self._task.exception()

    def _answered(self) -> Response | None:
        answer = self._answer
        if answer.status is None or not (answer.complete or self._is_cut):
            return None
        return Response(
            status=answer.status,
            headers=Headers(raw=answer.headers),
            body=bytes(answer.body),
            taken=self.taken,
            asked=self.asked,
        )

    async def _finished(self) -> None:
        done, _ = await asyncio.wait({self._task}, timeout=self._timeout)
        if not done:
            self._task.cancel()
            raise AssertionError(f"{self._title}: no answer within {self._timeout} s")

    async def _wait(self, holds: Callable[[], bool], otherwise: str) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await self._bell.until(holds)
        except TimeoutError:
            raise AssertionError(f"{self._title}: the app {otherwise} within {self._timeout} s") from None

    # ---- the app's side

    async def _receive(self) -> Message:
        self.asked = True
        self._waiting += 1
        self._bell.ring()
        try:
            await self._bell.until(self._has_news)
        finally:
            self._waiting -= 1
        if self._pieces and not self._answer.complete:
            data = self._pieces.popleft()
            self.taken += len(data)
            self._last_given = self._ended and not self._pieces
            self._bell.ring()
            return {"type": "http.request", "body": data, "more_body": not self._last_given}
        if self._is_cut or self._answer.complete:
            return {"type": "http.disconnect"}
        self._last_given = True
        return {"type": "http.request", "body": b"", "more_body": False}

    def _has_news(self) -> bool:
        return (
            bool(self._pieces)
            or self._is_cut
            or self._answer.complete
            or (self._ended and not self._last_given)
        )

    async def _send(self, message: Message) -> None:
        self._answer.add(message)
        self._bell.ring()
        if self._is_cut and self._broken_pipe:
            raise BrokenPipeError(f"{self._title}: the client is gone")


class _Answer:
    """What an app has sent so far, held against the rules of ASGI. The first breach stays in `broken`, since
    an app may well swallow the exception."""

    def __init__(self, method: str) -> None:
        self._method = method
        self.status: int | None = None
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = bytearray()
        self.complete = False
        self.broken: AssertionError | None = None

    def add(self, message: Message) -> None:
        try:
            self._take(message)
        except AssertionError as breach:
            self.broken = self.broken or breach
            raise

    def _take(self, message: Message) -> None:
        match message["type"]:
            case "http.response.start":
                self._start(message)
            case "http.response.body":
                self._continue(message)
            case other:
                raise AssertionError(f"ASGI: no server was asked for {other!r}")

    def _start(self, message: Message) -> None:
        _rule(self.status is None, "http.response.start was sent twice")
        status = message.get("status")
        _rule(isinstance(status, int) and 200 <= status <= 599, f"status {status!r} is none")
        headers = [(name, value) for name, value in message.get("headers", ())]
        _check_headers(headers)
        self.status, self.headers = status, headers

    def _continue(self, message: Message) -> None:
        _rule(self.status is not None, "a body was sent before http.response.start")
        _rule(not self.complete, "something was sent after the end of the response")
        body = message.get("body", b"")
        _rule(isinstance(body, bytes), f"a body is bytes, not {type(body).__name__}")
        self.body += body
        self.complete = not message.get("more_body", False)
        without_body = self._method == "HEAD" or self.status in _BODILESS
        _rule(not (without_body and body), f"a {self._method} answered {self.status} has no body")
        if self.complete and self._method != "HEAD":
            self._check_length()

    def _check_length(self) -> None:
        for name, value in self.headers:
            if name == b"content-length":
                _rule(value.isdigit(), f"content-length {value!r} is no number")
                _rule(int(value) == len(self.body), f"content-length {value!r} for {len(self.body)} bytes")


def _check_headers(headers: Iterable[tuple[object, object]]) -> None:
    for name, value in headers:
        if not (isinstance(name, bytes) and isinstance(value, bytes)):
            raise AssertionError(f"ASGI: a header is bytes: {name!r}: {value!r}")
        _rule(name == name.lower(), f"header names are in lower case, not {name!r}")
        _rule(bool(name) and not set(name) & set(b" :\r\n\0"), f"{name!r} is no header name")
        _rule(not set(value) & set(b"\r\n\0"), f"a header with a line break: {name!r}: {value!r}")


def _rule(kept: bool, otherwise: str) -> None:
    if not kept:
        raise AssertionError(f"ASGI: {otherwise}")


class Bell:
    """Wakes everybody who waits for something to become true, whenever anything has changed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self._event.wait()
