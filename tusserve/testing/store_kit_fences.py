"""The store kit's checks of the fence: what may be changed under which lease and revision (U4).

Owns no state and knows no store. `store_kit` puts these checks in line with the others.
"""

from asyncio import gather
from dataclasses import replace
from typing import Final

from tusserve.contracts import Acquired, Fence, Held, Lease, UploadRecord
from tusserve.protocol.records import Action
from tusserve.testing.store_driver import NOON, Bench, Checklist

FENCES: Final = Checklist()
check = FENCES.check


async def _stolen(bench: Bench) -> tuple[Acquired, Acquired]:
    """A lease and the one that took over from it."""
    await bench.create()
    old = await bench.take()
    return old, await bench.take(holder="holder-2", steal=old.lease.fence)


async def _no_more(bench: Bench, lease: Lease, record: UploadRecord, why: str) -> None:
    """Nothing may be done under `lease`, and trying it changes nothing."""
    before = await bench.look()
    entries = await bench.store.entries("upload", 0, 9)
    for each in (record, before[0]):
        late = replace(each, offset=99, entries=each.entries + 1)
        for release in (False, True):
            await bench.refused(lease, late, "late", release=release, complaint=f"U4: {why} commits")
    for clean in (True, False):
        assert await bench.store.release(lease, clean=clean) is False, f"U4: {why} is released"
    assert list(await bench.store.renew([lease])) == [lease], f"U4: {why} is renewed"
    after = await bench.look()
    assert after[0] == before[0], f"U4: {why} changed the record"
    assert _fence(after[1]) == _fence(before[1]), f"U4: {why} changed who holds the upload"
    assert await bench.store.entries("upload", 0, 9) == entries, f"U4: {why} changed the entries"


def _fence(held: Held | None) -> Fence | None:
    return None if held is None else held.fence


@check("U4", "an old fence changes nothing")
async def _(bench: Bench) -> None:
    old, new = await _stolen(bench)
    await _no_more(bench, old.lease, old.record, "an old fence")
    await bench.commit(new.lease, new.record, "one")
    await _no_more(bench, old.lease, old.record, "an old fence")
    assert list(await bench.store.renew([new.lease])) == [], "U4: a stale holder cost the new one its lease"


@check("U4", "a fence with another token changes nothing")
async def _(bench: Bench) -> None:
    await bench.create()
    got = await bench.take()
    other = replace(got.lease, fence=Fence(got.lease.fence.number, "other"))
    await _no_more(bench, other, got.record, "another token")
    await bench.commit(got.lease, got.record)


@check("U4", "a lease that was let go changes nothing")
async def _(bench: Bench) -> None:
    await bench.create()
    got = await bench.take()
    await bench.store.release(got.lease, clean=True)
    await _no_more(bench, got.lease, got.record, "a lease that was released")
    got = await bench.take()
    record = await bench.commit(got.lease, got.record, "one", release=True)
    await _no_more(bench, got.lease, record, "a lease that was let go by its commit")
    later = await bench.take()
    assert later.lease.unclean == 0, "U4: a lease that was let go could still make itself unclean"


@check("U4", "an old revision commits nothing")
async def _(bench: Bench) -> None:
    await bench.create()
    got = await bench.take()
    second = await bench.commit(got.lease, replace(got.record, offset=1), "one")
    for revision in (got.record.revision - 1, got.record.revision, second.revision + 1):
        stale = replace(second, offset=2, revision=revision)
        await bench.refused(got.lease, stale, complaint="U4: a commit with another revision takes effect")
    assert await bench.read() == second, "U4: a commit with another revision changed the record"
    await bench.commit(got.lease, second, "two")


@check("U4", "of many commits at once under one revision one takes effect")
async def _(bench: Bench) -> None:
    await bench.create()
    got = await bench.take()

    async def commit(number: int) -> UploadRecord | None:
        record = replace(got.record, offset=number, entries=1)
        return await bench.store.commit(got.lease, record, [f"entry {number}"])

    said = await gather(*map(commit, range(20)), return_exceptions=True)
    assert all(isinstance(each, UploadRecord | None) for each in said), f"U4: an old revision raises {said}"
    won = [each for each in said if isinstance(each, UploadRecord)]
    assert len(won) == 1, f"U4: {len(won)} of 20 commits under one revision took effect"
    assert await bench.read() == won[0], (
        "U4: the record is another than the one that was said to be committed"
    )
    entries = await bench.store.entries("upload", 0, 99)
    assert entries == [f"entry {won[0].offset}"], f"U4: commits that were refused left entries: {entries}"


