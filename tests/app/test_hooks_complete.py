"""`on_complete`: taken, refused for good, failed for now and tried again; and uploads of no bytes."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest
from starlette.exceptions import HTTPException

from tests.app.stage import (
    OCTETS,
    Stage,
    assert_head_refused,
    assert_refused,
    content_of,
    id_of,
    stage,
    until,
)
from tests.app.test_hooks_calls import errors
from tusserve import Accepted, Reason, Rejected, Timeouts, Upload, UploadState
from tusserve.errors import CursorLost, StorageFull, StorageUnavailable, StoreUnavailable

pytestmark = pytest.mark.anyio

IMPATIENT = Timeouts(finish_wait=timedelta(seconds=0.1))


class Done:
    """An `on_complete` that raises what `coming` holds, call by call, and then takes everything."""

    def __init__(self, *coming: Exception) -> None:
        self.coming = list(coming)
        self.calls: list[str] = []
        self.contents: list[bytes] = []

    async def __call__(self, upload: Upload) -> None:
        self.calls.append(upload.id)
        self.contents.append(await content_of(upload))
        assert upload.state is UploadState.FINISHING
        assert not upload.is_complete
        if self.coming:
            raise self.coming.pop(0)


class Held:
    """An `on_complete` that waits until it is told to go on."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.calls = 0

    async def __call__(self, upload: Upload) -> None:
        self.calls += 1
        await self.go_on.wait()


async def full(s: Stage) -> str:
    """An upload that wants one byte more."""
    url = await s.client.create("/files", length=5)
    await s.client.append(url, b"hell")
    return url


# ---- taken


async def test_the_whole_is_shown_once_before_the_client_hears_of_success() -> None:
    done = Done()
    async with stage(on_complete=done) as s:
        url = await s.whole(b"hello")
        assert (done.calls, done.contents) == ([id_of(url)], [b"hello"])
        upload = await s.upload(url)
        assert (upload.is_complete, upload.completed_at) == (True, s.clock())
        for _ in range(2):
            assert (await s.client.head(url)).status == 200
            assert (await s.client.append(url, b"", at=5)).status == 204
            await s.tus.sweep()
        assert len(done.calls) == 1


@pytest.mark.parametrize("said", [True, "yes", {"id": 1}, Accepted(key="elsewhere"), 0])
async def test_what_it_returns_is_of_no_account(said: object) -> None:
    async with stage(on_complete=lambda upload: said) as s:  # type: ignore[arg-type, return-value]
        url = await s.whole(b"hello")
        upload = await s.upload(url)
        assert (upload.is_complete, upload.key) == (True, None)


# ---- refused for good


@pytest.mark.parametrize(
    ("error", "status", "word"),
    [
        (Rejected(422, "virus", "It has a virus.", extra={"name": "x"}), 422, "virus"),
        (HTTPException(403, "Not you."), 403, "rejected"),
        (HTTPException(404, "No project."), 404, "rejected"),
        (Rejected(409, "conflict", "No."), 409, "conflict"),
    ],
)
@pytest.mark.parametrize("by", ["PATCH", "POST"])
async def test_a_refusal_for_good_ends_the_upload(error: Exception, status: int, word: str, by: str) -> None:
    ended: list[tuple[Reason, object]] = []

    def gone(upload: Upload, reason: Reason) -> None:
        ended.append((reason, None if upload.refusal is None else upload.refusal.code))

    done = Done(error)
    async with stage(on_complete=done, on_terminate=gone) as s:
        if by == "PATCH":
            url = await full(s)
            answer = await s.client.append(url, b"o", at=4)
        else:
            sent = {"Upload-Length": "5", "Content-Type": OCTETS}
            answer = await s.client.request("POST", "/files", headers=sent, body=b"hello")
            url = f"/files/{done.calls[0]}"
        assert_refused(answer, status, word)
        assert "location" not in answer.headers
        assert ended == [(Reason.REJECTED, word)]
        assert s.storage.bytes == 0
        assert_head_refused(await s.client.head(url), 410)
        assert_refused(await s.client.append(url, b"", at=5), 410, word)
        assert_refused(await s.client.delete(url), 410, word)
        await s.tus.sweep()
        assert len(done.calls) == 1


