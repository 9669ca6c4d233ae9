"""`tusserve serve --workers N` as processes: started and ended together, replaced, never left behind."""

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.raw_http import Connection, ConnectionEnded
from tests.server.workers import is_there, workers_of
from tests.serving_process import NotStarted, ServingProcess, tusserve

PATIENCE = 30.0


def until(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < give_up, "that never comes"
        time.sleep(0.02)


def answers(server: ServingProcess) -> bool:
    with contextlib.suppress(OSError, ConnectionEnded), Connection(server.address) as connection:
        return connection.ask("OPTIONS", server.path).status == 204
    return False


def send(pid: int, number: signal.Signals) -> None:
    os.kill(pid, number)


def patched(folder: Path, program: str, *options: str) -> ServingProcess:
    """`tusserve`, in whose processes a program runs first."""
    server = tusserve(folder, *options)
    server.command[1:3] = [
        "-c",
        f"{program}\nimport sys\nfrom tusserve.cli import run\nsys.exit(run(sys.argv[1:]))",
    ]
    return server


def test_they_start_once_and_end_together(tmp_path: Path) -> None:
    with tusserve(tmp_path, "--workers", "3", "--log-format", "json") as server:
        workers = workers_of(server)
        assert len(workers) == 3
        with Connection(server.address) as connection:
            upload = connection.create(server.path, 5)
            assert connection.append(upload, 0, b"12345").status == 204
        assert server.stop() == 0
        assert not any(map(is_there, workers))
        assert server.output.count("\n") == 2, "the lines come once"
        lines = [json.loads(line) for line in server.log.splitlines()]
        assert {line["level"] for line in lines} == {"info"}, server.log
        assert sum(line["message"].startswith("stopping") for line in lines) == 3


def test_what_a_terminal_sends_to_all_is_for_the_parent(tmp_path: Path) -> None:
    with tusserve(tmp_path, "--workers", "2") as server:
        workers = workers_of(server)
        for worker in workers:
            send(worker, signal.SIGINT)
            send(worker, signal.SIGHUP)
        time.sleep(0.3)
        assert workers_of(server) == workers
        assert "stopping" not in server.log
        server.signal(signal.SIGINT)
        assert server.wait() == 0
        assert not any(map(is_there, workers))


def test_a_system_that_tells_everybody_to_end_hurries_nobody(tmp_path: Path) -> None:
    """As systemd does: the parent's word comes on top, and is no second signal."""
    with tusserve(tmp_path, "--workers", "2") as server, Connection(server.address) as connection:
        upload = connection.create(server.path, 100)
        connection.begin_append(upload, 0, 100)
        connection.send(b"0123456789")
        time.sleep(0.2)
        for process in (*workers_of(server), server.process.pid):
            send(process, signal.SIGTERM)
        answer = connection.answer("PATCH")
        assert (answer.status, answer.offset) == (503, 10)
        assert server.wait() == 0


def test_nobody_outlives_a_killed_parent(tmp_path: Path) -> None:
    with tusserve(tmp_path, "--workers", "2") as server:
        workers = workers_of(server)
        with Connection(server.address) as connection:
            upload = connection.create(server.path, 100)
            connection.begin_append(upload, 0, 100)
            connection.send(b"0123456789")
            time.sleep(0.2)
            server.kill()
            answer = connection.answer("PATCH")
            assert (answer.status, answer.offset) == (503, 10), "they end in order all the same"
        until(lambda: not any(map(is_there, workers)))
        server.command[server.command.index("--port") + 1] = str(server.port)
        server.start()
        assert answers(server)


NO_DATABASE = b"this is no database, whatever its name says" * 100


def test_a_worker_that_cannot_start_ends_the_whole_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "tusserve.db").write_bytes(NO_DATABASE)
    with pytest.raises(NotStarted, match=r"\Aended with 2\ntusserve: [^\n]*tusserve.db[^\n]*\n\Z"):
        tusserve(tmp_path, "--workers", "3").__enter__()
    with pytest.raises(NotStarted, match=r"\Aended with 2\ntusserve: [^\n]*\n\Z"):
        tusserve(tmp_path / "tusserve.db", "--workers", "3").__enter__()


FAILS = """
import os, sys
from pathlib import Path
if "_TUSSERVE_WORKER" in os.environ and Path({flag!r}).exists():
    print("a bug", file=sys.stderr)
    os._exit(7)
"""


