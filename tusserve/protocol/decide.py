"""What is to be done with a request: pure functions of record, command and time.

`plan` looks before anything is stored, `settle` afterwards; the steps from state to state are in `life`.
Knows no dialect and does no I/O. The engine calls it.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, TypeAlias, assert_never

from tusserve.protocol.commands import Append, Command, Create, Ends, Inspect, Terminate
from tusserve.protocol.life import Kept, advance, complete, finish
from tusserve.protocol.outcomes import Appended, Code, Outcome, Refused
from tusserve.protocol.records import Expiry, Kind, Reason, UploadRecord, UploadState


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a host allows. `min_size` is the least known length at creation."""

    max_size: int
    min_size: int = 0


# ---- plan: before anything is stored


@dataclass(frozen=True, slots=True)
class Report:
    """Answer from the record as it is."""


@dataclass(frozen=True, slots=True)
class ReportIfEmpty:
    """Answer from the record if the body turns out to be empty, else refuse: the upload is complete."""


@dataclass(frozen=True, slots=True)
class Receive:
    """Take the body: at most `room` bytes."""

    room: int


@dataclass(frozen=True, slots=True)
class Finish:
    """Finishing is due: try it, wait for it, then plan again."""


@dataclass(frozen=True, slots=True)
class End:
    """Let the upload end."""

    reason: Reason


Plan: TypeAlias = Refused | Report | ReportIfEmpty | Receive | Finish | End


def plan_creation(command: Create, policy: Policy) -> Refused | None:
    """Whether this upload may be opened at all; None: it may. Lengths against the limits of `policy`."""
    declared = command.length
    if declared is not None and declared > policy.max_size:
        return Refused(code=Code.UPLOAD_TOO_LARGE)
    if declared is not None and command.kind is Kind.WHOLE and declared < policy.min_size:
        return Refused(
            code=Code.LENGTH_TOO_SHORT, message=f"An upload here has at least {policy.min_size} bytes."
        )
    takes_nothing = declared == 0 or not command.carries_body
    if takes_nothing and command.digest is not None and not command.digest.is_of_nothing:
        return Refused(code=Code.CHECKSUM_MISMATCH)
    if command.carries_body and command.content_length is not None:
        if declared is None and command.content_length > policy.max_size:
            return Refused(code=Code.UPLOAD_TOO_LARGE)
        if declared is not None and command.content_length > declared:
            return Refused(code=Code.BODY_TOO_LONG)
    if command.ends is Ends.YES and declared is not None and command.content_length not in {None, declared}:
        return Refused(code=Code.LENGTH_CONTRADICTED)
    return None


def plan(record: UploadRecord | None, command: Command, now: datetime, *, held: bool) -> Plan:
    """What to do about an existing upload, in the specified order of checks; a refusal costs no write.

    `held` says whether somebody holds a live lease on it (False when the caller itself holds it).
    """
    if record is None:
        return Refused(code=Code.UPLOAD_NOT_FOUND)
    if (gone := _gone(record, now, held=held)) is not None:
        return gone
    if record.state is UploadState.FINISHING:
        return _while_finishing(record, now, held=held)
    match command:
        case Inspect():
            return Report()
        case Terminate():
            return End(Reason.CLIENT)
        case Append():
            return _plan_append(record, command)
        case Create():
            raise AssertionError("a creation meets no record")
        case _:
            assert_never(command)


def plan_download(record: UploadRecord, now: datetime, *, held: bool) -> Refused | None:
    """Whether the bytes of an upload may be given out; None: they may. As `plan` where it has ended."""
    if (gone := _gone(record, now, held=held)) is not None:
        return gone
    return None if record.state is UploadState.COMPLETE else Refused(code=Code.UPLOAD_NOT_COMPLETE)


def _gone(record: UploadRecord, now: datetime, *, held: bool) -> Refused | None:
    match record.state:
        case UploadState.ENDING | UploadState.GONE:
            return _epitaph(record)
        case UploadState.RECEIVING | UploadState.WAITING:
            # While somebody writes, the date may yet move: that writer's next commit renews it.
            if record.expires_at is not None and record.expires_at <= now and not held:
                return Refused(code=Code.UPLOAD_EXPIRED)
            return None
        case UploadState.FINISHING | UploadState.COMPLETE:
            return None
        case _:
            assert_never(record.state)


_EPITAPHS: Final = {
    Reason.CLIENT: Code.UPLOAD_TERMINATED,
    Reason.HOST: Code.UPLOAD_TERMINATED,
    Reason.EXPIRED: Code.UPLOAD_EXPIRED,
    Reason.REJECTED: Code.UPLOAD_REJECTED,
    Reason.LOST: Code.UPLOAD_LOST,
}


def _epitaph(record: UploadRecord) -> Refused:
    code = _EPITAPHS[record.reason] if record.reason is not None else Code.UPLOAD_TERMINATED
    return Refused(code=code, refusal=record.refusal)


def _while_finishing(record: UploadRecord, now: datetime, *, held: bool) -> Refused | Finish:
    # Before any offset check, and without an offset: a client that reads offset == length reports success.
    due = record.due_at if record.due_at is not None else now
    if held or due > now:
        return Refused(code=Code.UPLOAD_FINISHING, retry_after=_seconds(due - now))
    return Finish()


