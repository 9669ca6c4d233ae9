"""Two servers on one folder are killed, frozen and stopped at random; clients upload, cut, look and delete.

Every client keeps one rule for itself: an offset that it was told never goes back. At the end every upload
can be finished, and has exactly its bytes.
"""

import asyncio
import hashlib
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.raw_http import Answer, Connection, ConnectionEnded
from tests.serving_process import ServingProcess, tusserve
from tusserve import FileStorage, SQLiteStore, TusApp

SECONDS = float(os.environ.get("TUSSERVE_TURMOIL_SECONDS", "12"))
SEED = int(os.environ.get("TUSSERVE_TURMOIL_SEED", "11"))
KIB = 1024
PATIENCE = 60.0
CLIENTS = 10


@dataclass
class File:
    """What a client uploads, and what it was told."""

    data: bytes
    path: str
    told: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def tell(self, offset: int) -> None:
        """An answer said so."""
        assert offset <= len(self.data)
        with self.lock:
            self.told = max(self.told, offset)


class Turmoil:
    """The servers, and whether it is over."""

    def __init__(self, servers: list[ServingProcess]) -> None:
        self.servers = servers
        self.over = threading.Event()
        self.failures: list[BaseException] = []
        self.finished: list[File] = []

    def run(self, work: Callable[[random.Random], None], seed: int) -> threading.Thread:
        """`work`, again and again until it is over."""

        def loop() -> None:
            dice = random.Random(seed)
            try:
                while not self.over.is_set():
                    work(dice)
            except Exception as error:  # noqa: BLE001 - told by the test's own thread
                self.failures.append(error)
                self.over.set()

        thread = threading.Thread(target=loop)
        thread.start()
        return thread

    # ---- disasters

    def strike(self, dice: random.Random) -> None:
        """One disaster for one server."""
        time.sleep(dice.uniform(0.1, 0.6))
        server = dice.choice(self.servers)
        match dice.choice(["kill", "kill", "freeze", "freeze for long", "stop"]):
            case "kill":
                server.kill()
                server.start()
            case "stop":
                server.stop()
                server.start()
            case how:
                server.freeze()
                time.sleep(dice.uniform(2.5, 4.0) if how == "freeze for long" else dice.uniform(0.05, 1.0))
                server.thaw()

    # ---- clients

    def ask(self, dice: random.Random, work: Callable[[Connection], Answer | None]) -> Answer | None:
        """One exchange with one of the servers; None if it came to nothing."""
        try:
            with Connection(dice.choice(self.servers).address, patience=PATIENCE) as connection:
                return work(connection)
        except (ConnectionEnded, OSError):
            return None

    def upload(self, dice: random.Random) -> None:
        """One upload from POST to its end, or to its deletion."""
        data = dice.randbytes(dice.choice([1, 3 * KIB, 200 * KIB, 3000 * KIB]))
        created = self.ask(
            dice, lambda each: each.ask("POST", "/files/", [("Upload-Length", str(len(data)))])
        )
        if created is None or created.status != 201:
            return
        file = File(data, created.one("location") or "")
        deleted = False
        while file.told < len(data) and not deleted and not self.over.is_set():
            before = file.told
            seen = self.ask(dice, lambda each: each.inspect(file.path))
            if seen is None or seen.status == 423:
                continue
            assert seen.status == 200, seen
            assert seen.offset >= before, f"{seen.offset} after {before} was acknowledged"
            file.tell(seen.offset)
            if seen.offset == len(data):
                break
            if dice.random() < 0.03:
                deleted = self.delete(dice, file)
            else:
                self.append(dice, file, seen.offset)
        if not deleted:
            self.finished.append(file)

    def append(self, dice: random.Random, file: File, at: int) -> None:
        """A PATCH, whole or cut or left hanging while the next request is made."""
        size = min(dice.randrange(1, 900 * KIB), len(file.data) - at)
        sent = size if dice.random() < 0.5 else dice.randrange(size)
        hangs = dice.random() < 0.3

        def exchange(connection: Connection) -> Answer | None:
            connection.begin_append(file.path, at, size)
            connection.send(file.data[at : at + sent])
            if sent < size:
                time.sleep(dice.uniform(0, 1.5) if hangs else 0)
                if hangs and self.go_on(dice, file):
                    # Whoever let this writer go must not hear of it again, however late it wakes up.
                    connection.send_what_is_taken(b"\xff" * dice.randrange(1, 200 * KIB))
                if dice.random() < 0.5:
                    connection.reset()
                return None
            return connection.answer("PATCH")

        answer = self.ask(dice, exchange)
        if answer is not None and answer.status == 204:
            assert answer.offset == at + size
            file.tell(answer.offset)
        elif answer is not None:
            assert answer.status in (409, 423, 503), answer

    def go_on(self, dice: random.Random, file: File) -> bool:
        """Look, and append something by another request. True: it was taken."""
        before = file.told
        seen = self.ask(dice, lambda each: each.inspect(file.path))
        if seen is None or seen.status != 200:
            return False
        assert seen.offset >= before, f"{seen.offset} after {before} was acknowledged"
        file.tell(seen.offset)
        piece = file.data[seen.offset : seen.offset + 50 * KIB]
        answer = self.ask(dice, lambda each: each.append(file.path, seen.offset, piece))
        if answer is None or answer.status != 204 or not piece:
            return False
        file.tell(answer.offset)
        return True

    def delete(self, dice: random.Random, file: File) -> bool:
        answer = self.ask(dice, lambda each: each.ask("DELETE", file.path))
        if answer is not None and answer.status in (204, 410):
            return True
        assert answer is None or answer.status in (423, 503), answer
        seen = None
        while seen is None or seen.status == 423:
            seen = self.ask(dice, lambda each: each.inspect(file.path))
        return seen.status == 410


