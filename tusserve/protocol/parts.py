"""What a concatenation is made of: which uploads may be parts, and what they come to together.

Owns the judgement of each part and the id of what is joined. Pure: no I/O, no header. The room that joins
uploads calls it, with the records that it read.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import assert_never

from tusserve.protocol.records import Kind, UploadRecord, UploadState


class Fitness(StrEnum):
    """Whether something can be made of an upload."""

    READY = "READY"
    UNFINISHED = "UNFINISHED"
    """Not yet: its bytes are not all there, or it is still being finished."""
    NEVER = "NEVER"
    """It is gone, goes, or never was a part."""


def fitness(part: UploadRecord | None, name: str, now: datetime, *, held: bool = False) -> Fitness:
    """What an upload is to a concatenation of the app `name`; None: there is no such upload. `held`: somebody
    works on it, whose next commit renews its expiry."""
    if part is None or part.name != name or part.kind is not Kind.PARTIAL:
        return Fitness.NEVER
    match part.state:
        case UploadState.COMPLETE | UploadState.RECEIVING:
            if part.expires_at is not None and part.expires_at <= now and not held:
                return Fitness.NEVER
            return Fitness.READY if part.state is UploadState.COMPLETE else Fitness.UNFINISHED
        case UploadState.FINISHING:
            return Fitness.UNFINISHED
        case UploadState.WAITING | UploadState.ENDING | UploadState.GONE:
            return Fitness.NEVER
        case _:
            assert_never(part.state)


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a concatenation as they are now, in order; the records only where every one is usable."""

    fitness: Fitness
    """That of the worst of them."""
    records: tuple[UploadRecord, ...] = ()

    @property
    def total(self) -> int | None:
        """How many bytes they have together; None while that of one is not known."""
        lengths = [part.length for part in self.records]
        known = [length for length in lengths if length is not None]
        return sum(known) if len(known) == len(lengths) else None

    @property
    def least(self) -> int:
        """How many bytes they have together at least."""
        return sum(part.offset if part.length is None else part.length for part in self.records)


def final_id(name: str, owner: str | None, parts: Sequence[str], metadata: str | None) -> str:
    """The id of a concatenation: the same for the same request, so that one that is repeated, because its
    answer was lost or was not yet, finds what it began."""
    told = json.dumps([name, owner, list(parts), metadata], separators=(",", ":"))
    return sha256(told.encode()).hexdigest()[:32]
