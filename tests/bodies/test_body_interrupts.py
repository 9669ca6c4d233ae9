"""A body that is interrupted: nothing that came is lost, nothing is counted twice, nobody waits for ever."""

import asyncio

import pytest
from starlette.types import Message

from tests.bodies.scripted import END, GONE, Script, Silence, Tally, chunk, pump_of, until
from tusserve.body import Lookout, Pump, Stop
from tusserve.protocol.decide import BodyEnd
from tusserve.protocol.outcomes import Refused, RefusedByHost
from tusserve.protocol.records import Action

pytestmark = pytest.mark.anyio

INSPECT = frozenset({Action.INSPECT})
APPEND = frozenset({Action.APPEND})
TERMINATE = frozenset({Action.TERMINATE})

ENDS = {
    Stop.STALLED: BodyEnd.STALLED,
    Stop.PREEMPTED: BodyEnd.PREEMPTED,
    Stop.DRAINED: BodyEnd.PREEMPTED,
    Stop.LEFT: BodyEnd.CUT,
    Stop.TERMINATED: BodyEnd.PREEMPTED,
    Stop.LOST: BodyEnd.PREEMPTED,
}


class Gate:
    """Something in the way, until it is opened."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await self.open.wait()


def start(pump: Pump) -> "asyncio.Task[BodyEnd | Refused | RefusedByHost]":
    return asyncio.create_task(pump.run())


@pytest.mark.parametrize("why", Stop)
async def test_interrupted_while_it_waits_it_ends_at_once_with_what_came(why: Stop) -> None:
    lookout, sink, silence = Lookout(), Tally(), Silence()
    pump = pump_of(Script(chunk(b"abc"), silence), sink, lookout=lookout)
    running = start(pump)
    await silence.reached.wait()
    pump.interrupt(why)
    assert await running is ENDS[why]
    assert bytes(sink.data) == b"abc" and pump.stop is why
    assert running.cancelling() == 0, "the cancel that woke it was not taken back"
    assert len(lookout) == 0


@pytest.mark.parametrize("why", Stop)
async def test_interrupted_during_a_write_it_ends_after_it(why: Stop) -> None:
    gate, sink = Gate(), Tally()
    sink.before["write"] = gate
    pump = pump_of(Script(chunk(b"abc"), chunk(b"def"), END), sink)
    running = start(pump)
    await gate.reached.wait()
    pump.interrupt(why)
    gate.open.set()
    assert await running is ENDS[why]
    assert bytes(sink.data) == b"abc"
    assert running.cancelling() == 0


@pytest.mark.parametrize("why", Stop)
async def test_interrupted_during_a_checkpoint_it_ends_after_it(why: Stop) -> None:
    gate, sink = Gate(), Tally()
    sink.before["checkpoint"] = gate
    pump = pump_of(Script(chunk(b"abc"), chunk(b"def"), END), sink, checkpoint_bytes=3)
    running = start(pump)
    await gate.reached.wait()
    pump.interrupt(why)
    gate.open.set()
    assert await running is ENDS[why]
    assert bytes(sink.data) == b"abc" and sink.checkpoints == [3]


@pytest.mark.parametrize("why", Stop)
async def test_interrupted_in_the_gate_it_writes_only_what_may_be_kept(why: Stop) -> None:
    """An upload that ends, or is somebody else's by now, is not opened in the storage for nothing."""
    gate, sink = Gate(), Tally()
    sink.before["admit"] = gate
    pump = pump_of(Script(chunk(b"abcd"), END), sink, head=4)
    running = start(pump)
    await gate.reached.wait()
    pump.interrupt(why)
    gate.open.set()
    assert await running is ENDS[why]
    assert bytes(sink.data) == (b"" if why in {Stop.TERMINATED, Stop.LOST} else b"abcd")


