"""TradeCache.bars from end to end: a real folder, a source that knows the truth, a clock that stands still."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from barsources import MICRO, TruthSource, bars_at, days, every, hours
from loops import run
from pandas.testing import assert_frame_equal, assert_index_equal, assert_series_equal

from tradecache import (
    InvalidBars,
    InvalidInput,
    MissingBarsWarning,
    NoBars,
    RateLimited,
    Settings,
    SourceUnavailable,
    StaleDataWarning,
    TradingDataCache,
    UnknownSymbol,
)
from tradecache.freshness import Adaptive, BarClose, FixedTTL
from tradecache.layouts import wide_frame

pytestmark = pytest.mark.usefixtures("no_pauses")
DAY = 86_400
NEW_YORK = "America/New_York"
COLUMNS = ["open", "high", "low", "close", "volume"]
HALF_YEAR = days(
    "2023-12-01", "2024-06-03"
)  # the clock stands at 2024-06-03 14:30, an hour after the opening
JANUARY = ("2024-01-02", "2024-01-31")
FAILURES = [RateLimited(), SourceUnavailable("no network"), ValueError("half a page"), TimeoutError()]


@pytest.fixture
def source():
    """Half a year of daily bars of a stock in New York."""
    return TruthSource(HALF_YEAR, calendar_for="XNYS")


@pytest.fixture
def cache(make, source):
    return make(source)


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def jan(frame=HALF_YEAR):
    return frame.loc["2024-01-02":"2024-01-31"]


def states(cache, *asked, **options):
    """Return each span of the coverage as (start, end, state, outcome)."""
    frame = cache.coverage(*asked, **options)
    return [
        (f"{row.start:%m-%d}", f"{row.end:%m-%d}", row.state, row.outcome)
        for row in frame.itertuples(index=False)
    ]


def warned(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "tradecache"]


class TestTime:
    """Days with other hours, and ranges with little or nothing in them."""

    @pytest.mark.parametrize(
        ("start", "end", "now"),
        [("2024-03-04", "2024-03-15", "2024-03-20"), ("2023-10-30", "2023-11-10", "2023-11-20")],
        ids=["to summer time", "to winter time"],
    )
    def test_hours_of_a_market_across_a_clock_change(self, make, clock, start, end, now):
        """New York's hourly bars move by an hour of UTC when its clocks do, and none is lost or asked for twice."""
        clock.now = at(now)
        truth = hours(start, end)
        source = TruthSource(truth, calendar_for="XNYS")
        cache = make(source)

        first = cache.bars("AAPL", start, end, interval="1h")

        assert_frame_equal(first, truth)
        assert sorted(set(first.index.hour)) == [13, 14, 15, 16, 17, 18, 19, 20]
        assert len(source.asked()) == 1
        assert_frame_equal(cache.bars("AAPL", start, end, interval="1h"), truth)
        assert source.calls == []

    @pytest.mark.parametrize(("day", "rows"), [("2024-03-10", 23), ("2023-11-05", 25)])
    def test_a_local_day_of_another_length(self, make, day, rows):
        """A day on which New York's clocks change has 23 or 25 hourly bars of a market that never closes."""
        truth = every("h", "2023-11-01", "2024-03-31")
        source = TruthSource(truth)
        cache = make(source)
        start = pd.Timestamp(day, tz=NEW_YORK)
        end = pd.Timestamp(day, tz=NEW_YORK) + pd.DateOffset(days=1) - MICRO

        result = cache.bars("AAPL", start, end, interval="1h")

        assert len(result) == rows
        assert_frame_equal(result, truth.loc[start:end])

    def test_hours_of_a_market_that_never_closes_across_a_clock_change(self, make):
        """Whatever clocks do, each day of UTC has 24 bars, and each hour is asked for once."""
        truth = every("h", "2024-03-08", "2024-03-12")
        source = TruthSource(truth)
        cache = make(source)

        for day in ("2024-03-08", "2024-03-09", "2024-03-10", "2024-03-11", "2024-03-12"):
            assert len(cache.bars("AAPL", day, day, interval="1h")) == 24
        assert [start for start, _ in source.asked()] == [f"2024-03-{day:02d}" for day in range(8, 13)]
        assert_frame_equal(cache.bars("AAPL", "2024-03-08", "2024-03-12", interval="1h"), truth)
        assert source.calls == []

    def test_half_day(self, make, clock):
        """A half-day's bars come at its early close, are looked at once more when a whole day would be over, and stay."""
        truth = hours("2023-11-20", "2023-11-24", closes={"2023-11-24": "13:00"})
        source = TruthSource(truth, calendar_for="XNYS")
        clock.now = at("2023-11-24 18:20")
        cache = make(source)

        assert_frame_equal(cache.bars("AAPL", "2023-11-20", "2023-11-24", interval="1h"), truth)
        assert len(truth.loc["2023-11-24"]) == 4
        assert len(source.asked()) == 1

        clock.now = at("2023-11-24 21:20")
        assert_frame_equal(cache.bars("AAPL", "2023-11-20", "2023-11-24", interval="1h"), truth)
        again = source.asked()
        clock.now = at("2023-11-27 12:00")
        assert_frame_equal(cache.bars("AAPL", "2023-11-20", "2023-11-24", interval="1h"), truth)
        assert (len(again), source.calls) == (1, [])

    def test_daily_bar_of_a_half_day(self, make, clock):
        """The daily bar of a half-day is final once a whole day would be over, not before."""
        truth = days("2023-11-20", "2023-11-24")
        source = TruthSource(truth, calendar_for="XNYS")
        clock.now = at("2023-11-24 18:20")
        cache = make(source)
        cache.bars("AAPL", "2023-11-20", "2023-11-24")

        early = states(cache)[-1]
        clock.now = at("2023-11-24 21:20")
        assert_frame_equal(cache.bars("AAPL", "2023-11-20", "2023-11-24"), truth)

        assert early == ("11-24", "11-25", "fresh", "bars")
        assert {state for _, _, state, _ in states(cache)} == {"final"}

    @pytest.mark.parametrize(
        ("calendar", "before", "after"),
        [
            ("XNZE", "2024-06-04 21:00", "2024-06-04 22:30"),  # Auckland's session of 5 June is under way
            ("XTKS", "2024-06-04 23:30", "2024-06-05 01:00"),
            ("XNYS", "2024-06-05 00:30", "2024-06-05 14:00"),
        ],
    )
    def test_sessions_around_the_world(self, make, clock, calendar, before, after):
        """A session's bar can be had once it has begun, whatever date it is in UTC by then."""
        truth = bars_at(pd.bdate_range("2024-05-20", "2024-06-05"))
        source = TruthSource(truth, calendar_for=calendar)
        opened = at(after)
        source.spoil = lambda bars, _: bars.loc[: "2024-06-05" if clock.now >= opened else "2024-06-04"]
        clock.now = at(before)
        cache = make(source)

        assert_frame_equal(cache.bars("AAPL", "2024-05-20"), truth.loc[:"2024-06-04"])
        clock.now = opened
        assert_frame_equal(cache.bars("AAPL", "2024-05-20"), truth)
        assert source.calls[-1].start >= pd.Timestamp("2024-06-04")

    def test_halted_symbol(self, make):
        """Days without trades in the middle of a range are an answer: they are not asked for again."""
        truth = HALF_YEAR.drop(HALF_YEAR.loc["2024-01-10":"2024-01-19"].index)
        source = TruthSource(truth, calendar_for="XNYS")
        cache = make(source)

        assert_frame_equal(cache.bars("AAPL", *JANUARY), jan(truth))
        assert len(source.asked()) == 1
        assert cache.bars("AAPL", "2024-01-10", "2024-01-19").empty
        assert_frame_equal(cache.bars("AAPL", *JANUARY), jan(truth))
        assert source.calls == []

    def test_listed_in_the_middle(self, make):
        """Of a symbol listed within the range there are bars from then on, and what was before is known too."""
        truth = HALF_YEAR.loc["2024-01-16":]
        source = TruthSource(truth, calendar_for="XNYS")
        cache = make(source)

        assert_frame_equal(cache.bars("AAPL", "2023-12-01", "2024-02-29"), truth.loc[:"2024-02-29"])
        assert cache.bars("AAPL", "2023-12-01", "2024-01-12").empty
        assert len(source.calls) == 1

    def test_delisted(self, make, clock):
        """After the last bar of a delisted symbol only what is recent is asked for again, and once a day."""
        truth = HALF_YEAR.loc[:"2024-04-30"]
        source = TruthSource(truth, calendar_for="XNYS")
        cache = make(source, freshness=BarClose(jitter=0))

        assert_frame_equal(cache.bars("AAPL", "2024-04-01", "2024-05-31"), truth.loc["2024-04-01":])
        assert source.asked() == [("2024-04-01", "2024-06-01")]
        cache.bars("AAPL", "2024-04-01", "2024-05-31")
        assert source.calls == []
        clock.advance(DAY + 1)
        assert_frame_equal(cache.bars("AAPL", "2024-04-01", "2024-05-31"), truth.loc["2024-04-01":])
        assert source.asked() == [("2024-05-20", "2024-06-01")]
        clock.advance(30 * DAY)
        cache.bars("AAPL", "2024-04-01", "2024-05-31")
        source.calls.clear()
        clock.advance(30 * DAY)
        cache.bars("AAPL", "2024-04-01", "2024-05-31")
        assert source.calls == []

    def test_weekend(self, cache, source):
        """Nothing is asked for a range in which a calendar has no session, and the answer has its columns."""
        result = cache.bars("AAPL", "2024-01-06", "2024-01-07")

        assert (list(result.columns), len(result), source.calls) == (COLUMNS, 0, [])

    def test_weekend_of_a_market_without_a_calendar(self, make):
        """Without a calendar a weekend is asked for, once."""
        source = TruthSource(HALF_YEAR)
        cache = make(source)

        for _ in range(2):
            assert cache.bars("AAPL", "2024-01-06", "2024-01-07").empty
        assert source.asked() == [("2024-01-06", "2024-01-08")]

    def test_a_session_that_the_calendar_does_not_know(self, make):
        """A bar on a day on which the calendar expects none is kept."""
        saturday = bars_at(pd.DatetimeIndex(["2024-01-06"]))
        truth = pd.concat([HALF_YEAR, saturday]).sort_index()
        cache = make(TruthSource(truth, calendar_for="XNYS"))

        assert_frame_equal(cache.bars("AAPL", *JANUARY), jan(truth))

    @pytest.mark.parametrize("interval", ["1h", "1d", "1wk", "1mo"])
    def test_future(self, make, source, interval):
        """Nothing is asked for a range that has not begun, and the answer has its columns and dtypes."""
        cache = make(source)

        result = cache.bars("AAPL", "2030-01-01", "2030-12-31", interval=interval)

        zone = "UTC" if interval == "1h" else None
        assert_index_equal(
            result.index, pd.DatetimeIndex([], dtype="M8[us]", name="timestamp").tz_localize(zone)
        )
        assert dict(result.dtypes.astype(str)) == dict.fromkeys(COLUMNS, "float64")
        assert source.calls == []

    def test_a_range_that_ends_in_the_future(self, cache, source):
        """A range is asked for up to the session that has begun; the rest is asked for when it has."""
        result = cache.bars("AAPL", "2024-05-28", "2024-12-31")

        assert_frame_equal(result, HALF_YEAR.loc["2024-05-28":])
        assert source.asked() == [("2024-05-28", "2024-06-04")]

    @pytest.mark.parametrize(
        ("start", "end"),
        [
            ("2024-01-31", "2024-01-02"),
            (date(2024, 1, 31), date(2024, 1, 2)),
            (pd.Timestamp("2024-01-31"), pd.Timestamp("2023-12-31")),
            ("2024-01-05", "2024-01-04"),
        ],
    )
    def test_start_after_end(self, cache, source, start, end):
        """A range that ends before it begins is refused, and names the argument."""
        with pytest.raises(InvalidInput, match="start"):
            cache.bars("AAPL", start, end)
        assert source.calls == []

    @pytest.mark.parametrize(
        ("start", "end"),
        [
            ("2024-01-02", "2024-01-31"),
            (date(2024, 1, 2), date(2024, 1, 31)),
            (datetime(2024, 1, 2), datetime(2024, 1, 31)),  # noqa: DTZ001 - as a researcher writes it
            (pd.Timestamp("2024-01-02 09:30", tz=NEW_YORK), pd.Timestamp("2024-01-31 23:00", tz=NEW_YORK)),
            (np.datetime64("2024-01-02"), np.datetime64("2024-01-31")),
            ("2024-01", "2024-01"),
        ],
        ids=str,
    )
    def test_spellings(self, cache, start, end):
        """A month of daily bars is the same however its ends are written."""
        result = cache.bars("AAPL", start, end)

        assert_frame_equal(result, jan())

    def test_ends_mean_what_loc_means(self, make):
        """Whatever way the ends of a range are written, bars are those of pandas' `.loc`."""
        truth = every("5min", "2024-01-02", "2024-01-05")
        cache = make(TruthSource(truth))

        for start, end in [
            ("2024-01-03", "2024-01-03"),
            ("2024-01-03 10", "2024-01-03 10"),
            ("2024-01-03 10:05", "2024-01-03 10:05"),
            ("2024-01-03 10:02", "2024-01-03 10:13"),
            ("2024-01-03T10:05:00", "2024-01-03T10:15:00"),
            ("2024-01", "2024-01-03"),
            (pd.Timestamp("2024-01-03 10:05", tz="UTC"), pd.Timestamp("2024-01-03 10:15", tz="UTC")),
            (pd.Timestamp("2024-01-03", tz="UTC"), pd.Timestamp("2024-01-04", tz="UTC")),
        ]:
            assert_frame_equal(cache.bars("AAPL", start, end, interval="5m"), truth.loc[start:end])

    @pytest.mark.parametrize(("interval", "freq"), [("1wk", "W-MON"), ("1mo", "MS"), ("3mo", "QS")])
    def test_longer_bars(self, make, interval, freq):
        """Bars of weeks, months and quarters are labelled with their first date, and the forming one is asked for again."""
        truth = bars_at(pd.date_range("2023-01-01", "2024-06-03", freq=freq))
        source = TruthSource(truth, calendar_for="XNYS")
        cache = make(source)

        assert_frame_equal(cache.bars("AAPL", "2023-02-15", interval=interval), truth.loc["2023-02-15":])
        last = f"{truth.index[-1]:%m-%d}"
        assert [(start, state) for start, _, state, _ in states(cache)][-1] == (last, "fresh")
        assert_frame_equal(
            cache.bars("AAPL", "2023-02-15", "2024-02-15", interval=interval),
            truth.loc["2023-02-15":"2024-02-15"],
        )
        assert len(source.calls) == 1

    @pytest.mark.parametrize("calendar", [None, "24/5"])
    def test_hourly_fx(self, make, calendar):
        """Weekends without a bar are gaps of the market: the week before and the one after are asked for once."""
        truth = every("h", "2024-01-01", "2024-01-26")
        truth = truth[truth.index.day_of_week < 5]
        source = TruthSource({"EUR/USD": truth}, calendar_for=calendar)
        cache = make(source)

        for start, end in [("2024-01-01", "2024-01-12"), ("2024-01-08", "2024-01-26")]:
            assert_frame_equal(cache.bars("EUR/USD", start, end, interval="1h"), truth.loc[start:end])
        assert len(source.asked()) == 2
        assert cache.bars("EUR/USD", "2024-01-06", "2024-01-07", interval="1h").empty
        assert_frame_equal(cache.bars("EUR/USD", "2024-01-01", "2024-01-26", interval="1h"), truth)
        assert source.calls == []

    def test_a_year_of_minutes(self, make, tmp_path):
        """A year of minute bars takes as many requests as the source's limit says; a part of it then takes none."""
        truth = every("min", "2023-01-01", "2023-12-31")
        source = TruthSource({"BTC/USDT": truth}, max_range=pd.Timedelta(30, "D"))
        cache = make(source)

        year = cache.bars("BTC/USDT", "2023-01-01", "2023-12-31", interval="1m")

        assert len(year) == 525_600
        assert_frame_equal(year, truth)
        assert all(call.end - call.start <= source.max_range for call in source.calls)
        assert len(source.asked()) == 13
        some = ("2023-03-31 23:30", "2023-04-02 00:29")
        assert_frame_equal(cache.bars("BTC/USDT", *some, interval="1m"), truth.loc[some[0] : some[1]])
        cache.close()
        assert_frame_equal(make(source).bars("BTC/USDT", *some, interval="1m"), truth.loc[some[0] : some[1]])
        assert source.calls == []


