"""The engine: one path for each command, from the plain read to the answer.

Owns the order of plan, lease, body, commit, finish and end, and who waits how long for what; knows no dialect
and no ASGI. `TusApp` calls it, and the reaper for what is due.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias, assert_never

from tusserve.body import Lookout, ReceiveMessage, Stop, is_empty
from tusserve.config import Settings
from tusserve.contracts import Held
from tusserve.endings import REFUSED_AT_CREATION, Ending
from tusserve.errors import StoreUnavailable
from tusserve.finishing import Finisher
from tusserve.hooks import Hooks
from tusserve.lease import Leases, Locked, Tenure
from tusserve.protocol import decide, life
from tusserve.protocol.commands import Append, Command, Create, Inspect, Terminate
from tusserve.protocol.life import Chore
from tusserve.protocol.outcomes import (
    Appended,
    Code,
    Created,
    Inspected,
    Outcome,
    Refused,
    RefusedByHost,
    Terminated,
)
from tusserve.protocol.records import Action, Reason, Refusal, UploadRecord, UploadState
from tusserve.reception import Reception
from tusserve.tasks import Answer, AppTasks
from tusserve.upload import Created as CreatedEvent
from tusserve.upload import Shelf, Upload

logger = logging.getLogger("tusserve")

FINISHING: Final = Refused(code=Code.UPLOAD_FINISHING, retry_after=2)
LOCKED: Final = Refused(code=Code.UPLOAD_LOCKED, retry_after=1)
NOT_FOUND: Final = Refused(code=Code.UPLOAD_NOT_FOUND)
TERMINATED: Final = Refused(code=Code.UPLOAD_TERMINATED)


@dataclass(frozen=True, slots=True)
class Found:
    """An upload as a plain read showed it, and who holds it."""

    record: UploadRecord
    held: Held | None


Attempt: TypeAlias = UploadRecord | Refused | RefusedByHost
"""What an attempt to finish came to: complete, or the client's answer."""


