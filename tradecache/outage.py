"""Does a shared server answer, and when is it worth asking again?"""

import contextlib
import logging
import time
import warnings
from collections.abc import Callable

from tradecache.errors import ServerAwayWarning, told
from tradecache.units import spelt_seconds

log = logging.getLogger("tradecache")

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 4.0  # seconds until one caller asks again; each pause is twice as long


class Outage:
    """Keeps a server that is down from holding anybody up: one warning, then silence until it is back.

    While it lasts nobody asks the server, but one caller after each pause, who finds out whether it is over.

    Args:
        what: The server, as a sentence names it, without secrets.
        instead: What is done meanwhile: "reads and writes go on from disk".
        pauses: Seconds of the first pause, and of the longest.
        monotonic: Seconds of a clock that never runs backwards.
    """

    def __init__(
        self,
        what: str,
        *,
        instead: str,
        pauses: tuple[float, float] = (FIRST_PAUSE, LONGEST_PAUSE),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what = what
        self._instead = instead
        self._first, self._longest = pauses
        self._monotonic = monotonic
        self._began: float | None = None
        self._next_try = 0.0
        self._pause = self._first

    @property
    def is_on(self) -> bool:
        """Whether it lasts, as far as anybody knows."""
        return self._began is not None

    def may_try(self) -> bool:
        """Whether the server may be asked: where all is well, and by one caller after each pause."""
        if self._began is None:
            return True
        now = self._monotonic()
        if now < self._next_try:
            return False
        self._pause = min(2 * self._pause, self._longest)
        self._next_try = now + self._pause
        return True

    def failed(self, error: BaseException) -> None:
        """Note that it did not answer, and say so if it is the first time."""
        if self._began is not None:
            return
        self._began = self._monotonic()
        self._pause = self._first
        self._next_try = self._began + self._pause
        reason = f"{type(error).__name__}: {told(error)}".removesuffix(": ")
        said = f"{self.what} does not answer ({reason}): {self._instead} until it does"
        say_away(said)

    def went_well(self) -> None:
        """Note that it answered."""
        if self._began is None:
            return
        lasted, self._began = self._monotonic() - self._began, None
        log.info("%s answers again, after %s", self.what, spelt_seconds(lasted))


def say_away(said: str) -> None:
    """Say that a server is of no use now: to the log, and as a warning, which notebooks show."""
    log.warning("%s", said)
    with contextlib.suppress(ServerAwayWarning):  # where warnings are errors: this is nobody's error
        warnings.warn(said, ServerAwayWarning, stacklevel=2)
