"""The conformance kit for backends, fault injection, and a client in memory.

For the tests of tusserve itself, of people's own storages and stores, and of host applications. `faults` is a
module of its own: `from tusserve.testing import faults`.
"""

from tusserve.testing.check import Check
from tusserve.testing.client import HalfOpen, Response, TusClient
from tusserve.testing.clock import ManualClock
from tusserve.testing.storage_kit import storage_checks
from tusserve.testing.store_kit import store_checks

__all__ = [
    "Check",
    "HalfOpen",
    "ManualClock",
    "Response",
    "TusClient",
    "storage_checks",
    "store_checks",
]