class Engine:
    """Everything that happens to the uploads of one app in this process."""

    def __init__(
        self, shelf: Shelf, hooks: Hooks, settings: Settings, tasks: AppTasks, leases: Leases
    ) -> None:
        self._shelf = shelf
        self._hooks = hooks
        self._settings = settings
        self._tasks = tasks
        self._leases = leases
        self._finisher = Finisher(shelf, hooks, settings)
        self._lookout = Lookout()
        self._bodies = 0
        self._draining = False
        self._patience = settings.timeouts.finish_wait.total_seconds()

    # ---- reading

    async def look(self, id: str) -> Found | None:
        """The upload of this app, without disturbing anybody. Another app's is none."""
        got = await self._shelf.store.get(id)
        if got is None or got[0].name != self._settings.name:
            return None
        return Found(*got)

    def _plan(self, found: Found | None, command: Command) -> decide.Plan:
        record = None if found is None else found.record
        held = found is not None and found.held is not None
        return decide.plan(record, command, self._settings.clock(), held=held)

    async def inspect(self, command: Inspect, found: Found | None) -> Outcome:
        """How far it is, by what is committed after a live writer was asked for a checkpoint."""
        plan = self._plan(found, command)
        if found is not None and found.held is not None and found.record.state is UploadState.RECEIVING:
            looked = await self._leases.look(found.record, found.held)
            found = None if looked is None else Found(*looked)
            plan = self._plan(found, command)
        if isinstance(plan, Refused):
            return plan
        if isinstance(plan, decide.Finish):
            attempt = await self._retry_finish(command.id)
            return Inspected(attempt) if isinstance(attempt, UploadRecord) else attempt
        assert found is not None
        return Inspected(found.record)

    # ---- appending

    def refuse_work(self, *, body: bool) -> Refused | None:
        """Whether nothing is begun now, or (`body`) no further body is taken, whatever it belongs to."""
        if self._draining:
            return Refused(code=Code.DRAINING, retry_after=1)
        if body and self._bodies >= self._settings.max_bodies:
            return Refused(code=Code.TOO_MANY_UPLOADS, retry_after=1)
        return None

    async def append(self, command: Append, found: Found | None, receive: ReceiveMessage) -> Outcome:
        """Take the body of a PATCH."""
        plan = self._plan(found, command)
        if isinstance(plan, decide.Finish):
            attempt = await self._retry_finish(command.id)
            if not isinstance(attempt, UploadRecord):
                return attempt
            plan = self._plan(Found(attempt, None), command)
            found = Found(attempt, None)
        match plan:
            case Refused() as refused:
                return refused
            case decide.Report():
                assert found is not None
                return Appended(found.record)
            case decide.ReportIfEmpty():
                assert found is not None
                empty = await is_empty(receive, self._settings.timeouts.idle)
                return Appended(found.record) if empty else Refused(code=Code.UPLOAD_COMPLETE)
            case decide.Receive():
                assert found is not None
                return (
                    self._hooks.refuse_unseen(found.record)
                    or self.refuse_work(body=True)
                    or await self._take_body(command, receive)
                )
            case decide.Finish() | decide.End():
                return FINISHING
            case _:
                assert_never(plan)

    async def _take_body(self, command: Append, receive: ReceiveMessage) -> Outcome:
        current: list[Reception] = []

        def left() -> None:
            for reception in current:
                reception.stop(Stop.LEFT)

        async def work(answer: Answer[Outcome]) -> Outcome:
            try:
                told = await self._append(command, receive, answer, current.append)
                return told if told != TERMINATED else await self._stopped_for_end(command.id)
            except StoreUnavailable as error:
                return _store_failed(command.id, error)

        def over() -> None:
            self._bodies -= 1

        self._bodies += 1  # at once, not when the task begins, and it may end before that: `over` is told
        return await self._tasks.answer(work, left=left, over=over)

    async def _append(
        self,
        command: Append,
        receive: ReceiveMessage,
        answer: Answer[Outcome],
        announce: Callable[[Reception], None],
    ) -> Outcome:
        """Under a lease from here on; in a task of the app, so that nobody's cancellation reaches it."""
        taken = await self._leases.take_over(command.id, Action.APPEND)
        if not isinstance(taken, Tenure):
            return await self._locked_out(taken, command)
        async with taken as tenure:
            # The wait for the lease may have been long: who cannot be answered, or may not go on, ends here.
            if not answer.awaited:
                return Refused(code=Code.UPLOAD_INTERRUPTED)
            if (refused := self.refuse_work(body=False)) is not None:
                return refused
            plan = self._plan(Found(tenure.record, None), command)
            if not isinstance(plan, decide.Receive):
                return _instead_of_body(plan, tenure.record)
            reception = Reception(tenure, command, self._shelf, self._hooks, self._settings)
            announce(reception)
            received = await reception.run(receive, plan.room, self._lookout)
            if isinstance(received, Ending):
                return await self._end(tenure, received, answer)
            if tenure.record.state is UploadState.FINISHING and not tenure.lost:
                answer.at_latest(self._patience, FINISHING)
                finished = await self._finish(tenure)
                return Appended(finished) if isinstance(finished, UploadRecord) else finished
            return received

    async def _stopped_for_end(self, id: str) -> Refused:
        """Told by the record: who asked for the end may have given up while a storage or hook was busy."""
        record = await self._leases.await_end(id)
        if record is not None and record.state not in {UploadState.ENDING, UploadState.GONE}:
            return Refused(code=Code.UPLOAD_INTERRUPTED, offset=record.offset, retry_after=1)
        return TERMINATED

    async def _locked_out(self, taken: Locked | None, command: Append | Terminate) -> Outcome:
        """Somebody else keeps it: as it is now, if it is about to finish or to end; else it is locked."""
        if taken is None:
            return NOT_FOUND
        found = await self.look(command.id)
        if found is not None and found.record.state is UploadState.RECEIVING:
            return LOCKED
        plan = self._plan(found, command)
        return plan if isinstance(plan, Refused) else LOCKED

    # ---- creating

    async def keep(self, record: UploadRecord) -> UploadRecord:
        """Keep a new record. Raises `IdTaken`."""
        kept = await self._shelf.store.create(record)
        self._hooks.observe(CreatedEvent(Upload(kept, self._shelf)))
        return kept

    async def create(self, record: UploadRecord, command: Create, receive: ReceiveMessage) -> Outcome:
        """Keep a new record and take the body that came with it. `IdTaken` as the store says."""
        # Once more: the host's hook may have taken its time.
        if (refused := self.refuse_work(body=command.carries_body)) is not None:
            return refused
        self._bodies += command.carries_body
        try:
            record = await self.keep(record)
        finally:
            self._bodies -= command.carries_body
        if record.state is UploadState.FINISHING:
            return await self._finish_empty(record)
        if not command.carries_body:
            return Created(record=record)
        append = Append(
            id=record.id,
            offset=0,
            content_length=command.content_length,
            ends=command.ends,
            digest=command.digest,
        )
        outcome = await self._take_body(append, receive)
        match outcome:
            case Appended(record=appended):
                return Created(record=appended)
            case RefusedByHost():
                return outcome
            case Refused(code=code) if code in REFUSED_AT_CREATION:
                await self.terminate(record.id, Reason.REJECTED, REFUSED_AT_CREATION[code])
                return outcome
            case _:
                # The upload is there, so the client must learn where; it goes on from the committed offset.
                found = await self.look(record.id)
                if found is None or found.record.state in {UploadState.ENDING, UploadState.GONE}:
                    return outcome
                return Created(record=found.record)

    async def _finish_empty(self, record: UploadRecord) -> Outcome:
        """An upload of no bytes: its 201 is all that a client looks at, so it has to be true."""

        async def work(answer: Answer[Outcome]) -> Outcome:
            taken = await self._leases.take(record.id)
            if not isinstance(taken, Tenure):
                return Refused(code=Code.FINISHING_FAILED, retry_after=1)
            async with taken as tenure:
                late = Refused(code=Code.FINISHING_FAILED, retry_after=1)
                answer.at_latest(self._patience, late)
                finished = await self._finish(tenure, wanted=lambda: not answer.given)
                return Created(record=finished) if isinstance(finished, UploadRecord) else finished

        return await self._tasks.answer(work)

    # ---- finishing and ending

    async def _finish(self, tenure: Tenure, *, wanted: Callable[[], bool] | None = None) -> Attempt:
        finished = await self._finisher.finish(tenure, wanted=wanted)
        if not isinstance(finished, Ending):
            return finished
        assert not isinstance(finished.outcome, Terminated), "nothing terminates an upload while it finishes"
        return finished.outcome

    async def _retry_finish(self, id: str) -> Attempt:
        """Finishing is due: try it, wait for it a while."""

        async def work(answer: Answer[Attempt]) -> Attempt:
            answer.at_latest(self._patience, FINISHING)
            return await self.finish_due(id) or FINISHING

        return await self._tasks.answer(work)

    async def finish_due(self, id: str) -> Attempt | None:
        """Finish this upload if it is due and nobody is at it; None: there was nothing to do."""
        taken = await self._leases.take(id)
        if not isinstance(taken, Tenure):
            return None
        async with taken as tenure:
            record = tenure.record
            if record.state is UploadState.COMPLETE:
                return record
            if life.chore(record, self._settings.clock()) is not Chore.FINISH:
                return None
            return await self._finish(tenure)

    async def end_due(self, id: str, wanted: Chore) -> UploadState | None:
        """Expire this upload or go on ending it, if that is still due; the state it is in now."""
        taken = await self._leases.take(id)
        if not isinstance(taken, Tenure):
            return None
        async with taken as tenure:
            if life.chore(tenure.record, self._settings.clock()) is not wanted:
                return None
            if wanted is Chore.EXPIRE:
                await self._finisher.decide_end(tenure, Reason.EXPIRED)
            if not tenure.lost:
                await self._finisher.carry_out_end(tenure)
            return tenure.record.state

    async def _end(self, tenure: Tenure, ending: Ending, answer: Answer[Outcome]) -> Outcome:
        if not await self._finisher.decide_end(tenure, ending.reason, ending.refusal):
            return LOCKED
        answer.at_latest(self._patience, ending.outcome)
        await self._finisher.carry_out_end(tenure)
        return ending.outcome

    async def terminate(
        self, id: str, reason: Reason, refusal: Refusal | None = None
    ) -> Terminated | Refused | RefusedByHost:
        """End this upload, whoever writes to it."""
        command = Terminate(id=id)
        found = await self.look(id)
        if isinstance(self._plan(found, command), decide.Finish):
            attempt = await self._retry_finish(id)
            if not isinstance(attempt, UploadRecord):
                return attempt
            found = await self.look(id)
        plan = self._plan(found, command)
        if isinstance(plan, Refused):
            return plan
        if not isinstance(plan, decide.End):
            return FINISHING

        async def work(answer: Answer[Outcome]) -> Outcome:
            try:
                return await self._terminate(command, Ending(reason, Terminated(), refusal), answer)
            except StoreUnavailable as error:
                return _store_failed(id, error)

        outcome = await self._tasks.answer(work)
        assert isinstance(outcome, Terminated | Refused | RefusedByHost)
        return outcome

    async def _terminate(self, command: Terminate, ending: Ending, answer: Answer[Outcome]) -> Outcome:
        taken = await self._leases.take_over(command.id, Action.TERMINATE)
        if not isinstance(taken, Tenure):
            return await self._locked_out(taken, command)
        async with taken as tenure:
            plan = self._plan(Found(tenure.record, None), command)
            if isinstance(plan, Refused):
                return plan
            if not isinstance(plan, decide.End):
                return FINISHING
            return await self._end(tenure, ending, answer)

    # ---- draining

    def open(self) -> None:
        """From now on bodies are taken (again)."""
        self._draining = False

    def drain(self) -> None:
        """From now on no body is taken; those that come in are let go, committed and answered."""
        self._draining = True
        self._lookout.interrupt_all(Stop.DRAINED)


def _instead_of_body(plan: decide.Plan, record: UploadRecord) -> Outcome:
    """The record changed between the plain read and the lease: what is said now instead."""
    if isinstance(plan, Refused):
        return plan
    if isinstance(plan, decide.Report):
        return Appended(record)
    return FINISHING


def _store_failed(id: str, error: StoreUnavailable) -> Refused:
    logger.error(
        "the store failed for upload %s: %s",
        id,
        error,
        exc_info=error,
        extra={"id": id, "code": Code.STORE_UNAVAILABLE},
    )
    return Refused(code=Code.STORE_UNAVAILABLE, retry_after=1)
