"""Why an upload ends, or is not finished for now: what storages and gates say, as values.

Owns `Ending` and what each failure means; does nothing itself. Receptions, the joiner, the finisher and the
engine ask it.
"""

import logging
from dataclasses import dataclass, replace
from typing import Final

from tusserve.errors import CursorLost, KeyTaken, StorageFull, TusError
from tusserve.hooks import ForGood, ForNow
from tusserve.protocol.outcomes import Code, Refused, RefusedByHost, Terminated
from tusserve.protocol.records import Reason, Refusal, UploadRecord
from tusserve.upload import Accepted

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


def refused_by_gate(verdict: ForGood | ForNow) -> Ending | Refused:
    """What a gate's refusal means for an upload that is being finished."""
    if isinstance(verdict, ForNow):
        return verdict.refused
    return Ending(Reason.REJECTED, verdict.refused, verdict.refused.refusal)


def storage_failed(record: UploadRecord, error: TusError) -> Refused:
    """The storage failed for now: logged, and said."""
    logger.error(
        "the storage failed for upload %s: %s",
        record.id,
        error,
        exc_info=error,
        extra={"id": record.id, "code": Code.STORAGE_UNAVAILABLE},
    )
    code = Code.STORAGE_FULL if isinstance(error, StorageFull) else Code.STORAGE_UNAVAILABLE
    return Refused(code=code, retry_after=1)
