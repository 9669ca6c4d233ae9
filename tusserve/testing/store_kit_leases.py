"""The store kit's checks of leases: who gets one (U3), and when it is over (U6).

Owns no state and knows no store. `store_kit` puts these checks in line with the others.
"""

from asyncio import gather
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final, TypeAlias

from tusserve.contracts import Acquired, Fence, Held
from tusserve.testing.store_driver import LONG, SHORT, Bench, Checklist

Acquire: TypeAlias = Callable[[str, str, timedelta], Awaitable[Acquired | Held | None]]

LEASES: Final = Checklist()
check = LEASES.check

# ---- U3


@check("U3", "of many acquires at once one wins")
async def _(bench: Bench) -> None:
    await _race(bench, [bench.store.acquire] * 20)


@check("U3", "of many acquires by two processes at once one wins", shares=True)
async def _(bench: Bench) -> None:
    other = await bench.another()
    await _race(bench, [bench.store.acquire, other.acquire] * 10)


async def _race(bench: Bench, acquires: Sequence[Acquire]) -> None:
    await bench.create()
    tries = [acquire("upload", f"holder-{number}", LONG) for number, acquire in enumerate(acquires)]
    got = await gather(*tries)
    won = [each for each in got if isinstance(each, Acquired)]
    assert len(won) == 1, f"U3: {len(won)} of {len(acquires)} acquires at once won"
    lost = [each.fence for each in got if isinstance(each, Held)]
    assert lost == [won[0].lease.fence] * (len(acquires) - 1), (
        "U3: those who lost see another lease than the one"
    )


@check("U3", "who finds a live lease is told about it, and changes nothing")
async def _(bench: Bench) -> None:
    await bench.create()
    assert await bench.store.acquire("nobody", "holder-1", LONG) is None, (
        "U3: an unknown upload can be leased"
    )
    got = await bench.take()
    before = await bench.read()
    for holder in ("holder-2", "holder-1"):
        refused = await bench.store.acquire("upload", holder, SHORT)
        assert isinstance(refused, Held), "U3: a live lease is given to another request"
        assert refused.fence == got.lease.fence, "U3: the fence that is told is not the one that holds"
        assert (refused.waited, refused.answered) == (None, False), "U3: an ask is told that nobody made"
    assert await bench.read() == before, "U3: an acquire that was refused changed the record"
    await bench.commit(got.lease, before)


@check("U3", "fence numbers only grow, whatever ended the lease")
async def _(bench: Bench) -> None:
    await bench.create()
    fences: list[Fence] = []

    async def next_lease(ttl: timedelta = LONG, steal: Fence | None = None) -> Acquired:
        got = await bench.take(ttl=ttl, steal=steal)
        fences.append(got.lease.fence)
        return got

    got = await next_lease()
    assert got.lease.fence.number > 0, "U3: 0 is the fence number that says: none"
    await bench.store.release(got.lease, clean=True)
    got = await next_lease()
    await bench.store.release(got.lease, clean=False)
    got = await next_lease()
    await bench.commit(got.lease, got.record, release=True)
    await next_lease(ttl=SHORT)
    await bench.run_out()
    got = await next_lease()
    await next_lease(steal=got.lease.fence)
    numbers = [fence.number for fence in fences]
    assert numbers == sorted(set(numbers)), f"U3: fence numbers do not grow: {numbers}"
    assert len({fence.token for fence in fences}) == len(fences), "U3: a token comes twice"


@check("U3", "a live lease is stolen by its exact fence only")
async def _(bench: Bench) -> None:
    await bench.create()
    first = await bench.take()
    await bench.store.release(first.lease, clean=True)
    got = await bench.take()
    number, token = got.lease.fence
    for wrong in (
        Fence(number, "other"),
        Fence(number + 1, token),
        Fence(number - 1, token),
        first.lease.fence,
    ):
        refused = await bench.store.acquire("upload", "holder-2", LONG, steal=wrong)
        assert isinstance(refused, Held), f"U3: a lease under {got.lease.fence} is stolen by {wrong}"
    thief = await bench.take(holder="holder-2", steal=got.lease.fence)
    assert thief.lease.fence.number > number, "U3: a theft does not move the fence"
    late = await bench.store.acquire("upload", "holder-3", LONG, steal=got.lease.fence)
    assert isinstance(late, Held), "U3: a second theft by one fence succeeds"
    assert late.fence == thief.lease.fence, "U3: the fence that is told is not the one that holds"


