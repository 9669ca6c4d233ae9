"""Bytes in memory: for tests, demonstrations, and as the oracle that other storages are compared with.

Owns `MemoryStorage`. Knows nothing of records or stores, binds no event loop, and keeps its bytes as long as
the object lives. The engine calls it.
"""

from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from types import TracebackType
from typing import Final, Self

from tusserve.contracts import Cursor, Durable, Lease, Part, Place
from tusserve.errors import CursorLost, KeyTaken

__all__ = ["MemoryStorage"]

_SEALED: Final = "sealed"
_CHUNK: Final = 1 << 18


class MemoryStorage:
    """Keeps every upload in one `bytearray` of this process, as large as the uploads are."""

    def __init__(self) -> None:
        self._areas: defaultdict[str, dict[str, bytearray]] = defaultdict(dict)
        """By upload, then by place. A place is `FENCE.SERIAL`, or `sealed`."""
        self._keys: dict[str, str] = {}
        """Which upload has a key."""
        self._serials = count(1)

    @property
    def checkpoint_bytes(self) -> int:
        """16 MiB."""
        return 16 << 20

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    @asynccontextmanager
    async def writer(
        self, place: Place, cursor: Cursor, at: int, lease: Lease
    ) -> AsyncGenerator["_MemoryWriter"]:
        """A writer that goes on at `at`. Raises `CursorLost`, and `KeyTaken` before the first byte."""
        if place.key is not None and self._keys.get(place.key, place.id) != place.id:
            raise KeyTaken(f"the key {place.key!r} is taken")
        name, held = cursor.state, self._held(place, cursor, at)
        if not name or int(name.partition(".")[0]) <= lease.alive:
            # Whoever is alive may still write to the old place: its bytes are copied, not moved.
            name, held = f"{lease.fence.number}.{next(self._serials)}", held[:at]
            self._areas[place.id][name] = held
        yield _MemoryWriter(name, held, at)

    @asynccontextmanager
    async def read(
        self, place: Place, cursor: Cursor, start: int, stop: int
    ) -> AsyncGenerator[AsyncIterator[bytes]]:
        """Exactly the bytes of the half-open range. Raises `CursorLost`."""
        yield _chunks(self._held(place, cursor, stop), start, stop)

    async def seal(self, place: Place, cursor: Cursor, length: int) -> str:
        """Copy the bytes to where no writer can reach them. Raises `CursorLost`, `KeyTaken`."""
        area = self._areas[place.id]
        if cursor.state == _SEALED:
            self._areas[place.id] = {_SEALED: self._held(place, cursor, length)}
        elif _SEALED not in area:
            sealed = self._held(place, cursor, length)[:length]
            if place.key is not None and self._keys.setdefault(place.key, place.id) != place.id:
                raise KeyTaken(f"the key {place.key!r} is taken")
            area[_SEALED] = sealed
        return _SEALED

    async def concatenate(self, place: Place, parts: Sequence[Part]) -> str:
        """Copy the bytes of the parts into one. Raises `CursorLost`, `KeyTaken`."""
        if _SEALED not in self._areas.get(place.id, {}):
            joined = bytearray()
            for part in parts:
                held = self._areas.get(part.place.id, {}).get(part.state)
                if held is None or len(held) < part.length:
                    raise CursorLost("the bytes of a part are gone")
                joined += held[: part.length]
            if place.key is not None and self._keys.setdefault(place.key, place.id) != place.id:
                raise KeyTaken(f"the key {place.key!r} is taken")
            self._areas[place.id][_SEALED] = joined
        return _SEALED

    async def has_bytes(self, id: str) -> bool:
        """Whether there are bytes of an upload of this id."""
        return bool(self._areas.get(id))

    async def discard(self, place: Place, cursor: Cursor) -> None:  # noqa: ARG002
        """Forget the upload, and its key if it has it."""
        self._areas.pop(place.id, None)
        if place.key is not None and self._keys.get(place.key) == place.id:
            del self._keys[place.key]

    def _held(self, place: Place, cursor: Cursor, stop: int) -> bytearray:
        """The bytes that the cursor names, of which there must be `stop`."""
        held = self._areas[place.id].get(cursor.state) if cursor.state else bytearray()
        if held is None or len(held) < stop:
            raise CursorLost("bytes that were acknowledged are gone")
        return held


class _MemoryWriter:
    opened: str | None = None
    settled = True

    def __init__(self, name: str, held: bytearray, at: int) -> None:
        self._name, self._held, self._end = name, held, at
        del held[at:]

    async def write(self, data: bytes) -> None:
        self._held[self._end :] = data
        self._end += len(data)

    async def flush(self, everything: bool) -> Durable:  # noqa: ARG002
        return Durable(offset=self._end, state=self._name)


async def _chunks(held: bytearray, start: int, stop: int) -> AsyncGenerator[bytes]:
    for begin in range(start, stop, _CHUNK):
        yield bytes(held[begin : min(begin + _CHUNK, stop)])
