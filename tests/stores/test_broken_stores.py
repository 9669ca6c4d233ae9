"""Stores that are broken on purpose: each fails the kit, which complains of no other clause than its own."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import anyio.lowlevel
import pytest
from anyio import create_task_group

from tusserve.contracts import Acquired, Fence, Held, Lease, UploadStore
from tusserve.protocol.records import Action, UploadRecord, UploadState
from tusserve.stores.memory import MemoryStore
from tusserve.testing.check import Check
from tusserve.testing.store_kit import store_checks


class CommitsHalf(MemoryStore):
    """U1: the record is there before it is found that the entries do not add up."""

    async def commit(
        self, lease: Lease, record: UploadRecord, added: Sequence[str] = (), *, release: bool = False
    ) -> UploadRecord | None:
        try:
            return await super().commit(lease, record, added, release=release)
        except ValueError:
            self._rows[lease.id].record = record
            raise


class CreatesTwice(MemoryStore):
    """U1: whether the id is taken is looked up before, not while, the record is made."""

    async def create(self, record: UploadRecord) -> UploadRecord:
        taken = record.id in self._rows
        await anyio.lowlevel.checkpoint()
        if not taken:
            self._rows.pop(record.id, None)
        return await super().create(record)


class RemembersReads(MemoryStore):
    """U2: what was read once is not read again before this process changes it."""

    def __init__(self, shared: MemoryStore) -> None:
        super().__init__()
        self.__dict__.update(shared.__dict__)
        self._remembered: dict[str, tuple[UploadRecord, Held | None]] = {}

    async def get(self, id: str) -> tuple[UploadRecord, Held | None] | None:
        if id not in self._remembered or self._remembered[id][1] is not None:
            found = await super().get(id)
            if found is None:
                return None
            self._remembered[id] = found
        return self._remembered[id]

    async def acquire(
        self, id: str, holder: str, ttl: timedelta, *, steal: Fence | None = None, durable: bool = False
    ) -> Acquired | Held | None:
        self._remembered.pop(id, None)
        return await super().acquire(id, holder, ttl, steal=steal, durable=durable)

    async def commit(
        self, lease: Lease, record: UploadRecord, added: Sequence[str] = (), *, release: bool = False
    ) -> UploadRecord | None:
        self._remembered.pop(lease.id, None)
        return await super().commit(lease, record, added, release=release)

    async def forget(self, id: str, now: datetime) -> bool:
        self._remembered.pop(id, None)
        return await super().forget(id, now)


class GivesToAll(MemoryStore):
    """U3: between finding the lease free and taking it others may find the same."""

    async def acquire(
        self, id: str, holder: str, ttl: timedelta, *, steal: Fence | None = None, durable: bool = False
    ) -> Acquired | Held | None:
        found = await self.get(id)
        await anyio.lowlevel.checkpoint()
        if found is not None and found[1] is None:
            self._rows[id].until = None
        return await super().acquire(id, holder, ttl, steal=steal, durable=durable)


class StealsAnything(MemoryStore):
    """U3: who wants to steal gets whatever is held."""

    async def acquire(
        self, id: str, holder: str, ttl: timedelta, *, steal: Fence | None = None, durable: bool = False
    ) -> Acquired | Held | None:
        if steal is not None and id in self._rows:
            steal = self._rows[id].fence
        return await super().acquire(id, holder, ttl, steal=steal, durable=durable)


class CountsAnew(MemoryStore):
    """U3: after a clean end the fence number is given again."""

    async def release(self, lease: Lease, *, clean: bool) -> bool:
        let_go = await super().release(lease, clean=clean)
        if let_go and clean:
            row = self._rows[lease.id]
            row.fence = Fence(row.fence.number - 1, row.fence.token)
        return let_go


class ForgivesThefts(MemoryStore):
    """U3: a stolen lease is not named to those that follow."""

    async def acquire(
        self, id: str, holder: str, ttl: timedelta, *, steal: Fence | None = None, durable: bool = False
    ) -> Acquired | Held | None:
        row = self._rows.get(id)
        if row is not None and row.fence == steal:
            row.until = None
        return await super().acquire(id, holder, ttl, steal=steal, durable=durable)


class TakesAnyToken(MemoryStore):
    """U4: only the number of the fence is compared."""

    def _row_under(self, lease: Lease):  # type: ignore[no-untyped-def]
        row = self._rows.get(lease.id)
        return row if row is not None and row.fence.number == lease.fence.number else None


class TakesAnyFence(MemoryStore):
    """U4: a commit counts whoever holds the lease now."""

    async def commit(
        self, lease: Lease, record: UploadRecord, added: Sequence[str] = (), *, release: bool = False
    ) -> UploadRecord | None:
        if (row := self._rows.get(lease.id)) is not None:
            lease = replace(lease, fence=row.fence)
        return await super().commit(lease, record, added, release=release)


class TakesAnyRevision(MemoryStore):
    """U4: the revision is not compared."""

    async def commit(
        self, lease: Lease, record: UploadRecord, added: Sequence[str] = (), *, release: bool = False
    ) -> UploadRecord | None:
        row = self._rows.get(lease.id)
        if row is not None and await super().commit(lease, record, added, release=release) is None:
            record = replace(record, revision=row.record.revision)
        return await super().commit(lease, record, added, release=release)


class RefusesRepetitions(MemoryStore):
    """U4: who did not hear the answer hears that the lease is lost."""

    async def commit(
        self, lease: Lease, record: UploadRecord, added: Sequence[str] = (), *, release: bool = False
    ) -> UploadRecord | None:
        row = self._rows.get(lease.id)
        if row is not None and row.record.revision != record.revision:
            return None
        return await super().commit(lease, record, added, release=release)


class RevivesLeases(MemoryStore):
    """U4: a lease that was let go is renewed."""

    async def renew(self, leases: Sequence[Lease]) -> Sequence[Lease]:
        for lease in leases:
            row = self._rows.get(lease.id)
            if row is not None and row.fence == lease.fence and row.until is None:
                row.until = self._clock()
        return await super().renew(leases)


class StripsEntries(MemoryStore):
    """U5: white space at the ends of an entry is lost."""

    async def entries(self, id: str, start: int, stop: int) -> Sequence[str]:
        return [entry.strip() for entry in await super().entries(id, start, stop)]


class KeepsEntries(MemoryStore):
    """U5: entries beyond `record.entries` still show."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[str, list[str]] = {}

    async def commit(
        self, lease: Lease, record: UploadRecord, added: Sequence[str] = (), *, release: bool = False
    ) -> UploadRecord | None:
        before = self._rows[lease.id].entries if lease.id in self._rows else []
        committed = await super().commit(lease, record, added, release=release)
        if committed is not None and record.entries == 0:
            self._kept[lease.id] = before
        return committed

    async def entries(self, id: str, start: int, stop: int) -> Sequence[str]:
        return [*self._kept.get(id, []), *await super().entries(id, 0, 10_000)][start:stop]


