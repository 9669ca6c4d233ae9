"""Uploads over HTTP/2, on the servers that speak it without TLS: as over HTTP/1, and streams do not disturb
each other."""

import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final

import pytest

from tests.raw_http import OCTETS
from tests.servers.http2 import Http2
from tests.servers.running import serving

MIB: Final = 1 << 20
SENT: Final = 300_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module", params=["granian", "hypercorn"])
def address(request: pytest.FixtureRequest, folder: Path) -> Generator[tuple[str, int]]:
    """Of one server for all tests."""
    with serving(request.param, folder / request.param) as server:
        yield server.address
        server.stop()
        assert "Traceback" not in server.log + server.output


@pytest.fixture
def client(address: tuple[str, int]) -> Generator[Http2]:
    with Http2(address) as connection:
        yield connection


def create(client: Http2, length: int) -> str:
    answer = client.ask("POST", "/files", [("Upload-Length", str(length))])
    assert answer.status == 201
    return answer.headers["location"]


def offset_of(client: Http2, upload: str) -> int:
    answer = client.ask("HEAD", upload)
    assert answer.status == 200
    return int(answer.headers["upload-offset"])


def at(offset: int) -> list[tuple[str, str]]:
    """The headers of a PATCH at this offset."""
    return [*OCTETS, ("Upload-Offset", str(offset))]


def begun(client: Http2, upload: str) -> int:
    """A stream in the middle of its body, `SENT` bytes of which are committed."""
    stream = client.begin("PATCH", upload, at(0), ends=False)
    client.send(stream, b"x" * SENT)
    until(lambda: offset_of(client, upload) == SENT)
    return stream


def until(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < give_up, "it never held"
        time.sleep(0.05)


def go_on(client: Http2, upload: str, length: int) -> None:
    """To the end, from where the server says."""

    def is_taken() -> bool:
        offset = offset_of(client, upload)
        answer = client.ask("PATCH", upload, at(offset), b"y" * (length - offset))
        assert answer.status in (204, 423), answer
        return answer.status == 204

    until(is_taken)
    assert offset_of(client, upload) == length


def test_an_upload_in_several_requests(client: Http2, folder: Path) -> None:
    data = b"".join(bytes([n]) * MIB for n in range(1, 4))
    assert client.ask("OPTIONS", "/files").status == 204
    upload = create(client, len(data))
    for n in range(3):
        answer = client.ask("PATCH", upload, at(n * MIB), data[n * MIB : (n + 1) * MIB])
        assert (answer.status, answer.headers["upload-offset"]) == (204, str((n + 1) * MIB))
        assert "connection" not in answer.headers
        assert offset_of(client, upload) == (n + 1) * MIB
    landed = [path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".db"]
    assert data in landed


def test_a_stream_that_is_cut_keeps_its_bytes_and_leaves_the_others_alone(client: Http2) -> None:
    cut, other = create(client, MIB), create(client, 10)
    also = client.begin("PATCH", other, at(0), ends=False)
    client.send(also, b"01234")
    stream = begun(client, cut)
    client.cancel(stream)
    go_on(client, cut, MIB)
    client.send(also, b"56789", ends=True)
    assert client.answer(also).status in (204, 423)  # silent for long enough that a HEAD might have ended it
    assert offset_of(client, other) in (5, 10)


def test_another_stream_goes_on_where_one_hangs(client: Http2, address: tuple[str, int]) -> None:
    upload = create(client, MIB)
    with Http2(address) as another:
        stream = begun(another, upload)
        go_on(client, upload, MIB)
        told = another.answer(stream)
        assert (told.status, told.headers["upload-offset"]) == (423, str(SENT))
        assert "connection" not in told.headers


@pytest.mark.parametrize("why", [409, 413, 415])
def test_a_refusal_is_read_and_the_connection_goes_on(client: Http2, why: int) -> None:
    body = b"unwanted" + b"x" * MIB
    upload = create(client, 10 if why == 413 else 60 * MIB)
    told = client.ask("PATCH", upload, at(7 if why == 409 else 0), body)
    assert told.status == why
    assert b'"code"' in told.body
    assert told.headers["tus-resumable"] == "1.0.0"
    assert client.ask("HEAD", upload).status == (410 if why == 415 else 200)
