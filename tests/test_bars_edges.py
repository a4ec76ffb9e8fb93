"""Corners in which bars were once wrong: clocks, loops, files, kinds of columns, sources that misbehave."""

import asyncio
import resource
import threading

import numpy as np
import pandas as pd
import pytest
from barsources import TruthSource, bars_at
from loops import run
from pandas.testing import assert_frame_equal

from tradecache import (
    InvalidBars,
    InvalidInput,
    MissingBarsWarning,
    SourceUnavailable,
    TradeCache,
    TradingDataCache,
    UnknownSymbol,
    segments,
)
from tradecache.freshness import Adaptive, BarClose, FixedTTL

pytestmark = pytest.mark.usefixtures("no_pauses")
YEARS = bars_at(pd.bdate_range("2022-01-03", "2024-05-31"))
MONTHS = [f"{month}" for month in pd.period_range("2022-01", "2024-05", freq="M")]
QUIET = {"settle": pd.Timedelta(0)}


def by_month(cache, months=MONTHS) -> None:
    for month in months:
        cache.bars("AAPL", month, month)


def test_a_hit_that_expires_while_it_is_looked_at(make, clock):
    """An answer that was in memory and fresh a moment ago, and is not now, is fetched, and nobody is bothered."""
    cache = make(TruthSource(YEARS), freshness=FixedTTL(60, jitter=0))
    cache.bars("AAPL", "2024-01", "2024-03")
    for tick in (0.5, 1.0, 3.0, 7.0, 11.0, 13.0):
        clock.tick = tick  # with each look at it
        for _ in range(30):
            assert_frame_equal(
                cache.bars("AAPL", "2024-01", "2024-03"), YEARS.loc["2024-01":"2024-03"], check_freq=False
            )
    clock.tick = 0.0


def test_more_symbols_than_files_may_be_open(make):
    """A universe is asked for without a file open for each of its symbols."""
    symbols = [f"S{n}" for n in range(300)]
    cache = make(TruthSource(dict.fromkeys(symbols, YEARS.loc["2024-01"])))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
    try:
        answer = cache.bars(symbols, "2024-01", "2024-01")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert cache.failures().empty
    assert answer["close"].shape == (len(YEARS.loc["2024-01"]), 300)


def test_a_bar_off_the_hour_that_comes_late(make, clock):
    """A bar labelled within the last one's hour is not taken for absent before it has closed."""
    early = [f"2024-05-06 {hour:02d}:00" for hour in range(8, 14)]  # before the opening, in UTC
    truth = bars_at(pd.DatetimeIndex([*early, "2024-05-06 13:30", "2024-05-06 14:30"], tz="UTC"))
    source = TruthSource(truth, **QUIET)
    source.spoil = lambda bars, _: bars[bars.index < "2024-05-06 13:30"]
    clock.now = clock.now.replace(month=5, day=6, hour=14, minute=16)
    cache = make(source)
    assert len(cache.bars("AAPL", "2024-05-06", "2024-05-06", interval="1h")) == 6
    source.spoil = lambda bars, _: bars
    clock.advance(2 * 86_400)
    answer = cache.bars("AAPL", "2024-05-06", "2024-05-06", interval="1h")
    assert_frame_equal(answer, truth, check_freq=False)


def test_refresh_is_not_satisfied_by_what_was_put_together_meanwhile(make, clock, monkeypatch):
    """Old bars under the new name that putting them together gave them are asked for again all the same."""
    monkeypatch.setattr(segments, "AT_LEAST", 4)
    gate = threading.Event()
    gate.set()

    class Gated(TruthSource):
        async def fetch(self, *asked):
            while not gate.is_set():  # noqa: ASYNC110 - an asyncio.Event is of one loop
                await asyncio.sleep(0.001)
            return await super().fetch(*asked)

    source = Gated(YEARS, **QUIET)
    cache = make(source)
    by_month(cache, MONTHS[:3])
    source.correct(f"{YEARS.index[0]:%Y-%m-%d}", 55.0)
    clock.advance(60)
    gate.clear()
    last = threading.Thread(target=by_month, args=(cache, MONTHS[3:4]))
    answers = []
    refresh = threading.Thread(
        target=lambda: answers.append(cache.bars("AAPL", MONTHS[0], MONTHS[3], refresh=True))
    )
    last.start()
    while not cache.core.desk.book._flights._held:
        pass
    refresh.start()
    gate.set()
    last.join()
    refresh.join()
    assert answers[0]["close"].iloc[0] == 55.0


def test_what_is_hot_alone_is_fetched_ahead(make, clock):
    """Fetching ahead asks for what is about to expire, and for nothing final."""
    source = TruthSource(YEARS, max_range=pd.Timedelta("365D"), **QUIET)
    clock.now = clock.now.replace(month=5, day=31, hour=12)
    cache = make(source, freshness=Adaptive(BarClose(jitter=0)))
    cache.bars("AAPL")
    source.calls.clear()
    for _ in range(8):
        cache.bars("AAPL")
        clock.advance(40)
    cache.bars("AAPL")
    assert source.calls
    assert all(call.start >= pd.Timestamp("2024-05-31") for call in source.calls)


