"""Anything for an id, a header, metadata or a length: a 4xx in good order, or what was asked for.

Never a 5xx, never a log line that somebody would have to look at, and nothing kept of what was refused.
"""

import logging
import string
from collections.abc import Generator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.app.stage import OCTETS, Stage, id_of, stage
from tusserve.protocol.outcomes import Code
from tusserve.testing.client import Response

pytestmark = pytest.mark.anyio

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
CODES = {str(code) for code in Code}

WIRE = st.characters(min_codepoint=1, max_codepoint=255, exclude_characters="\r\n")
"""What servers let through in the value of a header, decoded as Latin-1."""
NUMBERS = st.one_of(
    st.integers(-2, 20).map(str),
    st.sampled_from(
        ["", "0", "00", "+1", "1_0", "1.0", "1e1", "0x1", "10, 10", "\xb2", "9" * 400, str(2**63)]
    ),
    st.text(WIRE, max_size=5),
)
METADATA = st.one_of(
    st.text(WIRE, max_size=60),
    st.lists(
        st.tuples(st.text(WIRE, max_size=4), st.sampled_from(["", " ", " aGk=", " aGk", "  aGk=", "\taGk="])),
        max_size=4,
    ).map(lambda pairs: ",".join(key + value for key, value in pairs)),
    st.text(string.ascii_letters, min_size=8100, max_size=8300),
)


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def nothing_to_look_at() -> Generator[None]:
    """Nothing is logged as a warning or worse."""
    logger, handler = logging.getLogger("tusserve"), _Errors()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    assert not handler.records, [record.getMessage() for record in handler.records]


def in_good_order(method: str, answer: Response) -> None:
    """A success, or a refusal with everything that a refusal has."""
    assert 200 <= answer.status < 500, answer
    assert answer.headers.getlist("tus-resumable") == ["1.0.0"]
    if answer.status < 300:
        return
    assert answer.headers["cache-control"] == "no-store"
    if method == "HEAD":
        assert answer.body == b""
        assert "upload-offset" not in answer.headers
        return
    document = answer.json()
    assert isinstance(document, dict)
    assert set(document) == {"type", "title", "status", "detail", "code"}
    assert document["status"] == answer.status
    assert document["code"] in CODES
    assert document["detail"].endswith(".")
    assert len(document["detail"]) < 200


@pytest.mark.parametrize("method", ["HEAD", "PATCH", "DELETE", "POST", "GET", "OPTIONS"])
@QUICK
@given(
    st.one_of(
        st.text(max_size=30),
        st.lists(
            st.sampled_from([*"aZ0-_./~%", "..", "%2e", "%2f", "%5c", "%00", "%zz", "//"]), max_size=8
        ).map("".join),
        st.integers(100, 10_000).map(lambda n: "a" * n),
    )
)
@example("..")
@example("../files/x")
@example("%2e%2e%2f%2e%2e%2fetc%2fpasswd")
@example("%00")
@example("a%00b")
@example("a" * 128)
@example("a" * 10_240)
@example("..;/x")
@example("\u0661\u0662")
@example("con")
@example(".hidden")
async def test_an_id_that_is_none_is_refused_and_touches_nothing(method: str, text: str) -> None:
    async with stage() as s:
        with nothing_to_look_at():
            headers = {"Upload-Offset": "0", "Content-Type": OCTETS, "Upload-Length": "3"}
            try:
                answer = await s.client.request(method, f"/files/{text}", headers=headers, body=b"abc")
            except ValueError:
                return  # no URL at all
            in_good_order(method, answer)
        if method == "OPTIONS":
            assert answer.status in (204, 404)
        elif method != "POST" or text.strip("/?#\t\r\n"):
            assert answer.status in (404, 405, 201)
        assert set(s.store.at.calls) <= {
            "get",
            "create",
            "acquire",
            "commit",
            "committed",
            "release",
            "renew",
        }
        if answer.status != 201:
            assert s.nothing_kept()


HEADERS = st.dictionaries(
    st.sampled_from(
        [
            *("Upload-Offset", "Upload-Length", "Upload-Metadata", "Upload-Defer-Length", "Upload-Concat"),
            *("Content-Type", "Content-Length", "Tus-Resumable", "X-HTTP-Method-Override", "Expect"),
            *("Transfer-Encoding", "Upload-Checksum", "Accept", "Cookie", "Range"),
        ]
    ),
    st.one_of(
        NUMBERS,
        METADATA,
        st.sampled_from(
            ["1.0.0", OCTETS, "100-continue", "chunked", "1", "10", "3", "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0="]
        ),
    ),
    max_size=7,
)


