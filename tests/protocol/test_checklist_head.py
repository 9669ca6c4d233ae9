"""TUS 1.0.0, OPTIONS and HEAD: the lines of the conformance checklist that need no I/O.

The number in the name of a test is that of its line.
"""

from dataclasses import replace
from datetime import datetime

import pytest

from tests.protocol.samples import (
    ALL,
    HOUR,
    ID,
    MAX_SIZE,
    NONE,
    NOW,
    OUTCOMES,
    ask,
    fields_of,
    head_of,
    patch_of,
    record_in,
)
from tusserve.protocol.commands import Create
from tusserve.protocol.http import Head
from tusserve.protocol.outcomes import Appended, Code, Inspected, Outcome, Refused, RefusedByHost
from tusserve.protocol.records import Kind, Reason, Refusal, UploadRecord, UploadState
from tusserve.protocol.tus1 import Operation, Target, Tus1

RECEIVING, WAITING, FINISHING, COMPLETE, ENDING, GONE = UploadState

INSPECTING = [outcome for outcome in OUTCOMES if isinstance(outcome, Inspected | Refused | RefusedByHost)]


# ---- OPTIONS


@pytest.mark.parametrize("codec", [ALL, NONE])
def test_a09_options_is_204_with_the_versions(codec: Tus1) -> None:
    reply = codec.capabilities()
    assert reply.status == 204
    assert reply.body == b""
    assert fields_of(reply)["tus-version"] == "1.0.0"
    assert "content-length" not in fields_of(reply), "RFC 9110, 8.6: never with 204"


def test_a10_extensions_are_listed_in_our_order_or_not_at_all() -> None:
    assert "tus-extension" not in fields_of(NONE.capabilities())
    assert fields_of(ALL.capabilities())["tus-extension"] == (
        "creation,creation-with-upload,creation-defer-length,expiration,checksum,termination,"
        "concatenation,concatenation-unfinished"
    )
    some = Tus1(extensions=frozenset({"termination", "expiration"}), max_size=1)
    assert fields_of(some.capabilities())["tus-extension"] == "expiration,termination"


@pytest.mark.parametrize(
    "extensions",
    [
        {"checksum-trailer"},
        {"concatenation"},
        {"creation", "concatenation-unfinished"},
        {"Creation"},
        {"creation-defer-length"},
    ],
)
def test_a10_what_does_not_work_cannot_be_announced(extensions: set[str]) -> None:
    with pytest.raises(ValueError, match=r"extension|need"):
        Tus1(extensions=frozenset(extensions), max_size=1)


def test_a11_the_limit_is_told() -> None:
    assert fields_of(ALL.capabilities())["tus-max-size"] == str(MAX_SIZE)


def test_a12_the_algorithms_are_announced_with_the_extension() -> None:
    assert fields_of(ALL.capabilities())["tus-checksum-algorithm"] == "sha1,sha256,sha512,md5,crc32"
    assert "tus-checksum-algorithm" not in fields_of(NONE.capabilities())


@pytest.mark.parametrize("id", [None, ID, "unknown", "..", "%2e%2e/%00", "x" * 9999, ""])
def test_a13_options_works_on_any_path_and_names_no_upload(id: str | None) -> None:
    assert ALL.route(Head.of("OPTIONS", []), id) == Target(Operation.CAPABILITIES, None)


# ---- HEAD


@pytest.mark.parametrize(
    ("record", "offset"),
    [
        (record_in(RECEIVING, offset=0), "0"),
        (record_in(RECEIVING), "40"),
        (record_in(RECEIVING, length=None), "40"),
        (record_in(COMPLETE), "100"),
        (record_in(COMPLETE, length=0), "0"),
    ],
)
def test_a14_the_offset_is_always_told(record: UploadRecord, offset: str) -> None:
    assert fields_of(ask(head_of("HEAD"), record))["upload-offset"] == offset


def test_a15_the_length_is_told_or_that_it_is_not_known() -> None:
    known = fields_of(ask(head_of("HEAD"), record_in(RECEIVING)))
    assert known["upload-length"] == "100"
    assert "upload-defer-length" not in known
    unknown = fields_of(ask(head_of("HEAD"), record_in(RECEIVING, length=None)))
    assert unknown["upload-defer-length"] == "1"
    assert "upload-length" not in unknown


@pytest.mark.parametrize("outcome", INSPECTING)
def test_a16_no_answer_to_head_may_be_stored(outcome: Outcome) -> None:
    assert fields_of(ALL.render(outcome, Operation.INSPECT, id=ID))["cache-control"] == "no-store"


def test_a16_no_error_may_be_stored() -> None:
    for code in Code:
        for operation in (Operation.CREATE, Operation.APPEND, Operation.TERMINATE, None):
            reply = ALL.render(Refused(code=code), operation, id=ID)
            assert fields_of(reply)["cache-control"] == "no-store"


@pytest.mark.parametrize("state", [RECEIVING, WAITING, COMPLETE])
def test_a17_head_is_200(state: UploadState) -> None:
    assert ask(head_of("HEAD"), record_in(state)).status == 200


