"""What a `FileStorage` does with files: where they are, who may read them, and what goes wrong with them."""

import errno
import fcntl
import os
import resource
import stat
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import get_args

import pytest

from tusserve.contracts import HasLocalPath, ListsStrays, RemembersStore
from tusserve.errors import ConfigError, CursorLost, KeyTaken, StorageFull, StorageUnavailable, TusError
from tusserve.storage.file import Durability, FileStorage
from tusserve.storage.file_disk import Disk
from tusserve.testing.storage_driver import Bench, Upload, made_up, write_all

BODY = made_up(700_000, 1)


@asynccontextmanager
async def opened(make: Callable[[Path], FileStorage], place: Path) -> AsyncGenerator[Bench]:
    async with Bench.opened(make, place, durable=True) as bench:
        yield bench


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def in_segments(bench: Bench, id: str = "upload", *, key: str | None = None) -> Upload:
    """BODY in three segments."""
    upload = bench.upload(id, key=key)
    for begin in (0, 200_000, 400_000):
        upload.take()
        await upload.append(BODY[begin : begin + 200_000 if begin < 400_000 else len(BODY)])
    return upload


@pytest.mark.anyio
async def test_only_the_process_can_read_what_it_keeps(tmp_path: Path) -> None:
    root = tmp_path / "new" / "uploads"
    async with opened(FileStorage, root) as bench:
        upload = bench.upload(key="projects/1/video.mp4")
        await upload.append(BODY)
        (segment,) = files_in(root / "data")
        assert segment.name.startswith("upload.1-")
        assert [len(part) for part in segment.relative_to(root / "data").parts[:2]] == [2, 2]
        assert mode(segment) == 0o600
        await upload.finish()
        assert mode(root / "files" / "projects" / "1" / "video.mp4") == 0o600
        assert {mode(folder) for folder in [root, *root.rglob("*")] if folder.is_dir()} == {0o700}


@pytest.mark.anyio
async def test_an_id_of_the_host_stays_in_the_working_area(tmp_path: Path) -> None:
    async with opened(FileStorage, tmp_path) as bench:
        for name in ("../../up", "/etc/passwd", "..", "a b", "ümlaut", "a%2Fb", "x" * 128):
            upload = bench.upload(name)
            await upload.append(b"some bytes")
            await upload.finish()
            assert await upload.content() == b"some bytes"
            assert isinstance(bench.storage, HasLocalPath)
            path = bench.storage.local_path(upload.place, upload.state)
            assert path is not None
            assert path.parent.parent.parent == tmp_path / "data"
            await upload.discard()
        assert files_in(tmp_path) == []


@pytest.mark.anyio
async def test_one_segment_is_where_it_was_after_seal(tmp_path: Path) -> None:
    async with opened(FileStorage, tmp_path) as bench:
        upload = bench.upload()
        await upload.append(BODY)
        (segment,) = files_in(tmp_path)
        await upload.finish()
        assert files_in(tmp_path) == [segment]
        assert isinstance(bench.storage, HasLocalPath)
        assert bench.storage.local_path(upload.place, upload.state) == segment
        assert mode(segment) == 0o400


@pytest.mark.anyio
async def test_a_body_that_flush_seals_needs_no_seal(tmp_path: Path) -> None:
    async with opened(FileStorage, tmp_path) as bench:
        for durability in get_args(Durability):
            bench.storage = FileStorage(tmp_path, durability=durability)
            for key, length, sealed in (
                (None, 10, True),
                ("key", 10, False),
                (None, 11, False),
                (None, None, False),
            ):
                upload = bench.upload(key=key, length=length)
                async with upload.writer(upload.take()) as writer:
                    await writer.write(b"0123456789")
                    assert not (await writer.flush(False)).sealed
                    durable = await writer.flush(True)
                assert durable.sealed is sealed
                upload.commit(durable)
                if sealed:
                    before = upload.state
                    await upload.seal()
                    assert upload.state == before
                await upload.discard()


@pytest.mark.anyio
async def test_after_a_takeover_no_flush_seals(tmp_path: Path) -> None:
    async with opened(FileStorage, tmp_path) as bench:
        upload = bench.upload(length=8)
        await upload.append(b"0123")
        upload.take()
        async with upload.writer(upload.take()) as writer:
            await writer.write(b"4567")
            durable = await writer.flush(True)
        assert durable.offset == 8 and not durable.sealed and len(durable.added) == 1


