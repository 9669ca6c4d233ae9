"""The body of one request: from `receive()` to a sink, and how it came to its end.

Owns the loop over `receive()`: room, idle time, rate, checkpoints, and letting go when others ask; knows no
record, lease or storage. Nothing is done per chunk that can be done per second: one lookout watches all
bodies of an event loop, and no chunk costs a timer, a task or a lock.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from typing import Any, Final, Protocol, TypeAlias

import anyio

from tusserve.config import Timeouts
from tusserve.protocol.decide import BodyEnd
from tusserve.protocol.outcomes import Refused, RefusedByHost
from tusserve.protocol.records import Action

ReceiveMessage: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]

LOOKOUT: Final = 0.25
"""Seconds between two looks at all bodies."""
SILENCE: Final = 0.5
"""A body that brought nothing for so many seconds is let go when somebody asks."""
ASK_STANDS: Final = 2.0
"""For so many seconds after an ask a body that falls silent is let go."""
CHECKPOINT_SECONDS: Final = 30.0
"""The oldest byte that is not durable is never older than this, plus one look."""
HUNG_SECONDS: Final = 10.0
"""A sink that does not come back for so long no longer keeps others away."""


class Stop(IntEnum):
    """Why a body is ended from this side. Of two reasons the higher one counts."""

    STALLED = 1
    PREEMPTED = 2
    DRAINED = 3
    """The server is about to stop."""
    LEFT = 4
    """The request's own task was cancelled: there is nobody to answer."""
    TERMINATED = 5
    """The upload is to end: what came is worth nothing any more."""
    LOST = 6
    """The lease is lost: nothing may be committed."""


class Sink(Protocol):
    """Where the bytes of a body go. The pump calls one method at a time."""

    async def admit(self, head: bytes, *, whole: bool) -> Refused | RefusedByHost | None:
        """Whether any byte may be written, by the first ones; `whole`: they are the whole body. None: yes."""

    async def write(self, data: bytes) -> None:
        """Take these, which follow those before."""

    async def checkpoint(self) -> None:
        """Make durable, and commit, what was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a body may have, and in how much time. `expected` is its Content-Length; `head` how many bytes
    the first-chunk gate wants to see before any is written (0: there is no gate). `atomic`: there are no
    checkpoints, whoever asks for them."""

    room: int
    expected: int | None
    head: int
    atomic: bool
    checkpoint_bytes: int
    timeouts: Timeouts


