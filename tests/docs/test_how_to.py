"""The longer programs of the how-to pages do what the pages say."""

import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, cast

import pytest

from tusserve.contracts import StorageBackend
from tusserve.testing.check import Check
from tusserve.testing.storage_kit import storage_checks

HOW_TO: Final = Path(__file__).parent.parent.parent / "docs" / "how-to"


def program(page: str, with_word: str) -> dict[str, object]:
    """What the first Python block of a page that has the word defines."""
    blocks: list[str] = re.findall(
        r"^```python\n(.*?)^```$", (HOW_TO / page).read_text(), re.MULTILINE | re.DOTALL
    )
    names: dict[str, object] = {"__name__": "program"}
    exec(compile(next(each for each in blocks if with_word in each), page, "exec"), names)
    return names


PartStorage: Final = cast(
    "Callable[[Path], StorageBackend]", program("write-a-storage.md", "class PartStorage")["PartStorage"]
)


@asynccontextmanager
async def mine(place: Path) -> AsyncGenerator[StorageBackend]:
    async with PartStorage(place) as storage:
        yield storage


@pytest.mark.anyio
@pytest.mark.parametrize("check", storage_checks(mine, keys=False), ids=str)
async def test_the_storage_of_the_page_keeps_every_clause(check: Check) -> None:
    await check()


test_the_test_of_the_page = cast(
    "Callable[[], Awaitable[None]]",
    program("test.md", "ManualClock")["test_a_cut_upload_resumes_and_an_idle_one_expires"],
)
