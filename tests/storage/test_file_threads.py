"""The worker threads of a `FileStorage`: what they outlive, what they cost, and what waits for them."""

import asyncio
import gc
import os
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio
import pytest

from tusserve.contracts import Cursor, Lease, Place
from tusserve.errors import TusError
from tusserve.storage.budget import BUDGET, ByteBudget
from tusserve.storage.file import FileStorage
from tusserve.storage.file_area import WorkArea
from tusserve.storage.file_disk import Disk
from tusserve.storage.file_sealing import seal, sweep_trash
from tusserve.storage.file_state import Closed, Receiving, Sealed, Segment
from tusserve.storage.file_threads import Job, WorkerThreads
from tusserve.storage.file_writer import Batch, FileWriter, Opening
from tusserve.testing.storage_driver import Bench, Upload, made_up, write_all
from tusserve.testing.storage_kit import storage_checks

BODY = made_up(2_000_000, 1)
SOON = 10.0
"""Longer than anything here takes that does not hang."""


class SlowDisk(Disk):
    """Opening the first file, or each write to it, stands still until it is let go."""

    def __init__(self, *, opening: bool) -> None:
        self.opening = opening
        self.go_on = threading.Event()
        self.standing = threading.Event()
        self.open_files: dict[int, Path] = {}
        self.slow: Path | None = None

    def create(self, path: Path) -> int:
        if not path.suffix:
            return super().create(path)  # to see whether that is possible
        if self.slow is None:
            self.slow = path
            if self.opening:
                self.stand_still()
        fd = super().create(path)
        self.open_files[fd] = path
        return fd

    def stand_still(self) -> None:
        self.standing.set()
        assert self.go_on.wait(SOON)

    def close(self, fd: int) -> None:
        self.open_files.pop(fd, None)
        super().close(fd)

    def write(self, fd: int, data: bytes, at: int) -> None:
        if self.open_files.get(fd) == self.slow:
            self.stand_still()
        super().write(fd, data, at)


@asynccontextmanager
async def slow_bench(tmp_path: Path, *, opening: bool = False) -> AsyncGenerator[tuple[Bench, SlowDisk]]:
    disk = SlowDisk(opening=opening)
    try:
        async with Bench.opened(partial(FileStorage, disk=disk), tmp_path, durable=True) as bench:
            yield bench, disk
            disk.go_on.set()
    finally:
        disk.go_on.set()


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(SOON):
        while not condition():  # noqa: ASYNC110 - threads bring it about, and tell nobody
            await asyncio.sleep(0.001)


@pytest.mark.anyio
@pytest.mark.parametrize("opening", [True, False], ids=["opening", "writing"])
async def test_leaving_waits_for_what_a_thread_does(tmp_path: Path, opening: bool) -> None:
    async with slow_bench(tmp_path, opening=opening) as (bench, disk):
        upload = bench.upload()
        left: list[bool] = []

        async def work() -> None:
            try:
                async with upload.writer(upload.take()) as writer:
                    await write_all(writer, BODY)
            finally:
                left.append(True)

        task = asyncio.get_running_loop().create_task(work())
        await until(disk.standing.is_set)
        task.cancel()
        await asyncio.sleep(0.02)
        assert not left, "the file may be closed under the write"
        assert len(disk.open_files) == (0 if opening else 1)
        disk.go_on.set()
        with suppress(asyncio.CancelledError):
            await task
        assert left
        assert disk.open_files == {}


@pytest.mark.anyio
@pytest.mark.parametrize("natively", [True, False])
async def test_who_is_cancelled_while_leaving_leaves_the_file_to_the_thread(
    tmp_path: Path, natively: bool
) -> None:
    async with slow_bench(tmp_path) as (bench, disk):
        upload, beside = bench.upload(), bench.upload("beside")
        writer = upload.writer(upload.take())
        scope = anyio.CancelScope()
        entered = await writer.__aenter__()

        async def leave() -> None:
            with scope:
                await writer.__aexit__(None, None, None)

        async def write() -> None:
            await write_all(entered, BODY)

        writing = asyncio.get_running_loop().create_task(write())
        await until(disk.standing.is_set)
        writing.cancel()
        await asyncio.wait([writing])
        leaving = asyncio.get_running_loop().create_task(leave())
        await asyncio.sleep(0.02)
        if not natively:
            scope.cancel()
            await asyncio.sleep(0.02)
            assert not leaving.done(), "a cancelled scope does not hurry the disk"
        leaving.cancel()
        await asyncio.wait([leaving])
        assert leaving.cancelled()
        assert not entered.settled, "its write may still land"
        (late,) = disk.open_files
        assert os.fstat(late), "the file is closed under its write"
        await beside.append(BODY)
        disk.go_on.set()
        await until(lambda: entered.settled)
        assert disk.open_files == {}
        assert await beside.content() == BODY


