"""TUS 1.0.0, PATCH: the lines of the conformance checklist that need no I/O.

The number in the name of a test is that of its line.
"""

import pytest

from tests.protocol.samples import (
    ALL,
    ID,
    NOW,
    OCTETS,
    ask,
    code_of,
    fields_of,
    head_of,
    patch_of,
    record_in,
)
from tusserve.protocol.commands import Append, Ends
from tusserve.protocol.decide import BodyEnd, Receive, ReportIfEmpty, plan
from tusserve.protocol.http import Head
from tusserve.protocol.outcomes import Code, Refused
from tusserve.protocol.records import UploadRecord, UploadState
from tusserve.protocol.tus1 import Operation, Target

RECEIVING, FINISHING, COMPLETE = UploadState.RECEIVING, UploadState.FINISHING, UploadState.COMPLETE

KNOWN = record_in(RECEIVING)
DEFERRED = record_in(RECEIVING, length=None)
DONE = record_in(COMPLETE)


def append_of(head: Head) -> Append:
    command = ALL.read(head, Target(Operation.APPEND, ID))
    assert isinstance(command, Append)
    return command


@pytest.mark.parametrize(
    "types",
    [
        [],
        [""],
        ["text/plain"],
        ["application/octet-stream"],
        ["application/offset+octet-streams"],
        ["application/partial-upload"],
        ["application/offset+octet-stream, text/plain"],
        ["application/offset+octet-stream"] * 2,
        ["application/offset+octet-stream;a=b", "text/plain"],
        ["\xff"],
    ],
)
def test_a24_another_content_type_is_415(types: list[str]) -> None:
    head = head_of("PATCH", ("Upload-Offset", "40"), *(("Content-Type", told) for told in types))
    reply = ask(head, KNOWN)
    assert (reply.status, code_of(reply)) == (415, "unsupported_content_type")
    assert fields_of(reply)["accept-patch"] == "application/offset+octet-stream"


def test_a25_without_an_offset_it_is_400() -> None:
    reply = ask(head_of("PATCH", OCTETS), KNOWN)
    assert (reply.status, code_of(reply)) == (400, "invalid_offset")


@pytest.mark.parametrize("offset", [0, 39, 41, 99])
@pytest.mark.parametrize("content_length", [0, 1, None])
def test_a26_another_offset_is_409_and_the_right_one_is_told(offset: int, content_length: int | None) -> None:
    reply = ask(patch_of(offset, content_length), KNOWN)
    assert (reply.status, code_of(reply)) == (409, "offset_mismatch")
    assert fields_of(reply)["upload-offset"] == "40"


@pytest.mark.parametrize("content_length", [30, None])
def test_a27_success_is_204_with_the_new_offset(content_length: int | None) -> None:
    reply = ask(patch_of(40, content_length), KNOWN, kept=70)
    assert reply.status == 204
    assert fields_of(reply)["upload-offset"] == "70"
    assert reply.body == b""
    assert "content-length" not in fields_of(reply)


def test_a28_an_unknown_upload_is_404() -> None:
    reply = ask(patch_of(0, 1), None)
    assert (reply.status, code_of(reply)) == (404, "upload_not_found")
    assert "upload-offset" not in fields_of(reply)


@pytest.mark.parametrize("end", [BodyEnd.CUT, BodyEnd.PREEMPTED])
@pytest.mark.parametrize(("kept", "told"), [(None, "40"), (41, "41"), (99, "99")])
def test_a29_what_was_kept_of_a_body_that_broke_off_is_told(
    end: BodyEnd, kept: int | None, told: str
) -> None:
    reply = ask(patch_of(40, 60), KNOWN, end=end, kept=kept)
    assert (reply.status, code_of(reply)) == (423, "upload_interrupted")
    assert fields_of(reply)["upload-offset"] == told
    assert int(fields_of(reply)["retry-after"]) > 0


def test_a30_a_body_that_went_silent_may_go_on_later() -> None:
    reply = ask(patch_of(40, 60), KNOWN, end=BodyEnd.STALLED, kept=41)
    assert (reply.status, code_of(reply)) == (423, "upload_interrupted")
    assert fields_of(reply)["upload-offset"] == "41", "408 is for ever to tus-js-client"


@pytest.mark.parametrize(("offset", "content_length"), [(40, 61), (40, 2**63 - 1), (99, 2)])
def test_a31_more_than_the_length_is_413_before_a_byte_is_read(offset: int, content_length: int) -> None:
    reply = ask(patch_of(offset, content_length), KNOWN)
    assert (reply.status, code_of(reply)) == (413, "body_too_long")
    assert fields_of(reply)["upload-offset"] == "40"


def test_a31_a_body_that_turns_out_too_long_is_413_and_its_bytes_do_not_count() -> None:
    reply = ask(patch_of(40, None), KNOWN, end=BodyEnd.OVERRAN)
    assert (reply.status, code_of(reply)) == (413, "body_too_long")
    assert fields_of(reply)["upload-offset"] == "40"


@pytest.mark.parametrize(
    ("head", "content_length"),
    [
        (patch_of(0, 7), 7),
        (patch_of(0, None), None),
        (head_of("PATCH", OCTETS, ("Upload-Offset", "0")), 0),
        (head_of("PATCH", OCTETS, ("Upload-Offset", "0"), http_version="2"), None),
        (head_of("PATCH", OCTETS, ("Upload-Offset", "0"), ("Content-Length", "7"), http_version="2"), 7),
    ],
)
def test_a32_a_body_is_announced_by_its_length_or_not_at_all(head: Head, content_length: int | None) -> None:
    assert append_of(head) == Append(id=ID, offset=0, content_length=content_length, ends=Ends.AT_LENGTH)


