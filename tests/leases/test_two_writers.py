"""Two clients that write one upload at once: the first wins, and a healthy upload is never robbed."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import pytest

from tests.leases.ground import PAIRS, assert_interrupted, code, ground, now, within
from tusserve.lease import GRACE
from tusserve.testing.client import HalfOpen

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("pair", PAIRS, ids="-".join)]

DATA = bytes(range(250))


async def drip(patch: HalfOpen, data: bytes, *, every: float = 0.2, step: int = 5) -> None:
    """A client that is slow but alive."""
    for begin in range(0, len(data), step):
        await anyio.sleep(every)
        patch.offer(data[begin : begin + step])
    patch.end()


@pytest.mark.parametrize("elsewhere", [False, True], ids=["one process", "two"])
async def test_the_first_of_two_live_writers_wins(
    pair: tuple[str, str], tmp_path: Path, elsewhere: bool
) -> None:
    async with ground(pair, tmp_path) as place:
        first, second = await place.two()
        url = await first.client.create("/files", length=len(DATA))
        patch = await place.half_open(first, url, DATA[:50])
        dripping = asyncio.ensure_future(drip(patch, DATA[50:], step=10))

        began = now()
        answer = await (second if elsewhere else first).client.append(url, b"x" * len(DATA))
        assert (answer.status, code(answer)) == (423, "upload_locked")
        assert int(answer.headers["retry-after"]) > 0
        assert now() - began >= GRACE.total_seconds(), "the first one may fall silent in that time"

        await dripping
        assert (await patch.response()).status == 204
        assert await place.content(url) == DATA


async def test_a_body_that_falls_silent_within_the_grace_lets_go(
    pair: tuple[str, str], tmp_path: Path
) -> None:
    async with ground(pair, tmp_path) as place:
        first, second = await place.two()
        url = await first.client.create("/files", length=len(DATA))
        patch = await place.half_open(first, url, DATA[:50])

        async def falls_silent() -> None:
            for begin in range(50, 80, 10):
                await anyio.sleep(0.3)
                patch.offer(DATA[begin : begin + 10])

        falling = asyncio.ensure_future(falls_silent())
        answer = await second.client.append(url, DATA)
        await falling
        assert (answer.status, code(answer)) == (409, "offset_mismatch")
        assert answer.headers["upload-offset"] == "80", "it had the lease, and the bytes were kept"
        assert_interrupted(await patch.response(), 80)


async def test_of_many_at_one_offset_one_wins(pair: tuple[str, str], tmp_path: Path) -> None:
    async with ground(pair, tmp_path) as place:
        workers = [await place.worker() for _ in range(3)]
        url = await workers[0].client.create("/files", length=len(DATA))
        bodies = [bytes([n]) * len(DATA) for n in range(9)]

        async def slowly(body: bytes) -> AsyncGenerator[bytes]:
            for begin in range(0, len(body), 50):
                await anyio.sleep(0.1)
                yield body[begin : begin + 50]

        answers = await asyncio.gather(
            *(workers[n % 3].client.append(url, slowly(body)) for n, body in enumerate(bodies))
        )
        won = [n for n, answer in enumerate(answers) if answer.status == 204]
        assert len(won) == 1, [answer.status for answer in answers]
        others = {(answer.status, code(answer)) for answer in answers if answer.status != 204}
        assert others <= {
            (423, "upload_locked"),
            (423, "upload_interrupted"),
            (409, "offset_mismatch"),
            (403, "upload_complete"),
            (413, "body_too_long"),
        }
        assert await place.content(url) == bodies[won[0]]


async def test_clients_that_ask_all_the_time_do_not_wear_a_healthy_writer_down(
    pair: tuple[str, str], tmp_path: Path
) -> None:
    async with ground(pair, tmp_path) as place:
        first, second = await place.two()
        url = await first.client.create("/files", length=len(DATA))
        patch = await place.half_open(first, url, DATA[:50])
        dripping = asyncio.ensure_future(drip(patch, DATA[50:], step=5))
        seen = [0]
        while not dripping.done():
            answer = await second.client.head(url)
            assert answer.status == 200
            seen.append(int(answer.headers["upload-offset"]))
            answer = await second.client.append(url, b"x", at=seen[-1])
            assert answer.status in {423, 409, 403}  # 403: the writer was through
        assert seen == sorted(seen)
        assert (await patch.response()).status == 204
        assert await place.content(url) == DATA


async def test_the_loser_is_told_of_an_end_and_not_of_a_lock(pair: tuple[str, str], tmp_path: Path) -> None:
    """ENDING is answered as gone whatever its lease, to those who were waiting for it, too."""
    async with ground(pair, tmp_path) as place:
        stay = asyncio.Event()

        async def on_terminate(*_: object) -> None:
            await stay.wait()

        workers = [await place.worker(on_terminate=on_terminate) for _ in range(3)]
        url = await workers[0].client.create("/files", length=len(DATA))
        patch = await place.half_open(workers[0], url, DATA[:50])
        dripping = asyncio.ensure_future(drip(patch, DATA[50:100], every=0.1, step=1))
        await anyio.sleep(0.3)
        ends = {asyncio.ensure_future(worker.client.delete(url)) for worker in workers[1:]}
        with within(GRACE.total_seconds()):
            told, waiting = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        (loser,) = [end.result() for end in told]
        assert (loser.status, code(loser)) == (410, "upload_terminated")
        assert (await patch.response()).status == 410
        stay.set()
        assert [(await end).status for end in waiting] == [204]
        dripping.cancel()
        await asyncio.wait({dripping})


async def test_the_loser_is_told_that_it_is_being_finished(pair: tuple[str, str], tmp_path: Path) -> None:
    async with ground(pair, tmp_path) as place:
        stay = asyncio.Event()

        async def on_complete(*_: object) -> None:
            await stay.wait()

        first, second = await place.two(on_complete=on_complete)
        url = await first.client.create("/files", length=len(DATA))
        patch = await place.half_open(first, url, DATA[:50])
        waiting = asyncio.ensure_future(second.client.append(url, DATA))
        await anyio.sleep(0.3)
        patch.offer(DATA[50:])
        patch.end()
        answer = await waiting
        assert (answer.status, code(answer)) == (423, "upload_finishing")
        assert "upload-offset" not in answer.headers
        stay.set()
        assert (await patch.response()).status == 204
        assert await place.content(url) == DATA
