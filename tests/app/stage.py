"""What the tests of the whole app are made of: an app in memory, plug-ins that note and fail, and the words
for what an answer has to be."""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypedDict, Unpack

from tusserve import (
    Authorize,
    Cors,
    Expiry,
    Extension,
    Observer,
    OnComplete,
    OnCreate,
    OnFirstChunk,
    OnTerminate,
    RenderError,
    Timeouts,
    TusApp,
    Upload,
    UploadState,
)
from tusserve.contracts import (
    Acquired,
    Cursor,
    Durable,
    Fence,
    Held,
    Lease,
    Part,
    Place,
    UploadRecord,
    Writer,
)
from tusserve.protocol.records import Action
from tusserve.storage.memory import MemoryStorage
from tusserve.stores.memory import MemoryStore
from tusserve.testing.client import Response, TusClient
from tusserve.testing.client_exchange import Bell
from tusserve.testing.clock import ManualClock

OCTETS = "application/offset+octet-stream"


class Faults:
    """Notes each call by its name; the next calls of a name raise what `coming[name]` holds, in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.coming: defaultdict[str, list[BaseException]] = defaultdict(list)
        self._bell = Bell()

    def __call__(self, name: str) -> None:
        self.calls.append(name)
        self._bell.ring()
        if self.coming[name]:
            raise self.coming[name].pop(0)

    async def until(self, name: str) -> None:
        """Wait until that was called."""
        await self._bell.until(lambda: name in self.calls)


class NotingStore(MemoryStore):
    """Records in memory; `at` notes the calls and lets them fail before they change anything."""

    def __init__(self, clock: Callable[[], datetime] | None = None) -> None:
        super().__init__(clock)
        self.at = Faults()

    async def create(self, record: UploadRecord) -> UploadRecord:
        self.at("create")
        return await super().create(record)

    async def get(self, id: str) -> tuple[UploadRecord, Held | None] | None:
        self.at("get")
        return await super().get(id)

    async def acquire(
        self, id: str, holder: str, ttl: timedelta, *, steal: Fence | None = None, durable: bool = False
    ) -> Acquired | Held | None:
        self.at("acquire")
        return await super().acquire(id, holder, ttl, steal=steal, durable=durable)

    async def renew(self, leases: Sequence[Lease]) -> Sequence[Lease]:
        self.at("renew")
        return await super().renew(leases)

    async def commit(
        self, lease: Lease, record: UploadRecord, added: Sequence[str] = (), *, release: bool = False
    ) -> UploadRecord | None:
        self.at("commit")
        committed = await super().commit(lease, record, added, release=release)
        self.at("committed")
        return committed

    async def release(self, lease: Lease, *, clean: bool) -> bool:
        self.at("release")
        return await super().release(lease, clean=clean)

    async def ask(self, id: str, fence: Fence, why: Action) -> bool:
        self.at("ask")
        return await super().ask(id, fence, why)

    async def due(self, name: str, now: datetime, limit: int) -> Sequence[UploadRecord]:
        self.at("due")
        return await super().due(name, now, limit)

    async def forget(self, id: str, now: datetime) -> bool:
        self.at("forget")
        return await super().forget(id, now)

    @property
    def records(self) -> dict[str, UploadRecord]:
        """What is kept now."""
        return {key: row.record for key, row in self._rows.items()}


class NotingStorage(MemoryStorage):
    """Bytes in memory; `at` notes the calls and lets them fail before they change anything."""

    def __init__(self) -> None:
        super().__init__()
        self.at = Faults()

    @asynccontextmanager
    async def writer(  # type: ignore[override]  # a writer of our own around theirs
        self, place: Place, cursor: Cursor, at: int, lease: Lease
    ) -> AsyncGenerator[Writer]:
        self.at("open")
        async with super().writer(place, cursor, at, lease) as writer:
            yield _NotingWriter(self.at, writer)
            self.at("leave")

    async def seal(self, place: Place, cursor: Cursor, length: int) -> str:
        self.at("seal")
        return await super().seal(place, cursor, length)

    async def concatenate(self, place: Place, parts: Sequence[Part]) -> str:
        self.at("concatenate")
        return await super().concatenate(place, parts)

    async def discard(self, place: Place, cursor: Cursor) -> None:
        self.at("discard")
        await super().discard(place, cursor)

    @property
    def bytes(self) -> int:
        """How many bytes there are in all, wherever."""
        return sum(len(held) for area in self._areas.values() for held in area.values())

    def lose(self, id: str) -> None:
        """As after a crash of the disk."""
        self._areas[id].clear()


class _NotingWriter:
    def __init__(self, at: Faults, inner: Writer) -> None:
        self._at = at
        self._inner = inner

    @property
    def opened(self) -> str | None:
        return self._inner.opened

    @property
    def settled(self) -> bool:
        return self._inner.settled

    async def write(self, data: bytes) -> None:
        self._at("write")
        await self._inner.write(data)

    async def flush(self, everything: bool) -> Durable:
        self._at("flush" if everything else "checkpoint")
        return await self._inner.flush(everything)


class Options(TypedDict, total=False):
    """What a test may want of its app; see `TusApp`."""

    name: str
    authorize: Authorize | None
    on_create: OnCreate | None
    on_first_chunk: OnFirstChunk | None
    on_complete: OnComplete | None
    on_terminate: OnTerminate | None
    observe: Observer | None
    render_error: RenderError | None
    extensions: Collection[Extension] | None
    max_size: int
    sniff_size: int
    min_first_chunk: int
    max_bodies: int
    expiry: Expiry | None
    sweep_every: timedelta | None
    timeouts: Timeouts
    base_url: str | None
    cors: Cors | Collection[str] | None
    downloads: bool
    idempotent_delete: bool


@dataclass(slots=True)
class Stage:
    """An app in memory that nobody sweeps by itself, and a client of it."""

    tus: TusApp
    client: TusClient
    storage: NotingStorage
    store: NotingStore
    clock: ManualClock

    async def upload(self, url: str) -> Upload:
        """The upload behind this URL."""
        upload = await self.tus.get(id_of(url))
        assert upload is not None, f"nothing is behind {url}"
        return upload

    async def state(self, url: str) -> UploadState:
        """Where it is in its life."""
        return (await self.upload(url)).state

    def kept(self, url: str) -> UploadRecord:
        """Its record."""
        return self.store.records[id_of(url)]

    async def content(self, url: str) -> bytes:
        """The bytes of a complete upload."""
        return await content_of(await self.upload(url))

    async def whole(self, data: bytes, *, headers: Mapping[str, str] | None = None) -> str:
        """A complete upload of these bytes."""
        url = await self.client.create("/files", length=len(data), headers=headers)
        answer = await self.client.append(url, data, headers=headers)
        assert answer.status == 204, answer
        return url

    def nothing_kept(self) -> bool:
        """Whether there is neither a record nor a byte."""
        return not self.store.records and self.storage.bytes == 0


@asynccontextmanager
async def stage(
    *,
    storage: NotingStorage | None = None,
    store: NotingStore | None = None,
    clock: ManualClock | None = None,
    **options: Unpack[Options],
) -> AsyncGenerator[Stage]:
    """An app at `/files`, its lifespan run. Give `storage` and `store` again for another process of it."""
    storage, store, clock = storage or NotingStorage(), store or NotingStore(), clock or ManualClock()
    options.setdefault("sweep_every", None)
    tus = TusApp("/files", storage=storage, store=store, clock=clock, **options)
    async with TusClient(tus) as client:
        yield Stage(tus, client, storage, store, clock)


async def until(holds: Callable[[], bool]) -> None:
    """Let others run until it holds."""
    async with asyncio.timeout(60):
        for pause in itertools.chain(itertools.repeat(0, 100), itertools.repeat(0.002)):
            if holds():
                return
            await asyncio.sleep(pause)


def id_of(url: str) -> str:
    """The id at the end of a URL."""
    return url.rpartition("/")[2]


async def content_of(upload: Upload) -> bytes:
    """All bytes of a complete upload."""
    async with upload.open() as body:
        return b"".join([piece async for piece in body])


def problem(answer: Response) -> dict[str, object]:
    """The problem document of an answer."""
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert isinstance(document, dict)
    return document


def code(answer: Response) -> object:
    """The stable code of a refusal."""
    return problem(answer)["code"]


def assert_refused(answer: Response, status: int, code: str) -> None:
    """The answer is that refusal, with everything that each refusal has."""
    assert answer.status == status, f"{answer.status} {answer.body!r}"
    document = problem(answer)
    assert (document["status"], document["code"]) == (status, code)
    assert str(document["detail"]).endswith("."), "a refusal is a sentence"
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert answer.headers["cache-control"] == "no-store"


def assert_head_refused(answer: Response, status: int) -> None:
    """HEAD was refused: it has no words, and no offset that anybody could take for success."""
    assert answer.status == status
    assert answer.body == b""
    assert "upload-offset" not in answer.headers
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert answer.headers["cache-control"] == "no-store"
