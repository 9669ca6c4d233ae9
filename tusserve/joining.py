"""To join the parts of a concatenation: what they are now, the gate over their head, the storage's work.

Owns these steps and what each failure in them means; the caller brings the lease. Knows no request and no
dialect. The finisher calls `join`, the assembler `look`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from tusserve.config import Settings
from tusserve.contracts import Concatenates, Part
from tusserve.endings import Ending, ended_by_storage, identified, refused_by_gate, storage_failed
from tusserve.errors import CursorLost, KeyTaken, StorageFull, StorageUnavailable
from tusserve.hooks import Hooks, Who
from tusserve.lease import Tenure
from tusserve.protocol.outcomes import Code, Refused
from tusserve.protocol.parts import Fitness, Parts, fitness
from tusserve.protocol.records import Reason, Refusal, UploadRecord
from tusserve.upload import Accepted, Shelf, Upload

_GONE: Final = Refusal(410, Code.PART_GONE, "A part was gone before the upload could be made of it.")
PART_GONE: Final = Ending(Reason.REJECTED, Refused(code=Code.PART_GONE), _GONE)
"""A part died: nothing can come of the whole any more."""


class Joiner:
    """Joins parts, under the lease of what is made of them."""

    def __init__(self, shelf: Shelf, hooks: Hooks, settings: Settings) -> None:
        self._shelf = shelf
        self._hooks = hooks
        self._settings = settings

    async def look(self, ids: Sequence[str], who: Who | None = None) -> Parts:
        """The parts as they are committed. With `who` only those of that owner are any."""
        now = self._settings.clock()
        worst = Fitness.READY
        seen: dict[str, UploadRecord] = {}
        for part_id in dict.fromkeys(ids):
            part, held = await self._shelf.store.get(part_id) or (None, None)
            fit = fitness(part, self._settings.name, now, held=held is not None)
            if part is None or fit is Fitness.NEVER or (who is not None and part.owner != who.owner):
                return Parts(Fitness.NEVER)
            if fit is Fitness.UNFINISHED:
                worst = fit
            seen[part_id] = part
        return Parts(worst, tuple(seen[part_id] for part_id in ids))

    async def join(self, tenure: Tenure) -> Ending | Refused | None:
        """Ask the gate, join, and commit that it is joined: from then on the upload depends on no part.

        None: it is. Any step may be repeated after a crash; the gate is not asked again once it is joined.
        """
        record, storage = tenure.record, self._shelf.storage
        if not isinstance(storage, Concatenates):
            return storage_failed(record, StorageUnavailable("this storage cannot join uploads"))
        parts = await self.look(record.parts)
        if parts.fitness is not Fitness.READY:
            return PART_GONE
        try:
            if (refused := await self._ask_gate(tenure, parts)) is not None:
                return refused
            place = self._shelf.place(tenure.record)
            sealed = await storage.concatenate(
                place, [Part(self._shelf.place(part), part.cursor, part.offset) for part in parts.records]
            )
        except CursorLost as error:
            # Somebody may have ended a part just now. If not, the storage has lost it.
            again = await self.look(record.parts)
            return PART_GONE if again.fitness is Fitness.NEVER else ended_by_storage(error)
        except KeyTaken as error:
            return ended_by_storage(error)
        except (StorageFull, StorageUnavailable) as error:
            return storage_failed(record, error)
        if not await tenure.commit(replace(tenure.record, cursor=sealed)):
            return Refused(code=Code.UPLOAD_INTERRUPTED)
        return None

    async def _ask_gate(self, tenure: Tenure, parts: Parts) -> Ending | Refused | None:
        if not self._hooks.has_first_chunk:
            return None
        head = await self._head(parts)
        verdict = await self._hooks.on_first_chunk(Upload(tenure.record, self._shelf), head)
        if not isinstance(verdict, Accepted):
            return refused_by_gate(verdict)
        record = identified(tenure.record, verdict)
        # The key is committed before anything is put under it, or nobody would find it after a crash.
        if record != tenure.record and not await tenure.commit(record):
            return Refused(code=Code.UPLOAD_INTERRUPTED)
        return None

    async def _head(self, parts: Parts) -> bytes:
        """The first bytes of what the parts will be."""
        head = bytearray()
        for part in parts.records:
            wanted = min(self._settings.sniff_size - len(head), part.offset)
            if not wanted:
                continue
            place, cursor = self._shelf.place(part), self._shelf.cursor(part)
            async with self._shelf.storage.read(place, cursor, 0, wanted) as pieces:
                async for piece in pieces:
                    head += piece
            if len(head) >= self._settings.sniff_size:
                break
        return bytes(head)