class TestUnknownSymbols:
    """Symbols that the source does not know, alone and among others."""

    def test_alone(self, cache, source):
        """A symbol asked for alone raises its error, whatever `on_error` says, and is asked for again next time."""
        for on_error in ("warn", "raise", "ignore"):
            with pytest.raises(UnknownSymbol, match="truth knows no symbol 'NOPE'"):
                cache.bars("NOPE", *JANUARY, on_error=on_error)
        assert len(source.calls) == 3

    def test_among_others(self, cache):
        """One of several that cannot be had is left out, with a warning, and listed in `failures()`."""
        with pytest.warns(MissingBarsWarning, match=r"1 of 2 symbols failed: NOPE .*cache\.failures\(\)"):
            result = cache.bars(["AAPL", "NOPE"], *JANUARY)

        assert_frame_equal(
            result["close"], jan()[["close"]].set_axis(pd.Index(["AAPL"], name="symbol"), axis=1)
        )
        expected = pd.DataFrame(
            {"error": ["UnknownSymbol"], "message": ["truth knows no symbol 'NOPE'"], "is_left_out": [True]},
            index=pd.Index(["NOPE"], name="symbol"),
        )
        assert_frame_equal(cache.failures(), expected, check_dtype=False, check_index_type=False)

    def test_warning_names_the_line_that_asked(self, cache):
        """The warning is of the line that called `bars`, in whose file it can be switched off."""

        def ask():
            return cache.bars(["AAPL", "NOPE"], *JANUARY)

        with pytest.warns(MissingBarsWarning) as caught:
            ask()
        assert caught[0].lineno == ask.__code__.co_firstlineno + 1

    def test_ignored(self, cache):
        """With on_error="ignore" nothing is said, but `failures()` still has it."""
        result = cache.bars(["NOPE", "AAPL"], *JANUARY, on_error="ignore")

        assert list(result.columns.get_level_values("symbol").unique()) == ["AAPL"]
        assert list(cache.failures().index) == ["NOPE"]

    def test_raised(self, cache, source):
        """With on_error="raise" the error is raised; what the others gave is kept."""
        with pytest.raises(UnknownSymbol):
            cache.bars(["AAPL", "NOPE"], *JANUARY, on_error="raise")
        source.calls.clear()
        assert_frame_equal(cache.bars("AAPL", *JANUARY), jan())
        assert source.calls == []

    def test_all_of_them(self, cache):
        """When nothing could be had, the answer is empty, and each field can still be taken from it."""
        result = cache.bars(["NOPE", "NADA"], *JANUARY, on_error="ignore")

        assert (len(result), str(result.index.dtype), result.index.name) == (0, "datetime64[us]", "timestamp")
        assert list(cache.failures().index) == ["NOPE", "NADA"]

    def test_a_field_of_nothing(self, cache):
        """A field of an answer in which all symbols failed has no column, and is no error."""
        result = cache.bars(["NOPE"], *JANUARY, on_error="ignore")

        assert len(result["close"]) == 0

    def test_nothing_asked(self, cache, source):
        """No symbols make an empty answer."""
        assert len(cache.bars([], *JANUARY)) == 0
        assert len(cache.bars([], *JANUARY, layout="long")) == 0
        assert source.calls == []

    def test_listed_later(self, cache, source):
        """That a symbol is unknown is not remembered: once the source has it, so has the cache."""
        with pytest.raises(UnknownSymbol):
            cache.bars("NEW", *JANUARY)
        source.truth["NEW"] = HALF_YEAR
        assert_frame_equal(cache.bars("NEW", *JANUARY), jan())

    @pytest.mark.parametrize("symbol", ["", " ", "A\nB", 5, None])
    def test_no_symbol(self, cache, source, symbol):
        """What can be no symbol is refused before anybody is asked."""
        with pytest.raises(InvalidInput, match="symbol"):
            cache.bars([symbol], *JANUARY)
        assert source.calls == []

    @pytest.mark.parametrize("symbol", ["BTC/USDT", "^GSPC", "BRK.B", "a/../b", "日経平均", "%2F"])
    def test_any_other_name(self, make, source, symbol):
        """A symbol keeps its name, whatever characters it has, on disk as well."""
        source.truth[symbol] = HALF_YEAR
        make(source).bars(symbol, *JANUARY)
        source.calls.clear()
        again = make(source)
        assert_frame_equal(again.bars(symbol, *JANUARY), jan())
        assert (source.calls, list(again.coverage()["symbol"])) == ([], [symbol])


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"interval": "7m"}, "interval"),
        ({"layout": "tall"}, "layout"),
        ({"on_error": "skip"}, "on_error"),
        ({"source": "nasdaq"}, "source"),
        ({"source": 5}, "source"),
        ({"start": "yesterday"}, "start"),
        ({"end": "2024-13-01"}, "end"),
        ({"columns": ["price"]}, "columns"),
    ],
)
def test_arguments_that_cannot_be(cache, options, field):
    """Each argument that cannot be is named by the error."""
    with pytest.raises(InvalidInput) as caught:
        cache.bars("AAPL", **({"start": "2024-01-02", "end": "2024-01-31"} | options))
    assert caught.value.field == field


