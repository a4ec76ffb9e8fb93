"""Somebody's own bars, stored in any order by two processes' caches, against layers of dicts."""

import math
import tempfile

import pandas as pd
import pytest
from clocks import FakeClock
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tradecache import TradeCache, UnknownSymbol, segments

COLUMNS = ["open", "high", "low", "close", "volume"]
DAYS = pd.to_datetime("2024-01-01") + pd.to_timedelta([n + n // 5 * 2 + n // 20 * 10 for n in range(30)], "D")
"""Dates with weekends, and now and then a longer hole."""
CACHES, FIRST, COUNT, STEP = (
    st.integers(0, 1),
    st.integers(0, 29),
    st.integers(1, 20),
    st.sampled_from([1, 1, 2]),
)


class OwnBars(RuleBasedStateMachine):
    """Somebody's own bars against layers of dicts: stored from two caches on one folder, dropped, and read."""

    @initialize()
    def begin(self):
        self.folder = tempfile.TemporaryDirectory()
        self.clock = FakeClock()
        self.caches = [self.opened() for _ in range(2)]
        self.layers = []
        self.now = self.stored = 0

    def opened(self):
        return TradeCache(self.folder.name, clock=self.clock)

    @property
    def truth(self):
        """The newest bar of each label that has not expired."""
        alive = [layer for expires, layer in self.layers if self.now < expires]
        return dict(sorted({day: value for layer in alive for day, value in layer.items()}.items()))

    @rule(which=CACHES, first=FIRST, count=COUNT, step=STEP, ttl=st.sampled_from([None, None, 10, 100]))
    def store(self, which, first, count, step, ttl):
        self.stored += 1
        days = DAYS[first : first + count : step]
        self.layers.append(((ttl and self.now + ttl) or math.inf, dict.fromkeys(days, float(self.stored))))
        frame = pd.DataFrame(dict.fromkeys(COLUMNS, float(self.stored)), index=days)
        self.caches[which].store_bars("MINE", frame, ttl=ttl)

    @rule(which=CACHES, first=FIRST, count=st.integers(1, 25))
    def append(self, which, first, count):
        for day in range(first, min(first + count, len(DAYS))):
            self.store(which, day, 1, 1, None)

    @rule(seconds=st.sampled_from([5, 50]))
    def wait(self, seconds):
        self.now += seconds
        self.clock.advance(seconds)

    @rule(which=CACHES, first=FIRST, count=COUNT)
    def drop(self, which, first, count):
        days = DAYS[first : first + count]
        seen = sum(days[0] <= day <= days[-1] for day in self.truth)
        assert self.caches[which].invalidate("MINE", days[0], days[-1]).sum() == seen
        self.layers = [
            (expires, {day: value for day, value in layer.items() if not days[0] <= day <= days[-1]})
            for expires, layer in self.layers
        ]

    @rule(which=CACHES)
    def reopen(self, which):
        self.caches[which].close()
        self.caches[which] = self.opened()

    @rule(which=CACHES, first=FIRST, count=COUNT)
    def read(self, which, first, count):
        days = DAYS[first : first + count]
        if self.truth:
            found = self.caches[which].bars("MINE", days[0], days[-1])["close"].to_dict()
            assert found == {day: value for day, value in self.truth.items() if days[0] <= day <= days[-1]}

    @invariant()
    def everything_is_there(self):
        for cache in getattr(self, "caches", []):
            if self.truth:
                assert cache.bars("MINE")["close"].to_dict() == self.truth
            elif not self.layers:
                with pytest.raises(UnknownSymbol):
                    cache.bars("MINE")

    def teardown(self):
        for cache in self.caches:
            cache.close()
        self.folder.cleanup()


def test_own_bars(monkeypatch):
    """Whatever is stored, appended, dropped and put together, the newest bar of each label is what is read."""
    monkeypatch.setattr(segments, "AT_LEAST", 3)
    monkeypatch.setattr(segments, "HIDDEN", 1)
    run_state_machine_as_test(
        OwnBars, settings=settings(max_examples=40, stateful_step_count=20, deadline=None)
    )
