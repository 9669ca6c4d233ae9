"""The calls of a store as steps on a connection: what is read, what is decided, what is written.

Owns every statement about uploads and their entries; knows no thread and no event loop. Steps run inside a
transaction that is not theirs. Moments are microseconds since 1970.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import Final, NamedTuple, TypeAlias

from tusserve.contracts import Ask, Fence, Held, Lease
from tusserve.protocol.records import Action, UploadRecord, UploadState, from_micros, to_micros

IsDead: TypeAlias = Callable[[sqlite3.Connection, str], bool]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Row(NamedTuple):
    """An upload as `get` reads it."""

    id: str
    name: str
    owner: str | None
    state: str
    created_at: int
    due_at: int | None
    revision: int
    fence: int
    token: str
    holder: str
    lease_until: int | None
    unclean: int
    alive: int
    asked_at: int | None
    answered: int
    body: bytes

    def record(self) -> UploadRecord:
        """The record. Raises `ValueError` if a newer version made it."""
        return UploadRecord.load(
            self.body,
            id=self.id,
            name=self.name,
            owner=self.owner,
            state=self.state,
            created_at=_EPOCH + timedelta(microseconds=self.created_at),
            due_at=from_micros(self.due_at),
            revision=self.revision,
        )

    def is_of_our_time(self) -> bool:
        """Whether this version can read it."""
        try:
            self.record()
        except ValueError:
            return False
        return True

    def held(self, now: int) -> Held | None:
        """Who holds it, as far as the time says."""
        if self.lease_until is None or self.lease_until <= now:
            return None
        waited = None if self.asked_at is None else timedelta(microseconds=max(0, now - self.asked_at))
        fence = Fence(self.fence, self.token)
        return Held(fence=fence, waited=waited, answered=waited is not None and bool(self.answered))


class Columns(NamedTuple):
    """A record as it is written."""

    name: str
    owner: str | None
    state: str
    created_at: int
    due_at: int | None
    revision: int
    entry_count: int
    body: bytes


def columns_of(record: UploadRecord, *, revision: int) -> Columns:
    """What is written of a record. Done before the call's turn, so that others do not wait for it."""
    return Columns(
        record.name,
        record.owner,
        record.state.value,
        to_micros(record.created_at),
        None if record.due_at is None else to_micros(record.due_at),
        revision,
        record.entries,
        record.dump(),
    )


SELECT: Final = f"SELECT {', '.join(Row._fields)} FROM uploads"
BY_ID: Final = f"{SELECT} WHERE id = ?"
_ALL: Final = ", ".join(f"{column} = ?" for column in Columns._fields)
_CHANGING: Final = "state = ?, due_at = ?, revision = ?, entry_count = ?, body = ?"
_ANSWER: Final = "lease_until = ?, answered = 1"


def read(connection: sqlite3.Connection, id: str) -> Row | None:
    """The upload, if there is one."""
    found = connection.execute(BY_ID, (id,)).fetchone()
    return None if found is None else Row._make(found)


def create(connection: sqlite3.Connection, id: str, columns: Columns) -> bool:
    """False: the id is taken."""
    statement = (
        f"INSERT INTO uploads (id, {', '.join(Columns._fields)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (id) DO NOTHING"
    )
    return connection.execute(statement, (id, *columns)).rowcount == 1


def live(connection: sqlite3.Connection, row: Row, now: int, is_dead: IsDead) -> Held | None:
    """Who holds the upload and is not proven dead."""
    held = row.held(now)
    return None if held is None or is_dead(connection, row.holder) else held