class TestBadAnswers:
    """What providers send, repaired with a note in the log, or refused as a whole."""

    @pytest.mark.parametrize(
        ("spoil", "note"),
        [
            (lambda bars: bars.iloc[::-1], "21 bars put in order"),
            (lambda bars: bars.sample(frac=1, random_state=1), "21 bars put in order"),
            (lambda bars: pd.concat([bars.iloc[:10] * 2, bars]), "10 bars came again"),
            (lambda bars: pd.concat([bars.iloc[:12], bars.iloc[8:]]), "4 bars came again"),
            (lambda bars: bars.astype(object), None),
            (lambda bars: bars.astype(str).astype({"volume": "int64"}), None),
            (lambda bars: bars.rename(columns=str.title), None),
            (lambda bars: bars.reset_index(names="Date"), "21 labels taken from a column"),
            (lambda bars: bars.tz_localize(NEW_YORK), None),
            (lambda bars: bars.set_axis(bars.index + pd.Timedelta(hours=5)), "21 labels moved"),
            (lambda bars: bars.set_axis(bars.index.as_unit("ns")), None),
            (lambda bars: bars[["volume", "close", "open", "low", "high"]], None),
        ],
        ids=[
            "newest first", "in no order", "twice", "overlapping", "objects", "text", "capitals",
            "labels in a column", "New York midnights", "labels at five o'clock", "nanoseconds", "other order",
        ],
    )  # fmt: skip
    def test_repaired(self, cache, source, caplog, spoil, note):
        """What can be put right is, with a note in the log where something was lost or guessed."""
        source.spoil = lambda bars, _: spoil(bars)

        with caplog.at_level(logging.INFO, "tradecache"):
            result = cache.bars("AAPL", *JANUARY)

        assert_frame_equal(result, jan())
        notes = warned(caplog)
        assert any(note in each and "truth AAPL 1d" in each for each in notes) if note else notes == []

    def test_wrong_range(self, cache, source, caplog):
        """Bars that were not asked for are left out, and do not count as known."""
        source.spoil = lambda _bars, _: HALF_YEAR

        with caplog.at_level(logging.INFO, "tradecache"):
            result = cache.bars("AAPL", *JANUARY)

        assert_frame_equal(result, jan())
        assert any("outside the range that was asked for" in note for note in warned(caplog))
        source.calls.clear()
        assert_frame_equal(cache.bars("AAPL", "2024-02-01", "2024-02-29"), HALF_YEAR.loc["2024-02"])
        assert len(source.calls) == 1

    def test_only_another_range(self, cache, source):
        """When all that came lies elsewhere, there are no bars in the range that was asked for."""
        source.spoil = lambda _bars, _: HALF_YEAR.loc["2024-03":]

        assert cache.bars("AAPL", *JANUARY).empty
        assert states(cache)[0][2:] == ("fresh", "empty")

    def test_without_a_zone(self, make, caplog):
        """Labels of hourly bars without a zone are taken as UTC, with a warning in the log."""
        truth = every("h", "2024-01-02", "2024-01-03")
        source = TruthSource(truth)
        source.spoil = lambda bars, _: bars.tz_localize(None)

        result = make(source).bars("AAPL", "2024-01-02", "2024-01-03", interval="1h")

        assert_frame_equal(result, truth)
        assert any("48 labels without a zone taken as UTC" in note for note in warned(caplog))

    def test_in_another_zone(self, make):
        """Labels of hourly bars in another zone become UTC."""
        truth = every("h", "2024-01-02", "2024-01-03")
        source = TruthSource(truth)
        source.spoil = lambda bars, _: bars.tz_convert(NEW_YORK)

        assert_frame_equal(make(source).bars("AAPL", "2024-01-02", "2024-01-03", interval="1h"), truth)

    def test_bars_without_a_price(self, cache, source, caplog):
        """A bar without any price is no bar: it is left out, with a warning in the log."""
        source.spoil = lambda bars, _: bars.drop(pd.Timestamp("2024-01-10")).reindex(bars.index)

        result = cache.bars("AAPL", *JANUARY)

        assert_frame_equal(result, jan().drop(pd.Timestamp("2024-01-10")), check_dtype=False)
        assert any("1 bars without any price" in note for note in warned(caplog))

    def test_more_columns(self, make, source):
        """Columns beyond the five are kept, in snake case, after them, with the same dtypes from each tier."""
        more = {
            "Adj Close": jan()["close"] / 2,
            "Split": False,
            "note": pd.Series("x", jan().index, dtype=object),
        }
        source.spoil = lambda bars, _: pd.DataFrame(more).join(bars).assign(trades=np.int32(7))
        expected = jan().assign(
            adj_close=jan()["close"] / 2, split=False, note=pd.Series("x", jan().index, dtype="str"),
            trades=np.int32(7),
        )  # fmt: skip
        cache = make(source)

        for _ in range(2):
            assert_frame_equal(cache.bars("AAPL", *JANUARY), expected)
        cache.close()
        assert_frame_equal(make(source).bars("AAPL", *JANUARY), expected)
        assert len(source.calls) == 1

    @pytest.mark.parametrize(
        ("spoil", "named"),
        [
            (lambda bars: bars.assign(close=bars["close"].where(bars.index != "2024-01-10")), "2024-01-10"),
            (lambda bars: bars.assign(high=bars["low"] - 1), "2024-01-02"),
            (lambda bars: bars.assign(open=np.inf), "2024-01-02"),
            (lambda bars: bars.assign(close="n/a"), "2024-01-02"),
            (lambda bars: bars.assign(volume=np.inf), "2024-01-02"),
            (lambda bars: bars.drop(columns="low"), "columns"),
            (lambda bars: bars.reset_index(drop=True), "timestamp"),
            (lambda _: None, "a DataFrame"),
            (lambda bars: bars["close"], "a DataFrame"),
            (lambda _: {"error": "quota"}, "a DataFrame"),
        ],
        ids=[
            "half a bar", "upside down", "infinite", "no number", "infinite volume", "no low", "no labels",
            "None", "Series", "dict",
        ],
    )  # fmt: skip
    def test_refused(self, cache, source, spoil, named):
        """What cannot be bars is an error that names it, nothing of it is stored, and it is asked for again."""
        source.spoil = lambda bars, _: spoil(bars)

        with pytest.raises(InvalidBars, match=named):
            cache.bars("AAPL", *JANUARY)

        assert (len(cache.coverage()), len(source.asked())) == (0, 1)
        source.spoil = lambda bars, _: bars
        assert_frame_equal(cache.bars("AAPL", *JANUARY), jan())
        assert len(source.asked()) == 1

    def test_refused_among_others(self, cache, source):
        """One symbol with bars that cannot be does not end the others, and its old bars stay."""
        source.truth["MSFT"] = HALF_YEAR
        cache.bars(["AAPL", "MSFT"], *JANUARY)
        source.spoil = lambda bars, call: bars.assign(open=np.inf) if call.symbol == "MSFT" else bars

        with pytest.warns(MissingBarsWarning, match="MSFT"):
            result = cache.bars(["AAPL", "MSFT"], "2024-01-02", "2024-02-29")

        assert list(result["close"].columns) == ["AAPL"]
        assert cache.failures()["error"].to_dict() == {"MSFT": "InvalidBars"}
        assert_frame_equal(cache.bars("MSFT", *JANUARY), jan())

    def test_one_piece_of_several(self, make, source):
        """Where one request of several fails, the others' bars are kept and only its range is asked for again."""
        source.max_range = pd.Timedelta(31, "D")

        def fail_in_february(bars, call):
            if call.start.month == 2:
                raise SourceUnavailable("half a page")
            return bars

        source.spoil = fail_in_february
        cache = make(source)
        with pytest.raises(SourceUnavailable):
            cache.bars("AAPL", "2024-01-01", "2024-03-31")
        assert len(source.asked()) == 3
        source.spoil = lambda bars, _: bars

        assert_frame_equal(cache.bars("AAPL", "2024-01-01", "2024-03-31"), HALF_YEAR.loc["2024-01":"2024-03"])
        assert source.asked() == [("2024-02-02", "2024-03-02")]


class TestCorrections:
    """Bars that change after they were first sent."""

    def test_forming(self, cache, source, clock):
        """A forming bar is good for a while; then it alone is asked for again, until it has closed and settled."""
        cache.bars("AAPL", "2024-05-28")
        source.asked()
        source.correct("2024-06-03", 50)
        clock.advance(60)
        assert cache.bars("AAPL", "2024-05-28")["close"].iloc[-1] != 50
        assert source.calls == []

        clock.advance(300)
        assert cache.bars("AAPL", "2024-05-28")["close"].iloc[-1] == 50
        assert source.asked() == [("2024-06-03", "2024-06-04")]

    def test_corrected_before_it_settled(self, cache, source, clock):
        """A bar fetched after its close, but before it settled, is fetched once more, and then stays."""
        clock.now = at("2024-06-03 20:05")
        cache.bars("AAPL", "2024-05-28", "2024-06-03")
        source.asked()
        source.correct("2024-06-03", 50)
        clock.now = at("2024-06-03 20:16")

        assert cache.bars("AAPL", "2024-05-28", "2024-06-03")["close"].iloc[-1] == 50
        assert source.asked() == [("2024-06-03", "2024-06-04")]
        clock.advance(DAY)
        cache.bars("AAPL", "2024-05-28", "2024-06-03")
        assert source.calls == []

    def test_corrected_later(self, cache, source, clock):
        """A final bar that the source corrects is had with `refresh=True`, and then by everybody."""
        cache.bars("AAPL", *JANUARY)
        source.asked()
        source.correct("2024-01-10", 50)
        clock.advance(1)
        assert_frame_equal(cache.bars("AAPL", *JANUARY), jan())

        fresh = cache.bars("AAPL", "2024-01-08", "2024-01-12", refresh=True)

        assert fresh.loc["2024-01-10", "close"] == 50
        assert source.asked() == [("2024-01-08", "2024-01-13")]
        assert_frame_equal(cache.bars("AAPL", *JANUARY), jan(source.truth["AAPL"]))
        assert source.calls == []

    def test_a_bar_taken_back(self, cache, source, clock):
        """A bar that the source no longer has is gone after a refresh."""
        cache.bars("AAPL", *JANUARY)
        source.truth["AAPL"] = HALF_YEAR.drop(pd.Timestamp("2024-01-10"))
        clock.advance(1)

        cache.bars("AAPL", "2024-01-10", "2024-01-10", refresh=True)

        assert_frame_equal(cache.bars("AAPL", *JANUARY), jan(source.truth["AAPL"]))

    def test_refresh_after_the_clock_was_wrong(self, make, source, clock):
        """After the clock was set back to what is right, `refresh=True` still asks."""
        clock.advance(400 * DAY)
        cache = make(source)
        cache.bars("AAPL", *JANUARY)
        cache.close()
        source.asked()
        source.correct("2024-01-10", 50)
        clock.advance(-400 * DAY)

        assert make(source).bars("AAPL", *JANUARY, refresh=True).loc["2024-01-10", "close"] == 50

    def test_hourly_bar_settles(self, make, clock):
        """Of hourly bars those closed for the settle delay are final; the ones after are asked for again."""
        truth = every("h", "2024-06-03", "2024-06-03").loc[:"2024-06-03 14:00"]
        source = TruthSource(truth, settle=pd.Timedelta(15, "min"))
        clock.now = at("2024-06-03 14:10")
        cache = make(source)
        cache.bars("AAPL", "2024-06-03", interval="1h")
        source.asked()
        source.truth["AAPL"] = every("h", "2024-06-03", "2024-06-03", seed=1).loc[:"2024-06-03 14:00"]
        clock.now = at("2024-06-03 14:16")

        result = cache.bars("AAPL", "2024-06-03", interval="1h")

        assert [call.start > pd.Timestamp("2024-06-03 12:00", tz="UTC") for call in source.calls] == [True]
        assert_frame_equal(
            result, pd.concat([truth.loc[:"2024-06-03 12:00"], source.truth["AAPL"].loc["2024-06-03 13:00":]])
        )


