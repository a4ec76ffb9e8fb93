"""When are markets open? A hint for what to ask and when, never the truth: calendars lag behind closures."""

import importlib
import logging
import sys
import warnings
from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd

from tradecache.errors import InvalidInput, MissingDependency, shorten
from tradecache.forks import fork_safe_lock
from tradecache.intervals import Interval
from tradecache.timeline import Range, merged

DAY = 86_400_000_000  # microseconds
YEAR = 365 * DAY
NEAR = 14 * DAY  # how far to look for what is usual: further than a Golden Week
ANYWHERE = DAY // 2  # by so much later than in UTC does a day end in the last time zone
FIRST_BUILT = "1970-01-01"  # an exchange's calendar from then on costs what one of twenty years costs
WORLD = (-5_364_662_400_000_000, 7_258_118_400_000_000)  # 1800 to 2200: outside, nobody keeps hours

log = logging.getLogger("tradecache")

_one_at_a_time = fork_safe_lock()


class Session(NamedTuple):
    """A day of trading: its date (midnight as if in UTC), and when it opens and closes in true UTC."""

    date: int
    open: int
    close: int


class Calendar(Protocol):
    """The hours of a market. Times are microseconds since the epoch.

    A class of your own that is derived from this one needs a name and `sessions`.
    """

    name: str

    @abstractmethod
    def sessions(self, start: int, end: int) -> Sequence[Session]:
        """Return the sessions dated in [start, end), in order. It never raises."""

    def is_open(self, moment: int) -> bool:
        """Say whether a moment lies within a session."""
        near = self.sessions(moment - 3 * DAY, moment + 2 * DAY)
        return any(session.open <= moment < session.close for session in near)

    def next_open(self, moment: int) -> int:
        """Return when the first session after a moment opens."""
        return next(session.open for session in self._from(moment) if session.open > moment)

    def next_close(self, moment: int) -> int:
        """Return when the first session after a moment closes, which may have begun before it."""
        return next(session.close for session in self._from(moment) if session.close > moment)

    def _from(self, moment: int) -> Iterator[Session]:
        """Yield the sessions around and after a moment, and at the end of the world one more."""
        at = moment + NEAR
        yield from self.sessions(moment - 3 * DAY, at)
        at = max(at, WORLD[0])
        while at < WORLD[1]:
            yield from self.sessions(at, at + YEAR)
            at += YEAR
        yield Session(at, at, at + DAY)


