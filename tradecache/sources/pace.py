"""How long has the next request to a provider to wait?"""

from collections import deque


class Pace:
    """Keeps to a rate limit: in no span of `seconds` do more than `requests` requests begin.

    It remembers when the last ones began, which is stricter than a bucket that fills while it is emptied:
    such a bucket lets through up to twice the limit. No clock: times are arguments, seconds of one clock
    that never runs backwards.

    Args:
        limit: (requests, seconds); None: no limit.
    """

    def __init__(self, limit: tuple[int, float] | None) -> None:
        requests, self._seconds = limit or (0, 0.0)
        self._begun: deque[float] = deque(maxlen=requests)
        self._held_until = float("-inf")

    def reserve(self, now: float) -> float:
        """Take the next place, and return the seconds from `now` until it comes."""
        is_full = bool(self._begun) and len(self._begun) == self._begun.maxlen
        at = max(now, self._begun[0] + self._seconds) if is_full else now
        self._begun.append(at)
        return at - now

    def hold(self, until: float) -> None:
        """Let no request begin before `until`: the provider wants to be left alone."""
        self._held_until = max(self._held_until, until)

    def held(self, now: float) -> float:
        """Return for how many seconds from `now` the provider still wants to be left alone."""
        return max(0.0, self._held_until - now)
