"""Every storage of this package, through the kit that other people's storages go through."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tusserve.contracts import StorageBackend
from tusserve.storage.file import FileStorage
from tusserve.storage.memory import MemoryStorage
from tusserve.testing.check import Check
from tusserve.testing.storage_kit import storage_checks


@asynccontextmanager
async def memory(place: Path) -> AsyncGenerator[StorageBackend]:
    async with MemoryStorage() as storage:
        yield storage


@asynccontextmanager
async def full(place: Path) -> AsyncGenerator[StorageBackend]:
    async with FileStorage(place) as storage:
        yield storage


@asynccontextmanager
async def checkpoint(place: Path) -> AsyncGenerator[StorageBackend]:
    async with FileStorage(place, durability="checkpoint") as storage:
        yield storage


@asynccontextmanager
async def none(place: Path) -> AsyncGenerator[StorageBackend]:
    async with FileStorage(place, durability="none") as storage:
        yield storage


@pytest.mark.anyio
@pytest.mark.parametrize("check", storage_checks(memory, durable=False), ids=str)
async def test_memory_storage(check: Check) -> None:
    await check()


@pytest.mark.anyio
@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, id=f"{make.__name__} {check}")
        for make in (full, checkpoint, none)
        for check in storage_checks(make)
    ],
)
async def test_file_storage(check: Check) -> None:
    await check()
