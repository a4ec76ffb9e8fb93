import itertools
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradecache.calendars import DAY, Calendar, Session, Weekly, calendar_named
from tradecache.errors import InvalidInput
from tradecache.freshness import (
    HOUR,
    MINUTE,
    RECHECKS,
    Adaptive,
    AgeTTL,
    BarClose,
    Final,
    FixedTTL,
    Verdict,
)
from tradecache.intervals import interval_of

pytest.importorskip("exchange_calendars")

SECOND = 1_000_000
SETTLE = 15 * MINUTE
FOREX = Weekly("FX", zone="America/New_York", opens=-timedelta(hours=7), closes=timedelta(hours=17))
CLOSES = {"XNYS": ("America/New_York", 16), "XTKS": ("Asia/Tokyo", 15), "FX": ("America/New_York", 17)}


class Listed(Calendar):
    """A calendar that knows the sessions it is given, and which dates it was asked for."""

    name = "listed"

    def __init__(self, sessions=()):
        self.listed = sessions
        self.asked = []

    def sessions(self, start, end):
        self.asked.append((start, end))
        return [session for session in self.listed if start <= session.date < end]


def micros(text):
    return pd.Timestamp(text).value // 1_000


def shown(moment):
    return None if moment is None else pd.Timestamp(moment, unit="us").strftime("%Y-%m-%d %H:%M:%S")


def new_york(*, without=(), early=()):
    """Return the hours of New York in 2024 and 2025 with faults: sessions that lack, or close early."""
    known = calendar_named("XNYS").sessions(micros("2024-01-01"), micros("2026-01-01"))
    gone, short = (set(map(micros, dates)) for dates in (without, early))
    return Listed(
        [
            each._replace(close=each.close - 3 * HOUR) if each.date in short else each
            for each in known
            if each.date not in gone
        ]
    )


def ask(policy, start, end, at, **options):
    """Return a policy's verdict with everything as text."""
    given = {"interval": "1d", "calendar": calendar_named("XNYS"), "settle": SETTLE, **options}
    given["interval"] = interval_of(given["interval"])
    parts = policy.verdict((micros(start), micros(end)), fetched_at=micros(at), **given)
    return [tuple(map(shown, part)) for part in parts]


def is_final(label, at, **options):
    """Say whether the bar of one date, or of one minute, is final when fetched at a moment."""
    width = timedelta(minutes=1) if "interval" in options else timedelta(days=1)
    end = shown(micros(pd.Timestamp(label) + width))
    parts = ask(BarClose(jitter=0), label, end, at, **options)
    return [part[2] for part in parts] == [None]


ttls = st.sampled_from([1, 60, 300.0, 7_200, timedelta(days=3)])
jitters = st.sampled_from([0, 0.1, 0.9])
policies = st.one_of(
    st.builds(Final, jitter=jitters),
    st.builds(FixedTTL, ttls, jitter=jitters),
    st.builds(BarClose, ttl=ttls, settle=st.none() | ttls, jitter=jitters),
    st.builds(AgeTTL, jitter=jitters),
    st.builds(AgeTTL, beyond=ttls, jitter=jitters),
    st.builds(Adaptive, st.builds(BarClose, jitter=jitters)),
)
calendars = st.sampled_from([*map(calendar_named, ("24/7", "XNYS", "XTKS", "CMES")), FOREX, Listed()])
intervals = st.sampled_from(["1m", "5m", "90m", "1h", "4h", "1d", "1wk", "1mo"]).map(interval_of)
settles = st.sampled_from([0, SETTLE, 4 * HOUR, 2 * DAY])
outcomes = st.sampled_from(["bars"] * 4 + [*RECHECKS])
minutes_of_two_years = st.sampled_from(range(2 * 366 * 1_440)).map(
    lambda n: micros("2024-01-01") + n * MINUTE
)
beside = st.sampled_from([0, 0, 1, -1, 30 * SECOND])
hours_to_the_end = st.sampled_from(range(-20 * 24, 20 * 24)) | st.sampled_from([-9_000, -1_000, 1_000, 9_000])
bars_of_the_range = st.sampled_from(range(1, 60)) | st.sampled_from([500, 5_000])


