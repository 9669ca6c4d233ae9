"""The app over one folder, or its records alone, as the commands open them.

Owns which storage and store the command line uses, and the sentence for a folder that cannot be used. Knows
the app by its public names. `cli_serve`, `cli_sweep`, `cli_look` and `cli_end` call it.
"""

import os
import sqlite3
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from tusserve import Extension, FileStorage, SQLiteStore, StoreUnavailable, TusApp, TusError
from tusserve.cli_options import AppOptions, CommandError, ServeOptions
from tusserve.lifetime import AnothersBytes
from tusserve.storage.file_sweep import kept_identity
from tusserve.stores.sqlite_schema import is_store


def make_app(options: AppOptions, serving: ServeOptions | None = None) -> TusApp:
    """The app, not yet started. `CommandError` for settings that contradict each other."""
    try:
        storage = FileStorage(options.folder, durability=options.durability)
        store = SQLiteStore(options.state, durability=options.durability)
        if serving is None:
            return TusApp(
                "/files",
                storage=storage,
                store=store,
                name=options.name,
                expiry=options.expiry,
                sweep_every=None,
            )
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
    """Make the folder where it is not there, and nothing else. `CommandError` where files or records cannot
    be written, or where the folder's records are somewhere else."""
    _refuse_what_is_no_folder(folder)
    try:
        if state.is_dir():
            raise CommandError(f"{state} is a folder, and should be the file with the records")
        if state.parent != folder and not state.parent.is_dir():
            raise CommandError(f"{state.parent}, where {state.name} should be, is no folder")
        if state.exists():
            if not os.access(state, os.R_OK | os.W_OK):
                raise CommandError(
                    f"{state}, the file with the records, is not for this user to read and write"
                )
        elif kept_identity(folder) is not None:
            raise CommandError(
                f"{folder} has uploads already, and {state}, where their records should be, is not there: "
                "say with --state where they are, or use another folder"
            )
        kept_identity(folder)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"{error.filename or folder} cannot be used: {error.strerror}") from None
    for place in {folder, state.parent}:
        if not os.access(place, os.W_OK | os.X_OK):
            raise CommandError(f"{place} cannot be written to by this user")


def _refuse_what_is_no_folder(folder: Path) -> None:
    """`CommandError` if something else is there."""
    try:
        if folder.exists() and not folder.is_dir():
            raise CommandError(f"{folder} is a file, not a folder")
        if folder.is_symlink() and not folder.exists():
            raise CommandError(f"{folder} is a link to nothing")
    except OSError as error:
        raise CommandError(f"{folder} cannot be used as a folder: {error.strerror}") from None


def check_uploads(folder: Path, state: Path) -> str:
    """The identity of the store whose uploads the folder has. Makes and changes nothing. `CommandError` for a
    folder in which no server has kept any: to open it would turn it into one, and hide a mistyped name."""
    _refuse_what_is_no_folder(folder)
    try:
        if not folder.is_dir():
            raise CommandError(f"{folder} is no folder of uploads: there is no such folder")
        if not state.is_file():
            raise CommandError(
                f"{folder} is no folder of uploads: {state}, where its records should be, is not there; if "
                "they are elsewhere, say where with --state"
            )
        if not is_store(state):
            raise CommandError(f"{state} is no file of records: no server has kept any in it")
        identity = kept_identity(folder)
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        place = getattr(error, "filename", None) or folder
        raise CommandError(f"{place} cannot be looked at: {reason}") from None
    if identity is None:
        raise CommandError(f"{folder} is no folder of uploads: no server has kept any in it")
    return identity


@asynccontextmanager
async def opened_records(folder: Path, state: Path) -> AsyncGenerator[SQLiteStore]:
    """The records of a folder of uploads, to be looked at: no bytes are touched, and nobody is disturbed.
    `CommandError` where it is none."""
    identity = check_uploads(folder, state)
    store = SQLiteStore(state)
    try:
        await store.__aenter__()
    except (TusError, OSError) as error:
        raise CommandError(str(error)) from None
    try:
        if await store.identity() != identity:
            raise CommandError(_of_others(folder, state))
        yield store
    except StoreUnavailable as error:
        raise CommandError(str(error)) from None
    finally:
        await store.__aexit__(None, None, None)


@asynccontextmanager
async def started(app: TusApp, options: AppOptions) -> AsyncGenerator[None]:
    """The app, running. `CommandError` where it does not start, such as on another's folder."""
    try:
        await app.__aenter__()
    except AnothersBytes:
        raise CommandError(_of_others(options.folder, options.state)) from None
    except (TusError, OSError) as error:
        raise CommandError(str(error)) from None
    try:
        yield
    finally:
        await app.__aexit__(None, None, None)


def _of_others(folder: Path, state: Path) -> str:
    return (
        f"the bytes in {folder} belong to other records than those in {state}: say with --state where theirs "
        "are, or use another folder"
    )