@pytest.mark.anyio
async def test_a_batch_that_comes_after_the_end_is_not_written(tmp_path: Path) -> None:
    """Threads take jobs in order, but may begin them in another."""
    async with Bench.opened(FileStorage, tmp_path, durable=True) as bench:
        upload = bench.upload()
        async with upload.writer(upload.take()) as writer:
            assert isinstance(writer, FileWriter)
            writer._file.finish(keep=False)
            writer._file.put(Batch([BODY]))
        assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.anyio
async def test_a_job_that_is_done_just_before_somebody_waits_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    create_future = loop.create_future
    job = Job(lambda: "done")

    def done_meanwhile() -> asyncio.Future[None]:
        job.run()
        return create_future()

    with monkeypatch.context() as patch:
        patch.setattr(loop, "create_future", done_meanwhile)
        waiting = job.wait()
        with pytest.raises(StopIteration, match="done"):
            waiting.send(None)


@pytest.mark.anyio
async def test_nothing_is_left_of_a_storage_that_was_left(tmp_path: Path) -> None:
    def open_files() -> int:
        return len(os.listdir("/dev/fd"))  # noqa: PTH208

    gc.collect()  # what other tests abandoned must not be closed in the middle of this one
    strangers, before = set(threading.enumerate()), open_files()

    def threads() -> list[str]:
        own = set(threading.enumerate()) - strangers
        return [thread.name for thread in own if thread.name.startswith("tusserve-file")]

    storage = FileStorage(tmp_path)
    for _ in range(2):  # it may be entered again
        async with Bench.opened(lambda _: storage, tmp_path, durable=False) as bench:
            for number in range(5):
                upload = bench.upload(f"upload-{number}")
                await upload.append(BODY)
                with suppress(ZeroDivisionError):
                    async with upload.writer(upload.take()) as writer:
                        await write_all(writer, BODY)
                        raise ZeroDivisionError
                async with bench.storage.read(upload.place, upload.cursor, 0, len(BODY)) as chunks:
                    await anext(aiter(chunks))
                await upload.discard()
            assert threads()
        assert threads() == []
        assert open_files() == before


@pytest.mark.anyio
async def test_a_storage_is_open_until_the_last_one_has_left_it(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path)
    async with Bench.opened(lambda _: storage, tmp_path, durable=False) as bench:
        upload = bench.upload()
        async with storage:
            await upload.append(BODY)
        async with upload.writer(upload.take()) as writer:
            await writer.write(b"more")
            async with storage:
                pass
            upload.commit(await writer.flush(True))
        assert await upload.content() == BODY + b"more"


def test_each_call_may_be_in_an_event_loop_of_its_own(tmp_path: Path) -> None:
    """As with a test client that is not entered."""
    storage = FileStorage(tmp_path)
    bench = Bench(lambda _: storage, tmp_path, durable=False)
    bench.storage = storage
    upload = bench.upload()
    asyncio.run(storage.__aenter__())
    for _ in range(3):
        asyncio.run(upload.append(BODY))
    assert asyncio.run(upload.content()) == BODY * 3
    asyncio.run(upload.finish())
    asyncio.run(storage.__aexit__(None, None, None))


@pytest.mark.anyio
async def test_a_small_body_is_one_hop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hops = 0
    start = WorkerThreads.start

    def counting(self: WorkerThreads, call: Callable[[], object]) -> object:
        nonlocal hops
        hops += 1
        return start(self, call)

    async with Bench.opened(FileStorage, tmp_path, durable=True) as bench:
        monkeypatch.setattr(WorkerThreads, "start", counting)
        for length in (None, 1_000, 100_000):
            before = hops
            upload = bench.upload(f"upload-{length}", length=length)
            await upload.append(BODY[: length or 1_000])
            assert hops == before + 1
        before = hops
        async with bench.upload("unused").writer(upload.take()):
            pass
        assert hops == before


