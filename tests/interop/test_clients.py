"""Real clients upload a real file, are cut off, find the server killed in the middle, and resume."""

import http.client
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import aiotus
import pytest
import resumable_upload  # type: ignore[import-untyped]
from tusclient.client import TusClient

from tests.interop.conftest import CHUNK, SIZE, Source, Way

CHECKSUM = b"upload-checksum: "
DEFERRED = b"upload-defer-length: 1"

TusJs = Callable[..., "subprocess.CompletedProcess[str]"]


def opened(way: Way) -> str:
    """An upload that somebody else created, as a host's own API does: its URL."""
    connection = http.client.HTTPConnection("127.0.0.1", way.chaos.port)
    connection.request("POST", "/files/", headers={"Tus-Resumable": "1.0.0", "Upload-Length": str(SIZE)})
    answer = connection.getresponse()
    assert answer.status == 201
    location = answer.getheader("Location")
    assert location is not None
    connection.close()
    return urljoin(way.endpoint, location)


def test_tus_js_client_with_an_endpoint(way: Way, source: Source, tus_js: TusJs) -> None:
    ended = tus_js(str(source.path), "endpoint", way.endpoint, str(CHUNK))
    assert ended.returncode == 0, ended.stderr + way.server.log
    way.check(source)


def test_tus_js_client_with_an_upload_url(way: Way, source: Source, tus_js: TusJs) -> None:
    ended = tus_js(str(source.path), "uploadUrl", opened(way), str(CHUNK))
    assert ended.returncode == 0, ended.stderr + way.server.log
    way.check(source)


def test_tus_js_client_in_one_request(way: Way, source: Source, tus_js: TusJs) -> None:
    ended = tus_js(str(source.path), "endpoint", way.endpoint, "Infinity")
    assert ended.returncode == 0, ended.stderr + way.server.log
    way.check(source)


def test_tus_js_client_with_parallel_uploads(way: Way, source: Source, tus_js: TusJs) -> None:
    """It sends the parts beside each other, each cut off and resumed by itself, and has them joined."""
    parallel = json.dumps({"parallelUploads": 4})
    ended = tus_js(str(source.path), "endpoint", way.endpoint, str(CHUNK // 4), "0", parallel)
    assert ended.returncode == 0, ended.stderr + way.server.log
    way.check(source, final=ended.stdout.strip().rsplit("/", 1)[-1])


def test_tus_js_client_tells_the_length_later(way: Way, source: Source, tus_js: TusJs) -> None:
    """Nobody is told a length before the last chunk is read, also not after the cut and the kill."""
    way.chaos.watch(DEFERRED)
    deferred = json.dumps({"uploadLengthDeferred": True})
    ended = tus_js(str(source.path), "endpoint", way.endpoint, str(CHUNK), "0", deferred)
    assert ended.returncode == 0, ended.stderr + way.server.log
    assert way.chaos.heard(DEFERRED) == 1
    way.check(source)


def test_tuspy(way: Way, source: Source) -> None:
    with source.path.open("rb") as file:
        uploader = TusClient(way.endpoint).uploader(
            file_stream=file, chunk_size=CHUNK, retries=20, retry_delay=0.3
        )
        uploader.upload()
    assert uploader.offset == SIZE
    way.check(source)


def test_tuspy_with_checksums(way: Way, source: Source) -> None:
    way.chaos.watch(CHECKSUM)
    with source.path.open("rb") as file:
        uploader = TusClient(way.endpoint).uploader(
            file_stream=file, chunk_size=CHUNK, retries=20, retry_delay=0.3, upload_checksum=True
        )
        uploader.upload()
    assert uploader.offset == SIZE
    assert way.chaos.heard(CHECKSUM) >= SIZE // CHUNK
    way.check(source)


@pytest.mark.anyio
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # tuspy sends each chunk as bytes
async def test_tuspy_async(way: Way, source: Source) -> None:
    with source.path.open("rb") as file:
        uploader = TusClient(way.endpoint).async_uploader(
            file_stream=file, chunk_size=CHUNK, retries=20, retry_delay=0.3
        )
        await uploader.upload()
    assert uploader.offset == SIZE
    way.check(source)


@pytest.mark.anyio
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # so does aiotus
async def test_aiotus(way_with_absolute_urls: Way, source: Source) -> None:
    """It cannot resolve a Location that is a path (`yarl` refuses to append one), hence absolute URLs."""
    way = way_with_absolute_urls
    patience = aiotus.RetryConfiguration(retry_attempts=20, max_retry_period_seconds=0.5)
    with source.path.open("rb") as file:
        url = await aiotus.upload(
            way.endpoint, file, {"filename": b"a file.bin"}, config=patience, chunksize=CHUNK
        )
    assert url is not None
    way.check(source)


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512", "md5", False])
def test_resumable_upload(way: Way, source: Source, algorithm: str | bool) -> None:
    """The client of the package of that name: its chunks have a checksum unless it is told otherwise."""
    way.chaos.watch(CHECKSUM)
    client = resumable_upload.TusClient(
        way.endpoint, chunk_size=CHUNK, checksum=algorithm, max_retries=20, retry_delay=0.1
    )
    client.upload_file(str(source.path))
    assert (way.chaos.heard(CHECKSUM) >= SIZE // CHUNK) is bool(algorithm)
    way.check(source)


def test_curl(way: Way, source: Source, tmp_path: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    url = opened(way)

    def run(*arguments: str) -> str:
        command = [curl, "-sS", "--max-time", "60", "-H", "Tus-Resumable: 1.0.0", *arguments, url]
        return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False).stdout

    part = tmp_path / "rest.bin"
    offset, deadline = 0, time.monotonic() + 100
    while offset < SIZE and time.monotonic() < deadline:
        with source.path.open("rb") as file, part.open("wb") as rest:
            file.seek(offset)
            shutil.copyfileobj(file, rest)
        run(
            *("-X", "PATCH", "-T", str(part), "-H", f"Upload-Offset: {offset}"),
            *("-H", "Content-Type: application/offset+octet-stream"),
        )
        told = re.search(r"(?i)^upload-offset: (\d+)", run("-I"), re.MULTILINE)
        offset = offset if told is None else int(told[1])
    assert offset == SIZE
    way.check(source)


@pytest.mark.parametrize("how", ["endpoint", "uploadUrl"])
def test_tus_js_client_whose_connections_die_unheard(
    how: str, silent_way: Way, source: Source, tus_js: TusJs
) -> None:
    url = silent_way.endpoint if how == "endpoint" else opened(silent_way)
    # It comes back when the dead connection has been silent for a while. At once it might be told 409 in the
    # middle of a body, and under Node it hangs for ever if the rest of such an answer is lost.
    ended = tus_js(str(source.path), how, url, "Infinity", "800")
    assert ended.returncode == 0, ended.stderr + silent_way.server.log
    silent_way.check(source)


def test_tuspy_whose_connections_die_unheard(silent_way: Way, source: Source) -> None:
    """Without a chunk size it sends the whole file in one request, and after a lost answer an empty one."""
    with source.path.open("rb") as file:
        uploader = TusClient(silent_way.endpoint).uploader(file_stream=file, retries=20, retry_delay=0.8)
        uploader.upload()
    assert uploader.offset == SIZE
    silent_way.check(source)


def test_the_proxy_is_on_the_way(way: Way) -> None:
    """An upload URL is a path, so that it leads through whatever its client came through."""
    assert urlsplit(opened(way)).port == way.chaos.port
