"""The conformance kit for storages: named checks of the clauses B1 to B14 of `tusserve.contracts`.

Owns `storage_checks`, and the checks of what single writers and readers do. Knows no storage. Authors of
storages parametrize a test with what it returns.

What cannot be seen from outside has no check: B5 (`data` is `bytes`, which nobody can change) and B9.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tusserve.testing.check import Check
from tusserve.testing.storage_driver import Bench, Checklist, Make, made_up, raising, write_all
from tusserve.testing.storage_kit_ends import ENDS
from tusserve.testing.storage_kit_fences import FENCES
from tusserve.testing.storage_kit_joins import JOINS

__all__ = ["storage_checks"]

WRITES: Final = Checklist()
check = WRITES.check


def storage_checks(make: Make, *, durable: bool = True, keys: bool = True) -> Sequence[Check]:
    """The checks for the storage that `make(place)` opens, in the order of the clauses.

    `make` returns an async context manager of a storage that keeps its bytes under `place`, an empty
    directory; called twice with the same place it opens the same bytes again, as after a crash, while the
    first is left as it was. `durable=False`: its bytes do not outlive the object; it is opened only once.
    `keys=False`: it does not place bytes under a key that the host chose. What is checked of `concatenate` is
    checked where the storage has it.
    """
    lacking = set() if keys else {"keys"}
    noted = [
        each for each in (*WRITES.noted, *FENCES.noted, *ENDS.noted, *JOINS.noted) if not each.needs & lacking
    ]
    noted.sort(key=lambda each: int(each.clause.removeprefix("B")))
    return [Check(each.clause, each.title, partial(_run, each.run, make, durable)) for each in noted]


async def _run(check: Callable[[Bench], Awaitable[None]], make: Make, durable: bool) -> None:
    with TemporaryDirectory(prefix="tusserve-check-") as place:
        async with Bench.opened(make, Path(place), durable=durable) as bench:
            await check(bench)


@check("B1", "bytes land in the order in which they were written")
async def _(bench: Bench) -> None:
    upload, data = bench.upload(), made_up(300_000, 1)
    async with upload.writer(upload.take()) as writer:
        begin = 0
        for size in (1, 0, 7, 65_536, 3, 131_072, 1, 300_000):
            await writer.write(data[begin : begin + size])
            begin += size
        upload.commit(await writer.flush(True))
    assert await upload.content() == data, "B1: the bytes differ from those written"


@check("B1", "each body lands where the one before ended")
async def _(bench: Bench) -> None:
    upload, data = bench.upload(), b""
    for seed, size in enumerate((1, 70_000, 5, 1_200_000, 2)):
        body = made_up(size, seed)
        data += body
        await upload.append(body)
        await bench.reopen()
    assert await upload.content() == data, "B1: the bodies do not follow each other"
    await upload.finish()
    assert await upload.content() == data, "B1: sealing changed bytes"


@check("B1", "a writer goes on after each flush")
async def _(bench: Bench) -> None:
    upload, data = bench.upload(), made_up(400_000, 1)
    async with upload.writer(upload.take()) as writer:
        for everything, begin in enumerate(range(0, 400_000, 50_000)):
            await writer.write(data[begin : begin + 50_000])
            upload.commit(await writer.flush(everything % 2 == 1))
        upload.commit(await writer.flush(True))
    assert await upload.content() == data, "B1: flushes in a body changed its bytes"


@check("B1", "a range is read exactly, before and after seal")
async def _(bench: Bench) -> None:
    upload, data = bench.upload(), b""
    for seed in range(3):
        upload.take()  # a process that stands still: what comes next is another place
        body = made_up(1_000, seed)
        data += body
        await upload.append(body)
    edges = (0, 1, 999, 1_000, 1_001, 2_000, 2_500, 2_999, 3_000)
    for _sealed in (False, True):
        for start in edges:
            for stop in (edge for edge in edges if edge >= start):
                assert await upload.content(start, stop) == data[start:stop], f"B1: range {start} to {stop}"
        await upload.finish()


@check("B1", "a reader may stop early")
async def _(bench: Bench) -> None:
    upload, data = bench.upload(), made_up(3_000_000, 1)
    await upload.append(data)
    async with bench.storage.read(upload.place, upload.cursor, 10, len(data)) as chunks:
        async for chunk in chunks:
            assert data[10:].startswith(chunk), "B1: a reader begins with other bytes"
            break
    await upload.append(b"more")
    assert await upload.content() == data + b"more", "B1: a reader that stopped left something behind"


@check("B2", "a tail that was never flushed does not show")
async def _(bench: Bench) -> None:
    upload = bench.upload()
    await upload.append(b"kept")
    async with upload.writer(upload.take()) as writer:
        await write_all(writer, made_up(2_500_000, 1))
    upload.let_go()
    assert await upload.content() == b"kept", "B2: bytes show that were never flushed"
    await upload.append(b" more")
    await upload.finish()
    assert await upload.content() == b"kept more", "B2: the tail of an earlier body shows"


@check("B2", "a tail that was flushed but never committed does not show")
async def _(bench: Bench) -> None:
    upload = bench.upload()
    await upload.append(b"kept")
    async with upload.writer(upload.take()) as writer:
        await writer.write(made_up(100_000, 1))
        await writer.flush(True)
    await bench.reopen()
    await upload.append(b" more")
    assert await upload.content() == b"kept more", "B2: bytes show that were never committed"
    await upload.finish()
    assert await upload.content() == b"kept more", "B2: bytes show that were never committed"


@check("B2", "a tail that a dead process left does not show")
async def _(bench: Bench) -> None:
    upload = bench.upload()
    await upload.append(b"kept")
    dead = await bench.standing_still(upload.writer(upload.take()))
    await write_all(dead, made_up(2_500_000, 1))
    await dead.flush(True)
    await bench.reopen()
    await upload.append(b" more", died=True)
    await upload.finish()
    assert await upload.content() == b"kept more", "B2: the tail of a dead process shows"


@check("B3", "what flush returned is there after a crash")
async def _(bench: Bench) -> None:
    upload, data = bench.upload(), made_up(1_500_000, 1)
    writer = await bench.standing_still(upload.writer(upload.take()))
    await write_all(writer, data)
    upload.commit(await writer.flush(True))
    await bench.reopen()
    assert await upload.content() == data, "B3: flushed bytes are gone after a crash"
    await upload.append(b"more", died=True)
    assert await upload.content() == data + b"more", "B3: flushed bytes are gone after going on"


@check("B3", "what a checkpoint returned is there after a crash in the middle of the body")
async def _(bench: Bench) -> None:
    upload, data = bench.upload(), made_up(5_000_000, 1)
    writer = await bench.standing_still(upload.writer(upload.take()))
    for begin in range(0, len(data), 1_000_000):
        await write_all(writer, data[begin : begin + 1_000_000])
        upload.commit(await writer.flush(False))
    await write_all(writer, made_up(1_000_000, 2))
    await bench.reopen()
    assert upload.offset <= len(data), "B3: a checkpoint covers more than was written"
    assert await upload.content() == data[: upload.offset], "B3: a checkpoint's bytes are gone after a crash"
    await upload.append(data[upload.offset :], died=True)
    assert await upload.content() == data, "B3: the body cannot be completed after a crash"


@check("B3", "flush(True) covers everything")
async def _(bench: Bench) -> None:
    upload = bench.upload()
    await upload.append(b"0123456789")
    async with upload.writer(upload.take()) as writer:
        await writer.write(made_up(123_457, 1))
        durable = await writer.flush(True)
        assert durable.offset == 10 + 123_457, "B3: flush(True) does not cover what was written"


@check("B3", "a flush without new bytes says what the one before said")
async def _(bench: Bench) -> None:
    upload = bench.upload()
    await upload.append(b"0123456789")
    async with upload.writer(upload.take()) as writer:
        for everything in (False, True):
            upload.commit(await writer.flush(everything))
            assert upload.offset == 10, "B3: a flush before the first byte is not at the offset"
        await writer.write(b"abc")
        upload.commit(await writer.flush(True))
        for everything in (False, True):
            upload.commit(await writer.flush(everything))
            assert upload.offset == 13, "B3: a flush went on by itself"
    assert await upload.content() == b"0123456789abc", "B3: flushes without bytes changed the upload"


@check("B4", "a writer that is left before its first byte breaks nothing")
async def _(bench: Bench) -> None:
    upload = bench.upload()
    async with upload.writer(upload.take()):
        pass
    upload.let_go()
    await upload.append(b"kept")
    async with upload.writer(upload.take()):
        pass
    upload.let_go()
    await bench.reopen()
    assert await upload.content() == b"kept", "B4: an unused writer changed the upload"


@check("B4", "a writer that is left by an error breaks nothing, and lets the error through")
async def _(bench: Bench) -> None:
    upload = bench.upload()
    await upload.append(b"kept")

    async def fails() -> None:
        async with upload.writer(upload.take()) as writer:
            await write_all(writer, made_up(1_500_000, 1))
            raise ZeroDivisionError

    with raising(ZeroDivisionError, "B4: a writer swallowed an error"):
        await fails()
    assert await upload.content() == b"kept", "B4: a writer that was left by an error changed the upload"
    await upload.append(b" more")
    assert await upload.content() == b"kept more", "B4: nobody can go on after an error"


@check("B7", "uploads that are written at the same time stay apart")
async def _(bench: Bench) -> None:
    uploads = [bench.upload(name) for name in ("one", "two", "three")]
    bodies = [made_up(1_400_000, seed) for seed in range(3)]
    writers = [await bench.standing_still(each.writer(each.take())) for each in uploads]
    for begin in range(0, 1_400_000, 70_000):
        for writer, body in zip(writers, bodies, strict=True):
            await writer.write(body[begin : begin + 70_000])
    for upload, writer in zip(uploads, writers, strict=True):
        upload.commit(await writer.flush(True))
    for upload, body in zip(uploads, bodies, strict=True):
        assert await upload.content() == body, f"B7: upload {upload.place.id} has bytes of another"


@check("B7", "uploads whose ids begin alike stay apart")
async def _(bench: Bench) -> None:
    uploads = [bench.upload(name) for name in ("a", "a.1", "a.1-0", "a-1", "a_1", "a1", "A", "a.sealed")]
    for upload in uploads:
        await upload.append(upload.place.id.encode())
    await uploads[0].finish()
    await uploads[0].discard()
    for upload in uploads[1:]:
        assert await upload.content() == upload.place.id.encode(), f"B7: {upload.place.id} lost its bytes"
        await upload.finish()
    await uploads[1].discard()
    for upload in uploads[2:]:
        assert await upload.content() == upload.place.id.encode(), f"B7: {upload.place.id} lost its bytes"
