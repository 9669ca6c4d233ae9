"""What `plan` decides: every state with every command, and the order of its checks."""

from itertools import product

import pytest

from tests.protocol.samples import HOUR, ID, MAX_SIZE, NOW, POLICY, record_in
from tusserve.protocol.commands import Append, Command, Create, Ends, Inspect, Terminate
from tusserve.protocol.decide import End, Plan, Policy, Receive, plan, plan_creation, plan_download
from tusserve.protocol.outcomes import Refused
from tusserve.protocol.records import Kind, Reason, Refusal, UploadRecord, UploadState

RECEIVING, WAITING, FINISHING, COMPLETE, ENDING, GONE = UploadState

COMMANDS: dict[str, Command] = {
    "inspect": Inspect(id=ID),
    "append": Append(id=ID, offset=40, content_length=10),
    "terminate": Terminate(id=ID),
}

# state, whether others hold it, it is due, it is past its expiry (None: makes no difference)
TABLE: dict[tuple[UploadState, bool | None, bool | None, bool | None], tuple[str, str, str]] = {
    (RECEIVING, None, None, False): ("Report", "Receive", "End"),
    (RECEIVING, True, None, True): ("Report", "Receive", "End"),
    (RECEIVING, False, None, True): ("upload_expired", "upload_expired", "upload_expired"),
    (WAITING, None, None, False): ("Report", "upload_final", "End"),
    (WAITING, True, None, True): ("Report", "upload_final", "End"),
    (WAITING, False, None, True): ("upload_expired", "upload_expired", "upload_expired"),
    (FINISHING, True, None, None): ("upload_finishing", "upload_finishing", "upload_finishing"),
    (FINISHING, False, False, None): ("upload_finishing", "upload_finishing", "upload_finishing"),
    (FINISHING, False, True, None): ("Finish", "Finish", "Finish"),
    (COMPLETE, None, None, None): ("Report", "upload_complete", "End"),
    (ENDING, None, None, None): ("upload_terminated", "upload_terminated", "upload_terminated"),
    (GONE, None, None, None): ("upload_terminated", "upload_terminated", "upload_terminated"),
}


def word(planned: Plan) -> str:
    return planned.code if isinstance(planned, Refused) else type(planned).__name__


@pytest.mark.parametrize(("state", "held", "due", "expired"), [*product(UploadState, *[(False, True)] * 3)])
def test_every_state_with_every_command(state: UploadState, held: bool, due: bool, expired: bool) -> None:
    facts = (held, due, expired)
    fitting = [
        words
        for (of, *conditions), words in TABLE.items()
        if of is state and all(want in (None, fact) for want, fact in zip(conditions, facts, strict=True))
    ]
    assert len(fitting) == 1, "the table has exactly one row for each case"
    record = record_in(state, due_at=NOW if due else NOW + HOUR, expires_at=NOW if expired else NOW + HOUR)
    planned = tuple(word(plan(record, command, NOW, held=held)) for command in COMMANDS.values())
    assert planned == fitting[0]


@pytest.mark.parametrize(("state", "held", "expired"), [*product(UploadState, *[(False, True)] * 2)])
def test_only_what_is_complete_is_given_out(state: UploadState, held: bool, expired: bool) -> None:
    record = record_in(state, expires_at=NOW if expired else NOW + HOUR)
    refused = plan_download(record, NOW, held=held)
    if state is COMPLETE:
        assert refused is None
        return
    assert refused is not None
    if state in (ENDING, GONE):
        assert refused.code == "upload_terminated"
    elif state in (RECEIVING, WAITING) and expired and not held:
        assert refused.code == "upload_expired"
    else:
        assert refused.code == "upload_not_complete"


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("held", [False, True])
def test_an_upload_that_is_not_there_is_not_found(command: Command, held: bool) -> None:
    assert word(plan(None, command, NOW, held=held)) == "upload_not_found"


def test_a_creation_meets_no_record() -> None:
    with pytest.raises(AssertionError):
        plan(record_in(RECEIVING), Create(length=1), NOW, held=False)


