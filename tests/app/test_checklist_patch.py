"""The checklist of TUS 1.0.0, end to end: PATCH.

The number in the name of a test is that of its line.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from tests.app.stage import OCTETS, assert_refused, stage
from tusserve import Action, Expiry, Rejected, Timeouts, TusApp, Upload, UploadState
from tusserve.storage.memory import MemoryStorage
from tusserve.stores.memory import MemoryStore
from tusserve.testing.client import Response, TusClient

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "content_type", [None, "", "text/plain", f"{OCTETS}x", f"x; {OCTETS}", "multipart/x"]
)
async def test_a24_another_content_type_is_415(content_type: str | None) -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=5)
        answer = await s.client.append(url, b"hello", headers={"Content-Type": content_type})
        assert_refused(answer, 415, "unsupported_content_type")
        assert answer.headers["accept-patch"] == OCTETS
        assert (await s.client.offset(url), s.storage.bytes) == (0, 0)


async def test_a24_two_content_types_are_none() -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=5)
        twice = [("Content-Type", OCTETS), ("Content-Type", "text/plain")]
        assert_refused(await s.client.append(url, b"hello", headers=twice), 415, "unsupported_content_type")


async def test_a25_no_offset_is_400() -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=5)
        answer = await s.client.append(url, b"hello", headers={"Upload-Offset": None})
        assert_refused(answer, 400, "invalid_offset")
        assert (await s.client.offset(url), s.storage.bytes) == (0, 0)


@pytest.mark.parametrize("at", [0, 1, 3, 4, 5])
async def test_a26_another_offset_is_409_with_ours(at: int) -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=6)
        await s.client.append(url, b"he")
        answer = await s.client.append(url, b"x", at=at)
        assert_refused(answer, 409, "offset_mismatch")
        assert answer.headers["upload-offset"] == "2"
        assert "retry-after" not in answer.headers
        assert (await s.client.offset(url), s.storage.bytes) == (2, 2)


async def test_a27_success_is_204_with_the_new_offset() -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=6)
        first = await s.client.append(url, b"hel")
        second = await s.client.append(url, b"lo!", at=3)
        assert [(a.status, a.headers["upload-offset"], a.body) for a in (first, second)] == [
            (204, "3", b""),
            (204, "6", b""),
        ]
        assert await s.content(url) == b"hello!"


async def test_a28_what_is_not_there_is_404() -> None:
    async with stage() as s:
        assert_refused(await s.client.append("/files/nobody", b"x"), 404, "upload_not_found")
        assert s.nothing_kept()


@pytest.mark.parametrize("chunk_size", [1, 3, 100])
@pytest.mark.parametrize("n", range(0, 11, 2))
async def test_a29_what_came_of_a_cut_body_is_kept(n: int, chunk_size: int) -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=10)
        await s.client.append(url, b"0123456789", cut_after=n, chunk_size=chunk_size)
        if n == 10:
            assert await s.state(url) is UploadState.COMPLETE
        else:
            assert await s.client.offset(url) == n
            assert (await s.client.append(url, b"0123456789"[n:], at=n)).status == 204
        assert await s.content(url) == b"0123456789"


async def test_a30_a_body_that_is_silent_for_long_is_given_up() -> None:
    async with stage(timeouts=Timeouts(idle=timedelta(seconds=0.2))) as s:
        url = await s.client.create("/files", length=10)
        async with s.client.half_open(url, b"0123") as silent:
            answer = await silent.response()
        assert_refused(answer, 423, "upload_interrupted")
        assert answer.headers["upload-offset"] == "4"
        assert answer.headers["connection"] == "close"
        assert await s.client.offset(url) == 4


async def test_a30_a_body_that_is_too_slow_is_given_up() -> None:
    timeouts = Timeouts(idle=timedelta(seconds=0.3), min_rate=1000)
    async with stage(timeouts=timeouts) as s:
        url = await s.client.create("/files", length=1000)
        async with s.client.half_open(url, b"x") as slow:

            async def trickle() -> None:
                while not slow.over:
                    await asyncio.sleep(0.05)
                    slow.offer(b"x")

            trickling = asyncio.ensure_future(trickle())
            assert_refused(await slow.response(), 423, "upload_interrupted")
            await trickling
        assert 0 < await s.client.offset(url) < 1000


@pytest.mark.parametrize("at", [0, 2, 4, 6, 10**18])
async def test_a31_a_length_beyond_the_upload_is_413_before_a_byte(at: int) -> None:
    """By the request's own numbers, whatever the offset is."""
    async with stage() as s:
        url = await s.client.create("/files", length=6)
        await s.client.append(url, b"he")
        s.storage.at.calls.clear()
        answer = await s.client.append(url, b"0123456", at=at)
        assert_refused(answer, 413, "body_too_long")
        assert not s.storage.at.calls
        assert await s.client.offset(url) == 2


