"""What a host does with its app and with its uploads."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from starlette.requests import Request

from tests.app.stage import NotingStorage, NotingStore, assert_refused, id_of, stage
from tusserve import (
    Expiry,
    FileStorage,
    IdTaken,
    Kind,
    Metadata,
    NotComplete,
    Rejected,
    SQLiteStore,
    TusApp,
    Unsupported,
    Upload,
    UploadState,
)
from tusserve.contracts import UploadRecord
from tusserve.errors import CursorLost, StoreUnavailable
from tusserve.stores.memory import MemoryStore
from tusserve.testing.client import TusClient
from tusserve.testing.clock import ManualClock

pytestmark = pytest.mark.anyio


# ---- create


async def test_an_upload_of_the_host_s_own_is_sent_by_a_client() -> None:
    async with stage() as s:
        upload = await s.tus.create(
            length=5,
            owner="me",
            id="My-Upload_7",
            metadata={"name": "f\u00fcr.txt", "empty": ""},
            attributes={"project": [1, None, {"a": "b"}]},
            key="a/b",
            content_type="text/plain",
            expires_in=timedelta(hours=1),
        )
        assert (upload.id, upload.owner, upload.length, upload.offset) == ("My-Upload_7", "me", 5, 0)
        assert (upload.state, upload.kind, upload.is_complete) == (UploadState.RECEIVING, Kind.WHOLE, False)
        assert dict(upload.metadata) == {"name": "f\u00fcr.txt", "empty": ""}
        assert upload.attributes == {"project": [1, None, {"a": "b"}]}
        assert (upload.key, upload.content_type, upload.filename) == ("a/b", "text/plain", "f\u00fcr.txt")
        assert (upload.created_at, upload.expires_at) == (s.clock(), s.clock() + timedelta(hours=1))
        assert (upload.completed_at, upload.refusal) == (None, None)
        assert await s.tus.get("My-Upload_7") == upload
        head = await s.client.head("/files/My-Upload_7")
        assert head.headers["upload-metadata"] == "name ZsO8ci50eHQ=,empty"
        assert "project" not in str(head.headers), "attributes are the host's"
        assert (await s.client.append("/files/My-Upload_7", b"hello")).status == 204
        assert await s.content("/files/My-Upload_7") == b"hello"


async def test_metadata_of_another_upload_is_kept_byte_for_byte() -> None:
    raw = "b /w==, a,c aGk="
    async with stage() as s:
        metadata = Metadata.parse(raw)
        assert isinstance(metadata, Metadata)
        upload = await s.tus.create(length=5, metadata=metadata)
        assert upload.metadata.raw == raw
        assert (await s.tus.create(length=5, metadata={})).metadata.raw == ""
        assert (await s.tus.create(length=5)).metadata.raw == ""


@pytest.mark.parametrize(
    "given",
    [
        {"length": -1},
        {"length": 5, "id": ""},
        {"length": 5, "id": "a/b"},
        {"length": 5, "id": "x" * 129},
        {"length": 5, "id": ".."},
        {"length": 5, "key": "/etc/passwd"},
        {"length": 5, "key": "../x"},
        {"length": 5, "key": "a/" + "\u00fc" * 128},
        {"length": 5, "key": "a/" * 512 + "b"},
        {"length": 5, "metadata": {"a b": "c"}},
        {"length": 5, "metadata": {"a": "x" * 9000}},
        {"length": 5, "expires_in": timedelta(seconds=-1)},
        {"length": 5, "expires_in": timedelta()},
    ],
)
async def test_what_cannot_be_is_a_value_error_and_kept_nowhere(given: dict[str, object]) -> None:
    async with stage() as s:
        with pytest.raises(ValueError):  # noqa: PT011 - the sentences differ
            await s.tus.create(**given)  # type: ignore[arg-type]
        assert s.nothing_kept()


async def test_an_owner_is_text() -> None:
    async with stage() as s:
        with pytest.raises(TypeError, match="owner"):
            await s.tus.create(length=5, owner=7)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="owner"):
            s.tus.response(owner=7)  # type: ignore[arg-type]
        assert s.nothing_kept()


async def test_a_length_above_the_largest_is_rejected_with_413() -> None:
    async with stage(max_size=5) as s:
        with pytest.raises(Rejected) as caught:
            await s.tus.create(length=6)
        assert (caught.value.status_code, caught.value.code) == (413, "upload_too_large")
        assert s.nothing_kept()


async def test_what_the_plug_ins_cannot_do_is_unsupported() -> None:
    async with stage(extensions=["creation"]) as s:
        with pytest.raises(Unsupported):
            await s.tus.create(length=None)
        with pytest.raises(Unsupported):
            await s.tus.create(length=5, transaction=object())
        assert s.nothing_kept()


async def test_an_id_is_taken_until_it_is_forgotten() -> None:
    async with stage(expiry=Expiry(tombstone=timedelta(days=1))) as s:
        await s.tus.create(length=5, id="a")
        with pytest.raises(IdTaken):
            await s.tus.create(length=5, id="a")
        await s.tus.terminate("a")
        with pytest.raises(IdTaken):
            await s.tus.create(length=5, id="a")
        s.clock.advance(timedelta(days=1))
        assert (await s.tus.sweep()).forgotten == 1
        assert (await s.tus.create(length=5, id="a")).offset == 0


async def test_an_expiry_where_nothing_expires_is_unsupported() -> None:
    async with stage(expiry=None) as s:
        with pytest.raises(Unsupported):
            await s.tus.create(length=5, expires_in=timedelta(hours=1))
        assert s.nothing_kept()


class HostsDatabase(NotingStore):
    """A store in the host's own database."""

    def __init__(self) -> None:
        super().__init__()
        self.transactions: list[object] = []

    async def create_in(self, record: UploadRecord, transaction: object) -> UploadRecord:
        self.transactions.append(transaction)
        return await self.create(record)


