"""The checks of who may write where: cancelled writers, dead processes, and those that wake too late.

Owns the checks of B6, B11 and B12. Knows no storage. `storage_kit` hands them out.
"""

import asyncio
from contextlib import AbstractAsyncContextManager, suppress
from typing import Final

from tusserve.contracts import Writer
from tusserve.errors import TusError
from tusserve.testing.storage_driver import Bench, Checklist, Upload, cancelled_at, made_up, write_all

FENCES: Final = Checklist()
check = FENCES.check

BODY: Final = made_up(3_000_000, 1)
"""Long enough that no storage keeps it all in memory."""
LARGE: Final = 600_000
"""Few and large writes, where each await of each write is tried."""
LATE: Final = made_up(3_000_000, 2)
"""What a process writes that wakes too late."""


async def _cancelled_writer(upload: Upload, suspension: int, *, scoped: bool = False) -> bool:
    """Append BODY, cancelled at an await. Says whether it suspended that often; what came of it is committed
    as an engine would: all that a flush returned, and the lease is let go only by a writer that settled."""
    writers: list[Writer] = []

    async def work() -> None:
        async with upload.writer(upload.take()) as writer:
            writers.append(writer)
            for begin in range(0, len(BODY), LARGE):
                await writer.write(BODY[begin : begin + LARGE])
                if begin == 2 * LARGE:
                    await writer.flush(False)
            upload.commit(await writer.flush(True))

    interrupted = await cancelled_at(suspension, work(), scoped=scoped)
    if not writers or writers[0].settled:
        upload.let_go()
    return interrupted.reached


async def _check_cancellation(bench: Bench, *, scoped: bool) -> None:
    for suspension in range(1, 1_000):
        upload = bench.upload(f"upload-{suspension}")
        await upload.append(b"kept")
        reached = await _cancelled_writer(upload, suspension, scoped=scoped)
        await bench.reopen()
        assert await upload.content() == (b"kept" + BODY)[: upload.offset], "B6: a cancelled writer did harm"
        await upload.append((b"kept" + BODY)[upload.offset :])
        await upload.finish()
        assert await upload.content() == b"kept" + BODY, f"B6: cancelled at await {suspension}, lost for good"
        await upload.discard()
        if not reached:
            return
    raise AssertionError("B6: a body of 3 MB suspends without end")


@check("B6", "after a native cancellation at any await of a writer, the next goes on")
async def _(bench: Bench) -> None:
    await _check_cancellation(bench, scoped=False)


@check("B6", "after the cancellation of a scope at any await of a writer, the next goes on")
async def _(bench: Bench) -> None:
    await _check_cancellation(bench, scoped=True)


@check("B6", "after a native cancellation at any await of a reader, the next one reads")
async def _(bench: Bench) -> None:
    upload = bench.upload()
    await upload.append(BODY)

    async def work() -> None:
        await upload.content()

    for suspension in range(1, 1_000):
        interrupted = await cancelled_at(suspension, work())
        assert await upload.content() == BODY, "B6: a cancelled reader did harm"
        if not interrupted.reached:
            return
    raise AssertionError("B6: reading 3 MB suspends without end")


@check("B6", "after a native cancellation at any await of seal and discard, they may be repeated")
async def _(bench: Bench) -> None:
    for suspension in range(1, 1_000):
        upload = bench.upload(f"upload-{suspension}")
        for begin in (0, 1_500_000):
            upload.take()
            await upload.append(BODY[begin : begin + 1_500_000])

        async def seal(upload: Upload = upload) -> None:
            await upload.seal(commit=False)

        sealing = await cancelled_at(suspension, seal())
        await bench.reopen()
        await upload.finish()
        assert await upload.content() == BODY, "B6: a cancelled seal did harm"
        discarding = await cancelled_at(suspension, upload.discard())
        await bench.reopen()
        await upload.discard()
        if not sealing.reached and not discarding.reached:
            return
    raise AssertionError("B6: seal or discard suspends without end")


@check("B12", "nothing that a cancelled writer began lands after it has settled")
async def _(bench: Bench) -> None:
    for suspension in range(1, 1_000):
        upload, beside = bench.upload(f"upload-{suspension}"), bench.upload(f"beside-{suspension}")
        await upload.append(b"kept")
        committed = upload.cursor, upload.offset
        reached = await _cancelled_writer(upload, suspension)
        if upload.offset == committed[1]:
            # At once, and where the cancelled one wrote: what lands late lands in these.
            await beside.append(LATE[:LARGE])
            await upload.append(LATE[:LARGE])
            await asyncio.sleep(0.02)
            assert await upload.content() == b"kept" + LATE[:LARGE], "B12: a cancelled write landed later"
            assert await beside.content() == LATE[:LARGE], "B12: a cancelled write landed in another upload"
        await upload.discard()
        await beside.discard()
        if not reached:
            return
    raise AssertionError("B12: a body of 3 MB suspends without end")


async def _wakes(writer: Writer) -> None:
    """All that a writer can do that wakes too late. It may fail."""
    with suppress(TusError):
        await write_all(writer, LATE)
        await writer.flush(False)
        await writer.write(b"the last")
        await writer.flush(True)


