"""A clock that stands until it is told to go on.

Owns `ManualClock`, which serves as the `clock=` of a `TusApp` and of the stores that take one.
"""

from datetime import UTC, datetime, timedelta


class ManualClock:
    """Calling it gives the time that it was last set to; `advance` moves it."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start

    def __call__(self) -> datetime:
        return self._now

    def advance(self, step: timedelta) -> None:
        """Let `step` pass."""
        self._now += step