class Pump:
    """Moves one body. `run` is called once, by the task that owns the request's bytes; `hung` is told when
    the sink does not come back."""

    def __init__(
        self,
        receive: ReceiveMessage,
        sink: Sink,
        limits: Limits,
        lookout: "Lookout",
        hung: Callable[[], None],
    ) -> None:
        self._receive = receive
        self._hung = hung
        self._sink = sink
        self._limits = limits
        self._lookout = lookout
        self._time = asyncio.get_running_loop().time
        self.received = 0
        """Bytes that came, written or still held for the gate."""
        self.stop: Stop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._waiting = False
        self._interrupting = False
        self._admitted = False
        self._wanted = False
        self._wanted_early = False
        self._beside: asyncio.Task[None] | None = None
        self._undurable = 0
        self._oldest = 0.0
        self._last = self._since = self._time()
        self._counted = 0
        self._let_go_until = 0.0
        self._busy_looks = 0

    # ---- the loop

    async def run(self) -> BodyEnd | Refused | RefusedByHost:
        """Pump until the body ends, in whatever way. What the sink's methods raise goes through."""
        self._task = asyncio.current_task()
        self._last = self._since = self._time()
        self._lookout.watch(self)
        try:
            end = await self._begin()
            while end is None:
                end = await self._step()
            return end
        finally:
            self._lookout.forget(self)
            if self._beside is not None:
                self._beside.cancel()
                await asyncio.wait({self._beside})

    async def _begin(self) -> BodyEnd | Refused | RefusedByHost | None:
        """Through the gate. A frame of its own: it holds the first bytes, and they must go with it."""
        head, end = await self._collect_head()
        if not head:
            return end
        refused = await self._sink.admit(head, whole=end is BodyEnd.WHOLE)
        if refused is not None:
            return refused
        if self.stop in {Stop.TERMINATED, Stop.LOST}:
            return _ENDS[self.stop]  # nothing is opened in the storage for nothing
        self._admitted, self._busy_looks = True, 0
        await self._write(head)
        self._wanted = self._wanted or self._wanted_early
        return end

    async def _collect_head(self) -> tuple[bytes, BodyEnd | None]:
        """The bytes that the gate wants, or without a gate the first chunk.

        A body that is cut before the gate has seen enough keeps nothing: the gate must not judge by less than
        it may see.
        """
        wanted = max(1, min(self._limits.head, self._limits.room))
        held: list[bytes] = []
        end: BodyEnd | None = None
        while self.received < wanted and end is None:
            data, end = await self._next()
            if data:
                held.append(data)
        if end not in {None, BodyEnd.WHOLE} and self.received < wanted:
            return b"", end
        return held[0] if len(held) == 1 else b"".join(held), end

    async def _step(self) -> BodyEnd | None:
        data, end = await self._next()
        if data:
            await self._write(data)
        return end

    async def _next(self) -> tuple[bytes, BodyEnd | None]:
        """The next chunk, and how the body ended if it did."""
        if self.stop is not None:
            return b"", _ENDS[self.stop]
        if self._wanted:
            await self._checkpoint(asked=True)
        message = await self._receive_or_stop()
        if self._beside is not None:
            beside, self._beside = self._beside, None
            await beside
        if message is None:
            return b"", None
        if message["type"] != "http.request":
            return b"", BodyEnd.CUT
        data = message.get("body", b"")
        if data:
            if self.received + len(data) > self._limits.room:
                return b"", BodyEnd.OVERRAN
            self.received += len(data)
            self._last = self._time()
        if message.get("more_body", False):
            return data, None
        expected = self._limits.expected
        return data, BodyEnd.WHOLE if expected is None or expected == self.received else BodyEnd.CUT

    async def _receive_or_stop(self) -> MutableMapping[str, Any] | None:
        """The next message; None if the wait for it was interrupted.

        The interruption is a native cancel of this very task while it waits in `receive()`, taken back here:
        a cancel scope around each wait would cost every chunk, one around the loop could hit a write. Only a
        body that ends is interrupted: a message may be on its way, and would be a hole in what follows.
        """
        assert self._task is not None
        self._waiting, self._busy_looks = True, 0
        try:
            message = await self._receive()
        except asyncio.CancelledError:
            if not self._interrupting:
                raise
            self._interrupting = False
            if self._task.uncancel() > 0:  # the event loop is being closed as well
                raise
            return None
        finally:
            self._waiting = False
        if self._interrupting:  # it came back all the same
            self._interrupting = False
            self._task.uncancel()
        return message

    async def _write(self, data: bytes) -> None:
        if not self._undurable:
            self._oldest = self._time()
        self._undurable += len(data)
        await self._sink.write(data)
        self._last = self._time()  # our own slowness is not the client's silence
        full = self._undurable >= self._limits.checkpoint_bytes
        if full or self._last - self._oldest >= CHECKPOINT_SECONDS:
            await self._checkpoint()
            self._last = self._time()

    async def _checkpoint(self, *, asked: bool = False) -> None:
        # Never at the last byte: that one is committed together with FINISHING. One that was asked for is
        # made with nothing new, too: its commit is the answer that somebody waits for.
        self._wanted = False
        if (self._undurable or asked) and self.received < self._limits.room and not self._limits.atomic:
            self._undurable = 0
            await self._sink.checkpoint()

    # ---- what others want

    def interrupt(self, why: Stop) -> None:
        """End the body here. A write or a checkpoint under way is not disturbed."""
        if self.stop is None or why > self.stop:
            self.stop = why
        self._wake()

    def _wake(self) -> None:
        if self._waiting and not self._interrupting and self._task is not None:
            self._interrupting = True
            self._task.cancel()

    def want_checkpoint(self) -> None:
        """Make durable what came: beside the wait for more, or else as soon as the sink is free."""
        if self._limits.atomic:
            return
        self._wanted = True
        if self._waiting and not self._is_busy_beside():
            self._busy_looks = 0
            self._beside = asyncio.get_running_loop().create_task(self._checkpoint(asked=True))
            self._beside.add_done_callback(self._beside_over)

    def _beside_over(self, ended: asyncio.Task[None]) -> None:
        if ended.cancelled():
            return
        if ended.exception() is not None:
            self._wake()  # to raise it
        elif self._wanted:
            self.want_checkpoint()  # asked for again meanwhile

    def _is_busy_beside(self) -> bool:
        return self._beside is not None and not self._beside.done()

    def asked(self, why: frozenset[Action]) -> None:
        """Another request wants the upload: make a checkpoint, or let go, as the reasons say."""
        if Action.TERMINATE in why:
            self.interrupt(Stop.TERMINATED)
            return
        now = self._time()
        self._let_go_until = now + ASK_STANDS
        if self._silent(now) or (Action.APPEND in why and self.received == 0):
            self.interrupt(Stop.PREEMPTED)
        elif Action.INSPECT in why:
            if self._admitted:
                self.want_checkpoint()
            else:
                self._wanted_early = True  # whoever asked waits for the first commit there is

    def look(self, now: float) -> None:
        """What the lookout does for this body, a few times a second."""
        if not self._waiting or self._is_busy_beside():
            self._since += LOOKOUT  # our own slowness does not count against the client's rate
            self._busy_looks += 1
            if self._admitted and self._busy_looks * LOOKOUT >= HUNG_SECONDS:
                self._hung()
                self._wanted = True  # should it come back: the commit shows whose the upload is now
            return
        timeouts = self._limits.timeouts
        idle = timeouts.idle.total_seconds()
        if now < self._let_go_until and self._silent(now):
            self.interrupt(Stop.PREEMPTED)
        elif now - self._last >= idle or self._slow(now, idle):
            self.interrupt(Stop.STALLED)
        elif self._admitted and self._undurable and now - self._oldest >= CHECKPOINT_SECONDS:
            self.want_checkpoint()

    def _silent(self, now: float) -> bool:
        return self._waiting and now - self._last >= SILENCE

    def _slow(self, now: float, period: float) -> bool:
        rate = self._limits.timeouts.min_rate
        if rate is None or now - self._since < period:
            return False
        brought = self.received - self._counted
        self._counted, self._since, began = self.received, now, self._since
        return brought < rate * (now - began)


