"""TUS 1.0.0, expiration and termination: the lines of the conformance checklist that need no I/O.

The number in the name of a test is that of its line.
"""

import re
from datetime import UTC, datetime

import pytest

from tests.protocol.samples import (
    ALL,
    EXPIRY,
    HOUR,
    ID,
    MAX_SIZE,
    NOW,
    OUTCOMES,
    ask,
    code_of,
    fields_of,
    head_of,
    patch_of,
    record_in,
)
from tusserve.protocol.decide import BodyEnd
from tusserve.protocol.http import Head
from tusserve.protocol.life import Chore, chore, complete, end, finish
from tusserve.protocol.outcomes import (
    Appended,
    Code,
    Created,
    Inspected,
    Outcome,
    Refused,
    RefusedByHost,
    Terminated,
)
from tusserve.protocol.records import Reason, Refusal, UploadRecord, UploadState
from tusserve.protocol.tus1 import EXTENSIONS, Operation, Tus1

RECEIVING, WAITING, FINISHING, COMPLETE, ENDING, GONE = UploadState

IDEMPOTENT = Tus1(extensions=frozenset(EXTENSIONS), max_size=MAX_SIZE, idempotent_delete=True)
IMF_FIXDATE = re.compile(r"[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT")
KNOWN = record_in(RECEIVING)
DELETE = head_of("DELETE")


def test_a56_expiration_is_announced_if_it_is_on() -> None:
    assert "expiration" in fields_of(ALL.capabilities())["tus-extension"].split(",")


@pytest.mark.parametrize(
    ("head", "end", "status"),
    [
        (patch_of(40, 10), BodyEnd.WHOLE, 204),
        (patch_of(40, 0), BodyEnd.WHOLE, 204),
        (patch_of(40, None), BodyEnd.CUT, 423),
        (patch_of(40, None), BodyEnd.OVERRAN, 413),
        (patch_of(7, 1), BodyEnd.WHOLE, 409),
        (patch_of(40, 99), BodyEnd.WHOLE, 413),
    ],
)
def test_a57_the_date_is_on_every_answer_to_patch(head: Head, end: BodyEnd, status: int) -> None:
    reply = ask(head, KNOWN, end=end)
    assert reply.status == status
    assert IMF_FIXDATE.fullmatch(fields_of(reply)["upload-expires"])


@pytest.mark.parametrize("state", [RECEIVING, WAITING])
def test_a57_the_date_is_told_at_creation_and_by_head(state: UploadState) -> None:
    record = record_in(state)
    outcomes: list[tuple[Outcome, Operation]] = [
        (Created(record=record), Operation.CREATE),
        (Inspected(record), Operation.INSPECT),
        (Appended(record), Operation.APPEND),
    ]
    for outcome, operation in outcomes:
        fields = fields_of(ALL.render(outcome, operation, location=f"/files/{ID}"))
        assert fields["upload-expires"] == "Wed, 04 Mar 2026 06:06:07 GMT"


@pytest.mark.parametrize(
    "record", [record_in(RECEIVING, expires_at=None), record_in(FINISHING), record_in(COMPLETE)]
)
def test_a57_what_does_not_expire_has_no_date(record: UploadRecord) -> None:
    for outcome in (Created(record=record), Inspected(record), Appended(record)):
        reply = ALL.render(outcome, Operation.INSPECT, location=f"/files/{ID}")
        assert "upload-expires" not in fields_of(reply)


@pytest.mark.parametrize("outcome", [o for o in OUTCOMES if isinstance(o, Refused | RefusedByHost)])
@pytest.mark.parametrize("operation", Operation)
def test_a57_the_date_does_not_tell_strangers_that_there_is_an_upload(
    outcome: Outcome, operation: Operation
) -> None:
    """What is refused before it is known who asks looks the same, whether there is an upload or not."""
    told = ALL.render(outcome, operation, id=ID, record=KNOWN)
    if told.status not in (409, 413, 416, 423, 460):
        assert told == ALL.render(outcome, operation, id=ID)


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC), "Sun, 06 Nov 1994 08:49:37 GMT"),
        (datetime(2028, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC), "Tue, 29 Feb 2028 23:59:59 GMT"),
    ],
)
def test_a58_the_date_is_an_imf_fixdate(moment: datetime, text: str) -> None:
    reply = ALL.render(Appended(record_in(RECEIVING, expires_at=moment)), Operation.APPEND)
    assert fields_of(reply)["upload-expires"] == text


