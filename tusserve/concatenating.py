"""Uploads that are made of others: opened, waited for, assembled.

Owns a final upload's way from its request to the finisher, and when its parts are looked at; knows no dialect
and no ASGI. The ASGI rim opens and inspects finals here, the reaper brings those that are due.
"""

from datetime import datetime
from typing import Final

from tusserve.config import Settings
from tusserve.contracts import KnowsIds
from tusserve.endings import Ending
from tusserve.engine import FINISHING, Attempt, Engine, Found
from tusserve.errors import IdTaken
from tusserve.finishing import Finisher
from tusserve.hooks import Hooks, Who
from tusserve.joining import PART_GONE, Joiner
from tusserve.lease import Leases, Tenure
from tusserve.protocol import life
from tusserve.protocol.commands import Create, Inspect
from tusserve.protocol.life import Chore
from tusserve.protocol.outcomes import Code, Created, Inspected, Outcome, Refused, RefusedByHost, Terminated
from tusserve.protocol.parts import Fitness, Parts, final_id
from tusserve.protocol.records import Kind, Reason, Refusal, UploadRecord, UploadState
from tusserve.tasks import Answer, AppTasks
from tusserve.upload import Shelf, new_id

LATER: Final = Refused(code=Code.FINISHING_FAILED, retry_after=1)
"""What a POST is told that could wait no longer: its repetition finds the upload that it began."""
_UNFINISHED: Final = frozenset({UploadState.WAITING, UploadState.FINISHING})
_NOT_YET: Final = frozenset({Code.UPLOAD_FINISHING, Code.UPLOAD_INTERRUPTED})
_ENDED: Final = frozenset({UploadState.ENDING, UploadState.GONE})