@st.composite
def requests(draw):
    """Return what a policy is asked: ranges that mostly end around now, some long ago, some in the future."""
    interval = draw(intervals)
    at = draw(minutes_of_two_years) + draw(beside)
    step = MINUTE if interval.is_intraday else DAY
    end = (at + draw(hours_to_the_end) * (HOUR if step == DAY else 12 * MINUTE)) // step * step
    start = end - draw(bars_of_the_range) * interval.microseconds
    return (start // step * step, end), {
        "interval": interval,
        "calendar": draw(calendars),
        "fetched_at": at,
        "settle": draw(settles),
        "key": draw(st.text(max_size=5)),
        "outcome": draw(outcomes),
    }


def end_of(label, interval, calendar):
    """Return when the bar of a label is over at the latest, if each day had a session of the usual hours."""
    if interval.is_intraday:
        return label + interval.microseconds
    last = interval.next(label) - DAY
    if calendar.name not in CLOSES:
        return last + (22 * HOUR if calendar.name == "CMES" else DAY)
    zone, closes = CLOSES[calendar.name]
    local = pd.Timestamp(np.datetime64(last, "us")).tz_localize(zone)
    return micros(local.replace(hour=closes).tz_convert("UTC").tz_localize(None))


@settings(max_examples=300)
@given(policies, requests())
def test_parts_cover_the_range_exactly_and_in_order(policy, request):
    """Parts touch, begin and end with the range, have a length, and neighbours differ."""
    (start, end), options = request
    parts = policy.verdict((start, end), **options)
    assert (parts[0].start, parts[-1].end) == (start, end)
    assert all(part.start < part.end for part in parts)
    for before, after in itertools.pairwise(parts):
        assert before.end == after.start
        assert before.fresh_until != after.fresh_until


@settings(max_examples=300)
@given(policies, requests())
def test_nothing_is_final_before_its_close_has_settled(policy, request):
    """The last bar of a final part had closed, by its market's clocks, for as long as it may change."""
    (start, end), options = request
    settle = options["settle"]
    if isinstance(policy, BarClose):
        settle = policy.settling(settle)
    for part in policy.verdict((start, end), **options):
        if part.fresh_until is None:
            step = MINUTE if options["interval"].is_intraday else DAY
            label = part.end - step
            assert end_of(label, options["interval"], options["calendar"]) + settle <= options["fetched_at"]


@settings(max_examples=300)
@given(policies, requests())
def test_what_is_not_final_is_fresh_for_a_while(policy, request):
    """Whatever expires does so after the moment at which it was fetched."""
    label_range, options = request
    untils = [part.fresh_until for part in policy.verdict(label_range, **options)]
    assert all(until is None or until > options["fetched_at"] for until in untils)


@given(st.sampled_from([Final(), BarClose(), AgeTTL(steps=((60, 60),)), Adaptive()]), requests())
def test_long_closed_bars_are_final(policy, request):
    """Two days after the end of its bar and the time to settle, nothing of it is asked for again."""
    label_range, options = request
    options = {**options, "outcome": "bars"}
    for part in policy.verdict(label_range, **options):
        if part.fresh_until is not None:
            over = options["interval"].next(part.start) + 2 * DAY + options["settle"]
            assert over > options["fetched_at"]


@given(requests(), st.floats(0, 0.99), st.integers(0, 9))
def test_jitter_only_ever_shortens(request, jitter, seed):
    """Jitter moves no edge, lets nothing live longer, and is the same for the same series and seed."""
    label_range, options = request
    for kind in (Final, BarClose, AgeTTL):
        policy = kind(jitter=jitter, seed=seed)
        shaken, plain = policy.verdict(label_range, **options), kind(jitter=0).verdict(label_range, **options)
        assert shaken == kind(jitter=jitter, seed=seed).verdict(label_range, **options)
        assert edges(shaken) <= edges(plain)  # two neighbours may have come to expire together
        for part in shaken:
            for other in plain:
                if max(part.start, other.start) < min(part.end, other.end):
                    assert (part.fresh_until is None) == (other.fresh_until is None)
                    assert (part.fresh_until or 0) <= (other.fresh_until or 0)


def edges(parts):
    return {edge for part in parts for edge in (part.start, part.end)}


@settings(max_examples=40)
@given(requests())
def test_asking_again_whenever_it_expires_ends_with_all_of_it_final(request):
    """A range is final within days of its end, after at most three requests for each of its days."""
    (start, end), options = request
    interval = options["interval"]
    end = min(end, start + 3 * interval.microseconds)
    policy = Final(jitter=0)
    options = {**options, "outcome": "bars"}
    at = options["fetched_at"]
    for count in itertools.count():
        last = policy.verdict((start, end), **{**options, "fetched_at": at})[-1].fresh_until
        if last is None:
            break
        at = last
        assert count < 3 * 31 * 3
    assert at <= max(options["fetched_at"], interval.next(end) + options["settle"]) + 20 * DAY