@pytest.mark.anyio
async def test_after_a_proven_death_the_file_is_gone_on_with(tmp_path: Path) -> None:
    async with opened(FileStorage, tmp_path) as bench:
        upload = bench.upload()
        for _ in range(5):
            writer = await bench.standing_still(upload.writer(upload.take(died=True)))
            await writer.write(b"0123456789")
            upload.commit(await writer.flush(True))
            await writer.write(b"a tail that is longer than what follows")
            await writer.flush(False)
            await bench.reopen()
        async with upload.writer(upload.take(died=True)) as writer:
            await writer.write(b"the end")
            upload.commit(await writer.flush(False))
            (segment,) = files_in(tmp_path)
            assert segment.stat().st_size == upload.offset, "a tail is still there"
            assert upload.entries == []
        assert await upload.content() == b"0123456789" * 5 + b"the end"


@pytest.mark.anyio
async def test_a_body_that_came_to_nothing_leaves_no_file(tmp_path: Path) -> None:
    async with opened(FileStorage, tmp_path) as bench:
        upload = bench.upload()
        async with upload.writer(upload.take()) as writer:
            await write_all(writer, BODY)
        assert writer.settled
        assert files_in(tmp_path) == []


@pytest.mark.anyio
async def test_the_second_seal_removes_what_was_joined(tmp_path: Path) -> None:
    async with opened(FileStorage, tmp_path) as bench:
        upload = await in_segments(bench, key="a/b")
        assert len(files_in(tmp_path)) == 3
        await upload.seal()
        assert len(files_in(tmp_path)) == 5
        await upload.seal(commit=False)
        assert [path.name for path in files_in(tmp_path)] == ["upload.sealed", "b"]
        assert (tmp_path / "files" / "a" / "b").read_bytes() == BODY
        await upload.discard()
        assert files_in(tmp_path) == []


@pytest.mark.anyio
async def test_a_joined_file_that_is_too_short_is_not_sealed_again(tmp_path: Path) -> None:
    async with opened(FileStorage, tmp_path) as bench:
        upload = await in_segments(bench)
        await upload.seal(commit=False)
        (joined,) = (path for path in files_in(tmp_path) if path.suffix == ".sealed")
        os.truncate(joined, 10)
        with pytest.raises(CursorLost):
            await upload.seal()


@pytest.mark.anyio
async def test_a_host_replaces_the_file_under_a_key_and_discard_leaves_it(tmp_path: Path) -> None:
    async with opened(FileStorage, tmp_path) as bench:
        upload = bench.upload(key="key")
        await upload.append(BODY)
        await upload.finish()
        (tmp_path / "files" / "key").unlink()
        (tmp_path / "files" / "key").write_bytes(b"the host's own")
        assert await upload.content() == BODY
        await upload.discard()
        assert files_in(tmp_path) == [tmp_path / "files" / "key"]


@pytest.mark.anyio
async def test_a_taken_key_is_seen_before_the_first_byte(tmp_path: Path) -> None:
    async with opened(FileStorage, tmp_path) as bench:
        first, second = bench.upload("first", key="key"), bench.upload("second", key="key")
        await first.append(BODY)
        await first.finish()
        with pytest.raises(KeyTaken):
            await second.append(BODY)


@pytest.mark.anyio
async def test_a_key_is_never_linked_through_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    async with opened(FileStorage, tmp_path / "uploads") as bench:
        (tmp_path / "uploads" / "files" / "way").symlink_to(tmp_path / "outside")
        (tmp_path / "uploads" / "files" / "name").symlink_to(tmp_path / "outside" / "name")
        for key in ("way/out", "way/further/out", "name"):
            upload = bench.upload(f"upload-{len(key)}", key=key)

            async def upload_it(upload: Upload = upload) -> None:
                await upload.append(BODY)
                await upload.seal()

            with pytest.raises(KeyTaken):
                await upload_it()
        assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.anyio
async def test_a_segment_is_never_opened_through_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(BODY)
    async with opened(FileStorage, tmp_path / "uploads") as bench:
        upload = bench.upload()
        await upload.append(b"01")
        (segment,) = files_in(tmp_path / "uploads")
        segment.unlink()
        segment.symlink_to(tmp_path / "outside")
        for work in (partial(upload.append, b"more"), upload.content, upload.seal):
            with pytest.raises(TusError):
                await work()
    assert (tmp_path / "outside").read_bytes() == BODY