@pytest.mark.parametrize("why", Stop)
async def test_interrupted_before_the_gate_has_its_head_it_keeps_nothing(why: Stop) -> None:
    sink, silence = Tally(), Silence()
    pump = pump_of(Script(chunk(b"abc"), silence), sink, head=4)
    running = start(pump)
    await silence.reached.wait()
    pump.interrupt(why)
    assert await running is ENDS[why]
    assert sink.calls == []


@pytest.mark.parametrize("why", Stop)
async def test_interrupted_before_it_began_it_asks_for_nothing(why: Stop) -> None:
    script, sink = Script(), Tally()
    pump = pump_of(script, sink)
    pump.interrupt(why)
    assert await pump.run() is ENDS[why]
    assert script.asked == 0 and sink.calls == []


@pytest.mark.parametrize("first", Stop)
@pytest.mark.parametrize("second", Stop)
async def test_of_two_interrupts_the_graver_counts(first: Stop, second: Stop) -> None:
    silence = Silence()
    pump = pump_of(Script(chunk(b"abc"), silence), Tally())
    running = start(pump)
    await silence.reached.wait()
    pump.interrupt(first)
    pump.interrupt(second)
    graver = max(first, second)
    assert await running is ENDS[graver]
    assert pump.stop is graver and running.cancelling() == 0


@pytest.mark.parametrize("interrupted_first", [True, False])
async def test_a_native_cancel_at_the_same_time_is_not_swallowed(interrupted_first: bool) -> None:
    lookout, silence = Lookout(), Silence()
    pump = pump_of(Script(chunk(b"abc"), silence), Tally(), lookout=lookout)
    running = start(pump)
    await silence.reached.wait()
    if interrupted_first:
        pump.interrupt(Stop.PREEMPTED)
    running.cancel()
    if not interrupted_first:
        pump.interrupt(Stop.PREEMPTED)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert running.cancelled() and len(lookout) == 0


@pytest.mark.parametrize("call", ["admit", "write", "checkpoint"])
async def test_a_native_cancel_reaches_the_sink_once(call: str) -> None:
    gate, sink, lookout = Gate(), Tally(), Lookout()
    sink.before[call] = gate
    running = start(pump_of(Script(chunk(b"abc"), END), sink, checkpoint_bytes=1, lookout=lookout))
    await gate.reached.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not sink.busy and len(lookout) == 0


async def test_the_last_bytes_with_the_end_of_the_body_count_although_it_was_interrupted() -> None:
    gate, sink = Gate(), Tally()
    sink.before["write"] = gate
    pump = pump_of(Script(chunk(b"abc", more=False)), sink, expected=3)
    running = start(pump)
    await gate.reached.wait()
    pump.interrupt(Stop.PREEMPTED)
    gate.open.set()
    assert await running is BodyEnd.WHOLE


async def test_a_receive_that_swallows_the_interruption_can_be_interrupted_again() -> None:
    """Middleware may catch everything. What it then says counts, and so does the next interruption."""
    waiting = asyncio.Event()

    async def stubborn() -> Message:
        try:
            waiting.set()
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return chunk(b"def")
        raise AssertionError("nobody interrupted it")

    sink = Tally()
    pump = pump_of(Script(chunk(b"abc"), stubborn), sink)
    running = start(pump)
    await waiting.wait()
    pump.interrupt(Stop.PREEMPTED)
    assert await running is BodyEnd.PREEMPTED
    assert bytes(sink.data) == b"abcdef"
    assert running.cancelling() == 0, "the next await of the request would have been cancelled"


# ---- checkpoints


async def test_a_message_on_its_way_while_a_checkpoint_is_asked_for_is_not_lost() -> None:
    """Servers and middleware take a message before `receive()` has come back: whoever cancels it then, and
    goes on, has a hole in the file."""
    taken = asyncio.Event()

    async def slow_to_hand_over() -> Message:
        taken.set()
        await asyncio.sleep(0.05)
        return chunk(b"-middle-")

    sink = Tally()
    pump = pump_of(Script(chunk(b"head"), slow_to_hand_over, chunk(b"tail"), END), sink)
    running = start(pump)
    await taken.wait()
    pump.asked(INSPECT)
    assert await running is BodyEnd.WHOLE
    assert bytes(sink.data) == b"head-middle-tail"
    assert sink.checkpoints == [4]


