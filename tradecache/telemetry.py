"""What was asked of the cache, which tier answered, and how long did it take?"""

import time
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Literal, NamedTuple

from tradecache.forks import fork_safe_lock

Tier = Literal["memory", "disk", "source", "none", "error"]
MAX_EVENTS = 100_000

SERVED_BY: ContextVar[Tier] = ContextVar("served_by", default="none")
"""Set by the tiered stack at the end of each read, for whoever awaited it."""


class Event(NamedTuple):
    """One request, as it was served."""

    time: float
    """Seconds since the epoch, at its end."""
    operation: str
    """"get", "latest", "prices", "bars", "put" or "delete"."""
    dataset: str
    """"prices", or "bars" and their interval."""
    symbol: str
    """The symbol, or "" when it was about several."""
    tier: Tier
    """The tier that served it, of bars the slowest that had a part in it; "none" for a miss, "error" when it failed."""
    rows: int
    """How many rows it gave or took."""
    seconds: float
    """How long it took, on the monotonic clock."""


class Telemetry:
    """A bounded buffer of events for times and latencies, and exact counters that never forget.

    Safe to use from any thread. `record` takes about a microsecond.
    """

    def __init__(self, now: Callable[[], float] = time.time, *, max_events: int = MAX_EVENTS) -> None:
        self._now = now
        self._lock = fork_safe_lock()
        self._events: deque[tuple[float, str, str, str, Tier, int, float]] = deque(maxlen=max_events)
        self._counts: dict[tuple[str, str, str, Tier], list[int]] = {}

    def record(
        self, operation: str, dataset: str, symbol: str, tier: Tier, rows: int, seconds: float
    ) -> None:
        """Count one request."""
        key = (operation, dataset, symbol, tier)
        with self._lock:
            self._events.append((self._now(), operation, dataset, symbol, tier, rows, seconds))
            counts = self._counts.get(key)
            if counts is None:
                self._counts[key] = [1, rows]
            else:
                counts[0] += 1
                counts[1] += rows

    def events(self) -> list[Event]:
        """Return the remembered events, oldest first."""
        with self._lock:
            return [Event._make(event) for event in self._events]

    def counts(self) -> dict[tuple[str, str, str, Tier], tuple[int, int]]:
        """Return requests and rows by (operation, dataset, symbol, tier)."""
        with self._lock:
            return {key: (requests, rows) for key, (requests, rows) in self._counts.items()}

    def reset(self) -> None:
        """Forget everything."""
        with self._lock:
            self._events.clear()
            self._counts.clear()
