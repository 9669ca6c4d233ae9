"""Which process sweeps: of those that share a store, the one that has a lock on a file.

Owns the lock files beside the store, one for each app's name; knows no upload. The store's thread that reads
asks here. The kernel frees a lock the moment its process ends, however it ends.
"""

import os
import sys
from hashlib import blake2b
from pathlib import Path

if sys.platform != "win32":
    import fcntl


class Sweepers:
    """The locks that this process has. `leave` ends them, and so does the end of the process.

    The files are never removed: whoever opened one just before would hold a lock that nobody else sees.
    """

    def __init__(self, store: Path) -> None:
        self._store = store
        self._held: dict[str, int] = {}

    def elected(self, name: str) -> bool:
        """Whether this process is the one that sweeps `name`: it is from then on, until it leaves."""
        if name in self._held or sys.platform == "win32":
            return True  # without locks everybody sweeps: the leases keep it safe
        path = self._store.with_name(f"{self._store.name}-sweeper-{_word(name)}")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self._held[name] = descriptor
        return True

    def leave(self) -> None:
        """Somebody else may. After a fork, in the child: it would else keep its parent's locks alive."""
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()


def _word(name: str) -> str:
    return blake2b(name.encode(), digest_size=6).hexdigest()
