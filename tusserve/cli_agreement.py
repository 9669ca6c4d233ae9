"""That all servers on one folder keep the same promises.

Owns the file beside the records in which the first server notes its terms, and the sentence for one whose
terms are others. Knows no upload and no app. `cli_serve` calls it before anything is served.
"""

import json
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tusserve.cli_options import AppOptions, CommandError, ServeOptions

if sys.platform != "win32":
    import fcntl

_LARGEST: Final = 65536


def terms_of(app: AppOptions, serving: ServeOptions) -> dict[str, str]:
    """What must be the same: what one of them would refuse that another offered, and what survives a crash.

    Not the largest size, nor how long uploads may rest: each upload's record has its own, and clients are
    told it with every answer. Not host, port, path or proxies: those are between a server and its clients.
    """
    wanted = serving.extensions
    return {
        "--extensions": "all" if wanted is None else ",".join(sorted(set(wanted))),
        "--expire-idle": "off" if app.expiry is None else "on",
        "--durability": app.durability,
    }


@contextmanager
def agreed(state: Path, terms: dict[str, str]) -> Generator[None]:
    """While this lasts, others may serve only with the same terms. `CommandError` if others do not have them.

    A lock that all share says that the note is in force; the kernel frees it with its last process. Whoever
    gets the lock alone writes the note anew.
    """
    if sys.platform == "win32":
        yield
        return
    path = state.with_name(state.name + "-serving")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write(descriptor, terms)
        except BlockingIOError:
            pass  # others serve, or look just now
        # From alone to shared, the lock is free for a moment: what counts is the note as it is read now.
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        _compare(_read(descriptor), terms)
        yield
    finally:
        os.close(descriptor)


def _write(descriptor: int, terms: dict[str, str]) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(terms).encode(), 0)


def _read(descriptor: int) -> dict[str, str]:
    note: object = None
    with suppress(ValueError):
        note = json.loads(os.pread(descriptor, _LARGEST, 0))
    return {str(key): str(value) for key, value in note.items()} if isinstance(note, dict) else {}


def _compare(theirs: dict[str, str], ours: dict[str, str]) -> None:
    for option, mine in ours.items():
        # An option that the others' version did not have is no reason to keep a newer one out.
        if option in theirs and theirs[option] != mine:
            raise CommandError(
                f"another server runs on this folder with {option} {theirs[option]}, and this one would with "
                f"{mine}: clients meet both, so start them with the same, or stop the other one first"
            )
