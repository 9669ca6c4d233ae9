"""The checklist of TUS 1.0.0, end to end: creation, expiration, termination, and the order of checks.

The number in the name of a test is that of its line.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest
from starlette.requests import Request

from tests.app.stage import (
    OCTETS,
    Stage,
    assert_head_refused,
    assert_refused,
    code,
    content_of,
    id_of,
    stage,
)
from tusserve import (
    Action,
    Expiry,
    NewUpload,
    Reason,
    Rejected,
    Timeouts,
    Upload,
    UploadState,
)
from tusserve.testing.client import Response

pytestmark = pytest.mark.anyio

WITH_BODY = {"Content-Type": OCTETS}


async def post(s: Stage, length: int | str | None, body: bytes | None = None, **headers: str) -> Response:
    """A creation with these headers; `_` in a name stands for `-`."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if length is not None:
        sent["Upload-Length"] = str(length)
    if body is not None:
        sent.setdefault("Content-Type", OCTETS)
    return await s.client.request("POST", "/files", headers=sent, body=body)


# ---- creation


async def test_a38_creation_is_announced() -> None:
    async with stage() as s:
        assert "creation" in (await s.client.options("/files")).headers["tus-extension"].split(",")


async def test_a39_no_length_is_400_and_so_are_two_ways_to_tell_it() -> None:
    async with stage() as s:
        assert_refused(await post(s, None), 400, "length_missing")
        assert (await post(s, 5, Upload_Defer_Length="1")).status == 400
        assert s.nothing_kept()


@pytest.mark.parametrize("value", ["0", "2", "true", "", "1, 1", "-1"])
async def test_a40_a_deferral_is_1_or_400(value: str) -> None:
    async with stage() as s:
        assert (await post(s, None, Upload_Defer_Length=value)).status == 400
        assert s.nothing_kept()


@pytest.mark.parametrize("path", ["/files", "/files/"])
async def test_a41_success_is_201_with_a_location_that_answers(path: str) -> None:
    async with stage() as s:
        answer = await s.client.request("POST", path, headers={"Upload-Length": "5"})
        assert (answer.status, answer.body) == (201, b"")
        location = answer.headers["location"]
        assert location.startswith("/files/")
        head = await s.client.head(location)
        assert (head.status, head.headers["upload-offset"]) == (200, "0")


async def test_a41_no_two_uploads_have_one_name() -> None:
    async with stage() as s:
        urls = {await s.client.create("/files", length=5) for _ in range(50)}
        assert len(urls) == 50


async def test_a42_too_large_is_413_and_nothing_is_created() -> None:
    seen: list[NewUpload] = []
    async with stage(max_size=5, on_create=lambda new, request: seen.append(new)) as s:
        assert_refused(await post(s, 6), 413, "upload_too_large")
        assert_refused(await post(s, 2**63 - 1, b"x"), 413, "upload_too_large")
        assert not seen
        assert s.nothing_kept()
        assert (await post(s, 5)).status == 201


async def test_a43_an_empty_upload_is_complete_at_once() -> None:
    seen: list[tuple[str, int, bytes]] = []

    async def done(upload: Upload) -> None:
        seen.append((upload.id, upload.offset, await content_of(upload)))

    async with stage(on_complete=done) as s:
        url = await s.client.create("/files", length=0)
        assert seen == [(id_of(url), 0, b"")]
        head = await s.client.head(url)
        assert (head.status, head.headers["upload-offset"], head.headers["upload-length"]) == (200, "0", "0")
        assert (await s.client.append(url, b"")).status == 204
        assert await s.state(url) is UploadState.COMPLETE
        assert await s.content(url) == b""
        assert len(seen) == 1


@pytest.mark.parametrize(
    "metadata",
    [
        "a ",
        "a aGk=,b",
        "a aGk= , b aGk=",
        "filename d29ybGRfZG9taW5hdGlvbl9wbGFuLnBkZg==,is_confidential",
        "\xa0".replace("\xa0", " "),
    ],
)
async def test_a44_metadata_by_the_grammar_is_taken(metadata: str) -> None:
    async with stage() as s:
        assert (await post(s, 5, Upload_Metadata=metadata)).status == 201


