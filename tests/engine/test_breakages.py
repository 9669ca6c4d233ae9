"""Parts that are broken on purpose, each in one way: the proofs of this folder must see every one of them.

The sound parts go through the same proofs in `test_machine`, `test_crash` and `test_cancel`.
"""

from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.engine import crashes, test_cancel, test_promises
from tests.engine.machine import OffsetProtocol
from tests.engine.quick_loop import LoopClock
from tests.engine.world import MakeSite, Site, SmallSteps, memory_site
from tusserve.body import Pump
from tusserve.contracts import Acquired, Cursor, Durable, Fence, Held, Lease, Place
from tusserve.digesting import RunningDigest
from tusserve.protocol import decide, life
from tusserve.protocol.commands import Append, Command
from tusserve.protocol.decide import BodyEnd, Plan, Receive, Settled
from tusserve.protocol.life import Kept
from tusserve.protocol.outcomes import Appended
from tusserve.protocol.records import Expiry, UploadRecord, UploadState
from tusserve.reception import Reception
from tusserve.storage.memory import _MemoryWriter
from tusserve.stores.memory import MemoryStore
from tusserve.tasks import Answer, AppTasks

FIRST_FAILURE = settings(
    max_examples=300,
    stateful_step_count=40,
    deadline=None,
    database=None,
    derandomize=True,
    report_multiple_bugs=False,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def the_machine_sees_it(make_site: MakeSite, seen: str) -> None:
    machine = type("Broken", (OffsetProtocol,), {"make_site": staticmethod(make_site)})
    with pytest.raises(AssertionError, match=seen):
        run_state_machine_as_test(machine, settings=FIRST_FAILURE)


async def a_crash_shows_it(name: str, make_site: MakeSite, folder: Path, seen: str) -> None:
    story = next(story for story in crashes.STORIES if story.name == name)
    calls = await crashes.run(story, make_site, folder)

    async def at_every_call() -> None:
        for at in range(1, len(calls) + 1):
            await crashes.run(story, make_site, folder, at=at)

    with pytest.raises(AssertionError, match=seen):
        await at_every_call()


async def it_breaks(promise: test_promises.Promise, make: Callable[[], Site], seen: str) -> None:
    async with make() as site:
        with pytest.raises(AssertionError, match=seen):
            await promise(site)


def sound(folder: Path) -> Site:
    return memory_site()


# ---- the protocol


def test_an_offset_that_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    real = decide.plan

    def anywhere(record: UploadRecord | None, command: Command, now: datetime, *, held: bool) -> Plan:
        if isinstance(command, Append) and record is not None:
            command = replace(command, offset=record.offset)
        return real(record, command, now, held=held)

    monkeypatch.setattr(decide, "plan", anywhere)
    the_machine_sees_it(sound, "bytes that nobody sent|bytes were taken at")


def test_room_that_is_not_enforced(monkeypatch: pytest.MonkeyPatch) -> None:
    real = decide.plan

    def roomy(record: UploadRecord | None, command: Command, now: datetime, *, held: bool) -> Plan:
        plan = real(record, command, now, held=held)
        return Receive(room=1 << 40) if isinstance(plan, Receive) else plan

    monkeypatch.setattr(decide, "plan", roomy)
    the_machine_sees_it(sound, "more bytes than the upload has")


def test_a_checksum_that_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunningDigest, "matches", lambda self: True)
    the_machine_sees_it(sound, "bytes that nobody sent|taken, and not what was meant")


def test_a_checkpoint_of_what_is_not_checked_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    real = decide.settle

    def keeping(
        record: UploadRecord, command: Append, end: BodyEnd, kept: Kept | None, *more: Any
    ) -> Settled:
        return real(record, replace(command, digest=None), end, kept, *more)

    monkeypatch.setattr(decide, "settle", keeping)
    monkeypatch.setattr(Reception, "_keeps", lambda self, end, stop: True)
    the_machine_sees_it(sound, "bytes that nobody sent|a part was kept")


def test_a_cut_request_that_completes_its_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    real = decide.settle

    def whole(
        record: UploadRecord,
        command: Append,
        end: BodyEnd,
        kept: Kept | None,
        now: datetime,
        expiry: Expiry | None,
    ) -> Settled:
        if end is BodyEnd.CUT and kept is not None:
            moved = life.finish(life.advance(record, kept, now, expiry), now)
            return Settled(moved, Appended(moved))
        return real(record, command, end, kept, now, expiry)

    monkeypatch.setattr(decide, "settle", whole)
    the_machine_sees_it(sound, "without all of its bytes")


@pytest.mark.anyio
async def test_a_checkpoint_on_the_last_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_any_byte(self: Pump, *, asked: bool = False) -> None:
        if self._undurable or asked:
            self._undurable = 0
            await self._sink.checkpoint()

    async def of_any_byte(self: Reception) -> None:
        assert self._writer is not None
        await self._commit(self._advanced(self._remember(await self._writer.flush(False))))

    monkeypatch.setattr(Pump, "_checkpoint", at_any_byte)
    monkeypatch.setattr(Reception, "checkpoint", of_any_byte)
    await it_breaks(
        test_promises.the_last_byte_is_not_told_before_the_host_was_asked, memory_site, "still wants more"
    )


