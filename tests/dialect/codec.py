"""A toy of a second dialect, in the style of the IETF draft: requests to commands, outcomes to replies.

Owns its header names, statuses and problem types. It is here to show that nothing below a codec knows which
one it serves; it is no implementation of the draft (no interim answers, no limits, no digests).
"""

from typing import Final, assert_never

from tusserve.protocol.commands import Append, Command, Create, Ends, Inspect, Terminate
from tusserve.protocol.fields import media_type, parse_number
from tusserve.protocol.http import PROBLEM_TYPE, Head, Problem, Reply, problem_json
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
from tusserve.protocol.records import UploadRecord, UploadState

PARTIAL: Final = "application/partial-upload"
_ENDS: Final = {"?1": Ends.YES, "?0": Ends.NO}
_NOT_NOW: Final = frozenset(
    {
        Code.UPLOAD_LOCKED,
        Code.UPLOAD_INTERRUPTED,
        Code.UPLOAD_FINISHING,
        Code.FINISHING_FAILED,
        Code.HOOK_FAILED,
        Code.STORAGE_UNAVAILABLE,
        Code.STORE_UNAVAILABLE,
        Code.DRAINING,
        Code.TOO_MANY_UPLOADS,
    }
)
_STATUSES: Final = {
    Code.UPLOAD_NOT_FOUND: 404,
    Code.METHOD_NOT_ALLOWED: 405,
    Code.OFFSET_MISMATCH: 409,
    Code.UPLOAD_TERMINATED: 410,
    Code.UPLOAD_EXPIRED: 410,
    Code.UPLOAD_REJECTED: 410,
    Code.UPLOAD_LOST: 410,
    Code.UPLOAD_TOO_LARGE: 413,
    Code.UNSUPPORTED_CONTENT_TYPE: 415,
    Code.STORAGE_FULL: 507,
    Code.INTERNAL_ERROR: 500,
}


# ---- requests


def read(head: Head, id: str | None) -> Command | Refused:
    """The command of a request; `id` None: it is to the collection."""
    match head.method, id:
        case "POST", None:
            return _read_creation(head)
        case "HEAD", str():
            return Inspect(id=id)
        case "PATCH", str():
            return _read_append(head, id)
        case "DELETE", str():
            return Terminate(id=id)
        case _:
            return Refused(code=Code.METHOD_NOT_ALLOWED)


def _read_creation(head: Head) -> Create | Refused:
    ends = _ENDS.get(head.one("upload-complete") or "")
    content_length = head.content_length
    if ends is None:
        return Refused(code=Code.INVALID_HEADER, message="An upload says Upload-Complete: ?1 or ?0.")
    if isinstance(content_length, Refused):
        return content_length
    length = _number(head, "upload-length")
    if length is None and ends is Ends.YES:
        length = content_length  # the request is the whole upload
    return Create(length=length, carries_body=content_length != 0, content_length=content_length, ends=ends)


def _read_append(head: Head, id: str) -> Append | Refused:
    offset = _number(head, "upload-offset")
    content_length = head.content_length
    if media_type(head.one("content-type") or "") != PARTIAL:
        return Refused(code=Code.UNSUPPORTED_CONTENT_TYPE)
    if offset is None:
        return Refused(code=Code.INVALID_OFFSET)
    if isinstance(content_length, Refused):
        return content_length
    return Append(
        id=id,
        offset=offset,
        content_length=content_length,
        ends=_ENDS.get(head.one("upload-complete") or "", Ends.NO),
        length=_number(head, "upload-length"),
    )


def _number(head: Head, name: str) -> int | None:
    # A malformed structured field is ignored as a whole.
    told = head.one(name)
    return None if told is None else parse_number(told)


# ---- answers


def render(outcome: Outcome, location: str | None = None) -> Reply:
    """The answer to a request."""
    match outcome:
        case Created(record=record):
            assert location is not None
            return _reply(201, ("location", location), *_progress(record))
        case Inspected(record):
            length = [] if record.length is None else [("upload-length", str(record.length))]
            return _reply(204, ("cache-control", "no-store"), *_progress(record), *length)
        case Appended(record):
            return _reply(200 if record.state is UploadState.COMPLETE else 204, *_progress(record))
        case Terminated():
            return _reply(204)
        case Refused():
            return _refused(outcome)
        case RefusedByHost(refusal=refusal):
            return _problem(refusal.status, refusal.code, refusal.message)
        case _:
            assert_never(outcome)


def _progress(record: UploadRecord) -> list[tuple[str, str]]:
    complete = "?1" if record.state is UploadState.COMPLETE else "?0"
    told = [("upload-complete", complete)]
    if record.state is not UploadState.FINISHING:
        told.append(("upload-offset", str(record.offset)))
    return told


def _refused(refused: Refused) -> Reply:
    status = 503 if refused.code in _NOT_NOW else _STATUSES.get(refused.code, 400)
    headers = [] if refused.offset is None else [("upload-offset", str(refused.offset))]
    if status == 409:
        headers.append(("upload-complete", "?0"))
    if status == 503:
        headers.append(("retry-after", str(refused.retry_after or 1)))
    return _problem(status, refused.code, refused.message or "", *headers)


def _problem(status: int, code: str, message: str, *headers: tuple[str, str]) -> Reply:
    problem = Problem(status=status, code=code, message=message)
    body = problem_json(problem)
    return Reply(
        status=status,
        headers=(*headers, ("content-type", PROBLEM_TYPE), ("content-length", str(len(body)))),
        body=body,
        problem=problem,
        code=code,
    )


def _reply(status: int, *headers: tuple[str, str]) -> Reply:
    length = () if status == 204 else (("content-length", "0"),)
    return Reply(status=status, headers=(*headers, *length))
