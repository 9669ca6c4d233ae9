"""What the storages cost beside a plain loop: CPU seconds a GiB, and CPU microseconds a small upload.

Run it: `python benchmarks/storage_costs.py [DIRECTORY] [--mib N] [--small N]`. Figures of one machine compare
only with figures of the same run.
"""

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import TypeAlias

from tusserve.contracts import Cursor, Fence, Lease, Place, StorageBackend
from tusserve.storage.file import FileStorage
from tusserve.storage.memory import MemoryStorage

CHUNK = 64 << 10
SOURCE = os.urandom(CHUNK)
SERIAL = count()


def chunk(size: int = CHUNK) -> bytes:
    """A new object each time, as a server makes them."""
    return bytes(memoryview(SOURCE)[:size])


async def no_entries(_start: int, _stop: int) -> Sequence[str]:
    return ()


async def upload(storage: StorageBackend, length: int, size: int) -> None:
    """One body from its first byte to its last."""
    name = f"upload-{next(SERIAL)}"
    place = Place(id=name, key=None, length=length, content_type=None)
    lease = Lease(id=name, fence=Fence(1, "token"), ttl=timedelta(seconds=15))
    async with storage.writer(place, Cursor("", 0, no_entries), 0, lease) as writer:
        since = 0
        for _ in range(0, length, size):
            await writer.write(chunk(size))
            since += size
            if since >= storage.checkpoint_bytes:
                await writer.flush(False)
                since = 0
        durable = await writer.flush(True)
    assert durable.offset == length
    await storage.discard(place, Cursor(durable.state, 0, no_entries))


async def large(storage: StorageBackend, mib: int) -> None:
    async with storage:
        await upload(storage, mib << 20, CHUNK)


async def small(storage: StorageBackend, number: int) -> None:
    async with storage:
        for _ in range(number):
            await upload(storage, 1024, 1024)


def plain(folder: Path, mib: int, *, sync: bool) -> None:
    """The same chunks in a loop of `os.write`."""
    path = folder / "plain"
    fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    for written in range(CHUNK, (mib << 20) + 1, CHUNK):
        os.write(fd, chunk())
        if sync and written % (16 << 20) == 0:
            os.fdatasync(fd)
    os.close(fd)
    path.unlink()


def plain_small(folder: Path, number: int, *, sync: bool) -> None:
    """The same small files, with nothing around them."""
    for serial in range(number):
        path = folder / f"plain-{serial}"
        fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
        os.write(fd, chunk(1024))
        if sync:
            os.fdatasync(fd)
        os.close(fd)
        path.unlink()


def measure(call: Callable[[], None], per: float) -> tuple[float, float]:
    """The best of three: CPU and elapsed seconds, divided by `per`."""
    best = []
    for _ in range(3):
        cpu, clock = time.process_time(), time.perf_counter()
        call()
        best.append((time.process_time() - cpu, time.perf_counter() - clock))
    cpu, clock = min(best)
    return cpu / per, clock / per


Work: TypeAlias = Callable[[StorageBackend, int], Coroutine[object, object, None]]


def running(work: Work, make: Callable[[], StorageBackend], amount: int) -> None:
    """Open a storage and do the work on it, in an event loop of its own."""
    asyncio.run(work(make(), amount))


def table(title: str, rows: dict[str, Callable[[], None]], per: float, digits: int) -> None:
    print(title)
    for label, call in rows.items():
        cpu, clock = measure(call, per)
        print(f"{label:28}{cpu:12.{digits}f}{clock:12.{digits}f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="What the storages cost beside a plain loop.")
    parser.add_argument("directory", nargs="?", type=Path)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--small", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        folder, mib, number = Path(name), options.mib, options.small
        makes: dict[str, Callable[[], StorageBackend]] = {
            "FileStorage full": partial(FileStorage, folder / "full"),
            "FileStorage checkpoint": partial(FileStorage, folder / "checkpoint", durability="checkpoint"),
            "FileStorage none": partial(FileStorage, folder / "none", durability="none"),
            "MemoryStorage": MemoryStorage,
        }
        rows: dict[str, Callable[[], None]] = {
            "loop of os.write": partial(plain, folder, mib, sync=False),
            "loop, fdatasync each 16 MiB": partial(plain, folder, mib, sync=True),
        }
        rows |= {label: partial(running, large, make, mib) for label, make in makes.items()}
        table(f"{'one body of 64 KiB chunks':28}{'CPU s/GiB':>12}{'s/GiB':>12}", rows, mib / 1024, 2)
        rows = {
            "open, write, close": partial(plain_small, folder, number, sync=False),
            "open, write, sync, close": partial(plain_small, folder, number, sync=True),
        }
        rows |= {label: partial(running, small, make, number) for label, make in makes.items()}
        table(f"\n{'uploads of 1 KiB, and DELETE':28}{'CPU us':>12}{'us':>12}", rows, number / 1e6, 0)


if __name__ == "__main__":
    main()
