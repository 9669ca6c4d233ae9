"""What `settle` makes of a body: every end of a body with every shape of upload."""

from dataclasses import replace
from itertools import product
from typing import NamedTuple

import pytest

from tests.protocol.samples import EXPIRY, HOUR, ID, NOW, record_in
from tusserve.protocol.commands import Append, Ends
from tusserve.protocol.decide import BodyEnd, Settled, settle
from tusserve.protocol.digests import Digest
from tusserve.protocol.life import FOLLOWERS, Kept
from tusserve.protocol.outcomes import Appended, Refused
from tusserve.protocol.records import Expiry, UploadRecord, UploadState

RECEIVING, FINISHING, COMPLETE = UploadState.RECEIVING, UploadState.FINISHING, UploadState.COMPLETE

KNOWN = record_in(RECEIVING)
DEFERRED = record_in(RECEIVING, length=None)
AFTER_ALL = (BodyEnd.WHOLE, BodyEnd.CUT, BodyEnd.PREEMPTED, BodyEnd.STALLED)
FOR_NOTHING = (BodyEnd.OVERRAN, BodyEnd.CORRUPT)
BEFORE_THE_END = (BodyEnd.CUT, BodyEnd.PREEMPTED, BodyEnd.STALLED)


class Row(NamedTuple):
    record: UploadRecord
    declared: int | None
    kept: int | None
    ends: tuple[BodyEnd, ...]
    committed: tuple[UploadState, int, int | None] | None
    """State, offset, length; None: there is nothing to commit."""
    told: str
    offset: int


TABLE = [
    # nothing was kept: nothing happened
    Row(KNOWN, None, None, (BodyEnd.WHOLE,), None, "appended", 40),
    Row(KNOWN, None, None, BEFORE_THE_END, None, "upload_interrupted", 40),
    Row(DEFERRED, None, None, (BodyEnd.WHOLE,), None, "appended", 40),
    # what was kept counts, however the body ended
    Row(KNOWN, None, 70, (BodyEnd.WHOLE,), (RECEIVING, 70, 100), "appended", 70),
    Row(KNOWN, None, 70, BEFORE_THE_END, (RECEIVING, 70, 100), "upload_interrupted", 70),
    Row(DEFERRED, None, 70, (BodyEnd.WHOLE,), (RECEIVING, 70, None), "appended", 70),
    Row(DEFERRED, None, 70, BEFORE_THE_END, (RECEIVING, 70, None), "upload_interrupted", 70),
    # the last byte and FINISHING are one commit, however the body ended
    Row(KNOWN, None, 100, AFTER_ALL, (FINISHING, 100, 100), "appended", 100),
    Row(DEFERRED, 100, 100, AFTER_ALL, (FINISHING, 100, 100), "appended", 100),
    # a declared length is kept even where no byte was
    Row(DEFERRED, 100, None, (BodyEnd.WHOLE,), (RECEIVING, 40, 100), "appended", 40),
    Row(DEFERRED, 100, None, BEFORE_THE_END, (RECEIVING, 40, 100), "upload_interrupted", 40),
    Row(DEFERRED, 40, None, AFTER_ALL, (FINISHING, 40, 40), "appended", 40),
    # more than there was room for: the record stays as it is, so the bytes do not count
    Row(KNOWN, None, None, (BodyEnd.OVERRAN,), None, "body_too_long", 40),
    Row(DEFERRED, 100, None, (BodyEnd.OVERRAN,), None, "body_too_long", 40),
    # another body than the client meant: the same
    Row(KNOWN, None, None, (BodyEnd.CORRUPT,), None, "checksum_mismatch", 40),
    Row(DEFERRED, 40, None, (BodyEnd.CORRUPT,), None, "checksum_mismatch", 40),
]


def settled(
    record: UploadRecord,
    end: BodyEnd,
    kept: int | None,
    *,
    declared: int | None = None,
    ends: Ends = Ends.AT_LENGTH,
    sealed: bool = False,
    expiry: Expiry | None = EXPIRY,
) -> Settled:
    command = Append(id=ID, offset=record.offset, content_length=None, length=declared, ends=ends)
    durable = None if kept is None else Kept(offset=kept, cursor="c", added=1, sealed=sealed)
    return settle(record, command, end, durable, NOW, expiry)


def word(result: Settled) -> str:
    return (
        result.outcome.code if isinstance(result.outcome, Refused) else type(result.outcome).__name__.lower()
    )


def offset_told(result: Settled) -> int | None:
    if isinstance(result.outcome, Refused):
        return result.outcome.offset
    assert isinstance(result.outcome, Appended)
    return result.outcome.record.offset


