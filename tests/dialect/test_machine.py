"""Any sequence of requests in the second dialect, with cuts, crashes and sweeps, against what was said.

The model is short: the bytes that were committed, and whether somebody said, in a request that came whole,
that they are all. One client at a time, so that each answer can be foretold; clients that meet are the
business of the engine's own machine.
"""

import asyncio
import tempfile
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.dialect.world import Process, progress
from tests.engine.quick_loop import QuickLoop
from tests.engine.world import PAIRS, Host, id_of, site_of
from tusserve.protocol.records import Reason, UploadState
from tusserve.testing.client import NoResponse, Response, Told
from tusserve.testing.faults import Crashed

T = TypeVar("T")

EXAMPLES = {
    ("memory", "memory"): 60,
    ("file", "memory"): 20,
    ("memory", "sqlite"): 10,
    ("file", "sqlite"): 15,
}
SETTINGS = settings(
    stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)

sizes = st.integers(0, 20)
lengths = st.one_of(st.none(), st.integers(0, 20))
cuts = st.one_of(st.none(), st.none(), st.integers(0, 20))
told = st.sampled_from(["auto", None])


@dataclass
class Said:
    """One upload, as its client knows it."""

    url: str
    data: bytes = b""
    length: int | None = None
    complete: bool = False
    ended: bool = False