@pytest.mark.parametrize(
    "metadata",
    [
        ",",
        "a aGk=,",
        ",a aGk=",
        "a  aGk=",
        "a aGk",
        "a aGk= x",
        "a a,a b",
        "a aGk=,a aGk=",
        "a !!!!",
        "a aGk=\xe9",
        "k\xe9y aGk=",
        "a\taGk=",
        "a aG\x00k=",
    ],
)
async def test_a44_metadata_against_the_grammar_is_400(metadata: str) -> None:
    seen: list[NewUpload] = []
    async with stage(on_create=lambda new, request: seen.append(new)) as s:
        assert_refused(await post(s, 5, Upload_Metadata=metadata), 400, "invalid_metadata")
        assert not seen
        assert s.nothing_kept()


async def test_a45_metadata_is_limited_and_never_believed() -> None:
    async with stage() as s:
        assert_refused(await post(s, 5, Upload_Metadata="a " + "A" * 8192), 400, "metadata_too_large")
        assert s.nothing_kept()
        evil: dict[str, str | bytes] = {
            "filename": "../../etc/pass\r\nwd\x00.txt",
            "x": b"\r\nSet-Cookie: a=b",
        }
        url = await s.client.create("/files", length=5, metadata=evil)
        head = await s.client.head(url)
        assert set(head.headers) == {
            *("tus-resumable", "cache-control", "upload-offset", "upload-length"),
            *("upload-metadata", "upload-expires", "content-length"),
        }
        upload = await s.upload(url)
        assert upload.filename == "pass\r\nwd\x00.txt"
        assert upload.metadata["x"] == "\r\nSet-Cookie: a=b"


async def test_a46_a_hook_refuses_metadata_and_nothing_is_created() -> None:
    def look(new: NewUpload, request: Request) -> None:
        if new.metadata.get("type") != "video/mp4":
            raise Rejected(415, "not_a_video", "Only videos.", extra={"got": new.metadata.get("type")})

    async with stage(on_create=look) as s:
        answer = await post(s, 5, Upload_Metadata="type aW1hZ2U=")
        assert_refused(answer, 415, "not_a_video")
        assert answer.json() == {
            "type": "about:blank",
            "title": "Unsupported Media Type",
            "status": 415,
            "detail": "Only videos.",
            "code": "not_a_video",
            "got": "image",
        }
        assert s.nothing_kept()
        assert (await post(s, 5, Upload_Metadata="type dmlkZW8vbXA0")).status == 201


@pytest.mark.parametrize("metadata", ["", " ", "\t"])
async def test_a47_an_empty_metadata_header_is_none(metadata: str) -> None:
    async with stage() as s:
        answer = await post(s, 5, Upload_Metadata=metadata)
        assert answer.status == 201
        assert "upload-metadata" not in (await s.client.head(answer.headers["location"])).headers


async def test_a48_a_length_may_be_said_again_but_not_changed() -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=5)
        assert (await s.client.append(url, b"he", headers={"Upload-Length": "5"})).status == 204
        for other in ("4", "6", "0"):
            answer = await s.client.append(url, b"l", at=2, headers={"Upload-Length": other})
            assert_refused(answer, 400, "length_changed")
        assert await s.client.offset(url) == 2
        assert (await s.client.append(url, b"llo", at=2, headers={"Upload-Length": "5"})).status == 204


async def test_a49_a_deferral_is_refused_where_it_is_not_announced() -> None:
    async with stage(extensions=("creation", "expiration")) as s:
        announced = (await s.client.options("/files")).headers["tus-extension"]
        assert "creation-defer-length" not in announced
        assert_refused(await post(s, None, Upload_Defer_Length="1"), 400, "length_deferral_unsupported")


# ---- creation with upload


