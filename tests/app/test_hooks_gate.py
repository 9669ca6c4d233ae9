"""The first-chunk gate: what it sees and when, what it may say, and that a refusal leaves nothing behind."""

import asyncio
from datetime import timedelta

import pytest
from starlette.exceptions import HTTPException

from tests.app.stage import OCTETS, assert_head_refused, assert_refused, id_of, stage
from tests.app.test_hooks_calls import errors
from tusserve import Accepted, Kind, Reason, Rejected, Timeouts, Upload, UploadState
from tusserve.errors import StorageUnavailable
from tusserve.testing.client import Response

pytestmark = pytest.mark.anyio


class Gate:
    """A gate that notes the heads that it saw, and what the upload was then."""

    def __init__(self, answer: Accepted | Exception | None = None) -> None:
        self.heads: list[bytes] = []
        self.uploads: list[Upload] = []
        self.answer = answer

    def __call__(self, upload: Upload, head: bytes) -> Accepted | None:
        self.heads.append(head)
        self.uploads.append(upload)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


# ---- what it sees, and when


@pytest.mark.parametrize("chunk_size", [1, 3, 4, 7, 100])
@pytest.mark.parametrize("told", ["auto", None])
async def test_the_gate_sees_the_first_bytes_before_the_storage(chunk_size: int, told: int | None) -> None:
    storage_calls: list[list[str]] = []

    def gate(upload: Upload, head: bytes) -> None:
        storage_calls.append(list(s.storage.at.calls))
        heads.append(head)
        assert (upload.state, upload.offset) == (UploadState.RECEIVING, 0)

    heads: list[bytes] = []
    async with stage(on_first_chunk=gate, sniff_size=4) as s:
        url = await s.client.create("/files", length=10)
        answer = await s.client.append(url, b"0123456789", chunk_size=chunk_size, content_length=told)
        assert answer.status == 204
        assert len(heads) == 1
        assert heads[0][:4] == b"0123"
        assert storage_calls == [[]]
        assert await s.content(url) == b"0123456789"


async def test_the_gate_sees_as_much_as_it_wants_and_of_a_whole_body_all() -> None:
    gate = Gate()
    async with stage(on_first_chunk=gate, sniff_size=4) as s:
        short = await s.client.create("/files", length=10)
        assert (await s.client.append(short, b"01")).status == 204
        tiny = await s.client.create("/files", length=2)
        assert (await s.client.append(tiny, b"01")).status == 204
        assert gate.heads == [b"01", b"01"]


async def test_bytes_are_held_until_the_gate_has_seen_enough() -> None:
    gate = Gate()
    async with stage(on_first_chunk=gate, sniff_size=4) as s:
        url = await s.client.create("/files", length=10)
        async with s.client.half_open(url, b"012") as body:
            await asyncio.sleep(0.05)
            assert not gate.heads
            assert not s.storage.at.calls
            await body.more(b"3")
            await body.until_asked()
            assert gate.heads == [b"0123"]
            await body.more(b"456789")
            body.end()
            assert (await body.response()).status == 204
        assert await s.content(url) == b"0123456789"


@pytest.mark.parametrize("cut_after", [0, 1, 3])
async def test_a_body_cut_before_that_keeps_nothing_and_asks_nobody(cut_after: int) -> None:
    gate = Gate()
    async with stage(on_first_chunk=gate, sniff_size=4) as s:
        url = await s.client.create("/files", length=10)
        await s.client.append(url, b"0123456789", cut_after=cut_after)
        assert not gate.heads
        assert (await s.client.offset(url), s.storage.bytes) == (0, 0)
        assert (await s.client.append(url, b"0123456789")).status == 204
        assert gate.heads == [b"0123"]


