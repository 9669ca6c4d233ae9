"""The tests of the engine run on a loop that does not wait."""

import pytest

from tests.engine.quick_loop import QuickLoop


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "asyncio", {"loop_factory": QuickLoop}


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A storage's own wish decides about checkpoints, however small it is."""
    monkeypatch.setattr("tusserve.reception.MIN_CHECKPOINT", 1)
