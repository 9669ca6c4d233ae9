"""How TUS 1.0.0 answers each refusal: one table of status and sentence.

Owns the words that clients see; the reference documentation is made of it. Knows no record and no header.
The codec reads it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tusserve.protocol.outcomes import Code

ANSWERS: Final[Mapping[Code, tuple[int, str]]] = MappingProxyType(
    {
        # The request itself
        Code.UNSUPPORTED_VERSION: (
            412,
            "Send the header Tus-Resumable: 1.0.0; this server speaks no other version.",
        ),
        Code.METHOD_NOT_ALLOWED: (
            405,
            "The method does nothing here; the Allow header lists those that do.",
        ),
        Code.INVALID_HEADER: (400, "A header of the request cannot be understood."),
        Code.INVALID_OFFSET: (400, "Send Upload-Offset once, as a whole number in ASCII digits."),
        Code.INVALID_LENGTH: (400, "Send Upload-Length once, as a whole number in ASCII digits."),
        Code.INVALID_METADATA: (
            400,
            "Upload-Metadata is a list of different keys, each with a space and a value in Base64.",
        ),
        Code.METADATA_TOO_LARGE: (400, "Upload-Metadata may have at most 8192 characters."),
        Code.INVALID_CONTENT_LENGTH: (400, "Send Content-Length once, as a whole number in ASCII digits."),
        Code.LENGTH_MISSING: (400, "Send Upload-Length to say how many bytes the upload will have."),
        Code.LENGTH_CONTRADICTED: (400, "Send either Upload-Length or Upload-Defer-Length, not both."),
        Code.LENGTH_CHANGED: (400, "The length of the upload is already known and cannot be changed."),
        Code.LENGTH_TOO_SHORT: (400, "The upload has fewer bytes than are accepted here."),
        Code.LENGTH_DEFERRAL_UNSUPPORTED: (
            400,
            "This server wants the length when the upload is created: send Upload-Length.",
        ),
        Code.CONCATENATION_UNSUPPORTED: (
            400,
            "This server does not join uploads: send the file as one, without Upload-Concat.",
        ),
        Code.UNSUPPORTED_CONTENT_TYPE: (
            415,
            "Send bytes of an upload with Content-Type: application/offset+octet-stream.",
        ),
        Code.BODY_NOT_ALLOWED: (400, "Create the upload without a body, then send its bytes with PATCH."),
        # The upload
        Code.UPLOAD_NOT_FOUND: (404, "There is no such upload."),
        Code.UPLOAD_TERMINATED: (410, "The upload was cancelled."),
        Code.UPLOAD_EXPIRED: (410, "The upload was left unfinished for too long and has expired."),
        Code.UPLOAD_REJECTED: (410, "The upload was refused and has ended."),
        Code.UPLOAD_LOST: (410, "The server has lost bytes of the upload: start it again."),
        Code.UPLOAD_COMPLETE: (403, "The upload is complete and takes no more bytes."),
        Code.UPLOAD_FINAL: (403, "The upload is made of other uploads and takes no bytes of its own."),
        Code.UPLOAD_TOO_LARGE: (413, "The upload has more bytes than are accepted here."),
        Code.BODY_TOO_LONG: (413, "The body has more bytes than the upload has left."),
        Code.OFFSET_MISMATCH: (409, "The upload is at another offset: go on from Upload-Offset."),
        Code.FIRST_CHUNK_TOO_SHORT: (400, "The first body of an upload needs more bytes here."),
        Code.KEY_TAKEN: (422, "Another upload already has the place where this one was to go."),
        # Not now
        Code.UPLOAD_LOCKED: (423, "Another request is working on the upload: try again shortly."),
        Code.UPLOAD_INTERRUPTED: (423, "The request was interrupted: go on from Upload-Offset."),
        Code.UPLOAD_FINISHING: (
            423,
            "Every byte is here and the upload is being finished: ask again shortly.",
        ),
        Code.FINISHING_FAILED: (
            503,
            "Every byte is here, but finishing failed for now: try again later.",
        ),
        Code.HOOK_FAILED: (503, "The application could not decide about the request: try again later."),
        Code.STORAGE_UNAVAILABLE: (503, "The storage cannot be reached for now: try again later."),
        Code.STORAGE_FULL: (507, "The storage has no room for more bytes: try again later."),
        Code.STORE_UNAVAILABLE: (503, "The state of uploads cannot be reached for now: try again later."),
        Code.DRAINING: (503, "The server is shutting down: try again shortly."),
        Code.TOO_MANY_UPLOADS: (503, "The server is receiving as much as it can: try again shortly."),
        Code.INTERNAL_ERROR: (503, "The server failed unexpectedly: try again later."),
    }
)
"""The status and the sentence of each code. Where a `Refused` has a message or a hook's refusal, that takes the
place of the sentence; to HEAD a 5xx becomes 423."""