_ENDS: Final = {
    Stop.STALLED: BodyEnd.STALLED,
    Stop.PREEMPTED: BodyEnd.PREEMPTED,
    Stop.DRAINED: BodyEnd.PREEMPTED,
    Stop.LEFT: BodyEnd.CUT,
    Stop.TERMINATED: BodyEnd.PREEMPTED,
    Stop.LOST: BodyEnd.PREEMPTED,
}


class Lookout:
    """Watches all bodies of this process: one timer for all of them, running only while there is one."""

    def __init__(self) -> None:
        self._pumps: set[Pump] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def watch(self, pump: Pump) -> None:
        """From now on, until `forget`."""
        self._pumps.add(pump)
        loop = asyncio.get_running_loop()
        if self._timer is None or self._loop is not loop:
            self._loop = loop
            self._timer = loop.call_later(LOOKOUT, self._look)

    def forget(self, pump: Pump) -> None:
        """Its body has ended."""
        self._pumps.discard(pump)

    def interrupt_all(self, why: Stop) -> None:
        """Let every body go."""
        for pump in tuple(self._pumps):
            pump.interrupt(why)

    def _look(self) -> None:
        assert self._loop is not None
        now = self._loop.time()
        for pump in tuple(self._pumps):
            pump.look(now)
        self._timer = self._loop.call_later(LOOKOUT, self._look) if self._pumps else None

    def __len__(self) -> int:
        return len(self._pumps)


async def is_empty(receive: ReceiveMessage, patience: timedelta) -> bool:
    """Whether the body brings nothing, read as far as it takes to know; who goes away has brought it all. One
    that is silent for longer than that is taken for one that would bring something."""
    with anyio.move_on_after(patience.total_seconds()):
        while True:
            message = await receive()
            if message.get("body", b""):
                return False
            if message["type"] != "http.request" or not message.get("more_body", False):
                return True
    return False
