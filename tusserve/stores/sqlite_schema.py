"""The tables of an SQLite store, and how a file comes to have them.

Owns the schema's versions and the store's identity; knows no call. A store's thread prepares the file here
when it opens it.
"""

import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from tusserve.errors import ConfigError
from tusserve.stores.sqlite_file import PATIENCE, begin, connect, is_busy

T = TypeVar("T")

APPLICATION_ID: Final = 0x74757373
"""`tuss`: what the file's header says about whose it is, in its bytes 68 to 71."""

_SQLITE_HEAD: Final = b"SQLite format 3\0"

MIGRATIONS: Final[Sequence[Sequence[str]]] = (
    # The body is the last column: what rules leases and due times is read without it.
    (
        """CREATE TABLE uploads (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            owner TEXT,
            state TEXT NOT NULL,
            created_at INTEGER NOT NULL,
            due_at INTEGER,
            revision INTEGER NOT NULL,
            entry_count INTEGER NOT NULL DEFAULT 0,
            fence INTEGER NOT NULL DEFAULT 0,
            token TEXT NOT NULL DEFAULT '',
            holder TEXT NOT NULL DEFAULT '',
            lease_until INTEGER,
            unclean INTEGER NOT NULL DEFAULT 0,
            alive INTEGER NOT NULL DEFAULT 0,
            asked_at INTEGER,
            answered INTEGER NOT NULL DEFAULT 0,
            why TEXT NOT NULL DEFAULT '',
            asks INTEGER NOT NULL DEFAULT 0,
            body BLOB NOT NULL
        )""",
        "CREATE INDEX uploads_due ON uploads (name, due_at, id) WHERE due_at IS NOT NULL",
        "CREATE INDEX uploads_owned ON uploads (name, owner, id)",
        "CREATE INDEX uploads_asked ON uploads (holder) WHERE asked_at IS NOT NULL",
        """CREATE TABLE entries (
            id TEXT NOT NULL,
            position INTEGER NOT NULL,
            value TEXT NOT NULL,
            PRIMARY KEY (id, position)
        ) WITHOUT ROWID""",
        "CREATE TABLE deaths (holder TEXT PRIMARY KEY, noted_at INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    ),
)
"""What makes version n + 1 of the schema out of version n. Moments are microseconds since 1970. A released
version is never changed: what comes later is added at the end."""


def open_file(path: Path) -> tuple[sqlite3.Connection, str]:
    """A connection to the store's file, which is made or brought up to date, and the store's identity.

    Raises `ConfigError` if the file is not, or not yet, one that this version can use.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Private before anything is in it: records tell who uploads what. SQLite's own files take over the mode.
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except IsADirectoryError as error:
        raise ConfigError(f"{path} is a directory: the store needs a file") from error
    connection = connect(path)
    try:
        return connection, _prepared(connection, path)
    except sqlite3.DatabaseError as error:
        connection.close()
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
            raise ConfigError(f"{path} is not an SQLite file: give the store a file of its own") from error
        raise
    except BaseException:
        connection.close()
        raise


def is_store(path: Path) -> bool:
    """Whether the file is there and is a store's. Changes nothing, and leaves nothing beside it.
    Raises `OSError`, and `sqlite3.Error` where only SQLite could tell and cannot."""
    try:
        with path.open("rb") as file:
            head = file.read(100)
    except FileNotFoundError:
        return False
    if not head.startswith(_SQLITE_HEAD):
        return False
    if int.from_bytes(head[68:72], "big") == APPLICATION_ID:
        return True
    # The head may be older than the log beside it: a store that was made just now is all in there.
    log = path.with_name(f"{path.name}-wal")
    if not log.exists() or log.stat().st_size == 0:
        return False
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=PATIENCE)
    try:
        return _pragma(connection, "application_id") == APPLICATION_ID
    finally:
        connection.close()


def _prepared(connection: sqlite3.Connection, path: Path) -> str:
    _refuse_foreign(connection, path)
    mode = _patiently(lambda: str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]))
    if mode != "wal":
        raise ConfigError(f"{path} is on a file system without shared memory, which SQLite needs here (WAL)")
    connection.execute("PRAGMA journal_size_limit = 33554432")
    connection.execute("PRAGMA synchronous = FULL")
    begin(connection)
    try:
        _migrate(connection, path)
        (identity,) = connection.execute("SELECT value FROM meta WHERE key = 'identity'").fetchone()
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    return str(identity)


def _refuse_foreign(connection: sqlite3.Connection, path: Path) -> None:
    """Before anything is changed: another program's file stays as it is."""

    def look() -> tuple[int, int, int]:
        connection.execute("BEGIN")  # one view: another process may be making the file just now
        try:
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            return tables, _pragma(connection, "application_id"), _pragma(connection, "user_version")
        finally:
            connection.execute("ROLLBACK")

    tables, whose, version = _patiently(look)
    if whose != APPLICATION_ID and (tables, whose, version) != (0, 0, 0):
        raise ConfigError(f"{path} is the file of another program: give the store a file of its own")


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """In one transaction, so that nobody ever sees half a version."""
    version = _pragma(connection, "user_version")
    if version > len(MIGRATIONS):
        raise ConfigError(
            f"{path} was made by a newer tusserve: its schema is {version}, this one knows {len(MIGRATIONS)}."
            " Upgrade this process"
        )
    for statements in MIGRATIONS[version:]:
        for statement in statements:
            connection.execute(statement)
    if version < len(MIGRATIONS):
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    if version == 0:
        connection.execute("INSERT INTO meta (key, value) VALUES ('identity', ?)", (uuid.uuid4().hex,))


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _patiently(step: Callable[[], T]) -> T:
    """What `step` returns, once nobody else is in the way: to switch to WAL, SQLite itself may not wait."""
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            return step()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > give_up:
                raise
            time.sleep(0.003)
