"""Who may write: to take a lease, keep it, ask for it, answer for it, take it over.

Owns the policy, once, over the stores' atomic steps: grace, heartbeat and answers; knows nothing of bodies or
storages. The engine, the finisher and the reaper take leases here and do everything under a `Tenure`.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Final, Self, TypeAlias

from tusserve.contracts import Acquired, Ask, Fence, Held, Lease, ProvesDeath, UploadStore
from tusserve.errors import StoreUnavailable
from tusserve.protocol.outcomes import Code
from tusserve.protocol.records import Action, UploadRecord, UploadState

logger = logging.getLogger("tusserve")

TTL: Final = timedelta(seconds=15)
HEARTBEAT: Final = 5.0
LONGEST_SILENCE: Final = 10.0
"""A holder that could not renew for so many seconds stops by itself, well before others may take over."""
GRACE: Final = timedelta(seconds=2)
"""How long a holder may leave an ask unanswered before the one who asked takes over."""
FIRST_LOOK: Final = 0.01
LONGEST_LOOK: Final = 0.05
"""Seconds between two looks at a lease that was asked for."""
END_BEGINS: Final = 1.0
"""Seconds after which one who asked to end an upload, and for whom it was let go, has begun or given up."""
SECOND_HEARING: Final = 1.0
"""Seconds after which a stream of asks that broke is opened again."""
REPEATS: Final = (0.05, 0.2, 0.8)
"""Pauses before a commit whose answer was lost is repeated, in seconds; repeating is safe (clause U4)."""


@dataclass(frozen=True, slots=True)
class Locked:
    """The lease is somebody else's, and that one is alive."""


class Tenure:
    """What this process does with one upload under one lease. Leaving it lets the lease go.

    `record` is the committed one. `on_ask` is told what others want; `on_lost` that everything from now on is
    in vain. `clean` says whether anything begun under it may still land: whoever opens a writer clears it.
    """

    def __init__(self, leases: "Leases", acquired: Acquired) -> None:
        self._leases = leases
        self.record = acquired.record
        self.lease: Lease = acquired.lease
        self.lost = False
        self.clean = True
        self.on_ask: Callable[[frozenset[Action]], None] | None = None
        self.on_lost: Callable[[], None] | None = None
        self._over = False
        self.renewed_at = asyncio.get_running_loop().time()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._over:
            await self._release()

    async def commit(self, record: UploadRecord, added: Sequence[str] = (), *, release: bool = False) -> bool:
        """The commit point. False: the lease is lost and nothing was changed. With `release` it is let go.

        Raises `StoreUnavailable` when several attempts brought no answer: whether it took effect is unknown.
        """
        if self.lost:
            return False
        committed = await self._commit_surely(record, added, release=release)
        if committed is None:
            self.lose()
            return False
        self.record = committed
        self.renewed_at = asyncio.get_running_loop().time()
        if release:
            self._leave()
        else:
            self._leases.entered(self)
        return True

    async def _commit_surely(
        self, record: UploadRecord, added: Sequence[str], *, release: bool
    ) -> UploadRecord | None:
        store = self._leases.store
        for pause in REPEATS:
            try:
                return await store.commit(self.lease, record, added, release=release)
            except StoreUnavailable:
                await asyncio.sleep(pause)
        return await store.commit(self.lease, record, added, release=release)

    async def _release(self) -> None:
        self._leave()
        if self.lost:
            return
        try:
            await self._leases.store.release(self.lease, clean=self.clean)
        except StoreUnavailable:
            logger.warning(
                "the lease of upload %s could not be let go; it runs out by itself",
                self.lease.id,
                extra={"id": self.lease.id, "code": Code.STORE_UNAVAILABLE},
            )

    def _leave(self) -> None:
        self._over = True
        self._leases.left(self)

    def lose(self) -> None:
        """Somebody else has it now, or may have."""
        if not self.lost:
            self.lost = True
            self._leave()
            if self.on_lost is not None:
                self.on_lost()

    def stop_renewing(self) -> None:
        """The work hangs: let the lease run out, so that others may take over. A commit renews again."""
        self._leases.left(self)


Taken: TypeAlias = Tenure | Locked | None
"""A lease, or somebody else's, or no such upload."""