class NeverRenews(MemoryStore):
    """U6: a renewal answers asks, and gives no time."""

    async def renew(self, leases: Sequence[Lease]) -> Sequence[Lease]:
        times = [(row, row.until) for row in self._rows.values()]
        lost = await super().renew(leases)
        for row, until in times:
            row.until = until
        return lost


class KeepsCommitting(MemoryStore):
    """U6: a commit gives its lease no time."""

    async def commit(
        self, lease: Lease, record: UploadRecord, added: Sequence[str] = (), *, release: bool = False
    ) -> UploadRecord | None:
        row = self._rows.get(lease.id)
        until = None if row is None else row.until
        committed = await super().commit(lease, record, added, release=release)
        if row is not None and committed is not None and not release:
            row.until = until
        return committed


class AsksAnew(MemoryStore):
    """U7: every ask begins the waiting anew."""

    async def ask(self, id: str, fence: Fence, why: Action) -> bool:
        if (row := self._rows.get(id)) is not None and row.fence == fence:
            row.asked_at = None
        return await super().ask(id, fence, why)


class AnswersNothing(MemoryStore):
    """U7: a renewal does not count as an answer."""

    async def renew(self, leases: Sequence[Lease]) -> Sequence[Lease]:
        rows = [(row, row.answered) for row in self._rows.values()]
        lost = await super().renew(leases)
        for row, answered in rows:
            row.answered = answered
        return lost


