import itertools
from datetime import timedelta

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripts import answer

from tradecache.calendars import (
    DAY,
    AlwaysOpen,
    Session,
    Weekly,
    calendar_named,
    closed_by,
    open_windows,
)
from tradecache.errors import InvalidInput
from tradecache.intervals import interval_of

exchange_calendars = pytest.importorskip("exchange_calendars")

MINUTE = 60_000_000
FOREX = Weekly("FX", zone="America/New_York", opens=-timedelta(hours=7), closes=timedelta(hours=17))
NAMES = ["24/7", "XNYS", "XHKG", "XTKS", "CMES", "24/5"]

calendars = st.sampled_from(NAMES).map(calendar_named) | st.just(FOREX)
intervals = st.sampled_from(["1m", "1h", "4h", "1d", "1wk", "1mo"]).map(interval_of)
days = st.sampled_from(range(-3_000, 25_000)) | st.sampled_from(range(17_000, 22_000))
moments = st.tuples(days, st.sampled_from(range(1_440)), st.sampled_from([0, 0, 1, -1])).map(
    lambda drawn: drawn[0] * DAY + drawn[1] * MINUTE + drawn[2]
)  # 1961 to 2038: before, within and after what is known
lengths = st.sampled_from(range(60 * 24)).map(lambda hours: hours * 60 * MINUTE)
anywhere = st.integers(-(2**62), 2**62)


def micros(text):
    return pd.Timestamp(text).value // 1_000


def shown(moment):
    return pd.Timestamp(moment, unit="us").strftime("%Y-%m-%d %H:%M")


def sessions_of(name, start, end):
    return [
        tuple(map(shown, session)) for session in calendar_named(name).sessions(micros(start), micros(end))
    ]


@pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")
@pytest.mark.parametrize("name", ["XNYS", "XHKG", "CMES"])
def test_sessions_are_those_of_the_library(name):
    """Dates, openings and closes are what exchange_calendars says, for each session of ten years."""
    schedule = exchange_calendars.get_calendar(name).schedule.loc["2014":"2023"]
    expected = [
        tuple(stamp.strftime("%Y-%m-%d %H:%M") for stamp in (row.Index, row.open, row.close))
        for row in schedule.itertuples()
    ]
    assert sessions_of(name, "2014-01-01", "2024-01-01") == expected


def test_half_days_close_early():
    """The day after Thanksgiving ends at 13:00 in New York, Thanksgiving itself has no session."""
    assert sessions_of("XNYS", "2024-11-28", "2024-12-01") == [
        ("2024-11-29 00:00", "2024-11-29 14:30", "2024-11-29 18:00")
    ]


@pytest.mark.parametrize(
    ("friday", "monday", "opens"),
    [("2024-03-08", "2024-03-11", ["14:30", "13:30"]), ("2024-11-01", "2024-11-04", ["13:30", "14:30"])],
)
def test_clocks_change_between_friday_and_monday(friday, monday, opens):
    """New York opens at 09:30 of its own clocks, whatever UTC says."""
    found = sessions_of("XNYS", friday, shown(micros(monday) + DAY))
    assert [session[1] for session in found] == [f"{friday} {opens[0]}", f"{monday} {opens[1]}"]


def test_after_the_last_known_session_come_weekdays_with_the_usual_hours():
    """Years ahead, a holiday is not known, and each weekday from 09:30 to 16:00 is expected."""
    found = sessions_of("XNYS", "2040-12-22", "2040-12-29")  # a Saturday
    assert [session[0][:10] for session in found] == [f"2040-12-{day}" for day in range(24, 29)]
    assert found[0][1:] == ("2040-12-24 14:30", "2040-12-24 21:00")


def test_before_the_first_known_session_each_day_may_have_been_one():
    """New York traded on Saturdays until 1952, so no day is taken for a closed one."""
    assert len(sessions_of("XNYS", "1950-01-01", "1950-01-15")) == 14


def test_sessions_that_begin_the_day_before():
    """Futures trade from the evening before their date, also beyond what is known."""
    assert sessions_of("CMES", "2024-06-03", "2024-06-04") == [
        ("2024-06-03 00:00", "2024-06-02 22:00", "2024-06-03 22:00")
    ]
    assert sessions_of("CMES", "2040-06-04", "2040-06-05") == [
        ("2040-06-04 00:00", "2040-06-03 22:00", "2040-06-04 22:00")
    ]