class TestThrift:
    """What is covered and fresh is never asked for again."""

    def test_growing_on_either_side(self, cache, source):
        """When a range grows, only what is new is asked for, and the answer is that of one question."""
        cache.bars("AAPL", "2024-02-01", "2024-02-29")
        source.asked()

        cache.bars("AAPL", "2024-02-01", "2024-03-15")
        later = source.asked()
        cache.bars("AAPL", "2024-01-10", "2024-03-15")
        earlier = source.asked()
        both = cache.bars("AAPL", "2024-01-02", "2024-03-28")

        assert later == [("2024-03-01", "2024-03-16")]
        assert earlier == [("2024-01-10", "2024-02-01")]
        assert source.asked() == [("2024-01-02", "2024-01-10"), ("2024-03-18", "2024-03-29")]
        assert_frame_equal(both, HALF_YEAR.loc["2024-01-02":"2024-03-28"])

    def test_within(self, cache, source):
        """Nothing is asked for a part of what is known."""
        cache.bars("AAPL", "2024-01-02", "2024-03-28")
        source.asked()

        assert_frame_equal(
            cache.bars("AAPL", "2024-02-05", "2024-02-06"), HALF_YEAR.loc["2024-02-05":"2024-02-06"]
        )
        assert source.calls == []

    def test_a_hole(self, make, source):
        """Between two known ranges only the hole is asked for."""
        cache = make(source)
        cache.bars("AAPL", *JANUARY)
        cache.bars("AAPL", "2024-03-01", "2024-03-28")
        source.asked()

        assert_frame_equal(
            cache.bars("AAPL", "2024-01-02", "2024-03-28"), HALF_YEAR.loc["2024-01-02":"2024-03-28"]
        )
        assert source.asked() == [("2024-02-01", "2024-03-01")]

    def test_holes_close_together(self, make, source):
        """Holes closer than the source's `merge_gap` are one question."""
        source.merge_gap = pd.Timedelta(10, "D")
        cache = make(source)
        cache.bars("AAPL", "2024-01-16", "2024-01-18")
        source.asked()

        assert_frame_equal(cache.bars("AAPL", *JANUARY), jan())
        assert source.asked() == [("2024-01-02", "2024-02-01")]

    def test_day_by_day(self, make, source):
        """Half a year asked for one day after the other is as if asked for at once, after a restart as well."""
        cache = make(source)

        for day in HALF_YEAR.index:
            assert len(cache.bars("AAPL", day, day)) == 1

        source.asked()
        whole = ("2023-12-01", "2024-05-31")
        assert_frame_equal(cache.bars("AAPL", *whole), HALF_YEAR.loc[whole[0] : whole[1]])
        cache.close()
        assert_frame_equal(make(source).bars("AAPL", *whole), HALF_YEAR.loc[whole[0] : whole[1]])
        assert source.calls == []

    def test_restart(self, make, source):
        """After a restart nothing is asked for that was stored, and bars look the same."""
        cache = make(source)
        cold = cache.bars("AAPL", *JANUARY)
        cache.close()
        source.asked()
        cache = make(source)

        assert_frame_equal(cache.bars("AAPL", *JANUARY), cold)
        assert set(cache.explain()["tier"]) == {"disk"}
        assert_frame_equal(cache.bars("AAPL", *JANUARY), cold)
        assert set(cache.explain()["tier"]) == {"memory"}
        assert source.calls == []

    def test_two_caches_on_one_folder(self, make, source):
        """What one cache has fetched, another on the same folder has."""
        one, other = make(source), make(source)

        assert other.bars("AAPL", "2024-02-01", "2024-02-02").shape == (2, 5)
        one.bars("AAPL", *JANUARY)
        source.asked()
        assert_frame_equal(other.bars("AAPL", *JANUARY), jan())
        assert source.calls == []

    def test_ttl(self, make, source, clock):
        """When one of two neighbouring ranges has expired, it alone is asked for again."""
        cache = make(source, freshness=FixedTTL(3600, jitter=0))
        cache.bars("AAPL", *JANUARY)
        clock.advance(1800)
        cache.bars("AAPL", "2024-01-02", "2024-02-29")
        source.asked()
        source.correct("2024-01-10", 50)
        source.correct("2024-02-08", 50)
        clock.advance(1801)

        result = cache.bars("AAPL", "2024-01-02", "2024-02-29")

        assert source.asked() == [("2024-01-02", "2024-02-01")]
        assert [label for label in result.index if result.loc[label, "close"] == 50] == [
            pd.Timestamp("2024-01-10")
        ]

    def test_up_to_now(self, cache, source, clock):
        """Without an end there are bars up to now; the next day only what is new is asked for."""
        assert_frame_equal(cache.bars("AAPL", "2024-05-28"), HALF_YEAR.loc["2024-05-28":])
        assert source.asked() == [("2024-05-28", "2024-06-04")]
        source.truth["AAPL"] = days("2023-12-01", "2024-06-04")
        clock.now = at("2024-06-04 14:30")

        assert len(cache.bars("AAPL", "2024-05-28")) == 6
        assert source.asked() == [("2024-06-03", "2024-06-05")]

    def test_minutes_up_to_now(self, make, clock):
        """Of minute bars the forming one is the last, and each minute one more is asked for."""
        truth = every("min", "2024-06-03", "2024-06-03")
        source = TruthSource(truth, settle=pd.Timedelta(0))
        source.spoil = lambda bars, _: bars.loc[: pd.Timestamp(clock.now)]
        cache = make(source)

        assert len(cache.bars("AAPL", "2024-06-03 14:00", interval="1m")) == 31
        source.asked()
        clock.advance(60)
        assert len(cache.bars("AAPL", "2024-06-03 14:00", interval="1m")) == 32
        assert source.asked() == [("2024-06-03 14:30", "2024-06-03 14:32")]

    def test_many_threads(self, cache, source):
        """Many who ask at once for what nobody has yet make one question."""
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: cache.bars("AAPL", *JANUARY), range(48)))

        for answer in answers:
            assert_frame_equal(answer, jan())
        assert len(source.calls) == 1

    def test_sources_are_kept_apart(self, make, source):
        """Bars of the same symbol from two sources do not mix."""
        other = TruthSource(HALF_YEAR * 2, name="other")
        cache = make(source)

        assert_frame_equal(cache.bars("AAPL", *JANUARY), jan())
        assert_frame_equal(cache.bars("AAPL", *JANUARY, source=other), jan() * 2)
        assert_frame_equal(cache.bars("AAPL", *JANUARY), jan())
        assert (len(source.calls), len(other.calls)) == (1, 1)

    def test_intervals_are_kept_apart(self, make):
        """Bars of the same symbol in two intervals do not mix, and one interval has one name."""
        truth = every("h", "2024-01-02", "2024-01-03")
        source = TruthSource(truth)
        cache = make(source)
        cache.bars("AAPL", "2024-01-02", "2024-01-03", interval="1h")

        assert_frame_equal(cache.bars("AAPL", "2024-01-02", "2024-01-03", interval="60m"), truth)
        assert [call.interval for call in source.calls] == ["1h"]

    def test_a_function_as_source(self, make):
        """A plain function serves as a source."""
        asked = []

        def prices_of_mine(symbol, start, end, interval):
            asked.append((symbol, start, end, interval))
            return HALF_YEAR

        cache = make(prices_of_mine)
        for _ in range(2):
            assert_frame_equal(cache.bars("AAPL", *JANUARY), jan())
        assert asked == [("AAPL", pd.Timestamp("2024-01-02"), pd.Timestamp("2024-02-01"), "1d")]

    def test_what_is_asked_often_is_fetched_ahead(self, make, source, clock):
        """With the policy Adaptive nobody waits for bars that are asked for often: they are fetched before they expire."""
        cache = make(source, freshness=Adaptive(FixedTTL(3600, jitter=0), hot=3, ahead=0.5))
        for _ in range(4):
            cache.bars("AAPL", *JANUARY)
        source.asked()
        clock.advance(3599)

        assert_frame_equal(cache.bars("AAPL", *JANUARY), jan())
        for _ in range(500):
            if source.calls:
                break
            cache.info()  # which gives way to the private loop
        assert source.asked() == [("2024-01-02", "2024-02-01")]


class TestBeginnings:
    """Ranges without a start: from the beginning of what the source has."""

    def test_a_source_that_knows_it(self, make, source):
        """A source's `first` is where it begins; nothing before is ever asked for."""
        source.first = HALF_YEAR.index[0]
        cache = make(source)

        assert_frame_equal(cache.bars("AAPL"), HALF_YEAR)
        assert source.asked() == [("2023-12-01", "2024-06-04")]
        assert cache.bars("AAPL", "2020-01-01", "2020-12-31").empty
        assert source.calls == []

    def test_first_of_each_symbol(self, make, source):
        """`first` may be a function of symbol and interval."""
        source.truth["MSFT"] = HALF_YEAR.loc["2024-03-01":]
        source.first = lambda symbol, interval: source.truth[symbol].index[0]
        cache = make(source)

        assert_frame_equal(cache.bars("MSFT"), HALF_YEAR.loc["2024-03-01":])
        assert source.asked() == [("2024-03-01", "2024-06-04")]

    def test_a_source_with_a_window(self, make, source, clock):
        """A source's `window` is as far back as is asked; what has left it stays stored."""
        source.window = pd.Timedelta(30, "D")
        cache = make(source)

        assert_frame_equal(cache.bars("AAPL"), HALF_YEAR.loc["2024-05-05":])
        assert source.asked() == [("2024-05-06", "2024-06-04")]
        clock.advance(10 * DAY)
        old = cache.bars("AAPL", "2024-04-01", "2024-05-10")
        assert_frame_equal(old, HALF_YEAR.loc["2024-05-06":"2024-05-10"])
        assert source.calls == []

    def test_a_source_with_a_limit(self, make):
        """A source with a `max_range` only is searched backwards until it has been quiet, once."""
        source = TruthSource(HALF_YEAR, max_range=pd.Timedelta(60, "D"))
        cache = make(source)

        assert_frame_equal(cache.bars("AAPL"), HALF_YEAR)
        assert source.asked() == [
            ("2023-08-09", "2023-10-08"),
            ("2023-10-08", "2023-12-07"),
            ("2023-12-07", "2024-02-05"),
            ("2024-02-05", "2024-04-05"),
            ("2024-04-05", "2024-06-04"),
        ]
        assert_frame_equal(cache.bars("AAPL"), HALF_YEAR)
        cache.close()
        assert_frame_equal(make(source).bars("AAPL"), HALF_YEAR)
        assert source.calls == []

    def test_a_source_that_says_nothing(self, cache, source, clock):
        """A source without limits is asked for all at once; the next day for what is new."""
        assert_frame_equal(cache.bars("AAPL"), HALF_YEAR)
        assert source.asked() == [("1900-01-01", "2024-06-04")]
        clock.now = at("2024-06-04 14:30")
        cache.bars("AAPL")
        assert source.asked() == [("2024-06-03", "2024-06-05")]

    def test_a_search_that_fails(self, make):
        """A backward search that fails half-way is no beginning: the next call goes on where it stopped."""
        source = TruthSource(HALF_YEAR, max_range=pd.Timedelta(60, "D"))

        def fail(bars, call):
            if call.start < pd.Timestamp("2024-02-01"):
                raise SourceUnavailable("gone")
            return bars

        source.spoil = fail
        cache = make(source)
        with pytest.raises(SourceUnavailable):
            cache.bars("AAPL")
        source.asked()
        source.spoil = lambda bars, _: bars

        assert_frame_equal(cache.bars("AAPL"), HALF_YEAR)
        assert source.asked()[-1] == ("2023-12-07", "2024-02-05")

    def test_a_search_across_a_halt(self, make):
        """What a backward search took for the beginning does not hide bars that are asked for by date."""
        truth = HALF_YEAR.drop(HALF_YEAR.loc["2024-04-01":"2024-04-19"].index)
        source = TruthSource(truth, max_range=pd.Timedelta(5, "D"))
        cache = make(source)
        cache.bars("AAPL")

        assert_frame_equal(cache.bars("AAPL", *JANUARY), jan(truth))

    def test_a_search_for_hours(self, make):
        """Hourly bars of a market with a calendar are searched backwards too, not asked for from 1900 on."""
        truth = hours("2024-04-01", "2024-05-31")
        source = TruthSource(truth, max_range=pd.Timedelta(60, "D"), calendar_for="XNYS")

        assert_frame_equal(make(source).bars("AAPL", interval="1h"), truth)
        assert len(source.calls) < 10

    def test_local(self, make):
        """The beginning of one's own bars is the first one stored."""
        cache = make()
        cache.store_bars("MINE", jan())

        assert_frame_equal(cache.bars("MINE"), jan())

    def test_local_before_1900(self, make):
        """The beginning of one's own bars may lie before 1900."""
        truth = bars_at(pd.date_range("1871-01-01", periods=24 * 12, freq="MS"))
        cache = make()
        cache.store_bars("S&P", truth, interval="1mo")

        assert_frame_equal(cache.bars("S&P", "1871", "1894-12-31", interval="1mo"), truth)
        assert_frame_equal(cache.bars("S&P", end="1894-12-31", interval="1mo"), truth)