class SecondDialect(RuleBasedStateMachine):
    """One process after another on one site, one client at a time."""

    pair: ClassVar[tuple[str, str]]
    uploads = Bundle("uploads")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner(loop_factory=QuickLoop)
        self.host = Host()
        self.seed = Random(0)
        self.dead: list[Process] = []  # what they left hanging is not to vanish under them

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize()
    def start(self) -> None:
        async def begin() -> None:
            self.site = site_of(*self.pair, Path(self.folder.name))
            await self.site.__aenter__()
            self.process = await Process(self.site, self.host).__aenter__()

        self.run(begin())

    def teardown(self) -> None:
        async def end() -> None:
            await self.process.__aexit__()
            await self.site.__aexit__()

        try:
            if hasattr(self, "process"):
                self.run(end())
        finally:
            self.runner.close()
            self.folder.cleanup()

    # ---- what a client does

    @rule(target=uploads, size=sizes, length=lengths, ends=st.booleans(), told=told, cut=cuts)
    def create(self, size: int, length: int | None, ends: bool, told: Told, cut: int | None) -> Said | None:
        return self.run(self._create(size, length, ends, told, cut))

    async def _create(
        self, size: int, length: int | None, ends: bool, told: Told, cut: int | None
    ) -> Said | None:
        body = self.seed.randbytes(size)
        cut = cut if size else None
        answer = await self.process.create(ends=ends, length=length, body=body, told=told, cut_after=cut)
        await self.process.settle()
        came = body if cut is None else body[:cut]
        if length is None and ends and told == "auto":
            length = size
        if length == 0 and ends and told is None:
            came, size, cut = b"", 0, None  # it is complete before its body is looked at
        if length is not None and ((told == "auto" and size > length) or len(came) > length):
            assert answer.status == 400, f"{answer}"
            return None
        if ends and length is not None and size != length and (told == "auto" or cut is None):
            assert answer.status == 400, f"{answer}"
            return None
        upload = Said("", length=length)
        self._keep(upload, came, whole=cut is None, ends=ends, gated=True)
        offset = str(len(upload.data))
        assert progress(answer) == (201, offset, "?1" if upload.complete else "?0"), f"{answer}"
        upload.url = answer.headers["location"]
        await self.check(upload)
        return upload

    def _keep(self, upload: Said, came: bytes, *, whole: bool, ends: bool, gated: bool) -> None:
        """What becomes of a body: less than the gate wants to see is kept only whole."""
        least = 4 if upload.length is None else min(4, upload.length)
        if whole or upload.data or len(came) >= least or not gated:
            upload.data += came
        if whole and ends and upload.length in {None, len(upload.data)}:
            upload.complete, upload.length = True, len(upload.data)

    @rule(
        upload=uploads,
        size=sizes,
        ends=st.booleans(),
        told=told,
        cut=cuts,
        miss=st.sampled_from([0, 0, 0, 0, -1, 1]),
        fit=st.sampled_from([True, True, False]),
        length=st.one_of(st.none(), st.none(), lengths),
    )
    def append(
        self,
        upload: Said | None,
        size: int,
        ends: bool,
        told: Told,
        cut: int | None,
        miss: int,
        fit: bool,
        length: int | None,
    ) -> None:
        if upload is not None:
            if fit and upload.length is not None:
                size = upload.length - len(upload.data)
            self.run(self._append(upload, size, ends, told, cut, miss, length))

    async def _append(
        self,
        upload: Said,
        size: int,
        ends: bool,
        told: Told,
        cut: int | None,
        miss: int,
        length: int | None,
    ) -> None:
        at = max(0, len(upload.data) + miss)
        body = self.seed.randbytes(size)
        cut = cut if size else None
        answer = await self.process.append(
            upload.url, body, at=at, ends=ends, length=length, told=told, cut_after=cut
        )
        await self.process.settle()
        came = body if cut is None else body[:cut]
        before = len(upload.data)
        overran = not (upload.ended or upload.complete) and answer.status == 400 and told is None
        if upload.ended:
            assert answer.status == 410, f"{answer}"
        elif upload.complete:
            taken = size if told == "auto" else len(came)
            right = at == before and not taken
            assert answer.status in ({200} if right else {400, 409}), f"{answer}"
        else:
            self._check_append(upload, answer, came, size, ends, told, at, length, whole=cut is None)
        if overran and len(upload.data) == before == at:
            # What a checkpoint had committed by then stays.
            _, upload.data = await self.site.content(id_of(upload.url))
            assert came.startswith(upload.data[before:])
        await self.check(upload)

    def _check_append(
        self,
        upload: Said,
        answer: Response,
        came: bytes,
        size: int,
        ends: bool,
        told: Told,
        at: int,
        length: int | None,
        *,
        whole: bool,
    ) -> None:
        before = len(upload.data)
        final = length if upload.length is None else upload.length
        announced = size if told == "auto" else 0
        contradicts = length is not None and (
            length != upload.length if upload.length is not None else length < before
        )
        too_long = final is not None and at + announced > final
        too_short = ends and told == "auto" and final is not None and at + announced < final
        if contradicts or too_long or at != before or too_short:
            assert answer.status == (409 if not (contradicts or too_long) and at != before else 400), (
                f"{answer}"
            )
            return
        if final is not None and before + len(came) > final:
            assert answer.status == 400, f"{answer}"
            return
        upload.length = final
        self._keep(upload, came, whole=whole, ends=ends, gated=before == 0)
        if not whole:
            assert answer.status == 503, f"{answer}"
        elif ends and not upload.complete:
            assert answer.status == 400, f"{answer}"
        else:
            said = (200, "?1") if upload.complete else (204, "?0")
            assert progress(answer) == (said[0], str(len(upload.data)), said[1]), f"{answer}"

    @rule(upload=uploads)
    def head(self, upload: Said | None) -> None:
        if upload is not None:
            self.run(self._head(upload))

    async def _head(self, upload: Said) -> None:
        answer = await self.process.head(upload.url)
        if upload.ended:
            assert answer.status == 410, f"{answer}"
            return
        assert progress(answer) == (204, str(len(upload.data)), "?1" if upload.complete else "?0")
        assert answer.headers.get("upload-length") == (None if upload.length is None else str(upload.length))

    @rule(upload=uploads, really=st.sampled_from([True, False, False]))
    def delete(self, upload: Said | None, really: bool) -> None:
        if upload is not None and really:
            self.run(self._delete(upload))

    async def _delete(self, upload: Said) -> None:
        answer = await self.process.delete(upload.url)
        assert answer.status == (410 if upload.ended else 204), f"{answer}"
        upload.ended = True
        await self.process.settle()
        await self.check(upload)

    # ---- what the world does

    @rule(upload=uploads, at=st.integers(1, 20), size=sizes)
    def crash_at_the_end(self, upload: Said | None, at: int, size: int) -> None:
        """The process dies somewhere in the request that says that this is all; the next one goes on."""
        if upload is not None and not upload.ended and not upload.complete:
            self.run(self._crash_at_the_end(upload, at, size))

    async def _crash_at_the_end(self, upload: Said, at: int, size: int) -> None:
        before = len(upload.data)
        body = self.seed.randbytes(size if upload.length is None else upload.length - before)
        self.process.faults.crash(at=at)
        asking = asyncio.ensure_future(self.process.append(upload.url, body, at=before, ends=True))
        dying = asyncio.ensure_future(self.process.faults.until_crashed())
        await asyncio.wait({asking, dying}, return_when=asyncio.FIRST_COMPLETED)
        dying.cancel()
        await self.process.crash()
        with suppress(Crashed, NoResponse, asyncio.CancelledError):
            await asking
        await self.process.__aexit__()
        self.dead.append(self.process)
        self.process = await Process(self.site, self.host).__aenter__()
        await self.process.head(upload.url)  # finishes what was decided
        await asyncio.sleep(20)
        await self.process.app.reaper.sweep()
        record, content = await self.site.content(id_of(upload.url))
        assert content in {upload.data + body[:size] for size in range(len(body) + 1)}
        assert record.state in {UploadState.RECEIVING, UploadState.COMPLETE}
        upload.data, upload.length = content, record.length
        upload.complete = record.state is UploadState.COMPLETE
        assert not upload.complete or content.endswith(body), "complete, and not all that was said"
        await self.check(upload, times={1, 2})

    @rule()
    def sweep(self) -> None:
        """Nobody but the client ends an upload that has all of its bytes."""
        report = self.run(self.process.app.reaper.sweep())
        assert report.failed == 0, f"{report}"

    async def check(self, upload: Said, times: set[int] | None = None) -> None:
        id_ = id_of(upload.url)
        record = await self.site.record(id_)
        assert record is not None
        if upload.ended:
            assert record.state is UploadState.GONE
            assert self.host.terminated[id_, Reason.CLIENT] == 1
            assert self.site.leftovers(id_) == []
            return
        record, content = await self.site.content(id_)
        assert (content, record.length) == (upload.data, upload.length)
        assert record.state is (UploadState.COMPLETE if upload.complete else UploadState.RECEIVING)
        asked = self.host.completed[id_]
        assert asked in (times or {1, 2}) if upload.complete else asked == 0, (
            "the host is asked at the real end"
        )


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_only_the_client_says_where_it_ends(pair: tuple[str, str]) -> None:
    machine = type("-".join(pair), (SecondDialect,), {"pair": pair})
    run_state_machine_as_test(machine, settings=settings(SETTINGS, max_examples=EXAMPLES[pair]))