def acquire(
    connection: sqlite3.Connection,
    now: int,
    id: str,
    holder: str,
    ttl: timedelta,
    *,
    steal: Fence | None,
    is_dead: IsDead,
) -> tuple[Row, Lease] | Held | None:
    """The upload as it is then and the new lease; or who has it; or None: no such upload."""
    row = read(connection, id)
    if row is None:
        return None
    held = live(connection, row, now, is_dead)
    if held is not None and held.fence != steal:
        return held
    unclean, alive = row.unclean, row.alive
    if row.lease_until is not None:  # nobody let it go: what was begun under it may still land
        unclean = row.fence
        if not is_dead(connection, row.holder):
            alive = row.fence
    fence = Fence(row.fence + 1, token_hex(8))
    connection.execute(
        "UPDATE uploads SET revision = revision + 1, fence = ?, token = ?, holder = ?, lease_until = ?,"
        " unclean = ?, alive = ?, asked_at = NULL, answered = 0, why = '', asks = 0 WHERE id = ?",
        (*fence, holder, now + micros_of(ttl), unclean, alive, id),
    )
    taken = row._replace(revision=row.revision + 1)
    return taken, Lease(id=id, fence=fence, ttl=ttl, unclean=unclean, alive=alive)


def renew(connection: sqlite3.Connection, now: int, leases: Iterable[Lease]) -> list[Lease]:
    """Those that are lost; the others have their time again."""
    statement = (
        "UPDATE uploads SET lease_until = ?, answered = 1"
        " WHERE id = ? AND fence = ? AND token = ? AND lease_until IS NOT NULL"
    )
    return [
        lease
        for lease in leases
        if connection.execute(statement, (now + micros_of(lease.ttl), lease.id, *lease.fence)).rowcount == 0
    ]


def release(connection: sqlite3.Connection, lease: Lease, *, clean: bool) -> bool:
    """False: it was lost."""
    statement = (
        f"UPDATE uploads SET lease_until = NULL{'' if clean else ', unclean = fence, alive = fence'}"
        " WHERE id = ? AND fence = ? AND token = ? AND lease_until IS NOT NULL"
    )
    return connection.execute(statement, (lease.id, *lease.fence)).rowcount == 1


class Newest(NamedTuple):
    """What a commit is compared with."""

    revision: int
    lease_until: int | None
    name: str
    owner: str | None
    created_at: int
    entry_count: int


def commit(
    connection: sqlite3.Connection,
    now: int,
    lease: Lease,
    columns: Columns,
    added: Sequence[str],
    *,
    release: bool,
) -> bool:
    """The commit point; `columns` have the revision that comes next. False: no longer ours."""
    found = connection.execute(
        f"SELECT {', '.join(Newest._fields)} FROM uploads WHERE id = ? AND fence = ? AND token = ?",
        (lease.id, *lease.fence),
    ).fetchone()
    if found is None:
        return False
    newest = Newest._make(found)
    until = None if release else now + micros_of(lease.ttl)
    if newest.revision == columns.revision and _is_repeated(connection, lease.id, columns, added):
        if newest.lease_until is not None:
            connection.execute(f"UPDATE uploads SET {_ANSWER} WHERE id = ?", (until, lease.id))
        return True
    if newest.lease_until is None or newest.revision != columns.revision - 1:
        return False
    _change_entries(connection, lease.id, newest.entry_count, columns.entry_count, added)
    if (columns.name, columns.owner, columns.created_at) == (newest.name, newest.owner, newest.created_at):
        # The usual case. An index is rewritten whenever one of its columns is set, to whatever value.
        changing = (columns.state, columns.due_at, columns.revision, columns.entry_count, columns.body)
        connection.execute(
            f"UPDATE uploads SET {_CHANGING}, {_ANSWER} WHERE id = ?", (*changing, until, lease.id)
        )
    else:
        connection.execute(f"UPDATE uploads SET {_ALL}, {_ANSWER} WHERE id = ?", (*columns, until, lease.id))
    return True


def _is_repeated(connection: sqlite3.Connection, id: str, columns: Columns, added: Sequence[str]) -> bool:
    stored = connection.execute(
        f"SELECT {', '.join(Columns._fields)} FROM uploads WHERE id = ?", (id,)
    ).fetchone()
    last = entries(connection, id, columns.entry_count - len(added), columns.entry_count)
    return stored == tuple(columns) and last == list(added)


