"""An upload as the host sees it: a frozen snapshot, bound to where its bytes are.

Owns `Upload`, what hooks are given and may answer, and the events; knows no protocol and no lease.
Hooks get them, `TusApp` hands them out.
"""

import json
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, TypeAlias

import anyio

from tusserve.config import LONGEST_PERIOD
from tusserve.contracts import Cursor, HasLocalPath, Place, StorageBackend, UploadStore
from tusserve.errors import NotComplete
from tusserve.protocol.fields import is_text
from tusserve.protocol.metadata import Metadata
from tusserve.protocol.records import Json, Kind, Reason, Refusal, UploadRecord, UploadState


def new_id() -> str:
    """An id that nobody can guess: 128 random bits. Lower case, for file systems that know no other."""
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where an app's bytes and records are: what turns a record into something that can be read."""

    storage: StorageBackend
    store: UploadStore

    def place(self, record: UploadRecord) -> Place:
        """What the storage may know of this upload."""
        return Place(id=record.id, key=record.key, length=record.length, content_type=record.content_type)

    def cursor(self, record: UploadRecord) -> Cursor:
        """How far the storage was, by this record."""

        async def entries(start: int, stop: int) -> tuple[str, ...]:
            return tuple(await self.store.entries(record.id, start, min(stop, record.entries)))

        return Cursor(record.cursor, record.entries, entries)