async def test_a51_creation_with_upload_needs_creation() -> None:
    async with stage(extensions={"termination"}) as s:
        assert (await s.client.options("/files")).headers["tus-extension"] == "termination"
        assert_refused(await post(s, 5, b"hello"), 405, "method_not_allowed")
    async with stage(extensions={"creation"}) as s:
        assert_refused(await post(s, 5, b"hello"), 400, "body_not_allowed")
        assert s.nothing_kept()
        answer = await post(s, 5)
        assert (answer.status, "upload-offset" in answer.headers) == (201, False)


async def test_a52_the_answer_tells_how_much_was_kept() -> None:
    async with stage() as s:
        answer = await post(s, 5, b"he")
        assert (answer.status, answer.headers["upload-offset"]) == (201, "2")
        assert await s.client.offset(answer.headers["location"]) == 2
        assert (await post(s, 5)).headers["upload-offset"] == "0"


async def test_a52_a_body_of_another_type_is_415() -> None:
    async with stage() as s:
        assert_refused(await post(s, 5, b"he", Content_Type="text/plain"), 415, "unsupported_content_type")
        assert s.nothing_kept()


async def test_a53_what_came_of_a_cut_body_is_kept() -> None:
    async with stage() as s:
        sent = {"Upload-Length": "10", **WITH_BODY}
        answer = await s.client.request(
            "POST", "/files", headers=sent, body=b"0123456789", cut_after=4, chunk_size=2
        )
        assert (answer.status, answer.headers["upload-offset"]) == (201, "4")
        assert await s.client.offset(answer.headers["location"]) == 4


@pytest.mark.parametrize("told", ["auto", None])
async def test_a53_a_body_that_is_too_long_is_413_and_leaves_nothing(told: int | None) -> None:
    ended: list[Reason] = []
    async with stage(on_terminate=lambda upload, reason: ended.append(reason)) as s:
        sent = {"Upload-Length": "4", **WITH_BODY}
        answer = await s.client.request("POST", "/files", headers=sent, body=b"hello", content_length=told)
        assert_refused(answer, 413, "body_too_long")
        assert "location" not in answer.headers
        assert s.storage.bytes == 0
        if told is None:
            (record,) = s.store.records.values()
            assert record.state is UploadState.GONE
            assert ended == [Reason.REJECTED]
        else:
            assert not s.store.records


@pytest.mark.parametrize(
    "headers",
    [
        {"Upload-Length": "4"},
        {"Upload-Length": "x"},
        {"Upload-Length": "5", "Content-Type": "text/plain"},
        {"Upload-Length": "5", "Tus-Resumable": "0"},
        {"Upload-Length": "5", "Upload-Metadata": ","},
        {"Upload-Length": "5", "Upload-Metadata": "refuse"},
    ],
)
async def test_a54_a_refusal_comes_before_the_body_is_asked_for(headers: dict[str, str]) -> None:
    def refuse(new: NewUpload, request: Request) -> None:
        if new.metadata:
            raise Rejected(403, "forbidden", "No.")

    async with stage(on_create=refuse) as s:
        sent = {**WITH_BODY, "Expect": "100-continue", **headers}
        answer = await s.client.request("POST", "/files", headers=sent, body=b"hello")
        assert 400 <= answer.status < 500
        assert not answer.asked
        assert answer.headers["connection"] == "close"
        assert s.nothing_kept()


async def test_a54_a_body_that_is_wanted_is_asked_for() -> None:
    async with stage() as s:
        answer = await post(s, 5, b"hello", Expect="100-continue")
        assert (answer.status, answer.asked, answer.headers["upload-offset"]) == (201, True, "5")


async def test_a55_a_whole_file_is_complete_and_still_201() -> None:
    completed: list[Upload] = []
    async with stage(on_complete=completed.append) as s:
        answer = await post(s, 5, b"hello")
        assert (answer.status, answer.headers["upload-offset"]) == (201, "5")
        assert await s.content(answer.headers["location"]) == b"hello"
        assert len(completed) == 1


# ---- expiration

EXPIRY = Expiry(initial=timedelta(days=7), idle=timedelta(days=2))


