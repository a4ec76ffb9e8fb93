"""The laws of bars: after any sequence of events, every answer is what the source last said, and nothing is asked twice.

Two caches share a folder, as two processes do. Bars form, close, are restated and go missing; the clock steps
on; the source fails; caches restart; ranges are invalidated; segments are put together behind the scenes. The
model knows of each label what the source last said and until when it need not be asked again, from nothing
but the calls that the source saw.
"""

import shutil
import tempfile
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
import stamina
from clocks import FakeClock
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tradecache import RateLimited, SourceError, SourceUnavailable, StaleDataWarning, TradeCache, segments
from tradecache.freshness import BarClose, FixedTTL, Freshness

MICRO = timedelta(microseconds=1)
DAY = timedelta(days=1)
NOON = datetime(2024, 3, 10, 12)  # noqa: DTZ001 - as sources are given labels; clocks change on this day
FIRST, LAST = -20, 30  # bars of the world, counted from the one that is forming at first
LENGTHS = {"1d": DAY, "1h": timedelta(hours=1)}

which = st.sampled_from([0, 1])
place = st.sampled_from(range(FIRST - 3, LAST + 4))
steps = st.sampled_from([0.25, 0.5, 1.0, 1.5, 3.0, 10.0])  # of a bar's length


@dataclass
class Known:
    """What the source last said of a label, and until when that is good; None: for ever."""

    price: float | None
    until: datetime | None
    at: datetime


