"""A file to upload, a server that is killed in the middle, and the way there."""

import hashlib
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop.chaos import Chaos, Disaster, Kind, nothing_more
from tests.serving_process import ServingProcess, tusserve

HERE = Path(__file__).parent
MIB = 1024 * 1024
SIZE = int(os.environ.get("TUSSERVE_INTEROP_MIB", "32")) * MIB + 12345
"""Odd on purpose. Set the variable for files of hundreds of MiB."""
CHUNK = 8 * MIB


@dataclass(frozen=True)
class Source:
    """A file, and its digest."""

    path: Path
    sha256: str


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    path = tmp_path_factory.mktemp("source") / "a file.bin"
    dice = random.Random(20)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(0, SIZE, MIB):
            piece = dice.randbytes(min(MIB, SIZE - file.tell()))
            digest.update(piece)
            file.write(piece)
    return Source(path, digest.hexdigest())


@dataclass
class Way:
    """What lies between a client and the disk, with a cut and a kill -9 on it."""

    folder: Path
    server: ServingProcess
    chaos: Chaos

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.chaos.port}/files/"

    def check(self, source: Source, *, final: str | None = None) -> None:
        """All disasters came, and the bytes on disk are the bytes of the file: once, and nothing else. With
        `final`, the id of what was made of parts, these are there beside it."""
        assert self.chaos.left == 0, "the test uploaded too little to prove anything"
        stored = [path for path in (self.folder / "data").rglob("*") if path.is_file()]
        if final is not None:
            assert len(stored) > 2, "there are no parts"
            stored = [path for path in stored if path.name.startswith(f"{final}.")]
        assert len(stored) == 1, stored
        digest = hashlib.sha256()
        with stored[0].open("rb") as file:
            while piece := file.read(MIB):
                digest.update(piece)
        assert digest.hexdigest() == source.sha256
        assert "Traceback" not in self.server.log


@contextmanager
def killing_way(folder: Path, *options: Callable[[int], str], size: int = SIZE) -> Generator[Way]:
    """A way to a server with these options, each made of the port that clients see."""
    disasters: list[Disaster] = [Disaster(size // 3, nothing_more)]
    with Chaos(lambda: server.address, disasters) as chaos:
        server = tusserve(folder, *(option(chaos.port) for option in options))

        def kill_and_start_again() -> None:
            server.kill()
            server.start()

        chaos.add(Disaster(2 * size // 3, kill_and_start_again))
        with server:
            yield Way(folder, server, chaos)


@pytest.fixture
def way(tmp_path: Path) -> Generator[Way]:
    with killing_way(tmp_path / "uploads") as way:
        yield way


@pytest.fixture
def way_with_absolute_urls(tmp_path: Path) -> Generator[Way]:
    base_url = (lambda _: "--base-url"), (lambda port: f"http://127.0.0.1:{port}")
    with killing_way(tmp_path / "uploads", *base_url) as way:
        yield way


@pytest.fixture
def silent_way(tmp_path: Path) -> Generator[Way]:
    """A way on which connections die without a word to the server, and the last answer is lost."""
    disasters = [
        Disaster(SIZE // 3, nothing_more, Kind.HALF_OPEN),
        Disaster(2 * SIZE // 3, nothing_more, Kind.HALF_OPEN),
        Disaster(SIZE - 1000, nothing_more, Kind.UNANSWERED, b"HTTP/1.1 204"),
    ]
    with tusserve(tmp_path / "uploads") as server, Chaos(lambda: server.address, disasters) as chaos:
        yield Way(tmp_path / "uploads", server, chaos)


@pytest.fixture(scope="session")
def node_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the scripts and the npm clients, installed for this test run."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("node and npm are needed for the JavaScript clients: install nodejs and npm")
    place = tmp_path_factory.mktemp("node")
    for name in ("package.json", "upload.mjs", "uppy.mjs"):
        shutil.copy(HERE / name, place)
    install = [npm, "install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
    subprocess.run(install, cwd=place, check=True, timeout=240)
    return place


@pytest.fixture(scope="session", params=["tus-js-client", "tus-js-client-5"])
def tus_js(
    node_place: Path, request: pytest.FixtureRequest
) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs upload.mjs, with each major version of the client."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node and npm are needed for tus-js-client: install nodejs and npm")

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [node, "upload.mjs", request.param, *arguments]
        return subprocess.run(
            command, cwd=node_place, capture_output=True, text=True, timeout=120, check=False
        )

    return run
