"""The clock for timestamps, and the one for what still has to live."""

import math
import threading
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from clocks import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from key_value.aio.errors import InvalidTTLError

from tradecache.clock import MAX_TTL, Clock, checked_ttl
from tradecache.errors import InvalidInput, InvalidTTL

HOUR = 3600.0
CENTURY = 100 * 365.25 * 24 * HOUR


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [
        (0.05, 0.05),
        (1, 1.0),
        (CENTURY, CENTURY),
        (MAX_TTL, MAX_TTL),
        (np.float64(2.5), 2.5),
        (np.int64(3), 3.0),
        (Decimal("1.5"), 1.5),
        (Fraction(1, 4), 0.25),
        (timedelta(hours=1), HOUR),
        (pd.Timedelta("1h"), HOUR),
        (pd.Timedelta(100, "ns"), 1e-7),
        (np.timedelta64(1, "h"), HOUR),
        (np.timedelta64(3_600_000_000_000, "ns"), HOUR),
    ],
)
def test_ttl_is_a_number_of_seconds_or_a_timedelta(ttl, seconds):
    """Any kind of number is seconds, and any library's timedelta is what it says."""
    result = checked_ttl(ttl)

    assert (type(result), result) == (float, seconds)


def test_no_ttl_is_for_ever():
    """None means for ever."""
    assert checked_ttl(None) is None


@pytest.mark.parametrize(
    "ttl",
    [
        0, -1, -0.0, math.nan, math.inf, -math.inf, True, False, np.True_, 10**400, MAX_TTL * 1.01,
        "1h", "60", b"60", "", [1], {}, object(), 1j, pd.NA, pd.NaT, np.array([1.0, 2.0]), datetime.now(UTC),
        timedelta(0), timedelta(seconds=-1), np.timedelta64("NaT"), np.timedelta64(0, "s"),
    ],
    ids=repr,
)  # fmt: skip
def test_impossible_ttl_is_refused(ttl):
    """A TTL that is not positive, finite time is an error that keeps it and says what is allowed."""
    with pytest.raises(InvalidTTL, match=r"^ttl is .*, but must be a positive number of seconds") as caught:
        checked_ttl(ttl)

    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, InvalidTTLError)
    assert (caught.value.field, caught.value.value is ttl) == ("ttl", True)
    assert "timedelta" in caught.value.allowed
    assert "None" in caught.value.allowed


def test_now_is_utc_whatever_the_callable_returns():
    """`now` is in UTC also when the callable's datetimes are in another zone."""
    tokyo = datetime(2024, 6, 3, 23, 30, tzinfo=timezone(timedelta(hours=9)))

    now = Clock(lambda: tokyo).now()

    assert (now, now.tzinfo) == (tokyo, UTC)


def test_clock_of_the_system_is_the_default():
    """Without a callable both readings are the system's wall clock."""
    before = datetime.now(UTC)
    clock = Clock()
    now, seconds = clock.now(), clock.seconds()
    after = datetime.now(UTC)

    assert before <= now <= after
    assert (
        before.timestamp() - 1e-6 <= seconds <= after.timestamp() + 1e-6
    )  # datetimes are cut to microseconds


@pytest.mark.parametrize(
    "callable_",
    [5, "now", datetime(2024, 6, 3, tzinfo=UTC), lambda: datetime(2024, 6, 3), lambda: 5, lambda: None],  # noqa: DTZ001 - naive on purpose
    ids=["number", "text", "datetime", "naive", "returns number", "returns None"],
)
def test_what_is_no_clock_is_refused(callable_):
    """A clock must be callable and return aware datetimes; anything else is named at once."""
    with pytest.raises(
        InvalidInput, match=r"^clock is .*, but must be a callable that returns an aware datetime"
    ):
        Clock(callable_)


def test_clock_that_turns_naive_is_refused_later():
    """A callable that begins to return naive datetimes is an error at that reading."""
    moments = iter([datetime(2024, 6, 3, tzinfo=UTC), datetime(2024, 6, 3), datetime(2024, 6, 3)])  # noqa: DTZ001 - naive on purpose
    clock = Clock(lambda: next(moments))

    with pytest.raises(InvalidInput, match="clock is"):
        clock.seconds()
    with pytest.raises(InvalidInput, match="clock is"):
        clock.now()


@pytest.mark.parametrize("step", [0.25, HOUR, 30 * 24 * HOUR])
def test_forward_step_is_followed(step):
    """What the wall clock leaps ahead counts as time that has passed."""
    wall = FakeClock()
    clock = Clock(wall)
    before = clock.seconds()

    wall.advance(step)

    assert clock.seconds() == before + step


def test_backward_step_is_stepped_over():
    """After the wall clock was set back by an hour, time for TTLs goes on from where it was."""
    wall = FakeClock()
    clock = Clock(wall)
    before = clock.seconds()

    wall.advance(-HOUR)
    at_step = clock.seconds()
    wall.advance(5)

    assert (at_step, clock.seconds()) == (before, before + 5)


def test_small_backward_step_stands_still():
    """After a step back of less than a second, time for TTLs waits until the wall clock has caught up."""
    wall = FakeClock()
    clock = Clock(wall)
    before = clock.seconds()

    readings = []
    for step in (-0.5, 0.25, 0.25, 0.25):
        wall.advance(step)
        readings.append(clock.seconds() - before)

    assert readings == [0, 0, 0, 0.25]


@given(st.lists(st.integers(-8 * 7200, 8 * 7200), max_size=30))
def test_time_for_ttls_never_runs_backwards(eighths):
    """Whatever the wall clock does, TTL time never decreases, and lags behind by less than a second a step."""
    wall = FakeClock()
    clock = Clock(wall)
    readings, passed = [clock.seconds()], 0.0
    for step in eighths:
        wall.advance(step / 8)
        readings.append(clock.seconds())
        passed += max(step, 0) / 8

    assert readings == sorted(readings)
    assert readings[-1] - readings[0] <= passed


def test_threads_see_one_backward_step_once():
    """Eight threads that meet one backward step together step over it once."""
    wall = FakeClock()
    clock = Clock(wall)
    before = clock.seconds()
    wall.advance(-HOUR)
    barrier = threading.Barrier(8)

    def read() -> None:
        barrier.wait()
        for _ in range(200):
            clock.seconds()

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert clock.seconds() == before