class TestFailures:
    """Stale is honest, and no failure is taken for "no data"."""

    def test_stale(self, make, source, clock):
        """When the source fails, older bars are handed out with a warning, and everything says that they are stale."""
        cache = make(source, freshness=FixedTTL(3600))
        cache.bars("AAPL", *JANUARY)
        clock.advance(3601)
        source.error = SourceUnavailable("no network")

        with pytest.warns(StaleDataWarning, match=r"AAPL are not fresh.*no network"):
            result = cache.bars("AAPL", *JANUARY)

        assert_frame_equal(result, jan())
        assert list(cache.explain()["why"]) == ["stale"]
        assert list(cache.coverage()["state"]) == ["stale"]
        failed = cache.failures().loc["AAPL"]
        assert (failed["error"], failed["is_left_out"]) == ("SourceUnavailable", False)

    def test_stale_is_refused(self, make, source, clock):
        """With allow_stale=False the source's failure is raised instead."""
        cache = make(source, freshness=FixedTTL(3600))
        cache.bars("AAPL", *JANUARY)
        clock.advance(3601)
        source.error = SourceUnavailable("no network")

        with pytest.raises(SourceUnavailable, match="no network"):
            cache.bars("AAPL", *JANUARY, allow_stale=False)
        with pytest.raises(SourceUnavailable, match="no network"):
            cache.bars(["AAPL"], *JANUARY, allow_stale=False, on_error="raise")
        with pytest.warns(MissingBarsWarning, match="AAPL"):
            assert cache.bars(["AAPL"], *JANUARY, allow_stale=False).empty

    def test_stale_among_others(self, make, source, clock):
        """Of several symbols those that are stale are named, the others are fresh."""
        source.truth["MSFT"] = HALF_YEAR
        cache = make(source, freshness=FixedTTL(3600))
        cache.bars(["AAPL", "MSFT"], *JANUARY)
        clock.advance(3601)

        def fail(bars, call):
            if call.symbol == "MSFT":
                raise SourceUnavailable("no network")
            return bars

        source.spoil = fail
        with pytest.warns(StaleDataWarning, match="bars of MSFT are not fresh"):
            result = cache.bars(["AAPL", "MSFT"], *JANUARY)
        assert_frame_equal(
            result["close"],
            pd.DataFrame({"AAPL": jan()["close"], "MSFT": jan()["close"]}).rename_axis(columns="symbol"),
        )

    def test_fresh_again(self, make, source, clock):
        """Once the source answers again, nothing is stale."""
        cache = make(source, freshness=FixedTTL(3600))
        cache.bars("AAPL", *JANUARY)
        clock.advance(3601)
        source.error = SourceUnavailable("no network")
        with pytest.warns(StaleDataWarning):
            cache.bars("AAPL", *JANUARY)
        source.error = None
        source.correct("2024-01-10", 50)

        assert cache.bars("AAPL", *JANUARY).loc["2024-01-10", "close"] == 50
        assert list(cache.coverage()["state"]) == ["fresh"]
        assert len(cache.failures()) == 0

    def test_a_refresh_that_fails(self, cache, source, clock):
        """When a refresh fails, what is stored is handed out with a warning."""
        cache.bars("AAPL", *JANUARY)
        clock.advance(1)
        source.error = SourceUnavailable("no network")

        with pytest.warns(StaleDataWarning):
            assert_frame_equal(cache.bars("AAPL", *JANUARY, refresh=True), jan())
        with pytest.raises(SourceUnavailable):
            cache.bars("AAPL", *JANUARY, refresh=True, allow_stale=False)

    def test_stale_is_never_silent(self, make, source, clock):
        """What becomes of failures among several symbols does not silence that bars are stale."""
        cache = make(source, freshness=FixedTTL(3600))
        cache.bars("AAPL", *JANUARY)
        clock.advance(3601)
        source.error = SourceUnavailable("no network")

        with pytest.warns(StaleDataWarning):
            cache.bars("AAPL", *JANUARY, on_error="ignore")

    def test_no_longer_known(self, make, source, clock):
        """Bars of a symbol that the source has dropped are handed out as stale."""
        cache = make(source, freshness=FixedTTL(3600))
        cache.bars("AAPL", *JANUARY)
        clock.advance(3601)
        del source.truth["AAPL"]

        with pytest.warns(StaleDataWarning, match="knows no symbol"):
            assert_frame_equal(cache.bars("AAPL", *JANUARY), jan())

    def test_a_refresh_that_cannot_be(self, cache, source, clock):
        """When a refresh brings what cannot be bars, what is stored stays and is handed out with a warning."""
        cache.bars("AAPL", *JANUARY)
        clock.advance(1)
        source.spoil = lambda bars, _: bars.assign(open=np.inf)

        with pytest.warns(StaleDataWarning, match="open is inf"):
            assert_frame_equal(cache.bars("AAPL", *JANUARY, refresh=True), jan())
        assert_frame_equal(cache.bars("AAPL", *JANUARY), jan())

    def test_a_failure_is_not_explained_as_closed(self, cache, source):
        """Of a range that the source did not answer for, `explain()` does not say that the market was closed."""
        source.error = SourceUnavailable("no network")
        with pytest.raises(SourceUnavailable):
            cache.bars("AAPL", *JANUARY)

        assert "closed" not in set(cache.explain()["why"])

    def test_a_part_is_not_the_whole(self, cache, source):
        """When only a part of a range is stored and the source fails, that part is not handed out for the whole."""
        cache.bars("AAPL", *JANUARY)
        source.error = SourceUnavailable("no network")

        with pytest.raises(SourceUnavailable):
            cache.bars("AAPL", "2024-01-02", "2024-02-29")
        assert_frame_equal(cache.bars("AAPL", *JANUARY), jan())

    def test_what_needs_no_source_needs_no_network(self, cache, source):
        """Stored bars are handed out without a warning while the source is away."""
        cache.bars("AAPL", *JANUARY)
        source.error = SourceUnavailable("no network")

        assert_frame_equal(cache.bars("AAPL", *JANUARY), jan())
        assert cache.bars("AAPL", "2024-01-06", "2024-01-07").empty

    @pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
    def test_no_failure_is_remembered(self, cache, source, error):
        """After a failure nothing is known, and the next call asks again."""
        source.error = error

        for _ in range(2):
            with pytest.raises((RateLimited, SourceUnavailable)) as caught:
                cache.bars("AAPL", *JANUARY)
            assert (caught.value.source, caught.value.symbol) == ("truth", "AAPL")
        assert (len(cache.coverage()), len(source.asked())) == (0, 2)
        source.error = None
        assert_frame_equal(cache.bars("AAPL", *JANUARY), jan())

    def test_a_mistake_in_a_source(self, cache, source):
        """An error of the source's own code comes out as it is."""
        source.error = AttributeError("no such thing")

        with pytest.raises(AttributeError, match="no such thing"):
            cache.bars("AAPL", *JANUARY)
        assert len(cache.coverage()) == 0

    def test_a_source_that_wants_to_be_left_alone(self, cache, source):
        """For as long as a provider wants to be left alone it is, and the error says how long that is."""
        source.error = RateLimited(retry_after=3600)

        for _ in range(2):
            with pytest.raises(RateLimited, match=r"truth was asked too often .*ask again in 3\.6e\+03 s"):
                cache.bars("AAPL", *JANUARY)
        assert len(source.calls) == 1


class TestAbsence:
    """Why there are no bars is an answer, remembered for a time of its own."""

    @pytest.mark.parametrize(
        ("reason", "after", "young"),
        [
            ("closed", 1, "2024-05-27"),
            ("no_trades", 1, "2024-05-20"),
            ("before_listing", 1, "2024-05-04"),
            ("outside_window", 7, "2024-03-01"),
        ],
    )
    def test_asked_again_in_time(self, make, clock, reason, after, young):
        """The reason is remembered; after its time what is young enough is asked for again, and may have bars by then."""
        source = TruthSource(HALF_YEAR)
        source.error = NoBars(reason)
        cache = make(source, freshness=BarClose(jitter=0))
        asked = ("2024-03-01", "2024-05-31")

        for seconds in (0, 1, after * DAY - 2):
            clock.advance(seconds)
            assert cache.bars("AAPL", *asked).empty
        assert source.asked() == [("2024-03-01", "2024-06-01")]
        assert set(cache.coverage()["outcome"]) == {reason}
        assert all(why.startswith(reason) for why in cache.explain()["why"])

        source.error = None
        clock.advance(2)
        assert_frame_equal(cache.bars("AAPL", *asked), HALF_YEAR.loc[young:"2024-05-31"])
        assert source.asked() == [(young, "2024-06-01")]

    def test_no_reason(self, make):
        """An empty frame means that there is nothing, and is not believed for ever."""
        source = TruthSource(HALF_YEAR)
        source.spoil = lambda _bars, _: pd.DataFrame()
        cache = make(source)

        assert cache.bars("AAPL", *JANUARY).empty
        assert states(cache) == [("01-02", "02-01", "fresh", "empty")]

    def test_a_bar_that_comes_late(self, cache, source, clock):
        """A session that the source does not have yet an hour after its close is asked for again, and alone."""
        source.truth["AAPL"] = HALF_YEAR.loc[:"2024-05-31"]
        clock.now = at("2024-06-03 21:00")
        assert len(cache.bars("AAPL", "2024-05-28", "2024-06-03")) == 4
        source.asked()
        source.truth["AAPL"] = HALF_YEAR
        clock.advance(DAY)

        assert_frame_equal(cache.bars("AAPL", "2024-05-28", "2024-06-03"), HALF_YEAR.loc["2024-05-28":])
        assert source.asked() == [("2024-06-03", "2024-06-04")]

    def test_pieces_before_listing(self, make, source):
        """Of several requests those before the listing may say so; the others have their bars."""
        source.truth["AAPL"] = HALF_YEAR.loc["2024-03-01":]
        source.max_range = pd.Timedelta(30, "D")

        def before(bars, call):
            if call.end <= pd.Timestamp("2024-03-01"):
                raise NoBars("before_listing")
            return bars

        source.spoil = before
        cache = make(source)
        assert_frame_equal(
            cache.bars("AAPL", "2023-01-02", "2024-05-31"), HALF_YEAR.loc["2024-03-01":"2024-05-31"]
        )
        source.asked()
        assert cache.bars("AAPL", "2023-01-02", "2023-12-29").empty
        assert source.calls == []
        assert cache.coverage()["outcome"].iloc[0] == "before_listing"


class TestDamage:
    """Files that are lost, damaged or evicted are fetched again."""

    @pytest.fixture
    def lose(self, make, source, tmp_path):
        """Return what asks for some ranges, closes the cache and deletes its files, and makes another cache."""

        def lose(ranges):
            cache = make(source)
            for start, end in ranges:
                cache.bars("AAPL", start, end)
            cache.close()
            for file in tmp_path.rglob("*.arrow"):
                file.unlink()
            source.asked()
            return make(source)

        return lose

    def test_lost(self, lose, source):
        """A range whose file is lost is asked for again."""
        cache = lose([JANUARY])

        assert_frame_equal(cache.bars("AAPL", *JANUARY), jan())
        assert source.asked() == [("2024-01-02", "2024-02-01")]
        assert_frame_equal(cache.bars("AAPL", *JANUARY), jan())
        assert source.calls == []

    def test_damaged(self, make, source, tmp_path):
        """A range whose file is damaged is asked for again, and the file is kept aside."""
        make(source).bars("AAPL", *JANUARY)
        (file,) = tmp_path.rglob("*.arrow")
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 255
        file.write_bytes(data)
        source.asked()
        cache = make(source)

        assert_frame_equal(cache.bars("AAPL", *JANUARY), jan())
        assert source.asked() == [("2024-01-02", "2024-02-01")]
        assert cache.info()["disk_quarantined"] == 1

    def test_many_lost(self, lose):
        """However many files are lost, their ranges are asked for again."""
        cache = lose([(day, day) for day in HALF_YEAR.loc["2024-01-02":"2024-01-10"].index])

        assert_frame_equal(cache.bars("AAPL", *JANUARY), jan())

    def test_lost_where_others_are_put_together(self, lose, source):
        """Lost files leave no hole in the answer, also when small neighbours are put together meanwhile."""
        source.calendar_for = None
        source.merge_gap = pd.Timedelta(0)
        weeks = pd.date_range("2024-01-02", "2024-04-02", freq="14D")
        cache = lose([(day, day + pd.Timedelta(3, "D")) for day in weeks])

        assert_frame_equal(
            cache.bars("AAPL", "2024-01-02", "2024-05-31"), HALF_YEAR.loc["2024-01-02":"2024-05-31"]
        )

    def test_more_than_the_disk_may_hold(self, make):
        """A range of which the folder may keep only a part is answered all the same."""
        truth = every("min", "2024-01-01", "2024-01-31")
        source = TruthSource(truth, max_range=pd.Timedelta(4, "D"))
        cache = make(source, settings=Settings(disk_bytes=500_000, memory_bytes=1))

        assert_frame_equal(cache.bars("AAPL", "2024-01-01", "2024-01-31", interval="1m"), truth)

    def test_pieces_that_do_not_go_together(self, make):
        """Bars can be had though a further column of the source's is text here and a number there."""
        source = TruthSource(bars_at(pd.date_range("2024-01-01", "2024-01-20")))
        source.spoil = lambda bars, call: bars.assign(note="x" if call.start.day % 2 else 1.0)
        cache = make(source)

        for day in source.truth["AAPL"].index:
            assert len(cache.bars("AAPL", day, day)) == 1


