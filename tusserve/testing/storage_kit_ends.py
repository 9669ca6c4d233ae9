"""The checks of how uploads end: missing bytes, seal, discard, keys, and what may be removed when.

Owns the checks of B10, B13 and B14, and those of keys. Knows no storage. `storage_kit` hands them out.
"""

import asyncio
from functools import partial
from typing import Final

from tusserve.errors import CursorLost, KeyTaken, TusError
from tusserve.testing.storage_driver import Bench, Checklist, Upload, made_up, raising, write_all

ENDS: Final = Checklist()
check = ENDS.check

BODY: Final = made_up(2_500_000, 1)


async def _in_places(bench: Bench, id: str = "upload", *, key: str | None = None, places: int = 3) -> Upload:
    """An upload of BODY, written to several places, each of which somebody alive may still write to."""
    upload = bench.upload(id, key=key)
    step = len(BODY) // places
    for place in range(places):
        upload.take()
        end = len(BODY) if place == places - 1 else (place + 1) * step
        await upload.append(BODY[place * step : end])
    return upload


@check("B10", "bytes that are gone are lost to readers, writers and seal")
async def _(bench: Bench) -> None:
    for places in (1, 3):
        upload = await _in_places(bench, f"upload-{places}", places=places)
        await bench.storage.discard(upload.place, upload.cursor)
        with raising(CursorLost, "B10: a reader gives bytes that are gone"):
            await upload.content()
        with raising(CursorLost, "B10: seal finishes an upload whose bytes are gone"):
            await upload.seal()
    upload = bench.upload("going-on")
    await upload.append(BODY)
    await upload.discard()
    with raising(CursorLost, "B10: a writer goes on behind bytes that are gone"):
        async with upload.writer(upload.take()) as writer:
            await writer.write(b"more")
            await writer.flush(True)


@check("B10", "seal does not finish an upload that is shorter than its length")
async def _(bench: Bench) -> None:
    for places in (1, 3):
        upload = await _in_places(bench, f"upload-{places}", places=places)
        with raising(CursorLost, "B10: seal made up bytes that were never written"):
            await bench.storage.seal(upload.place, upload.cursor, len(BODY) + 1)
        await upload.finish()
        assert await upload.content() == BODY, "B10: a seal that failed did harm"


@check("B13", "seal may be repeated, before its commit and after")
async def _(bench: Bench) -> None:
    for places in (1, 3):
        upload = await _in_places(bench, f"upload-{places}", places=places)
        for _ in range(2):
            await upload.seal(commit=False)
            await bench.reopen()
        await upload.seal()
        for _ in range(3):
            assert await upload.content() == BODY, "B13: a repeated seal changed the bytes"
            assert await upload.content(5, 1_700_000) == BODY[5:1_700_000], "B13: or their places"
            upload.state = await upload.seal(commit=False)
            await bench.reopen()


@check("B13", "two seals at the same time are one")
async def _(bench: Bench) -> None:
    for places in (1, 3):
        upload = await _in_places(bench, f"upload-{places}", places=places)
        first = bench.storage
        await bench.reopen()
        cursor, length = upload.cursor, upload.offset
        states = await asyncio.gather(
            *(storage.seal(upload.place, cursor, length) for storage in (first, bench.storage, first))
        )
        for state in states:
            upload.state, upload.entries = state, []
            assert await upload.content() == BODY, "B13: of seals at the same time one is wrong"
        await upload.seal(commit=False)
        assert await upload.content() == BODY, "B13: seals at the same time did harm"


@check("B13", "an upload of length 0 has an empty object")
async def _(bench: Bench) -> None:
    for bare in (True, False):
        upload = bench.upload(f"upload-{bare}", length=0)
        if not bare:
            await upload.append(b"")
        await upload.seal(commit=False)
        await bench.reopen()
        await upload.finish()
        assert await upload.content() == b"", "B13: an empty upload is not empty"
        await upload.discard()
        await upload.discard()


@check("B13", "what flush says is sealed is sealed")
async def _(bench: Bench) -> None:
    upload = bench.upload(length=len(BODY))
    async with upload.writer(upload.take()) as writer:
        await write_all(writer, BODY)
        durable = await writer.flush(True)
    upload.commit(durable)
    upload.let_go()
    await bench.reopen()
    if not durable.sealed:
        await upload.seal()
    assert await upload.content() == BODY, "B13: flush says sealed, and it is not"
    await upload.seal(commit=False)
    assert await upload.content() == BODY, "B13: seal after a flush that sealed did harm"
    await upload.discard()
    with raising(CursorLost, "B13: an upload that flush had sealed was not discarded"):
        await upload.content()


