"""Whether a body has the digest that its client sent.

Owns the hashing, off the event loop, in threads of its own; knows no upload and no header. `Reception` feeds
it with what the pump brings.
"""

from typing import Final

import anyio
import anyio.lowlevel
import anyio.to_thread

from tusserve.protocol.digests import HASHES, Digest

BATCH: Final = 256 * 1024
"""Bytes that one hop to a thread is worth; less than that, at a body's end, is hashed at once."""
THREADS: Final = 4


class RunningDigest:
    """The digest of what came so far, beside the one that it has to be."""

    def __init__(self, wanted: Digest) -> None:
        self._wanted = wanted
        self._hash = HASHES[wanted.algorithm]()
        self._chunks: list[bytes] = []
        self._size = 0

    async def update(self, data: bytes) -> None:
        """These bytes follow those before."""
        self._chunks.append(data)
        self._size += len(data)
        if self._size >= BATCH:
            await anyio.to_thread.run_sync(self._feed, limiter=_limiter(), abandon_on_cancel=True)

    def matches(self) -> bool:
        """Whether these were all bytes of the body that the client meant. To be asked once."""
        self._feed()
        return self._hash.digest() == self._wanted.value

    def _feed(self) -> None:
        chunks, self._chunks, self._size = self._chunks, [], 0
        for chunk in chunks:
            self._hash.update(chunk)


_threads: Final = anyio.lowlevel.RunVar[anyio.CapacityLimiter]("tusserve hashing threads")


def _limiter() -> anyio.CapacityLimiter:
    """One limiter an event loop: limiters do not outlive theirs."""
    try:
        return _threads.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(THREADS)
        _threads.set(limiter)
        return limiter
