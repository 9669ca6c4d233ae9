"""The kit catches what it is for: storages broken on purpose, each found by the checks of its own clause."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import pytest

from tusserve.contracts import Cursor, Durable, Lease, Part, Place, StorageBackend, Writer
from tusserve.errors import CursorLost, KeyTaken, StorageUnavailable
from tusserve.testing.storage_kit import storage_checks


class SoundWriter:
    """Writes to a place in memory, and suspends each time."""

    opened: str | None = None
    settled = True

    def __init__(self, storage: "Sound", state: str, at: int) -> None:
        self.storage, self.state, self.at, self.end = storage, state, at, at
        self.drop_tail()

    @property
    def held(self) -> bytearray:
        """The bytes of the place. One that was removed comes back, as a file would that is opened anew."""
        return self.storage.places.setdefault(self.state, bytearray())

    def drop_tail(self) -> None:
        del self.held[self.at :]

    def land(self, at: int, data: bytes) -> None:
        held = self.held
        held.extend(bytes(max(0, at - len(held))))
        held[at : at + len(data)] = data

    async def write(self, data: bytes) -> None:
        self.end += len(data)
        await asyncio.sleep(0)
        self.land(self.end - len(data), data)

    async def flush(self, everything: bool) -> Durable:
        await asyncio.sleep(0)
        return Durable(offset=self.end, state=self.state)

    def leave(self, error: BaseException | None) -> bool:
        """What happens when the writer is left. True: the error ends here."""
        return False


class Sound:
    """As simple a storage as can be, in steps to be broken one at a time. A place is ID/FENCE/SERIAL."""

    checkpoint_bytes = 1 << 20
    writes: type[SoundWriter] = SoundWriter

    def __init__(self) -> None:
        self.places: dict[str, bytearray] = {}
        self.keys: dict[str, str] = {}
        self.serial = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def owner_of(self, place: Place) -> str:
        return place.id

    def mine(self, place: Place) -> list[str]:
        return [name for name in self.places if name.split("/")[0] == self.owner_of(place)]

    def held(self, place: Place, cursor: Cursor, stop: int) -> bytearray:
        held = self.places.get(cursor.state) if cursor.state else bytearray()
        if held is None or len(held) < stop:
            raise CursorLost
        return held

    def may_go_on(self, state: str, lease: Lease) -> bool:
        return bool(state) and int(state.split("/")[1]) > lease.alive

    def new_place(self, place: Place, cursor: Cursor, at: int, lease: Lease) -> str:
        self.serial += 1
        state = f"{self.owner_of(place)}/{lease.fence.number}/{self.serial}"
        self.places[state] = self.held(place, cursor, at)[:at]
        return state

    @asynccontextmanager
    async def writer(self, place: Place, cursor: Cursor, at: int, lease: Lease) -> AsyncGenerator[Writer]:
        if place.key is not None and self.keys.get(place.key, place.id) != place.id:
            raise KeyTaken
        self.held(place, cursor, at)
        if self.may_go_on(cursor.state, lease):
            state = cursor.state
        else:
            state = self.new_place(place, cursor, at, lease)
        writer = self.writes(self, state, at)
        try:
            yield writer
        except BaseException as error:
            if not writer.leave(error):
                raise
        else:
            writer.leave(None)

    def read(
        self, place: Place, cursor: Cursor, start: int, stop: int
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return self.reading(place, cursor, start, stop)

    @asynccontextmanager
    async def reading(
        self, place: Place, cursor: Cursor, start: int, stop: int
    ) -> AsyncGenerator[AsyncIterator[bytes]]:
        held = bytes(self.held(place, cursor, stop))

        async def chunks() -> AsyncGenerator[bytes]:
            await asyncio.sleep(0)
            yield held[start:stop]

        yield chunks()

    async def seal(self, place: Place, cursor: Cursor, length: int) -> str:
        sealed = f"{self.owner_of(place)}/0/sealed"
        if cursor.state == sealed:
            for name in self.mine(place):
                if name != sealed:
                    del self.places[name]
            return sealed
        if sealed not in self.places:
            held = self.held(place, cursor, length)[:length]
            await asyncio.sleep(0)
            self.places[sealed] = held
        if place.key is not None:
            self.take_key(place, place.key)
        return sealed

    async def concatenate(self, place: Place, parts: Sequence[Part]) -> str:
        sealed = f"{self.owner_of(place)}/0/sealed"
        if sealed not in self.places:
            joined = b"".join([self.piece(part) for part in parts])
            await asyncio.sleep(0)
            self.places[sealed] = bytearray(joined)
        if place.key is not None:
            self.take_key(place, place.key)
        return sealed

    def piece(self, part: Part) -> bytes:
        held = self.places.get(part.state, b"")
        if len(held) < part.length or part.state not in self.places:
            raise CursorLost
        return bytes(held[: part.length])

    def take_key(self, place: Place, key: str) -> None:
        if self.keys.setdefault(key, place.id) != place.id:
            raise KeyTaken

    async def discard(self, place: Place, cursor: Cursor) -> None:
        for name in self.mine(place):
            del self.places[name]
        if place.key is not None and self.keys.get(place.key) == place.id:
            del self.keys[place.key]


BROKEN: list[tuple[str, str, Callable[[], Sound]]] = []
"""The clause that has to find it, its name, and the storage."""
Broken = TypeVar("Broken", type[Sound], type[SoundWriter])


def breaks(clause: str) -> Callable[[Broken], Broken]:
    def note(broken: Broken) -> Broken:
        storage = broken if issubclass(broken, Sound) else type("_", (Sound,), {"writes": broken})
        BROKEN.append((clause, broken.__name__, storage))
        return broken

    return note


@breaks("B1")
class BeginsAtZero(SoundWriter):
    def drop_tail(self) -> None:
        self.held.clear()
        self.end = 0

    async def flush(self, everything: bool) -> Durable:
        return Durable(offset=self.at + self.end, state=self.state)


@breaks("B1")
class SwapsTwoWrites(SoundWriter):
    waiting = b""

    async def write(self, data: bytes) -> None:
        self.waiting, data = (data, b"") if not self.waiting else (b"", data + self.waiting)
        await super().write(data)

    async def flush(self, everything: bool) -> Durable:
        await super().write(self.waiting)
        self.waiting = b""
        return await super().flush(everything)


@breaks("B1")
class ReadsOneByteTooFew(Sound):
    def read(
        self, place: Place, cursor: Cursor, start: int, stop: int
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return super().read(place, cursor, start, max(start, stop - 1))


@breaks("B1")
class ReadsOneByteTooEarly(Sound):
    def read(
        self, place: Place, cursor: Cursor, start: int, stop: int
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return super().read(place, cursor, max(0, start - 1), stop)


@breaks("B2")
class GoesOnBehindTheTail(SoundWriter):
    def drop_tail(self) -> None:
        self.end = len(self.held)


@breaks("B2")
class SealsTheTailToo(Sound):
    class writes(SoundWriter):  # noqa: N801
        def drop_tail(self) -> None: ...

    async def seal(self, place: Place, cursor: Cursor, length: int) -> str:
        sealed = await super().seal(place, cursor, length)
        self.places[sealed] = self.places.get(cursor.state, bytearray()).copy()
        return sealed

    def read(
        self, place: Place, cursor: Cursor, start: int, stop: int
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        held = self.held(place, cursor, stop)
        return super().read(place, cursor, start, len(held) if cursor.state.endswith("sealed") else stop)


@breaks("B3")
class FlushesOnlyWhenLeft(SoundWriter):
    def __init__(self, storage: Sound, state: str, at: int) -> None:
        super().__init__(storage, state, at)
        self.waiting: list[tuple[int, bytes]] = []

    async def write(self, data: bytes) -> None:
        self.waiting.append((self.end, data))
        self.end += len(data)

    def leave(self, error: BaseException | None) -> bool:
        for at, data in self.waiting:
            self.land(at, data)
        return False


@breaks("B3")
class FlushLeavesOutTheLastWrite(SoundWriter):
    latest = 0

    async def write(self, data: bytes) -> None:
        self.latest = len(data)
        await super().write(data)

    async def flush(self, everything: bool) -> Durable:
        return Durable(offset=self.end - self.latest, state=self.state)


@breaks("B3")
class CheckpointGoesBack(SoundWriter):
    async def flush(self, everything: bool) -> Durable:
        return Durable(offset=self.end if everything else self.at, state=self.state)


@breaks("B4")
class LeavingTakesBytesAlong(SoundWriter):
    flushed = False

    async def flush(self, everything: bool) -> Durable:
        self.flushed = True
        return await super().flush(everything)

    def leave(self, error: BaseException | None) -> bool:
        if not self.flushed and not isinstance(error, asyncio.CancelledError):
            self.held.clear()
        return False


@breaks("B4")
class SwallowsErrors(SoundWriter):
    def leave(self, error: BaseException | None) -> bool:
        return isinstance(error, Exception)


@breaks("B6")
class CancelledTakesBytesAlong(SoundWriter):
    def leave(self, error: BaseException | None) -> bool:
        if isinstance(error, asyncio.CancelledError):
            self.held.clear()
        return False


@breaks("B6")
class SealTakesPlacesBeforeItSuspends(Sound):
    async def seal(self, place: Place, cursor: Cursor, length: int) -> str:
        if cursor.state.endswith("sealed"):
            return cursor.state
        held = self.places.pop(cursor.state, bytearray())
        await asyncio.sleep(0)
        self.places[cursor.state] = held
        return await super().seal(place, cursor, length)


@breaks("B7")
class IdsThatBeginAlikeAreOne(Sound):
    def mine(self, place: Place) -> list[str]:
        return [name for name in self.places if name.startswith(place.id)]


@breaks("B7")
class AllInOnePlace(Sound):
    def owner_of(self, place: Place) -> str:
        return "all"

    def new_place(self, place: Place, cursor: Cursor, at: int, lease: Lease) -> str:
        self.places.setdefault("all/9/1", bytearray())
        return "all/9/1"


@breaks("B8")
class MissingIsAKeyError(Sound):
    def held(self, place: Place, cursor: Cursor, stop: int) -> bytearray:
        return self.places[cursor.state] if cursor.state else super().held(place, cursor, stop)


@breaks("B8")
class TheNextTakesTheKey(Sound):
    def take_key(self, place: Place, key: str) -> None:
        self.keys[key] = place.id


@breaks("B8")
class DiscardTakesAForeignKey(Sound):
    async def discard(self, place: Place, cursor: Cursor) -> None:
        await super().discard(place, cursor)
        for name in [each for each in self.places if each.split("/")[0] == self.keys.get(place.key or "")]:
            del self.places[name]


@breaks("B10")
class SealFillsUpWhatIsMissing(Sound):
    async def seal(self, place: Place, cursor: Cursor, length: int) -> str:
        held = self.places.setdefault(cursor.state, bytearray())
        held.extend(bytes(max(0, length - len(held))))
        return await super().seal(place, cursor, length)


@breaks("B10")
class MissingBytesAreZeros(Sound):
    def held(self, place: Place, cursor: Cursor, stop: int) -> bytearray:
        return self.places.get(cursor.state, bytearray(stop))


@breaks("B11")
class GoesOnWhoeverStandsStill(Sound):
    def may_go_on(self, state: str, lease: Lease) -> bool:
        return bool(state)


@breaks("B11")
class GoesOnWhereTheNewestStandsStill(Sound):
    def may_go_on(self, state: str, lease: Lease) -> bool:
        return bool(state) and int(state.split("/")[1]) >= lease.alive


@breaks("B11")
class AllLeasesOpenOnePlace(Sound):
    def new_place(self, place: Place, cursor: Cursor, at: int, lease: Lease) -> str:
        state = f"{place.id}/99/new"
        self.places.setdefault(state, self.held(place, cursor, at)[:at])
        return state


@breaks("B11")
class SealedBytesAreAPlaceForAnyLease(Sound):
    def may_go_on(self, state: str, lease: Lease) -> bool:
        return bool(state)

    async def seal(self, place: Place, cursor: Cursor, length: int) -> str:
        self.held(place, cursor, length)
        return cursor.state


@breaks("B12")
class CancelledWriteLandsLater(SoundWriter):
    async def write(self, data: bytes) -> None:
        try:
            await super().write(data)
        except asyncio.CancelledError:
            asyncio.get_running_loop().call_later(0.005, self.land, self.end - len(data), data)
            raise


@breaks("B13")
class DiscardFailsWhereNothingIs(Sound):
    async def discard(self, place: Place, cursor: Cursor) -> None:
        if not self.mine(place):
            raise StorageUnavailable
        await super().discard(place, cursor)


@breaks("B13")
class DiscardForgetsTheSealed(Sound):
    async def discard(self, place: Place, cursor: Cursor) -> None:
        sealed = self.places.get(f"{place.id}/0/sealed")
        await super().discard(place, cursor)
        if sealed is not None:
            self.places[f"{place.id}/0/sealed"] = sealed


@breaks("B13")
class RepeatedSealFindsNothing(Sound):
    async def seal(self, place: Place, cursor: Cursor, length: int) -> str:
        sealed = await super().seal(place, cursor, length)
        if cursor.state == sealed:
            self.places[sealed] = bytearray(length)
        return sealed


@breaks("B13")
class LateSealBringsBytesBack(Sound):
    async def seal(self, place: Place, cursor: Cursor, length: int) -> str:
        self.places.setdefault(cursor.state, bytearray(length))
        return await super().seal(place, cursor, length)


@breaks("B13")
class OwnKeyIsTaken(Sound):
    def take_key(self, place: Place, key: str) -> None:
        if self.keys.setdefault(key, place.id) != place.id or f"sealed {place.id}" in self.keys:
            raise KeyTaken
        self.keys[f"sealed {place.id}"] = ""


@breaks("B13")
class KeysAreNeverFreeAgain(Sound):
    async def discard(self, place: Place, cursor: Cursor) -> None:
        for name in self.mine(place):
            del self.places[name]


@breaks("B14")
class NewPlaceTakesTheOldAway(Sound):
    def new_place(self, place: Place, cursor: Cursor, at: int, lease: Lease) -> str:
        state = super().new_place(place, cursor, at, lease)
        self.places.pop(cursor.state, None)
        return state


@breaks("B14")
class SealTakesPlacesAtOnce(Sound):
    async def seal(self, place: Place, cursor: Cursor, length: int) -> str:
        sealed = await super().seal(place, cursor, length)
        for name in self.mine(place):
            if name != sealed:
                del self.places[name]
        return sealed


@breaks("B1")
class PartsAreJoinedByName(Sound):
    async def concatenate(self, place: Place, parts: Sequence[Part]) -> str:
        return await super().concatenate(place, sorted(parts, key=lambda part: part.state))


@breaks("B1")
class PartsAreJoinedOnce(Sound):
    async def concatenate(self, place: Place, parts: Sequence[Part]) -> str:
        return await super().concatenate(place, list(dict.fromkeys(parts)))


@breaks("B10")
class MissingPartsAreLeftOut(Sound):
    def piece(self, part: Part) -> bytes:
        return bytes(self.places.get(part.state, b""))


@breaks("B13")
class JoiningAgainMovesBytes(Sound):
    async def concatenate(self, place: Place, parts: Sequence[Part]) -> str:
        again = f"{place.id}/0/sealed" in self.places
        sealed = await super().concatenate(place, parts)
        if again:
            self.places[sealed].insert(0, 0)
        return sealed


@breaks("B13")
class TheWholeNeedsItsParts(Sound):
    made: dict[str, Sequence[Part]]

    async def concatenate(self, place: Place, parts: Sequence[Part]) -> str:
        self.made = getattr(self, "made", {}) | {place.id: parts}
        return await super().concatenate(place, parts)

    def held(self, place: Place, cursor: Cursor, stop: int) -> bytearray:
        for part in getattr(self, "made", {}).get(place.id, ()):
            self.piece(part)
        return super().held(place, cursor, stop)


@breaks("B13")
class JoiningForgetsTheKey(Sound):
    async def concatenate(self, place: Place, parts: Sequence[Part]) -> str:
        return await super().concatenate(_bare(place), parts)


def _bare(place: Place) -> Place:
    return Place(id=place.id, key=None, length=place.length, content_type=place.content_type)


def opening(storage: Callable[[], Sound]) -> Callable[[Path], AbstractAsyncContextManager[StorageBackend]]:
    """What the kit opens: in one place always the same storage, as if its bytes were on a disk."""
    opened: dict[Path, Sound] = {}

    @asynccontextmanager
    async def make(place: Path) -> AsyncGenerator[StorageBackend]:
        yield opened.setdefault(place, storage())

    return make


@pytest.mark.anyio
async def test_a_sound_storage_is_sound() -> None:
    for check in storage_checks(opening(Sound)):
        await check()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("clause", "storage"),
    [pytest.param(clause, storage, id=f"{clause} {name}") for clause, name, storage in BROKEN],
)
async def test_what_is_broken_is_found_by_its_clause(clause: str, storage: Callable[[], Sound]) -> None:
    found = []
    for check in storage_checks(opening(storage)):
        if check.clause == clause:
            try:
                await check()
            except Exception as error:  # noqa: BLE001 - a broken storage raises what it likes
                found.append(error)
    assert found
