"""The offset protocol under any sequence of requests, cuts, crashes, faults and clock steps."""

from functools import partial

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.engine.machine import OffsetProtocol
from tests.engine.world import PAIRS, site_of

EXAMPLES = {
    ("memory", "memory"): 150,
    ("file", "memory"): 40,
    ("memory", "sqlite"): 20,
    ("file", "sqlite"): 25,
}
"""As many as take a few seconds; the sequences are new at each run."""
SETTINGS = settings(
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_every_sequence_keeps_what_was_told(pair: tuple[str, str]) -> None:
    machine = type("-".join(pair), (OffsetProtocol,), {"make_site": staticmethod(partial(site_of, *pair))})
    run_state_machine_as_test(machine, settings=settings(SETTINGS, max_examples=EXAMPLES[pair]))
