"""DELETE beside whatever else goes on: it wins at once, and nothing comes back to life."""

import asyncio
from pathlib import Path

import anyio
import pytest

from tests.leases.ground import PAIRS, code, ground, within
from tusserve import Reason, Upload, UploadState
from tusserve.lease import GRACE

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("pair", PAIRS, ids="-".join)]

DATA = bytes(range(250))
PROMPT = 1.0


@pytest.mark.parametrize("elsewhere", [False, True], ids=["one process", "two"])
@pytest.mark.parametrize("silent_for", [0.0, 1.0])
async def test_a_patch_is_cut_and_told_so_and_nothing_is_left(
    pair: tuple[str, str], tmp_path: Path, elsewhere: bool, silent_for: float
) -> None:
    async with ground(pair, tmp_path) as place:
        first, second = await place.two()
        url = await first.client.create("/files", length=len(DATA))
        patch = await place.half_open(first, url, DATA[:50])
        await anyio.sleep(silent_for)
        with within(PROMPT):
            assert (await (second if elsewhere else first).client.delete(url)).status == 204
        answer = await patch.response()
        assert (answer.status, code(answer)) == (410, "upload_terminated")
        for worker in (first, second):
            assert (await worker.client.head(url)).status == 410
            assert (await worker.client.append(url, DATA)).status == 410
            assert (await worker.client.delete(url)).status == 410
        assert (await place.record(url)).state is UploadState.GONE
        assert place.leftovers(url) == []


async def test_what_was_being_written_is_not_flushed_any_more(pair: tuple[str, str], tmp_path: Path) -> None:
    async with ground(pair, tmp_path) as place:
        first, second = await place.two()
        url = await first.client.create("/files", length=len(DATA))
        patch = await place.half_open(first, url, DATA[:5])
        mark = first.mark
        assert (await second.client.delete(url)).status == 204
        assert (await patch.response()).status == 410
        assert "writer.flush" not in first.faults.calls[mark:]
        assert [call for call in first.calls_since(mark) if call != "store.get"] == ["store.release"]


async def test_a_holder_that_is_busy_in_its_storage_keeps_it_and_delete_tries_again(
    pair: tuple[str, str], tmp_path: Path
) -> None:
    """One that answers is alive: it is not robbed in the middle of a write, and lets go after it. Its client
    is told by what became of the upload, not by what was asked."""
    async with ground(pair, tmp_path) as place:
        first, second = await place.two()
        url = await first.client.create("/files", length=len(DATA))
        stall = first.faults.stall(on="writer.write", at=2)
        patch = await place.half_open(first, url, DATA[:50])
        patch.offer(DATA[50:100])
        await stall.reached()
        with within(2 * GRACE.total_seconds() + PROMPT):
            answer = await second.client.delete(url)
        assert (answer.status, code(answer)) == (423, "upload_locked")
        stall.release()
        stopped = await patch.response()
        assert (stopped.status, code(stopped)) == (423, "upload_interrupted")
        assert stopped.headers["upload-offset"] == "0"
        assert (await second.client.delete(url)).status == 204
        assert place.leftovers(url) == []


async def test_delete_while_it_is_finished_is_for_later(pair: tuple[str, str], tmp_path: Path) -> None:
    async with ground(pair, tmp_path) as place:
        asked, decided = asyncio.Event(), asyncio.Event()

        async def on_complete(upload: Upload) -> None:
            asked.set()
            await decided.wait()

        first, second = await place.two(on_complete=on_complete)
        url = await first.client.create("/files", length=len(DATA))
        last = asyncio.ensure_future(first.client.append(url, DATA))
        await asked.wait()
        mark = second.mark
        for method in ("DELETE", "HEAD"):
            with within(PROMPT):
                answer = await second.client.request(method, url)
            assert answer.status == 423
            assert "upload-offset" not in answer.headers and int(answer.headers["retry-after"]) > 0
        for at in (0, 7, len(DATA)):
            answer = await second.client.append(url, b"x", at=at)
            assert (answer.status, code(answer)) == (423, "upload_finishing"), "before any look at the offset"
            assert "upload-offset" not in answer.headers
        assert set(second.calls_since(mark)) == {"store.get"}, "a finishing upload is asked for by nobody"
        decided.set()
        assert (await last).status == 204
        assert (await second.client.delete(url)).status == 204


async def test_ending_is_answered_as_gone_whatever_its_lease(pair: tuple[str, str], tmp_path: Path) -> None:
    async with ground(pair, tmp_path) as place:
        told, stay = asyncio.Event(), asyncio.Event()

        async def on_terminate(upload: Upload, reason: Reason) -> None:
            told.set()
            await stay.wait()

        first, second = await place.two(on_terminate=on_terminate)
        url = await first.client.create("/files", length=len(DATA))
        assert (await first.client.append(url, DATA[:50], cut_after=50)).status == 423
        ending = asyncio.ensure_future(first.client.delete(url))
        await told.wait()
        assert await place.held(url)
        mark = second.mark
        assert (await second.client.head(url)).status == 410
        assert (await second.client.append(url, DATA)).status == 410
        assert (await second.client.delete(url)).status == 410
        assert set(second.calls_since(mark)) == {"store.get"}
        stay.set()
        assert (await ending).status == 204


@pytest.mark.parametrize("fails", ["storage.discard", "store.commit"])
async def test_delete_is_answered_by_its_decision_whatever_fails_afterwards(
    pair: tuple[str, str], tmp_path: Path, fails: str
) -> None:
    """ENDING is committed: the upload is gone, though its bytes may go later."""
    from tusserve import StorageUnavailable, StoreUnavailable

    async with ground(pair, tmp_path) as place:
        told: list[Reason] = []

        async def on_terminate(upload: Upload, reason: Reason) -> None:
            told.append(reason)

        worker = await place.worker(on_terminate=on_terminate)
        url = await worker.client.create("/files", length=len(DATA))
        assert (await worker.client.append(url, DATA[:50], cut_after=50)).status == 423
        if fails == "storage.discard":
            worker.faults.fail(lambda: StorageUnavailable("away"), on=fails, times=None)
        else:
            worker.faults.fail(lambda: StoreUnavailable("away"), on=fails, at=2, times=None)
        assert (await worker.client.delete(url)).status == 204
        assert (await worker.client.head(url)).status == 410
        worker.faults.heal()
        await anyio.sleep(2)
        await worker.tus.sweep()
        assert (await place.record(url)).state is UploadState.GONE
        assert place.leftovers(url) == [] and set(told) == {Reason.CLIENT}


async def test_delete_by_the_host_cuts_a_writer_too(pair: tuple[str, str], tmp_path: Path) -> None:
    async with ground(pair, tmp_path) as place:
        first, second = await place.two()
        url = await first.client.create("/files", length=len(DATA))
        patch = await place.half_open(first, url, DATA[:50])
        assert await second.tus.terminate(url.rpartition("/")[2])
        assert (await patch.response()).status == 410
        assert not await second.tus.terminate(url.rpartition("/")[2])
        assert place.leftovers(url) == []
