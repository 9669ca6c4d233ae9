"""A second dialect over the same engine: who sends says where it ends, and nobody infers it.

Each test speaks HTTP to an app in memory, on every storage and store.
"""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

import anyio
import pytest

from tests.dialect.world import MAX_SIZE, Process, code, progress, words
from tests.engine.world import AGES, PAIRS, Host, Site, id_of, site_of
from tusserve.protocol.records import Reason, UploadState
from tusserve.testing.client import Told

pytestmark = pytest.mark.anyio

TOLD: Final[tuple[Told, ...]] = ("auto", None)
DATA: Final = bytes(range(97, 117))


@pytest.fixture(params=PAIRS, ids="-".join)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Site]:
    storage, store = request.param
    async with site_of(storage, store, tmp_path) as site:
        yield site


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
async def process(site: Site, host: Host) -> AsyncGenerator[Process]:
    async with Process(site, host) as process:
        yield process


async def opened(process: Process, *, length: int | None = None, body: bytes = b"") -> str:
    answer = await process.create(ends=False, length=length, body=body)
    assert progress(answer) == (201, str(len(body)), "?0")
    return answer.headers["location"]


async def complete(site: Site, host: Host, url: str, data: bytes = DATA) -> None:
    """It is complete, with these bytes, and the host was asked exactly once."""
    record, content = await site.content(id_of(url))
    assert (record.state, record.length, content) == (UploadState.COMPLETE, len(data), data)
    assert host.completed[record.id] == 1
    assert [head for upload, head in host.heads if upload == record.id] == [data[:4]]


async def receiving(site: Site, host: Host, url: str, data: bytes) -> None:
    """It still waits to be told that it is complete, and the host was not asked."""
    record, content = await site.content(id_of(url))
    assert (record.state, content) == (UploadState.RECEIVING, data)
    assert not host.completed


# ---- creation


async def test_one_request_is_the_whole_upload(process: Process, site: Site, host: Host) -> None:
    answer = await process.create(ends=True, body=DATA)
    assert progress(answer) == (201, "20", "?1")
    await complete(site, host, answer.headers["location"])


async def test_one_request_whose_length_nobody_told(process: Process, site: Site, host: Host) -> None:
    answer = await process.create(ends=True, body=DATA, told=None)
    assert progress(answer) == (201, "20", "?1")
    await complete(site, host, answer.headers["location"])


async def test_nothing_is_a_whole_upload_too(process: Process, site: Site, host: Host) -> None:
    answer = await process.create(ends=True)
    assert progress(answer) == (201, "0", "?1")
    await complete(site, host, answer.headers["location"], b"")


async def test_nothing_whose_length_nobody_told(process: Process, site: Site, host: Host) -> None:
    answer = await process.create(ends=True, told=None)
    assert progress(answer) == (201, "0", "?1")
    await complete(site, host, answer.headers["location"], b"")


async def test_opened_with_nothing_then_appended(process: Process, site: Site, host: Host) -> None:
    url = await opened(process, length=20)
    assert progress(await process.append(url, DATA[:7], at=0, ends=False)) == (204, "7", "?0")
    assert progress(await process.append(url, DATA[7:], at=7, ends=True)) == (200, "20", "?1")
    await complete(site, host, url)


async def test_opened_with_the_first_bytes(process: Process, site: Site, host: Host) -> None:
    url = await opened(process, body=DATA[:7])
    await receiving(site, host, url, DATA[:7])
    assert progress(await process.append(url, DATA[7:], at=7, ends=True)) == (200, "20", "?1")
    await complete(site, host, url)


async def test_a_length_of_nothing_is_not_complete_until_told(
    process: Process, site: Site, host: Host
) -> None:
    url = await opened(process, length=0)
    await process.app.reaper.sweep()
    await receiving(site, host, url, b"")
    assert progress(await process.append(url, b"", at=0, ends=True)) == (200, "0", "?1")
    await complete(site, host, url, b"")


# ---- all bytes are there


@pytest.mark.parametrize("length", [None, 20])
@pytest.mark.parametrize("told", TOLD)
async def test_all_bytes_are_there_and_it_is_not_complete_until_told(
    process: Process, site: Site, host: Host, length: int | None, told: Told
) -> None:
    url = await opened(process, length=length, body=DATA[:7])
    assert progress(await process.append(url, DATA[7:], at=7, ends=False)) == (204, "20", "?0")
    assert progress(await process.append(url, b"", at=20, ends=False)) == (204, "20", "?0")
    assert progress(await process.head(url)) == (204, "20", "?0")
    await process.app.reaper.sweep()
    await receiving(site, host, url, DATA)
    for _ in range(2):  # the second one repeats a request whose answer was lost
        answer = await process.append(url, b"", at=20, ends=True, told=told)
        assert progress(answer) == (200, "20", "?1")
    assert progress(await process.head(url)) == (204, "20", "?1")
    await complete(site, host, url)


