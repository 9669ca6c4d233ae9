"""GET gives out what is complete, the same from every storage, to those who may have it, and leaves nothing
open behind."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from tests.app.stage import NotingStorage, assert_refused, id_of, stage
from tusserve import (
    Accepted,
    Action,
    FileStorage,
    MemoryStorage,
    MemoryStore,
    NewUpload,
    StorageUnavailable,
    TusApp,
    Upload,
    UploadState,
    contracts,
)
from tusserve.downloading import LONGEST_NAME, SHOWN, CutShort, disposition, safe_name
from tusserve.testing import TusClient
from tusserve.testing.client import Response

pytestmark = pytest.mark.anyio

PLAIN = {"Tus-Resumable": None}
DATA = bytes(range(256)) * 4096  # 1 MiB


@dataclass(frozen=True)
class Place:
    tus: TusApp
    client: TusClient

    async def whole(self, data: bytes, metadata: Mapping[str, str | bytes] | None = None) -> str:
        url = await self.client.create("/files", length=len(data), metadata=metadata)
        if data:
            assert (await self.client.append(url, data)).status == 204
        return url

    async def get(self, url: str, **headers: str) -> Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.request("GET", url, headers={**PLAIN, **sent})


@pytest.fixture(params=["file", "key", "memory", "no path"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Place]:
    def with_key(new: NewUpload, request: Request) -> Accepted:
        return Accepted(key=f"kept/{new.id}.bin")

    files = NoPath(tmp_path) if request.param == "no path" else FileStorage(tmp_path)
    tus = TusApp(
        "/files",
        storage=MemoryStorage() if request.param == "memory" else files,
        store=MemoryStore(),
        on_create=with_key if request.param == "key" else None,
        downloads=True,
        sweep_every=None,
    )
    async with TusClient(tus) as client:
        yield Place(tus, client)


class NoPath(FileStorage):
    """Files that are read as if they were elsewhere."""

    local_path = None  # type: ignore[assignment]


async def test_the_whole(place: Place) -> None:
    url = await place.whole(DATA, {"filename": "a b.bin", "filetype": "text/html"})
    answer = await place.get(url)
    assert answer.status == 200
    assert answer.body == DATA
    completed = await place.tus.get(id_of(url))
    assert completed is not None
    headers = dict(answer.headers)
    assert headers.pop("etag").startswith(f'"{completed.id}-')
    assert headers.pop("last-modified").endswith(" GMT")
    assert headers == {
        "tus-resumable": "1.0.0",
        "content-type": "application/octet-stream",
        "content-length": str(len(DATA)),
        "content-disposition": 'attachment; filename="a b.bin"',
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox",
        "accept-ranges": "bytes",
        "cache-control": "private, no-cache",
    }


async def test_nothing_at_all(place: Place) -> None:
    url = await place.whole(b"")
    for headers in ({}, {"Range": "bytes=0-9"}):
        answer = await place.get(url, **headers)
        assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, len(DATA)),
        ("bytes=-1", len(DATA) - 1, len(DATA)),
        ("bytes=300000-900000", 300_000, 900_001),
        ("bytes=1000000-99999999", 1_000_000, len(DATA)),
    ],
)
async def test_a_piece(place: Place, wanted: str, start: int, stop: int) -> None:
    url = await place.whole(DATA)
    answer = await place.get(url, Range=wanted)
    assert answer.status == 206
    assert answer.body == DATA[start:stop]
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(DATA)}"
    assert answer.headers["content-length"] == str(stop - start)
    assert answer.headers["etag"] == (await place.get(url)).headers["etag"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "wanted", ["bytes=5-4", "lines=1-2", "bytes=+1-2", "bytes=nonsense", "bytes=\u00b2-", "bytes=3-4,1-2"]
)
async def test_a_range_that_is_none(place: Place, wanted: str) -> None:
    answer = await place.get(await place.whole(b"hello"), Range=wanted)
    assert (answer.status, answer.body) == (200, b"hello")


@pytest.mark.parametrize("wanted", ["bytes=5-", "bytes=9-10", "bytes=-0"])
async def test_a_range_beyond_the_end(place: Place, wanted: str) -> None:
    answer = await place.get(await place.whole(b"hello"), Range=wanted)
    assert_refused(answer, 416, "range_not_satisfiable")
    assert answer.headers["content-range"] == "bytes */5"


async def test_what_the_client_has_already(place: Place) -> None:
    url = await place.whole(b"hello")
    first = await place.get(url)
    etag, date = first.headers["etag"], first.headers["last-modified"]
    for known in (etag, f'"x", W/{etag}', "*"):
        answer = await place.get(url, If_None_Match=known, Range="bytes=0-1")
        assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", etag)
        assert answer.headers["cache-control"] == "private, no-cache"
    assert (await place.get(url, If_None_Match='"x"')).body == b"hello"
    for condition, status in ((etag, 206), (date, 206), ('"x"', 200), (f"W/{etag}", 200)):
        assert (await place.get(url, If_Range=condition, Range="bytes=0-1")).status == status
    assert (await place.get(url)).headers["etag"] == etag
    assert (await place.get(await place.whole(b"hello"))).headers["etag"] != etag


async def test_head_stays_that_of_the_protocol(place: Place) -> None:
    url = await place.whole(b"hello")
    answer = await place.client.head(url)
    assert (answer.status, answer.headers["upload-offset"]) == (200, "5")
    assert "content-disposition" not in answer.headers
    assert (await place.client.head(url, headers=PLAIN)).status == 412


async def test_the_method_may_be_overridden(place: Place) -> None:
    url = await place.whole(b"hello")
    override = {"X-HTTP-Method-Override": "GET", "Range": "bytes=1-2"}
    answer = await place.client.request("POST", url, headers=override)
    assert (answer.status, answer.body) == (206, b"el")
    answer = await place.client.request("HEAD", url, headers=override)
    assert (answer.status, answer.body, answer.headers["content-length"]) == (206, b"", "2")


async def test_the_bytes_are_gone(place: Place, tmp_path: Path) -> None:
    """A download changes nothing, so the upload is what it was: this is about the bytes."""
    url = await place.whole(b"hello")
    storage = place.tus._shelf.storage
    if isinstance(storage, MemoryStorage):
        storage._areas.clear()
    remove_files_of(tmp_path, 5)
    assert_refused(await place.get(url), 410, "upload_lost")
    assert (await place.client.head(url)).status == 200


def remove_files_of(folder: Path, size: int) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_size == size:
            path.unlink()


@pytest.mark.parametrize("place", ["file", "key"], indirect=True)
async def test_the_file_is_another(place: Place, tmp_path: Path) -> None:
    url = await place.whole(b"hello")
    upload = await place.tus.get(id_of(url))
    assert upload is not None
    path = upload.local_path()
    assert path is not None
    path.write_bytes(b"hell")
    assert_refused(await place.get(url), 410, "upload_lost")
    path.unlink()
    path.mkdir()
    assert_refused(await place.get(url), 410, "upload_lost")


# ---- who, and when


async def test_without_downloads_there_is_no_get() -> None:
    async with stage() as on:
        url = await on.whole(b"hello")
        answer = await on.client.request("GET", url, headers=PLAIN)
        assert_refused(answer, 405, "method_not_allowed")
        assert "GET" not in answer.headers["allow"]


async def test_only_what_is_complete() -> None:
    finishes, may_complete = asyncio.Event(), asyncio.Event()

    async def complete(upload: Upload) -> None:
        finishes.set()
        await may_complete.wait()

    async with stage(downloads=True, on_complete=complete) as on:
        ask = on.client.request
        assert_refused(await ask("GET", "/files/none", headers=PLAIN), 404, "upload_not_found")
        assert_refused(await ask("GET", "/files/..%2f", headers=PLAIN), 404, "upload_not_found")
        assert_refused(await ask("GET", "/files", headers=PLAIN), 405, "method_not_allowed")
        url = await on.client.create("/files", length=5)
        assert_refused(await ask("GET", url, headers=PLAIN), 404, "upload_not_complete")
        await on.client.append(url, b"he")
        assert_refused(await ask("GET", url, headers=PLAIN), 404, "upload_not_complete")
        finishing = asyncio.create_task(on.client.append(url, b"llo", at=2))
        await finishes.wait()
        assert await on.state(url) is UploadState.FINISHING
        assert_refused(await ask("GET", url, headers=PLAIN), 404, "upload_not_complete")
        may_complete.set()
        assert (await finishing).status == 204
        assert (await ask("GET", url, headers=PLAIN)).body == b"hello"
        on.clock.advance(timedelta(days=365))
        assert (await ask("GET", url, headers=PLAIN)).body == b"hello"
        assert (await on.client.delete(url)).status == 204
        assert_refused(await ask("GET", url, headers=PLAIN), 410, "upload_terminated")
        unfinished = await on.client.create("/files", length=5)
        on.clock.advance(timedelta(days=8))
        assert_refused(await ask("GET", unfinished, headers=PLAIN), 410, "upload_expired")


async def test_the_host_says_who() -> None:
    asked: list[tuple[Action, str | None]] = []

    def authorize(request: Request, action: Action, upload: Upload | None) -> str:
        asked.append((action, upload.id if upload else None))
        who = request.headers.get("x-who")
        if who is None:
            raise HTTPException(401, "Log in first.")
        return who

    async with stage(downloads=True, authorize=authorize) as on:
        mine = {"X-Who": "me"}
        url = await on.whole(b"hello", headers=mine)
        asked.clear()
        ask = on.client.request
        assert (await ask("GET", url, headers={**PLAIN, **mine})).body == b"hello"
        assert asked == [(Action.DOWNLOAD, id_of(url))]
        etag = (await ask("GET", url, headers={**PLAIN, **mine})).headers["etag"]
        other = {**PLAIN, "X-Who": "you", "If-None-Match": etag, "Range": "bytes=99-"}
        foreign = await ask("GET", url, headers=other)
        unknown = await ask("GET", "/files/none", headers=other)
        assert_refused(foreign, 404, "upload_not_found")
        assert (foreign.body, foreign.headers) == (unknown.body, unknown.headers)
        assert_refused(await ask("GET", url, headers={**PLAIN, "If-None-Match": "*"}), 401, "rejected")


# ---- what is said of the content


@pytest.mark.parametrize(
    ("given", "told", "how"),
    [
        (None, "application/octet-stream", "attachment"),
        ("image/png", "image/png", "inline"),
        ("text/plain; charset=utf-8", "text/plain; charset=utf-8", "inline"),
        ("VIDEO/MP4", "VIDEO/MP4", "inline"),
        ("text/html", "text/html", "attachment"),
        ("image/svg+xml", "image/svg+xml", "attachment"),
        ("application/pdf", "application/pdf", "attachment"),
        ("nonsense", "application/octet-stream", "attachment"),
        ("image/png\r\nSet-Cookie: a=b", "application/octet-stream", "attachment"),
        ("text/plain; \u2603", "application/octet-stream", "attachment"),
    ],
)
async def test_the_type_is_the_host_s(given: str | None, told: str, how: str) -> None:
    def first(upload: Upload, head: bytes) -> Accepted:
        return Accepted(content_type=given)

    async with stage(downloads=True, on_first_chunk=first) as on:
        url = await on.client.create("/files", length=5, metadata={"filetype": "text/html", "name": "x.html"})
        await on.client.append(url, b"hello")
        answer = await on.client.request("GET", url, headers=PLAIN)
        assert answer.headers["content-type"] == told
        assert answer.headers["content-disposition"] == f'{how}; filename="x.html"'
        assert "set-cookie" not in answer.headers


def test_nothing_that_acts_is_shown() -> None:
    acting = ("html", "xml", "svg", "pdf", "script", "json")
    assert [each for each in SHOWN if any(word in each for word in acting)] == []


@pytest.mark.parametrize(
    ("filename", "safe"),
    [
        ("a.txt", "a.txt"),
        ("my file (1).txt", "my file (1).txt"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("C:\\a\\b.txt", "b.txt"),
        ("a/..\x00", ""),
        ("...", ""),
        (" .profile ", "profile"),
        ("a\r\nSet-Cookie: x=y.txt", "aSet-Cookie: x=y.txt"),
        ("gpj.\u202eexe.txt", "gpj.exe.txt"),
        ("\ud800x", "x"),
        ("a\u2028b\x7f\x85", "ab"),
        ("grüße.txt", "grüße.txt"),
        ("", ""),
        ("x" * 400 + ".tar", "x" * (LONGEST_NAME - 4) + ".tar"),
        ("x." + "y" * 400, "x." + "y" * (LONGEST_NAME - 2)),
    ],
)
def test_a_name_that_a_client_made_up(filename: str, safe: str) -> None:
    assert safe_name(filename) == safe


@pytest.mark.parametrize(
    "filename",
    [
        'a".txt',
        "a\\b.txt",
        "100%.txt",
        "%41.txt",
        "grüße \u2603 \U0001f600.txt",
        "a;b=c.txt",
        "x'y.txt",
        "a,b",
    ],
)
def test_every_name_comes_back(filename: str) -> None:
    told = disposition(filename, shown=False)
    assert told.isascii() and told.isprintable()
    assert told.startswith("attachment; ")
    quoted = told.split('filename="')[1].split('"')[0]
    assert "\\" not in quoted and "%" not in quoted
    if "filename*=" in told:
        extended = told.split("filename*=UTF-8''")[1]
        assert not set(extended) & set("\"'; ,\\")
        assert unquote(extended) == safe_name(filename)
    else:
        assert quoted == safe_name(filename)


def test_no_name_is_none() -> None:
    assert disposition(None, shown=False) == disposition("..", shown=False) == "attachment"


# ---- what breaks


class FailingStorage(NotingStorage):
    """Reading fails: at once, or after the first piece. Notes what is open."""

    def __init__(self) -> None:
        super().__init__()
        self.fails_at: int | None = None
        self.open = 0
        self.given = 0

    @asynccontextmanager
    async def read(
        self, place: contracts.Place, cursor: contracts.Cursor, start: int, stop: int
    ) -> AsyncGenerator[AsyncIterator[bytes]]:
        if self.fails_at == 0:
            raise StorageUnavailable("away")
        async with super().read(place, cursor, start, stop) as body:
            self.open += 1
            try:
                yield self._pieces(body)
            finally:
                self.open -= 1

    async def _pieces(self, body: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        async for piece in body:
            if self.given == self.fails_at:
                raise StorageUnavailable("away")
            self.given += 1
            yield piece


async def test_a_storage_that_is_away() -> None:
    storage = FailingStorage()
    async with stage(downloads=True, storage=storage) as on:
        url = await on.whole(DATA)
        storage.fails_at = 0
        assert_refused(await on.client.request("GET", url, headers=PLAIN), 503, "storage_unavailable")
        storage.fails_at = 1
        with pytest.raises(CutShort) as raised:
            await on.client.request("GET", url, headers=PLAIN)
        assert isinstance(raised.value.__cause__, StorageUnavailable)
        assert storage.open == 0


async def leave(tus: TusApp, url: str, *, broken_pipe: bool) -> int:
    """GET by a client that goes away after the first bytes; how many bytes it got."""
    gone, waiting = asyncio.Event(), 0
    got = 0

    async def receive() -> dict[str, Any]:
        nonlocal waiting
        waiting += 1
        assert waiting == 1, "one at a time may wait for a message"
        await (asyncio.Event() if broken_pipe else gone).wait()  # servers tell it in one way or the other
        waiting -= 1
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal got
        if gone.is_set() and broken_pipe:
            raise OSError("broken pipe")
        got += len(message.get("body", b""))
        if got:
            gone.set()

    path = url.encode()
    await tus(
        {"type": "http", "method": "GET", "path": url, "raw_path": path, "query_string": b"", "headers": []},
        receive,
        send,
    )
    return got


@pytest.mark.parametrize("broken_pipe", [False, True])
async def test_a_client_that_leaves(broken_pipe: bool) -> None:
    storage = FailingStorage()
    async with stage(downloads=True, storage=storage) as on:
        url = await on.whole(DATA * 4)
        assert await leave(on.tus, url, broken_pipe=broken_pipe) < len(DATA)
        assert storage.open == 0
        assert storage.given < 8
        assert [task for task in asyncio.all_tasks() if "look_out" in repr(task)] == []


@pytest.mark.parametrize("broken_pipe", [False, True])
@pytest.mark.parametrize("place", ["file", "no path"], indirect=True)
async def test_a_client_that_leaves_a_file(place: Place, tmp_path: Path, broken_pipe: bool) -> None:
    url = await place.whole(DATA * 8)
    assert await leave(place.tus, url, broken_pipe=broken_pipe) < len(DATA) * 4
    assert open_below(tmp_path) == []


def open_below(folder: Path) -> list[str]:
    """The files of a folder that this process has open."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(each.readlink()))
        except FileNotFoundError:
            continue
    return [path for path in found if path.startswith(os.fspath(folder))]


@pytest.mark.parametrize("place", ["file", "no path"], indirect=True)
async def test_a_request_that_is_cancelled(place: Place, tmp_path: Path) -> None:
    url = await place.whole(DATA)
    stuck = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            stuck.set()
            await asyncio.Event().wait()

    scope = {"type": "http", "method": "GET", "path": url, "raw_path": url.encode(), "headers": []}
    request = asyncio.create_task(place.tus(scope, receive, send))
    await stuck.wait()
    assert len(open_below(tmp_path)) == 1
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert open_below(tmp_path) == []