async def test_a_checkpoint_is_made_at_once_while_the_client_is_silent() -> None:
    sink, silence = Tally(), Silence()
    pump = pump_of(Script(chunk(b"abc"), silence), sink)
    running = start(pump)
    await silence.reached.wait()
    pump.want_checkpoint()
    await until(lambda: sink.checkpoints == [3])
    pump.want_checkpoint()
    await until(lambda: sink.checkpoints == [3, 3])  # with nothing new, too: somebody waits for the commit
    assert not running.done() and pump.stop is None
    pump.interrupt(Stop.LEFT)
    assert await running is BodyEnd.CUT


async def test_a_chunk_that_comes_during_a_checkpoint_waits_for_it() -> None:
    gate, sink, silence = Gate(), Tally(), Silence()
    sink.before["checkpoint"] = gate
    pump = pump_of(Script(chunk(b"abc"), silence), sink)
    running = start(pump)
    await silence.reached.wait()
    pump.want_checkpoint()
    await gate.reached.wait()
    silence.more(chunk(b"def", more=False))
    for _ in range(10):
        await asyncio.sleep(0)
    assert bytes(sink.data) == b"abc", "written beside a flush"
    gate.open.set()
    assert await running is BodyEnd.WHOLE
    assert bytes(sink.data) == b"abcdef" and sink.checkpoints == [3]


async def test_a_checkpoint_asked_for_during_a_write_is_made_before_the_next_wait() -> None:
    gate, sink, silence = Gate(), Tally(), Silence()
    sink.before["write"] = gate
    pump = pump_of(Script(chunk(b"abc"), silence), sink)
    running = start(pump)
    await gate.reached.wait()
    pump.asked(INSPECT)
    gate.open.set()
    await until(lambda: sink.checkpoints == [3])
    pump.interrupt(Stop.LEFT)
    assert await running is BodyEnd.CUT


async def test_a_second_wish_during_a_checkpoint_is_another_checkpoint() -> None:
    gate, sink, silence = Gate(), Tally(), Silence()
    sink.before["checkpoint"] = gate
    pump = pump_of(Script(chunk(b"abc"), silence), sink)
    running = start(pump)
    await silence.reached.wait()
    pump.want_checkpoint()
    await gate.reached.wait()
    pump.want_checkpoint()
    pump.want_checkpoint()
    gate.open.set()
    await until(lambda: sink.checkpoints == [3, 3])
    pump.interrupt(Stop.LEFT)
    await running
    assert sink.checkpoints == [3, 3]


@pytest.mark.parametrize("why", Stop)
async def test_an_interrupt_during_a_checkpoint_beside_waits_for_it(why: Stop) -> None:
    gate, sink, silence = Gate(), Tally(), Silence()
    sink.before["checkpoint"] = gate
    pump = pump_of(Script(chunk(b"abc"), silence), sink)
    running = start(pump)
    await silence.reached.wait()
    pump.want_checkpoint()
    await gate.reached.wait()
    pump.interrupt(why)
    for _ in range(10):
        await asyncio.sleep(0)
    assert not running.done(), "the storage is still at it"
    gate.open.set()
    assert await running is ENDS[why]
    assert not sink.busy


async def test_a_checkpoint_that_fails_ends_a_silent_body() -> None:
    async def fail() -> None:
        raise OSError("the disk says no")

    sink, silence = Tally(), Silence()
    sink.before["checkpoint"] = fail
    pump = pump_of(Script(chunk(b"abc"), silence), sink)
    running = start(pump)
    await silence.reached.wait()
    pump.want_checkpoint()
    with pytest.raises(OSError, match="the disk says no"):
        await running


