"""The black-box run: every check against one real server."""

from collections.abc import Generator

import pytest

from tests.blackbox.every_check import CHECKS
from tests.blackbox.target import Check, Target
from tests.serving_process import tusserve


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Generator[Target]:
    folder = tmp_path_factory.mktemp("uploads")
    with tusserve(folder, "--durability", "none") as server:
        yield Target(server.url, folder)
        print(server.log)


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_check(target: Target, check: Check) -> None:
    check.run(target)
