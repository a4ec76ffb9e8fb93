"""What is asked of a source, and which ranges are worth a question? No I/O: each moment is an argument."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tradecache.calendars import DAY, AlwaysOpen, Calendar, open_windows
from tradecache.freshness import MINUTE, Freshness
from tradecache.intervals import Interval
from tradecache.ranges import Moment, first_moment, last_moment
from tradecache.segments import Series
from tradecache.sources.guard import Guard
from tradecache.timeline import Range, cut, merged

BEGINNING = -2_208_988_800_000_000
"""1900-01-01: before every exchange's electronic records. What "from the beginning" means."""
FAR = 60 * DAY  # where to look for the first session before looking everywhere


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of one series. Moments are microseconds: true UTC for intraday labels, else dates as if in UTC.

    Attributes:
        series: Whose bars.
        interval: How long a bar is.
        start: The first label; None: from the beginning.
        end: The first label after it; None: up to now.
        refresh: Whether to ask the source for all of it, fresh or not.
    """

    series: Series
    interval: Interval
    start: int | None = None
    end: int | None = None
    refresh: bool = False

    def again(self, start: int, end: int) -> "Request":
        """Return a request that asks anew for [start, end)."""
        return Request(self.series, self.interval, start, end, refresh=True)

    def stamp(self, moment: int) -> pd.Timestamp:
        """Return a moment as sources are given it: aware for intraday bars, else without a zone."""
        return pd.Timestamp(moment, unit="us", tz="UTC" if self.interval.is_intraday else None).as_unit("us")


@dataclass(frozen=True, slots=True)
class Provider:
    """A source behind its guard, and what it says of one series.

    Attributes:
        guard: Whom to ask.
        freshness: Until when answers are fresh.
        calendar: When the market is open, as a hint.
        settle: How long after its close a bar may still change, in microseconds.
        merge_gap: Ranges that lie closer are asked for as one, in microseconds.
        max_range: The longest range of one question, in microseconds; None: no limit.
        window: How far back from now there are bars, in microseconds; None: no limit.
        first: The first label that there is; None: not known.
    """

    guard: Guard
    freshness: Freshness
    calendar: Calendar
    settle: int = 0
    merge_gap: int = 0
    max_range: int | None = None
    window: int | None = None
    first: int | None = None

    @classmethod
    def of(cls, guard: Guard, freshness: Freshness, calendar: Calendar, series: Series) -> "Provider":
        """Return what a source says of a series."""
        traits, interval = guard.traits, series.interval
        first = traits.first(series.symbol, interval)
        return cls(
            guard,
            freshness,
            calendar,
            settle=_micros(traits.settle),
            merge_gap=_micros(traits.merge_gap(interval)),
            max_range=_micros_or_none(traits.max_range(interval)),
            window=_micros_or_none(traits.window(interval)),
            first=None if first is None else label_of(first),
        )


def first_label(start: Moment | None, interval: Interval) -> int | None:
    """Return the first label that a range includes; None for one without a beginning."""
    return None if start is None else _ceil(_shown(start, interval, first_moment), interval)


def label_after(end: Moment | None, interval: Interval) -> int | None:
    """Return the first label after a range; None for one without an end. `end` includes what it names."""
    return None if end is None else _ceil(_shown(end, interval, last_moment) + 1, interval)


def horizon(now: int, interval: Interval, calendar: Calendar | None) -> int:
    """Return a label that there cannot be yet: after the bar, or the session, that has begun.

    Of bars within a day it is a whole interval's, so that between two bars there is nothing new to ask for.
    """
    if interval.is_intraday:
        return interval.next(now)
    today = now // DAY * DAY
    begun = [] if calendar is None else calendar.sessions(today - DAY, today + 2 * DAY)
    latest = max([today, *(session.date for session in begun if session.open <= now)])
    return interval.next(latest)


def floor_of(request: Request, provider: Provider | None, now: int) -> int:
    """Return the first label that a source may have bars for."""
    if provider is None:
        return BEGINNING
    floors = [BEGINNING]
    if provider.first is not None:
        floors.append(request.interval.floor(provider.first))
    if provider.window is not None:
        floors.append(_ceil(now - provider.window, request.interval))
    return max(floors)


def worth_asking(ranges: Iterable[Range], request: Request, provider: Provider, now: int) -> list[Range]:
    """Return what to ask for of ranges that are needed: what the source may have, as few questions as it allows.

    A calendar shortens a range to where it expects bars; one in which it expects none is left out.
    """
    first = floor_of(request, provider, now)
    last = horizon(now, request.interval, provider.calendar)
    within = [(max(start, first), min(end, last)) for start, end in ranges]
    traded = [
        _traded(start, end, request.interval, provider.calendar) for start, end in within if start < end
    ]
    whole = merged((each for each in traded if each), gap=provider.merge_gap)
    if provider.max_range is None:
        return whole
    if floor_searched(request, provider) and whole and whole[0][0] == first:
        return [whole[0], *cut(whole[1:], provider.max_range)]
    pieces = cut(whole, provider.max_range)
    shortened = (_traded(*piece, request.interval, provider.calendar) for piece in pieces)
    return [piece for piece in shortened if piece]


def floor_searched(request: Request, provider: Provider) -> bool:
    """Whether a range without a beginning has to be searched backwards for where the source's bars begin."""
    return (
        request.start is None
        and provider.max_range is not None
        and provider.first is None
        and provider.window is None
    )


def label_of(moment: pd.Timestamp) -> int:
    """Return a timestamp as microseconds since the epoch, as if in UTC where it has no zone."""
    return int(moment.as_unit("us").to_datetime64().astype("int64"))


def _traded(start: int, end: int, interval: Interval, calendar: Calendar) -> Range | None:
    """Return a range from the first to the last moment at which a calendar expects bars; None for none."""
    if isinstance(calendar, AlwaysOpen):
        return start, end
    windows = None
    for near, far in ((min(end, start + FAR), max(start, end - FAR)), (end, start)):
        head = open_windows(start, near, interval, calendar)
        tail = head if far == start and near == end else open_windows(far, end, interval, calendar)
        if head and tail:
            windows = head[0][0], tail[-1][1]
            break
    return windows


def _shown(moment: Moment, interval: Interval, edge: Any) -> int:
    """Return the edge of what names a moment: in true UTC for intraday labels, else the date that it shows."""
    if not interval.is_intraday:
        moment = _without_zone(moment)
    return label_of(pd.Timestamp(edge(moment)))


def _without_zone(moment: Any) -> Any:
    try:
        stamp = pd.Timestamp(moment)
    except (ValueError, TypeError, OverflowError):
        return moment  # whoever reads it says what is wrong with it
    return moment if stamp.tz is None else stamp.tz_localize(None)


def _ceil(moment: int, interval: Interval) -> int:
    """Return the first moment, not before this one, at which a bar may begin."""
    if interval.is_intraday:
        return -(-moment // MINUTE) * MINUTE
    start = interval.floor(moment)
    return start if start == moment else interval.next(moment)


def _micros(length: pd.Timedelta) -> int:
    return length // pd.Timedelta(1, "us")


def _micros_or_none(length: pd.Timedelta | None) -> int | None:
    return None if length is None else _micros(length)