class Assembler:
    """The uploads of one app that are made of others."""

    def __init__(
        self,
        engine: Engine,
        shelf: Shelf,
        hooks: Hooks,
        settings: Settings,
        tasks: AppTasks,
        leases: Leases,
    ) -> None:
        self._engine = engine
        self._shelf = shelf
        self._hooks = hooks
        self._settings = settings
        self._tasks = tasks
        self._leases = leases
        self._joiner = Joiner(shelf, hooks, settings)
        self._finisher = Finisher(shelf, hooks, settings)
        self._patience = settings.timeouts.finish_wait.total_seconds()

    # ---- a request for one

    async def open(self, command: Create, who: Who, *, compares: bool) -> UploadRecord | Refused:
        """The record of what `command` asks for, its parts given by their ids; nothing is kept yet. One that
        an earlier request of the same words began, and that is not at its end, is found again.

        `compares`: only parts of the same owner are any.
        """
        upload_id = final_id(self._settings.name, who.owner, command.parts, command.metadata)
        found = await self._shelf.store.get(upload_id)
        now = self._settings.clock()
        if found is not None and _is_begun(found[0], now):
            return found[0]
        storage = self._shelf.storage
        if found is not None or (isinstance(storage, KnowsIds) and await storage.has_bytes(upload_id)):
            upload_id = new_id()
        parts = await self._joiner.look(command.parts, who if compares else None)
        if parts.fitness is Fitness.NEVER:
            return Refused(code=Code.INVALID_PART)
        if (
            parts.fitness is Fitness.UNFINISHED
            and "concatenation-unfinished" not in self._settings.extensions
        ):
            return Refused(code=Code.PART_UNFINISHED)
        if parts.least > self._settings.max_size:
            return Refused(code=Code.UPLOAD_TOO_LARGE)
        record = life.open_upload(
            id=upload_id,
            name=self._settings.name,
            owner=who.owner,
            length=parts.total,
            max_size=self._settings.max_size,
            metadata=command.metadata,
            gated=self._hooks.gated,
            now=now,
            expiry=self._settings.expiring,
            kind=Kind.FINAL,
            parts=command.parts,
            concat=command.concat,
        )
        return record if parts.fitness is Fitness.UNFINISHED else life.assemble(record, parts.least, now)

    async def create(self, record: UploadRecord) -> Outcome:
        """Keep what `open` made, or find what is kept of it, and finish it if its parts are there."""
        if (refused := self._engine.refuse_work(body=False)) is not None:
            return refused
        try:
            kept = await self._engine.keep(record)
            if kept.state is UploadState.WAITING:
                return Created(record=kept)
        except IdTaken:
            found = await self._engine.look(record.id)
            if found is None or found.record.state in _ENDED:
                return LATER  # it ended just now; the next request of these words begins another
            kept = found.record
            if kept.state is UploadState.COMPLETE:
                return Created(record=kept)

        async def work(answer: Answer[Outcome]) -> Outcome:
            answer.at_latest(self._patience, LATER)
            return _created(await self.assemble(kept.id), kept)

        return await self._tasks.answer(work)

    async def inspect(self, command: Inspect, found: Found | None) -> Outcome:
        """How far it is. One that waits is looked at: the request waits for the assembly that it begins."""
        if found is None or found.held is not None or not await self._has_news(found.record):
            return await self._engine.inspect(command, found)

        async def work(answer: Answer[Attempt]) -> Attempt:
            answer.at_latest(self._patience, FINISHING)
            return await self.assemble(command.id) or FINISHING

        attempt = await self._tasks.answer(work)
        return Inspected(attempt) if isinstance(attempt, UploadRecord) else attempt

    async def _has_news(self, record: UploadRecord) -> bool:
        """Whether there is more to do for what waits than to wait. Costs nobody a lease."""
        if record.state is not UploadState.WAITING or self._hooks.are_missing_for(record):
            return False
        if life.is_expired(record, self._settings.clock()):
            return False
        return (await self._joiner.look(record.parts)).fitness is not Fitness.UNFINISHED

    # ---- assembly

    async def assemble(self, id: str, *, due: bool = False) -> Attempt | None:
        """Join this upload's parts if they are there, end it if one never will be; else it waits on. With
        `due` only if it is due, and then it is due again later.

        None: there was nothing to do, or somebody else is at it.
        """
        taken = await self._leases.take(id)
        if not isinstance(taken, Tenure):
            return None
        async with taken as tenure:
            record, now = tenure.record, self._settings.clock()
            if record.state is UploadState.COMPLETE:
                return record
            chore = life.chore(record, now)
            if self._hooks.are_missing_for(record):
                return record if record.state is UploadState.WAITING else None
            if record.state is UploadState.FINISHING:
                return _outcome(await self._finisher.finish(tenure)) if chore is Chore.FINISH else None
            if record.state is not UploadState.WAITING or life.is_expired(record, now) or (due and not chore):
                return None
            parts = await self._joiner.look(record.parts)
            if parts.fitness is Fitness.UNFINISHED:
                if due:
                    await tenure.commit(life.postpone(record, now), release=True)
                return tenure.record
            return await self._decided(tenure, parts)

    async def _decided(self, tenure: Tenure, parts: Parts) -> Attempt:
        record, now = tenure.record, self._settings.clock()
        ending = PART_GONE if parts.fitness is Fitness.NEVER else self._misfit(record, parts.least)
        if ending is None:
            if not await tenure.commit(life.assemble(record, parts.least, now)):
                return Refused(code=Code.UPLOAD_INTERRUPTED)
            return _outcome(await self._finisher.finish(tenure))
        if not await self._finisher.decide_end(tenure, ending.reason, ending.refusal):
            return Refused(code=Code.UPLOAD_INTERRUPTED)
        await self._finisher.carry_out_end(tenure)
        return _outcome(ending)

    def _misfit(self, record: UploadRecord, total: int) -> Ending | None:
        """What was not known when it was opened: whether it has as many bytes as are accepted here."""
        if total > record.max_size:
            code, message = Code.UPLOAD_TOO_LARGE, f"An upload here has at most {record.max_size} bytes."
            return Ending(Reason.REJECTED, Refused(code=code), Refusal(413, code, message))
        least = self._hooks.least(self._settings)
        if total < least:
            code, message = Code.LENGTH_TOO_SHORT, f"An upload here has at least {least} bytes."
            return Ending(Reason.REJECTED, Refused(code=code), Refusal(400, code, message))
        return None


def _is_begun(record: UploadRecord, now: datetime) -> bool:
    if record.kind is not Kind.FINAL or record.state not in _UNFINISHED:
        return False
    return record.state is UploadState.FINISHING or not life.is_expired(record, now)


def _outcome(finished: UploadRecord | Ending | Refused) -> Attempt:
    if not isinstance(finished, Ending):
        return finished
    assert not isinstance(finished.outcome, Terminated), "nothing terminates an upload while it finishes"
    return finished.outcome


def _created(attempt: Attempt | None, kept: UploadRecord) -> Outcome:
    match attempt:
        case UploadRecord():
            return Created(record=attempt)
        case None if kept.state is UploadState.WAITING:
            return Created(record=kept)
        case None:
            return LATER
        case Refused(code=code) if code in _NOT_YET:
            return LATER
        case Refused() | RefusedByHost():
            return attempt
