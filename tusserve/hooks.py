"""The host's hooks: called, timed, and their answers turned into values.

Owns the call of each hook and what its exceptions mean; knows neither records' states nor leases.
The engine, the finisher and the ASGI rim call it.
"""

import asyncio
import functools
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final, TypeAlias, TypeVar, cast

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar
from starlette.exceptions import HTTPException
from starlette.requests import Request

from tusserve.config import Settings
from tusserve.errors import ConfigError, Rejected
from tusserve.protocol.fields import is_text
from tusserve.protocol.outcomes import Code, Refused, RefusedByHost
from tusserve.protocol.records import Action, Reason, Refusal, UploadRecord
from tusserve.tasks import AppTasks
from tusserve.upload import Accepted, Event, NewUpload, Upload

logger = logging.getLogger("tusserve")

T = TypeVar("T")

Authorize: TypeAlias = Callable[[Request, Action, Upload | None], Awaitable[str | None] | str | None]
OnCreate: TypeAlias = Callable[[NewUpload, Request], Awaitable[Accepted | None] | Accepted | None]
OnFirstChunk: TypeAlias = Callable[[Upload, bytes], Awaitable[Accepted | None] | Accepted | None]
OnComplete: TypeAlias = Callable[[Upload], Awaitable[None] | None]
OnTerminate: TypeAlias = Callable[[Upload, Reason], Awaitable[None] | None]
Observer: TypeAlias = Callable[[Event], Awaitable[None] | None]

HOOK_THREADS: Final = 40
"""Plain functions run in threads of their own limiter: blocked hooks must never hold a file write."""

RETRIABLE: Final = frozenset({408, 423, 425, 429})
"""Statuses by which a hook refuses for now; every other 4xx is for good."""

OBSERVED_AT_MOST: Final = 1000

_threads: RunVar[anyio.CapacityLimiter] = RunVar("tusserve.hooks.threads")


@dataclass(frozen=True, slots=True)
class ForGood:
    """A hook refused; asking again would not help."""

    refused: RefusedByHost


@dataclass(frozen=True, slots=True)
class ForNow:
    """A hook failed, or had no time; it was logged. Asking again may help."""

    refused: Refused


Verdict: TypeAlias = Accepted | ForGood | ForNow


@dataclass(frozen=True, slots=True)
class Who:
    """Whoever sent a request, in the host's own word; None: nobody in particular.

    `TypeError` for anything but text: a number would not come back from every store as what it was, and its
    owner would not find the upload again. `ValueError` for text that is none outside of Python.
    """

    owner: str | None

    def __post_init__(self) -> None:
        owner: object = self.owner
        if not (owner is None or isinstance(owner, str)):
            raise TypeError(f"an owner is a str or None, not {type(owner).__name__}")
        if owner is not None and not is_text(owner):
            raise ValueError(f"an owner is text that can be stored, not {owner!r}")