def expires(answer: Response) -> datetime:
    """When the answer says that the upload expires."""
    return parsedate_to_datetime(answer.headers["upload-expires"])


async def test_a56_expiration_is_announced_where_uploads_expire() -> None:
    async with stage(expiry=EXPIRY) as s:
        assert "expiration" in (await s.client.options("/files")).headers["tus-extension"]
    async with stage(expiry=None) as s:
        assert "expiration" not in (await s.client.options("/files")).headers["tus-extension"]
        answer = await post(s, 5)
        assert "upload-expires" not in answer.headers
        s.clock.advance(timedelta(days=10000))
        assert not await s.tus.sweep()
        assert (await s.client.append(answer.headers["location"], b"hello")).status == 204


async def test_a56_a_host_that_does_not_announce_it_has_no_expiry() -> None:
    async with stage(expiry=EXPIRY, extensions={"creation", "termination"}) as s:
        answer = await post(s, 5)
        s.clock.advance(timedelta(days=10000))
        assert not await s.tus.sweep()
        assert await s.client.offset(answer.headers["location"]) == 0


async def test_a57_the_date_is_on_every_answer_while_unfinished() -> None:
    async with stage(expiry=EXPIRY) as s:
        answer = await post(s, 10)
        url = answer.headers["location"]
        initial, idle = s.clock() + EXPIRY.initial, s.clock() + EXPIRY.idle
        assert expires(answer) == initial
        assert expires(await s.client.head(url)) == initial
        assert expires(await s.client.append(url, b"x", at=3)) == initial
        assert expires(await s.client.append(url, b"he")) == idle
        assert expires(await s.client.append(url, b"", at=2)) == idle
        assert expires(await s.client.append(url, b"x" * 100, at=2)) == idle
        assert expires(await s.client.head(url)) == idle
        last = await s.client.append(url, b"llo you!", at=2)
        assert (last.status, "upload-expires" in last.headers) == (204, False)
        assert "upload-expires" not in (await s.client.head(url)).headers


async def test_a57_an_interrupted_patch_is_told_the_date_that_its_bytes_made() -> None:
    async with stage(expiry=EXPIRY, timeouts=Timeouts(idle=timedelta(seconds=0.2))) as s:
        url = await s.client.create("/files", length=10)
        async with s.client.half_open(url, b"0123") as silent:
            answer = await silent.response()
        assert (answer.status, answer.headers["upload-offset"]) == (423, "4")
        assert expires(answer) == s.clock() + EXPIRY.idle


async def test_a58_the_date_is_an_imf_fixdate() -> None:
    async with stage(expiry=Expiry(initial=timedelta(days=1, seconds=59.9))) as s:
        assert s.clock() == datetime(2026, 1, 1, tzinfo=UTC)
        assert (await post(s, 5)).headers["upload-expires"] == "Fri, 02 Jan 2026 00:00:59 GMT"


async def test_a59_an_expired_upload_is_410_before_and_after_it_is_swept() -> None:
    async with stage(expiry=Expiry(initial=timedelta(hours=1), tombstone=timedelta(days=1))) as s:
        url = await s.client.create("/files", length=5)
        s.clock.advance(timedelta(minutes=59))
        assert await s.client.offset(url) == 0
        s.clock.advance(timedelta(minutes=1))
        for _ in range(2):
            assert_head_refused(await s.client.head(url), 410)
            assert_refused(await s.client.append(url, b"hello"), 410, "upload_expired")
            assert_refused(await s.client.delete(url), 410, "upload_expired")
            await s.tus.sweep()
        s.clock.advance(timedelta(days=1))
        await s.tus.sweep()
        assert_head_refused(await s.client.head(url), 404)
        assert_refused(await s.client.append(url, b"hello"), 404, "upload_not_found")