@QUICK
@given(
    method=st.sampled_from(
        ["POST", "HEAD", "PATCH", "DELETE", "GET", "PUT", "OPTIONS", "patch", "BREW", "\xff"]
    ),
    headers=HEADERS,
    body=st.one_of(st.none(), st.binary(max_size=12), st.lists(st.binary(max_size=5), max_size=4)),
    right=st.booleans(),
    here=st.booleans(),
)
async def test_any_request_is_answered_in_good_order(
    method: str, headers: dict[str, str], body: bytes | list[bytes] | None, right: bool, here: bool
) -> None:
    """`right`: the headers that the request needs are there beside those that it does not."""
    async with stage() as s:
        url = await s.client.create("/files", length=10)
        await s.client.append(url, b"abc")
        before = s.kept(url)
        target = url if here else "/files"
        if right:
            needed = {"Upload-Offset": "3", "Content-Type": OCTETS} if here else {"Upload-Length": "10"}
            headers = {**needed, **headers}
        with nothing_to_look_at():
            if "Transfer-Encoding" in headers:
                answer = await s.client.request(
                    method, target, headers=headers, body=body, content_length=None
                )
            else:
                answer = await s.client.request(method, target, headers=headers, body=body)
            effective = headers.get("X-HTTP-Method-Override", method).strip(" \t").upper()
            in_good_order(effective if method != "HEAD" else "HEAD", answer)
        after = s.kept(url)
        assert 0 <= after.offset <= 10
        if answer.status >= 400 and answer.status != 423:
            assert (after.state, after.offset) == (before.state, before.offset)
            assert {record.offset for key, record in s.store.records.items() if key != id_of(url)} <= {0}


@QUICK
@given(METADATA)
async def test_metadata_is_refused_or_comes_back_byte_for_byte(sent: str) -> None:
    async with stage() as s:
        with nothing_to_look_at():
            headers = {"Upload-Length": "5", "Upload-Metadata": sent}
            answer = await s.client.request("POST", "/files", headers=headers)
            in_good_order("POST", answer)
        if answer.status != 201:
            assert answer.status == 400
            assert s.nothing_kept()
            return
        head = await s.client.head(answer.headers["location"])
        # White space around a value is the server's to keep or to drop (RFC 9110, 5.5).
        assert head.headers.get("upload-metadata", "").strip(" \t") == sent.strip(" \t")
        upload = await s.upload(answer.headers["location"])
        assert upload.metadata.raw == head.headers.get("upload-metadata", "")
        assert [upload.metadata.bytes(key).decode("utf-8", "replace") for key in upload.metadata] == [
            *upload.metadata.values()
        ]
        assert upload.filename is None or "/" not in upload.filename


@QUICK
@given(
    body=st.lists(st.binary(max_size=6), max_size=4),
    told=st.one_of(st.none(), st.integers(0, 24)),
    at=st.integers(0, 12),
    cut_after=st.one_of(st.none(), st.integers(0, 12)),
)
async def test_whatever_a_body_says_of_its_length_the_upload_is_a_prefix(
    body: list[bytes], told: int | None, at: int, cut_after: int | None
) -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=10)
        await s.client.append(url, b"abc")
        with nothing_to_look_at():
            answer = await s.client.append(url, body, at=at, content_length=told, cut_after=cut_after)
            in_good_order("PATCH", answer)
        sent = b"".join(body)[:cut_after]
        offset = s.kept(url).offset
        assert 3 <= offset <= 10
        assert offset == 3 or at == 3
        if answer.status == 204:
            assert answer.headers["upload-offset"] == str(offset)
            assert offset == at + (0 if told == 0 else len(sent))
        await _fill(s, url, offset)
        assert await s.content(url) == (b"abc" + sent[: offset - 3]).ljust(10, b".")


async def _fill(s: Stage, url: str, offset: int) -> None:
    if offset < 10:
        assert (await s.client.append(url, b"." * (10 - offset), at=offset)).status == 204


@QUICK
@given(
    length=st.one_of(st.integers(0, 8).map(str), NUMBERS),
    body=st.lists(st.binary(max_size=4), max_size=3),
    told=st.one_of(st.none(), st.integers(0, 12)),
)
async def test_whatever_a_creation_says_of_its_body_the_answer_is_true(
    length: str, body: list[bytes], told: int | None
) -> None:
    async with stage(max_size=9) as s:
        sent = {"Upload-Length": length, "Content-Type": OCTETS}
        with nothing_to_look_at():
            answer = await s.client.request("POST", "/files", headers=sent, body=body, content_length=told)
            in_good_order("POST", answer)
        whole = b"".join(body)
        if answer.status != 201:
            assert all(record.offset == 0 for record in s.store.records.values())
            assert "location" not in answer.headers
            return
        record = s.kept(answer.headers["location"])
        assert record.length is not None
        assert record.offset == int(answer.headers["upload-offset"])
        assert record.offset == (0 if told == 0 else min(len(whole), record.length))
