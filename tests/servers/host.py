"""The app that the real servers serve here, as a user's own module would define it.

Owns one `TusApp` on a folder that the environment names; `tests.servers.running` starts servers on it.
"""

import os
from pathlib import Path
from typing import Final

from fastapi import FastAPI

from tusserve import Accepted, FileStorage, MiB, Rejected, SQLiteStore, TusApp, Upload

FOLDER: Final = Path(os.environ["UPLOADS"])
MAX_SIZE: Final = 64 * MiB


def identify(upload: Upload, head: bytes) -> Accepted:
    """Refuses what calls itself unwanted."""
    if head.startswith(b"unwanted"):
        raise Rejected(415, "unwanted", "Not this.")
    return Accepted()


tus = TusApp(
    "/files",
    storage=FileStorage(FOLDER / "bytes"),
    store=SQLiteStore(FOLDER / "records.db"),
    max_size=MAX_SIZE,
    on_first_chunk=identify,
)
app = FastAPI(routes=tus.routes, lifespan=tus.lifespan)