def test_a_universe_does_not_expire_in_one_instant():
    """500 symbols fetched together expire at moments of their own, in trading and over a weekend."""
    for at in ("2024-06-03 15:00", "2024-06-01 15:00"):
        for policy in (Final(), FixedTTL(60), BarClose(), AgeTTL(), Adaptive()):
            keys = [f"yfinance/S{number}/1d" for number in range(500)]
            untils = [ask_until(policy, at, key=key) for key in keys]
            assert len(set(untils)) > 490
            again = [ask_until(policy, at, key=key) for key in keys]
            assert again == untils


def ask_until(policy, at, **options):
    given = {"interval": interval_of("1d"), "calendar": calendar_named("XNYS"), **options}
    return policy.verdict((micros("2024-06-01"), micros("2024-06-04")), fetched_at=micros(at), **given)[-1][2]


def test_an_event_within_the_hour_is_waited_for_to_the_end():
    """Shortly before the close there is no jitter: asked a little early, a bar would be asked for twice."""
    for key in map(str, range(20)):
        until = ask_until(Final(), "2024-06-03 19:30", key=key, settle=SETTLE)
        assert shown(until) == "2024-06-03 20:15:00"


def test_daily_bars_while_the_market_is_open():
    """Yesterday's bar is final; today's is good for five minutes, or until it has closed and settled."""
    today = ("2024-06-03 00:00:00", "2024-06-04 00:00:00")
    before = ("2010-01-01 00:00:00", "2024-06-03 00:00:00", None)
    policy = BarClose(jitter=0)
    assert ask(policy, "2010-01-01", "2024-06-04", "2024-06-03 15:00") == [
        before,
        (*today, "2024-06-03 15:05:00"),
    ]
    assert ask(policy, "2010-01-01", "2024-06-04", "2024-06-03 20:12") == [
        before,
        (*today, "2024-06-03 20:15:00"),
    ]
    assert ask(policy, "2010-01-01", "2024-06-04", "2024-06-03 20:15") == [(before[0], today[1], None)]


def test_over_a_weekend_bars_are_fresh_until_monday_opens():
    """When the market is shut nothing changes until it opens; Friday's bar is final."""
    assert ask(BarClose(jitter=0), "2024-05-27", "2024-06-02", "2024-06-01 12:00") == [
        ("2024-05-27 00:00:00", "2024-06-01 00:00:00", None),
        ("2024-06-01 00:00:00", "2024-06-02 00:00:00", "2024-06-03 13:30:00"),
    ]


@pytest.mark.parametrize(
    ("label", "close"),
    [
        ("2024-03-08", "2024-03-08 21:00"),
        ("2024-03-11", "2024-03-11 20:00"),
        ("2024-11-01", "2024-11-01 20:00"),
        ("2024-11-04", "2024-11-04 21:00"),
    ],
)
def test_clocks_that_change_move_the_close(label, close):
    """Around a change of clocks a bar is final 15 minutes after 16:00 in New York, not before."""
    settled = pd.Timestamp(close) + timedelta(minutes=15)
    assert not is_final(label, settled - timedelta(microseconds=1))
    assert is_final(label, settled)


def test_a_half_day_is_final_when_a_whole_one_would_be():
    """After the early close of 2024-11-29 its bar is fetched once more, at the usual close."""
    day = ("2024-11-29", "2024-11-30")
    policy = BarClose(jitter=0)
    moments = ["2024-11-29 17:50", "2024-11-29 18:13", "2024-11-29 18:15", "2024-11-29 21:15"]
    assert [ask(policy, *day, at)[-1][2] for at in moments] == [
        "2024-11-29 17:55:00",
        "2024-11-29 18:15:00",
        "2024-11-29 21:15:00",
        None,
    ]


def test_minutes_of_a_half_day_are_final_as_they_close():
    """Bars within a day need no calendar to be final."""
    assert is_final("2024-11-29 17:59", "2024-11-29 18:15", interval="1m")
    assert not is_final("2024-11-29 17:59", "2024-11-29 18:14:59.999999", interval="1m")


def test_a_calendar_that_wrongly_closes_a_day_freezes_no_forming_bar():
    """Where trading goes on on a holiday, the bar is not final before the usual close."""
    wrong = new_york(without=["2024-06-03"])
    assert not is_final("2024-06-03", "2024-06-03 18:00", calendar=wrong)
    assert not is_final("2024-06-03", "2024-06-03 20:14", calendar=wrong)
    assert is_final("2024-06-03", "2024-06-03 20:15", calendar=wrong)