async def test_a60_the_date_moves_with_kept_bytes_also_to_an_earlier_one() -> None:
    async with stage(expiry=EXPIRY) as s:
        url = await s.client.create("/files", length=10)
        await s.client.append(url, b"x")
        assert (await s.upload(url)).expires_at == s.clock() + EXPIRY.idle
        s.clock.advance(timedelta(days=1))
        await s.client.append(url, b"x", at=1)
        assert (await s.upload(url)).expires_at == s.clock() + EXPIRY.idle
        s.clock.advance(timedelta(days=2))
        assert (await s.client.head(url)).status == 410


async def test_a61_a_finished_upload_never_expires() -> None:
    async with stage(expiry=EXPIRY) as s:
        url = await s.whole(b"hello")
        s.clock.advance(timedelta(days=100))
        assert not await s.tus.sweep()
        assert (await s.client.head(url)).status == 200
        assert await s.content(url) == b"hello"


async def test_a61_a_live_writer_keeps_its_upload_from_expiring() -> None:
    async with stage(expiry=EXPIRY) as s:
        url = await s.client.create("/files", length=10)
        async with s.client.half_open(url, b"01234") as writer:
            s.clock.advance(timedelta(days=8))
            assert not await s.tus.sweep()
            await writer.more(b"56789")
            writer.end()
            assert (await writer.response()).status == 204
        assert await s.content(url) == b"0123456789"


# ---- termination


@pytest.mark.parametrize("sent", [b"", b"he", b"hello"])
async def test_a70_an_upload_is_204_and_leaves_no_byte(sent: bytes) -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=5)
        await s.client.append(url, sent)
        answer = await s.client.delete(url)
        assert (answer.status, answer.body) == (204, b"")
        assert s.storage.bytes == 0
        assert await s.state(url) is UploadState.GONE


async def test_a71_what_was_ended_is_410_then_404() -> None:
    async with stage() as s:
        url = await s.whole(b"hello")
        await s.client.delete(url)
        assert_head_refused(await s.client.head(url), 410)
        assert_refused(await s.client.append(url, b"hello"), 410, "upload_terminated")
        assert_refused(await s.client.delete(url), 410, "upload_terminated")
        s.clock.advance(timedelta(days=7))
        await s.tus.sweep()
        assert_head_refused(await s.client.head(url), 404)
        assert_refused(await s.client.delete(url), 404, "upload_not_found")


@pytest.mark.parametrize("pause", [0.0, 0.15])
async def test_a72_a_delete_interrupts_the_patch_which_is_told_410(pause: float) -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=10)
        async with s.client.half_open(url, b"0123") as busy:
            await asyncio.sleep(pause)
            deleted = asyncio.ensure_future(s.client.delete(url))
            answer = await busy.response()
            assert_refused(answer, 410, "upload_terminated")
            assert (await deleted).status == 204
        assert s.storage.bytes == 0
        assert_head_refused(await s.client.head(url), 410)


async def test_a72_a_patch_cannot_bring_back_what_was_deleted() -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=10)
        async with s.client.half_open(url, b"0123") as busy:
            deleted = asyncio.ensure_future(s.client.delete(url))
            for digit in b"456789":
                busy.offer(bytes([digit]))
                await asyncio.sleep(0)
            busy.end()
            answer = await busy.response()
            assert (await deleted).status == 204
        assert answer.status in (204, 410)
        assert s.storage.bytes == 0
        assert_refused(await s.client.append(url, b"0123456789"), 410, "upload_terminated")


async def test_a73_what_never_was_is_404() -> None:
    async with stage() as s:
        assert_refused(await s.client.delete("/files/nobody"), 404, "upload_not_found")


async def test_a73_an_idempotent_delete_is_204_whatever_was_there() -> None:
    def who(request: Request, action: Action, upload: Upload | None) -> str | None:
        return request.headers.get("who")

    async with stage(idempotent_delete=True, authorize=who) as s:
        url = await s.client.create("/files", length=5, headers={"who": "me"})
        answers = [
            await s.client.delete("/files/nobody", headers={"who": "me"}),
            await s.client.delete("/files/no.id", headers={"who": "me"}),
            await s.client.delete(url, headers={"who": "other"}),
            await s.client.delete(url, headers={"who": "me"}),
            await s.client.delete(url, headers={"who": "me"}),
        ]
        assert [answer.status for answer in answers] == [204] * 5
        assert len({tuple(answer.headers.items()) for answer in answers}) == 1


