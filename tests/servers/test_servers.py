"""Uploads over sockets on the servers that people use: what the page about servers says of them."""

import hashlib
import os
import re
import select
import signal
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final

import pytest

from tests.raw_http import OCTETS, Answer, Connection, chunked, head_of
from tests.servers.running import SERVERS, serving
from tests.serving_process import ServingProcess

MIB: Final = 1 << 20
SENT: Final = 300_000
"""Bytes of a body before its client stops sending: less than a checkpoint."""
HOST: Final = [("Host", "test"), ("Tus-Resumable", "1.0.0")]
PAGE: Final = (Path(__file__).parent.parent.parent / "docs/how-to/servers.md").read_text()
PROGRAM: Final = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[0]


@pytest.fixture(scope="module", params=SERVERS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generator[ServingProcess]:
    """One server for all tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("uploads")
    with serving(request.param, folder) as running:
        yield running
        running.stop()
        assert "Traceback" not in running.log + running.output


@pytest.fixture
def client(server: ServingProcess) -> Generator[Connection]:
    with Connection(server.address) as connection:
        yield connection


def until(holds: Callable[[], bool]) -> None:
    """Try until it holds; never later than what no server takes."""
    give_up = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < give_up, "it never held"
        time.sleep(0.05)


def digests_below(folder: Path) -> set[str]:
    """Of every file there."""
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def a_part(server: ServingProcess, upload: str, length: int) -> Connection:
    """A client in the middle of a PATCH of `length` bytes, `SENT` of which the server has committed."""
    client = Connection(server.address)
    client.begin_append(upload, 0, length)
    client.send(b"x" * SENT)
    with Connection(server.address) as other:
        until(lambda: other.inspect(upload).offset == SENT)
    return client


def finish(server: ServingProcess, upload: str, length: int) -> None:
    """Go on where the server says, to the end, as a client does."""
    with Connection(server.address) as client:

        def is_taken() -> bool:
            offset = client.inspect(upload).offset
            answer = client.append(upload, offset, b"y" * (length - offset))
            assert answer.status in (204, 423), answer
            return answer.status == 204

        until(is_taken)
        assert client.inspect(upload).offset == length


def send_until_answered(client: Connection, data: bytes) -> None:
    """A client that reads while it sends, as browsers and curl do."""
    for at in range(0, len(data), 65536):
        if select.select([client.socket], [], [], 0)[0]:
            return
        if not client.send_what_is_taken(data[at : at + 65536]):
            return


# ---- whole uploads


def test_an_upload_in_several_requests(client: Connection, tmp_path_factory: pytest.TempPathFactory) -> None:
    data = b"".join(bytes([n]) * MIB for n in range(3)) + b"the last"
    for target in ("/files", "/files/"):
        assert client.ask("OPTIONS", target).one("tus-version") == "1.0.0"
        upload = client.create(target, len(data))
        for n in range(3):
            assert client.append(upload, n * MIB, data[n * MIB : (n + 1) * MIB]).offset == (n + 1) * MIB
            assert client.inspect(upload).offset == (n + 1) * MIB
        assert client.append(upload, 3 * MIB, b"the last").offset == len(data)
        assert client.ask("DELETE", client.create(target, 5)).status == 204
    assert hashlib.sha256(data).hexdigest() in digests_below(tmp_path_factory.getbasetemp())


def test_bodies_of_which_nobody_said_the_length(client: Connection) -> None:
    upload = client.create("/files", 2 * MIB + 5)
    pieces = [b"x" * 70_000] * 29
    sent = sum(map(len, pieces))
    for at, body in ((0, pieces), (sent, [b"y" * (2 * MIB + 5 - sent)])):
        framing = [*HOST, *OCTETS, ("Upload-Offset", str(at)), ("Transfer-Encoding", "chunked")]
        client.send(head_of("PATCH", upload, framing) + chunked(body))
        assert client.answer("PATCH").offset == at + sum(map(len, body))


# ---- clients that go away


@pytest.mark.parametrize("how", ["end", "close", "reset"])
def test_a_client_that_is_cut_off_keeps_its_bytes(server: ServingProcess, how: str) -> None:
    with Connection(server.address) as client:
        upload = client.create("/files", 2 * MIB)
        gone = a_part(server, upload, 2 * MIB)
        if how == "reset":
            gone.reset()
        else:
            gone.send(b"x" * 1000)
            gone.end_sending() if how == "end" else gone.socket.close()
        until(lambda: client.inspect(upload).offset == SENT + (0 if how == "reset" else 1000))
        finish(server, upload, 2 * MIB)
        gone.socket.close()


def test_another_client_goes_on_where_one_hangs(server: ServingProcess) -> None:
    with Connection(server.address) as client:
        upload = client.create("/files", 2 * MIB)
        with a_part(server, upload, 2 * MIB) as hanging:
            finish(server, upload, 2 * MIB)
            told = hanging.answer("PATCH")
            assert (told.status, told.offset, told.closes) == (423, SENT, True)
            assert hanging.is_closed()


# ---- refusals that are read


def begin_refused(client: Connection, why: str, framing: tuple[str, str]) -> str:
    """The head of a PATCH that is refused."""
    upload = client.create("/files", 10 if why == "413" else 60 * MIB)
    offset = "7" if why == "409" else "0"
    client.send(head_of("PATCH", upload, [*HOST, *OCTETS, ("Upload-Offset", offset), framing]))
    return upload


CODES: Final = {"409": "offset_mismatch", "413": "body_too_long", "415": "unwanted"}


def check_refusal(answer: Answer, why: str) -> None:
    assert answer.status == int(why)
    assert CODES[why].encode() in answer.body
    assert answer.one("tus-resumable") == "1.0.0"


@pytest.mark.parametrize("why", CODES)
def test_a_refusal_is_read_and_the_connection_goes_on(client: Connection, why: str) -> None:
    body = b"unwanted" + b"x" * (3 * MIB)
    upload = begin_refused(client, why, ("Content-Length", str(len(body))))
    client.send(body)
    answer = client.answer("PATCH")
    check_refusal(answer, why)
    assert not answer.closes
    assert client.inspect(upload).status == (410 if why == "415" else 200)


@pytest.mark.parametrize("why", CODES)
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_refusal_of_an_endless_body_is_read(client: Connection, why: str, framing: str) -> None:
    body = b"unwanted" + b"x" * (40 * MIB)
    if framing == "chunked":
        begin_refused(client, why, ("Transfer-Encoding", "chunked"))
        body = chunked([body[at : at + MIB] for at in range(0, len(body), MIB)])
    else:
        begin_refused(client, why, ("Content-Length", str(len(body))))
    send_until_answered(client, body)
    answer = client.answer("PATCH")
    check_refusal(answer, why)
    assert answer.closes


def test_who_waits_to_be_asked_for_the_body(client: Connection, request: pytest.FixtureRequest) -> None:
    expecting = [*HOST, *OCTETS, ("Content-Length", "5"), ("Expect", "100-continue")]
    upload = client.create("/files", 5)
    client.send(head_of("PATCH", upload, [*expecting, ("Upload-Offset", "0")]))
    assert select.select([client.socket], [], [], 30)[0], "never asked"
    client.send(b"hello")
    answer = client.answer("PATCH")
    assert (answer.status, answer.interim) == (204, (100,))
    upload = client.create("/files", 10)
    client.send(head_of("PATCH", upload, [*expecting, ("Upload-Offset", "3")]))
    answer = client.answer("PATCH")
    assert (answer.status, answer.closes) == (409, True)
    asks_first = "hypercorn" in request.node.callspec.id
    assert answer.interim == ((100,) if asks_first else ())


# ---- behind a proxy that takes a prefix away


@pytest.mark.parametrize("name", SERVERS)
def test_the_location_is_below_the_prefix_that_a_proxy_took_away(name: str, tmp_path: Path) -> None:
    option = "--url-path-prefix" if name == "granian" else "--root-path"
    with (
        serving(name, tmp_path, more=[option, "/api"]) as server,
        Connection(server.address) as client,
    ):
        forwarded = [("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "up.example")]
        answer = client.ask("POST", "/files", [("Upload-Length", "5"), *forwarded])
        location = answer.one("location") or ""
        assert re.fullmatch("/api/files/[0-9a-f]{32}", location), answer
        behind = location.removeprefix("/api")
        assert client.inspect(behind).offset == 0
        assert client.append(behind, 0, b"hello").offset == 5


# ---- the end of the server


@pytest.mark.parametrize("name", SERVERS)
def test_stopped_in_the_middle_of_a_request(name: str, tmp_path: Path) -> None:
    with serving(name, tmp_path) as server:
        with Connection(server.address) as client:
            hanging, ending = client.create("/files", 2 * MIB), client.create("/files", SENT + 5)
        with (
            _begun(server, hanging, 2 * MIB, tmp_path),
            _begun(server, ending, SENT + 5, tmp_path) as in_time,
        ):
            server.signal(signal.SIGTERM)
            in_time.send(b"hello")  # while the server waits
            answer = in_time.answer("PATCH")
            assert (answer.status, answer.offset) == (204, SENT + 5)
            server.wait()
    with serving(name, tmp_path) as server, Connection(server.address) as client:
        offset = client.inspect(hanging).offset
        # granian kills its worker: what came after the last checkpoint, here all, has to be sent again.
        assert offset == SENT or name == "granian"
        finish(server, hanging, 2 * MIB)
        assert client.inspect(ending).offset == SENT + 5


def _begun(server: ServingProcess, upload: str, length: int, folder: Path) -> Connection:
    """Like `a_part`, but nobody asks, so nothing is committed; the server has read all that was sent."""
    client = Connection(server.address)
    client.begin_append(upload, 0, length)
    client.send(b"x" * SENT)
    place = upload.rpartition("/")[2]
    until(lambda: any(place in path.name for path in folder.rglob("*")) and not _unread(server, client))
    time.sleep(0.2)  # from the server's own buffers to the app
    return client


def _unread(server: ServingProcess, client: Connection) -> bool:
    """Whether the kernel still holds bytes from this client that the server has not read."""
    ports = (server.port, client.socket.getsockname()[1])
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if tuple(int(address.rpartition(":")[2], 16) for address in fields[1:3]) == ports:
            return int(fields[4].rpartition(":")[2], 16) > 0
    raise AssertionError("the connection is gone")


@pytest.mark.parametrize("to_all", [False, True], ids=["to the parent", "to all, as systemd does"])
@pytest.mark.parametrize("name", SERVERS)
def test_the_program_of_the_page_lets_uploads_go_at_once(
    name: str, to_all: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "app.py").write_text(PROGRAM)
    monkeypatch.chdir(tmp_path)
    more = ["--workers", "0"] if name == "hypercorn" and not to_all else []
    with serving(name, tmp_path, "app:app", more, grace=60) as server:
        with Connection(server.address) as client:
            upload = client.create("/files", 2 * MIB)
        with _begun(server, upload, 2 * MIB, tmp_path) as running:
            if to_all:
                os.killpg(server.process.pid, signal.SIGTERM)
            else:
                server.signal(signal.SIGTERM)
            answer = running.answer("PATCH")
            assert (answer.status, answer.offset) == (503, SENT)
            assert b'"draining"' in answer.body
        server.wait()
        assert "Traceback" not in server.log + server.output
    with serving(name, tmp_path, "app:app") as server, Connection(server.address) as client:
        assert client.inspect(upload).offset == SENT
        finish(server, upload, 2 * MIB)
