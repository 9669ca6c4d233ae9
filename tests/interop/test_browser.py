"""Chromium, on a page of another origin: it uploads, resumes, downloads, and reads what it is to read."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from tests.interop.conftest import Source, killing_way
from tests.serving_process import tusserve

HERE = Path(__file__).parent
PATIENCE = 120.0
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--no-first-run", "--no-proxy-server", "--disable-gpu"),
    *("--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update"),
)

UPPY_PAGE = '<!doctype html><meta charset="utf-8"><title>Uppy</title><script src="uppy.js"></script>'
UPPY_SIZE = 12_345_678

Seen = dict[str, Any]


class Pages:
    """A server of pages, and what they tell it."""

    def __init__(self, files: dict[str, tuple[str, Path]]) -> None:
        self.told: Queue[Seen] = Queue()
        pages = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                kind, path = files.get(self.path.partition("?")[0], ("", None))
                self.send_response(404 if path is None else 200)
                self.send_header("Content-Type", kind)
                self.end_headers()
                self.wfile.write(b"" if path is None else path.read_bytes())

            def do_POST(self) -> None:
                pages.told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]

    @contextmanager
    def open(self) -> Generator[None]:
        thread = Thread(target=self._server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


@pytest.fixture(scope="session")
def chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if (found := shutil.which(name)) is not None:
            return found
    pytest.skip("a browser is needed to be one: install chromium")


@pytest.fixture(params=["tus-js-client", "tus-js-client-5"])
def pages(node_place: Path, request: pytest.FixtureRequest) -> Generator[Pages]:
    script = node_place / "node_modules" / request.param / "dist" / "tus.min.js"
    pages = Pages({"/": ("text/html", HERE / "page.html"), "/tus.js": ("text/javascript", script)})
    with pages.open():
        yield pages


@pytest.fixture
def uppy_pages(node_place: Path) -> Generator[Pages]:
    """A page with Uppy, put together from its packages as a web application does it."""
    page, script = node_place / "uppy.html", node_place / "uppy.js"
    page.write_text(UPPY_PAGE)
    bundler = node_place / "node_modules" / ".bin" / "esbuild"
    command = [str(bundler), "uppy.mjs", "--bundle", f"--outfile={script}", "--log-level=warning"]
    subprocess.run(command, cwd=node_place, check=True, timeout=60)
    pages = Pages({"/": ("text/html", page), "/uppy.js": ("text/javascript", script)})
    with pages.open():
        yield pages


def open_in(chromium: str, pages: Pages, folder: Path, host: str, **query: str) -> Seen:
    """Open the page at this host; what it tells."""
    page = f"http://{host}:{pages.port}/?{urlencode(query)}"
    command = [chromium, *OPTIONS, f"--user-data-dir={folder / 'profile'}", page]
    with (
        (folder / "browser.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True) as browser,
    ):
        try:
            return pages.told.get(timeout=PATIENCE)
        except Empty:
            pytest.fail("the page told nothing: " + (folder / "browser.log").read_text()[-2000:])
        finally:
            os.killpg(browser.pid, signal.SIGKILL)  # with the processes that it started


@pytest.fixture
def look(chromium: str, pages: Pages, tmp_path: Path) -> Callable[[str, str], Seen]:
    """Opens the page at this host, and returns what it saw of the server at `endpoint`."""
    return lambda host, endpoint: open_in(chromium, pages, tmp_path, host, endpoint=endpoint)


def test_a_page_of_an_allowed_origin(look: Callable[[str, str], Seen], pages: Pages, tmp_path: Path) -> None:
    origin = f"http://127.0.0.1:{pages.port}"
    with tusserve(tmp_path / "uploads", "--download", "--cors-origin", origin) as server:
        seen = look("127.0.0.1", server.url)
        assert "error" not in seen, seen
        statuses = {name: answer["status"] for name, answer in seen.items()}
        assert statuses == {
            "created": 201,
            "broken": 200,
            "whole": 200,
            "piece": 206,
            "capabilities": 204,
            "missing": 404,
            "wrong": 400,
            "ended": 204,
            "gone": 410,
        }
        assert "Traceback" not in server.log

    def readable(name: str) -> Seen:
        headers: Seen = seen[name]["headers"]
        return headers

    assert {"location", "upload-offset", "upload-expires", "tus-resumable"} <= set(readable("created"))
    assert int(readable("broken")["upload-offset"]) >= 1_000_000
    assert {"upload-length", "upload-metadata", "upload-expires"} <= set(readable("broken"))
    assert seen["whole"]["right"] is True
    assert "filename*=UTF-8''gr%C3%BC%C3%9Fe.bin" in readable("whole")["content-disposition"]
    assert readable("whole")["content-type"] == "application/octet-stream"
    assert {"etag", "accept-ranges"} <= set(readable("whole"))
    assert seen["piece"]["right"] is True
    assert readable("piece")["content-range"] == "bytes 10-19/3000000"
    assert {"tus-extension", "tus-version", "tus-max-size"} <= set(readable("capabilities"))
    for name in ("missing", "wrong", "gone"):
        assert readable(name)["tus-resumable"] == "1.0.0"


def test_a_page_of_another_origin(look: Callable[[str, str], Seen], pages: Pages, tmp_path: Path) -> None:
    """`localhost` is the same machine, and another origin."""
    origin = f"http://127.0.0.1:{pages.port}"
    with tusserve(tmp_path / "uploads", "--cors-origin", origin) as server:
        assert set(look("localhost", server.url)) == {"error"}


def test_uppy(chromium: str, uppy_pages: Pages, tmp_path: Path) -> None:
    """Through a cut, a killed server and a pause: the file is there once, and its page reads that it is."""
    origin = f"http://127.0.0.1:{uppy_pages.port}"
    cors = (lambda _: "--cors-origin"), (lambda _: origin)
    with killing_way(tmp_path / "uploads", *cors, size=UPPY_SIZE) as way:
        seen = open_in(
            chromium, uppy_pages, tmp_path, "127.0.0.1", endpoint=way.endpoint, size=str(UPPY_SIZE)
        )
        assert seen["errors"] == [], seen
        assert seen["pauses"] == 1
        assert [urlsplit(url).port for url in seen["urls"]] == [way.chaos.port]
        period = bytes((at * 7) % 251 for at in range(251))
        data = (period * (UPPY_SIZE // 251 + 1))[:UPPY_SIZE]
        way.check(Source(tmp_path / "in the page", hashlib.sha256(data).hexdigest()))