@given(calendars, moments, lengths)
def test_sessions_are_in_order_and_dated_within_the_range(calendar, start, length):
    """Each session of a range comes once, in order, ends after it begins, and none is dated outside."""
    sessions = calendar.sessions(start, start + length)
    assert all(start <= session.date < start + length for session in sessions)
    assert all(session.date % DAY == 0 and session.open < session.close for session in sessions)
    assert all(before.date < after.date for before, after in itertools.pairwise(sessions))
    assert all(before.close <= after.open for before, after in itertools.pairwise(sessions))


@given(calendars, moments, lengths, st.data())
def test_a_range_in_two_halves_has_the_same_sessions(calendar, start, length, data):
    """It does not matter in how many pieces one asks, also across the ends of what is known."""
    middle = start + data.draw(st.sampled_from(range(1_001))) * length // 1_000
    halves = [*calendar.sessions(start, middle), *calendar.sessions(middle, start + length)]
    assert list(calendar.sessions(start, start + length)) == halves


@given(calendars, moments)
def test_open_and_next_agree_with_the_sessions(calendar, moment):
    """What is open, and what opens and closes next, is what the sessions around say."""
    around = calendar.sessions(moment - 40 * DAY, moment + 40 * DAY)
    assert calendar.is_open(moment) == any(each.open <= moment < each.close for each in around)
    assert calendar.next_open(moment) == min(each.open for each in around if each.open > moment)
    assert calendar.next_close(moment) == min(each.close for each in around if each.close > moment)


@given(calendars, anywhere)
def test_no_moment_is_too_early_or_too_late(calendar, moment):
    """A hint never raises, not even for moments that no calendar can name."""
    calendar.sessions(moment, moment + 9 * DAY)
    calendar.is_open(moment)
    assert calendar.next_open(moment) > moment
    assert calendar.next_close(moment) > moment


def test_always_open_needs_no_library():
    """Each day in UTC is a session, from midnight to midnight."""
    assert calendar_named(None) is calendar_named("24/7")
    assert calendar_named(None).sessions(1, 3 * DAY) == [
        Session(DAY, DAY, 2 * DAY),
        Session(2 * DAY, 2 * DAY, 3 * DAY),
    ]


def test_hours_that_the_clocks_skip_or_repeat():
    """A session that would begin in the hour that is left out in spring begins after it; in autumn, once."""
    night = Weekly(
        "night",
        zone="America/New_York",
        opens=timedelta(hours=1.5),
        closes=timedelta(hours=2.5),
        days="1" * 7,
    )
    spring = night.sessions(micros("2024-03-10"), micros("2024-03-11"))
    autumn = night.sessions(micros("2024-11-03"), micros("2024-11-04"))
    assert [shown(spring[0].open), shown(spring[0].close)] == ["2024-03-10 06:30", "2024-03-10 07:00"]
    assert [shown(autumn[0].open), shown(autumn[0].close)] == ["2024-11-03 05:30", "2024-11-03 07:30"]


def test_one_calendar_for_each_name():
    """A calendar is built once, and the library's other names for it work."""
    assert calendar_named("XNYS") is calendar_named("XNYS")
    day = (micros("2024-06-03"), micros("2024-06-04"))
    assert calendar_named("NYSE").sessions(*day) == calendar_named("XNYS").sessions(*day)


@pytest.mark.parametrize("name", ["xnys", "XNYZ", "NYS"])
def test_unknown_names_bring_those_most_like_it(name):
    """A name that is none is an error that lists near ones."""
    with pytest.raises(InvalidInput, match=r"calendar is .* one of .*XNYS"):
        calendar_named(name)


def test_a_calendar_that_cannot_be_built_is_always_open(caplog):
    """The library has calendars that fail with a new pandas; nothing is left unasked because of it."""

    class Broken(exchange_calendars.ExchangeCalendar):
        name = "BROKEN"

    exchange_calendars.register_calendar_type("BROKEN", Broken)
    try:
        assert calendar_named("BROKEN") == AlwaysOpen("BROKEN")
    finally:
        exchange_calendars.deregister_calendar("BROKEN")
    assert "exchange_calendars cannot build BROKEN" in caplog.text


def test_the_library_is_loaded_only_for_a_name_of_its_own(tmp_path):
    """Importing the rooms and asking for 24/7 loads no exchange_calendars."""
    code = """
        import json, sys
        import tradecache.freshness
        from tradecache.calendars import calendar_named
        calendar_named("24/7")
        print(json.dumps("exchange_calendars" in sys.modules))
    """
    assert answer(code, cwd=tmp_path) is False