# ---- failed for now

FOR_NOW: dict[str, Callable[[], Exception]] = {
    "an exception": lambda: ValueError("boom"),
    "408": lambda: HTTPException(408),
    "423": lambda: HTTPException(423),
    "425": lambda: HTTPException(425),
    "429": lambda: Rejected(429, "slow_down", "Slow down."),
    "500": lambda: HTTPException(500),
    "503": lambda: HTTPException(503),
}


@pytest.mark.parametrize("failure", FOR_NOW)
@pytest.mark.parametrize("by", ["HEAD", "PATCH", "chunked PATCH", "sweep"])
async def test_a_failure_for_now_is_tried_again(
    failure: str, by: str, caplog: pytest.LogCaptureFixture
) -> None:
    done = Done(FOR_NOW[failure]())
    async with stage(on_complete=done) as s:
        url = await full(s)
        answer = await s.client.append(url, b"o", at=4)
        assert_refused(answer, 503, "hook_failed")
        assert "upload-offset" not in answer.headers
        assert int(answer.headers["retry-after"]) >= 1
        assert errors(caplog) == [(id_of(url), "hook_failed")]

        assert_head_refused(await s.client.head(url), 423)
        assert_refused(await s.client.append(url, b"", at=5), 423, "upload_finishing")
        assert_refused(await s.client.append(url, b"x", at=0), 423, "upload_finishing")
        assert_refused(await s.client.delete(url), 423, "upload_finishing")
        assert len(done.calls) == 1, "it was not due yet"

        s.clock.advance(timedelta(seconds=1))
        match by:
            case "HEAD":
                head = await s.client.head(url)
                assert (head.status, head.headers["upload-offset"]) == (200, "5")
            case "PATCH":
                patch = await s.client.append(url, b"", at=5)
                assert (patch.status, patch.headers["upload-offset"]) == (204, "5")
            case "chunked PATCH":
                patch = await s.client.append(url, b"", at=5, content_length=None)
                assert (patch.status, patch.headers["upload-offset"]) == (204, "5")
            case _:
                assert (await s.tus.sweep()).completed == 1
        assert done.contents == [b"hello"] * 2
        assert await s.content(url) == b"hello"


async def test_a_delete_finishes_what_is_due_and_then_ends_it() -> None:
    done = Done(ValueError("boom"))
    async with stage(on_complete=done) as s:
        url = await full(s)
        await s.client.append(url, b"o", at=4)
        s.clock.advance(timedelta(seconds=1))
        assert (await s.client.delete(url)).status == 204
        assert len(done.calls) == 2
        assert s.storage.bytes == 0


async def test_the_pauses_grow_up_to_five_minutes_and_attempts_are_counted() -> None:
    done = Done(*(ValueError(f"{n}") for n in range(12)))
    async with stage(on_complete=done) as s:
        url = await full(s)
        start = s.clock()
        await s.client.append(url, b"o", at=4)
        pauses = []
        for attempt in range(1, 12):
            record = s.kept(url)
            assert (record.state, record.attempts) == (UploadState.FINISHING, attempt)
            assert record.due_at is not None
            pauses.append((record.due_at - s.clock()).total_seconds())
            s.clock.advance(record.due_at - s.clock() - timedelta(seconds=0.001))
            assert not await s.tus.sweep()
            s.clock.advance(timedelta(seconds=0.001))
            assert (await s.tus.sweep()).retried == 1
        assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
        assert s.clock() > start + timedelta(minutes=18)
        s.clock.advance(timedelta(minutes=5))
        assert (await s.tus.sweep()).completed == 1
        assert s.kept(url).attempts == 0
        assert len(done.calls) == 13