class TestOwnBars:
    """store_bars: the user's own bars, which have no provider."""

    def test_come_back(self, make):
        """What was stored comes back as it was, also from another cache on the folder."""
        cache = make()
        cache.store_bars("MINE", HALF_YEAR)

        assert_frame_equal(cache.bars("MINE"), HALF_YEAR)
        assert_frame_equal(cache.bars("MINE", *JANUARY), jan())
        assert_frame_equal(make().bars("MINE"), HALF_YEAR)

    def test_upsert(self, make):
        """A bar of a label that is there already takes its place, new ones are added, and the others stay."""
        cache = make()
        cache.store_bars("MINE", jan())
        some = HALF_YEAR.loc[["2023-12-15", "2024-01-10", "2024-01-17", "2024-02-15"]] + 1

        cache.store_bars("MINE", some)

        expected = pd.concat([jan().drop(some.index[1:3]), some]).sort_index()
        assert_frame_equal(cache.bars("MINE"), expected)
        assert_frame_equal(make().bars("MINE"), expected)

    def test_too_large_together(self, make):
        """Bars that can be stored alone are, where they would be too large with those before them."""
        cache = make(settings=Settings(max_entry_bytes=6_000))
        for row in range(100):
            cache.store_bars("MINE", HALF_YEAR.iloc[[row]])

        assert_frame_equal(cache.bars("MINE"), HALF_YEAR.iloc[:100])

    def test_for_a_while(self, make, clock):
        """Bars with a ttl take the place of those for ever until they expire, however those were stored."""
        cache = make()
        for row in range(20):
            cache.store_bars("MINE", HALF_YEAR.iloc[[row]])
        cache.store_bars("MINE", HALF_YEAR.iloc[:20] * 2, ttl=60)
        assert_frame_equal(cache.bars("MINE"), HALF_YEAR.iloc[:20] * 2)
        clock.advance(61)

        assert_frame_equal(cache.bars("MINE"), HALF_YEAR.iloc[:20])
        cache.store_bars("MINE", HALF_YEAR.iloc[[0, 19]])
        assert_frame_equal(make().bars("MINE"), HALF_YEAR.iloc[:20])

    def test_of_several_symbols(self, make):
        """A frame of several symbols, whose rows would take one another's place, is refused."""
        long = pd.concat({"AAPL": jan(), "MSFT": jan() * 2}, names=["symbol", "timestamp"]).reset_index()

        with pytest.raises(InvalidBars, match=r"symbol is .*'AAPL', 'MSFT'.* bars of one symbol"):
            make().store_bars("AAPL", long)

    def test_again_and_again(self, make):
        """Many small frames, in any order, become the whole."""
        cache = make()
        order = np.random.default_rng(1).permutation(len(HALF_YEAR))

        for row in order:
            cache.store_bars("MINE", HALF_YEAR.iloc[[row]])

        assert_frame_equal(cache.bars("MINE"), HALF_YEAR)

    def test_intraday(self, make):
        """Own bars may be of any interval, in any zone."""
        truth = hours("2024-03-04", "2024-03-15")
        cache = make()
        cache.store_bars("MINE", truth.tz_convert(NEW_YORK), interval="1h")

        assert_frame_equal(cache.bars("MINE", interval="1h"), truth)
        with pytest.raises(UnknownSymbol, match="no source= to ask"):
            cache.bars("MINE")

    def test_ttl(self, make, clock):
        """What has lived its time is gone, from memory and from disk."""
        cache = make()
        cache.store_bars("MINE", jan(), ttl=60)
        cache.store_bars("MINE", HALF_YEAR.loc["2024-03"], ttl=timedelta(hours=1))
        clock.advance(59)
        assert len(cache.bars("MINE")) == len(jan()) + len(HALF_YEAR.loc["2024-03"])
        clock.advance(2)

        assert_frame_equal(cache.bars("MINE"), HALF_YEAR.loc["2024-03"])
        assert_frame_equal(make().bars("MINE"), HALF_YEAR.loc["2024-03"])
        clock.advance(3600)
        assert cache.bars("MINE", source="local").empty
        assert len(make().coverage()) == 0

    def test_ttl_of_many(self, make, clock):
        """However many pieces have lived their time, that is no fault of the store."""
        cache = make()
        for row in range(6):
            cache.store_bars("MINE", HALF_YEAR.iloc[[row]], ttl=60)
        clock.advance(61)

        assert cache.bars("MINE", source="local").empty

    def test_ttl_of_neighbours(self, make, clock):
        """Pieces that are put together keep their time to live."""
        cache = make()
        for day in range(1, 18):
            cache.store_bars("MINE", bars_at(pd.DatetimeIndex([f"2024-01-{day:02d}"])), ttl=60)
        clock.advance(61)

        assert len(make().bars("MINE", source="local")) == 0

    def test_ttl_of_those_between(self, make, clock):
        """New bars for ever do not lengthen the lives of those between them."""
        cache = make()
        cache.store_bars("MINE", jan(), ttl=60)
        some = HALF_YEAR.loc[["2024-01-04", "2024-01-09"]]
        cache.store_bars("MINE", some)
        clock.advance(61)

        assert_frame_equal(cache.bars("MINE"), some)

    def test_ttl_over_lasting_bars(self, make, clock):
        """Bars for a while do not shorten the lives of those that were stored for ever."""
        cache = make()
        cache.store_bars("MINE", jan())
        cache.store_bars("MINE", HALF_YEAR.loc[["2024-01-04", "2024-01-09"]] + 1, ttl=60)
        clock.advance(61)

        untouched = ["2024-01-03", "2024-01-05", "2024-01-08", "2024-01-10"]
        assert_frame_equal(cache.bars("MINE").loc[untouched], jan().loc[untouched])

    @pytest.mark.parametrize("ttl", [0, -1, "1h", float("nan"), True])
    def test_no_ttl(self, make, ttl):
        """What can be no time to live is refused, and nothing is stored."""
        cache = make()
        with pytest.raises(InvalidInput, match="ttl"):
            cache.store_bars("MINE", jan(), ttl=ttl)
        assert len(cache.coverage()) == 0

    def test_rows_that_are_no_bars(self, make):
        """A frame with rows that are no bars is refused, naming them, and what was there stays."""
        cache = make()
        cache.store_bars("MINE", jan())
        bad = jan() + 1
        bad.loc["2024-01-10", "high"] = 0
        bad.loc["2024-01-11", "close"] = np.nan

        with pytest.raises(InvalidBars, match=r"nothing was stored: 2024-01-10.*2024-01-11") as caught:
            cache.store_bars("MINE", bad)

        assert [row[0] for row in caught.value.rows] == [
            pd.Timestamp("2024-01-10"),
            pd.Timestamp("2024-01-11"),
        ]
        assert_frame_equal(cache.bars("MINE"), jan())

    def test_no_provider(self, make, source):
        """Nobody is asked for one's own bars: a range without any is empty, even next to a source."""
        cache = make(source)
        cache.store_bars("AAPL", jan() * 2)

        assert_frame_equal(cache.bars("AAPL", source="local"), jan() * 2)
        assert cache.bars("AAPL", "2024-03-01", "2024-03-28", source="local").empty
        assert cache.bars("NOPE", source="local").empty
        assert_frame_equal(cache.bars("AAPL", *JANUARY, source="local", refresh=True), jan() * 2)
        assert len(cache.plan("AAPL", source="local")) == 0
        assert source.calls == []
        assert_frame_equal(cache.bars("AAPL", *JANUARY), jan())

    def test_no_rows(self, make):
        """Storing nothing stores nothing."""
        cache = make()
        cache.store_bars("MINE", jan().iloc[:0])
        assert len(cache.coverage()) == 0

    def test_frame_is_the_callers(self, make):
        """What a caller later does to the frame that was stored does not reach the cache."""
        cache = make()
        mine = jan().copy()
        cache.store_bars("MINE", mine)
        mine.iloc[:, :] = 0
        mine["close"] = -1.0

        assert_frame_equal(cache.bars("MINE"), jan())

    def test_arrays_are_the_callers(self, make):
        """Nor does what is done to the arrays under it."""
        arrays = {name: jan()[name].to_numpy(copy=True) for name in COLUMNS}
        mine = pd.DataFrame(arrays, index=jan().index, copy=False)
        cache = make()
        cache.store_bars("MINE", mine)
        for array in arrays.values():
            array[:] = 0

        assert_frame_equal(cache.bars("MINE"), jan())


class TestLayouts:
    """One shape for one question, from whichever tier."""

    @pytest.fixture
    def two(self, make, source):
        source.truth["MSFT"] = (HALF_YEAR * 2).loc["2024-01-16":]
        return make(source)

    def test_flat(self, two):
        """One symbol as text is a flat frame."""
        result = two.bars("AAPL", *JANUARY)

        assert (list(result.columns), result.index.name) == (COLUMNS, "timestamp")
        assert dict(result.dtypes.astype(str)) == dict.fromkeys(COLUMNS[:4], "float64") | {"volume": "int64"}

    def test_wide(self, two):
        """Several symbols are columns (field, symbol), with NaN where one has no bar."""
        result = two.bars(["AAPL", "MSFT"], *JANUARY)

        assert result.columns.names == ["field", "symbol"]
        assert list(result.columns[:2]) == [("open", "AAPL"), ("open", "MSFT")]
        expected = pd.DataFrame({"AAPL": jan()["close"], "MSFT": (jan() * 2).loc["2024-01-16":, "close"]})
        assert_frame_equal(result["close"], expected.rename_axis(columns="symbol"))
        assert result["close"].pct_change(fill_method=None).corr().shape == (2, 2)

    def test_a_list_of_one(self, two):
        """A list of one symbol has columns (field, symbol) too."""
        result = two.bars(["AAPL"], *JANUARY)

        assert_series_equal(result["close", "AAPL"], jan()["close"], check_names=False)

    def test_long(self, two):
        """With layout="long" symbols lie below one another, in the order asked for."""
        result = two.bars(["MSFT", "AAPL"], *JANUARY, layout="long")

        assert result.index.names == ["symbol", "timestamp"]
        assert list(result.index.get_level_values("symbol").unique()) == ["MSFT", "AAPL"]
        assert_frame_equal(result.loc["AAPL"], jan())
        assert dict(result.dtypes.astype(str))["volume"] == "int64"

    def test_long_of_one(self, two):
        """One symbol as text may be had long as well."""
        result = two.bars("AAPL", *JANUARY, layout="long")

        assert result.index.names == ["symbol", "timestamp"]
        assert_frame_equal(result.loc["AAPL"], jan())

    def test_columns(self, two):
        """Only the columns that were named are there, in that order."""
        names = ["volume", "close"]

        assert_frame_equal(two.bars("AAPL", *JANUARY, columns=names), jan()[names])
        wide = two.bars(["AAPL", "MSFT"], *JANUARY, columns=names)
        assert list(wide.columns.get_level_values("field").unique()) == names
        assert list(two.bars(["AAPL"], *JANUARY, columns=names, layout="long").columns) == names

    def test_unknown_column(self, two):
        """A column that is not there is named, with those that are."""
        two.bars(["AAPL", "MSFT"], columns=["close"])
        with pytest.raises(InvalidInput, match=r"columns is 'close'"):
            two.bars(["AAPL", "MSFT"], columns="close")
        with pytest.raises(
            InvalidInput, match=r"columns is \['adj_close'\].*among open, high, low, close, volume"
        ):
            two.bars("AAPL", *JANUARY, columns=["close", "adj_close"])

    def test_a_column_that_a_symbol_without_bars_lacks(self, make, source):
        """A further column can be asked for though one of the symbols has no bars yet."""
        source.truth = {"AAPL": HALF_YEAR.assign(vwap=1.0), "NEW": HALF_YEAR.loc["2024-05":].assign(vwap=1.0)}

        result = make(source).bars(["AAPL", "NEW"], *JANUARY, columns=["close", "vwap"])

        assert_series_equal(result["vwap", "AAPL"], jan().assign(vwap=1.0)["vwap"], check_names=False)

    @pytest.mark.parametrize(
        ("symbols", "options"),
        [
            ("AAPL", {}),
            (["AAPL", "MSFT"], {}),
            (["AAPL", "MSFT"], {"layout": "long"}),
            (["AAPL", "MSFT"], {"columns": ["volume", "open"]}),
        ],
        ids=["flat", "wide", "long", "columns"],
    )
    @pytest.mark.parametrize("interval", ["1d", "1h"])
    def test_same_from_every_tier(self, make, symbols, options, interval):
        """Cold, from memory, from disk and after one's own process is gone, the answer is the same frame."""
        truth = HALF_YEAR if interval == "1d" else every("h", "2024-01-02", "2024-01-31")
        source = TruthSource({"AAPL": truth, "MSFT": (truth * 2).iloc[10:]})
        cache = make(source)
        cold = cache.bars(symbols, *JANUARY, interval=interval, **options)
        in_memory = cache.bars(symbols, *JANUARY, interval=interval, **options)
        again = make(source)
        on_disk = again.bars(symbols, *JANUARY, interval=interval, **options)

        assert set(again.explain()["tier"]) <= {"disk", "none"}
        stamps = cold.index.get_level_values("timestamp")
        assert str(stamps.dtype) == ("datetime64[us]" if interval == "1d" else "datetime64[us, UTC]")
        for other in (in_memory, on_disk):
            assert_frame_equal(other, cold, check_freq=True)
        assert len(source.calls) == 2 - isinstance(symbols, str)

    def test_without_memory(self, make, source):
        """With next to no memory answers are the same, from disk."""
        cache = make(source, settings=Settings(memory_bytes=1))
        for _ in range(3):
            assert_frame_equal(cache.bars("AAPL", *JANUARY), jan())
        assert len(source.calls) == 1

    def test_empty(self, two):
        """An empty answer has the columns and dtypes that the symbol's bars have."""
        two.bars("AAPL", *JANUARY)

        empty = two.bars("AAPL", "2024-01-06", "2024-01-07")

        assert_frame_equal(empty, jan().iloc[:0])
        assert_frame_equal(two.bars("AAPL", "2030-01-01", "2030-12-31"), jan().iloc[:0])
        wide = two.bars(["AAPL", "MSFT"], "2024-01-06", "2024-01-07")
        assert list(wide.columns.get_level_values("field").unique()) == COLUMNS
        assert (len(wide), list(wide["close"].columns)) == (0, ["AAPL", "MSFT"])
        long = two.bars(["AAPL", "MSFT"], "2024-01-06", "2024-01-07", layout="long")
        assert (len(long), list(long.columns), long.index.names) == (0, COLUMNS, ["symbol", "timestamp"])

    def test_wide_frames_are_remembered(self, make):
        """A wide frame is put together once for each question, and anew when any of its bars has changed."""
        cache = make()
        frames = {name: every("min", "2024-01-02", "2024-01-02") * n for n, name in enumerate("ABC", 1)}
        for name, frame in frames.items():
            cache.store_bars(name, frame, interval="1m")

        def asked(symbols, columns=None):
            found = cache.bars(list(symbols), interval="1m", columns=columns)
            assert_frame_equal(
                found, wide_frame({name: frames[name][columns or COLUMNS] for name in symbols})
            )
            return found

        def are_one(first, second):
            return np.shares_memory(first["open", "A"].to_numpy(), second["open", "A"].to_numpy())

        first = asked("AB")
        assert are_one(first, asked("AB"))
        for symbols, columns in (("BA", None), ("ABC", None), ("AB", ["open"])):
            assert not are_one(first, asked(symbols, columns))
        first.iloc[:, :] = 0.0  # the caller's own
        before = asked("AB")

        frames["B"].iloc[7] += 1
        cache.store_bars("B", frames["B"].iloc[7:8], interval="1m")
        assert not are_one(before, asked("AB"))

    def test_symbols_twice(self, two):
        """A symbol named twice is there once."""
        assert list(two.bars(["AAPL", "AAPL"], *JANUARY)["close"].columns) == ["AAPL"]


