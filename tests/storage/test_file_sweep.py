"""Strays in the working area of a `FileStorage`, and whose bytes they are."""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from tusserve.contracts import Cursor, Place
from tusserve.storage.file import FileStorage
from tusserve.storage.file_unsynced import Unsynced
from tusserve.testing.storage_driver import Bench, Upload, made_up

BODY = made_up(300_000, 1)
NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=30)


class Store:
    """What is committed, as `sweep_strays` asks for it."""

    def __init__(self, *uploads: Upload) -> None:
        self.uploads = {upload.place.id: upload for upload in uploads}

    async def __call__(self, id: str, /) -> tuple[Place, Cursor] | None:
        upload = self.uploads.get(id)
        return None if upload is None else (upload.place, upload.cursor)


@asynccontextmanager
async def opened(place: Path) -> AsyncGenerator[tuple[Bench, FileStorage]]:
    storage = FileStorage(place)
    async with Bench.opened(lambda _: storage, place, durable=False) as bench:
        yield bench, storage


def working_area(root: Path) -> list[Path]:
    return sorted(path for path in (root / "data").rglob("*") if path.is_file())


def noted(root: Path) -> list[str]:
    """The uploads of which it is noted that they are synced."""
    return [path.stem for path in working_area(root) if path.name.endswith("-synced")]


def age(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (LONG_AGO.timestamp(), LONG_AGO.timestamp()))


async def crash_in_a_body(bench: Bench, upload: Upload) -> None:
    """A flush to a new place whose commit never came, by a process that then stands still."""
    upload.take()
    writer = await bench.standing_still(upload.writer(upload.take()))
    await writer.write(BODY)
    await writer.flush(True)


async def sweep(storage: FileStorage, *uploads: Upload, dry_run: bool = False) -> int:
    return await storage.sweep_strays(Store(*uploads), NOW - timedelta(days=9), dry_run=dry_run)


@pytest.mark.anyio
async def test_only_what_is_old_and_not_named_is_removed(tmp_path: Path) -> None:
    async with opened(tmp_path) as (bench, storage):
        receiving, sealed = bench.upload("receiving"), bench.upload("sealed")
        keyed = bench.upload("keyed", key="k")
        for upload in (receiving, sealed, keyed):
            upload.take()
            await upload.append(BODY)
            upload.take()
            await upload.append(BODY)
        await sealed.seal()
        await keyed.seal()
        named = [
            path for path in working_area(tmp_path) if path.stem == "receiving" or path.suffix == ".sealed"
        ]
        await crash_in_a_body(bench, receiving)
        await crash_in_a_body(bench, bench.upload("unknown"))
        everything = working_area(tmp_path)
        assert len(everything) == 2 + 3 + 3 + 1 + 1
        assert await sweep(storage, receiving, sealed, keyed) == 0, "all of it is young"
        age(*everything)
        strays = len(everything) - len(named)
        assert await sweep(storage, receiving, sealed, keyed, dry_run=True) == strays
        assert working_area(tmp_path) == everything
        assert await sweep(storage, receiving, sealed, keyed) == strays
        assert working_area(tmp_path) == sorted(named)
        for upload in (receiving, sealed, keyed):
            assert await upload.content() == BODY * 2
        assert (tmp_path / "files" / "k").read_bytes() == BODY * 2


@pytest.mark.anyio
async def test_sealed_bytes_stay_when_their_record_is_forgotten(tmp_path: Path) -> None:
    async with opened(tmp_path) as (bench, storage):
        at_once = bench.upload("at-once", length=len(BODY))
        later, joined = bench.upload("later"), bench.upload("joined")
        async with at_once.writer(at_once.take()) as writer:
            await writer.write(BODY)
            at_once.commit(await writer.flush(True))
        await later.append(BODY)
        await later.finish()
        joined.take()
        await joined.append(BODY[:7])
        joined.take()
        await joined.append(BODY[7:])
        await joined.finish()
        keyed = bench.upload("keyed", key="a/b")
        await keyed.append(BODY)
        await keyed.finish()
        age(*working_area(tmp_path))
        await sweep(storage)
        for upload in (at_once, later, joined):
            path = storage.local_path(upload.place, upload.state)
            assert path is not None
            assert path.read_bytes() == BODY
        assert (tmp_path / "files" / "a" / "b").read_bytes() == BODY
        assert len(working_area(tmp_path)) == 3, "the second name of what a key names is not needed"


@pytest.mark.anyio
async def test_a_seal_whose_commit_was_lost_can_be_repeated_after_a_sweep(tmp_path: Path) -> None:
    async with opened(tmp_path) as (bench, storage):
        upload = bench.upload(key="a/b")
        for begin in (0, 100_000):
            upload.take()
            await upload.append(BODY[begin : begin + 100_000])
        await upload.seal(commit=False)
        age(*working_area(tmp_path))
        assert await sweep(storage, upload) == 0
        await upload.finish()
        assert await upload.content() == BODY[:200_000]


@pytest.mark.anyio
async def test_files_that_are_not_the_storage_s_stay(tmp_path: Path) -> None:
    async with opened(tmp_path) as (bench, storage):
        await bench.upload().append(BODY)
        folder = working_area(tmp_path)[0].parent
        for path in (folder / "README", folder / "notes.txt", tmp_path / "data" / "more.1-00000000"):
            path.write_bytes(b"")
            age(path)
        before = working_area(tmp_path)
        assert await sweep(storage) == 0
        assert working_area(tmp_path) == before


@pytest.mark.anyio
async def test_a_storage_belongs_to_the_store_that_came_first(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, storage):
        assert await storage.claim("store-1")
        assert await storage.claim("store-1")
        assert not await storage.claim("store-2")
    async with opened(tmp_path) as (_, storage):
        assert not await storage.claim("store-2")
        assert await storage.claim("store-1")
    assert sorted(os.listdir(tmp_path)) == ["data", "files", "store-identity"]  # noqa: PTH208


@pytest.mark.anyio
async def test_of_stores_that_come_at_the_same_time_one_has_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, storage):
        claims = await asyncio.gather(*(storage.claim(f"store-{number}") for number in range(20)))
        assert claims.count(True) == 1
        assert (tmp_path / "store-identity").read_text() == f"store-{claims.index(True)}"


@pytest.mark.anyio
async def test_of_bytes_to_be_synced_later_only_so_many_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tusserve.storage.file.Unsynced", partial(Unsynced, limit=3))
    make = partial(FileStorage, durability="checkpoint")
    async with Bench.opened(make, tmp_path, durable=True) as bench:
        for number in range(5):
            await bench.upload(f"upload-{number}").append(BODY)
        assert sorted(noted(tmp_path)) == ["upload-0", "upload-1"]
    assert len(noted(tmp_path)) == 5
