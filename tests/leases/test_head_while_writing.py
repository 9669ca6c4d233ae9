"""HEAD beside an active upload: the truth at once, nothing taken, nothing written, and never a 5xx."""

import asyncio
from functools import partial
from pathlib import Path

import anyio
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.leases.ground import PAIRS, code, ground, within
from tusserve import StorageUnavailable, StoreUnavailable, Upload
from tusserve.lease import GRACE
from tusserve.testing.client import HalfOpen

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("pair", PAIRS, ids="-".join)]

DATA = bytes(range(250))
PROMPT = 1.0


async def drip(patch: HalfOpen, data: bytes, *, every: float = 0.2, step: int = 5) -> None:
    for begin in range(0, len(data), step):
        await anyio.sleep(every)
        patch.offer(data[begin : begin + step])
    patch.end()


@pytest.mark.parametrize("elsewhere", [False, True], ids=["one process", "two"])
async def test_an_active_upload_makes_a_checkpoint_and_goes_on(
    pair: tuple[str, str], tmp_path: Path, elsewhere: bool
) -> None:
    async with ground(pair, tmp_path) as place:
        first, second = await place.two()
        url = await first.client.create("/files", length=len(DATA))
        patch = await place.half_open(first, url, DATA[:50])
        dripping = asyncio.ensure_future(drip(patch, DATA[50:], step=10))
        back = second if elsewhere else first
        for _ in range(3):
            await anyio.sleep(0.45)
            before, taken, mark = await place.record(url), patch.taken, back.mark
            with within(PROMPT):
                offset = await back.client.offset(url)
            assert offset >= taken, "a byte that had come was not told"
            after = await place.record(url)
            assert after.revision > before.revision and after.offset >= offset
            assert not elsewhere or set(second.calls_since(mark)) == {"store.get", "store.ask"}
        await dripping
        assert (await patch.response()).status == 204
        assert await place.content(url) == DATA


async def test_it_writes_nothing_but_an_ask(pair: tuple[str, str], tmp_path: Path) -> None:
    async with ground(pair, tmp_path) as place:
        first, second = await place.two()
        url = await first.client.create("/files", length=len(DATA))
        mark = second.mark
        assert await second.client.offset(url) == 0
        assert second.calls_since(mark) == ["store.get"]

        await place.half_open(first, url, DATA[:50])
        mark = second.mark
        assert await second.client.offset(url) == 50
        assert set(second.calls_since(mark)) == {"store.get", "store.ask"}
        assert second.calls_since(mark).count("store.ask") == 1


async def test_it_does_not_disturb_the_gate_and_waits_no_longer_than_the_grace(
    pair: tuple[str, str], tmp_path: Path
) -> None:
    async with ground(pair, tmp_path) as place:
        asked, decided = asyncio.Event(), asyncio.Event()

        async def on_first_chunk(upload: Upload, head: bytes) -> None:
            asked.set()
            await decided.wait()

        first, second = await place.two(on_first_chunk=on_first_chunk, sniff_size=4)
        url = await first.client.create("/files", length=len(DATA))
        patch = await place.half_open(first, url, DATA[:50])
        await asked.wait()
        with within(GRACE.total_seconds() + PROMPT):
            assert await second.client.offset(url) == 0
        assert place.leftovers(url) == [], "a byte reached the storage before the gate had answered"
        decided.set()
        patch.offer(DATA[50:])
        patch.end()
        assert (await patch.response()).status == 204
        assert await place.content(url) == DATA


async def test_many_at_once_cost_a_checkpoint_and_not_many(pair: tuple[str, str], tmp_path: Path) -> None:
    async with ground(pair, tmp_path) as place:
        first, second = await place.two()
        url = await first.client.create("/files", length=len(DATA))
        patch = await place.half_open(first, url, DATA[:50])
        mark = first.mark
        offsets = await asyncio.gather(*(second.client.offset(url) for _ in range(50)))
        assert offsets == [50] * 50
        assert first.calls_since(mark).count("store.commit") <= 3
        patch.offer(DATA[50:])
        patch.end()
        assert (await patch.response()).status == 204
        assert await place.content(url) == DATA


async def test_a_holder_that_stands_still_is_not_robbed_by_head(
    pair: tuple[str, str], tmp_path: Path
) -> None:
    async with ground(pair, tmp_path) as place:
        first, second = await place.two()
        url = await first.client.create("/files", length=len(DATA))
        patch = await place.half_open(first, url, DATA[:50])
        first.faults.fall_asleep()
        mark = second.mark
        with within(GRACE.total_seconds() + PROMPT):
            assert await second.client.offset(url) == 0, "only what is committed is told"
        assert set(second.calls_since(mark)) == {"store.get", "store.ask"}
        first.faults.wake()
        assert (await patch.response()).status == 423  # it had been silent, and somebody had asked
        assert await second.client.offset(url) == 50


@pytest.mark.parametrize("state", ["receiving", "held", "finishing", "complete"])
async def test_it_is_never_a_5xx_whatever_fails(pair: tuple[str, str], tmp_path: Path, state: str) -> None:
    async def not_now(upload: Upload) -> None:
        raise LookupError("not now")

    async with ground(pair, tmp_path) as place:
        first = await place.worker(on_complete=not_now if state == "finishing" else None)
        second = await place.worker(on_complete=not_now if state == "finishing" else None)
        url = await first.client.create("/files", length=len(DATA))
        if state == "held":
            await place.half_open(first, url, DATA[:50])
        elif state != "receiving":
            answer = await first.client.append(url, DATA)
            assert answer.status == (503 if state == "finishing" else 204)
        kinds = [StoreUnavailable, StorageUnavailable, RuntimeError]
        for kind in kinds:
            for at in range(1, 12):
                second.faults.fail(partial(kind, "away"), on="*", at=at)
                answer = await second.client.head(url)
                assert answer.status in {200, 423}, (kind, at, answer)
                if answer.status == 423:
                    assert int(answer.headers["retry-after"]) > 0
                    assert "upload-offset" not in answer.headers
                second.faults.heal()
                await anyio.sleep(3600 if pair == ("memory", "memory") else 0)  # finishing is due again
            second.faults.fail(partial(kind, "away"), on="*", times=None)
            answer = await second.client.head(url)
            assert answer.status == 423
            second.faults.heal()
        assert (await second.client.head(url)).status == (423 if state == "finishing" else 200)


async def test_nor_if_the_store_is_away_when_the_first_request_starts_the_app(
    pair: tuple[str, str], tmp_path: Path
) -> None:
    """Nobody ran the lifespan, and the first request finds the store away."""

    def without_lifespan(app: ASGIApp) -> ASGIApp:
        async def alone(scope: Scope, receive: Receive, send: Send) -> None:
            assert scope["type"] == "http"
            await app(scope, receive, send)

        return alone

    async with ground(pair, tmp_path) as place:
        first = await place.worker()
        url = await first.client.create("/files", length=len(DATA))
        late = await place.worker(around=without_lifespan)
        late.faults.fail(lambda: StoreUnavailable("away"), on="store.enter", times=2)
        assert (await late.client.head(url)).status == 423
        answer = await late.client.append(url, DATA)
        assert (answer.status, code(answer)) == (503, "store_unavailable")
        assert await late.client.offset(url) == 0
        await late.tus._lifetime._stop()