@pytest.mark.parametrize("chunk_size", [1, 4, 6, 100])
async def test_a31_a_body_that_runs_over_is_413_and_never_complete(chunk_size: int) -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=6)
        await s.client.append(url, b"he")
        answer = await s.client.append(url, b"01234", at=2, content_length=None, chunk_size=chunk_size)
        assert_refused(answer, 413, "body_too_long")
        assert answer.headers["upload-offset"] == "2"
        assert await s.client.offset(url) == 2
        assert (await s.client.append(url, b"llo!", at=2)).status == 204
        assert await s.content(url) == b"hello!"


@pytest.mark.parametrize("told", ["auto", None])
async def test_a32_a_body_may_tell_its_length_or_not(told: int | None) -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=10)
        answer = await s.client.append(url, b"01234", content_length=told, chunk_size=2)
        assert (answer.status, answer.headers["upload-offset"]) == (204, "5")
        answer = await s.client.append(url, b"56789", at=5, content_length=told)
        assert (answer.status, answer.headers["upload-offset"]) == (204, "10")
        assert await s.content(url) == b"0123456789"


@pytest.mark.parametrize("claimed", [1, 4, 6, 10])
async def test_a32_a_body_of_another_length_than_it_told_is_no_whole_one(claimed: int) -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=10)
        answer = await s.client.append(url, b"01234", content_length=claimed)
        assert_refused(answer, 423, "upload_interrupted")
        assert answer.headers["upload-offset"] == "5"
        assert await s.client.offset(url) == 5
        assert await s.state(url) is UploadState.RECEIVING


async def test_a32_both_ways_to_tell_a_length_are_400() -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=10)
        answer = await s.client.append(url, b"01234", headers={"Transfer-Encoding": "chunked"})
        assert_refused(answer, 400, "invalid_content_length")
        assert await s.client.offset(url) == 0


@pytest.mark.parametrize("told", ["auto", None])
async def test_a33_an_empty_patch_changes_nothing(told: int | None) -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=10)
        await s.client.append(url, b"0123")
        s.clock.advance(timedelta(hours=1))
        before = await s.upload(url)
        answer = await s.client.append(url, b"", at=4, content_length=told)
        assert (answer.status, answer.headers["upload-offset"]) == (204, "4")
        after = await s.upload(url)
        assert (after.state, after.offset, after.expires_at) == (
            UploadState.RECEIVING,
            4,
            before.expires_at,
        )


async def test_a33_an_empty_patch_that_says_so_disturbs_nobody() -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=10)
        async with s.client.half_open(url, b"01") as busy:
            s.store.at.calls.clear()
            assert (await s.client.append(url, b"", at=0)).status == 204
            assert s.store.at.calls == ["get"]
            await busy.more(b"23456789")
            busy.end()
            assert (await busy.response()).status == 204


async def test_a34_of_two_patches_at_once_one_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tusserve.body.SILENCE", 30)  # on a busy machine none of ours is a silence
    async with stage() as s:
        url = await s.client.create("/files", length=10)
        async with s.client.half_open(url, b"0") as busy:

            async def keep_on() -> None:
                for digit in b"123456789":
                    await asyncio.sleep(0.08)
                    await busy.more(bytes([digit]))

            going_on = asyncio.ensure_future(keep_on())
            second = await s.client.append(url, b"abcdefghij", headers={"Expect": "100-continue"})
            assert_refused(second, 423, "upload_locked")
            assert not second.asked
            assert second.headers["connection"] == "close"
            assert int(second.headers["retry-after"]) >= 1
            await going_on
            busy.end()
            assert (await busy.response()).status == 204
        assert await s.content(url) == b"0123456789"


async def test_a34_many_patches_at_once_never_mix() -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=26)
        answers = await asyncio.gather(
            *(s.client.append(url, bytes([letter]) * 26, chunk_size=5) for letter in b"abcdefgh")
        )
        assert {answer.status for answer in answers} <= {204, 403, 409, 423}
        assert [answer.status for answer in answers].count(204) == 1
        assert len(set(await s.content(url))) == 1


