"""One named check of one clause.

Owns the form in which the conformance kits hand out their checks; knows neither kit.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """A check of one clause of `tusserve.contracts`: await it; it raises `AssertionError` if the clause is
    broken. Printed, it is the clause's number and what was tried: usable as a pytest id."""

    clause: str
    title: str
    run: Callable[[], Awaitable[None]]

    async def __call__(self) -> None:
        """Run it, once, on a fresh place."""
        await self.run()

    def __str__(self) -> str:
        return f"{self.clause} {self.title}"
