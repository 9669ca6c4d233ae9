"""An event loop on which waiting costs no time, and the clock that goes with it.

When nothing can run, here or in a worker thread, the loop's time jumps to the next timer. So the tests see
every time-out, grace and heartbeat of the real policy, in milliseconds.
"""

import asyncio
import contextlib
import selectors
import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

MOMENT: Final = 0.0001
"""Seconds for which an idle loop lets threads have the interpreter, before it looks at what they do."""
PATIENCE: Final = 10.0
"""Seconds for which a busy thread keeps an idle loop from jumping."""
WAITS: Final = frozenset({"wait", "get", "_worker", "join", "_next_batch", "select"})
"""The functions in which a thread waits for something to do."""

START: Final = datetime(2026, 1, 1, tzinfo=UTC)


class _JumpingSelector(selectors.DefaultSelector):
    """Waits only as long as something else may yet happen; adds up how much longer it was asked to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.jumped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(0)
        give_up = time.monotonic() + PATIENCE
        while not ready and threading.active_count() > 1:
            time.sleep(MOMENT)  # not in `select`, which rounds up to milliseconds
            worked = _some_thread_works() and time.monotonic() < give_up
            ready = super().select(0)
            if not worked:
                break
        if not ready:
            self.jumped += timeout
        return ready


def _some_thread_works() -> bool:
    frames = {thread: frame.f_code.co_name for thread, frame in sys._current_frames().items()}
    here = threading.get_ident()
    return any(
        # One without a frame is about to begin.
        thread.ident != here and (frames.get(thread.ident or 0) not in WAITS or _is_about_to_run(thread))
        for thread in threading.enumerate()
    )


def _is_about_to_run(thread: threading.Thread) -> bool:
    """Whether it only waits for a processor, or for the interpreter: for that one waits with a time-out."""
    with contextlib.suppress(OSError):
        call = Path(f"/proc/self/task/{thread.native_id}/syscall").read_text().split()
        return len(call) < 5 or call[4] != "0x0"
    return False


class QuickLoop(asyncio.SelectorEventLoop):
    """As any loop, but its time runs ahead while it is idle, and may be made to leap."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        self.began = self.time()

    def time(self) -> float:
        return super().time() + self._jumping.jumped

    def leap(self, step: timedelta) -> None:
        """So much time passes in which this process does nothing."""
        self._jumping.jumped += step.total_seconds()

    def call_exception_handler(self, context: Mapping[str, Any]) -> None:
        """What a process could no longer do because it is dead is no news."""
        if type(context.get("exception")).__name__ != "Crashed":
            super().call_exception_handler(dict(context))


class LoopClock:
    """The wall clock of the world whose time is the running loop's; the same for all who ask there."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        assert isinstance(self._loop, QuickLoop)
        self._began = self._loop.began

    def __call__(self) -> datetime:
        return START + timedelta(seconds=self._loop.time() - self._began)
