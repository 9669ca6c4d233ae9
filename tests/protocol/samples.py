"""Records, heads and codecs that the tests of the protocol begin with, and the way of a request through it.

Owns no expectation. `ask` is a request without its body and without an engine: route, read, plan, settle,
render.
"""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from tusserve.protocol.commands import Append, Create
from tusserve.protocol.decide import (
    BodyEnd,
    End,
    Finish,
    Policy,
    Receive,
    Report,
    ReportIfEmpty,
    plan,
    plan_creation,
    settle,
)
from tusserve.protocol.http import Head, Reply
from tusserve.protocol.life import Kept, open_upload
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
from tusserve.protocol.records import Expiry, Kind, Reason, Refusal, UploadRecord, UploadState
from tusserve.protocol.tus1 import CONTENT_TYPE, EXTENSIONS, Operation, Target, Tus1

NOW: Final = datetime(2026, 3, 4, 5, 6, 7, 890123, tzinfo=UTC)
HOUR: Final = timedelta(hours=1)
EXPIRY: Final = Expiry()
ID: Final = "0123456789abcdefABCDEF_-xyz"
MAX_SIZE: Final = 1000
POLICY: Final = Policy(max_size=MAX_SIZE)

ALL: Final = Tus1(extensions=frozenset(EXTENSIONS), max_size=MAX_SIZE)
NONE: Final = Tus1(extensions=frozenset(), max_size=MAX_SIZE)

VERSION: Final = ("Tus-Resumable", "1.0.0")
OCTETS: Final = ("Content-Type", CONTENT_TYPE)


def head_of(method: str, *fields: tuple[str, str], http_version: str = "1.1") -> Head:
    """A request's head as a server would hand it over, with the version of TUS in it."""
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in (VERSION, *fields)]
    return Head.of(method, raw, http_version)


def patch_of(offset: object, content_length: object, *more: tuple[str, str]) -> Head:
    """A PATCH as clients send it; a content length of None: the body is chunked."""
    framing = (
        ("Transfer-Encoding", "chunked")
        if content_length is None
        else ("Content-Length", str(content_length))
    )
    return head_of("PATCH", OCTETS, ("Upload-Offset", str(offset)), framing, *more)


def record_in(
    state: UploadState,
    *,
    offset: int | None = None,
    length: int | None = 100,
    due_at: datetime | None = NOW + HOUR,
    expires_at: datetime | None = NOW + HOUR,
    reason: Reason = Reason.CLIENT,
    refusal: Refusal | None = None,
    kind: Kind = Kind.WHOLE,
    gated: bool = False,
    metadata: str | None = None,
    concat: str | None = None,
) -> UploadRecord:
    """A record that can be met in `state`; where `offset` is not given, one that fits the state."""
    whole = state in (UploadState.FINISHING, UploadState.COMPLETE)
    ended = state in (UploadState.ENDING, UploadState.GONE)
    if offset is None:
        offset = length if whole and length is not None else 0 if state is UploadState.WAITING else 40
    return UploadRecord(
        id=ID,
        name="default",
        owner=None,
        state=state,
        created_at=NOW - HOUR,
        due_at=due_at,
        kind=Kind.FINAL if state is UploadState.WAITING else kind,
        length=length,
        offset=offset,
        max_size=MAX_SIZE,
        metadata=metadata,
        expires_at=None if state is UploadState.COMPLETE and kind is not Kind.PARTIAL else expires_at,
        completed_at=NOW - HOUR if state is UploadState.COMPLETE else None,
        gated=gated,
        reason=reason if ended else None,
        refusal=refusal,
        concat=concat,
    )


def opened(command: Create) -> UploadRecord:
    """The record of an upload that was just created."""
    return open_upload(
        id=ID,
        name="default",
        owner=None,
        length=command.length,
        max_size=MAX_SIZE,
        metadata=command.metadata,
        gated=False,
        now=NOW,
        expiry=EXPIRY,
        kind=command.kind,
        parts=command.parts,
        concat=command.concat,
    )


def ask(
    head: Head,
    record: UploadRecord | None = None,
    *,
    id: str | None = ID,
    codec: Tus1 = ALL,
    held: bool = False,
    end: BodyEnd = BodyEnd.WHOLE,
    kept: int | None = None,
) -> Reply:
    """The answer to a request about `record`. Its body, if it is taken, came to its `end` with `kept` as the
    upload's durable offset (None: nothing was kept)."""
    operation = codec.operation(head)
    target = codec.route(head, id)
    if isinstance(target, Refused):
        return codec.render(target, operation, id=id)
    if target.operation is Operation.CAPABILITIES:
        return codec.capabilities()
    outcome = outcome_of(codec, head, target, record, held, end, kept)
    return codec.render(outcome, operation, id=id, location=f"/files/{ID}", record=record)


def outcome_of(
    codec: Tus1,
    head: Head,
    target: Target,
    record: UploadRecord | None,
    held: bool,
    end: BodyEnd,
    kept: int | None,
) -> Outcome:
    command = codec.read(head, target)
    if isinstance(command, Refused):
        return command
    if isinstance(command, Create):
        refused = plan_creation(command, POLICY)
        created = opened(command)
        return refused or Created(record=created if kept is None else replace(created, offset=kept))
    planned = plan(record, command, NOW, held=held)
    if isinstance(planned, Refused):
        return planned
    assert record is not None
    match planned:
        case Report() | ReportIfEmpty():
            return Appended(record) if isinstance(command, Append) else Inspected(record)
        case End():
            return Terminated()
        case Receive():
            assert isinstance(command, Append)
            durable = None if kept is None else Kept(offset=kept, cursor="c")
            return settle(record, command, end, durable, NOW, EXPIRY).outcome
        case Finish():
            raise AssertionError("only an engine can finish")


OUTCOMES: list[Outcome] = [
    Created(record=record_in(UploadState.RECEIVING)),
    Inspected(record_in(UploadState.RECEIVING)),
    Appended(record_in(UploadState.RECEIVING)),
    Terminated(),
    RefusedByHost(refusal=Refusal(401, "who", "Who are you?")),
    RefusedByHost(refusal=Refusal(503, "later", "Later.")),
    *(Refused(code=code) for code in Code),
]
"""One of each, and each code."""


def fields_of(reply: Reply) -> dict[str, str]:
    """The headers of a reply, none of which may be there twice."""
    fields = dict(reply.headers)
    assert len(fields) == len(reply.headers)
    return fields


def code_of(reply: Reply) -> str:
    """The stable word in the body of a refusal."""
    code = json.loads(reply.body)["code"]
    assert isinstance(code, str)
    return code
