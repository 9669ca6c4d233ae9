"""`tusserve serve`: one app on a socket of its own, until it is told to stop.

Owns the socket, the two lines at the start, and the order in which everything ends. Knows nothing of uploads.
`cli` calls it; it is the only module that knows the HTTP server.
"""

import asyncio
import contextlib
import ctypes
import errno
import logging
import os
import platform
import shlex
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from tusserve import TusApp
from tusserve.cli_agreement import agreed, terms_of
from tusserve.cli_app import check_folder, make_app, started
from tusserve.cli_logging import set_up_logging
from tusserve.cli_options import AppOptions, CommandError, ServeOptions
from tusserve.cli_output import give_up_output
from tusserve.cli_proxy import ForwardedHeaders
from tusserve.cli_worker import Line, appointed
from tusserve.cli_workers import serve_by_workers

logger = logging.getLogger("tusserve")

DRAIN: Final = timedelta(seconds=5)
"""How long running uploads have to make their bytes durable and to answer."""
ANSWERS: Final = 2
"""Seconds after that for answers to reach their clients, before requests are cancelled."""
GONE_AFTER: Final = 9.5
"""Seconds from the first signal until the process ends whatever happens: everything up to the last commit is
safe by then or can be had again, so nothing is worth more waiting."""
GONE_SOON_AFTER: Final = 2.0
"""The same from the second signal."""
LAST_REQUESTS: Final = 0.05
"""Seconds in which a worker that is to go still answers as ever what comes over connections that it has: a
request may be on its way. New connections are the others' by then."""
FIRST_REQUESTS: Final = 0.5
"""The same, at most, where a connection has had no request at all: who connects is about to ask."""
KEEP_ALIVE: Final = 75
"""Seconds that a connection may rest between two requests: clients pause between the pieces of a file."""
PAD: Final = 32 * 1024 * 1024
_M_TOP_PAD: Final = -2


def _is_news(record: logging.LogRecord) -> bool:
    """Not the traceback of a request that was cancelled at the end: it was we who did it."""
    return record.exc_info is None or record.exc_info[0] is not asyncio.CancelledError


def serve_folder(app_options: AppOptions, options: ServeOptions) -> None:
    """Serve until a signal. `CommandError` for whatever keeps it from starting."""
    set_up_logging(options.log_format)
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    if (appointment := appointed()) is not None:
        _serve_as_worker(app_options, options, *appointment)
        return
    make_app(app_options, options)  # for settings that contradict each other: before anything is made
    check_folder(app_options.folder, app_options.state)
    with closing(bind(options.host, options.port)) as listener:
        lines = opening_lines(listener, app_options.folder, options)
        if options.workers > 1:
            sys.exit(serve_by_workers(options.workers, listener, lambda: _say(lines)))
        _serve_here(app_options, options, listener, lambda: _say(lines))


def _say(lines: str) -> None:
    """On standard output; where that cannot be written to, in the log: it serves all the same."""
    try:
        print(lines, flush=True)
    except OSError:
        give_up_output()
        logger.warning(lines.splitlines()[0])


def _serve_as_worker(
    app_options: AppOptions, options: ServeOptions, listener: socket.socket, line: Line
) -> None:
    """A failure is told to the parent, for whom it is one sentence, however many workers have it."""
    try:
        check_folder(app_options.folder, app_options.state)
        _serve_here(app_options, options, listener, line.ready, line)
    except CommandError as error:
        line.failed(str(error))
        sys.exit(2)


def _serve_here(
    app_options: AppOptions,
    options: ServeOptions,
    listener: socket.socket,
    on_start: Callable[[], None],
    line: Line | None = None,
) -> None:
    app = make_app(app_options, options)
    keep_freed_memory()
    with (
        agreed(app_options.state, terms_of(app_options, options)),
        asyncio.Runner(loop_factory=_fastest_loop()) as runner,
    ):
        runner.run(_serve(app, listener, app_options, options, on_start, line))


async def _serve(
    app: TusApp,
    listener: socket.socket,
    app_options: AppOptions,
    options: ServeOptions,
    on_start: Callable[[], None],
    line: Line | None,
) -> None:
    outside: ASGIApp = app if options.proxies is None else ForwardedHeaders(app, options.proxies)
    config = uvicorn.Config(
        outside,
        lifespan="off",  # entered here, so that a failure is a sentence and not a log
        ws="none",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=ANSWERS,
    )
    async with started(app, app_options):
        server = DrainingServer(config, app, on_start, shares_socket=line is not None)
        if line is not None:
            line.listen(server.stop, server.hurry)
        await server.serve(sockets=[listener])


