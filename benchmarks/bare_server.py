"""The reference: a bare ASGI app that keeps no promise and writes what comes, inline, under the same uvicorn.

Owns the cheapest thing that answers POST, HEAD and PATCH like an upload server; `throughput.py` starts it.
Run: python benchmarks/bare_server.py FOLDER [--keep-freed-memory]
"""

import asyncio
import os
import secrets
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from tusserve.cli_serve import keep_freed_memory

Message = MutableMapping[str, Any]


class Bare:
    """Writes each body to a file of its own, on the event loop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        headers = []
        if scope["method"] == "POST":
            headers = [(b"location", f"/files/{secrets.token_hex(16)}".encode())]
        elif scope["method"] == "PATCH":
            await self._write(scope["path"].rpartition("/")[2], receive)
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body"})

    async def _write(self, name: str, receive: Callable[[], Awaitable[Message]]) -> None:
        fd = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            more = True
            while more:
                message = await receive()
                os.write(fd, message.get("body", b""))
                more = message.get("more_body", False)
        finally:
            os.close(fd)


async def main(folder: Path) -> None:
    """Serve until a signal."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        Bare(folder), lifespan="off", ws="none", http="httptools", access_log=False, log_config=None
    )
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/files/", flush=True)
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    if "--keep-freed-memory" in sys.argv:
        keep_freed_memory()
    place = Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(place))