def test_a_calendar_that_wrongly_closes_a_day_early_freezes_no_forming_bar():
    """An early close that does not happen makes no bar final while it is forming."""
    wrong = new_york(early=["2024-06-03"])
    assert not is_final("2024-06-03", "2024-06-03 18:00", calendar=wrong)
    assert is_final("2024-06-03", "2024-06-03 20:15", calendar=wrong)


def test_an_unscheduled_closure_is_asked_about_again():
    """On 2025-01-09 New York stayed shut; where the calendar does not know it, the day is no history yet."""
    lagging = new_york()
    closed = calendar_named("XNYS").sessions(micros("2025-01-08"), micros("2025-01-09"))[0]
    lagging.listed.append(Session(closed.date + DAY, closed.open + DAY, closed.close + DAY))
    lagging.listed.sort()
    day = ("2025-01-09", "2025-01-10")
    policy = BarClose(jitter=0)
    found = [
        ask(policy, *day, at, calendar=lagging, outcome="no_trades")[0][2]
        for at in ("2025-01-09 15:00", "2025-01-09 22:00", "2025-01-20 22:00", "2025-01-24 22:00")
    ]
    assert found == ["2025-01-09 15:05:00", "2025-01-10 22:00:00", "2025-01-21 22:00:00", None]


def test_weeks_and_months_are_final_when_their_last_day_is_over():
    """A week's bar waits for Sunday, a month's for its last day: some Saturdays are traded."""
    friday = ask(BarClose(jitter=0), "2024-05-20", "2024-06-03", "2024-06-01 12:00", interval="1wk")
    assert friday == [
        ("2024-05-20 00:00:00", "2024-05-27 00:00:00", None),
        ("2024-05-27 00:00:00", "2024-06-03 00:00:00", "2024-06-03 13:30:00"),
    ]
    assert ask(BarClose(jitter=0), "2024-05-01", "2024-06-01", "2024-05-31 20:15", interval="1mo") == [
        ("2024-05-01 00:00:00", "2024-06-01 00:00:00", None)
    ]


def test_minutes_are_fresh_until_the_next_one_settles():
    """In a session each minute makes one more bar final; then the rest settles; then all waits."""
    day = ("2024-06-03 13:30", "2024-06-04 00:00")
    found = {
        at: ask(BarClose(jitter=0), *day, f"2024-06-03 {at}", interval="1m")[-1]
        for at in ("13:00", "15:00:30", "20:02", "20:14", "20:15")
    }
    assert {at: (part[0][11:], part[2]) for at, part in found.items()} == {
        "13:00": ("13:30:00", "2024-06-03 13:30:00"),
        "15:00:30": ("14:45:00", "2024-06-03 15:01:00"),
        "20:02": ("19:47:00", "2024-06-03 20:07:00"),
        "20:14": ("19:59:00", "2024-06-03 20:15:00"),
        "20:15": ("20:00:00", "2024-06-04 13:30:00"),
    }


def test_hours_may_begin_at_half_past():
    """An hourly bar labelled 14:30 is not final at 15:29, though the clock's hour from 14:00 is over."""
    at_half = {"interval": "1h", "settle": 0}
    assert not is_final("2024-06-03 14:30", "2024-06-03 15:29:59", **at_half)
    assert is_final("2024-06-03 14:30", "2024-06-03 15:30", **at_half)
    assert is_final("2024-06-03 14:00", "2024-06-03 15:00", **at_half)


def test_crypto_never_sleeps():
    """Days are final at midnight in UTC plus the time to settle, on Saturdays as well."""
    crypto = {"calendar": calendar_named(None)}
    assert not is_final("2024-06-01", "2024-06-02 00:14", **crypto)
    assert is_final("2024-06-01", "2024-06-02 00:15", **crypto)
    night = ask(BarClose(jitter=0), "2024-06-02", "2024-06-03", "2024-06-02 00:05", interval="1m", **crypto)
    assert night == [("2024-06-02 00:00:00", "2024-06-03 00:00:00", "2024-06-02 00:06:00")]


