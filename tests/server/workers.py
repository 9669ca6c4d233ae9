"""The workers of a server, seen from outside: which there are, and which has a connection.

Owns what /proc tells of them; knows no upload. Tests and a benchmark aim at one worker with it.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from tests.raw_http import Connection
from tests.serving_process import ServingProcess


def workers_of(server: ServingProcess) -> list[int]:
    """The process ids of the workers that live, the oldest first."""
    parent = server.process.pid
    try:
        children = [
            int(pid)
            for task in Path(f"/proc/{parent}/task").iterdir()
            for pid in (task / "children").read_text().split()
        ]
    except FileNotFoundError:
        return []  # it has ended
    return sorted(filter(is_there, children))


def is_there(pid: int) -> bool:
    """Whether a process lives; one that ended and was not yet asked for its code does not."""
    return _state(pid) not in ("", "Z", "X")


def freeze(pid: int) -> None:
    """SIGSTOP. Returns when it stands still, with all its threads."""
    os.kill(pid, signal.SIGSTOP)
    while _state(pid) not in ("T", "", "Z"):
        time.sleep(0.001)


def thaw(pid: int) -> None:
    """SIGCONT."""
    os.kill(pid, signal.SIGCONT)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def worker_with(server: ServingProcess, connection: Connection) -> int:
    """The worker that accepted a connection, which must have got an answer over it."""
    (worker,) = workers_with(server, connection)
    return worker


def workers_with(server: ServingProcess, connection: Connection) -> list[int]:
    """The same; none as long as no worker has accepted it."""
    mine = connection.socket.getsockname()[1]
    inodes = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if [int(field.split(":")[1], 16) for field in fields[1:3]] == [server.port, mine]:
            inodes.append(f"socket:[{fields[9]}]")
    return [pid for pid in workers_of(server) if not _open_files(pid).isdisjoint(inodes)]


def _open_files(pid: int) -> set[str]:
    found = set()
    with suppress(FileNotFoundError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found.add(str(descriptor.readlink()))
    return found