# ---- the order of checks

ORDER: list[tuple[str, int, str, dict[str, str | None]]] = [
    ("method", 405, "method_not_allowed", {"X-HTTP-Method-Override": "BREW"}),
    ("version", 412, "unsupported_version", {"Tus-Resumable": "0.2.2"}),
    ("authorize", 403, "forbidden", {"Refuse": "1"}),
    ("owner", 404, "upload_not_found", {"Who": "other"}),
    ("syntax", 400, "invalid_offset", {"Upload-Offset": "x"}),
    ("content type", 415, "unsupported_content_type", {"Content-Type": "text/plain"}),
    ("length declaration", 400, "length_changed", {"Upload-Length": "7"}),
    ("size", 413, "body_too_long", {"X-Body": "too long"}),
    ("offset", 409, "offset_mismatch", {"Upload-Offset": "3"}),
]
"""Each with what makes it fail, in the order in which they are checked. A foreign upload is found missing
only after syntax and type, as one that is missing is."""


@pytest.mark.parametrize("first", range(len(ORDER)))
async def test_a83_of_two_faults_the_first_one_is_told(first: int) -> None:
    def authorize(request: Request, action: Action, upload: Upload | None) -> str | None:
        if "refuse" in request.headers:
            raise Rejected(403, "forbidden", "No.")
        return request.headers.get("who")

    async with stage(authorize=authorize) as s:
        url = await s.client.create("/files", length=5)
        name, status, word, fault = ORDER[first]
        for later, _, _, other in ORDER[first + 1 :]:
            if name == "owner" and later in ("syntax", "content type"):
                continue
            headers = {**other, **fault}
            body = b"hello world" if "X-Body" in headers else b"h"
            answer = await s.client.append(url, body, headers=headers)
            assert (answer.status, code(answer)) == (status, word), f"{name} before {later}"
        answer = await s.client.append(url, b"hello world" if "X-Body" in fault else b"h", headers=fault)
        assert (answer.status, code(answer)) == (status, word)
        assert s.storage.bytes == 0
        assert await s.client.offset(url) == 0


async def test_a83_a_missing_upload_looks_like_a_foreign_one() -> None:
    def who(request: Request, action: Action, upload: Upload | None) -> str | None:
        return request.headers.get("who")

    async with stage(authorize=who) as s:
        foreign = await s.client.create("/files", length=5, headers={"who": "me"})
        complete = await s.whole(b"hello", headers={"who": "me"})
        gone = await s.whole(b"hello", headers={"who": "me"})
        await s.client.delete(gone, headers={"who": "me"})
        for headers in ({}, {"Upload-Offset": "x"}, {"Content-Type": "x/y"}, {"Upload-Length": "1000"}):
            answers = [
                await s.client.append(url, b"hello world", headers={"who": "other", **headers})
                for url in ("/files/nobody", foreign, complete, gone)
            ]
            seen = {(a.status, a.body, tuple(sorted(a.headers.items()))) for a in answers}
            assert len(seen) == 1, seen
        heads = [
            await s.client.head(url, headers={"who": "other"}) for url in ("/files/nobody", foreign, gone)
        ]
        assert {(a.status, tuple(a.headers.items())) for a in heads} == {
            (404, tuple(heads[0].headers.items()))
        }


@pytest.mark.parametrize(("body", "status"), [(b"", 201), (b"x", 413)])
async def test_a53_a_body_of_unknown_length_for_an_upload_of_nothing_brings_nothing_or_is_refused(
    body: bytes, status: int
) -> None:
    async with stage() as s:
        answer = await s.client.request(
            "POST",
            "/files",
            headers={"Upload-Length": "0", "Content-Type": "application/offset+octet-stream"},
            body=body,
            content_length=None,
        )
        assert answer.status == status, answer
        assert s.nothing_kept() is (status == 413)
