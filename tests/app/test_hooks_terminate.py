"""`on_terminate` for every end, at least once; and uploads that need hooks which a process does not have."""

import asyncio
from datetime import timedelta

import pytest
from starlette.exceptions import HTTPException

from tests.app.stage import (
    NotingStorage,
    NotingStore,
    assert_head_refused,
    assert_refused,
    id_of,
    stage,
    until,
)
from tests.app.test_hooks_calls import errors
from tusserve import Expiry, OnTerminate, Reason, Rejected, Timeouts, Upload, UploadState
from tusserve.errors import CursorLost, StorageUnavailable, UploadBusy
from tusserve.testing.clock import ManualClock

pytestmark = pytest.mark.anyio

IMPATIENT = Timeouts(finish_wait=timedelta(seconds=0.1))


class Gone:
    """An `on_terminate` that raises what `coming` holds, call by call."""

    def __init__(self, *coming: Exception) -> None:
        self.coming = list(coming)
        self.calls: list[tuple[str, Reason]] = []
        self.states: list[UploadState] = []

    async def __call__(self, upload: Upload, reason: Reason) -> None:
        self.calls.append((upload.id, reason))
        self.states.append(upload.state)
        if self.coming:
            raise self.coming.pop(0)


def refuse(upload: Upload, head: bytes) -> None:
    raise Rejected(415, "no", "No.")


@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize("sent", [b"", b"he"])
async def test_the_host_hears_of_every_end_while_the_bytes_are_still_there(
    reason: Reason, sent: bytes
) -> None:
    there: list[int] = []
    gone = Gone()

    async def look(upload: Upload, why: Reason) -> None:
        there.append(s.storage.bytes)
        await gone(upload, why)

    async with stage(
        on_terminate=look, expiry=Expiry(), on_first_chunk=refuse if reason is Reason.REJECTED else None
    ) as s:
        url = await s.client.create("/files", length=5)
        if reason is Reason.REJECTED:
            await s.client.append(url, b"hello")
        else:
            await s.client.append(url, sent)
        match reason:
            case Reason.CLIENT:
                assert (await s.client.delete(url)).status == 204
            case Reason.HOST:
                assert await s.tus.terminate(id_of(url))
            case Reason.EXPIRED:
                s.clock.advance(timedelta(days=30))
                assert (await s.tus.sweep()).expired == 1
            case Reason.LOST:
                s.storage.at.coming["open"].append(CursorLost("gone"))
                assert_refused(await s.client.append(url, b"x", at=len(sent)), 410, "upload_lost")
            case Reason.REJECTED:
                pass
        assert gone.calls == [(id_of(url), reason)]
        assert gone.states == [UploadState.ENDING]
        assert there == [0 if reason is Reason.REJECTED else len(sent)]
        upload = await s.upload(url)
        assert (upload.state, s.storage.bytes, s.kept(url).reason) == (UploadState.GONE, 0, reason)
        assert_head_refused(await s.client.head(url), 410)


async def test_a_complete_upload_ends_in_the_same_way() -> None:
    gone = Gone()
    async with stage(on_terminate=gone) as s:
        url = await s.whole(b"hello")
        assert (await s.client.delete(url)).status == 204
        assert gone.calls == [(id_of(url), Reason.CLIENT)]
        assert s.storage.bytes == 0


