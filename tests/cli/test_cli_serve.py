"""`tusserve serve` and `sweep` as a process: what it says, what it believes, and how it ends."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.raw_http import Connection, head_of
from tests.serving_process import NotStarted, ServingProcess, tusserve

TUSSERVE = [sys.executable, "-m", "tusserve"]


def test_the_two_lines_tell_the_truth(tmp_path: Path) -> None:
    folder = tmp_path / "uploads"
    with tusserve(folder) as server:
        first, second = server.output.splitlines()
        assert first == f"Listening on {server.url}, files land in {folder}"
        assert server.port != 0
        assert second.startswith("Try it: ")
        pasted = second.removeprefix("Try it: ")
        done = subprocess.run(["bash", "-c", pasted], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("HTTP/1.1 201 ")
        assert "\nserver:" not in done.stdout.lower()
        landed = [path for path in (folder / "data").rglob("*") if path.is_file()]
        assert [path.read_bytes() for path in landed] == [b"hello"]
        assert (folder / "tusserve.db").is_file()
        assert server.stop() == 0
        assert server.output.count("\n") == 2, "nothing else on standard output"


def test_the_line_to_try_works_with_fewer_extensions(tmp_path: Path) -> None:
    with tusserve(tmp_path, "--extensions", "termination") as server:
        pasted = server.output.splitlines()[1].removeprefix("Try it: ")
        done = subprocess.run(["bash", "-c", pasted], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("HTTP/1.1 204 ")
        assert "tus-extension: termination\r" in done.stdout or "tus-extension: termination\n" in done.stdout


def test_the_environment_sets_what_is_not_typed(tmp_path: Path) -> None:
    env = os.environ | {
        "TUSSERVE_PORT": "0",
        "TUSSERVE_MAX_SIZE": "1kB",
        "TUSSERVE_PATH": "/from/env/",
        "TUSSERVE_STATE": f"sqlite:///{tmp_path}/records.db",
    }
    command = [*TUSSERVE, "serve", str(tmp_path / "up"), "--path", "/typed/"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        try:
            port = int(line.split("127.0.0.1:")[1].split("/")[0])
            assert f":{port}/typed/," in line
            with Connection(("127.0.0.1", port)) as connection:
                assert connection.ask("OPTIONS", "/typed/").one("tus-max-size") == "1000"
            assert (tmp_path / "records.db").is_file()
            assert not (tmp_path / "up" / "tusserve.db").exists()
        finally:
            server.terminate()
        server.stdout.read()
    assert server.returncode == 0


def location(address: tuple[str, int], *headers: tuple[str, str]) -> str | None:
    with Connection(address) as connection:
        answer = connection.ask("POST", "/files/", [("Upload-Length", "5"), *headers])
    assert answer.status == 201, answer
    return answer.one("location")


FORWARDED = (("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "uploads.example.com"))


def test_a_proxy_is_believed_only_if_told_so(tmp_path: Path) -> None:
    with tusserve(tmp_path) as server:
        assert (location(server.address, *FORWARDED) or "").startswith("/files/")
    with tusserve(tmp_path, "--behind-proxy") as server:
        assert (location(server.address, *FORWARDED) or "").startswith("https://uploads.example.com/files/")
        assert (location(server.address) or "").startswith("/files/")
    with tusserve(tmp_path, "--behind-proxy=192.0.2.0/24") as server:
        assert (location(server.address, *FORWARDED) or "").startswith("/files/")


def test_base_url(tmp_path: Path) -> None:
    with tusserve(tmp_path, "--base-url", "https://a.example/b/") as server:
        assert (location(server.address) or "").startswith("https://a.example/b/files/")


ORIGINS = ("https://a.example", "https://b.example", "http://localhost:3000")


@pytest.mark.parametrize("typed", [True, False], ids=["typed", "from the environment"])
def test_pages_of_other_origins(tmp_path: Path, typed: bool) -> None:
    options = [word for origin in ORIGINS for word in ("--cors-origin", origin)] if typed else []
    env = {"TUSSERVE_CORS_ORIGIN": "" if typed else " ".join(ORIGINS)}
    command = [*TUSSERVE, "serve", str(tmp_path), "--port", "0", *options]
    with ServingProcess(command, env=env) as server, Connection(server.address) as connection:
        for origin in (*ORIGINS, "https://c.example"):
            answer = connection.ask("HEAD", "/files/none", [("Origin", origin)])
            assert answer.status == 404
            assert answer.one("access-control-allow-origin") == (origin if origin in ORIGINS else None)
            preflight = [("Origin", origin), ("Access-Control-Request-Method", "PATCH")]
            answer = connection.ask("OPTIONS", "/files/", preflight)
            assert answer.one("access-control-allow-origin") == (origin if origin in ORIGINS else None)


@pytest.mark.parametrize(
    ("options", "variable", "gives"),
    [
        ([], "", False),
        (["--download"], "", True),
        (["--download"], "0", True),
        ([], "1", True),
        (["--no-download"], "true", False),
    ],
)
def test_downloads(tmp_path: Path, options: list[str], variable: str, gives: bool) -> None:
    command = [*TUSSERVE, "serve", str(tmp_path), "--port", "0", *options]
    env = {"TUSSERVE_DOWNLOAD": variable}
    with ServingProcess(command, env=env) as server, Connection(server.address) as connection:
        url = connection.create("/files/", 5)
        assert connection.append(url, 0, b"hello").status == 204
        answer = connection.ask("GET", url, [("Range", "bytes=1-2")])
        assert answer.status == (206 if gives else 405)
        assert not gives or answer.body == b"el"


def test_a_folder_of_other_records_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "uploads"
    with tusserve(folder) as server:
        location(server.address)
    with pytest.raises(NotStarted, match=r"\Aended with 2\ntusserve: [^\n]*\n\Z"):
        tusserve(folder, "--state", f"sqlite:///{tmp_path}/other.db").__enter__()


def idle(connection: Connection) -> None:
    """An upload was made, and the connection is kept."""
    connection.create("/files/", 100)


def unfinished_head(connection: Connection) -> None:
    connection.send(b"POST /files/ HTTP/1.1\r\nHost: te")


def silent(connection: Connection) -> None:
    connection.begin_append(connection.create("/files/", 100), 0, 100)
    connection.send(b"0123456789")


def nothing_read(connection: Connection) -> None:
    """More requests than answers fit into the socket, none of them read."""
    connection.socket.setblocking(False)
    request = head_of("OPTIONS", "/files/", [("Host", "test")])
    for _ in range(30_000):
        try:
            connection.socket.send(request)
        except BlockingIOError:
            return


CLIENTS: tuple[Callable[[Connection], None], ...] = (idle, unfinished_head, silent, nothing_read)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_whatever_clients_do(tmp_path: Path, number: signal.Signals) -> None:
    with tusserve(tmp_path) as server, ExitStack() as connections:
        for client in CLIENTS:
            client(connections.enter_context(Connection(server.address)))
        time.sleep(0.2)
        server.signal(number)
        assert server.wait() == 0, server.log
        assert "Traceback" not in server.log


def test_a_running_body_is_kept_and_answered(tmp_path: Path) -> None:
    with tusserve(tmp_path) as server:
        with Connection(server.address) as writer, Connection(server.address) as reader:
            upload = writer.create("/files/", 100)
            writer.begin_append(upload, 0, 100)
            writer.send(b"0123456789")
            while reader.inspect(upload).offset < 10:  # each HEAD asks for a checkpoint
                time.sleep(0.01)
            writer.send(b"abcde")
            time.sleep(0.1)
            server.signal(signal.SIGTERM)
            answer = writer.answer("PATCH")
            assert answer.status in (423, 503)
            assert answer.offset == 15
            assert server.wait() == 0
        server.start()
        with Connection(server.address) as connection:
            assert connection.inspect(upload).offset == 15
            assert connection.append(upload, 15, b"x" * 85).status == 204


def test_a_second_signal_hurries(tmp_path: Path) -> None:
    with tusserve(tmp_path) as server, Connection(server.address) as connection:
        silent(connection)
        server.signal(signal.SIGTERM)
        server.signal(signal.SIGINT)
        assert server.wait() in (0, 1)


HANGS = """
import sys, time
import tusserve.cli_serve as serving
from tusserve import TusApp
serving.GONE_AFTER = 0.3
async def drain(self, deadline=0.0):
    time.sleep(600)  # the event loop stands still
