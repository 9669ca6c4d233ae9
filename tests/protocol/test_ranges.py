"""Which bytes a GET wants, by its headers alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tusserve.protocol.http import Head
from tusserve.protocol.ranges import NOWHERE, Span, is_known, parse_range, wanted

ETAG, DATE = '"a-1"', "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=0-9", (0, 10)),
        ("bytes=3-", (3, 10)),
        ("bytes=3-99", (3, 10)),
        ("bytes=-4", (6, 10)),
        ("bytes=-99", (0, 10)),
        ("BYTES = 1-2\t", (1, 3)),
        ("bytes=10-", NOWHERE),
        ("bytes=10-20", NOWHERE),
        ("bytes=-0", NOWHERE),
        ("bytes=9223372036854775807-", NOWHERE),
    ],
)
def test_ranges(text: str, span: tuple[int, int]) -> None:
    assert parse_range(text, 10) == span


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=5",
        "bytes=5-4",
        "bytes=a-b",
        "bytes=+1-2",
        "bytes=1_0-",
        "bytes=1 - 2",
        "bytes=1-2;q=1",
        "bytes=1-2,4-5",
        "bytes=1-2, bytes=4-5",
        "bytes=\u0663-",
        "bytes=--1",
        "bytes=-1-",
        "lines=0-1",
    ],
)
def test_what_is_no_range_is_ignored(text: str) -> None:
    assert parse_range(text, 10) is None


def test_of_nothing_there_are_no_ranges() -> None:
    assert parse_range("bytes=0-99", 0) is None
    assert parse_range("bytes=-1", 0) is None


@given(text=st.text(alphabet="bytes=-, 0123456789x", max_size=30), length=st.integers(0, 1000))
def test_every_span_has_bytes_and_lies_inside(text: str, length: int) -> None:
    span = parse_range(f"bytes={text}", length)
    assert span is None or span == NOWHERE or 0 <= span.start < span.stop <= length


@pytest.mark.parametrize(
    ("condition", "counts"),
    [(None, True), (ETAG, True), (DATE, True), (f"W/{ETAG}", False), ('"b"', False), ("yesterday", False)],
)
def test_a_range_of_other_content_is_none(condition: str | None, counts: bool) -> None:
    headers = [(b"range", b"bytes=1-2")]
    if condition is not None:
        headers.append((b"if-range", condition.encode()))
    assert wanted(Head.of("GET", headers), 10, ETAG, DATE) == (Span(1, 3) if counts else None)


@pytest.mark.parametrize(
    ("told", "known"),
    [
        ([], False),
        ([ETAG], True),
        ([f"W/{ETAG}"], True),
        (['"b", W/"c"', f' {ETAG},"d"'], True),
        (["*"], True),
        (['"a-"', "a-1", '"A-1"'], False),
    ],
)
def test_what_is_known(told: list[str], known: bool) -> None:
    assert is_known(Head.of("GET", [(b"If-None-Match", each.encode()) for each in told]), ETAG) is known
