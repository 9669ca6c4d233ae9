"""The grammar of single fields, against slower and plainer statements of it."""

import re
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tusserve.protocol.fields import LARGEST_NUMBER, imf_fixdate, is_id, media_type, parse_number

looks_like_numbers = st.text(st.sampled_from("0123456789"), max_size=24) | st.text(
    st.sampled_from("0123456789+-_., \t\n\x00xeE\xb2\xbd٣९"), max_size=22
)


@given(looks_like_numbers | st.text())
@example(str(LARGEST_NUMBER))
@example(str(LARGEST_NUMBER + 1))
@example("0" * 20)
@example("9" * 5000)
@settings(deadline=None)
def test_numbers(text: str) -> None:
    number = None
    if re.fullmatch(r"[0-9]{1,19}", text) and int(text) < 2**63:
        number = int(text)
    assert parse_number(text) == number


@given(st.text(st.sampled_from("aZ09-_"), max_size=140) | st.text(max_size=140))
@example("a" * 128)
@example("a" * 129)
@example("")
@example("-")
@example("_-_")
@settings(deadline=None)
def test_ids(text: str) -> None:
    assert is_id(text) is (re.fullmatch(r"[A-Za-z0-9_-]{1,128}", text) is not None)


@pytest.mark.parametrize(
    "text",
    [".", "..", "a.b", "a/b", "a%2Fb", "%2e%2e", "a\\b", "a b", "a\x00", "a\n", "é", "٣", "a+b", "~a", "a:b"],
)
def test_what_could_be_a_path_or_needs_encoding_is_no_id(text: str) -> None:
    assert not is_id(text)


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/offset+octet-stream", "application/offset+octet-stream"),
        ("Application/Offset+Octet-Stream", "application/offset+octet-stream"),
        ("text/html; charset=utf-8", "text/html"),
        ("text/html ;charset=utf-8;a=b", "text/html"),
        (" text/html\t", "text/html"),
        ("", ""),
        (";", ""),
    ],
)
def test_media_types(content_type: str, expected: str) -> None:
    assert media_type(content_type) == expected


@given(
    st.datetimes(timezones=st.just(UTC)),
    st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
@example(datetime(1994, 11, 6, 8, 49, 37, 999_999, tzinfo=UTC), UTC)
@settings(deadline=None)
def test_dates(moment: datetime, zone: timezone) -> None:
    assert imf_fixdate(moment) == format_datetime(moment, usegmt=True)
    if 1 < moment.year < 9999:
        assert imf_fixdate(moment.astimezone(zone)) == imf_fixdate(moment)
