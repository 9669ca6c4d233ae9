"""A body by script and a sink that writes everything down: what a pump is tried with, without any app."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from starlette.types import Message

from tusserve.body import Limits, Lookout, Pump
from tusserve.config import Timeouts
from tusserve.protocol.outcomes import Refused, RefusedByHost

CHECKPOINT_BYTES = 1 << 40
"""More than any body here: only what a test wants makes a checkpoint."""


class Silence:
    """From here on the client says nothing, until `more` was told what follows."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._more: asyncio.Queue[Message] = asyncio.Queue()

    def more(self, message: Message) -> None:
        """The client goes on with this."""
        self._more.put_nowait(message)

    async def next(self) -> Message:
        self.reached.set()
        return await self._more.get()


Step: TypeAlias = Message | Silence | Callable[[], Awaitable[Message]]


def chunk(data: bytes, *, more: bool = True) -> Message:
    """One piece of a body."""
    return {"type": "http.request", "body": data, "more_body": more}


END: Message = {"type": "http.request", "body": b"", "more_body": False}
GONE: Message = {"type": "http.disconnect"}


class Script:
    """A `receive()` that says one step after another. Each takes a turn of the loop, as on a server."""

    def __init__(self, *steps: Step) -> None:
        self._steps = list(steps)
        self.asked = 0

    async def __call__(self) -> Message:
        self.asked += 1
        await asyncio.sleep(0)
        if not self._steps:
            raise AssertionError("the pump asks for more than the body has")
        step = self._steps[0]
        if isinstance(step, Silence):
            return await step.next()
        self._steps.pop(0)
        return await step() if callable(step) else step


class Tally:
    """A sink that keeps what it is given. What a test puts into `before` is awaited first."""

    def __init__(self, *, answer: Refused | RefusedByHost | None = None) -> None:
        self.data = bytearray()
        self.heads: list[tuple[bytes, bool]] = []
        self.checkpoints: list[int] = []
        self.calls: list[str] = []
        self.busy = 0
        self.before: dict[str, Callable[[], Awaitable[None]]] = {}
        self._answer = answer

    async def _enter(self, call: str) -> None:
        self.calls.append(call)
        assert not self.busy, f"{call} while another call is under way"
        self.busy += 1
        try:
            if call in self.before:
                await self.before[call]()
        finally:
            self.busy -= 1

    async def admit(self, head: bytes, *, whole: bool) -> Refused | RefusedByHost | None:
        self.heads.append((bytes(head), whole))
        await self._enter("admit")
        return self._answer

    async def write(self, data: bytes) -> None:
        await self._enter("write")
        self.data += data

    async def checkpoint(self) -> None:
        await self._enter("checkpoint")
        self.checkpoints.append(len(self.data))


def pump_of(
    receive: Callable[[], Awaitable[Message]],
    sink: Tally,
    *,
    room: int = 1 << 30,
    expected: int | None = None,
    head: int = 0,
    checkpoint_bytes: int = CHECKPOINT_BYTES,
    timeouts: Timeouts | None = None,
    atomic: bool = False,
    lookout: Lookout | None = None,
    hung: Callable[[], None] = lambda: None,
) -> Pump:
    """A pump from `receive` into `sink`, without limits but those that are given."""
    limits = Limits(
        room=room,
        expected=expected,
        head=head,
        atomic=atomic,
        checkpoint_bytes=checkpoint_bytes,
        timeouts=timeouts or Timeouts(),
    )
    return Pump(receive, sink, limits, Lookout() if lookout is None else lookout, hung)


async def until(holds: Callable[[], bool], *, seconds: float = 20.0) -> None:
    """Wait until it holds. `AssertionError` if that takes so long that it never will."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not holds():
        assert asyncio.get_running_loop().time() < deadline, "it never came about"
        await asyncio.sleep(0.005)


def pieces(data: bytes, size: int) -> Sequence[bytes]:
    """`data` in pieces of `size`."""
    return [data[begin : begin + size] for begin in range(0, len(data), size)]
