"""What the lookout sees: silence, a slow client, a slow storage of our own, and a storage that hangs."""

import asyncio
import gc
import weakref
from datetime import timedelta

import pytest
from starlette.types import Message

from tests.bodies.scripted import END, Script, Silence, Step, Tally, chunk, pump_of, until
from tusserve.body import Lookout, Pump, Stop
from tusserve.config import Timeouts
from tusserve.protocol.decide import BodyEnd
from tusserve.protocol.records import Action

pytestmark = pytest.mark.anyio

LONG_AGO = 3600.0


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tusserve.body.LOOKOUT", 0.01)


def idle(seconds: float, *, min_rate: int | None = None) -> Timeouts:
    return Timeouts(idle=timedelta(seconds=seconds), min_rate=min_rate)


@pytest.mark.usefixtures("quick_looks")
@pytest.mark.parametrize("steps", [(), (chunk(b"abc"),)])
async def test_a_silent_body_is_given_up_after_the_idle_time(steps: tuple[Step, ...]) -> None:
    sink = Tally()
    pump = pump_of(Script(*steps, Silence()), sink, timeouts=idle(0.1))
    assert await pump.run() is BodyEnd.STALLED
    assert bytes(sink.data) == (b"abc" if steps else b"")


@pytest.mark.usefixtures("quick_looks")
async def test_empty_chunks_are_no_sign_of_life() -> None:
    async def nothing() -> Message:
        await asyncio.sleep(0.005)
        return chunk(b"")

    steps: list[Step] = [nothing] * 10_000
    assert await pump_of(Script(*steps), Tally(), timeouts=idle(0.1)).run() is BodyEnd.STALLED


@pytest.mark.usefixtures("quick_looks")
async def test_a_client_below_the_rate_is_given_up() -> None:
    async def one() -> Message:
        await asyncio.sleep(0.02)
        return chunk(b"x")

    steps: list[Step] = [one] * 10_000
    pump = pump_of(Script(*steps), Tally(), timeouts=idle(0.2, min_rate=10_000))
    assert await pump.run() is BodyEnd.STALLED


@pytest.mark.usefixtures("quick_looks")
async def test_a_client_above_the_rate_is_not() -> None:
    async def some() -> Message:
        await asyncio.sleep(0.02)
        return chunk(b"x" * 1000)

    steps: list[Step] = [some] * 30
    pump = pump_of(Script(*steps, END), Tally(), timeouts=idle(0.2, min_rate=1000))
    assert await pump.run() is BodyEnd.WHOLE


@pytest.mark.usefixtures("quick_looks")
async def test_our_own_slow_storage_counts_neither_as_silence_nor_against_the_rate() -> None:
    async def slow() -> None:
        await asyncio.sleep(0.4)

    async def in_flight() -> Message:
        await asyncio.sleep(0.05)  # what a network takes, and the lookout sees the pump wait
        return chunk(b"x" * 100)

    sink = Tally()
    sink.before["write"] = slow
    steps: list[Step] = [in_flight] * 4
    pump = pump_of(Script(*steps, END), sink, timeouts=idle(0.2, min_rate=300))
    assert await pump.run() is BodyEnd.WHOLE


