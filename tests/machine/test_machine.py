"""The offset protocol as a machine: clients that are cut off, lie, come in twos, and a process that dies.

Hypothesis plays the clients; what was acknowledged is the oracle. Each pair of storage and store is driven
through the same rules.
"""

import asyncio
import tempfile
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    rule,
    run_state_machine_as_test,
)

from tests.engine.world import id_of
from tusserve import (
    FileStorage,
    MemoryStorage,
    MemoryStore,
    SQLiteStore,
    StorageBackend,
    TusApp,
    Upload,
    UploadState,
    UploadStore,
)
from tusserve.testing import ManualClock, TusClient
from tusserve.testing.faults import Crashed, Faults, faulty_storage, faulty_store

T = TypeVar("T")

LENGTHS: Final = st.integers(0, 60)
STEP: Final = timedelta(hours=20)
AN_AGE: Final = timedelta(days=3)
"""Longer than the idle expiry, shorter than the first one and the tombstone."""


class Model:
    """What a client knows of its upload: its bytes, and how many were acknowledged."""

    def __init__(self, url: str, data: bytes) -> None:
        self.url = url
        self.data = data
        self.acknowledged = 0
        self.sent = 0
        self.gone = False
        self.touched: datetime | None = None

    @property
    def complete(self) -> bool:
        return self.acknowledged == len(self.data)


