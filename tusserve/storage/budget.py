"""How many bytes all storages of the process may hold in memory.

Owns `ByteBudget` and the one that the process shares, `BUDGET`. Knows no storage: each storage takes from it
what its writers hold and gives it back.
"""

import threading
from typing import Final

__all__ = ["BUDGET", "ByteBudget"]

MAX_BATCH: Final = 1 << 20
"""The most that a writer gathers before it writes: beyond it larger batches save nothing."""


class ByteBudget:
    """Counts the bytes that writers hold, and says how large a batch each may gather.

    A writer always gets what it needs for a chunk that has already arrived: nobody waits for somebody else's
    slow client. So what is held is at most `total`, plus one chunk of each writer once that is used up.
    Safe from any thread. Taken once a batch, never once a chunk.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._lock = threading.Lock()
        self._held = self._writers = 0

    @property
    def held(self) -> int:
        """Bytes that are taken and not given back."""
        return self._held

    def enter(self) -> None:
        """One more writer is active."""
        with self._lock:
            self._writers += 1

    def leave(self) -> None:
        """One writer is done."""
        with self._lock:
            self._writers -= 1

    def take(self, needed: int, wanted: int) -> int:
        """Take `needed` bytes in any case, and up to `wanted` if they are free and fair. Returns how many."""
        with self._lock:
            # A writer fills a batch while the one before is written: hence two a writer.
            fair = min(wanted, MAX_BATCH, self.total // (2 * max(self._writers, 1)), self.total - self._held)
            taken = max(needed, fair)
            self._held += taken
            return taken

    def give(self, taken: int) -> None:
        """Give back what was taken."""
        with self._lock:
            self._held -= taken


BUDGET: Final = ByteBudget(64 << 20)
"""What all storages of this process share, unless they were given another."""