class World:
    """Bars as they are: some labels have none, each may be restated, the last one is still forming."""

    name = "world"

    def __init__(self, clock: FakeClock, interval: str, settle: timedelta) -> None:
        self.clock = clock
        self.length = LENGTHS[interval]
        self.settle = pd.Timedelta(settle)
        self.max_range = None
        self.versions: dict[int, int] = {}
        self.holes: set[int] = set()
        self.error: SourceError | None = None
        self.calls: list[tuple[datetime, int, int, dict[int, float]]] = []

    @property
    def origin(self) -> datetime:
        """The label of bar 0."""
        return NOON.replace(hour=0) if self.length == DAY else NOON

    def label(self, number: int) -> datetime:
        return self.origin + number * self.length

    def number(self, moment: datetime) -> int:
        """Return the number of the first bar that is not before a moment."""
        return -int((self.origin - moment) // self.length)

    def price(self, number: int) -> float | None:
        now = self.clock.now.replace(tzinfo=None)
        if number in self.holes or not FIRST <= number < LAST or self.label(number) > now:
            return None
        forming = (now - self.label(number)) / self.length
        return 100.0 + number + 1000 * self.versions.get(number, 0) + min(forming, 1.0) / 10

    async def fetch(self, symbol: str, start: pd.Timestamp, end: pd.Timestamp, interval: str) -> pd.DataFrame:
        """Return the bars of a range as they are now."""
        if self.error is not None:
            raise self.error
        edges = (edge.tz_localize(None).to_pydatetime() for edge in (start, end))
        first, last = (self.number(edge) for edge in edges)
        prices = {n: price for n in range(first, last) if (price := self.price(n)) is not None}
        self.calls.append((self.clock.now.replace(tzinfo=None), first, last, prices))
        index = pd.DatetimeIndex([self.label(n) for n in prices], name="timestamp")
        index = index.tz_localize("UTC" if interval == "1h" else None)
        return pd.DataFrame(
            {name: list(prices.values()) for name in ("open", "high", "low", "close")} | {"volume": 1.0},
            index=index,
        )


class BarMachine(RuleBasedStateMachine):
    """Two caches on one folder, and what the source said."""

    interval = "1d"
    ttl: timedelta | None = None
    settle = timedelta(0)

    @initialize(chunk=st.none() | st.sampled_from([3, 8]))
    def open(self, chunk: int | None) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.clock = FakeClock(NOON.replace(tzinfo=UTC))
        self.world = World(self.clock, self.interval, self.settle)
        self.world.max_range = None if chunk is None else pd.Timedelta(chunk * self.world.length)
        self.caches = [self._cache() for _ in range(2)]
        self.known: dict[int, Known] = {}

    def _cache(self) -> TradeCache:
        policy: Freshness = BarClose(ttl=3600, jitter=0) if self.ttl is None else FixedTTL(self.ttl, jitter=0)
        return TradeCache(self.folder, source=self.world, freshness=policy, clock=self.clock)

    def teardown(self) -> None:
        if hasattr(self, "caches"):
            for cache in self.caches:
                cache.close()
            shutil.rmtree(self.folder)

    @property
    def now(self) -> datetime:
        return self.clock.now.replace(tzinfo=None)

    @property
    def horizon(self) -> int:
        """The first bar that has not begun."""
        return self.world.number(self.now + MICRO)

    @rule(
        which=which,
        start=place,
        length=st.sampled_from(range(1, 30)),
        refresh=st.sampled_from([False] * 4 + [True]),
        is_open=st.booleans(),
    )
    def ask(self, *, which: int, start: int, length: int, refresh: bool, is_open: bool) -> None:
        """Truth, Thrift, Finality, and that stale is honest."""
        if is_open and start >= self.horizon:
            return
        end = self.horizon if is_open else start + length
        began = len(self.world.calls)
        answer, error, is_stale = self._bars(which, start, None if is_open else end, refresh=refresh)
        self._learn(began, may_repeat=refresh)
        wanted = range(start, min(end, self.horizon))
        needed = [n for n in wanted if not self._is_fresh(n)]
        older = [n for n in wanted if refresh and n in self.known]
        if error is not None:
            assert self.world.error is error or isinstance(error, type(self.world.error))
            assert any(n not in self.known for n in wanted)
            return
        unknown = [n for n in wanted if n not in self.known]
        if unknown:  # the newest bars are missing, and what there is was handed out
            assert (is_open, is_stale) == (True, True)
            assert min(unknown) > max(self.known)
        is_behind = self.world.error is not None and bool(needed or older)
        if self.interval == "1d" or not is_stale:
            assert is_stale == is_behind
        else:  # what was asked for and failed may be minutes between two bars
            assert self.world.error is not None
        assert not needed or self.world.error is not None
        said = {n: self.known[n].price for n in wanted if n in self.known}
        expected = {self.world.label(n): price for n, price in said.items() if price is not None}
        index = answer.index.tz_localize(None)
        assert dict(zip(index.to_pydatetime(), answer["close"], strict=True)) == expected
        assert index.is_monotonic_increasing
        assert (answer.index.name, str(answer.index.unit), answer.index.tz is None) == (
            "timestamp",
            "us",
            self.interval == "1d",
        )

    def _bars(self, which: int, start: int, end: int | None, *, refresh: bool):
        first = self.world.label(start)
        last = None if end is None else self.world.label(end) - MICRO  # `end` is included
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                answer = self.caches[which].bars("A", first, last, interval=self.interval, refresh=refresh)
            except SourceError as error:
                return None, error, False
        return answer, None, any(issubclass(each.category, StaleDataWarning) for each in caught)

    def _learn(self, began: int, *, may_repeat: bool) -> None:
        """Take from what the source was asked what is known now; nothing that is still good was asked for."""
        for at, first, last, prices in self.world.calls[began:]:
            asked = range(first, last)
            assert may_repeat or not asked or not all(map(self._is_fresh, asked))
            repeated = [n for n in asked if self._is_fresh(n)]
            assert may_repeat or not repeated, f"asked again for {repeated}"
            newest = max(prices, default=first - 1)
            before = [self.known.get(n) for n in asked]
            is_empty = not prices and any(known is None or known.price is not None for known in before)
            for part, is_absent in ((range(first, newest + 1), False), (range(newest + 1, last), True)):
                until = {n: self._good_until(n, at, is_absent=is_absent, is_empty=is_empty) for n in part}
                forming = [until[n] for n in part if at < self._settled(n)]
                for n in part:  # what still changes is one piece, and good until the first change
                    good = min(forming) if at < self._settled(n) else until[n]
                    self.known[n] = Known(prices.get(n), good, at)

    def _settled(self, number: int) -> datetime:
        return self.world.label(number) + self.world.length + self.settle

    def _good_until(self, number: int, at: datetime, *, is_absent: bool, is_empty: bool) -> datetime | None:
        """Return until when an answer need not be asked for again, as far as the policy promises."""
        settled = self._settled(number)
        again = at + DAY if is_absent else None
        if self.ttl is not None:
            return at + self.ttl if again is None else min(at + self.ttl, again)
        if at < settled:
            begins = self.world.label(number)
            closes = begins + self.world.length
            change = closes if at < closes else settled
            return min(change, at + timedelta(hours=1)) if begins <= at else begins
        is_old = settled <= at - 15 * DAY  # and there were bars before it: nothing will come any more
        return None if again is None or (is_old and not is_empty) else again

    def _is_fresh(self, number: int) -> bool:
        known = self.known.get(number)
        return known is not None and (known.until is None or self.now < known.until)

    @rule(step=steps)
    def time_passes(self, step: float) -> None:
        self.clock.advance(step * self.world.length.total_seconds())

    @rule(seconds=st.sampled_from([60, 1800, 3600]))
    def a_little_time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(first=place, length=st.sampled_from(range(1, 6)))
    def restate(self, first: int, length: int) -> None:
        for number in range(first, first + length):
            self.world.versions[number] = self.world.versions.get(number, 0) + 1

    @rule(number=place)
    def halt(self, number: int) -> None:
        self.world.holes ^= {number}

    @rule(limited=st.booleans())
    def fail(self, *, limited: bool) -> None:
        self.world.error = RateLimited() if limited else SourceUnavailable("gone")

    @precondition(lambda self: self.world.error is not None)
    @rule()
    def recover(self) -> None:
        self.world.error = None

    @rule(which=which)
    def restart(self, which: int) -> None:
        self.caches[which].close()
        self.caches[which] = self._cache()

    @rule(which=which, first=place, length=st.sampled_from(range(1, 8)))
    def invalidate(self, which: int, first: int, length: int) -> None:
        edges = self.world.label(first), self.world.label(first + length) - MICRO
        gone = self.caches[which].invalidate("A", *edges, interval=self.interval)
        seen = [
            n for n in range(first, first + length) if n in self.known and self.known[n].price is not None
        ]
        assert gone.get("A", 0) == len(seen)
        for number in range(first, first + length):
            self.known.pop(number, None)

    @rule(which=which, start=place, length=st.sampled_from(range(1, 20)))
    def plan(self, which: int, start: int, length: int) -> None:
        """A plan asks nothing, and names just what is not known, or no longer good."""
        before = len(self.world.calls)
        edges = self.world.label(start), self.world.label(start + length) - MICRO
        plan = self.caches[which].plan("A", *edges, interval=self.interval)
        assert len(self.world.calls) == before
        planned = set()
        for row in plan.itertuples():
            planned |= set(
                range(
                    *(
                        self.world.number(edge.tz_localize(None).to_pydatetime())
                        for edge in (row.start, row.end)
                    )
                )
            )
        wanted = range(start, min(start + length, self.horizon))
        assert planned == {n for n in wanted if not self._is_fresh(n)}

    @rule(which=which)
    def keep_house(self, which: int) -> None:
        assert self.caches[which].verify().empty
        self.caches[which].purge()


class FixedMachine(BarMachine):
    """Everything is good for a fixed time."""

    ttl = timedelta(hours=7)


class HourlyMachine(BarMachine):
    """Bars within a day, which settle for a while."""

    interval = "1h"
    settle = timedelta(minutes=20)


@pytest.mark.parametrize("machine", [BarMachine, FixedMachine, HourlyMachine])
def test_the_laws_of_bars(machine, monkeypatch):
    """Truth, Thrift, Finality and honest staleness hold whatever happens; segments are put together early."""
    monkeypatch.setattr(segments, "AT_LEAST", 3)
    with stamina.set_testing(True, attempts=1):
        run_state_machine_as_test(
            machine, settings=settings(max_examples=60, stateful_step_count=30, deadline=None)
        )
