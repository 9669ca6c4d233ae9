"""Every store of this package, through the kit that other people's stores go through."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from tusserve.contracts import UploadStore
from tusserve.stores.memory import MemoryStore
from tusserve.stores.sqlite import SQLiteStore
from tusserve.testing.check import Check
from tusserve.testing.store_kit import store_checks


def kept(
    make: Callable[[], UploadStore],
) -> Callable[[Path], AbstractAsyncContextManager[UploadStore]]:
    """The same object for the same place: as near as memory comes to a second process."""
    stores: dict[Path, UploadStore] = {}

    @asynccontextmanager
    async def opened(place: Path) -> AsyncGenerator[UploadStore]:
        async with stores.setdefault(place, make()) as store:
            yield store

    return opened


@asynccontextmanager
async def sqlite(place: Path) -> AsyncGenerator[UploadStore]:
    async with SQLiteStore(place / "uploads.db") as store:
        yield store


@pytest.mark.anyio
@pytest.mark.parametrize("check", store_checks(sqlite), ids=str)
async def test_sqlite_store(check: Check) -> None:
    await check()


@pytest.mark.anyio
@pytest.mark.parametrize("check", store_checks(kept(MemoryStore)), ids=str)
async def test_memory_store(check: Check) -> None:
    await check()
