"""How often did the cache help in earlier sessions?"""

import logging
import os
import secrets
from collections.abc import Sequence

from pydantic import BaseModel, ValidationError

from tradecache.clock import Clock
from tradecache.listing import entries_of
from tradecache.naming import OF_HISTORY
from tradecache.stack import Stack
from tradecache.telemetry import BIN_SECONDS, Bin, Group, Telemetry, Totals

log = logging.getLogger("tradecache")

AT_ONCE = 500  # bins of one entry
SPARE = (
    1000  # keys that are remembered beside as many as there are: after a step of the clock they may be back
)
NO_REQUESTS = Totals(0, 0, 0, 0.0, ())
DIGITS = 13  # of milliseconds since the epoch, so that keys sort by time until the year 2286


class Kept(BaseModel):
    """An entry: what one session has counted."""

    bins: list[Bin]


class History:
    """Counts of requests by the minute, kept as entries of the durable tier that expire by themselves.

    Each session writes entries of its own, so that several processes lose nothing of each other's. A forked
    child writes none: its counts began in its parent.

    Args:
        stack: Where they are kept.
        telemetry: What is counted now.
        clock: What time it is.
        keep: For how many seconds; None: nothing is written.
    """

    def __init__(self, stack: Stack, telemetry: Telemetry, *, clock: Clock, keep: float | None) -> None:
        self._stack = stack
        self._telemetry = telemetry
        self._clock = clock
        self._keep = keep
        self._session = secrets.token_hex(6)
        self._process = os.getpid()
        self._is_closed = False
        self._written = 0

    async def write(self) -> None:
        """Keep what was counted since the last time; what cannot be written is tried again the next time."""
        if self._keep is None or self._is_closed or os.getpid() != self._process:
            return
        bins = self._telemetry.take_bins()
        while bins:
            some, bins = bins[:AT_ONCE], bins[AT_ONCE:]
            try:
                await self._put(some)
            except BaseException as error:
                self._telemetry.give_back(some + bins)
                if not isinstance(error, Exception):
                    raise
                log.warning("the history of requests could not be written: %s", error)
                return

    async def read(self) -> list[Bin]:
        """Return what this and other sessions have counted, in order of time.

        Raises:
            NotEnumerable: When the durable store cannot list its keys.
        """
        bins = self._telemetry.take_bins()
        self._telemetry.give_back(bins)  # they are written in their own time
        for entry in await entries_of(self._stack, OF_HISTORY, clock=self._clock):
            bins += _bins_in(entry.key, entry.value)
        oldest = -float("inf") if self._keep is None else self._clock.epoch() - self._keep
        return sorted(each for each in bins if each.start + BIN_SECONDS > oldest)

    async def _put(self, bins: Sequence[Bin]) -> None:
        self._written += 1
        key = f"{round(bins[0].start * 1000):0{DIGITS}}.{self._session}.{self._written}"
        value = Kept(bins=list(bins)).model_dump(mode="json")
        await self._stack.retrying.put(key, value, collection=OF_HISTORY, ttl=self._keep)

    async def close(self) -> None:
        """Write a last time."""
        await self.write()
        self._is_closed = True


class Sums:
    """What all sessions of a folder have counted: sums that never fall, though what they were made of expires.

    Args:
        stack: Where histories are kept.
        clock: What time it is.
    """

    def __init__(self, stack: Stack, *, clock: Clock) -> None:
        self._stack = stack
        self._clock = clock
        self._counted: set[str] = set()
        self._sums: dict[Group, Totals] = {}

    async def look(self) -> dict[Group, Totals]:
        """Count the entries that are new, and return the sums of all that there ever were since the first look.

        One look at a time. Nothing is counted when it raises.

        Raises:
            NotEnumerable: When the durable store cannot list its keys.
        """
        entries = await entries_of(self._stack, OF_HISTORY, clock=self._clock)
        for entry in entries:
            if entry.key not in self._counted:
                for each in _bins_in(entry.key, entry.value):
                    self._add(each)
                self._counted.add(entry.key)
        if len(self._counted) > 2 * len(entries) + SPARE:
            self._counted = {entry.key for entry in entries}
        return dict(self._sums)

    def _add(self, one: Bin) -> None:
        group = Group(one.operation, one.dataset, one.tier, one.is_stale)
        before = self._sums.get(group, NO_REQUESTS)
        self._sums[group] = before._replace(
            requests=before.requests + one.requests,
            rows=before.rows + one.rows,
            bytes=before.bytes + one.bytes,
        )


def _bins_in(key: str, value: bytes) -> Sequence[Bin]:
    """Return the bins of an entry; what is none is logged, and left out."""
    try:
        return Kept.model_validate_json(value).bins
    except ValidationError as error:
        log.warning("%r in %r is no history: %s", key, OF_HISTORY, error.errors(include_input=False))
        return []