@pytest.mark.parametrize("chunk_size", [1, 100])
async def test_a_body_cut_after_that_is_kept(chunk_size: int) -> None:
    gate = Gate()
    async with stage(on_first_chunk=gate, sniff_size=4) as s:
        url = await s.client.create("/files", length=10)
        await s.client.append(url, b"0123456789", cut_after=4, chunk_size=chunk_size)
        assert len(gate.heads) == 1
        assert await s.client.offset(url) == 4


async def test_a_body_that_is_silent_or_asked_for_before_that_keeps_nothing() -> None:
    gate = Gate()
    timeouts = Timeouts(idle=timedelta(seconds=0.3))
    async with stage(on_first_chunk=gate, sniff_size=4, timeouts=timeouts) as s:
        url = await s.client.create("/files", length=10)
        async with s.client.half_open(url, b"012") as silent:
            assert await s.client.offset(url) == 0
            answer = await silent.response()
            assert_refused(answer, 423, "upload_interrupted")
            assert answer.headers["upload-offset"] == "0"
        async with s.client.half_open(url, b"012") as silent:
            assert_refused(await silent.response(), 423, "upload_interrupted")
        assert not gate.heads
        assert s.storage.bytes == 0


async def test_an_empty_body_is_no_first_chunk() -> None:
    gate = Gate()
    async with stage(on_first_chunk=gate) as s:
        url = await s.client.create("/files", length=10)
        for told in (0, None):
            assert (await s.client.append(url, b"", content_length=told)).status == 204
        assert not gate.heads


async def test_the_gate_runs_until_its_answer_is_committed_and_never_again() -> None:
    gate = Gate(ValueError("boom"))
    async with stage(on_first_chunk=gate) as s:
        url = await s.client.create("/files", length=10)
        assert_refused(await s.client.append(url, b"0123"), 503, "hook_failed")
        gate.answer = Accepted(key="lost")
        s.storage.at.coming["flush"].append(StorageUnavailable("away"))
        s.storage.at.coming["checkpoint"].append(StorageUnavailable("away"))
        assert_refused(await s.client.append(url, b"0123"), 503, "storage_unavailable")
        assert (await s.upload(url)).key is None
        gate.answer = Accepted(key="kept")
        assert (await s.client.append(url, b"0123")).status == 204
        assert gate.heads == [b"0123"] * 3
        gate.answer = Accepted(key="too late")
        assert (await s.client.append(url, b"456789", at=4)).status == 204
        assert len(gate.heads) == 3
        assert (await s.upload(url)).key == "kept"


async def test_the_gate_sees_the_first_bytes_of_a_creation_too() -> None:
    gate = Gate()
    async with stage(on_first_chunk=gate, sniff_size=4) as s:
        sent = {"Upload-Length": "5", "Content-Type": OCTETS}
        answer = await s.client.request("POST", "/files", headers=sent, body=b"hello", chunk_size=1)
        assert (answer.status, answer.headers["upload-offset"]) == (201, "5")
        assert gate.heads == [b"hell"]


async def test_an_empty_upload_shows_the_gate_nothing_before_it_is_complete() -> None:
    gate = Gate(Accepted(key="nothing", attributes={"seen": True}))
    async with stage(on_first_chunk=gate) as s:
        url = await s.client.create("/files", length=0)
        assert gate.heads == [b""]
        upload = await s.upload(url)
        assert (upload.key, upload.attributes, upload.is_complete) == ("nothing", {"seen": True}, True)


# ---- what it may say


async def test_everything_that_the_gate_may_say_is_committed_with_the_bytes() -> None:
    accepted = Accepted(key="a/b.bin", content_type="video/mp4", attributes={"type": "video"})
    completed: list[Upload] = []
    async with stage(on_first_chunk=Gate(accepted), on_complete=completed.append) as s:
        upload = await s.tus.create(
            length=10, attributes={"project": 7}, key="before", content_type="application/x"
        )
        url = s.tus.url_for(upload)
        assert (await s.client.append(url, b"0123")).status == 204
        upload = await s.upload(url)
        assert (upload.key, upload.content_type, upload.offset) == ("a/b.bin", "video/mp4", 4)
        assert upload.attributes == {"project": 7, "type": "video"}
        assert (await s.client.append(url, b"456789", at=4)).status == 204
        (done,) = completed
        assert (done.key, done.content_type, done.kind) == ("a/b.bin", "video/mp4", Kind.WHOLE)