def finish(server: ServingProcess, file: File) -> None:
    """The rest of it, by a client in no hurry."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        with Connection(server.address, patience=PATIENCE) as connection:
            seen = connection.inspect(file.path)
            if seen.status == 423:
                time.sleep(0.1)
                continue
            assert seen.status == 200, seen
            assert seen.offset >= file.told
            if seen.offset == len(file.data):
                return
            connection.append(file.path, seen.offset, file.data[seen.offset :])
    raise AssertionError(f"{file.path} cannot be finished")


def test_turmoil(tmp_path: Path) -> None:
    with tusserve(tmp_path) as first, tusserve(tmp_path) as second:
        turmoil = Turmoil([first, second])
        threads = [turmoil.run(turmoil.upload, SEED * 100 + number) for number in range(CLIENTS)]
        threads.append(turmoil.run(turmoil.strike, SEED * 100 + 99))
        turmoil.over.wait(SECONDS)
        turmoil.over.set()
        for thread in threads:
            thread.join()
        assert not turmoil.failures, turmoil.failures
        assert len(turmoil.finished) > 3, "it was too rough to prove anything"
        for file in turmoil.finished:
            finish(first, file)
        print(first.log, second.log)
    for file, place in zip(
        turmoil.finished, asyncio.run(local_paths(tmp_path, turmoil.finished)), strict=True
    ):
        stored = place.read_bytes()
        assert hashlib.sha256(stored).digest() == hashlib.sha256(file.data).digest(), file.path


async def local_paths(folder: Path, files: Sequence[File]) -> list[Path]:
    """Where the records say that each file is: a kill may leave another beside it, which no record names."""
    tus = TusApp(
        "/files",
        storage=FileStorage(folder),
        store=SQLiteStore(folder / "tusserve.db"),
        sweep_every=None,
    )
    async with tus:
        uploads = [await tus.get(file.path.rsplit("/", 1)[-1]) for file in files]
        return [place for each in uploads if each is not None and (place := each.local_path()) is not None]