async def test_a_slow_write_is_no_silence_when_somebody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A healthy upload is never robbed: that its storage took long says nothing of its client."""
    monkeypatch.setattr("tusserve.body.SILENCE", 0.2)

    async def slow() -> None:
        await asyncio.sleep(0.3)

    sink, silence = Tally(), Silence()
    sink.before["write"] = slow
    pump = pump_of(Script(chunk(b"abc"), silence), sink)
    running = asyncio.create_task(pump.run())
    await silence.reached.wait()
    pump.asked(frozenset({Action.APPEND}))
    assert pump.stop is None
    silence.more(chunk(b"def", more=False))
    assert await running is BodyEnd.WHOLE


@pytest.mark.usefixtures("quick_looks")
async def test_a_body_that_falls_silent_while_an_ask_stands_lets_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tusserve.body.SILENCE", 0.1)
    sink, silence = Tally(), Silence()
    pump = pump_of(Script(chunk(b"abc"), silence), sink)
    running = asyncio.create_task(pump.run())
    await silence.reached.wait()
    pump.asked(frozenset({Action.APPEND}))
    assert pump.stop is None
    assert await running is BodyEnd.PREEMPTED


@pytest.mark.usefixtures("quick_looks")
async def test_an_ask_does_not_stand_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tusserve.body.SILENCE", 0.1)
    monkeypatch.setattr("tusserve.body.ASK_STANDS", 0.0)
    sink, silence = Tally(), Silence()
    pump = pump_of(Script(chunk(b"abc"), silence), sink)
    running = asyncio.create_task(pump.run())
    await silence.reached.wait()
    pump.asked(frozenset({Action.APPEND}))
    await asyncio.sleep(0.3)
    assert pump.stop is None
    silence.more(END)
    assert await running is BodyEnd.WHOLE


# ---- the oldest byte that is not durable


@pytest.mark.usefixtures("quick_looks")
async def test_a_slow_body_is_made_durable_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tusserve.body.CHECKPOINT_SECONDS", 0.1)
    sink, silence = Tally(), Silence()
    pump = pump_of(Script(chunk(b"abc"), silence), sink)
    running = asyncio.create_task(pump.run())
    await until(lambda: sink.checkpoints == [3])
    await asyncio.sleep(0.2)
    assert sink.checkpoints == [3], "nothing new is nothing to make durable"
    silence.more(chunk(b"def"))
    await until(lambda: sink.checkpoints == [3, 6])
    pump.interrupt(Stop.LEFT)
    await running


async def test_so_is_one_that_the_lookout_never_sees_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tusserve.body.CHECKPOINT_SECONDS", 0.1)

    async def slow() -> None:
        await asyncio.sleep(0.03)

    sink = Tally()
    sink.before["write"] = slow
    steps: list[Step] = [chunk(b"x")] * 12
    assert await pump_of(Script(*steps, END), sink).run() is BodyEnd.WHOLE
    assert sink.checkpoints, "by the lookout alone there would be none: it always sees a write"


# ---- a storage that hangs


@pytest.mark.usefixtures("quick_looks")
@pytest.mark.parametrize("call", ["write", "checkpoint"])
async def test_a_sink_that_does_not_come_back_is_told(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tusserve.body.HUNG_SECONDS", 0.1)
    hung, back, sink = asyncio.Event(), asyncio.Event(), Tally()

    async def hang() -> None:
        sink.before.clear()
        await back.wait()

    sink.before[call] = hang
    pump = pump_of(Script(chunk(b"abc"), chunk(b"def"), Silence()), sink, checkpoint_bytes=3, hung=hung.set)
    running = asyncio.create_task(pump.run())
    await asyncio.wait_for(hung.wait(), 10)
    before = len(sink.checkpoints)
    back.set()
    await until(lambda: len(sink.checkpoints) > before)  # a commit shows whose the upload is by now
    pump.interrupt(Stop.LEFT)
    await running


@pytest.mark.usefixtures("quick_looks")
async def test_so_is_a_checkpoint_that_hangs_beside_a_silent_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tusserve.body.HUNG_SECONDS", 0.1)
    hung, back, sink, silence = asyncio.Event(), asyncio.Event(), Tally(), Silence()

    async def hang() -> None:
        await back.wait()

    sink.before["checkpoint"] = hang
    pump = pump_of(Script(chunk(b"abc"), silence), sink, hung=hung.set)
    running = asyncio.create_task(pump.run())
    await silence.reached.wait()
    pump.want_checkpoint()
    await asyncio.wait_for(hung.wait(), 10)
    back.set()
    pump.interrupt(Stop.LEFT)
    await running


async def test_a_storage_that_is_only_busy_does_not_hang() -> None:
    """The lookout may find a busy body in a write each time: it is hung only if it is the same write."""
    hung: list[None] = []
    pump: Pump

    async def looked_at() -> None:
        pump.look(0.0)

    sink = Tally()
    sink.before["write"] = looked_at
    steps: list[Step] = [chunk(b"x")] * 500
    pump = pump_of(Script(*steps, END), sink, hung=lambda: hung.append(None))
    assert await pump.run() is BodyEnd.WHOLE
    assert not hung


async def test_a_gate_that_takes_its_time_does_not_hang() -> None:
    """How long a hook may take is said by `Timeouts.hook`."""
    hung: list[None] = []
    pump: Pump

    async def looked_at() -> None:
        for _ in range(500):
            pump.look(0.0)

    sink = Tally()
    sink.before["admit"] = looked_at
    pump = pump_of(Script(chunk(b"abcd"), END), sink, head=4, hung=lambda: hung.append(None))
    assert await pump.run() is BodyEnd.WHOLE
    assert not hung


# ---- the lookout itself


@pytest.mark.usefixtures("quick_looks")
async def test_it_looks_only_while_there_is_somebody_to_look_at() -> None:
    lookout = Lookout()
    assert await pump_of(Script(chunk(b"abc"), END), Tally(), lookout=lookout).run() is BodyEnd.WHOLE
    await until(lambda: lookout._timer is None)
    again = pump_of(Script(Silence()), Tally(), timeouts=idle(0.1), lookout=lookout)
    assert await again.run() is BodyEnd.STALLED


def test_it_goes_on_on_the_next_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tusserve.body.LOOKOUT", 0.01)
    lookout = Lookout()

    async def stall() -> object:
        return await pump_of(Script(Silence()), Tally(), timeouts=idle(0.05), lookout=lookout).run()

    assert [asyncio.run(stall()) for _ in range(3)] == [BodyEnd.STALLED] * 3
    assert len(lookout) == 0


async def test_one_call_lets_every_body_go() -> None:
    lookout = Lookout()
    silences = [Silence() for _ in range(20)]
    running = [
        asyncio.create_task(pump_of(Script(chunk(b"abc"), silence), Tally(), lookout=lookout).run())
        for silence in silences
    ]
    for silence in silences:
        await silence.reached.wait()
    lookout.interrupt_all(Stop.DRAINED)
    assert await asyncio.gather(*running) == [BodyEnd.PREEMPTED] * 20


# ---- memory


class Chunk(bytearray):
    """Bytes that can be watched: `bytes` take no weak references."""


@pytest.mark.parametrize("head", [0, 4, 12])
async def test_a_waiting_body_holds_none_of_the_bytes_that_came(head: int) -> None:
    watched: list[weakref.ref[Chunk]] = []

    async def give() -> Message:
        data = Chunk(b"x" * 8)
        watched.append(weakref.ref(data))
        return {"type": "http.request", "body": data, "more_body": True}

    silence = Silence()
    pump = pump_of(Script(give, give, give, silence), Tally(), head=head)
    gc.disable()  # what only the collector finds is held for a while, and that times a thousand
    try:
        running = asyncio.create_task(pump.run())
        await silence.reached.wait()
        assert [ref() for ref in watched] == [None, None, None]
        pump.interrupt(Stop.LEFT)
        await running
        forgotten = weakref.ref(pump)
        del pump, running
        assert forgotten() is None, "a pump that is through is kept by a circle"
    finally:
        gc.enable()