class Hooks:
    """The hooks of one app. Each is told apart as `async def` or `def` once, here."""

    def __init__(
        self,
        *,
        authorize: Authorize | None = None,
        on_create: OnCreate | None = None,
        on_first_chunk: OnFirstChunk | None = None,
        on_complete: OnComplete | None = None,
        on_terminate: OnTerminate | None = None,
        observe: Observer | None = None,
        timeout: timedelta,
        tasks: AppTasks,
    ) -> None:
        self.has_authorize = authorize is not None
        self.has_first_chunk = on_first_chunk is not None
        self.has_complete = on_complete is not None
        self.gated = on_first_chunk is not None or on_complete is not None or on_terminate is not None
        self._authorize = _awaitable("authorize", authorize)
        self._on_create = _awaitable("on_create", on_create)
        self._on_first_chunk = _awaitable("on_first_chunk", on_first_chunk)
        self._on_complete = _awaitable("on_complete", on_complete)
        self._on_terminate = _awaitable("on_terminate", on_terminate)
        self._observe = _awaitable("observe", observe)
        self._seconds = timeout.total_seconds()
        self._tasks = tasks
        self._events: deque[Event] = deque(maxlen=OBSERVED_AT_MOST)
        self._observing: asyncio.Task[None] | None = None

    def are_missing_for(self, record: UploadRecord) -> bool:
        """Whether its app has hooks and this process has none: then it is not ours to finish or to end."""
        return record.gated and not self.gated

    def least(self, settings: Settings) -> int:
        """How many bytes the first-chunk gate, if there is one, wants of an upload."""
        return settings.min_first_chunk if self.has_first_chunk else 0

    def refuse_unseen(self, record: UploadRecord) -> Refused | None:
        """First bytes may be for a gate to see that this process does not have: they are not taken."""
        if record.offset > 0 or not self.are_missing_for(record):
            return None
        logger.error(
            "upload %s needs the hooks of its app, which this process does not have",
            record.id,
            extra={"id": record.id, "code": Code.HOOK_FAILED},
        )
        return Refused(code=Code.HOOK_FAILED, retry_after=1)

    async def authorize(
        self, request: Request, action: Action, upload: Upload | None
    ) -> Who | Refused | RefusedByHost:
        """Who sends this request, or why not. A host's HTTPException keeps its status."""
        if self._authorize is None:
            return Who(None)
        upload_id = None if upload is None else upload.id
        try:
            return Who(await self._timed(self._authorize(request, action, upload)))
        except HTTPException as refused:
            return self._refused("authorize", upload_id, refused)
        except Exception as error:  # noqa: BLE001 - a host's hook may raise anything
            return self._failed("authorize", upload_id, error).refused

    async def on_create(self, new: NewUpload, request: Request) -> Accepted | Refused | RefusedByHost:
        """Whether a client may open this upload."""
        if self._on_create is None:
            return Accepted()
        try:
            return _accepted(await self._timed(self._on_create(new, request)))
        except HTTPException as refused:
            return self._refused("on_create", new.id, refused)
        except Exception as error:  # noqa: BLE001 - a host's hook may raise anything
            return self._failed("on_create", new.id, error).refused

    async def on_first_chunk(self, upload: Upload, head: bytes) -> Verdict:
        """What the first bytes say."""
        if self._on_first_chunk is None:
            return Accepted()
        return await self._gate("on_first_chunk", upload.id, partial(self._on_first_chunk, upload, head))

    async def on_complete(self, upload: Upload) -> Verdict:
        """Whether the host takes the whole. What the hook returns is of no account."""
        if self._on_complete is None:
            return Accepted()
        return await self._gate("on_complete", upload.id, partial(_nothing, self._on_complete, upload))

    async def on_terminate(self, upload: Upload, reason: Reason) -> bool:
        """Tell the host that it goes; False: it has to be told again."""
        if self._on_terminate is None:
            return True
        try:
            await self._timed(_nothing(self._on_terminate, upload, reason))
        except Exception as error:  # noqa: BLE001 - a host's hook may raise anything
            self._failed("on_terminate", upload.id, error)
            return False
        return True

    def observe(self, event: Event) -> None:
        """Tell the observer, soon and perhaps; the oldest events are dropped if it does not keep up."""
        if self._observe is None:
            return
        self._events.append(event)
        running = self._observing
        if running is None or running.done() or running.get_loop() is not asyncio.get_running_loop():
            self._observing = self._tasks.start(self._tell_observer())

    async def _tell_observer(self) -> None:
        assert self._observe is not None
        while self._events:
            event = self._events.popleft()
            try:
                await self._timed(_nothing(self._observe, event))
            except Exception as error:  # noqa: BLE001 - an observer must not disturb what it observes
                self._failed("observe", event.upload.id, error)

    async def _gate(
        self, name: str, upload_id: str, call: Callable[[], Awaitable[Accepted | None]]
    ) -> Verdict:
        try:
            return _accepted(await self._timed(call()))
        except HTTPException as refused:
            if not 400 <= refused.status_code <= 499 or refused.status_code in RETRIABLE:
                return self._failed(name, upload_id, refused)
            return ForGood(_by_host(name, refused))
        except Exception as error:  # noqa: BLE001 - a host's hook may raise anything
            return self._failed(name, upload_id, error)

    async def _timed(self, call: Awaitable[T]) -> T:
        with anyio.fail_after(self._seconds):
            return await answer_of(call)

    def _refused(self, name: str, upload_id: str | None, refused: HTTPException) -> Refused | RefusedByHost:
        if refused.status_code < 300 or refused.status_code == 304:  # no refusals, and some have no body
            return self._failed(name, upload_id, refused).refused
        return _by_host(name, refused)

    def _failed(self, name: str, upload_id: str | None, error: Exception) -> ForNow:
        logger.error(
            "the hook %s failed for upload %s",
            name,
            upload_id,
            exc_info=error,
            extra={"id": upload_id, "code": Code.HOOK_FAILED},
        )
        return ForNow(Refused(code=Code.HOOK_FAILED, retry_after=1))