@pytest.mark.parametrize(
    ("record", "status"),
    [
        (None, 404),
        (record_in(GONE), 410),
        (record_in(ENDING), 410),
        (record_in(RECEIVING, expires_at=NOW), 410),
        (record_in(GONE, reason=Reason.REJECTED), 410),
    ],
)
def test_a18_what_is_not_there_has_no_offset(record: UploadRecord | None, status: int) -> None:
    reply = ask(head_of("HEAD"), record)
    assert reply.status == status
    assert "upload-offset" not in fields_of(reply)


@pytest.mark.parametrize("code", Code)
def test_a18_a_refused_head_tells_no_offset_whatever_the_reason(code: Code) -> None:
    reply = ALL.render(Refused(code=code, offset=100), Operation.INSPECT, id=ID)
    assert "upload-offset" not in fields_of(reply)


@pytest.mark.parametrize("id", ["..", ".", "a.b", "a/b", "a%2Fb", "%00", "a b", "", "\xe9", "x" * 129])
@pytest.mark.parametrize("method", ["HEAD", "PATCH", "DELETE"])
def test_a18_what_is_no_id_is_not_found(method: str, id: str) -> None:
    assert ALL.route(head_of(method), id) == Refused(code=Code.UPLOAD_NOT_FOUND)
    reply = ask(head_of(method), id=id)
    assert reply.status == 404
    assert reply.problem is None or reply.problem.upload_id is None


@pytest.mark.parametrize(
    "raw",
    ["filename d29ybGQ=,b", "z YQ==,a ,m Yg==", "a YQ==, b YQ==", "a\t,b"],
)
def test_a19_metadata_comes_back_byte_for_byte(raw: str) -> None:
    command = ALL.read(
        head_of("POST", ("Upload-Length", "5"), ("Upload-Metadata", raw)), Target(Operation.CREATE, None)
    )
    assert isinstance(command, Create)
    record = replace(record_in(RECEIVING), metadata=command.metadata)
    assert fields_of(ask(head_of("HEAD"), record))["upload-metadata"] == raw


@pytest.mark.parametrize("metadata", [None, ""])
def test_a19_no_metadata_is_no_header(metadata: str | None) -> None:
    reply = ask(head_of("HEAD"), record_in(RECEIVING, metadata=metadata))
    assert "upload-metadata" not in fields_of(reply)


@pytest.mark.parametrize("outcome", INSPECTING)
def test_a21_an_answer_to_head_has_no_body(outcome: Outcome) -> None:
    reply = ALL.render(outcome, Operation.INSPECT, id=ID)
    assert reply.body == b""
    assert fields_of(reply)["content-length"] == "0"
    assert reply.problem is None, "nor is there anything for a host to say in its own words"


@pytest.mark.parametrize("head", [head_of("POST", ("X-HTTP-Method-Override", "HEAD")), head_of("HEAD")])
def test_a21_nor_has_one_that_was_refused_before_it_was_read(head: Head) -> None:
    assert ask(head, id=None).body == b""
    assert ask(head, id="..").body == b""
    unversioned = Head(head.method, {k: v for k, v in head.headers.items() if k != "tus-resumable"})
    assert ask(unversioned).body == b""


@pytest.mark.parametrize("status", [500, 502, 503, 507])
def test_a23_head_is_never_5xx_because_clients_then_start_again_from_nothing(status: int) -> None:
    for code in Code:
        reply = ALL.render(Refused(code=code), Operation.INSPECT, id=ID)
        assert reply.status < 500
        if ALL.render(Refused(code=code), Operation.APPEND, id=ID).status >= 500:
            assert reply.status == 423
            assert int(fields_of(reply)["retry-after"]) > 0
    reply = ALL.render(RefusedByHost(refusal=Refusal(status, "c", "m")), Operation.INSPECT, id=ID)
    assert reply.status == 423
    assert int(fields_of(reply)["retry-after"]) > 0


@pytest.mark.parametrize(("held", "due_at"), [(True, NOW - HOUR), (False, NOW + HOUR)])
@pytest.mark.parametrize("head", [head_of("HEAD"), patch_of(100, 0), patch_of(0, 5), head_of("DELETE")])
def test_a77_while_it_finishes_an_upload_is_locked_and_has_no_offset(
    head: Head, held: bool, due_at: datetime
) -> None:
    reply = ask(head, record_in(FINISHING, due_at=due_at), held=held)
    assert reply.status == 423
    assert int(fields_of(reply)["retry-after"]) > 0
    assert "upload-offset" not in fields_of(reply)


@pytest.mark.parametrize("outcome", [Inspected(record_in(FINISHING)), Appended(record_in(FINISHING))])
def test_a77_no_outcome_can_tell_the_offset_of_an_upload_that_is_not_finished(outcome: Outcome) -> None:
    operation = Operation.INSPECT if isinstance(outcome, Inspected) else Operation.APPEND
    reply = ALL.render(outcome, operation, id=ID)
    assert reply.status == 423
    assert "upload-offset" not in fields_of(reply)


@pytest.mark.parametrize("length", [100, None])
def test_a77_a_concatenation_that_waits_has_no_offset(length: int | None) -> None:
    fields = fields_of(ask(head_of("HEAD"), record_in(WAITING, length=length)))
    assert "upload-offset" not in fields
    assert "upload-defer-length" not in fields
    assert fields.get("upload-length") == (None if length is None else "100")
    done = fields_of(ask(head_of("HEAD"), record_in(COMPLETE, kind=Kind.FINAL)))
    assert (done["upload-offset"], done["upload-length"]) == ("100", "100")
