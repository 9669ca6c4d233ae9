"""A crash at every call of the contracts: what was told stays true, and a new process goes on."""

from functools import partial
from pathlib import Path

import pytest

from tests.engine.crashes import STORIES, Story, run
from tests.engine.world import PAIRS, site_of

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("story", STORIES, ids=str)
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
async def test_a_crash_at_every_call(pair: tuple[str, str], story: Story, tmp_path: Path) -> None:
    make = partial(site_of, *pair)
    calls = await run(story, make, tmp_path / "no crash")
    assert calls
    for at, name in enumerate(calls, 1):
        await run(story, make, tmp_path / f"{at}", at=at, proven=False)
        if pair == ("file", "sqlite"):  # the only pair where a proof of death changes what is written
            await run(story, make, tmp_path / f"{at} proven", at=at, proven=True)
        if name == "writer.write":
            await run(story, make, tmp_path / f"{at} torn", at=at, torn=True)
