from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradecache.errors import InvalidInput
from tradecache.intervals import Interval, interval_of

NAMES = ["1m", "5m", "15m", "90m", "1h", "4h", "1d", "1wk", "1mo", "3mo"]
PERIODS = {"1m": "min", "1h": "h", "1d": "D", "1wk": "W-SUN", "1mo": "M", "3mo": "Q"}
moments = st.tuples(
    st.sampled_from(range(-52_000, 52_000)), st.sampled_from(range(86_400)), st.sampled_from([0, 0, 1, -1])
).map(lambda drawn: (drawn[0] * 86_400 + drawn[1]) * 1_000_000 + drawn[2])  # 1827 to 2112


@given(st.sampled_from(NAMES), moments)
def test_a_moment_lies_in_its_bar(name, moment):
    """Each moment lies between the start of its bar and the start of the next, and those agree."""
    interval = interval_of(name)
    start, end = interval.floor(moment), interval.next(moment)
    assert start <= moment < end
    assert interval.floor(start) == start
    assert interval.floor(end - 1) == start
    assert interval.floor(end) == end


@given(st.sampled_from(sorted(PERIODS)), moments)
def test_bars_are_the_periods_of_pandas(name, moment):
    """Minutes, hours, days, weeks from Monday, months and quarters begin where pandas' periods do."""
    stamp = pd.Timestamp(np.datetime64(moment, "us"))
    start = stamp.to_period(PERIODS[name]).start_time
    assert interval_of(name).floor(moment) == start.to_datetime64().astype("M8[us]").astype("int64")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("60m", "1h"),
        ("5min", "5m"),
        ("1D", "1d"),
        (timedelta(days=1), "1d"),
        (pd.Timedelta("15min"), "15m"),
        (interval_of("1wk"), "1wk"),
    ],
)
def test_other_spellings(given, name):
    """A length, an interval and a common other name mean the same interval."""
    assert interval_of(given) == interval_of(name)
    assert interval_of(given).text == name


@pytest.mark.parametrize(
    "name", ["", "1D ", "1M", "7m", "0m", "-1d", "daily", 1, None, timedelta(0), pd.NaT, "1 d"]
)
def test_what_is_no_interval(name):
    """Anything else is an error that lists what is allowed."""
    with pytest.raises(InvalidInput, match=r"interval is .*, but must be one of 1m, 2m"):
        interval_of(name)


def test_intraday_bars_are_those_shorter_than_a_day():
    """Minutes and hours have a time of the day, the others are dates."""
    assert [interval_of(name).is_intraday for name in NAMES] == [True] * 6 + [False] * 4


def test_lengths():
    """Lengths are microseconds; the months' one is about right."""
    assert interval_of("1wk").microseconds == 7 * 86_400_000_000
    assert interval_of("3mo").months == 3
    assert isinstance(interval_of("1mo"), Interval)
