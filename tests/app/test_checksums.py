"""A body with a checksum is kept whole or not at all, whatever happens on the way."""

import asyncio
import hashlib
import random
from base64 import b64encode
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.app.stage import assert_refused, id_of, stage
from tusserve import (
    Accepted,
    FileStorage,
    Rejected,
    SQLiteStore,
    StorageUnavailable,
    TusApp,
    Upload,
    UploadState,
)
from tusserve.digesting import BATCH
from tusserve.protocol.digests import HASHES
from tusserve.testing import TusClient

pytestmark = pytest.mark.anyio

LARGE = random.Random(5).randbytes(3 * BATCH + 12345)


def checksum(data: bytes, algorithm: str = "sha1") -> dict[str, str]:
    """The header for these bytes."""
    running = HASHES[algorithm]()
    running.update(data)
    return {"Upload-Checksum": f"{algorithm} {b64encode(running.digest()).decode()}"}


@pytest.mark.parametrize("algorithm", HASHES)
@pytest.mark.parametrize("length", ["auto", None], ids=["told", "chunked"])
async def test_what_matches_is_kept(algorithm: str, length: str | None, tmp_path: Path) -> None:
    tus = TusApp("/files", storage=FileStorage(tmp_path / "a"), store=SQLiteStore(tmp_path / "a.db"))
    async with TusClient(tus) as client:
        url = await client.create("/files", length=len(LARGE))
        for part in (LARGE[:10], LARGE[10:]):
            at = 0 if part == LARGE[:10] else 10
            answer = await client.append(
                url,
                part,
                at=at,
                headers=checksum(part, algorithm),
                chunk_size=70_000,
                content_length=None if length is None else len(part),
            )
            assert answer.status == 204, answer
        upload = await tus.get(id_of(url))
        assert upload is not None
        async with upload.open() as pieces:
            assert b"".join([piece async for piece in pieces]) == LARGE


@pytest.mark.parametrize("bad", [LARGE[:-1] + b"?", LARGE[1:] + LARGE[:1]])
async def test_what_does_not_match_leaves_nothing(bad: bytes) -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=20 + len(LARGE))
        assert (await s.client.append(url, bytes(20))).status == 204
        before, bytes_before = s.kept(url), s.storage.bytes
        answer = await s.client.append(url, bad, at=20, headers=checksum(LARGE), chunk_size=99_999)
        assert_refused(answer, 460, "checksum_mismatch")
        assert answer.headers["upload-offset"] == "20"
        kept = s.kept(url)
        assert (kept.offset, kept.state, kept.expires_at) == (20, UploadState.RECEIVING, before.expires_at)
        assert await s.client.offset(url) == 20
        assert (await s.client.append(url, LARGE, at=20, headers=checksum(LARGE))).status == 204
        assert await s.content(url) == bytes(20) + LARGE
        assert bytes_before == 20


async def test_the_right_bytes_may_be_the_last_and_still_be_wrong() -> None:
    """The upload is not complete because its length is reached: no hook runs."""
    done: list[str] = []
    async with stage(on_complete=lambda upload: done.append(upload.id)) as s:
        url = await s.client.create("/files", length=5)
        assert_refused(
            await s.client.append(url, b"hello", headers=checksum(b"hellO")), 460, "checksum_mismatch"
        )
        assert await s.state(url) is UploadState.RECEIVING
        assert not done
        assert (await s.client.append(url, b"hello", headers=checksum(b"hello"))).status == 204
        assert done == [id_of(url)]


@pytest.mark.parametrize("cut", [0, 1, 4])
async def test_a_body_that_is_cut_is_not_kept_for_it_was_not_checked(cut: int) -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=5)
        answer = await s.client.append(url, b"hello", cut_after=cut, chunk_size=1, headers=checksum(b"hello"))
        assert_refused(answer, 423, "upload_interrupted")
        assert s.kept(url).offset == 0
        assert await s.client.offset(url) == 0


async def test_nobody_gets_a_checkpoint_of_it() -> None:
    """HEAD asks for one while it is on its way, and 16 MiB would make one anyhow."""
    data = bytes(18 << 20)
    async with stage() as s:
        url = await s.client.create("/files", length=len(data))
        more = {"headers": checksum(data), "content_length": len(data)}
        async with s.client.half_open(url, data[: 17 << 20], **more) as patch:  # type: ignore[arg-type]
            await patch.until_asked()
            assert "checkpoint" not in s.storage.at.calls
            looking = asyncio.ensure_future(s.client.head(url))
            await s.store.at.until("ask")
            await patch.more(data[17 << 20 :])
            patch.end()
            assert (await patch.response()).status == 204
            assert (await looking).headers["upload-offset"] in ("0", str(len(data)))
        assert "checkpoint" not in s.storage.at.calls
        assert s.kept(url).offset == len(data)


async def test_a_silent_one_lets_go_and_leaves_nothing() -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=5)
        async with s.client.half_open(url, b"hel", headers=checksum(b"hello"), content_length=5) as patch:
            await patch.until_asked()
            await asyncio.sleep(0.2)
            assert (await s.client.append(url, b"other")).status == 204
            assert_refused(await patch.response(), 423, "upload_interrupted")
        assert await s.content(url) == b"other"