class DrainingServer(uvicorn.Server):
    """uvicorn, but the app is drained before connections are closed, and then the process ends in time.

    `shares_socket`: others listen on it, too, and go on. Then new connections are left to them at once.
    """

    def __init__(
        self, config: uvicorn.Config, app: TusApp, on_start: Callable[[], None], *, shares_socket: bool
    ) -> None:
        super().__init__(config)
        self._app = app
        self._on_start = on_start
        self._shares_socket = shares_socket
        self._loop = asyncio.get_running_loop()
        self._signals = 0
        self._stopping = False
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, then say so."""
        await super().startup(sockets)
        self._on_start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """The first signal drains, the second one hurries. Not passed on: an orderly end exits with 0."""
        self._signals += 1
        if self._signals == 1:
            self.stop()
        else:
            self.hurry()

    def stop(self) -> None:
        """Drain, then end; from any thread, and once however often it is said: the parent and the system may
        both say it."""
        if not self._stopping:
            self._stopping = True
            self._end_within(GONE_AFTER, self._drain)

    def hurry(self) -> None:
        """End now; from any thread."""
        self._end_within(GONE_SOON_AFTER, self._exit_now)

    def _end_within(self, seconds: float, how: Callable[[], None]) -> None:
        # In a thread: it has to work also when the event loop does not.
        last = threading.Timer(seconds, _leave)
        last.daemon = True
        last.start()
        with contextlib.suppress(RuntimeError):  # the loop has ended, and the process does
            self._loop.call_soon_threadsafe(how)

    def _drain(self) -> None:
        logger.info("stopping: running uploads are made durable and answered")
        self._draining = self._loop.create_task(self._drain_then_exit())

    async def _drain_then_exit(self) -> None:
        try:
            if self._shares_socket:
                await self._leave_connections()
            await self._app.drain(DRAIN)
        finally:
            self.should_exit = True

    async def _leave_connections(self) -> None:
        """To the others: new ones at once, those that rest soon, busy ones after their answer."""
        for server in getattr(self, "servers", ()):  # none if it is to stop before it started
            server.close()
        give_up = self._loop.time() + FIRST_REQUESTS
        await asyncio.sleep(LAST_REQUESTS)
        while self._has_new_connections() and self._loop.time() < give_up:  # noqa: ASYNC110 - it sets no event
            await asyncio.sleep(0.01)
        for connection in list(self.server_state.connections):
            connection.shutdown()

    def _has_new_connections(self) -> bool:
        # A cycle is uvicorn's word for a request and its answer; None before the first.
        return any(getattr(each, "cycle", each) is None for each in self.server_state.connections)

    def _exit_now(self) -> None:
        self.should_exit = self.force_exit = True


def _leave() -> None:
    logger.error("stopped without waiting any longer; clients go on from the last committed offset")
    logging.shutdown()
    os._exit(1)


def bind(host: str, port: int) -> socket.socket:
    """A socket that is bound, so that a busy port is known before anything else is touched."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        raise CommandError(f"the host {host!r} has no address") from None
    family, kind, protocol, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()  # here, because two may bind a port but only one may listen on it
    except OSError as error:
        listener.close()
        busy = "; choose another with --port, or 0 for any" if error.errno == errno.EADDRINUSE else ""
        raise CommandError(f"cannot listen on {_authority(host, port)}: {error.strerror}{busy}") from None
    listener.setblocking(False)
    return listener


def opening_lines(listener: socket.socket, folder: Path, options: ServeOptions) -> str:
    """Where it listens, where files land, and a command to try it that works as it stands."""
    port = listener.getsockname()[1]
    url = f"http://{_authority(options.host, port)}{options.path}/"
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(options.host, options.host)
    here = f"http://{_authority(local, port)}{options.path}/"
    command = ["curl", "-si"]
    if options.extensions is None or "creation-with-upload" in options.extensions:
        command += ["-H", "Tus-Resumable: 1.0.0", "-H", "Upload-Length: 5"]
        command += ["-H", "Content-Type: application/offset+octet-stream", "-d", "hello"]
    else:
        command += ["-X", "OPTIONS"]
    return (
        f"Listening on {url}, files land in {folder.resolve()}\n"
        f"Try it: {' '.join(map(shlex.quote, [*command, here]))}"
    )


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _fastest_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # not on every platform
        return None
    return uvloop.new_event_loop


def keep_freed_memory() -> None:
    """Let glibc keep up to 32 MiB of freed memory at the top of each heap instead of giving it back.

    Every piece of a body is allocated and freed at once. As glibc comes, freed memory goes back to the kernel
    and is mapped anew for the next piece: tens of thousands of page faults for each GiB. This is a setting of
    the whole process, so only the process that is ours makes it, never the library. What is kept is bounded:
    32 MiB a heap, and glibc has at most eight heaps a core.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_M_TOP_PAD, PAD)
