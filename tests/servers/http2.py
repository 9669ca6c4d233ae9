"""HTTP/2 without TLS, by a client that knows beforehand that the server speaks it.

Owns one connection and its flow control; knows nothing of uploads. The tests of servers that offer HTTP/2
use it, because a polite client could not stop in the middle of a body.
"""

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)

PATIENCE: Final = 30.0


@dataclass(slots=True)
class Stream:
    """What came back on one stream so far."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False
    reset: bool = False

    @property
    def status(self) -> int:
        """Of the answer, whose head must have come."""
        return int(self.headers[":status"])


class Http2:
    """One connection. A context manager."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=PATIENCE)
        self._http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._streams: dict[int, Stream] = {}
        self._http.initiate_connection()
        self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def begin(self, method: str, target: str, headers: Sequence[tuple[str, str]], *, ends: bool) -> int:
        """A request's head; `ends`: it has no body. Returns the stream."""
        number = self._http.get_next_available_stream_id()
        self._streams[number] = Stream()
        first = [(":method", method), (":path", target), (":scheme", "http"), (":authority", "test")]
        lower = [(name.lower(), value) for name, value in (("Tus-Resumable", "1.0.0"), *headers)]
        self._http.send_headers(number, [*first, *lower], end_stream=ends)
        self._flush()
        return number

    def send(self, number: int, data: bytes, *, ends: bool = False) -> None:
        """A part of the body, as fast as the server takes it; less, where it answered meanwhile."""
        stream = self._streams[number]
        while data and not (stream.ended or stream.reset):
            size = min(self._http.local_flow_control_window(number), self._http.max_outbound_frame_size)
            if size <= 0:
                self._hear()
                continue
            piece, data = data[:size], data[size:]
            self._http.send_data(number, piece, end_stream=ends and not data)
            self._flush()

    def cancel(self, number: int) -> None:
        """RST_STREAM: nothing more comes on it, and nothing is wanted; the connection stays."""
        self._http.reset_stream(number)
        self._flush()

    def answer(self, number: int) -> Stream:
        """The whole answer on this stream."""
        stream = self._streams[number]
        while not (stream.ended or stream.reset):
            self._hear()
        return stream

    def ask(
        self, method: str, target: str, headers: Sequence[tuple[str, str]] = (), body: bytes = b""
    ) -> Stream:
        """A whole request and its answer. HTTP/2 needs no Content-Length: none is sent."""
        number = self.begin(method, target, headers, ends=not body)
        if body:
            self.send(number, body, ends=True)
        return self.answer(number)

    def _hear(self) -> None:
        came = self._socket.recv(65536)
        assert came, "the server closed the connection"
        for event in self._http.receive_data(came):
            self._take(event)
        self._flush()

    def _take(self, event: Event) -> None:
        match event:
            case ResponseReceived():
                self._streams[event.stream_id].headers = {str(n): str(v) for n, v in event.headers}
            case DataReceived():
                self._streams[event.stream_id].body += event.data or b""
                self._http.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
            case StreamEnded():
                self._streams[event.stream_id].ended = True
            case StreamReset():
                self._streams[event.stream_id].reset = True
            case ConnectionTerminated():
                raise AssertionError(f"the server ended the connection: {event}")
            case WindowUpdated() | _:
                pass

    def _flush(self) -> None:
        if data := self._http.data_to_send():
            self._socket.sendall(data)