@check("B13", "discard may be repeated, and an unknown upload is a success")
async def _(bench: Bench) -> None:
    await bench.upload("unknown").discard()
    for sealed in (False, True):
        for places in (1, 3):
            upload = await _in_places(bench, f"upload-{sealed}-{places}", places=places)
            other = bench.upload(f"other-{sealed}-{places}")
            await other.append(b"other")
            if sealed:
                await upload.finish()
            for _ in range(2):
                await upload.discard()
                await bench.reopen()
            with raising(CursorLost, "B13: bytes are there after discard"):
                await upload.content()
            assert await other.content() == b"other", "B13: discard took bytes of another upload"


@check("B13", "a seal that wakes after discard brings nothing back")
async def _(bench: Bench) -> None:
    upload = await _in_places(bench)
    cursor = upload.cursor
    await upload.discard()
    with raising(CursorLost, "B13: a late seal finished an upload that was discarded"):
        await bench.storage.seal(upload.place, cursor, len(BODY))


@check("B14", "a writer removes nothing before its commit")
async def _(bench: Bench) -> None:
    for stalled in (False, True):
        upload = bench.upload(f"upload-{stalled}")
        await upload.append(BODY)
        if stalled:
            upload.take()
        async with upload.writer(upload.take()) as writer:
            await write_all(writer, BODY)
            await writer.flush(False)
            await writer.write(b"more")
            await writer.flush(True)
        upload.let_go()
        await bench.reopen()
        assert await upload.content() == BODY, "B14: a writer removed what the committed cursor names"
        await upload.append(b"!")
        await upload.finish()
        assert await upload.content() == BODY + b"!", "B14: nobody can go on after a lost commit"


@check("B14", "seal removes nothing before its commit")
async def _(bench: Bench) -> None:
    upload = await _in_places(bench)
    committed = upload.cursor
    sealed = await upload.seal(commit=False)
    await bench.reopen()
    assert await upload.content() == BODY, "B14: seal removed what the committed cursor names"
    await bench.storage.seal(upload.place, committed, len(BODY))
    upload.state, upload.entries = sealed, []
    await upload.seal(commit=False)
    await bench.reopen()
    assert await upload.content() == BODY, "B14: seal removed what the sealed state names"


@check("B8", "a key that another upload has is taken, and stays with it", "keys")
async def _(bench: Bench) -> None:
    for places in (1, 3):
        key = f"projects/{places}/video"
        winner = await _in_places(bench, f"winner-{places}", key=key, places=places)
        loser = await _in_places(bench, f"loser-{places}", key=key, places=places)
        await winner.seal()
        with raising(KeyTaken, "B8: two uploads have one key"):
            await loser.seal()
        with raising(KeyTaken, "B8: two uploads have one key, or a writer hid it"):
            latest = bench.upload(f"latest-{places}", key=key)
            await latest.append(BODY)
            await latest.seal()
        await loser.discard()
        await bench.reopen()
        await winner.finish()
        assert await winner.content() == BODY, "B8: a key went to another upload"
        await winner.discard()


@check("B13", "seal knows a key as its own", "keys")
async def _(bench: Bench) -> None:
    for places in (1, 3):
        upload = await _in_places(bench, f"upload-{places}", key=f"own/{places}", places=places)
        for _ in range(2):
            await upload.seal(commit=False)
            await bench.reopen()
        await upload.finish()
        await upload.finish()
        assert await upload.content() == BODY, "B13: a repeated seal under a key changed the bytes"


@check("B13", "a key is free again after discard", "keys")
async def _(bench: Bench) -> None:
    for places in (1, 3):
        for turn in range(2):
            upload = await _in_places(bench, f"upload-{turn}-{places}", key=f"a/{places}", places=places)
            await upload.finish()
            assert await upload.content() == BODY, "B13: the second upload under a key has other bytes"
            await upload.discard()
            await upload.discard()


@check("B13", "a key within another key is a refusal or an upload of its own", "keys")
async def _(bench: Bench) -> None:
    outer, inner = bench.upload("outer", key="a/b"), bench.upload("inner", key="a/b/c")
    await outer.append(b"outer")
    await outer.finish()
    try:
        await inner.append(b"inner")
        await inner.finish()
    except KeyTaken:
        pass
    else:
        assert await inner.content() == b"inner", "B13: keys within each other are mixed up"
    assert await outer.content() == b"outer", "B13: keys within each other are mixed up"


@check("B8", "only the errors of tusserve escape where bytes are missing")
async def _(bench: Bench) -> None:
    upload = await _in_places(bench)
    await upload.discard()
    for work in (upload.content, upload.seal, partial(upload.append, b"more")):
        with raising(TusError, "B8: missing bytes are no error"):
            await work()