def test_currencies_wait_from_friday_to_sunday():
    """Over the gap of a weekend hourly bars are fresh until Sunday, 17:00 in New York."""
    parts = ask(
        BarClose(jitter=0), "2024-06-07 12:00", "2024-06-08 12:00", "2024-06-08 12:00",
        interval="1h", calendar=FOREX,
    )  # fmt: skip
    assert parts == [
        ("2024-06-07 12:00:00", "2024-06-08 10:46:00", None),
        ("2024-06-08 10:46:00", "2024-06-08 12:00:00", "2024-06-09 21:00:00"),
    ]


@pytest.mark.parametrize(
    ("start", "interval", "until"),
    [
        ("2024-06-08", "1d", "2024-06-10 13:30:00"),
        ("2024-06-05 10:00", "1m", "2024-06-05 13:30:00"),
        ("2024-06-05 15:00", "1m", "2024-06-05 15:00:00"),
        ("2044-06-04", "1d", "2044-06-06 13:30:00"),
    ],
)
def test_the_future_is_empty_until_it_begins(start, interval, until):
    """Of a range that lies wholly in the future, nothing can be there before its first session."""
    end = shown(micros(start) + 30 * DAY)
    found = ask(BarClose(jitter=0), start, end, "2024-06-03 15:00", interval=interval)
    assert [(part[0][:10], part[2]) for part in found] == [(start[:10], until)]


def test_where_no_session_is_expected_one_looks_again_in_two_weeks():
    """A calendar that knows of nothing to come does not stop the questions for good."""
    found = ask(BarClose(jitter=0), "2024-06-01", "2024-07-01", "2024-06-03 15:00", calendar=Listed())
    assert found[-1][2] == "2024-06-17 15:00:00"


def test_an_empty_range_has_no_parts():
    """Nothing is asked of nothing."""
    assert ask(BarClose(), "2024-06-03", "2024-06-03", "2024-06-03 15:00") == []


def test_the_longer_time_to_settle_counts():
    """A policy can wait longer than the source says, never shorter."""
    for policy, settle in ((BarClose(settle=7_200), SETTLE), (BarClose(settle=1), 2 * HOUR)):
        at_once = ask(policy, "2024-06-03", "2024-06-04", "2024-06-03 21:59", settle=settle)
        later = ask(policy, "2024-06-03", "2024-06-04", "2024-06-03 22:00", settle=settle)
        assert (at_once[-1][2] is None, later[-1][2]) == (False, None)


@pytest.mark.parametrize(("interval", "years"), [("1d", 14), ("1m", 1), ("1wk", 14), ("1mo", 14)])
def test_only_the_end_of_a_long_range_is_looked_at(interval, years):
    """Of however long a range, the calendar is asked for months, and for none when all is over."""
    calendar = new_york()
    start = shown(micros("2024-06-03") - years * 365 * DAY)
    ask(BarClose(), start, "2024-06-04", "2024-06-03 15:00", interval=interval, calendar=calendar)
    assert sum(last - first for first, last in calendar.asked) < 120 * DAY
    calendar.asked.clear()
    ask(BarClose(), start, "2024-04-30", "2024-06-03 15:00", interval=interval, calendar=calendar)
    assert calendar.asked == []


def test_a_fixed_time_to_live_holds_for_all_of_it():
    """FixedTTL makes no difference between closed and forming bars."""
    found = ask(FixedTTL(60, jitter=0), "2010-01-01", "2024-06-04", "2024-06-03 15:00")
    assert found == [("2010-01-01 00:00:00", "2024-06-04 00:00:00", "2024-06-03 15:01:00")]


def test_older_bars_are_fresh_for_longer():
    """AgeTTL cuts the range at its ages; what is older than all of them is final."""
    assert ask(AgeTTL(jitter=0), "2010-01-01", "2024-06-04", "2024-06-03 15:00") == [
        ("2010-01-01 00:00:00", "2023-06-04 00:00:00", None),
        ("2023-06-04 00:00:00", "2024-05-04 00:00:00", "2024-07-03 15:00:00"),
        ("2024-05-04 00:00:00", "2024-06-02 00:00:00", "2024-06-04 15:00:00"),
        ("2024-06-02 00:00:00", "2024-06-04 00:00:00", "2024-06-03 15:05:00"),
    ]
    older = ask(AgeTTL(beyond=timedelta(days=90), jitter=0), "2010-01-01", "2011-01-01", "2024-06-03 15:00")
    assert older == [("2010-01-01 00:00:00", "2011-01-01 00:00:00", "2024-09-01 15:00:00")]


