"""The store kit's checks of abilities, each under the ability's name. A store that lacks one passes.

Owns no state and knows no store. `store_kit` puts these checks behind those of the clauses.
"""

from typing import Final

from tusserve.contracts import ElectsSweeper, HasIdentity, Held, ListsUploads, ProvesDeath
from tusserve.protocol.records import UploadState
from tusserve.testing.store_driver import LONG, NOON, Bench, Checklist

ABILITIES: Final = Checklist()
check = ABILITIES.check


@check("ListsUploads", "uploads are listed by id, page by page")
async def _(bench: Bench) -> None:
    if not isinstance(bench.store, ListsUploads):
        return
    for number in (3, 0, 4, 1, 2):
        await bench.create(f"upload-{number}", owner="acct" if number % 2 else None)
    await bench.create("upload-2b", name="other")
    await bench.put_away(UploadState.GONE, "upload-5", owner="acct")
    listed: list[str] = []
    while page := await bench.store.uploads("default", after=listed[-1] if listed else None, limit=2):
        assert len(page) <= 2, "ListsUploads: a page is longer than the limit"
        listed += [record.id for record in page]
    assert listed == [f"upload-{number}" for number in range(6)], f"ListsUploads: {listed} are listed"


@check("ListsUploads", "a list is narrowed by owner and by state")
async def _(bench: Bench) -> None:
    store = bench.store
    if not isinstance(store, ListsUploads):
        return
    mine = await bench.create("a", owner="acct")
    await bench.create("b", owner=None)
    await bench.create("c", owner="other")
    await bench.create("d", owner="acct", name="other")
    over = await bench.put_away(UploadState.COMPLETE, "e", owner="acct", due_at=NOON)
    foreign = await bench.put_away(UploadState.COMPLETE, "f", owner="other")
    assert list(await store.uploads("default", owner="acct")) == [mine, over], (
        "ListsUploads: owner is not kept to"
    )
    complete = list(await store.uploads("default", state=UploadState.COMPLETE))
    assert complete == [over, foreign], "ListsUploads: state is not kept to"
    both = list(await store.uploads("default", owner="acct", state=UploadState.COMPLETE))
    assert both == [over], "ListsUploads: owner and state are not kept to"
    assert list(await store.uploads("default", owner="acct", after="a")) == [over], (
        "ListsUploads: after is not"
    )
    assert list(await store.uploads("nobody")) == [], "ListsUploads: uploads of another name are listed"


@check("HasIdentity", "the identity is the place's, for every process and for ever", shares=True)
async def _(bench: Bench) -> None:
    if not isinstance(bench.store, HasIdentity):
        return
    identity = await bench.store.identity()
    assert identity, "HasIdentity: the identity is empty"
    other = await bench.another()
    assert isinstance(other, HasIdentity)
    assert await other.identity() == identity, "HasIdentity: another process sees another identity"
    await bench.reopen()
    assert isinstance(bench.store, HasIdentity)
    assert await bench.store.identity() == identity, "HasIdentity: opened again it has another identity"


@check("ProvesDeath", "a holder that lives keeps its lease", shares=True)
async def _(bench: Bench) -> None:
    if not isinstance(bench.store, ProvesDeath):
        return
    await bench.store.enlist("holder-1")
    await bench.store.enlist("holder-1")
    await bench.create(due_at=NOON)
    got = await bench.take()
    other = await bench.another()
    assert isinstance(other, ProvesDeath)
    await other.enlist("holder-2")
    held = (await bench.look(store=other))[1]
    assert held is not None, "ProvesDeath: a live holder counts as dead"
    assert held.fence == got.lease.fence, "U2: another process sees another lease"
    assert list(await other.due("default", NOON, 9)) == [], "ProvesDeath: a live holder's upload is due"
    assert isinstance(await other.acquire("upload", "holder-2", LONG), Held), (
        "ProvesDeath: a live holder is robbed"
    )
    thief = await bench.take(holder="holder-2", steal=got.lease.fence, store=other)
    number = got.lease.fence.number
    assert thief.lease.unclean == number, "U3: a stolen lease does not count as unclean"
    assert thief.lease.alive == number, "ProvesDeath: a live holder that was robbed counts as dead"


@check("ProvesDeath", "the leases of a holder that left are none, and it is not named as alive", shares=True)
async def _(bench: Bench) -> None:
    if not isinstance(bench.store, ProvesDeath):
        return
    await bench.store.enlist("holder-1")
    await bench.create(due_at=NOON)
    got = await bench.take()
    other = await bench.another()
    await bench.leave()
    record, held = await bench.look(store=other)
    assert held is None, "ProvesDeath: the lease of a holder that left still stands"
    assert record == got.record, "U4: something else than create, acquire and commit changed the record"
    assert list(await other.due("default", NOON, 9)) == [record], "ProvesDeath: what it held is not due"
    after = await bench.take(holder="holder-2", store=other)
    named = (after.lease.unclean, after.lease.alive)
    assert named == (got.lease.fence.number, 0), f"ProvesDeath: the next lease names {named}"
    assert await other.commit(got.lease, got.record) is None, "U4: an old fence commits"


@check("ProvesDeath", "a holder that was never enlisted is not proven dead", shares=True)
async def _(bench: Bench) -> None:
    if not isinstance(bench.store, ProvesDeath):
        return
    await bench.create()
    got = await bench.take(holder="unknown")
    other = await bench.another()
    await bench.leave()
    assert isinstance(await other.acquire("upload", "holder-2", LONG), Held), (
        "ProvesDeath: death without a proof"
    )
    thief = await bench.take(holder="holder-2", steal=got.lease.fence, store=other)
    assert thief.lease.alive == got.lease.fence.number, "ProvesDeath: a holder without proof counts as dead"


@check("ElectsSweeper", "one of two processes sweeps, until it leaves", shares=True)
async def _(bench: Bench) -> None:
    if not isinstance(bench.store, ElectsSweeper):
        return
    other = await bench.another()
    assert isinstance(other, ElectsSweeper)
    for name in ("default", "other"):
        assert await bench.store.elected(name), "ElectsSweeper: nobody sweeps"
        assert await bench.store.elected(name), "ElectsSweeper: whoever sweeps is not told so again"
        assert not await other.elected(name), "ElectsSweeper: two sweep"
    await bench.leave()
    assert await other.elected("default"), "ElectsSweeper: nobody sweeps after the one who did has left"
