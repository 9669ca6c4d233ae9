"""Stories of one upload, told once for every moment at which the process may die.

Owns the stories, and the proof that whatever was told stays true and that a new process can bring the upload
to its end. `test_crash` runs it on sound parts, `test_breakages` on broken ones.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import anyio

from tests.engine.oracle import Attempt, Expected
from tests.engine.quick_loop import LoopClock
from tests.engine.world import Host, MakeSite, Process, Site
from tusserve.protocol.records import UploadState
from tusserve.testing.client import NoResponse, Response
from tusserve.testing.faults import Crashed

LENGTH = 30


@dataclass
class Scene:
    """One run of a story: a site, a host, a process, and what is expected of the one upload."""

    site: Site
    host: Host
    process: Process
    upload: Expected | None = None
    opened: bytes = b""
    """What was sent with the creation, should it not have been answered."""

    async def create(self, *, length: int = LENGTH, body: bytes | None = None) -> None:
        self.opened = body or b""
        url = await self.process.client.create("/files", length=length, body=body)
        self.upload = Expected(url, length)
        if body:
            self.upload.attempts.append(Attempt(0, body))

    async def append(self, size: int, *, cut_after: int | None = None, status: int = 204) -> Response:
        upload = self.upload
        assert upload is not None
        at = len(upload.known)
        body = upload.body(len(upload.attempts), size, at)
        answer = await self.process.client.append(upload.url, body, at=at, cut_after=cut_after, chunk_size=3)
        assert answer.status == status, f"{answer}"
        upload.known += body[: int(answer.headers["upload-offset"]) - at]
        return answer

    async def delete(self) -> None:
        assert self.upload is not None
        self.upload.terminated = True
        answer = await self.process.client.delete(self.upload.url)
        assert answer.status == 204, f"{answer}"
        self.upload.ended = True


Step: TypeAlias = Callable[[Scene], Awaitable[None]]


@dataclass(frozen=True)
class Story:
    """`before` goes well; the process may die anywhere in `during`. `gate`: with the first-chunk hook."""

    name: str
    before: Step
    during: Step
    gate: bool = True

    def __str__(self) -> str:
        return self.name


async def nothing(scene: Scene) -> None:
    pass


async def created(scene: Scene) -> None:
    await scene.create()


async def begun(scene: Scene) -> None:
    await scene.create()
    await scene.append(10)


async def complete(scene: Scene) -> None:
    await scene.create()
    await scene.append(LENGTH)


async def with_bytes(scene: Scene) -> None:
    await scene.create(body=bytes(range(12)))


async def with_all_bytes(scene: Scene) -> None:
    await scene.create(body=bytes(range(LENGTH)))


async def empty(scene: Scene) -> None:
    await scene.create(length=0)


async def append_first(scene: Scene) -> None:
    await scene.append(11)


async def append_middle(scene: Scene) -> None:
    await scene.append(15)


async def append_cut(scene: Scene) -> None:
    await scene.append(15, cut_after=13, status=423)


async def append_last(scene: Scene) -> None:
    await scene.append(20)


async def append_two(scene: Scene) -> None:
    await scene.append(5)
    await scene.append(15)


async def delete(scene: Scene) -> None:
    await scene.delete()


async def refused(scene: Scene) -> None:
    scene.host.first = "no"
    assert scene.upload is not None
    body = scene.upload.body(0, 10, 0)
    answer = await scene.process.client.append(scene.upload.url, body)
    assert answer.status == 415, f"{answer}"
    scene.upload.ended = True


async def refused_at_last(scene: Scene) -> None:
    scene.host.last = "no"
    assert scene.upload is not None
    body = scene.upload.body(1, 20, 10)
    answer = await scene.process.client.append(scene.upload.url, body, at=10)
    assert answer.status == 415, f"{answer}"
    scene.upload.ended = True


async def not_accepted_yet(scene: Scene) -> None:
    """The host's refusal for now, and the next request, which tries again."""
    scene.host.last = "not now"
    upload = scene.upload
    assert upload is not None
    answer = await scene.process.client.append(upload.url, upload.body(1, 20, 10), at=10)
    assert answer.status == 503, f"{answer}"
    scene.host.last = "yes"
    await anyio.sleep(5)
    assert await scene.process.client.offset(upload.url) == LENGTH


async def expired(scene: Scene) -> None:
    await anyio.sleep(timedelta(days=8).total_seconds())
    assert (await scene.process.tus.sweep()).expired == 1


