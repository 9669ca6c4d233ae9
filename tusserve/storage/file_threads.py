"""The worker threads in which a `FileStorage` waits for the disk.

Owns the threads and the jobs that run in them. Knows nothing of files. They are the storage's own: hooks that
block the threads that anyio shares must not hold up a write.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Generic, TypeVar

from anyio import CancelScope

Result = TypeVar("Result")


class Job(Generic[Result]):
    """A call that runs in a worker thread to its end, whatever happens to the task that began it.

    The event loop is woken only if somebody waits: of the batches of a long body most are done before that.
    """

    __slots__ = ("_call", "_error", "_loop", "_result", "_waiter", "done")

    def __init__(self, call: Callable[[], Result]) -> None:
        self._call: Callable[[], Result] | None = call
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._result: Result
        self._error: BaseException | None = None
        self.done = False

    def run(self) -> None:
        """Make the call: in the worker thread."""
        assert self._call is not None
        try:
            self._result = self._call()
        except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits
            self._error = error
        self._call = None
        # `done` first, then a look at the waiter; `wait` does it the other way round: no wake-up is missed.
        self.done = True
        if self._waiter is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> Result:
        """Wait for the end of the call: what it returned, or raised. One task at a time; it may be cancelled
        and wait again."""
        if not self.done:
            self._waiter = self._loop.create_future()
            if not self.done:
                await self._waiter
        if self._error is not None:
            raise self._error
        return self._result

    async def outlast(self) -> Result:
        """As `wait`, but a cancelled scope does not end it. A native cancellation does."""
        with CancelScope(shield=True):
            await self.wait()
        return self._result


class WorkerThreads:
    """At most `count` threads, started when there is work."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._executor: ThreadPoolExecutor | None = None

    def start(self, call: Callable[[], Result]) -> Job[Result]:
        """Begin a call in a worker thread."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._count, thread_name_prefix="tusserve-file")
        job = Job(call)
        self._executor.submit(job.run)
        return job

    async def stop(self) -> None:
        """Wait for every call that was begun, and end the threads. A later `start` begins anew."""
        executor, self._executor = self._executor, None
        if executor is not None:
            ending = Job(executor.shutdown)
            thread = threading.Thread(target=ending.run, name="tusserve-file-ending")
            thread.start()
            await ending.outlast()
            thread.join()