async def test_what_is_complete_takes_no_more(process: Process, site: Site, host: Host) -> None:
    url = (await process.create(ends=True, body=DATA)).headers["location"]
    for at in (0, 20):
        answer = await process.append(url, b"more", at=at, ends=False)
        assert (answer.status, code(answer)) == (400, "upload_complete")
    await complete(site, host, url)


async def test_it_expires_with_all_bytes_if_nobody_tells(process: Process, site: Site, host: Host) -> None:
    url = await opened(process, length=20, body=DATA)
    await anyio.sleep(AGES.total_seconds())
    await process.app.reaper.sweep()
    assert (await process.head(url)).status in {404, 410}
    assert host.terminated == {(id_of(url), Reason.EXPIRED): 1}
    assert not host.completed
    assert site.leftovers(id_of(url)) == []


# ---- the length


async def test_the_length_is_known_at_the_end(process: Process, site: Site, host: Host) -> None:
    url = await opened(process)
    assert "upload-length" not in (await process.head(url)).headers
    await process.append(url, DATA[:9], at=0, ends=False)
    assert "upload-length" not in (await process.head(url)).headers
    assert progress(await process.append(url, DATA[9:], at=9, ends=True)) == (200, "20", "?1")
    assert (await process.head(url)).headers["upload-length"] == "20"
    await complete(site, host, url)


async def test_a_length_that_is_told_on_the_way(process: Process, site: Site, host: Host) -> None:
    url = await opened(process)
    await process.append(url, DATA[:9], at=0, ends=False, length=20)
    assert (await process.head(url)).headers["upload-length"] == "20"
    assert progress(await process.append(url, DATA[9:], at=9, ends=False)) == (204, "20", "?0")
    assert progress(await process.append(url, b"", at=20, ends=True, length=20)) == (200, "20", "?1")
    await complete(site, host, url)


async def test_an_end_before_the_length_is_refused(process: Process, site: Site, host: Host) -> None:
    url = await opened(process, length=20)
    early = await process.append(url, DATA[:7], at=0, ends=True)
    assert (early.status, code(early)) == (400, "length_contradicted")
    await receiving(site, host, url, b"")
    chunked = await process.append(url, DATA[:7], at=0, ends=True, told=None)
    assert (chunked.status, code(chunked)) == (400, "length_contradicted")
    assert chunked.headers["upload-offset"] == "7", "what came is kept, as of a body that was cut"
    await receiving(site, host, url, DATA[:7])
    empty = await process.append(url, b"", at=7, ends=True)
    assert (empty.status, code(empty)) == (400, "length_contradicted")
    assert progress(await process.append(url, DATA[7:], at=7, ends=True)) == (200, "20", "?1")
    await complete(site, host, url)


@pytest.mark.parametrize("told", TOLD)
@pytest.mark.parametrize(
    ("size", "said"), [(7, "length_contradicted"), (0, "length_contradicted"), (20, "body_too_long")]
)
async def test_a_creation_that_contradicts_itself_leaves_nothing(
    process: Process, site: Site, host: Host, size: int, said: str, told: Told
) -> None:
    answer = await process.create(ends=True, length=12, body=DATA[:size], told=told)
    assert (answer.status, code(answer)) == (400, said)
    assert not host.completed
    # Only a body whose length was not told had to be taken to see it.
    assert sum(host.terminated.values()) == (told is None)
    assert all(site.leftovers(ended) == [] for ended, _ in host.terminated)


async def test_more_than_the_length_is_refused(process: Process, site: Site, host: Host) -> None:
    url = await opened(process, length=20, body=DATA)
    for told in TOLD:
        answer = await process.append(url, b"x", at=20, ends=True, told=told)
        assert (answer.status, code(answer)) == (400, "body_too_long")
    await receiving(site, host, url, DATA)
    assert (await process.create(ends=False, length=MAX_SIZE + 1)).status == 413


# ---- cut and resumed


