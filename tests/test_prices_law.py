"""The law of price points: after any sequence of events, every answer is what a small dict would say.

Two caches share a folder, as two processes do, and both are asked and told in any order. The clock steps
forward and back and stops exactly where something expires; caches restart; memory is tiny or ample.
"""

import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from clocks import FakeClock
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tradecache import InvalidPrices, PriceData, Settings, TradeCache

SYMBOLS = ["A", "a", "a::b", "日経"]
EIGHTH = timedelta(seconds=1) / 8  # every time here is a number of eighths, which floats hold exactly
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOON = datetime(2024, 6, 3, 12, tzinfo=UTC)

which = st.sampled_from([0, 1])
symbol = st.sampled_from(SYMBOLS)
several = st.none() | symbol | st.lists(symbol, max_size=3, unique=True)
price = st.floats(min_value=1e-9, max_value=1e9)
volume = st.floats(min_value=0, max_value=1e12)
moment = st.integers(-2, 2).map(lambda hours: NOON + timedelta(hours=hours))
lifetime = st.none() | st.integers(1, 80) | st.just(8 * 86_400 * 365 * 100)  # eighths; up to a century
edge = (
    st.none() | moment | st.sampled_from(["2024-06-03", "2024-06-03 12", "2024-06-03 11:00", "2025", "1999"])
)
rows = st.lists(st.tuples(symbol, price, volume, moment), max_size=6)


@dataclass(frozen=True)
class Kept:
    """A point, and the moment (in eighths since the epoch) at which it is gone."""

    point: PriceData
    expires: int | None


class ModelClock:
    """Time for TTLs, in eighths of a second: as the wall clock, but it stands where that steps back."""

    def __init__(self, wall: FakeClock) -> None:
        self._wall = wall
        self.offset = 0
        self._last = self.read()

    def read(self) -> int:
        now = (self._wall.now - EPOCH) // EIGHTH + self.offset
        last = getattr(self, "_last", now)
        if now < last - 8:
            self.offset += last - now
        self._last = max(now, last)
        return self._last


