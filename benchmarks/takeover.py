"""How soon an upload goes on in another worker, and what 300 uploads hear of rolling restarts.

A client's body is under way in one of three workers. That worker is told to go, or stands still; from then on
it is measured until another one has taken, and answered, the client's next bytes.
Run: uv run python -m benchmarks.takeover
"""

import argparse
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.blackbox.target import Target
from tests.raw_http import Connection
from tests.server.rolling import load
from tests.server.workers import freeze, thaw, worker_with
from tests.serving_process import ServingProcess, tusserve

MIB = 1024 * 1024
SENT = 3 * MIB + 17
LENGTH = 8 * MIB
WORKERS = 3


def graceful(server: ServingProcess, data: bytes) -> float:
    """Seconds from SIGTERM, while bytes come, until the next ones are acknowledged by another worker."""
    target = Target(server.url)
    path = target.create(len(data))
    replaced = server.log.count(" serves")
    with Connection(server.address) as running:
        running.ask("OPTIONS", server.path)
        leaving = worker_with(server, running)
        running.begin_append(path, 0, len(data))
        running.send(data[:SENT])
        time.sleep(0.2)
        begin = time.monotonic()
        os.kill(leaving, signal.SIGTERM)
        answer = running.answer("PATCH")
        assert (answer.status, answer.offset) == (503, SENT), answer
        took = resumed(target, path, data, SENT, begin)
    until(lambda: server.log.count(" serves") > replaced)  # or there would soon be nobody to take over
    return took


def stopped(server: ServingProcess, data: bytes) -> float:
    """Seconds from the client's HEAD, whose body is stuck in a worker that stands still, until the next bytes
    are acknowledged by another one."""
    target = Target(server.url)
    path = target.create(len(data))
    with Connection(server.address) as stuck:
        stuck.ask("OPTIONS", server.path)
        victim = worker_with(server, stuck)
        stuck.begin_append(path, 0, len(data))
        stuck.send(data[:SENT])
        until(lambda: target.inspect(path).offset == SENT)
        freeze(victim)
        try:
            took = resumed(target, path, data, SENT, time.monotonic())
        finally:
            thaw(victim)
        assert stuck.answer("PATCH").status == 423
    assert target.inspect(path).offset == SENT + MIB, "the late one changed something"
    return took


def resumed(target: Target, path: str, data: bytes, at: int, begin: float) -> float:
    """HEAD, and a piece of the rest."""
    seen = target.inspect(path)
    assert (seen.status, seen.offset) == (200, at), seen
    target.append(path, at, data[at : at + MIB])
    return time.monotonic() - begin


def until(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < give_up, "that never comes"
        time.sleep(0.02)


def wait_for_round(server: ServingProcess, number: int) -> None:
    until(lambda: server.log.count("all workers are replaced") >= number)


def roll(server: ServingProcess, folder: Path, uploads: int) -> None:
    """Rolling restarts, one after the other, for as long as it takes to upload so many files."""
    rounds = 0
    begin = time.monotonic()
    with load(server, clients=24, uploads=uploads, pace=0.3, seed=1) as tally:
        while rounds == 0 or len(tally.uploads) < uploads:
            server.signal(signal.SIGHUP)
            rounds += 1
            wait_for_round(server, rounds)
    tally.check(folder)
    print(
        f"{len(tally.uploads)} uploads during {rounds} rolling restarts of {WORKERS} workers, "
        f"{time.monotonic() - begin:.0f} s: {tally.interrupted} bodies were interrupted and went on, "
        f"every digest is right, no second POST"
    )


def tell(what: str, took: Sequence[float], target: float) -> None:
    median, worst = 1000 * statistics.median(took), 1000 * max(took)
    print(f"{what}: median {median:.0f} ms, worst {worst:.0f} ms (target: below {1000 * target:.0f} ms)")


def main() -> None:
    """Measure, and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--times", type=int, default=10)
    options.add_argument("--uploads", type=int, default=300)
    wanted = options.parse_args()
    data = random.Random(1).randbytes(LENGTH)
    with tempfile.TemporaryDirectory(prefix="tusserve-takeover-") as place:
        folder = Path(place) / "uploads"
        with tusserve(folder, "--workers", str(WORKERS)) as server:
            tell(
                "takeover from a worker that goes", [graceful(server, data) for _ in range(wanted.times)], 0.3
            )
            tell(
                "takeover from one that stands still", [stopped(server, data) for _ in range(wanted.times)], 3
            )
            roll(server, folder, wanted.uploads)


if __name__ == "__main__":
    main()
