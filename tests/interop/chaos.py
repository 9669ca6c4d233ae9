"""A TCP proxy that brings disasters on the way to a server: after so many bytes, once each.

Owns the sockets between a client and a server; knows nothing of HTTP. The interoperability tests put it
before a server that they kill and start again, on whatever port it then has.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self


class Kind(StrEnum):
    """What becomes of the connection that a disaster meets."""

    RESET = "RESET"
    """Both sides see it end."""
    HALF_OPEN = "HALF_OPEN"
    """The client sees it end; the server waits for bytes that never come, as behind a dead router."""
    UNANSWERED = "UNANSWERED"
    """Everything arrives; instead of the answer that is meant the client sees the connection end."""


@dataclass(frozen=True, slots=True)
class Disaster:
    """What happens, besides, once `after` bytes in all went from clients to the server."""

    after: int
    strike: Callable[[], None]
    kind: Kind = Kind.RESET
    unanswered: bytes = b""
    """How the answer begins that does not reach the client."""


def nothing_more() -> None:
    """A disaster that is only what becomes of the connection."""


class Chaos:
    """Listens on a port of the loopback and passes everything on, until a disaster is due."""

    def __init__(self, target: Callable[[], tuple[str, int]], disasters: Sequence[Disaster]) -> None:
        self._target = target
        self._due = sorted(disasters, key=lambda each: each.after)
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._sockets: set[socket.socket] = set()
        self._unanswered: bytes | None = None
        self._watched: dict[bytes, int] = {}
        self.passed = 0
        """Bytes that went from clients to the server."""

    @property
    def port(self) -> int:
        """Where clients connect."""
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def left(self) -> int:
        """How many disasters are still to come."""
        return len(self._due)

    def watch(self, words: bytes) -> None:
        """From now on count how often clients say this, in lower case, at the begin of what they send."""
        self._watched[words] = 0

    def heard(self, words: bytes) -> int:
        """How often they said it."""
        return self._watched[words]

    def add(self, disaster: Disaster) -> None:
        """One more to come."""
        with self._lock:
            self._due = sorted([*self._due, disaster], key=lambda each: each.after)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A shutdown wakes whoever waits in accept() or recv(); a close alone does not.
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target(), timeout=10)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            self._sockets |= {client, server}
            self._start(lambda client=client, server=server: self._up(client, server))  # type: ignore[misc]
            self._start(lambda client=client, server=server: self._down(client, server))  # type: ignore[misc]

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)
                self._listen(data)
                if (disaster := self._count(len(data))) is None:
                    continue
                if disaster.kind is Kind.UNANSWERED:
                    self._unanswered = disaster.unanswered
                    disaster.strike()
                    continue
                _reset(client)
                if disaster.kind is Kind.RESET:
                    _reset(server)
                disaster.strike()
                return
        for each in (client, server):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _down(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if self._unanswered is not None and data.startswith(self._unanswered):
                    self._unanswered = None
                    _reset(client)
                client.sendall(data)
        for each in (client, server):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
            self._sockets.discard(each)

    def _listen(self, data: bytes) -> None:
        if not self._watched:
            return
        begin = data[:4096].lower()
        with self._lock:
            for words in self._watched:
                self._watched[words] += begin.count(words)

    def _count(self, size: int) -> Disaster | None:
        with self._lock:
            self.passed += size
            if self._due and self.passed >= self._due[0].after:
                return self._due.pop(0)
            return None


def _reset(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        each.shutdown(socket.SHUT_RDWR)  # wakes whoever waits for it, which a close does not
        each.close()