class PricesLaw(RuleBasedStateMachine):
    """Two caches on one folder, and the dict that they must equal."""

    ids = Bundle("ids")

    @initialize(sizes=st.tuples(*[st.sampled_from([1, 4000, 2**28])] * 2))
    def begin(self, sizes):
        self.wall = FakeClock(NOON)
        self.folder = Path(tempfile.mkdtemp())
        self.sizes = sizes
        self.kept: dict[tuple[str, str], Kept] = {}
        self.known: list[tuple[str, str]] = []
        self.open_both()

    def open_both(self):
        self.clock = ModelClock(self.wall)
        self.caches = [self.open(n) for n in (0, 1)]

    def open(self, n):
        return TradeCache(self.folder, settings=Settings(memory_bytes=self.sizes[n]), clock=self.wall)

    def teardown(self):
        for cache in self.caches:
            cache.close()
        shutil.rmtree(self.folder)

    # what the dict says

    def live(self, symbols=None, first=None, last=None):
        """Return what is live, sorted as an answer is: by time, then by symbol as asked for, then by id."""
        now = self.clock.read()
        order = sorted(SYMBOLS) if symbols is None else [symbols] if isinstance(symbols, str) else symbols
        found = {
            (kept.point.timestamp, order.index(name), data_id): kept
            for (name, data_id), kept in self.kept.items()
            if name in order
            and (kept.expires is None or kept.expires > now)
            and (first is None or kept.point.timestamp >= start_of(first))
            and (last is None or kept.point.timestamp <= end_of(last))
        }
        return [found[key] for key in sorted(found)]

    def found(self, name, data_id):
        kept = self.kept.get((name, data_id))
        return kept.point if kept in self.live(name) else None

    def keep(self, name, data_id, point, eighths):
        assert (name, data_id) not in self.known
        self.known.append((name, data_id))
        expires = None if eighths is None else self.clock.read() + eighths
        self.kept[name, data_id] = Kept(point, expires)
        return name, data_id

    # what happens

    @rule(target=ids, n=which, name=symbol, price=price, volume=volume, at=moment, eighths=lifetime)
    def store(self, n, name, price, volume, at, eighths):
        ttl = None if eighths is None else eighths / 8
        data_id = self.caches[n].store_price(name, price, volume, timestamp=at, ttl=ttl)
        point = PriceData(symbol=name, price=price, volume=volume, timestamp=at)
        return self.keep(name, data_id, point, eighths)

    @rule(target=ids, n=which, rows=rows, eighths=lifetime)
    def store_many(self, n, rows, eighths):
        ttl = None if eighths is None else timedelta(seconds=1) * eighths / 8
        ids = self.caches[n].store_prices(frame_of(rows), ttl=ttl)
        points = [PriceData(symbol=s, price=p, volume=v, timestamp=t) for s, p, v, t in rows]
        return multiple(
            *[self.keep(p.symbol, data_id, p, eighths) for p, data_id in zip(points, ids, strict=True)]
        )

    @rule(n=which, rows=rows, name=symbol)
    def store_many_with_a_fault(self, n, rows, name):
        with pytest.raises(InvalidPrices):
            self.caches[n].store_prices(frame_of([*rows, (name, -1.0, 0.0, NOON)]))

    @rule(n=which, address=ids)
    def delete(self, n, address):
        assert self.caches[n].delete_price(*address) is (self.found(*address) is not None)
        self.kept.pop(address, None)
        self.ask_everybody()

    @rule(n=which, symbols=several, first=edge, last=edge)
    def invalidate(self, n, symbols, first, last):
        going = self.live(symbols, first, last)
        asked = [symbols] if isinstance(symbols, str) else symbols
        counted = self.caches[n].invalidate(symbols, first, last).to_dict()
        assert {name: count for name, count in counted.items() if count} == count_by_symbol(going)
        assert asked is None or list(counted) == asked
        self.kept = {address: kept for address, kept in self.kept.items() if kept not in going}
        self.ask_everybody()

    @rule(eighths=st.integers(1, 40) | st.integers(-40, -1) | st.sampled_from([-8 * 3600, 8 * 3600]))
    def step(self, eighths):
        self.wall.now += eighths * EIGHTH
        self.let_all_see_the_clock()

    @rule(before=st.booleans())
    def step_to_the_next_expiry(self, before):
        now = self.clock.read()
        coming = sorted(kept.expires for kept in self.live() if kept.expires)
        if coming and coming[0] - now - before < 8 * 86_400:
            self.wall.now += (coming[0] - now - before) * EIGHTH
            self.let_all_see_the_clock()
            self.ask_everybody()

    def let_all_see_the_clock(self):
        self.clock.read()
        for cache in self.caches:
            assert cache.get_price("A", "none") is None

    @rule()
    def restart_both(self):
        self.caches[0].purge()  # a clock begun anew knows nothing of steps back; the expired must not return
        now = self.clock.read()
        self.kept = {a: kept for a, kept in self.kept.items() if kept.expires is None or kept.expires > now}
        for cache in self.caches:
            cache.close()
        self.open_both()

    @precondition(lambda self: not self.clock.offset)
    @rule(n=which)
    def restart_one(self, n):
        self.clock.read()
        if self.wall.now >= NOON and (self.wall.now - EPOCH) // EIGHTH == self.clock.read():
            self.caches[n].close()
            self.caches[n] = self.open(n)

    @rule(n=which)
    def purge(self, n):
        self.caches[n].purge()
        now = self.clock.read()
        self.kept = {a: kept for a, kept in self.kept.items() if kept.expires is None or kept.expires > now}

    # what is answered

    def ask_everybody(self):
        """Ask both caches for the newest points by their ids, dead or alive, and one of them for all."""
        for address in self.known[-8:]:
            for cache in self.caches:
                assert cache.get_price(*address) == self.found(*address)
        self.prices(n=0, symbols=None, first=None, last=None)

    @rule(n=which, address=ids)
    def get(self, n, address):
        assert self.caches[n].get_price(*address) == self.found(*address)

    @rule(n=which, address=ids, other=symbol)
    def get_under_another_symbol(self, n, address, other):
        assert self.caches[n].get_price(other, address[1]) == self.found(other, address[1])

    @rule(n=which, address=ids)
    def get_twice_from_both(self, n, address):
        for m in (n, 1 - n, n, 1 - n):
            assert self.caches[m].get_price(*address) == self.found(*address)

    @rule(n=which, name=symbol)
    def latest_of_one(self, n, name):
        live = self.live(name)
        assert self.caches[n].get_latest_price(name) == (live[-1].point if live else None)

    @rule(n=which, symbols=several)
    def latest(self, n, symbols):
        now = self.clock.read()
        expected = {kept.point.symbol: kept for kept in self.live(symbols)}
        result = self.caches[n].latest(symbols)
        assert set(result.index) == set(expected)
        for name, kept in expected.items():
            row = result.loc[name]
            assert (row["price"], row["volume"]) == (kept.point.price, kept.point.volume)
            assert row["timestamp"] == kept.point.timestamp
            assert row["age"] == self.wall.now - kept.point.timestamp
            assert (kept.expires is None) == pd.isna(row["ttl"])
            assert kept.expires is None or row["ttl"] == (kept.expires - now) * EIGHTH

    @rule(n=which, symbols=several, first=edge, last=edge)
    def prices(self, n, symbols, first, last):
        expected = self.live(symbols, first, last)
        result = self.caches[n].prices(symbols, first, last)
        assert list(zip(result["symbol"], result["price"], result["volume"], result.index, strict=True)) == [
            (kept.point.symbol, kept.point.price, kept.point.volume, kept.point.timestamp)
            for kept in expected
        ]
        expires = [None if kept.expires is None else EPOCH + kept.expires * EIGHTH for kept in expected]
        assert (
            result["expires_at"].astype(object).where(result["expires_at"].notna(), None).to_list() == expires
        )


def frame_of(rows):
    return pd.DataFrame(rows, columns=["symbol", "price", "volume", "timestamp"])


def start_of(first):
    return pd.Period(first).start_time.tz_localize(UTC) if isinstance(first, str) else first


def end_of(last):
    return pd.Period(last).end_time.tz_localize(UTC) if isinstance(last, str) else last


def count_by_symbol(kept):
    counts: dict[str, int] = {}
    for each in kept:
        counts[each.point.symbol] = counts.get(each.point.symbol, 0) + 1
    return counts


@pytest.mark.timeout(400)  # a counter-example takes minutes to be made small
def test_answers_always_equal_the_model():
    """Whatever happens in whatever order, to either cache, every answer of both equals the dict's."""
    run_state_machine_as_test(
        PricesLaw, settings=settings(max_examples=50, stateful_step_count=40, deadline=None)
    )