@pytest.mark.anyio
@pytest.mark.parametrize("gone", [False, True], ids=["shorter", "gone"])
@pytest.mark.parametrize("which", ["first", "newest", "sealed"])
async def test_bytes_that_are_missing_are_lost(tmp_path: Path, which: str, gone: bool) -> None:
    async with opened(FileStorage, tmp_path) as bench:
        upload = await in_segments(bench)
        if which == "sealed":
            await upload.finish()
        paths = sorted(files_in(tmp_path), key=lambda path: path.name)
        victim = paths[0] if which == "first" else paths[-1]
        if gone:
            victim.unlink()
        else:
            os.truncate(victim, victim.stat().st_size - 1)
        with pytest.raises(CursorLost):
            await upload.content()
        with pytest.raises(CursorLost):
            await upload.seal()
        with pytest.raises(CursorLost):  # before the first byte, which is there
            await bench.storage.read(upload.place, upload.cursor, 0, len(BODY)).__aenter__()
        if which == "newest":
            for stalled in (False, True):
                if stalled:
                    upload.take()
                with pytest.raises(CursorLost):
                    await upload.append(b"more")
                upload.let_go()


class Later(Disk):
    """The same disk, after the machine was started again."""

    def boot(self) -> str:
        return "another"


@pytest.mark.anyio
@pytest.mark.parametrize("durability", ["checkpoint", "none"])
async def test_another_boot_makes_unsynced_bytes_lost(tmp_path: Path, durability: Durability) -> None:
    make = partial(FileStorage, durability=durability)
    async with opened(make, tmp_path) as bench:
        upload = bench.upload()
        await upload.append(BODY)
        await upload.append(b"more")  # within one boot they are there
        bench.storage = make(tmp_path, disk=Later())
        for work in (partial(upload.append, b"more"), upload.content, upload.seal):
            with pytest.raises(CursorLost):
                await work()
            upload.let_go()


@pytest.mark.anyio
async def test_what_is_noted_of_one_writer_is_not_believed_of_another(tmp_path: Path) -> None:
    make = partial(FileStorage, durability="checkpoint")
    async with opened(make, tmp_path) as bench:
        async with make(tmp_path) as bench.storage:
            upload = bench.upload()
            await upload.append(BODY)
            async with upload.writer(upload.take()) as writer:
                await writer.write(b"synced, but its commit is lost")
                await writer.flush(True)
            upload.let_go()
        bench.storage = make(tmp_path)
        await upload.append(b"committed, but not synced")
        bench.storage = make(tmp_path, disk=Later())
        with pytest.raises(CursorLost):
            await upload.content()


@pytest.mark.anyio
async def test_more_durability_later_does_not_vouch_for_what_was_before(tmp_path: Path) -> None:
    async with opened(FileStorage, tmp_path) as bench:
        upload = bench.upload()
        bench.storage = FileStorage(tmp_path, durability="none")
        for body in (b"in one segment", b"in another"):
            upload.take()
            await upload.append(body)
        bench.storage = FileStorage(tmp_path, durability="full")
        await upload.append(b"synced, but behind others that are not")
        assert await upload.content()
        bench.storage = FileStorage(tmp_path, durability="full", disk=Later())
        with pytest.raises(CursorLost):
            await upload.content()


@pytest.mark.anyio
async def test_what_was_synced_in_time_is_not_noted(tmp_path: Path) -> None:
    async with opened(partial(FileStorage, durability="checkpoint"), tmp_path) as bench:
        upload, sealed = bench.upload(), bench.upload("sealed")
        await upload.append(BODY)
        async with upload.writer(upload.take()) as writer:
            await writer.write(b"more")
            upload.commit(await writer.flush(False))
        await sealed.append(BODY)
        await sealed.finish()
    assert [path for path in files_in(tmp_path) if path.name.endswith("-synced")] == []


@pytest.mark.anyio
async def test_a_storage_left_in_order_has_synced_all_it_acknowledged(tmp_path: Path) -> None:
    async with Bench.opened(partial(FileStorage, durability="checkpoint"), tmp_path, durable=True) as bench:
        upload = bench.upload()
        await upload.append(BODY)
        await upload.append(b"more")
    bench.storage = FileStorage(tmp_path, durability="checkpoint", disk=Later())
    assert await upload.content() == BODY + b"more"
    await upload.append(b" still")
    assert await upload.content() == BODY + b"more still"
    await upload.finish()
    assert len(files_in(tmp_path)) == 1


class Scarce(Disk):
    free = 1 << 30

    def free_bytes(self, path: Path) -> int:
        return self.free


@pytest.mark.anyio
async def test_the_reserve_is_kept_and_uploads_can_still_be_terminated(tmp_path: Path) -> None:
    disk = Scarce()
    make = partial(FileStorage, reserve=1 << 20, checkpoint_bytes=1 << 20, disk=disk)
    async with opened(make, tmp_path) as bench:
        upload = bench.upload()
        await upload.append(BODY)
        disk.free = (1 << 20) + 3
        await upload.append(b"123")
        with pytest.raises(StorageFull):
            await upload.append(b"1234")
        upload.let_go()
        disk.free = 1 << 30
        async with upload.writer(upload.take()) as writer:
            await write_all(writer, BODY)
            upload.commit(await writer.flush(False))
            disk.free = 1 << 10
            await write_all(writer, BODY * 2)
            with pytest.raises(StorageFull):
                await writer.flush(True)
        assert await upload.content() == BODY + b"123" + BODY
        await upload.discard()
        assert files_in(tmp_path) == []