@pytest.mark.parametrize(
    "error", [ValueError("boom"), Rejected(403, "no", "No."), HTTPException(404), asyncio.CancelledError()]
)
async def test_it_cannot_refuse_only_be_told_again(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    gone = Gone(error)
    async with stage(on_terminate=gone) as s:
        url = await s.whole(b"hello")
        assert (await s.client.delete(url)).status == 204
        assert errors(caplog) == [(id_of(url), "hook_failed")]
        assert (s.kept(url).state, s.storage.bytes) == (UploadState.ENDING, 5)
        assert_head_refused(await s.client.head(url), 410)
        assert_refused(await s.client.append(url, b"", at=5), 410, "upload_terminated")
        assert_refused(await s.client.delete(url), 410, "upload_terminated")
        assert not await s.tus.sweep(), "it is not due yet"
        s.clock.advance(timedelta(seconds=1))
        assert (await s.tus.sweep()).retried == 1
        assert gone.calls == [(id_of(url), Reason.CLIENT)] * 2
        assert (s.kept(url).state, s.storage.bytes) == (UploadState.GONE, 0)


async def test_its_pauses_grow() -> None:
    gone = Gone(*(ValueError() for _ in range(4)))
    async with stage(on_terminate=gone) as s:
        url = await s.whole(b"hello")
        await s.client.delete(url)
        pauses = []
        for _ in range(4):
            due = s.kept(url).due_at
            assert due is not None
            pauses.append((due - s.clock()).total_seconds())
            s.clock.advance(due - s.clock())
            await s.tus.sweep()
        assert pauses == [1, 2, 4, 8]
        assert s.kept(url).state is UploadState.GONE


async def test_bytes_that_cannot_be_discarded_are_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    gone = Gone()
    async with stage(on_terminate=gone) as s:
        url = await s.whole(b"hello")
        s.storage.at.coming["discard"].append(StorageUnavailable("away"))
        assert (await s.client.delete(url)).status == 204
        assert len(errors(caplog)) == 1
        assert (s.kept(url).state, s.storage.bytes) == (UploadState.ENDING, 5)
        s.clock.advance(timedelta(seconds=1))
        await s.tus.sweep()
        assert (s.kept(url).state, s.storage.bytes) == (UploadState.GONE, 0)


async def test_a_slow_one_is_not_waited_for() -> None:
    go_on = asyncio.Event()
    calls: list[Reason] = []

    async def slow(upload: Upload, reason: Reason) -> None:
        calls.append(reason)
        await go_on.wait()

    async with stage(on_terminate=slow, timeouts=IMPATIENT) as s:
        url = await s.whole(b"hello")
        assert (await s.client.delete(url)).status == 204
        assert_head_refused(await s.client.head(url), 410)
        s.clock.advance(timedelta(minutes=1))
        assert not await s.tus.sweep(), "somebody is at it"
        go_on.set()
        await until(lambda: s.kept(url).state is UploadState.GONE)
        assert calls == [Reason.CLIENT]
        assert s.storage.bytes == 0


async def test_the_client_that_is_refused_does_not_wait_for_a_slow_one() -> None:
    go_on = asyncio.Event()

    async def slow(upload: Upload, reason: Reason) -> None:
        await go_on.wait()

    async with stage(on_terminate=slow, on_first_chunk=refuse, timeouts=IMPATIENT) as s:
        url = await s.client.create("/files", length=5)
        assert_refused(await s.client.append(url, b"hello"), 415, "no")
        assert s.kept(url).state is UploadState.ENDING
        assert_refused(await s.client.append(url, b"hello"), 410, "no")
        go_on.set()
        await until(lambda: s.kept(url).state is UploadState.GONE)


async def test_the_host_is_told_whether_there_was_anything_to_end() -> None:
    gone = Gone()
    async with stage(on_terminate=gone) as s:
        url = await s.whole(b"hello")
        assert await s.tus.terminate(id_of(url))
        assert not await s.tus.terminate(id_of(url))
        assert not await s.tus.terminate("nobody")
        assert gone.calls == [(id_of(url), Reason.HOST)]


async def test_the_host_ends_what_a_client_is_writing_but_not_what_is_being_finished() -> None:
    go_on = asyncio.Event()

    async def slow(upload: Upload) -> None:
        await go_on.wait()

    async with stage(on_complete=slow, timeouts=IMPATIENT) as s:
        url = await s.client.create("/files", length=10)
        async with s.client.half_open(url, b"01234") as busy:
            assert await s.tus.terminate(id_of(url))
            assert_refused(await busy.response(), 410, "upload_terminated")
        url = await s.client.create("/files", length=5)
        assert (await s.client.append(url, b"hello")).status == 423
        with pytest.raises(UploadBusy):
            await s.tus.terminate(id_of(url))
        go_on.set()
        await until(lambda: s.kept(url).state is UploadState.COMPLETE)
        assert await s.tus.terminate(id_of(url))


async def test_the_storage_that_loses_bytes_midway_ends_the_upload() -> None:
    gone = Gone()
    async with stage(on_terminate=gone) as s:
        url = await s.client.create("/files", length=10)
        await s.client.append(url, b"01234")
        s.storage.lose(id_of(url))
        assert await s.client.offset(url) == 5, "HEAD asks no storage"
        assert_refused(await s.client.append(url, b"5", at=5), 410, "upload_lost")
        assert gone.calls == [(id_of(url), Reason.LOST)]
        assert_refused(await s.client.append(url, b"5", at=5), 410, "upload_lost")


# ---- without the hooks of the host


class Shared:
    """A host's folder: its bytes, records and clock."""

    def __init__(self) -> None:
        self.storage, self.store, self.clock = NotingStorage(), NotingStore(), ManualClock()


async def finishing_for(on_terminate: OnTerminate | None = None) -> tuple[Shared, str]:
    """An upload of a host with hooks that is due to be finished."""

    def later(upload: Upload) -> None:
        raise ValueError("boom")

    shared = Shared()
    async with stage(storage=shared.storage, store=shared.store, clock=shared.clock, on_complete=later) as s:
        url = await s.client.create("/files", length=5)
        assert (await s.client.append(url, b"hello")).status == 503
    shared.clock.advance(timedelta(seconds=1))
    return shared, url


@pytest.mark.parametrize("by", ["HEAD", "PATCH", "DELETE", "host"])
async def test_a_process_without_hooks_finishes_nothing_that_needs_them(by: str) -> None:
    shared, url = await finishing_for()
    async with stage(storage=shared.storage, store=shared.store, clock=shared.clock) as s:
        match by:
            case "HEAD":
                assert_head_refused(await s.client.head(url), 423)
            case "PATCH":
                assert_refused(await s.client.append(url, b"", at=5), 423, "upload_finishing")
            case "DELETE":
                assert_refused(await s.client.delete(url), 423, "upload_finishing")
            case _:
                with pytest.raises(UploadBusy):
                    await s.tus.terminate(id_of(url))
        assert s.kept(url).state is UploadState.FINISHING
    done: list[str] = []
    async with stage(
        storage=shared.storage,
        store=shared.store,
        clock=shared.clock,
        on_complete=lambda upload: done.append(upload.id),
    ) as s:
        assert (await s.tus.sweep()).completed == 1
        assert done == [id_of(url)]


async def test_a_process_without_hooks_takes_the_last_byte_and_leaves_the_finishing() -> None:
    done: list[str] = []
    shared = Shared()
    async with stage(
        storage=shared.storage,
        store=shared.store,
        clock=shared.clock,
        on_complete=lambda upload: done.append(upload.id),
    ) as host:
        url = await host.client.create("/files", length=5)
        assert (await host.client.append(url, b"he")).status == 204
        async with stage(storage=shared.storage, store=shared.store, clock=shared.clock) as other:
            answer = await other.client.append(url, b"llo", at=2)
            assert_refused(answer, 423, "upload_finishing")
            assert other.kept(url).state is UploadState.FINISHING
            assert not done
        assert await host.client.offset(url) == 5
        assert done == [id_of(url)]


async def test_a_process_without_hooks_takes_no_first_bytes(caplog: pytest.LogCaptureFixture) -> None:
    shared = Shared()
    async with stage(
        storage=shared.storage, store=shared.store, clock=shared.clock, on_first_chunk=refuse
    ) as host:
        url = await host.client.create("/files", length=5)
        async with stage(storage=shared.storage, store=shared.store, clock=shared.clock) as other:
            assert_refused(await other.client.append(url, b"hello"), 503, "hook_failed")
            assert errors(caplog) == [(id_of(url), "hook_failed")]
            assert (await other.client.offset(url), shared.storage.bytes) == (0, 0)
        assert_refused(await host.client.append(url, b"hello"), 415, "no")


async def test_a_process_without_hooks_ends_an_upload_but_leaves_the_telling() -> None:
    gone = Gone()
    shared = Shared()
    async with stage(
        storage=shared.storage, store=shared.store, clock=shared.clock, on_terminate=gone
    ) as host:
        url = await host.whole(b"hello")
        async with stage(storage=shared.storage, store=shared.store, clock=shared.clock) as other:
            assert (await other.client.delete(url)).status == 204
            assert other.kept(url).state is UploadState.ENDING
            assert (await other.tus.sweep()).skipped == 1
            assert shared.storage.bytes == 5
            assert_head_refused(await other.client.head(url), 410)
        assert (await host.tus.sweep()).retried == 1
        assert gone.calls == [(id_of(url), Reason.CLIENT)]
        assert shared.storage.bytes == 0


async def test_a_process_without_hooks_finishes_what_needs_none() -> None:
    shared = Shared()
    async with stage(storage=shared.storage, store=shared.store, clock=shared.clock) as s:
        url = await s.client.create("/files", length=5)
        s.storage.at.coming["seal"].append(StorageUnavailable("away"))
        assert (await s.client.append(url, b"hello")).status == 503
    shared.clock.advance(timedelta(seconds=1))
    async with stage(storage=shared.storage, store=shared.store, clock=shared.clock) as s:
        assert await s.client.offset(url) == 5
