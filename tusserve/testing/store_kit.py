"""The conformance kit for stores: named checks of the clauses U1 to U9 of `tusserve.contracts`.

Owns `store_checks`, and the checks of records and abilities. Knows no store. Authors of stores parametrize a
test with what it returns. Each complaint begins with the clause that is broken.
"""

from asyncio import gather
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tusserve.contracts import UploadRecord
from tusserve.errors import IdTaken
from tusserve.protocol.records import Json, Kind, Reason, Refusal, UploadState
from tusserve.testing.check import Check
from tusserve.testing.storage_driver import cancelled_at, raising
from tusserve.testing.store_driver import NOON, Bench, Checklist, Make, new_record
from tusserve.testing.store_kit_abilities import ABILITIES
from tusserve.testing.store_kit_asks import ASKS
from tusserve.testing.store_kit_fences import FENCES
from tusserve.testing.store_kit_leases import LEASES

__all__ = ["store_checks"]

RECORDS: Final = Checklist()
check = RECORDS.check


def store_checks(make: Make, *, durable: bool = True) -> Sequence[Check]:
    """The checks for the store that `make(place)` opens, in the order of the clauses, abilities last.

    `make` returns an async context manager of a store that keeps its records under `place`, an empty
    directory, or under a name made of it; called twice with the same place it opens the same records as a
    second process does. `durable=False`: its records do not outlive the object, and are nobody else's.
    The leases are timed by a real clock.
    """
    noted = [*RECORDS.noted, *LEASES.noted, *FENCES.noted, *ASKS.noted]
    noted.sort(key=lambda each: int(each.clause.removeprefix("U")))
    return [
        Check(each.clause, each.title, partial(_run, each.run, make))
        for each in (*noted, *ABILITIES.noted)
        if durable or not each.shares
    ]


async def _run(check: Callable[[Bench], Awaitable[None]], make: Make) -> None:
    with TemporaryDirectory(prefix="tusserve-check-") as place:
        async with Bench.opened(make, Path(place)) as bench:
            await check(bench)


# ---- U1


@check("U1", "a commit that does not add up changes nothing")
async def _(bench: Bench) -> None:
    await bench.create()
    got = await bench.take()
    before = await bench.commit(got.lease, got.record, "one", "two")
    for count, added in ((1, ["three"]), (2, ["three"]), (4, ["three"]), (3, []), (1, []), (0, ["three"])):
        with raising(ValueError, f"U1: {count} entries are taken for 2 and {len(added)} more"):
            await bench.store.commit(got.lease, replace(before, offset=7, entries=count), added)
    assert await bench.read() == before, "U1: a refused commit changed the record"
    assert await bench.store.entries("upload", 0, 9) == ["one", "two"], "U1: a refused commit left entries"


@check("U1", "many commits at once take effect each for itself")
async def _(bench: Bench) -> None:
    ids = [f"upload-{number}" for number in range(40)]

    async def live(id: str) -> None:
        await bench.create(id)
        got = await bench.take(id)
        record = await bench.commit(got.lease, replace(got.record, offset=1), f"{id} first")
        await bench.commit(got.lease, replace(record, offset=len(id)), f"{id} second", release=True)

    await gather(*map(live, ids))
    for each in ids:
        record, held = await bench.look(each)
        found = (record.id, record.offset, held)
        assert found == (each, len(each), None), f"U1: {each} is not what was committed"
        entries = await bench.store.entries(each, 0, 9)
        assert entries == [f"{each} first", f"{each} second"], f"U1: {each} has other entries: {entries}"


@check("U1", "of many creates of one id one takes effect")
async def _(bench: Bench) -> None:
    creates = [bench.create(offset=number) for number in range(20)]
    got = await gather(*creates, return_exceptions=True)
    assert all(isinstance(each, UploadRecord | IdTaken) for each in got), f"U1: create raises {got}"
    created = [each for each in got if isinstance(each, UploadRecord)]
    assert len(created) == 1, f"U1: {len(created)} of 20 creates of one id were told that it is theirs"
    assert await bench.read() == created[0], "U1: the record is another's than the one who was told so"


@check("U1", "a call that is cancelled takes effect whole or not at all")
async def _(bench: Bench) -> None:
    await bench.create()
    got = await bench.take()
    record = got.record
    reached, suspension = True, 0

    async def commit() -> None:
        await bench.commit(got.lease, record, f"entry {suspension}")

    while reached:
        suspension += 1
        went = await cancelled_at(suspension, commit())
        reached = went.reached
        # One more write, so that one which was under way when its caller went is through.
        assert await bench.store.renew([got.lease]) == [], "U1: a cancelled commit cost the lease"
        before, record = record, await bench.read()
        there = len(await bench.store.entries("upload", 0, 1000))
        assert record.entries == there, f"U1: cancelled at await {suspension}, half of a commit is there"
        assert record.revision > before.revision or not went.through, (
            "U1: a commit that was told is not there"
        )
    await bench.commit(got.lease, record, release=True)


