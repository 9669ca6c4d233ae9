"""Which bytes a download is about: Range, If-Range and If-None-Match of RFC 9110.

Owns the grammar and what follows from it; knows no upload, only its length and what names its content. The
app asks it for a GET.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from tusserve.protocol.fields import parse_number
from tusserve.protocol.http import Head

MOST_RANGES: Final = 16
"""A header that wants more pieces is ignored: nobody reads a file like that (RFC 9110, 14.2 and 17.15)."""


class Span(NamedTuple):
    """The bytes from `start` to before `stop`."""

    start: int
    stop: int


def parse_ranges(text: str, length: int) -> Sequence[Span] | None:
    """The pieces that a Range header wants of `length` bytes, those left out that lie beyond the end.

    None: the header is to be ignored, for its unit is another, it is malformed or wants too much. Empty: no
    byte of what it wants is there, which is 416. Of nothing every range is ignored: clients that ask for a
    first piece of everything have no use for an error.
    """
    unit, equals, listed = text.partition("=")
    pieces = [piece for each in listed.split(",") if (piece := each.strip(" \t"))]
    if not equals or unit.strip(" \t").lower() != "bytes" or not 0 < len(pieces) <= MOST_RANGES or not length:
        return None
    spans: list[Span] = []
    for piece in pieces:
        span = _span(piece, length)
        if span is None:
            return None
        if span.start < span.stop:
            spans.append(span)
    return spans


def _span(piece: str, length: int) -> Span | None:
    first, dash, last = piece.partition("-")
    if not dash:
        return None
    end = parse_number(last)
    if not first:  # the last so many bytes
        return None if end is None else Span(max(length - end, 0), length)
    start = parse_number(first)
    if start is None or (last and (end is None or end < start)):
        return None
    return Span(start, length if end is None else min(end + 1, length))


def wanted(head: Head, length: int, etag: str, date: str) -> Sequence[Span] | None:
    """The pieces to answer with, as in `parse_ranges`; If-Range with another ETag or date wants the whole."""
    told = head.one("range")
    condition = head.one("if-range")
    if told is None or (condition is not None and condition not in (etag, date)):
        return None
    return parse_ranges(told, length)


def is_known(head: Head, etag: str) -> bool:
    """Whether the client has this content already, by If-None-Match: 304."""
    told = head.one("if-none-match")
    if told is None:
        return False
    return any(each.strip(" \t").removeprefix("W/") in (etag, "*") for each in told.split(","))