async def test_a_creation_with_upload_that_cannot_finish_for_now_is_201_at_0() -> None:
    done = Done(ValueError("boom"))
    async with stage(on_complete=done) as s:
        sent = {"Upload-Length": "5", "Content-Type": OCTETS}
        answer = await s.client.request("POST", "/files", headers=sent, body=b"hello")
        assert (answer.status, answer.headers["upload-offset"]) == (201, "0")
        url = answer.headers["location"]
        assert_refused(await s.client.append(url, b"hello"), 423, "upload_finishing")
        s.clock.advance(timedelta(seconds=1))
        assert await s.client.offset(url) == 5
        assert len(done.calls) == 2


@pytest.mark.parametrize("by", ["PATCH", "POST"])
async def test_a_hook_that_takes_its_time_is_not_waited_for_and_goes_on(by: str) -> None:
    held = Held()
    async with stage(on_complete=held, timeouts=IMPATIENT) as s:
        if by == "PATCH":
            url = await full(s)
            answer = await s.client.append(url, b"o", at=4)
            assert_refused(answer, 423, "upload_finishing")
            assert "upload-offset" not in answer.headers
        else:
            sent = {"Upload-Length": "5", "Content-Type": OCTETS}
            answer = await s.client.request("POST", "/files", headers=sent, body=b"hello")
            assert (answer.status, answer.headers["upload-offset"]) == (201, "0")
            url = answer.headers["location"]
        assert_head_refused(await s.client.head(url), 423)
        assert_refused(await s.client.append(url, b"", at=5), 423, "upload_finishing")
        assert_refused(await s.client.delete(url), 423, "upload_finishing")
        s.clock.advance(timedelta(hours=1))
        assert_head_refused(await s.client.head(url), 423)
        assert not await s.tus.sweep()
        held.go_on.set()
        await until(lambda: s.kept(url).state is UploadState.COMPLETE)
        head = await s.client.head(url)
        assert (head.status, head.headers["upload-offset"]) == (200, "5")
        assert held.calls == 1


async def test_a_client_that_goes_away_does_not_stop_the_finishing() -> None:
    held = Held()
    async with stage(on_complete=held) as s:
        url = await full(s)
        async with s.client.half_open(url, b"o", at=4, content_length=1) as body:
            body.end()
            await until(lambda: held.calls == 1)
            assert await body.cancel() is None
        assert await s.state(url) is UploadState.FINISHING
        held.go_on.set()
        await until(lambda: s.kept(url).state is UploadState.COMPLETE)
        assert held.calls == 1


async def test_a_failure_after_everybody_went_is_logged_and_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def slow(upload: Upload) -> None:
        await go_on.wait()
        if len(errors(caplog)) == 0:
            raise ValueError("boom")

    go_on = asyncio.Event()
    async with stage(on_complete=slow, timeouts=IMPATIENT) as s:
        url = await full(s)
        assert (await s.client.append(url, b"o", at=4)).status == 423
        go_on.set()
        await until(lambda: s.kept(url).attempts > 0)
        assert errors(caplog) == [(id_of(url), "hook_failed")]
        s.clock.advance(timedelta(seconds=1))
        assert (await s.tus.sweep()).completed == 1


# ---- the storage


