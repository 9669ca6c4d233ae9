"""To answer a request whose body may still be on its way.

Owns what is done with a body that nobody wants, so that the client reads the answer instead of a reset; knows
no protocol beyond HTTP. The ASGI rim answers through it.
"""

import logging
import re
from collections.abc import MutableMapping, Sequence
from typing import Any, Final

import anyio

from tusserve.mounting import Receive, Send
from tusserve.protocol.http import Head, Reply

logger = logging.getLogger("tusserve")

_NO_NAME: Final = re.compile(r"[^!#$%&'*+.^_`|~0-9a-z-]")
_NO_VALUE: Final = re.compile("[\0\r\n\u0100-\U0010ffff]")
"""What neither a header's name (RFC 9110, 5.1; in lower case, as ASGI wants it) nor its value may have."""

DROP_BYTES: Final = 16 * 1024 * 1024
DROP_SECONDS: Final = 5.0
"""How much of an unwanted body is read, and for how long, before the connection is closed on it."""


class Incoming:
    """A request's body, and how much of it was asked for."""

    def __init__(self, receive: Receive, head: Head) -> None:
        self._receive = receive
        self._head = head
        self.started = False
        self.ended = head.content_length == 0
        self.gone = False

    async def receive(self) -> MutableMapping[str, Any]:
        """The next message, as from the server; a connection that breaks in another way is gone, too."""
        self.started = True
        try:
            message = await self._receive()
        except Exception as error:
            logger.error("a body could not be read on: %s", error, exc_info=error)
            message = {"type": "http.disconnect"}
        if message["type"] != "http.request":
            self.gone = True
        elif not message.get("more_body", False):
            self.ended = True
        return message

    @property
    def unread(self) -> bool:
        """Whether there may be more of it, and somebody who sends it."""
        return not self.ended and not self.gone


async def send_reply(reply: Reply, incoming: Incoming, head: Head, send: Send, *, close: bool) -> None:
    """Answer, always: silence after a disconnect makes frameworks complain. `close`: the client is silent, or
    not worth waiting for."""
    unread = incoming.unread
    # A client that waits for `100 Continue` sends nothing if it is not asked: do not ask.
    waits = unread and head.expects_continue and not incoming.started
    drops = unread and not close and not waits
    length = head.content_length
    # A body that may not be dropped to its end takes the connection with it. Said beforehand, so that a
    # client that reads while it sends can stop: one that met a reset instead might never see the answer.
    endless = drops and not (isinstance(length, int) and length <= DROP_BYTES)
    headers = _sendable(reply)
    if (close or waits or endless) and head.http_version.startswith("1"):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    body = b"" if head.method == "HEAD" else reply.body  # also where an override made it another method
    # Something is held back while the connection is to go on: servers take a whole answer for the end.
    held = b"" if endless else body[-1:]
    if drops:
        await send({"type": "http.response.body", "body": body.removesuffix(held), "more_body": True})
        await _drop(incoming)
    await send({"type": "http.response.body", "body": held if drops else body})


def _sendable(reply: Reply) -> list[tuple[bytes, bytes]]:
    """The headers as bytes, without those of a host that no server could send: an answer is worth more."""
    headers = []
    for name, value in reply.headers:
        if _NO_NAME.search(name) or not name or _NO_VALUE.search(value):
            logger.error("the header %r: %r cannot be sent and was left out", name, value)
        else:
            headers.append((name.encode("ascii"), value.encode("latin-1")))
    return headers


async def _drop(incoming: Incoming) -> None:
    dropped = 0
    with anyio.move_on_after(DROP_SECONDS):
        while incoming.unread and dropped < DROP_BYTES:
            message = await incoming.receive()
            dropped += len(message.get("body", b""))


def with_headers(reply: Reply, body: bytes, headers: Sequence[tuple[str, str]]) -> Reply:
    """The reply in a host's own words: its body and headers, under our status and protocol headers."""
    ours = tuple(
        (name, value) for name, value in reply.headers if name not in {"content-type", "content-length"}
    )
    taken = {name for name, _ in ours} | {"content-length", "transfer-encoding"}
    theirs = tuple((name, value) for name, value in headers if name.lower() not in taken)
    return Reply(
        status=reply.status,
        headers=(*ours, *theirs, ("content-length", str(len(body)))),
        body=body,
        problem=reply.problem,
    )
