"""A server in a process of its own, to be stopped, killed and looked at from outside.

Owns the child process: its port, its log, its signals and what the kernel says it cost; knows nothing of
uploads. Tests and benchmarks start servers only through it, and it ends them by their pid.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

START_SECONDS: Final = 30.0
"""A server that has said nothing for so long does not start any more."""
END_SECONDS: Final = 30.0
"""The same for one that was told to stop; it promises 10."""

_LISTENING: Final = re.compile(rb"http://([0-9.]+):([0-9]+)(/[^\s,]*)")
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class NotStarted(Exception):
    """The process ended, or said nothing; the message has its exit code and its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a process has cost so far. Seconds of CPU, page faults without I/O, bytes of memory."""

    user: float
    system: float
    faults: int
    memory: int
    """Resident now."""
    peak: int
    """The most that ever was resident."""

    @property
    def cpu(self) -> float:
        """In user and kernel mode together."""
        return self.user + self.system


class ServingProcess:
    """One server, which may be started again and again on the same folder; every log is kept.

    The command must print the address where it listens as the first URL on standard output. As a context
    manager it starts, and at the end kills what still runs.
    """

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str] | None = None) -> None:
        self.command = list(command)
        self._env = {**os.environ, **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._out: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.host = ""
        self.port = 0
        self.path = ""

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return self.host, self.port

    @property
    def url(self) -> str:
        """Where uploads are created."""
        return f"http://{self.host}:{self.port}{self.path}"

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The child."""
        assert self._process is not None, "not started"
        return self._process

    @property
    def log(self) -> str:
        """Everything it and its predecessors said on standard error."""
        return _text(self._log)

    @property
    def output(self) -> str:
        """Everything it and its predecessors said on standard output."""
        return _text(self._out)

    # ---- from start to end

    def __enter__(self) -> Self:
        try:
            self.start()
        except NotStarted:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._close()

    def _close(self) -> None:
        self._out.close()
        self._log.close()

    def start(self) -> None:
        """Start it and wait until it listens. Raises `NotStarted`."""
        begin = self._out.seek(0, os.SEEK_END)
        self._process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=self._out, stderr=self._log, env=self._env
        )
        give_up = time.monotonic() + START_SECONDS
        while time.monotonic() < give_up:
            code = self._process.poll()
            # Not by seeking: the child writes at the position that both share.
            said = os.pread(self._out.fileno(), 65536, begin)
            if b"\n" in said and (found := _LISTENING.search(said)) is not None:
                self.host, self.port, self.path = found[1].decode(), int(found[2]), found[3].decode()
                return
            if code is not None:
                raise NotStarted(f"ended with {code}\n{self.log}")
            time.sleep(0.005)
        self.kill()
        raise NotStarted(f"said nothing for {START_SECONDS:.0f} s\n{self.log}")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def wait(self, seconds: float = END_SECONDS) -> int:
        """Wait for its end; the exit code. Raises `subprocess.TimeoutExpired`."""
        return self.process.wait(seconds)

    def stop(self) -> int:
        """SIGTERM, and wait; the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """SIGKILL, and wait. Also where it has ended, or never started."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        """SIGSTOP: it stands still, and its sockets stay open. Returns when it does."""
        self.signal(signal.SIGSTOP)
        while _fields(self.process.pid)[0] not in ("T", "Z"):
            time.sleep(0.001)

    def thaw(self) -> None:
        """SIGCONT: it goes on."""
        self.signal(signal.SIGCONT)

    # ---- what it costs

    def cost(self) -> Cost:
        """What it has cost since its start, all its threads together."""
        pid = self.process.pid
        fields = _fields(pid)
        status = Path(f"/proc/{pid}/status").read_text()
        return Cost(
            user=int(fields[11]) / _TICKS,
            system=int(fields[12]) / _TICKS,
            faults=int(fields[7]),
            memory=_kilobytes(status, "VmRSS"),
            peak=_kilobytes(status, "VmHWM"),
        )


def _fields(pid: int) -> list[str]:
    """/proc/PID/stat from its third field on: the second, a name in brackets, may have spaces."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()


def _kilobytes(status: str, name: str) -> int:
    return 1024 * int(status.split(f"{name}:")[1].split()[0])


def _text(file: IO[bytes]) -> str:
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), size, 0).decode("utf-8", "replace")


def tusserve(folder: Path, *options: str, port: int = 0) -> ServingProcess:
    """`tusserve serve FOLDER` on the loopback, not yet started. Reads no settings of this machine's own."""
    command = [sys.executable, "-m", "tusserve", "serve", str(folder), "--port", str(port), *options]
    env = {name: "" for name in os.environ if name.startswith("TUSSERVE_")}
    return ServingProcess(command, env=env)