@dataclass(frozen=True, slots=True)
class AlwaysOpen(Calendar):
    """A market that never closes; its sessions are the days of UTC."""

    name: str = "24/7"

    def sessions(self, start: int, end: int) -> list[Session]:
        """Return the days that begin in [start, end)."""
        return [Session(date, date, date + DAY) for date in range(-(-start // DAY) * DAY, end, DAY)]


@dataclass(frozen=True, slots=True)
class Weekly(Calendar):
    """A market with the same hours in each week, and no holidays.

    >>> forex = Weekly("FX", zone="America/New_York", opens=-timedelta(hours=7), closes=timedelta(hours=17))
    >>> [pd.Timestamp(each.open, unit="us").strftime("%a %H:%M") for each in forex.sessions(0, 7 * DAY)]
    ['Wed 22:00', 'Thu 22:00', 'Sun 22:00', 'Mon 22:00', 'Tue 22:00']

    Attributes:
        name: What it is called.
        zone: The time zone in which its clocks run.
        opens: When a session begins, from the midnight at the start of its date; may be the day before.
        closes: When it ends.
        days: "1" or "0" for each day of the week from Monday on.
    """

    name: str
    zone: str
    opens: timedelta
    closes: timedelta
    days: str = "1111100"

    def sessions(self, start: int, end: int) -> list[Session]:
        """Return the sessions dated in [start, end)."""
        first, last = max(start, WORLD[0]), min(end, WORLD[1])
        dates = np.arange(-(-first // DAY), -(-last // DAY))
        is_traded = np.array([day == "1" for day in self.days])
        dates = dates[is_traded[(dates + 3) % 7]] * DAY  # 1970 began with a Thursday
        opens, closes = self._true(dates, self.opens), self._true(dates, self.closes)
        return [Session(*times) for times in zip(dates.tolist(), opens, closes, strict=True)]

    def _true(self, dates: Any, offset: timedelta) -> list[int]:
        """Return in true UTC what clocks on the wall show at `offset` from the midnights of dates."""
        shown = pd.DatetimeIndex(dates.astype("M8[us]")) + offset
        is_summer = np.ones(len(dates), dtype=bool)
        local = shown.tz_localize(self.zone, ambiguous=is_summer, nonexistent="shift_forward")
        return local.as_unit("us").asi8.tolist()


class ExchangeCalendar(Calendar):
    """An exchange's hours as the library exchange_calendars has them, holidays and half-days among them.

    After the last session that the library knows, each week has the usual hours; before the first, so has
    each day, because exchanges used to trade on Saturdays, and a day too many costs nothing.
    """

    def __init__(self, name: str, library: Any) -> None:
        self.name = name
        schedule = library.schedule
        columns = (schedule.index, *(pd.DatetimeIndex(schedule[field]) for field in ("open", "close")))
        rows = zip(*(column.as_unit("us").asi8.tolist() for column in columns), strict=True)
        self._known = [Session(*row) for row in rows]
        self._dates = [session.date for session in self._known]
        self._later = _usual_hours(name, library, str(library.weekmask))
        self._earlier = _usual_hours(name, library, "1111111")

    def sessions(self, start: int, end: int) -> list[Session]:
        """Return the sessions dated in [start, end)."""
        first, last = self._dates[0], self._dates[-1] + DAY
        found = self._known[bisect_left(self._dates, start) : bisect_left(self._dates, end)]
        if start < first:
            found = self._earlier.sessions(start, min(end, first)) + found
        if end > last:
            found = found + self._later.sessions(max(start, last), end)
        return found

    def __repr__(self) -> str:
        """Show its name and how much is known of it."""
        return f"<ExchangeCalendar {self.name}, {len(self._known):,} sessions>"


ALWAYS_OPEN = AlwaysOpen()


def calendar_named(name: str | None) -> Calendar:
    """Return the calendar of that name; None and "24/7" are the market that never closes.

    The first call loads exchange_calendars (about half a second), the first of each name builds it (0.1 s).
    A calendar that the library has but cannot build is taken as always open, with a line in the log.

    Raises:
        InvalidInput: For a name that exchange_calendars does not have, listing those most like it.
        MissingDependency: When exchange_calendars is not installed.
    """
    if name is None or name == ALWAYS_OPEN.name:
        return ALWAYS_OPEN
    with _one_at_a_time:  # two would silence each other's warnings, and build everything twice
        return _exchange(name)


def open_windows(start: int, end: int, interval: Interval, calendar: Calendar) -> list[Range]:
    """Return where in the labels [start, end) a calendar expects bars, in order, neighbours joined.

    Of intraday bars these are the hours of trading, from the bar on that contains the opening; of longer
    ones each bar that has a session.
    """
    if isinstance(calendar, AlwaysOpen):
        return [(start, end)] if start < end else []
    hours = _trading_hours if interval.is_intraday else _bars_of_sessions
    return merged(
        (max(first, start), min(last, end)) for first, last in hours(start, end, interval, calendar)
    )


def closed_by(date: int, sessions: Sequence[Session]) -> int:
    """Return when trading dated `date` is surely over, given the `sessions` for `NEAR` around it.

    That is its close by the calendar, but a half-day is not taken at its word: it lasts as long as the
    sessions around it. Nor is a holiday: it ends with the latest close. Without any session near, the date
    must have ended everywhere on earth.
    """
    near = [session for session in sessions if abs(session.date - date) <= NEAR]
    if not near:
        return date + DAY + ANYWHERE
    own = next((session for session in near if session.date == date), None)
    if own is None:
        return date + max(session.close - session.date for session in near)
    return own.open + max(session.close - session.open for session in near)


def _trading_hours(start: int, end: int, interval: Interval, calendar: Calendar) -> Iterator[Range]:
    for session in calendar.sessions(start - 3 * DAY, end + 2 * DAY):
        yield interval.floor(session.open), session.close


def _bars_of_sessions(start: int, end: int, interval: Interval, calendar: Calendar) -> Iterator[Range]:
    last = -sys.maxsize
    for session in calendar.sessions(interval.floor(start), interval.next(end)):
        if session.date >= last:
            first, last = interval.floor(session.date), interval.next(session.date)
            yield first, last


@cache
def _exchange(name: str) -> Calendar:
    library = _library()
    _check_name(name, library.get_calendar_names(include_aliases=True))
    try:
        return ExchangeCalendar(name, _built(name, library))
    except Exception as error:  # noqa: BLE001 - a few cannot be built with a new pandas, each in its own way
        log.warning(
            "exchange_calendars cannot build %s (%s), which is taken as always open", name, shorten(error)
        )
        return AlwaysOpen(name)


def _library() -> Any:
    try:
        return importlib.import_module("exchange_calendars")
    except ImportError as error:
        raise MissingDependency("exchange_calendars", "calendars") from error


def _check_name(name: str, names: Sequence[str]) -> None:
    if name in names:
        return
    import difflib  # for a message

    like = difflib.get_close_matches(str(name).upper(), names, n=5, cutoff=0.5)
    raise InvalidInput("calendar", name, f"None, '24/7' or one of {', '.join(like or names)}")


def _built(name: str, library: Any) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=pd.errors.Pandas4Warning)
        try:
            return library.get_calendar(name, start=FIRST_BUILT)
        except ValueError:  # its holidays are not known from so early on
            return library.get_calendar(name)


def _usual_hours(name: str, library: Any, days: str) -> Weekly:
    opens, closes = (
        timedelta(days=offset, hours=times[-1][1].hour, minutes=times[-1][1].minute)
        for times, offset in (
            (library.open_times, library.open_offset),
            (library.close_times, library.close_offset),
        )
    )
    return Weekly(name, zone=str(library.tz), opens=opens, closes=closes, days=days)