@check("U4", "only create, acquire and commit move the revision")
async def _(bench: Bench) -> None:
    created = await bench.create()
    got = await bench.take()
    assert got.record.revision > created.revision, "U4: an acquire does not move the revision"
    await bench.store.renew([got.lease])
    await bench.store.ask("upload", got.lease.fence, Action.INSPECT)
    assert (await bench.read()).revision == got.record.revision, "U4: a renewal or an ask moves the revision"
    committed = await bench.commit(got.lease, got.record)
    assert committed.revision > got.record.revision, "U4: a commit does not move the revision"
    await bench.store.release(got.lease, clean=False)
    assert (await bench.read()).revision == committed.revision, "U4: a release moves the revision"


@check("U4", "a commit that is repeated says yes again, and is there once")
async def _(bench: Bench) -> None:
    await bench.create()
    got = await bench.take()
    record = got.record
    for release in (False, True):
        changed = replace(record, offset=record.offset + 1, entries=record.entries + 2)
        added = [f"one {release}", f"two {release}"]
        first = await bench.store.commit(got.lease, changed, added, release=release)
        for _ in range(2):
            again = await bench.store.commit(got.lease, changed, added, release=release)
            assert again is not None, "U4: a commit whose answer was lost is refused when it is repeated"
            assert again == first, "U4: a repeated commit returns another record"
            record = again
        kept, held = await bench.look()
        assert kept == record, "U4: a repeated commit changed the record"
        assert (held is None) is release, "U4: a repeated commit changes whether the lease stands"
    assert len(await bench.store.entries("upload", 0, 99)) == 4, (
        "U4: a repeated commit adds its entries again"
    )


@check("U4", "a commit with other content is no repetition")
async def _(bench: Bench) -> None:
    for release in (False, True):
        id = f"upload-{release}"  # noqa: A001
        await bench.create(id)
        got = await bench.take(id)
        first = replace(got.record, offset=1, entries=1)
        kept = await bench.store.commit(got.lease, first, ["one"], release=release)
        assert kept is not None, "U4: a commit under the newest fence and revision is refused"
        for other in (replace(first, offset=2), replace(first, owner="other"), replace(first, due_at=NOON)):
            complaint = "U4: another record is taken for a repetition"
            await bench.refused(got.lease, other, "one", release=release, complaint=complaint)
        complaint = "U4: other entries are taken for a repetition"
        await bench.refused(got.lease, first, "other", release=release, complaint=complaint)
        assert await bench.read(id) == kept, "U4: a second commit under one revision took effect"
        assert await bench.store.entries(id, 0, 9) == ["one"], "U4: a second commit left entries"


@check("U4", "a repetition under an old fence is refused")
async def _(bench: Bench) -> None:
    await bench.create()
    old = await bench.take()
    changed = replace(old.record, offset=5)
    kept = await bench.store.commit(old.lease, changed, release=True)
    assert kept is not None, "U4: a commit under the newest fence and revision is refused"
    new = await bench.take()
    await bench.refused(old.lease, changed, release=True, complaint="U4: an old fence commits")
    await bench.commit(new.lease, new.record)


@check("U4", "a renewal of many says which are lost")
async def _(bench: Bench) -> None:
    leases = []
    for number in range(5):
        await bench.create(f"upload-{number}")
        leases.append((await bench.take(f"upload-{number}")).lease)
    unknown = replace(leases[0], id="nobody")
    await bench.store.release(leases[1], clean=True)
    await bench.take("upload-3", steal=leases[3].fence)
    lost = await bench.store.renew([*leases, unknown])
    assert {lease.id for lease in lost} == {"upload-1", "upload-3", "nobody"}, f"U4: renew says lost: {lost}"
    assert list(await bench.store.renew([])) == [], "U4: a renewal of nothing loses something"
