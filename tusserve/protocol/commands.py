"""What a request asks for, in no dialect.

Owns the commands; a codec reads them from headers, `decide` meets them with a record. Sizes are in bytes.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from tusserve.protocol.digests import Digest
from tusserve.protocol.records import Kind


class Ends(StrEnum):
    """Whether the body of a request is the end of its upload. Said by the command, never inferred: in TUS an
    upload ends at its length, in the IETF draft where the client says so."""

    AT_LENGTH = "AT_LENGTH"
    YES = "YES"
    NO = "NO"


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Open a new upload. `carries_body`: the request's own body is its first bytes; `content_length` is that
    body's, None where it is not told beforehand, and `digest` what that body must hash to. `parts` are the
    addresses of what a FINAL is joined of, as the client gave them; `concat` is its word on all of this."""

    length: int | None
    metadata: str | None = None
    kind: Kind = Kind.WHOLE
    parts: tuple[str, ...] = ()
    concat: str | None = None
    carries_body: bool = False
    content_length: int | None = 0
    ends: Ends = Ends.AT_LENGTH
    digest: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspect:
    """Tell how far an upload is."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """Add the request's body at `offset`. `length` is the upload's, where this request declares it. With a
    `digest` the body is kept whole if it hashes to it, or else not at all."""

    id: str
    offset: int
    content_length: int | None
    ends: Ends = Ends.AT_LENGTH
    length: int | None = None
    digest: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminate:
    """End an upload and free what it holds."""

    id: str


Command: TypeAlias = Create | Inspect | Append | Terminate