async def _comes_late(writer: AbstractAsyncContextManager[Writer]) -> None:
    """A writer that was made in time and is entered too late."""
    with suppress(TusError):
        async with writer as late:
            await _wakes(late)


@check("B11", "a writer that wakes before its first open changes nothing of a body that overtook it")
async def _(bench: Bench) -> None:
    for already in (b"", b"kept"):
        upload = bench.upload(f"upload-{len(already)}")
        if already:
            await upload.append(already)
        made = upload.writer(upload.take())
        entered = await bench.standing_still(upload.writer(upload.take()))
        await bench.reopen()
        await upload.append(BODY)
        await _comes_late(made)
        await _wakes(entered)
        assert await upload.content() == already + BODY, "B11: a late first open changed the bytes"
        await upload.append(b" more")
        await upload.finish()
        assert await upload.content() == already + BODY + b" more", "B11: a late first open changed the bytes"


@check("B11", "a writer that wakes after a takeover changes nothing")
async def _(bench: Bench) -> None:
    for already in (b"", b"kept"):
        upload = bench.upload(f"upload-{len(already)}")
        if already:
            await upload.append(already)
        late = await bench.standing_still(upload.writer(upload.take()))
        await write_all(late, BODY)
        upload.commit(await late.flush(False))
        told = (already + BODY)[: upload.offset]
        await bench.reopen()
        await upload.append(b" more")
        await _wakes(late)
        assert await upload.content() == told + b" more", "B11: a late write changed committed bytes"
        await upload.append(b" still")
        await upload.finish()
        assert await upload.content() == told + b" more still", "B11: a late write changed committed bytes"


@check("B11", "a writer that wakes in the middle of the body that overtook it changes nothing")
async def _(bench: Bench) -> None:
    upload = bench.upload()
    late = await bench.standing_still(upload.writer(upload.take()))
    await late.write(b"never told")
    await bench.reopen()
    async with upload.writer(upload.take()) as writer:
        await write_all(writer, BODY[:1_500_000])
        await _wakes(late)
        await write_all(writer, BODY[1_500_000:])
        upload.commit(await writer.flush(True))
    upload.let_go()
    assert await upload.content() == BODY, "B11: a late write landed in a running body"


@check("B11", "a writer that wakes after seal changes nothing")
async def _(bench: Bench) -> None:
    for told in (b"", b"kept"):
        upload = bench.upload(f"upload-{len(told)}")
        late = await bench.standing_still(upload.writer(upload.take()))
        later = await bench.standing_still(upload.writer(upload.take()))
        if told:
            await later.write(told)
            upload.commit(await later.flush(True))
        made = upload.writer(upload.take())
        await bench.reopen()
        await upload.append(BODY)
        await upload.seal()
        await _wakes(late)
        assert await upload.content() == told + BODY, "B11: a late write changed a sealed upload"
        await upload.seal(commit=False)
        await _wakes(later)
        await _comes_late(made)
        assert await upload.content() == told + BODY, "B11: a late write changed a sealed upload"


@check("B11", "a writer that wakes after discard brings nothing back")
async def _(bench: Bench) -> None:
    upload = bench.upload()
    await upload.append(b"kept")
    late = await bench.standing_still(upload.writer(upload.take()))
    await write_all(late, BODY)
    made = upload.writer(upload.take())
    entered = await bench.standing_still(upload.writer(upload.take()))
    upload.take()
    await bench.reopen()
    await upload.discard()
    await _wakes(late)
    await _wakes(entered)
    await _comes_late(made)
    other = bench.upload("other")
    await other.append(BODY)
    await other.finish()
    assert await other.content() == BODY, "B11: a late write landed in another upload"
    await upload.discard()


@check("B11", "what processes that stand still wrote is kept, whoever goes on")
async def _(bench: Bench) -> None:
    upload, data = bench.upload(), b""
    for seed in range(5):
        body = made_up(100_000, seed)
        writer = await bench.standing_still(upload.writer(upload.take()))
        await write_all(writer, body)
        await writer.write(b"and a tail")
        upload.commit(await writer.flush(True))
        data += body + b"and a tail"
        await writer.write(b"and what nobody is told")
    await bench.reopen()
    assert await upload.content() == data, "B11: bytes of earlier leases are gone"
    await upload.append(b"the end")
    await upload.finish()
    assert await upload.content() == data + b"the end", "B11: bytes of earlier leases are gone"


@check("B11", "after a proven death the next one goes on, again and again")
async def _(bench: Bench) -> None:
    upload, data = bench.upload(), b""
    for seed in range(5):
        body = made_up(300_000, seed)
        async with upload.writer(upload.take(died=True)) as writer:
            await write_all(writer, body)
            upload.commit(await writer.flush(True))
            data += body
            await writer.write(b"a tail")
        await bench.reopen()
        assert await upload.content() == data, "B11: a dead process took bytes with it"
    await upload.append(b"the end", died=True)
    await upload.finish()
    assert await upload.content() == data + b"the end", "B11: a dead process took bytes with it"
