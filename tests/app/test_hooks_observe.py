"""`observe`: what it is told, in which order, after what; and that it disturbs nobody."""

import asyncio
from datetime import timedelta

import pytest
from starlette.requests import Request

from tests.app.stage import OCTETS, id_of, stage, until
from tests.app.test_hooks_calls import errors
from tusserve import (
    Completed,
    Created,
    Event,
    NewUpload,
    Progressed,
    Reason,
    Rejected,
    Terminated,
    Timeouts,
    Upload,
    UploadState,
)
from tusserve.errors import StorageUnavailable
from tusserve.hooks import OBSERVED_AT_MOST

pytestmark = pytest.mark.anyio


class Eyes:
    """An observer that notes, after a pause, kind and offset of each event."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []
        self.events: list[Event] = []

    async def __call__(self, event: Event) -> None:
        await asyncio.sleep(0)
        self.events.append(event)
        self.seen.append((type(event).__name__, event.upload.offset))


async def test_the_life_of_an_upload_is_told_in_order() -> None:
    eyes = Eyes()
    async with stage(observe=eyes) as s:
        url = await s.client.create("/files", length=10)
        await s.client.append(url, b"012")
        await s.client.append(url, b"", at=3)
        await s.client.append(url, b"x", at=9)
        await s.client.append(url, b"3456789", at=3, cut_after=2)
        await s.client.append(url, b"56789", at=5)
        await s.client.append(url, b"", at=10)
        await s.client.delete(url)
        await s.client.delete(url)
    assert eyes.seen == [
        ("Created", 0),
        ("Progressed", 3),
        ("Progressed", 5),
        ("Progressed", 10),
        ("Completed", 10),
        ("Terminated", 10),
    ]
    states = [event.upload.state for event in eyes.events]
    assert states[0] is UploadState.RECEIVING
    assert states[4:] == [UploadState.COMPLETE, UploadState.ENDING]
    assert {event.upload.id for event in eyes.events} == {id_of(url)}
    assert isinstance(eyes.events[-1], Terminated)
    assert eyes.events[-1].reason is Reason.CLIENT


async def test_a_creation_with_upload_and_an_empty_one() -> None:
    eyes = Eyes()
    async with stage(observe=eyes) as s:
        sent = {"Upload-Length": "5", "Content-Type": OCTETS}
        await s.client.request("POST", "/files", headers=sent, body=b"hello")
        await s.client.create("/files", length=0)
        await s.tus.create(length=5)
    assert [name for name, _ in eyes.seen] == [
        *("Created", "Progressed", "Completed"),
        *("Created", "Completed"),
        "Created",
    ]


async def test_an_end_is_told_with_its_reason() -> None:
    eyes = Eyes()
    async with stage(observe=eyes, on_first_chunk=_refuse) as s:
        await s.client.append(await s.client.create("/files", length=5), b"hello")
        await s.tus.terminate(id_of(await s.client.create("/files", length=5)))
        await s.client.create("/files", length=5)
        s.clock.advance(timedelta(days=30))
        await s.tus.sweep()
    reasons = [event.reason for event in eyes.events if isinstance(event, Terminated)]
    assert reasons == [Reason.REJECTED, Reason.HOST, Reason.EXPIRED]


def _refuse(upload: Upload, head: bytes) -> None:
    raise Rejected(415, "no", "No.")


async def test_what_was_not_committed_is_not_told() -> None:
    def refuse(new: NewUpload, request: Request) -> None:
        if new.length == 7:
            raise Rejected(403, "no", "No.")

    eyes = Eyes()
    async with stage(observe=eyes, on_create=refuse) as s:
        await s.client.request("POST", "/files", headers={"Upload-Length": "7"})
        url = await s.client.create("/files", length=5)
        s.storage.at.coming["write"].append(StorageUnavailable("away"))
        await s.client.append(url, b"hello")
        await s.client.append(url, b"hello!!", content_length=None)
    assert eyes.seen == [("Created", 0)]


async def test_an_event_comes_after_its_commit() -> None:
    committed: list[bool] = []

    def look(event: Event) -> None:
        record = s.store.records[event.upload.id]
        committed.append(record.offset >= event.upload.offset)

    async with stage(observe=look) as s:
        await s.whole(b"hello")
    assert committed == [True] * 3


async def test_an_observer_that_fails_is_logged_and_told_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    def boom(event: Event) -> None:
        seen.append(type(event).__name__)
        raise ValueError("boom")

    async with stage(observe=boom) as s:
        url = await s.whole(b"hello")
    assert seen == ["Created", "Progressed", "Completed"]
    assert errors(caplog) == [(id_of(url), "hook_failed")] * 3


async def test_an_observer_that_hangs_holds_nobody_and_loses_the_oldest() -> None:
    go_on = asyncio.Event()
    seen: list[str] = []

    async def slow(event: Event) -> None:
        await go_on.wait()
        seen.append(event.upload.id)

    async with stage(observe=slow) as s:
        first = await s.tus.create(length=5)
        await asyncio.sleep(0)
        uploads = [(await s.tus.create(length=5)).id for _ in range(OBSERVED_AT_MOST + 50)]
        assert await s.content(await s.whole(b"hello")) == b"hello"
        go_on.set()
        await until(lambda: len(seen) >= OBSERVED_AT_MOST)
    assert seen[0] == first.id
    assert seen[1] == uploads[50 + 3], "the oldest were dropped for the newest"
    assert len(seen) == 1 + OBSERVED_AT_MOST


async def test_an_observer_that_takes_too_long_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Event] = []

    async def slow_once(event: Event) -> None:
        seen.append(event)
        if len(seen) == 1:
            await asyncio.Event().wait()

    async with stage(observe=slow_once, timeouts=Timeouts(hook=timedelta(seconds=0.1))) as s:
        await s.whole(b"hello")
        await until(lambda: len(seen) == 3)
    assert len(errors(caplog)) == 1
    assert [type(event) for event in seen] == [Created, Progressed, Completed]
