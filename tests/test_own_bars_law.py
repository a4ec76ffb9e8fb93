"""Somebody's own bars, stored in any order by two processes' caches, against a dict."""

import tempfile

import pandas as pd
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tradecache import TradeCache, segments

COLUMNS = ["open", "high", "low", "close", "volume"]
DAYS = pd.to_datetime("2024-01-01") + pd.to_timedelta([n + n // 5 * 2 + n // 20 * 10 for n in range(90)], "D")
"""Dates with weekends, and now and then a longer hole."""
FIRST, COUNT, STEP = st.integers(0, 89), st.integers(1, 40), st.integers(1, 3)


class OwnBars(RuleBasedStateMachine):
    """Somebody's own bars against a dict: stored from two caches on one folder, dropped, and read."""

    @initialize()
    def begin(self):
        self.folder = tempfile.TemporaryDirectory()
        self.caches = [TradeCache(self.folder.name) for _ in range(2)]
        self.truth = {}
        self.stored = 0

    @rule(which=st.integers(0, 1), first=FIRST, count=COUNT, step=STEP)
    def store(self, which, first, count, step):
        self.stored += 1
        days = DAYS[first : first + count : step]
        self.truth |= dict.fromkeys(days, float(self.stored))
        frame = pd.DataFrame(dict.fromkeys(COLUMNS, float(self.stored)), index=days)
        self.caches[which].store_bars("MINE", frame)

    @rule(which=st.integers(0, 1), first=FIRST, count=st.integers(1, 25))
    def append(self, which, first, count):
        for day in range(first, min(first + count, len(DAYS))):
            self.store(which, day, 1, 1)

    @rule(which=st.integers(0, 1), first=FIRST, count=COUNT)
    def drop(self, which, first, count):
        days = DAYS[first : first + count]
        gone = self.caches[which].invalidate("MINE", days[0], days[-1])
        assert gone.sum() == sum(days[0] <= day <= days[-1] for day in self.truth)
        self.truth = {day: value for day, value in self.truth.items() if not days[0] <= day <= days[-1]}

    @rule(which=st.integers(0, 1))
    def reopen(self, which):
        self.caches[which].close()
        self.caches[which] = TradeCache(self.folder.name)

    @rule(which=st.integers(0, 1), first=FIRST, count=COUNT)
    def read(self, which, first, count):
        days = DAYS[first : first + count]
        expected = {day: self.truth[day] for day in sorted(self.truth) if days[0] <= day <= days[-1]}
        if self.truth:
            found = self.caches[which].bars("MINE", days[0], days[-1])
            assert found["close"].to_dict() == expected

    @invariant()
    def everything_is_there(self):
        for cache in getattr(self, "caches", []) if self.truth else []:
            assert cache.bars("MINE")["close"].to_dict() == dict(sorted(self.truth.items()))

    def teardown(self):
        for cache in self.caches:
            cache.close()
        self.folder.cleanup()


def test_own_bars(monkeypatch):
    """Whatever is stored, appended, dropped and put together, the newest bar of each label is what is read."""
    monkeypatch.setattr(segments, "AT_LEAST", 3)
    run_state_machine_as_test(
        OwnBars, settings=settings(max_examples=40, stateful_step_count=20, deadline=None)
    )