async def test_a_storage_that_fails_in_the_middle_keeps_nothing_of_it() -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=20)
        assert (await s.client.append(url, bytes(10))).status == 204
        s.storage.at.coming["write"] = [StorageUnavailable("gone fishing")]
        answer = await s.client.append(url, bytes(10), at=10, headers=checksum(bytes(10)), chunk_size=5)
        assert_refused(answer, 503, "storage_unavailable")
        assert await s.client.offset(url) == 10
        assert (await s.client.append(url, bytes(10), at=10, headers=checksum(bytes(10)))).status == 204


@pytest.mark.parametrize(
    ("name", "value", "status", "word"),
    [
        ("sha3", "sha3 AAAA", 400, "checksum_unsupported"),
        ("short", "sha1 AAAA", 400, "invalid_checksum"),
        ("no base64", "sha1 !!!!", 400, "invalid_checksum"),
    ],
)
async def test_a_checksum_that_is_none_is_400_and_disturbs_nobody(
    name: str, value: str, status: int, word: str
) -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=5)
        s.store.at.calls.clear()
        answer = await s.client.append(url, b"hello", headers={"Upload-Checksum": value})
        assert_refused(answer, status, word)
        assert s.store.at.calls == ["get"]
        refused = await s.client.request(
            "POST", "/files", headers={"Upload-Length": "5", "Upload-Checksum": value}
        )
        assert_refused(refused, status, word)
        assert len(s.store.records) == 1


# ---- with the first-chunk gate


async def test_a_refusal_of_the_gate_waits_for_the_digest() -> None:
    """Which bytes the gate saw is not certain before: another body must not end the upload."""
    seen: list[bytes] = []

    async def only_text(upload: Upload, head: bytes) -> Accepted | None:
        seen.append(head[:4])
        if not head.startswith(b"text"):
            raise Rejected(415, "not_text", "Only text.")
        return Accepted(content_type="text/plain")

    good, bad = b"text" + LARGE, b"tex?" + LARGE
    async with stage(on_first_chunk=only_text, sniff_size=4) as s:
        url = await s.client.create("/files", length=len(good))
        for _ in range(2):
            answer = await s.client.append(url, bad, headers=checksum(good), chunk_size=99_999)
            assert_refused(answer, 460, "checksum_mismatch")
            assert s.kept(url).state is UploadState.RECEIVING
            assert "open" not in s.storage.at.calls, "not a byte reached the storage"
        cut = await s.client.append(url, bad, headers=checksum(bad), cut_after=70_000)
        assert_refused(cut, 423, "upload_interrupted")
        assert s.kept(url).state is UploadState.RECEIVING
        assert (await s.client.append(url, good, headers=checksum(good))).status == 204
        assert (await s.upload(url)).content_type == "text/plain"
        again = await s.client.create("/files", length=len(bad))
        answer = await s.client.append(again, bad, headers=checksum(bad))
        assert_refused(answer, 415, "not_text")
        assert (await s.client.head(again)).status == 410
    assert seen == [b"tex?", b"tex?", b"tex?", b"text", b"tex?"]


async def test_a_gate_that_cannot_decide_waits_too() -> None:
    async def away(upload: Upload, head: bytes) -> None:
        raise LookupError("no time")

    async with stage(on_first_chunk=away) as s:
        url = await s.client.create("/files", length=5)
        assert_refused(
            await s.client.append(url, b"hello", headers=checksum(b"world")), 460, "checksum_mismatch"
        )
        assert_refused(await s.client.append(url, b"hello", headers=checksum(b"hello")), 503, "hook_failed")
        assert s.kept(url).offset == 0


# ---- with creation


async def test_a_creation_that_matches_is_201_with_all_of_it() -> None:
    async with stage() as s:
        answer = await s.client.request(
            "POST",
            "/files",
            headers={
                "Upload-Length": str(len(LARGE)),
                "Content-Type": "application/offset+octet-stream",
                **checksum(LARGE, "sha256"),
            },
            body=LARGE,
        )
        assert (answer.status, answer.headers["upload-offset"]) == (201, str(len(LARGE)))


async def test_a_creation_that_does_not_match_is_460_and_no_upload() -> None:
    async with stage() as s:
        answer = await s.client.request(
            "POST",
            "/files",
            headers={
                "Upload-Length": "5",
                "Content-Type": "application/offset+octet-stream",
                **checksum(b"world"),
            },
            body=b"hello",
        )
        assert_refused(answer, 460, "checksum_mismatch")
        assert "location" not in answer.headers
        assert s.storage.bytes == 0
        assert {record.state for record in s.store.records.values()} == {UploadState.GONE}


def test_the_status_460_gets_through_a_client_that_does_not_know_it(tmp_path: Path) -> None:
    tus = TusApp("/files", storage=FileStorage(tmp_path / "a"), store=SQLiteStore(tmp_path / "a.db"))
    with TestClient(tus) as client:
        version = {"Tus-Resumable": "1.0.0"}
        created = client.post("/files", headers={**version, "Upload-Length": "5"})
        answer = client.patch(
            created.headers["location"],
            content=b"hello",
            headers={
                **version,
                "Upload-Offset": "0",
                "Content-Type": "application/offset+octet-stream",
                "Upload-Checksum": f"sha1 {b64encode(hashlib.sha1(b'').digest()).decode()}",
            },
        )
        assert (answer.status_code, answer.json()["code"]) == (460, "checksum_mismatch")
