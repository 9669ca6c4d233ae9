"""1000 clients that send slowly, all at once: what they cost the server, and what others notice of them.

Prints CPU, memory and threads of the server while they send, and how long a HEAD and a small upload take
meanwhile. Run: uv run python -m benchmarks.slow_uploads
"""

import argparse
import asyncio
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tests.raw_http import OCTETS, head_of
from tests.serving_process import ServingProcess, tusserve

PAUSE: Final = 0.5
"""Seconds between two pieces of one client."""
PIECE: Final = b"s" * 4096
SMALL: Final = b"x" * 1024
MIB: Final = 1024 * 1024
COMMON: Final = (("Host", "test"), ("Tus-Resumable", "1.0.0"))


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connected(cls, server: ServingProcess) -> "Client":
        return cls(*await asyncio.open_connection(*server.address))

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self) -> tuple[int, dict[str, str]]:
        """Status and headers of an answer without a body."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in head[1:] if line)
        return int(head[0].split()[1]), {name.lower(): value.strip() for name, _, value in pairs}

    async def create(self, target: str, length: int) -> str:
        headers = [*COMMON, ("Upload-Length", str(length)), ("Content-Length", "0")]
        await self.send(head_of("POST", target, headers))
        status, told = await self.answer()
        assert status == 201, status
        return urlsplit(told["location"]).path

    async def begin_append(self, path: str, length: int) -> None:
        headers = [*COMMON, *OCTETS, ("Upload-Offset", "0"), ("Content-Length", str(length))]
        await self.send(head_of("PATCH", path, headers))

    async def inspect(self, path: str) -> None:
        await self.send(head_of("HEAD", path, COMMON))
        assert (await self.answer())[0] == 200

    def close(self) -> None:
        self._writer.close()


async def slow_upload(client: Client, path: str, pieces: int, delay: float) -> None:
    """One of the many."""
    await client.begin_append(path, pieces * len(PIECE))
    await asyncio.sleep(delay)
    for _ in range(pieces):
        await client.send(PIECE)
        await asyncio.sleep(PAUSE)
    status, _ = await client.answer()
    assert status == 204, status


async def probe(server: ServingProcess, until: "asyncio.Future[None]") -> tuple[list[float], list[float]]:
    """HEADs and small uploads, one after the other: how long each took."""
    client = await Client.connected(server)
    looked: list[float] = []
    uploaded: list[float] = []
    while not until.done():
        begin = time.monotonic()
        path = await client.create(server.path, len(SMALL))
        await client.begin_append(path, len(SMALL))
        await client.send(SMALL)
        assert (await client.answer())[0] == 204
        uploaded.append(time.monotonic() - begin)
        begin = time.monotonic()
        await client.inspect(path)
        looked.append(time.monotonic() - begin)
        await asyncio.sleep(0.02)
    client.close()
    return looked, uploaded


async def run(server: ServingProcess, count: int, pieces: int) -> None:
    """Everything, and the figures."""
    clients = [await Client.connected(server) for _ in range(count)]
    paths = [await client.create(server.path, pieces * len(PIECE)) for client in clients]
    before, begin = server.cost(), time.monotonic()
    over = asyncio.get_running_loop().create_future()
    probing = asyncio.create_task(probe(server, over))
    async with asyncio.TaskGroup() as group:
        for number, (client, path) in enumerate(zip(clients, paths, strict=True)):
            group.create_task(slow_upload(client, path, pieces, PAUSE * number / count))
    took, after = time.monotonic() - begin, server.cost()
    over.set_result(None)
    looked, uploaded = await probing
    for client in clients:
        client.close()
    print(f"{count} uploads of {pieces * len(PIECE) // 1024} KiB, {took:.1f} s, none failed")
    print(f"server CPU: {100 * (after.cpu - before.cpu) / took:.1f} % of a core")
    print(f"memory: grew by {(after.peak - before.memory) / MIB:.1f} MiB, {threads_of(server)} threads")
    print(f"meanwhile: HEAD {milliseconds(looked)}, POST + PATCH of 1 KiB {milliseconds(uploaded)}")


def milliseconds(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    late = ordered[int(len(ordered) * 0.99)]
    return f"median {1000 * statistics.median(ordered):.1f} ms, 99th percentile {1000 * late:.1f} ms"


def threads_of(server: ServingProcess) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/task").iterdir()))


def main() -> None:
    """Start a server, and run."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=1000)
    options.add_argument("--pieces", type=int, default=24, help=f"of {len(PIECE)} bytes, each {PAUSE} s")
    options.add_argument("--durability", default="full")
    wanted = options.parse_args()
    needed = wanted.count + 100
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 3 * needed), hard), hard))
    with (
        tempfile.TemporaryDirectory(prefix="tusserve-slow-") as place,
        tusserve(Path(place), "--durability", wanted.durability) as server,
    ):
        asyncio.run(run(server, wanted.count, wanted.pieces))


if __name__ == "__main__":
    main()
