"""`tusserve serve --workers N`: one process that holds the socket, and N that serve from it.

Owns the workers' beginning, their replacement and their end; serves nothing itself, and knows no upload.
`cli_serve` calls it; `cli_worker` is the other end of the line.

Not uvicorn's own supervisor: its workers outlive a parent that is killed, a signal waits until a rolling
restart is through, and one worker that stands still keeps all from ending.
"""

import asyncio
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Final

from tusserve.cli_options import CommandError
from tusserve.cli_worker import FAILED, HURRY, READY, STOP, appointment

logger = logging.getLogger("tusserve")

START_SECONDS: Final = 60.0
"""A worker that has said nothing for so long does not start any more."""
END_SECONDS: Final = 9.8
"""From the word to stop until a worker is killed: it ends itself a little earlier, unless it stands still."""
HURRY_SECONDS: Final = 2.3
"""The same from the word to hurry."""
STEADY_SECONDS: Final = 10.0
"""A worker that served for so long did not die of how it was started."""
LONGEST_PAUSE: Final = 30.0
"""Seconds between two tries to start one, at most."""
_TERMINAL: Final = frozenset({signal.SIGINT, signal.SIGHUP} if sys.platform != "win32" else ())
"""What a terminal sends to all its processes: it is for the parent, which tells its workers."""


class CannotStart(Exception):
    """A worker ended, or was silent, before it served; the message says what it said."""


def serve_by_workers(count: int, listener: socket.socket, on_start: Callable[[], None]) -> int:
    """Serve until a signal; the exit code. `CommandError` for whatever keeps workers from starting.

    Each worker is this very command, started anew, so that after an upgrade a rolling restart brings the new
    version.
    """
    if sys.platform == "win32":
        raise CommandError("several workers share one socket, which this system cannot: use --workers 1")
    command = [sys.executable, *sys.orig_argv[1:]]
    return asyncio.run(Workers(command, count, listener, on_start).run())


class Worker:
    """One process that serves, as its parent sees it."""

    def __init__(self, process: asyncio.subprocess.Process, line: socket.socket) -> None:
        self._process = process
        self._line = line
        self.began = time.monotonic()
        self.is_serving = False

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    async def started(self) -> None:
        """Wait until it serves. Raises `CannotStart`; then it is ending or has ended."""
        said = b""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(START_SECONDS):
                while not said.endswith(b"\n") and (more := await loop.sock_recv(self._line, 4096)):
                    said += more
        except TimeoutError:
            self.kill()
            raise CannotStart(f"a worker said nothing for {START_SECONDS:.0f} s") from None
        except ConnectionResetError:
            pass  # it died
        if said == READY:
            self.is_serving = True
        elif said.startswith(FAILED):
            raise CannotStart(said.removeprefix(FAILED).decode(errors="replace").strip())
        else:
            how = _ending(await self.ended())
            raise CannotStart(f"a worker {how} before it could serve; its own words are above")

    async def ended(self) -> int:
        """Wait for its end; its exit code, negative for the signal that killed it."""
        code = await self._process.wait()
        self.is_serving = False
        self._line.close()
        return code

    def tell(self, word: bytes) -> None:
        """Say a word, if it still hears."""
        with suppress(OSError):
            self._line.send(word)

    def kill(self) -> None:
        """SIGKILL."""
        with suppress(ProcessLookupError):
            self._process.kill()


