"""What is to go wrong, and when: a plan over the calls of one process to its plug-ins.

Owns `Faults`, which counts the calls and decides at each; knows no storage and no store. The wrappers of
`tusserve.testing.faults` ask it, and wrappers of one's own may.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import Enum, auto
from fnmatch import fnmatchcase
from typing import Final, TypeVar

T = TypeVar("T")


class Crashed(BaseException):
    """The process is dead. Nothing that it still tries has an effect, and it gets no more answers.

    A `BaseException`, so that nothing takes it for a failure that one could deal with.
    """


class Stall:
    """A call that hangs until it is released."""

    def __init__(self) -> None:
        self._reached = asyncio.Event()
        self._released = asyncio.Event()

    async def reached(self) -> None:
        """Wait until the call hangs."""
        await self._reached.wait()

    def release(self) -> None:
        """Let it go on."""
        self._released.set()

    async def hang(self) -> None:
        """Hang: what the call does."""
        self._reached.set()
        await self._released.wait()


class _Kind(Enum):
    FAIL = auto()
    STALL = auto()
    CRASH = auto()
    CANCEL = auto()


@dataclass(slots=True, kw_only=True)
class _Planned:
    kind: _Kind
    on: str
    at: int
    times: int | None = 1
    after: bool = False
    torn: bool = False
    error: Callable[[], BaseException] | None = None
    stall: Stall | None = None
    seen: int = field(default=0, init=False)

    def is_due(self, name: str) -> bool:
        """Whether it strikes at this call, which is counted."""
        if not fnmatchcase(name, self.on):
            return False
        self.seen += 1
        return self.seen >= self.at and (self.times is None or self.seen < self.at + self.times)


class Faults:
    """The faults of one process: everything that was wrapped with the same `Faults` crashes together.

    `calls` is the log of every call by name, such as `store.commit`, `storage.writer.enter`, `writer.write`:
    run once without a fault, then once for each n from 1 to the length of the log. The faults say *which*
    call by `at`, counted from 1 at the moment of planning, among the calls whose name matches `on` (`*` and
    `?` as in a shell). A fault strikes instead of the call; with `after`, the call takes effect and its
    answer is lost.

    With `suspends` every call lets other tasks run before it takes effect and again before it answers, as
    real backends do: what may interleave then does, with backends in memory too.
    """

    def __init__(self, *, suspends: bool = True) -> None:
        self.calls: list[str] = []
        self._suspends = suspends
        self._plan: list[_Planned] = []
        self._crashed = False
        self._death = asyncio.Event()
        self._waiting: set[asyncio.Task[object]] = set()
        self._open: list[tuple[str, AbstractAsyncContextManager[object]]] = []

    # ---- planning

    def fail(
        self,
        error: Callable[[], BaseException],
        *,
        on: str = "*",
        at: int = 1,
        times: int | None = 1,
        after: bool = False,
    ) -> None:
        """Raise `error()` at the call, and at the following `times` - 1 (None: at all of them, until `heal`).

        A context manager that fails to open is not open, and one that fails to close is closed all the same.
        """
        self._plan.append(_Planned(kind=_Kind.FAIL, on=on, at=at, times=times, after=after, error=error))

    def stall(self, *, on: str = "*", at: int = 1, times: int | None = 1, after: bool = False) -> Stall:
        """Hang at the call, and at the following `times` - 1 (None: at all of them), until it is released."""
        stall = Stall()
        self._plan.append(_Planned(kind=_Kind.STALL, on=on, at=at, times=times, after=after, stall=stall))
        return stall

    def crash(self, *, on: str = "*", at: int = 1, after: bool = False, torn: bool = False) -> None:
        """Die at the call: it and all later ones raise `Crashed` and change nothing.

        `torn`: if the call writes bytes, the first half of them still gets through.
        """
        self._plan.append(_Planned(kind=_Kind.CRASH, on=on, at=at, after=after, torn=torn))

    def cancel(self, *, on: str = "*", at: int = 1, after: bool = False) -> None:
        """Cancel the calling task natively, by `Task.cancel()`, while it waits in the call."""
        self._plan.append(_Planned(kind=_Kind.CANCEL, on=on, at=at, after=after))

    def heal(self) -> None:
        """Forget all plans, and let go what hangs. The dead stay dead."""
        for planned in self._plan:
            if planned.stall is not None:
                planned.stall.release()
        self._plan.clear()

    # ---- dying

    @property
    def crashed(self) -> bool:
        """Whether the process is dead."""
        return self._crashed

    async def until_crashed(self) -> None:
        """Wait for its death. What it was doing then may never end: cancel it."""
        await self._death.wait()

    def crash_now(self) -> None:
        """Die between two calls. Tasks that wait in a stream or a stall get `Crashed`."""
        if self._crashed:
            return
        self._crashed = True
        self._death.set()
        here = _task_or_none()
        for task in self._waiting:
            if task is not here:
                task.cancel()

    async def bury(self, on: str = "*") -> None:
        """Give back what the dead process still has open, newest first, as a kernel does with its files.

        `on` selects by name. What a backend's own exit does then happens: bury writers and storages only when
        nobody looks at their bytes any more, a store when its process is to be *proven* dead.
        """
        if not self._crashed:
            raise ValueError("the process lives: only the dead are buried")
        for entry in [entry for entry in reversed(self._open) if fnmatchcase(entry[0], on)]:
            self._open.remove(entry)
            await entry[1].__aexit__(Crashed, Crashed(entry[0]), None)

    # ---- calling

    async def call(
        self,
        name: str,
        work: Callable[[], Awaitable[T]],
        *,
        torn: Callable[[], Awaitable[object]] | None = None,
    ) -> T:
        """Do `work` as the call `name`, if nothing is planned against it. `torn` is the half of it that a
        crash may leave done."""
        planned = self._arrive(name)
        if planned is not None and not planned.after:
            if planned.kind is _Kind.CRASH and planned.torn and torn is not None:
                await torn()
            await self._strike(planned, name)
        await self._let_others_run()
        self._check_alive(name)
        answer = await work()
        self._check_alive(name)
        if planned is not None and planned.after:
            await self._strike(planned, name)
        await self._let_others_run()
        self._check_alive(name)
        return answer

    def call_at_once(self, name: str, work: Callable[[], T]) -> T:
        """As `call`, for what is no coroutine; it can fail or crash, nothing else."""
        planned = self._arrive(name)
        if planned is not None and not planned.after:
            self._raise(planned, name)
        answer = work()
        if planned is not None and planned.after:
            self._raise(planned, name)
        return answer

    async def wait(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        """As `call`, for what waits without end and changes nothing: a crash interrupts it."""
        planned = self._arrive(name)
        if planned is not None:
            await self._strike(planned, name)
        return await self._until_crash(name, work())

    async def enter(self, name: str, inner: AbstractAsyncContextManager[T]) -> T:
        """Open `inner` as the call `name.enter`. Once it is open nothing can come between it and its exit."""
        full = f"{name}.enter"
        planned = self._arrive(full)
        if planned is not None and not planned.after:
            await self._strike(planned, full)
        await self._let_others_run()
        self._check_alive(full)
        held = await inner.__aenter__()
        self._open.append((name, inner))
        self._check_alive(full)
        if planned is not None and planned.after:
            await self._close_again(planned, full, inner)
        return held

    async def leave(
        self, name: str, inner: AbstractAsyncContextManager[T], error: BaseException | None
    ) -> bool | None:
        """Close `inner` as the call `name.exit`. Only a crash keeps it open."""
        full = f"{name}.exit"
        planned = self._arrive(full)
        if planned is not None and planned.kind is _Kind.CRASH and not planned.after:
            self._raise(planned, full)
        if planned is not None and planned.kind is _Kind.CANCEL and not planned.after:
            _current_task().cancel()
        if planned is not None and planned.stall is not None:
            await self._until_crash(full, planned.stall.hang())
        entry = (name, inner)
        if entry in self._open:
            self._open.remove(entry)
        kind = None if error is None else type(error)
        swallowed = await inner.__aexit__(kind, error, None if error is None else error.__traceback__)
        self._check_alive(full)
        if planned is not None and (planned.after or planned.kind is _Kind.FAIL):
            await self._strike(planned, full)
        return swallowed

    # ---- what happens at a call

    def _arrive(self, name: str) -> _Planned | None:
        self._check_alive(name)
        self.calls.append(name)
        due = [planned for planned in self._plan if planned.is_due(name)]
        return due[0] if due else None

    def _check_alive(self, name: str) -> None:
        if self._crashed:
            raise Crashed(name)

    async def _strike(self, planned: _Planned, name: str) -> None:
        if planned.kind is _Kind.CANCEL:
            _current_task().cancel()
            await asyncio.sleep(0)
        elif planned.stall is not None:
            await self._until_crash(name, planned.stall.hang())
        else:
            self._raise(planned, name)

    def _raise(self, planned: _Planned, name: str) -> None:
        if planned.kind is _Kind.CRASH:
            self.crash_now()
            raise Crashed(name)
        if planned.error is not None:
            raise planned.error()

    async def _close_again(
        self, planned: _Planned, name: str, inner: AbstractAsyncContextManager[object]
    ) -> None:
        try:
            await self._strike(planned, name)
        except Crashed:
            raise
        except BaseException as error:
            self._open.pop()
            await inner.__aexit__(type(error), error, error.__traceback__)
            raise

    async def _let_others_run(self) -> None:
        if self._suspends:
            await asyncio.sleep(0)

    async def _until_crash(self, name: str, work: Awaitable[T]) -> T:
        task = _current_task()
        self._waiting.add(task)
        try:
            return await work
        except asyncio.CancelledError:
            if not self._crashed:
                raise
            task.uncancel()
            raise Crashed(name) from None
        finally:
            self._waiting.discard(task)


_NO_TASK: Final = "faults strike inside tasks only"


def _current_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None, _NO_TASK
    return task


def _task_or_none() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