async def test_a_transaction_of_the_host_s_is_handed_to_the_store() -> None:
    store = HostsDatabase()
    async with stage(store=store) as s:
        mine = object()
        upload = await s.tus.create(length=5, transaction=mine)
        assert store.transactions == [mine]
        assert await s.tus.get(upload.id) == upload


# ---- get, uploads, url_for, headers_for


async def test_get_shows_it_as_it_is_and_disturbs_nobody() -> None:
    async with stage() as s:
        assert await s.tus.get("nobody") is None
        url = await s.client.create("/files", length=10)
        async with s.client.half_open(url, b"01234") as busy:
            s.store.at.calls.clear()
            seen = await s.tus.get(id_of(url))
            assert seen is not None
            assert seen.offset == 0, "what is committed"
            assert s.store.at.calls == ["get"]
            await busy.more(b"56789")
            busy.end()
            assert (await busy.response()).status == 204
        await s.tus.terminate(id_of(url))
        assert (await s.upload(url)).state is UploadState.GONE
        assert seen.offset == 0, "a snapshot"


async def test_uploads_come_by_id_a_page_at_a_time() -> None:
    async with stage() as s:
        for n in range(7):
            await s.tus.create(length=5, id=f"u{n}", owner="odd" if n % 2 else None)
        await s.tus.terminate("u3")
        first = await s.tus.uploads(limit=3)
        rest = await s.tus.uploads(after=first[-1].id)
        assert [upload.id for upload in (*first, *rest)] == [f"u{n}" for n in range(7)]
        assert [upload.id for upload in await s.tus.uploads(owner="odd")] == ["u1", "u3", "u5"]
        assert [upload.id for upload in await s.tus.uploads(state=UploadState.GONE)] == ["u3"]


async def test_a_store_that_cannot_list_says_so() -> None:
    class NoList(NotingStore):
        uploads = None  # type: ignore[assignment]

    async with stage(store=NoList()) as s:
        with pytest.raises(Unsupported):
            await s.tus.uploads()


def _request(**scope: object) -> Request:
    return Request({"type": "http", "headers": [], "path": "/", **scope})


async def test_a_url_is_a_path_below_the_root_or_absolute() -> None:
    async with stage() as s:
        upload = await s.tus.create(length=5, id="a")
        assert s.tus.url_for(upload) == s.tus.url_for("a") == "/files/a"
        assert s.tus.url_for(upload, _request(root_path="/api")) == "/api/files/a"
        assert s.tus.url_for(upload, _request(root_path="/api/sub", app_root_path="/api")) == "/api/files/a"
        assert s.tus.url_for(upload, _request(root_path="/\u0434 x")) == "/%D0%B4%20x/files/a"
    async with stage(base_url="https://api.example.com/v1/") as s:
        assert s.tus.url_for("a", _request(root_path="/api")) == "https://api.example.com/v1/files/a"
        assert (await s.client.create("/files", length=5)).startswith("https://api.example.com/v1/files/")


