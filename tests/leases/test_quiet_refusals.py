"""What is refused on the plain read disturbs nobody: no ask, no lease, no write, and the writer goes on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
from starlette.requests import Request

from tests.leases.ground import PAIRS, Worker, ground
from tusserve import Action, Rejected, Upload
from tusserve.testing.client import HeadersGiven

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("pair", PAIRS, ids="-".join)]

DATA = bytes(range(200))
OCTETS = "application/offset+octet-stream"


async def authorize(request: Request, action: Action, upload: Upload | None) -> str:
    who = request.headers.get("authorization", "alice")
    if who == "nobody":
        raise Rejected(401, "who_are_you", "Say who you are.")
    return who


@dataclass(frozen=True)
class Knock:
    """A request that has to be refused."""

    name: str
    status: int
    method: str = "PATCH"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"x"

    def __str__(self) -> str:
        return self.name


KNOCKS = (
    Knock("an offset that was never", 409, headers={"Upload-Offset": "60"}),
    Knock("an offset in the future", 409, headers={"Upload-Offset": "99"}),
    Knock("more than there is room for", 413, body=b"x" * 201),
    Knock(
        "more than there is room for, from another offset",
        413,
        body=b"x" * 150,
        headers={"Upload-Offset": "60"},
    ),
    Knock("no offset", 400, headers={"Upload-Offset": ""}),
    Knock("another type", 415, headers={"Content-Type": "text/plain"}),
    Knock("another version", 412, headers={"Tus-Resumable": "0.2.2"}),
    Knock("another length", 400, headers={"Upload-Length": "201"}),
    Knock("nobody's PATCH", 401, headers={"Authorization": "nobody"}),
    Knock("another's PATCH", 404, headers={"Authorization": "mallory"}),
    Knock("nobody's HEAD", 401, method="HEAD", headers={"Authorization": "nobody"}, body=b""),
    Knock("another's HEAD", 404, method="HEAD", headers={"Authorization": "mallory"}, body=b""),
    Knock("nobody's DELETE", 401, method="DELETE", headers={"Authorization": "nobody"}, body=b""),
    Knock("another's DELETE", 404, method="DELETE", headers={"Authorization": "mallory"}, body=b""),
)  # fmt: skip


async def knock(worker: Worker, url: str, knock: Knock) -> int:
    headers: dict[str, str | None] = {}
    if knock.method == "PATCH":
        headers |= {"Upload-Offset": "0", "Content-Type": OCTETS}
    headers |= knock.headers
    given: HeadersGiven = headers
    answer = await worker.client.request(knock.method, url, headers=given, body=knock.body or None)
    return answer.status


@pytest.mark.parametrize("elsewhere", [False, True], ids=["one process", "two"])
async def test_a_refusal_asks_nobody_and_writes_nothing(
    pair: tuple[str, str], tmp_path: Path, elsewhere: bool
) -> None:
    async with ground(pair, tmp_path) as place:
        first, second = await place.two(authorize=authorize)
        back = second if elsewhere else first
        url = await first.client.create("/files", length=len(DATA))
        patch = await place.half_open(first, url, DATA[:70])
        before = await place.record(url)
        await anyio.sleep(1)  # silent: an ask would take the upload away from it at once

        for each in KNOCKS:
            mark = back.mark
            assert await knock(back, url, each) == each.status, each
            assert set(back.calls_since(mark)) <= {"store.get"}, each
        assert await place.record(url) == before

        await patch.more(DATA[70:])
        patch.end()
        assert (await patch.response()).status == 204
        assert await place.content(url) == DATA


async def test_an_empty_patch_and_a_head_of_nobody_need_no_lease(
    pair: tuple[str, str], tmp_path: Path
) -> None:
    async with ground(pair, tmp_path) as place:
        first, second = await place.two()
        url = await first.client.create("/files", length=len(DATA))
        mark = second.mark
        assert (await second.client.append(url, b"")).status == 204
        assert await second.client.offset(url) == 0
        assert second.calls_since(mark) == ["store.get", "store.get"]
