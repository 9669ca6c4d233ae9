"""Downloads over real sockets: in pieces, by clients that leave, and when the bytes end before their end."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from threading import Thread

import pytest
import uvicorn

from tests.raw_http import Connection, ConnectionEnded, head_of
from tests.serving_process import ServingProcess, tusserve
from tusserve import MemoryStorage, MemoryStore, StorageUnavailable, TusApp
from tusserve.contracts import Cursor, Place

DATA = bytes(range(256)) * 65536  # 16 MiB: more than sockets hold
WHOLE = [("Host", "test")]


@contextmanager
def serving(app: TusApp, **options: str) -> Generator[tuple[str, int]]:
    """The app under uvicorn, in a thread; its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", **options))  # type: ignore[arg-type]
    thread = Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        host, port = server.servers[0].sockets[0].getsockname()
        yield host, port
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def uploaded(connection: Connection) -> str:
    url = connection.create("/files", len(DATA))
    assert connection.append(url, 0, DATA).status == 204
    return url


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_in_pieces_from_memory(http: str) -> None:
    app = TusApp("/files", storage=MemoryStorage(), store=MemoryStore(), downloads=True)
    with serving(app, http=http) as address, Connection(address) as connection:
        check_pieces(connection, uploaded(connection))


@contextmanager
def giving_out(folder: Path) -> Generator[ServingProcess]:
    with tusserve(folder, "--download", "--path", "/files", "--durability", "none") as server:
        yield server
        assert "Traceback" not in server.log


def test_in_pieces_from_files(tmp_path: Path) -> None:
    with giving_out(tmp_path) as server, Connection(server.address) as connection:
        check_pieces(connection, uploaded(connection))


def check_pieces(connection: Connection, url: str) -> None:
    """On one connection, which is of use after each of them."""
    got = b""
    step = 5 * 1024 * 1024 + 1
    while len(got) < len(DATA):
        wanted = [("Range", f"bytes={len(got)}-{len(got) + step - 1}")]
        answer = connection.ask("GET", url, wanted)
        assert answer.status == 206
        assert answer.one("content-range") == (
            f"bytes {len(got)}-{len(got) + len(answer.body) - 1}/{len(DATA)}"
        )
        got += answer.body
    assert got == DATA
    assert connection.ask("GET", url, [("Range", f"bytes={len(DATA)}-")]).status == 416
    whole = connection.ask("GET", url)
    assert (whole.status, whole.body == DATA) == (200, True)
    etag = whole.one("etag")
    assert etag is not None
    known = connection.ask("GET", url, [("If-None-Match", etag)])
    assert (known.status, known.body) == (304, b"")
    assert connection.inspect(url).offset == len(DATA)


@pytest.mark.parametrize("how", [Connection.reset, lambda connection: connection.socket.close()])
def test_who_leaves_leaves_nothing_open(tmp_path: Path, how: Callable[[Connection], None]) -> None:
    with giving_out(tmp_path) as server:
        with Connection(server.address) as connection:
            url = uploaded(connection)
        for _ in range(3):
            leaving = Connection(server.address)
            leaving.send(head_of("GET", url, WHOLE))
            assert leaving.socket.recv(1000).startswith(b"HTTP/1.1 200")
            how(leaving)
        within(lambda: open_below(server.process.pid, tmp_path / "data") == [])
        with Connection(server.address) as connection:
            assert connection.ask("GET", url, [("Range", "bytes=0-0")]).status == 206


def open_below(pid: int, folder: Path) -> list[str]:
    found = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(str(each.readlink()))
        except FileNotFoundError:
            continue
    return [path for path in found if path.startswith(f"{folder}/")]


def within(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.01)


class BreakingStorage(MemoryStorage):
    """Has the first half of what it should have."""

    @asynccontextmanager
    async def read(
        self, place: Place, cursor: Cursor, start: int, stop: int
    ) -> AsyncGenerator[AsyncIterator[bytes]]:
        async with super().read(place, cursor, start, stop) as body:
            yield half_of(body, (stop - start) // 2)


async def half_of(body: AsyncIterator[bytes], left: int) -> AsyncGenerator[bytes]:
    async for piece in body:
        await asyncio.sleep(0)
        if left <= 0:
            raise StorageUnavailable("away")
        left -= len(piece)
        yield piece


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_bytes_that_end_too_early_break_the_connection(http: str) -> None:
    """And nothing else could tell: the status was 200, and half of a file is none."""
    app = TusApp("/files", storage=BreakingStorage(), store=MemoryStore(), downloads=True)
    with serving(app, http=http) as address, Connection(address) as connection:
        url = uploaded(connection)
        with pytest.raises((ConnectionEnded, ConnectionResetError)):
            connection.ask("GET", url)
