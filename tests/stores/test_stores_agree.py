"""What two stores answer to the same calls: MemoryStore is the model, SQLiteStore has to agree with it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from tusserve.contracts import Acquired, Fence, Held, Lease, UploadRecord
from tusserve.errors import IdTaken
from tusserve.protocol.records import Action, UploadState
from tusserve.stores.memory import MemoryStore
from tusserve.stores.sqlite import SQLiteStore
from tusserve.testing.clock import ManualClock
from tusserve.testing.store_driver import NOON, new_record

TTL = timedelta(seconds=10)
ids = st.sampled_from(["a", "b"])
leases = st.integers(0, 3)
"""Which lease: how many before the newest one."""
small = st.integers(0, 3)


@dataclass(frozen=True)
class Step:
    """One call, in terms that mean the same to both stores."""

    call: str
    id: str
    lease: int
    number: int
    flag: bool
    state: UploadState


steps = st.builds(
    Step,
    st.sampled_from(
        [
            "create",
            "acquire",
            "steal",
            "commit",
            "commit",
            "repeat",
            "release",
            "renew",
            "ask",
            "wait",
            "forget",
        ]
    ),
    ids,
    leases,
    small,
    st.booleans(),
    st.sampled_from([UploadState.RECEIVING, UploadState.COMPLETE, UploadState.GONE]),
)


class Run:
    """A store, and what its caller remembers."""

    def __init__(self, store: MemoryStore | SQLiteStore) -> None:
        self._store = store
        self._leases: list[Lease] = []
        self._last: tuple[Lease, UploadRecord, Sequence[str], bool] | None = None

    def _lease(self, step: Step) -> Lease:
        mine = [lease for lease in self._leases if lease.id == step.id]
        none = Lease(id=step.id, fence=Fence(0, ""), ttl=TTL)
        return mine[-1 - step.lease] if step.lease < len(mine) else none

    async def do(self, step: Step) -> object:
        """What the store answers; fences by their numbers, for tokens are random."""
        try:
            return _plain(await self._call(step))
        except (IdTaken, ValueError) as error:
            return type(error)

    async def _call(self, step: Step) -> object:
        store, lease = self._store, self._lease(step)
        match step.call:
            case "create":
                due_at = NOON + timedelta(seconds=step.number) if step.flag else None
                return await store.create(new_record(step.id, due_at=due_at, state=step.state))
            case "acquire" | "steal":
                steal = lease.fence if step.call == "steal" else None
                got = await store.acquire(step.id, f"holder-{step.number}", TTL, steal=steal)
                if isinstance(got, Acquired):
                    self._leases.append(got.lease)
                return got
            case "commit":
                return await self._commit(step, lease)
            case "repeat":
                if self._last is None:
                    return None
                again, record, added, release = self._last
                return await store.commit(again, record, added, release=release)
            case "release":
                return await store.release(lease, clean=step.flag)
            case "renew":
                return await store.renew([lease])
            case "ask":
                return await store.ask(step.id, lease.fence, [*Action][step.number])
            case _:
                return await store.forget(step.id, NOON + timedelta(seconds=step.number))

    async def _commit(self, step: Step, lease: Lease) -> object:
        found = await self._store.get(step.id)
        if found is None:
            return None
        added = [f"entry {n}" for n in range(step.number)] if step.flag else []
        count = 0 if step.state is UploadState.COMPLETE else found[0].entries + step.number * step.flag
        record = replace(found[0], state=step.state, entries=count, attempts=found[0].attempts + 1)
        self._last = (lease, record, added, step.lease == 1)
        return await self._store.commit(lease, record, added, release=step.lease == 1)

    async def everything(self) -> object:
        """All that can be asked about."""
        store = self._store
        return _plain(
            [
                [await store.get("a"), await store.get("b")],
                [await store.entries("a", 0, 99), await store.entries("b", 1, 3)],
                [await store.due("default", NOON + timedelta(seconds=number), 9) for number in range(3)],
                await store.uploads("default"),
            ]
        )


def _plain(answer: object) -> object:
    match answer:
        case Acquired(record, lease):
            return record, lease.fence.number, lease.unclean, lease.alive
        case Held(fence=fence, waited=waited, answered=answered):
            return fence.number, waited, answered
        case Lease(fence=fence):
            return fence.number
        case list() | tuple():
            return [_plain(each) for each in answer]
        case _:
            return answer


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, min_size=5, max_size=40))
def test_sqlite_agrees_with_memory(history: list[Step]) -> None:
    async def run(place: Path) -> None:
        clock = ManualClock()
        async with SQLiteStore(place / "uploads.db", clock=clock, durability="none") as sqlite:
            ours, model = Run(sqlite), Run(MemoryStore(clock))
            for step in history:
                if step.call == "wait":
                    clock.advance(TTL * step.number / 2)
                    continue
                assert await ours.do(step) == await model.do(step), step
                assert await ours.everything() == await model.everything(), step

    with TemporaryDirectory() as place:
        asyncio.run(run(Path(place)))
