"""A clock the tests can set: what time is it, when the test says so?"""

from datetime import UTC, datetime, timedelta


class FakeClock:
    """A wall clock that stands still until it is told to move, or moves by `tick` seconds with each look."""

    tick = 0.0

    def __init__(self, now: datetime = datetime(2024, 6, 3, 14, 30, tzinfo=UTC)) -> None:
        self.now = now

    def __call__(self) -> datetime:
        self.advance(self.tick)
        return self.now

    def advance(self, seconds: float) -> None:
        """Move by `seconds`; a negative number steps the wall clock back."""
        self.now += timedelta(seconds=seconds)
