"""One SQLite file: connections to it, and how a transaction on it begins.

Owns the pragmas and the patience with other processes; knows no table. The schema and the threads use it.
"""

import random
import sqlite3
import time
from pathlib import Path
from typing import Final

PATIENCE: Final = 5.0
"""Seconds for which a call waits for other processes that are writing."""


def connect(path: Path, *, reads_only: bool = False, timeout: float = 0.0) -> sqlite3.Connection:
    """A connection for one thread at a time. A transaction begins when it is told to."""
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=timeout, cached_statements=64
    )
    if reads_only:
        connection.execute("PRAGMA query_only = ON")
    return connection


def begin(connection: sqlite3.Connection) -> None:
    """Begin to write, which one process at a time may.

    IMMEDIATE always: who reads first and writes then finds the file locked, and SQLite may not let it wait.
    The wait is ours and not SQLite's, whose pauses grow to a tenth of a second: a process that comes back at
    once after each commit would keep those who sleep out for as long as it is busy.
    """
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > give_up:
                raise
            time.sleep(random.uniform(0.0003, 0.003))
        else:
            return


def is_busy(error: sqlite3.Error) -> bool:
    """Another process has the file, for now."""
    code = getattr(error, "sqlite_errorcode", None)  # None: raised by the module, not by SQLite
    return code is not None and code & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