class Leases:
    """All leases of this process on one store: one heartbeat and one stream of asks serve them all.

    Both run on the event loop of the work and only while a lease is held: a loop that is blocked answers
    nobody, and a loop that is gone (a test client's, one a request) leaves nothing behind.
    """

    def __init__(self, store: UploadStore, *, durable: bool) -> None:
        self.store = store
        self._holder = ""
        self._durable = durable
        self._held: dict[str, Tenure] = {}
        self._heart: asyncio.Task[None] | None = None
        self._ear: asyncio.Task[None] | None = None
        self._enlisted = False

    # ---- taking

    async def take(self, id: str) -> Taken:
        """The lease if nobody holds a live one. Asks nobody."""
        await self._get_ready()
        got = await self.store.acquire(id, self._holder, TTL, durable=self._durable)
        return self._taken(got)

    async def take_over(self, id: str, why: Action) -> Taken:
        """The lease, after asking its holder to let go where there is one.

        Takes over from a holder that left the ask unanswered for the grace; one that answers keeps it.
        Leases of uploads that are finishing or ending are neither asked for nor taken over.
        """
        await self._get_ready()
        got = await self.store.acquire(id, self._holder, TTL, durable=self._durable)
        if isinstance(got, Held):
            got = await self._ask_and_wait(id, got, why)
        return self._taken(got)

    def _taken(self, got: Acquired | Held | None) -> Taken:
        if got is None:
            return None
        if isinstance(got, Held):
            return Locked()
        tenure = Tenure(self, got)
        self.entered(tenure)
        return tenure

    async def _ask_and_wait(self, id: str, held: Held, why: Action) -> Acquired | Held | None:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + 2 * GRACE.total_seconds()
        asked: Fence | None = None
        pause = FIRST_LOOK
        while loop.time() < give_up:
            found = await self.store.get(id)
            if found is None:
                return None
            record, now_held = found
            if now_held is None:
                got = await self.store.acquire(id, self._holder, TTL, durable=self._durable)
                if not isinstance(got, Held):
                    return got
                now_held = got  # somebody else was faster: ask that one
            if record.state in {UploadState.FINISHING, UploadState.ENDING, UploadState.GONE}:
                return now_held
            if now_held.fence != asked:
                asked = now_held.fence
                await self.store.ask(id, asked, why)
            elif now_held.waited is not None and now_held.waited >= GRACE:
                if now_held.answered:
                    return now_held
                return await self.store.acquire(id, self._holder, TTL, steal=asked, durable=self._durable)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_LOOK)
        return held

    async def look(self, record: UploadRecord, held: Held) -> tuple[UploadRecord, Held | None] | None:
        """What is committed after the holder was asked for it: when the lease is gone, the record moved, or
        the grace is over. Takes nothing."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + GRACE.total_seconds()
        await self.store.ask(record.id, held.fence, Action.INSPECT)
        pause = FIRST_LOOK
        while True:
            found = await self.store.get(record.id)
            if found is None or found[1] is None or found[0].revision != record.revision:
                return found
            if loop.time() >= give_up:
                return found
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_LOOK)

    async def await_end(self, id: str) -> UploadRecord | None:
        """The upload after its lease was let go for one who wants to end it: ending, unless that one gave up
        meanwhile. None: it is gone altogether."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + END_BEGINS
        pause = FIRST_LOOK
        while True:
            found = await self.store.get(id)
            if found is None:
                return None
            if found[0].state in {UploadState.ENDING, UploadState.GONE} or loop.time() >= give_up:
                return found[0]
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_LOOK)

    # ---- keeping

    def entered(self, tenure: Tenure) -> None:
        """`tenure` is to be renewed from now on."""
        self._held[tenure.lease.id] = tenure
        if self._heart is None or self._heart.done() or _elsewhere(self._heart):
            self._heart = asyncio.get_running_loop().create_task(self._beat())

    def left(self, tenure: Tenure) -> None:
        """`tenure` is over, or is to be renewed no more."""
        if self._held.get(tenure.lease.id) is tenure:
            del self._held[tenure.lease.id]

    async def _get_ready(self) -> None:
        if not self._enlisted:
            self._holder = uuid.uuid4().hex  # a new one for each start: the old one's death may be noted
            if isinstance(self.store, ProvesDeath):
                await self.store.enlist(self._holder)
            self._enlisted = True
        if self._ear is None or self._ear.done() or _elsewhere(self._ear):
            listening = asyncio.Event()
            self._ear = asyncio.get_running_loop().create_task(self._listen(listening))
            await listening.wait()

    async def _beat(self) -> None:
        while self._held:
            await asyncio.sleep(HEARTBEAT)
            await self._renew(list(self._held.values()))

    async def _renew(self, tenures: Sequence[Tenure]) -> None:
        loop = asyncio.get_running_loop()
        try:
            lost = await self.store.renew([tenure.lease for tenure in tenures])
        except StoreUnavailable:
            for tenure in tenures:
                if loop.time() - tenure.renewed_at > LONGEST_SILENCE:
                    tenure.lose()
            return
        gone = {lease.id for lease in lost}
        for tenure in tenures:
            if tenure.lease.id not in gone:
                tenure.renewed_at = loop.time()
            elif self._held.get(tenure.lease.id) is tenure:  # not one that was let go meanwhile
                tenure.lose()

    # ---- answering

    async def _listen(self, listening: asyncio.Event) -> None:
        while True:
            try:
                async with self.store.asked(self._holder) as asks:
                    listening.set()
                    async for ask in asks:
                        await self._answer(ask)
            except StoreUnavailable:
                logger.warning(
                    "asks cannot be heard: the store is away", extra={"code": Code.STORE_UNAVAILABLE}
                )
            except Exception:  # a store of somebody else's; without this, everybody would wait for the ear
                logger.exception("asks cannot be heard", extra={"code": Code.STORE_UNAVAILABLE})
            listening.set()
            await asyncio.sleep(SECOND_HEARING)

    async def _answer(self, ask: Ask) -> None:
        """Act first, it costs nothing; then say that somebody is there, which is a renewal."""
        tenure = self._held.get(ask.id)
        if tenure is None or tenure.lease.fence != ask.fence:
            return
        if tenure.on_ask is not None:
            tenure.on_ask(ask.why)
        await self._renew([tenure])

    async def close(self) -> None:
        """Stop listening and beating. Leases that are still held run out by themselves."""
        for task in (self._ear, self._heart):
            if task is not None and not task.done() and not _elsewhere(task):
                task.cancel()
                await asyncio.wait({task})
        self._ear = self._heart = None
        self._enlisted = False


def _elsewhere(task: asyncio.Task[None]) -> bool:
    return task.get_loop() is not asyncio.get_running_loop()