async def answer_of(call: Awaitable[T]) -> T:
    """What a host's own code answers. Where it was cancelled, and we were not, that is its failure."""
    try:
        return await call
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RuntimeError("it was cancelled from within") from error


def _accepted(answer: object) -> Accepted:
    if answer is None:
        return Accepted()
    if isinstance(answer, Accepted):
        return answer
    raise TypeError(f"a gate returns Accepted or None, not {type(answer).__name__}")


async def _nothing(hook: Callable[..., Awaitable[object]], *args: object) -> None:
    answer = await hook(*args)
    if inspect.isgenerator(answer) or inspect.isasyncgen(answer):
        raise TypeError(f"nobody iterates over what this hook returns, a {type(answer).__name__}")


def _by_host(name: str, refused: HTTPException) -> RefusedByHost:
    if refused.status_code == 409:
        _hint_at_409(name)
    code = refused.code if isinstance(refused, Rejected) else "rejected"
    return RefusedByHost(
        refusal=Refusal(refused.status_code, code, str(refused.detail)),
        headers={_text(name): _text(value) for name, value in (refused.headers or {}).items()},
        extra=refused.extra if isinstance(refused, Rejected) else {},
    )


def _text(told: object) -> str:
    return told.decode("latin-1") if isinstance(told, bytes) else str(told)


@functools.cache
def _hint_at_409(name: str) -> None:
    logger.warning("%s refused with 409, which tus-js-client tries again; 415 or 422 ends at once", name)


def check_called(**given: object) -> None:
    """Raise `ConfigError` for what is called by that name later and cannot be."""
    for name, each in given.items():
        if each is not None and not callable(each):
            raise ConfigError(f"{name}= is called, but {type(each).__name__} cannot be")


def _awaitable(name: str, hook: Callable[..., Awaitable[T] | T] | None) -> Callable[..., Awaitable[T]] | None:
    """The hook as something to await: itself, or itself in a worker thread."""
    check_called(**{name: hook})
    if hook is None:
        return None
    if _generates(hook):
        raise ConfigError(f"{name}= is called once, but what has a yield in it only begins then")
    if _is_async(hook):
        return cast("Callable[..., Awaitable[T]]", hook)

    async def in_thread(*args: object) -> T:
        work = functools.partial(hook, *args)
        answer = await anyio.to_thread.run_sync(work, limiter=_limiter(), abandon_on_cancel=True)
        if inspect.isawaitable(answer):  # a plain function that returns a coroutine
            return await answer
        return answer

    return in_thread


def _is_async(hook: Callable[..., object]) -> bool:
    return any(inspect.iscoroutinefunction(each) for each in _functions(hook))


def _generates(hook: Callable[..., object]) -> bool:
    return any(
        inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in _functions(hook)
    )


def _functions(hook: Callable[..., object]) -> tuple[object, object]:
    """What is called in the end: the hook itself, or the call of an object."""
    while isinstance(hook, functools.partial):
        hook = hook.func
    return hook, getattr(hook, "__call__", None)  # noqa: B004 - an object whose call is a function


def _limiter() -> anyio.CapacityLimiter:
    """One limiter an event loop: limiters do not outlive theirs."""
    try:
        return _threads.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(HOOK_THREADS)
        _threads.set(limiter)
        return limiter