class TestOwnership:
    """Answers are the caller's: he may write to them."""

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda frame: frame.__setitem__("close", 0.0),
            lambda frame: frame.iloc.__setitem__((slice(None), 0), -1.0),
            lambda frame: frame.loc.__setitem__((frame.index[3], "volume"), 0),
            lambda frame: frame.insert(0, "note", "x"),
            lambda frame: frame.pop("volume"),
            lambda frame: frame.__imul__(2),
            lambda frame: setattr(frame.index, "name", "t"),
            lambda frame: setattr(frame, "columns", list("abcde")),
        ],
        ids=["setitem", "iloc", "loc", "insert", "pop", "imul", "index name", "columns"],
    )
    @pytest.mark.parametrize("tier", ["source", "disk", "memory"])
    def test_in_place(self, make, source, tier, spoil):
        """Whatever is done to an answer, from whichever tier, the next one is as it was."""
        if tier != "source":
            make(source).bars("AAPL", *JANUARY)
        cache = make(source)
        if tier == "memory":
            cache.bars("AAPL", *JANUARY)
        mine = cache.bars("AAPL", *JANUARY)
        assert set(cache.explain()["tier"]) == {tier}

        spoil(mine)

        assert_frame_equal(cache.bars("AAPL", *JANUARY), jan())
        assert_frame_equal(make(source).bars("AAPL", *JANUARY), jan())

    @pytest.mark.parametrize("days", [1, 2, 60], ids=["appended to", "some", "many"])
    def test_arrays_that_were_stored(self, make, days):
        """Whoever stored bars may write to his arrays: what was stored stays, in memory, on disk and added to."""
        truth = every("min", "2024-01-01", "2024-03-31").iloc[: days * 1440 - 1300]
        later = every("min", "2024-01-01", "2024-03-31").iloc[len(truth) : len(truth) + 1]
        arrays = {name: truth[name].to_numpy().copy() for name in COLUMNS}
        labels = truth.index.asi8.copy()
        index = pd.DatetimeIndex(labels.view("M8[us]"), name="timestamp", copy=False).tz_localize("UTC")
        cache = make()
        cache.store_bars("MINE", pd.DataFrame(arrays, index=index, copy=False), interval="1m")

        for array in (*arrays.values(), labels):
            array[:] = 7
        assert_frame_equal(cache.bars("MINE", interval="1m"), truth, check_freq=False)
        cache.store_bars("MINE", later, interval="1m")

        expected = pd.concat([truth, later])
        assert_frame_equal(cache.bars("MINE", interval="1m"), expected, check_freq=False)
        assert_frame_equal(make().bars("MINE", interval="1m"), expected, check_freq=False)

    def test_arrays_of_which_a_part_was_stored(self, make):
        """An older bar splits a large frame, and its smaller parts are no more the caller's than the whole."""
        truth = every("min", "2024-01-01", "2024-01-31").iloc[:30_000]
        cache = make()
        cache.store_bars("MINE", truth.iloc[20_000:20_001], interval="1m")
        others = truth.drop(truth.index[20_000])
        mine = others[COLUMNS[:4]].to_numpy().T.copy()
        frame = pd.DataFrame(mine.T, index=others.index, columns=COLUMNS[:4], copy=False)
        cache.store_bars("MINE", frame.assign(volume=others["volume"]), interval="1m")

        mine[:] = -777
        assert_frame_equal(cache.bars("MINE", interval="1m"), truth, check_freq=False)

    def test_arrays_written_to_before_they_are_stored(self, make, tmp_path):
        """An async caller may go on with his arrays at once: what was checked is what is stored."""
        truth = every("min", "2023-01-01", "2023-12-31")
        arrays = {name: truth[name].to_numpy().copy() for name in COLUMNS}

        async def main():
            async with TradingDataCache(tmp_path / "own") as cache:
                frame = pd.DataFrame(arrays, index=truth.index, copy=False)
                storing = asyncio.create_task(cache.store_bars("MINE", frame, interval="1m"))
                await asyncio.sleep(0.002)
                for array in arrays.values():
                    array[:] = -1
                await storing
                return await cache.bars("MINE", interval="1m")

        stored = run(main())
        whole = truth if (stored["close"] > 0).all() else truth.assign(**dict.fromkeys(COLUMNS, -1))
        assert_frame_equal(stored, whole.astype(stored.dtypes), check_freq=False)

    @pytest.mark.parametrize("symbols", ["AAPL", ["AAPL"]])
    def test_arrays(self, cache, symbols):
        """Arrays taken from an answer, where pandas lets them be written to, are the caller's as well."""
        for _ in range(3):
            mine = cache.bars(symbols, *JANUARY)
            arrays = [mine.to_numpy(), *(mine.iloc[:, at].to_numpy() for at in range(mine.shape[1]))]
            for array in (each for each in arrays if each.flags.writeable):
                array[:] = 0
            assert_frame_equal(cache.bars("AAPL", *JANUARY), jan())

    def test_after_the_cache(self, cache):
        """An answer stays what it is after the cache is closed, and can still be written to."""
        mine = cache.bars("AAPL", *JANUARY)
        cache.close()
        mine["close"] *= 2

        assert_series_equal(mine["close"], jan()["close"] * 2)
        assert_series_equal(mine["open"], jan()["open"])

    def test_frame_of_the_source(self, make):
        """What a source later does to a frame that it has sent does not reach the cache."""
        sent = jan().copy()
        source = TruthSource(HALF_YEAR)
        source.spoil = lambda _bars, _: sent
        cache = make(source)
        cache.bars("AAPL", *JANUARY)
        sent.iloc[:, :] = 0

        assert_frame_equal(cache.bars("AAPL", *JANUARY), jan())


class TestInvalidate:
    """Deleting what is stored, so that it is asked for again."""

    def test_a_part(self, make, source):
        """Only the part that was deleted is asked for again, also after a restart."""
        cache = make(source)
        cache.bars("AAPL", "2024-01-02", "2024-02-29")
        source.asked()

        gone = cache.invalidate("AAPL", "2024-01-08", "2024-01-12")

        assert gone.to_dict() == {"AAPL": 5}
        source.correct("2024-01-10", 50)
        source.correct("2024-01-17", 50)
        result = make(source).bars("AAPL", "2024-01-02", "2024-02-29")
        assert source.asked() == [("2024-01-08", "2024-01-13")]
        assert [f"{day:%m-%d}" for day in result.index[result["close"] == 50]] == ["01-10"]
        assert_frame_equal(cache.bars("AAPL", "2024-01-02", "2024-02-29"), result)
        assert source.calls == []

    def test_everything(self, cache, source):
        """Without arguments everything goes, the bars of every symbol and interval."""
        source.truth["MSFT"] = HALF_YEAR
        cache.bars(["AAPL", "MSFT"], *JANUARY)
        source.asked()

        assert cache.invalidate().to_dict() == {"AAPL": 21, "MSFT": 21}
        assert len(cache.coverage()) == 0
        assert_frame_equal(cache.bars("AAPL", *JANUARY), jan())
        assert source.asked() == [("2024-01-02", "2024-02-01")]

    def test_of_one_symbol_or_source(self, make, source):
        """Only what was named goes."""
        source.truth["MSFT"] = HALF_YEAR
        cache = make(source)
        cache.bars(["AAPL", "MSFT"], *JANUARY)
        cache.store_bars("AAPL", jan())

        assert cache.invalidate(["AAPL"], source="local").to_dict() == {"AAPL": 21}
        assert cache.invalidate("MSFT", interval="1h").to_dict() == {}
        assert cache.invalidate("MSFT", interval="1d").to_dict() == {"MSFT": 21}
        assert list(zip(cache.coverage()["source"], cache.coverage()["symbol"], strict=True)) == [
            ("truth", "AAPL")
        ]

    def test_nothing(self, cache, source):
        """Where nothing is stored, nothing goes."""
        cache.bars("AAPL", *JANUARY)
        assert cache.invalidate("AAPL", "2024-03-01", "2024-03-28").to_dict() == {"AAPL": 0}
        assert_frame_equal(cache.bars("AAPL", *JANUARY), jan())
        assert len(source.calls) == 1

    def test_absence(self, make, clock):
        """That there are no bars can be deleted as well, and is then asked for again."""
        source = TruthSource(HALF_YEAR)
        source.error = NoBars("before_listing")
        cache = make(source)
        cache.bars("AAPL", *JANUARY)
        source.error = None

        cache.invalidate("AAPL")

        assert_frame_equal(cache.bars("AAPL", *JANUARY), jan())

    def test_own_bars(self, make):
        """One's own bars are gone for good."""
        cache = make()
        cache.store_bars("MINE", jan())
        cache.invalidate("MINE", "2024-01-08", "2024-01-12")

        assert_frame_equal(cache.bars("MINE"), jan().drop(jan().loc["2024-01-08":"2024-01-12"].index))


