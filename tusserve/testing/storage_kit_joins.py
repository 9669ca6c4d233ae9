"""The checks of storages that can make one upload of others: `Concatenates`.

Owns what B1, B10 and B13 mean there. Knows no storage; one without the ability passes. `storage_kit` hands
them out.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from tusserve.contracts import Concatenates, Part
from tusserve.errors import CursorLost, KeyTaken
from tusserve.testing.storage_driver import Bench, Checklist, Upload, made_up, raising

JOINS: Final = Checklist()
check = JOINS.check

SIZES: Final = (700_000, 0, 1, 300_000)
BODIES: Final = tuple(made_up(size, seed) for seed, size in enumerate(SIZES, 1))


async def _parts(bench: Bench) -> Sequence[Upload]:
    """Complete uploads, one for each body."""
    parts = []
    for number, body in enumerate(BODIES):
        part = bench.upload(f"part-{number}", length=len(body))
        if body:
            part.take()  # a process that stands still: the rest is in another place
            await part.append(body[: len(body) // 2])
            await part.append(body[len(body) // 2 :])
        await part.finish()
        parts.append(part)
    return parts


async def _joined(bench: Bench, parts: Sequence[Upload], final: Upload) -> None:
    """Make the final of the parts, and commit that."""
    assert isinstance(bench.storage, Concatenates)
    named = [Part(part.place, part.state, part.offset) for part in parts]
    final.state = await bench.storage.concatenate(final.place, named)
    final.offset = sum(part.offset for part in parts)


@check("B1", "parts are joined in their order, one of them twice")
async def _(bench: Bench) -> None:
    if not isinstance(bench.storage, Concatenates):
        return
    parts, final = await _parts(bench), bench.upload("final")
    await _joined(bench, [*parts, parts[0]], final)
    data = b"".join((*BODIES, BODIES[0]))
    for _ in range(2):
        await bench.reopen()
        assert await final.content() == data, "B1: what was joined is not the parts in their order"
        assert await final.content(699_999, 700_002) == data[699_999:700_002], "B1: the seams are not right"
        await final.seal(commit=False)
    for part, body in zip(parts, BODIES, strict=True):
        assert await part.content() == body, "B7: joining changed a part"


@check("B13", "concatenate may be repeated, and needs no part afterwards")
async def _(bench: Bench) -> None:
    if not isinstance(bench.storage, Concatenates):
        return
    parts, final = await _parts(bench), bench.upload("final")
    for _ in range(3):
        await _joined(bench, parts, final)
        await bench.reopen()
    again, first = bench.upload("again"), bench.storage
    await bench.reopen()
    assert isinstance(first, Concatenates)
    named = [Part(part.place, part.state, part.offset) for part in parts]
    await asyncio.gather(_joined(bench, parts, again), first.concatenate(again.place, named))
    for part in parts:
        await part.discard()
    await bench.reopen()
    for each in (final, again):
        await each.seal(commit=False)
        assert await each.content() == b"".join(BODIES), "B13: what was joined depends on its parts"
    await final.discard()
    with raising(CursorLost, "B13: an upload that was joined is not discarded"):
        await final.content()
    assert await again.content() == b"".join(BODIES), "B7: discarding one took the bytes of another"


@check("B13", "parts of no bytes make an empty upload")
async def _(bench: Bench) -> None:
    if not isinstance(bench.storage, Concatenates):
        return
    part, final = (await _parts(bench))[1], bench.upload("final", length=0)
    await _joined(bench, [part, part], final)
    await bench.reopen()
    await final.finish()
    assert await final.content() == b"", "B13: an empty upload is not empty"


@check("B10", "what lacks a part is not joined")
async def _(bench: Bench) -> None:
    if not isinstance(bench.storage, Concatenates):
        return
    parts, final = await _parts(bench), bench.upload("final")
    await parts[-1].discard()
    with raising(CursorLost, "B10: what was joined lacks a part"):
        await _joined(bench, parts, final)
    await final.discard()
    await _joined(bench, parts[:-1], final)
    assert await final.content() == b"".join(BODIES[:-1]), "B10: a join that failed did harm"


@check("B13", "what was joined has its key", "keys")
async def _(bench: Bench) -> None:
    if not isinstance(bench.storage, Concatenates):
        return
    parts, final = await _parts(bench), bench.upload("final", key="joined/film")
    for _ in range(2):
        await _joined(bench, parts, final)
        await bench.reopen()
    await final.finish()
    with raising(KeyTaken, "B8: two uploads have one key"):
        await _joined(bench, parts, bench.upload("other", key="joined/film"))
    await bench.upload("other", key="joined/film").discard()
    assert await final.content() == b"".join(BODIES), "B8: a key went to another upload"
    await final.discard()
    await _joined(bench, parts, bench.upload("later", key="joined/film"))
