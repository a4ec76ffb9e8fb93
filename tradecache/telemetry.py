"""What was asked of the cache, which tier answered, and how long did it take?"""

import math
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple, Self, get_args

from tradecache.forks import fork_safe_lock

Tier = Literal["memory", "disk", "team", "source", "none", "error"]
Outcome = Literal["hit", "stale", "miss", "error", "done"]
READS = ("get", "latest", "prices", "bars")
HITS = ("memory", "disk", "team")
"""The tiers that answer from what is cached, the fastest first."""
NOTHING_CACHED = (0, 0, 0)
MAX_EVENTS = 100_000
MAX_BINS = 100_000
BIN_SECONDS = 60.0
LATENCIES = (
    5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0,
    2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
"""Seconds, ascending, up to which requests are counted together: from memory's microseconds to a patient source."""
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
    cached: tuple[int, int, int]
    """How many of the rows each of `HITS` had, where another tier had to give the others."""
    bytes: int
    """What those rows take in memory, at eight bytes for each value and label."""
    seconds: float
    """How long it took, on the monotonic clock."""

    @property
    def rows_cached(self) -> int:
        """How many of the rows that were read were cached already."""
        return cached_of(self.operation, self.tier, rows=self.rows, cached=self.cached)

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
    from_team: int
    """The same of a team's store or an archive."""

    @property
    def cached(self) -> tuple[int, int, int]:
        """How many of the rows each of `HITS` had, where another tier had to give the others."""
        return self.from_memory, self.from_disk, self.from_team

    def rows_from(self, tier: str, *, last: str) -> int:
        """Return how many of the rows a tier gave, where `last` was the last one that had to be asked."""
        mixed = dict(zip(HITS, self.cached, strict=True))
        return self.rows - sum(self.cached) if tier == last else mixed.get(tier, 0)


class Group(NamedTuple):
    """What requests of all symbols are counted by."""

    operation: str
    dataset: str
    tier: Tier
    is_stale: bool

    @property
    def outcome(self) -> Outcome:
        """What became of them, see `outcome_of`."""
        return outcome_of(self.operation, self.tier, is_stale=self.is_stale)


class Totals(NamedTuple):
    """How many requests of one group there were, what they gave or took, and how long they took."""

    requests: int
    rows: int
    bytes: int
    seconds: float
    """All of them together."""
    latencies: tuple[int, ...]
    """How many took up to each of `LATENCIES` and longer than the one before; the last ones took longer than all."""


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


def cached_of(operation: str, tier: str, *, rows: int, cached: tuple[int, int, int]) -> int:
    """Return how many of the rows that were read were cached already; `cached` as in `Event`."""
    if operation not in READS:
        return 0
    return rows if tier in HITS else sum(cached)


def outcome_of(operation: str, tier: str, *, is_stale: bool) -> Outcome:
    """Say what became of a request.

    A read is a "hit" where memory, disk or a team's store had all of it, else a "miss", whether a source then had it or nobody; it is
    "stale" where a part of the answer is no longer fresh. A write that found its entry is "done", and so is a warm-up. What
    raised is an "error".
    """
    if tier == "error":
        return "error"
    if operation not in READS:
        return "miss" if tier == "none" else "done"
    if is_stale:
        return "stale"
    return "hit" if tier in HITS else "miss"


class _Total:
    """What is counted of one group."""

    __slots__ = ("bytes", "latencies", "requests", "rows", "seconds")

    def __init__(self) -> None:
        self.requests = self.rows = self.bytes = 0
        self.seconds = 0.0
        self.latencies = [0] * (len(LATENCIES) + 1)


class Telemetry:
    """A bounded buffer of events for times and latencies, and exact counters that never forget.

    Safe to use from any thread. `record` takes about a microsecond.

    Args:
        now: Seconds since the epoch.
        max_events: How many events are remembered.
        bin_seconds: How long each bin of `take_bins` is; None: there are none.
        has_team: Whether bars are asked of a team's store before they are of a source.
    """

    def __init__(
        self,
        now: Callable[[], float] = time.time,
        *,
        max_events: int = MAX_EVENTS,
        bin_seconds: float | None = None,
        has_team: bool = False,
    ) -> None:
        self.has_team = has_team
        self._now = now
        self._lock = fork_safe_lock()
        self._events: deque[
            tuple[float, str, str, str, Tier, bool, int, tuple[int, int, int], int, float]
        ] = deque(maxlen=max_events)
        self._counts: dict[tuple[str, str, str, Tier, bool], list[int]] = {}
        self._totals: dict[tuple[str, str, Tier, bool], _Total] = {}
        self._bin_seconds = bin_seconds or 0.0
        self._bin_start = math.inf if bin_seconds else -math.inf
        self._bin_end = math.inf
        self._bins: list[Bin] = []
        self._binned: dict[tuple[str, str, Tier, bool], tuple[int, int, int]] = {}

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
        cached: tuple[int, int, int] = NOTHING_CACHED,
    ) -> None:
        """Count one request; `size` is in bytes, `cached` as in `Event`."""
        kind, group = (operation, dataset, symbol, tier, is_stale), (operation, dataset, tier, is_stale)
        with self._lock:
            now = self._now()
            if not self._bin_start <= now < self._bin_end:
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
                counts[5] += cached[2]
            total = self._totals.get(group)
            if total is None:
                total = self._totals[group] = _Total()
            total.requests += 1
            total.rows += rows
            total.bytes += size
            total.seconds += seconds
            total.latencies[bisect_left(LATENCIES, seconds)] += 1

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

    def totals(self) -> dict[Group, Totals]:
        """Return how many requests there were of each group, and their latencies, since the beginning or `reset`.

        It costs the same however many symbols there are.
        """
        with self._lock:
            return {
                Group._make(group): Totals(t.requests, t.rows, t.bytes, t.seconds, tuple(t.latencies))
                for group, t in self._totals.items()
            }

    def reads(self) -> "Reads":
        """Return how many reads each tier answered, since the beginning or `reset`."""
        tiers, stale = dict.fromkeys(get_args(Tier), 0), 0
        with self._lock:
            for (operation, _, tier, is_stale), total in self._totals.items():
                if operation in READS:
                    tiers[tier] += total.requests
                    stale += total.requests * is_stale
        return Reads(tiers, stale)

    def take_bins(self) -> list[Bin]:
        """Return what was counted since the last call, in bins, and forget it; the last bin may still grow."""
        with self._lock:
            self._end_bin()
            bins, self._bins = self._bins, []
            return bins

    def give_back(self, bins: list[Bin]) -> None:
        """Take bins back that could not be kept; the next `take_bins` has them again, up to `MAX_BINS`."""
        with self._lock:
            self._bins = [*bins, *self._bins][-MAX_BINS:]

    def reset(self) -> None:
        """Forget everything but what is in bins."""
        with self._lock:
            self._end_bin()
            self._events.clear()
            self._counts.clear()
            self._totals.clear()
            self._binned.clear()

    def _begin_bin(self, now: float) -> None:
        self._end_bin()
        self._bin_start = now - now % self._bin_seconds
        self._bin_end = self._bin_start + self._bin_seconds

    def _end_bin(self) -> None:
        """Put what was counted since the last bin into one of its own."""
        if not math.isfinite(self._bin_start):
            return
        for kind, total in self._totals.items():
            now, before = (total.requests, total.rows, total.bytes), self._binned.get(kind, (0, 0, 0))
            if now > before:
                grown = (a - b for a, b in zip(now, before, strict=True))
                self._bins.append(Bin(self._bin_start, *kind, *grown))
                self._binned[kind] = now


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
        """How many of them `HITS` answered."""
        return sum(self.tiers[tier] for tier in HITS)