async def test_a_gate_that_says_nothing_leaves_what_was_said() -> None:
    async with stage(on_first_chunk=Gate(Accepted())) as s:
        upload = await s.tus.create(length=4, key="k", content_type="x/y", attributes={"a": 1})
        assert (await s.client.append(s.tus.url_for(upload), b"0123")).status == 204
        upload = await s.upload(s.tus.url_for(upload))
        assert (upload.key, upload.content_type, upload.attributes) == ("k", "x/y", {"a": 1})


@pytest.mark.parametrize("said", [True, b"yes", {"key": "x"}])
async def test_an_answer_that_is_none_is_a_failure(said: object, caplog: pytest.LogCaptureFixture) -> None:
    async with stage(on_first_chunk=lambda upload, head: said) as s:  # type: ignore[arg-type, return-value]
        url = await s.client.create("/files", length=4)
        assert_refused(await s.client.append(url, b"0123"), 503, "hook_failed")
        assert errors(caplog) == [(id_of(url), "hook_failed")]
        assert (await s.client.offset(url), s.storage.bytes) == (0, 0)


# ---- what it refuses


async def refused_for_good(error: Exception, *, at_creation: bool = False) -> tuple[Response, list[Reason]]:
    """What the client is told at first, after checking that the upload ended and nothing is left of it."""
    reasons: list[Reason] = []
    async with stage(
        on_first_chunk=Gate(error), sniff_size=4, on_terminate=lambda upload, reason: reasons.append(reason)
    ) as s:
        if at_creation:
            sent = {"Upload-Length": "10", "Content-Type": OCTETS}
            answer = await s.client.request("POST", "/files", headers=sent, body=b"0123456789")
            (record_id,) = s.store.records
            url = f"/files/{record_id}"
        else:
            url = await s.client.create("/files", length=10)
            answer = await s.client.append(url, b"0123456789", chunk_size=2)
        assert not s.storage.bytes
        assert "open" not in s.storage.at.calls
        document = answer.json()
        assert isinstance(document, dict)
        again = await s.client.append(url, b"0123456789")
        assert_refused(again, 410, str(document["code"]))
        assert again.json() == {**again_of(again), "detail": document["detail"]}
        assert_head_refused(await s.client.head(url), 410)
        upload = await s.upload(url)
        assert upload.state is UploadState.GONE
        assert upload.refusal is not None
        assert (upload.refusal.status, upload.refusal.code) == (answer.status, document["code"])
        return answer, reasons


def again_of(answer: Response) -> dict[str, object]:
    document = answer.json()
    assert isinstance(document, dict)
    return document


@pytest.mark.parametrize("at_creation", [False, True])
async def test_a_refusal_ends_the_upload_and_leaves_nothing(at_creation: bool) -> None:
    refusal = Rejected(
        415, "unsupported_media", "Neither audio nor video.", headers={"X-A": "b"}, extra={"got": "text"}
    )
    answer, reasons = await refused_for_good(refusal, at_creation=at_creation)
    assert_refused(answer, 415, "unsupported_media")
    assert answer.headers["x-a"] == "b"
    assert again_of(answer)["got"] == "text"
    assert "location" not in answer.headers
    assert reasons == [Reason.REJECTED]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 413, 422, 499])
async def test_an_http_exception_of_4xx_is_for_good(status: int) -> None:
    answer, _ = await refused_for_good(HTTPException(status, "No."))
    assert_refused(answer, status, "rejected")


