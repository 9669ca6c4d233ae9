"""The life of an upload: each step from each state against the table, and what a due record needs."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import NamedTuple

import pytest

from tests.protocol.samples import EXPIRY, HOUR, ID, MAX_SIZE, NOW, record_in
from tusserve.protocol.commands import Ends
from tusserve.protocol.life import (
    FIRST_RETRY,
    FOLLOWERS,
    LONGEST_RETRY,
    Chore,
    Kept,
    advance,
    bury,
    chore,
    complete,
    end,
    expire_in,
    finish,
    open_upload,
    postpone,
)
from tusserve.protocol.records import Expiry, Reason, Refusal, UploadRecord, UploadState

RECEIVING, WAITING, FINISHING, COMPLETE, ENDING, GONE = UploadState


class Step(NamedTuple):
    take: Callable[[UploadRecord], UploadRecord]
    leads_to: UploadState
    due_in: timedelta | None


LASTING = Expiry(finished=timedelta(days=30))
STEPS = {
    "finish": Step(lambda record: finish(record, NOW), FINISHING, timedelta(0)),
    "complete": Step(lambda record: complete(record, "sealed", NOW, EXPIRY), COMPLETE, None),
    "complete for a while": Step(
        lambda record: complete(record, "sealed", NOW, LASTING), COMPLETE, timedelta(days=30)
    ),
    "end": Step(lambda record: end(record, Reason.EXPIRED, NOW), ENDING, timedelta(0)),
    "bury": Step(lambda record: bury(record, NOW, EXPIRY), GONE, EXPIRY.tombstone),
}


@pytest.mark.parametrize("state", UploadState)
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_each_step_from_each_state(state: UploadState, step: Step) -> None:
    before = replace(record_in(state), attempts=5)
    if step.leads_to not in FOLLOWERS[state]:
        with pytest.raises(AssertionError, match=ID):
            step.take(before)
        return
    after = step.take(before)
    assert after.state is step.leads_to
    assert after.due_at == (None if step.due_in is None else NOW + step.due_in)
    assert after.attempts == 0, "a new state is tried from the beginning"
    assert (after.id, after.offset, after.revision) == (before.id, before.offset, before.revision)


@pytest.mark.parametrize("state", [FINISHING, ENDING])
def test_what_fails_for_now_is_due_again_after_a_growing_pause(state: UploadState) -> None:
    record = record_in(state)
    pauses = []
    for _ in range(12):
        record = postpone(record, NOW)
        assert record.due_at is not None
        pauses.append(record.due_at - NOW)
    assert record.state is state
    assert record.attempts == 12
    assert pauses[:4] == [FIRST_RETRY, 2 * FIRST_RETRY, 4 * FIRST_RETRY, 8 * FIRST_RETRY]
    assert pauses[-1] == LONGEST_RETRY
    assert pauses == sorted(pauses)
    assert postpone(replace(record, attempts=10**6), NOW).due_at == NOW + LONGEST_RETRY


@pytest.mark.parametrize("state", [COMPLETE, GONE])
def test_what_is_done_is_not_put_off(state: UploadState) -> None:
    with pytest.raises(AssertionError):
        postpone(record_in(state), NOW)


def test_the_table_names_every_state_and_ends_in_a_tombstone() -> None:
    assert set(FOLLOWERS) == set(UploadState)
    reached, unseen = set(), {RECEIVING}
    while unseen:
        reached |= unseen
        unseen = {follower for state in unseen for follower in FOLLOWERS[state]} - reached
    assert reached == set(UploadState) - {WAITING}, "WAITING is where concatenations are born"
    assert not FOLLOWERS[GONE]
    for state in UploadState:
        assert state is GONE or ENDING in FOLLOWERS[state], "every upload can be ended"
    assert {state for state in UploadState if GONE in FOLLOWERS[state]} == {ENDING}
    assert {state for state in UploadState if RECEIVING in FOLLOWERS[state]} == {RECEIVING}


@pytest.mark.parametrize("state", UploadState)
def test_what_a_due_record_needs(state: UploadState) -> None:
    needs = {
        RECEIVING: Chore.EXPIRE,
        WAITING: Chore.EXPIRE,
        FINISHING: Chore.FINISH,
        COMPLETE: Chore.FORGET,
        ENDING: Chore.END,
        GONE: Chore.FORGET,
    }
    assert chore(record_in(state, due_at=NOW), NOW) is needs[state]
    assert chore(record_in(state, due_at=NOW - HOUR), NOW) is needs[state]
    assert chore(record_in(state, due_at=NOW + timedelta(microseconds=1)), NOW) is None
    assert chore(record_in(state, due_at=None), NOW) is None


def test_completing_replaces_what_the_storage_said_and_ends_the_expiry() -> None:
    before = replace(record_in(FINISHING, length=None, offset=70), cursor="c", entries=9)
    after = complete(before, "sealed", NOW, None)
    assert (after.cursor, after.entries) == ("sealed", 0)
    assert (after.length, after.completed_at, after.expires_at, after.due_at) == (70, NOW, None, None)


def test_an_end_keeps_its_reason_and_what_the_storage_needs_to_discard() -> None:
    refusal = Refusal(415, "not_a_film", "Only films.")
    ending = end(replace(record_in(RECEIVING), cursor="c", entries=9), Reason.REJECTED, NOW, refusal)
    assert (ending.reason, ending.refusal, ending.cursor, ending.entries) == (
        Reason.REJECTED,
        refusal,
        "c",
        9,
    )
    gone = bury(ending, NOW, Expiry(tombstone=HOUR))
    assert (gone.reason, gone.refusal, gone.cursor, gone.entries) == (Reason.REJECTED, refusal, "", 0)
    assert gone.due_at == NOW + HOUR
    assert bury(ending, NOW, None).due_at == NOW + Expiry().tombstone


def test_advancing_keeps_the_state_and_moves_the_expiry_with_the_bytes() -> None:
    before = replace(record_in(RECEIVING), cursor="a", entries=2)
    after = advance(before, Kept(offset=41, cursor="b", added=3), NOW, EXPIRY)
    assert (after.state, after.offset, after.cursor, after.entries) == (RECEIVING, 41, "b", 5)
    assert after.expires_at == after.due_at == NOW + EXPIRY.idle
    unmoved = advance(before, Kept(offset=40, cursor="b"), NOW, EXPIRY)
    assert unmoved.expires_at == unmoved.due_at == before.expires_at
    off = advance(before, Kept(offset=41, cursor="b"), NOW, None)
    assert (off.expires_at, off.due_at) == (None, None)


def test_advancing_makes_the_expiry_earlier_too() -> None:
    before = record_in(RECEIVING, expires_at=NOW + EXPIRY.initial)
    after = advance(before, Kept(offset=41, cursor="b"), NOW, EXPIRY)
    assert after.expires_at == NOW + EXPIRY.idle < NOW + EXPIRY.initial


def test_an_acknowledged_byte_is_never_taken_back() -> None:
    with pytest.raises(AssertionError, match="back from 40 to 39"):
        advance(record_in(RECEIVING), Kept(offset=39, cursor="c"), NOW, EXPIRY)


def new_upload(
    length: int | None, *, expiry: Expiry | None = EXPIRY, ends: Ends = Ends.AT_LENGTH
) -> UploadRecord:
    return open_upload(
        id=ID,
        name="films",
        owner="ann",
        length=length,
        max_size=MAX_SIZE,
        metadata="a Yg==",
        gated=True,
        now=NOW,
        expiry=expiry,
        ends=ends,
    )


@pytest.mark.parametrize("ends", Ends)
def test_a_new_upload_of_no_bytes_is_finished_unless_the_client_is_yet_to_say_so(ends: Ends) -> None:
    record = new_upload(0, ends=ends)
    assert record.state is (RECEIVING if ends is Ends.NO else FINISHING)
    assert record.due_at == (record.expires_at if ends is Ends.NO else NOW)


@pytest.mark.parametrize("length", [1, MAX_SIZE, None])
def test_a_new_upload_wants_bytes_and_is_due_at_its_expiry(length: int | None) -> None:
    record = new_upload(length)
    assert (record.state, record.offset, record.length) == (RECEIVING, 0, length)
    assert record.due_at == record.expires_at == NOW + EXPIRY.initial
    assert (record.name, record.owner, record.metadata, record.gated) == ("films", "ann", "a Yg==", True)
    assert new_upload(length, expiry=None).due_at is None


@pytest.mark.parametrize("expiry", [EXPIRY, None])
def test_a_new_upload_may_have_an_expiry_of_its_own(expiry: Expiry | None) -> None:
    own = expire_in(new_upload(1, expiry=expiry), HOUR)
    assert own.due_at == own.expires_at == NOW + HOUR
    empty = expire_in(new_upload(0, expiry=expiry), HOUR)
    assert empty.due_at == NOW, "it is finished at once all the same"


def test_an_empty_upload_is_born_with_all_its_bytes() -> None:
    record = new_upload(0)
    assert record.state is FINISHING
    assert record.due_at == NOW
    assert new_upload(0, expiry=None).due_at == NOW


def test_the_longest_rest_is_that_of_the_longer_period() -> None:
    assert Expiry(initial=HOUR, idle=2 * HOUR).longest() == 2 * HOUR
    assert Expiry(initial=3 * HOUR, idle=2 * HOUR).longest() == 3 * HOUR
