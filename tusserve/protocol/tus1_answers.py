"""What TUS 1.0.0 answers: status and sentence of each refusal, and the headers of every reply.

Owns the words that clients see; the reference documentation is made of the table. Knows no request. The codec
calls it.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from tusserve.protocol.digests import HASHES
from tusserve.protocol.fields import imf_fixdate, is_id
from tusserve.protocol.http import PROBLEM_TYPE, Problem, Reply, problem_json
from tusserve.protocol.outcomes import Code, Created, Refused, RefusedByHost
from tusserve.protocol.records import Kind, UploadRecord, UploadState

VERSION: Final = "1.0.0"

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
        Code.INVALID_CONCATENATION: (
            400,
            "Upload-Concat is partial, or final; and the addresses of 1 to 1000 uploads with spaces between.",
        ),
        Code.INVALID_PART: (400, "A part has to be a partial upload of this server that you may use."),
        Code.PART_UNFINISHED: (400, "A part is not complete yet: send the rest of it first."),
        Code.INVALID_CHECKSUM: (
            400,
            "Upload-Checksum is the name of an algorithm, a space, and the digest of the body in Base64.",
        ),
        Code.CHECKSUM_UNSUPPORTED: (
            400,
            "Nothing is checked here by that algorithm; Tus-Checksum-Algorithm lists those that are.",
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
        Code.PART_GONE: (410, "A part was gone before the upload could be made of it."),
        Code.UPLOAD_COMPLETE: (403, "The upload is complete and takes no more bytes."),
        Code.UPLOAD_FINAL: (403, "The upload is made of other uploads and takes no bytes of its own."),
        Code.UPLOAD_NOT_COMPLETE: (404, "The upload is not complete: there is nothing to download yet."),
        Code.RANGE_NOT_SATISFIABLE: (416, "The upload has no bytes in that range."),
        Code.UPLOAD_TOO_LARGE: (413, "The upload has more bytes than are accepted here."),
        Code.BODY_TOO_LONG: (413, "The body has more bytes than the upload has left."),
        Code.OFFSET_MISMATCH: (409, "The upload is at another offset: go on from Upload-Offset."),
        Code.CHECKSUM_MISMATCH: (
            460,
            "The body is not the one that the checksum is of: nothing of it is kept, send it again.",
        ),
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
"""The status and the sentence of each code. A message in the `Refused` takes the place of the sentence, the
refusal of a hook that of code and sentence; to HEAD a 5xx becomes 423."""

ALGORITHMS: Final = ",".join(HASHES)

_RETRY_AFTER: Final = {423: "1", 503: "5"}
"""Seconds, where an outcome does not say: what holds an upload is brief, what ails a server less so."""

_OF_A_KNOWN_UPLOAD: Final = frozenset({409, 413, 416, 423, 460})
"""Refusals that only somebody gets to see who may know of the upload: the others must look the same, whether
there is one or not."""


def capabilities(extensions: Sequence[str], max_size: int) -> Reply:
    """The answer to OPTIONS; Tus-Extension is left out if there are none (TUS 1.0.0, Tus-Extension)."""
    headers = {"tus-resumable": VERSION, "tus-version": VERSION}
    if extensions:
        headers["tus-extension"] = ",".join(extensions)
    if "checksum" in extensions:
        headers["tus-checksum-algorithm"] = ALGORITHMS
    headers["tus-max-size"] = str(max_size)
    return _reply(204, headers)


def created(outcome: Created, location: str, *, tells_offset: bool) -> Reply:
    """201, with the host's additions. `tells_offset`: creation-with-upload is announced."""
    record = outcome.record
    headers = {"tus-resumable": VERSION, "location": location}
    if tells_offset and record.kind is not Kind.FINAL:
        # Claiming less is safe: the PATCH at 0 that follows is told 423, and then HEAD tells how it went.
        headers["upload-offset"] = "0" if record.state is UploadState.FINISHING else str(record.offset)
    headers = _beside(headers | _expiry(record), outcome.headers)
    headers["content-length"] = str(len(outcome.body))
    return _reply(201, headers, outcome.body)


def inspected(record: UploadRecord) -> Reply:
    """200 with all that HEAD tells. No body, and no length of one that GET might have."""
    if record.state is UploadState.FINISHING:
        return refused(Refused(code=Code.UPLOAD_FINISHING), {}, inspects=True)
    waiting = record.state is UploadState.WAITING
    headers = {"tus-resumable": VERSION, "cache-control": "no-store"}
    if not waiting:
        headers["upload-offset"] = str(record.offset)
    if record.length is not None:
        headers["upload-length"] = str(record.length)
    elif not waiting:
        headers["upload-defer-length"] = "1"
    if record.metadata:
        headers["upload-metadata"] = record.metadata
    if record.concat is not None:
        headers["upload-concat"] = record.concat
    headers |= _expiry(record)
    headers["content-length"] = "0"
    return _reply(200, headers)


