"""A server that is killed at random instants loses nothing acknowledged; SIGTERM loses nothing at all."""

import hashlib
import random
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.raw_http import Connection
from tests.server.kills import MIB, PATIENCE, created, digest_on_disk, offset_of, survive
from tests.serving_process import ServingProcess, tusserve


def test_kills_at_random_instants(tmp_path: Path) -> None:
    assert len(survive(tmp_path / "uploads", kills=25, seed=9)) == 25


def test_sigterm_in_the_middle_keeps_every_byte(tmp_path: Path) -> None:
    data = random.Random(5).randbytes(5 * MIB)
    with tusserve(tmp_path / "uploads") as server:
        path = created(server, len(data))
        with Connection(server.address, patience=PATIENCE) as stuck, Connection(server.address) as idle:
            idle.inspect(path)
            stuck.begin_append(path, 0, len(data))
            stuck.send(data[: 3 * MIB + 17])
            received(server, path, 3 * MIB + 17)
            begin = time.monotonic()
            code = server.stop()
            assert code == 0
            assert time.monotonic() - begin < 50  # it promises 10
            answer = stuck.answer("PATCH")
            assert (answer.status, answer.offset) == (503, 3 * MIB + 17)
        server.start()
        assert offset_of(server, path) == 3 * MIB + 17
        with Connection(server.address) as connection:
            assert connection.append(path, 3 * MIB + 17, data[3 * MIB + 17 :]).status == 204
        assert digest_on_disk(tmp_path / "uploads") == hashlib.sha256(data).hexdigest()


def received(server: ServingProcess, path: str, size: int) -> None:
    """Wait until the server has these bytes: HEAD asks the writer for a checkpoint."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        with Connection(server.address) as connection:
            if connection.inspect(path).offset == size:
                return
        time.sleep(0.02)
    pytest.fail(f"{size} bytes did not arrive")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_first_head_after_a_restart_is_answered_at_once(how: signal.Signals, tmp_path: Path) -> None:
    """The dead holder's lease is proven dead, by a lock that the kernel took from it: nobody waits for it."""
    with tusserve(tmp_path / "uploads") as server:
        path = created(server, 10)
        stuck = Connection(server.address)
        with stuck:
            stuck.begin_append(path, 0, 10)
            stuck.send(b"01234")
            time.sleep(0.1)
            server.signal(how)
            server.wait()
            server.start()
            begin = time.monotonic()
            offset = offset_of(server, path)
            assert time.monotonic() - begin < 1.0  # promised: 0.2; with a lease to wait for it were 15
            assert offset == (0 if how is signal.SIGKILL else 5)
        with Connection(server.address) as connection:
            assert connection.append(path, offset, b"0123456789"[offset:]).status == 204


def test_a_hundred_slow_uploads_hold_little_memory(tmp_path: Path) -> None:
    with tusserve(tmp_path / "uploads", "--durability", "none") as server:
        paths = [created(server, MIB) for _ in range(100)]
        before = server.cost().memory
        writers = [Connection(server.address, patience=PATIENCE) for _ in paths]
        try:
            for writer, path in zip(writers, paths, strict=True):
                writer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                writer.begin_append(path, 0, MIB)
            for _ in range(16):
                for writer in writers:
                    writer.send(b"x" * (MIB // 16))
            assert [writer.answer("PATCH").status for writer in writers] == [204] * 100
        finally:
            for writer in writers:
                writer.__exit__(None, None, None)
        assert server.cost().peak - before < 96 * MIB  # the budget of 64 MiB, and what Python keeps
