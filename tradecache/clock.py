"""What time is it: for timestamps, and for how long something still has to live?"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import SupportsFloat

import numpy as np

from tradecache.errors import InvalidInput, InvalidTTL

ALLOWED = "a callable that returns an aware datetime in UTC"
SECOND = timedelta(seconds=1)
STEP = 1.0  # seconds; a smaller move backwards is two threads reading the clock, not a step of the clock
MAX_TTL = 1e11  # seconds, about 3,170 years: a moment that every clock and ledger row can still hold

TTL = SupportsFloat | timedelta
"""A time to live as a caller spells it: seconds, or a timedelta (also pandas' and numpy's)."""


class Clock:
    """Wall-clock time as the caller gives it, and a second reading for TTLs that never runs backwards.

    A wall clock that is set back (NTP, a virtual machine resumed) must neither revive what has expired
    nor keep what should expire. `seconds()` therefore adds up the backward steps it has seen: after one it
    goes on from where it was. Forward steps are followed, so that a laptop's sleep counts as time.

    Args:
        utcnow: A callable that returns an aware datetime in UTC. The system's clock by default.

    Raises:
        InvalidInput: For what cannot be called, or returns anything else.
    """

    def __init__(self, utcnow: Callable[[], datetime] | None = None) -> None:
        if utcnow is not None and not callable(utcnow):
            raise InvalidInput("clock", utcnow, ALLOWED)
        self._utcnow = utcnow
        self.epoch: Callable[[], float] = (
            time.time if utcnow is None else lambda: _aware(utcnow()).timestamp()
        )
        """The wall-clock time as seconds since the epoch."""
        self._last = self.epoch()
        self._offset = 0.0

    def now(self) -> datetime:
        """Return the wall-clock time, aware, in UTC."""
        return datetime.now(UTC) if self._utcnow is None else _aware(self._utcnow()).astimezone(UTC)

    def seconds(self) -> float:
        """Return seconds since the epoch for TTLs: the wall clock, but never stepping back."""
        seconds = self.epoch() + self._offset
        if seconds < self._last - STEP:
            self._offset += self._last - seconds
            seconds = self._last
        self._last = seconds
        return seconds


def checked_ttl(ttl: TTL | None) -> float | None:
    """Return `ttl` as positive, finite seconds; None means for ever.

    >>> checked_ttl(timedelta(hours=1))
    3600.0

    Raises:
        InvalidTTL: For zero, a negative number, NaN, infinity, a boolean or what is no number.
    """
    if ttl is None:
        return None
    allowed = f"a positive number of seconds up to {MAX_TTL:g}, a timedelta, or None for ever"
    if isinstance(ttl, (bool, str, bytes)):
        raise InvalidTTL(ttl, allowed)
    try:
        seconds = float(ttl / SECOND if isinstance(ttl, (timedelta, np.timedelta64)) else ttl)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidTTL(ttl, allowed) from error
    if not 0 < seconds <= MAX_TTL:  # NaN fails every comparison
        raise InvalidTTL(ttl, allowed)
    return seconds


def _aware(moment: object) -> datetime:
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise InvalidInput("clock", moment, ALLOWED)
    return moment
