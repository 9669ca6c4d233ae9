"""Any sequence of what clients, hosts, clocks and crashes do to uploads, and what has to be true after each.

Owns the state machine over the offset protocol; the oracle is `Expected`. `test_machine` runs it on every
storage and store, `test_breakages` on broken ones.
"""

import asyncio
import hashlib
import tempfile
from base64 import b64encode
from collections.abc import Coroutine
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, ClassVar, TypeVar, cast

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, rule

from tests.engine.oracle import Attempt, Expected
from tests.engine.quick_loop import LoopClock, QuickLoop
from tests.engine.world import Host, MakeSite, Process
from tusserve.errors import StorageFull, StorageUnavailable, StoreUnavailable
from tusserve.protocol.records import UploadState
from tusserve.testing.client import HalfOpen, NoResponse, Response
from tusserve.testing.faults import Crashed

T = TypeVar("T")

LONGEST = 40
LIVELY = 70
sizes = st.integers(0, LONGEST)
fits = st.sampled_from([True, True, True, False])
"""Whether a body is made to fit into what is left; the longest then is exactly the rest."""
places = st.integers(0, 1)
"""Which of the two processes a request goes to."""


def checksum(data: bytes) -> dict[str, str]:
    """The header for these bytes."""
    return {"Upload-Checksum": f"sha1 {b64encode(hashlib.sha1(data).digest()).decode()}"}


class Patch:
    """A half-open PATCH, and the attempt that it is."""

    def __init__(
        self,
        upload: Expected,
        attempt: Attempt,
        patch: HalfOpen,
        entered: Any,
        where: int,
        told: int | None,
    ) -> None:
        self.upload, self.attempt, self.patch = upload, attempt, patch
        self.entered, self.where, self.told = entered, where, told
        self.open = True

    def fitting(self, more: bytes) -> bytes:
        """As much of it as a server lets through: no more than the Content-Length."""
        return more if self.told is None else more[: self.told - len(self.attempt.sent)]