async def test_a35_a_finished_upload_takes_nothing_and_does_not_finish_again() -> None:
    completed: list[str] = []
    async with stage(on_complete=lambda upload: completed.append(upload.id)) as s:
        url = await s.whole(b"hello")
        for told in (0, None):
            empty = await s.client.append(url, b"", at=5, content_length=told)
            assert (empty.status, empty.headers["upload-offset"]) == (204, "5")
        for told in (1, None):
            more = await s.client.append(url, b"x", at=5, content_length=told)
            assert_refused(more, 403, "upload_complete")
        assert_refused(await s.client.append(url, b"0123456", at=0), 403, "upload_complete")
        wrong = await s.client.append(url, b"", at=3)
        assert_refused(wrong, 409, "offset_mismatch")
        assert wrong.headers["upload-offset"] == "5"
        assert len(completed) == 1
        assert await s.content(url) == b"hello"


async def test_a36_more_than_the_largest_size_is_413() -> None:
    async with stage(max_size=10) as s:
        url = await s.client.create("/files", length=10)
        assert_refused(await s.client.append(url, b"0123456789x"), 413, "body_too_long")
        assert_refused(await s.client.append(url, b"x" * 11, content_length=None), 413, "body_too_long")
        assert await s.client.offset(url) == 0


class Order:
    """Notes what an app does with `receive` and `send`, in order."""

    def __init__(self, app: TusApp) -> None:
        self._app = app
        self.steps: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def noted_receive() -> Message:
            self.steps.append("receive")
            return await receive()

        async def noted_send(message: Message) -> None:
            self.steps.append(message["type"])
            await send(message)

        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        else:
            await self._app(scope, noted_receive, noted_send)


def nobody(request: Request, action: Action, upload: Upload | None) -> str | None:
    if "refuse" in request.headers:
        raise Rejected(403, "forbidden", "Not you.")
    return request.headers.get("who")


Bad = Callable[[TusClient, str], Awaitable[Response]]
EARLY: dict[str, tuple[int, Bad]] = {
    "version": (412, lambda c, url: c.append(url, b"hello", headers={"Tus-Resumable": None})),
    "method": (405, lambda c, url: c.request("PUT", url, body=b"hello")),
    "syntax of the id": (404, lambda c, url: c.append(url + ".x", b"hello")),
    "authorize": (403, lambda c, url: c.append(url, b"hello", headers={"refuse": "1"})),
    "owner": (404, lambda c, url: c.append(url, b"hello", headers={"who": "other"})),
    "offset": (400, lambda c, url: c.append(url, b"hello", headers={"Upload-Offset": "x"})),
    "content type": (415, lambda c, url: c.append(url, b"hello", headers={"Content-Type": "x/y"})),
    "existence": (404, lambda c, url: c.append("/files/nobody", b"hello")),
    "size": (413, lambda c, url: c.append(url, b"hello world")),
    "another offset": (409, lambda c, url: c.append(url, b"hell", at=1)),
    "length at creation": (400, lambda c, url: c.request("POST", "/files", body=b"hello")),
    "size at creation": (
        413,
        lambda c, url: c.request(
            "POST", "/files", headers={"Upload-Length": "4", "Content-Type": OCTETS}, body=b"hello"
        ),
    ),
    "type at creation": (
        415,
        lambda c, url: c.request("POST", "/files", headers={"Upload-Length": "5"}, body=b"hello"),
    ),
}


@pytest.mark.parametrize("check", EARLY)
async def test_a37_no_body_is_asked_for_before_the_answer_to(check: str) -> None:
    status, bad = EARLY[check]
    storage, store = MemoryStorage(), MemoryStore()
    tus = TusApp("/files", storage=storage, store=store, authorize=nobody, sweep_every=None)
    order = Order(tus)
    async with TusClient(order) as client:
        url = await client.create("/files", length=5)
        order.steps.clear()
        assert (await bad(client, url)).status == status
        assert order.steps[0] == "http.response.start", order.steps
        assert await client.offset(url) == 0


async def test_a37_no_body_is_asked_for_once_the_upload_is_over() -> None:
    tus = TusApp("/files", storage=MemoryStorage(), store=MemoryStore(), sweep_every=None)
    order = Order(tus)
    async with TusClient(order) as client:
        url = await client.create("/files", length=5)
        await client.append(url, b"hello")
        order.steps.clear()
        assert (await client.append(url, b"hello", at=5)).status == 403
        assert order.steps[0] == "http.response.start"
        await client.delete(url)
        order.steps.clear()
        assert (await client.append(url, b"hello")).status == 410
        assert order.steps[0] == "http.response.start"


async def test_a37_an_expired_upload_is_not_asked_for_its_body() -> None:
    async with stage(expiry=Expiry(initial=timedelta(hours=1))) as s:
        url = await s.client.create("/files", length=5)
        s.clock.advance(timedelta(hours=1))
        answer = await s.client.append(url, b"hello", headers={"Expect": "100-continue"})
        assert_refused(answer, 410, "upload_expired")
        assert not answer.asked
