"""A crash at every call of the contracts while uploads are joined: the same request, or a look, goes on.

The stories end well for whoever repeats them: what was told stays true, a final has the bytes of its parts or
nothing, and in the end nothing is left.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio
import pytest

from tests.engine.crashes import Scene, Story, tell
from tests.engine.world import HEAD, PAIRS, Host, MakeSite, Process, Site, id_of, site_of
from tusserve.protocol.records import Kind, Reason, UploadState
from tusserve.testing.client import Response

pytestmark = pytest.mark.anyio

PIECES = (b"abc", b"defghijkl")
WHOLE = b"".join(PIECES)
PARTIAL = {"Upload-Concat": "partial"}


@dataclass
class Joining(Scene):
    """A scene with parts, and the final that is made of them once somebody was told of it."""

    parts: list[str] = field(default_factory=list)
    final: str | None = None

    async def part(self, number: int) -> None:
        self.parts.append(
            await self.process.client.create("/files", length=len(PIECES[number]), headers=PARTIAL)
        )

    async def fill(self, number: int) -> None:
        answer = await self.process.client.append(self.parts[number], PIECES[number])
        assert answer.status == 204, f"{answer}"

    async def join(self, process: Process | None = None) -> Response:
        named = "final;" + " ".join(self.parts)
        client = (process or self.process).client
        return await client.request("POST", "/files", headers={"Upload-Concat": named})


Step = Callable[[Joining], Awaitable[None]]


async def parts(scene: Joining) -> None:
    for number in range(len(PIECES)):
        await scene.part(number)
        await scene.fill(number)


async def waiting(scene: Joining) -> None:
    await scene.part(0)
    await scene.fill(0)
    await scene.part(1)
    await joined(scene)


async def ready(scene: Joining) -> None:
    await waiting(scene)
    await scene.fill(1)


async def unfinished(scene: Joining) -> None:
    await scene.part(0)
    await scene.part(1)


async def joined(scene: Joining) -> None:
    answer = await scene.join()
    assert answer.status == 201, f"{answer}"
    scene.final = answer.headers["location"]


async def looked_at(scene: Joining) -> None:
    assert scene.final is not None
    assert await scene.process.client.offset(scene.final) == len(WHOLE)


async def swept(scene: Joining) -> None:
    await anyio.sleep(61)
    assert (await scene.process.tus.sweep()).completed == 1


async def refused_for_now(scene: Joining) -> None:
    scene.host.last = "not now"
    assert (await scene.join()).status == 503
    scene.host.last = "yes"
    await anyio.sleep(5)
    await joined(scene)


STORIES: tuple[tuple[str, Step, Step], ...] = (
    ("POST of a final", parts, joined),
    ("POST of a final, not accepted yet", parts, refused_for_now),
    ("POST of a final that waits", unfinished, joined),
    ("HEAD on what waits", ready, looked_at),
    ("sweep of what waits", ready, swept),
)


async def run(
    before: Step,
    during: Step,
    prove: Step,
    make_site: MakeSite,
    folder: Path,
    *,
    at: int | None = None,
    proven: bool = False,
) -> list[str]:
    """The story with a crash at the `at`-th call, then the proof; returns the calls."""
    async with make_site(folder) as site:
        host = Host()
        scene = Joining(site, host, Process(site, host))
        async with scene.process:
            await before(scene)
            await scene.process.settle()
            begin = len(scene.process.faults.calls)
            if at is not None:
                scene.process.faults.crash(at=at)
            await tell(Story("", _nothing, partial(_as_joining, during)), scene)
            calls = scene.process.faults.calls[begin:]
            await scene.process.crash(proven=proven)
            await prove(scene)
        return calls


async def _nothing(scene: Scene) -> None:
    pass


async def _as_joining(step: Step, scene: Scene) -> None:
    assert isinstance(scene, Joining)
    await step(scene)


async def goes_on(scene: Joining) -> None:
    """A new process brings what was told, and the same request, to a good end."""
    async with Process(scene.site, scene.host) as after:
        scene.host.last = "yes"
        for number, url in enumerate(scene.parts):
            if (at := await after.client.offset(url)) < len(PIECES[number]):
                assert (await after.client.append(url, PIECES[number][at:], at=at)).status == 204
        if scene.final is not None:
            await whole(scene, after, scene.final)
        answer = await scene.join(after)
        if answer.status == 503:  # being finished, under the lease of the dead, or not due yet
            await anyio.sleep(60)
            answer = await scene.join(after)
        assert answer.status == 201, f"{answer}"
        await whole(scene, after, answer.headers["location"])
        await after.settle()
        finals = [each for each in await after.tus.uploads() if each.kind is Kind.FINAL]
        assert len(finals) <= 2, "one that was complete and nobody was told of, and one"
        for url in scene.parts:
            assert (await after.client.delete(url)).status == 204
        for final in finals:
            await whole(scene, after, f"/files/{final.id}")
            assert scene.host.completed[final.id] >= 1
            assert {head for whose, head in scene.host.heads if whose == final.id} == {WHOLE[:HEAD]}
            assert (await after.client.delete(f"/files/{final.id}")).status == 204
        await after.settle()
        for each in await after.tus.uploads():
            assert each.state is UploadState.GONE
            assert scene.site.leftovers(each.id) == []


async def whole(scene: Joining, process: Process, url: str) -> None:
    answer = await process.client.head(url)
    if answer.status == 423 or "upload-offset" not in answer.headers:
        await anyio.sleep(60)
        answer = await process.client.head(url)
    assert (answer.status, answer.headers["upload-offset"]) == (200, str(len(WHOLE))), f"{answer}"
    record, content = await scene.site.content(id_of(url))
    assert (record.state, content) == (UploadState.COMPLETE, WHOLE)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: str(story[0]))
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
async def test_a_crash_at_every_call(
    pair: tuple[str, str], story: tuple[str, Step, Step], tmp_path: Path
) -> None:
    make = partial(site_of, *pair)
    _, before, during = story
    calls = await run(before, during, goes_on, make, tmp_path / "no crash")
    assert calls
    for at in range(1, len(calls) + 1):
        await run(before, during, goes_on, make, tmp_path / f"{at}", at=at)
        if pair == ("file", "sqlite"):
            await run(before, during, goes_on, make, tmp_path / f"{at} proven", at=at, proven=True)


async def lost_a_part(scene: Joining) -> None:
    await waiting(scene)
    assert (await scene.process.client.delete(scene.parts[0])).status == 204


async def found_dead(scene: Joining) -> None:
    assert scene.final is not None
    assert (await scene.process.client.head(scene.final)).status == 410


async def is_gone(scene: Joining) -> None:
    assert scene.final is not None
    async with Process(scene.site, scene.host) as after:
        answer = await after.client.head(scene.final)
        if answer.status != 410:  # under the lease of the dead
            await anyio.sleep(60)
            answer = await after.client.head(scene.final)
        assert answer.status == 410, f"{answer}"
        await anyio.sleep(400)
        await after.tus.sweep()
        record = await scene.site.record(id_of(scene.final))
        assert record is not None
        assert (record.state, record.reason) == (UploadState.GONE, Reason.REJECTED)
        assert scene.host.terminated[record.id, Reason.REJECTED] >= 1
        assert scene.host.completed[record.id] == 0
        assert scene.site.leftovers(record.id) == []


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
async def test_a_crash_while_a_final_ends_with_its_part(pair: tuple[str, str], tmp_path: Path) -> None:
    make: Callable[[Path], Site] = partial(site_of, *pair)
    calls = await run(lost_a_part, found_dead, is_gone, make, tmp_path / "no crash")
    assert calls
    for at in range(1, len(calls) + 1):
        await run(lost_a_part, found_dead, is_gone, make, tmp_path / f"{at}", at=at)