STORIES = (
    Story("POST", nothing, created),
    Story("POST with bytes", nothing, with_bytes),
    Story("POST with every byte", nothing, with_all_bytes),
    Story("POST of nothing", nothing, empty),
    Story("first PATCH", created, append_first),
    Story("first PATCH without a gate", created, append_first, gate=False),
    Story("middle PATCH", begun, append_middle),
    Story("cut PATCH", begun, append_cut),
    Story("two PATCHes", begun, append_two),
    Story("last PATCH", begun, append_last),
    Story("PATCH of all", created, complete, gate=False),
    Story("last PATCH, not accepted yet", begun, not_accepted_yet),
    Story("PATCH refused by the first gate", created, refused),
    Story("PATCH refused by the last gate", begun, refused_at_last),
    Story("DELETE", begun, delete),
    Story("DELETE of nothing", created, delete),
    Story("DELETE of a complete one", complete, delete),
    Story("expiry", begun, expired),
)


async def run(
    story: Story,
    make_site: MakeSite,
    folder: Path,
    *,
    at: int | None = None,
    torn: bool = False,
    proven: bool = False,
) -> list[str]:
    """The story with a crash at the `at`-th call of the part in question, then the proof.

    Returns the calls of that part. Without `at` nothing crashes. `torn`: half of a write gets through.
    `proven`: the store can tell that the process is dead, if it is one that can tell.
    """
    async with make_site(folder) as site:
        host = Host()
        scene = Scene(site, host, Process(site, host, gate=story.gate))
        async with scene.process:
            await story.before(scene)
            await scene.process.settle()
            begin = len(scene.process.faults.calls)
            if at is not None:
                scene.process.faults.crash(at=at, torn=torn)
            await tell(story, scene)
            calls = scene.process.faults.calls[begin:]
            await scene.process.crash(proven=proven)
            await _prove(scene, story)
        return calls


async def tell(story: Story, scene: Scene) -> None:
    """Tell the story to its end or the process's. What the dead were doing may never end by itself."""

    async def to_the_end() -> None:
        await story.during(scene)
        await scene.process.settle()

    telling = asyncio.ensure_future(to_the_end())
    dying = asyncio.ensure_future(scene.process.faults.until_crashed())
    await asyncio.wait({telling, dying}, return_when=asyncio.FIRST_COMPLETED)
    dying.cancel()
    if not scene.process.faults.crashed:
        await telling
        return
    await scene.process.crash()
    with suppress(Crashed, NoResponse, asyncio.CancelledError):
        await telling


async def _prove(scene: Scene, story: Story) -> None:
    """A new process finds everything that was told, and brings the upload to a good end."""
    host, now = scene.host, LoopClock()
    host.first = host.last = "yes"
    async with Process(scene.site, host, gate=story.gate) as after:
        upload = scene.upload or await _found(scene, after)
        if upload is None:
            return  # the crash came before there was anything
        answer = await after.client.head(upload.url)
        if answer.status == 423:  # finishing, under the lease of the dead
            await anyio.sleep(60)
            answer = await after.client.head(upload.url)
        record = await upload.check(scene.site, host, now())
        assert record is not None
        late = record.expires_at is not None and record.expires_at <= now()
        if not upload.ended and not late:
            assert answer.status == 200, f"{answer}"
            assert int(answer.headers["upload-offset"]) == record.offset
            await _finish(upload, after)
            await upload.check(scene.site, host, now())
            assert upload.state is UploadState.COMPLETE
            upload.terminated = True
            assert (await after.client.delete(upload.url)).status == 204
        else:  # what is late is reported as before while the lease of the dead lasts
            assert answer.status == 410 or (late and answer.status == 200), f"{answer}"
        await anyio.sleep(400)
        await after.tus.sweep()
        await upload.check(scene.site, host, now())
        assert upload.state is UploadState.GONE
        assert (await after.client.head(upload.url)).status == 410


async def _found(scene: Scene, process: Process) -> Expected | None:
    """The upload whose creation nobody answered, if it is there."""
    uploads = await process.tus.uploads()
    if not uploads:
        return None
    assert len(uploads) == 1
    length = uploads[0].length
    assert length is not None
    found = Expected(process.tus.url_for(uploads[0]), length)
    if scene.opened:
        found.attempts.append(Attempt(0, scene.opened))
    return found


async def _finish(upload: Expected, process: Process) -> None:
    at = len(upload.known)
    if at == upload.length:
        return
    body = upload.body(999, upload.length - at, at)
    answer = await process.client.append(upload.url, body, at=at)
    assert answer.status == 204, f"{answer}"
    assert int(answer.headers["upload-offset"]) == upload.length
