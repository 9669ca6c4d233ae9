"""Uploads on one place, and the processes that come and go there.

Owns `Site` (where bytes and records lie, whoever works on them), `Host` (the hooks of an application that
notes what it was told) and `Process` (an app with a client, which can be killed as a process is killed).
"""

from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final, Self, TypeAlias

import pytest
from starlette.types import ASGIApp

from tests.engine.quick_loop import LoopClock, let_threads_work
from tusserve.asgi import TusApp
from tusserve.contracts import StorageBackend, UploadStore
from tusserve.errors import CursorLost, Rejected
from tusserve.protocol.records import Reason, UploadRecord
from tusserve.storage.file import FileStorage
from tusserve.storage.memory import MemoryStorage
from tusserve.stores.memory import MemoryStore
from tusserve.stores.sqlite import SQLiteStore
from tusserve.testing.client import TusClient
from tusserve.testing.faults import Faults, faulty_storage, faulty_store
from tusserve.upload import Shelf, Upload

STEP: Final = 8
"""Bytes between two checkpoints, in storages that are told so; the engine's own minimum is set to it."""
HEAD: Final = 4
"""Bytes that the first-chunk gate wants to see."""


def prepare(patching: pytest.MonkeyPatch) -> None:
    """Before a world begins: a storage's own wish decides about checkpoints, however small it is, and
    threads have the time that they need."""
    patching.setattr("tusserve.reception.MIN_CHECKPOINT", 1)
    let_threads_work(patching)


class SmallSteps(MemoryStorage):
    @property
    def checkpoint_bytes(self) -> int:
        return STEP


MakeStorage: TypeAlias = Callable[[], StorageBackend]
MakeStore: TypeAlias = Callable[[], UploadStore]
MakeSite: TypeAlias = Callable[[Path], "Site"]


class Site:
    """Bytes and records in one place. Every process opens it anew; what is in memory is shared instead.

    The site looks at what is committed by handles of its own, which never write.
    """

    def __init__(
        self, storage: MakeStorage, store: MakeStore, *, leftovers: Callable[[str], list[str]]
    ) -> None:
        self.storage = storage
        self.store = store
        self.leftovers = leftovers
        """What of an upload's bytes is still there, under whatever name."""
        self._eye = Shelf(storage(), store())
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._eye.store)
        await self._stack.enter_async_context(self._eye.storage)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def record(self, id: str) -> UploadRecord | None:
        """What is committed of an upload."""
        found = await self._eye.store.get(id)
        return None if found is None else found[0]

    async def content(self, id: str) -> tuple[UploadRecord, bytes]:
        """The committed record, and the bytes that it names."""
        while True:
            record = await self.record(id)
            assert record is not None, f"there is no upload {id}"
            try:
                return record, await self._read(record)
            except CursorLost:
                again = await self.record(id)
                assert again is not None
                assert again.revision != record.revision, f"acknowledged bytes of {id} are gone: {record}"

    async def _read(self, record: UploadRecord) -> bytes:
        if record.offset == 0 and not record.cursor:
            return b""
        eye = self._eye
        async with eye.storage.read(eye.place(record), eye.cursor(record), 0, record.offset) as pieces:
            return b"".join([piece async for piece in pieces])


def memory_site(storage: MemoryStorage | None = None, store: MemoryStore | None = None) -> Site:
    """Everything in memory. Parts that are broken on purpose may be given."""
    bytes_ = storage or SmallSteps()
    records = store or MemoryStore(LoopClock())

    def leftovers(id: str) -> list[str]:
        return list(bytes_._areas.get(id, ()))

    return Site(lambda: bytes_, lambda: records, leftovers=leftovers)


def site_of(storage: str, store: str, folder: Path) -> Site:
    """A site by the names of its parts."""
    clock = LoopClock()
    bytes_, records = SmallSteps(), MemoryStore(clock)

    def files() -> StorageBackend:
        return FileStorage(folder / "bytes", durability="none", checkpoint_bytes=STEP, reserve=0, threads=2)

    def in_files(id: str) -> list[str]:
        return [path.name for path in (folder / "bytes").rglob("*") if path.name.startswith(f"{id}.")]

    def in_memory(id: str) -> list[str]:
        return list(bytes_._areas.get(id, ()))

    def database() -> UploadStore:
        folder.mkdir(parents=True, exist_ok=True)
        return SQLiteStore(folder / "records.db", clock=clock, durability="none")

    return Site(
        (lambda: bytes_) if storage == "memory" else files,
        (lambda: records) if store == "memory" else database,
        leftovers=in_memory if storage == "memory" else in_files,
    )


PAIRS: Final = (("memory", "memory"), ("file", "memory"), ("memory", "sqlite"), ("file", "sqlite"))


@dataclass
class Host:
    """An application's hooks. `first` and `last` say what the two gates answer: yes, no, or not now."""

    first: str = "yes"
    last: str = "yes"
    end: str = "yes"
    heads: list[tuple[str, bytes]] = field(default_factory=list)
    completed: Counter[str] = field(default_factory=Counter)
    terminated: Counter[tuple[str, Reason]] = field(default_factory=Counter)
    refused: set[str] = field(default_factory=set)

    async def on_first_chunk(self, upload: Upload, head: bytes) -> None:
        self.heads.append((upload.id, head))
        self._answer(self.first, upload)

    async def on_complete(self, upload: Upload) -> None:
        async with upload.open() as pieces:
            assert sum([len(piece) async for piece in pieces]) == upload.length
        self._answer(self.last, upload)
        self.completed[upload.id] += 1

    async def on_terminate(self, upload: Upload, reason: Reason) -> None:
        if self.end != "yes":
            raise LookupError("the host cannot hear of it now")
        self.terminated[upload.id, reason] += 1

    def _answer(self, verdict: str, upload: Upload) -> None:
        if verdict == "no":
            self.refused.add(upload.id)
            raise Rejected(415, "not_wanted", "The host does not want it.")
        if verdict == "not now":
            raise LookupError("the host has no time")


class Process:
    """One app on a site, with a client of its own. `faults` are those of this process."""

    def __init__(
        self,
        site: Site,
        host: Host,
        *,
        gate: bool = True,
        around: Callable[[ASGIApp], ASGIApp] | None = None,
    ) -> None:
        self.faults = Faults()
        self.tus = TusApp(
            "/files",
            storage=faulty_storage(site.storage(), self.faults),
            store=faulty_store(site.store(), self.faults),
            on_first_chunk=host.on_first_chunk if gate else None,
            on_complete=host.on_complete,
            on_terminate=host.on_terminate,
            sniff_size=HEAD,
            sweep_every=None,
            clock=LoopClock(),
        )
        app: ASGIApp = self.tus
        self.client = TusClient(around(app) if around else app, timeout=3600)

    async def __aenter__(self) -> Self:
        await self.client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.faults.crashed:
            await self.client.kill()
            await self.faults.bury()
        else:
            self.faults.heal()
            await self.client.__aexit__(None, None, None)

    async def crash(self, *, proven: bool = False) -> None:
        """Die, now if not before. Nothing that it left open is closed; but if its death is to be `proven`,
        the store gives back what a kernel takes from the dead."""
        self.faults.crash_now()
        await self.client.kill()
        if proven:
            await self.faults.bury("store")

    async def settle(self) -> None:
        """Wait until the tasks of the app are through with what they began."""
        await self.tus._lifetime._tasks.drained()


def id_of(url: str) -> str:
    return url.rsplit("/", 1)[1]


AGES: Final = timedelta(days=400)
"""Longer than anything lasts."""