class DueUnderLease(MemoryStore):
    """U8: what somebody works on counts as due."""

    async def due(self, name: str, now: datetime, limit: int) -> Sequence[UploadRecord]:
        records = [row.record for row in self._rows.values()]
        due = [
            each for each in records if each.name == name and each.due_at is not None and each.due_at <= now
        ]
        return sorted(due, key=lambda record: (record.due_at, record.id))[:limit]


class NewestFirst(MemoryStore):
    """U8: the oldest may wait for ever."""

    async def due(self, name: str, now: datetime, limit: int) -> Sequence[UploadRecord]:
        return [*reversed(await super().due(name, now, 10_000))][:limit]


class ForgetsTombstones(MemoryStore):
    """U9: the id of a tombstone is free."""

    async def create(self, record: UploadRecord) -> UploadRecord:
        row = self._rows.get(record.id)
        if row is not None and row.record.state is UploadState.GONE:
            del self._rows[record.id]
        return await super().create(record)


class ForgetsComplete(MemoryStore):
    """U9: a complete record is forgotten before its time."""

    async def forget(self, id: str, now: datetime) -> bool:
        row = self._rows.get(id)
        if row is not None and row.record.state is UploadState.COMPLETE:
            return self._rows.pop(id, None) is not None
        return await super().forget(id, now)


class ListsForeign(MemoryStore):
    """ListsUploads: an owner sees the uploads of all."""

    async def uploads(
        self,
        name: str,
        *,
        owner: str | None = None,
        state: UploadState | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Sequence[UploadRecord]:
        return await super().uploads(name, owner=None, state=state, after=after, limit=limit)


BROKEN = (
    CommitsHalf,
    CreatesTwice,
    GivesToAll,
    StealsAnything,
    CountsAnew,
    ForgivesThefts,
    TakesAnyToken,
    TakesAnyFence,
    TakesAnyRevision,
    RefusesRepetitions,
    RevivesLeases,
    StripsEntries,
    KeepsEntries,
    NeverRenews,
    KeepsCommitting,
    AsksAnew,
    AnswersNothing,
    DueUnderLease,
    NewestFirst,
    ForgetsTombstones,
    ForgetsComplete,
    ListsForeign,
)


async def complaints(checks: Sequence[Check]) -> dict[str, str]:
    """What each check that fails complains of. They only wait, so they wait together."""
    found: dict[str, str] = {}

    async def run(check: Check) -> None:
        try:
            await check()
        except AssertionError as complaint:
            found[str(check)] = str(complaint)

    async with create_task_group() as tasks:
        for check in checks:
            tasks.start_soon(run, check)
    return found


def blames_only(clause: str, found: dict[str, str]) -> None:
    assert any(check.startswith(f"{clause} ") for check in found), f"no check of {clause} fails: {found}"
    others = {check: said for check, said in found.items() if not said.startswith(f"{clause}: ")}
    assert others == {}, "another clause is blamed"


@pytest.mark.anyio
@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
async def test_a_broken_store_fails_at_its_own_clause(broken: type[MemoryStore]) -> None:
    stores: dict[Path, MemoryStore] = {}

    @asynccontextmanager
    async def opened(place: Path) -> AsyncGenerator[UploadStore]:
        async with stores.setdefault(place, broken()) as store:
            yield store

    assert broken.__doc__ is not None
    blames_only(broken.__doc__.split(":")[0], await complaints(store_checks(opened)))


@pytest.mark.anyio
async def test_a_store_that_remembers_reads_fails_at_sharing() -> None:
    stores: dict[Path, MemoryStore] = {}

    @asynccontextmanager
    async def opened(place: Path) -> AsyncGenerator[UploadStore]:
        async with RemembersReads(stores.setdefault(place, MemoryStore())) as store:
            yield store

    blames_only("U2", await complaints(store_checks(opened)))