@pytest.mark.parametrize("status", [408, 423, 425, 429, 500, 503, 302])
async def test_another_http_exception_is_for_now(status: int, caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate(HTTPException(status, "Not now."))
    async with stage(on_first_chunk=gate) as s:
        url = await s.client.create("/files", length=4)
        answer = await s.client.append(url, b"0123")
        assert_refused(answer, 503, "hook_failed")
        assert int(answer.headers["retry-after"]) >= 1
        assert errors(caplog) == [(id_of(url), "hook_failed")]
        assert (await s.client.offset(url), s.storage.bytes) == (0, 0)
        gate.answer = None
        assert (await s.client.append(url, b"0123")).status == 204


async def test_a_gate_that_takes_too_long_is_for_now(caplog: pytest.LogCaptureFixture) -> None:
    async def slow(upload: Upload, head: bytes) -> None:
        await asyncio.Event().wait()

    async with stage(on_first_chunk=slow, timeouts=Timeouts(hook=timedelta(seconds=0.1))) as s:
        url = await s.client.create("/files", length=4)
        assert_refused(await s.client.append(url, b"0123"), 503, "hook_failed")
        assert errors(caplog) == [(id_of(url), "hook_failed")]
        assert (await s.client.offset(url), s.storage.bytes) == (0, 0)


async def test_a_slow_gate_is_not_robbed_of_its_upload() -> None:
    go_on = asyncio.Event()
    calls: list[bytes] = []

    async def slow(upload: Upload, head: bytes) -> None:
        calls.append(head)
        await go_on.wait()

    async with stage(on_first_chunk=slow) as s:
        url = await s.client.create("/files", length=4)
        first = asyncio.ensure_future(s.client.append(url, b"0123"))
        await asyncio.sleep(0.05)
        assert await s.client.offset(url) == 0
        assert_refused(await s.client.append(url, b"abcd"), 423, "upload_locked")
        go_on.set()
        assert (await first).status == 204
        assert calls == [b"0123"]
        assert await s.content(url) == b"0123"


async def test_a_delete_while_the_gate_thinks_wins() -> None:
    go_on, thinking = asyncio.Event(), asyncio.Event()

    async def slow(upload: Upload, head: bytes) -> None:
        thinking.set()
        await go_on.wait()

    async with stage(on_first_chunk=slow) as s:
        url = await s.client.create("/files", length=4)
        first = asyncio.ensure_future(s.client.append(url, b"0123"))
        await thinking.wait()
        deleting = asyncio.ensure_future(s.client.delete(url))
        await s.store.at.until("renew")  # which is the answer to an ask
        go_on.set()
        assert_refused(await first, 410, "upload_terminated")
        assert (await deleting).status == 204
        assert s.storage.bytes == 0
        assert "open" not in s.storage.at.calls


async def test_the_rest_of_a_refused_body_is_dropped_but_never_asked_for() -> None:
    async with stage(on_first_chunk=Gate(Rejected(415, "no", "No.")), sniff_size=4) as s:
        url = await s.client.create("/files", length=100)
        answer = await s.client.append(url, b"x" * 100, chunk_size=10)
        assert (answer.status, answer.taken) == (415, 100)
        url = await s.client.create("/files", length=100)
        async with s.client.half_open(url, b"x" * 10) as silent:
            assert_refused(await silent.response(), 415, "no")


async def test_a_refusal_with_409_hints_once(caplog: pytest.LogCaptureFixture) -> None:
    async with stage(on_first_chunk=Gate(Rejected(409, "no", "No."))) as s:
        for _ in range(2):
            url = await s.client.create("/files", length=4)
            assert_refused(await s.client.append(url, b"0123"), 409, "no")
    assert len([record for record in caplog.records if "409" in record.getMessage()]) == 1


# ---- the least first chunk


async def test_a_length_below_the_least_is_400_at_creation() -> None:
    async with stage(on_first_chunk=Gate(), min_first_chunk=4, sniff_size=8) as s:
        for length in ("0", "3"):
            answer = await s.client.request("POST", "/files", headers={"Upload-Length": length})
            assert_refused(answer, 400, "length_too_short")
        assert s.nothing_kept()
        assert await s.client.create("/files", length=4)


async def test_a_first_body_below_the_least_ends_the_upload() -> None:
    gate = Gate()
    reasons: list[Reason] = []
    async with stage(
        on_first_chunk=gate,
        min_first_chunk=4,
        sniff_size=8,
        on_terminate=lambda upload, reason: reasons.append(reason),
    ) as s:
        url = await s.client.create("/files", length=10)
        assert_refused(await s.client.append(url, b"012"), 400, "first_chunk_too_short")
        assert_refused(await s.client.append(url, b"0123456789"), 410, "first_chunk_too_short")
        assert not gate.heads
        assert reasons == [Reason.REJECTED]
        assert s.storage.bytes == 0


async def test_a_first_body_below_the_least_that_was_cut_may_come_again() -> None:
    gate = Gate()
    async with stage(on_first_chunk=gate, min_first_chunk=4, sniff_size=8) as s:
        url = await s.client.create("/files", length=10)
        await s.client.append(url, b"0123456789", cut_after=3)
        assert await s.client.offset(url) == 0
        assert (await s.client.append(url, b"")).status == 204
        assert (await s.client.append(url, b"0123")).status == 204
        assert (await s.client.append(url, b"4", at=4)).status == 204
        assert gate.heads == [b"0123"]


async def test_without_a_gate_there_is_no_least() -> None:
    async with stage(min_first_chunk=4, sniff_size=8) as s:
        url = await s.client.create("/files", length=2)
        assert (await s.client.append(url, b"01")).status == 204


# ---- keys


@pytest.mark.parametrize("by", ["on_first_chunk", "on_create"])
async def test_a_key_of_another_upload_is_refused_for_good(by: str) -> None:
    reasons: list[Reason] = []
    options = {by: lambda first, second: Accepted(key="the one")}
    async with stage(
        on_terminate=lambda upload, reason: reasons.append(reason),
        **options,  # type: ignore[arg-type]
    ) as s:
        first = await s.whole(b"first")
        url = await s.client.create("/files", length=6)
        assert_refused(await s.client.append(url, b"second"), 422, "key_taken")
        assert_refused(await s.client.append(url, b"second"), 410, "key_taken")
        assert_head_refused(await s.client.head(url), 410)
        assert reasons == [Reason.REJECTED]
        assert await s.content(first) == b"first"
        await s.client.delete(first)
        assert await s.content(await s.whole(b"second")) == b"second"


async def test_of_two_uploads_at_once_for_one_key_one_gets_it() -> None:
    async with stage(on_create=lambda new, request: Accepted(key="the one")) as s:
        urls = [await s.client.create("/files", length=5) for _ in range(2)]
        for url in urls:
            assert (await s.client.append(url, b"he")).status == 204
        assert (await s.client.append(urls[0], b"llo", at=2)).status == 204
        assert_refused(await s.client.append(urls[1], b"y!!", at=2), 422, "key_taken")
        assert await s.content(urls[0]) == b"hello"
        assert_refused(await s.client.append(urls[1], b"y!!", at=2), 410, "key_taken")


async def test_a_taken_key_at_creation_with_upload_is_told_at_once() -> None:
    async with stage(on_create=lambda new, request: Accepted(key="the one")) as s:
        await s.whole(b"first")
        sent = {"Upload-Length": "5", "Content-Type": OCTETS}
        answer = await s.client.request("POST", "/files", headers=sent, body=b"hello")
        assert_refused(answer, 422, "key_taken")
        answer = await s.client.request("POST", "/files", headers={"Upload-Length": "0"})
        assert_refused(answer, 422, "key_taken")
