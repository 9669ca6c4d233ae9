"""HTTP/1 by hand: every byte of a request as the test wants it, every byte of the answer as it came.

Owns one connection and the framing of answers; knows TUS only by the few requests at the end. Tests and
benchmarks use it where a real client library would be too polite.
"""

import contextlib
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, TypeAlias
from urllib.parse import urlsplit

PATIENCE: Final = 30.0
"""Seconds after which an answer that has not come never will."""

Headers: TypeAlias = Sequence[tuple[str, str]]


class ConnectionEnded(Exception):
    """The other side closed the connection before its answer was complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One response; header names in lower case. `interim`: the statuses that came before it."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    interim: tuple[int, ...] = ()

    def one(self, name: str) -> str | None:
        """The header's value, None without it; twice the same header is an error of the server."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) <= 1, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None

    @property
    def closes(self) -> bool:
        """Whether it says that the connection ends with it."""
        return (self.one("connection") or "").lower() == "close"

    @property
    def offset(self) -> int:
        """Upload-Offset, which must be there."""
        value = self.one("upload-offset")
        assert value is not None, f"no Upload-Offset in {self}"
        return int(value)


def head_of(method: str, target: str, headers: Headers = (), version: str = "1.1") -> bytes:
    """A request's head as bytes; `headers` in Latin-1, nothing added, nothing checked."""
    lines = [f"{method} {target} HTTP/{version}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def chunked(pieces: Iterable[bytes]) -> bytes:
    """A body in chunks, one a piece, ended."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece) + b"0\r\n\r\n"


class Connection:
    """One TCP connection to a server. A context manager."""

    def __init__(self, address: tuple[str, int], *, patience: float = PATIENCE) -> None:
        self.socket = socket.create_connection(address, timeout=patience)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._got = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """These bytes, now."""
        self.socket.sendall(data)

    def send_what_is_taken(self, data: bytes) -> bool:
        """These bytes, as far as the other side takes them; False: it closed before the end."""
        try:
            self.socket.sendall(data)
        except (ConnectionResetError, BrokenPipeError):
            return False
        return True

    def end_sending(self) -> None:
        """FIN: nothing more comes from here, answers are still read."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """RST, as from a machine that lost power."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def is_closed(self) -> bool:
        """Wait for the other side to close. False: it sent something instead, or nothing for too long."""
        with contextlib.suppress(ConnectionResetError):
            try:
                return not self._got and self.socket.recv(1) == b""
            except TimeoutError:
                return False
        return True

    def answer(self, method: str = "GET") -> Answer:
        """The next response; `method` is that of its request: HEAD has no body. Raises `ConnectionEnded`."""
        interim: list[int] = []
        while True:
            head = self._until(b"\r\n\r\n").decode("latin-1")
            first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
            status = int(first.split(" ", 2)[1])
            if status >= 200:
                break
            interim.append(status)
        headers = tuple(
            (name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)
        )
        answer = Answer(status=status, headers=headers, body=b"", interim=tuple(interim))
        if method == "HEAD" or status in (204, 304):
            return answer
        body = self._body(answer)
        return Answer(status=status, headers=headers, body=body, interim=tuple(interim))

    def _body(self, answer: Answer) -> bytes:
        if answer.one("transfer-encoding") == "chunked":
            body = b""
            while size := int(self._until(b"\r\n").split(b";")[0], 16):
                body += self._exactly(size + 2)[:-2]
            self._until(b"\r\n")
            return body
        length = answer.one("content-length")
        assert length is not None, f"an answer without a length: {answer}"
        return self._exactly(int(length))

    def _more(self) -> None:
        piece = self.socket.recv(65536)
        if not piece:
            raise ConnectionEnded(f"after {self._got!r}")
        self._got += piece

    def _until(self, end: bytes) -> bytes:
        while (at := self._got.find(end)) < 0:
            self._more()
        taken, self._got = self._got[: at + len(end)], self._got[at + len(end) :]
        return taken

    def _exactly(self, size: int) -> bytes:
        while len(self._got) < size:
            self._more()
        taken, self._got = self._got[:size], self._got[size:]
        return taken

    # ---- the few requests of TUS that tests make

    def ask(self, method: str, target: str, headers: Headers = (), body: bytes = b"") -> Answer:
        """A request with Host, Tus-Resumable and Content-Length, and its answer."""
        framed = [("Host", "test"), ("Tus-Resumable", "1.0.0"), *headers]
        if body or method in ("POST", "PATCH"):
            framed.append(("Content-Length", str(len(body))))
        self.send(head_of(method, target, framed))
        if body:
            self.send_what_is_taken(body)
        return self.answer(method)

    def create(self, target: str, length: int) -> str:
        """A new upload; the path of its Location."""
        answer = self.ask("POST", target, [("Upload-Length", str(length))])
        location = answer.one("location")
        assert answer.status == 201 and location is not None, answer
        return urlsplit(location).path

    def inspect(self, target: str) -> Answer:
        """HEAD."""
        return self.ask("HEAD", target)

    def append(self, target: str, at: int, data: bytes) -> Answer:
        """PATCH."""
        return self.ask("PATCH", target, [*OCTETS, ("Upload-Offset", str(at))], data)

    def begin_append(self, target: str, at: int, length: int) -> None:
        """The head of a PATCH of `length` bytes, which are still to be sent."""
        headers = [("Host", "test"), ("Tus-Resumable", "1.0.0"), *OCTETS, ("Upload-Offset", str(at))]
        self.send(head_of("PATCH", target, [*headers, ("Content-Length", str(length))]))


OCTETS: Final = (("Content-Type", "application/offset+octet-stream"),)
