"""A client that goes on and on while its server is killed again and again.

Owns the story and its proof; the test runs it 25 times over, the benchmark 200.
"""

import hashlib
import random
import threading
import time
from pathlib import Path

from tests.raw_http import Connection, ConnectionEnded
from tests.serving_process import ServingProcess, tusserve

MIB = 1024 * 1024
PATIENCE = 60.0
"""Seconds after which something hangs; everything here takes a fraction of one."""


def offset_of(server: ServingProcess, path: str) -> int:
    """What HEAD says."""
    with Connection(server.address, patience=PATIENCE) as connection:
        answer = connection.inspect(path)
    assert answer.status == 200, answer
    return answer.offset


def created(server: ServingProcess, length: int) -> str:
    with Connection(server.address) as connection:
        return connection.create(server.path, length)


def digest_on_disk(folder: Path) -> str:
    """Of the sealed file. One that nobody may write to any more; a kill may leave another beside it, which no
    record names and the sweep removes in time."""
    files = [path for path in (folder / "data").rglob("*") if path.is_file()]
    stored = [path for path in files if not path.stat().st_mode & 0o200]
    assert len(stored) == 1, files
    return hashlib.sha256(stored[0].read_bytes()).hexdigest()


def survive(folder: Path, *, kills: int, seed: int, size: int = 24 * MIB) -> list[float]:
    """Upload `size` bytes through so many kills at random instants; seconds from each start to HEAD's answer.

    What was acknowledged never goes back, and at the end every byte is right: `AssertionError` otherwise.
    """
    dice = random.Random(seed)
    data = dice.randbytes(size)
    waits: list[float] = []
    with tusserve(folder) as server:
        path = created(server, len(data))
        offset = 0
        while offset < len(data):
            doomed = len(waits) < kills
            # The last piece is sent only when the server has died often enough.
            end = min(offset + dice.randrange(1, 3 * MIB), len(data) - (1 if doomed else 0))
            if doomed:
                killer = threading.Timer(dice.uniform(0, 0.03), server.kill)
                killer.start()
            try:
                with Connection(server.address, patience=PATIENCE) as connection:
                    answer = connection.append(path, offset, data[offset:end])
                    assert answer.status == 204, answer
                    offset = max(offset, answer.offset)
            except (ConnectionEnded, OSError):
                pass  # it died in the middle
            if doomed:
                killer.join()
                server.start()
            begin = time.monotonic()
            seen = offset_of(server, path)
            if doomed:
                waits.append(time.monotonic() - begin)
            assert offset <= seen <= end
            offset = seen
        assert digest_on_disk(folder) == hashlib.sha256(data).hexdigest()
        assert "Traceback" not in server.log
    return waits