class Workers:
    """All of them: started together, replaced when they die or are to be renewed, ended together."""

    def __init__(
        self, command: list[str], count: int, listener: socket.socket, on_start: Callable[[], None]
    ) -> None:
        self._command = command
        self._count = count
        self._listener = listener
        self._on_start = on_start
        self._has_started = False
        self._living: set[Worker] = set()
        self._places: list[Worker] = []
        self._changing = [asyncio.Lock() for _ in range(count)]
        """One a place: its worker is replaced by one cause at a time."""
        self._roll_wanted = asyncio.Event()
        self._stop_wanted = asyncio.Event()
        self._is_over = False

    async def run(self) -> int:
        """From the first start to the last end; the exit code. `CommandError` if they cannot start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, self._roll_wanted.set)
        work = asyncio.ensure_future(self._work())
        stop = asyncio.ensure_future(self._stop_wanted.wait())
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, stop):
                task.cancel()
            await asyncio.wait({work, stop})
            code = await self._end()
        if not work.cancelled():
            try:
                work.result()
            except CannotStart as error:
                raise CommandError(str(error)) from None
        return code if self._has_started else 130

    async def _work(self) -> None:
        try:
            async with asyncio.TaskGroup() as starting:
                first = [starting.create_task(self._start()) for _ in range(self._count)]
            self._places = [task.result() for task in first]
            self._has_started = True
            self._on_start()
            async with asyncio.TaskGroup() as tasks:
                for place in range(self._count):
                    tasks.create_task(self._keep(place))
                tasks.create_task(self._roll_when_wanted())
        except* CannotStart as errors:
            raise CannotStart(str(_first(errors))) from None

    async def _start(self) -> Worker:
        """A worker that serves. Raises `CannotStart`."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs, _deaf_to_the_terminal():
            # From here to the new process nothing is awaited but what runs at once: others are not deaf.
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(self._listener.fileno(), theirs.fileno()),
                env=appointment(self._listener, theirs),
            )
        worker = Worker(process, ours)
        self._living.add(worker)
        try:
            await worker.started()
        except CannotStart:
            await self._gone(worker, END_SECONDS)
            raise
        return worker

    # ---- replacement

    async def _keep(self, place: int) -> None:
        """A worker that dies is replaced, at once if it had served for a while. Raises `CannotStart` if there
        is nobody left who serves."""
        quick_deaths = 0
        while True:
            worker = self._places[place]
            code = await worker.ended()
            self._living.discard(worker)
            async with self._changing[place]:
                if self._places[place] is not worker:
                    continue  # it was to end
                logger.warning("worker %d %s, another takes its place", worker.pid, _ending(code))
                if code == 0 or time.monotonic() - worker.began >= STEADY_SECONDS:
                    quick_deaths = 0  # somebody told it to go, or it served for a while
                self._places[place] = await self._replacement(quick_deaths)
                quick_deaths += 1

    async def _replacement(self, failures: int) -> Worker:
        """At once if nothing failed before, else after pauses that grow."""
        while True:
            if failures:
                await asyncio.sleep(min(2.0 ** (failures - 1), LONGEST_PAUSE))
            try:
                worker = await self._start()
            except CannotStart as error:
                if not any(worker.is_serving for worker in self._living):
                    raise
                logger.error("a worker cannot start, and is tried again; the others go on: %s", error)
                failures += 1
            else:
                logger.info("worker %d serves", worker.pid)
                return worker

    async def _roll_when_wanted(self) -> None:
        while True:
            await self._roll_wanted.wait()
            self._roll_wanted.clear()
            logger.info("replacing the workers one after the other")
            try:
                for place in range(self._count):
                    await self._replace(place)
            except CannotStart as error:
                logger.error("the workers stay as they are: a new one cannot start: %s", error)
            else:
                logger.info("all workers are replaced")

    async def _replace(self, place: int) -> None:
        """The new one serves before the old one is told to stop. Raises `CannotStart`."""
        async with self._changing[place]:
            old = self._places[place]
            new = await self._start()
            self._places[place] = new
        old.tell(STOP)
        await self._gone(old, END_SECONDS)

    async def _gone(self, worker: Worker, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await worker.ended()
        except TimeoutError:
            logger.error("worker %d did not end in time and is killed", worker.pid)
            worker.kill()
            await worker.ended()
        self._living.discard(worker)

    # ---- end

    def _on_stop(self) -> None:
        if self._stop_wanted.is_set():
            self._hurry()
        self._stop_wanted.set()

    def _hurry(self) -> None:
        for worker in self._living:
            worker.tell(HURRY)
        asyncio.get_running_loop().call_later(HURRY_SECONDS, self._kill)

    def _kill(self) -> None:
        for worker in self._living:
            logger.error("worker %d did not end in time and is killed", worker.pid)
            worker.kill()

    async def _end(self) -> int:
        """Every worker, in order or by force; 0 if all of them ended in order."""
        self._listener.close()  # or clients would wait for somebody to accept them
        for worker in self._living:
            worker.tell(STOP)
        timer = asyncio.get_running_loop().call_later(END_SECONDS, self._kill)
        codes = [await worker.ended() for worker in tuple(self._living)]
        timer.cancel()
        return 1 if any(codes) else 0


@contextmanager
def _deaf_to_the_terminal() -> Generator[None]:
    """A process that is started meanwhile does not hear it; it keeps the mask for good."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _TERMINAL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _TERMINAL)


def _ending(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"


def _first(errors: BaseExceptionGroup[CannotStart]) -> BaseException:
    first: BaseException = errors
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
