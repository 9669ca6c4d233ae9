"""A worker's side of `tusserve serve --workers N`: how it is appointed, and what it hears and says.

Owns the line to the parent. Knows no upload and no HTTP. `cli_serve` asks here whether it is a worker;
`cli_workers` is the other end.
"""

import os
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

VARIABLE: Final = "_TUSSERVE_WORKER"
"""Set by the parent, for nobody else to set: the descriptors of the listening socket and of the line."""
READY: Final = b"ready\n"
FAILED: Final = b"failed "
"""And a sentence: why it cannot serve."""
STOP: Final = b"s"
HURRY: Final = b"h"


class Line:
    """The line to the parent. When the parent ends, however it ends, the kernel closes its end."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line

    def ready(self) -> None:
        """It serves."""
        self._say(READY)

    def failed(self, sentence: str) -> None:
        """It never will."""
        self._say(FAILED + " ".join(sentence.split()).encode() + b"\n")

    def _say(self, words: bytes) -> None:
        with suppress(OSError):  # nobody is there: `listen` hears that, too
            self._line.sendall(words)

    def listen(self, stop: Callable[[], None], hurry: Callable[[], None]) -> None:
        """From now on do what the parent says, in a thread: it has to work when the event loop does not.
        Without a parent there is nobody to serve for: stop."""

        def hear() -> None:
            while words := self._line.recv(1024):
                stop()
                if HURRY in words:
                    hurry()
            stop()

        threading.Thread(target=hear, name="tusserve parent", daemon=True).start()


def appointed() -> tuple[socket.socket, Line] | None:
    """The listening socket and the line, if this process is a worker."""
    told = os.environ.pop(VARIABLE, "")
    if not told:
        return None
    listener, line = (socket.socket(fileno=int(number)) for number in told.split(","))
    for each in (listener, line):
        each.set_inheritable(False)
    listener.setblocking(False)
    return listener, Line(line)


def appointment(listener: socket.socket, line: socket.socket) -> Mapping[str, str]:
    """The environment that makes a worker of a process that inherits both."""
    return {**os.environ, VARIABLE: f"{listener.fileno()},{line.fileno()}"}
