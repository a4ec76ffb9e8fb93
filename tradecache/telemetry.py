"""What was asked of the cache, which tier answered, and how long did it take?"""

import math
import time
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Literal, NamedTuple, Self, get_args

from tradecache.forks import fork_safe_lock

Tier = Literal["memory", "disk", "source", "none", "error"]
Outcome = Literal["hit", "stale", "miss", "error", "done"]
READS = ("get", "latest", "prices", "bars")
HITS = ("memory", "disk")
MAX_EVENTS = 100_000
BIN_SECONDS = 60.0
CELL_BYTES = 8
"""What each value and each label of an index is counted as, whatever its type: to measure it would take longer."""


def size_of_rows(rows: int, columns: int) -> int:
    """Return what rows are counted as, in bytes, with their index.

    >>> size_of_rows(250, 5)
    12000
    """
    return rows * (1 + columns) * CELL_BYTES


SERVED_BY: ContextVar[Tier] = ContextVar("served_by", default="none")
"""Set by the tiered stack at the end of each read, for whoever awaited it."""


class Event(NamedTuple):
    """One request, as it was served."""

    time: float
    """Seconds since the epoch, at its end."""
    operation: str
    """"get", "latest", "prices" or "bars"; "warm", "put" or "delete", which are no reads."""
    dataset: str
    """"prices", or "bars" and their interval."""
    symbol: str
    """The symbol, or "" when it was about several."""
    tier: Tier
    """The tier that served it, of bars the slowest that had a part in it; "none" when nobody had it, "error" when it failed."""
    is_stale: bool
    """Whether it was served with bars that are no longer fresh, because the source failed."""
    rows: int
    """How many rows it gave or took."""
    cached: tuple[int, int]
    """How many of the rows memory and disk had, where another tier had to give the others."""
    bytes: int
    """What those rows take in memory, at eight bytes for each value and label."""
    seconds: float
    """How long it took, on the monotonic clock."""

    @property
    def rows_cached(self) -> int:
        """How many of the rows that were read were in memory or on disk already."""
        if self.operation not in READS:
            return 0
        return self.rows if self.tier in HITS else sum(self.cached)

    @property
    def outcome(self) -> Outcome:
        """What became of it, see `outcome_of`."""
        return outcome_of(self.operation, self.tier, is_stale=self.is_stale)


class Kind(NamedTuple):
    """What requests are counted by."""

    operation: str
    dataset: str
    symbol: str
    tier: Tier
    is_stale: bool


class Counts(NamedTuple):
    """How many requests of one kind there were, and what they gave or took."""

    requests: int
    rows: int
    bytes: int
    from_memory: int
    """How many of the rows memory had, where another tier had to give the others."""
    from_disk: int
    """The same of the disk."""

    def rows_from(self, tier: str, *, last: str) -> int:
        """Return how many of the rows a tier gave, where `last` was the last one that had to be asked."""
        mixed = {"memory": self.from_memory, "disk": self.from_disk}
        return self.rows - self.from_memory - self.from_disk if tier == last else mixed.get(tier, 0)


NO_COUNTS = Counts(0, 0, 0, 0, 0)


class Bin(NamedTuple):
    """The requests of one kind in `BIN_SECONDS` from `start` on, of whatever symbol."""

    start: float
    """Seconds since the epoch, a multiple of `BIN_SECONDS`."""
    operation: str
    dataset: str
    tier: Tier
    is_stale: bool
    requests: int
    rows: int
    bytes: int


def outcome_of(operation: str, tier: str, *, is_stale: bool) -> Outcome:
    """Say what became of a request.

    A read is a "hit" where memory or disk had all of it ("stale": but what they had is no longer fresh), else a
    "miss", whether a source then had it or nobody. A write that found its entry is "done", and so is a warm-up. What
    raised is an "error".
    """
    if tier == "error":
        return "error"
    if operation not in READS:
        return "miss" if tier == "none" else "done"
    if tier not in HITS:
        return "miss"
    return "stale" if is_stale else "hit"