@pytest.mark.parametrize(("row", "end"), [(row, end) for row in TABLE for end in row.ends])
def test_the_table(row: Row, end: BodyEnd) -> None:
    result = settled(row.record, end, row.kept, declared=row.declared)
    record = result.record
    committed = None if record is None else (record.state, record.offset, record.length)
    assert (committed, word(result), offset_told(result)) == (row.committed, row.told, row.offset)


SHAPES = [
    (replace(record, gated=gated, expires_at=expires_at, due_at=expires_at), declared, kept, sealed)
    for record, declared in ((KNOWN, None), (KNOWN, 100), (DEFERRED, None), (DEFERRED, 40), (DEFERRED, 100))
    for gated in (False, True)
    for expires_at in (NOW + HOUR, None)
    for kept in (None, 40, 70, 100)
    for sealed in (False, True)
    # What a storage may say: never beyond the length, and sealed only where that is reached.
    if kept is None or kept <= (record.length or declared or kept)
    if not sealed or kept == (record.length or declared)
]


@pytest.mark.parametrize("end", BodyEnd)
@pytest.mark.parametrize("ends", Ends)
@pytest.mark.parametrize("expiry", [EXPIRY, None], ids=["expiry", "no expiry"])
def test_what_holds_for_every_body(end: BodyEnd, ends: Ends, expiry: Expiry | None) -> None:
    for before, declared, kept, sealed in SHAPES:
        result = settled(before, end, kept, declared=declared, ends=ends, sealed=sealed, expiry=expiry)
        after = result.record or before
        assert after.state is before.state or after.state in FOLLOWERS[before.state]
        assert before.offset <= after.offset <= (after.length or after.offset)
        assert offset_told(result) == after.offset, "told is what is committed, no more and no less"
        if ends is Ends.AT_LENGTH:
            assert (after.state is RECEIVING) == (after.offset != after.length)
        if ends is Ends.NO:
            assert after.state is RECEIVING
        if ends is Ends.YES:
            known = before.length or declared
            contradicted = end is BodyEnd.WHOLE and known not in {None, kept or before.offset}
            assert (after.state is RECEIVING) == (end is not BodyEnd.WHOLE or contradicted)
            assert (word(result) == "length_contradicted") == contradicted
        if after.state is not RECEIVING:
            assert after.length == after.offset, "who asks for the length of what has ended is told"
            assert isinstance(result.outcome, Appended)
            assert end not in FOR_NOTHING
        if after.state is COMPLETE:
            assert sealed
            assert not before.gated
            assert after.entries == 0
        elif after.state is FINISHING:
            assert after.due_at == NOW, "if this process dies now, the next look finishes it"
        elif result.record is not None:
            assert after.due_at == after.expires_at
        if result.record is not None:
            assert result.record != before, "a commit that changes nothing is not asked for"
            assert end not in FOR_NOTHING


def test_every_end_is_in_the_table() -> None:
    assert {end for row in TABLE for end in row.ends} == set(BodyEnd)


@pytest.mark.parametrize(("gated", "sealed"), [*product([False, True], [False, True])])
def test_complete_at_once_only_where_nothing_is_sealed_and_nobody_asked(gated: bool, sealed: bool) -> None:
    result = settled(replace(KNOWN, gated=gated), BodyEnd.WHOLE, 100, sealed=sealed)
    assert result.record is not None
    assert result.record.state is (COMPLETE if sealed and not gated else FINISHING)
    assert result.record.cursor == "c"


def test_entries_are_counted_with_the_cursor() -> None:
    result = settled(replace(KNOWN, entries=3, cursor="b"), BodyEnd.CUT, 70)
    assert result.record is not None
    assert (result.record.entries, result.record.cursor) == (4, "c")


def test_kept_bytes_move_the_expiry_and_others_do_not() -> None:
    far = replace(KNOWN, expires_at=NOW + 1000 * HOUR, due_at=NOW + 1000 * HOUR)
    for kept, expires_at in ((70, NOW + EXPIRY.idle), (40, far.expires_at)):
        for end in AFTER_ALL:
            after = settled(far, end, kept).record
            assert after is not None
            assert after.expires_at == expires_at
            assert after.due_at == expires_at


@pytest.mark.parametrize("end", BEFORE_THE_END)
@pytest.mark.parametrize("declared", [None, 40, 100])
def test_a67_what_was_not_checked_changes_nothing(end: BodyEnd, declared: int | None) -> None:
    command = Append(
        id=ID, offset=40, content_length=None, length=declared, digest=Digest("crc32", b"\0\0\0\0")
    )
    result = settle(DEFERRED, command, end, None, NOW, EXPIRY)
    assert (result.record, word(result), offset_told(result)) == (None, "upload_interrupted", 40)
