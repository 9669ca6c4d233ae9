"""Clients that upload while the workers of their server are replaced, killed or stopped.

Owns the clients and what they count: each creates its uploads once, goes on from where it was told to, and
never hears of fewer bytes than before. Tests run a few, a benchmark hundreds.
"""

import hashlib
import random
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.blackbox.target import files_of
from tests.raw_http import Answer, Connection, ConnectionEnded
from tests.serving_process import ServingProcess

KIB = 1024
PATIENCE = 60.0


@dataclass
class Tally:
    """What all clients together saw."""

    uploads: dict[str, str] = field(default_factory=dict)
    """The digest of each upload that is complete, by its path."""
    posts: int = 0
    """Requests to create, answered or not."""
    interrupted: int = 0
    """PATCHes that came to another end than 204."""
    failures: list[BaseException] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, folder: Path) -> None:
        """All of them are there, each with its own bytes, and none was started twice."""
        assert not self.failures, self.failures
        assert self.posts == len(self.uploads), "an upload was lost and started anew"
        for path, digest in self.uploads.items():
            assert digest_of(folder, path) == digest, path


def digest_of(folder: Path, path: str) -> str:
    """Of the sealed file, to which nobody may write any more. One who left late, or was killed, may leave
    another beside it, which no record names and the sweep removes in time."""
    sealed = [file for file in files_of(folder, path.rsplit("/", 1)[-1]) if not file.stat().st_mode & 0o200]
    assert len(sealed) == 1, sealed
    return hashlib.sha256(sealed[0].read_bytes()).hexdigest()


class Client(threading.Thread):
    """Uploads one file after the other, until `enough` says so."""

    def __init__(
        self, server: ServingProcess, tally: Tally, seed: int, enough: Callable[[], bool], pace: float
    ) -> None:
        super().__init__()
        self._address = server.address
        self._collection = server.path
        self._tally = tally
        self._dice = random.Random(seed)
        self._enough = enough
        self._pace = pace
        """Seconds between two pieces of a body, at most."""

    def run(self) -> None:
        try:
            while not self._enough():
                data = self._dice.randbytes(self._dice.choice([1, 40 * KIB, 700 * KIB]))
                path = self._create(len(data))
                self._upload(path, data)
                with self._tally.lock:
                    self._tally.uploads[path] = hashlib.sha256(data).hexdigest()
        except Exception as error:  # noqa: BLE001 - told by the one who waits
            self._tally.failures.append(error)

    def _create(self, length: int) -> str:
        with self._tally.lock:
            self._tally.posts += 1
        with Connection(self._address, patience=PATIENCE) as connection:
            return connection.create(self._collection, length)

    def _upload(self, path: str, data: bytes) -> None:
        told = 0
        give_up = time.monotonic() + PATIENCE
        while told < len(data):
            assert time.monotonic() < give_up, f"{path} cannot be finished"
            answer = self._append(path, told, data)
            if answer is not None and answer.status == 204:
                told = answer.offset
                continue
            assert answer is None or answer.status in (423, 503), answer
            with self._tally.lock:
                self._tally.interrupted += 1
            told = self._look(path, told)

    def _append(self, path: str, at: int, data: bytes) -> Answer | None:
        """The rest in pieces; None if the connection ended before an answer."""
        try:
            with Connection(self._address, patience=PATIENCE) as connection:
                connection.begin_append(path, at, len(data) - at)
                size = max(1, len(data) // 12)
                for begin in range(at, len(data), size):
                    if not connection.send_what_is_taken(data[begin : begin + size]):
                        break
                    time.sleep(self._dice.uniform(0, self._pace))
                return connection.answer("PATCH")
        except (ConnectionEnded, OSError):
            return None

    def _look(self, path: str, told: int) -> int:
        """What HEAD says, which is never less than what was said before, and never that it is gone."""
        give_up = time.monotonic() + PATIENCE
        while time.monotonic() < give_up:
            try:
                with Connection(self._address, patience=PATIENCE) as connection:
                    seen = connection.inspect(path)
            except (ConnectionEnded, OSError):
                continue
            if seen.status != 423:
                assert seen.status == 200, seen
                assert seen.offset >= told, f"{seen.offset} after {told} was acknowledged"
                return seen.offset
            time.sleep(0.05)
        raise AssertionError(f"nobody says where {path} is")


@contextmanager
def load(server: ServingProcess, *, clients: int, uploads: int, pace: float, seed: int) -> Generator[Tally]:
    """Clients at work while this lasts; they stop when so many uploads are complete, and it is over."""
    tally = Tally()
    over = threading.Event()

    def enough() -> bool:
        return bool(tally.failures) or (over.is_set() and tally.posts >= uploads)

    threads = [Client(server, tally, seed * 1000 + number, enough, pace) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield tally
    finally:
        over.set()
        for thread in threads:
            thread.join()
