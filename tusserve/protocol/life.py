"""The life of an upload: what may follow what, and each step as a function from record to record.

Each step sets `due_at`, so that the reaper starves nobody, and refuses a step that the table does not have.
Pure. `decide`, the engine, the finisher and the reaper call it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final, assert_never

from tusserve.protocol.commands import Ends
from tusserve.protocol.records import Expiry, Reason, Refusal, UploadRecord, UploadState

FIRST_RETRY: Final = timedelta(seconds=1)
LONGEST_RETRY: Final = timedelta(minutes=5)
"""Finishing and ending are tried again after 1, 2, 4 ... seconds, at most after five minutes."""

FOLLOWERS: Final[Mapping[UploadState, frozenset[UploadState]]] = MappingProxyType(
    {
        UploadState.RECEIVING: frozenset(
            {UploadState.RECEIVING, UploadState.FINISHING, UploadState.COMPLETE, UploadState.ENDING}
        ),
        UploadState.WAITING: frozenset({UploadState.WAITING, UploadState.FINISHING, UploadState.ENDING}),
        UploadState.FINISHING: frozenset({UploadState.FINISHING, UploadState.COMPLETE, UploadState.ENDING}),
        UploadState.COMPLETE: frozenset({UploadState.ENDING}),
        UploadState.ENDING: frozenset({UploadState.ENDING, UploadState.GONE}),
        UploadState.GONE: frozenset(),
    }
)
"""What one commit may turn a state into. RECEIVING becomes COMPLETE at once only where there is nothing
to seal and nobody to ask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What the storage made durable: see `tusserve.contracts.Durable`."""

    offset: int
    cursor: str
    added: int = 0
    sealed: bool = False


def open_upload(
    *,
    id: str,
    name: str,
    owner: str | None,
    length: int | None,
    max_size: int,
    metadata: str | None,
    gated: bool,
    now: datetime,
    expiry: Expiry | None,
    ends: Ends = Ends.AT_LENGTH,
) -> UploadRecord:
    """A new record. With length 0 every byte is there already: it is born FINISHING, due at once, unless the
    client has yet to say where it `ends`."""
    expires_at = None if expiry is None else now + expiry.initial
    empty = length == 0 and ends is not Ends.NO
    return UploadRecord(
        id=id,
        name=name,
        owner=owner,
        state=UploadState.FINISHING if empty else UploadState.RECEIVING,
        created_at=now,
        due_at=now if empty else expires_at,
        length=length,
        max_size=max_size,
        metadata=metadata,
        expires_at=expires_at,
        gated=gated,
    )


def expire_in(record: UploadRecord, period: timedelta) -> UploadRecord:
    """A new record with an initial expiry of its own."""
    expires_at = record.created_at + period
    due_at = expires_at if record.state is UploadState.RECEIVING else record.due_at
    return replace(record, expires_at=expires_at, due_at=due_at)


def advance(record: UploadRecord, kept: Kept, now: datetime, expiry: Expiry | None) -> UploadRecord:
    """The record with what the storage kept. Kept bytes renew the expiry, also to an earlier date, or to
    none where uploads do not expire any more."""
    if kept.offset < record.offset:
        raise AssertionError(
            f"upload {record.id}: the storage went back from {record.offset} to {kept.offset}"
        )
    expires_at = record.expires_at
    if kept.offset > record.offset:
        expires_at = None if expiry is None else now + expiry.idle
    return replace(
        record,
        offset=kept.offset,
        cursor=kept.cursor,
        entries=record.entries + kept.added,
        expires_at=expires_at,
        due_at=expires_at if record.state is UploadState.RECEIVING else record.due_at,
    )


def finish(record: UploadRecord, now: datetime) -> UploadRecord:
    """Every byte is durable. Committed together with the last of them, before anything is sealed."""
    return _move(record, UploadState.FINISHING, due_at=now, attempts=0)


def complete(record: UploadRecord, sealed: str, now: datetime, expiry: Expiry | None) -> UploadRecord:
    """Sealed and accepted. `sealed` replaces cursor and entries; due again only after `Expiry.finished`."""
    due_at = None
    if expiry is not None and expiry.finished is not None:
        due_at = now + expiry.finished
    return replace(
        _move(record, UploadState.COMPLETE, due_at=due_at, attempts=0),
        cursor=sealed,
        entries=0,
        completed_at=now,
        length=record.offset,
        expires_at=None,
    )


def postpone(record: UploadRecord, now: datetime) -> UploadRecord:
    """Finishing or ending failed for now: the same state, counted, due again after a growing pause."""
    pause = min(FIRST_RETRY * 2 ** min(record.attempts, 16), LONGEST_RETRY)
    return _move(record, record.state, due_at=now + pause, attempts=record.attempts + 1)


def end(record: UploadRecord, reason: Reason, now: datetime, refusal: Refusal | None = None) -> UploadRecord:
    """Decided to go. To be committed before `on_terminate` is called or a byte is discarded."""
    return replace(_move(record, UploadState.ENDING, due_at=now, attempts=0), reason=reason, refusal=refusal)


def bury(record: UploadRecord, now: datetime, expiry: Expiry | None) -> UploadRecord:
    """Nothing of it is left but why it went, until the tombstone is due."""
    period = (expiry or Expiry()).tombstone
    return replace(_move(record, UploadState.GONE, due_at=now + period, attempts=0), cursor="", entries=0)


def _move(
    record: UploadRecord, state: UploadState, *, due_at: datetime | None, attempts: int
) -> UploadRecord:
    if state not in FOLLOWERS[record.state]:
        raise AssertionError(f"upload {record.id}: {state} cannot follow {record.state}")
    return replace(record, state=state, due_at=due_at, attempts=attempts)


class Chore(StrEnum):
    """What a due record needs."""

    EXPIRE = "EXPIRE"
    FINISH = "FINISH"
    END = "END"
    FORGET = "FORGET"


def chore(record: UploadRecord, now: datetime) -> Chore | None:
    """What a due record needs; None: it is not due (any more)."""
    if record.due_at is None or record.due_at > now:
        return None
    match record.state:
        case UploadState.RECEIVING | UploadState.WAITING:
            return Chore.EXPIRE
        case UploadState.FINISHING:
            return Chore.FINISH
        case UploadState.ENDING:
            return Chore.END
        case UploadState.COMPLETE | UploadState.GONE:
            return Chore.FORGET
        case _:
            assert_never(record.state)