@check("U3", "a lease that nobody holds is taken, whatever fence was to be stolen")
async def _(bench: Bench) -> None:
    await bench.create()
    got = await bench.take(steal=Fence(7, "made up"))
    await bench.store.release(got.lease, clean=True)
    await bench.take(steal=got.lease.fence)


@check("U3", "a lease that ended cleanly leaves no trace for storages")
async def _(bench: Bench) -> None:
    await bench.create()
    got = await bench.take()
    assert (got.lease.unclean, got.lease.alive) == (0, 0), "U3: the first lease names earlier ones"
    await bench.store.release(got.lease, clean=True)
    got = await bench.take()
    assert (got.lease.unclean, got.lease.alive) == (0, 0), "U3: a clean release counts as unclean"
    await bench.commit(got.lease, got.record, release=True)
    got = await bench.take()
    assert (got.lease.unclean, got.lease.alive) == (0, 0), "U3: a commit with release counts as unclean"


@check("U3", "a lease that did not end cleanly is named to all that follow")
async def _(bench: Bench) -> None:
    await bench.create()
    got = await bench.take()
    await bench.store.release(got.lease, clean=False)
    _names(released := await bench.take(ttl=SHORT), got, "an unclean release")
    await bench.run_out()
    _names(ran_out := await bench.take(), released, "a lease that ran out")
    _names(thief := await bench.take(steal=ran_out.lease.fence), ran_out, "a stolen lease")
    await bench.commit(thief.lease, thief.record, release=True)
    _names(after := await bench.take(), ran_out, "a clean end later on")
    await bench.store.release(after.lease, clean=True)
    _names(await bench.take(), ran_out, "a clean end later on")


def _names(later: Acquired, unclean: Acquired, what: str) -> None:
    number = unclean.lease.fence.number
    named = (later.lease.unclean, later.lease.alive)
    assert named == (number, number), f"U3: after {what} of {number} the lease names {named}"


# ---- U6


@check("U6", "a lease runs out by itself")
async def _(bench: Bench) -> None:
    await bench.create()
    got = await bench.take(ttl=SHORT)
    await bench.run_out()
    after = await bench.take(holder="holder-2")
    assert after.record.revision > got.record.revision, "U4: an acquire does not move the revision"


@check("U6", "a renewal gives a lease its time again")
async def _(bench: Bench) -> None:
    await bench.create()
    got = await bench.take(ttl=SHORT)
    assert list(await bench.store.renew([replace(got.lease, ttl=LONG)])) == [], (
        "U6: a renewal loses the lease"
    )
    await _outlive(bench)
    refused = await bench.store.acquire("upload", "holder-2", LONG)
    assert isinstance(refused, Held), "U6: a renewed lease is taken"
    await bench.store.renew([replace(got.lease, ttl=SHORT)])
    await bench.run_out()


@check("U6", "a commit gives a lease its time again")
async def _(bench: Bench) -> None:
    await bench.create()
    got = await bench.take(ttl=SHORT)
    await bench.commit(replace(got.lease, ttl=LONG), got.record)
    await _outlive(bench)
    refused = await bench.store.acquire("upload", "holder-2", LONG)
    assert isinstance(refused, Held), "U6: a lease is taken although it committed"


async def _outlive(bench: Bench) -> None:
    """Wait for longer than a short lease stands, by the store's own clock."""
    await bench.create("hourglass")
    await bench.take("hourglass", ttl=SHORT)
    await bench.run_out("hourglass")
    assert (await bench.look())[1] is not None, "U6: a lease runs out although it was given its time again"


@check("U6", "a lease that ran out and that nobody took commits, renews and is released")
async def _(bench: Bench) -> None:
    await bench.create()
    got = await bench.take(ttl=SHORT)
    await bench.run_out()
    record = await bench.commit(got.lease, replace(got.record, offset=3), "one")
    await bench.run_out()
    assert list(await bench.store.renew([got.lease])) == [], "U6: a lease that nobody took is lost"
    await bench.run_out()
    assert await bench.store.release(got.lease, clean=True), "U6: a lease that nobody took cannot be let go"
    assert await bench.look() == (record, None), "U6: a release changed the record"


@check("U6", "a lease that was let go is over at once")
async def _(bench: Bench) -> None:
    await bench.create()
    for end in ("clean", "unclean", "commit"):
        got = await bench.take()
        if end == "commit":
            await bench.commit(got.lease, got.record, release=True)
        else:
            assert await bench.store.release(got.lease, clean=end == "clean"), "U4: a release says it is lost"
        assert (await bench.look())[1] is None, f"U6: a lease stands after its {end} end"