async def test_a_native_cancel_ends_the_checkpoint_beside_it_too() -> None:
    gate, sink, silence = Gate(), Tally(), Silence()
    sink.before["checkpoint"] = gate
    running = start(pump := pump_of(Script(chunk(b"abc"), silence), sink))
    await silence.reached.wait()
    pump.want_checkpoint()
    await gate.reached.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not sink.busy, "the storage would be left while it is used"


async def test_no_checkpoint_once_the_last_byte_has_come() -> None:
    sink, silence = Tally(), Silence()
    pump = pump_of(Script(chunk(b"abc"), silence), sink, room=3)
    running = start(pump)
    await silence.reached.wait()
    pump.asked(INSPECT)
    for _ in range(10):
        await asyncio.sleep(0)
    silence.more(END)
    assert await running is BodyEnd.WHOLE
    assert sink.checkpoints == []


# ---- what is asked for


@pytest.mark.parametrize(
    ("why", "came", "silent", "expected"),
    [
        (TERMINATE, True, False, Stop.TERMINATED),
        (TERMINATE | INSPECT, True, True, Stop.TERMINATED),
        (TERMINATE, False, False, Stop.TERMINATED),
        (INSPECT, True, False, "checkpoint"),
        (INSPECT, True, True, Stop.PREEMPTED),
        (INSPECT, False, False, None),
        (INSPECT, False, True, Stop.PREEMPTED),
        (APPEND, True, False, None),
        (APPEND, True, True, Stop.PREEMPTED),
        (APPEND, False, False, Stop.PREEMPTED),
        (APPEND | INSPECT, True, False, "checkpoint"),
        (APPEND | INSPECT, False, False, Stop.PREEMPTED),
    ],
)
async def test_what_an_ask_comes_to(
    why: frozenset[Action],
    came: bool,
    silent: bool,
    expected: Stop | str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if silent:
        monkeypatch.setattr("tusserve.body.SILENCE", 0.0)
    sink, silence = Tally(), Silence()
    pump = pump_of(Script(chunk(b"abc"), silence) if came else Script(silence), sink)
    running = start(pump)
    await silence.reached.wait()
    pump.asked(why)
    for _ in range(10):
        await asyncio.sleep(0)
    stop, checkpoints = pump.stop, list(sink.checkpoints)
    pump.interrupt(Stop.LOST)
    await running
    assert (stop or ("checkpoint" if checkpoints else None)) == expected


async def test_head_does_not_disturb_a_body_before_its_gate() -> None:
    sink, silence = Tally(), Silence()
    pump = pump_of(Script(chunk(b"ab"), silence), sink, head=4)
    running = start(pump)
    await silence.reached.wait()
    pump.asked(INSPECT)
    for _ in range(10):
        await asyncio.sleep(0)
    assert pump.stop is None and sink.calls == []
    silence.more(chunk(b"cd", more=False))
    assert await running is BodyEnd.WHOLE


async def test_what_head_asked_before_the_gate_is_answered_behind_it() -> None:
    """Or whoever asked a moment too early would wait for the whole grace."""
    sink, silence = Tally(), Silence()
    pump = pump_of(Script(silence), sink, head=4)
    running = start(pump)
    await silence.reached.wait()
    pump.asked(INSPECT)
    silence.more(chunk(b"abcd"))
    await until(lambda: sink.checkpoints == [4])
    silence.more(chunk(b"ef", more=False))
    assert await running is BodyEnd.WHOLE
    assert sink.checkpoints == [4]


async def test_the_client_that_goes_on_after_an_ask_is_not_robbed() -> None:
    sink, silence = Tally(), Silence()
    pump = pump_of(Script(chunk(b"abc"), silence), sink)
    running = start(pump)
    await silence.reached.wait()
    pump.asked(APPEND)
    silence.more(chunk(b"def"))
    silence.more(GONE)
    assert await running is BodyEnd.CUT
    assert bytes(sink.data) == b"abcdef"