@pytest.mark.parametrize("state", [ENDING, GONE])
@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (Reason.CLIENT, "upload_terminated"),
        (Reason.HOST, "upload_terminated"),
        (Reason.EXPIRED, "upload_expired"),
        (Reason.REJECTED, "upload_rejected"),
        (Reason.LOST, "upload_lost"),
    ],
)
def test_an_ended_upload_says_why_it_went(state: UploadState, reason: Reason, code: str) -> None:
    for command in COMMANDS.values():
        assert word(plan(record_in(state, reason=reason), command, NOW, held=False)) == code
    assert set(Reason) == {Reason.CLIENT, Reason.HOST, Reason.EXPIRED, Reason.REJECTED, Reason.LOST}


@pytest.mark.parametrize("state", [ENDING, GONE])
def test_a_rejected_upload_keeps_the_words_of_the_hook(state: UploadState) -> None:
    refusal = Refusal(415, "not_a_film", "Only films.")
    record = record_in(state, reason=Reason.REJECTED, refusal=refusal)
    planned = plan(record, Inspect(id=ID), NOW, held=False)
    assert isinstance(planned, Refused)
    assert planned.refusal == refusal


def test_an_upload_without_expiry_never_expires() -> None:
    record = record_in(RECEIVING, expires_at=None, due_at=None)
    assert word(plan(record, Inspect(id=ID), NOW + 10_000 * HOUR, held=False)) == "Report"


def test_finishing_says_when_to_ask_again() -> None:
    for due_in, seconds in ((0.001, 1), (1, 1), (1.2, 2), (90, 90), (-50, 1)):
        record = record_in(FINISHING, due_at=NOW + due_in * HOUR / 3600)
        planned = plan(record, Inspect(id=ID), NOW, held=True)
        assert isinstance(planned, Refused)
        assert planned.retry_after == seconds
        assert planned.offset is None, "a client that reads offset == length reports success"


def append(
    offset: int,
    content_length: int | None,
    *,
    length: int | None = None,
    ends: Ends = Ends.AT_LENGTH,
) -> Append:
    return Append(id=ID, offset=offset, content_length=content_length, length=length, ends=ends)


KNOWN = record_in(RECEIVING)
DEFERRED = record_in(RECEIVING, length=None)
ALL_THERE = record_in(RECEIVING, offset=100)
"""Where a client has yet to say that this is the end."""
DONE = record_in(COMPLETE)


@pytest.mark.parametrize(
    ("record", "command", "expected"),
    [
        # room is what the length or the limit leaves
        (KNOWN, append(40, 60), "Receive"),
        (KNOWN, append(40, None), "Receive"),
        (KNOWN, append(40, 61), "body_too_long"),
        (KNOWN, append(40, 0), "Report"),
        (KNOWN, append(40, 0, length=100), "Receive"),
        (KNOWN, append(39, 1), "offset_mismatch"),
        (KNOWN, append(39, 0), "offset_mismatch"),
        (KNOWN, append(41, 1), "offset_mismatch"),
        (KNOWN, append(0, None), "offset_mismatch"),
        (DEFERRED, append(40, 960), "Receive"),
        (DEFERRED, append(40, 961), "upload_too_large"),
        (DEFERRED, append(40, None), "Receive"),
        # the length is declared
        (KNOWN, append(40, 1, length=100), "Receive"),
        (KNOWN, append(40, 1, length=99), "length_changed"),
        (KNOWN, append(40, 1, length=101), "length_changed"),
        (DEFERRED, append(40, 10, length=50), "Receive"),
        (DEFERRED, append(40, 11, length=50), "body_too_long"),
        (DEFERRED, append(40, 0, length=40), "Receive"),
        (DEFERRED, append(40, 0, length=39), "invalid_length"),
        (DEFERRED, append(40, 0, length=MAX_SIZE), "Receive"),
        (DEFERRED, append(40, 0, length=MAX_SIZE + 1), "upload_too_large"),
        # the client says where it ends
        (KNOWN, append(40, 60, ends=Ends.YES), "Receive"),
        (KNOWN, append(40, 59, ends=Ends.YES), "length_contradicted"),
        (KNOWN, append(40, 0, ends=Ends.YES), "length_contradicted"),
        (KNOWN, append(40, 61, ends=Ends.YES), "body_too_long"),
        (KNOWN, append(40, None, ends=Ends.YES), "Receive"),
        (KNOWN, append(39, 1, ends=Ends.YES), "offset_mismatch"),
        (KNOWN, append(40, 60, ends=Ends.NO), "Receive"),
        (KNOWN, append(40, 0, ends=Ends.NO), "Report"),
        (ALL_THERE, append(100, 0, ends=Ends.YES), "Receive"),
        (ALL_THERE, append(100, 0, ends=Ends.NO), "Report"),
        (ALL_THERE, append(100, 0), "Receive"),
        (ALL_THERE, append(100, 1, ends=Ends.YES), "body_too_long"),
        (DEFERRED, append(40, 0, ends=Ends.YES), "Receive"),
        (DEFERRED, append(40, 0, ends=Ends.NO), "Report"),
        (DEFERRED, append(40, 10, length=50, ends=Ends.YES), "Receive"),
        (DEFERRED, append(40, 9, length=50, ends=Ends.YES), "length_contradicted"),
        # of two faults the one that is checked first
        (KNOWN, append(0, 1, length=99), "length_changed"),
        (KNOWN, append(41, 60), "body_too_long"),
        (DEFERRED, append(0, 0, length=39), "invalid_length"),
        # an upload that is complete
        (DONE, append(100, 0), "Report"),
        (DONE, append(100, None), "ReportIfEmpty"),
        (DONE, append(100, 1), "upload_complete"),
        (DONE, append(0, 1), "upload_complete"),
        (DONE, append(0, 0), "offset_mismatch"),
        (DONE, append(99, None), "offset_mismatch"),
    ],
)
def test_append(record: UploadRecord, command: Append, expected: str) -> None:
    planned = plan(record, command, NOW, held=False)
    assert word(planned) == expected
    if isinstance(planned, Refused) and planned.code.value in {"body_too_long", "offset_mismatch"}:
        assert planned.offset == record.offset