class OffsetProtocol(RuleBasedStateMachine):
    """Two processes on one site, any number of clients."""

    make_site: ClassVar[MakeSite]

    uploads = Bundle("uploads")
    patches = Bundle("patches")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner(loop_factory=QuickLoop)
        self.loop = cast("QuickLoop", self.runner.get_loop())
        self.host = Host()
        self.known: list[Expected] = []
        self.open: list[Patch] = []
        self.processes: list[Process] = []
        self.seeds = 0
        self.away = False
        """A fault struck, or a lease is of the dead: requests may fail for now."""

    # ---- the machinery

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize()
    def start(self) -> None:
        async def begin() -> None:
            self.now = LoopClock()
            self.site = type(self).make_site(Path(self.folder.name))
            await self.site.__aenter__()
            for _ in range(2):
                self.processes.append(await Process(self.site, self.host).__aenter__())

        self.run(begin())

    def teardown(self) -> None:
        async def end() -> None:
            for patch in self.open:
                with suppress(Crashed, AssertionError):
                    await patch.entered.__aexit__(None, None, None)
            for process in self.processes:
                await process.__aexit__()
            await self.site.__aexit__()

        try:
            if self.processes:
                self.run(end())
        finally:
            self.runner.close()
            self.folder.cleanup()

    async def request(self, where: int, work: Coroutine[Any, Any, Response]) -> Response | None:
        """The answer; None: the process died over it, and another one is in its place."""
        process = self.processes[where]
        asking = asyncio.ensure_future(work)
        dying = asyncio.ensure_future(process.faults.until_crashed())
        await asyncio.wait({asking, dying}, return_when=asyncio.FIRST_COMPLETED)
        dying.cancel()
        if not process.faults.crashed:
            return await asking
        told = asking.done()  # the answer may have been the last that it did
        await self.replace(where)
        with suppress(Crashed, NoResponse, asyncio.CancelledError):
            answer = await asking
            return answer if told else None
        return None

    async def replace(self, where: int) -> None:
        """The process dies, with all that is open in it; a new one comes in its place."""
        dead = self.processes[where]
        await dead.crash()
        for patch in [patch for patch in self.open if patch.where == where]:
            await self.close(patch)
        await dead.faults.bury()
        self.processes[where] = await Process(self.site, self.host).__aenter__()

    async def close(self, patch: Patch) -> None:
        self.open.remove(patch)
        patch.open = False
        with suppress(Crashed):
            await patch.entered.__aexit__(None, None, None)

    async def check(self, upload: Expected) -> None:
        await upload.check(self.site, self.host, self.now())

    def alone(self, upload: Expected) -> bool:
        return not self.away and not any(patch.upload is upload for patch in self.open)

    def seed(self) -> int:
        self.seeds += 1
        return self.seeds

    # ---- what clients do

    @rule(target=uploads, length=sizes, where=places)
    def create(self, length: int, where: int) -> Expected | None:
        return self.run(self._create(where, length, None))

    @rule(target=uploads, length=sizes, size=sizes, cut=st.none() | sizes, where=places)
    def create_with_bytes(self, length: int, size: int, cut: int | None, where: int) -> Expected | None:
        return self.run(self._create(where, length, size, cut))

    async def _create(
        self, where: int, length: int, size: int | None, cut: int | None = None
    ) -> Expected | None:
        client = self.processes[where].client
        headers = {"Upload-Length": str(length)}
        body = None if size is None else Random(self.seed()).randbytes(size)
        if body is not None:
            headers["Content-Type"] = "application/offset+octet-stream"
        posting = client.request("POST", "/files", headers=headers, body=body, cut_after=cut, chunk_size=3)
        answer = await self.request(where, posting)
        if answer is None or answer.status != 201:
            if answer is not None:
                self._check_refused_creation(answer, length, size or 0)
            return None
        upload = Expected(answer.headers["location"], length)
        if body is not None:
            upload.attempts.append(Attempt(0, body))
        self.known.append(upload)
        await self.check(upload)
        assert int(answer.headers.get("upload-offset", "0")) <= len(upload.known)
        return upload

    def _check_refused_creation(self, answer: Response, length: int, size: int) -> None:
        expected = {413} if size > length else set[int]()
        if size and self.host.first == "no":
            expected.add(415)
        if self.host.last == "no":
            expected.add(415)
        if length == 0 and "not now" in (self.host.first, self.host.last):
            expected.add(503)
        if length == 0 and self.host.first == "no":
            expected.add(415)
        assert self.away or answer.status in expected, f"{answer}"

    @rule(
        upload=uploads,
        size=sizes,
        fit=fits,
        miss=st.sampled_from([0, 0, 0, 1, -1, 7]),
        cut=st.none() | sizes,
        told=st.sampled_from(["auto", "auto", "chunked", "more", "less"]),
        where=places,
    )
    def append(
        self,
        upload: Expected | None,
        size: int,
        fit: bool,
        miss: int,
        cut: int | None,
        told: str,
        where: int,
    ) -> None:
        if upload is not None:
            size = min(size, upload.length - len(upload.known)) if fit else size
            self.run(self._append(upload, where, size, miss, cut, told))

    @rule(
        upload=uploads,
        size=sizes,
        cut=st.none() | sizes,
        told=st.sampled_from(["auto", "chunked"]),
        summed=st.sampled_from(["right", "wrong"]),
        where=places,
    )
    def append_with_checksum(
        self, upload: Expected | None, size: int, cut: int | None, told: str, summed: str, where: int
    ) -> None:
        if upload is not None:
            size = min(size, upload.length - len(upload.known))
            self.run(self._append(upload, where, size, 0, cut, told, summed))

    async def _append(
        self,
        upload: Expected,
        where: int,
        size: int,
        miss: int,
        cut: int | None,
        told: str,
        summed: str = "",
    ) -> None:
        before = len(upload.known)
        at = max(0, before + miss)
        headers = None
        if summed == "wrong":  # noted nowhere: no byte of it may ever be seen
            body = Random(self.seed()).randbytes(size)
            headers = checksum(body + b"?")
        else:
            body = upload.body(self.seed(), size, at, atomic=bool(summed))
            headers = checksum(body) if summed else None
        length = {"chunked": None, "more": size + 3, "less": max(0, size - 2)}.get(told, size)
        alone = self.alone(upload)
        answer = await self.request(
            where,
            self.processes[where].client.append(
                upload.url,
                body,
                at=at,
                headers=headers,
                cut_after=cut,
                content_length=length,
                chunk_size=3,
            ),
        )
        was = upload.state
        await self.check(upload)
        if answer is None:
            return
        came = size if cut is None else min(cut, size)
        self._check_append(upload, answer, before, at, 0 if told == "less" else came)
        assert summed != "wrong" or answer.status != 204, f"taken, and not what was meant: {answer}"
        if alone and was is UploadState.RECEIVING and told == "auto":
            if cut is None:
                self._check_undisturbed(upload, answer, before, at, size, summed)
            elif summed:
                kept = before + size if summed == "right" and cut >= size and at == before else before
                assert len(upload.known) in {before, kept}, "a part was kept of what was not checked"
            elif at == before > 0 and at + size <= upload.length and not upload.ended:
                assert len(upload.known) == before + min(cut, size) or self._late(upload), "what came is kept"

    def _check_append(self, upload: Expected, answer: Response, before: int, at: int, size: int) -> None:
        """What no answer may say, whoever was in the way."""
        offset = answer.headers.get("upload-offset")
        if answer.status == 204:
            assert at >= before or not size, f"bytes were taken at {at}, not at {before}: {answer}"
            assert offset is not None
            assert int(offset) >= at + size or not size, f"acknowledged, and not whole: {answer}"
        if offset is not None and not upload.ended:
            assert before <= int(offset) <= len(upload.known), f"{before}, {len(upload.known)}: {answer}"
        if answer.status >= 500:
            hooks = "not now" in (self.host.first, self.host.last)
            assert answer.status in {503, 507}, f"{answer}"
            assert self.away or hooks, f"for no reason: {answer}"
        if answer.status == 410:
            assert upload.ended or self._late(upload), f"{answer}"
        assert answer.status != 404 or upload.forgotten, f"{answer}"

    def _late(self, upload: Expected) -> bool:
        return upload.expires_at is not None and upload.expires_at <= self.now()

    def _check_undisturbed(
        self, upload: Expected, answer: Response, before: int, at: int, size: int, summed: str = ""
    ) -> None:
        """The only answer, where nobody and nothing is in the way."""
        if at + size > upload.length:
            expected = {413}
        elif at != before:
            expected = {409}
        elif summed == "wrong":
            expected = {460}
        elif size and before == 0 and self.host.first != "yes":
            expected = {415} if self.host.first == "no" else {503}
        elif before + size == upload.length and self.host.last != "yes":
            expected = {415} if self.host.last == "no" else {503}
        else:
            expected = {204}
        if upload.ended or self._late(upload):
            expected.add(410)
        assert answer.status in expected, f"{expected}: {answer}"

    @rule(upload=uploads, where=places)
    def head(self, upload: Expected | None, where: int) -> None:
        if upload is not None:
            self.run(self._head(upload, where))

    async def _head(self, upload: Expected, where: int) -> Response | None:
        before, was = len(upload.known), upload.state
        answer = await self.request(where, self.processes[where].client.head(upload.url))
        await self.check(upload)
        if answer is None:
            return None
        if answer.status == 200:
            assert not upload.ended, f"{answer}"
            assert before <= int(answer.headers["upload-offset"]) <= len(upload.known), f"{answer}"
            assert int(answer.headers["upload-length"]) == upload.length
            if upload.state is not UploadState.COMPLETE:
                assert int(answer.headers["upload-offset"]) < upload.length, "told complete too early"
        else:
            refused = {415} if upload.ended else set()  # by the gate that this HEAD had asked again
            assert answer.status in {404, 410, 423} | refused, f"HEAD is never anything else: {answer}"
            if answer.status == 423:
                assert self.away or UploadState.FINISHING in {was, upload.state}, f"{answer}"
            elif answer.status == 404:
                assert upload.forgotten, f"{answer}"
        return answer

    @rule(upload=uploads, where=places)
    def resume(self, upload: Expected | None, where: int) -> None:
        """What a client does after a cut: HEAD, then PATCH. It must get through, whoever is half open."""
        if upload is not None and not self.away:
            self.run(self._resume(upload, where))

    async def _resume(self, upload: Expected, where: int) -> None:
        looked = await self._head(upload, where)
        if looked is None or looked.status != 200 or upload.state is not UploadState.RECEIVING:
            return
        at = int(looked.headers["upload-offset"])
        size = upload.length - at
        body = upload.body(self.seed(), size, at)
        answer = await self.request(
            where, self.processes[where].client.append(upload.url, body, at=at, chunk_size=7)
        )
        await self.check(upload)
        if answer is not None:
            self._check_undisturbed(upload, answer, at, at, size)

    @rule(upload=uploads, where=places, really=st.sampled_from([True, False, False, False]))
    def delete(self, upload: Expected | None, where: int, really: bool) -> None:
        if upload is not None:
            self.run(self._delete(upload, where) if really else self._head(upload, where))

    async def _delete(self, upload: Expected, where: int) -> None:
        upload.terminated = True
        answer = await self.request(where, self.processes[where].client.delete(upload.url))
        if answer is not None and answer.status == 204:
            upload.ended = True
        await self.check(upload)
        if answer is not None:
            allowed = {204, 404, 410, 423}
            if self.away or self.host.last == "not now":
                allowed.add(503)
            if upload.ended:
                allowed.add(415)  # it was finishing, and the gate refused
            assert answer.status in allowed, f"{answer}"

    # ---- two at once

    @rule(target=patches, upload=uploads, size=sizes, told=st.booleans(), where=places)
    def begin_patch(self, upload: Expected | None, size: int, told: bool, where: int) -> Patch | None:
        return None if upload is None else self.run(self._begin_patch(upload, size, told, where))

    async def _begin_patch(self, upload: Expected, size: int, told: bool, where: int) -> Patch:
        at = len(upload.known)
        attempt = Attempt(at, Random(self.seed()).randbytes(size))
        upload.attempts.append(attempt)
        rest = max(size, upload.length - at) if told else None
        entered = self.processes[where].client.half_open(upload.url, attempt.sent, at=at, content_length=rest)
        patch = Patch(upload, attempt, await entered.__aenter__(), entered, where, rest)
        self.open.append(patch)
        await patch.patch.until_asked()
        await self.check(upload)
        return patch

    @rule(patch=patches, size=sizes)
    def go_on(self, patch: Patch | None, size: int) -> None:
        if patch is not None and patch.open:
            self.run(self._go_on(patch, size))

    async def _go_on(self, patch: Patch, size: int) -> None:
        more = patch.fitting(Random(self.seed()).randbytes(size))
        patch.attempt.sent += more
        await patch.patch.more(more)
        await patch.patch.until_asked()
        await self.check(patch.upload)

    @rule(patch=consumes(patches), how=st.sampled_from(["end", "cut", "cancel"]))
    def stop(self, patch: Patch | None, how: str) -> None:
        if patch is not None and patch.open:
            self.run(self._stop(patch, how))

    async def _stop(self, patch: Patch, how: str) -> None:
        if how == "end":
            patch.patch.end()
        elif how == "cut":
            patch.patch.cut()
        else:
            await patch.patch.cancel()
        with suppress(NoResponse):
            answer = await patch.patch.response()
            if answer.status == 204 and patch.attempt.sent:
                assert int(answer.headers["upload-offset"]) >= patch.attempt.at + len(patch.attempt.sent)
        await self.close(patch)
        await self.processes[patch.where].settle()
        await self.check(patch.upload)

    @rule(upload=uploads, size=st.integers(1, LONGEST))
    def race(self, upload: Expected | None, size: int) -> None:
        """Two clients go on at the same offset at the same time: at most one gets through."""
        if upload is not None:
            self.run(self._race(upload, size))

    async def _race(self, upload: Expected, size: int) -> None:
        before = len(upload.known)
        size = min(size, upload.length - before)
        bodies = [upload.body(self.seed(), size, before) for _ in range(2)]
        answers = await asyncio.gather(
            *(
                self.request(
                    where, self.processes[where].client.append(upload.url, body, at=before, chunk_size=3)
                )
                for where, body in enumerate(bodies)
            )
        )
        await self.check(upload)
        through = [answer for answer in answers if answer is not None and answer.status == 204]
        assert len(through) <= 1 or not size, f"{answers}"
        for answer in answers:
            if answer is not None:
                self._check_append(upload, answer, before, before, size)

    # ---- what the world does

    @rule(where=places)
    def crash(self, where: int) -> None:
        self.run(self.replace(where))

    @rule(
        where=places,
        at=st.integers(1, 25),
        torn=st.booleans(),
        then=st.sampled_from(["append", "append", "append", "delete"]),
        upload=uploads,
        size=sizes,
    )
    def crash_during(
        self, where: int, at: int, torn: bool, then: str, upload: Expected | None, size: int
    ) -> None:
        if upload is None:
            return
        self.run(self._crash_during(where, at, torn, then, upload, size))

    async def _crash_during(
        self, where: int, at: int, torn: bool, then: str, upload: Expected, size: int
    ) -> None:
        process = self.processes[where]
        process.faults.crash(at=at, torn=torn)
        if then == "append":
            size = min(size, upload.length - len(upload.known))
            await self._append(upload, where, size, 0, None, "auto")
        else:
            await self._delete(upload, where)
        if self.processes[where] is process:
            with suppress(Crashed):
                await process.settle()
            process.faults.heal()
            if process.faults.crashed:
                await self.replace(where)

    @rule(
        where=places,
        at=st.integers(1, 12),
        after=st.booleans(),
        on=st.sampled_from(["store.*", "store.commit", "storage.*", "writer.*"]),
        times=st.sampled_from([1, 2, None]),
        upload=uploads,
        size=sizes,
        full=st.booleans(),
    )
    def fail_during(
        self,
        where: int,
        at: int,
        after: bool,
        on: str,
        times: int | None,
        upload: Expected | None,
        size: int,
        full: bool,
    ) -> None:
        """A plug-in fails, or its answer is lost, in the middle of a PATCH."""
        if upload is None:
            return
        error = StoreUnavailable if on.startswith("store.") else (StorageFull if full else StorageUnavailable)
        faults = self.processes[where].faults
        faults.fail(error, on=on, at=at, after=after, times=times)
        self.away = True
        size = min(size, upload.length - len(upload.known))
        try:
            self.run(self._append(upload, where, size, 0, None, "auto"))
            self.run(self._head(upload, where))
        finally:
            faults.heal()
        self.run(self._recover())

    async def _recover(self) -> None:
        """What failed is mended, and leases that nobody could let go have run out."""
        for process in self.processes:
            await process.settle()
        await asyncio.sleep(40)
        for upload in self.known:
            await self.check(upload)
        self.away = False

    @rule(step=st.sampled_from([1, 5, 20, 70, 3600, 3 * 86400, 9 * 86400]))
    def wait(self, step: int) -> None:
        """Time passes, and everybody does what is to be done meanwhile: for as long as a body may be silent.
        What is longer than that passes in one leap, or a stalled process would poll its store for days."""
        self.run(asyncio.sleep(min(step, LIVELY)))
        self.loop.leap(timedelta(seconds=step - min(step, LIVELY)))
        self.run(asyncio.sleep(1))
        self.run(self._check_all())

    @rule(where=places)
    def lose_touch(self, where: int) -> None:
        """One process renews no lease any more, and does not know: others may take over from it."""
        self.processes[where].faults.stall(on="store.renew", times=None)
        self.run(asyncio.sleep(20))
        self.run(self._check_all())

    @rule(where=places)
    def find_touch(self, where: int) -> None:
        """It finds out."""
        self.processes[where].faults.heal()
        self.run(asyncio.sleep(0.1))
        self.run(self._check_all())

    @rule(step=st.sampled_from([3, 16, 90]))
    def stand_still(self, step: int) -> None:
        """Time passes, and both processes sleep through it: their leases run out."""
        self.loop.leap(timedelta(seconds=step))
        self.run(self._check_all())

    async def _check_all(self) -> None:
        for upload in self.known:
            await self.check(upload)

    @rule(where=places)
    def sweep(self, where: int) -> None:
        self.run(self._sweep(where))

    async def _sweep(self, where: int) -> None:
        report = await self.processes[where].tus.sweep()
        assert report.failed == 0, f"{report}"
        await self._check_all()

    @rule(
        first=st.sampled_from(["yes", "yes", "no", "not now"]),
        last=st.sampled_from(["yes", "yes", "no", "not now"]),
        end=st.sampled_from(["yes", "not now"]),
    )
    def change_mind(self, first: str, last: str, end: str) -> None:
        self.host.first, self.host.last, self.host.end = first, last, end