class Telemetry:
    """A bounded buffer of events for times and latencies, and exact counters that never forget.

    Safe to use from any thread. `record` takes about a microsecond.

    Args:
        now: Seconds since the epoch.
        max_events: How many events are remembered.
        bin_seconds: How long each bin of `take_bins` is; None: there are none.
    """

    def __init__(
        self,
        now: Callable[[], float] = time.time,
        *,
        max_events: int = MAX_EVENTS,
        bin_seconds: float | None = None,
    ) -> None:
        self._now = now
        self._lock = fork_safe_lock()
        self._events: deque[tuple[float, str, str, str, Tier, bool, int, tuple[int, int], int, float]] = (
            deque(maxlen=max_events)
        )
        self._counts: dict[tuple[str, str, str, Tier, bool], list[int]] = {}
        self._bin_seconds = bin_seconds or 0.0
        self._bin_end = -math.inf if bin_seconds else math.inf
        self._bins: list[Bin] = []
        self._binned: dict[tuple[str, str, Tier, bool], Counts] = {}

    def record(
        self,
        operation: str,
        dataset: str,
        symbol: str,
        tier: Tier,
        rows: int,
        size: int,
        seconds: float,
        is_stale: bool = False,  # noqa: FBT001, FBT002 - positional, as it is the hot path
        cached: tuple[int, int] = (0, 0),
    ) -> None:
        """Count one request; `size` is in bytes, `cached` as in `Event`."""
        kind = (operation, dataset, symbol, tier, is_stale)
        with self._lock:
            now = self._now()
            if now >= self._bin_end:
                self._begin_bin(now)
            self._events.append(
                (now, operation, dataset, symbol, tier, is_stale, rows, cached, size, seconds)
            )
            counts = self._counts.get(kind)
            if counts is None:
                self._counts[kind] = [1, rows, size, *cached]
            else:
                counts[0] += 1
                counts[1] += rows
                counts[2] += size
                counts[3] += cached[0]
                counts[4] += cached[1]

    def events(self) -> list[Event]:
        """Return the remembered events, oldest first."""
        with self._lock:
            return [Event._make(event) for event in self._events]

    def last_events(self, count: int) -> list[Event]:
        """Return the newest few events, newest first."""
        with self._lock:
            few = min(count, len(self._events))
            return [Event._make(self._events[-1 - place]) for place in range(few)]

    def counts(self) -> dict[Kind, Counts]:
        """Return how many requests there were of each kind, since the beginning or `reset`."""
        with self._lock:
            return {Kind._make(kind): Counts._make(counts) for kind, counts in self._counts.items()}

    def take_bins(self) -> list[Bin]:
        """Return what was counted since the last call, in bins, and forget it; the last bin may still grow."""
        with self._lock:
            self._end_bin()
            bins, self._bins = self._bins, []
            return bins

    def give_back(self, bins: list[Bin]) -> None:
        """Take bins back that could not be kept; the next `take_bins` has them again."""
        with self._lock:
            self._bins = bins + self._bins

    def reset(self) -> None:
        """Forget everything but what is in bins."""
        with self._lock:
            self._end_bin()
            self._events.clear()
            self._counts.clear()
            self._binned.clear()

    def _begin_bin(self, now: float) -> None:
        self._end_bin()
        self._bin_end = now - now % self._bin_seconds + self._bin_seconds

    def _end_bin(self) -> None:
        """Put what was counted since the last bin into one of its own."""
        if not math.isfinite(self._bin_end):
            return
        start = self._bin_end - self._bin_seconds
        totals: dict[tuple[str, str, Tier, bool], Counts] = {}
        for (operation, dataset, _, tier, is_stale), counts in self._counts.items():
            kind = (operation, dataset, tier, is_stale)
            totals[kind] = _plus(totals.get(kind, NO_COUNTS), counts)
        for kind, total in totals.items():
            before = self._binned.get(kind, NO_COUNTS)
            if total.requests > before.requests:
                self._bins.append(
                    Bin(start, *kind, *(a - b for a, b in zip(total[:3], before, strict=False)))
                )
        self._binned = totals


class Reads(NamedTuple):
    """How many reads there were."""

    tiers: dict[str, int]
    """By the tier that answered; "none": nobody had it; "error"."""
    stale: int
    """How many of them were answered with what is no longer fresh."""

    @property
    def requests(self) -> int:
        """How many there were in all."""
        return sum(self.tiers.values())

    @property
    def hits(self) -> int:
        """How many of them memory or disk answered."""
        return sum(self.tiers[tier] for tier in HITS)


def reads_of(telemetry: Telemetry) -> Reads:
    """Return how many reads each tier answered, since the beginning or `reset`."""
    tiers, stale = dict.fromkeys(get_args(Tier), 0), 0
    for kind, counts in telemetry.counts().items():
        if kind.operation in READS:
            tiers[kind.tier] += counts.requests
            stale += counts.requests * kind.is_stale
    return Reads(tiers, stale)


class Timed:
    """Records one request when its block ends: as it was `served`, as an error when it raises.

    Not when the block is closed in the middle (GeneratorExit): then it is asked again where it can wait.
    """

    def __init__(
        self, telemetry: Telemetry, operation: str, dataset: str, symbol: str, *, columns: int = 0
    ) -> None:
        self._telemetry = telemetry
        self._columns = columns
        self._what = operation, dataset, symbol
        self._tier: Tier = "none"
        self._rows = 0
        self._is_stale = False
        self._cached = 0, 0
        self._began = 0.0

    def served(
        self,
        tier: Tier,
        *,
        rows: int,
        columns: int | None = None,
        is_stale: bool = False,
        cached: tuple[int, int] = (0, 0),
    ) -> None:
        """Say who served it, and with how many rows, of as many columns as it was made with or of so many."""
        self._tier, self._rows, self._is_stale, self._cached = tier, rows, is_stale, cached
        self._columns = self._columns if columns is None else columns

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.perf_counter() - self._began

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._telemetry.record(
                *self._what, self._tier, self._rows, size_of_rows(self._rows, self._columns), self.seconds,
                self._is_stale, self._cached,
            )  # fmt: skip
        elif kind is not GeneratorExit:
            self._telemetry.record(*self._what, "error", 0, 0, self.seconds)


def _plus(counts: Counts, others: list[int]) -> Counts:
    return Counts(*(a + b for a, b in zip(counts, others, strict=True)))