def _not_of_the_dead(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What the tasks of a process that died would say is of no interest."""
    if not isinstance(context.get("exception"), Crashed):
        loop.default_exception_handler(context)


class OffsetProtocol(RuleBasedStateMachine):
    """One place, one process at a time on it, any number of uploads."""

    pair = ("memory", "memory")
    uploads: Bundle[Model] = Bundle("uploads")

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._runner.get_loop().set_exception_handler(_not_of_the_dead)
        self._folder = tempfile.TemporaryDirectory(prefix="tusserve-machine-")
        self.completed: list[str] = []
        self.clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
        self.store_clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
        self._storage, self._store = MemoryStorage(), MemoryStore(clock=self.store_clock)
        self._left: list[tuple[TusClient, Faults]] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(asyncio.wait_for(work, 60))

    # ---- processes

    @initialize()
    def begin(self) -> None:
        self.run(self._start())

    async def _start(self) -> None:
        self.faults = Faults()
        self.tus = TusApp(
            "/files",
            storage=faulty_storage(self._bytes(), self.faults),
            store=faulty_store(self._records(), self.faults),
            on_complete=self._complete,
            sweep_every=None,
            clock=self.clock,
        )
        self.client = TusClient(self.tus)
        await self.client.__aenter__()

    def _bytes(self) -> StorageBackend:
        if self.pair[0] == "memory":
            return self._storage
        return FileStorage(Path(self._folder.name) / "uploads", durability="none")

    def _records(self) -> UploadStore:
        if self.pair[1] == "memory":
            return self._store
        place = Path(self._folder.name) / "records.db"
        return SQLiteStore(place, durability="none", clock=self.store_clock)

    async def _complete(self, upload: Upload) -> None:
        self.completed.append(upload.id)

    @rule()
    def the_process_dies(self) -> None:
        """Nothing is closed; its leases run out, for nobody can tell that it is dead."""
        self.faults.crash_now()
        self.run(self.client.kill())
        self._left.append((self.client, self.faults))
        self.store_clock.advance(timedelta(seconds=20))
        self.run(self._start())

    @rule()
    def the_process_is_restarted(self) -> None:
        self.run(self.client.__aexit__(None, None, None))
        self.run(self._start())

    # ---- clients

    @rule(target=uploads, length=LENGTHS, first=st.integers(0, 60), seed=st.integers(0, 255))
    def create(self, length: int, first: int, seed: int) -> Model:
        data = bytes((seed + each) % 256 for each in range(length))
        body = data[: min(first, length)]
        headers = {"Upload-Length": str(length)}
        if body:
            headers["Content-Type"] = "application/offset+octet-stream"
        answer = self.run(self.client.request("POST", "/files", headers=headers, body=body or None))
        assert answer.status == 201, answer
        model = Model(answer.headers["location"], data)
        model.sent = len(body)
        self._acknowledge(model, int(answer.headers.get("upload-offset", "0")))
        assert model.acknowledged == len(body)
        return model

    @rule(model=uploads, size=st.integers(0, 60), chunk=st.integers(1, 30))
    def append(self, model: Model, size: int, chunk: int) -> None:
        at = model.acknowledged
        piece = model.data[at : at + size]
        answer = self.run(self.client.append(model.url, piece, at=at, chunk_size=chunk))
        if self._is_gone(model, answer.status):
            return
        assert answer.status == 204, answer
        model.sent = max(model.sent, at + len(piece))
        self._acknowledge(model, int(answer.headers["upload-offset"]))
        assert model.acknowledged == at + len(piece)

    @rule(model=uploads, cut=st.integers(0, 59), chunk=st.integers(1, 30), told=st.booleans())
    def append_and_be_cut_off(self, model: Model, cut: int, chunk: int, told: bool) -> None:
        at, rest = model.acknowledged, model.data[model.acknowledged :]
        if cut >= len(rest):
            return
        answer = self.run(
            self.client.append(
                model.url,
                rest,
                at=at,
                cut_after=cut,
                chunk_size=chunk,
                content_length="auto" if told else None,
            )
        )
        if self._is_gone(model, answer.status):
            return
        assert answer.status == 423, answer
        model.sent = max(model.sent, at + cut)
        self._acknowledge(model, int(answer.headers["upload-offset"]))
        assert model.acknowledged == at + cut, "every byte that came is kept"

    @rule(model=uploads, off=st.integers(-60, 60).filter(bool))
    def append_at_a_wrong_offset(self, model: Model, off: int) -> None:
        at = model.acknowledged + off
        if at < 0:
            return
        answer = self.run(self.client.append(model.url, b"x", at=at))
        if not self._is_gone(model, answer.status):
            assert answer.status in {403, 409, 413}, answer

    @rule(model=uploads, more=st.integers(1, 20), told=st.booleans())
    def append_too_much(self, model: Model, more: int, told: bool) -> None:
        at, rest = model.acknowledged, model.data[model.acknowledged :]
        answer = self.run(
            self.client.append(model.url, rest + b"!" * more, at=at, content_length="auto" if told else None)
        )
        if self._is_gone(model, answer.status):
            return
        assert answer.status == (403 if model.complete else 413), answer
        assert self._offset(model) == at

    @rule(model=uploads, cut=st.integers(0, 30))
    def two_clients(self, model: Model, cut: int) -> None:
        """One holds its connection open and is silent; another comes, and goes on from all that it sent."""
        self.run(self._two_clients(model, cut))

    async def _two_clients(self, model: Model, cut: int) -> None:
        at, rest = model.acknowledged, model.data[model.acknowledged :]
        if len(rest) < 2 or not self._lives(model):
            return
        cut = min(cut, len(rest) - 1)
        async with self.client.half_open(model.url, rest[:cut], at=at, content_length=len(rest)) as stuck:
            await asyncio.sleep(0)
            await asyncio.sleep(0.01)
            offset = await self.client.offset(model.url)
            assert at <= offset <= at + cut
            answer = await self.client.append(model.url, model.data[offset:], at=offset)
            if answer.status == 204:
                model.sent = len(model.data)
                self._acknowledge(model, len(model.data))
            else:
                assert answer.status in {409, 423}, answer
            del stuck
        await self.tus._lifetime._tasks.drained()
        self._acknowledge(model, await self.client.offset(model.url))

    @rule(model=uploads)
    def inspect(self, model: Model) -> None:
        answer = self.run(self.client.head(model.url))
        if self._is_gone(model, answer.status):
            assert "upload-offset" not in answer.headers
            return
        assert answer.status == 200, answer
        assert int(answer.headers["upload-offset"]) == model.acknowledged
        assert int(answer.headers["upload-length"]) == len(model.data)

    @rule(model=consumes(uploads))
    def delete(self, model: Model) -> None:
        answer = self.run(self.client.delete(model.url))
        if not self._is_gone(model, answer.status):
            assert answer.status == 204, answer
        for again in (self.client.head, self.client.delete):
            assert self.run(again(model.url)).status in {404, 410}

    @rule(step=st.sampled_from([STEP, AN_AGE]))
    def time_goes_by(self, step: timedelta) -> None:
        self.clock.advance(step)
        self.store_clock.advance(step)

    @rule()
    def sweep(self) -> None:
        report = self.run(self.tus.sweep())
        assert not report.failed

    # ---- the oracle

    def _acknowledge(self, model: Model, offset: int) -> None:
        assert model.acknowledged <= offset <= model.sent, (model.acknowledged, offset, model.sent)
        if offset > model.acknowledged or model.touched is None:
            model.touched = self.clock()
        model.acknowledged = offset
        if model.complete:
            assert id_of(model.url) in self.completed, "the host was asked before the client was told"

    def _lives(self, model: Model) -> bool:
        age = self.clock() - (model.touched or self.clock())
        lasts = timedelta(days=2) if model.acknowledged else timedelta(days=7)
        return not model.gone and (model.complete or age < lasts)

    def _is_gone(self, model: Model, status: int) -> bool:
        """It is answered as gone exactly if it expired: never one that is complete."""
        if status in {404, 410}:
            assert not self._lives(model), "a living upload is gone"
            model.gone = True
            return True
        assert self._lives(model), "an expired upload lives"
        return False

    def _offset(self, model: Model) -> int:
        return self.run(self.client.offset(model.url))

    async def _content(self, model: Model) -> bytes:
        upload = await self.tus.get(id_of(model.url))
        assert upload is not None
        assert upload.state is UploadState.COMPLETE, upload
        async with upload.open() as pieces:
            return b"".join([piece async for piece in pieces])

    @rule(model=uploads)
    def read(self, model: Model) -> None:
        """The bytes are the bytes, and the host was told, once the upload is complete."""
        if model.complete and not model.gone:
            assert self.run(self._content(model)) == model.data
            assert id_of(model.url) in self.completed

    def teardown(self) -> None:
        if hasattr(self, "client"):
            self.run(self.client.__aexit__(None, None, None))
        for _, faults in self._left:
            self.run(faults.bury())
        self._runner.close()
        self._folder.cleanup()


@pytest.mark.parametrize("store", ["memory", "sqlite"])
@pytest.mark.parametrize("storage", ["memory", "file"])
def test_the_offset_protocol(storage: str, store: str) -> None:
    class Machine(OffsetProtocol):
        pair = (storage, store)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=30,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