async def test_cut_then_resumed(process: Process, site: Site, host: Host) -> None:
    url = await opened(process)
    await process.append(url, DATA, at=0, ends=True, cut_after=11)
    assert progress(await process.head(url)) == (204, "11", "?0")
    await receiving(site, host, url, DATA[:11])
    wrong = await process.append(url, DATA, at=0, ends=True)
    assert progress(wrong) == (409, "11", "?0")
    assert progress(await process.append(url, DATA[11:], at=11, ends=True)) == (200, "20", "?1")
    await complete(site, host, url)


@pytest.mark.parametrize("length", [None, 20])
async def test_cut_after_the_last_byte_is_no_end(
    process: Process, site: Site, host: Host, length: int | None
) -> None:
    url = await opened(process, length=length)
    await process.append(url, DATA, at=0, ends=True, told=None, cut_after=20)
    assert progress(await process.head(url)) == (204, "20", "?0")
    await receiving(site, host, url, DATA)
    assert progress(await process.append(url, b"", at=20, ends=True)) == (200, "20", "?1")
    await complete(site, host, url)


async def test_a_creation_that_was_cut_is_there(process: Process, site: Site, host: Host) -> None:
    answer = await process.create(ends=True, body=DATA, cut_after=11)
    url = answer.headers["location"]
    assert progress(await process.head(url)) == (204, "11", "?0")
    assert progress(await process.append(url, DATA[11:], at=11, ends=True)) == (200, "20", "?1")
    await complete(site, host, url)


async def test_asked_while_the_last_byte_is_there_and_the_end_is_not(
    process: Process, site: Site, host: Host
) -> None:
    url = await opened(process, length=20)
    half_open = process.client.half_open(url, DATA, headers=words(ends=True, length=20, at=0))
    async with half_open as patch:
        assert progress(await process.head(url)) == (204, "20", "?0")
        assert (await patch.response()).status == 503, "who is silent is let go"
    await receiving(site, host, url, DATA)
    assert progress(await process.append(url, b"", at=20, ends=True)) == (200, "20", "?1")
    await complete(site, host, url)


async def test_another_process_goes_on(site: Site, host: Host) -> None:
    async with Process(site, host) as first:
        url = await opened(first, body=DATA[:7])
        await first.append(url, DATA[7:], at=7, ends=False)
        await first.crash()
    async with Process(site, host) as second:
        assert progress(await second.head(url)) == (204, "20", "?0")
        assert progress(await second.append(url, b"", at=20, ends=True)) == (200, "20", "?1")
    await complete(site, host, url)


# ---- hooks and the end


async def test_the_end_is_asked_again_after_the_host_had_no_time(
    process: Process, site: Site, host: Host
) -> None:
    url = await opened(process, body=DATA)
    host.last = "not now"
    answer = await process.append(url, b"", at=20, ends=True)
    assert (answer.status, code(answer)) == (503, "hook_failed")
    assert (await process.head(url)).status == 503
    host.last = "yes"
    await anyio.sleep(10)
    assert progress(await process.append(url, b"", at=20, ends=True)) == (200, "20", "?1")
    await complete(site, host, url)


async def test_the_host_refuses_at_the_real_end(process: Process, site: Site, host: Host) -> None:
    url = await opened(process, length=20, body=DATA)
    host.last = "no"
    assert (await process.append(url, b"", at=20, ends=True)).status == 415
    assert (await process.head(url)).status == 410
    assert host.terminated == {(id_of(url), Reason.REJECTED): 1}
    assert site.leftovers(id_of(url)) == []


async def test_terminated(process: Process, site: Site, host: Host) -> None:
    url = await opened(process, length=20, body=DATA)
    assert (await process.delete(url)).status == 204
    assert (await process.head(url)).status == 410
    assert (await process.append(url, b"", at=20, ends=True)).status == 410
    assert (await process.delete("/files/nothing")).status == 404
    assert host.terminated == {(id_of(url), Reason.CLIENT): 1}
    assert not host.completed
    assert site.leftovers(id_of(url)) == []


async def test_terminated_while_its_body_comes(process: Process, site: Site, host: Host) -> None:
    url = await opened(process)
    async with process.client.half_open(url, DATA, headers=words(ends=True, at=0)) as patch:
        assert (await process.delete(url)).status == 204
        assert (await patch.response()).status == 410
    assert not host.completed
    assert site.leftovers(id_of(url)) == []


async def test_the_words_of_tus_mean_nothing_here(process: Process) -> None:
    url = await opened(process, length=20)
    tus = await process.client.append(url, DATA, at=0)
    assert (tus.status, code(tus)) == (415, "unsupported_content_type")
    assert progress(await process.head(url)) == (204, "0", "?0")
    assert (await process.client.request("POST", "/files", headers={"Upload-Length": "9"})).status == 400
