"""One body on its way into one upload, under one lease: gate, writer, checkpoints, the commit point.

Owns the order in which bytes become durable, then committed, then acknowledged; knows no request and no
dialect. The engine makes one for each body that it takes.
"""

import asyncio
import logging
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Final, TypeAlias

from tusserve.body import HUNG_SECONDS, Limits, Lookout, Pump, ReceiveMessage, Stop
from tusserve.config import Settings
from tusserve.contracts import Durable, Writer
from tusserve.digesting import RunningDigest
from tusserve.endings import Ending, ended_by_storage, identified
from tusserve.errors import StorageFull, StorageUnavailable, TusError
from tusserve.hooks import ForGood, ForNow, Hooks
from tusserve.journal import log_complete
from tusserve.lease import Tenure
from tusserve.protocol import decide, life
from tusserve.protocol.commands import Append
from tusserve.protocol.decide import BodyEnd
from tusserve.protocol.outcomes import Appended, Code, Outcome, Refused, RefusedByHost
from tusserve.protocol.records import Kind, Reason, Refusal, UploadRecord, UploadState
from tusserve.upload import Completed, Progressed, Shelf, Upload

logger = logging.getLogger("tusserve")

MIN_CHECKPOINT: Final = 16 * 1024 * 1024
"""Bytes between two checkpoints; a storage may want more."""

Received: TypeAlias = Outcome | Ending
"""What the client is told; or that the upload has to end."""


