"""What is logged of each upload that came to its end, good or bad, and of each request that was refused.

Owns these lines and their fields; knows records, no request. The finisher, receptions and the ASGI rim write
through it. One line each, at INFO: never metadata, attributes, headers or a body.
"""

import logging
from datetime import datetime

from tusserve.protocol.fields import is_id
from tusserve.protocol.records import UploadRecord

logger = logging.getLogger("tusserve")


def log_complete(record: UploadRecord) -> None:
    """It is sealed and accepted; called once, after that was committed."""
    fields = _fields(record, record.completed_at)
    logger.info("upload %s is complete", record.id, extra=fields)


def log_end(record: UploadRecord, now: datetime) -> None:
    """It was decided that it goes; called once, after that was committed."""
    fields = _fields(record, now)
    if record.refusal is not None:
        fields["code"] = record.refusal.code
    logger.info("upload %s ends: %s", record.id, record.reason, extra={**fields, "reason": record.reason})


def log_refused(method: str, status: int, code: str, id: str | None) -> None:
    """A request got an error for an answer; `id` is whatever its path named."""
    named = id if id is not None and is_id(id) else None
    extra = {"id": named, "code": code, "status": status}
    logger.info("%s was answered with %d %s", method, status, code, extra=extra)


def _fields(record: UploadRecord, until: datetime | None) -> dict[str, object]:
    """`app` is the record's name: `name` is a word that logging keeps for itself."""
    seconds = 0.0 if until is None else (until - record.created_at).total_seconds()
    return {
        "id": record.id,
        "app": record.name,
        "owner": record.owner,
        "bytes": record.offset,
        "seconds": round(max(seconds, 0.0), 3),
    }
