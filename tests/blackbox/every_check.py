"""Every check, in the order in which they run."""

from collections.abc import Sequence
from typing import Final

from tests.blackbox import appending, contending, creating, extending, hostile, joining
from tests.blackbox.refusing import refusal_checks
from tests.blackbox.target import Check

CHECKS: Final[Sequence[Check]] = (
    *creating.CHECKS,
    *appending.CHECKS,
    *contending.CHECKS,
    *extending.CHECKS,
    *joining.CHECKS,
    *hostile.CHECKS,
    *refusal_checks(),
)
