"""What the two ends of a range of time mean: what pandas' `.loc` means."""

import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradecache.errors import InvalidInput
from tradecache.ranges import first_moment, last_moment

NEW_YORK = ZoneInfo("America/New_York")
MICROSECOND = timedelta(microseconds=1)

DAYS = ["%Y", "%Y-%m", "%B %Y", "%Y-%m-%d", "%Y%m%d", "%m/%d/%Y", "%b %d, %Y"]
HOURS = ["%Y-%m-%d %H", "%Y-%m-%dT%H"]
MINUTES = ["%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y%m%dT%H%M"]
SECONDS = ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S.%f"]
ZONES = ["", "Z", "+00:00", "+05:30", "-04:00"]

spelling = st.one_of(
    st.sampled_from(DAYS),
    st.tuples(st.sampled_from(HOURS + MINUTES + SECONDS), st.sampled_from(ZONES)).map("".join),
)
naive = st.datetimes(min_value=datetime(1900, 1, 2), max_value=datetime(2200, 1, 1))  # noqa: DTZ001 - naive on purpose


def frame_around(moment: datetime) -> pd.DataFrame:
    """Return rows on and one microsecond beside the edges of all spans that hold `moment`, and hours off."""
    edges = [moment]
    for freq in ("Y", "M", "D", "h", "min", "s", "ms"):
        span = pd.Period(moment, freq=freq)
        edges += [span.start_time.to_pydatetime(), span.end_time.to_pydatetime(warn=False)]
    beside = {edge + step * MICROSECOND for edge in edges for step in (-1, 0, 1)}
    shifted = {each + timedelta(minutes=30 * n) for each in beside for n in (-11, 0, 8)}
    index = pd.DatetimeIndex(sorted(shifted), dtype="M8[us]").tz_localize("UTC")
    return pd.DataFrame({"row": range(len(index))}, index=index)


def rows_from(frame: pd.DataFrame, start: object) -> list[int]:
    return frame["row"][frame.index >= first_moment(start)].to_list()


def rows_up_to(frame: pd.DataFrame, end: object) -> list[int]:
    return frame["row"][frame.index <= last_moment(end)].to_list()


def assert_means_the_same(frame: pd.DataFrame, moment: object, to_pandas: object) -> None:
    assert rows_from(frame, moment) == frame.loc[to_pandas:]["row"].to_list()
    assert rows_up_to(frame, moment) == frame.loc[:to_pandas]["row"].to_list()


@given(moment=naive, spelling=spelling)
def test_text_of_any_resolution_means_what_loc_means(moment, spelling):
    """A year, month, day, hour, minute or second written as text is a whole one, as in `.loc`, in any zone."""
    text = moment.strftime(spelling)

    assert_means_the_same(frame_around(moment), text, text)


@given(
    moment=naive,
    zone=st.sampled_from([UTC, NEW_YORK, ZoneInfo("Asia/Kolkata"), timezone(timedelta(hours=-9))]),
    fold=st.sampled_from([0, 1]),
)
def test_aware_datetime_is_an_instant(moment, zone, fold):
    """An aware datetime or Timestamp is the instant it names, in whichever zone it is written."""
    aware = moment.replace(tzinfo=zone, fold=fold)

    assert_means_the_same(frame_around(moment), aware, aware)
    assert first_moment(aware) == last_moment(aware) == aware.astimezone(UTC)


@given(moment=naive)
def test_naive_datetime_is_utc(moment):
    """A naive datetime, Timestamp or datetime64 is that instant in UTC."""
    frame, aware = frame_around(moment), moment.replace(tzinfo=UTC)

    for spelt in (moment, pd.Timestamp(moment), np.datetime64(moment)):
        assert_means_the_same(frame, spelt, aware)


@given(moment=naive, nanoseconds=st.integers(0, 999))
def test_nanoseconds_are_beyond_the_microsecond(moment, nanoseconds):
    """A Timestamp between two microseconds begins with the second of them and ends with the first."""
    between = pd.Timestamp(moment, tz="UTC").as_unit("ns") + pd.Timedelta(nanoseconds, "ns")

    assert_means_the_same(frame_around(moment), between, between)


@given(moment=naive)
def test_date_is_the_whole_day(moment):
    """A date without a time is that whole day, like its text."""
    day = moment.date()

    assert (first_moment(day), last_moment(day)) == (first_moment(str(day)), last_moment(str(day)))
    assert last_moment(day) == datetime.combine(day, time.max, UTC)


@pytest.mark.parametrize(
    ("moment", "instant"),
    [
        (datetime(2013, 11, 3, 1, 30, tzinfo=NEW_YORK, fold=0), "2013-11-03T05:30:00+00:00"),
        (datetime(2013, 11, 3, 1, 30, tzinfo=NEW_YORK, fold=1), "2013-11-03T06:30:00+00:00"),
        (datetime(2013, 3, 10, 3, 0, tzinfo=NEW_YORK), "2013-03-10T07:00:00+00:00"),
        ("2013-11-03 01:30:00.000000-04:00", "2013-11-03T05:30:00+00:00"),
        ("2013-11-03 01:30:00.000000-05:00", "2013-11-03T06:30:00+00:00"),
    ],
)
def test_summer_time_is_kept_apart(moment, instant):
    """The hour that a clock shows twice in autumn is two hours, and the one it skips in spring is none."""
    assert first_moment(moment).isoformat() == instant
    assert last_moment(moment).isoformat() == instant


@pytest.mark.parametrize(
    ("moment", "first", "last"),
    [
        ("0001", "0001-01-01T00:00:00+00:00", "0001-12-31T23:59:59.999999+00:00"),
        ("9999", "9999-01-01T00:00:00+00:00", "9999-12-31T23:59:59.999999+00:00"),
        ("1500-03", "1500-03-01T00:00:00+00:00", "1500-03-31T23:59:59.999999+00:00"),
        (date.min, "0001-01-01T00:00:00+00:00", "0001-01-01T23:59:59.999999+00:00"),
        (date.max, "9999-12-31T00:00:00+00:00", "9999-12-31T23:59:59.999999+00:00"),
        (pd.Timestamp.max, "2262-04-11T23:47:16.854776+00:00", "2262-04-11T23:47:16.854775+00:00"),
    ],
)
def test_ends_of_the_calendar(moment, first, last):
    """The years 1 to 9999 can all be asked for, beyond what pandas' nanoseconds hold."""
    assert (first_moment(moment).isoformat(), last_moment(moment).isoformat()) == (first, last)


def test_no_end_is_no_end():
    """None has no edge."""
    assert (first_moment(None), last_moment(None)) == (None, None)


@pytest.mark.parametrize(
    "moment",
    [
        "", "soon", "NaT", "2013-13-01", "2013-02-30", "2013-01-01 25:00", "12:00", "now", "1e5", 5, 1.5, math.nan, True, b"2013",
        pd.NaT, pd.NA, time(12), timedelta(days=1), pd.Period("2013"), ["2013"], np.datetime64("NaT"), object(),
        datetime.max.replace(tzinfo=NEW_YORK), datetime.min.replace(tzinfo=ZoneInfo("Asia/Tokyo")),
        pd.DatetimeIndex(np.array(["12000-01-01"], dtype="M8[s]"))[0],
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_no_moment_is_named(moment):
    """What is no date or time is an error that names the end, the value and what is allowed."""
    for edge, name in ((first_moment, "start"), (last_moment, "end")):
        with pytest.raises(InvalidInput, match=rf"(?s)^{name} is .*, but must be a date or a time") as caught:
            edge(moment)
        assert (caught.value.field, caught.value.value is moment) == (name, True)
