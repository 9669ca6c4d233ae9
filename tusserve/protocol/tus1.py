"""The codec of TUS 1.0.0: requests to commands, outcomes to replies.

Owns every header and status of that protocol. Knows no store, no storage, no hook and no body; what it does
is pure. The app calls `route`, then `read`, then `render`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never

from tusserve.protocol.commands import Append, Command, Create, Inspect, Terminate
from tusserve.protocol.fields import imf_fixdate, is_id, media_type, parse_number
from tusserve.protocol.http import PROBLEM_TYPE, Head, Problem, Reply, problem_json
from tusserve.protocol.metadata import Metadata
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
from tusserve.protocol.records import Kind, UploadRecord, UploadState
from tusserve.protocol.tus1_answers import ANSWERS

__all__ = ["ANSWERS", "CONTENT_TYPE", "EXTENSIONS", "VERSION", "Operation", "Target", "Tus1"]

VERSION: Final = "1.0.0"
CONTENT_TYPE: Final = "application/offset+octet-stream"
EXTENSIONS: Final = (
    "creation",
    "creation-with-upload",
    "creation-defer-length",
    "expiration",
    "termination",
)
"""The extensions that this codec can speak, in the order in which it announces them."""

_RETRY_AFTER: Final = {423: 1, 503: 5}
"""Seconds, where an outcome does not say: what holds an upload is brief, what ails a server less so."""
_EXPIRING: Final = frozenset({UploadState.RECEIVING, UploadState.WAITING})


class Operation(StrEnum):
    """What a request is, once its method is known."""

    CAPABILITIES = "CAPABILITIES"
    """OPTIONS: answered by `Tus1.capabilities`, whatever it asks about."""
    CREATE = "CREATE"
    INSPECT = "INSPECT"
    APPEND = "APPEND"
    TERMINATE = "TERMINATE"
    DOWNLOAD = "DOWNLOAD"
    """GET, where downloads are on: no part of TUS, so `Tus1.read` has no command for it."""


_OPERATIONS: Final = {
    "OPTIONS": Operation.CAPABILITIES,
    "POST": Operation.CREATE,
    "HEAD": Operation.INSPECT,
    "PATCH": Operation.APPEND,
    "DELETE": Operation.TERMINATE,
    "GET": Operation.DOWNLOAD,
}
_METHODS: Final = {operation: method for method, operation in _OPERATIONS.items()}


@dataclass(frozen=True, slots=True)
class Target:
    """What a request wants, and of which upload; `id` is None for the collection."""

    operation: Operation
    id: str | None


class Tus1:
    """TUS 1.0.0 as one app speaks it. Has no state: one instance serves any number of requests.

    `extensions` are those to announce; what is not announced is refused, not ignored. `max_size` is the most
    bytes that an upload may have. With `downloads` GET is a method of uploads; with `idempotent_delete` the
    answer to DELETE is 204 also where there is no upload, no longer or not for this client.
    """

    def __init__(
        self,
        *,
        extensions: frozenset[str],
        max_size: int,
        downloads: bool = False,
        idempotent_delete: bool = False,
    ) -> None:
        if unknown := extensions.difference(EXTENSIONS):
            raise ValueError(f"no such extension: {', '.join(sorted(unknown))}")
        if "creation" not in extensions and any(name.startswith("creation-") for name in extensions):
            raise ValueError("creation-with-upload and creation-defer-length need creation")
        self._defers_length = "creation-defer-length" in extensions
        self._creates_with_upload = "creation-with-upload" in extensions
        self._idempotent_delete = idempotent_delete
        on_collection = [Operation.CAPABILITIES]
        if "creation" in extensions:
            on_collection.append(Operation.CREATE)
        on_upload = [Operation.CAPABILITIES, Operation.INSPECT, Operation.APPEND]
        if "termination" in extensions:
            on_upload.append(Operation.TERMINATE)
        if downloads:
            on_upload.append(Operation.DOWNLOAD)
        self._on_collection = frozenset(on_collection)
        self._on_upload = frozenset(on_upload)
        self._allow_on_collection = ", ".join(_METHODS[operation] for operation in on_collection)
        self._allow_on_upload = ", ".join(_METHODS[operation] for operation in on_upload)
        self._capabilities = _capabilities(extensions, max_size)

    # ---- requests

    def operation(self, head: Head) -> Operation | None:
        """What the method means, an override included; None: nothing that this protocol has.

        `X-HTTP-Method-Override` wins over any method; clients behind proxies that refuse PATCH send it.
        """
        override = head.one("x-http-method-override")
        return _OPERATIONS.get((head.method if override is None else override).upper())

    def route(self, head: Head, id: str | None) -> Target | Refused:
        """Method 405, version 412, syntax of the id 404, in this order; OPTIONS only passes the first.

        `id` is what follows the app's path, not decoded; None: nothing follows, it is the collection.
        """
        operation = self.operation(head)
        if operation is None or operation not in (self._on_collection if id is None else self._on_upload):
            return Refused(code=Code.METHOD_NOT_ALLOWED)
        if operation is Operation.CAPABILITIES:
            return Target(operation, None)
        if operation is not Operation.DOWNLOAD and head.one("tus-resumable") != VERSION:
            return Refused(code=Code.UNSUPPORTED_VERSION)
        if id is not None and not is_id(id):
            return Refused(code=Code.UPLOAD_NOT_FOUND)
        return Target(operation, id)

    def read(self, head: Head, target: Target) -> Command | Refused:
        """The command that the headers of a routed request give. Looks at no upload.

        Only for the operations that have a command: `capabilities` answers OPTIONS, and GET is the app's.
        """
        match target:
            case Target(Operation.CREATE, None):
                return self._read_creation(head)
            case Target(Operation.INSPECT, str(id)):
                return Inspect(id=id)
            case Target(Operation.APPEND, str(id)):
                return _read_append(head, id)
            case Target(Operation.TERMINATE, str(id)):
                return Terminate(id=id)
            case _:
                raise AssertionError(f"no command for {target}")

    def _read_creation(self, head: Head) -> Create | Refused:
        length = self._declared_length(head)
        if isinstance(length, Refused):
            return length
        if "upload-concat" in head.headers:
            return Refused(code=Code.CONCATENATION_UNSUPPORTED)
        metadata = Metadata.parse(head.one("upload-metadata"))
        if isinstance(metadata, Refused):
            return metadata
        content_length = head.content_length
        if isinstance(content_length, Refused):
            return content_length
        carries_body = _carries_body(head, content_length)
        if carries_body:
            if not _is_upload_content(head):
                return Refused(code=Code.UNSUPPORTED_CONTENT_TYPE)
            if not self._creates_with_upload:
                return Refused(code=Code.BODY_NOT_ALLOWED)
        return Create(
            length=length,
            metadata=metadata.raw or None,
            carries_body=carries_body,
            content_length=content_length if carries_body else 0,
        )

    def _declared_length(self, head: Head) -> int | Refused | None:
        deferred = head.one("upload-defer-length")
        told = head.one("upload-length")
        if deferred is not None:
            if not self._defers_length:
                return Refused(code=Code.LENGTH_DEFERRAL_UNSUPPORTED)
            if deferred != "1":
                return Refused(code=Code.INVALID_HEADER, message="Upload-Defer-Length can only be 1.")
            return None if told is None else Refused(code=Code.LENGTH_CONTRADICTED)
        if told is None:
            return Refused(code=Code.LENGTH_MISSING)
        length = parse_number(told)
        return Refused(code=Code.INVALID_LENGTH) if length is None else length

    # ---- answers

    def capabilities(self) -> Reply:
        """The answer to OPTIONS, on any path of the app and for anybody."""
        return self._capabilities

    def render(
        self,
        outcome: Outcome,
        operation: Operation | None,
        *,
        id: str | None = None,
        location: str | None = None,
        record: UploadRecord | None = None,
    ) -> Reply:
        """The answer to a request.

        `operation` is what `operation(head)` said and `id` what `route` was given. `location` is the URL of
        an upload that was created. `record`, for a refusal, is the upload that this client may know of: it
        has the date that TUS wants on every answer to PATCH.
        """
        match outcome:
            case Inspected(seen) | Appended(seen) if seen.state is UploadState.FINISHING:
                # Its offset is its length, which clients take for success before it is one.
                outcome = Refused(code=Code.UPLOAD_FINISHING)
                return self._refuse(outcome, operation, id, record)
            case Inspected(seen):
                return _inspected(seen)
            case Appended(seen):
                headers = {"tus-resumable": VERSION, "upload-offset": str(seen.offset)}
                return Reply(status=204, headers=_fields(_with_expiry(headers, seen)))
            case Created():
                if location is None:
                    raise AssertionError("an upload that was created has a location")
                return self._created(outcome, location)
            case Terminated():
                return _TERMINATED
            case Refused() | RefusedByHost():
                return self._refuse(outcome, operation, id, record)
            case _:
                assert_never(outcome)

    def _created(self, outcome: Created, location: str) -> Reply:
        record = outcome.record
        headers = {"tus-resumable": VERSION, "location": location}
        if self._creates_with_upload and record.kind is not Kind.FINAL:
            # Claiming less is safe: a PATCH at 0 is told 423, then HEAD tells how it went.
            finishing = record.state is UploadState.FINISHING
            headers["upload-offset"] = "0" if finishing else str(record.offset)
        headers = _with_expiry(headers, record)
        headers["content-length"] = str(len(outcome.body))
        return Reply(status=201, headers=_fields(headers, outcome.headers), body=outcome.body)

    def _refuse(
        self,
        outcome: Refused | RefusedByHost,
        operation: Operation | None,
        id: str | None,
        record: UploadRecord | None,
    ) -> Reply:
        headers = {"tus-resumable": VERSION, "cache-control": "no-store"}
        theirs: Mapping[str, str] = {}
        extra: Mapping[str, object] = {}
        if isinstance(outcome, RefusedByHost):
            status, code, message = outcome.refusal.status, outcome.refusal.code, outcome.refusal.message
            theirs, extra = outcome.headers, outcome.extra
        else:
            status, code, message = _answer(outcome)
            if self._idempotent_delete and operation is Operation.TERMINATE and status in (404, 410):
                return _TERMINATED
            if outcome.offset is not None and operation is not Operation.INSPECT:
                headers["upload-offset"] = str(outcome.offset)
            if outcome.retry_after is not None:
                headers["retry-after"] = str(outcome.retry_after)
            headers |= self._explanation(outcome.code, operation, id)
        if operation is Operation.INSPECT and status >= 500:
            # Clients take any failed HEAD but 423 for the end of this upload, and send a new one from 0.
            status = 423
        if status in _RETRY_AFTER and not any(name.lower() == "retry-after" for name in theirs):
            headers.setdefault("retry-after", str(_RETRY_AFTER[status]))
        if record is not None and status not in (404, 410):
            headers = _with_expiry(headers, record)
        fields = _fields(headers, theirs)
        if operation is Operation.INSPECT:
            return Reply(status=status, headers=(*fields, ("content-length", "0")))
        problem = Problem(
            status=status,
            code=code,
            message=message,
            extra=extra,
            headers=dict(fields),
            upload_id=id if id is not None and is_id(id) else None,
        )
        body = problem_json(problem)
        content = (("content-type", PROBLEM_TYPE), ("content-length", str(len(body))))
        return Reply(status=status, headers=fields + content, body=body, problem=problem)

    def _explanation(self, code: Code, operation: Operation | None, id: str | None) -> Mapping[str, str]:
        """The header by which HTTP or TUS tells a client what it could have sent instead."""
        if code is Code.METHOD_NOT_ALLOWED:
            return {"allow": self._allow_on_collection if id is None else self._allow_on_upload}
        if code is Code.UNSUPPORTED_VERSION:
            return {"tus-version": VERSION}
        if code is Code.UNSUPPORTED_CONTENT_TYPE and operation is Operation.APPEND:
            return {"accept-patch": CONTENT_TYPE}  # RFC 5789, 2.2
        return {}


def _read_append(head: Head, id: str) -> Append | Refused:
    told = head.one("upload-offset")
    offset = None if told is None else parse_number(told)
    if offset is None:
        return Refused(code=Code.INVALID_OFFSET)
    told = head.one("upload-length")
    length = None
    if told is not None and (length := parse_number(told)) is None:
        return Refused(code=Code.INVALID_LENGTH)
    content_length = head.content_length
    if isinstance(content_length, Refused):
        return content_length
    if not _is_upload_content(head):
        return Refused(code=Code.UNSUPPORTED_CONTENT_TYPE)
    return Append(id=id, offset=offset, content_length=content_length, length=length)


def _is_upload_content(head: Head) -> bool:
    told = head.one("content-type")
    return told is not None and (told == CONTENT_TYPE or media_type(told) == CONTENT_TYPE)


def _carries_body(head: Head, content_length: int | None) -> bool:
    if content_length is not None:
        return content_length > 0
    # HTTP/2 frames a POST without a body in the same way as one whose length is not told: the type tells.
    return "transfer-encoding" in head.headers or "content-type" in head.headers


def _inspected(record: UploadRecord) -> Reply:
    headers = {"tus-resumable": VERSION, "cache-control": "no-store"}
    waiting = record.state is UploadState.WAITING
    if not waiting:
        headers["upload-offset"] = str(record.offset)
    if record.length is not None:
        headers["upload-length"] = str(record.length)
    elif not waiting:
        headers["upload-defer-length"] = "1"
    if record.metadata:
        headers["upload-metadata"] = record.metadata
    headers = _with_expiry(headers, record)
    headers["content-length"] = "0"
    return Reply(status=200, headers=_fields(headers))


def _answer(refused: Refused) -> tuple[int, str, str]:
    status, sentence = ANSWERS[refused.code]
    if refused.refusal is not None:
        return status, refused.refusal.code, refused.refusal.message
    return status, refused.code, refused.message or sentence


def _with_expiry(headers: dict[str, str], record: UploadRecord) -> dict[str, str]:
    if record.expires_at is not None and record.state in _EXPIRING:
        headers["upload-expires"] = imf_fixdate(record.expires_at)
    return headers


def _fields(ours: Mapping[str, str], theirs: Mapping[str, str] | None = None) -> tuple[tuple[str, str], ...]:
    if not theirs:
        return tuple(ours.items())
    # A hook adds to an answer; it does not change what the protocol says in it.
    added = {name.lower(): value for name, value in theirs.items()}
    return (*ours.items(), *((name, value) for name, value in added.items() if name not in ours))


def _capabilities(extensions: frozenset[str], max_size: int) -> Reply:
    headers = {"tus-resumable": VERSION, "tus-version": VERSION}
    if extensions:
        headers["tus-extension"] = ",".join(name for name in EXTENSIONS if name in extensions)
    headers["tus-max-size"] = str(max_size)
    return Reply(status=204, headers=_fields(headers))


_TERMINATED: Final = Reply(status=204, headers=(("tus-resumable", VERSION),))