class TestExport:
    """Bars as files that others can read."""

    @pytest.mark.parametrize("interval", ["1d", "1h"])
    def test_parquet(self, make, tmp_path, interval):
        """Bars written to Parquet come back as the long layout has them."""
        truth = HALF_YEAR if interval == "1d" else every("h", "2024-01-02", "2024-01-31")
        cache = make(TruthSource({"AAPL": truth, "MSFT": truth * 2}))

        path = cache.export(tmp_path / "bars.parquet", ["AAPL", "MSFT"], *JANUARY, interval=interval)

        expected = cache.bars(["AAPL", "MSFT"], *JANUARY, interval=interval, layout="long")
        assert_frame_equal(pd.read_parquet(path), expected)

    def test_csv(self, cache, tmp_path):
        """A CSV file has a column for symbol and timestamp."""
        path = cache.export(tmp_path / "bars.csv", "AAPL", *JANUARY, interval="1d")

        back = pd.read_csv(path, parse_dates=["timestamp"])
        assert list(back.columns) == ["symbol", "timestamp", *COLUMNS]
        np.testing.assert_allclose(back["close"], jan()["close"])

    def test_stored_again(self, make, source, tmp_path):
        """An exported file can be stored as one's own bars."""
        cache = make(source)
        path = cache.export(tmp_path / "bars.parquet", "AAPL", *JANUARY, interval="1d")

        cache.store_bars("COPY", pd.read_parquet(path))

        assert_frame_equal(cache.bars("COPY", source="local"), jan())

    def test_which_symbols(self, cache, tmp_path):
        """Bars have to be named to be exported."""
        with pytest.raises(InvalidInput, match="symbols"):
            cache.export(tmp_path / "bars.parquet", interval="1d")


class TestWarm:
    """Having a universe at hand."""

    def test_report(self, make, source):
        """Each symbol has a row: how much was there, how much came, what went wrong."""
        source.truth["MSFT"] = HALF_YEAR
        cache = make(source)

        report = cache.warm(["AAPL", "NOPE", "MSFT"], *JANUARY, progress=False)

        columns = ["rows_cached", "rows_fetched", "requests"]
        assert report[columns].to_numpy().tolist() == [[0, 21, 1], [0, 0, 1], [0, 21, 1]]
        assert list(report["error"]) == ["", "UnknownSymbol: truth knows no symbol 'NOPE'", ""]
        source.asked()
        assert_frame_equal(cache.bars("AAPL", *JANUARY), jan())
        assert set(cache.explain()["tier"]) == {"memory"}
        assert source.calls == []

    def test_resumed(self, make, source):
        """A second call goes on where the first failed; what is there is not fetched again."""
        source.truth |= dict.fromkeys("ABCD", HALF_YEAR)

        def fail(bars, call):
            if call.symbol in "CD":
                raise SourceUnavailable("no network")
            return bars

        source.spoil = fail
        first = make(source).warm(list("ABCD"), *JANUARY, progress=False)
        source.asked()
        source.spoil = lambda bars, _: bars
        cache = make(source)

        second = cache.warm(list("ABCD"), *JANUARY, progress=False)

        assert [error.split(":")[0] for error in first["error"]] == ["", "", *["SourceUnavailable"] * 2]
        assert list(second["error"]) == [""] * 4
        assert list(second["rows_cached"]) == [21, 21, 0, 0]
        assert sorted(call.symbol for call in source.calls) == ["C", "D"]

    def test_from_disk(self, make, source):
        """What is on disk is in memory afterwards."""
        make(source).bars("AAPL", *JANUARY)
        cache = make(source)
        report = cache.warm("AAPL", *JANUARY, progress=False)

        assert report.loc["AAPL", ["rows_cached", "rows_fetched", "requests"]].tolist() == [21, 0, 0]
        cache.bars("AAPL", *JANUARY)
        assert set(cache.explain()["tier"]) == {"memory"}

    def test_failures(self, cache):
        """`failures()` has the symbols that could not be warmed."""
        cache.warm(["NOPE", "AAPL", "NADA"], *JANUARY, progress=False)

        assert list(cache.failures().index) == ["NOPE", "NADA"]


class TestPlan:
    """What would be fetched, without fetching."""

    def test_before_and_after(self, make, source):
        """A plan names the requests that `bars` then makes; after it there are none."""
        source.max_range = pd.Timedelta(20, "D")
        source.truth["MSFT"] = HALF_YEAR
        cache = make(source)
        cache.bars("AAPL", "2024-01-10", "2024-01-24")
        source.asked()

        plan = cache.plan(["AAPL", "MSFT"], *JANUARY)

        assert source.calls == []
        assert list(plan.columns) == ["symbol", "source", "interval", "start", "end"]
        cache.bars(["AAPL", "MSFT"], *JANUARY)
        planned = {
            (row.symbol, row.start.tz_localize(None), row.end.tz_localize(None)) for row in plan.itertuples()
        }
        assert planned == {(call.symbol, call.start, call.end) for call in source.calls}
        assert len(cache.plan(["AAPL", "MSFT"], *JANUARY)) == 0

    def test_refresh(self, cache, source, clock):
        """The plan of a refresh is all of it."""
        cache.bars("AAPL", *JANUARY)
        clock.advance(1)

        plan = cache.plan("AAPL", *JANUARY, refresh=True)

        assert [(f"{row.start:%m-%d}", f"{row.end:%m-%d}") for row in plan.itertuples()] == [
            ("01-02", "02-01")
        ]
        assert len(source.calls) == 1

    def test_expired(self, make, source, clock):
        """What has expired is planned again."""
        cache = make(source, freshness=FixedTTL(3600, jitter=0))
        cache.bars("AAPL", *JANUARY)
        assert len(cache.plan("AAPL", *JANUARY)) == 0
        clock.advance(3600)
        assert len(cache.plan("AAPL", *JANUARY)) == 1

    def test_nothing_to_ask(self, cache):
        """Nothing is planned for a weekend, or for the future."""
        assert len(cache.plan("AAPL", "2024-01-06", "2024-01-07")) == 0
        assert len(cache.plan("AAPL", "2030-01-01", "2030-12-31")) == 0

    def test_types(self, cache):
        """The frame has the same dtypes with rows and without."""
        full, empty = cache.plan("AAPL", *JANUARY), cache.plan([], *JANUARY)
        assert list(full.dtypes) == list(empty.dtypes)


class TestCoverage:
    """What is stored, and in which state."""

    def test_states(self, make, clock):
        """Spans are final, fresh, stale, missing or closed."""
        source = TruthSource(HALF_YEAR, calendar_for="XNYS", merge_gap=pd.Timedelta(0))
        cache = make(source)
        cache.bars("AAPL", "2024-05-13", "2024-05-17")
        cache.bars("AAPL", "2024-05-20", "2024-05-22")
        cache.bars("AAPL", "2024-05-28")

        assert states(cache) == [
            ("05-13", "05-18", "final", "bars"),
            ("05-18", "05-20", "closed", ""),
            ("05-20", "05-23", "final", "bars"),
            ("05-23", "05-28", "missing", ""),
            ("05-28", "06-03", "final", "bars"),
            ("06-03", "06-04", "fresh", "bars"),
        ]
        clock.advance(DAY)
        assert states(cache)[-1] == ("06-03", "06-04", "stale", "bars")

    def test_numbers(self, cache, clock):
        """Each span has its rows and bytes, when it was fetched and until when it is fresh."""
        cache.bars("AAPL", "2024-05-28")

        closed, forming = cache.coverage().itertuples(index=False)

        assert (closed.rows, forming.rows) == (4, 1)
        assert closed.bytes > forming.bytes > 0
        assert closed.fetched_at == forming.fetched_at == clock.now
        assert closed.fresh_until is pd.NaT
        assert clock.now < forming.fresh_until <= clock.now + timedelta(seconds=300)

    def test_a_range(self, cache):
        """In a range, spans are cut to it and what is beyond the stored is missing."""
        cache.bars("AAPL", *JANUARY)

        assert states(cache, "AAPL", "2024-01-16", "2024-02-15") == [
            ("01-16", "02-01", "final", "bars"),
            ("02-01", "02-16", "missing", ""),
        ]
        assert cache.coverage("AAPL", "2024-01-16", "2024-01-19")["rows"].sum() == 4

    def test_after_a_restart(self, make, source):
        """What a market's calendar says is known from the start."""
        cache = make(source)
        cache.bars("AAPL", "2024-01-02", "2024-01-05")
        cache.bars("AAPL", "2024-01-08", "2024-01-12")
        before = states(cache)
        cache.close()

        assert states(make(source)) == before

    def test_filters(self, make, source):
        """Coverage can be had by symbol, interval and source."""
        source.truth["MSFT"] = HALF_YEAR
        cache = make(source)
        cache.bars(["AAPL", "MSFT"], *JANUARY)
        cache.store_bars("AAPL", every("h", "2024-01-02", "2024-01-02"), interval="1h")

        assert len(cache.coverage()) == 3
        assert len(cache.coverage("AAPL")) == 2
        assert list(cache.coverage(interval="1h")["source"]) == ["local"]
        assert list(cache.coverage(source="local")["interval"]) == ["1h"]
        assert list(cache.coverage(["MSFT"], source=source)["symbol"]) == ["MSFT"]

    def test_empty(self, cache, source):
        """Of a cache without bars there is a frame without rows, with the same dtypes."""
        empty = cache.coverage()
        cache.bars("AAPL", *JANUARY)
        assert (len(empty), list(empty.dtypes)) == (0, list(cache.coverage().dtypes))


class TestExplain:
    """Where an answer came from."""

    def test_tiers(self, make, source):
        """Each span names the tier that it came from."""
        cache = make(source)
        cache.bars("AAPL", *JANUARY)
        cold = cache.explain()
        cache.bars("AAPL", "2024-01-02", "2024-02-29")
        grown = cache.explain()

        assert list(cold["tier"]) == ["source"]
        assert list(grown["tier"]) == ["memory", "source"]
        assert list(grown["rows"]) == [21, 20]
        assert grown["start"].iloc[0] == pd.Timestamp("2024-01-02", tz="UTC")

    def test_statistics(self, cache):
        """Requests for bars are counted by the tier that answered."""
        cache.bars("AAPL", *JANUARY)
        cache.bars("AAPL", *JANUARY)
        with pytest.raises(UnknownSymbol):
            cache.bars("NOPE", *JANUARY)

        assert list(cache.events()["tier"]) == ["source", "memory", "error"]
        assert set(cache.events()["dataset"]) == {"bars 1d"}
        assert cache.stats(by="symbol").loc["AAPL", "requests"] == 2


class TestAsync:
    """The same in async code."""

    def test_bars(self, tmp_path, clock, source):
        """Bars are awaited in a plain loop, are the same frames, and one cold range is one question."""

        async def main():
            async with TradingDataCache(tmp_path, source=source, clock=clock) as cache:
                many = await asyncio.gather(*(cache.bars("AAPL", *JANUARY) for _ in range(50)))
                wide = await cache.bars(["AAPL"], *JANUARY, columns=["close"])
                await cache.store_bars("MINE", jan())
                mine = await cache.bars("MINE", source="local")
                return many, wide, mine, await cache.coverage(), await cache.plan("AAPL", *JANUARY)

        many, wide, mine, covered, plan = run(main())
        for each in [*many, mine]:
            assert_frame_equal(each, jan())
        assert list(wide.columns) == [("close", "AAPL")]
        assert (len(covered), len(plan), len(source.calls)) == (2, 0, 1)

    def test_errors(self, tmp_path, clock, source):
        """Errors and warnings are those of the sync face."""

        async def main():
            async with TradingDataCache(tmp_path, source=source, clock=clock) as cache:
                with pytest.raises(UnknownSymbol):
                    await cache.bars("NOPE", *JANUARY)
                with pytest.warns(MissingBarsWarning, match="NOPE"):
                    await cache.bars(["NOPE", "AAPL"], *JANUARY)
                return cache.failures()

        assert list(run(main()).index) == ["NOPE"]

    def test_sync_face_in_a_running_loop(self, cache):
        """The sync face works inside async code, as in a notebook's cell."""

        async def cell():
            return cache.bars("AAPL", *JANUARY)

        assert_frame_equal(run(cell()), jan())

    def test_one_folder_for_both(self, tmp_path, make, clock, source):
        """What async code has fetched, the sync face has."""

        async def main():
            async with TradingDataCache(tmp_path / "cache", source=source, clock=clock) as cache:
                await cache.bars("AAPL", *JANUARY)

        run(main())
        source.calls.clear()
        assert_frame_equal(make(source).bars("AAPL", *JANUARY), jan())
        assert source.calls == []
