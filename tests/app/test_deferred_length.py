"""An upload whose length is told later: once, by any PATCH, and then it is as any other."""

import pytest

from tests.app.stage import Stage, assert_refused, id_of, stage
from tusserve import Rejected, Upload, UploadState
from tusserve.testing.client import Response

pytestmark = pytest.mark.anyio


async def deferred(s: Stage, **more: str) -> str:
    answer = await s.client.request("POST", "/files", headers={"Upload-Defer-Length": "1", **more})
    assert answer.status == 201, answer
    return answer.headers["location"]


async def declare(s: Stage, url: str, length: object, data: bytes = b"", *, at: int) -> Response:
    return await s.client.append(url, data, at=at, headers={"Upload-Length": str(length)})


async def test_head_says_so_until_the_length_is_told() -> None:
    async with stage() as s:
        url = await deferred(s)
        seen = await s.client.head(url)
        assert (seen.headers["upload-offset"], seen.headers["upload-defer-length"]) == ("0", "1")
        assert "upload-length" not in seen.headers
        assert (await s.client.append(url, b"hello")).status == 204
        assert (await s.client.head(url)).headers["upload-defer-length"] == "1"
        assert (await declare(s, url, 10, b"wor", at=5)).status == 204
        seen = await s.client.head(url)
        assert (seen.headers["upload-offset"], seen.headers["upload-length"]) == ("8", "10")
        assert "upload-defer-length" not in seen.headers
        assert (await s.client.append(url, b"ld", at=8)).status == 204
        assert await s.content(url) == b"helloworld"


async def test_an_empty_patch_that_tells_the_length_completes_it() -> None:
    done: list[int | None] = []
    async with stage(on_complete=lambda upload: done.append(upload.length)) as s:
        url = await deferred(s)
        assert (await s.client.append(url, b"hello")).status == 204
        assert not done
        assert (await declare(s, url, 5, at=5)).status == 204
        assert done == [5]
        assert await s.content(url) == b"hello"
        assert (await declare(s, url, 5, at=5)).status == 204, "once more changes nothing"
        assert done == [5]


async def test_the_last_bytes_may_tell_it() -> None:
    async with stage() as s:
        url = await deferred(s)
        assert (await declare(s, url, 5, b"hello", at=0)).status == 204
        assert await s.state(url) is UploadState.COMPLETE


async def test_it_is_told_once() -> None:
    async with stage() as s:
        url = await deferred(s)
        assert (await declare(s, url, 10, b"hello", at=0)).status == 204
        assert_refused(await declare(s, url, 11, b"x", at=5), 400, "length_changed")
        assert (await declare(s, url, 10, b"w", at=5)).status == 204, "the same again is no change"
        assert s.kept(url).length == 10


async def test_it_stays_told_when_the_body_is_cut() -> None:
    async with stage() as s:
        url = await deferred(s)
        answer = await s.client.append(url, b"hello", headers={"Upload-Length": "10"}, cut_after=2)
        assert_refused(answer, 423, "upload_interrupted")
        seen = await s.client.head(url)
        assert (seen.headers["upload-offset"], seen.headers["upload-length"]) == ("2", "10")


@pytest.mark.parametrize(
    ("length", "status", "word"),
    [
        (4, 400, "invalid_length"),
        ("ten", 400, "invalid_length"),
        (-1, 400, "invalid_length"),
        (1001, 413, "upload_too_large"),
        (6, 413, "body_too_long"),
    ],
)
async def test_a_length_that_cannot_be_changes_nothing(length: object, status: int, word: str) -> None:
    async with stage(max_size=1000) as s:
        url = await deferred(s)
        assert (await s.client.append(url, b"hello")).status == 204
        assert_refused(await declare(s, url, length, b"xyz", at=5), status, word)
        assert (s.kept(url).length, s.kept(url).offset) == (None, 5)


@pytest.mark.parametrize("told", [True, False])
async def test_it_has_room_for_the_largest_size_and_not_a_byte_more(told: bool) -> None:
    async with stage(max_size=8) as s:
        url = await deferred(s)
        length = 9 if told else None
        answer = await s.client.append(url, b"123456789", content_length=length, chunk_size=3)
        assert_refused(answer, 413, "upload_too_large" if told else "body_too_long")
        assert s.kept(url).offset == 0
        assert (await s.client.append(url, b"12345678")).status == 204
        assert await s.state(url) is UploadState.RECEIVING, "it may still be told that this is all"
        assert (await declare(s, url, 8, at=8)).status == 204
        assert await s.state(url) is UploadState.COMPLETE


async def test_a_length_of_nothing_that_is_told_later_asks_the_gates() -> None:
    heads: list[bytes] = []

    async def first(upload: Upload, head: bytes) -> None:
        heads.append(head)

    async with stage(on_first_chunk=first) as s:
        url = await deferred(s)
        assert (await declare(s, url, 0, at=0)).status == 204
        assert heads == [b""]
        assert await s.state(url) is UploadState.COMPLETE
        assert await s.content(url) == b""


async def test_a_gate_may_refuse_an_upload_of_nothing() -> None:
    async def first(upload: Upload, head: bytes) -> None:
        raise Rejected(415, "empty", "Nothing is not enough.")

    async with stage(on_first_chunk=first) as s:
        url = await deferred(s)
        assert_refused(await declare(s, url, 0, at=0), 415, "empty")
        assert (await s.client.head(url)).status == 410


async def test_a_creation_may_bring_bytes_and_no_length() -> None:
    async with stage() as s:
        answer = await s.client.request(
            "POST",
            "/files",
            headers={"Upload-Defer-Length": "1", "Content-Type": "application/offset+octet-stream"},
            body=b"hello",
        )
        assert (answer.status, answer.headers["upload-offset"]) == (201, "5")
        assert s.kept(answer.headers["location"]).length is None


async def test_a_host_may_leave_the_length_open_too() -> None:
    async with stage() as s:
        upload = await s.tus.create(length=None)
        url = s.tus.url_for(upload)
        assert (await s.client.append(url, b"hello", headers={"Upload-Length": "5"})).status == 204
        assert (await s.upload(url)).is_complete
        assert id_of(url) == upload.id
