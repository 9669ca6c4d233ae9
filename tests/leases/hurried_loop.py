"""An event loop whose time passes a few times as fast as ours.

For tests whose stores and storages work in threads: on a loop that leaps while it is idle a thread that the
machine keeps waiting would look idle, too.
"""

import asyncio
import selectors
from typing import Final

from tests.engine.quick_loop import QuickLoop

PACE: Final = 4.0
"""How many seconds of the loop pass in one of ours: a grace is still longer than a busy machine's hiccup."""


class _HurriedSelector(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(None if timeout is None else timeout / PACE)


class HurriedLoop(QuickLoop):
    """As a `QuickLoop`, for whoever asks for its time, but it never leaps by itself."""

    def __init__(self) -> None:
        asyncio.SelectorEventLoop.__init__(self, _HurriedSelector())
        self.began = self.time()

    def time(self) -> float:
        return asyncio.SelectorEventLoop.time(self) * PACE
