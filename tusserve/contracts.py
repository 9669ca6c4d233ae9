"""What a storage and a store promise, clause by clause.

Owns the two contracts, `StorageBackend` (bytes) and `UploadStore` (records), and the small abilities that a
backend may have on top. Knows no backend. The engine calls them; `tusserve.testing` checks every clause under
the number that it has here.

Clauses of a storage
    B1   Bytes land at `at`, in the order in which they were written.
    B2   Bytes beyond `at` that no cursor names never show, whoever left them there.
    B3   What `flush` returned survives what the declared durability says. Within one writer it never goes
         back. A checkpoint may cover less than was written; `everything=True` covers all of it or raises.
    B4   Leaving a writer without `flush` promises nothing and breaks nothing.
    B5   `data` may be reused once `write` has returned.
    B6   After a cancellation at any await, opening at the last committed offset works.
    B7   Two uploads never see each other's bytes.
    B8   Only exceptions of `tusserve.errors` escape: `StorageFull`, `StorageUnavailable`, `CursorLost`,
         `KeyTaken`.
    B9   Memory is bounded for the whole process by a documented budget, however many writers there are.
    B10  Bytes that are missing are lost (`CursorLost`), never finished and never filled.
    B11  Two leases never write the same place: nothing that an older lease still does changes a byte that a
         committed cursor names, before or after `seal` and `discard`.
    B12  No operation outlives its writer, whatever the cancellation; where one might, `settled` stays False.
    B13  `seal` and `discard` may be repeated; discarding an unknown upload is a success.
    B14  A writer deletes nothing that the committed cursor may name. What it replaces goes into the state as
         trash, which the next opening, seal or discard removes: each of them proves the commit.

Clauses of a store
    U1   Each call takes effect whole or not at all.
    U2   Every process that shares the store reads its writes.
    U3   Of any number of concurrent acquires one wins; fence numbers of an upload only grow. A lease names
         the newest of its predecessors that ended uncleanly, and the newest that may be alive; neither goes
         back.
    U4   A commit with an old fence, token or revision, and a renewal or release with an old fence or token,
         change nothing and say so. Only `create`, `acquire` and `commit` move the revision. A commit repeated
         with the same lease and record after it took effect says yes again.
    U5   Bodies and entries come back exactly as they were given.
    U6   The store's own clock rules the leases.
    U7   An ask reaches the holder that it is for.
    U8   `due` gives only uploads of that name that are due and under no live lease, oldest first.
    U9   `create` is `IdTaken` while any record of the id exists, of any name, tombstones included. `forget`
         needs a GONE record, or a COMPLETE one that is due; it removes record and entries.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, Self, runtime_checkable

from tusserve.protocol.records import Action, UploadRecord, UploadState

__all__ = [
    "Acquired",
    "Ask",
    "Cursor",
    "CursorOf",
    "Durable",
    "ElectsSweeper",
    "Fence",
    "HasIdentity",
    "HasLocalPath",
    "Held",
    "JoinsTransaction",
    "KnowsIds",
    "Lease",
    "ListsStrays",
    "ListsUploads",
    "Place",
    "ProvesDeath",
    "RemembersStore",
    "StorageBackend",
    "UploadRecord",
    "UploadStore",
    "Writer",
]


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


class Writer(Protocol):
    """Takes the bytes of one request. One task uses it at a time."""

    @property
    def opened(self) -> str | None:
        """A state to commit before the first `write`, where opening made something remote; else None."""

    @property
    def settled(self) -> bool:
        """After leaving: nothing that this writer began can still land."""

    async def write(self, data: bytes) -> None:
        """Take `data`, which follows what was written before. May return before it is stored."""

    async def flush(self, everything: bool) -> Durable:
        """Make bytes durable and say how far. True: all of them, or raise. False (a checkpoint): as far as is
        cheap, at least what the previous flush said."""


class StorageBackend(Protocol):
    """Keeps bytes, and no state of its own between requests: clauses B1 to B14.

    An async context manager, entered before use, more than once if it is shared.
    """

    @property
    def checkpoint_bytes(self) -> int:
        """After how many bytes of one body a checkpoint is worth its cost."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None: ...

    def writer(
        self, place: Place, cursor: Cursor, at: int, lease: Lease
    ) -> AbstractAsyncContextManager[Writer]:
        """A writer that goes on at offset `at`, the committed one, under `lease`.

        It goes on in a place that exists only if that place was first opened under a fence number newer than
        `lease.alive` (where the writes of a dead process are dead with it) or `lease.unclean` (where requests
        outlive processes); otherwise it opens a new one.
        """

    def read(
        self, place: Place, cursor: Cursor, start: int, stop: int
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Exactly the bytes of the half-open range, before and after `seal`. `CursorLost`: they are gone."""

    async def seal(self, place: Place, cursor: Cursor, length: int) -> str:
        """Put the upload in its final place and return the sealed state, which replaces cursor and entries.

        An empty cursor with length 0 makes an empty object. Called once more with the sealed state after that
        was committed: then it removes what the state names as trash.
        """

    async def discard(self, place: Place, cursor: Cursor) -> None:
        """Remove every byte of the upload, sealed or not, and of its key only what is this upload's own."""


class UploadStore(Protocol):
    """Keeps records, entries and leases: clauses U1 to U9.

    An async context manager, entered before use, more than once if it is shared. `StoreUnavailable` from any
    call means that its effect is not known.
    """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None: ...

    async def create(self, record: UploadRecord) -> UploadRecord:
        """Keep a new record; returns it with its revision. Raises `IdTaken`, and `ValueError` for one that
        has entries."""

    async def get(self, id: str) -> tuple[UploadRecord, Held | None] | None:
        """The record and who holds it now. Takes nothing, disturbs nobody."""

    async def acquire(
        self,
        id: str,
        holder: str,
        ttl: timedelta,
        *,
        steal: Fence | None = None,
        durable: bool = False,
    ) -> Acquired | Held | None:
        """Take the lease if nobody holds a live one, or if `steal` is exactly the fence that holds it.

        A live lease has not run out, was not released, and its holder is not proven dead. `durable` asks that
        the new fence number survives a loss of power before this returns. None: no such upload.
        """

    async def renew(self, leases: Sequence[Lease]) -> Sequence[Lease]:
        """Give each lease its `ttl` again and answer its open ask; returns the leases that are lost."""

    async def commit(
        self, lease: Lease, record: UploadRecord, added: Sequence[str] = (), *, release: bool = False
    ) -> UploadRecord | None:
        """Replace the record of `record.revision` by this one and append the entries: the commit point.

        Renews the lease, or with `release` lets it go in the same step. Entries beyond `record.entries` are
        dropped (seal sets it to 0). Returns the record with its new revision; None: no longer ours, nothing
        was changed. `ValueError` for a record that is not of the lease's upload, or that counts other
        entries than there would be. A repeat has the same arguments.
        """

    async def release(self, lease: Lease, *, clean: bool) -> bool:
        """Let the lease go; `clean` if nothing that was begun under it can still land. False: it was lost."""

    async def ask(self, id: str, fence: Fence, why: Action) -> bool:
        """Ask the holder under `fence` to let go or to make a checkpoint. An open ask keeps its time and
        gathers the reasons. False: nobody holds it under that fence."""

    def asked(self, holder: str) -> AbstractAsyncContextManager[AsyncIterator[Ask]]:
        """One stream of the asks for all leases of `holder`, from entering on. An ask may come twice."""

    async def entries(self, id: str, start: int, stop: int) -> Sequence[str]:
        """The entries of the half-open range of positions, in order."""

    async def due(self, name: str, now: datetime, limit: int) -> Sequence[UploadRecord]:
        """At most `limit` records with `due_at` at or before `now`, U8."""

    async def forget(self, id: str, now: datetime) -> bool:
        """Remove a record for which nothing is left to do, U9. False: not that, or under a live lease."""


# Abilities: what some backends can do on top. Each is looked up once, at start.


@runtime_checkable
class HasLocalPath(Protocol):
    """The bytes are files of this machine."""

    def local_path(self, place: Place, state: str) -> Path | None:
        """Where a sealed upload's bytes are, for reading only."""


class CursorOf(Protocol):
    """Answers what a storage asks about an id that it found in its working area."""

    async def __call__(self, id: str, /) -> tuple[Place, Cursor] | Held | None:
        """What is committed of it; `Held`: somebody works on it, and what that one wrote has no name yet,
        however old a clock that jumped may call it; None: no such upload, nothing of it is named."""


@runtime_checkable
class ListsStrays(Protocol):
    """Can look for bytes in its working area that nobody names."""

    async def sweep_strays(self, cursor_of: CursorOf, older_than: datetime, *, dry_run: bool) -> int:
        """Remove what was last touched before `older_than` and no committed cursor names. Returns how many
        there were. Never touches what a key names, nor anything of an upload that is held."""


@runtime_checkable
class KnowsIds(Protocol):
    """Can tell whose bytes it has, whatever a store still knows. Bytes outlive their record where a host has
    finished uploads forgotten: such an id is not given a second time."""

    async def has_bytes(self, id: str) -> bool:
        """Whether there are bytes of an upload of this id."""


@runtime_checkable
class RemembersStore(Protocol):
    """Keeps the identity of the store that its bytes belong to."""

    async def claim(self, identity: str) -> bool:
        """Note the identity if there is none yet. False: the bytes here belong to another store."""


@runtime_checkable
class HasIdentity(Protocol):
    """A store with a lasting identity, made when it was first opened."""

    async def identity(self) -> str:
        """The identity, the same for every process and for ever."""


@runtime_checkable
class ProvesDeath(Protocol):
    """A store that can tell whether a process is dead."""

    async def enlist(self, holder: str) -> None:
        """From now on, until this process ends or the store is left, others can tell that `holder` lives.

        To leave the store is as good as to die: whatever worked under its leases has stopped by then.
        """


@runtime_checkable
class ElectsSweeper(Protocol):
    """A store that picks one of the processes that share it to sweep; if each does, it is safe but work."""

    async def elected(self, name: str) -> bool:
        """Whether this process sweeps the uploads of `name`. True stays true until it leaves the store or
        dies; then the next that asks is told so."""


@runtime_checkable
class ListsUploads(Protocol):
    """A store that can list what it has."""

    async def uploads(
        self,
        name: str,
        *,
        owner: str | None = None,
        state: UploadState | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Sequence[UploadRecord]:
        """Records of `name` by id, those after `after`; `owner` and `state` narrow it where given."""


@runtime_checkable
class JoinsTransaction(Protocol):
    """A store in the host's own database."""

    async def create_in(self, record: UploadRecord, transaction: object) -> UploadRecord:
        """As `create`, inside the host's transaction: it takes effect when that commits."""