def test_without_the_library_the_error_says_how_to_install_it(tmp_path):
    """Where exchange_calendars is missing, a name of its own is an error with the install line."""
    code = """
        import json, sys
        sys.modules["exchange_calendars"] = None
        from tradecache.calendars import calendar_named
        from tradecache.errors import MissingDependency
        try:
            calendar_named("XNYS")
        except MissingDependency as error:
            print(json.dumps(str(error)))
    """
    expected = "this needs exchange_calendars; install it with: pip install 'tradecache[calendars]'"
    assert answer(code, cwd=tmp_path) == expected


@given(calendars, intervals, moments, lengths)
def test_windows_lie_in_the_range_in_order_and_apart(calendar, interval, start, length):
    """Windows are ordered, never empty, never touch, and stay within what was asked."""
    windows = open_windows(start, start + length, interval, calendar)
    assert all(start <= first < last <= start + length for first, last in windows)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(windows))


@given(calendars, intervals, moments, lengths)
def test_every_bar_of_a_session_lies_in_a_window(calendar, interval, start, length):
    """No label of a bar that a session can have is left out, on whichever grid bars of a day lie."""
    end = start + length
    windows = open_windows(start, end, interval, calendar)
    for session in calendar.sessions(start - 3 * DAY, end + 3 * DAY):
        labels = (
            [session.open, interval.floor(session.open), session.close - MINUTE]
            if interval.is_intraday
            else [interval.floor(session.date)]
        )
        for label in labels:
            if start <= label < end:
                assert any(first <= label < last for first, last in windows)


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ("1d", [("2024-11-25 00:00", "2024-11-28 00:00"), ("2024-11-29 00:00", "2024-11-30 00:00")]),
        ("5m", [("2024-11-27 14:30", "2024-11-27 21:00"), ("2024-11-29 14:30", "2024-11-29 18:00")]),
        ("1h", [("2024-11-27 14:00", "2024-11-27 21:00"), ("2024-11-29 14:00", "2024-11-29 18:00")]),
    ],
)
def test_windows_around_thanksgiving(interval, expected):
    """Neighbouring dates are one window; within a day it goes from the bar of the opening to the close."""
    start = "2024-11-25" if interval == "1d" else "2024-11-27"
    found = open_windows(micros(start), micros("2024-12-02"), interval_of(interval), calendar_named("XNYS"))
    assert [tuple(map(shown, window)) for window in found] == expected


def test_a_week_whose_monday_is_a_holiday_is_expected():
    """A weekly bar is labelled by its Monday, also when that is Labor Day."""
    week = (micros("2024-09-02"), micros("2024-09-03"))
    assert open_windows(*week, interval_of("1wk"), calendar_named("XNYS")) == [week]
    assert open_windows(*week, interval_of("1d"), calendar_named("XNYS")) == []


def test_nothing_is_expected_at_a_weekend_except_where_it_never_closes():
    """Saturday and Sunday have no window in New York, all of them with crypto."""
    weekend = (micros("2024-06-01"), micros("2024-06-03"))
    assert open_windows(*weekend, interval_of("1m"), calendar_named("XNYS")) == []
    assert open_windows(*weekend, interval_of("1m"), calendar_named(None)) == [weekend]


def test_currencies_open_on_sunday_evening():
    """A market with weekend gaps closes on Friday and opens on Sunday at 17:00 in New York."""
    found = open_windows(micros("2024-06-07"), micros("2024-06-11"), interval_of("1h"), FOREX)
    assert [tuple(map(shown, window)) for window in found] == [
        ("2024-06-07 00:00", "2024-06-07 21:00"),
        ("2024-06-09 21:00", "2024-06-11 00:00"),
    ]


def over(date, name="XNYS"):
    sessions = calendar_named(name).sessions(micros(date) - 20 * DAY, micros(date) + 20 * DAY)
    return shown(closed_by(micros(date), sessions))


def test_a_plain_session_is_over_at_its_close():
    """A date with a session of the usual length is over when it closes, also next to a change of clocks."""
    assert over("2024-06-03") == "2024-06-03 20:00"
    assert [over("2024-03-08"), over("2024-03-11")] == ["2024-03-08 21:00", "2024-03-11 20:00"]


def test_half_days_and_holidays_are_not_taken_at_their_word():
    """Calendars lag: trading may go on until the usual close, on days without a session as well."""
    assert over("2024-11-29") == "2024-11-29 21:00"
    assert over("2024-12-25") == "2024-12-25 21:00"
    assert over("2024-06-01") == "2024-06-01 20:00"


def test_without_a_session_near_the_date_must_have_ended_everywhere():
    """Noon of the next day in UTC is midnight in the last time zone."""
    assert shown(closed_by(micros("2024-06-03"), [])) == "2024-06-04 12:00"