async def test_the_headers_for_an_answer_of_the_host_s_own() -> None:
    async with stage() as s:
        upload = await s.tus.create(length=5, id="a")
        assert s.tus.headers_for(upload) == {
            "Location": "/files/a",
            "Tus-Resumable": "1.0.0",
            "Upload-Expires": "Thu, 08 Jan 2026 00:00:00 GMT",
        }
        assert s.tus.headers_for(upload, _request(root_path="/api"))["Location"] == "/api/files/a"
        await s.client.append("/files/a", b"hello")
        assert set(s.tus.headers_for(await s.upload("/files/a"))) == {"Location", "Tus-Resumable"}
        ended = await s.tus.create(length=5, id="b")
        await s.tus.terminate("b")
        assert "Upload-Expires" not in s.tus.headers_for(await s.upload("/files/b")), ended


async def test_a_store_that_is_away_is_said_to_the_host() -> None:
    async with stage() as s:
        s.store.at.coming["get"].append(StoreUnavailable("away"))
        with pytest.raises(StoreUnavailable):
            await s.tus.get("a")
        s.store.at.coming["create"].append(StoreUnavailable("away"))
        with pytest.raises(StoreUnavailable):
            await s.tus.create(length=5)


# ---- two apps on one store


async def test_two_apps_on_one_store_know_nothing_of_each_other() -> None:
    storage, store, clock = NotingStorage(), NotingStore(), ManualClock()
    async with (
        stage(storage=storage, store=store, clock=clock, name="a") as a,
        stage(storage=storage, store=store, clock=clock, name="b") as b,
    ):
        url = await a.client.create("/files", length=5)
        assert (await b.client.head(url)).status == 404
        assert_refused(await b.client.append(url, b"hello"), 404, "upload_not_found")
        assert_refused(await b.client.delete(url), 404, "upload_not_found")
        assert await b.tus.get(id_of(url)) is None
        assert not await b.tus.terminate(id_of(url))
        assert not await b.tus.uploads()
        clock.advance(timedelta(days=30))
        assert not await b.tus.sweep()
        assert [upload.id for upload in await a.tus.uploads()] == [id_of(url)]
        with pytest.raises(IdTaken):
            await b.tus.create(length=5, id=id_of(url))
        assert (await a.tus.sweep()).expired == 1


# ---- an upload's bytes


async def test_the_bytes_are_there_once_it_is_complete() -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=5)
        await s.client.append(url, b"hel")
        upload = await s.upload(url)
        for read in (upload.open, upload.local_path):
            with pytest.raises(NotComplete):
                read()
        with pytest.raises(NotComplete):
            await upload.save_to("/nowhere/at/all")
        await s.client.append(url, b"lo", at=3)
        with pytest.raises(NotComplete):
            upload.open()
        assert await s.content(url) == b"hello"
        await s.client.delete(url)
        with pytest.raises(NotComplete):
            (await s.upload(url)).open()


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (0, None, b"0123456789"),
        (3, None, b"3456789"),
        (0, 4, b"0123"),
        (3, 4, b"3"),
        (3, 3, b""),
        (5, 3, b""),
        (0, 100, b"0123456789"),
        (10, None, b""),
        (100, 200, b""),
        (9, 10, b"9"),
    ],
)
async def test_a_range_is_half_open(start: int, stop: int | None, expected: bytes) -> None:
    async with stage() as s:
        upload = await s.upload(await s.whole(b"0123456789"))
        async with upload.open(start, stop) as body:
            assert b"".join([piece async for piece in body]) == expected


@pytest.mark.parametrize(("start", "stop"), [(-1, None), (0, -1), (-5, -2)])
async def test_a_range_does_not_count_from_the_end(start: int, stop: int | None) -> None:
    async with stage() as s:
        upload = await s.upload(await s.whole(b"0123456789"))
        with pytest.raises(ValueError, match="range"):
            upload.open(start, stop)