# ---- U2


@check("U2", "another process reads what was written", shares=True)
async def _(bench: Bench) -> None:
    created = await bench.create(due_at=NOON)
    other = await bench.another()
    assert await bench.look(store=other) == (created, None), "U2: another process reads another record"
    got = await bench.take()
    record, held = await bench.look(store=other)
    assert record == got.record, "U2: another process does not see an acquire"
    assert held is not None, "U2: another process does not see the lease"
    assert held.fence == got.lease.fence, "U2: another process sees another lease"
    committed = await bench.commit(got.lease, replace(got.record, offset=5), "one", release=True)
    assert await bench.look(store=other) == (committed, None), "U2: another process does not see a commit"
    assert await other.entries("upload", 0, 9) == ["one"], "U2: another process does not see the entries"
    assert await other.due("default", NOON, 9) == [committed], "U2: another process does not see what is due"


@check("U2", "two processes take turns", shares=True)
async def _(bench: Bench) -> None:
    await bench.create()
    stores = (bench.store, await bench.another())
    for turn in range(6):
        bench.store = stores[turn % 2]
        got = await bench.take(holder=f"holder-{turn % 2}")
        assert got.record.offset == turn, "U2: a process does not go on where the other one stopped"
        await bench.commit(got.lease, replace(got.record, offset=turn + 1), f"turn {turn}", release=True)
    assert await stores[0].entries("upload", 0, 9) == [f"turn {turn}" for turn in range(6)], (
        "U2: entries differ"
    )


@check("U2", "what was committed is there when the place is opened again", shares=True)
async def _(bench: Bench) -> None:
    await bench.create()
    got = await bench.take()
    committed = await bench.commit(got.lease, replace(got.record, offset=5), "one", "two", release=True)
    await bench.reopen()
    assert await bench.look() == (committed, None), "U2: the record is not there after opening again"
    assert await bench.store.entries("upload", 0, 9) == ["one", "two"], "U2: the entries are not there"
    again = await bench.take()
    assert again.lease.fence.number > got.lease.fence.number, (
        "U3: a fence number comes again after opening again"
    )


# ---- U5

FULL: Final = new_record(
    owner="acct_1 \N{SNOWMAN}",
    due_at=NOON + timedelta(microseconds=1),
    kind=Kind.FINAL,
    length=None,
    offset=2**53 + 1,
    max_size=2**62,
    metadata="filename d29ybGQ=,empty",
    attributes={
        "project": 'Größe \N{PILE OF POO} "quoted" \\ \n',
        "nested": [1, 2.5, None, True, {"a": [], "": "\u2028"}],
        "large": 2**60 + 1,
    },
    key="a/b/ü.bin",
    content_type="text/plain; charset=utf-8",
    expires_at=NOON + timedelta(days=7),
    completed_at=NOON - timedelta(microseconds=1),
    gated=True,
    attempts=3,
    reason=Reason.REJECTED,
    refusal=Refusal(422, "key_taken", "Schon vergeben."),
    cursor="state \N{EURO SIGN}",
    parts=("part-1", "part-2"),
)
TEXTS: Final = (
    "",
    " ",
    "plain",
    "ä\N{PILE OF POO}",
    '{"part": 1, "etag": "\\"x\\""}',
    "two\nlines\r\n\ttab",
    "'; --",
)


@check("U5", "every field of a record comes back")
async def _(bench: Bench) -> None:
    created = await bench.store.create(FULL)
    assert created == replace(FULL, revision=created.revision), "U5: create returns another record"
    assert await bench.read() == created, "U5: a created record comes back as another"
    got = await bench.take()
    assert got.record == replace(FULL, revision=got.record.revision), "U5: acquire gives another record"
    changed = replace(
        got.record, owner=None, due_at=None, state=UploadState.ENDING, attributes={}, attempts=4
    )
    committed = await bench.commit(got.lease, changed)
    assert committed == replace(changed, revision=committed.revision), "U5: commit returns another record"
    assert await bench.read() == committed, "U5: a committed record comes back as another"


@check("U5", "a state of 128 KiB comes back")
async def _(bench: Bench) -> None:
    await bench.create()
    got = await bench.take()
    state = ("0123456789abcde\N{EURO SIGN}" * (128 << 10))[: 128 << 10]
    await bench.commit(got.lease, replace(got.record, cursor=state))
    assert (await bench.read()).cursor == state, "U5: a state of 128 KiB comes back as another"


