"""Power is lost behind every single change of the disk while a whole server works: nothing told is lost.

The bytes go through a disk that notes each change, and the records as they are at each commit are noted in
between, as is what clients were told. For each beginning of that log the folder is made again as it may be
then, and a server under another boot of the machine has to give every byte that it told of, and to go on.
"""

import random
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engine.world import id_of
from tusserve import FileStorage, SQLiteStore, TusApp, UploadState
from tusserve.contracts import Lease
from tusserve.errors import TusError
from tusserve.protocol.records import UploadRecord
from tusserve.storage.file_disk import Disk
from tusserve.testing import TusClient
from tusserve.testing.disk_log import AfterTheNextBoot, DiskLog, LoggedDisk, Loss, Medium, Said

pytestmark = pytest.mark.anyio

DATA = random.Random(4).randbytes(4000)


@dataclass(frozen=True)
class Told:
    """A client knows this from now on."""

    url: str
    offset: int
    end: str = ""
    """`asked`: it may be gone from now on; `told`: it is."""


class NotedStore(SQLiteStore):
    """Notes the whole database as it is behind each change."""

    def __init__(self, path: Path, log: DiskLog) -> None:
        super().__init__(path)
        self._at, self._log = path, log

    def _note(self) -> None:
        connection = sqlite3.connect(self._at)
        try:
            self._log.say(connection.serialize())
        finally:
            connection.close()

    async def create(self, record: UploadRecord) -> UploadRecord:
        kept = await super().create(record)
        self._note()
        return kept

    async def commit(
        self, lease: Lease, record: UploadRecord, added: Sequence[str] = (), *, release: bool = False
    ) -> UploadRecord | None:
        committed = await super().commit(lease, record, added, release=release)
        self._note()
        return committed


def app(folder: Path, store: SQLiteStore, disk: Disk) -> TusApp:
    storage = FileStorage(folder / "bytes", durability="full", disk=disk)
    return TusApp("/files", storage=storage, store=store, sweep_every=None)


async def story(folder: Path, disk: LoggedDisk, log: DiskLog) -> None:
    """Uploads in pieces, in one go, cut off, and deleted."""
    async with TusClient(app(folder, NotedStore(folder / "records.db", log), disk)) as client:

        async def create(length: int) -> str:
            url = await client.create("/files", length=length)
            log.say(Told(url, 0))
            return url

        async def append(url: str, at: int, to: int, cut_after: int | None = None) -> None:
            answer = await client.append(url, DATA[at:to], at=at, cut_after=cut_after)
            log.say(Told(url, int(answer.headers["upload-offset"])))

        await append(await create(500), 0, 500)
        pieces = await create(len(DATA))
        await append(pieces, 0, 1500)
        await append(pieces, 1500, 3000, cut_after=700)
        deleted = await create(900)
        await append(deleted, 0, 300)
        log.say(Told(deleted, 300, end="asked"))
        assert (await client.delete(deleted)).status == 204
        log.say(Told(deleted, 0, end="told"))
        await append(pieces, 2200, len(DATA))
        await append(await create(900), 0, 200)


async def losses(log: DiskLog, root: Path, scratch: Path) -> list[str]:
    """What was lost, and where: after each entry of the log, in every way."""
    medium, choice, found = Medium(root), random.Random(2), list[str]()
    records, told = b"", dict[str, Told]()
    for position, event in enumerate(log.events):
        medium.see(event)
        match event:
            case Said(bytes() as records):
                pass
            case Said(Told(url=url) as said):
                told[url] = said
            case _:
                pass
        for loss in Loss if records else ():
            after = scratch / f"{position}-{loss.name}"
            (after / "bytes").mkdir(parents=True)
            medium.rebuild(after / "bytes", loss, choice)
            (after / "records.db").write_bytes(records)
            try:
                await check(after, told)
            except (TusError, AssertionError) as error:
                found.append(f"entry {position}, {loss}: {error}")
    return found


async def check(folder: Path, told: dict[str, Told]) -> None:
    tus = app(folder, SQLiteStore(folder / "records.db", durability="none"), AfterTheNextBoot())
    async with TusClient(tus) as client:
        for url, known in told.items():
            seen = await client.head(url)
            if seen.status == 410:
                assert known.end, f"{url} is gone"
                continue
            assert known.end != "told", f"{url} came back"
            assert seen.status == 200, f"{url}: {seen}"
            at, length = int(seen.headers["upload-offset"]), int(seen.headers["upload-length"])
            assert at >= known.offset, f"{url} has {at} bytes, of which {known.offset} were acknowledged"
            if at < length:
                answer = await client.append(url, DATA[at:length], at=at)
                assert answer.status == 204, f"{url} does not go on: {answer}"
            upload = await tus.get(id_of(url))
            assert upload is not None
            assert upload.state is UploadState.COMPLETE, f"{upload}"
            async with upload.open() as chunks:
                assert b"".join([chunk async for chunk in chunks]) == DATA[:length], f"{url} has other bytes"


async def test_nothing_that_a_client_was_told_is_lost(tmp_path: Path) -> None:
    log, before = DiskLog(), tmp_path / "before"
    before.mkdir()
    await story(before, log.disk(), log)
    assert await losses(log, before / "bytes", tmp_path) == []


class SyncsNoBytes(LoggedDisk):
    def sync(self, fd: int) -> None: ...


class SyncsNoNames(LoggedDisk):
    def sync_folder(self, path: Path) -> None: ...


@pytest.mark.parametrize("disk", [SyncsNoBytes, SyncsNoNames])
async def test_a_disk_that_does_not_sync_is_found_out(disk: type[LoggedDisk], tmp_path: Path) -> None:
    log, before = DiskLog(), tmp_path / "before"
    before.mkdir()
    await story(before, disk(log), log)
    assert await losses(log, before / "bytes", tmp_path) != []
