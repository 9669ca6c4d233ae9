"""The tests of leases run with the real graces and heartbeats, on loops whose time is not ours."""

import pytest

from tests.engine.quick_loop import QuickLoop
from tests.leases.hurried_loop import HurriedLoop


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """A loop that does not wait where everything is in memory; one that hurries where threads work."""
    callspec = getattr(request.node, "callspec", None)
    pair = ("memory", "memory") if callspec is None else callspec.params.get("pair", ("memory", "memory"))
    return "asyncio", {"loop_factory": QuickLoop if pair == ("memory", "memory") else HurriedLoop}