def _plan_append(record: UploadRecord, command: Append) -> Plan:
    if record.kind is Kind.FINAL:
        return Refused(code=Code.UPLOAD_FINAL)
    if record.state is UploadState.COMPLETE:
        return _append_to_complete(record, command)
    if (refused := _declared_length(record, command)) is not None:
        return refused
    length = record.length if record.length is not None else command.length
    limit = record.max_size if length is None else length
    claimed = command.offset + (command.content_length or 0)
    if claimed > limit:
        return Refused(
            code=Code.BODY_TOO_LONG if length is not None else Code.UPLOAD_TOO_LARGE, offset=record.offset
        )
    if command.offset != record.offset:
        return Refused(code=Code.OFFSET_MISMATCH, offset=record.offset)
    if command.content_length == 0 and command.digest is not None and not command.digest.is_of_nothing:
        return Refused(code=Code.CHECKSUM_MISMATCH, offset=record.offset)
    if command.ends is Ends.YES and length is not None and command.content_length is not None:
        if claimed < length:
            return Refused(code=Code.LENGTH_CONTRADICTED, offset=record.offset)
    elif command.content_length == 0 and command.length is None and not _is_at_its_end(record, command):
        return Report()  # An empty body changes nothing, so it needs no lease and disturbs nobody.
    return Receive(room=limit - record.offset)


def _is_at_its_end(record: UploadRecord, command: Append) -> bool:
    # Another dialect may have left it with every byte there, and not said that it is complete.
    return _ends(record, command.ends, BodyEnd.WHOLE)


def _append_to_complete(record: UploadRecord, command: Append) -> Plan:
    if command.content_length is not None and command.content_length > 0:
        return Refused(code=Code.UPLOAD_COMPLETE)
    if command.offset != record.offset:
        return Refused(code=Code.OFFSET_MISMATCH, offset=record.offset)
    if command.digest is not None and not command.digest.is_of_nothing:
        return Refused(
            code=Code.CHECKSUM_MISMATCH if command.content_length == 0 else Code.UPLOAD_COMPLETE,
            offset=record.offset if command.content_length == 0 else None,
        )
    return Report() if command.content_length == 0 else ReportIfEmpty()


def _declared_length(record: UploadRecord, command: Append) -> Refused | None:
    declared = command.length
    if declared is None:
        return None
    if record.length is not None:
        return None if declared == record.length else Refused(code=Code.LENGTH_CHANGED)
    if declared < record.offset:
        return Refused(code=Code.INVALID_LENGTH, message="The upload already has more bytes than that.")
    if declared > record.max_size:
        return Refused(code=Code.UPLOAD_TOO_LARGE)
    return None


# ---- settle: after the body


class BodyEnd(StrEnum):
    """How a body came to its end."""

    WHOLE = "WHOLE"
    """It ended by itself, with as many bytes as were announced."""
    CUT = "CUT"
    """The client went away."""
    OVERRAN = "OVERRAN"
    """It had more bytes than there was room for."""
    CORRUPT = "CORRUPT"
    """It ended by itself, and does not hash to what the client said."""
    PREEMPTED = "PREEMPTED"
    """Another request, or the server's own shutdown, needed the upload."""
    STALLED = "STALLED"
    """Nothing came for too long, or too little."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The record to commit (None: nothing to commit) and what the client is told once it is."""

    record: UploadRecord | None
    outcome: Outcome


def settle(
    record: UploadRecord,
    command: Append,
    end: BodyEnd,
    kept: Kept | None,
    now: datetime,
    expiry: Expiry | None,
) -> Settled:
    """What a body that came to its `end` makes of the leased `record`; `kept`: what the final flush said."""
    match end:
        case BodyEnd.OVERRAN:
            return Settled(None, Refused(code=Code.BODY_TOO_LONG, offset=record.offset))
        case BodyEnd.CORRUPT:
            return Settled(None, Refused(code=Code.CHECKSUM_MISMATCH, offset=record.offset))
        case BodyEnd.CUT | BodyEnd.PREEMPTED | BodyEnd.STALLED if command.digest is not None:
            # What was not checked is not kept.
            return Settled(None, Refused(code=Code.UPLOAD_INTERRUPTED, offset=record.offset))
        case BodyEnd.WHOLE | BodyEnd.CUT | BodyEnd.PREEMPTED | BodyEnd.STALLED:
            pass
        case _:
            assert_never(end)
    moved = advance(record, kept, now, expiry) if kept is not None else record
    if record.length is None and command.length is not None:
        moved = replace(moved, length=command.length)
    if command.ends is Ends.YES and end is BodyEnd.WHOLE and moved.length not in {None, moved.offset}:
        # Said to be all, and is not: what came counts, as of a body that was cut.
        changed = moved if moved != record else None
        return Settled(changed, Refused(code=Code.LENGTH_CONTRADICTED, offset=moved.offset))
    if _ends(moved, command.ends, end):
        moved = replace(moved, length=moved.offset)
        sealed = kept is not None and kept.sealed and not moved.gated
        moved = complete(moved, moved.cursor, now, expiry) if sealed else finish(moved, now)
        return Settled(moved, Appended(moved))
    changed = moved if moved != record else None
    if end is BodyEnd.WHOLE:
        return Settled(changed, Appended(moved))
    return Settled(changed, Refused(code=Code.UPLOAD_INTERRUPTED, offset=moved.offset))


def _ends(record: UploadRecord, ends: Ends, end: BodyEnd) -> bool:
    match ends:
        case Ends.AT_LENGTH:
            return record.offset == record.length
        case Ends.YES:
            return end is BodyEnd.WHOLE
        case Ends.NO:
            return False
        case _:
            assert_never(ends)


def _seconds(span: timedelta) -> int:
    return max(1, -(-span // timedelta(seconds=1)))