@contextmanager
def files_of_at_most(size: int) -> Generator[None, None, None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.anyio
async def test_a_file_that_may_not_grow_is_a_full_storage(tmp_path: Path) -> None:
    async with opened(FileStorage, tmp_path) as bench:
        upload = bench.upload()
        await upload.append(b"kept")
        with files_of_at_most(300_000), pytest.raises(StorageFull):
            await upload.append(BODY)
        upload.let_go()
        assert await upload.content() == b"kept"
        await upload.append(BODY)
        assert await upload.content() == b"kept" + BODY


class FullDisk(Disk):
    def create(self, path: Path) -> int:
        os.close(super().create(path))
        return os.open("/dev/full", os.O_RDWR)


@pytest.mark.anyio
async def test_a_full_disk_is_a_full_storage(tmp_path: Path) -> None:
    async with opened(partial(FileStorage, disk=FullDisk()), tmp_path) as bench:
        with pytest.raises(StorageFull, match="No space left"):
            await bench.upload().append(BODY)


class FailsToSync(Disk):
    failures = 1

    def sync(self, fd: int) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EIO, "Input/output error", "/a/path/of/the/server")
        super().sync(fd)


@pytest.mark.anyio
async def test_a_sync_that_failed_is_final_for_its_writer(tmp_path: Path) -> None:
    async with opened(partial(FileStorage, disk=FailsToSync()), tmp_path) as bench:
        upload = bench.upload()
        async with upload.writer(upload.take()) as writer:
            await writer.write(b"some")
            for _ in range(3):
                with pytest.raises(StorageUnavailable, match=r"^the disk failed: Input/output error$"):
                    await writer.flush(True)
        upload.let_go()
        await upload.append(b"others")
        assert await upload.content() == b"others"


def test_settings_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    for nonsense in (
        partial(FileStorage, reserve=-1),
        partial(FileStorage, checkpoint_bytes=0),
        partial(FileStorage, threads=0),
    ):
        with pytest.raises(ConfigError):
            nonsense(tmp_path)
    with pytest.raises(ConfigError, match="full, checkpoint, none"):
        FileStorage(tmp_path, durability="some")  # type: ignore[arg-type]
    assert FileStorage(tmp_path, checkpoint_bytes=7).checkpoint_bytes == 7


@pytest.mark.anyio
async def test_a_directory_that_cannot_be_used_is_said_at_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "uploads"):
        with pytest.raises(ConfigError, match="FileStorage cannot keep uploads in"):
            await FileStorage(folder).__aenter__()


@pytest.mark.anyio
async def test_the_working_directory_may_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage = FileStorage("uploads")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    async with storage:
        assert (tmp_path / "uploads" / "data").is_dir()


@contextmanager
def as_nobody(*paths: Path) -> Generator[None, None, None]:
    """Run as a user whom the modes of files concern."""
    if os.geteuid() != 0:
        yield
        return
    for path in paths:
        os.chown(path, 65534, -1)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_protected_file_is_opened_again(tmp_path: Path) -> None:
    """A flush sealed it, and its commit was lost: the next writer goes on."""
    disk, path = Disk(), tmp_path / "file"
    disk.close(disk.create(path))
    disk.protect(path)
    for parent in (tmp_path, *list(tmp_path.parents)[:3]):
        if os.geteuid() == 0:
            parent.chmod(0o755)
    with as_nobody(tmp_path, path):
        with pytest.raises(PermissionError):
            os.close(os.open(path, os.O_RDWR))
        disk.close(disk.open(path))
    assert mode(path) == 0o600
    disk.protect(path)
    disk.close(disk.open(path))
    assert mode(path) == 0o600


def removed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delattr(os, name)


def without_copies_between_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def copy_file_range(*_: object) -> int:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", copy_file_range)


def with_short_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:1000], at))


def with_short_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    copy = os.copy_file_range
    monkeypatch.setattr(os, "copy_file_range", lambda s, t, count, a, b: copy(s, t, min(count, 70_000), a, b))


