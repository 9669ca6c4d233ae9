"""An upload in words and in JSON, for those who look after uploads.

Owns which facts are told and how they look on a terminal; opens nothing. `cli_look` and `cli_end` call it.
What clients and hosts wrote is never sent to a terminal as it is: it may have its control characters.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from tusserve import Upload, UploadState
from tusserve.contracts import Held
from tusserve.protocol.records import Json, UploadRecord
from tusserve.upload import Shelf

HEADING: Final = ("ID", "STATE", "DONE", "OFFSET", "LENGTH", "AGE", "RATE", "EXPIRES", "OWNER", "NAME")
_WIDTHS: Final = (-32, -9, 4, 10, 10, 5, 12, 7, -12, 0)
"""Of the columns; below 0: to the left. An id may be longer: then its line is, too."""
_UNKNOWN: Final = "-"
_UNITS: Final = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def summary(record: UploadRecord, shelf: Shelf, now: datetime) -> dict[str, Json]:
    """What a list tells of an upload. Sizes in bytes, `age` in seconds, `rate` in bytes a second over the
    whole age, moments in ISO 8601."""
    return {
        "id": record.id,
        "name": record.name,
        "owner": record.owner,
        "state": record.state.value,
        "reason": None if record.reason is None else record.reason.value,
        "kind": record.kind.value,
        "length": record.length,
        "offset": record.offset,
        "percent": percent(record),
        "filename": Upload(record, shelf).filename,
        "content_type": record.content_type,
        "gated": record.gated,
        "created_at": _iso(record.created_at),
        "completed_at": _iso(record.completed_at),
        "expires_at": _iso(_expiry(record)),
        "age": int((now - record.created_at).total_seconds()),
        "rate": rate(record, now),
    }


def everything(record: UploadRecord, held: Held | None, shelf: Shelf, now: datetime) -> dict[str, Json]:
    """All that is known of one upload: the summary, and what only one at a time is worth."""
    upload = Upload(record, shelf)
    path = upload.local_path() if upload.is_complete else None
    refusal = record.refusal
    return {
        **summary(record, shelf, now),
        "metadata": dict(upload.metadata),
        "attributes": dict(record.attributes),
        "key": record.key,
        "path": None if path is None else str(path),
        "max_size": record.max_size,
        "parts": list(record.parts),
        "refusal": None
        if refusal is None
        else {"status": refusal.status, "code": refusal.code, "message": refusal.message},
        "due_at": _iso(record.due_at),
        "attempts": record.attempts,
        "revision": record.revision,
        "held": held is not None,
        "fence": None if held is None else held.fence.number,
        "cursor": record.cursor,
        "entries": record.entries,
    }


def row(record: UploadRecord, shelf: Shelf, now: datetime) -> str:
    """A line of the list, under `HEADING`."""
    done, speed, expires = percent(record), rate(record, now), _expiry(record)
    return columns(
        (
            record.id,
            record.state.value,
            _UNKNOWN if done is None else f"{done}%",
            size(record.offset),
            _UNKNOWN if record.length is None else size(record.length),
            period((now - record.created_at).total_seconds()),
            _UNKNOWN if speed is None else f"{size(speed)}/s",
            _UNKNOWN if expires is None else period((expires - now).total_seconds()),
            _UNKNOWN if record.owner is None else clean(record.owner),
            clean(Upload(record, shelf).filename or _UNKNOWN),
        )
    )


def columns(cells: Sequence[str]) -> str:
    """One line of the list."""
    padded = [
        cell.ljust(-width) if width <= 0 else cell.rjust(width)
        for cell, width in zip(cells, _WIDTHS, strict=True)
    ]
    return "  ".join(padded).rstrip()


def briefly(record: UploadRecord, shelf: Shelf) -> str:
    """An upload in a few words, for one who is asked whether it may go."""
    name = Upload(record, shelf).filename
    named = "" if name is None else f", {clean(name)}"
    of = "" if record.length is None else f" of {size(record.length)}"
    return f"{record.id}{named}: {record.state.value}, {size(record.offset)}{of}"


def percent(record: UploadRecord) -> int | None:
    """How much of it is there, rounded down: 100 is all. None: its length is not known."""
    if record.length is None:
        return None
    return 100 if record.length == 0 else record.offset * 100 // record.length


def rate(record: UploadRecord, now: datetime) -> int | None:
    """Bytes a second from its creation to its completion, or until now. None: nobody can say."""
    if record.state in {UploadState.ENDING, UploadState.GONE}:
        return None
    seconds = ((record.completed_at or now) - record.created_at).total_seconds()
    return int(record.offset / seconds) if seconds > 0 else None


def size(count: int) -> str:
    """Bytes for people: `17 B`, `4.2 MiB`."""
    if count < 1024:
        return f"{count} B"
    amount = float(count)
    for unit in _UNITS:
        amount /= 1024
        if amount < 1000 or unit == _UNITS[-1]:
            break
    return f"{amount:.1f} {unit}"


def period(seconds: float) -> str:
    """A time for people, in one unit: `45s`, `12m`, `30h`, `6d`. What is over by now is `over`."""
    if seconds < 0:
        return "over"
    for unit, length, until in (("s", 1, 100), ("m", 60, 100), ("h", 3600, 48)):
        if seconds < length * until:
            return f"{int(seconds // length)}{unit}"
    return f"{int(seconds // 86400)}d"


def clean(text: str) -> str:
    """What others wrote, safe for a terminal: without what steers one, or turns the direction of text."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _expiry(record: UploadRecord) -> datetime | None:
    """When it ends if nobody does anything; None also where that is no longer a question."""
    lives = record.state in {UploadState.RECEIVING, UploadState.WAITING}
    return record.expires_at if lives else None


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
