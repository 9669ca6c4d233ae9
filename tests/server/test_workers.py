"""Several workers on one socket, one folder and one file of records: one takes over what another had.

One is told to go, one is killed, one stands still and wakes up too late. What was acknowledged is there, what
a late one still writes lands nowhere, and no client has to begin anew.
"""

import hashlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.blackbox.target import Target
from tests.raw_http import Connection, ConnectionEnded
from tests.server.rolling import digest_of, load
from tests.server.workers import freeze, is_there, thaw, worker_with, workers_of, workers_with
from tests.serving_process import ServingProcess, tusserve

MIB = 1024 * 1024
PATIENCE = 60.0


def until(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < give_up, "that never comes"
        time.sleep(0.02)


@contextmanager
def connected_to(server: ServingProcess, worker: int | None = None) -> Generator[Connection]:
    """A connection that one worker has: this one, or whichever takes it."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        with Connection(server.address, patience=PATIENCE) as connection:
            connection.ask("OPTIONS", server.path)
            if worker is None or worker_with(server, connection) == worker:
                yield connection
                return
    raise AssertionError(f"worker {worker} takes no connection")


def begun(server: ServingProcess, path: str, stuck: Connection, data: bytes, length: int) -> None:
    """A PATCH over `stuck`, of which the server has `data`."""
    stuck.begin_append(path, 0, length)
    stuck.send(data)
    until(lambda: Target(server.url).inspect(path).offset == len(data))


def test_a_worker_that_goes_hands_over_what_it_has(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(4 * MIB)
    with tusserve(tmp_path, "--workers", "2") as server:
        target = Target(server.url, tmp_path)
        path = target.create(len(data))
        with connected_to(server) as running, connected_to(server) as resting:
            leaving = worker_with(server, running)
            rests_there = worker_with(server, resting) == leaving
            running.begin_append(path, 0, len(data))
            running.send(data[: MIB + 17])
            time.sleep(0.1)
            os.kill(leaving, signal.SIGTERM)
            answer = running.answer("PATCH")
            assert (answer.status, answer.offset, answer.closes) == (503, MIB + 17, True)
            assert target.inspect(path).offset == MIB + 17
            target.append(path, MIB + 17, data[MIB + 17 :])
            if rests_there:
                assert resting.is_closed()
        target.check_bytes(path, data)
        until(lambda: not is_there(leaving) and len(workers_of(server)) == 2)


def test_a_worker_that_goes_answers_whom_it_has_let_in(tmp_path: Path) -> None:
    """A POST that is refused, or cut off, is one that clients send again: a second upload."""
    with tusserve(tmp_path, "--workers", "2") as server, Connection(server.address) as new:
        until(lambda: len(workers_with(server, new)) == 1)
        leaving = worker_with(server, new)
        os.kill(leaving, signal.SIGTERM)
        time.sleep(0.15)
        assert new.ask("POST", server.path, [("Upload-Length", "5")]).status == 201
        until(lambda: not is_there(leaving))


def test_a_silent_client_of_one_worker_makes_way_for_one_of_another(tmp_path: Path) -> None:
    data = random.Random(2).randbytes(3 * MIB)
    with tusserve(tmp_path, "--workers", "2") as server:
        target = Target(server.url, tmp_path)
        path = target.create(len(data))
        first, second = workers_of(server)
        with connected_to(server, first) as stuck, connected_to(server, second) as other:
            begun(server, path, stuck, data[:MIB], len(data))
            assert other.inspect(path).offset == MIB
            assert other.append(path, MIB, data[MIB:]).status == 204
            assert stuck.answer("PATCH").status == 423
        target.check_bytes(path, data)


STUCK = 8
KNOWN = 300_000
"""Bytes that were acknowledged before the worker stood still: not at the edge of anything."""


def flood(stuck: Connection, over: threading.Event) -> None:
    """Bytes that are not the upload's, until the worker takes no more: some are on their way into its file at
    whatever moment it stops, more wait in its socket."""
    stuck.socket.settimeout(0.2)
    sent = 0
    while not over.is_set() and sent < 12 * MIB:  # below the next checkpoint
        try:
            sent += stuck.socket.send(b"\xff" * 65536)
        except TimeoutError:
            continue
        except OSError:
            return


def test_what_a_worker_that_stood_still_had_under_way_lands_nowhere(tmp_path: Path) -> None:
    """It stops inside its batches; of its uploads some go on elsewhere, some are completed, some deleted."""
    dice = random.Random(3)
    files = [dice.randbytes(16 * MIB) for _ in range(STUCK)]
    over = threading.Event()
    with tusserve(tmp_path, "--workers", "2", "--durability", "none") as server, ExitStack() as open_ones:
        target = Target(server.url, tmp_path)
        paths = [target.create(len(data)) for data in files]
        victim = workers_of(server)[0]
        stuck = [open_ones.enter_context(connected_to(server, victim)) for _ in files]
        for connection, path, data in zip(stuck, paths, files, strict=True):
            begun(server, path, connection, data[:KNOWN], len(data))
        floods = [threading.Thread(target=flood, args=(each, over)) for each in stuck]
        for thread in floods:
            thread.start()
        time.sleep(0.05)
        freeze(victim)
        try:
            takeovers = [
                threading.Thread(target=take_over, args=(target, number, path, data))
                for number, (path, data) in enumerate(zip(paths, files, strict=True))
            ]
            begin = time.monotonic()
            for thread in takeovers:
                thread.start()
            for thread in takeovers:
                thread.join()
            assert time.monotonic() - begin < 20  # promised: 3
        finally:
            thaw(victim)
        told = [woken(connection) for connection in stuck]
        over.set()
        for thread in floods:
            thread.join()
        assert set(told) <= {410, 423, 503, None}, told
        for number, (path, data) in enumerate(zip(paths, files, strict=True)):
            check_taken_over(target, number, path, data)
        assert workers_of(server)[0] == victim, "it goes on"


def take_over(target: Target, number: int, path: str, data: bytes) -> None:
    seen = target.inspect(path)
    assert (seen.status, seen.offset) == (200, KNOWN)
    match number % 4:
        case 0:
            target.append(path, KNOWN, data[KNOWN : 2 * KNOWN])
        case 1 | 2:
            target.append(path, KNOWN, data[KNOWN:])
        case _:
            with target.connected() as connection:
                assert connection.ask("DELETE", path).status == 204


def woken(connection: Connection) -> int | None:
    """What the late worker tells the client that was stuck with it; None: it closed."""
    connection.socket.settimeout(PATIENCE)
    try:
        return connection.answer("PATCH").status
    except (ConnectionEnded, OSError):
        return None


def check_taken_over(target: Target, number: int, path: str, data: bytes) -> None:
    seen = target.inspect(path)
    match number % 4:
        case 0:
            assert seen.offset == 2 * KNOWN
            target.append(path, 2 * KNOWN, data[2 * KNOWN :])
            target.check_bytes(path, data)
        case 1 | 2:
            target.check_bytes(path, data)
        case _:
            assert seen.status == 410
            assert target.folder is not None
            assert not list((target.folder / "data").glob(f"*/*/{path.rsplit('/', 1)[-1]}*"))


def test_rolling_restarts_under_load(tmp_path: Path) -> None:
    with tusserve(tmp_path, "--workers", "3", "--durability", "checkpoint") as server:
        before = workers_of(server)
        with load(server, clients=12, uploads=60, pace=0.08, seed=4) as tally:
            for _ in range(2):
                done = server.log.count("all workers are replaced")
                server.signal(signal.SIGHUP)
                while server.log.count("all workers are replaced") == done:
                    time.sleep(0.02)
        assert tally.interrupted, "nobody noticed: that proves nothing"
        tally.check(tmp_path)
        assert not any(map(is_there, before))
        assert len(workers_of(server)) == 3
        assert "Traceback" not in server.log
        assert server.stop() == 0


def test_one_of_three_workers_is_killed_under_load(tmp_path: Path) -> None:
    dice = random.Random(5)
    files = [dice.randbytes(900_000) for _ in range(12)]
    with tusserve(tmp_path, "--workers", "3") as server:
        target = Target(server.url, tmp_path)
        paths = [target.create(len(data)) for data in files]
        tally: list[BaseException] = []

        def upload(path: str, data: bytes) -> None:
            try:
                patiently(target, path, data)
            except BaseException as error:  # noqa: BLE001 - told by the test's own thread
                tally.append(error)

        threads = [threading.Thread(target=upload, args=each) for each in zip(paths, files, strict=True)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            time.sleep(0.3)
            os.kill(dice.choice(workers_of(server)), signal.SIGKILL)
        for thread in threads:
            thread.join()
        assert not tally, tally
        for path, data in zip(paths, files, strict=True):
            assert digest_of(tmp_path, path) == hashlib.sha256(data).hexdigest()
        assert server.log.count("SIGKILL") == 3


def patiently(target: Target, path: str, data: bytes) -> None:
    """Upload slowly, and go on after whatever happens."""
    told = 0
    give_up = time.monotonic() + PATIENCE
    while told < len(data):
        assert time.monotonic() < give_up, f"{path} cannot be finished"
        try:
            with target.connected() as connection:
                seen = connection.inspect(path)
                if seen.status == 423:
                    continue
                assert seen.status == 200 and seen.offset >= told, seen
                told = seen.offset
                if told == len(data):
                    break
                connection.begin_append(path, told, len(data) - told)
                for begin in range(told, len(data), 60_000):
                    connection.send(data[begin : begin + 60_000])
                    time.sleep(0.05)
                answer = connection.answer("PATCH")
                assert answer.status == 204 and answer.offset == len(data), answer
                told = answer.offset
        except (ConnectionEnded, OSError):
            continue
