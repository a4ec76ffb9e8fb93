"""How long has the next request to a provider to wait?"""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

Limit = tuple[int, float] | None
"""At most so many requests in so many seconds."""
MOMENT = 1e-6  # seconds; two readings of a clock that counts in floats may be one and the same
NEVER = float("-inf")
LONGEST_HOLD = 7 * 86400.0  # seconds; exchanges ban for up to three days


class Turn(NamedTuple):
    """What one who wants to ask a provider is told.

    Attributes:
        wait: Seconds until it is worth asking again; 0: the request may begin now, and its place is taken.
        is_hold: Whether the provider wants to be left alone.
        place: What whoever gave the place calls it, to give it back; None: none was given.
    """

    wait: float = 0.0
    is_hold: bool = False
    place: float | None = None


class Pace:
    """Keeps to a rate limit: in no span of `seconds` do more than `requests` requests begin.

    It remembers when the last ones began, which is stricter than a bucket that fills while it is emptied:
    such a bucket lets through up to twice the limit. No place is given for later, so that one who gives up
    waiting, or dies, takes none. No clock: times are arguments, seconds of one clock; where that is set
    back, what it says will have been counts as now, and nobody waits for longer than the limit says, nor for
    longer than `LONGEST_HOLD`, whatever it is told.

    Args:
        limit: (requests, seconds); None: no limit.
        begun: When requests began before, in order.
        most: How many of them the others who keep to the same pace look back at.
        held: From when and until when the provider wants to be left alone.
    """

    def __init__(
        self,
        limit: Limit,
        *,
        begun: Iterable[float] = (),
        most: int = 0,
        held: tuple[float, float] = (NEVER, NEVER),
    ) -> None:
        self._requests, self._seconds = limit or (0, 0.0)
        self.most = max(self._requests, most)
        self.begun = deque(begun, maxlen=2 * self.most)  # the last ones may be given back
        self.held = held[0], min(held[1], held[0] + LONGEST_HOLD)

    def take(self, now: float) -> Turn:
        """Take a place for a request that begins now, if there is one."""
        turn = self.look(now)
        if turn.wait:
            return turn
        self.begun.append(now)
        return Turn(place=now)

    def look(self, now: float) -> Turn:
        """Say what `take` would say, and take nothing."""
        self._set_right(now)
        if self.held[1] - now > MOMENT:
            return Turn(self.held[1] - now, is_hold=True)
        wait = self._until_free(now)
        return Turn(wait) if wait > MOMENT else Turn()

    def give_back(self, place: float | None) -> None:
        """Give back the place of a request that did not begin."""
        if place is not None and place in self.begun:
            self.begun.remove(place)

    def hold(self, seconds: float, now: float) -> None:
        """Let no request begin for so many seconds: the provider wants to be left alone."""
        self._set_right(now)
        until = now + min(seconds, LONGEST_HOLD)
        if until > self.held[1]:
            self.held = now, until

    def is_ahead(self, now: float) -> bool:
        """Whether the clock was set back since the last request or hold began."""
        return self.held[0] > now or (bool(self.begun) and self.begun[-1] > now)

    def _until_free(self, now: float) -> float:
        if not self._requests or len(self.begun) < self._requests:
            return 0.0
        return min(self.begun[-self._requests], now) + self._seconds - now

    def _set_right(self, now: float) -> None:
        if not self.is_ahead(now):
            return
        self.begun = deque((min(at, now) for at in self.begun), maxlen=self.begun.maxlen)
        ahead = max(0.0, self.held[0] - now) if self.held[1] > NEVER else 0.0
        self.held = self.held[0] - ahead, self.held[1] - ahead