@pytest.mark.parametrize(
    ("outcome", "ages"),
    [
        ("closed", {6: 1, 8: None}),
        ("no_trades", {13: 1, 16: None}),
        ("before_listing", {29: 1, 32: None}),
        ("outside_window", {29: 7, 400: 7}),
    ],
)
def test_each_absence_has_a_time_of_its_own(outcome, ages):
    """Days without bars are asked for again in a day or a week, until they are history."""
    at = pd.Timestamp("2024-06-03 23:00")
    for age, days in ages.items():
        label = (at - timedelta(days=age)).normalize()
        parts = ask(BarClose(jitter=0), str(label), str(label + timedelta(days=1)), str(at), outcome=outcome)
        again = None if days is None else shown(micros(at + timedelta(days=days)))
        assert [part[2] for part in parts] == [again]


def test_an_absence_may_be_old_recent_and_forming_at_once():
    """Without any bars, the past is settled, the last days are asked for again, today as usual."""
    found = ask(BarClose(jitter=0), "2024-01-01", "2024-06-04", "2024-06-03 15:00", outcome="no_trades")
    assert found == [
        ("2024-01-01 00:00:00", "2024-05-20 00:00:00", None),
        ("2024-05-20 00:00:00", "2024-06-03 00:00:00", "2024-06-04 15:00:00"),
        ("2024-06-03 00:00:00", "2024-06-04 00:00:00", "2024-06-03 15:05:00"),
    ]


def test_an_absence_lives_no_longer_than_a_bar_would():
    """Where bars are good for a minute, so is their absence."""
    found = ask(FixedTTL(60, jitter=0), "2024-05-27", "2024-05-28", "2024-06-03 15:00", outcome="closed")
    assert [part[2] for part in found] == ["2024-06-03 15:01:00"]


def test_an_error_is_no_answer():
    """What is not an outcome is refused, so that no rate limit can become "no data"."""
    with pytest.raises(InvalidInput, match=r"outcome is 'rate_limited', .* bars, closed, no_trades"):
        ask(BarClose(), "2024-05-27", "2024-05-28", "2024-06-03 15:00", outcome="rate_limited")


def test_hot_series_are_refreshed_before_they_expire():
    """Asked for three times since it was fetched, a series is fetched anew in the last fifth of its life."""
    policy = Adaptive(FixedTTL(300), hot=3)
    assert policy.refresh_at(0, 100 * SECOND, requests=2) is None
    assert policy.refresh_at(0, 100 * SECOND, requests=3) == 80 * SECOND
    assert policy.refresh_at(0, 60 * HOUR, requests=3) == 60 * HOUR - MINUTE
    assert policy.refresh_at(0, 9 * SECOND, requests=99) is None
    assert policy.refresh_at(0, None, requests=99) is None


def test_other_policies_refresh_nothing_early():
    """Only Adaptive asks before something expires."""
    for policy in (Final(), FixedTTL(300), BarClose(), AgeTTL()):
        assert policy.refresh_at(0, 100 * SECOND, requests=99) is None


@given(requests())
def test_adaptive_says_what_its_base_says(request):
    """Until when something is fresh does not depend on how often it is asked for."""
    label_range, options = request
    base = BarClose(ttl=60, seed=3)
    assert Adaptive(base).verdict(label_range, **options) == base.verdict(label_range, **options)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: FixedTTL(0), "ttl"),
        (lambda: BarClose(ttl=-1), "ttl"),
        (lambda: BarClose(settle=float("nan")), "ttl"),
        (lambda: AgeTTL(beyond="1d"), "ttl"),
        (lambda: AgeTTL(steps=()), "steps"),
        (lambda: AgeTTL(steps=((60, 1), (60, 2))), "steps"),
        (lambda: Final(jitter=1), "jitter"),
        (lambda: FixedTTL(60, jitter=-0.1), "jitter"),
        (lambda: Adaptive(ahead=0), "ahead"),
    ],
)
def test_what_cannot_be_a_policy_is_refused(make, field):
    """A time that is none, a share that is none, or steps out of order are errors where they are written."""
    with pytest.raises(InvalidInput, match=f"^{field} is"):
        make()


def test_policies_are_values():
    """Equal settings are equal policies, which can be compared, hashed and shown."""
    assert BarClose() == BarClose(300.0)
    assert len({BarClose(), BarClose(seed=1), Adaptive(), Adaptive(), AgeTTL()}) == 4
    assert repr(FixedTTL(60)) == "FixedTTL(jitter=0.1, seed=0, seconds=60)"
    assert Verdict(0, 1, None).fresh_until is None