async def test_an_upload_is_saved_anywhere(tmp_path: Path) -> None:
    async with stage() as s:
        upload = await s.upload(await s.whole(b"hello"))
        (tmp_path / "copy").write_bytes(b"something longer than that")
        await upload.save_to(tmp_path / "copy")
        await upload.save_to(str(tmp_path / "other"))
        assert (tmp_path / "copy").read_bytes() == (tmp_path / "other").read_bytes() == b"hello"
        s.storage.lose(upload.id)
        with pytest.raises(CursorLost):
            await upload.save_to(tmp_path / "gone")


async def test_memory_is_no_local_path_and_a_file_is(tmp_path: Path) -> None:
    paths: list[Path | None] = []
    async with stage(on_complete=lambda upload: paths.append(upload.local_path())) as s:
        assert (await s.upload(await s.whole(b"hello"))).local_path() is None
    tus = TusApp(
        "/files",
        storage=FileStorage(tmp_path / "bytes"),
        store=MemoryStore(),
        sweep_every=None,
        on_complete=lambda upload: paths.append(upload.local_path()),
    )
    async with TusClient(tus) as client:
        url = await client.create("/files", length=5)
        await client.append(url, b"hello")
        upload = await tus.get(id_of(url))
        assert upload is not None
        path = upload.local_path()
        assert path is not None
        assert path.read_bytes() == b"hello"
        assert paths == [None, path]


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"filename": "a.txt"}, "a.txt"),
        ({"name": "b.txt"}, "b.txt"),
        ({"filename": "a.txt", "name": "b.txt"}, "a.txt"),
        ({"filename": "C:\\temp\\x.txt"}, "x.txt"),
        ({"filename": "../../x"}, "x"),
        ({"filename": "a/"}, None),
        ({"filename": ".."}, None),
        ({"filename": "."}, None),
        ({"filename": ""}, None),
        ({"type": "x/y"}, None),
    ],
)
async def test_a_file_name_is_the_last_part(metadata: dict[str, str], expected: str | None) -> None:
    async with stage() as s:
        assert (await s.tus.create(length=5, metadata=metadata)).filename == expected


async def test_an_upload_is_a_value() -> None:
    async with stage() as s:
        url = await s.whole(b"hello")
        first, second = await s.upload(url), await s.upload(url)
        assert first == second
        assert repr(first) == f"<Upload {first.id} COMPLETE 5/5>"
        with pytest.raises((AttributeError, TypeError)):
            first.offset = 7  # type: ignore[misc]


async def test_uploads_are_read_by_many_at_once() -> None:
    data = bytes(range(256)) * 4096
    async with stage() as s:
        upload = await s.upload(await s.whole(data))

        async def part(n: int) -> bytes:
            step = len(data) // 8
            async with upload.open(n * step, (n + 1) * step) as body:
                return b"".join([piece async for piece in body])

        assert b"".join(await asyncio.gather(*(part(n) for n in range(8)))) == data


async def test_a_hook_reads_the_upload_that_it_is_given(tmp_path: Path) -> None:
    async def done(upload: Upload) -> None:
        await upload.save_to(tmp_path / "copy")
        async with upload.open(1, 3) as body:
            assert [piece async for piece in body] == [b"el"]

    async with stage(on_complete=done) as s:
        await s.whole(b"hello")
        assert (tmp_path / "copy").read_bytes() == b"hello"


async def test_an_id_whose_bytes_are_still_there_is_taken_also_when_its_record_is_forgotten(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    tus = TusApp(
        "/files",
        storage=FileStorage(tmp_path / "bytes"),
        store=SQLiteStore(tmp_path / "records.db", clock=clock),
        expiry=Expiry(finished=timedelta(days=1)),
        sweep_every=None,
        clock=clock,
    )
    async with TusClient(tus) as client:
        first = await tus.create(length=5, id="chosen")
        assert (await client.append(tus.url_for(first), b"hello")).status == 204
        path = (await tus.get("chosen") or first).local_path()
        clock.advance(timedelta(days=2))
        assert (await tus.sweep()).forgotten == 1
        assert await tus.get("chosen") is None
        with pytest.raises(IdTaken):
            await tus.create(length=5, id="chosen")
        assert path is not None
        assert path.read_bytes() == b"hello"
