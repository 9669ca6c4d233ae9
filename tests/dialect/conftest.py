"""The tests of the second dialect run on a loop that does not wait, as those of the engine do."""

import pytest

from tests.engine.quick_loop import QuickLoop
from tests.engine.world import prepare


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "asyncio", {"loop_factory": QuickLoop}


@pytest.fixture(autouse=True)
def _prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch)