# ---- the bytes


class KeepsTails(SmallSteps):
    """Goes on behind whatever is there, instead of at the committed offset."""

    @asynccontextmanager
    async def writer(
        self, place: Place, cursor: Cursor, at: int, lease: Lease
    ) -> AsyncGenerator[_MemoryWriter]:
        tail = bytes(self._areas[place.id].get(cursor.state, b"")[at:])
        async with super().writer(place, cursor, at, lease) as writer:
            writer._held += tail
            yield _BehindTheTail(writer, len(tail))


class _BehindTheTail(_MemoryWriter):
    def __init__(self, writer: _MemoryWriter, tail: int) -> None:
        self._name, self._held, self._tail = writer._name, writer._held, tail
        self._end = len(self._held)

    async def flush(self, everything: bool) -> Durable:
        return Durable(offset=self._end - self._tail, state=self._name)


class SharesPlaces(SmallSteps):
    """Two leases write to the same place, whoever may still be alive."""

    @asynccontextmanager
    async def writer(
        self, place: Place, cursor: Cursor, at: int, lease: Lease
    ) -> AsyncGenerator[_MemoryWriter]:
        async with super().writer(place, cursor, at, replace(lease, alive=0)) as writer:
            yield writer


class SaysDurable(SmallSteps):
    """Says that bytes are durable, and stores them only when the writer is left."""

    @asynccontextmanager
    async def writer(
        self, place: Place, cursor: Cursor, at: int, lease: Lease
    ) -> AsyncGenerator[_MemoryWriter]:
        async with super().writer(place, cursor, at, lease) as inner:
            late = _MemoryWriter(inner._name, bytearray(inner._held), at)
            yield late
            inner._held[:] = late._held


@pytest.mark.anyio
async def test_a_tail_that_is_not_dropped() -> None:
    await it_breaks(
        test_promises.a_body_that_overran_leaves_nothing,
        lambda: memory_site(KeepsTails()),
        "bytes that nobody sent",
    )


@pytest.mark.anyio
async def test_a_storage_where_two_leases_write_the_same_place() -> None:
    promise = test_promises.a_writer_that_lost_its_lease_changes_nothing
    await it_breaks(promise, lambda: memory_site(SharesPlaces()), "acknowledged bytes changed")


@pytest.mark.anyio
async def test_bytes_that_are_only_said_to_be_durable(tmp_path: Path) -> None:
    await a_crash_shows_it("PATCH of all", lambda _: memory_site(SaysDurable()), tmp_path, "are gone")


# ---- the leases


class IgnoresLeases(MemoryStore):
    """Whoever comes may write, and whoever wrote may commit."""

    async def get(self, id: str) -> tuple[UploadRecord, Held | None] | None:
        found = await super().get(id)
        return None if found is None else (found[0], None)

    async def acquire(
        self, id: str, holder: str, ttl: timedelta, *, steal: Fence | None = None, durable: bool = False
    ) -> Acquired | Held | None:
        if id in self._rows:
            self._rows[id].until = None
        return await super().acquire(id, holder, ttl, steal=steal, durable=durable)

    async def commit(
        self, lease: Lease, record: UploadRecord, added: Sequence[str] = (), *, release: bool = False
    ) -> UploadRecord | None:
        row = self._rows[lease.id]
        row.fence, row.until = lease.fence, self._clock() + lease.ttl
        record = replace(record, revision=row.record.revision)
        return await super().commit(lease, record, added, release=release)


def test_a_store_that_ignores_leases() -> None:
    the_machine_sees_it(lambda _: memory_site(store=IgnoresLeases(LoopClock())), "bytes|204")


class EndsLate(MemoryStore):
    """Commits that an upload ends only when it has ended."""

    async def commit(
        self, lease: Lease, record: UploadRecord, added: Sequence[str] = (), *, release: bool = False
    ) -> UploadRecord | None:
        if record.state is UploadState.ENDING:
            return record
        return await super().commit(lease, record, added, release=release)


@pytest.mark.anyio
async def test_an_end_that_is_carried_out_before_it_is_committed(tmp_path: Path) -> None:
    await a_crash_shows_it("DELETE", lambda _: memory_site(store=EndsLate(LoopClock())), tmp_path, "are gone")


# ---- the tasks


@pytest.mark.anyio
async def test_work_in_the_task_of_the_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def here(
        self: AppTasks,
        work: Callable[[Answer[object]], Coroutine[Any, Any, object]],
        *,
        left: Callable[[], None] | None = None,
    ) -> object:
        return await work(Answer())

    monkeypatch.setattr(AppTasks, "answer", here)
    with pytest.raises(AssertionError):
        await test_cancel.test_what_a_cancelled_request_began_is_ended(("memory", "memory"), tmp_path)
