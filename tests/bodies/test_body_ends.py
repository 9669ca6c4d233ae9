"""How a body comes to its end: every end there is, what a client may lie about, and what was written."""

import asyncio
from dataclasses import dataclass

import pytest

from tests.bodies.scripted import END, GONE, Script, Step, Tally, chunk, pump_of
from tusserve.body import Lookout
from tusserve.protocol.decide import BodyEnd
from tusserve.protocol.outcomes import Code, Refused

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Case:
    """A body, its limits, and what has to come of it."""

    name: str
    steps: tuple[Step, ...]
    end: BodyEnd
    written: bytes
    room: int = 1 << 30
    expected: int | None = None
    head: int = 0

    def __str__(self) -> str:
        return self.name


CASES = (
    Case("nothing", (END,), BodyEnd.WHOLE, b""),
    Case("nothing, and no keys at all", ({"type": "http.request"},), BodyEnd.WHOLE, b""),
    Case("one chunk that is the last", (chunk(b"abc", more=False),), BodyEnd.WHOLE, b"abc"),
    Case("a chunk, then an empty end", (chunk(b"abc"), END), BodyEnd.WHOLE, b"abc"),
    Case("chunks in order", (chunk(b"a"), chunk(b"b"), chunk(b"c"), END), BodyEnd.WHOLE, b"abc"),
    Case("no more_body: the end", ({"type": "http.request", "body": b"abc"},), BodyEnd.WHOLE, b"abc"),
    Case("no body: an empty chunk", ({"type": "http.request", "more_body": True}, END), BodyEnd.WHOLE, b""),
    Case("empty chunks first", (chunk(b""), chunk(b""), chunk(b"abc"), END), BodyEnd.WHOLE, b"abc"),
    Case("empty chunks between", (chunk(b"a"), chunk(b""), chunk(b"bc"), END), BodyEnd.WHOLE, b"abc"),
    Case("as long as announced", (chunk(b"abc"), END), BodyEnd.WHOLE, b"abc", expected=3),
    Case("shorter than announced", (chunk(b"abc"), END), BodyEnd.CUT, b"abc", expected=4),
    Case("longer than announced", (chunk(b"abc"), END), BodyEnd.CUT, b"abc", expected=2),
    Case("announced and nothing came", (END,), BodyEnd.CUT, b"", expected=4),
    Case("nothing announced, and something came", (chunk(b"abc"), END), BodyEnd.CUT, b"abc", expected=0),
    Case("cut before anything", (GONE,), BodyEnd.CUT, b""),
    Case("cut after some", (chunk(b"abc"), GONE), BodyEnd.CUT, b"abc"),
    Case("cut after all that was announced", (chunk(b"abc"), GONE), BodyEnd.CUT, b"abc", expected=3),
    Case("cut after empty chunks", (chunk(b""), GONE), BodyEnd.CUT, b""),
    Case("a message of another kind", ({"type": "http.unheard-of"},), BodyEnd.CUT, b""),
    Case("exactly as much as there is room for", (chunk(b"abc"), END), BodyEnd.WHOLE, b"abc", room=3),
    Case("a byte too many at once", (chunk(b"abcd"),), BodyEnd.OVERRAN, b"", room=3),
    Case("a byte too many later", (chunk(b"abc"), chunk(b"d")), BodyEnd.OVERRAN, b"abc", room=3),
    Case("too many, with the end", (chunk(b"ab"), chunk(b"cd", more=False)), BodyEnd.OVERRAN, b"ab", room=3),
    Case("too many, as announced", (chunk(b"abcd", more=False),), BodyEnd.OVERRAN, b"", room=3, expected=4),
    Case("no room at all, and nothing comes", (END,), BodyEnd.WHOLE, b"", room=0),
    Case("no room at all", (chunk(b"a"),), BodyEnd.OVERRAN, b"", room=0),
    Case("gate: enough in one chunk", (chunk(b"abcdef"), END), BodyEnd.WHOLE, b"abcdef", head=4),
    Case("gate: in two", (chunk(b"ab"), chunk(b"cd"), chunk(b"ef"), END), BodyEnd.WHOLE, b"abcdef", head=4),
    Case("gate: a body shorter than it wants", (chunk(b"ab"), END), BodyEnd.WHOLE, b"ab", head=4),
    Case("gate: no more than there is room for", (chunk(b"ab"), END), BodyEnd.WHOLE, b"ab", head=4, room=2),
    Case("gate: cut before it has seen enough", (chunk(b"abc"), GONE), BodyEnd.CUT, b"", head=4),
    Case("gate: cut just when it has", (chunk(b"abcd"), GONE), BodyEnd.CUT, b"abcd", head=4),
    Case("gate: shorter than announced", (chunk(b"ab"), END), BodyEnd.CUT, b"", head=4, expected=8),
    Case("gate: too many", (chunk(b"ab"), chunk(b"cd")), BodyEnd.OVERRAN, b"", head=3, room=3),
    Case("gate: nothing is no first chunk", (END,), BodyEnd.WHOLE, b"", head=4),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_every_end_of_a_body(case: Case) -> None:
    sink = Tally()
    script = Script(*case.steps)
    pump = pump_of(script, sink, room=case.room, expected=case.expected, head=case.head)
    assert await pump.run() is case.end
    assert bytes(sink.data) == case.written
    assert script.asked == len(case.steps), "asked for less or more than it had to"
    assert sink.checkpoints == []
    assert len(sink.heads) == bool(case.written), "the gate is asked once, and only about bytes"


@pytest.mark.parametrize(
    ("steps", "whole"),
    [
        ((chunk(b"ab"), chunk(b"c"), END), True),
        ((chunk(b"ab"), chunk(b"c", more=False)), True),
        ((chunk(b"ab"), chunk(b"cd"), END), False),
    ],
)
async def test_the_gate_is_told_whether_its_head_is_the_whole_body(
    steps: tuple[Step, ...], whole: bool
) -> None:
    sink = Tally()
    assert await pump_of(Script(*steps), sink, head=4).run() is BodyEnd.WHOLE
    head = b"abcd" if not whole else b"abc"
    assert sink.heads == [(head, whole)]


async def test_nothing_is_written_and_no_more_is_asked_for_after_a_refusal() -> None:
    refused = Refused(code=Code.HOOK_FAILED)
    sink = Tally(answer=refused)
    script = Script(chunk(b"abcd"), chunk(b"efgh"), END)
    assert await pump_of(script, sink, head=4).run() == refused
    assert sink.calls == ["admit"] and script.asked == 1


@pytest.mark.parametrize("call", ["admit", "write", "checkpoint"])
async def test_what_the_sink_raises_comes_out(call: str) -> None:
    async def fail() -> None:
        raise OSError("the disk says no")

    lookout, sink = Lookout(), Tally()
    sink.before[call] = fail
    pump = pump_of(Script(chunk(b"abcd"), END), sink, checkpoint_bytes=2, lookout=lookout)
    with pytest.raises(OSError, match="the disk says no"):
        await pump.run()
    assert len(lookout) == 0


async def test_a_checkpoint_every_so_many_bytes_but_never_at_the_last() -> None:
    sink = Tally()
    steps = [chunk(b"x" * 10) for _ in range(10)]
    pump = pump_of(Script(*steps, END), sink, room=100, checkpoint_bytes=25)
    assert await pump.run() is BodyEnd.WHOLE
    assert sink.checkpoints == [30, 60, 90]

    sink = Tally()
    pump = pump_of(Script(*steps, END), sink, room=100, checkpoint_bytes=50)
    assert await pump.run() is BodyEnd.WHOLE
    assert sink.checkpoints == [50], "one at 100 would be committed without FINISHING"


async def test_the_lookout_knows_nobody_once_all_have_ended() -> None:
    lookout = Lookout()
    pumps = [pump_of(Script(chunk(b"abc"), END), Tally(), lookout=lookout) for _ in range(50)]
    await asyncio.gather(*(pump.run() for pump in pumps))
    assert len(lookout) == 0
