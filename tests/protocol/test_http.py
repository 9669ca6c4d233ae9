"""Heads and problem documents."""

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tusserve.protocol.http import Head, Problem, problem_json
from tusserve.protocol.outcomes import Code, Refused


def test_names_lose_their_case_and_values_lose_nothing() -> None:
    head = Head.of("PATCH", [(b"Upload-Offset", b" 5 "), (b"X-\xc9", b"\xff\x00")])
    assert head.headers == {"upload-offset": (" 5 ",), "x-é": ("\xff\x00",)}
    assert head.one("upload-offset") == " 5 "
    assert head.one("upload-length") is None


def test_a_repeated_header_is_a_list_with_each_of_its_values() -> None:
    head = Head.of("POST", [(b"a", b"1"), (b"A", b"2"), (b"b", b""), (b"a", b"1")])
    assert head.headers == {"a": ("1", "2", "1"), "b": ("",)}
    assert head.one("a") == "1, 2, 1"
    assert head.one("b") == ""


@pytest.mark.parametrize(
    ("fields", "version", "expected"),
    [
        ([], "1.1", 0),
        ([], "1.0", 0),
        ([], "2", None),
        ([], "3", None),
        ([(b"content-length", b"0")], "1.1", 0),
        ([(b"content-length", b"7")], "1.1", 7),
        ([(b"content-length", b"7")], "2", 7),
        ([(b"transfer-encoding", b"chunked")], "1.1", None),
        ([(b"content-length", b"9223372036854775807")], "1.1", 2**63 - 1),
    ],
)
def test_how_long_a_body_is(fields: list[tuple[bytes, bytes]], version: str, expected: int | None) -> None:
    assert Head.of("PATCH", fields, version).content_length == expected


@pytest.mark.parametrize(
    "fields",
    [
        [(b"content-length", b"")],
        [(b"content-length", b"-1")],
        [(b"content-length", b"+1")],
        [(b"content-length", b"1_0")],
        [(b"content-length", b" 1")],
        [(b"content-length", b"\xb2")],
        [(b"content-length", b"9223372036854775808")],
        [(b"content-length", b"5"), (b"content-length", b"5")],
        [(b"content-length", b"5"), (b"content-length", b"6")],
        [(b"content-length", b"5, 5")],
        [(b"content-length", b"5"), (b"transfer-encoding", b"chunked")],
    ],
)
def test_a_length_that_can_be_read_in_two_ways_is_refused(fields: list[tuple[bytes, bytes]]) -> None:
    refused = Head.of("PATCH", fields).content_length
    assert isinstance(refused, Refused)
    assert refused.code is Code.INVALID_CONTENT_LENGTH


@pytest.mark.parametrize(
    ("value", "version", "expected"),
    [
        (b"100-continue", "1.1", True),
        (b"100-Continue", "1.1", True),
        (b"100-continue", "2", True),
        (b"100-continue", "1.0", False),
        (b"", "1.1", False),
        (None, "1.1", False),
    ],
)
def test_whether_the_client_waits_to_be_asked(value: bytes | None, version: str, expected: bool) -> None:
    fields = [] if value is None else [(b"Expect", value)]
    assert Head.of("PATCH", fields, version).expects_continue is expected


def document(problem: Problem) -> dict[str, object]:
    loaded = json.loads(problem_json(problem))
    assert isinstance(loaded, dict)
    return loaded


def test_a_problem_document() -> None:
    assert document(Problem(status=409, code="offset_mismatch", message="Go on.")) == {
        "type": "about:blank",
        "title": "Conflict",
        "status": 409,
        "detail": "Go on.",
        "code": "offset_mismatch",
    }


@pytest.mark.parametrize(("status", "title"), [(460, "Client Error"), (599, "Server Error"), (423, "Locked")])
def test_its_title_is_the_status_in_words(status: int, title: str) -> None:
    assert document(Problem(status=status, code="c", message="m"))["title"] == title


def test_what_a_hook_adds_stands_beside_and_never_in_place() -> None:
    extra: dict[str, object] = {
        "used": 7,
        "fields": {"file": "type"},
        "status": 200,
        "code": "x",
        "type": "y",
    }
    told = document(Problem(status=413, code="over_quota", message="Full.", extra=extra))
    assert told == document(Problem(status=413, code="over_quota", message="Full.")) | {
        "used": 7,
        "fields": {"file": "type"},
    }


def test_what_json_cannot_say_is_said_as_text() -> None:
    extra: dict[str, object] = {"at": datetime(2026, 3, 4, tzinfo=UTC), "id": UUID(int=5)}
    told = document(Problem(status=413, code="c", message="m", extra=extra))
    assert told["at"] == "2026-03-04 00:00:00+00:00"
    assert told["id"] == str(UUID(int=5))


@pytest.mark.parametrize("value", [float("nan"), {(1, 2): 3}], ids=["not a number", "no name"])
def test_what_json_cannot_say_at_all_is_left_out(value: object) -> None:
    told = document(Problem(status=413, code="c", message="m", extra={"value": value, "other": 1}))
    assert told == document(Problem(status=413, code="c", message="m"))


def test_a_circle_is_left_out() -> None:
    circle: dict[str, object] = {}
    circle["self"] = circle
    assert document(Problem(status=413, code="c", message="m", extra=circle))["code"] == "c"


@given(st.text(st.characters(exclude_categories=())), st.text(st.characters(exclude_categories=())))
@settings(deadline=None)
def test_any_words_make_a_document(code: str, message: str) -> None:
    told = document(Problem(status=400, code=code, message=message))
    assert set(told) == {"type", "title", "status", "detail", "code"}