def _change_entries(
    connection: sqlite3.Connection, id: str, before: int, after: int, added: Sequence[str]
) -> None:
    if after == before + len(added):
        if added:
            rows = ((id, position, value) for position, value in enumerate(added, before))
            connection.executemany("INSERT INTO entries (id, position, value) VALUES (?, ?, ?)", rows)
    elif after == 0 and not added:
        connection.execute("DELETE FROM entries WHERE id = ?", (id,))
    else:
        raise ValueError(
            f"upload {id}: {before} entries and {len(added)} more are not the {after} that its record says"
        )


def ask(
    connection: sqlite3.Connection, now: int, id: str, fence: Fence, why: Action, is_dead: IsDead
) -> str | None:
    """The holder who is asked; None: nobody holds it under that fence."""
    row = read(connection, id)
    if row is None or Fence(row.fence, row.token) != fence or live(connection, row, now, is_dead) is None:
        return None
    if row.asked_at is None or row.answered:
        connection.execute(
            "UPDATE uploads SET asked_at = ?, answered = 0, why = ?, asks = asks + 1 WHERE id = ?",
            (now, why.value, id),
        )
    else:
        (gathered,) = connection.execute("SELECT why FROM uploads WHERE id = ?", (id,)).fetchone()
        reasons = ",".join(sorted({*gathered.split(","), why.value}))
        connection.execute("UPDATE uploads SET why = ?, asks = asks + 1 WHERE id = ?", (reasons, id))
    return row.holder


def asks(connection: sqlite3.Connection, holder: str) -> list[tuple[Ask, int]]:
    """What is asked of the leases that `holder` has not let go, answered or not, each with its count."""
    found = connection.execute(
        "SELECT id, fence, token, why, asks FROM uploads"
        " WHERE holder = ? AND asked_at IS NOT NULL AND lease_until IS NOT NULL",
        (holder,),
    )
    return [
        (Ask(upload, Fence(number, token), frozenset(map(Action, why.split(",")))), count)
        for upload, number, token, why, count in found
    ]


def entries(connection: sqlite3.Connection, id: str, start: int, stop: int) -> list[str]:
    """The entries from position `start` up to, not including, `stop`."""
    found = connection.execute(
        "SELECT value FROM entries WHERE id = ? AND position >= ? AND position < ? ORDER BY position",
        (id, start, stop),
    )
    return [value for (value,) in found]


def due(
    connection: sqlite3.Connection, now: int, name: str, moment: int, limit: int, is_dead: IsDead
) -> list[Row]:
    """Uploads that are due at `moment`, by the app's clock, and under no live lease, by ours. Those that a
    newer version made are left to the processes of that version."""
    found: list[Row] = []
    statement = f"{SELECT} WHERE name = ? AND due_at <= ? ORDER BY due_at, id"
    for each in connection.execute(statement, (name, moment)) if limit > 0 else ():
        row = Row._make(each)
        if live(connection, row, now, is_dead) is None and row.is_of_our_time():
            found.append(row)
            if len(found) == limit:
                break
    return found


def forget(connection: sqlite3.Connection, now: int, id: str, moment: int, is_dead: IsDead) -> bool:
    """False: it is not over at `moment`, or somebody holds it."""
    row = read(connection, id)
    if row is None or live(connection, row, now, is_dead) is not None:
        return False
    is_due = row.due_at is not None and row.due_at <= moment
    if row.state != UploadState.GONE and not (row.state == UploadState.COMPLETE and is_due):
        return False
    connection.execute("DELETE FROM entries WHERE id = ?", (id,))
    connection.execute("DELETE FROM uploads WHERE id = ?", (id,))
    return True


def uploads(
    connection: sqlite3.Connection,
    name: str,
    owner: str | None,
    state: UploadState | None,
    after: str | None,
    limit: int,
) -> list[Row]:
    """Uploads of `name` by id, narrowed by what is not None."""
    wanted = {"name = ?": name, "owner = ?": owner, "state = ?": state and state.value, "id > ?": after}
    given = {condition: value for condition, value in wanted.items() if value is not None}
    statement = f"{SELECT} WHERE {' AND '.join(given)} ORDER BY id LIMIT ?"
    return list(map(Row._make, connection.execute(statement, (*given.values(), max(limit, 0)))))


def micros_of(span: timedelta) -> int:
    """Whole microseconds."""
    return span // timedelta(microseconds=1)
