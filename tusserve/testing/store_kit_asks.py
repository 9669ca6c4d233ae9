"""The store kit's checks of asks (U7) and of what is due (U8).

Owns no state and knows no store. `store_kit` puts these checks in line with the others.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from time import monotonic
from typing import Final, TypeAlias

from anyio import sleep

from tusserve.contracts import Acquired, Ask, Fence
from tusserve.protocol.records import Action
from tusserve.testing.store_driver import LONG, NOON, SHORT, Bench, Checklist, next_of

ASKS: Final = Checklist()
check = ASKS.check

Answer: TypeAlias = Callable[[], Awaitable[object]]

SECOND: Final = timedelta(seconds=1)

# ---- U7


@check("U7", "an ask reaches the holder that it is for")
async def _(bench: Bench) -> None:
    for number in (1, 2):
        await bench.create(f"upload-{number}")
    one = await bench.take("upload-1", holder="holder-1")
    two = await bench.take("upload-2", holder="holder-2")
    async with bench.store.asked("holder-1") as first, bench.store.asked("holder-2") as second:
        assert await bench.store.ask("upload-2", two.lease.fence, Action.TERMINATE), "U7: an ask is refused"
        got = await next_of(second)
        assert got == Ask("upload-2", two.lease.fence, frozenset({Action.TERMINATE})), (
            f"U7: {got} comes instead"
        )
        assert await bench.store.ask("upload-1", one.lease.fence, Action.APPEND), "U7: an ask is refused"
        got = await next_of(first)
        assert got == Ask("upload-1", one.lease.fence, frozenset({Action.APPEND})), f"U7: {got} comes instead"


@check("U7", "an ask of another process reaches the holder", shares=True)
async def _(bench: Bench) -> None:
    other = await bench.another()
    await bench.create()
    async with bench.store.asked("holder-1") as asks:
        for why in (Action.INSPECT, Action.TERMINATE):
            got = await bench.take()
            assert await other.ask("upload", got.lease.fence, why), "U7: an ask of another process is refused"
            came = await next_of(asks)
            assert came == Ask("upload", got.lease.fence, frozenset({why})), f"U7: {came} comes instead"
            await bench.store.release(got.lease, clean=True)


@check("U7", "an ask that stands is heard by whoever comes to listen later")
async def _(bench: Bench) -> None:
    await bench.create()
    got = await bench.take()
    await bench.store.ask("upload", got.lease.fence, Action.APPEND)
    async with bench.store.asked("holder-1") as asks:
        assert (await next_of(asks)).fence == got.lease.fence, "U7: an ask is for another lease"


@check("U7", "an ask reaches its holder although a heartbeat answered it before it was heard")
async def _(bench: Bench) -> None:
    await bench.create()
    got = await bench.take()
    async with bench.store.asked("holder-1") as asks:
        await bench.store.ask("upload", got.lease.fence, Action.APPEND)
        await bench.store.renew([got.lease])
        assert (await next_of(asks)).why == {Action.APPEND}, "U7: an ask comes with another reason"


@check("U7", "an open ask gathers the reasons and keeps its time")
async def _(bench: Bench) -> None:
    await bench.create()
    got = await bench.take()
    fence = got.lease.fence
    async with bench.store.asked("holder-1") as asks:
        await bench.store.ask("upload", fence, Action.INSPECT)
        assert (await next_of(asks)).why == {Action.INSPECT}, "U7: an ask comes with another reason"
        await sleep(0.03)
        before = (await bench.held()).waited
        await bench.store.ask("upload", fence, Action.APPEND)
        after = (await bench.held()).waited
        assert before is not None, "U7: it is not told that somebody asked"
        assert before >= timedelta(milliseconds=20), "U7: it is not told how long ago somebody asked"
        assert after is not None, "U7: a second ask takes the first one away"
        assert after >= before, "U7: a second ask moves the time of an open one"
        while (why := (await next_of(asks)).why) == {Action.INSPECT}:
            pass
        assert why == {Action.INSPECT, Action.APPEND}, f"U7: the reasons are not gathered: {why}"


@check("U7", "a renewal answers an ask")
async def _(bench: Bench) -> None:
    await bench.create()
    got = await bench.take()
    await bench.store.renew([got.lease])
    await _answered(bench, got, "a renewal", lambda: bench.store.renew([got.lease]))


@check("U7", "a commit answers an ask")
async def _(bench: Bench) -> None:
    await bench.create()
    got = await bench.take()
    await _answered(bench, got, "a commit", lambda: bench.commit(got.lease, got.record))


async def _answered(bench: Bench, got: Acquired, what: str, answer: Answer) -> None:
    fence = got.lease.fence
    held = await bench.held()
    assert (held.waited, held.answered) == (None, False), "U7: an ask is told that nobody made"
    async with bench.store.asked("holder-1") as asks:
        await _ask(bench, fence, Action.INSPECT)
        await next_of(asks)
        await sleep(0.03)
        await answer()
        held = await bench.held()
        assert held.answered, f"U7: {what} does not answer an ask"
        assert held.waited is not None, f"U7: {what} takes an ask away"
        assert held.waited >= timedelta(milliseconds=25), f"U7: {what} moves the time of an ask"
        await _ask(bench, fence, Action.APPEND)
        while (why := (await next_of(asks)).why) == {Action.INSPECT}:
            pass
        assert why == {Action.APPEND}, f"U7: an ask after an answer comes with the reasons of old: {why}"


async def _ask(bench: Bench, fence: Fence, why: Action) -> None:
    """Ask; the ask is open then, and as old as it is."""
    begun = monotonic()
    assert await bench.store.ask("upload", fence, why), "U7: an ask is refused"
    held = await bench.held()
    assert not held.answered, "U7: a new ask counts as answered"
    assert held.waited is not None, "U7: it is not told that somebody asked"
    most = timedelta(seconds=monotonic() - begun, milliseconds=10)
    assert held.waited <= most, "U7: an ask after an answer keeps the time of the old one"


@check("U7", "an ask for a lease that nobody holds is refused")
async def _(bench: Bench) -> None:
    await bench.create()
    made_up = Fence(1, "made up")
    assert not await bench.store.ask("nobody", made_up, Action.APPEND), "U7: an unknown upload is asked for"
    assert not await bench.store.ask("upload", made_up, Action.APPEND), (
        "U7: a lease that never was is asked for"
    )
    old = await bench.take()
    got = await bench.take(steal=old.lease.fence)
    for fence in (old.lease.fence, Fence(got.lease.fence.number, "other")):
        assert not await bench.store.ask("upload", fence, Action.APPEND), "U7: an old fence is asked for"
    assert (await bench.held()).waited is None, "U7: an ask for an old fence counts for the new one"
    await bench.store.release(got.lease, clean=True)
    assert not await bench.store.ask("upload", got.lease.fence, Action.APPEND), (
        "U7: a lease let go is asked for"
    )
    got = await bench.take(ttl=SHORT)
    await bench.run_out()
    assert not await bench.store.ask("upload", got.lease.fence, Action.APPEND), (
        "U7: a lease run out is asked for"
    )


@check("U7", "a new lease knows nothing of what was asked of the old one")
async def _(bench: Bench) -> None:
    await bench.create()
    old = await bench.take()
    await bench.store.ask("upload", old.lease.fence, Action.TERMINATE)
    new = await bench.take(holder="holder-2", steal=old.lease.fence)
    assert (await bench.held()).waited is None, "U7: an ask for an old lease counts for the new one"
    async with bench.store.asked("holder-2") as asks:
        await bench.store.ask("upload", new.lease.fence, Action.APPEND)
        assert (await next_of(asks)).why == {Action.APPEND}, (
            "U7: the new holder hears what was asked of the old"
        )


# ---- U8


@check("U8", "due gives what is due of that name, oldest first, up to the limit")
async def _(bench: Bench) -> None:
    numbers = (5, 2, 9, 0, 7)
    made = {
        number: await bench.create(f"upload-{number}", due_at=NOON - number * SECOND) for number in numbers
    }
    wanted = [made[number] for number in sorted(numbers, reverse=True)]
    await bench.create("never", due_at=None)
    await bench.create("not-yet", due_at=NOON + timedelta(microseconds=1))
    await bench.create("others", name="other", due_at=NOON - 99 * SECOND)
    for limit in (1, 3, 5, 100):
        due = list(await bench.store.due("default", NOON, limit))
        assert due == wanted[:limit], f"U8: with limit {limit} due gives {[record.id for record in due]}"
    assert [each.id for each in await bench.store.due("other", NOON, 9)] == ["others"], (
        "U8: due mixes the names"
    )
    assert list(await bench.store.due("nobody", NOON, 9)) == [], "U8: due gives records of another name"
    late = [record.id for record in await bench.store.due("default", NOON + SECOND, 100)]
    assert late == [*(record.id for record in wanted), "not-yet"], f"U8: a second later due gives {late}"


@check("U8", "what is under a live lease is not due")
async def _(bench: Bench) -> None:
    for number in range(4):
        await bench.create(f"upload-{number}", due_at=NOON - number * SECOND)
    let_go, ran_out = await bench.take("upload-3"), "upload-2"
    await bench.take(ran_out, ttl=SHORT)
    await bench.take("upload-1")
    due = [record.id for record in await bench.store.due("default", NOON, 1)]
    assert due != ["upload-3"], "U8: due gives a record that is under a live lease"
    await bench.store.release(let_go.lease, clean=True)
    await bench.run_out(ran_out)
    due = [record.id for record in await bench.store.due("default", NOON, 100)]
    assert due == ["upload-3", "upload-2", "upload-0"], f"U8: due gives {due}"
    due = [record.id for record in await bench.store.due("default", NOON, 2)]
    assert due == ["upload-3", "upload-2"], f"U8: leased records take the place of due ones: {due}"


@check("U8", "a commit moves when a record is due")
async def _(bench: Bench) -> None:
    await bench.create(due_at=NOON)
    got = await bench.take()
    record = await bench.commit(got.lease, replace(got.record, due_at=NOON + SECOND), release=True)
    assert list(await bench.store.due("default", NOON, 9)) == [], "U8: a record is due at a time of old"
    assert list(await bench.store.due("default", NOON + SECOND, 9)) == [record], (
        "U8: it is not due when it says"
    )
    got = await bench.take()
    await bench.commit(got.lease, replace(got.record, due_at=None), release=True)
    assert list(await bench.store.due("default", NOON + 99 * SECOND, 9)) == [], "U8: what is never due is due"
    got = await bench.take(ttl=LONG)
    record = await bench.commit(got.lease, replace(got.record, due_at=NOON), release=True)
    assert list(await bench.store.due("default", NOON, 9)) == [record], "U8: what became due is not given"
