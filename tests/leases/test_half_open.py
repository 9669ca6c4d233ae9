"""The half-open connection: it sent something, then it is silent, and its client is back on another."""

from pathlib import Path

import anyio
import pytest

from tests.leases.ground import PAIRS, Worker, assert_interrupted, code, ground, within
from tusserve.testing.client import Response

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("pair", PAIRS, ids="-".join)]

DATA = bytes(range(200))
PROMPT = 1.0
"""Seconds, of the loop's own time: half of the grace, so that nobody waited for its end."""


async def upload_of(worker: Worker, length: int = len(DATA)) -> str:
    return await worker.client.create("/files", length=length)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["one process", "two"])
@pytest.mark.parametrize("silent_for", [0.0, 0.2, 0.6, 2.0])
async def test_head_tells_the_true_offset_and_the_upload_goes_on_at_once(
    pair: tuple[str, str], tmp_path: Path, elsewhere: bool, silent_for: float
) -> None:
    async with ground(pair, tmp_path) as place:
        first, second = await place.two()
        back = second if elsewhere else first
        url = await upload_of(first)
        stuck = await place.half_open(first, url, DATA[:70])
        await anyio.sleep(silent_for)

        with within(PROMPT):
            assert await back.client.offset(url) == 70
        with within(PROMPT):
            assert (await back.client.append(url, DATA[70:], at=70)).status == 204

        assert_interrupted(await stuck.response(), 70)
        assert await place.content(url) == DATA


async def test_patch_needs_no_head_before_it(pair: tuple[str, str], tmp_path: Path) -> None:
    async with ground(pair, tmp_path) as place:
        first, second = await place.two()
        url = await upload_of(first)
        stuck = await place.half_open(first, url, DATA[:70])
        with within(PROMPT):
            answer = await second.client.append(url, DATA, at=0)
        assert (answer.status, code(answer)) == (409, "offset_mismatch"), "its bytes are not sent twice"
        assert answer.headers["upload-offset"] == "70"
        assert_interrupted(await stuck.response(), 70)
        assert (await second.client.append(url, DATA[70:], at=70)).status == 204
        assert await place.content(url) == DATA


async def test_one_that_has_sent_nothing_lets_go_at_once(pair: tuple[str, str], tmp_path: Path) -> None:
    async with ground(pair, tmp_path) as place:
        first, second = await place.two()
        url = await upload_of(first)
        stuck = await place.half_open(first, url)
        await stuck.until_asked()
        with within(PROMPT / 2):
            assert (await second.client.append(url, DATA)).status == 204
        assert_interrupted(await stuck.response(), 0)
        assert await place.content(url) == DATA


async def test_head_tells_nothing_new_of_one_that_has_sent_nothing(
    pair: tuple[str, str], tmp_path: Path
) -> None:
    async with ground(pair, tmp_path) as place:
        first, second = await place.two()
        url = await upload_of(first)
        stuck = await place.half_open(first, url)
        await stuck.until_asked()
        with within(PROMPT):
            assert await second.client.offset(url) == 0
        assert_interrupted(await stuck.response(), 0)


async def test_a_whole_chain_of_half_open_connections(pair: tuple[str, str], tmp_path: Path) -> None:
    """A client in a tunnel: each of its connections dies without a word, in the middle of its bytes."""
    async with ground(pair, tmp_path) as place:
        workers = await place.two()
        url = await upload_of(workers[0])
        stuck = []
        at = 0
        for turn in range(9):
            client = workers[turn % 2].client
            assert await client.offset(url) == at
            stuck.append(await place.half_open(workers[turn % 2], url, DATA[at : at + 20], at=at))
            at += 20
        assert await workers[0].client.offset(url) == at
        assert (await workers[1].client.append(url, DATA[at:], at=at)).status == 204
        for number, request in enumerate(stuck, 1):
            assert_interrupted(await request.response(), number * 20)
        assert await place.content(url) == DATA


async def test_the_client_that_is_gone_and_not_only_silent(pair: tuple[str, str], tmp_path: Path) -> None:
    async with ground(pair, tmp_path) as place:
        first, second = await place.two()
        url = await upload_of(first)
        answer: Response = await first.client.append(url, DATA, cut_after=33)
        assert_interrupted(answer, 33)
        mark = second.mark
        assert await second.client.offset(url) == 33
        assert second.calls_since(mark) == ["store.get"], "nobody is there to be asked"
        assert (await second.client.append(url, DATA[33:], at=33)).status == 204
        assert await place.content(url) == DATA
