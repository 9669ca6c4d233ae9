"""Whose file it is, and which version of the schema it has."""
# ruff: noqa: ASYNC240 - small files, and nothing else runs

import asyncio
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from tusserve.errors import ConfigError, StoreUnavailable
from tusserve.stores import sqlite_schema
from tusserve.stores.sqlite import SQLiteStore
from tusserve.testing.store_driver import NOON, new_record

LATER = (
    "ALTER TABLE uploads ADD COLUMN colour TEXT NOT NULL DEFAULT 'blue'",
    "CREATE TABLE more (id TEXT PRIMARY KEY)",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "uploads.db"


def version_of(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])
    finally:
        connection.close()


async def identity_and_uploads(path: Path) -> tuple[str, list[str]]:
    async with SQLiteStore(path) as store:
        return await store.identity(), [record.id for record in await store.uploads("default")]


async def made(path: Path) -> str:
    async with SQLiteStore(path) as store:
        await store.create(new_record())
        return await store.identity()


@pytest.mark.anyio
async def test_a_file_of_an_older_version_is_brought_up_to_date(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = await made(path)
    older = len(sqlite_schema.MIGRATIONS)
    monkeypatch.setattr(sqlite_schema, "MIGRATIONS", (*sqlite_schema.MIGRATIONS, LATER))
    for _ in range(2):
        assert await identity_and_uploads(path) == (identity, ["upload"])
        assert version_of(path) == older + 1
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT id, colour FROM uploads").fetchall() == [("upload", "blue")]
    connection.close()


@pytest.mark.anyio
async def test_a_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = await made(path)
    before = version_of(path)
    broken = (*LATER, "CREATE TABLE more (id TEXT PRIMARY KEY)")
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_schema, "MIGRATIONS", (*sqlite_schema.MIGRATIONS, broken))
        with pytest.raises(StoreUnavailable, match="already exists"):
            await made(path)
    assert version_of(path) == before
    connection = sqlite3.connect(path)
    columns = [column[1] for column in connection.execute("PRAGMA table_info (uploads)")]
    connection.close()
    assert "colour" not in columns
    assert await identity_and_uploads(path) == (identity, ["upload"])


@pytest.mark.anyio
async def test_a_file_of_a_newer_version_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_schema, "MIGRATIONS", (*sqlite_schema.MIGRATIONS, LATER))
        await made(path)
    store = SQLiteStore(path)
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"newer tusserve.*Upgrade"):
            async with store:
                pass


@pytest.mark.anyio
async def test_a_file_that_is_not_sqlite_is_refused_and_kept(path: Path) -> None:
    text = b"A letter to a friend, and no database at all. " * 100
    path.write_bytes(text)
    with pytest.raises(ConfigError, match="not an SQLite file"):
        await made(path)
    assert path.read_bytes() == text


@pytest.mark.anyio
@pytest.mark.parametrize(
    "sign", ["CREATE TABLE songs (id)", "PRAGMA user_version = 3", "PRAGMA application_id = 9"]
)
async def test_the_file_of_another_program_is_refused_and_kept(path: Path, sign: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(sign)
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="another program"):
        await made(path)
    assert path.read_bytes() == before


@pytest.mark.anyio
async def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="directory"):
        await made(tmp_path)


@pytest.mark.anyio
async def test_a_place_that_cannot_be_reached_is_away_for_now(path: Path) -> None:
    path.write_bytes(b"")
    with pytest.raises(StoreUnavailable):
        await made(path / "below" / "a file")
    path.unlink()
    assert await made(path / "below" / "a folder")


@pytest.mark.anyio
async def test_many_open_a_new_file_at_once(path: Path) -> None:
    identities = await asyncio.gather(*(identity_and_uploads(path) for _ in range(8)))
    assert len({identity for identity, _ in identities}) == 1


@pytest.mark.anyio
async def test_a_record_of_a_newer_version_is_away_for_now(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await store.create(new_record(due_at=NOON))
    connection = sqlite3.connect(path)
    connection.execute("""UPDATE uploads SET body = replace(body, '"v":1', '"v":999')""")
    connection.commit()
    connection.close()
    async with SQLiteStore(path) as store:
        with pytest.raises(StoreUnavailable, match="too new"):
            await store.get("upload")
        await store.create(new_record("other", due_at=NOON + timedelta(seconds=1)))
        due = await store.due("default", NOON + timedelta(hours=1), 1)
        assert [record.id for record in due] == ["other"], "it keeps nobody from the others"


@pytest.mark.anyio
async def test_a_damaged_file_is_away_for_now(path: Path) -> None:
    await made(path)
    sound = path.read_bytes()
    path.write_bytes(sound[:4096] + bytes(len(sound) - 4096))
    with pytest.raises(StoreUnavailable, match="malformed"):
        async with SQLiteStore(path) as store:
            await store.get("upload")


def test_a_url_is_no_path() -> None:
    with pytest.raises(ConfigError, match="a path, not a URL"):
        SQLiteStore("sqlite:///records.db")
