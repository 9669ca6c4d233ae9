"""What became of a request, in no dialect.

Owns the outcomes and the stable codes of every refusal; a codec gives each its status and sentence.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from tusserve.protocol.records import Refusal, UploadRecord


class Code(StrEnum):
    """Why tusserve refused. The words are stable; status and sentence belong to the codec."""

    # The request itself
    UNSUPPORTED_VERSION = "unsupported_version"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    INVALID_HEADER = "invalid_header"
    INVALID_OFFSET = "invalid_offset"
    INVALID_LENGTH = "invalid_length"
    INVALID_METADATA = "invalid_metadata"
    METADATA_TOO_LARGE = "metadata_too_large"
    INVALID_CONTENT_LENGTH = "invalid_content_length"
    LENGTH_MISSING = "length_missing"
    LENGTH_CONTRADICTED = "length_contradicted"
    LENGTH_CHANGED = "length_changed"
    LENGTH_TOO_SHORT = "length_too_short"
    LENGTH_DEFERRAL_UNSUPPORTED = "length_deferral_unsupported"
    CONCATENATION_UNSUPPORTED = "concatenation_unsupported"
    INVALID_CONCATENATION = "invalid_concatenation"
    INVALID_PART = "invalid_part"
    PART_UNFINISHED = "part_unfinished"
    INVALID_CHECKSUM = "invalid_checksum"
    CHECKSUM_UNSUPPORTED = "checksum_unsupported"
    UNSUPPORTED_CONTENT_TYPE = "unsupported_content_type"
    BODY_NOT_ALLOWED = "body_not_allowed"
    # The upload
    UPLOAD_NOT_FOUND = "upload_not_found"
    UPLOAD_TERMINATED = "upload_terminated"
    UPLOAD_EXPIRED = "upload_expired"
    UPLOAD_REJECTED = "upload_rejected"
    UPLOAD_LOST = "upload_lost"
    PART_GONE = "part_gone"
    UPLOAD_COMPLETE = "upload_complete"
    UPLOAD_FINAL = "upload_final"
    UPLOAD_NOT_COMPLETE = "upload_not_complete"
    RANGE_NOT_SATISFIABLE = "range_not_satisfiable"
    UPLOAD_TOO_LARGE = "upload_too_large"
    BODY_TOO_LONG = "body_too_long"
    OFFSET_MISMATCH = "offset_mismatch"
    CHECKSUM_MISMATCH = "checksum_mismatch"
    FIRST_CHUNK_TOO_SHORT = "first_chunk_too_short"
    KEY_TAKEN = "key_taken"
    # Not now
    UPLOAD_LOCKED = "upload_locked"
    UPLOAD_INTERRUPTED = "upload_interrupted"
    UPLOAD_FINISHING = "upload_finishing"
    FINISHING_FAILED = "finishing_failed"
    HOOK_FAILED = "hook_failed"
    STORAGE_UNAVAILABLE = "storage_unavailable"
    STORAGE_FULL = "storage_full"
    STORE_UNAVAILABLE = "store_unavailable"
    DRAINING = "draining"
    TOO_MANY_UPLOADS = "too_many_uploads"
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Nothing of what was asked was done. `offset` is the committed one where telling it helps the client;
    `retry_after` is in seconds; `message` replaces the code's own sentence where more can be said; `refusal`
    is what a hook said when it refused the upload: its code and sentence replace ours."""

    code: Code
    offset: int | None = None
    retry_after: int | None = None
    message: str | None = None
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedByHost:
    """A hook of the host refused this request, with a status of its own."""

    refusal: Refusal
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """The upload is there. `headers` and `body` are the host's additions to the answer."""

    record: UploadRecord
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Inspected:
    """This is how far it is."""

    record: UploadRecord


@dataclass(frozen=True, slots=True)
class Appended:
    """The bytes are kept, up to the record's offset."""

    record: UploadRecord


@dataclass(frozen=True, slots=True)
class Terminated:
    """It has ended."""


Outcome: TypeAlias = Refused | RefusedByHost | Created | Inspected | Appended | Terminated
