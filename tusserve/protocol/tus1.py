"""The codec of TUS 1.0.0: requests to commands, outcomes to replies.

Owns what the headers of a request mean; what answers look like is in `tus1_answers`. Knows no store, no
storage, no hook and no body. The app calls `route`, then `read`, then `render`.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, TypeAlias, assert_never, get_args

from tusserve.protocol.commands import Append, Command, Create, Inspect, Terminate
from tusserve.protocol.digests import Digest
from tusserve.protocol.fields import is_id, media_type, parse_number
from tusserve.protocol.http import Head, Reply
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
from tusserve.protocol.records import Kind, UploadRecord
from tusserve.protocol.tus1_answers import (
    ALGORITHMS,
    ANSWERS,
    TERMINATED,
    VERSION,
    appended,
    capabilities,
    created,
    inspected,
    refused,
    refused_by_host,
)

__all__ = [
    "ANSWERS",
    "CONTENT_TYPE",
    "EXTENSIONS",
    "MOST_PARTS",
    "VERSION",
    "Extension",
    "Operation",
    "Target",
    "Tus1",
]

CONTENT_TYPE: Final = "application/offset+octet-stream"
MOST_PARTS: Final = 1000
"""How many uploads may be joined to one."""
Extension: TypeAlias = Literal[
    "creation",
    "creation-with-upload",
    "creation-defer-length",
    "expiration",
    "checksum",
    "termination",
    "concatenation",
    "concatenation-unfinished",
]
"""The extensions of TUS 1.0.0 that tusserve has."""

EXTENSIONS: Final[tuple[Extension, ...]] = get_args(Extension)
"""All of them, in the order in which they are announced."""


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


@dataclass(frozen=True, slots=True)
class _Joins:
    """What Upload-Concat says."""

    kind: Kind
    parts: tuple[str, ...] = ()
    told: str | None = None


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
        if "concatenation" in extensions and "creation" not in extensions:
            raise ValueError("concatenation needs creation")
        if "concatenation-unfinished" in extensions and "concatenation" not in extensions:
            raise ValueError("concatenation-unfinished needs concatenation")
        self._joins = "concatenation" in extensions
        self._defers_length = "creation-defer-length" in extensions
        self._creates_with_upload = "creation-with-upload" in extensions
        self._checks = "checksum" in extensions
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
        announced = [name for name in EXTENSIONS if name in extensions]
        self._capabilities = capabilities(announced, max_size)

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
                return self._read_append(head, id)
            case Target(Operation.TERMINATE, str(id)):
                return Terminate(id=id)
            case _:
                raise AssertionError(f"no command for {target}")

    def _read_creation(self, head: Head) -> Create | Refused:
        joins = self._concatenation(head)
        if isinstance(joins, Refused):
            return joins
        length = self._length_of_final(head) if joins.kind is Kind.FINAL else self._declared_length(head)
        if isinstance(length, Refused):
            return length
        metadata = Metadata.parse(head.one("upload-metadata"))
        if isinstance(metadata, Refused):
            return metadata
        content_length = head.content_length
        if isinstance(content_length, Refused):
            return content_length
        carries_body = _carries_body(head, content_length)
        if carries_body and joins.kind is Kind.FINAL:
            return Refused(
                code=Code.INVALID_CONCATENATION, message="A final upload has no bytes but those of its parts."
            )
        if carries_body:
            if not _is_upload_content(head):
                return Refused(code=Code.UNSUPPORTED_CONTENT_TYPE)
            if not self._creates_with_upload:
                return Refused(code=Code.BODY_NOT_ALLOWED)
        digest = self._digest(head)
        if isinstance(digest, Refused):
            return digest
        return Create(
            length=length,
            metadata=metadata.raw or None,
            kind=joins.kind,
            parts=joins.parts,
            concat=joins.told,
            carries_body=carries_body,
            content_length=content_length if carries_body else 0,
            digest=digest,
        )

    def _concatenation(self, head: Head) -> "_Joins | Refused":
        told = head.headers.get("upload-concat")
        if told is None:
            return _Joins(Kind.WHOLE)
        if not self._joins:
            return Refused(code=Code.CONCATENATION_UNSUPPORTED)
        if told == ("partial",):
            return _Joins(Kind.PARTIAL, told=told[0])
        word, semicolon, named = told[0].partition(";")
        parts = tuple(part for part in named.split(" ") if part)
        if len(told) > 1 or word != "final" or not semicolon or not 0 < len(parts) <= MOST_PARTS:
            return Refused(code=Code.INVALID_CONCATENATION)
        return _Joins(Kind.FINAL, parts, told[0])

    def _length_of_final(self, head: Head) -> Refused | None:
        if "upload-length" not in head.headers and "upload-defer-length" not in head.headers:
            return None
        return Refused(
            code=Code.LENGTH_CONTRADICTED, message="A final upload is as long as its parts: send no length."
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

    def _read_append(self, head: Head, id: str) -> Append | Refused:
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
        digest = self._digest(head)
        if isinstance(digest, Refused):
            return digest
        return Append(id=id, offset=offset, content_length=content_length, length=length, digest=digest)

    def _digest(self, head: Head) -> Digest | Refused | None:
        told = head.one("upload-checksum")
        if told is None:
            return None
        # A checksum that nobody looks at would be taken for one that is right.
        return Digest.parse(told) if self._checks else Refused(code=Code.CHECKSUM_UNSUPPORTED)

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
            case Created():
                if location is None:
                    raise AssertionError("an upload that was created has a location")
                return created(outcome, location, tells_offset=self._creates_with_upload)
            case Inspected(seen):
                return inspected(seen)
            case Appended(seen):
                return appended(seen)
            case Terminated():
                return TERMINATED
            case Refused():
                status, _ = ANSWERS[outcome.code]
                if self._idempotent_delete and operation is Operation.TERMINATE and status in (404, 410):
                    return TERMINATED
                explained = self._explanation(outcome.code, operation, id)
                inspects = operation is Operation.INSPECT
                return refused(outcome, explained, inspects=inspects, id=id, record=record)
            case RefusedByHost():
                return refused_by_host(outcome, inspects=operation is Operation.INSPECT, id=id)
            case _:
                assert_never(outcome)

    def _explanation(self, code: Code, operation: Operation | None, id: str | None) -> dict[str, str]:
        """The header by which HTTP or TUS tells a client what it could have sent instead."""
        if code is Code.METHOD_NOT_ALLOWED:
            return {"allow": self._allow_on_collection if id is None else self._allow_on_upload}
        if code is Code.UNSUPPORTED_VERSION:
            return {"tus-version": VERSION}
        if code is Code.UNSUPPORTED_CONTENT_TYPE and operation is Operation.APPEND:
            return {"accept-patch": CONTENT_TYPE}  # RFC 5789, 2.2
        if code is Code.CHECKSUM_UNSUPPORTED and self._checks:
            return {"tus-checksum-algorithm": ALGORITHMS}
        return {}


def _is_upload_content(head: Head) -> bool:
    # Not `one`: joined, a second type would pass for a parameter of the first.
    told = head.headers.get("content-type", ())
    return len(told) == 1 and media_type(told[0]) == CONTENT_TYPE


def _carries_body(head: Head, content_length: int | None) -> bool:
    if content_length is not None:
        return content_length > 0
    # HTTP/2 frames a POST without a body in the same way as one whose length is not told: the type tells.
    return "transfer-encoding" in head.headers or "content-type" in head.headers
