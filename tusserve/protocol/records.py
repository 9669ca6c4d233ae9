"""What is known of an upload: its record and its states.

Owns the values and their one stored form. Knows no header, no status code, no storage.
Everybody reads records; only `life` makes new ones from old ones.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, TypeAlias

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"

BODY_VERSION: Final = 1
"""The version of the stored body; a body of a newer version is refused, never guessed at."""


class UploadState(StrEnum):
    """Where an upload is in its life. `life.FOLLOWERS` says what may come after what."""

    RECEIVING = "RECEIVING"
    """Wants bytes; its offset is below its length."""
    WAITING = "WAITING"
    """A concatenation whose parts are not all there."""
    FINISHING = "FINISHING"
    """Every byte is durable; `seal` and `on_complete` are not both through."""
    COMPLETE = "COMPLETE"
    """Sealed and accepted."""
    ENDING = "ENDING"
    """Decided to go; `on_terminate` and `discard` are not both through. Answered like GONE."""
    GONE = "GONE"
    """A tombstone: only the reason is left."""


class Kind(StrEnum):
    """What an upload is to a concatenation."""

    WHOLE = "WHOLE"
    PARTIAL = "PARTIAL"
    FINAL = "FINAL"


class Action(StrEnum):
    """What a request wants to do with an upload."""

    CREATE = "CREATE"
    INSPECT = "INSPECT"
    APPEND = "APPEND"
    TERMINATE = "TERMINATE"
    DOWNLOAD = "DOWNLOAD"


class Reason(StrEnum):
    """Why an upload ended."""

    CLIENT = "CLIENT"
    """A client terminated it."""
    HOST = "HOST"
    """The host application terminated it."""
    EXPIRED = "EXPIRED"
    """Nothing was added to it for too long."""
    REJECTED = "REJECTED"
    """A hook refused it for good."""
    LOST = "LOST"
    """The storage no longer has bytes that were acknowledged."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A hook's refusal for good, as it is kept: HTTP status, stable code, one sentence."""

    status: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Expiry:
    """How long an upload may rest. Each period is counted by the application's clock.

    `initial` from creation to the first kept byte; `idle` from each PATCH or checkpoint that kept bytes
    (also when that is earlier than the date before), of a part also from its completion; `finished` from
    completion until the *record* is forgotten (the bytes stay; None: never); `tombstone` how long an ended
    upload answers 410 before 404.
    """

    initial: timedelta = timedelta(days=7)
    idle: timedelta = timedelta(days=2)
    finished: timedelta | None = None
    tombstone: timedelta = timedelta(days=7)

    def longest(self) -> timedelta:
        """The longest time for which an unfinished upload may lie untouched."""
        return max(self.initial, self.idle)


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRecord:
    """The only truth about one upload.

    `id`, `name` (which app's uploads it belongs to), `owner`, `state`, `due_at`, `created_at` and `revision`
    are columns that a store may ask about; the rest is an opaque body (`dump`, `load`). `revision` counts the
    changes and is the store's to set. All datetimes are aware and in UTC.
    """

    id: str
    name: str
    owner: str | None
    state: UploadState
    created_at: datetime
    due_at: datetime | None
    """When the reaper has to look at it; None: never."""
    revision: int = 0

    kind: Kind = Kind.WHOLE
    length: int | None
    """In bytes; None while it is not known."""
    offset: int = 0
    """Bytes that are durable and were, or may be, told to a client."""
    max_size: int
    """The most bytes that it may ever have."""
    metadata: str | None = None
    """Upload-Metadata exactly as the client sent it."""
    attributes: Mapping[str, Json] = field(default_factory=dict)
    """The host's own, never sent to a client."""
    key: str | None = None
    content_type: str | None = None
    expires_at: datetime | None = None
    completed_at: datetime | None = None
    gated: bool = False
    """Its app has hooks that a process without them must not skip."""
    attempts: int = 0
    """How often finishing or ending it was tried and failed."""
    reason: Reason | None = None
    refusal: Refusal | None = None
    cursor: str = ""
    """The storage's own state; empty: the storage has nothing of this upload."""
    entries: int = 0
    """How many cursor entries the store keeps for it."""
    parts: tuple[str, ...] = ()
    """The ids that a concatenation is made of, in order."""
    concat: str | None = None
    """What the client said of the concatenation that it belongs to, exactly as it did."""

    def dump(self) -> bytes:
        """The stored body: everything that is not a column, as versioned JSON."""
        body: dict[str, Json] = {
            "v": BODY_VERSION,
            "kind": self.kind,
            "length": self.length,
            "offset": self.offset,
            "max_size": self.max_size,
            "metadata": self.metadata,
            "attributes": dict(self.attributes),
            "key": self.key,
            "content_type": self.content_type,
            "expires_at": _to_micros(self.expires_at),
            "completed_at": _to_micros(self.completed_at),
            "gated": self.gated,
            "attempts": self.attempts,
            "reason": self.reason,
            "refusal": [self.refusal.status, self.refusal.code, self.refusal.message]
            if self.refusal
            else None,
            "cursor": self.cursor,
            "entries": self.entries,
            "parts": list(self.parts),
            "concat": self.concat,
        }
        return json.dumps(body, separators=(",", ":")).encode("ascii")

    @classmethod
    def load(
        cls,
        body: bytes,
        *,
        id: str,
        name: str,
        owner: str | None,
        state: str,
        created_at: datetime,
        due_at: datetime | None,
        revision: int,
    ) -> "UploadRecord":
        """The record that `dump` and the columns were made of.

        Raises `ValueError` for a body made by a newer version of tusserve: upgrade this process.
        """
        held = json.loads(body)
        if held["v"] > BODY_VERSION:
            raise ValueError(
                f"upload {id}: its record has version {held['v']}, this tusserve knows {BODY_VERSION}"
            )
        return cls(
            id=id,
            name=name,
            owner=owner,
            state=UploadState(state),
            created_at=created_at,
            due_at=due_at,
            revision=revision,
            kind=Kind(held["kind"]),
            length=held["length"],
            offset=held["offset"],
            max_size=held["max_size"],
            metadata=held["metadata"],
            attributes=held["attributes"],
            key=held["key"],
            content_type=held["content_type"],
            expires_at=from_micros(held["expires_at"]),
            completed_at=from_micros(held["completed_at"]),
            gated=held["gated"],
            attempts=held["attempts"],
            reason=Reason(held["reason"]) if held["reason"] is not None else None,
            refusal=Refusal(*held["refusal"]) if held["refusal"] is not None else None,
            cursor=held["cursor"],
            entries=held["entries"],
            parts=tuple(held["parts"]),
            concat=held.get("concat"),  # records from before concatenations have none
        )


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def to_micros(moment: datetime) -> int:
    """Microseconds since 1970, exactly: the form in which moments are stored."""
    return (moment - _EPOCH) // _MICROSECOND


def _to_micros(moment: datetime | None) -> int | None:
    return None if moment is None else to_micros(moment)


def from_micros(micros: int | None) -> datetime | None:
    """The moment that `to_micros` was given."""
    return None if micros is None else _EPOCH + timedelta(microseconds=micros)
