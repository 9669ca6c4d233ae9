"""What may be true of an upload, by what its clients sent and were told.

Owns the model that the tests of the engine compare with: the acknowledged bytes, and the attempts whose fate
nobody was told. Knows nothing of leases, storages or stores; `check` looks at what is committed.
"""

from dataclasses import dataclass, field
from datetime import datetime
from random import Random

from tests.engine.world import Host, Site, id_of
from tusserve.protocol.records import Reason, UploadRecord, UploadState


@dataclass
class Attempt:
    """One body: what was sent, from which offset. No two bodies are alike, so bytes tell who wrote them."""

    at: int
    sent: bytes
    atomic: bool = False
    """It came with its checksum: all of it is kept, or nothing."""

    def explains(self, content: bytes, start: int, stop: int) -> bool:
        """Whether the bytes from `start` to `stop` can be of this body."""
        behind = stop - self.at
        if self.atomic and (start, behind) != (self.at, len(self.sent)):
            return False
        return (
            self.at <= start < stop
            and behind <= len(self.sent)
            and content[self.at : stop] == self.sent[:behind]
        )


@dataclass
class Expected:
    """One upload, as its clients know it."""

    url: str
    length: int
    known: bytes = b""
    """Bytes that were committed when last looked at: none of them may ever change."""
    attempts: list[Attempt] = field(default_factory=list)
    terminated: bool = False
    """A client asked for its end; it may have come."""
    ended: bool = False
    """It is over: nothing brings it back."""
    forgotten: bool = False
    """Even that it ended is forgotten."""
    state: UploadState = UploadState.RECEIVING
    expires_at: datetime | None = None

    @property
    def id(self) -> str:
        return id_of(self.url)

    def body(self, seed: int, size: int, at: int, *, atomic: bool = False) -> bytes:
        """A body of its own, noted as an attempt."""
        sent = Random(f"{self.url} {seed}").randbytes(size)
        self.attempts.append(Attempt(at, sent, atomic))
        return sent

    async def check(self, site: Site, host: Host, now: datetime) -> UploadRecord | None:
        """Compare with what is committed, and learn from it. None: forgotten, which it may be once over."""
        record = await site.record(self.id)
        if record is None:
            assert self.ended, f"{self} vanished"
            self.forgotten = True
            return None
        self.expires_at = record.expires_at
        if record.state in {UploadState.ENDING, UploadState.GONE}:
            self._check_end(record, host, now)
            if record.state is UploadState.GONE:
                assert site.leftovers(self.id) == [], "bytes outlived their upload"
                assert host.terminated[self.id, self._reason(record)] >= 1, "the host was not told of an end"
            self.ended, self.state = True, record.state
            return record
        assert not self.ended, f"{self} came back: {record}"
        record, content = await site.content(self.id)
        self._check_content(record, content)
        if record.state is UploadState.COMPLETE:
            assert host.completed[self.id] >= 1, "complete, and the host was not asked"
        self.known, self.state = content, record.state
        return record

    def _reason(self, record: UploadRecord) -> Reason:
        assert record.reason is not None
        return record.reason

    def _check_end(self, record: UploadRecord, host: Host, now: datetime) -> None:
        match self._reason(record):
            case Reason.CLIENT:
                assert self.terminated, f"nobody terminated {self}"
            case Reason.REJECTED:
                assert self.id in host.refused, f"the host did not refuse {self}"
            case Reason.EXPIRED:
                assert self.state is not UploadState.COMPLETE, "a complete upload expired"
                assert record.expires_at is not None
                assert record.expires_at <= now, "expired before its time"
            case Reason.HOST:
                assert self.length == 0, "only an upload of no bytes ends when the host fails"
            case Reason.LOST:
                raise AssertionError(f"the bytes of {self} are lost")

    def _check_content(self, record: UploadRecord, content: bytes) -> None:
        assert record.length == self.length, f"the length of {self} changed: {record}"
        assert len(content) == record.offset, f"{len(content)} bytes, not {record.offset}: {self}"
        assert record.offset <= self.length, f"more bytes than the upload has: {record}"
        assert content.startswith(self.known), f"acknowledged bytes changed: {self}, {record}, {content!r}"
        assert self._explained(content), f"bytes that nobody sent here: {self}, {record}, {content!r}"
        whole = record.offset == self.length
        if record.state is UploadState.RECEIVING:
            assert not whole, f"every byte is there, and it still wants more: {record}"
        else:
            assert whole, f"{record.state} without all of its bytes: {record}"
        if self.state is not UploadState.RECEIVING:
            assert record.state is not UploadState.RECEIVING, f"it went back to {record.state}"

    def _explained(self, content: bytes) -> bool:
        """Whether what was added is made of pieces of attempts, each of which began where it could."""
        reached = {len(self.known)}
        for start in range(len(self.known), len(content)):
            if start in reached:
                reached |= {
                    stop
                    for attempt in self.attempts
                    for stop in range(start + 1, len(content) + 1)
                    if attempt.explains(content, start, stop)
                }
        return len(content) in reached
