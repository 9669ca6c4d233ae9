"""No call that waits for a disk is made on the event loop, by any part of a whole server."""

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from blockbuster import BlockBuster, BlockBusterFunction, BlockingError

from tests.engine.world import id_of
from tusserve import FileStorage, SQLiteStore, TusApp, Upload
from tusserve.protocol.records import Reason
from tusserve.testing import TusClient

pytestmark = pytest.mark.anyio

DATA = bytes(range(256)) * 4096
UNSEEN = ("pread", "pwrite", "fsync", "fdatasync", "ftruncate", "open", "copy_file_range")
"""Calls that wait for a disk, and that BlockBuster does not know."""


@pytest.fixture
def not_blocking() -> Generator[None]:
    """Blocking calls on the event loop raise. Two are meant: a look at SQLite's counter of changes, which
    reads what the kernel has in memory, and the join of a thread that has done the last of its work."""
    guard = BlockBuster()
    for name in UNSEEN:
        guard.functions[f"os.{name}"] = BlockBusterFunction(os, name)
    for function in guard.functions.values():
        function.can_block_in("tusserve/stores/sqlite_open.py", "one")
        function.can_block_in("tusserve/storage/file_threads.py", "stop")
    guard.activate()
    try:
        yield
    finally:
        guard.deactivate()


@pytest.mark.usefixtures("not_blocking")
async def test_no_request_blocks_the_loop(tmp_path: Path) -> None:
    seen: list[str] = []

    async def first(upload: Upload, head: bytes) -> None:
        seen.append("first")

    def complete(upload: Upload) -> None:
        path = upload.local_path()
        assert path is not None
        seen.append(f"{len(path.read_bytes())}")  # in a thread of its own

    def terminated(upload: Upload, reason: Reason) -> None:
        seen.append(reason)

    tus = TusApp(
        "/files",
        storage=FileStorage(tmp_path / "bytes"),
        store=SQLiteStore(tmp_path / "records.db"),
        on_first_chunk=first,
        on_complete=complete,
        on_terminate=terminated,
        downloads=True,
        sweep_every=None,
    )
    async with TusClient(tus) as client:
        url = await client.create("/files", length=len(DATA))
        assert (await client.append(url, DATA[:300_000], at=0, cut_after=200_000)).status == 423
        async with client.half_open(url, DATA[200_000:300_000], at=200_000, content_length=400_000) as stuck:
            await stuck.until_asked()
            at = await client.offset(url)
            assert (await client.append(url, DATA[at:], at=at)).status in {204, 423}
        at = await client.offset(url)
        if at < len(DATA):
            assert (await client.append(url, DATA[at:], at=at)).status == 204
        upload = await tus.get(id_of(url))
        assert upload is not None
        async with upload.open() as chunks:
            assert b"".join([chunk async for chunk in chunks]) == DATA
        for wanted, status in ((None, 200), ("bytes=5-600000", 206)):
            answer = await client.request("GET", url, headers={"Range": wanted})
            assert (answer.status, len(answer.body) > 0) == (status, True)
        await tus.sweep()
        assert (await client.delete(url)).status == 204
        assert (await client.head(url)).status == 410
    assert seen == ["first", f"{len(DATA)}", Reason.CLIENT]


@pytest.mark.usefixtures("not_blocking")
async def test_a_blocking_call_would_be_seen(tmp_path: Path) -> None:
    async def first(upload: Upload, head: bytes) -> None:
        with pytest.raises(BlockingError):
            (tmp_path / "a").write_bytes(b"")
        with pytest.raises(BlockingError):
            os.fsync(1)

    tus = TusApp(
        "/files",
        storage=FileStorage(tmp_path / "bytes"),
        store=SQLiteStore(tmp_path / "records.db"),
        on_first_chunk=first,
    )
    async with TusClient(tus) as client:
        url = await client.create("/files", length=4)
        assert (await client.append(url, b"data")).status == 204