@pytest.mark.parametrize("head", [head_of("HEAD"), patch_of(40, 1), DELETE])
@pytest.mark.parametrize(
    "record",
    [
        record_in(RECEIVING, expires_at=NOW),
        record_in(ENDING, reason=Reason.EXPIRED),
        record_in(GONE, reason=Reason.EXPIRED),
    ],
)
def test_a59_an_expired_upload_is_410_swept_or_not(head: Head, record: UploadRecord) -> None:
    reply = ask(head, record)
    assert reply.status == 410
    assert reply.body == b"" or code_of(reply) == "upload_expired"
    assert "upload-expires" not in fields_of(reply)


def test_a59_while_somebody_writes_it_has_not_expired() -> None:
    assert ask(head_of("HEAD"), record_in(RECEIVING, expires_at=NOW), held=True).status == 200


def test_a60_the_date_moves_with_the_bytes() -> None:
    late = record_in(RECEIVING, expires_at=NOW + EXPIRY.initial)
    moved = fields_of(ask(patch_of(40, 1), late, kept=41))["upload-expires"]
    assert moved == "Fri, 06 Mar 2026 05:06:07 GMT", "two days on, which is earlier than it was"
    stayed = fields_of(ask(patch_of(40, 0), late))["upload-expires"]
    assert stayed == "Wed, 11 Mar 2026 05:06:07 GMT"


def test_a61_a_finished_upload_does_not_expire() -> None:
    finishing = finish(record_in(RECEIVING, offset=100, expires_at=NOW), NOW)
    assert chore(finishing, NOW + 1000 * HOUR) is Chore.FINISH
    done = complete(finishing, "sealed", NOW, EXPIRY)
    assert chore(done, NOW + 1000 * HOUR) is None
    assert ask(head_of("HEAD"), done).status == 200


# ---- termination


@pytest.mark.parametrize("state", [RECEIVING, WAITING, COMPLETE])
def test_a70_delete_is_204_for_finished_uploads_too(state: UploadState) -> None:
    reply = ask(DELETE, record_in(state))
    assert reply.status == 204
    assert reply.headers == (("tus-resumable", "1.0.0"),)


@pytest.mark.parametrize("head", [head_of("HEAD"), patch_of(40, 1), DELETE])
@pytest.mark.parametrize("state", [ENDING, GONE])
def test_a71_afterwards_every_request_is_410(head: Head, state: UploadState) -> None:
    reply = ask(head, record_in(state))
    assert reply.status == 410
    assert reply.body == b"" or code_of(reply) == "upload_terminated"


def test_a71_a_rejected_upload_is_410_in_the_words_of_the_hook() -> None:
    refusal = Refusal(415, "not_a_film", "Only films.")
    reply = ask(patch_of(40, 1), record_in(GONE, reason=Reason.REJECTED, refusal=refusal))
    assert (reply.status, code_of(reply)) == (410, "not_a_film")
    assert reply.problem is not None
    assert (reply.problem.message, reply.problem.upload_id) == ("Only films.", ID)


def test_a72_a_patch_that_delete_interrupted_is_410_and_cannot_bring_the_upload_back() -> None:
    ended = end(KNOWN, Reason.CLIENT, NOW)
    reply = ask(patch_of(40, 1), ended)
    assert (reply.status, code_of(reply)) == (410, "upload_terminated")
    with pytest.raises(AssertionError):
        finish(ended, NOW)


def test_a72_termination_is_announced_where_delete_works() -> None:
    without = Tus1(extensions=frozenset({"creation"}), max_size=1)
    assert "termination" in fields_of(ALL.capabilities())["tus-extension"]
    assert ask(DELETE, KNOWN, codec=without).status == 405


def test_a73_delete_of_an_unknown_upload_is_404() -> None:
    reply = ask(DELETE, None)
    assert (reply.status, code_of(reply)) == (404, "upload_not_found")


@pytest.mark.parametrize(
    "record", [None, record_in(GONE), record_in(ENDING), record_in(RECEIVING, expires_at=NOW), KNOWN]
)
@pytest.mark.parametrize("id", [ID, ".."])
def test_a73_idempotent_it_is_204_whatever_there_is(record: UploadRecord | None, id: str) -> None:
    assert ask(DELETE, record, id=id, codec=IDEMPOTENT) == ALL.render(Terminated(), Operation.TERMINATE)


@pytest.mark.parametrize("head", [head_of("HEAD"), patch_of(40, 1)])
def test_a73_idempotent_delete_is_for_delete_only(head: Head) -> None:
    assert ask(head, record_in(GONE), codec=IDEMPOTENT).status == 410
    assert ask(head, None, codec=IDEMPOTENT).status == 404


@pytest.mark.parametrize("code", [Code.UPLOAD_LOCKED, Code.STORE_UNAVAILABLE, Code.UPLOAD_FINISHING])
def test_a73_idempotent_delete_hides_no_failure(code: Code) -> None:
    assert IDEMPOTENT.render(Refused(code=code), Operation.TERMINATE, id=ID).status in (423, 503)
