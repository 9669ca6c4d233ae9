"""The end of an upload, good or bad: FINISHING to COMPLETE, and ENDING to GONE.

Owns the two sequences and what each failure in them means; the caller brings the lease and the patience.
Every decision is committed before it is carried out, so a crash repeats it and never forgets it.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from tusserve.config import Settings
from tusserve.errors import (
    CursorLost,
    KeyTaken,
    StorageFull,
    StorageUnavailable,
    StoreUnavailable,
    TusError,
)
from tusserve.hooks import ForGood, ForNow, Hooks
from tusserve.journal import log_complete, log_end
from tusserve.lease import Tenure
from tusserve.protocol import life
from tusserve.protocol.outcomes import Code, Refused, RefusedByHost, Terminated
from tusserve.protocol.records import Kind, Reason, Refusal, UploadRecord
from tusserve.upload import Accepted, Completed, Shelf, Upload
from tusserve.upload import Terminated as TerminatedEvent

logger = logging.getLogger("tusserve")

KEY_TAKEN: Final = Refusal(422, Code.KEY_TAKEN, "Another upload's bytes are already under this key.")
REFUSED_AT_CREATION: Final = {
    Code.BODY_TOO_LONG: Refusal(413, Code.BODY_TOO_LONG, "The body had more bytes than the upload."),
    Code.LENGTH_CONTRADICTED: Refusal(400, Code.LENGTH_CONTRADICTED, "The body was not as long as it said."),
    Code.CHECKSUM_MISMATCH: Refusal(460, Code.CHECKSUM_MISMATCH, "The body was not what its checksum says."),
}
"""What ends an upload that came with such a body: nobody was told that it is there."""


@dataclass(frozen=True, slots=True)
class Ending:
    """The upload has to end, for this reason; the client is told the outcome."""

    reason: Reason
    outcome: Refused | RefusedByHost | Terminated
    refusal: Refusal | None = None


Finished: TypeAlias = UploadRecord | Ending | Refused
"""Complete (the record); to end (and not yet ENDING); or not now, to be tried again."""


def ended_by_storage(error: TusError) -> Ending | None:
    """The end that an upload comes to when its storage says this; None: it lives on."""
    if isinstance(error, KeyTaken):
        return Ending(Reason.REJECTED, RefusedByHost(refusal=KEY_TAKEN), KEY_TAKEN)
    if isinstance(error, CursorLost):
        return Ending(Reason.LOST, Refused(code=Code.UPLOAD_LOST))
    return None


def identified(record: UploadRecord, accepted: Accepted) -> UploadRecord:
    """The record with what a gate said about it."""
    return replace(
        record,
        key=record.key if accepted.key is None else accepted.key,
        content_type=record.content_type if accepted.content_type is None else accepted.content_type,
        attributes={**record.attributes, **accepted.attributes},
    )


class Finisher:
    """Carries uploads to their end, under a lease that the caller holds and lets go."""

    def __init__(self, shelf: Shelf, hooks: Hooks, settings: Settings) -> None:
        self._shelf = shelf
        self._hooks = hooks
        self._settings = settings

    async def finish(self, tenure: Tenure, *, wanted: Callable[[], bool] | None = None) -> Finished:
        """Seal, ask `on_complete`, commit COMPLETE; or postpone, or end.

        `wanted` is asked just before the commit: False ends the upload (HOST), as does any failure for now:
        nobody would come back for it. Returns what became of it; an `Ending` was carried out. Without the
        hooks that the upload needs it stays as it is, and due.
        """
        if self._hooks.are_missing_for(tenure.record):
            return Refused(code=Code.UPLOAD_FINISHING)
        finished = await self._finish(tenure)
        if (
            wanted is not None
            and not isinstance(finished, Ending)
            and not (isinstance(finished, tuple) and wanted())
        ):
            refused = finished if isinstance(finished, Refused) else Refused(code=Code.FINISHING_FAILED)
            finished = Ending(Reason.HOST, refused)
        if isinstance(finished, Ending):
            if not await self.decide_end(tenure, finished.reason, finished.refusal):
                return Refused(code=Code.UPLOAD_INTERRUPTED)
            await self.carry_out_end(tenure)
            return finished
        if isinstance(finished, Refused):
            await tenure.commit(life.postpone(tenure.record, self._settings.clock()), release=True)
            return finished
        return await self._complete(tenure, *finished)

    async def _finish(self, tenure: Tenure) -> tuple[UploadRecord, str] | Ending | Refused:
        """The record and the sealed state with which it may be COMPLETE."""
        if tenure.record.length == 0 and tenure.record.kind is not Kind.PARTIAL:
            verdict = await self._hooks.on_first_chunk(Upload(tenure.record, self._shelf), b"")
            if not isinstance(verdict, Accepted):
                return _refused(verdict)
            record = identified(tenure.record, verdict)
            # The key is committed before anything is put under it, or nobody would find it after a crash.
            if record != tenure.record and not await tenure.commit(record):
                return Refused(code=Code.UPLOAD_INTERRUPTED)
        record = tenure.record
        try:
            sealed = await self._shelf.storage.seal(
                self._shelf.place(record), self._shelf.cursor(record), record.offset
            )
        except (KeyTaken, CursorLost) as error:
            ending = ended_by_storage(error)
            assert ending is not None
            return ending
        except (StorageFull, StorageUnavailable) as error:
            return _storage_failed(record, error)
        if record.kind is not Kind.PARTIAL:
            verdict = await self._hooks.on_complete(Upload(record, self._shelf, sealed))
            if not isinstance(verdict, Accepted):
                return _refused(verdict)
        return record, sealed

    async def _complete(self, tenure: Tenure, record: UploadRecord, sealed: str) -> Finished:
        complete = life.complete(record, sealed, self._settings.clock(), self._settings.expiring)
        if not await tenure.commit(complete):
            return Refused(code=Code.UPLOAD_INTERRUPTED)
        self._hooks.observe(Completed(Upload(tenure.record, self._shelf)))
        log_complete(tenure.record)
        try:
            # Once more, now that the commit is proven: what the sealed state names as trash goes.
            await self._shelf.storage.seal(
                self._shelf.place(tenure.record), self._shelf.cursor(tenure.record), record.offset
            )
        except TusError as error:
            logger.warning(
                "what upload %s left behind is not removed: %s", record.id, error, extra={"id": record.id}
            )
        return tenure.record

    async def decide_end(self, tenure: Tenure, reason: Reason, refusal: Refusal | None = None) -> bool:
        """Commit ENDING: from here on every request is answered as if it were gone."""
        ending = life.end(tenure.record, reason, self._settings.clock(), refusal)
        if not await tenure.commit(ending):
            return False
        self._hooks.observe(TerminatedEvent(Upload(tenure.record, self._shelf), reason))
        log_end(tenure.record, self._settings.clock())
        return True

    async def carry_out_end(self, tenure: Tenure) -> None:
        """Tell the host, discard the bytes, leave a tombstone; or postpone what failed. Without the hooks
        that the upload needs it stays as it is, and due. Raises nothing: that it ends is decided."""
        record = tenure.record
        if self._hooks.are_missing_for(record):
            return
        assert record.reason is not None
        told = await self._hooks.on_terminate(Upload(record, self._shelf), record.reason)
        if told and await self._discard(record):
            after = life.bury(record, self._settings.clock(), self._settings.expiry)
        else:
            after = life.postpone(record, self._settings.clock())
        try:
            await tenure.commit(after, release=True)
        except StoreUnavailable as error:
            logger.error(
                "upload %s ends, and stays due: %s",
                record.id,
                error,
                extra={"id": record.id, "code": Code.STORE_UNAVAILABLE},
            )

    async def _discard(self, record: UploadRecord) -> bool:
        try:
            await self._shelf.storage.discard(self._shelf.place(record), self._shelf.cursor(record))
        except TusError as error:
            _storage_failed(record, error)
            return False
        return True


def _refused(verdict: ForGood | ForNow) -> Ending | Refused:
    if isinstance(verdict, ForNow):
        return verdict.refused
    return Ending(Reason.REJECTED, verdict.refused, verdict.refused.refusal)


def _storage_failed(record: UploadRecord, error: TusError) -> Refused:
    logger.error(
        "the storage failed for upload %s: %s",
        record.id,
        error,
        exc_info=error,
        extra={"id": record.id, "code": Code.STORAGE_UNAVAILABLE},
    )
    code = Code.STORAGE_FULL if isinstance(error, StorageFull) else Code.STORAGE_UNAVAILABLE
    return Refused(code=code, retry_after=1)
