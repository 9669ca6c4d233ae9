"""Standard output as it may be: of a terminal that knows few letters, full, or closed.

Owns what becomes of words that cannot be printed; knows no command. `cli` and `cli_serve` ask it.
"""

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Final

_OF_A_FILE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})


def print_anything() -> None:
    """Names in any script from now on, also where standard output knows only one."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def is_of_output(error: OSError) -> bool:
    """Whether this is a write to standard output that failed: what fails with files here has their names."""
    return error.errno in _OF_A_FILE and error.filename is None


def give_up_output() -> None:
    """What still waits to be written goes nowhere: at its end Python would try again, and complain."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