@check("U5", "entries come back by page, in order and exactly")
async def _(bench: Bench) -> None:
    await bench.create()
    got = await bench.take()
    record = got.record
    every: list[str] = []
    for size in (0, 1, 2, 300, 4):
        added = [
            f"{TEXTS[n % len(TEXTS)]}{n // len(TEXTS) or ''}" for n in range(len(every), len(every) + size)
        ]
        record = await bench.commit(got.lease, record, *added)
        every += added
    await bench.create("neighbour")
    pages = (
        (0, 1000),
        (0, 0),
        (0, 1),
        (1, 3),
        (2, 2),
        (5, 4),
        (299, 304),
        (306, 400),
        (307, 400),
        (400, 500),
    )
    for start, stop in pages:
        page = await bench.store.entries("upload", start, stop)
        assert list(page) == every[start:stop], f"U5: the entries {start} to {stop} are others"
    assert list(await bench.store.entries("neighbour", 0, 9)) == [], "U5: entries of another upload show"
    assert list(await bench.store.entries("nobody", 0, 9)) == [], "U5: an unknown upload has entries"


@check("U5", "a sealed upload has no entries, and begins to count anew")
async def _(bench: Bench) -> None:
    await bench.create()
    got = await bench.take()
    record = await bench.commit(got.lease, got.record, "one", "two")
    record = await bench.commit(got.lease, replace(record, cursor="sealed", entries=0))
    assert list(await bench.store.entries("upload", 0, 9)) == [], "U5: entries beyond `record.entries` stay"
    await bench.commit(got.lease, record, "new")
    assert list(await bench.store.entries("upload", 0, 9)) == ["new"], (
        "U5: entries that were dropped come back"
    )


@check("U5", "nobody's later changes reach the record")
async def _(bench: Bench) -> None:
    mine: dict[str, Json] = {"list": [1]}
    await bench.create(attributes=mine)
    mine["list"] = "changed"
    assert (await bench.read()).attributes == {"list": [1]}, "U5: attributes are shared with who gave them"


# ---- U9


@check("U9", "an id is taken while any record has it")
async def _(bench: Bench) -> None:
    for state in UploadState:
        kept = await bench.put_away(state, state.lower())
        for taken in (new_record(kept.id), new_record(kept.id, name="others")):
            with raising(IdTaken, f"U9: the id of a record in {state} is given again"):
                await bench.store.create(taken)
        assert await bench.read(kept.id) == kept, "U9: a create that was refused changed the record"


@check("U9", "only what is over is forgotten")
async def _(bench: Bench) -> None:
    second = timedelta(seconds=1)
    cases = [(state, due_at, False) for state in UploadState for due_at in (None, NOON)]
    cases = [case for case in cases if case[0] not in {UploadState.GONE, UploadState.COMPLETE}]
    cases += [(UploadState.GONE, None, True), (UploadState.GONE, NOON + second, True)]
    cases += [(UploadState.COMPLETE, None, False), (UploadState.COMPLETE, NOON + second, False)]
    cases += [(UploadState.COMPLETE, NOON, True), (UploadState.COMPLETE, NOON - second, True)]
    for number, (state, due_at, over) in enumerate(cases):
        kept = await bench.put_away(state, f"upload-{number}", due_at=due_at)
        said = await bench.store.forget(kept.id, NOON)
        assert said is over, f"U9: forget says {said} of a record in {state}, due {due_at}"
        assert (await bench.store.get(kept.id) is None) is over, (
            f"U9: forget did not do what it says, in {state}"
        )
    assert await bench.store.forget("nobody", NOON) is False, "U9: an unknown upload is forgotten"


@check("U9", "what is under a live lease is not forgotten")
async def _(bench: Bench) -> None:
    await bench.put_away(UploadState.GONE)
    got = await bench.take()
    assert await bench.store.forget("upload", NOON) is False, "U9: a record is forgotten under its lease"
    assert await bench.store.release(got.lease, clean=True), "U4: the newest lease cannot be let go"
    assert await bench.store.forget("upload", NOON), "U9: a record is not forgotten after its lease"


@check("U9", "what was forgotten leaves nothing behind")
async def _(bench: Bench) -> None:
    await bench.create()
    got = await bench.take()
    gone = replace(got.record, state=UploadState.GONE)
    record = await bench.commit(got.lease, gone, "one", "two", release=True)
    assert await bench.store.forget("upload", NOON), "U9: a tombstone is not forgotten"
    assert await bench.store.get("upload") is None, "U9: what was forgotten is still there"
    assert list(await bench.store.entries("upload", 0, 9)) == [], "U9: entries outlive their record"
    assert await bench.store.acquire("upload", "holder-1", timedelta(seconds=9)) is None, (
        "U9: it can be leased"
    )
    assert await bench.store.commit(got.lease, record) is None, "U4: a commit to what was forgotten"
    fresh = await bench.create(offset=3)
    assert await bench.read() == fresh, "U9: the id of what was forgotten is not free"
    assert list(await bench.store.entries("upload", 0, 9)) == [], "U9: a new upload has entries of an old one"
    assert await bench.store.release(got.lease, clean=True) is False, "U4: a lease outlives its record"