@pytest.mark.parametrize("state", [RECEIVING, COMPLETE])
def test_a_final_upload_takes_no_bytes_whatever_else_is_wrong(state: UploadState) -> None:
    record = record_in(state, kind=Kind.FINAL)
    assert word(plan(record, append(7, 9999, length=1), NOW, held=False)) == "upload_final"


@pytest.mark.parametrize(
    ("record", "command", "room"),
    [
        (KNOWN, append(40, None), 60),
        (KNOWN, append(40, 10), 60),
        (DEFERRED, append(40, None), 960),
        (DEFERRED, append(40, None, length=50), 10),
    ],
)
def test_room_is_never_more_than_the_length_leaves(record: UploadRecord, command: Append, room: int) -> None:
    assert plan(record, command, NOW, held=False) == Receive(room)


def test_terminating_is_the_clients_doing() -> None:
    assert plan(KNOWN, Terminate(id=ID), NOW, held=True) == End(Reason.CLIENT)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (Create(length=0), None),
        (Create(length=MAX_SIZE), None),
        (Create(length=MAX_SIZE + 1), "upload_too_large"),
        (Create(length=None), None),
        (Create(length=5, carries_body=True, content_length=5), None),
        (Create(length=5, carries_body=True, content_length=6), "body_too_long"),
        (Create(length=5, carries_body=True, content_length=None), None),
        (Create(length=None, carries_body=True, content_length=MAX_SIZE), None),
        (Create(length=None, carries_body=True, content_length=MAX_SIZE + 1), "upload_too_large"),
        (Create(length=5, carries_body=False, content_length=0), None),
        (Create(length=5, carries_body=True, content_length=5, ends=Ends.YES), None),
        (Create(length=5, carries_body=True, content_length=4, ends=Ends.YES), "length_contradicted"),
        (Create(length=5, carries_body=True, content_length=6, ends=Ends.YES), "body_too_long"),
        (Create(length=5, carries_body=True, content_length=None, ends=Ends.YES), None),
        (Create(length=5, ends=Ends.YES), "length_contradicted"),
        (Create(length=5, carries_body=True, content_length=4, ends=Ends.NO), None),
        (Create(length=0, ends=Ends.YES), None),
    ],
)
def test_creation(command: Create, expected: str | None) -> None:
    refused = plan_creation(command, POLICY)
    assert (refused.code if refused else None) == expected


def test_the_least_length_is_for_whole_uploads_only() -> None:
    policy = Policy(max_size=MAX_SIZE, min_size=64)
    assert (refused := plan_creation(Create(length=63), policy)) is not None
    assert refused.code == "length_too_short"
    assert "64" in (refused.message or "")
    assert plan_creation(Create(length=64), policy) is None
    assert plan_creation(Create(length=None), policy) is None
    assert plan_creation(Create(length=1, kind=Kind.PARTIAL), policy) is None