@pytest.mark.anyio
@pytest.mark.parametrize("chunk", [1 << 10, 16 << 10], ids=["below a share", "above a share"])
async def test_many_writers_stay_within_the_budget(tmp_path: Path, chunk: int) -> None:
    budget, number, rounds = ByteBudget(2 << 20), 200, 16
    most: list[int] = []
    make = partial(FileStorage, durability="none", budget=budget)
    async with Bench.opened(make, tmp_path, durable=True) as bench:
        uploads = [bench.upload(f"upload-{each}") for each in range(number)]

        async def send(upload: Upload) -> None:
            async with upload.writer(upload.take()) as writer:
                for _ in range(rounds):
                    await writer.write(BODY[:chunk])
                    most.append(budget.held)
                    await asyncio.sleep(0)
                upload.commit(await writer.flush(True))

        async with anyio.create_task_group() as tasks:
            for upload in uploads:
                tasks.start_soon(send, upload)
        assert budget.total // 4 < max(most) <= budget.total + number * chunk
        assert budget.held == 0
        for upload in uploads[::40]:
            assert await upload.content() == BODY[:chunk] * rounds


@pytest.mark.anyio
async def test_writers_that_stand_still_do_not_hold_up_others(tmp_path: Path) -> None:
    budget = ByteBudget(1 << 20)
    make = partial(FileStorage, durability="none", budget=budget)
    async with Bench.opened(make, tmp_path, durable=True) as bench:
        hoarders = [bench.upload(f"hoarder-{each}") for each in range(8)]
        for each in hoarders:
            writer = await bench.standing_still(each.writer(each.take()))
            await writer.write(BODY[:100_000])
        assert budget.held > budget.total * 3 // 4
        upload = bench.upload()
        with anyio.fail_after(SOON):
            await upload.append(BODY)
        assert await upload.content() == BODY
    assert budget.held == 0


@pytest.mark.anyio
async def test_what_a_writer_took_is_given_back_however_it_ends(tmp_path: Path) -> None:
    class FailsToWrite(Disk):
        def write(self, fd: int, data: bytes, at: int) -> None:
            raise OSError

    for disk in (Disk(), FailsToWrite()):
        budget = ByteBudget(8 << 20)
        make = partial(FileStorage, budget=budget, disk=disk)
        async with Bench.opened(make, tmp_path, durable=True) as bench:
            for size in (1, 100_000, len(BODY)):
                upload = bench.upload()
                with suppress(Exception):
                    async with upload.writer(upload.take()) as writer:
                        await write_all(writer, BODY[:size])
                        raise ZeroDivisionError
        assert budget.held == 0
    assert BUDGET.held == 0


def test_the_fair_share_shrinks_with_the_number_of_writers() -> None:
    budget = ByteBudget(64 << 20)
    for number, share in ((1, 1 << 20), (32, 1 << 20), (64, 1 << 19), (512, 1 << 16)):
        while budget._writers < number:
            budget.enter()
        assert budget.take(1, 8 << 20) == share
        budget.give(share)
    assert budget.take(100, 0) == 100


DECIDE = Opening.decide


def believes_that_all_are_dead(place: Place, cursor: Cursor, at: int, lease: Lease) -> Opening:
    return DECIDE(place, cursor, at, replace(lease, unclean=0, alive=0))


def opens_one_segment(fence: int, start: int) -> Segment:
    return Segment("99-00000000", start)


def removes_at_once(
    area: WorkArea, place: Place, state: Receiving | None, closed: Sequence[Closed], length: int
) -> Sealed:
    return sweep_trash(area, place, seal(area, place, state, closed, length))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("clause", "owner", "name", "broken"),
    [
        ("B11", "tusserve.storage.file_writer.Opening", "decide", believes_that_all_are_dead),
        ("B11", "tusserve.storage.file_writer.Segment", "new", opens_one_segment),
        ("B14", "tusserve.storage.file", "seal", removes_at_once),
    ],
)
async def test_a_file_storage_that_is_broken_is_found(
    monkeypatch: pytest.MonkeyPatch, clause: str, owner: str, name: str, broken: object
) -> None:
    def make(place: Path) -> FileStorage:
        return FileStorage(place, durability="none")

    monkeypatch.setattr(f"{owner}.{name}", broken)
    found = []
    for check in storage_checks(make):
        if check.clause == clause:
            try:
                await check()
            except (AssertionError, TusError) as error:
                found.append(error)
    assert found
