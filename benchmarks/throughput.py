"""What uploads cost the server, beside a bare ASGI app that writes the same body inline under one uvicorn.

Prints CPU seconds and page faults per GiB, CPU milliseconds per small upload (POST + PATCH of 1 KiB) and per
HEAD, and how much the memory grew. Run from the project's folder: uv run python -m benchmarks.throughput

The kernel's part varies severalfold from run to run on a virtual machine: a page of the page cache that the
host has to find first costs more than everything else. So user and system time are told apart, of each the
best of several rounds counts, and `--folder /dev/shm` leaves the disk out.
"""

import argparse
import http.client
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tests.serving_process import Cost, ServingProcess, tusserve

GIB: Final = 1024**3
MIB: Final = 1024**2
SMALL: Final = b"x" * 1024
PIECE: Final = bytes(range(256)) * 4096


@dataclass(frozen=True)
class Figures:
    """What one server cost."""

    user: float
    system: float
    faults: int
    growth: int
    per_small: float
    per_head: float


def upload(connection: http.client.HTTPConnection, length: int, body: bytes | Iterator[bytes]) -> str:
    """One upload by POST and PATCH; its path."""
    connection.request("POST", "/files/", headers={"Tus-Resumable": "1.0.0", "Upload-Length": str(length)})
    created = connection.getresponse()
    created.read()
    path = urlsplit(created.headers["Location"]).path
    headers = {
        "Tus-Resumable": "1.0.0",
        "Upload-Offset": "0",
        "Content-Type": "application/offset+octet-stream",
        "Content-Length": str(length),
    }
    connection.request("PATCH", path, body=body, headers=headers)
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 204, answer.status
    return path


def spent(server: ServingProcess, before: Cost) -> float:
    return server.cost().cpu - before.cpu


def measure(server: ServingProcess, size: int, count: int) -> Figures:
    """All figures of one server, which is started and ended here."""
    with server, closing(http.client.HTTPConnection(*server.address, timeout=120)) as connection:
        for _ in range(100):
            upload(connection, len(SMALL), SMALL)
        upload(connection, 64 * MIB, (PIECE for _ in range(64)))
        before = server.cost()
        upload(connection, size, (PIECE for _ in range(size // len(PIECE))))
        after = server.cost()
        start = server.cost()
        paths = [upload(connection, len(SMALL), SMALL) for _ in range(count)]
        per_small = spent(server, start) / count
        start = server.cost()
        for path in paths:
            connection.request("HEAD", path, headers={"Tus-Resumable": "1.0.0"})
            connection.getresponse().read()
        return Figures(
            user=(after.user - before.user) * GIB / size,
            system=(after.system - before.system) * GIB / size,
            faults=int((after.faults - before.faults) * GIB / size),
            growth=after.peak - before.memory,
            per_small=1000 * per_small,
            per_head=1000 * spent(server, start) / count,
        )


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--mib", type=int, default=1024, help="size of the large upload")
    options.add_argument("--count", type=int, default=1000, help="number of small uploads")
    options.add_argument("--rounds", type=int, default=5, help="the best of so many is printed")
    options.add_argument("--folder", help="where uploads go for the time being; the system's place for such")
    wanted = options.parse_args()
    rounds: dict[str, list[Figures]] = {}
    root = Path(tempfile.mkdtemp(prefix="tusserve-benchmark-", dir=wanted.folder))
    try:
        for number in range(wanted.rounds):
            place = root / str(number)
            bare = [sys.executable, "-m", "benchmarks.bare_server", str(place / "bare")]
            for name, server in (
                ("bare app", ServingProcess(bare)),
                ("bare app, freed memory kept", ServingProcess([*bare, "--keep-freed-memory"])),
                ("tusserve, durability none", tusserve(place / "none", "--durability", "none")),
                ("tusserve, durability full", tusserve(place / "full", "--durability", "full")),
            ):
                figures = measure(server, wanted.mib * MIB, wanted.count)
                rounds.setdefault(name, []).append(figures)
                remove_large(place)
    finally:
        shutil.rmtree(root)
    report(rounds)


def remove_large(place: Path) -> None:
    """Make room for the next. The small files stay until the end: where many were removed a moment ago, ext4
    takes several times as long to make new ones."""
    for path in place.rglob("*"):
        if path.is_file() and path.stat().st_size >= MIB:
            path.unlink()


def report(rounds: Mapping[str, Sequence[Figures]]) -> None:
    """Print the best of all rounds, and the ratio to the bare app."""
    print(f"{'':30}{'user':>6} + {'system':>6} = {'CPU s/GiB':>9}{'ratio':>7}", end="")
    print(f"{'faults/GiB':>12}{'grew MiB':>10}{'ms/1 KiB':>10}{'ms/HEAD':>9}")
    reference = 0.0
    for name, of in rounds.items():
        user, system = min(each.user for each in of), min(each.system for each in of)
        reference = reference or user + system
        print(f"{name:30}{user:6.2f} + {system:6.2f} = {user + system:9.2f}", end="")
        print(f"{(user + system) / reference:7.2f}{min(each.faults for each in of):12,}", end="")
        print(f"{max(each.growth for each in of) / MIB:10.1f}", end="")
        print(f"{min(each.per_small for each in of):10.2f}{min(each.per_head for each in of):9.3f}")


if __name__ == "__main__":
    main()