class Together:
    """Records several requests when its block ends, or none of them when it is closed in the middle."""

    def __init__(self) -> None:
        self._events: list[tuple[Telemetry, tuple[Any, ...]]] = []

    def add(self, telemetry: Telemetry, event: tuple[Any, ...]) -> None:
        """Record an event later."""
        self._events.append((telemetry, event))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not GeneratorExit:
            for telemetry, event in self._events:
                telemetry.record(*event)


class Timed:
    """Records one request when its block ends: as it was `served`, as an error when it raises.

    Not when the block is closed in the middle (GeneratorExit): then it is asked again where it can wait.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        operation: str,
        dataset: str,
        symbol: str,
        *,
        columns: int = 0,
        together: Together | None = None,
    ) -> None:
        self._telemetry = telemetry
        self._together = together
        self._columns = columns
        self._what = operation, dataset, symbol
        self._began = 0.0
        self._outcome: tuple[Any, ...] = ("none", 0, 0)
        self._more: tuple[Any, ...] = ()

    def served(
        self,
        tier: Tier,
        *,
        rows: int,
        columns: int | None = None,
        is_stale: bool = False,
        cached: tuple[int, int, int] = NOTHING_CACHED,
    ) -> None:
        """Say who served it, and with how many rows, of as many columns as it was made with or of so many."""
        size = size_of_rows(rows, self._columns if columns is None else columns)
        self._outcome, self._more = (tier, rows, size), (is_stale, cached)

    def record(self) -> None:
        """Record it now, or with the others."""
        event = *self._what, *self._outcome, time.perf_counter() - self._began, *self._more
        if self._together is None:
            self._telemetry.record(*event)
        else:
            self._together.add(self._telemetry, event)

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self._outcome, self._more = ("error", 0, 0), ()
        if kind is not GeneratorExit:
            self.record()