TusApp.drain = drain
from tusserve.cli import run
sys.exit(run(sys.argv[1:]))
"""


def test_a_loop_that_stands_still_does_not_hold_it(tmp_path: Path) -> None:
    with tusserve(tmp_path) as server:
        server.stop()
        server.command[1:3] = ["-c", HANGS]
        server.start()
        server.signal(signal.SIGTERM)
        assert server.wait() == 1
        assert "last committed offset" in server.log


def test_every_line_of_a_json_log_is_an_object(tmp_path: Path) -> None:
    with tusserve(tmp_path, "--log-format", "json") as server:
        server.stop()
        lines = [json.loads(line) for line in server.log.splitlines()]
        assert any(line["message"].startswith("stopping") and line["logger"] == "tusserve" for line in lines)


def sweep(folder: Path, *options: str) -> dict[str, str]:
    command = [*TUSSERVE, "sweep", str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(line.rsplit(": ", 1) for line in done.stdout.splitlines())


def test_sweep_does_what_is_due(tmp_path: Path) -> None:
    with tusserve(tmp_path, "--expire-initial", "1s") as server:
        with Connection(server.address) as connection:
            upload = connection.create("/files/", 5)
        server.kill()
    time.sleep(1.1)
    assert sweep(tmp_path, "--dry-run")["would be expired"] == "1"
    assert sweep(tmp_path)["expired"] == "1"
    assert sweep(tmp_path)["expired"] == "0"
    with tusserve(tmp_path) as server, Connection(server.address) as connection:
        assert connection.inspect(upload).status == 410


FAULTS = """
import resource, sys
from tusserve.cli_serve import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def bodies():
    for _ in range(100):
        pieces = [bytes(64_000) for _ in range(64)]
        del pieces

if sys.argv[1] == "kept":
    keep_freed_memory()
bodies()
before = faults()
bodies()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_memory_is_kept_for_the_next_piece() -> None:
    def count(how: str) -> int:
        return int(
            subprocess.run([sys.executable, "-c", FAULTS, how], stdout=subprocess.PIPE, check=True).stdout
        )

    assert count("kept") * 10 < count("given back")


def test_bodies_do_not_grow_the_process(tmp_path: Path) -> None:
    """What is kept is bounded."""
    piece = os.urandom(1 << 20)
    with tusserve(tmp_path, "--durability", "none") as server, Connection(server.address) as connection:
        costs = []
        for _ in range(4):
            upload = connection.create("/files/", 32 << 20)
            connection.begin_append(upload, 0, 32 << 20)
            for _ in range(32):
                connection.send(piece)
            assert connection.answer("PATCH").status == 204
            connection.ask("DELETE", upload)
            costs.append(server.cost())
        assert costs[-1].memory - costs[0].memory < 40 << 20
