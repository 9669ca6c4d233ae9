"""The reaper: what is due, done; once or for ever.

Owns the sweep: expiry, retries of finishing and ending, forgetting, strays; knows no request. The lifespan of
the app runs it, `TusApp.sweep` and the command line call it. Never touches a finished upload's bytes.
"""

import asyncio
import logging
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Final

from tusserve.config import Settings
from tusserve.contracts import Cursor, ElectsSweeper, HasIdentity, Held, ListsStrays, Place, RemembersStore
from tusserve.engine import Engine
from tusserve.errors import TusError
from tusserve.hooks import Hooks
from tusserve.protocol import life
from tusserve.protocol.life import Chore
from tusserve.protocol.records import Expiry, UploadRecord, UploadState
from tusserve.upload import Shelf

logger = logging.getLogger("tusserve")

PAGE: Final = 100
STRAYS_EVERY: Final = 60
"""Strays are looked for at the first sweep and then at every so many: listing a storage is not cheap."""


@dataclass(slots=True)
class SweepReport:
    """What a sweep did, or with `dry_run` would have tried: how many uploads, and how many strays."""

    expired: int = 0
    """Ended because nothing was added for too long."""
    completed: int = 0
    """Finishing was due, and went through."""
    retried: int = 0
    """Finishing or ending was due and was tried; it ended, or failed again."""
    forgotten: int = 0
    """Records removed: tombstones, and finished uploads after `Expiry.finished`."""
    skipped: int = 0
    """Left alone: they need hooks that this process does not have, or somebody works on them."""
    strays: int = 0
    """Bytes in the storage's working area that nobody named."""
    failed: int = 0
    """The storage or the store failed; they stay due."""

    def __bool__(self) -> bool:
        return any(getattr(self, each.name) for each in fields(self))


class Reaper:
    """Sweeps the uploads of one app."""

    def __init__(self, engine: Engine, shelf: Shelf, hooks: Hooks, settings: Settings) -> None:
        self._engine = engine
        self._shelf = shelf
        self._hooks = hooks
        self._settings = settings
        self._sweeps = 0

    async def sweep(self, *, dry_run: bool = False, strays: bool = True) -> SweepReport:
        """Do once what is due now. Raises `StoreUnavailable` if the store cannot say what is due."""
        report = SweepReport()
        seen: set[str] = set()
        now = self._settings.clock()
        while True:
            # What was left alone stays due and would fill the page for ever: ask for as many more.
            due = await self._shelf.store.due(self._settings.name, now, PAGE + len(seen))
            fresh = [record for record in due if record.id not in seen]
            if not fresh:
                break
            for record in fresh:
                seen.add(record.id)
                await self._see_to(record, report, dry_run=dry_run)
        if strays:
            await self._sweep_strays(report, dry_run=dry_run)
        return report

    async def _see_to(self, record: UploadRecord, report: SweepReport, *, dry_run: bool) -> None:
        wanted = life.chore(record, self._settings.clock())
        if wanted is None:
            return
        if wanted is not Chore.FORGET and self._hooks.are_missing_for(record):
            report.skipped += 1
            return
        if dry_run:
            _count(report, wanted)
            return
        try:
            await self._do(wanted, record, report)
        except Exception as error:  # a rim: whatever ails this one, the others are seen to
            report.failed += 1
            logger.error(
                "upload %s stays due: %s", record.id, error, exc_info=_bug(error), extra={"id": record.id}
            )

    async def _do(self, wanted: Chore, record: UploadRecord, report: SweepReport) -> None:
        match wanted:
            case Chore.FORGET:
                gone = await self._shelf.store.forget(record.id, self._settings.clock())
                report.forgotten += gone
                report.skipped += not gone
            case Chore.FINISH:
                attempt = await self._engine.finish_due(record.id)
                if isinstance(attempt, UploadRecord):
                    report.completed += 1
                elif attempt is None:
                    report.skipped += 1
                else:
                    report.retried += 1
            case Chore.EXPIRE | Chore.END:
                state = await self._engine.end_due(record.id, wanted)
                if state is None:
                    report.skipped += 1
                elif wanted is Chore.EXPIRE and state in {UploadState.ENDING, UploadState.GONE}:
                    report.expired += 1
                else:
                    report.retried += 1

    async def _sweep_strays(self, report: SweepReport, *, dry_run: bool) -> None:
        storage, store = self._shelf.storage, self._shelf.store
        # Without proof that these bytes belong to this store, all of them would look like strays.
        if not isinstance(storage, ListsStrays) or not isinstance(storage, RemembersStore):
            return
        if not isinstance(store, HasIdentity) or not await storage.claim(await store.identity()):
            return
        longest = max((self._settings.expiry or Expiry()).longest(), timedelta(days=1))
        older_than = self._settings.clock() - longest
        try:
            report.strays += await storage.sweep_strays(self._cursor_of, older_than, dry_run=dry_run)
        except TusError as error:
            report.failed += 1
            logger.error("strays could not be looked for: %s", error)

    async def _cursor_of(self, id: str) -> tuple[Place, Cursor] | Held | None:
        found = await self._shelf.store.get(id)  # of any name: another app may share the storage
        if found is None or found[0].state is UploadState.GONE:
            return None
        record, held = found
        return held if held is not None else (self._shelf.place(record), self._shelf.cursor(record))

    async def _is_ours_to_do(self) -> bool:
        store = self._shelf.store
        return not isinstance(store, ElectsSweeper) or await store.elected(self._settings.name)

    async def run(self, every: timedelta) -> None:
        """Sweep for ever, the first time at once; of several processes that share a store, one at a time."""
        while True:
            try:
                if await self._is_ours_to_do():
                    await self._sweep_and_tell()
            except Exception as error:  # a rim: nobody else would start the next sweep
                logger.error("the sweep failed: %s", error, exc_info=_bug(error))
            await asyncio.sleep(every.total_seconds())

    async def _sweep_and_tell(self) -> None:
        report = await self.sweep(strays=self._sweeps % STRAYS_EVERY == 0)
        self._sweeps += 1
        if report:
            logger.info("swept: %s", report)


def _bug(error: Exception) -> Exception | None:
    """What needs a traceback in the log: everything that plug-ins do not raise on purpose."""
    return None if isinstance(error, TusError) else error


def _count(report: SweepReport, wanted: Chore) -> None:
    match wanted:
        case Chore.EXPIRE:
            report.expired += 1
        case Chore.FINISH | Chore.END:
            report.retried += 1
        case Chore.FORGET:
            report.forgotten += 1
