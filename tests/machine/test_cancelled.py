"""A request whose task is cancelled at any of its awaits, as servers do: what the app began it ends."""

from contextlib import suppress
from pathlib import Path

import pytest

from tests.engine.world import id_of
from tusserve import FileStorage, MemoryStorage, MemoryStore, SQLiteStore, TusApp, UploadState
from tusserve.testing import TusClient
from tusserve.testing.client import NoResponse
from tusserve.testing.faults import CancelsAt

DATA = bytes(range(200))
MANY = 400
"""More awaits than any request here has."""


@pytest.mark.anyio
@pytest.mark.parametrize("pair", [("memory", "memory"), ("file", "sqlite")], ids="-".join)
@pytest.mark.parametrize("verb", ["POST", "PATCH", "last PATCH", "DELETE", "HEAD"])
async def test_a_request_is_cancelled_at_every_await(
    pair: tuple[str, str], verb: str, tmp_path: Path
) -> None:
    struck = 0
    for at in range(1, MANY):
        if not await _cancelled(pair, verb, at, tmp_path / str(at)):
            break
        struck += 1
    assert struck < MANY - 1
    assert struck or pair == ("memory", "memory"), "threads are waited for"


async def _cancelled(pair: tuple[str, str], verb: str, at: int, folder: Path) -> bool:
    """One story with a cancellation at the `at`-th await of one request; False: it had not so many."""
    in_memory = pair == ("memory", "memory")
    completed: list[str] = []
    tus = TusApp(
        "/files",
        storage=MemoryStorage() if in_memory else FileStorage(folder, durability="none"),
        store=MemoryStore() if in_memory else SQLiteStore(folder / "records.db", durability="none"),
        on_complete=lambda upload: completed.append(upload.id),
        sweep_every=None,
    )
    cancels = CancelsAt(tus)
    async with TusClient(cancels) as client:
        url = await client.create("/files", length=len(DATA), body=DATA[:50])
        cancels._at = at
        sent = 50
        with suppress(NoResponse):
            match verb:
                case "POST":
                    await client.request("POST", "/files", headers={"Upload-Length": "9"})
                case "PATCH":
                    sent = 120
                    await client.append(url, DATA[50:120], at=50, chunk_size=7)
                case "last PATCH":
                    sent = 200
                    await client.append(url, DATA[50:], at=50, chunk_size=40)
                case "DELETE":
                    await client.delete(url)
                case _:
                    await client.head(url)
        struck, cancels._at = cancels.struck, None
        await tus._lifetime._tasks.drained()
        await _check(client, tus, url, verb, sent, completed)
    return struck


async def _check(
    client: TusClient, tus: TusApp, url: str, verb: str, sent: int, completed: list[str]
) -> None:
    answer = await client.head(url)
    if verb == "DELETE" and answer.status == 410:
        return
    assert answer.status == 200, answer
    offset = int(answer.headers["upload-offset"])
    assert 50 <= offset <= sent
    if offset < len(DATA):
        assert (await client.append(url, DATA[offset:], at=offset)).status == 204
    upload = await tus.get(id_of(url))
    assert upload is not None
    assert upload.state is UploadState.COMPLETE
    assert completed == [upload.id]
    async with upload.open() as pieces:
        assert b"".join([piece async for piece in pieces]) == DATA
