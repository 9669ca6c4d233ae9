"""The app over one folder, as both commands open it.

Owns which storage and store the command line uses, and the sentence for a folder that cannot be used. Knows
the app by its public names only. `cli_serve` and `cli_sweep` call it.
"""

import os
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from tusserve import Extension, FileStorage, SQLiteStore, TusApp, TusError
from tusserve.cli_options import AppOptions, CommandError, ServeOptions


def make_app(options: AppOptions, serving: ServeOptions | None = None) -> TusApp:
    """The app, not yet started. `CommandError` for settings that contradict each other."""
    storage = FileStorage(options.folder, durability=options.durability)
    store = SQLiteStore(options.state, durability=options.durability)
    try:
        if serving is None:
            return TusApp("/files", storage=storage, store=store, expiry=options.expiry, sweep_every=None)
        extensions = cast("Collection[Extension] | None", serving.extensions)
        return TusApp(
            serving.path,
            storage=storage,
            store=store,
            expiry=options.expiry,
            extensions=extensions,
            max_size=serving.max_size,
            base_url=serving.base_url,
            cors=serving.cors_origins,
            downloads=serving.downloads,
        )
    except TusError as error:
        raise CommandError(str(error)) from None


def check_folder(folder: Path, state: Path) -> None:
    """Make the folder where it is not there. `CommandError` where files or records cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"{folder} cannot be used as a folder: {error.strerror}") from None
    for place in {folder, state.parent}:
        if not place.is_dir():
            raise CommandError(f"{place}, where {state.name} should be, is no folder")
        if not os.access(place, os.W_OK | os.X_OK):
            raise CommandError(f"{place} cannot be written to by this user")
    if state.is_dir():
        raise CommandError(f"{state} is a folder, and should be the file with the records")


@asynccontextmanager
async def started(app: TusApp) -> AsyncGenerator[None]:
    """The app, running. `CommandError` where it does not start, such as on another's folder."""
    try:
        await app.__aenter__()
    except (TusError, OSError) as error:
        raise CommandError(str(error)) from None
    try:
        yield
    finally:
        await app.__aexit__(None, None, None)