def appended(record: UploadRecord) -> Reply:
    """204 with the new offset."""
    if record.state is UploadState.FINISHING:
        # Its offset is its length already, and clients take that for success before it is one.
        return refused(Refused(code=Code.UPLOAD_FINISHING), {}, inspects=False, id=record.id)
    return _reply(204, {"tus-resumable": VERSION, "upload-offset": str(record.offset)} | _expiry(record))


TERMINATED: Final = Reply(status=204, headers=(("tus-resumable", VERSION),))
"""The answer to DELETE: exactly 204, which is what tus-js-client insists on."""


def refused(
    outcome: Refused,
    explained: Mapping[str, str],
    *,
    inspects: bool,
    id: str | None = None,
    record: UploadRecord | None = None,
) -> Reply:
    """The answer to what tusserve refuses; `explained` are headers that say what would have been right."""
    status, message = ANSWERS[outcome.code]
    code: str = outcome.code
    if outcome.refusal is not None:
        code, message = outcome.refusal.code, outcome.refusal.message
    elif outcome.message is not None:
        message = outcome.message
    headers = dict(explained)
    if outcome.offset is not None and not inspects:
        headers["upload-offset"] = str(outcome.offset)
    if outcome.retry_after is not None:
        headers["retry-after"] = str(outcome.retry_after)
    if record is not None and status in _OF_A_KNOWN_UPLOAD:
        headers |= _expiry(record)
        if outcome.code is Code.RANGE_NOT_SATISFIABLE:
            headers["content-range"] = f"bytes */{record.offset}"  # RFC 9110, 15.5.17
    return _problem(status, code, message, headers, inspects=inspects, id=id)


def refused_by_host(outcome: RefusedByHost, *, inspects: bool, id: str | None = None) -> Reply:
    """The answer to what a hook refuses: its status, words and headers."""
    refusal = outcome.refusal
    headers = _beside({}, outcome.headers)
    headers.pop("content-type", None)  # it would be that of a body which is not theirs
    return _problem(
        refusal.status,
        refusal.code,
        refusal.message,
        headers,
        inspects=inspects,
        id=id,
        extra=outcome.extra,
    )


def _problem(
    status: int,
    code: str,
    message: str,
    headers: Mapping[str, str],
    *,
    inspects: bool,
    id: str | None,
    extra: Mapping[str, object] = MappingProxyType({}),
) -> Reply:
    if inspects and status >= 500:
        # Clients take any failed HEAD but 423 for the end of the upload, and send a new one from 0.
        status = 423
    told = {**headers, "tus-resumable": VERSION, "cache-control": "no-store"}
    if status in _RETRY_AFTER:
        told.setdefault("retry-after", _RETRY_AFTER[status])
    if inspects:
        return Reply(status=status, headers=tuple((told | {"content-length": "0"}).items()), code=code)
    problem = Problem(
        status=status,
        code=code,
        message=message,
        extra=extra,
        headers=told,
        upload_id=id if id is not None and is_id(id) else None,
    )
    body = problem_json(problem)
    framed = told | {"content-type": PROBLEM_TYPE, "content-length": str(len(body))}
    return Reply(status=status, headers=tuple(framed.items()), body=body, problem=problem, code=code)


def _reply(status: int, headers: Mapping[str, str], body: bytes = b"") -> Reply:
    return Reply(status=status, headers=tuple(headers.items()), body=body)


def _expiry(record: UploadRecord) -> dict[str, str]:
    """The date until which something has to be added, or a part be used, while there is one."""
    if record.expires_at is None or record.state not in _EXPIRING:
        return {}
    return {"upload-expires": imf_fixdate(record.expires_at)}


_EXPIRING: Final = frozenset({UploadState.RECEIVING, UploadState.WAITING, UploadState.COMPLETE})
_FRAMING: Final = frozenset({"content-length", "transfer-encoding"})


def _beside(ours: Mapping[str, str], theirs: Mapping[str, str]) -> dict[str, str]:
    """A hook adds to an answer; it changes neither what the protocol says there nor where the body ends."""
    added = {name.lower(): value for name, value in theirs.items()}
    return {name: value for name, value in added.items() if name not in _FRAMING} | dict(ours)
