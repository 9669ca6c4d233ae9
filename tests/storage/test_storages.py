"""Every storage of this package, through the kit that other people's storages go through."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tusserve.contracts import StorageBackend
from tusserve.storage.memory import MemoryStorage
from tusserve.testing.check import Check
from tusserve.testing.storage_kit import storage_checks


@asynccontextmanager
async def memory(place: Path) -> AsyncGenerator[StorageBackend]:
    async with MemoryStorage() as storage:
        yield storage


@pytest.mark.anyio
@pytest.mark.parametrize("check", storage_checks(memory, durable=False), ids=str)
async def test_memory_storage(check: Check) -> None:
    await check()