@pytest.mark.parametrize("content_length", ["", "-1", "+5", "5_0", "5,5", "1.5", str(2**63), "9" * 99])
def test_a32_a_length_that_is_no_number_is_400(content_length: str) -> None:
    reply = ask(patch_of(40, content_length), KNOWN)
    assert (reply.status, code_of(reply)) == (400, "invalid_content_length")


@pytest.mark.parametrize("more", [("Transfer-Encoding", "chunked"), ("Content-Length", "5")])
def test_a32_two_statements_of_a_length_are_400(more: tuple[str, str]) -> None:
    reply = ask(patch_of(40, 5, more), KNOWN)
    assert (reply.status, code_of(reply)) == (400, "invalid_content_length")


@pytest.mark.parametrize("record", [KNOWN, DEFERRED])
@pytest.mark.parametrize("content_length", [0, None])
def test_a33_an_empty_body_at_the_offset_changes_nothing(
    record: UploadRecord, content_length: int | None
) -> None:
    reply = ask(patch_of(40, content_length), record)
    assert reply.status == 204
    assert fields_of(reply)["upload-offset"] == "40"


def test_a35_an_empty_body_at_the_end_of_a_complete_upload_is_204() -> None:
    reply = ask(patch_of(100, 0), DONE)
    assert reply.status == 204
    assert fields_of(reply)["upload-offset"] == "100"
    assert plan(DONE, append_of(patch_of(100, None)), NOW, held=False) == ReportIfEmpty()


@pytest.mark.parametrize("offset", [0, 100])
def test_a35_bytes_for_a_complete_upload_are_403(offset: int) -> None:
    reply = ask(patch_of(offset, 5), DONE)
    assert (reply.status, code_of(reply)) == (403, "upload_complete")


@pytest.mark.parametrize("content_length", [0, None])
def test_a35_another_offset_of_a_complete_upload_is_409(content_length: int | None) -> None:
    reply = ask(patch_of(40, content_length), DONE)
    assert (reply.status, code_of(reply)) == (409, "offset_mismatch")
    assert fields_of(reply)["upload-offset"] == "100"


def test_a37_only_a_request_with_no_fault_gets_to_receive() -> None:
    """A refusal is there before the body: none of these has a command, or its plan is to refuse."""
    flawless = patch_of(40, 60)
    assert plan(KNOWN, append_of(flawless), NOW, held=False) == Receive(60)
    for name in ("tus-resumable", "content-type", "upload-offset"):
        fields = {other: values for other, values in flawless.headers.items() if other != name}
        head = Head("PATCH", fields)
        target = ALL.route(head, ID)
        assert isinstance(target, Refused) or isinstance(ALL.read(head, target), Refused)
    for record in (None, DONE, record_in(RECEIVING, expires_at=NOW), record_in(UploadState.GONE)):
        assert isinstance(plan(record, append_of(flawless), NOW, held=False), Refused)


# ---- the length of an upload that was not known at creation


def test_a48_bytes_may_come_before_the_length_is_known() -> None:
    reply = ask(patch_of(40, 30), DEFERRED, kept=70)
    assert (reply.status, fields_of(reply)["upload-offset"]) == (204, "70")


@pytest.mark.parametrize("text", ["41", "70", "1000"])
def test_a48_the_length_may_come_with_any_patch(text: str) -> None:
    reply = ask(patch_of(40, 0, ("Upload-Length", text)), DEFERRED)
    assert reply.status == 204
    assert append_of(patch_of(40, 0, ("Upload-Length", text))).length == int(text)


def test_a48_once_known_it_cannot_change() -> None:
    assert ask(patch_of(40, 1, ("Upload-Length", "100")), KNOWN, kept=41).status == 204
    for other in ("99", "101"):
        reply = ask(patch_of(40, 1, ("Upload-Length", other)), KNOWN)
        assert (reply.status, code_of(reply)) == (400, "length_changed")


def test_a48_it_is_no_less_than_what_is_there_and_no_more_than_is_allowed() -> None:
    short = ask(patch_of(40, 0, ("Upload-Length", "39")), DEFERRED)
    assert (short.status, code_of(short)) == (400, "invalid_length")
    long = ask(patch_of(40, 0, ("Upload-Length", "1001")), DEFERRED)
    assert (long.status, code_of(long)) == (413, "upload_too_large")


def test_a50_without_a_known_length_the_limit_holds_for_each_patch() -> None:
    reply = ask(patch_of(40, 961), DEFERRED)
    assert (reply.status, code_of(reply)) == (413, "upload_too_large")
    reply = ask(patch_of(40, None), DEFERRED, end=BodyEnd.OVERRAN)
    assert (reply.status, code_of(reply)) == (413, "body_too_long")
    assert ask(patch_of(40, 960), DEFERRED, kept=1000).status == 204


def test_what_is_locked_may_be_tried_again() -> None:
    reply = ALL.render(Refused(code=Code.UPLOAD_LOCKED), Operation.APPEND, id=ID)
    assert reply.status == 423
    assert int(fields_of(reply)["retry-after"]) > 0