@pytest.mark.parametrize("error", [asyncio.CancelledError("its own"), SystemExit(3)])
def test_a_source_that_cancels_itself(make, error):
    """What one symbol's source does to itself is that symbol's failure, and the others have their bars."""
    good = TruthSource({"A": YEARS, "C": YEARS})

    class Odd:
        name = "odd"

        async def fetch(self, symbol, *asked):
            await asyncio.sleep(0.001)
            if symbol == "BAD":
                raise error
            return await good.fetch(symbol, *asked)

    cache = make(Odd())
    with pytest.warns(MissingBarsWarning, match="BAD"):
        answer = cache.bars(["A", "BAD", "C"], "2024-01", "2024-01")
    assert answer["close"].columns.tolist() == ["A", "C"]
    assert cache.failures()["error"].to_dict() == {"BAD": "SourceUnavailable"}


def test_a_column_that_is_text_here_and_a_number_there(make):
    """Bars that cannot be kept in memory as one can be had nevertheless."""
    truth = bars_at(pd.date_range("2010-01-01", "2015-12-31"))
    source = TruthSource(truth)
    source.spoil = lambda bars, call: bars.assign(x="a" if call.start < pd.Timestamp("2013-01-01") else 1.5)
    cache = make(source)
    cache.bars("AAPL", "2010-01-01", "2012-12-31")
    for _ in range(3):
        answer = cache.bars("AAPL", "2010-01-01", "2015-12-31")
        assert (len(answer), answer["x"].iloc[0], answer["x"].iloc[-1]) == (len(truth), "a", 1.5)


def test_putting_together_changes_no_number(make, monkeypatch):
    """Whole numbers beyond what floats hold stay whole, although a neighbour lacks the column."""
    monkeypatch.setattr(segments, "AT_LEAST", 4)
    large = 2**53 + 1
    source = TruthSource(YEARS, **QUIET)
    source.spoil = lambda bars, call: (
        bars if call.start.month == 2 else bars.assign(trade_id=np.arange(large, large + len(bars)))
    )
    cache = make(source)
    by_month(cache, MONTHS[:8])
    for each in (cache, make(source)):
        assert int(each.bars("AAPL", MONTHS[0], MONTHS[0])["trade_id"].iloc[0]) == large


def test_what_a_caller_does_to_memory_does_not_reach_the_disk(make, monkeypatch):
    """Segments are put together from what is on disk."""
    monkeypatch.setattr(segments, "AT_LEAST", 4)
    cache = make(TruthSource(YEARS, **QUIET))
    by_month(cache, MONTHS[:3])
    cache.bars("AAPL", MONTHS[0], MONTHS[0])["close"].array[0] = -5.0
    by_month(cache, MONTHS[3:4])
    assert len(cache.coverage("AAPL", MONTHS[0], MONTHS[3])) < 7
    assert_frame_equal(
        make().bars("AAPL", MONTHS[0], MONTHS[3], source=TruthSource(YEARS)),
        YEARS.loc[MONTHS[0] : MONTHS[3]],
        check_freq=False,
    )


def test_closing_on_another_loop(tmp_path, clock):
    """A cache that fetches ahead on one loop can be closed on another."""
    clock.now = clock.now.replace(month=5, day=31, hour=12)
    source = TruthSource(YEARS, **QUIET)
    cache = TradingDataCache(tmp_path, source=source, clock=clock, freshness=Adaptive(BarClose(jitter=0)))

    async def use():
        for _ in range(8):
            await cache.bars("AAPL", "2024-05")
            clock.advance(40)
        assert cache.desk.book._refreshing

    run(use())
    run(cache.cleanup())
    assert len(cache.stack.memory) == 0


def test_own_bars_that_were_for_a_while(make, clock):
    """When bars for a while have expired, those under them are seen again, in each process alike."""
    cache = make()
    own = YEARS.loc["2024-01"]
    cache.store_bars("MINE", own)
    cache.store_bars("MINE", own.iloc[[3, 5]] + 1, ttl=60)
    clock.advance(61)
    for each in (cache, make()):
        assert_frame_equal(each.bars("MINE"), own, check_freq=False)


def test_methods_are_one_source(make):
    """Each look at a method makes another object, and all of them are the same source."""

    class Loader:
        def load(self, symbol, start, end, interval):
            return YEARS.loc[start : end - pd.Timedelta(1, "us")]

    loader, cache = Loader(), make()
    for _ in range(5):
        cache.bars("AAPL", "2024-01", "2024-01", source=loader.load)
    assert len(cache.core.desk._guards) == 1