def without_removal_of_protected_files(monkeypatch: pytest.MonkeyPatch) -> None:
    unlink = Path.unlink

    def windows(self: Path, missing_ok: bool = False) -> None:
        with suppress(FileNotFoundError):
            if not self.lstat().st_mode & stat.S_IWUSR:
                raise PermissionError(errno.EACCES, "Access is denied")
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", windows)


def without_syncs_of_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def no_folders(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", no_folders)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "lacks",
    [
        pytest.param(lambda monkeypatch: None, id="nothing"),
        *(
            pytest.param(partial(removed, name=name), id=name)
            for name in ("fdatasync", "pwrite", "pread", "copy_file_range", "O_DIRECTORY")
        ),
        *(
            pytest.param(lack, id=lack.__name__)
            for lack in (
                without_copies_between_files,
                with_short_writes,
                with_short_copies,
                without_removal_of_protected_files,
                without_syncs_of_folders,
            )
        ),
    ],
)
async def test_what_a_system_lacks_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: Callable[[pytest.MonkeyPatch], None]
) -> None:
    lacks(monkeypatch)
    async with opened(FileStorage, tmp_path) as bench:
        upload = await in_segments(bench)
        assert await upload.content(100, 500_000) == BODY[100:500_000]
        await upload.finish()
        assert await upload.content() == BODY
        await upload.discard()
        assert files_in(tmp_path) == []


@pytest.mark.parametrize("can", [True, False])
def test_where_fsync_ends_in_the_cache_of_the_drive_more_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can: bool
) -> None:
    asked: list[str] = []

    def control(fd: int, command: int) -> int:
        asked.append("full")
        if not can:
            raise OSError(errno.ENOTSUP, "Operation not supported")
        return 0

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", control)
    monkeypatch.delattr(os, "fdatasync")
    monkeypatch.setattr(os, "fsync", lambda fd: asked.append("plain"))
    disk = Disk()
    disk.sync(fd := disk.create(tmp_path / "file"))
    disk.close(fd)
    disk.sync_folder(tmp_path)
    assert asked == (["full", "full"] if can else ["full", "plain"] * 2)


@pytest.mark.anyio
async def test_abilities(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path)
    assert isinstance(storage, HasLocalPath)
    assert isinstance(storage, ListsStrays)
    assert isinstance(storage, RemembersStore)


@pytest.mark.anyio
async def test_where_the_bytes_are_is_known_once_they_are_sealed(tmp_path: Path) -> None:
    async with FileStorage(tmp_path) as storage:
        for key in (None, "a/key.bin"):
            bench_upload = Bench(FileStorage, tmp_path, durable=False)
            bench_upload.storage = storage
            upload = bench_upload.upload(f"upload-{key is None}", key=key)
            assert storage.local_path(upload.place, upload.state) is None
            await upload.append(BODY)
            assert storage.local_path(upload.place, upload.state) is None
            await upload.finish()
            path = storage.local_path(upload.place, upload.state)
            assert path is not None
            assert path.read_bytes() == BODY
            assert key is None or path == tmp_path / "files" / key


@pytest.mark.anyio
async def test_a_disk_that_is_away_loses_no_upload_and_takes_no_byte(tmp_path: Path) -> None:
    """As after an umount: an empty folder stands where the uploads were, and then they are back."""
    place, disk = tmp_path / "uploads", tmp_path / "disk"
    async with opened(FileStorage, place) as bench:
        begun, fresh = bench.upload("begun"), bench.upload("fresh")
        await begun.append(BODY)
        place.rename(disk)
        place.mkdir()
        for work in (
            partial(begun.append, b"more"),
            partial(fresh.append, BODY),
            begun.content,
            partial(begun.seal, commit=False),
            partial(begun.discard),
        ):
            with pytest.raises(StorageUnavailable):
                await work()
        assert list(place.iterdir()) == []
        place.rmdir()
        disk.rename(place)
        await begun.append(b"more")
        await fresh.append(BODY)
        assert await begun.content() == BODY + b"more"


@pytest.mark.anyio
@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("durability", ["full", "none"])
async def test_a_file_that_is_removed_under_its_writer_is_lost(
    tmp_path: Path, durability: Durability, everything: bool
) -> None:
    async with opened(partial(FileStorage, durability=durability), tmp_path) as bench:
        upload = bench.upload()
        async with upload.writer(upload.take()) as writer:
            await writer.write(made_up(3_000_000, 1))
            await writer.write(made_up(3_000_000, 2))
            for path in files_in(tmp_path):
                path.unlink()
            await writer.write(made_up(100_000, 3))
            with pytest.raises(CursorLost):
                await writer.flush(everything)


def test_an_empty_path_is_not_the_working_directory() -> None:
    with pytest.raises(ConfigError, match="empty path"):
        FileStorage("")
