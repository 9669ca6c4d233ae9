"""Power is lost behind every single change of the disk, in every way: nothing acknowledged is lost.

The uploads are written through a disk that notes each change; the commits of a store are noted in between.
For each beginning of that log the directory is made again as it may be then, and a storage under another boot
of the machine has to give every byte that was committed, and to go on from there.
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from tusserve.contracts import Concatenates, Cursor, Fence, Lease, Part, Place
from tusserve.errors import CursorLost, TusError
from tusserve.storage.file import Durability, FileStorage
from tusserve.storage.file_disk import Disk
from tusserve.testing.disk_log import AfterTheNextBoot, DiskLog, LoggedDisk, Loss, Medium, Said
from tusserve.testing.storage_driver import Bench, Upload, made_up, write_all


@dataclass(frozen=True)
class Committed:
    """What a store has of an upload from now on. `lasting`: the durability promises it against power loss."""

    place: Place
    cursor: Cursor
    content: bytes
    lasting: bool


@dataclass(frozen=True)
class Ending:
    """The upload is to go from now on: its bytes may be anything."""

    place: Place
    cursor: Cursor
    gone: bool


@dataclass
class Story:
    """Uploads being written, with each commit noted in the log of the disk."""

    log: DiskLog
    durability: Durability
    bench: Bench

    def upload(self, id: str, *, key: str | None = None, length: int | None = None) -> Upload:
        return self.bench.upload(id, key=key, length=length)

    def committed(self, upload: Upload, content: bytes, *, lasting: bool) -> None:
        lasting = (lasting and self.durability == "checkpoint") or self.durability == "full"
        self.log.say(Committed(upload.place, upload.cursor, content, lasting))

    async def body(self, upload: Upload, before: bytes, body: bytes, *, checkpoint: bool = False) -> bytes:
        """One request; with a checkpoint in the middle if told so."""
        async with upload.writer(upload.take()) as writer:
            half = len(body) // 2 if checkpoint else 0
            await write_all(writer, body[:half])
            if checkpoint:
                upload.commit(await writer.flush(False))
                self.committed(upload, (before + body)[: upload.offset], lasting=True)
            await write_all(writer, body[half:])
            durable = await writer.flush(True)
        upload.commit(durable)
        upload.let_go()
        self.committed(upload, before + body, lasting=durable.sealed)
        return before + body

    async def finish(self, upload: Upload, content: bytes) -> None:
        await upload.seal()
        self.committed(upload, content, lasting=True)
        await upload.seal(commit=False)

    async def join(self, parts: Sequence[Upload], final: Upload) -> None:
        storage = self.bench.storage
        assert isinstance(storage, Concatenates)
        named = [Part(part.place, part.state, part.offset) for part in parts]
        final.state = await storage.concatenate(final.place, named)
        final.offset = sum(part.offset for part in parts)

    async def discard(self, upload: Upload) -> None:
        self.log.say(Ending(upload.place, upload.cursor, gone=False))
        await upload.discard()
        self.log.say(Ending(upload.place, upload.cursor, gone=True))


async def one_segment_under_a_key(story: Story) -> None:
    upload = story.upload("keyed", key="projects/1/video")
    content = await story.body(upload, b"", made_up(700, 1))
    content = await story.body(upload, content, made_up(900, 2), checkpoint=True)
    await story.finish(upload, content)


async def one_body_is_sealed_by_its_flush(story: Story) -> None:
    upload = story.upload("at-once", length=600)
    await story.body(upload, b"", made_up(600, 3))
    await upload.seal(commit=False)


async def tails_are_dropped(story: Story) -> None:
    upload = story.upload("tails")
    content = await story.body(upload, b"", made_up(500, 4))
    for seed in (5, 6):
        async with upload.writer(upload.take()) as writer:
            await write_all(writer, made_up(800, seed))
            await writer.flush(seed % 2 == 0)  # and the commit fails
        upload.let_go()
    content = await story.body(upload, content, made_up(400, 7), checkpoint=True)
    await story.finish(upload, content)


async def segments_are_joined(story: Story) -> None:
    for key in (None, "projects/joined"):
        upload, content = story.upload(f"joined-{key is None}", key=key), b""
        for seed in range(3):
            upload.take()
            content = await story.body(upload, content, made_up(300, 10 + seed), checkpoint=seed == 1)
        await story.finish(upload, content)
        if key is None:
            await story.discard(upload)


async def uploads_become_one(story: Story) -> None:
    parts, content = [], b""
    for number in range(3):
        part = story.upload(f"part-{number}")
        body = await story.body(part, b"", made_up(300, 40 + number))
        await story.finish(part, body)
        parts.append(part)
        content += body
    for key in (None, "projects/film"):
        final = story.upload(f"final-{key is None}", key=key)
        await story.join(parts, final)
        story.committed(final, content, lasting=True)
        await final.seal(commit=False)
    for part in parts:
        await story.discard(part)


async def batches_are_many(story: Story) -> None:
    upload = story.upload("large")
    content = await story.body(upload, b"", made_up(700_000, 20), checkpoint=True)
    await story.finish(upload, content)


async def uploads_end(story: Story) -> None:
    empty = story.upload("empty", key="projects/empty", length=0)
    await story.finish(empty, b"")
    await story.discard(empty)
    content = await story.body(again := story.upload("again", key="projects/empty"), b"", made_up(300, 21))
    await story.finish(again, content)
    await story.body(unfinished := story.upload("unfinished"), b"", made_up(300, 22))
    await story.discard(unfinished)


async def an_upload_is_left_unfinished(story: Story) -> None:
    upload = story.upload("unfinished")
    content = await story.body(upload, b"", made_up(300, 30))
    await story.body(upload, content, made_up(300, 31))


STORIES: list[Callable[[Story], Awaitable[None]]] = [
    one_segment_under_a_key,
    one_body_is_sealed_by_its_flush,
    tails_are_dropped,
    segments_are_joined,
    uploads_become_one,
    batches_are_many,
    uploads_end,
    an_upload_is_left_unfinished,
]


Disks = Callable[[DiskLog], Disk]


async def told(
    folder: Path, durability: Durability, disk: Disks, tell: Callable[[Story], Awaitable[None]]
) -> DiskLog:
    """The log of a story, with the storage left in order at its end."""
    log = DiskLog()
    storage = FileStorage(folder, durability=durability, disk=disk(log))

    def make(_: Path) -> FileStorage:
        return storage

    async with Bench.opened(make, folder, durable=False) as bench:
        await tell(Story(log, durability, bench))
    log.say("left in order")
    return log


async def check(storage: FileStorage, expected: Committed | Ending) -> None:
    """A storage after the loss keeps to what was committed before it."""
    place, cursor = expected.place, expected.cursor
    if isinstance(expected, Committed):
        length = len(expected.content)
        async with storage.read(place, cursor, 0, length) as chunks:
            assert b"".join([chunk async for chunk in chunks]) == expected.content
        sealed = '"sealed"' in cursor.state
        if not sealed:
            lease = Lease(id=place.id, fence=Fence(99, "token"), ttl=timedelta(seconds=15))
            async with storage.writer(place, cursor, length, lease) as writer:
                await writer.write(b"and more")
                durable = await writer.flush(True)
            assert durable.offset == length + len(b"and more")
        state = await storage.seal(place, cursor, length)
        path = storage.local_path(place, state)
        assert path is not None and path.exists()
        assert path.read_bytes() == expected.content
    elif expected.gone and storage._area.syncs:
        assert storage._area.names(place.id) == [], "bytes came back after discard"
    await storage.discard(place, cursor)
    if place.key is not None:
        under_key = storage.local_path(place, '{"v":1,"sealed":"","length":0}')
        assert under_key is not None
        # Once it is gone for good, the key may be another upload's.
        assert not under_key.exists() or (isinstance(expected, Ending) and expected.gone)


async def losses(log: DiskLog, root: Path, scratch: Path, durability: Durability) -> list[str]:
    """Replay a log: what was lost, and where."""
    medium, expected, found = Medium(root), dict[str, Committed | Ending](), list[str]()
    choice, left_in_order = random.Random(1), False
    for position, event in enumerate(log.events):
        medium.see(event)
        match event:
            case Said(Committed() | Ending() as said):
                expected[said.place.id] = said
            case Said():
                left_in_order = True
            case _:
                pass
        for loss in Loss:
            target = scratch / f"{position}-{loss.name}"
            target.mkdir()
            medium.rebuild(target, loss, choice)
            async with FileStorage(target, durability=durability, disk=AfterTheNextBoot()) as storage:
                for each in expected.values():
                    lasting = isinstance(each, Ending) or each.lasting
                    lasting = lasting or (left_in_order and durability == "checkpoint")
                    if not lasting and '"sealed"' in each.cursor.state:
                        continue  # nothing is known of when it was sealed: nothing was promised
                    try:
                        await check(storage, each)
                    except (TusError, AssertionError) as error:
                        if lasting or not isinstance(error, CursorLost):
                            found.append(f"{each.place.id}, entry {position}, {loss}: {error!r}")
    return found


@pytest.mark.anyio
@pytest.mark.parametrize("durability", ["full", "checkpoint", "none"])
@pytest.mark.parametrize("tell", STORIES, ids=lambda tell: tell.__name__)
async def test_nothing_acknowledged_is_lost(
    tmp_path: Path, durability: Durability, tell: Callable[[Story], Awaitable[None]]
) -> None:
    log = await told(tmp_path / "before", durability, DiskLog.disk, tell)
    assert await losses(log, tmp_path / "before", tmp_path, durability) == []


class SyncsNoBytes(LoggedDisk):
    def sync(self, fd: int) -> None: ...


class SyncsNoNames(LoggedDisk):
    def sync_folder(self, path: Path) -> None: ...


class SyncsNoFoldersOfFolders(LoggedDisk):
    def sync_folder(self, path: Path) -> None:
        if len(path.name) != 2 or len(path.parent.name) == 2:
            super().sync_folder(path)


class SyncsNoKeys(LoggedDisk):
    def sync_folder(self, path: Path) -> None:
        if "files" not in path.parts:
            super().sync_folder(path)


class SyncsNoJoinedBytes(LoggedDisk):
    joined = -1

    def create(self, path: Path) -> int:
        fd = super().create(path)
        if "join-" in path.name:
            self.joined = fd
        return fd

    def sync(self, fd: int) -> None:
        if fd != self.joined:
            super().sync(fd)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("disk", "tell"),
    [
        (SyncsNoBytes, one_body_is_sealed_by_its_flush),
        (SyncsNoBytes, segments_are_joined),
        (SyncsNoNames, one_body_is_sealed_by_its_flush),
        (SyncsNoFoldersOfFolders, one_body_is_sealed_by_its_flush),
        (SyncsNoKeys, one_segment_under_a_key),
        (SyncsNoJoinedBytes, segments_are_joined),
    ],
)
async def test_what_is_not_synced_is_seen(
    tmp_path: Path, disk: Disks, tell: Callable[[Story], Awaitable[None]]
) -> None:
    log = await told(tmp_path / "before", "full", disk, tell)
    assert await losses(log, tmp_path / "before", tmp_path, "full")


class NeverStartedAnew(LoggedDisk):
    """Takes every boot of the machine for the same."""

    def boot(self) -> str:
        return "another"


@pytest.mark.anyio
@pytest.mark.parametrize("durability", ["checkpoint", "none"])
async def test_bytes_that_were_not_synced_are_not_believed_after_another_boot(
    tmp_path: Path, durability: Durability
) -> None:
    log = await told(tmp_path / "before", durability, NeverStartedAnew, tails_are_dropped)
    assert await losses(log, tmp_path / "before", tmp_path, durability), "the boot makes no difference"
