"""Which bytes a download is about: Range, If-Range and If-None-Match of RFC 9110.

Owns the grammar and what follows from it; knows no upload, only its length and what names its content. The
app asks it for a GET.
"""

from typing import Final, NamedTuple

from tusserve.protocol.fields import parse_number
from tusserve.protocol.http import Head


class Span(NamedTuple):
    """The bytes from `start` to before `stop`."""

    start: int
    stop: int


NOWHERE: Final = Span(0, 0)
"""A range of which no byte is there: 416."""


def parse_range(text: str, length: int) -> Span | None:
    """The piece that a Range header wants of `length` bytes: at least one of them, or `NOWHERE`.

    None: the header is to be ignored, because its unit is another, it is malformed, or it wants several
    pieces: a server may then send the whole (RFC 9110, 14.2), and hardly any client can take them apart. Of
    nothing every range is ignored: a client that asks for the first piece of everything has no use for an
    error.
    """
    unit, equals, piece = text.partition("=")
    first, dash, last = piece.strip(" \t").partition("-")
    if not (equals and dash and length) or unit.strip(" \t").lower() != "bytes":
        return None
    end = parse_number(last)
    if not first:  # the last so many bytes
        return None if end is None else _of_any(Span(max(length - end, 0), length))
    start = parse_number(first)
    if start is None or (last and (end is None or end < start)):
        return None
    return _of_any(Span(start, length if end is None else min(end + 1, length)))


def _of_any(span: Span) -> Span:
    return span if span.start < span.stop else NOWHERE


def wanted(head: Head, length: int, etag: str, date: str) -> Span | None:
    """The piece to answer with, as in `parse_range`; If-Range with another ETag or date wants the whole."""
    told = head.one("range")
    condition = head.one("if-range")
    if told is None or (condition is not None and condition not in (etag, date)):
        return None
    return parse_range(told, length)


def is_known(head: Head, etag: str) -> bool:
    """Whether the client has this content already, by If-None-Match: 304."""
    told = head.one("if-none-match")
    if told is None:
        return False
    return any(each.strip(" \t").removeprefix("W/") in (etag, "*") for each in told.split(","))
