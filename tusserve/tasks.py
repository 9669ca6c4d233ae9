"""Tasks that belong to the app: what one of them began it ends, whoever stops waiting for it.

Owns them, and the wait for them at shutdown; knows nothing of what they do. A cancel scope with a shield does
not stop a native `Task.cancel()`, which is how servers cancel; a task of one's own does.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Answer(Generic[T]):
    """The answer of a piece of work, which may be given before the work is over."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self.awaited = True
        """Whether somebody still waits for it."""

    @property
    def given(self) -> bool:
        """Whether somebody has it already, so that it cannot change."""
        return self.future.done()

    def give(self, value: T) -> None:
        """This is the answer, unless there is one."""
        if self._timer is not None:
            self._timer.cancel()
        if not self.future.done():
            self.future.set_result(value)

    def at_latest(self, seconds: float, value: T) -> None:
        """If there is no answer after so many seconds, it is this one; the work goes on."""
        self._timer = self._loop.call_later(seconds, self.give, value)


class AppTasks:
    """The tasks of one app, on whatever event loop they were started."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin `work`. Somebody must look at its result, or it is only logged by asyncio."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def answer(
        self,
        work: Callable[[Answer[T]], Coroutine[Any, Any, T]],
        *,
        left: Callable[[], None] | None = None,
        over: Callable[[], None] | None = None,
    ) -> T:
        """The answer that `work` gives or at last returns. It goes on to its end in any case; a caller that
        is cancelled before there is an answer has `left` told. `over` is told when the work has ended, also
        if it was cancelled before it began."""
        answer: Answer[T] = Answer()
        task = self.start(work(answer))
        task.add_done_callback(lambda ended: _hand_over(ended, answer))
        if over is not None:
            task.add_done_callback(lambda _: over())
        try:
            return await asyncio.shield(answer.future)
        except asyncio.CancelledError:
            answer.awaited = False
            if left is not None and not answer.given:
                left()
            raise

    async def cancel(self) -> None:
        """End what is left on this event loop, as a crash would; the next process goes on from what is
        committed."""
        here = asyncio.get_running_loop()
        running = [task for task in self._running if task.get_loop() is here]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    async def drained(self) -> None:
        """Wait until no task of this event loop is left."""
        here = asyncio.get_running_loop()
        while running := [task for task in self._running if task.get_loop() is here]:
            await asyncio.wait(running)


def _hand_over(task: asyncio.Task[T], answer: Answer[T]) -> None:
    """Whoever waits gets the result, or the failure; a failure that nobody waits for is reported once."""
    if task.cancelled():
        answer.future.cancel()
    elif (error := task.exception()) is None:
        answer.give(task.result())
    elif answer.awaited and not answer.given:
        answer.future.set_exception(error)
    else:
        task.get_loop().call_exception_handler(
            {"message": "a task of tusserve failed", "exception": error, "task": task}
        )
