"""What time is it: for timestamps, and for how long something still has to live?"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import SupportsFloat

import numpy as np

from tradecache.errors import InvalidInput, InvalidTTL
from tradecache.forks import fork_safe_lock

ALLOWED = "a callable that returns an aware datetime in UTC"
SECOND = np.timedelta64(1, "s")
MICRO = 1_000_000
STEP = 1.0  # seconds; a smaller move backwards is two threads reading the clock, not a step of the clock
MAX_TTL = 1e11  # seconds, about 3,170 years: a moment that every clock and ledger row can still hold

TTL = SupportsFloat | timedelta
"""A time to live as a caller spells it: seconds, or a timedelta (also pandas' and numpy's)."""


class Clock:
    """Wall-clock time as the caller gives it, and a second reading for TTLs that never runs backwards.

    A wall clock that is set back (NTP, a virtual machine resumed) must neither revive what has expired
    nor keep what should expire. `seconds()` therefore adds up the backward steps it has seen: after one it
    goes on from where it was; after a small one it stands until the wall clock has caught up. Forward steps
    are followed, so that a laptop's sleep counts as time.

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
        self._stepping = fork_safe_lock()

    def now(self) -> datetime:
        """Return the wall-clock time, aware, in UTC."""
        return datetime.now(UTC) if self._utcnow is None else _aware(self._utcnow()).astimezone(UTC)

    def seconds(self) -> float:
        """Return seconds since the epoch for TTLs: the wall clock, but never stepping back."""
        seconds = self._offset + self.epoch()  # in this order: an old offset is noticed, a new one would leap
        last = self._last
        if seconds >= last:
            self._last = seconds
            return seconds
        return last if seconds >= last - STEP else self._step_over()

    def micros(self) -> int:
        """Return `seconds()` as whole microseconds: what expiries are told in, because no float holds them all."""
        return round(self.seconds() * MICRO)

    def _step_over(self) -> float:
        """Go on from the last reading, unless another thread has already seen to it."""
        with self._stepping:
            behind = self._last - (self._offset + self.epoch())
            if behind > STEP:
                self._offset += behind
            return self._last


def lifetime(ttl: float) -> int:
    """Return seconds to live as whole microseconds, at least one."""
    return max(1, round(ttl * MICRO))


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
    if isinstance(ttl, (bool, np.bool_, str, bytes)):
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