@pytest.mark.parametrize(
    ("error", "status", "word"),
    [
        (StorageUnavailable("away"), 503, "storage_unavailable"),
        (StorageFull("full"), 507, "storage_full"),
    ],
)
async def test_a_seal_that_fails_is_tried_again(
    error: Exception, status: int, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    done = Done()
    async with stage(on_complete=done) as s:
        url = await full(s)
        s.storage.at.coming["seal"].append(error)
        assert_refused(await s.client.append(url, b"o", at=4), status, word)
        assert not done.calls
        assert len(errors(caplog)) == 1
        assert_head_refused(await s.client.head(url), 423)
        s.clock.advance(timedelta(seconds=1))
        assert await s.client.offset(url) == 5
        assert await s.content(url) == b"hello"


async def test_bytes_that_are_lost_at_the_seal_end_the_upload() -> None:
    reasons: list[Reason] = []
    async with stage(on_terminate=lambda upload, reason: reasons.append(reason)) as s:
        url = await full(s)
        s.storage.at.coming["seal"].append(CursorLost("gone"))
        assert_refused(await s.client.append(url, b"o", at=4), 410, "upload_lost")
        assert_head_refused(await s.client.head(url), 410)
        assert reasons == [Reason.LOST]


async def test_a_trash_that_cannot_be_removed_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with stage(on_complete=lambda upload: s.storage.at.coming["seal"].append(StorageFull("full"))) as s:
        url = await s.whole(b"hello")
        assert await s.content(url) == b"hello"
    assert [record.levelname for record in caplog.records] == ["WARNING"]


# ---- uploads of no bytes


@pytest.mark.parametrize("failure", FOR_NOW)
async def test_an_empty_upload_that_cannot_finish_for_now_is_503_and_ended(failure: str) -> None:
    reasons: list[Reason] = []
    done = Done(FOR_NOW[failure]())
    async with stage(on_complete=done, on_terminate=lambda upload, reason: reasons.append(reason)) as s:
        answer = await s.client.request("POST", "/files", headers={"Upload-Length": "0"})
        assert_refused(answer, 503, "hook_failed")
        assert "location" not in answer.headers
        assert reasons == [Reason.HOST]
        assert [record.state for record in s.store.records.values()] == [UploadState.GONE]
        s.clock.advance(timedelta(hours=1))
        await s.tus.sweep()
        assert len(done.calls) == 1


async def test_an_empty_upload_that_is_refused_for_good_says_so() -> None:
    for options in (
        {"on_complete": Done(Rejected(422, "empty", "It is empty."))},
        {"on_first_chunk": _refuse_empty},
    ):
        async with stage(**options) as s:
            answer = await s.client.request("POST", "/files", headers={"Upload-Length": "0"})
            assert_refused(answer, 422, "empty")
            (record,) = s.store.records.values()
            assert (record.state, record.reason) == (UploadState.GONE, Reason.REJECTED)


def _refuse_empty(upload: Upload, head: bytes) -> None:
    if not head:
        raise Rejected(422, "empty", "It is empty.")


async def test_an_empty_upload_that_takes_too_long_is_503_and_never_complete() -> None:
    held = Held()
    async with stage(on_complete=held, timeouts=IMPATIENT) as s:
        answer = await s.client.request("POST", "/files", headers={"Upload-Length": "0"})
        assert_refused(answer, 503, "finishing_failed")
        held.go_on.set()
        (key,) = s.store.records
        await until(lambda: s.kept(key).state is UploadState.GONE)
        assert s.kept(key).reason is Reason.HOST


@pytest.mark.parametrize("by", ["HEAD", "PATCH", "sweep"])
async def test_a_host_s_empty_upload_is_finished_by_whoever_comes_first(by: str) -> None:
    done = Done()
    heads: list[bytes] = []
    async with stage(on_complete=done, on_first_chunk=lambda upload, head: heads.append(head)) as s:
        upload = await s.tus.create(length=0, key="k")
        url = s.tus.url_for(upload)
        assert (upload.state, heads, done.calls) == (UploadState.FINISHING, [], [])
        match by:
            case "HEAD":
                assert await s.client.offset(url) == 0
            case "PATCH":
                assert (await s.client.append(url, b"")).status == 204
            case _:
                assert (await s.tus.sweep()).completed == 1
        assert (heads, done.contents) == ([b""], [b""])
        assert (await s.upload(url)).is_complete


async def test_a_host_s_empty_upload_that_fails_for_now_lives_on() -> None:
    done = Done(ValueError("boom"))
    async with stage(on_complete=done) as s:
        url = s.tus.url_for(await s.tus.create(length=0))
        assert_head_refused(await s.client.head(url), 423)
        assert await s.state(url) is UploadState.FINISHING
        s.clock.advance(timedelta(seconds=1))
        assert await s.client.offset(url) == 0
        assert len(done.calls) == 2


@pytest.mark.parametrize("at", ["acquire", "commit"])
async def test_an_empty_upload_without_a_store_is_503(at: str) -> None:
    async with stage() as s:
        s.store.at.coming[at].extend(StoreUnavailable("away") for _ in range(4))
        answer = await s.client.request("POST", "/files", headers={"Upload-Length": "0"})
        assert_refused(answer, 503, "store_unavailable")