def test_a_worker_that_dies_before_it_serves_ends_the_whole(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    told = r"\Aended with 2\n(a bug\n)+tusserve: a worker ended with 7 [^\n]*\n\Z"
    with pytest.raises(NotStarted, match=told):
        patched(tmp_path / "up", FAILS.format(flag=str(flag)), "--workers", "2").__enter__()


def test_dead_workers_are_replaced_and_the_others_go_on_meanwhile(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    with patched(tmp_path / "up", FAILS.format(flag=str(flag)), "--workers", "2") as server:
        workers = workers_of(server)
        send(workers[0], signal.SIGKILL)
        until(lambda: " serves" in server.log)
        assert "was ended by SIGKILL" in server.log
        assert workers[1] in workers_of(server)
        flag.touch()
        workers = workers_of(server)
        assert len(workers) == 2
        server.signal(signal.SIGHUP)
        until(lambda: "the workers stay as they are" in server.log)
        assert workers_of(server) == workers
        send(workers[1], signal.SIGTERM)
        until(lambda: "tried again; the others go on" in server.log)
        assert answers(server)
        flag.unlink()
        until(lambda: server.log.count(" serves") == 2)
        flag.touch()
        for worker in workers_of(server):
            send(worker, signal.SIGKILL)
        assert server.wait() == 2, "nobody is left who serves, and nobody can"
        assert server.log.splitlines()[-1].startswith("tusserve: a worker ended with 7")


STANDS_STILL = """
import tusserve.cli_workers as workers
workers.END_SECONDS = 1.0
"""


def test_a_worker_that_stands_still_holds_nobody_up(tmp_path: Path) -> None:
    with patched(tmp_path, STANDS_STILL, "--workers", "2") as server:
        stopped = workers_of(server)[0]
        send(stopped, signal.SIGSTOP)
        server.signal(signal.SIGHUP)
        until(lambda: "all workers are replaced" in server.log)
        assert not is_there(stopped)
        stopped = workers_of(server)[0]
        send(stopped, signal.SIGSTOP)
        server.signal(signal.SIGTERM)
        assert server.wait() == 1
        assert not is_there(stopped)


def test_a_signal_to_end_does_not_wait_for_a_rolling_restart(tmp_path: Path) -> None:
    with tusserve(tmp_path, "--workers", "3") as server:
        server.signal(signal.SIGHUP)
        until(lambda: "replacing" in server.log)
        server.signal(signal.SIGTERM)
        assert server.wait() in (0, 1)
        assert "all workers are replaced" not in server.log
        assert workers_of(server) == []


TELLS = """
import os, sys
from datetime import timedelta
from tusserve.reaper import Reaper
its_run, its_sweep = Reaper.run, Reaper.sweep
def often(self, every):
    return its_run(self, timedelta(seconds=0.05))
async def told(self, *, dry_run=False, strays=True):
    print(f"sweep by {os.getpid()}, strays {strays}", file=sys.stderr, flush=True)
    return await its_sweep(self, dry_run=dry_run, strays=strays)
Reaper.run, Reaper.sweep = often, told
"""


def test_one_of_them_sweeps(tmp_path: Path) -> None:
    def sweepers() -> list[str]:
        return re.findall(r"^sweep by ([0-9]+), strays True$", server.log, re.MULTILINE)

    def count() -> int:
        return len(re.findall("^sweep by", server.log, re.MULTILINE))

    with patched(tmp_path, TELLS, "--workers", "3") as server:
        until(lambda: count() > 5)
        (first,) = sweepers()
        send(int(first), signal.SIGKILL)
        until(lambda: len(sweepers()) == 2)
        assert sweepers()[1] != first
        before = count()
        until(lambda: count() > before + 5)
        assert len(sweepers()) == 2
        by = re.findall(r"^sweep by ([0-9]+)", server.log, re.MULTILINE)
        assert by == sorted(by, key=sweepers().index), "one after the other, never two by turns"


OTHER_PROMISES = {
    "--extensions": ["--extensions", "creation,expiration"],
    "--durability": ["--durability", "none"],
    "--expire-idle": ["--expire-initial", "off", "--expire-idle", "off"],
}


def test_others_on_the_folder_keep_the_same_promises(tmp_path: Path) -> None:
    with tusserve(tmp_path, "--workers", "2") as server:
        for option, others in OTHER_PROMISES.items():
            told = rf"\Aended with 2\ntusserve: another server [^\n]*{option}[^\n]*\n\Z"
            with pytest.raises(NotStarted, match=told):
                tusserve(tmp_path, *others).__enter__()
        with tusserve(tmp_path, "--max-size", "1GiB", "--path", "/other/", "--expire-idle", "1h") as second:
            assert answers(second)
        server.stop()
    with tusserve(tmp_path, *OTHER_PROMISES["--durability"]) as server:
        assert answers(server)


def test_one_worker_has_no_parent(tmp_path: Path) -> None:
    with tusserve(tmp_path) as server:
        assert workers_of(server) == []