class Reception:
    """Takes one body; also the sink that its pump writes to."""

    def __init__(
        self, tenure: Tenure, command: Append, shelf: Shelf, hooks: Hooks, settings: Settings
    ) -> None:
        self._tenure = tenure
        self._command = command
        self._shelf = shelf
        self._hooks = hooks
        self._settings = settings
        self._record: UploadRecord = tenure.record  # with what the gate said, which is not committed yet
        self._opening: AbstractAsyncContextManager[Writer] | None = None
        self._writer: Writer | None = None
        self._added: list[str] = []
        self._ending: Ending | None = None
        self._digest = None if command.digest is None else RunningDigest(command.digest)
        self._verdict: Refused | RefusedByHost | None = None  # of the gate, where it waits for the digest
        self._pump: Pump | None = None

    async def run(self, receive: ReceiveMessage, room: int, lookout: Lookout) -> Received:
        """Take the body and commit what is kept. The lease is let go with that commit, unless the upload is
        now FINISHING or has to end: then the caller goes on under it."""
        limits = Limits(
            room=room,
            expected=self._command.content_length,
            head=self._head_wanted(),
            atomic=self._digest is not None,
            checkpoint_bytes=max(MIN_CHECKPOINT, self._shelf.storage.checkpoint_bytes),
            timeouts=self._settings.timeouts,
        )
        pump = self._pump = Pump(receive, self, limits, lookout, self._tenure.stop_renewing)
        self._tenure.on_ask = pump.asked
        self._tenure.on_lost = lambda: pump.interrupt(Stop.LOST)
        try:
            return await self._take(pump)
        finally:
            self._tenure.on_ask = self._tenure.on_lost = None

    def stop(self, why: Stop) -> None:
        """Stop taking bytes; what came is kept as the reason says."""
        if self._pump is not None:
            self._pump.interrupt(why)

    def _head_wanted(self) -> int:
        gate = self._hooks.has_first_chunk and self._record.kind is not Kind.PARTIAL
        return self._settings.sniff_size if gate and self._record.offset == 0 else 0

    async def _take(self, pump: Pump) -> Received:
        kept: Durable | None = None
        failure: TusError | None = None
        end: BodyEnd | Refused | RefusedByHost = BodyEnd.CUT
        try:
            end = await pump.run()
            if self._digest is not None and isinstance(end, BodyEnd):
                end = self._checked(self._digest, end)
            if isinstance(end, BodyEnd) and self._keeps(end, pump.stop):
                kept = await self._flush_all()
        except TusError as error:
            failure = error
            kept = await self._salvage(error)
        finally:
            await self._leave()
        if self._ending is not None:
            return self._ending
        if not isinstance(end, BodyEnd):
            return end
        if self._tenure.lost or pump.stop is Stop.LOST:
            return Refused(code=Code.UPLOAD_INTERRUPTED)
        if pump.stop is Stop.TERMINATED:
            return Refused(code=Code.UPLOAD_TERMINATED)
        if failure is not None:
            return await self._fail(failure, kept)
        return await self._settle(end, kept, pump.stop)

    def _checked(self, digest: RunningDigest, end: BodyEnd) -> BodyEnd | Refused | RefusedByHost:
        """The end of a body that has a checksum: what the gate said of it counts only if that is right."""
        if end is BodyEnd.WHOLE and digest.matches():
            return self._verdict or end
        self._ending = None
        return BodyEnd.CORRUPT if end is BodyEnd.WHOLE else end

    def _keeps(self, end: BodyEnd, stop: Stop | None) -> bool:
        if stop in {Stop.TERMINATED, Stop.LOST}:
            return False
        if self._digest is not None:
            return end is BodyEnd.WHOLE
        return end is not BodyEnd.OVERRAN

    # ---- what the pump calls

    async def admit(self, head: bytes, *, whole: bool) -> Refused | RefusedByHost | None:
        """Ask the gate: the storage is opened after it, so that a refused upload leaves nothing there."""
        if not self._head_wanted():
            return None
        verdict = await self._through_gate(head, whole=whole)
        if self._digest is None:
            return verdict
        self._verdict = verdict
        return None

    async def _open(self) -> Writer:
        record = self._record
        self._opening = self._shelf.storage.writer(
            self._shelf.place(record), self._shelf.cursor(record), record.offset, self._tenure.lease
        )
        self._tenure.clean = False
        writer = self._writer = await self._opening.__aenter__()
        if writer.opened is not None:
            self._record = replace(record, cursor=writer.opened)
            await self._commit(self._record)
        return writer

    async def _through_gate(self, head: bytes, *, whole: bool) -> Refused | RefusedByHost | None:
        least = self._settings.min_first_chunk
        if whole and len(head) < least:
            refusal = Refusal(
                400, Code.FIRST_CHUNK_TOO_SHORT, f"The first chunk must have at least {least} bytes."
            )
            self._ending = Ending(Reason.REJECTED, RefusedByHost(refusal=refusal), refusal)
            return RefusedByHost(refusal=refusal)
        head = head[: self._settings.sniff_size]
        verdict = await self._hooks.on_first_chunk(Upload(self._record, self._shelf), head)
        if isinstance(verdict, ForNow):
            return verdict.refused
        if isinstance(verdict, ForGood):
            self._ending = Ending(Reason.REJECTED, verdict.refused, verdict.refused.refusal)
            return verdict.refused
        self._record = identified(self._record, verdict)
        return None

    async def write(self, data: bytes) -> None:
        """Hand the bytes to the storage."""
        if self._digest is not None:
            await self._digest.update(data)
        if self._verdict is None:
            await (self._writer or await self._open()).write(data)

    async def checkpoint(self) -> None:
        """Make durable, then commit; never up to the last byte."""
        assert self._writer is not None
        durable = self._remember(await self._writer.flush(False))
        if durable.offset == self._record.length:
            return
        await self._commit(self._advanced(durable))

    # ---- the end of the body

    async def _flush_all(self) -> Durable | None:
        if self._writer is None:
            return None
        hung = asyncio.get_running_loop().call_later(HUNG_SECONDS, self._tenure.stop_renewing)
        try:
            return self._remember(await self._writer.flush(True))
        finally:
            hung.cancel()

    async def _salvage(self, error: TusError) -> Durable | None:
        """After a failed write: as far as the storage can say that bytes are durable, they count."""
        if self._writer is None or self._digest is not None:
            return None
        if not isinstance(error, StorageFull | StorageUnavailable):
            return None
        try:
            return self._remember(await self._writer.flush(False))
        except TusError:
            return None

    async def _leave(self) -> None:
        if self._opening is None or self._writer is None:
            return
        await self._opening.__aexit__(None, None, None)
        self._tenure.clean = self._writer.settled

    def _remember(self, durable: Durable) -> Durable:
        self._added.extend(durable.added)
        return durable

    def _kept(self, durable: Durable) -> life.Kept:
        return life.Kept(
            offset=durable.offset, cursor=durable.state, added=len(self._added), sealed=durable.sealed
        )

    def _advanced(self, durable: Durable) -> UploadRecord:
        return life.advance(
            self._record, self._kept(durable), self._settings.clock(), self._settings.expiring
        )

    async def _commit(self, record: UploadRecord, *, release: bool = False) -> bool:
        added = tuple(self._added) if record.entries else ()  # a sealed state has none
        if not await self._tenure.commit(record, added, release=release):
            return False
        self._added.clear()
        before, self._record = self._record, self._tenure.record
        if self._record.offset > before.offset:
            self._hooks.observe(Progressed(Upload(self._record, self._shelf)))
        if self._record.state is UploadState.COMPLETE:
            self._hooks.observe(Completed(Upload(self._record, self._shelf)))
            log_complete(self._record)
        return True

    async def _settle(self, end: BodyEnd, kept: Durable | None, stop: Stop | None) -> Outcome:
        settled = decide.settle(
            self._record,
            self._command,
            end,
            None if kept is None else self._kept(kept),
            self._settings.clock(),
            self._settings.expiring,
        )
        if settled.record is not None:
            over = settled.record.state is not UploadState.FINISHING
            release = over and (self._writer is None or self._writer.settled)
            if not await self._commit(settled.record, release=release):
                return Refused(code=Code.UPLOAD_INTERRUPTED)
        if isinstance(settled.outcome, Appended):
            return Appended(self._record)
        if stop is Stop.DRAINED and isinstance(settled.outcome, Refused):
            return Refused(code=Code.DRAINING, offset=settled.outcome.offset, retry_after=1)
        return settled.outcome

    async def _fail(self, error: TusError, kept: Durable | None) -> Received:
        """The storage or the store failed: keep what is durable, tell the client to come back."""
        if (ending := ended_by_storage(error)) is not None:
            self._ending = ending
            return ending
        code = Code.STORE_UNAVAILABLE
        if isinstance(error, StorageFull):
            code = Code.STORAGE_FULL
        elif isinstance(error, StorageUnavailable):
            code = Code.STORAGE_UNAVAILABLE
        extra = {"id": self._record.id, "code": code}
        logger.error(
            "upload %s: its body was not kept: %s", self._record.id, error, exc_info=error, extra=extra
        )
        if kept is not None and kept.offset > self._record.offset and kept.offset != self._record.length:
            await self._commit(self._advanced(kept))
        return Refused(code=code, offset=self._record.offset, retry_after=1)