def test_quarters_begin_in_january(make):
    """Bars of three months are labelled with the first month of their quarter."""
    truth = bars_at(pd.DatetimeIndex(["2023-02-01", "2023-05-01", "2023-08-01"]))
    cache = make()
    cache.store_bars("Q", truth, interval="3mo")
    assert cache.bars("Q", interval="3mo").index.strftime("%Y-%m").tolist() == [
        "2023-01",
        "2023-04",
        "2023-07",
    ]


def test_no_columns(make):
    """No columns at all are a slip, and said to be one."""
    cache = make(TruthSource(YEARS))
    with pytest.raises(ValueError, match="columns"):
        cache.bars(["AAPL"], "2024-01", "2024-01", columns=[])


def test_minutes_are_no_days(make):
    """Bars shorter than they are said to be are refused, and nothing is stored."""
    minutes = bars_at(pd.date_range("2024-01-02 14:30", periods=10, freq="min", tz="UTC"))
    cache = make()
    for interval in ("1d", "5m", "1h"):
        with pytest.raises(ValueError, match="labels closer than that"):
            cache.store_bars("M", minutes, interval=interval)
    assert cache.coverage().empty


def test_an_empty_answer_is_not_believed_for_ever(make, clock):
    """An empty frame may be a hiccup: it is asked for again a day later; twice empty, it is believed."""
    source = TruthSource(YEARS)
    usual, source.spoil = source.spoil, lambda *_: pd.DataFrame()
    cache = make(source, freshness=BarClose(jitter=0))
    assert cache.bars("AAPL", "2024-01", "2024-01").empty
    clock.advance(86_401)
    source.spoil = usual
    assert_frame_equal(cache.bars("AAPL", "2024-01", "2024-01"), YEARS.loc["2024-01"], check_freq=False)


def test_a_source_that_fails_keeps_what_there_is(make, clock):
    """Up to now means up to what is known, when the source cannot say what is new; and says so."""
    source = TruthSource(YEARS, **QUIET)
    clock.now = clock.now.replace(month=5, day=30, hour=12)
    cache = make(source)
    cache.bars("AAPL", "2024-05")
    clock.advance(86_400)
    source.error = SourceUnavailable("down")
    with pytest.warns(UserWarning, match="not fresh"):
        answer = cache.bars("AAPL", "2024-05")
    assert answer.index[-1] == pd.Timestamp("2024-05-30")


def test_whose_bars_are_stored(make):
    """Without the source under which bars are stored, the error names it."""
    make(TruthSource(YEARS)).bars("AAPL", "2024-01")

    with pytest.raises(
        UnknownSymbol, match="its bars are stored under the source 'truth', to name with source="
    ):
        make().bars("AAPL", "2024-01")


def test_a_policy_is_an_object(make):
    """The class of a policy is none."""
    with pytest.raises(InvalidInput, match=r"freshness is .*FixedTTL.* a policy such as"):
        make(TruthSource(YEARS), freshness=FixedTTL)


def test_export_of_bars_without_an_interval(make, tmp_path):
    """Where only bars are stored, a file of no price points helps nobody, and the error says what would."""
    cache = make()
    cache.store_bars("MINE", YEARS)

    with pytest.raises(InvalidInput, match="interval is None, but must be '1d': only bars are stored"):
        cache.export(tmp_path / "mine.csv", "MINE")
    assert not (tmp_path / "mine.csv").exists()


def test_bars_of_half_days_are_no_daily_bars(make):
    """Bars of twelve hours are refused as daily ones, instead of losing every other one."""
    index = pd.date_range("2024-01-01 09:00", periods=8, freq="12h")
    with pytest.raises(InvalidBars, match="closer than that"):
        make().store_bars("MINE", bars_at(index))


def test_long_frames_keep_their_types(make):
    """A symbol without bars does not turn the volumes of the others into floats."""
    cache = make(TruthSource({"AAPL": YEARS, "NEW": YEARS.loc["2024-05":]}))

    frame = cache.bars(["AAPL", "NEW"], "2024-01-01", "2024-01-31", layout="long")

    assert str(frame["volume"].dtype) == "int64"


def test_how_long_a_fetch_took(tmp_path):
    """Of what a source gave, `explain` says how long its request took; of what was there, how long reading did."""

    class Slow(TruthSource):
        async def fetch(self, *question):
            await asyncio.sleep(0.2)
            return await super().fetch(*question)

    days = pd.date_range("2024-01-01", "2024-03-31", unit="us", name="timestamp")
    truth = pd.DataFrame({"open": 1.0, "high": 2.0, "low": 0.5, "close": 1.5, "volume": 10.0}, index=days)
    with TradeCache(tmp_path, source=Slow(truth)) as cache:
        cache.bars("AAPL", "2024-01", "2024-01")
        cache.bars("AAPL", "2024-01", "2024-02")
        seconds = cache.explain().set_index("tier")["seconds"]

    assert seconds["source"] > 0.2 > seconds["memory"]
