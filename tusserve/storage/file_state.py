"""The cursor of a `FileStorage`: what its text says.

Owns the values and their JSON. Knows no file and does no I/O. The other modules of the storage read and make
cursors here.

An upload's bytes lie in segments, each a file of its own that one lease opened. The state names the newest;
those before it are entries, closed for good.
"""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tusserve.contracts import Cursor
from tusserve.errors import StorageUnavailable

_VERSION: Final = 1
_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Segment:
    """A file of an upload: `name` within the upload, and the offset `start` of its first byte."""

    name: str
    start: int

    @classmethod
    def new(cls, fence: int, start: int) -> "Segment":
        """A segment under a lease. Its name is used once: neither a lease that writes a second time nor one
        of an earlier upload of this id, nor one whose number a store gave twice, meets the file."""
        return cls(f"{fence}-{new_nonce()}", start)

    @property
    def fence(self) -> int:
        """The number of the lease that opened it."""
        return int(self.name.partition("-")[0])


@dataclass(frozen=True, slots=True)
class Closed:
    """A segment that nobody goes on with: the upload's bytes `start` to `stop` are in it."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Receiving:
    """An upload that is not sealed.

    Where not all was synced, `boot` says under which boot of the machine it was written, and `synced` up to
    which offset it would survive another; `run` is the writer's own word, under which a storage that is left
    in order notes that it synced the rest.
    """

    newest: Segment
    boot: str | None = None
    synced: int = 0
    run: str = ""


@dataclass(frozen=True, slots=True)
class Sealed:
    """An upload that is sealed. `trash`: the upload's other files are left from before, and may go."""

    name: str
    length: int
    trash: bool = False


def new_nonce() -> str:
    """Eight digits that nobody else draws."""
    return secrets.token_hex(4)


def parse_state(text: str) -> Receiving | Sealed | None:
    """What a state says; None for the empty one, of which nothing is stored.

    Raises `StorageUnavailable` for what a newer version wrote: upgrade this process.
    """
    if not text:
        return None
    held = json.loads(text)
    if held["v"] > _VERSION:
        raise StorageUnavailable("the upload was stored by a newer version of tusserve")
    if "sealed" in held:
        return Sealed(held["sealed"], held["length"], held.get("trash", False))
    return Receiving(
        Segment(held["file"], held["from"]), held.get("boot"), held.get("synced", 0), held.get("run", "")
    )


def dump_state(state: Receiving | Sealed) -> str:
    """The text of a state."""
    held: dict[str, str | int | bool] = {"v": _VERSION}
    if isinstance(state, Sealed):
        held |= {"sealed": state.name, "length": state.length}
        if state.trash:
            held["trash"] = True
    else:
        held |= {"file": state.newest.name, "from": state.newest.start}
        if state.boot is not None:
            held |= {"boot": state.boot, "synced": state.synced, "run": state.run}
    return json.dumps(held, separators=(",", ":"))


def dump_entry(closed: Closed) -> str:
    """The text of an entry."""
    return json.dumps([closed.name, closed.start, closed.stop], separators=(",", ":"))


async def closed_segments(cursor: Cursor) -> Sequence[Closed]:
    """Every closed segment that a cursor names, in the order of the bytes."""
    closed: list[Closed] = []
    for begin in range(0, cursor.count, _PAGE):
        page = await cursor.entries(begin, min(begin + _PAGE, cursor.count))
        closed += [Closed(*json.loads(text)) for text in page]
    return closed