@dataclass(frozen=True, slots=True, repr=False)
class Upload:
    """One upload as it was when it was looked at; it does not change. Sizes in bytes, moments in UTC.

    The bytes can be read once they are sealed: in `on_complete` and after it.
    """

    _record: UploadRecord
    _shelf: Shelf = field(compare=False)
    _sealed: str | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        return f"<Upload {self.id} {self.state} {self.offset}/{self.length}>"

    @property
    def id(self) -> str:
        """What names it, also the idempotency key for hooks that run again."""
        return self._record.id

    @property
    def state(self) -> UploadState:
        """Where it is in its life."""
        return self._record.state

    @property
    def kind(self) -> Kind:
        """Whether it is whole, a part, or made of parts."""
        return self._record.kind

    @property
    def length(self) -> int | None:
        """How many bytes it will have; None while that is not known."""
        return self._record.length

    @property
    def offset(self) -> int:
        """How many bytes are durable."""
        return self._record.offset

    @property
    def metadata(self) -> Metadata:
        """What the client said about it: never to be trusted."""
        return Metadata.load(self._record.metadata)

    @property
    def attributes(self) -> Mapping[str, Json]:
        """What the host said about it; no client sees them."""
        return self._record.attributes

    @property
    def owner(self) -> str | None:
        """Who opened it, as `authorize` or the host said."""
        return self._record.owner

    @property
    def key(self) -> str | None:
        """Where the host wants the bytes in the storage; None: the storage chose."""
        return self._record.key

    @property
    def content_type(self) -> str | None:
        """The type that a hook or the host found."""
        return self._record.content_type

    @property
    def created_at(self) -> datetime:
        """When it was opened."""
        return self._record.created_at

    @property
    def expires_at(self) -> datetime | None:
        """When it ends if nothing is added, or made of it; None: never, or it is complete and no part."""
        return self._record.expires_at

    @property
    def completed_at(self) -> datetime | None:
        """When it was accepted."""
        return self._record.completed_at

    @property
    def refusal(self) -> Refusal | None:
        """Why a hook refused it for good."""
        return self._record.refusal

    @property
    def filename(self) -> str | None:
        """The last path part of the metadata's `filename` or `name`; for people's eyes, not for paths."""
        for word in ("filename", "name"):
            if (named := self.metadata.get(word)) is not None:
                last = re.split(r"[\\/]", named)[-1]
                return None if last in {"", ".", ".."} else last
        return None

    @property
    def is_complete(self) -> bool:
        """Whether it is sealed and accepted."""
        return self._record.state is UploadState.COMPLETE

    def _sealed_record(self) -> UploadRecord:
        if self._sealed is None and not self.is_complete:
            raise NotComplete(f"upload {self.id} is {self.state}: its bytes are not sealed yet")
        return self._record

    def _sealed_cursor(self) -> Cursor:
        record = self._sealed_record()
        if self._sealed is None:
            return self._shelf.cursor(record)

        async def none(start: int, stop: int) -> tuple[str, ...]:  # noqa: ARG001 - a sealed state has no entries
            return ()

        return Cursor(self._sealed, 0, none)

    def open(
        self, start: int = 0, stop: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The bytes of the half-open range, in pieces; what lies beyond the end is not there.

        Raises `NotComplete`, `ValueError` for a negative number, and `CursorLost` while reading.
        """
        if start < 0 or (stop is not None and stop < 0):
            raise ValueError(f"a range of bytes is not counted from the end: {start} to {stop}")
        record = self._sealed_record()
        end = record.offset if stop is None else min(stop, record.offset)
        return self._shelf.storage.read(
            self._shelf.place(record), self._sealed_cursor(), min(start, end), end
        )

    async def save_to(self, path: str | Path) -> None:
        """Copy the bytes into a file of this machine, which is overwritten. Raises as `open`."""
        async with self.open() as body, await anyio.open_file(path, "wb") as file:
            async for piece in body:
                await file.write(piece)

    def local_path(self) -> Path | None:
        """Where the bytes are on this machine, for reading only; None: they are elsewhere. `NotComplete`."""
        record = self._sealed_record()
        if not isinstance(self._shelf.storage, HasLocalPath):
            return None
        state = record.cursor if self._sealed is None else self._sealed
        return self._shelf.storage.local_path(self._shelf.place(record), state)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUpload:
    """An upload that a client wants to open; nothing is stored yet."""

    id: str
    length: int | None
    metadata: Metadata
    owner: str | None
    kind: Kind
    expires_at: datetime | None


LONGEST_KEY: Final = 1024
LONGEST_NAME: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What a gate may say beyond yes; None for whatever it leaves alone.

    `key` (where the storage puts the bytes), `content_type` and `attributes` (added to those that are there)
    from any gate; `max_size` (bytes, below the app's own), `expires_in` (the initial expiry), `headers` and
    `body` (of the 201) from `on_create` alone. `ValueError` for a key that is not relative and POSIX, has
    an empty, `.` or `..` part or is too long (1024 bytes, 255 a part), and for an expiry that is over at
    once or lasts for more than a century; `TypeError` for what cannot be sent or kept.
    """

    key: str | None = None
    content_type: str | None = None
    attributes: Mapping[str, Json] = field(default_factory=dict)
    max_size: int | None = None
    expires_in: timedelta | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def __post_init__(self) -> None:
        if self.key is not None:
            check_key(self.key)
        if self.expires_in is not None:
            check_expiry(self.expires_in)
        _check_types(self)


def check_expiry(expires_in: timedelta) -> None:
    """Raise `ValueError` for a period in which nobody could send anything, or that has no end."""
    if not timedelta() < expires_in <= LONGEST_PERIOD:
        raise ValueError(
            f"expires_in must be longer than nothing and at most {LONGEST_PERIOD.days} days, not {expires_in}"
        )


def _check_types(accepted: Accepted) -> None:
    """Raise `TypeError` where it is made, not when the answer is sent or the record is kept."""
    wanted = {"content_type": str | None, "max_size": int | None, "body": bytes, "headers": Mapping}
    for name, kind in wanted.items():
        given: object = getattr(accepted, name)
        if not isinstance(given, kind):
            raise TypeError(f"{name}= of Accepted cannot be {type(given).__name__}")
    for each in (*accepted.headers.keys(), *accepted.headers.values()):
        if not isinstance(each, str):
            raise TypeError(f"headers of Accepted are str, not {type(each).__name__}")
    check_attributes(accepted.attributes)


def check_attributes(attributes: Mapping[str, Json]) -> None:
    """Raise `TypeError` or `ValueError` for what is no JSON, and so cannot be kept."""
    json.dumps(dict(attributes), allow_nan=False)


def check_key(key: str) -> None:
    """Raise `ValueError` unless `key` is a relative POSIX path of at most 1024 bytes, whose parts are names:
    at most 255 bytes each, which is what file systems take."""
    parts = key.split("/")
    odd = any(part in {"", ".", ".."} for part in parts)
    if odd or not is_text(key) or "\\" in key or "\0" in key:
        raise ValueError(f"not a usable key: {key!r} (relative, parts joined by /, none empty, '.' or '..')")
    if len(key.encode()) > LONGEST_KEY or any(len(part.encode()) > LONGEST_NAME for part in parts):
        raise ValueError(
            f"the key is too long: {key!r} (at most {LONGEST_KEY} bytes, each part at most {LONGEST_NAME})"
        )


@dataclass(frozen=True, slots=True)
class Created:
    """An upload was opened."""

    upload: Upload


@dataclass(frozen=True, slots=True)
class Progressed:
    """Bytes of it were committed."""

    upload: Upload


@dataclass(frozen=True, slots=True)
class Completed:
    """It was sealed and accepted."""

    upload: Upload


@dataclass(frozen=True, slots=True)
class Terminated:
    """It was decided that it goes."""

    upload: Upload
    reason: Reason


Event: TypeAlias = Created | Progressed | Completed | Terminated
"""What `observe` is told, after the commit."""
