"""What the calls of the two contracts are made of: leases, places, cursors, and what a flush says.

Owns these values, all frozen. Knows no backend and no call. `contracts` hands them out under its own name.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from tusserve.protocol.records import Action, UploadRecord


class Fence(NamedTuple):
    """The identity of one lease: a number that only grows, and a random token beside it, because a store
    that fails over may give a number twice."""

    number: int
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right of one process to change one upload, for `ttl` from the last renewal or commit.

    Two fence numbers say what predecessors may still do; neither ever goes back.
    `unclean` is the newest lease that ended neither by `commit(release=True)` nor by `release(clean=True)`:
    requests that it began may still land. `alive` is the newest of those whose process the store could not
    prove dead: it may still begin new ones. 0: there is none.
    """

    id: str
    fence: Fence
    ttl: timedelta
    unclean: int = 0
    alive: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A live lease of somebody, as others see it. A lease whose process is proven dead is none."""

    fence: Fence
    waited: timedelta | None
    """How long ago, by the store's clock, the ask came that is open or was answered last; None: no ask."""
    answered: bool
    """Whether the lease was renewed or committed since that ask."""


@dataclass(frozen=True, slots=True)
class Acquired:
    """The record as it is now, and the lease under which it may be changed."""

    record: UploadRecord
    lease: Lease


@dataclass(frozen=True, slots=True)
class Ask:
    """Others want to work on an upload that is held under `fence`; `why` is all that they want to do."""

    id: str
    fence: Fence
    why: frozenset[Action]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """All that a storage may know of an upload. `key` was chosen by the host: relative, POSIX, no empty, `.`
    or `..` part; None: the storage names the place itself. `length` is None while it is not known."""

    id: str
    key: str | None
    length: int | None
    content_type: str | None


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a storage is with an upload, as it last said and the store then committed.

    `state` is at most 128 KiB of text, empty before anything was flushed; `count` entries were ever added;
    `entries(start, stop)` reads a page of them (only for `seal`, `read` and `discard`).
    """

    state: str
    count: int
    entries: Callable[[int, int], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Durable:
    """What `flush` made durable: the upload's bytes up to `offset`, the `state` that says so, and the entries
    to append to those before (`added`, each given once, to be committed together with the state).

    `sealed` says that all of the upload is there and `state` is already what `seal` would return.
    """

    offset: int
    state: str
    added: tuple[str, ...] = ()
    sealed: bool = False


class Part(NamedTuple):
    """A sealed upload that another is made of: where it is, its sealed state, and its length in bytes."""

    place: Place
    state: str
    length: int
