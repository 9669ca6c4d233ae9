"""Real HTTP servers, started by the commands that their users type.

Owns the commands and their ports; knows nothing of uploads. What a server is given beyond its address is
here, so that the page about servers can be held against it.
"""

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Final

from tests.serving_process import START_SECONDS, NotStarted, ServingProcess

GRACE: Final = 2
"""Seconds that a server gives to running requests when it is stopped, where a test does not say more."""

COMMANDS: Final = {
    "uvicorn-httptools": ["uvicorn", "--http", "httptools", "--timeout-graceful-shutdown"],
    "uvicorn-h11": ["uvicorn", "--http", "h11", "--timeout-graceful-shutdown"],
    "granian": ["granian", "--interface", "asgi", "--workers-kill-timeout"],
    "hypercorn": ["hypercorn", "--graceful-timeout"],
}
"""The last option of each is how many seconds running requests have when it is stopped."""
SERVERS: Final = tuple(COMMANDS)

_THEN: Final = """
import os, sys
os.setsid()
print(sys.argv[1], flush=True)
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Says where the server will listen, and becomes it: as the first of a group of its own, workers included."""


def command(name: str, app: str, port: int, grace: int, more: Sequence[str]) -> list[str]:
    """What a user types to serve `app` by this server on the loopback."""
    first, *options = [*COMMANDS[name], str(grace)]
    where = ["--bind", f"127.0.0.1:{port}"] if first == "hypercorn" else ["--port", str(port)]
    return [first, *options, *where, *more, app]


def free_port() -> int:
    """A port of the loopback that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


@contextlib.contextmanager
def serving(
    name: str,
    folder: Path,
    app: str = "tests.servers.host:tus",
    more: Sequence[str] = (),
    *,
    grace: int = GRACE,
) -> Generator[ServingProcess]:
    """The server on `folder`; at the end it and its workers are killed, if they still run."""
    port = free_port()
    program, *rest = command(name, app, port, grace, more)
    executable = str(Path(sys.executable).parent / program)
    line = [sys.executable, "-c", _THEN, f"http://127.0.0.1:{port}/files", executable, *rest]
    root = str(Path(__file__).parent.parent.parent)
    with ServingProcess(
        line, env={"UPLOADS": str(folder), "PYTHONPATH": f"{folder}{os.pathsep}{root}"}
    ) as server:
        try:
            _await_listening(server)
            yield server
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.process.pid, signal.SIGKILL)


def _await_listening(server: ServingProcess) -> None:
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up:
        if server.process.poll() is not None:
            raise NotStarted(server.log + server.output)
        with contextlib.suppress(OSError), socket.create_connection(server.address, timeout=1):
            return
        time.sleep(0.02)
    raise NotStarted(server.log + server.output)
